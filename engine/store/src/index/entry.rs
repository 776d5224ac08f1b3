//! What the index keeps of cells: a sorted key, and the run of cells behind one another that it begins.

use anvil_model::format::{FooterEntry, LARGE_PAYLOAD_OFFSET};
use anvil_model::geometry::{WINDOW_BITS, cell_bytes_full};
use anvil_model::ids::{BlobId, CellId, Incarnation, NodeId};
use anvil_model::profile::Profile;

/// Bits of a key's last word that hold the shard.
const SHARD_BITS: u32 = 5;
/// Records of one cell that are told apart, at most: those of rank 0 are read, the others wait for
/// [`Index::settle`](super::Index::settle).
pub(super) const RANKS: u32 = 8;

const _: () = assert!(Profile::DATA_SHARDS_MAX + Profile::PARITY_SHARDS_MAX <= 1 << SHARD_BITS);
const _: () = assert!(WINDOW_BITS + SHARD_BITS + RANKS.ilog2() <= u32::BITS);

/// Where one cell of a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of the cell's blob. One copy for the metadata log.
    pub(crate) profile: Profile,
    /// The disk, by its place in the list of the node's disks.
    pub(crate) disk: u16,
    /// The extent.
    pub(crate) extent: u32,
    /// Where the record begins in the extent.
    pub(crate) offset: u32,
    /// Where the payload begins in the record.
    pub(crate) payload_offset: u16,
    /// How long it is.
    pub(crate) payload_bytes: u32,
}

/// A cell, in words of four bytes so that an entry has no padding. The last one has the rank above the shard above the window,
/// so that the cells of a shard are neighbours, and those that are read come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) [u32; 5]);

/// Cells of one shard that lie behind one another; all but the last are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) extent: u32,
    pub(super) offset: u32,
    pub(super) last_bytes: u32,
    pub(super) cells: u16,
    pub(super) disk: u16,
    pub(super) payload_offset: u16,
    pub(super) profile: Packed,
}

/// A profile in a byte: k-1, and m in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed(u8);

const _: () = assert!(size_of::<(Key, Run)>() == 40, "the budget is 48 bytes per record");

impl Packed {
    pub(super) fn new(profile: Profile) -> Self {
        Self((profile.data - 1) | (profile.parity << 4))
    }

    pub(super) fn profile(self) -> Profile {
        Profile { data: (self.0 & 15) + 1, parity: self.0 >> 4 }
    }
}

impl Key {
    pub(super) const MIN: Self = Self([0; 5]);

    pub(super) fn new(cell: CellId) -> Self {
        Self::ranked(cell, 0)
    }

    pub(super) fn ranked(cell: CellId, rank: u32) -> Self {
        let CellId { blob, shard, window } = cell;
        Self::of_word(blob, rank << (WINDOW_BITS + SHARD_BITS) | u32::from(shard) << WINDOW_BITS | window)
    }

    pub(super) fn is_read(self) -> bool {
        self.0[4] >> (WINDOW_BITS + SHARD_BITS) == 0
    }

    pub(super) fn shard(self) -> u8 {
        (self.0[4] >> WINDOW_BITS & ((1 << SHARD_BITS) - 1)) as u8
    }

    pub(super) fn of_word(blob: BlobId, word: u32) -> Self {
        let [high, low] = [(blob.sequence >> 32) as u32, blob.sequence as u32];
        Self([blob.node.0, blob.incarnation.0, high, low, word])
    }

    pub(super) fn window(self) -> u32 {
        self.0[4] & ((1 << WINDOW_BITS) - 1)
    }

    pub(super) fn blob(self) -> BlobId {
        let [node, incarnation, high, low, _] = self.0;
        let sequence = u64::from(high) << 32 | u64::from(low);
        BlobId { node: NodeId(node), incarnation: Incarnation(incarnation), sequence }
    }

    pub(super) fn plus(self, cells: u32) -> Self {
        let [node, incarnation, high, low, word] = self.0;
        Self([node, incarnation, high, low, word + cells])
    }

    pub(super) fn is_of_the_blob_of(self, other: Self) -> bool {
        self.0[..4] == other.0[..4]
    }

    /// How many windows behind `before` this one is, in the same shard and rank.
    pub(super) fn behind(self, before: Self) -> Option<u32> {
        let same = self.is_of_the_blob_of(before) && self.0[4] >> WINDOW_BITS == before.0[4] >> WINDOW_BITS;
        if same { self.0[4].checked_sub(before.0[4]) } else { None }
    }
}

impl Run {
    pub(super) fn place(&self, index: u32) -> Place {
        let profile = self.profile.profile();
        let full = full_bytes(profile);
        let payload_bytes = if index + 1 == u32::from(self.cells) { self.last_bytes } else { full };
        let offset = self.offset + index * stride_bytes(profile);
        let Self { extent, disk, payload_offset, .. } = *self;
        Place { profile, disk, extent, offset, payload_offset, payload_bytes }
    }

    /// Its records, with the padding behind each.
    pub(super) fn bytes(&self) -> u64 {
        (0..u32::from(self.cells)).map(|index| self.place(index).record_bytes()).sum()
    }

    /// True when a cell at `place` would be this run's next one.
    pub(super) fn continues_at(&self, place: &Place) -> bool {
        let next = || {
            let length = u32::from(self.cells).checked_mul(stride_bytes(place.profile))?;
            self.offset.checked_add(length)
        };
        self.last_bytes == full_bytes(place.profile)
            && self.profile == Packed::new(place.profile)
            && self.cells < u16::MAX
            && u32::from(self.payload_offset) == LARGE_PAYLOAD_OFFSET
            && (self.disk, self.extent, self.payload_offset) == (place.disk, place.extent, place.payload_offset)
            && next() == Some(place.offset)
    }
}

pub(super) fn full_bytes(profile: Profile) -> u32 {
    u32::try_from(cell_bytes_full(profile)).expect("at most a record")
}

/// What a full cell takes in its extent, so that the next one of a run begins behind it.
pub(super) fn stride_bytes(profile: Profile) -> u32 {
    LARGE_PAYLOAD_OFFSET + full_bytes(profile)
}

impl Place {
    /// Where an extent has the record that an entry of its footer names.
    pub(crate) fn of(disk: u16, extent: u32, entry: &FooterEntry) -> Self {
        Self {
            profile: entry.subject.profile(),
            disk,
            extent,
            offset: entry.offset,
            payload_offset: u16::try_from(entry.payload_offset).expect("at most a unit"),
            payload_bytes: entry.payload_bytes,
        }
    }

    /// The record, with the padding behind it.
    pub(crate) fn record_bytes(&self) -> u64 {
        (u64::from(self.payload_offset) + u64::from(self.payload_bytes)).next_multiple_of(8)
    }
}
