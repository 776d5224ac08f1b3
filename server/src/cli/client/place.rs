//! What the words of a command name: objects, files, or the standard streams.

use std::convert::Infallible;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// An object, or all of a bucket whose keys begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Remote {
    pub(super) bucket: String,
    /// Empty for a bucket as a whole.
    pub(super) key: String,
}

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").ok_or_else(|| format!("{text:?} is not s3://BUCKET/KEY"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(format!("{text:?} names no bucket: s3://BUCKET/KEY is meant"));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl Remote {
    /// Whether it names many objects: a bucket, or what is called like a directory.
    pub(super) fn is_prefix(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    /// With something behind its key.
    pub(super) fn join(&self, name: &str) -> Self {
        Self { bucket: self.bucket.clone(), key: self.key.clone() + name }
    }

    /// As a directory: its key ends with a slash, or is empty.
    pub(super) fn as_directory(&self) -> Self {
        if self.is_prefix() { self.clone() } else { self.join("/") }
    }

    /// What stands behind the last slash.
    pub(super) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// Where bytes come from or go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Place {
    /// `-`: stdin or stdout.
    Stream,
    File(PathBuf),
    Object(Remote),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::Stream),
            "" => Err("an empty word names no file".to_owned()),
            _ if text.starts_with("s3://") => text.parse().map(Self::Object),
            _ => text.parse::<PathBuf>().map(Self::File).map_err(|error: Infallible| match error {}),
        }
    }
}

/// The path below a directory that a key, or the end of one, stands for. `None` where it would lie elsewhere or has no name:
/// keys are written by others.
pub(super) fn path_below(directory: &Path, key: &str) -> Option<PathBuf> {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if !key.split('/').all(is_plain) {
        return None;
    }
    let below = Path::new(key);
    below.components().all(|part| matches!(part, Component::Normal(_))).then(|| directory.join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_objects_files_and_streams() {
        let remote = |bucket: &str, key: &str| Remote { bucket: bucket.to_owned(), key: key.to_owned() };
        assert_eq!("s3://b/a/c d".parse(), Ok(remote("b", "a/c d")));
        assert_eq!("s3://b".parse(), Ok(remote("b", "")));
        assert_eq!("s3://b//x".parse(), Ok(remote("b", "/x")));
        assert!(["b/k", "s3:/b/k", "s3://", "s3:///k"].iter().all(|wrong| wrong.parse::<Remote>().is_err()));
        assert_eq!("-".parse(), Ok(Place::Stream));
        assert_eq!("./-".parse(), Ok(Place::File("./-".into())));
        assert_eq!("s3://b/k".parse(), Ok(Place::Object(remote("b", "k"))));
    }

    #[test]
    fn no_key_leads_out_of_a_directory() {
        let below = |key| path_below(Path::new("/d"), key);
        assert_eq!(below("a/b.txt"), Some("/d/a/b.txt".into()));
        for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "..", "a\0b"] {
            assert_eq!(below(key), None, "{key:?}");
        }
    }
}
