//! Finding everything again: what a start reads from the disks before the first request.

use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::{DeviceError, World};

use crate::disk::IdentifyError;
use crate::log::{LogTail, RecoveredLog};

/// What a core owns of the disks after recovery. Sent to that core and opened there.
#[derive(Debug)]
pub struct Share {}

/// What recovery found.
pub struct Recovered<W: World> {
    /// The metadata log, readable in order.
    pub log: RecoveredLog<W>,
    /// What was read and what was wrong.
    pub report: RecoveryReport,
}

/// What was read at a start and what was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Disks.
    pub disks: usize,
    /// Extents in use.
    pub extents: u64,
    /// Of these, read whole because they had no footer.
    pub extents_scanned: u64,
    /// Records found, those of the log included.
    pub records: u64,
    /// Bytes read by these scans.
    pub scanned_bytes: u64,
    /// Blobs of which a record is there but damaged: torn by the crash and unacknowledged, or rotten.
    pub damaged: Vec<BlobId>,
    /// True when every disk was closed cleanly.
    pub clean: bool,
}

/// Why the disks cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The superblock cannot be used.
    #[error("disk {disk}: {source}")]
    Identify {
        /// Which disk.
        disk: DiskId,
        /// Why.
        source: IdentifyError,
    },
    /// The device holds no Anvil disk, or another one.
    #[error("disk {0} is not on its device")]
    NotThisDisk(DiskId),
    /// The device has become smaller than what was written to it.
    #[error("disk {disk} has shrunk: {found_bytes} bytes are there, {needed_bytes} were in use")]
    Shrunk {
        /// Which disk.
        disk: DiskId,
        /// What is there.
        found_bytes: u64,
        /// What must be there.
        needed_bytes: u64,
    },
    /// A device failed.
    #[error("disk {disk}: {source}")]
    Device {
        /// Which disk.
        disk: DiskId,
        /// How.
        source: DeviceError,
    },
}

/// Reads all disks of a node and makes what it finds durable. Runs on one core, before any store is open.
///
/// # Errors
/// When a disk cannot be used as it is.
pub async fn recover<W: World>(
    world: &W,
    devices: Vec<(DiskId, W::Device)>,
    core_count: u16,
) -> Result<Recovered<W>, RecoverError> {
    todo!()
}

impl<W: World> Recovered<W> {
    /// True when bytes `0..length` of the blob are all there and were written whole: verified by this recovery, or
    /// flushed before their extent was sealed.
    #[must_use]
    pub fn holds(&self, blob: BlobId, length: u64) -> bool {
        todo!()
    }

    /// One share per core, in the order of cores, and where the log goes on. Replay the log before this.
    #[must_use]
    pub fn into_shares(self) -> (Vec<Share>, LogTail) {
        todo!()
    }
}
