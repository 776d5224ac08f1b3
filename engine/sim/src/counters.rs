//! Structs of counters, which add up and are told by name.

/// Makes a struct of counters.
macro_rules! counters {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$what:meta])* pub $counter:ident: u64,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$what])* pub $counter: u64,)*
        }

        impl $name {
            /// Adds those of another one.
            pub fn add(&mut self, other: &Self) {
                $(self.$counter += other.$counter;)*
            }

            /// Each counter under its name.
            pub fn by_name(&mut self) -> Vec<(&'static str, &mut u64)> {
                vec![$((stringify!($counter), &mut self.$counter)),*]
            }
        }
    };
}

pub(crate) use counters;
