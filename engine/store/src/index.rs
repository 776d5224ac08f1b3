//! Where the blobs of a core lie: from (blob, window) to a place, in memory.

use std::collections::BTreeMap;

use anvil_model::format::LARGE_PAYLOAD_OFFSET;
use anvil_model::ids::BlobId;
use anvil_model::limits::RECORD_PAYLOAD_BYTES_MAX;

const WINDOW_BYTES: u32 = RECORD_PAYLOAD_BYTES_MAX as u32;
/// What a full window takes in its extent, so that the next window of a run begins behind it.
const STRIDE_BYTES: u32 = LARGE_PAYLOAD_OFFSET + WINDOW_BYTES;
/// Entries of a full chunk.
const CHUNK_ENTRIES: usize = 64;

/// Where one window of a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
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

/// The index of one core: sorted entries in chunks. Windows that lie behind one another in one extent share an entry.
///
/// Ids of a life grow, so that nearly all entries are added at the end; a full last chunk is then left full and a new
/// one begun, where a B-tree would leave half of each node empty: an entry costs its 40 bytes and one more.
///
/// Invariants: the entries of all chunks in the order of the map are sorted and do not overlap; a chunk's key is not
/// above its first entry and above every entry of the chunk before; no chunk but the first is empty.
#[derive(Debug)]
pub(crate) struct Index {
    chunks: BTreeMap<Key, Vec<(Key, Run)>>,
    entries: u64,
    /// The life of each extent that an entry lies in, by disk and extent.
    incarnations: BTreeMap<(u16, u32), u64>,
}

/// A blob and a window, in words of four bytes so that an entry has no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key([u32; 5]);

/// Windows of one blob that lie behind one another; all but the last are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    extent: u32,
    offset: u32,
    windows: u32,
    last_bytes: u32,
    disk: u16,
    payload_offset: u16,
}

const _: () = assert!(size_of::<(Key, Run)>() == 40, "the budget is 48 bytes per record");

impl Key {
    const MIN: Self = Self([0; 5]);

    fn new(blob: BlobId, window: u32) -> Self {
        let [high, low] = [(blob.sequence >> 32) as u32, blob.sequence as u32];
        Self([blob.node.0, blob.incarnation.0, high, low, window])
    }

    fn window(self) -> u32 {
        self.0[4]
    }

    fn is_of_the_blob_of(self, other: Self) -> bool {
        self.0[..4] == other.0[..4]
    }
}

impl Run {
    fn place(&self, index: u32) -> Place {
        let payload_bytes = if index + 1 == self.windows { self.last_bytes } else { WINDOW_BYTES };
        let offset = self.offset + index * STRIDE_BYTES;
        Place { disk: self.disk, extent: self.extent, offset, payload_offset: self.payload_offset, payload_bytes }
    }

    /// True when a window at `place` would be this run's next one.
    fn continues_at(&self, place: &Place) -> bool {
        self.last_bytes == WINDOW_BYTES
            && u32::from(self.payload_offset) == LARGE_PAYLOAD_OFFSET
            && (self.disk, self.extent, self.payload_offset) == (place.disk, place.extent, place.payload_offset)
            && self.offset.checked_add(self.windows * STRIDE_BYTES) == Some(place.offset)
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { chunks: BTreeMap::from([(Key::MIN, Vec::new())]), entries: 0, incarnations: BTreeMap::new() }
    }

    /// Adds a window; false when it is there already, which changes nothing.
    pub(crate) fn insert(&mut self, blob: BlobId, window: u32, incarnation: u64, place: Place) -> bool {
        let key = Key::new(blob, window);
        let (&chunk_key, chunk) = self.chunks.range_mut(..=key).next_back().expect("the first chunk begins at MIN");
        let at = chunk.partition_point(|(other, _)| *other <= key);
        if let Some((before, run)) = at.checked_sub(1).map(|at| &mut chunk[at])
            && before.is_of_the_blob_of(key)
        {
            let index = key.window() - before.window();
            if index < run.windows {
                return false;
            }
            if index == run.windows && run.continues_at(&place) {
                run.windows += 1;
                run.last_bytes = place.payload_bytes;
                return true;
            }
        }
        let run = Run {
            extent: place.extent,
            offset: place.offset,
            windows: 1,
            last_bytes: place.payload_bytes,
            disk: place.disk,
            payload_offset: place.payload_offset,
        };
        let known = self.incarnations.insert((place.disk, place.extent), incarnation);
        assert!(known.is_none_or(|known| known == incarnation), "an extent has one life at a time");
        self.entries += 1;
        if chunk.len() < CHUNK_ENTRIES {
            chunk.insert(at, (key, run));
            return true;
        }
        let mut upper = Vec::with_capacity(CHUNK_ENTRIES);
        if at < CHUNK_ENTRIES {
            upper.extend(chunk.drain(CHUNK_ENTRIES / 2..));
            match at.checked_sub(CHUNK_ENTRIES / 2) {
                Some(at) if at > 0 => upper.insert(at, (key, run)),
                _ => chunk.insert(at, (key, run)),
            }
        } else {
            upper.push((key, run));
        }
        assert!(chunk_key < upper[0].0, "the upper half begins above the chunk");
        self.chunks.insert(upper[0].0, upper);
        true
    }

    /// Where a window lies, and in which life of its extent.
    pub(crate) fn find(&self, blob: BlobId, window: u32) -> Option<(Place, u64)> {
        let key = Key::new(blob, window);
        let (_, chunk) = self.chunks.range(..=key).next_back()?;
        let at = chunk.partition_point(|(other, _)| *other <= key).checked_sub(1)?;
        let (first, run) = &chunk[at];
        let index = key.window() - if first.is_of_the_blob_of(key) { first.window() } else { return None };
        let place = (index < run.windows).then(|| run.place(index))?;
        let incarnation = self.incarnations.get(&(place.disk, place.extent));
        Some((place, *incarnation.expect("every entry's extent is known")))
    }

    /// Entries, each for one run of windows.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Memory of the chunks and of the lives of extents, not counting the allocator's own.
    pub(crate) fn bytes(&self) -> u64 {
        let chunk = size_of::<Key>() + size_of::<Vec<(Key, Run)>>() + CHUNK_ENTRIES * size_of::<(Key, Run)>();
        let extent = size_of::<(u16, u32)>() + size_of::<u64>();
        // Nodes of the standard library's B-tree are at least half full.
        (self.chunks.len() * chunk + self.incarnations.len() * extent * 2) as u64
    }
}

#[cfg(test)]
mod tests {
    use anvil_model::ids::{Incarnation, NodeId};
    use proptest::prelude::*;

    use super::*;

    fn blob(sequence: u64) -> BlobId {
        BlobId { node: NodeId(1), incarnation: Incarnation(1), sequence }
    }

    fn large(offset: u32) -> Place {
        let payload_offset = u16::try_from(LARGE_PAYLOAD_OFFSET).unwrap();
        Place { disk: 0, extent: 7, offset, payload_offset, payload_bytes: WINDOW_BYTES }
    }

    #[test]
    fn windows_behind_one_another_share_an_entry() {
        let mut index = Index::new();
        for window in 0..10 {
            assert!(index.insert(blob(5), window, 9, large(4096 + window * STRIDE_BYTES)));
        }
        let last = Place { payload_bytes: 3, ..large(4096 + 10 * STRIDE_BYTES) };
        assert!(index.insert(blob(5), 10, 9, last));
        assert_eq!(index.entries(), 1);
        assert_eq!(index.find(blob(5), 4), Some((large(4096 + 4 * STRIDE_BYTES), 9)));
        assert_eq!(index.find(blob(5), 10), Some((last, 9)));
        assert_eq!(index.find(blob(5), 11), None);
        assert_eq!(index.find(blob(6), 0), None);
        assert!(!index.insert(blob(5), 4, 9, large(0)), "a window is there once");
    }

    #[test]
    fn an_entry_costs_at_most_48_bytes() {
        let mut index = Index::new();
        let count = 100_000;
        for sequence in 0..count {
            index.insert(blob(sequence), 0, 9, large(4096));
        }
        assert!(index.bytes() <= 48 * count, "{} bytes for {count} entries", index.bytes());
    }

    proptest! {
        /// In whatever order: what was put in is found, and nothing else.
        #[test]
        fn it_is_a_map(puts in proptest::collection::vec((0..400_u64, 0..4_u32, 0..6_u32), 1..600)) {
            let mut index = Index::new();
            let mut model = BTreeMap::new();
            for (sequence, window, position) in puts {
                let place = large(4096 + position * STRIDE_BYTES);
                let fresh = index.insert(blob(sequence), window, 9, place);
                prop_assert_eq!(fresh, !model.contains_key(&(sequence, window)));
                model.entry((sequence, window)).or_insert(place);
            }
            for sequence in 0..401 {
                for window in 0..5 {
                    let expected = model.get(&(sequence, window)).map(|&place| (place, 9));
                    prop_assert_eq!(index.find(blob(sequence), window), expected);
                }
            }
            for (key, chunk) in &index.chunks {
                prop_assert!(chunk.iter().all(|(entry, _)| entry >= key) && chunk.is_sorted_by_key(|(entry, _)| *entry));
            }
        }
    }
}
