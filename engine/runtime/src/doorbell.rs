//! How other threads wake a task of this core.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::stats::CoreStats;
use crate::task::TaskId;

/// A queue of tasks to be polled, and an eventfd that is written only when the core sleeps in its ring.
///
/// Invariant: no wake is lost. A waker sets `pending` and then looks at `asleep`; the core sets `asleep` and then looks
/// at `pending`. All four are sequentially consistent, so at least one of the two sees the other.
#[derive(Debug)]
pub(crate) struct Doorbell {
    queue: Mutex<VecDeque<TaskId>>,
    pending: AtomicBool,
    asleep: AtomicBool,
    bell: OwnedFd,
    stats: Arc<CoreStats>,
}

impl Doorbell {
    pub(crate) fn new(stats: Arc<CoreStats>) -> io::Result<Self> {
        // SAFETY: eventfd(2) takes no memory of ours.
        let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if bell < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else knows it.
        let bell = unsafe { OwnedFd::from_raw_fd(bell) };
        let queue = Mutex::new(VecDeque::new());
        Ok(Self { queue, pending: AtomicBool::new(false), asleep: AtomicBool::new(false), bell, stats })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// From any thread: the core shall poll this task.
    pub(crate) fn wake(&self, task: TaskId) {
        self.stats.wakes_remote.add(1);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
        self.pending.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.ring();
        }
    }

    /// On the core: moves what came from other threads to `ready`.
    pub(crate) fn drain(&self, ready: &mut VecDeque<TaskId>) {
        if self.pending.load(Ordering::Relaxed) && self.pending.swap(false, Ordering::SeqCst) {
            ready.append(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// On the core, before it sleeps: false when it must not, because somebody woke a task.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let may_sleep = !self.pending.load(Ordering::SeqCst);
        if !may_sleep {
            self.wake_up();
        }
        may_sleep
    }

    /// On the core, when it no longer sleeps.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    fn ring(&self) {
        self.stats.doorbells.add(1);
        let one = 1_u64;
        // SAFETY: the kernel reads eight bytes of a local variable.
        let written = unsafe { libc::write(self.bell.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
        // It blocks only at 2^64 - 1, and the core reads it back to 0 each time.
        debug_assert!(written == 8, "an eventfd takes a 1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wake before the core falls asleep keeps it awake and needs no bell; one after it rings the bell once.
    #[test]
    fn a_wake_is_seen_or_heard() {
        let stats = Arc::new(CoreStats::default());
        let bell = Doorbell::new(Arc::clone(&stats)).unwrap();
        let mut ready = VecDeque::new();
        bell.wake(TaskId::ANY);
        assert!(!bell.fall_asleep(), "somebody woke a task");
        assert_eq!(stats.doorbells.value(), 0);
        bell.drain(&mut ready);
        assert_eq!(ready, [TaskId::ANY]);
        assert!(bell.fall_asleep());
        bell.wake(TaskId::ANY);
        bell.wake(TaskId::ANY);
        assert_eq!(stats.doorbells.value(), 1, "it is awake after the first");
        bell.drain(&mut ready);
        assert_eq!(ready.len(), 3);
    }

    /// Whatever the moment in which another thread wakes, the core does not sleep through it: two threads play at it
    /// without any other way to notice.
    #[test]
    fn no_wake_is_slept_through() {
        const ROUNDS: usize = 20_000;
        let bell = Arc::new(Doorbell::new(Arc::default()).unwrap());
        let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (waking, turn) = (Arc::clone(&bell), Arc::clone(&turns));
        let waker = std::thread::spawn(move || {
            for round in 0..ROUNDS {
                while turn.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
                waking.wake(TaskId::ANY);
            }
        });
        let mut ready = VecDeque::new();
        while ready.len() < ROUNDS {
            turns.store(ready.len(), Ordering::Release);
            if bell.fall_asleep() {
                let mut counter = 0_u64;
                // SAFETY: the kernel writes eight bytes to a local variable.
                let read = unsafe { libc::read(bell.fd(), (&raw mut counter).cast(), size_of::<u64>()) };
                assert_eq!(read, 8);
                bell.wake_up();
            }
            bell.drain(&mut ready);
        }
        waker.join().unwrap();
    }
}
