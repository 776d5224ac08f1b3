//! The footer of a sealed extent: what its records are, so that a start need not read them.
//!
//! It lies at the extent's end: entries in the order of their offsets, padding, and a trailer in the last bytes, so that
//! it is found without knowing its size.
//!
//! An extent that was open when its node stopped has one too, which says where appends go on. It is overwritten before
//! they do.

use super::fields::{Reader, Writer};
use super::{
    Damage, ExtentHeader, ExtentKind, ExtentName, LARGE_PAYLOAD_OFFSET, RecordHeader, Subject, UNIT_BYTES, checksum,
    in_units,
};
use crate::geometry::WINDOW_BITS;
use crate::ids::DiskId;
use crate::limits::RECORD_PAYLOAD_BYTES_MAX;
use crate::profile::Profile;
use crate::time::WallTime;

/// Bytes of one entry. Divides a unit, so that no entry lies across two.
pub const FOOTER_ENTRY_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"AnvilFtr";
const FLAG_DAMAGED: u8 = 1;
const TRAILER_BYTES: usize = 128;
const CHECKSUM_OFFSET: usize = TRAILER_BYTES - 8;

const _: () = assert!(UNIT_BYTES.is_multiple_of(FOOTER_ENTRY_BYTES));

/// One record of the extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterEntry {
    /// Whose bytes.
    pub subject: Subject,
    /// Where the record begins, in bytes from the extent's beginning.
    pub offset: u32,
    /// Where its payload begins, in bytes from the record's beginning.
    pub payload_offset: u32,
    /// How long the payload is.
    pub payload_bytes: u32,
    /// The payload was not whole when the footer was made: torn by a crash, rotten, or damaged on its way to us. It is
    /// named all the same, so that its blob is corrupt rather than missing, and whole again if the bytes are.
    pub damaged: bool,
}

/// The last bytes of a sealed extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterTrailer {
    /// The extent's header once more: whole when the header is damaged.
    pub header: ExtentHeader,
    /// How many entries there are.
    pub entry_count: u32,
    /// Where appends may go on, in whole units; 0 when nothing more goes into the extent.
    pub tail: u32,
    /// The checksum of the footer from its beginning to the trailer.
    pub entries_checksum: u64,
}

/// Bytes of a footer with so many entries, in whole units.
#[must_use]
pub const fn footer_bytes(entry_count: usize) -> usize {
    in_units(entry_count * FOOTER_ENTRY_BYTES + TRAILER_BYTES)
}

/// The whole footer, [`footer_bytes`] long. Its place is the end of the extent. Appends may go on at `tail`; nothing more is
/// appended when it is 0.
///
/// # Panics
/// When the tail is not in whole units.
#[must_use]
pub fn encode_footer(header: &ExtentHeader, entries: &[FooterEntry], tail: u32) -> Vec<u8> {
    assert!((tail as usize).is_multiple_of(UNIT_BYTES), "a tail at {tail}");
    let mut bytes = vec![0; footer_bytes(entries.len())];
    let trailer_at = bytes.len() - TRAILER_BYTES;
    for (entry, field) in entries.iter().zip(bytes.chunks_exact_mut(FOOTER_ENTRY_BYTES)) {
        entry.encode(field);
    }
    let entry_count = u32::try_from(entries.len()).expect("an extent has fewer records than bytes");
    let entries_checksum = checksum(&bytes[..trailer_at]);
    FooterTrailer { header: *header, entry_count, tail, entries_checksum }.encode(&mut bytes[trailer_at..]);
    bytes
}

impl FooterEntry {
    /// What a footer says of this record.
    #[must_use]
    pub fn of(header: &RecordHeader) -> Self {
        let RecordHeader { subject, offset, payload_offset, payload_bytes, .. } = *header;
        Self { subject, offset, payload_offset, payload_bytes, damaged: false }
    }

    fn encode(&self, bytes: &mut [u8]) {
        let (kind, id) = self.subject.to_fields();
        let payload_offset = u16::try_from(self.payload_offset).expect("at most a unit");
        Writer::new(bytes)
            .put(&id)
            .u32(spread_word(self.subject))
            .u32(self.offset)
            .u32(self.payload_bytes)
            .u16(payload_offset)
            .u8(kind)
            .u8(if self.damaged { FLAG_DAMAGED } else { 0 });
    }

    /// Reads one entry; the caller has verified the footer's checksum.
    ///
    /// # Errors
    /// When a field has an impossible value.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        Self::fields(bytes).ok_or(Damage::Impossible)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let id = reader.array()?;
        let spread = spread_of(reader.u32()?);
        let offset = reader.u32()?;
        let payload_bytes = reader.u32()?;
        let payload_offset = u32::from(reader.u16()?);
        let subject = Subject::from_fields(reader.u8()?, id, spread)?;
        let damaged = match reader.u8()? {
            0 => false,
            FLAG_DAMAGED => true,
            _ => return None,
        };
        let possible = (1..=RECORD_PAYLOAD_BYTES_MAX).contains(&(payload_bytes as usize))
            && (1..=LARGE_PAYLOAD_OFFSET).contains(&payload_offset)
            && offset as usize >= UNIT_BYTES;
        possible.then_some(Self { subject, offset, payload_offset, payload_bytes, damaged })
    }
}

/// Profile, shard and window in one word. Above the bits of the window are 5 of the shard, 4 of k-1 and 3 of m, so that one
/// copy is zeros there, as all entries were before there were shards.
fn spread_word(subject: Subject) -> u32 {
    match subject {
        Subject::Blob { profile, shard, window, .. } => {
            assert!(profile.is_valid() && shard < profile.shards() && window >> WINDOW_BITS == 0, "{subject:?}");
            let above = u32::from(shard) | u32::from(profile.data - 1) << 5 | u32::from(profile.parity) << 9;
            window | above << WINDOW_BITS
        }
        Subject::Log { .. } => 0,
    }
}

/// What [`spread_word`] made a word of; a profile that is none for other words.
fn spread_of(word: u32) -> (Profile, u8, u32) {
    let above = word >> WINDOW_BITS;
    let bits = |at: u32, count: u32| (above >> at & ((1 << count) - 1)) as u8;
    let profile = Profile { data: bits(5, 4) + 1, parity: bits(9, 3) };
    (profile, bits(0, 5), word & ((1 << WINDOW_BITS) - 1))
}

const _: () = assert!(WINDOW_BITS + 5 + 4 + 3 == 32, "a word holds window, shard and profile");

impl FooterTrailer {
    fn encode(&self, bytes: &mut [u8]) {
        let (kind, sequence) = match self.header.kind {
            ExtentKind::Data => (1, 0),
            ExtentKind::Log { sequence } => (2, sequence),
            ExtentKind::Free => panic!("a free extent has no footer"),
        };
        Writer::new(bytes)
            .put(&MAGIC)
            .u128(self.header.name.disk.0)
            .u64(self.header.name.incarnation)
            .u32(self.header.name.extent)
            .u32(kind)
            .u64(sequence)
            .u64(self.header.begun_at.unix_ms)
            .u32(self.entry_count)
            .u32(self.tail)
            .u64(self.entries_checksum);
        let sum = checksum(&bytes[..CHECKSUM_OFFSET]);
        Writer::new(&mut bytes[CHECKSUM_OFFSET..]).u64(sum);
    }

    /// Reads the trailer at the end of an extent's last unit. Whether it belongs there, and whether the entries are
    /// whole, the caller finds out.
    ///
    /// # Errors
    /// When no whole trailer is there.
    pub fn decode(last_unit: &[u8]) -> Result<Self, Damage> {
        let at = last_unit.len().checked_sub(TRAILER_BYTES).ok_or(Damage::Absent)?;
        let bytes = &last_unit[at..];
        if !bytes.starts_with(&MAGIC) {
            return Err(Damage::Absent);
        }
        let covered = &bytes[..CHECKSUM_OFFSET];
        if Reader::new(&bytes[CHECKSUM_OFFSET..]).u64() != Some(checksum(covered)) {
            return Err(Damage::Checksum);
        }
        Self::fields(covered).ok_or(Damage::Impossible)
    }

    /// Bytes of the footer that [`Self::entries_checksum`] covers.
    #[must_use]
    pub fn covered_bytes(&self) -> usize {
        footer_bytes(self.entry_count as usize) - TRAILER_BYTES
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
            _ => return None,
        };
        let begun_at = WallTime { unix_ms: reader.u64()? };
        let entry_count = reader.u32()?;
        let tail = reader.u32().filter(|&tail| (tail as usize).is_multiple_of(UNIT_BYTES))?;
        let entries_checksum = reader.u64()?;
        Some(Self { header: ExtentHeader { name, kind, begun_at }, entry_count, tail, entries_checksum })
    }
}
