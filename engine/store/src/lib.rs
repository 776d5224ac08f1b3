//! Floor 1: the disks of a node as log-structured stores.
//!
//! Knows no network, no object, no version: it keeps blobs (and the metadata log) on disks, says when they are
//! durable, and finds them again after any crash. Called by `node` only. Its bytes are described in `docs/FORMAT.md`.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables, clippy::unused_async)]

use std::ops::Range;

use anvil_model::ids::{BlobId, DiskId, TenantId};
use anvil_model::io::{DeviceError, World};
use anvil_model::time::WallTime;

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

impl<W: World> Store<W> {
    /// A new blob id, at home on this core.
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
