//! What the disk's home core knows of each extent in use: how much of it is dead, and so whether it is worth reclaiming.
//!
//! These are hints that arrive by message, late and out of order. They choose where reclaim looks; what it may free, the
//! index says.

use std::collections::BTreeMap;

use anvil_model::format::FOOTER_ENTRY_BYTES;
use anvil_model::ids::CoreId;

use crate::space::Lane;

/// A part of an extent that is dead must be at least this share of it for a move to pay, when there is no need.
const DEAD_SHARE_MIN: f64 = 0.25;
/// The same when writers wait for room: of eight extents moved at least one is gained.
const DEAD_SHARE_URGENT: f64 = 0.125;

/// In an extent of at least this size what was never filled counts as gained: a crash leaves such ends. In smaller ones it
/// does not, because the next record seldom fits their ends anyway, and they would be moved round and round.
const EXTENT_BYTES_LARGE: u32 = 16 << 20;

/// An extent in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) incarnation: u64,
    pub(crate) stage: AccountStage,
    /// Records that were written, and their bytes.
    pub(crate) written: Tally,
    /// Of these, those that nothing needs any more.
    pub(crate) dead: Tally,
    /// The dead bytes when reclaim found that it cannot move the rest. It looks again when there are more.
    pub(crate) held_at: Option<u64>,
    /// Who fills it, while it is open.
    pub(crate) holder: Option<(CoreId, Lane)>,
    /// The dead bytes when it was last taken back from its core; see `recall`.
    pub(crate) recalled_at: Option<u64>,
}

/// How far an extent in use has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccountStage {
    /// A core appends to it, or has given it up; what was written is not known here.
    Open,
    /// Nothing is appended in this life.
    Sealed,
    /// Of the metadata log, open or sealed.
    Log,
}

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
    }
}

impl Account {
    pub(crate) fn new(incarnation: u64, stage: AccountStage) -> Self {
        let (written, dead) = (Tally::default(), Tally::default());
        Self { incarnation, stage, written, dead, held_at: None, holder: None, recalled_at: None }
    }

    /// What is dead in it alone makes a move pay, or nothing in it lives.
    pub(crate) fn is_mostly_dead(&self, extent_bytes: u32, free_share: f64, urgent: bool) -> bool {
        let none_lives = self.written.records > 0 && self.dead.records >= self.written.records;
        none_lives || self.dead.bytes as f64 / f64::from(extent_bytes) >= least_gain(free_share, urgent)
    }

    fn live_bytes(&self) -> u64 {
        self.written.bytes.saturating_sub(self.dead.bytes)
    }

    fn is_candidate(&self) -> bool {
        self.stage == AccountStage::Sealed && self.held_at.is_none_or(|dead| dead < self.dead.bytes)
    }

    /// The share of the extent that reclaim would gain.
    fn gain(&self, extent_bytes: u32) -> f64 {
        if self.dead.records >= self.written.records {
            return 1.0;
        }
        let gained = if extent_bytes >= EXTENT_BYTES_LARGE {
            let live_records = self.written.records.saturating_sub(self.dead.records);
            let used = self.live_bytes() + live_records * FOOTER_ENTRY_BYTES as u64;
            u64::from(extent_bytes).saturating_sub(used)
        } else {
            self.dead.bytes
        };
        gained as f64 / f64::from(extent_bytes)
    }
}

/// The share of an extent that must be gained for a move to pay. `free_share` is the part of the disk that is still to be
/// had.
fn least_gain(free_share: f64, urgent: bool) -> f64 {
    if urgent { DEAD_SHARE_URGENT } else { free_share.clamp(DEAD_SHARE_MIN, 1.0) }
}

/// The extents in use of a disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) extents: BTreeMap<u32, Account>,
}

/// What is said of some records of an extent: they are dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dead {
    pub(crate) extent: u32,
    pub(crate) incarnation: u64,
    pub(crate) tally: Tally,
}

impl Accounts {
    /// The account of this life of an extent.
    pub(crate) fn of(&mut self, extent: u32, incarnation: u64) -> Option<&mut Account> {
        self.extents.get_mut(&extent).filter(|account| account.incarnation == incarnation)
    }

    pub(crate) fn note_dead(&mut self, dead: Dead) {
        if let Some(account) = self.of(dead.extent, dead.incarnation) {
            account.dead.add(dead.tally.records, dead.tally.bytes);
        }
    }

    /// The extent that pays most; `free_share` is the part of the disk that is still to be had: with much of it, only
    /// what is nearly all dead is worth a move.
    pub(crate) fn candidate(&self, extent_bytes: u32, free_share: f64, urgent: bool) -> Option<u32> {
        let least = least_gain(free_share, urgent);
        let candidates = self.extents.iter().filter(|(_, account)| account.is_candidate());
        let gains = candidates.map(|(extent, account)| (account.gain(extent_bytes), *extent));
        let best = gains.max_by(|a, b| a.0.total_cmp(&b.0))?;
        (best.0 >= least).then_some(best.1)
    }

    /// Bytes of live and of dead records in sealed extents.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let sealed = self.extents.values().filter(|account| account.stage == AccountStage::Sealed);
        sealed.fold((0, 0), |(live, dead), account| {
            (live + account.live_bytes(), dead + account.dead.bytes.min(account.written.bytes))
        })
    }

    /// Extents that are sealed and hold blobs.
    pub(crate) fn sealed(&self) -> u64 {
        self.extents.values().filter(|account| account.stage == AccountStage::Sealed).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(written: Tally, dead: Tally) -> Account {
        Account { written, dead, ..Account::new(1, AccountStage::Sealed) }
    }

    /// What a move makes is never worth another move: reclaim comes to an end on a full disk without garbage.
    #[test]
    fn what_was_just_moved_is_not_moved_again() {
        for extent_bytes in [(1 << 20) + (64 << 10), 16 << 20, 64 << 20] {
            // The worst that may be left behind one another: the next record, of 1 MiB, did not fit; tiny records; records
            // with padding to whole units.
            for (record_bytes, padding) in [(200, 0), (300_000, 4095), (1 << 20, 4095)] {
                let room = u64::from(extent_bytes) - (1 << 20);
                let records = room / (record_bytes + padding + 32);
                let full = sealed(Tally { records, bytes: records * record_bytes }, Tally::default());
                let accounts = Accounts { extents: BTreeMap::from([(0, full)]) };
                let no_records = records == 0;
                assert!(
                    no_records || accounts.candidate(extent_bytes, 0.0, true).is_none(),
                    "{extent_bytes}: {full:?}"
                );
            }
        }
    }

    #[test]
    fn the_emptiest_extent_goes_first_and_only_when_it_pays() {
        let of = |dead| sealed(Tally { records: 60, bytes: 60 << 20 }, Tally { records: dead, bytes: dead << 20 });
        let accounts = |dead: &[u64]| Accounts { extents: (0..).zip(dead.iter().map(|&dead| of(dead))).collect() };
        assert_eq!(accounts(&[20, 40, 10]).candidate(64 << 20, 0.3, false), Some(1));
        assert_eq!(accounts(&[20, 40, 10]).candidate(64 << 20, 0.9, false), None, "there is much room");
        assert_eq!(accounts(&[20, 60, 10]).candidate(64 << 20, 1.0, false), Some(1), "nothing is left in it");
        assert_eq!(accounts(&[10, 5]).candidate(64 << 20, 0.0, false), None);
        assert_eq!(accounts(&[10, 5]).candidate(64 << 20, 0.0, true), Some(0));
        let mut held = accounts(&[20, 40]);
        held.extents.get_mut(&1).unwrap().held_at = Some(40 << 20);
        assert_eq!(held.candidate(64 << 20, 0.0, true), Some(0));
        held.note_dead(Dead { extent: 1, incarnation: 1, tally: Tally { records: 1, bytes: 1 << 20 } });
        assert_eq!(held.candidate(64 << 20, 0.0, true), Some(1), "there is more to gain");
    }
}
