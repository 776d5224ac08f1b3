//! What many have used of their allowances, in memory that does not grow.
//!
//! A name is found by a hash under a key of this process, so that nobody chooses beside whom it stands. It belongs to one set
//! of places; when all of them are taken, whoever used least there is forgotten.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anvil_model::time::Moment;

use super::allowance::{Allowance, Used};

#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    sets: Box<[Mutex<Set>]>,
    forgotten: AtomicU64,
}

/// Places of one set, looked at one after the other: two cache lines.
const PLACES: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Set([Place; PLACES]);

/// Who it is, by its hash, and what it has used. Two names of one hash would share an allowance; nobody lives to see it.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    hash: u64,
    used: Used,
}

impl Table {
    pub(super) fn new(sets: usize) -> Self {
        assert!(sets.is_power_of_two(), "a set is found by the low bits of a hash");
        let sets = (0..sets).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), sets, forgotten: AtomicU64::default() }
    }

    /// One request more of this name; or for how long it has to wait.
    pub(super) fn take<K: Hash + ?Sized>(&self, name: &K, allowance: Allowance, now: Moment) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(name);
        let index = usize::try_from(hash).unwrap_or(usize::MAX) & (self.sets.len() - 1);
        let mut set = self.sets[index].lock().expect("nobody panics with it");
        let (place, forgotten) = set.place(hash, now);
        place.used = allowance.take(place.used, now)?;
        if forgotten {
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How many were forgotten before they had their whole allowance back.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }
}

impl Set {
    /// The place of a name, and whether somebody was forgotten for it who had used something.
    fn place(&mut self, hash: u64, now: Moment) -> (&mut Place, bool) {
        if let Some(at) = self.0.iter().position(|place| place.hash == hash) {
            return (&mut self.0[at], false);
        }
        let least = self.0.iter_mut().min_by_key(|place| place.used).expect("a set has places");
        let forgotten = least.used.until_nanos > now.nanos;
        *least = Place { hash, used: Used::default() };
        (least, forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { nanos: 1 };

    #[test]
    fn names_do_not_share_what_they_have() {
        let (table, allowance) = (Table::new(1024), Allowance::per_minute(2));
        for name in 0..1000 {
            assert!(table.take(&name, allowance, NOW).is_ok() && table.take(&name, allowance, NOW).is_ok());
            assert!(table.take(&name, allowance, NOW).is_err(), "{name}");
        }
        assert!(table.forgotten() < 10, "there was room");
    }

    /// Goal: many strangers make nobody wait and nobody who comes often forgotten. Method: one set; somebody who is beyond its
    /// limit, and then a thousand others, once each.
    #[test]
    fn who_used_least_is_forgotten() {
        let (table, allowance) = (Table::new(1), Allowance::per_minute(5));
        let take = |name: u32| table.take(&name, allowance, NOW).is_ok();
        assert!((0..5).all(|_| take(0)) && !take(0));
        for stranger in 1..=1000 {
            assert!(take(stranger), "{stranger} has done nothing yet");
        }
        assert!(!take(0), "it was not forgotten");
        assert_eq!(table.forgotten(), 1000 - (PLACES as u64 - 1));
        let later = NOW + Duration::from_secs(600);
        assert!(table.take(&2000, allowance, later).is_ok());
        assert_eq!(table.forgotten(), 1000 - (PLACES as u64 - 1), "nobody lost anything");
    }

    #[test]
    fn threads_do_not_get_more_together() {
        let (table, allowance) = (Table::new(8), Allowance::per_minute(1000));
        let admitted = || (0..1000).filter(|_| table.take("x", allowance, NOW).is_ok()).count();
        let sum: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(admitted)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sum, 1000);
    }
}
