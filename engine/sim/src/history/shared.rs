//! What the clients of a history know together: every value that any of them made, and what they were told of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anvil_model::ids::DiskId;
use anvil_model::object::Etag;

use super::answers::Tolerance;
use super::payload;
use super::record::{Record, Value};
use super::uploads::Upload;
use super::{Misfortunes, Reached};

/// What all clients of a history share, over all its lives.
pub(super) struct Shared {
    pub(super) record: RefCell<Record>,
    pub(super) keys: usize,
    /// Most objects are about as large as a window.
    pub(super) large: bool,
    /// What a client may be told beyond what a healthy node says.
    pub(super) tolerance: Cell<Tolerance>,
    pub(super) reached: Cell<Reached>,
    pub(super) misfortunes: Cell<Misfortunes>,
    /// Bytes that were read and compared.
    pub(super) bytes_checked: Cell<u64>,
    /// Records that were moved and extents that were given back in this life, as far as somebody looked.
    pub(super) reclaimed: Cell<u64>,
    /// True while clients use the node.
    pub(super) serving: Cell<bool>,
    /// True once the node has started with all its disks.
    pub(super) settled: Cell<bool>,
    /// True while administrators give orders.
    pub(super) ordering: Cell<bool>,
    /// True once the victims have changed.
    pub(super) turned: Cell<bool>,
    /// Those of the disks that something happens to, if to single ones: what the others hold is all that can be relied on.
    victims: RefCell<Vec<usize>>,
    /// Those that were ever among them.
    suffered: RefCell<BTreeSet<usize>>,
    /// Disks that others took the place of: what they held is made again.
    pub(super) replaced: RefCell<BTreeSet<DiskId>>,
    /// Values whose writes the end of a life cut off, so that nobody was told of them.
    cut_off: RefCell<BTreeSet<Value>>,
    values: RefCell<BTreeMap<Value, About>>,
    /// What was computed of them already.
    etags: RefCell<BTreeMap<Value, Etag>>,
    /// Uploads whose parts were acknowledged and that nobody completes or aborts at the moment.
    pub(super) pending: RefCell<Vec<Upload>>,
}

/// The tags of values up to this size are all computed,
const TAGGED_BYTES_MAX: u64 = 16 << 10;
/// and of larger ones, of one in so many.
const TAGGED_ONE_IN: u64 = 4;

/// A value: how its object was made.
#[derive(Clone)]
pub(super) struct About {
    pub(super) size: u64,
    /// The parts' ranges; none when it was a PUT.
    parts: Vec<Range<u64>>,
    /// Whose bytes it has: its own, or those of the value that it is a copy of.
    pub(super) bytes: Value,
}

impl Shared {
    pub(super) fn new(keys: usize, large: bool, tolerance: Tolerance, victims: Vec<usize>) -> Self {
        Self {
            record: RefCell::default(),
            keys,
            large,
            tolerance: Cell::new(tolerance),
            reached: Cell::default(),
            misfortunes: Cell::default(),
            bytes_checked: Cell::default(),
            reclaimed: Cell::default(),
            serving: Cell::default(),
            settled: Cell::default(),
            ordering: Cell::default(),
            turned: Cell::default(),
            suffered: RefCell::new(victims.iter().copied().collect()),
            victims: RefCell::new(victims),
            replaced: RefCell::default(),
            cut_off: RefCell::default(),
            values: RefCell::default(),
            etags: RefCell::default(),
            pending: RefCell::default(),
        }
    }

    pub(super) fn victims(&self) -> Vec<usize> {
        self.victims.borrow().clone()
    }

    pub(super) fn is_victim(&self, disk: usize) -> bool {
        self.victims.borrow().contains(&disk)
    }

    pub(super) fn has_suffered(&self, disk: usize) -> bool {
        self.suffered.borrow().contains(&disk)
    }

    /// From now on these suffer, and no others.
    pub(super) fn set_victims(&self, victims: Vec<usize>) {
        self.suffered.borrow_mut().extend(&victims);
        *self.victims.borrow_mut() = victims;
    }

    /// Whatever ran is cut off.
    pub(super) fn life_ends(&self) {
        let cut_off = self.record.borrow_mut().life_ends();
        self.cut_off.borrow_mut().extend(cut_off);
    }

    /// Whether the bytes of a value may be lost though no more disks suffer than can be lost. A crash that cut its write off
    /// may have left its other disks without their shards, which the node has to make again and may not have had time for.
    pub(super) fn may_be_lost(&self, value: Value) -> bool {
        let is_lost = !self.victims.borrow().is_empty() && self.cut_off.borrow().contains(&self.about(value).bytes);
        self.reach(|reached| reached.lost_unheard += u64::from(is_lost));
        is_lost
    }

    /// So many blobs at most may be missing for that.
    pub(super) fn lost_max(&self) -> u64 {
        if self.victims.borrow().is_empty() { 0 } else { self.cut_off.borrow().len() as u64 }
    }

    pub(super) fn set_closing(&self, closing: bool) {
        self.tolerance.set(Tolerance { closing, ..self.tolerance.get() });
    }

    pub(super) fn reach(&self, note: impl FnOnce(&mut Reached)) {
        let mut reached = self.reached.get();
        note(&mut reached);
        self.reached.set(reached);
    }

    pub(super) fn suffer(&self, note: impl FnOnce(&mut Misfortunes)) {
        let mut counts = self.misfortunes.get();
        note(&mut counts);
        self.misfortunes.set(counts);
    }

    pub(super) fn new_value(&self, size: u64, parts: Vec<Range<u64>>) -> Value {
        let mut values = self.values.borrow_mut();
        let value = values.len() as Value + 1;
        values.insert(value, About { size, parts, bytes: value });
        value
    }

    /// Values are either copied or named by conditions: a copy has the tag of its origin, so that a condition would hold
    /// for either.
    pub(super) fn may_be_copied(&self, value: Value) -> bool {
        self.about(value).bytes.is_multiple_of(2)
    }

    /// A value with the bytes of another one.
    pub(super) fn new_copy(&self, origin: Value) -> Value {
        let about = self.about(origin);
        let mut values = self.values.borrow_mut();
        let value = values.len() as Value + 1;
        values.insert(value, about);
        value
    }

    pub(super) fn about(&self, value: Value) -> About {
        self.values.borrow()[&value].clone()
    }

    pub(super) fn etag(&self, value: Value) -> Etag {
        // A copy has the tag of its origin.
        let value = self.about(value).bytes;
        let known = self.etags.borrow().get(&value).cloned();
        known.unwrap_or_else(|| {
            let etag = self.about(value).etag();
            self.etags.borrow_mut().insert(value, etag.clone());
            etag
        })
    }

    /// Whether a tag that was told is that of the value. Tags of large values cost more than all that is proved by them: of
    /// those only some are computed, and the first that is told of any other counts from then on.
    pub(super) fn is_etag(&self, value: Value, told: &Etag) -> bool {
        let About { size, bytes, .. } = self.about(value);
        if size > TAGGED_BYTES_MAX && !bytes.is_multiple_of(TAGGED_ONE_IN) {
            return self.etags.borrow_mut().entry(bytes).or_insert_with(|| told.clone()) == told;
        }
        self.etag(value) == *told
    }

    /// The value with this tag and size; `None` when there are several, as for empty objects.
    pub(super) fn value_of(&self, etag: &Etag, size: u64) -> Option<Value> {
        let candidates: Vec<Value> =
            self.values.borrow().iter().filter(|(_, about)| about.size == size).map(|(value, _)| *value).collect();
        let mut found = candidates.into_iter().filter(|value| self.etag(*value) == *etag);
        let first = found.next().unwrap_or_else(|| panic!("nobody wrote an object of {size} bytes with tag {etag}"));
        found.next().is_none().then_some(first)
    }
}

impl About {
    fn etag(&self) -> Etag {
        if self.parts.is_empty() {
            return Etag(hex(&payload::md5(self.bytes, 0..self.size)));
        }
        let sums: Vec<u8> = self.parts.iter().flat_map(|part| payload::md5(self.bytes, part.clone())).collect();
        Etag(format!("{}-{}", hex(&anvil_digest::md5(&sums)), self.parts.len()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
