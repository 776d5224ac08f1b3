//! Where the blobs of a core lie: from (blob, shard, window) to a place, in memory. `entry` has what is kept of them.

mod entry;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use anvil_model::geometry::{cell_bytes, cell_bytes_full, window_bytes, window_count, window_length, window_start};
use anvil_model::ids::{BlobId, CellId};
use anvil_model::profile::Profile;

pub(crate) use entry::Place;
use entry::{Key, Packed, RANKS, Run, full_bytes};

/// Entries of a full chunk.
const CHUNK_ENTRIES: usize = 64;
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
    /// Blobs with cells of other ranks than 0.
    contested: BTreeSet<BlobId>,
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

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            chunks: BTreeMap::from([(Key::MIN, Vec::new())]),
            entries: 0,
            extents: BTreeMap::new(),
            contested: BTreeSet::new(),
        }
    }

    /// Adds a cell; false when it is there already, which changes nothing.
    pub(crate) fn insert(&mut self, cell: CellId, incarnation: u64, place: Place) -> bool {
        self.insert_key(Key::new(cell), incarnation, place)
    }

    /// Adds a record of a cell that may have others. Of two on one disk, of which one was moved or replaced the other, the
    /// one counts for which `is_later` than the one that is there; with those on other disks it waits for
    /// [`Self::settle`]. Gives the record that does not count, if there is one.
    pub(crate) fn enter(
        &mut self,
        cell: CellId,
        incarnation: u64,
        place: Place,
        is_later: impl Fn(&Place) -> bool,
    ) -> Option<(Place, u64)> {
        for rank in 0..RANKS {
            let key = Key::ranked(cell, rank);
            match self.find_key(key) {
                None => {
                    assert!(self.insert_key(key, incarnation, place), "it was not there");
                    if rank > 0 {
                        self.contested.insert(cell.blob);
                    }
                    return None;
                }
                Some((other, life)) if (other.disk, other.profile) == (place.disk, place.profile) => {
                    if !is_later(&other) {
                        break;
                    }
                    self.take_key(key);
                    assert!(self.insert_key(key, incarnation, place), "it was just taken");
                    return Some((other, life));
                }
                Some(_) => {}
            }
        }
        Some((place, incarnation))
    }

    fn insert_key(&mut self, key: Key, incarnation: u64, place: Place) -> bool {
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
        let mut neighbours = [at.checked_sub(1), Some(at)].into_iter().flatten().filter_map(|at| chunk.get(at));
        let profile = Packed::new(place.profile);
        if neighbours.any(|(other, run)| other.is_of_the_blob_of(key) && run.profile != profile) {
            self.contested.insert(key.blob());
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

    /// Adds a cell, or changes its place; which record does not count any more. A cell of another spread than the blob has
    /// waits for [`Self::settle`].
    pub(crate) fn put(&mut self, cell: CellId, incarnation: u64, place: Place) -> Option<(Place, u64)> {
        let before = self.find(cell).filter(|(from, _)| from.profile == place.profile);
        let Some((from, from_incarnation)) = before else {
            return self.enter(cell, incarnation, place, |_| true);
        };
        let moved = Move { cell, from, from_incarnation, to: place, to_incarnation: incarnation };
        assert!(self.replace(&moved), "it was just found there");
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
        self.find_key(Key::new(cell))
    }

    /// Like [`Self::find`], for a contested blob: of the records of this profile the first that is good, or else the first.
    pub(crate) fn find_any(
        &self,
        cell: CellId,
        profile: Profile,
        is_good: impl Fn(&Place) -> bool,
    ) -> Option<(Place, u64)> {
        let records = || {
            let records = (0..RANKS).filter_map(|rank| self.find_key(Key::ranked(cell, rank)));
            records.filter(|(place, _)| place.profile == profile)
        };
        records().find(|(place, _)| is_good(place)).or_else(|| records().next())
    }

    /// Whether the index needs this record of a cell.
    pub(crate) fn has(&self, cell: CellId, disk: u16, extent: u32, offset: u32, incarnation: u64) -> bool {
        let ranks = if self.is_contested(cell.blob) { RANKS } else { 1 };
        (0..ranks)
            .filter_map(|rank| self.find_key(Key::ranked(cell, rank)))
            .any(|(place, life)| (place.disk, place.extent, place.offset, life) == (disk, extent, offset, incarnation))
    }

    fn find_key(&self, key: Key) -> Option<(Place, u64)> {
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
                let cell = CellId { blob: key.blob(), shard: key.shard(), window: key.window() };
                (cell, incarnation, run.place(index))
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
        let from = Some((moved.from, moved.from_incarnation));
        let ranks = if self.is_contested(moved.cell.blob) { RANKS } else { 1 };
        let mut keys = (0..ranks).map(|rank| Key::ranked(moved.cell, rank));
        let Some(key) = keys.find(|&key| self.find_key(key) == from) else { return false };
        self.take_key(key);
        self.insert_key(key, moved.to_incarnation, moved.to)
    }

    /// Forgets a record that was just found. Those before and behind it in its run stay.
    fn take_key(&mut self, key: Key) {
        let at = self.entry_at(key).expect("just found");
        let incarnation = self.incarnation(&self.chunks[&at.0][at.1].1);
        let (first, run) = self.remove_at(at);
        let before = u16::try_from(key.behind(first).expect("of the same shard")).expect("within the run");
        let behind = run.cells - before - 1;
        if before > 0 {
            let run = Run { cells: before, last_bytes: full_bytes(run.profile.profile()), ..run };
            self.insert_run(first, run, incarnation);
        }
        if behind > 0 {
            let next = u32::from(before) + 1;
            let run = Run { cells: behind, offset: run.place(next).offset, ..run };
            self.insert_run(first.plus(next), run, incarnation);
        }
    }

    /// True when cells of the blob have several records.
    pub(crate) fn is_contested(&self, blob: BlobId) -> bool {
        // Nearly always none is.
        !self.contested.is_empty() && self.contested.contains(&blob)
    }

    /// Contested blobs behind `after`, in their order.
    pub(crate) fn contested(&self, after: Option<BlobId>) -> impl Iterator<Item = BlobId> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.contested.range((start, Bound::Unbounded)).copied()
    }

    /// How many there are.
    pub(crate) fn contested_count(&self) -> usize {
        self.contested.len()
    }

    /// The profiles that a blob has records of, those that are read first.
    pub(crate) fn profiles(&self, blob: BlobId) -> Vec<Profile> {
        let mut profiles = Vec::new();
        for (_, run) in self.runs(blob) {
            let profile = run.profile.profile();
            if !profiles.contains(&profile) {
                profiles.push(profile);
            }
        }
        profiles
    }

    /// Ends a contest: of each cell one record is left, of the profile that the blob has, on the disk that its row names for
    /// the shard if there is one there. Gives the others. Where the row names a disk that has none, the one that
    /// would have been read stays.
    pub(crate) fn settle(&mut self, blob: BlobId, profile: Profile, named: &[Option<u16>]) -> Vec<(Place, u64)> {
        if !self.contested.remove(&blob) {
            return Vec::new();
        }
        let mut keys = Vec::new();
        let mut counting: BTreeMap<CellId, (Place, u64)> = BTreeMap::new();
        let mut others = Vec::new();
        for (key, run) in self.runs(blob) {
            keys.push(*key);
            let shard = key.shard();
            let is_named = |place: &Place| named.get(usize::from(shard)) == Some(&Some(place.disk));
            for index in 0..u32::from(run.cells) {
                let record = (run.place(index), self.incarnation(run));
                let cell = CellId { blob, shard, window: key.window() + index };
                if run.profile.profile() != profile {
                    others.push(record);
                    continue;
                }
                match counting.entry(cell) {
                    Entry::Vacant(first) => {
                        first.insert(record);
                    }
                    Entry::Occupied(mut first) if is_named(&record.0) && !is_named(&first.get().0) => {
                        others.push(first.insert(record));
                    }
                    Entry::Occupied(_) => others.push(record),
                }
            }
        }
        if counting.is_empty() {
            // The row is of another spread than all that is here: nothing here can be read by it, or be given up.
            return Vec::new();
        }
        for key in keys {
            let at = self.entry_at(key).expect("just found");
            self.remove_at(at);
        }
        for (cell, (place, incarnation)) in counting {
            assert!(self.insert(cell, incarnation, place), "each is there once");
        }
        others
    }

    /// The shards of a blob of so many bytes that are not wholly where `named` says, in their order; those for which it
    /// names no disk are not looked at.
    pub(crate) fn lacking(&self, blob: BlobId, profile: Profile, length: u64, named: &[Option<u16>]) -> Vec<u8> {
        let windows = window_count(profile, length);
        let last_bytes = cell_bytes(profile, window_length(profile, length, windows - 1));
        let mut whole = vec![0; named.len()];
        for (key, run) in self.runs(blob).take_while(|(key, _)| key.is_read()) {
            let (shard, end) = (usize::from(key.shard()), key.window() + u32::from(run.cells));
            let is_there = run.profile.profile() == profile && named.get(shard) == Some(&Some(run.disk));
            if is_there && end <= windows {
                let expected = if end == windows { last_bytes } else { cell_bytes_full(profile) };
                let last_is_whole = run.last_bytes as usize == expected;
                whole[shard] += u32::from(run.cells) - u32::from(!last_is_whole);
            }
        }
        let shards = named.iter().zip(whole).zip(0..);
        shards.filter(|((place, whole), _)| place.is_some() && *whole != windows).map(|(_, shard)| shard).collect()
    }

    /// Forgets the cells of a blob that lie in this extent.
    pub(crate) fn remove_in(&mut self, blob: BlobId, disk: u16, extent: u32) {
        let here = |(_, run): &&(Key, Run)| (run.disk, run.extent) == (disk, extent);
        let keys: Vec<_> = self.runs(blob).filter(here).map(|(key, _)| *key).collect();
        for key in keys {
            let at = self.entry_at(key).expect("just found");
            self.remove_at(at);
        }
        if !self.contains(blob) {
            self.contested.remove(&blob);
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
    use anvil_model::format::LARGE_PAYLOAD_OFFSET;
    use anvil_model::ids::{Incarnation, NodeId};
    use proptest::prelude::*;

    use super::entry::stride_bytes;
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

    /// Goal: of records on several disks the ones that the row names are left, whatever was read before, and each that is
    /// left or given up is counted once. Method: a blob of two windows on disks 0 and 1, whose first shard is on disk
    /// 2 too, twice, and partly on disk 3.
    #[test]
    fn the_row_says_which_records_count() {
        let profile = Profile { data: 1, parity: 1 };
        let on = |disk, position| Place { disk, extent: u32::from(disk), ..full(profile, position) };
        let filled = || {
            let mut index = Index::new();
            for window in 0..2 {
                for shard in 0..2 {
                    let place = on(u16::from(shard), window);
                    assert_eq!(index.enter(cell(5, shard, window), 9, place, |_| true), None);
                }
                assert_eq!(index.enter(cell(5, 0, window), 9, on(2, window), |_| true), None);
                let later = on(2, window + 2);
                assert_eq!(index.enter(cell(5, 0, window), 9, later, |_| true), Some((on(2, window), 9)));
                let earlier = on(2, window + 4);
                assert_eq!(index.enter(cell(5, 0, window), 9, earlier, |_| false), Some((earlier, 9)));
            }
            assert_eq!(index.enter(cell(5, 0, 1), 9, on(3, 1), |_| true), None);
            index
        };
        let index = filled();
        assert_eq!(index.find(cell(5, 0, 0)), Some((on(0, 0), 9)), "the first is read so far");
        assert!(index.has(cell(5, 0, 0), 2, 2, on(2, 2).offset, 9), "the others are needed");
        assert!(!index.has(cell(5, 0, 0), 2, 2, on(2, 0).offset, 9), "but for what was replaced");
        assert_eq!(index.contested(None).collect::<Vec<_>>(), [blob(5)]);
        assert_eq!(index.contested(Some(blob(5))).count(), 0);
        assert_eq!((index.cells_in(0, 0, 9), index.cells_in(2, 2, 9), index.cells_in(3, 3, 9)), (2, 2, 1));

        for (named, expected) in [
            (Some(2), [on(2, 2), on(2, 3)]),
            (Some(0), [on(0, 0), on(0, 1)]),
            // It has one of two windows.
            (Some(3), [on(0, 0), on(3, 1)]),
            (None, [on(0, 0), on(0, 1)]),
            (Some(7), [on(0, 0), on(0, 1)]),
        ] {
            let mut index = filled();
            let given_up = index.settle(blob(5), profile, &[named, Some(1)]);
            assert_eq!(given_up.len(), 3, "{named:?}: {given_up:?}");
            for (window, place) in (0..).zip(expected) {
                assert_eq!(index.find(cell(5, 0, window)), Some((place, 9)), "{named:?}");
                assert_eq!(index.find(cell(5, 1, window)), Some((on(1, window), 9)));
                assert!(given_up.iter().all(|(other, _)| *other != place), "{named:?}: {given_up:?}");
            }
            assert!(!index.is_contested(blob(5)));
            assert_eq!(index.portions(blob(5)).iter().map(|portion| portion.cells).sum::<u32>(), 4);
            assert!(index.settle(blob(5), profile, &[named, Some(1)]).is_empty(), "once is enough");
        }
    }

    /// Goal: a move of a record finds it whichever of several it is. Method: move the one that is not read.
    #[test]
    fn a_record_that_waits_for_its_row_can_be_moved() {
        let profile = Profile { data: 1, parity: 1 };
        let on = |disk| Place { disk, extent: u32::from(disk), ..full(profile, 0) };
        let mut index = Index::new();
        index.enter(cell(5, 0, 0), 9, on(0), |_| true);
        index.enter(cell(5, 0, 0), 9, on(1), |_| true);
        let to = Place { extent: 8, ..on(1) };
        let moved = Move { cell: cell(5, 0, 0), from: on(1), from_incarnation: 9, to, to_incarnation: 10 };
        assert!(index.replace(&moved) && !index.replace(&moved));
        assert_eq!(index.settle(blob(5), profile, &[Some(1)]), [(on(0), 9)]);
        assert_eq!(index.find(cell(5, 0, 0)), Some((to, 10)));
    }

    /// Goal: a shard is whole where all its cells are on one disk, in their full length. Method: take each away.
    #[test]
    fn a_shard_that_lacks_a_cell_is_found() {
        let profile = Profile { data: 2, parity: 1 };
        let length = 2 * window_bytes(profile) as u64 + 101;
        let last = cell_bytes(profile, 101) as u32;
        let disks: Vec<_> = (0..3).map(Some).collect();
        let index = |but: &dyn Fn(u8, u32) -> Option<Place>| {
            let mut index = Index::new();
            for (shard, window) in (0..3_u8).flat_map(|shard| (0..3).map(move |window| (shard, window))) {
                let payload_bytes = if window == 2 { last } else { full_bytes(profile) };
                let disk = u16::from(shard);
                let place = Place { disk, extent: disk.into(), payload_bytes, ..full(profile, window) };
                if let Some(place) = but(shard, window).or(Some(place)).filter(|place| place.payload_bytes > 0) {
                    index.insert(cell(5, shard, window), 9, place);
                }
            }
            index.lacking(blob(5), profile, length, &disks)
        };
        assert_eq!(index(&|_, _| None), []);
        for (shard, window) in (0..3_u8).flat_map(|shard| (0..3).map(move |window| (shard, window))) {
            let gone = Place { payload_bytes: 0, ..full(profile, 0) };
            let elsewhere = Place { disk: 7, extent: 9, ..full(profile, window) };
            for other in [gone, elsewhere] {
                let lacking = index(&|s, w| ((s, w) == (shard, window)).then_some(other));
                assert_eq!(lacking, [shard], "window {window}: {other:?}");
            }
        }
        let short = |shard, window| {
            let place = Place { disk: 1, extent: 1, payload_bytes: last - 1, ..full(profile, 2) };
            ((shard, window) == (1, 2)).then_some(place)
        };
        assert_eq!(index(&short), [1]);
        let mut index = Index::new();
        index.insert(cell(5, 0, 0), 9, full(profile, 0));
        assert_eq!(
            index.lacking(blob(5), profile, length, &[None, Some(1), None]),
            [1],
            "what is away is not looked at"
        );
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
