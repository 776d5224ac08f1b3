//! What one durable write costs without the engine: `pwrite(2)` to a file that was opened with O_DSYNC.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::Context;
use nix::fcntl::OFlag;

use crate::target::Target;

/// A file of its own, allocated and written, or a block device.
#[derive(Debug)]
pub(super) struct Durable {
    file: File,
}

/// Addresses that are used.
pub(super) const DURABLE_BYTES: u64 = 16 << 20;

impl Durable {
    /// Opens it with direct I/O, or without where the file system has none.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub(super) fn open(target: &Target) -> anyhow::Result<Self> {
        let path = match target.device() {
            Some(device) => device.to_owned(),
            None => {
                let path = target.file("durable")?;
                let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
                let zeros = vec![0; 1 << 20];
                for offset in (0..DURABLE_BYTES).step_by(zeros.len()) {
                    file.write_all_at(&zeros, offset).context("cannot write a file for durable writes")?;
                }
                file.sync_all()?;
                path
            }
        };
        let open = |flags: OFlag| File::options().write(true).custom_flags(flags.bits()).open(&path);
        let file = open(OFlag::O_DIRECT | OFlag::O_DSYNC).or_else(|error| match error.kind() {
            io::ErrorKind::InvalidInput => open(OFlag::O_DSYNC),
            _ => Err(error),
        });
        Ok(Self { file: file.context("cannot open a file for durable writes")? })
    }

    /// Writes, and returns when the bytes are durable. Blocks.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}
