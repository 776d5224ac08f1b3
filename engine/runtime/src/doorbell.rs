//! How other threads leave something for a core and wake it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, PoisonError};

#[cfg(anvil_loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, Ordering},
};
#[cfg(not(anvil_loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use crate::stats::CoreStats;

/// A queue, and an eventfd that is written only when the core sleeps.
///
/// Invariant: nothing is slept through. `state` changes only by read-modify-writes, which are in one order: a core falls
/// asleep only from `AWAKE`, and who posts leaves `POSTED` behind and rings if it was `ASLEEP` before.
#[derive(Debug)]
pub(crate) struct Doorbell<T> {
    queue: Mutex<VecDeque<T>>,
    state: AtomicU8,
    bell: Bell,
    stats: Arc<CoreStats>,
}

/// The core runs, and has seen everything.
const AWAKE: u8 = 0;
/// The core sleeps, or is about to.
const ASLEEP: u8 = 1;
/// There is something in the queue.
const POSTED: u8 = 2;

impl<T> Doorbell<T> {
    pub(crate) fn new(stats: Arc<CoreStats>) -> io::Result<Self> {
        let (queue, state) = (Mutex::new(VecDeque::new()), AtomicU8::new(AWAKE));
        Ok(Self { queue, state, bell: Bell::new()?, stats })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.bell.fd()
    }

    /// From any thread: the core shall have this, soon.
    pub(crate) fn post(&self, item: T) {
        self.stats.wakes_remote.add(1);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(item);
        if self.state.swap(POSTED, Ordering::AcqRel) == ASLEEP {
            self.stats.doorbells.add(1);
            self.bell.ring();
        }
    }

    /// On the core, awake: moves what came from other threads to `into`.
    pub(crate) fn drain(&self, into: &mut VecDeque<T>) {
        // Mostly nothing came, which is cheap to see; what this load misses keeps the core from falling asleep.
        if self.state.load(Ordering::Relaxed) == POSTED {
            self.state.swap(AWAKE, Ordering::AcqRel);
            into.append(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// On the core, before it sleeps: false when it must not, because something came.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.change(AWAKE, ASLEEP)
    }

    /// On the core, when it no longer sleeps.
    pub(crate) fn wake_up(&self) {
        // What came meanwhile stays posted.
        self.change(ASLEEP, AWAKE);
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// On the core, which has heard the bell: reads it back to 0. Waits if it has not rung.
    pub(crate) fn silence(&self) {
        self.bell.silence();
    }
}

/// True from a wake until the poll that it asks for, so that a task stands in a queue once.
#[derive(Debug)]
pub(crate) struct Queued(AtomicBool);

impl Queued {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// False when it was raised already: the poll to come sees what was done before this.
    pub(crate) fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Before the poll. Not a store: it has to see what those did whose raise found the flag raised.
    pub(crate) fn lower(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}

#[cfg(not(anvil_loom))]
use eventfd::Bell;
#[cfg(anvil_loom)]
use model::Bell;

#[cfg(not(anvil_loom))]
mod eventfd {
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    /// An eventfd(2).
    #[derive(Debug)]
    pub(super) struct Bell(OwnedFd);

    impl Bell {
        pub(super) fn new() -> io::Result<Self> {
            // SAFETY: eventfd(2) takes no memory of ours.
            let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
            if bell < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor is new and nobody else knows it.
            Ok(Self(unsafe { OwnedFd::from_raw_fd(bell) }))
        }

        pub(super) fn fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }

        pub(super) fn ring(&self) {
            let one = 1_u64;
            // SAFETY: the kernel reads eight bytes of a local variable.
            let written = unsafe { libc::write(self.fd(), (&raw const one).cast(), size_of::<u64>()) };
            // It blocks only at 2^64 - 1, and the core reads it back to 0 each time.
            debug_assert!(written == 8, "an eventfd takes a 1");
        }

        pub(super) fn silence(&self) {
            let mut count = 0_u64;
            // SAFETY: the kernel writes eight bytes to a local variable.
            let read = unsafe { libc::read(self.fd(), (&raw mut count).cast(), size_of::<u64>()) };
            debug_assert!(read == 8, "an eventfd gives its count");
        }
    }
}

/// What an eventfd does, for loom.
#[cfg(anvil_loom)]
mod model {
    use std::io;
    use std::os::fd::RawFd;

    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub(super) struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self { rung: Mutex::new(false), changed: Condvar::new() })
        }

        pub(super) fn fd(&self) -> RawFd {
            unreachable!("a model has no kernel")
        }

        pub(super) fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.changed.notify_one();
        }

        pub(super) fn silence(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.changed.wait(rung).unwrap();
            }
            *rung = false;
        }
    }
}

/// Every interleaving of a core with those who wake it. Loom reports a core that sleeps for ever as a deadlock.
#[cfg(all(test, anvil_loom))]
mod interleavings {
    use std::sync::Arc;

    use loom::sync::atomic::AtomicUsize;

    use super::*;

    /// Runs one core until `is_done`; `poll` gets what was posted.
    fn core(bell: &Doorbell<usize>, mut poll: impl FnMut(usize), mut is_done: impl FnMut() -> bool) {
        let mut ready = VecDeque::new();
        loop {
            bell.drain(&mut ready);
            for item in ready.drain(..) {
                poll(item);
            }
            if is_done() {
                return;
            }
            if bell.fall_asleep() {
                bell.silence();
                bell.wake_up();
            }
        }
    }

    /// Two threads post twice and once; the core gets all three, in the order of each, and sleeps in between.
    #[test]
    fn nothing_is_slept_through() {
        loom::model(|| {
            let bell = Arc::new(Doorbell::new(Arc::default()).unwrap());
            let threads = [vec![0, 1], vec![10]].map(|items| {
                let bell = Arc::clone(&bell);
                loom::thread::spawn(move || items.into_iter().for_each(|item| bell.post(item)))
            });
            let seen = std::cell::RefCell::new(Vec::new());
            core(&bell, |item| seen.borrow_mut().push(item), || seen.borrow().len() == 3);
            let mut low = seen.into_inner();
            low.retain(|item| *item < 10);
            assert_eq!(low, [0, 1]);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    /// A wake that finds its task queued already posts nothing: the poll to come must see what was done before that wake,
    /// although nothing else orders the two.
    #[test]
    fn a_poll_sees_what_came_before_each_wake() {
        loom::model(|| {
            let bell = Arc::new(Doorbell::new(Arc::default()).unwrap());
            let queued = Arc::new(Queued::new());
            let flags = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let threads = [0, 1].map(|index| {
                let (bell, queued, flags) = (Arc::clone(&bell), Arc::clone(&queued), Arc::clone(&flags));
                loom::thread::spawn(move || {
                    flags[index].store(1, Ordering::Relaxed);
                    if queued.raise() {
                        bell.post(0);
                    }
                })
            });
            let seen = std::cell::Cell::new(0);
            let poll = |_| {
                queued.lower();
                seen.set(flags.iter().map(|flag| flag.load(Ordering::Relaxed)).sum());
            };
            core(&bell, poll, || seen.get() == 2);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}

#[cfg(all(test, not(anvil_loom)))]
mod tests {
    use super::*;

    /// Something posted before the core falls asleep keeps it awake and needs no bell; after it rings the bell once.
    #[test]
    fn what_is_posted_is_seen_or_heard() {
        let stats = Arc::new(CoreStats::default());
        let bell = Doorbell::new(Arc::clone(&stats)).unwrap();
        let mut ready = VecDeque::new();
        bell.post(7);
        assert!(!bell.fall_asleep(), "something came");
        assert_eq!(stats.doorbells.value(), 0);
        bell.drain(&mut ready);
        assert_eq!(ready, [7]);
        assert!(bell.fall_asleep());
        bell.post(8);
        bell.post(9);
        assert_eq!(stats.doorbells.value(), 1, "it is awake after the first");
        bell.drain(&mut ready);
        assert_eq!(ready, [7, 8, 9]);
    }

    /// Whatever the moment in which another thread posts, the core does not sleep through it: two threads play at it
    /// without any other way to notice.
    #[test]
    fn nothing_is_slept_through() {
        const ROUNDS: usize = 20_000;
        let bell = Arc::new(Doorbell::new(Arc::default()).unwrap());
        let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (waking, turn) = (Arc::clone(&bell), Arc::clone(&turns));
        let waker = std::thread::spawn(move || {
            for round in 0..ROUNDS {
                while turn.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
                waking.post(round);
            }
        });
        let mut ready = VecDeque::new();
        while ready.len() < ROUNDS {
            turns.store(ready.len(), Ordering::Release);
            if bell.fall_asleep() {
                bell.silence();
                bell.wake_up();
            }
            bell.drain(&mut ready);
        }
        waker.join().unwrap();
    }
}
