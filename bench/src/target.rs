//! Where a disk is measured: a directory of our own in the path given, removed when dropped.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

use anvil_runtime::{Disk, DiskOptions};
use anyhow::{Context, bail};

/// A path that may be measured.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    /// The directory that we made and will remove; `None` for a device, or when it was removed.
    made: Option<PathBuf>,
}

impl Target {
    /// Makes a new directory in the directory `path`. A block device is taken as it is, and only with
    /// `destroy_device`.
    ///
    /// # Errors
    /// When `path` is anything else. Nothing that was there before is touched.
    pub(crate) fn claim(path: &Path, destroy_device: bool) -> anyhow::Result<Self> {
        let kind = match fs::metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("{} does not exist: name a directory on the disk to measure", path.display())
            }
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        };
        if kind.is_block_device() {
            if !destroy_device {
                bail!(
                    "{} is a block device, and measuring overwrites what is on it: say --destroy-device if that is meant",
                    path.display()
                );
            }
            return Ok(Self { path: path.to_owned(), made: None });
        }
        if !kind.is_dir() {
            bail!("{} is not a directory: name the directory that it is in", path.display());
        }
        let made = path.join(format!(".anvil-bench-{}", std::process::id()));
        // create, not create_all: a directory that is there already is somebody else's.
        DirBuilder::new()
            .mode(0o700)
            .create(&made)
            .with_context(|| format!("cannot make the directory {}", made.display()))?;
        Ok(Self { path: path.to_owned(), made: Some(made) })
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it as the server would, `size` bytes at most.
    ///
    /// # Errors
    /// When the runtime cannot use it.
    pub(crate) fn open(&self, size: u64) -> anyhow::Result<Disk> {
        let create = self.made.is_some();
        let options = DiskOptions { capacity_bytes: Some(size), create, ..DiskOptions::default() };
        Ok(Disk::open(self.made.as_ref().unwrap_or(&self.path), &options)?)
    }

    /// The block device that this is.
    pub(crate) fn device(&self) -> Option<&Path> {
        self.made.is_none().then_some(&*self.path)
    }

    /// The path of a file of this name in the directory that was made; it does not exist yet.
    ///
    /// # Errors
    /// For a block device, where there are no files.
    pub(crate) fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let made = self.made.as_ref().with_context(|| {
            format!("{} is a block device, and {name} can only be measured in a directory", self.path.display())
        })?;
        Ok(made.join(name))
    }

    /// Removes what is in the directory that was made.
    ///
    /// # Errors
    /// When something of it stays.
    pub(crate) fn empty(&self) -> anyhow::Result<()> {
        let Some(made) = &self.made else { return Ok(()) };
        for entry in fs::read_dir(made)? {
            let path = entry?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes what was made.
    ///
    /// # Errors
    /// When it cannot be removed: the user has to know.
    pub(crate) fn remove(mut self) -> anyhow::Result<()> {
        match self.made.take() {
            Some(made) => fs::remove_dir_all(&made).with_context(|| format!("cannot remove {}", made.display())),
            None => Ok(()),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(made) = &self.made
            && let Err(error) = fs::remove_dir_all(made)
        {
            eprintln!("anvil-bench: cannot remove {}: {error}", made.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("kept");
        fs::write(&kept, "mine").unwrap();
        let target = Target::claim(directory.path(), false).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        drop(target);
        assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        Target::claim(directory.path(), false).unwrap().remove().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_there_before_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "mine").unwrap();
        for wrong in [file.as_path(), Path::new("/dev/null"), &directory.path().join("missing")] {
            assert!(Target::claim(wrong, false).is_err(), "{}", wrong.display());
        }
        let first = Target::claim(directory.path(), false).unwrap();
        assert!(Target::claim(directory.path(), false).is_err(), "the directory of another run");
        drop(first);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
