//! The roster: the disks that belong together, in the superblock of each of them.
//!
//! A node whose data directory is lost learns from it which disks are missing, so that nothing blank is taken for a new
//! disk while an old one is only not mounted, and which were given up, so that what they held is made again.

use super::fields::{Reader, Writer};
use super::{Damage, UNIT_BYTES, checksum};
use crate::ids::DiskId;
use crate::limits::ROSTER_DISKS_MAX;

const MAGIC: [u8; 8] = *b"AnvilRos";
/// Behind the superblock, in the same unit.
const ROSTER_OFFSET: usize = 512;
const CHECKSUM_OFFSET: usize = UNIT_BYTES - 8;

const _: () = assert!(
    ROSTER_OFFSET + MAGIC.len() + 16 + 2 * ROSTER_DISKS_MAX * size_of::<DiskId>() <= CHECKSUM_OFFSET,
    "a full roster fits its unit"
);

/// The disks of a node. Of several the one with the highest generation counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Grows with each change; 0 for none.
    pub generation: u64,
    /// Those that belong to the node, there or missing. At most [`ROSTER_DISKS_MAX`].
    pub disks: Vec<DiskId>,
    /// Those that were given up and may still be named by rows of the metadata. At most [`ROSTER_DISKS_MAX`].
    pub lost: Vec<DiskId>,
}

impl Roster {
    /// True when nothing was ever written down.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.generation == 0
    }

    /// Writes it into the superblock's unit, behind the superblock.
    ///
    /// # Panics
    /// When `unit` is not one unit, or there are too many disks.
    pub fn encode(&self, unit: &mut [u8]) {
        assert_eq!(unit.len(), UNIT_BYTES, "a roster shares its unit with the superblock");
        unit[ROSTER_OFFSET..].fill(0);
        if self.is_none() {
            return;
        }
        let [disks, lost] = [&self.disks, &self.lost].map(|list| {
            assert!(list.len() <= ROSTER_DISKS_MAX, "a roster of {} disks", list.len());
            u32::try_from(list.len()).expect("at most a few")
        });
        let mut writer = Writer::new(&mut unit[ROSTER_OFFSET..]);
        writer.put(&MAGIC).u64(self.generation).u32(disks).u32(lost);
        for disk in self.disks.iter().chain(&self.lost) {
            writer.u128(disk.0);
        }
        let sum = checksum(&unit[ROSTER_OFFSET..CHECKSUM_OFFSET]);
        Writer::new(&mut unit[CHECKSUM_OFFSET..]).u64(sum);
    }

    /// Reads what [`Self::encode`] wrote. A unit without one, as older programs leave it, holds none.
    ///
    /// # Errors
    /// When what is there is no whole roster.
    pub fn decode(unit: &[u8]) -> Result<Self, Damage> {
        let covered = unit.get(ROSTER_OFFSET..CHECKSUM_OFFSET).ok_or(Damage::Absent)?;
        if !covered.starts_with(&MAGIC) {
            return if covered.iter().all(|&byte| byte == 0) { Ok(Self::default()) } else { Err(Damage::Absent) };
        }
        if Reader::new(&unit[CHECKSUM_OFFSET..]).u64() != Some(checksum(covered)) {
            return Err(Damage::Checksum);
        }
        Self::fields(&covered[MAGIC.len()..]).ok_or(Damage::Impossible)
    }

    fn fields(fields: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(fields);
        let generation = reader.u64().filter(|&generation| generation > 0)?;
        let counts = [reader.u32()?, reader.u32()?];
        let [disks, lost] = counts.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        if disks > ROSTER_DISKS_MAX || lost > ROSTER_DISKS_MAX {
            return None;
        }
        let mut list = |count| (0..count).map(|_| reader.u128().map(DiskId)).collect::<Option<Vec<_>>>();
        Some(Self { generation, disks: list(disks)?, lost: list(lost)? })
    }
}
