//! Where the shards of a new blob go, and when enough of them are written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_model::placement::{self, Candidate, Placement, TooFewDisks};
use anvil_model::profile::Profile;
use anvil_model::time::Moment;
use anvil_store::{AppendError, DiskState};

use crate::Node;

/// For how long a disk that refused a shard is not asked for another one, where others will do. It may be full though it seems
/// to have room, or fail each write without being known as failed.
const REFUSAL_TIME: Duration = Duration::from_secs(10);

/// The disks that refused a shard of this core, and when they did so last.
#[derive(Debug, Default)]
pub(crate) struct Refusals(RefCell<BTreeMap<DiskId, Moment>>);

impl Refusals {
    fn is_recent(&self, disk: DiskId, now: Moment) -> bool {
        self.0.borrow().get(&disk).is_some_and(|&at| now.since(at) < REFUSAL_TIME)
    }
}

/// Shards of one blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet(u32);

impl ShardSet {
    pub(crate) fn insert(&mut self, shard: u8) {
        self.0 |= 1 << shard;
    }

    pub(crate) fn remove(&mut self, shard: u8) {
        self.0 &= !(1 << shard);
    }

    pub(crate) fn contains(self, shard: u8) -> bool {
        self.0 & 1 << shard != 0
    }

    pub(crate) fn count(self) -> u8 {
        u8::try_from(self.0.count_ones()).expect("at most 32")
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<u8> for ShardSet {
    fn from_iter<I: IntoIterator<Item = u8>>(shards: I) -> Self {
        let mut set = Self::default();
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

impl<W: World> Node<W> {
    /// The disks for a new blob of so many bytes.
    pub(crate) fn place(&self, profile: Profile, length: u64) -> Result<Placement, TooFewDisks> {
        let place = |candidates: Vec<Candidate>| placement::place(&candidates, profile, length, || self.world.random());
        place(self.willing())
            .or_else(|_| place(self.candidates(|state| state == DiskState::Online)))
            // Who wants no redundancy hears from the disk itself what is wrong with it.
            .or_else(|refused| if profile.parity == 0 { place(self.candidates(|_| true)) } else { Err(refused) })
    }

    /// The disk for a shard that is made anew, none of those that hold others of its blob.
    pub(crate) fn place_shard(&self, taken: &[DiskId], shard_bytes: u64) -> Option<DiskId> {
        placement::place_one(&self.willing(), taken, shard_bytes, || self.world.random())
    }

    /// The outcome of an append to a disk; the disk is spared for a while when it refused.
    pub(crate) async fn heeding<T>(
        &self,
        disk: DiskId,
        append: impl Future<Output = Result<T, AppendError>>,
    ) -> Result<T, AppendError> {
        let outcome = append.await;
        if outcome.is_err() {
            self.refusals.0.borrow_mut().insert(disk, self.world.now());
        }
        outcome
    }

    /// The disks that take writes and refused none of late.
    fn willing(&self) -> Vec<Candidate> {
        let now = self.world.now();
        let mut online = self.candidates(|state| state == DiskState::Online);
        online.retain(|candidate| !self.refusals.is_recent(candidate.disk, now));
        online
    }

    fn candidates(&self, may_be: impl Fn(DiskState) -> bool) -> Vec<Candidate> {
        let disks = self.store.disks().into_iter().filter(|disk| may_be(disk.state));
        disks.map(|disk| Candidate { disk: disk.id, free_bytes: disk.free_bytes }).collect()
    }
}
