//! Lists of methods, by their paths.

/// Declares the methods of a service: an enum, the path of each, and which of them stream.
macro_rules! methods {
    ($service:literal: $($name:ident $($streams:ident)?,)*) => {
        /// Its methods.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named as in the .proto file")]
        pub enum Method {
            $($name,)*
        }

        impl Method {
            /// The method of a path.
            #[must_use]
            pub fn find(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", stringify!($name)) => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its name in the .proto file.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Whether its messages stream, so that nobody can say how long it takes.
            #[must_use]
            pub fn streams(self) -> bool {
                match self {
                    $(Self::$name => false $(|| $crate::grpc::methods::$streams)?,)*
                }
            }

            #[cfg(test)]
            const NAMES: &[&str] = &[$(stringify!($name),)*];
        }
    };
}

pub(super) use methods;

#[allow(non_upper_case_globals, reason = "a word of the list")]
pub(super) const streams: bool = true;

/// The methods that a .proto file declares.
#[cfg(test)]
pub(super) fn declared(file: &str) -> Vec<&str> {
    let lines = file.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    lines.map(|line| line.split('(').next().unwrap()).collect()
}
