//! Disks: a file in a directory, or a block device, used with direct I/O.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anvil_model::io::{self as seam, DeviceError, Geometry};

use crate::core::Core;
use crate::pool::Buffer;
use crate::stats::DiskStats;

/// How a disk is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The largest size that it may grow to; `None` is all that the file system or block device has.
    pub capacity_bytes: Option<u64>,
    /// Growing leaves this share of the file system free for others; 0 to 100.
    pub reserve_percent: u8,
    /// Make the directory and the file in it when they do not exist.
    pub create: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { capacity_bytes: None, reserve_percent: 5, create: false }
    }
}

/// Why a disk could not be opened. The text names the path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or this one) has it open.
    #[error("the disk {0} is in use by another process")]
    InUse(PathBuf),
    /// There is no disk at this path, and none was to be made.
    #[error("there is no disk at {0}")]
    NotFound(PathBuf),
    /// Neither a directory nor a block device.
    #[error("{0} is neither a directory nor a block device")]
    WrongKind(PathBuf),
    /// It asks for a larger alignment than 4096 bytes.
    #[error("the disk {0} asks for an alignment of {1} bytes; at most 4096 are supported")]
    Alignment(PathBuf, u32),
    /// The system refused.
    #[error("cannot {step} the disk {path}: {source}")]
    Io {
        /// Which disk.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// An open disk, locked against other processes. Shared by all cores; clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    stats: Arc<DiskStats>,
}

impl Disk {
    /// Opens the disk at `path`: a directory (the disk is the file `anvil.disk` in it) or a block device, which is
    /// used whole. Blocks; meant for the start.
    ///
    /// # Errors
    /// When it is not there, in use, or not usable.
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Self, OpenError> {
        todo!()
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// What it is like.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        todo!()
    }

    /// Bytes that may be addressed now.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> &DiskStats {
        &self.stats
    }

    /// This disk as `core` uses it. Call it once per core and clone the handle.
    #[must_use]
    pub fn device(&self, core: &Core) -> Device {
        todo!()
    }
}

/// A disk, opened on one core.
#[derive(Clone, Debug)]
pub struct Device {
    here_only: PhantomData<*const ()>,
}

impl seam::Device for Device {
    type Buffer = Buffer;

    fn geometry(&self) -> Geometry {
        todo!()
    }
    fn size_bytes(&self) -> u64 {
        todo!()
    }
    fn read(
        &self,
        offset: u64,
        buffer: Buffer,
        range: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Buffer)> + 'static {
        async { todo!() }
    }
    fn write(
        &self,
        offset: u64,
        buffer: Buffer,
        range: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Buffer)> + 'static {
        async { todo!() }
    }
    fn flush(&self) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        async { todo!() }
    }
    fn grow(&self, size_bytes: u64) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        async { todo!() }
    }
}
