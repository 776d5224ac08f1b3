//! Where the blobs of a core lie: from (blob, window) to a place, in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anvil_model::format::{FooterEntry, LARGE_PAYLOAD_OFFSET};
use anvil_model::ids::{BlobId, Incarnation, NodeId};
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
/// Invariants: the entries of all chunks in the order of the map are sorted and do not overlap; a chunk's key is that of
/// its first entry, but for the first chunk, which alone may be empty; `extents` has those extents that an entry lies in.
#[derive(Debug)]
pub(crate) struct Index {
    chunks: BTreeMap<Key, Vec<(Key, Run)>>,
    entries: u64,
    /// By disk and extent.
    extents: BTreeMap<(u16, u32), Indexed>,
}

/// An extent that entries lie in.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    incarnation: u64,
    /// Windows of all these entries.
    windows: u32,
}

/// Windows of one blob in one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    pub(crate) disk: u16,
    pub(crate) extent: u32,
    pub(crate) incarnation: u64,
    pub(crate) windows: u32,
    /// Of their records, headers and padding included.
    pub(crate) bytes: u64,
}

/// A window that lies at another place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) blob: BlobId,
    pub(crate) window: u32,
    pub(crate) from: Place,
    pub(crate) from_incarnation: u64,
    pub(crate) to: Place,
    pub(crate) to_incarnation: u64,
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

    fn blob(self) -> BlobId {
        let [node, incarnation, high, low, _] = self.0;
        let sequence = u64::from(high) << 32 | u64::from(low);
        BlobId { node: NodeId(node), incarnation: Incarnation(incarnation), sequence }
    }

    fn plus(self, windows: u32) -> Self {
        let [node, incarnation, high, low, window] = self.0;
        Self([node, incarnation, high, low, window + windows])
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

    /// Its records, with the padding behind each.
    fn bytes(&self) -> u64 {
        (0..self.windows).map(|index| self.place(index).record_bytes()).sum()
    }

    /// True when a window at `place` would be this run's next one.
    fn continues_at(&self, place: &Place) -> bool {
        self.last_bytes == WINDOW_BYTES
            && u32::from(self.payload_offset) == LARGE_PAYLOAD_OFFSET
            && (self.disk, self.extent, self.payload_offset) == (place.disk, place.extent, place.payload_offset)
            && self.offset.checked_add(self.windows * STRIDE_BYTES) == Some(place.offset)
    }
}

impl Place {
    /// Where an extent has the record that an entry of its footer names.
    pub(crate) fn of(disk: u16, extent: u32, entry: &FooterEntry) -> Self {
        Self {
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

impl Index {
    pub(crate) fn new() -> Self {
        Self { chunks: BTreeMap::from([(Key::MIN, Vec::new())]), entries: 0, extents: BTreeMap::new() }
    }

    /// Adds a window; false when it is there already, which changes nothing.
    pub(crate) fn insert(&mut self, blob: BlobId, window: u32, incarnation: u64, place: Place) -> bool {
        let key = Key::new(blob, window);
        let (_, chunk) = self.chunks.range_mut(..=key).next_back().expect("the first chunk begins at MIN");
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
                self.count_windows(place.disk, place.extent, incarnation, 1);
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
        self.insert_run(key, run, incarnation);
        true
    }

    /// Adds an entry that overlaps none that is there.
    fn insert_run(&mut self, key: Key, run: Run, incarnation: u64) {
        self.count_windows(run.disk, run.extent, incarnation, run.windows);
        self.entries += 1;
        let (&chunk_key, chunk) = self.chunks.range_mut(..=key).next_back().expect("the first chunk begins at MIN");
        let at = chunk.partition_point(|(other, _)| *other <= key);
        if chunk.len() < CHUNK_ENTRIES {
            chunk.insert(at, (key, run));
            return;
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
    }

    fn count_windows(&mut self, disk: u16, extent: u32, incarnation: u64, windows: u32) {
        let indexed = self.extents.entry((disk, extent)).or_insert(Indexed { incarnation, windows: 0 });
        assert_eq!(indexed.incarnation, incarnation, "an extent has one life at a time");
        indexed.windows += windows;
    }

    /// Where a window lies, and in which life of its extent.
    pub(crate) fn find(&self, blob: BlobId, window: u32) -> Option<(Place, u64)> {
        let key = Key::new(blob, window);
        let (chunk_key, at) = self.entry_at(key)?;
        let (first, run) = &self.chunks[&chunk_key][at];
        let index = key.window() - if first.is_of_the_blob_of(key) { first.window() } else { return None };
        let place = (index < run.windows).then(|| run.place(index))?;
        Some((place, self.incarnation(run)))
    }

    /// Where a blob's windows lie, extent by extent. An extent may come more than once.
    pub(crate) fn portions(&self, blob: BlobId) -> Vec<Portion> {
        let portion = |run: &Run| Portion {
            disk: run.disk,
            extent: run.extent,
            incarnation: self.incarnation(run),
            windows: run.windows,
            bytes: run.bytes(),
        };
        self.runs(blob).map(|(_, run)| portion(run)).collect()
    }

    /// True when a window of the blob is there.
    pub(crate) fn contains(&self, blob: BlobId) -> bool {
        self.runs(blob).next().is_some()
    }

    /// The blobs behind `after`, at most `max` of them in their order, each with the end of its last window.
    pub(crate) fn page(&self, after: Option<BlobId>, max: usize) -> Vec<(BlobId, u64)> {
        let start = after.map_or(Key::MIN, |blob| Key::new(blob, u32::MAX));
        let mut page: Vec<(BlobId, u64)> = Vec::new();
        for (key, run) in self.from(start) {
            let last = key.window() + run.windows - 1;
            let end = u64::from(last) * u64::from(WINDOW_BYTES) + u64::from(run.last_bytes);
            let full = page.len() == max;
            match page.last_mut() {
                Some((blob, length)) if *blob == key.blob() => *length = end,
                _ if full => break,
                _ => page.push((key.blob(), end)),
            }
        }
        page
    }

    /// Windows that the index has in this life of an extent.
    pub(crate) fn windows_in(&self, disk: u16, extent: u32, incarnation: u64) -> u32 {
        let indexed = self.extents.get(&(disk, extent)).filter(|indexed| indexed.incarnation == incarnation);
        indexed.map_or(0, |indexed| indexed.windows)
    }

    /// Changes the place of a window; false when it is not where it was said to be, which changes nothing.
    pub(crate) fn replace(&mut self, moved: &Move) -> bool {
        if self.find(moved.blob, moved.window) != Some((moved.from, moved.from_incarnation)) {
            return false;
        }
        let at = self.entry_at(Key::new(moved.blob, moved.window)).expect("just found");
        let (first, run) = self.remove_at(at);
        let before = moved.window - first.window();
        let behind = run.windows - before - 1;
        if before > 0 {
            let run = Run { windows: before, last_bytes: WINDOW_BYTES, ..run };
            self.insert_run(first, run, moved.from_incarnation);
        }
        if behind > 0 {
            let run = Run { windows: behind, offset: run.place(before + 1).offset, ..run };
            self.insert_run(first.plus(before + 1), run, moved.from_incarnation);
        }
        self.insert(moved.blob, moved.window, moved.to_incarnation, moved.to)
    }

    /// Forgets the windows of a blob that lie in this extent.
    pub(crate) fn remove_in(&mut self, blob: BlobId, disk: u16, extent: u32) {
        let here = |(_, run): &&(Key, Run)| (run.disk, run.extent) == (disk, extent);
        let keys: Vec<_> = self.runs(blob).filter(here).map(|(key, _)| *key).collect();
        for key in keys {
            let at = self.entry_at(key).expect("just found");
            self.remove_at(at);
        }
    }

    fn incarnation(&self, run: &Run) -> u64 {
        self.extents.get(&(run.disk, run.extent)).expect("every entry's extent is known").incarnation
    }

    /// The last entry that does not begin behind `key`: its chunk, and its place there.
    fn entry_at(&self, key: Key) -> Option<(Key, usize)> {
        let (chunk_key, chunk) = self.chunks.range(..=key).next_back()?;
        let at = chunk.partition_point(|(other, _)| *other <= key).checked_sub(1)?;
        Some((*chunk_key, at))
    }

    /// The entries that do not begin before `start`.
    fn from(&self, start: Key) -> impl Iterator<Item = &(Key, Run)> {
        let first = self.chunks.range(..=start).next_back().map_or(Key::MIN, |(key, _)| *key);
        let chunks = self.chunks.range(first..);
        chunks.flat_map(|(_, chunk)| chunk).skip_while(move |(key, _)| *key < start)
    }

    fn runs(&self, blob: BlobId) -> impl Iterator<Item = &(Key, Run)> {
        let start = Key::new(blob, 0);
        self.from(start).take_while(move |(key, _)| key.is_of_the_blob_of(start))
    }

    fn remove_at(&mut self, (chunk_key, at): (Key, usize)) -> (Key, Run) {
        let chunk = self.chunks.get_mut(&chunk_key).expect("the caller found it there");
        let (key, run) = chunk.remove(at);
        self.entries -= 1;
        let Entry::Occupied(mut indexed) = self.extents.entry((run.disk, run.extent)) else {
            panic!("every entry's extent is known");
        };
        indexed.get_mut().windows -= run.windows;
        if indexed.get().windows == 0 {
            indexed.remove();
        }
        let first = chunk.first().map(|(key, _)| *key);
        let sparse = chunk.len() < CHUNK_ENTRIES / 4;
        let mut chunk_key = chunk_key;
        if chunk_key != Key::MIN && first != Some(chunk_key) {
            let chunk = self.chunks.remove(&chunk_key).expect("it is there");
            let Some(first) = first else {
                return (key, run);
            };
            self.chunks.insert(first, chunk);
            chunk_key = first;
        }
        if sparse {
            self.merge(chunk_key);
        }
        (key, run)
    }

    /// Joins a chunk with few entries and a neighbour, if they leave room for more.
    fn merge(&mut self, chunk_key: Key) {
        let before = self.chunks.range(..chunk_key).next_back().map(|(key, _)| *key);
        let behind = self.chunks.range(chunk_key.plus(1)..).next().map(|(key, _)| *key);
        let pairs = [before.map(|before| (before, chunk_key)), behind.map(|behind| (chunk_key, behind))];
        for (lower, upper) in pairs.into_iter().flatten() {
            if self.chunks[&lower].len() + self.chunks[&upper].len() <= CHUNK_ENTRIES / 4 * 3 {
                let moved = self.chunks.remove(&upper).expect("it is there");
                self.chunks.get_mut(&lower).expect("it is there").extend(moved);
                return;
            }
        }
    }

    /// Entries, each for one run of windows.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Memory of the chunks and of the lives of extents, not counting the allocator's own.
    pub(crate) fn bytes(&self) -> u64 {
        let chunk = size_of::<Key>() + size_of::<Vec<(Key, Run)>>() + CHUNK_ENTRIES * size_of::<(Key, Run)>();
        let extent = size_of::<(u16, u32)>() + size_of::<Indexed>();
        // Nodes of the standard library's B-tree are at least half full.
        (self.chunks.len() * chunk + self.extents.len() * extent * 2) as u64
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

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u32, u32),
        Replace(u64, u32, u32),
        Remove(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..400_u64, 0..4_u32, 0..6_u32).prop_map(|(blob, window, at)| Step::Insert(blob, window, at)),
            3 => (0..400_u64, 0..4_u32, 0..6_u32).prop_map(|(blob, window, at)| Step::Replace(blob, window, at)),
            3 => (0..400_u64).prop_map(Step::Remove),
        ];
        proptest::collection::vec(step, 1..900)
    }

    proptest! {
        /// In whatever order: what was put in and not taken out is found, where it was put last, and nothing else.
        #[test]
        fn it_is_a_map(steps in steps()) {
            let mut index = Index::new();
            let mut model = BTreeMap::new();
            let place_at = |extent, position| Place { extent, ..large(4096 + position * STRIDE_BYTES) };
            for step in steps {
                match step {
                    Step::Insert(sequence, window, position) => {
                        let place = place_at(7, position);
                        let fresh = index.insert(blob(sequence), window, 9, place);
                        prop_assert_eq!(fresh, !model.contains_key(&(sequence, window)));
                        model.entry((sequence, window)).or_insert((place, 9));
                    }
                    Step::Replace(sequence, window, position) => {
                        let (from, from_incarnation) = model.get(&(sequence, window)).copied().unwrap_or((large(0), 9));
                        let (to, to_incarnation) = (place_at(8, position), 10);
                        let blob = blob(sequence);
                        let moved = Move { blob, window, from, from_incarnation, to, to_incarnation };
                        let known = model.contains_key(&(sequence, window));
                        let elsewhere = Move { from: place_at(6, position), ..moved };
                        prop_assert!(!index.replace(&elsewhere), "it is not there");
                        prop_assert_eq!(index.replace(&moved), known);
                        if known {
                            model.insert((sequence, window), (to, to_incarnation));
                        }
                    }
                    Step::Remove(sequence) => {
                        index.remove_in(blob(sequence), 0, 7);
                        model.retain(|(other, _), (place, _)| (*other, place.extent) != (sequence, 7));
                    }
                }
            }
            for sequence in 0..401 {
                let mut here = false;
                for window in 0..5 {
                    let expected = model.get(&(sequence, window)).copied();
                    here |= expected.is_some();
                    prop_assert_eq!(index.find(blob(sequence), window), expected);
                }
                prop_assert_eq!(index.contains(blob(sequence)), here);
            }
            for (extent, incarnation) in [(7, 9), (8, 10)] {
                let windows = model.values().filter(|(place, _)| place.extent == extent).count();
                prop_assert_eq!(index.windows_in(0, extent, incarnation) as usize, windows);
            }
            let mut blobs = Vec::new();
            loop {
                let page = index.page(blobs.last().copied(), 7);
                if page.is_empty() {
                    break;
                }
                blobs.extend(page.into_iter().map(|(blob, _)| blob));
            }
            let mut expected: Vec<_> = model.keys().map(|(sequence, _)| blob(*sequence)).collect();
            expected.dedup();
            prop_assert_eq!(blobs, expected);
            let entries: usize = index.chunks.values().map(Vec::len).sum();
            prop_assert_eq!(entries as u64, index.entries());
            for (key, chunk) in &index.chunks {
                prop_assert!(chunk.is_sorted_by_key(|(entry, _)| *entry));
                prop_assert!(*key == Key::MIN || chunk.first().is_some_and(|(first, _)| first == key));
            }
        }
    }
}
