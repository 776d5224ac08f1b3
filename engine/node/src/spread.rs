//! Where the shards of a new blob go, and when enough of them are written.

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_model::placement::{self, Candidate, Placement, TooFewDisks};
use anvil_model::profile::Profile;
use anvil_store::DiskState;

use crate::Node;

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
        let random = || self.world.random();
        let placed = placement::place(&self.candidates(|state| state == DiskState::Online), profile, length, random);
        match placed {
            // Who wants no redundancy hears from the disk itself what is wrong with it.
            Err(_) if profile.parity == 0 => placement::place(&self.candidates(|_| true), profile, length, random),
            placed => placed,
        }
    }

    /// The disk for a shard that is made anew, none of those that hold others of its blob.
    pub(crate) fn place_shard(&self, taken: &[DiskId], shard_bytes: u64) -> Option<DiskId> {
        placement::place_one(&self.candidates(|state| state == DiskState::Online), taken, shard_bytes, || {
            self.world.random()
        })
    }

    /// Whether a disk is here and works.
    pub(crate) fn is_online(&self, disk: DiskId) -> bool {
        self.store.disks().iter().any(|view| view.id == disk && view.state == DiskState::Online)
    }

    fn candidates(&self, may_be: impl Fn(DiskState) -> bool) -> Vec<Candidate> {
        let disks = self.store.disks().into_iter().filter(|disk| may_be(disk.state));
        disks.map(|disk| Candidate { disk: disk.id, free_bytes: disk.free_bytes }).collect()
    }
}
