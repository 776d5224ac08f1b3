//! The data directory: small files of a node, and the right to use them.
//!
//! Small files, each replaced as a whole: written beside, synced, renamed, and the directory synced; a crash leaves the
//! old one or the new one. The directory is for its owner only (0700), and so is every file (0600). One process at a time
//! holds the directory.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked while it is open.
    _lock: File,
}

/// Why the data directory cannot be used. Each text is one sentence that names the path.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error("the data directory {0} is in use by another anvil process")]
    InUse(PathBuf),
    /// The system refused.
    #[error("cannot {step} {path}: {source}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of ours that nobody of us wrote like this.
    #[error("{path} is damaged ({what}): restore it from a backup, or move it away if you know what it held")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file of a later version.
    #[error("{path} has version {found}, and this program reads version {FILE_VERSION}: use the newer program")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
}

impl DataDir {
    /// Makes the directory if it is not there, and holds it.
    ///
    /// # Errors
    /// When another process holds it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let fail = |step, path: &Path, source| DataDirError::Io { step, path: path.to_owned(), source };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| fail("make the data directory", path, source))?;
        let path = path.canonicalize().map_err(|source| fail("find the data directory", path, source))?;
        let lock_path = path.join("lock");
        let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = options.map_err(|source| fail("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(fail("lock", &lock_path, source)),
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .map_err(|source| fail("take away the rights of others on", &path, source))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of this directory; `None` when it is not there.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataDirError> {
        read(&self.path.join(name))
    }

    /// Replaces a file of this directory, durably.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DataDirError> {
        let mut text = serde_json::to_string_pretty(value).expect("plain structs become JSON");
        text.push('\n');
        let (path, beside) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let fail = |step| {
            let path = path.clone();
            move |source| DataDirError::Io { step, path, source }
        };
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("replace")(error)),
            _ => {}
        }
        let opened = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside);
        let mut file = opened.map_err(fail("write"))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail("write"))?;
        fs::rename(&beside, &path).map_err(fail("replace"))?;
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(fail("sync the directory of"))
    }

    /// Removes a file of this directory, durably.
    pub(crate) fn remove(&self, name: &str) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let fail = |step| {
            let path = path.clone();
            move |source| DataDirError::Io { step, path, source }
        };
        fs::remove_file(&path).map_err(fail("remove"))?;
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(fail("sync the directory of"))
    }
}

/// Reads a file of a data directory, also of one that another process holds: it is replaced as a whole. `None` when it is
/// not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DataDirError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirError::Io { step: "read", path: path.to_owned(), source }),
    };
    let damaged = |error: serde_json::Error| DataDirError::Damaged { path: path.to_owned(), what: error.to_string() };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version > FILE_VERSION {
        return Err(DataDirError::Newer { path: path.to_owned(), found: version });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// What every file begins with.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Version of the files in the directory.
pub(crate) const FILE_VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Kept {
        version: u32,
        number: u32,
    }

    const FILE: &str = "kept.json";

    fn kept(number: u32) -> Kept {
        Kept { version: FILE_VERSION, number }
    }

    fn temporary() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/data");
        (directory, path)
    }

    #[test]
    fn a_file_survives_and_is_its_owners_only() {
        let (_directory, path) = temporary();
        {
            let data = DataDir::open(&path).unwrap();
            assert_eq!(data.read::<Kept>(FILE).unwrap(), None);
            data.write(FILE, &kept(1)).unwrap();
            data.write(FILE, &kept(2)).unwrap();
        }
        let data = DataDir::open(&path).unwrap();
        assert_eq!(data.read(FILE).unwrap(), Some(kept(2)));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(FILE)), 0o600);
    }

    #[test]
    fn one_process_holds_it() {
        let (_directory, path) = temporary();
        let held = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(_))));
        drop(held);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn a_write_that_was_cut_short_leaves_the_old_file() {
        let (_directory, path) = temporary();
        let data = DataDir::open(&path).unwrap();
        data.write(FILE, &kept(7)).unwrap();
        fs::write(path.join(format!("{FILE}.new")), "{\"vers").unwrap();
        assert_eq!(data.read(FILE).unwrap(), Some(kept(7)));
        data.write(FILE, &kept(8)).unwrap();
        assert_eq!(data.read(FILE).unwrap(), Some(kept(8)));
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_and_named() {
        let (_directory, path) = temporary();
        let data = DataDir::open(&path).unwrap();
        for (text, expected) in [
            ("", "damaged"),
            ("{}", "damaged"),
            (r#"{"version":1,"number":"x"}"#, "damaged"),
            (r#"{"version":2,"other":3}"#, "version 2"),
        ] {
            fs::write(path.join(FILE), text).unwrap();
            let error = data.read::<Kept>(FILE).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(FILE), "{error}");
        }
    }
}
