//! The bytes on a disk: pure encoding and decoding, described byte by byte in `docs/FORMAT.md`.
//!
//! Invariants of every structure here:
//! - It begins with a magic number and is covered by a checksum (CRC64NVME), which is verified before anything else in
//!   it is believed.
//! - It says where it belongs (disk, extent, life of that extent, position), so that bytes which are whole but lie in
//!   the wrong place, or were left by a former life of the place, are not taken for valid.
//! - Numbers are little-endian. What is reserved is zero.
//! - Decoding takes any bytes, never panics, and allocates no more than the structure's stated maximum.

mod encryption;
mod extent;
mod fields;
mod footer;
mod record;
mod roster;
mod superblock;

use crate::ids::DiskId;
use crate::limits::RECORD_HEADER_BYTES_MAX;

pub use encryption::{Encryption, KEYS_MAX, KeyRing, SALT_BYTES, TAG_BYTES, TooManyKeys, WrappedKey};
pub use extent::{ExtentHeader, ExtentKind};
pub use footer::{FOOTER_ENTRY_BYTES, FooterEntry, FooterTrailer, encode_footer, footer_bytes};
pub use record::{
    Extras, LARGE_PAYLOAD_OFFSET, Origin, OriginPayload, RECORD_MAGIC, RecordHeader, SMALL_RECORD_BYTES_MAX, Subject,
    record_header_bytes,
};
pub use roster::Roster;
pub use superblock::{
    FEATURE_ENCRYPTED, FEATURE_SHARDS, FEATURES_INCOMPATIBLE, FEATURES_READ_ONLY, FORMAT_VERSION, ScrubMark, Superblock,
};

/// Everything on a disk is written in multiples of this, whatever smaller unit the device would allow, so that a disk
/// may move to a device with another unit.
pub const UNIT_BYTES: usize = 4096;
/// Where the copies of the superblock lie.
pub const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 512 << 10];
/// Where extent 0 begins.
pub const EXTENTS_OFFSET: u64 = 1 << 20;
/// The smallest extent: one full record with header, footer and a little room.
pub const EXTENT_BYTES_MIN: u32 = (1 << 20) + (64 << 10);
/// The largest extent: offsets in it fit 32 bits.
pub const EXTENT_BYTES_MAX: u32 = 1 << 30;

const _: () = assert!(RECORD_HEADER_BYTES_MAX == UNIT_BYTES, "a large record's header fills one unit");
const _: () = assert!((EXTENT_BYTES_MIN as usize).is_multiple_of(UNIT_BYTES), "extents are tiled by units");

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// They do not begin with the magic number of the structure.
    #[error("no structure of this kind begins here")]
    Absent,
    /// The checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
    /// The checksum is right but a field has a value that nothing ever wrote.
    #[error("a field has an impossible value")]
    Impossible,
}

/// One life of one extent: what all structures in it are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExtentName {
    /// Of which disk.
    pub disk: DiskId,
    /// Which one, counted from the disk's beginning.
    pub extent: u32,
    /// Drawn at random, never 0, each time that the extent is put to use.
    pub incarnation: u64,
}

/// The checksum of all structures and payloads: CRC64NVME.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

/// `bytes` rounded up to whole units.
#[must_use]
pub const fn in_units(bytes: usize) -> usize {
    bytes.next_multiple_of(UNIT_BYTES)
}

/// Where an extent begins on its disk.
#[must_use]
pub fn extent_offset(extent: u32, extent_bytes: u32) -> u64 {
    EXTENTS_OFFSET + u64::from(extent) * u64::from(extent_bytes)
}

#[cfg(test)]
mod tests;
