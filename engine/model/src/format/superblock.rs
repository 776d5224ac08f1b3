//! The superblock: whose disk this is and how it is divided.

use super::encryption::{KEY_RING_BYTES, KeyRing};
use super::fields::{Reader, Writer};
use super::{Damage, EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, UNIT_BYTES, checksum};
use crate::ids::DiskId;
use crate::time::WallTime;

/// The version that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Features without which a disk may be read but not written. None yet.
pub const FEATURES_READ_ONLY: u64 = 0;
/// Some records are cells of blobs that are spread over disks. Who does not know it would take the shards of a window for
/// repetitions of each other. Set before the first such record is written.
pub const FEATURE_SHARDS: u64 = 1;
/// Some records are encrypted, and the superblock keeps the keys. Who does not know it would take such records for damaged,
/// and forget the keys. Set before the first key is kept.
pub const FEATURE_ENCRYPTED: u64 = 2;
/// Features without which a disk may not be touched.
pub const FEATURES_INCOMPATIBLE: u64 = FEATURE_SHARDS | FEATURE_ENCRYPTED;

const MAGIC: [u8; 8] = *b"AnvilDsk";
/// Everything lies within one sector, which a drive writes whole or not at all.
const SUPERBLOCK_BYTES: usize = 512;
const CHECKSUM_OFFSET: usize = SUPERBLOCK_BYTES - 8;
const KEYS_OFFSET: usize = CHECKSUM_OFFSET - KEY_RING_BYTES;
const FLAG_CLEAN: u32 = 1;

/// What a disk says of itself. Written to both places, one after the other, whenever it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Version of the format.
    pub format_version: u32,
    /// Features that any program may ignore.
    pub features_compatible: u64,
    /// Features that a program must know to write.
    pub features_read_only: u64,
    /// Features that a program must know to read.
    pub features_incompatible: u64,
    /// Grows with each change; of two whole copies the one with the higher generation counts.
    pub generation: u64,
    /// The disk's id.
    pub disk: DiskId,
    /// The cluster or embedded node whose disk it is.
    pub cluster: u128,
    /// Size of every extent.
    pub extent_bytes: u32,
    /// So many extents are allocated, zeroed before their first use, and may hold records.
    pub extents_prepared: u32,
    /// The last life ended with a clean close. Informs; nothing is skipped because of it.
    pub clean: bool,
    /// When the disk was formatted.
    pub formatted_at: WallTime,
    /// How far scrub has come.
    pub scrub: ScrubMark,
    /// The last start of the node that this disk was there for, counted from 1; 0 before the first. Each start counts on
    /// from the highest that it finds, and is durable on all disks before anything is written in it.
    pub start: u64,
    /// Drawn at that start, the same on all disks that were there: of two starts with one number neither knew the other.
    pub start_id: u128,
    /// The keys of what is encrypted here, and of all else that this node encrypts. None without [`FEATURE_ENCRYPTED`].
    pub keys: KeyRing,
}

/// Where scrub goes on after a restart. A hint: nothing is believed to be whole because of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubMark {
    /// When the last pass began; none before the first.
    pub pass_began: Option<WallTime>,
    /// When a pass ended last.
    pub pass_ended: Option<WallTime>,
    /// The extent that comes next in a pass that has not ended; 0 when none is under way.
    pub next_extent: u32,
}

impl Superblock {
    /// Fills one unit.
    ///
    /// # Panics
    /// When `unit` is not one unit.
    pub fn encode(&self, unit: &mut [u8]) {
        assert_eq!(unit.len(), UNIT_BYTES, "a superblock fills one unit");
        let keeps_keys = self.features_incompatible & FEATURE_ENCRYPTED != 0;
        assert!(keeps_keys || self.keys.is_empty(), "a program that does not know of keys would forget them");
        unit.fill(0);
        Writer::new(unit)
            .put(&MAGIC)
            .u32(self.format_version)
            .u32(if self.clean { FLAG_CLEAN } else { 0 })
            .u64(self.features_compatible)
            .u64(self.features_read_only)
            .u64(self.features_incompatible)
            .u64(self.generation)
            .u128(self.disk.0)
            .u128(self.cluster)
            .u32(self.extent_bytes)
            .u32(self.extents_prepared)
            .u64(self.formatted_at.unix_ms)
            .u64(or_zero(self.scrub.pass_began))
            .u64(or_zero(self.scrub.pass_ended))
            .u32(self.scrub.next_extent)
            .u32(0)
            .u64(self.start)
            .u128(self.start_id);
        self.keys.encode(&mut unit[KEYS_OFFSET..CHECKSUM_OFFSET]);
        let sum = checksum(&unit[..CHECKSUM_OFFSET]);
        Writer::new(&mut unit[CHECKSUM_OFFSET..]).u64(sum);
    }

    /// Reads what [`Self::encode`] wrote, of any version and with any features: these the caller judges.
    ///
    /// # Errors
    /// When the bytes are no whole superblock.
    pub fn decode(unit: &[u8]) -> Result<Self, Damage> {
        if !Self::begins(unit) {
            return Err(Damage::Absent);
        }
        let covered = unit.get(..CHECKSUM_OFFSET).ok_or(Damage::Absent)?;
        if Reader::new(&unit[CHECKSUM_OFFSET..]).u64() != Some(checksum(covered)) {
            return Err(Damage::Checksum);
        }
        let superblock = Self::fields(covered).ok_or(Damage::Impossible)?;
        // A newer format may mean something else by the later fields.
        let known = superblock.format_version <= FORMAT_VERSION;
        let sizes = EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX;
        let possible = sizes.contains(&superblock.extent_bytes)
            && (superblock.extent_bytes as usize).is_multiple_of(UNIT_BYTES)
            && superblock.format_version >= 1;
        if known && !possible { Err(Damage::Impossible) } else { Ok(superblock) }
    }

    /// True when the bytes begin as a superblock does, whole or not.
    #[must_use]
    pub fn begins(unit: &[u8]) -> bool {
        unit.starts_with(&MAGIC)
    }

    fn fields(covered: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(covered);
        reader.take(MAGIC.len())?;
        let format_version = reader.u32()?;
        let flags = reader.u32()?;
        let (features_compatible, features_read_only) = (reader.u64()?, reader.u64()?);
        let features_incompatible = reader.u64()?;
        let keeps_keys = features_incompatible & FEATURE_ENCRYPTED != 0;
        let keys = if keeps_keys { KeyRing::decode(covered.get(KEYS_OFFSET..)?)? } else { KeyRing::default() };
        Some(Self {
            format_version,
            features_compatible,
            features_read_only,
            features_incompatible,
            generation: reader.u64()?,
            disk: DiskId(reader.u128()?),
            cluster: reader.u128()?,
            extent_bytes: reader.u32()?,
            extents_prepared: reader.u32()?,
            formatted_at: WallTime { unix_ms: reader.u64()? },
            scrub: ScrubMark {
                pass_began: unless_zero(reader.u64()?),
                pass_ended: unless_zero(reader.u64()?),
                next_extent: reader.u32()?,
            },
            start: reader.take(4).and_then(|_| reader.u64())?,
            start_id: reader.u128()?,
            keys,
            clean: flags & FLAG_CLEAN != 0,
        })
    }
}

fn or_zero(time: Option<WallTime>) -> u64 {
    time.map_or(0, |time| time.unix_ms)
}

fn unless_zero(unix_ms: u64) -> Option<WallTime> {
    (unix_ms > 0).then_some(WallTime { unix_ms })
}
