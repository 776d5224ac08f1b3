//! Floor 1: the disks of a node as log-structured stores.
//!
//! Knows no network, no object, no version: it keeps blobs (and the metadata log) on disks, says when they are
//! durable, and finds them again after any crash. Called by `node` only. Its bytes are described in `docs/FORMAT.md`.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables, clippy::unused_async)]

pub mod disk;
mod log;
mod mail;
mod recover;

use std::ops::Range;

use anvil_model::ids::{BlobId, DiskId, Incarnation, NodeId, TenantId};
use anvil_model::io::{DeviceError, World};
use anvil_model::time::WallTime;

pub use disk::{DiskIdentity, FormatError, FormatOptions, IdentifyError, Identity, extent_bytes, format, identify};
pub use log::{LOG_PAYLOAD_BYTES_MAX, LogError, LogReader, LogRecord, LogTail, LogWriter, RecoveredLog};
pub use mail::{Mail, mail};
pub use recover::{RecoverError, Recovered, RecoveryReport, Share, recover};

/// Where a blob was first put: enough to salvage plain PUTs when all metadata is lost. Decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whose.
    pub tenant: TenantId,
    /// In which bucket.
    pub bucket: String,
    /// Under which key.
    pub key: String,
    /// When, by the clock on the wall.
    pub at: WallTime,
}

/// One window of a large blob: payload in `buffer[RECORD_HEADER_BYTES_MAX..][..length]`, room for the record header
/// in front of it. Windows of one blob begin at multiples of `RECORD_PAYLOAD_BYTES_MAX`, and all but the last are full.
#[derive(Debug)]
pub struct Window<B> {
    /// Of which blob.
    pub blob: BlobId,
    /// Where the payload begins in the blob: a multiple of `RECORD_PAYLOAD_BYTES_MAX`.
    pub offset: u64,
    /// Payload bytes, at least 1.
    pub length: usize,
    /// The bytes.
    pub buffer: B,
}

/// Verified bytes of a blob: `buffer[range]`.
#[derive(Debug)]
pub struct Piece<B> {
    /// Holds the bytes.
    pub buffer: B,
    /// Which of them.
    pub range: Range<usize>,
}

/// Why an append did not happen. Nothing of it is acknowledged; a later sweep takes what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk has no free extent left.
    #[error("the disk is full")]
    Full,
    /// The device failed; the extent is sealed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No record of this blob covers the offset.
    #[error("blob {0} has no record at this offset")]
    Missing(BlobId),
    /// The record's checksum or identity is wrong.
    #[error("blob {0} is damaged on disk")]
    Corrupt(BlobId),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The core that knows the places is shutting down.
    #[error("the store is closing")]
    Closing,
}

/// One core's share of the node's disks. Cheap to clone; clones are the same store.
pub struct Store<W: World> {
    world: W,
}

impl<W: World> Clone for Store<W> {
    fn clone(&self) -> Self {
        todo!()
    }
}

impl<W: World> Store<W> {
    /// Opens this core's share: `devices` are the disks given to [`recover`], in the same order, opened on this core.
    /// Starts the task that answers the other cores; it runs until [`Self::close`].
    pub fn open(world: W, devices: Vec<(DiskId, W::Device)>, share: Share, mail: Mail) -> Self {
        todo!()
    }

    /// Says whose blobs this store writes from now on. Before the first [`Self::new_blob`], once, on every core.
    pub fn set_writer(&self, node: NodeId, incarnation: Incarnation) {
        todo!()
    }

    /// Ends this store: waits for appends that run, flushes, serves the other cores until they have closed too, and
    /// marks the disks clean. Call it on all cores at the same time; appends after it fail.
    pub async fn close(&self) {
        todo!()
    }

    /// What this core knows of the store at this moment; the node's figures are the sums over its cores.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// A new blob id, at home on this core.
    ///
    /// # Panics
    /// Before [`Self::set_writer`].
    pub fn new_blob(&self) -> BlobId {
        todo!()
    }

    /// The disk that a new blob should go to: the one with the most free space.
    pub fn place(&self) -> DiskId {
        todo!()
    }

    /// Writes one window of a blob to this core's open extent on `disk`. Completes when the device has written it;
    /// durable only after a later [`Self::flush`]. Several may be in flight. `origin` goes with the first window.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn append(
        &self,
        disk: DiskId,
        origin: Option<&Origin>,
        window: Window<W::Buffer>,
    ) -> Result<(), AppendError> {
        todo!()
    }

    /// Packs a small blob (1 to `SMALL_BLOB_BYTES_MAX` bytes) with others of this moment into one write. Completes
    /// and is durable like [`Self::append`].
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn append_small(
        &self,
        disk: DiskId,
        origin: &Origin,
        blob: BlobId,
        payload: Vec<u8>,
    ) -> Result<(), AppendError> {
        todo!()
    }

    /// Makes all appends that completed before this call durable on these disks, together with the flushes that
    /// other cores want at this moment.
    ///
    /// # Errors
    /// When a flush fails: then nothing that it would have covered may be acknowledged.
    pub async fn flush(&self, disks: &[DiskId]) -> Result<(), DeviceError> {
        todo!()
    }

    /// Reads from `range.start` to the end of the record that holds it, or to `range.end` if that is nearer, verified
    /// against its checksums. Records end at multiples of `RECORD_PAYLOAD_BYTES_MAX`, so a caller can ask for several
    /// pieces at once. Asks the blob's home core for the place when that is another one.
    ///
    /// # Errors
    /// When the bytes are missing, damaged or unreadable; never wrong bytes.
    pub async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Piece<W::Buffer>, ReadError> {
        todo!()
    }
}

/// One core's figures; see [`Store::stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries of the index on this core.
    pub index_entries: u64,
    /// Memory of these entries.
    pub index_bytes: u64,
    /// Per disk, in the order given at open.
    pub disks: Vec<DiskStats>,
}

/// One core's figures of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStats {
    /// Which.
    pub disk: DiskId,
    /// Appends (windows, small blobs, log records) that completed on this core since its start.
    pub appends: u64,
    /// Bytes that these wrote, headers and padding included.
    pub appended_bytes: u64,
    /// Device writes that these took.
    pub writes: u64,
    /// The disk as a whole; only on the disk's home core.
    pub space: Option<DiskSpace>,
    /// The error after which nothing more is written to this disk in this life.
    pub failed: Option<DeviceError>,
}

/// The space of a disk and who uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What the disk may grow to.
    pub capacity_bytes: u64,
    /// Taken from the file system or device so far.
    pub prepared_bytes: u64,
    /// Bytes in extents that hold or may hold records.
    pub used_bytes: u64,
    /// Prepared extents that are free.
    pub free_extents: u64,
    /// Flushes of the device since start.
    pub flushes: u64,
}
