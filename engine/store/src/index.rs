//! Where the blobs of a core lie: from (blob, shard, window) to a place, in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anvil_model::format::{FooterEntry, LARGE_PAYLOAD_OFFSET};
use anvil_model::geometry::{WINDOW_BITS, cell_bytes_full, window_bytes, window_start};
use anvil_model::ids::{BlobId, CellId, Incarnation, NodeId};
use anvil_model::profile::Profile;

/// Entries of a full chunk.
const CHUNK_ENTRIES: usize = 64;

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

/// The index of one core: sorted entries in chunks. Cells of one shard that lie behind one another in one extent share an
/// entry.
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
    /// Cells of all these entries.
    cells: u32,
}

/// Cells of one blob in one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    pub(crate) disk: u16,
    pub(crate) extent: u32,
    pub(crate) incarnation: u64,
    pub(crate) cells: u32,
    /// Of their records, headers and padding included.
    pub(crate) bytes: u64,
}

/// A blob of which there are cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) blob: BlobId,
    pub(crate) profile: Profile,
    /// Where its last window ends, if that is as long as its k cells.
    pub(crate) end: u64,
}

/// A cell that lies at another place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) cell: CellId,
    pub(crate) from: Place,
    pub(crate) from_incarnation: u64,
    pub(crate) to: Place,
    pub(crate) to_incarnation: u64,
}

/// A cell, in words of four bytes so that an entry has no padding. The last one has the shard above the window, so that the
/// cells of a shard are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key([u32; 5]);

/// Cells of one shard that lie behind one another; all but the last are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    extent: u32,
    offset: u32,
    last_bytes: u32,
    cells: u16,
    disk: u16,
    payload_offset: u16,
    profile: Packed,
}

/// A profile in a byte: k-1, and m in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u8);

const _: () = assert!(size_of::<(Key, Run)>() == 40, "the budget is 48 bytes per record");

impl Packed {
    fn new(profile: Profile) -> Self {
        Self((profile.data - 1) | (profile.parity << 4))
    }

    fn profile(self) -> Profile {
        Profile { data: (self.0 & 15) + 1, parity: self.0 >> 4 }
    }
}

impl Key {
    const MIN: Self = Self([0; 5]);

    fn new(cell: CellId) -> Self {
        let CellId { blob, shard, window } = cell;
        Self::of_word(blob, u32::from(shard) << WINDOW_BITS | window)
    }

    fn of_word(blob: BlobId, word: u32) -> Self {
        let [high, low] = [(blob.sequence >> 32) as u32, blob.sequence as u32];
        Self([blob.node.0, blob.incarnation.0, high, low, word])
    }

    fn window(self) -> u32 {
        self.0[4] & ((1 << WINDOW_BITS) - 1)
    }

    fn blob(self) -> BlobId {
        let [node, incarnation, high, low, _] = self.0;
        let sequence = u64::from(high) << 32 | u64::from(low);
        BlobId { node: NodeId(node), incarnation: Incarnation(incarnation), sequence }
    }

    fn plus(self, cells: u32) -> Self {
        let [node, incarnation, high, low, word] = self.0;
        Self([node, incarnation, high, low, word + cells])
    }

    fn is_of_the_blob_of(self, other: Self) -> bool {
        self.0[..4] == other.0[..4]
    }

    /// How many windows behind `before` this one is, in the same shard.
    fn behind(self, before: Self) -> Option<u32> {
        let same = self.is_of_the_blob_of(before) && self.0[4] >> WINDOW_BITS == before.0[4] >> WINDOW_BITS;
        if same { self.0[4].checked_sub(before.0[4]) } else { None }
    }
}

impl Run {
    fn place(&self, index: u32) -> Place {
        let profile = self.profile.profile();
        let full = full_bytes(profile);
        let payload_bytes = if index + 1 == u32::from(self.cells) { self.last_bytes } else { full };
        let offset = self.offset + index * stride_bytes(profile);
        let Self { extent, disk, payload_offset, .. } = *self;
        Place { profile, disk, extent, offset, payload_offset, payload_bytes }
    }

    /// Its records, with the padding behind each.
    fn bytes(&self) -> u64 {
        (0..u32::from(self.cells)).map(|index| self.place(index).record_bytes()).sum()
    }

    /// True when a cell at `place` would be this run's next one.
    fn continues_at(&self, place: &Place) -> bool {
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

fn full_bytes(profile: Profile) -> u32 {
    u32::try_from(cell_bytes_full(profile)).expect("at most a record")
}

/// What a full cell takes in its extent, so that the next one of a run begins behind it.
fn stride_bytes(profile: Profile) -> u32 {
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

impl Index {
    pub(crate) fn new() -> Self {
        Self { chunks: BTreeMap::from([(Key::MIN, Vec::new())]), entries: 0, extents: BTreeMap::new() }
    }

    /// Adds a cell; false when it is there already, which changes nothing.
    pub(crate) fn insert(&mut self, cell: CellId, incarnation: u64, place: Place) -> bool {
        let key = Key::new(cell);
        let (_, chunk) = self.chunks.range_mut(..=key).next_back().expect("the first chunk begins at MIN");
        let at = chunk.partition_point(|(other, _)| *other <= key);
        if let Some((before, run)) = at.checked_sub(1).map(|at| &mut chunk[at])
            && let Some(index) = key.behind(*before)
        {
            if index < run.cells.into() {
                return false;
            }
            if index == run.cells.into() && run.continues_at(&place) {
                run.cells += 1;
                run.last_bytes = place.payload_bytes;
                self.count_cells(place.disk, place.extent, incarnation, 1);
                return true;
            }
        }
        let run = Run {
            extent: place.extent,
            offset: place.offset,
            last_bytes: place.payload_bytes,
            cells: 1,
            disk: place.disk,
            payload_offset: place.payload_offset,
            profile: Packed::new(place.profile),
        };
        self.insert_run(key, run, incarnation);
        true
    }

    /// Adds a cell, or changes its place; where it was before.
    pub(crate) fn put(&mut self, cell: CellId, incarnation: u64, place: Place) -> Option<(Place, u64)> {
        let before = self.find(cell);
        match before {
            Some((from, from_incarnation)) => {
                let moved = Move { cell, from, from_incarnation, to: place, to_incarnation: incarnation };
                assert!(self.replace(&moved), "it was just found there");
            }
            None => assert!(self.insert(cell, incarnation, place), "it was not there"),
        }
        before
    }

    /// Adds an entry that overlaps none that is there.
    fn insert_run(&mut self, key: Key, run: Run, incarnation: u64) {
        self.count_cells(run.disk, run.extent, incarnation, run.cells.into());
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

    fn count_cells(&mut self, disk: u16, extent: u32, incarnation: u64, cells: u32) {
        let indexed = self.extents.entry((disk, extent)).or_insert(Indexed { incarnation, cells: 0 });
        assert_eq!(indexed.incarnation, incarnation, "an extent has one life at a time");
        indexed.cells += cells;
    }

    /// Where a cell lies, and in which life of its extent.
    pub(crate) fn find(&self, cell: CellId) -> Option<(Place, u64)> {
        let key = Key::new(cell);
        let (chunk_key, at) = self.entry_at(key)?;
        let (first, run) = &self.chunks[&chunk_key][at];
        let index = key.behind(*first)?;
        let place = (index < run.cells.into()).then(|| run.place(index))?;
        Some((place, self.incarnation(run)))
    }

    /// How a blob is spread; `None` when nothing of it is there.
    pub(crate) fn profile(&self, blob: BlobId) -> Option<Profile> {
        self.runs(blob).next().map(|(_, run)| run.profile.profile())
    }

    /// Where a blob's cells lie, extent by extent. An extent may come more than once.
    pub(crate) fn portions(&self, blob: BlobId) -> Vec<Portion> {
        let portion = |run: &Run| Portion {
            disk: run.disk,
            extent: run.extent,
            incarnation: self.incarnation(run),
            cells: run.cells.into(),
            bytes: run.bytes(),
        };
        self.runs(blob).map(|(_, run)| portion(run)).collect()
    }

    /// True when a cell of the blob is there.
    pub(crate) fn contains(&self, blob: BlobId) -> bool {
        self.runs(blob).next().is_some()
    }

    /// The blobs behind `after`, at most `max` of them in their order.
    pub(crate) fn page(&self, after: Option<BlobId>, max: usize) -> Vec<Spread> {
        let start = after.map_or(Key::MIN, |blob| Key::of_word(blob, u32::MAX));
        let mut page: Vec<Spread> = Vec::new();
        for (key, run) in self.from(start) {
            let profile = run.profile.profile();
            let last = key.window() + u32::from(run.cells) - 1;
            let last_bytes = u64::from(run.last_bytes) * u64::from(profile.data);
            let end = window_start(profile, last) + last_bytes.min(window_bytes(profile) as u64);
            let full = page.len() == max;
            match page.last_mut() {
                Some(spread) if spread.blob == key.blob() => spread.end = spread.end.max(end),
                _ if full => break,
                _ => page.push(Spread { blob: key.blob(), profile, end }),
            }
        }
        page
    }

    /// All cells in their order, each with the life of its extent.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (CellId, u64, Place)> {
        self.from(Key::MIN).flat_map(|(key, run)| {
            let incarnation = self.incarnation(run);
            (0..u32::from(run.cells)).map(move |index| {
                let key = key.plus(index);
                let shard = u8::try_from(key.0[4] >> WINDOW_BITS).expect("a shard's number");
                (CellId { blob: key.blob(), shard, window: key.window() }, incarnation, run.place(index))
            })
        })
    }

    /// Cells that the index has in this life of an extent.
    pub(crate) fn cells_in(&self, disk: u16, extent: u32, incarnation: u64) -> u32 {
        let indexed = self.extents.get(&(disk, extent)).filter(|indexed| indexed.incarnation == incarnation);
        indexed.map_or(0, |indexed| indexed.cells)
    }

    /// Changes the place of a cell; false when it is not where it was said to be, which changes nothing.
    pub(crate) fn replace(&mut self, moved: &Move) -> bool {
        if self.find(moved.cell) != Some((moved.from, moved.from_incarnation)) {
            return false;
        }
        let key = Key::new(moved.cell);
        let at = self.entry_at(key).expect("just found");
        let (first, run) = self.remove_at(at);
        let before = u16::try_from(key.behind(first).expect("of the same shard")).expect("within the run");
        let behind = run.cells - before - 1;
        if before > 0 {
            let run = Run { cells: before, last_bytes: full_bytes(run.profile.profile()), ..run };
            self.insert_run(first, run, moved.from_incarnation);
        }
        if behind > 0 {
            let next = u32::from(before) + 1;
            let run = Run { cells: behind, offset: run.place(next).offset, ..run };
            self.insert_run(first.plus(next), run, moved.from_incarnation);
        }
        self.insert(moved.cell, moved.to_incarnation, moved.to)
    }

    /// Forgets the cells of a blob that lie in this extent.
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
        let start = Key::of_word(blob, 0);
        self.from(start).take_while(move |(key, _)| key.is_of_the_blob_of(start))
    }

    fn remove_at(&mut self, (chunk_key, at): (Key, usize)) -> (Key, Run) {
        let chunk = self.chunks.get_mut(&chunk_key).expect("the caller found it there");
        let (key, run) = chunk.remove(at);
        self.entries -= 1;
        let Entry::Occupied(mut indexed) = self.extents.entry((run.disk, run.extent)) else {
            panic!("every entry's extent is known");
        };
        indexed.get_mut().cells -= u32::from(run.cells);
        if indexed.get().cells == 0 {
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

    /// Entries, each for one run of cells.
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

    fn cell(sequence: u64, shard: u8, window: u32) -> CellId {
        CellId { blob: blob(sequence), shard, window }
    }

    /// A full cell at the n-th place of extent 7.
    fn full(profile: Profile, position: u32) -> Place {
        let payload_offset = u16::try_from(LARGE_PAYLOAD_OFFSET).unwrap();
        let offset = 4096 + position * stride_bytes(profile);
        Place { profile, disk: 0, extent: 7, offset, payload_offset, payload_bytes: full_bytes(profile) }
    }

    fn profiles() -> impl Iterator<Item = Profile> {
        (1..=16).flat_map(|data| (0..=4).map(move |parity| Profile { data, parity }))
    }

    #[test]
    fn cells_behind_one_another_share_an_entry() {
        for profile in profiles() {
            let mut index = Index::new();
            let shard = profile.shards() - 1;
            for window in 0..10 {
                assert!(index.insert(cell(5, shard, window), 9, full(profile, window)));
            }
            let last = Place { payload_bytes: 3, ..full(profile, 10) };
            assert!(index.insert(cell(5, shard, 10), 9, last));
            assert_eq!(index.entries(), 1);
            assert_eq!(index.find(cell(5, shard, 4)), Some((full(profile, 4), 9)));
            assert_eq!(index.find(cell(5, shard, 10)), Some((last, 9)));
            assert_eq!((index.find(cell(5, shard, 11)), index.find(cell(6, shard, 0))), (None, None));
            assert!(shard == 0 || index.find(cell(5, 0, 4)).is_none(), "another shard is elsewhere");
            assert!(!index.insert(cell(5, shard, 4), 9, full(profile, 0)), "a cell is there once");
            assert_eq!(index.profile(blob(5)), Some(profile));
            let end = window_start(profile, 10) + 3 * u64::from(profile.data);
            assert_eq!(index.page(None, 5), [Spread { blob: blob(5), profile, end }]);
        }
    }

    /// The shards of one blob are not taken for each other, whatever their places.
    #[test]
    fn shards_do_not_share_an_entry() {
        let profile = Profile { data: 2, parity: 1 };
        let mut index = Index::new();
        for (position, (shard, window)) in (0..).zip([(0, 0), (1, 1), (1, 0), (2, 0), (0, 1)]) {
            assert!(index.insert(cell(5, shard, window), 9, full(profile, position)));
        }
        assert_eq!(index.find(cell(5, 1, 0)), Some((full(profile, 2), 9)));
        assert_eq!(index.find(cell(5, 2, 1)), None);
        assert_eq!((index.entries(), index.cells_in(0, 7, 9)), (5, 5));
        assert_eq!(index.put(cell(5, 2, 0), 10, Place { extent: 8, ..full(profile, 0) }), Some((full(profile, 3), 9)));
        assert_eq!((index.cells_in(0, 7, 9), index.cells_in(0, 8, 10)), (4, 1));
        assert_eq!(index.portions(blob(5)).len(), 5);
    }

    /// As many of the shortest cells as the largest extent holds share one entry.
    #[test]
    fn a_run_is_as_long_as_an_extent() {
        let profile = Profile { data: 16, parity: 4 };
        let mut index = Index::new();
        let count = 20_000;
        for window in 0..count {
            assert!(index.insert(cell(5, 19, window), 9, full(profile, window)));
        }
        assert_eq!(index.find(cell(5, 19, count - 1)), Some((full(profile, count - 1), 9)));
        assert_eq!(index.entries(), 1);
    }

    #[test]
    fn an_entry_costs_at_most_48_bytes() {
        let mut index = Index::new();
        let count = 100_000;
        for sequence in 0..count {
            index.insert(cell(sequence, 0, 0), 9, full(Profile::SINGLE, 0));
        }
        assert!(index.bytes() <= 48 * count, "{} bytes for {count} entries", index.bytes());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u8, u32, u32),
        Replace(u64, u8, u32, u32),
        Remove(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let cells = || (0..300_u64, 0..3_u8, 0..3_u32, 0..6_u32);
        let step = prop_oneof![
            6 => cells().prop_map(|(blob, shard, window, at)| Step::Insert(blob, shard, window, at)),
            3 => cells().prop_map(|(blob, shard, window, at)| Step::Replace(blob, shard, window, at)),
            3 => (0..300_u64).prop_map(Step::Remove),
        ];
        proptest::collection::vec(step, 1..900)
    }

    /// Every blob has the same profile always.
    fn profile_of(sequence: u64) -> Profile {
        [Profile::SINGLE, Profile { data: 2, parity: 1 }, Profile { data: 16, parity: 4 }][(sequence % 3) as usize]
    }

    proptest! {
        /// In whatever order: what was put in and not taken out is found, where it was put last, and nothing else.
        #[test]
        fn it_is_a_map(steps in steps()) {
            let mut index = Index::new();
            let mut model = BTreeMap::new();
            let place_at = |sequence, extent, position| Place { extent, ..full(profile_of(sequence), position) };
            for step in steps {
                match step {
                    Step::Insert(sequence, shard, window, position) => {
                        let place = place_at(sequence, 7, position);
                        let fresh = index.insert(cell(sequence, shard, window), 9, place);
                        prop_assert_eq!(fresh, !model.contains_key(&(sequence, shard, window)));
                        model.entry((sequence, shard, window)).or_insert((place, 9));
                    }
                    Step::Replace(sequence, shard, window, position) => {
                        let known = model.get(&(sequence, shard, window)).copied();
                        let (from, from_incarnation) = known.unwrap_or((place_at(sequence, 7, 0), 9));
                        let (to, to_incarnation) = (place_at(sequence, 8, position), 10);
                        let cell = cell(sequence, shard, window);
                        let moved = Move { cell, from, from_incarnation, to, to_incarnation };
                        let elsewhere = Move { from: place_at(sequence, 6, position), ..moved };
                        prop_assert!(!index.replace(&elsewhere), "it is not there");
                        prop_assert_eq!(index.replace(&moved), known.is_some());
                        if known.is_some() {
                            model.insert((sequence, shard, window), (to, to_incarnation));
                        }
                    }
                    Step::Remove(sequence) => {
                        index.remove_in(blob(sequence), 0, 7);
                        model.retain(|(other, ..), (place, _)| (*other, place.extent) != (sequence, 7));
                    }
                }
            }
            for sequence in 0..301 {
                let mut here = false;
                for (shard, window) in (0..4).flat_map(|shard| (0..4).map(move |window| (shard, window))) {
                    let expected = model.get(&(sequence, shard, window)).copied();
                    here |= expected.is_some();
                    prop_assert_eq!(index.find(cell(sequence, shard, window)), expected);
                }
                prop_assert_eq!(index.contains(blob(sequence)), here);
                prop_assert_eq!(index.profile(blob(sequence)), here.then(|| profile_of(sequence)));
            }
            for (extent, incarnation) in [(7, 9), (8, 10)] {
                let cells = model.values().filter(|(place, _)| place.extent == extent).count();
                prop_assert_eq!(index.cells_in(0, extent, incarnation) as usize, cells);
            }
            let mut blobs = Vec::new();
            loop {
                let page = index.page(blobs.last().copied(), 7);
                if page.is_empty() {
                    break;
                }
                blobs.extend(page.into_iter().map(|spread| spread.blob));
            }
            let mut expected: Vec<_> = model.keys().map(|(sequence, ..)| blob(*sequence)).collect();
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
