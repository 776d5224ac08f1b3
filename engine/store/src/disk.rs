//! A disk before the store runs on it: whose is it, and how a blank one becomes ours.

use anvil_model::ids::DiskId;
use anvil_model::io::{DeviceError, World};

/// What the first bytes of a device say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing but zeros where an owner would have left a mark (or a format that was cut short before its end).
    Blank,
    /// A disk of ours.
    Anvil(DiskIdentity),
    /// Somebody else's bytes.
    Foreign,
}

/// What a superblock says of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    /// Drawn when the disk was formatted.
    pub disk: DiskId,
    /// The cluster (or embedded node) that it was formatted for.
    pub cluster: u128,
    /// Size of every extent.
    pub extent_bytes: u64,
    /// Version of the format.
    pub format_version: u32,
    /// Extents that are allocated and zeroed.
    pub extents_prepared: u32,
    /// True when the last life ended with a clean close.
    pub clean: bool,
}

/// Why a disk was not identified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// Ours once, but neither copy of the superblock is whole.
    #[error("both copies of the superblock are damaged")]
    Damaged,
    /// Written by a newer program.
    #[error("the disk has format version {found}, this program reads up to {newest}")]
    NewerFormat {
        /// On the disk.
        found: u32,
        /// Understood here.
        newest: u32,
    },
    /// Uses features that this program does not have.
    #[error("the disk uses features {0:#x} that this program does not have")]
    UnknownFeatures(u64),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// How a disk is to be formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// Its id, drawn at random by the caller.
    pub disk: DiskId,
    /// Whose it is: the cluster, or the embedded node.
    pub cluster: u128,
    /// Size of every extent; see [`extent_bytes`].
    pub extent_bytes: u64,
}

/// Why a disk was not formatted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The device holds something; only a blank one is formatted.
    #[error("the device is not blank")]
    NotBlank,
    /// The device may not grow to hold even a few extents.
    #[error("the disk has {capacity_bytes} bytes, too few; {needed_bytes} are needed at least")]
    TooSmall {
        /// What the device may grow to.
        capacity_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Reads whose disk this is. Writes nothing.
///
/// # Errors
/// When the disk is ours but damaged, newer, or cannot be read.
pub async fn identify<W: World>(world: &W, device: &W::Device) -> Result<Identity, IdentifyError> {
    todo!()
}

/// Makes a blank device ours.
///
/// # Errors
/// When it is not blank, too small, or fails.
pub async fn format<W: World>(world: &W, device: &W::Device, options: FormatOptions) -> Result<(), FormatError> {
    todo!()
}

/// The extent size that suits a disk of this capacity: 64 MiB, less on disks below 4 GiB.
#[must_use]
pub fn extent_bytes(capacity_bytes: u64) -> u64 {
    todo!()
}
