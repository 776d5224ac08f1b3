//! A task as a value, and all that may become of it. Pure: whoever keeps tasks keeps what comes out here, under whatever makes
//! sure that the task is still the one that went in.
//!
//! A task waits until it is due, is *leased* to a worker for a slice of work, and is then reported on: there is more, it is
//! done, it failed. A failure is tried again after a pause that grows; after [`ATTEMPTS_MAX`] of them in a row the task is
//! *failed*, a dead letter that waits for an administrator. A lease ends by itself, and at once when a later life of its
//! worker's node comes.

use std::time::Duration;

use anvil_model::ids::{Incarnation, NodeId};
use anvil_model::time::WallTime;
use serde::{Deserialize, Serialize};

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Given when it was added, never reused.
    pub id: u64,
    /// Which job it is: see [`super::jobs`]. A worker leaves alone what it does not know.
    pub kind: String,
    /// What the job is about, in the job's words. With the kind it is unique.
    pub about: String,
    /// Of those that are due the one with the lowest number is first.
    pub priority: u8,
    /// Where it stands.
    pub state: TaskState,
    /// Begun and not brought to an end, one after the other.
    pub attempts: u32,
    /// When it may be leased: at its turn, or when its lease has run out.
    pub not_before: WallTime,
    /// How often it was leased: by this a worker that lost its lease is known.
    pub leases: u64,
    /// Where the next slice begins, in the job's words; empty at the beginning.
    pub position: String,
    /// What failed last, until something goes well.
    pub last_error: Option<String>,
    /// When it was added.
    pub created_at: WallTime,
    /// When any of this changed last.
    pub changed_at: WallTime,
}

/// Where a task stands. One that is done is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Waits for its time, or its turn.
    Pending,
    /// A worker has it.
    Running(Worker),
    /// It failed too often: an administrator decides.
    Failed,
}

/// Who works: one life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The node.
    pub node: NodeId,
    /// Its life; a later one takes over what an earlier one left.
    pub life: Incarnation,
}

/// A task to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// As in [`Task`].
    pub kind: &'static str,
    /// As in [`Task`].
    pub about: String,
    /// As in [`Task`].
    pub priority: u8,
}

/// What a slice of work came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It went well; the next slice begins there.
    More(String),
    /// It goes on: its lease begins anew.
    Working,
    /// All is done: the task goes.
    Done,
    /// All is done, and to be done again from the beginning after this long.
    Again(Duration),
    /// Nothing could be done now, by no fault of the task.
    Later(Duration),
    /// It failed, for this reason.
    Failed(String),
}

/// What an administrator does with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is due now, with all its attempts.
    Retry,
    /// It goes. What it did stays done.
    Cancel,
}

/// Slices that fail one after the other before a task is failed: something more than an hour of pauses.
pub const ATTEMPTS_MAX: u32 = 16;
/// For how long a worker has a task. A slice takes seconds; one that takes longer is repeated by another worker, and its
/// report is not heard.
pub const LEASE: Duration = Duration::from_secs(60);
/// Tasks of a region, at most. They are coarse: one for a bucket, none for an object.
pub const TASKS_MAX: usize = 1_000;
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_mins(10);
/// Bytes of an error that are kept.
const ERROR_BYTES_MAX: usize = 1_000;

impl NewTask {
    /// The task, due at once.
    #[must_use]
    pub fn at(self, id: u64, now: WallTime) -> Task {
        let Self { kind, about, priority } = self;
        Task {
            id,
            kind: kind.to_owned(),
            about,
            priority,
            state: TaskState::Pending,
            attempts: 0,
            not_before: now,
            leases: 0,
            position: String::new(),
            last_error: None,
            created_at: now,
            changed_at: now,
        }
    }
}

impl Task {
    /// Whether this worker may have it now.
    #[must_use]
    pub fn is_due(&self, worker: Worker, now: WallTime) -> bool {
        match self.state {
            TaskState::Pending => self.not_before <= now,
            TaskState::Running(other) => {
                self.not_before <= now || (other.node == worker.node && other.life < worker.life)
            }
            TaskState::Failed => false,
        }
    }

    /// The task in the hands of a worker, for [`LEASE`]; or failed, when every attempt so far ended without a report.
    #[must_use]
    pub fn leased(mut self, worker: Worker, now: WallTime) -> Self {
        self.changed_at = now;
        if self.attempts >= ATTEMPTS_MAX {
            self.state = TaskState::Failed;
            let unheard = || format!("{} attempts ended without a word of their worker", self.attempts);
            self.last_error = Some(self.last_error.take().unwrap_or_else(unheard));
            return self;
        }
        self.state = TaskState::Running(worker);
        self.attempts += 1;
        self.leases += 1;
        self.not_before = later(now, LEASE);
        self
    }

    /// What becomes of it; `None` when it is done.
    #[must_use]
    pub fn reported(mut self, report: &Report, now: WallTime) -> Option<Self> {
        self.changed_at = now;
        let held = std::mem::replace(&mut self.state, TaskState::Pending);
        match report {
            Report::Working => {
                self.state = held;
                self.not_before = later(now, LEASE);
            }
            Report::Done => return None,
            Report::More(position) => {
                self.not_before = now;
                self.went_well(position.clone());
            }
            Report::Again(pause) => {
                self.not_before = later(now, *pause);
                self.went_well(String::new());
            }
            Report::Later(pause) => {
                self.attempts = self.attempts.saturating_sub(1);
                self.not_before = later(now, *pause);
            }
            Report::Failed(error) => {
                self.last_error = Some(cut(error));
                if self.attempts >= ATTEMPTS_MAX {
                    self.state = TaskState::Failed;
                } else {
                    self.not_before = later(now, pause(self.id, self.attempts));
                }
            }
        }
        Some(self)
    }

    /// What an administrator makes of it; `None` when it goes.
    #[must_use]
    pub fn ordered(mut self, order: Order, now: WallTime) -> Option<Self> {
        match order {
            Order::Cancel => None,
            // It runs: there is nothing to wait for.
            Order::Retry if matches!(self.state, TaskState::Running(_)) && self.not_before > now => Some(self),
            Order::Retry => {
                (self.state, self.attempts) = (TaskState::Pending, 0);
                (self.not_before, self.changed_at) = (now, now);
                Some(self)
            }
        }
    }

    fn went_well(&mut self, position: String) {
        self.attempts = 0;
        self.last_error = None;
        self.position = position;
    }
}

/// The pause behind so many failures: twice as long after each, and between half of that and all of it, by a number of
/// the task's own, so that what failed together does not come back together.
#[must_use]
pub fn pause(id: u64, attempts: u32) -> Duration {
    let doubled = PAUSE_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSE_MAX);
    // SplitMix64's last step over both.
    let mut z = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(attempts);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let byte = u32::from((z >> 56).to_le_bytes()[0]);
    doubled / 2 + doubled / 2 * byte / 255
}

/// That much later.
#[must_use]
pub fn later(now: WallTime, pause: Duration) -> WallTime {
    let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    WallTime { unix_ms: now.unix_ms.saturating_add(pause_ms) }
}

fn cut(error: &str) -> String {
    error
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= ERROR_BYTES_MAX).then_some(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime { unix_ms: 1_000_000 };

    fn worker(node: u32, life: u32) -> Worker {
        Worker { node: NodeId(node), life: Incarnation(life) }
    }

    fn task() -> Task {
        NewTask { kind: "k", about: "a".to_owned(), priority: 5 }.at(7, NOW)
    }

    #[test]
    fn a_lease_ends_with_its_time_or_its_life() {
        let leased = task().leased(worker(1, 5), NOW);
        assert_eq!((leased.state, leased.attempts, leased.leases), (TaskState::Running(worker(1, 5)), 1, 1));
        let due = |worker, at| leased.is_due(worker, at);
        assert!(!due(worker(1, 5), NOW) && !due(worker(2, 9), NOW) && !due(worker(1, 4), NOW));
        assert!(due(worker(1, 6), NOW), "a later life of the node knows that the earlier one is gone");
        assert!(!due(worker(2, 9), WallTime { unix_ms: NOW.unix_ms + 59_999 }));
        assert!(due(worker(2, 9), WallTime { unix_ms: NOW.unix_ms + 60_000 }));
    }

    #[test]
    fn what_goes_well_forgets_what_failed() {
        let failed = task().leased(worker(1, 1), NOW).reported(&Report::Failed("no".to_owned()), NOW).unwrap();
        assert_eq!((failed.attempts, failed.last_error.as_deref(), failed.state), (1, Some("no"), TaskState::Pending));
        assert!(failed.not_before > NOW && !failed.is_due(worker(1, 1), NOW));
        let more = failed.leased(worker(1, 1), NOW).reported(&Report::More("p".to_owned()), NOW).unwrap();
        assert_eq!((more.attempts, more.last_error.as_deref(), more.position.as_str()), (0, None, "p"));
        let again = more.leased(worker(1, 1), NOW).reported(&Report::Again(Duration::from_secs(3)), NOW).unwrap();
        assert_eq!((again.position.as_str(), again.not_before.unix_ms), ("", NOW.unix_ms + 3_000));
        assert_eq!(again.leased(worker(1, 1), NOW).reported(&Report::Done, NOW), None);
    }

    #[test]
    fn a_task_is_failed_after_so_many_attempts() {
        let (mut failing, mut dying, mut waiting) = (task(), task(), task());
        for attempt in 1..=ATTEMPTS_MAX {
            assert_eq!((failing.state, dying.attempts), (TaskState::Pending, attempt - 1));
            failing = failing.leased(worker(1, 1), NOW).reported(&Report::Failed("no".to_owned()), NOW).unwrap();
            dying = dying.leased(worker(1, attempt), NOW);
            waiting = waiting.leased(worker(1, 1), NOW).reported(&Report::Later(Duration::ZERO), NOW).unwrap();
        }
        assert_eq!((failing.state, waiting.state), (TaskState::Failed, TaskState::Pending));
        assert_eq!(waiting.attempts, 0, "an outage uses no attempt up");
        let dead = dying.leased(worker(1, 99), NOW);
        assert_eq!(dead.state, TaskState::Failed);
        assert!(dead.last_error.unwrap().contains("without a word"));
        let retried = failing.ordered(Order::Retry, NOW).unwrap();
        assert!(retried.is_due(worker(1, 1), NOW) && retried.attempts == 0);
        assert_eq!(retried.last_error.as_deref(), Some("no"), "until something goes well");
        assert_eq!(retried.ordered(Order::Cancel, NOW), None);
    }

    #[test]
    fn pauses_grow_and_differ() {
        let mut total = Duration::ZERO;
        for attempts in 1..ATTEMPTS_MAX {
            let whole = PAUSE_MIN.saturating_mul(1 << (attempts - 1)).min(PAUSE_MAX);
            let paused = pause(7, attempts);
            assert!(paused >= whole / 2 && paused <= whole, "{attempts}: {paused:?}");
            assert_eq!(paused, pause(7, attempts));
            total += whole;
        }
        assert!(total > Duration::from_hours(1), "{total:?}");
        let of_many: std::collections::BTreeSet<_> = (0..100).map(|id| pause(id, 9)).collect();
        assert!(of_many.len() > 50, "{of_many:?}");
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let failed = task().leased(worker(1, 1), NOW).reported(&Report::Failed("ä".repeat(900)), NOW).unwrap();
        assert_eq!(failed.last_error.unwrap(), "ä".repeat(500));
    }
}
