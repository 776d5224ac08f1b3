//! The first unit of an extent in use: which extent, which life of it, for what.

use super::fields::{Reader, Writer};
use super::{Damage, ExtentName, UNIT_BYTES, checksum};
use crate::ids::DiskId;
use crate::time::WallTime;

const MAGIC: [u8; 8] = *b"AnvilExt";
/// Everything lies within one sector, which a drive writes whole or not at all.
const HEADER_BYTES: usize = 512;
const CHECKSUM_OFFSET: usize = HEADER_BYTES - 8;

/// What an extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Records of blobs.
    Data,
    /// Records of the metadata log. `sequence` counts the extents of the log in the order in which they were begun.
    Log {
        /// The place in that order.
        sequence: u64,
    },
    /// Nothing that counts: the extent was given back, and the incarnation is that of the life that ended. What lies
    /// behind the header is left from it.
    Free,
}

/// Written before the first record of the extent's life, and durable with the first flush that covers one; written once
/// more, as free, when that life has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHeader {
    /// Which extent, and which life of it.
    pub name: ExtentName,
    /// What it holds.
    pub kind: ExtentKind,
    /// When it was put to use, by the clock on the wall. For people.
    pub begun_at: WallTime,
}

impl ExtentHeader {
    /// Fills one unit.
    ///
    /// # Panics
    /// When `unit` is not one unit.
    pub fn encode(&self, unit: &mut [u8]) {
        assert_eq!(unit.len(), UNIT_BYTES, "an extent header fills one unit");
        assert_ne!(self.name.incarnation, 0, "incarnations are drawn from the others");
        unit.fill(0);
        let (kind, sequence) = match self.kind {
            ExtentKind::Data => (1, 0),
            ExtentKind::Log { sequence } => (2, sequence),
            ExtentKind::Free => (3, 0),
        };
        Writer::new(unit)
            .put(&MAGIC)
            .u128(self.name.disk.0)
            .u64(self.name.incarnation)
            .u32(self.name.extent)
            .u32(kind)
            .u64(sequence)
            .u64(self.begun_at.unix_ms);
        let sum = checksum(&unit[..CHECKSUM_OFFSET]);
        Writer::new(&mut unit[CHECKSUM_OFFSET..]).u64(sum);
    }

    /// Reads what [`Self::encode`] wrote. Whether the name is that of the place, the caller compares.
    ///
    /// # Errors
    /// When the bytes are no whole extent header.
    pub fn decode(unit: &[u8]) -> Result<Self, Damage> {
        if !unit.starts_with(&MAGIC) {
            return Err(Damage::Absent);
        }
        let covered = unit.get(..CHECKSUM_OFFSET).ok_or(Damage::Absent)?;
        if Reader::new(&unit[CHECKSUM_OFFSET..]).u64() != Some(checksum(covered)) {
            return Err(Damage::Checksum);
        }
        Self::fields(covered).ok_or(Damage::Impossible)
    }

    fn fields(covered: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(covered);
        reader.take(MAGIC.len())?;
        let disk = DiskId(reader.u128()?);
        let incarnation = reader.u64().filter(|&incarnation| incarnation != 0)?;
        let name = ExtentName { disk, incarnation, extent: reader.u32()? };
        let kind = match (reader.u32()?, reader.u64()?) {
            (1, 0) => ExtentKind::Data,
            (2, sequence) => ExtentKind::Log { sequence },
            (3, 0) => ExtentKind::Free,
            _ => return None,
        };
        Some(Self { name, kind, begun_at: WallTime { unix_ms: reader.u64()? } })
    }
}
