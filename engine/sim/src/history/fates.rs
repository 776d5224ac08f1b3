//! What becomes of single disks: a history picks those that suffer, and how many they are decides what it demands.
//!
//! No more than the profile bears losses: every acknowledged byte reads as if nothing had been. More: what cannot be
//! read is named, and what is read is right.

use std::time::Duration;

use crate::counters::counters;
use crate::disk::{Faults, Saved, SimDisk};
use crate::random::Random;

/// What happens to one disk in one life.
#[derive(Clone, Debug)]
pub(super) struct Misfortune {
    /// Which disk, by its number in the history.
    pub(super) disk: usize,
    /// Before the life begins.
    pub(super) before: Option<Before>,
    /// While clients use the node.
    pub(super) during: Option<During>,
}

/// What an administrator orders of a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Which disk, by its number in the history.
    pub(super) disk: usize,
    /// It is to be offline so long after clients came,
    pub(super) after: Duration,
    /// and online again so long after that moment.
    pub(super) until: Duration,
}

/// What a node may find when it starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before {
    /// The disk is not there. It may be again in the next life.
    Missing,
    /// Another one, blank, is in its place.
    Blank,
    /// It is as it was so many lives ago.
    Stale(usize),
    /// So many bits turned over.
    Rotten(u32),
}

/// What begins so long after clients came, and ends before the life does, or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct During {
    /// It begins before the node starts instead.
    pub(super) at_start: bool,
    pub(super) after: Duration,
    pub(super) trouble: Trouble,
    pub(super) until: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// The disk is gone.
    Gone,
    /// It errs as often as this says.
    Faults(Faults),
}

counters! {
    /// How many misfortunes there were, by kind.
    pub struct Misfortunes {
        /// Disks that a node knew and did not find when it started.
        pub missing: u64,
        /// Of these, such that had been exchanged for a blank one.
        pub blank: u64,
        /// Disks that came back as they were some lives ago.
        pub stale: u64,
        /// Disks of which bits turned over between two lives.
        pub rotten: u64,
        /// Disks that went away in the middle of a life.
        pub gone: u64,
        /// Disks that came back, or got well, in the middle of a life.
        pub returned: u64,
        /// Disks that failed reads.
        pub read_errors: u64,
        /// Disks that failed writes, flushes or both, and read.
        pub write_errors: u64,
        /// Disks that nothing could be written to.
        pub read_only: u64,
        /// Disks that became full alone.
        pub full: u64,
        /// Disks that became 100 times slower.
        pub slow: u64,
        /// Disks that wrote wrong bits or to wrong places.
        pub damaging: u64,
        /// Disks that an administrator took out of use.
        pub offline: u64,
        /// Of these, such as were taken in again.
        pub online: u64,
        /// Disks that were given up for good after they had suffered.
        pub given_up: u64,
        /// Disks that were lost after others had been given up.
        pub lost_later: u64,
        /// Of those that were given up, such as got a blank one in their place.
        pub replaced: u64,
    }
}

impl Misfortune {
    /// What becomes of this disk in a life; nothing in every third.
    pub(super) fn draw(random: &mut Random, disk: usize) -> Option<Self> {
        let kind = random.below(6);
        let before = (2..5).contains(&kind).then(|| Before::draw(random));
        let during = (kind >= 4).then(|| During::draw(random));
        (before.is_some() || during.is_some()).then_some(Self { disk, before, during })
    }

    /// It is not there for a life, and nothing else happens to it.
    pub(super) fn missing(disk: usize) -> Self {
        Self { disk, before: Some(Before::Missing), during: None }
    }

    /// What is left of it for a life that has begun.
    pub(super) fn left_of_it(self) -> Option<Self> {
        let during = self.during.filter(|during| !during.at_start);
        during.map(|during| Self { disk: self.disk, before: None, during: Some(during) })
    }

    /// Whether a start meets it.
    pub(super) fn is_at_start(&self) -> bool {
        self.before.is_some() || self.during.is_some_and(|during| during.at_start)
    }
}

impl Order {
    pub(super) fn draw(random: &mut Random, disk: usize) -> Self {
        let after = moment(random);
        Self { disk, after, until: after + moment(random) }
    }
}

impl Before {
    fn draw(random: &mut Random) -> Self {
        match random.below(8) {
            0..4 => Self::Missing,
            4 => Self::Blank,
            5 => Self::Stale(random.index(2) + 1),
            _ => Self::Rotten(u32::try_from(random.between(1, 40)).expect("few")),
        }
    }

    /// Makes the disk what it will be found as. `saved` has what it was when each life ended.
    pub(super) fn happen(self, disk: &SimDisk, saved: &[Saved], counts: &mut Misfortunes) {
        match self {
            Self::Missing => counts.missing += 1,
            Self::Blank => {
                disk.restore(&Saved::default());
                counts.missing += 1;
                counts.blank += 1;
            }
            Self::Stale(lives) => {
                let Some(old) = saved.len().checked_sub(lives + 1).map(|life| &saved[life]) else { return };
                disk.restore(old);
                counts.stale += 1;
            }
            Self::Rotten(bits) => {
                disk.rot(bits);
                counts.rotten += 1;
            }
        }
    }
}

impl During {
    fn draw(random: &mut Random) -> Self {
        let after = moment(random);
        let until = random.one_in(3).then(|| after + Duration::from_nanos(random.below(200_000_000)));
        Self { at_start: random.one_in(4), after, trouble: Trouble::draw(random), until }
    }
}

fn moment(random: &mut Random) -> Duration {
    let span = *random.pick(&SPANS_NANOS);
    Duration::from_nanos(random.below(span))
}

/// Most moments lie early, where a short life still sees them.
const SPANS_NANOS: [u64; 3] = [1_000_000, 20_000_000, 200_000_000];

/// Of a million: each time, often, now and then.
const SHARES: [u32; 3] = [1_000_000, 300_000, 30_000];

impl Trouble {
    fn draw(random: &mut Random) -> Self {
        let share = *random.pick(&SHARES);
        let faults = Faults::default();
        Self::Faults(match random.below(9) {
            0 | 1 => return Self::Gone,
            2 => Faults { read_error: share, ..faults },
            3 => Faults { write_error: share, ..faults },
            4 => Faults { flush_error: share, ..faults },
            5 => Faults { write_error: 1_000_000, flush_error: 1_000_000, grow_error: 1_000_000, ..faults },
            6 => Faults { write_no_space: 1_000_000, ..faults },
            7 => Faults { slow_times: 100, ..faults },
            _ => Faults { misdirected_write: 50_000, write_bit_flip: 50_000, read_bit_flip: 20_000, ..faults },
        })
    }

    /// Writes are refused by the disk, and everything else is well.
    pub(super) fn takes_nothing(self) -> bool {
        matches!(self, Self::Faults(faults) if faults.write_no_space > 0 || faults.write_error > 0)
    }

    /// Begins it.
    pub(super) fn begin(self, disk: &SimDisk, counts: &mut Misfortunes) {
        match self {
            Self::Gone => {
                disk.set_gone(true);
                counts.gone += 1;
            }
            Self::Faults(faults) => {
                disk.set_faults(faults);
                counts.slow += u64::from(faults.slow_times > 0);
                counts.read_errors += u64::from(faults.read_error > 0);
                let (write, flush) = (faults.write_error > 0, faults.flush_error > 0);
                counts.write_errors += u64::from(write != flush);
                counts.read_only += u64::from(write && flush);
                counts.full += u64::from(faults.write_no_space > 0);
                counts.damaging += u64::from(faults.misdirected_write > 0);
            }
        }
    }
}

/// Ends whatever the disk suffers from.
pub(super) fn heal(disk: &SimDisk) {
    disk.set_gone(false);
    disk.set_faults(Faults::default());
}
