//! Many histories on several threads, each wholly on one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{HistoryOptions, Report, run};

/// Histories to run: `count` seeds from `from` on.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many seeds.
    pub count: u64,
    /// Threads.
    pub jobs: usize,
    /// No history is begun later than this after the start.
    pub time_max: Duration,
    /// No history is begun after so many failures.
    pub failures_max: usize,
    /// For every history.
    pub options: HistoryOptions,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What was wrong.
    pub problem: String,
}

/// What a campaign came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Histories that were run.
    pub histories: u64,
    /// The first seed that was not begun; a campaign can go on from there.
    pub next: u64,
    /// Their sums; the trace is the XOR of all.
    pub total: Report,
    /// By seed.
    pub failures: Vec<Failure>,
    /// Real time.
    pub took: Duration,
}

impl Campaign {
    /// Runs it.
    #[must_use]
    pub fn run(self) -> Summary {
        let start = Instant::now();
        let next = AtomicU64::new(0);
        let result = Mutex::new((Report::default(), Vec::new()));
        let work = || {
            loop {
                let failed = result.lock().expect("nobody panics in there").1.len();
                if start.elapsed() >= self.time_max || failed >= self.failures_max {
                    return;
                }
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count {
                    return;
                }
                let seed = self.from + index;
                let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, self.options)));
                let mut result = result.lock().expect("nobody panics in there");
                match outcome {
                    Ok(report) => result.0.add(&report),
                    Err(panic) => result.1.push(Failure { seed, problem: text(panic.as_ref()) }),
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        let histories = next.into_inner().min(self.count);
        let (total, mut failures) = result.into_inner().expect("nobody panics in there");
        failures.sort_by_key(|failure: &Failure| failure.seed);
        Summary { histories, next: self.from + histories, total, failures, took: start.elapsed() }
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let string = panic.downcast_ref::<String>().map(String::as_str);
    string.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text").to_owned()
}
