//! Blobs that nobody wants any more: released by the node, gone when their extents are free.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anvil_model::ids::{BlobId, DiskId};
use anvil_model::io::World;
use anvil_model::profile::Profile;

use crate::account::{Dead, Tally};
use crate::index::Spread;
use crate::mail::Message;
use crate::store::{Inner, Store};

/// The released blobs of a core. Bounded by its index.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// Their cells are in the index, and are dead.
    blobs: BTreeSet<BlobId>,
    /// No record of theirs is left.
    gone: BTreeSet<BlobId>,
    /// Copies of records that are not in the index, by blob, disk and extent: what was moved, or appended twice. A start
    /// could find them, so that their blobs are not gone before their extents are free.
    copies: BTreeSet<(BlobId, u16, u32)>,
    /// Dead records that the homes of their disks have not heard of: by disk, extent and its incarnation.
    untold: BTreeMap<(u16, u32, u64), Tally>,
    telling: bool,
}

/// A blob that the index of a core has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownBlob {
    /// Which.
    pub blob: BlobId,
    /// How it is spread.
    pub profile: Profile,
    /// Where its last window ends, or less than k bytes behind that: its last cells may be padded. Cells before it may be
    /// missing.
    pub length: u64,
    /// True when it was released in this life.
    pub released: bool,
}

impl<W: World> Store<W> {
    /// Gives a blob up: its records are dead from now on, and a read of it finds it missing. Kept in memory only: after
    /// a start it is to be said again, until the blob is [`gone`](Self::gone). Saying it twice changes nothing.
    ///
    /// # Panics
    /// When the blob is at home on another core.
    pub fn release(&self, blob: BlobId) {
        let inner = &self.inner;
        inner.check_own(blob);
        let index = inner.index.borrow();
        let mut released = inner.released.borrow_mut();
        if !index.contains(blob) && !released.has_copies(blob) {
            released.gone.insert(blob);
            return;
        }
        if !released.blobs.insert(blob) {
            return;
        }
        drop(released);
        for portion in index.portions(blob) {
            let tally = Tally { records: portion.cells.into(), bytes: portion.bytes };
            inner.note_dead(portion.disk, Dead { extent: portion.extent, incarnation: portion.incarnation, tally });
        }
    }

    /// Takes up to `max` released blobs of this core whose records are gone for good, each once: no start finds them
    /// again, so that they need not be released any more. Only what a write that failed may have left can be found, and is
    /// an orphan then.
    #[must_use]
    pub fn gone(&self, max: usize) -> Vec<BlobId> {
        let gone = &mut self.inner.released.borrow_mut().gone;
        let taken: Vec<_> = gone.iter().take(max).copied().collect();
        taken.iter().for_each(|blob| {
            gone.remove(blob);
        });
        taken
    }

    /// The blobs of this core behind `after`, at most `max` of them, in the order of their ids. Those that are being
    /// written are among them.
    #[must_use]
    pub fn blobs(&self, after: Option<BlobId>, max: usize) -> Vec<KnownBlob> {
        let released = self.inner.released.borrow();
        let page = self.inner.index.borrow().page(after, max);
        let known = |Spread { blob, profile, end }| {
            let released = released.blobs.contains(&blob);
            KnownBlob { blob, profile, length: end, released }
        };
        page.into_iter().map(known).collect()
    }

    /// Blobs of this core behind `after`, at most `max`, of which a cell lies at more than one place: a disk came back whose
    /// shards were made again elsewhere meanwhile, or a blob was spread anew. Their rows say which places count
    /// ([`Self::settle`]); until then any of them is read, since all have the same bytes.
    #[must_use]
    pub fn contested(&self, after: Option<BlobId>, max: usize) -> Vec<BlobId> {
        let released = self.inner.released.borrow();
        let index = self.inner.index.borrow();
        index.contested(after).filter(|&blob| !released.contains(blob)).take(max).collect()
    }

    /// Says what the row of a contested blob says: how it is spread, and which disk has each shard. From now on those records
    /// count, and the others are dead, as those of a released blob are. Where the row names a disk that is not here or
    /// has no record, the record that was read so far stays. Says how many records are dead by this; none when the
    /// blob is not contested.
    ///
    /// # Panics
    /// When the blob is at home on another core.
    pub fn settle(&self, blob: BlobId, profile: Profile, places: &[DiskId]) -> u64 {
        let inner = &self.inner;
        inner.check_own(blob);
        if inner.released.borrow().contains(blob) {
            return 0;
        }
        let others = inner.index.borrow_mut().settle(blob, profile, &inner.ordinals_of(places));
        for &(place, incarnation) in &others {
            inner.released.borrow_mut().note_copy(blob, place.disk, place.extent);
            let tally = Tally { records: 1, bytes: place.record_bytes() };
            inner.note_dead(place.disk, Dead { extent: place.extent, incarnation, tally });
        }
        others.len() as u64
    }

    /// The shards of a blob of so many bytes, by their numbers, of which the disk that `places` names has not all records.
    /// Those of disks that are not here are not looked at. Reads no disk: whether the records are whole is what scrub finds
    /// out. A contested blob lacks nothing before it is settled.
    ///
    /// # Panics
    /// When the blob is at home on another core, or empty.
    #[must_use]
    pub fn lacking(&self, blob: BlobId, profile: Profile, length: u64, places: &[DiskId]) -> Vec<u8> {
        let inner = &self.inner;
        inner.check_own(blob);
        let index = inner.index.borrow();
        if index.is_contested(blob) || inner.released.borrow().contains(blob) {
            return Vec::new();
        }
        index.lacking(blob, profile, length, &inner.ordinals_of(places))
    }
}

impl Released {
    pub(crate) fn with_copies(copies: BTreeSet<(BlobId, u16, u32)>) -> Self {
        Self { copies, ..Self::default() }
    }

    /// There is a record of this blob that the index does not have.
    pub(crate) fn note_copy(&mut self, blob: BlobId, disk: u16, extent: u32) {
        self.copies.insert((blob, disk, extent));
    }

    fn has_copies(&self, blob: BlobId) -> bool {
        self.copies.range((blob, 0, 0)..=(blob, u16::MAX, u32::MAX)).next().is_some()
    }

    pub(crate) fn contains(&self, blob: BlobId) -> bool {
        self.blobs.contains(&blob)
    }

    /// Blobs that are released and not gone.
    pub(crate) fn waiting(&self) -> u64 {
        self.blobs.len() as u64
    }
}

impl<W: World> Inner<W> {
    fn ordinals_of(&self, places: &[DiskId]) -> Vec<Option<u16>> {
        places.iter().map(|&disk| self.find_disk(disk).ok()).collect()
    }

    /// These records are dead; the disk's home core hears of it soon.
    pub(crate) fn note_dead(self: &Rc<Self>, disk: u16, dead: Dead) {
        if self.disk_home(disk) == self.core {
            self.hear_dead(disk, &[dead]);
            return;
        }
        let mut released = self.released.borrow_mut();
        let untold = released.untold.entry((disk, dead.extent, dead.incarnation)).or_default();
        untold.add(dead.tally.records, dead.tally.bytes);
        if !std::mem::replace(&mut released.telling, true) {
            let inner = Rc::clone(self);
            self.start(async move { inner.tell_dead().await });
        }
    }

    /// Tells the homes of the disks, until there is nothing more to tell. What gathers meanwhile is told together.
    async fn tell_dead(self: Rc<Self>) {
        loop {
            let untold = {
                let mut released = self.released.borrow_mut();
                released.telling = !released.untold.is_empty();
                if !released.telling {
                    return;
                }
                std::mem::take(&mut released.untold)
            };
            let mut by_disk: BTreeMap<u16, Vec<Dead>> = BTreeMap::new();
            for ((disk, extent, incarnation), tally) in untold {
                by_disk.entry(disk).or_default().push(Dead { extent, incarnation, tally });
            }
            for (disk, dead) in by_disk {
                let home = usize::from(self.disk_home(disk).0);
                // A core that has closed reclaims nothing more; the next start counts anew.
                let _ = self.addresses[home].send(Message::Dead { disk, dead }).await;
            }
        }
    }

    /// Records of these blobs were in an extent that is free now.
    pub(crate) fn forget_records(&self, disk: u16, extent: u32, blobs: &[BlobId]) {
        let mut index = self.index.borrow_mut();
        let mut released = self.released.borrow_mut();
        for &blob in blobs {
            index.remove_in(blob, disk, extent);
            released.copies.remove(&(blob, disk, extent));
            if released.blobs.contains(&blob) && !index.contains(blob) && !released.has_copies(blob) {
                released.blobs.remove(&blob);
                released.gone.insert(blob);
            }
        }
    }
}
