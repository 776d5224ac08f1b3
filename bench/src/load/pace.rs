//! How many operations begin, and when.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by all who work at one phase of a load.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    began: Instant,
    count: u64,
    /// Operations that may still be begun.
    left: AtomicU64,
    /// Nothing more is begun from here on.
    deadline: Option<Instant>,
    /// When operations are to begin; otherwise each begins when the one before it has ended.
    schedule: Option<Schedule>,
    interrupted: &'a AtomicBool,
}

impl<'a> Pace<'a> {
    /// `count` operations at most, begun within `duration`, `rate` of them each second where there is one. Time runs from here.
    pub(crate) fn new(count: u64, duration: Option<Duration>, rate: Option<f64>, interrupted: &'a AtomicBool) -> Self {
        let began = Instant::now();
        Self {
            began,
            count,
            left: AtomicU64::new(count),
            deadline: duration.map(|duration| began + duration),
            schedule: rate.map(|rate| Schedule::new(began, rate)),
            interrupted,
        }
    }

    /// Waits for the moment at which the next operation is to begin, and says it; `None` when the phase is over.
    pub(crate) fn begin(&self) -> Option<Instant> {
        let intended = self.take()?;
        while let Some(nap) = self.nap(intended)? {
            std::thread::sleep(nap);
        }
        Some(intended)
    }

    /// [`Self::begin`] for one of several tasks of a thread, on tokio.
    pub(crate) async fn begin_async(&self) -> Option<Instant> {
        let intended = self.take()?;
        while let Some(nap) = self.nap(intended)? {
            tokio::time::sleep(nap).await;
        }
        Some(intended)
    }

    /// Operations that have begun, or are about to.
    pub(crate) fn begun(&self) -> u64 {
        self.count - self.left.load(Ordering::Relaxed)
    }

    /// Since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The moment of the next operation, which may lie ahead.
    fn take(&self) -> Option<Instant> {
        let may_begin = !self.is_over()
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        may_begin.then(|| self.schedule.as_ref().map_or_else(Instant::now, Schedule::take))
    }

    /// How long to sleep before this is asked again; `None` within when the moment is there, without when the phase is over.
    fn nap(&self, intended: Instant) -> Option<Option<Duration>> {
        if self.schedule.is_none() {
            return Some(None);
        }
        if self.is_over() || self.deadline.is_some_and(|deadline| intended >= deadline) {
            return None;
        }
        let early = intended.saturating_duration_since(Instant::now());
        Some((!early.is_zero()).then(|| early.min(NAP_MAX)))
    }

    fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Operations that were to begin within so many seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^53 operations")]
pub(crate) fn due(rate: f64, seconds: f64) -> u64 {
    (rate * seconds).floor() as u64
}

/// Reads how many operations are to begin each second.
///
/// # Errors
/// One sentence that says what is taken.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e7).contains(rate));
    rate.ok_or_else(|| format!("`{text}` is not a number of operations from 0.001 to 10000000"))
}

/// Moments at even distances, each for one operation of whichever worker is free: the load of clients who do not know of
/// one another, and do not wait for one another's answers.
#[derive(Debug)]
struct Schedule {
    began: Instant,
    rate: f64,
    taken: AtomicU64,
}

impl Schedule {
    fn new(began: Instant, rate: f64) -> Self {
        Self { began, rate, taken: AtomicU64::new(0) }
    }

    #[expect(clippy::cast_precision_loss, reason = "below 2^53 operations")]
    fn take(&self) -> Instant {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        self.began + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// How long a worker sleeps before it looks again whether the run was ended.
const NAP_MAX: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_goes_on_while_nobody_takes_from_it() {
        let began = Instant::now();
        let schedule = Schedule::new(began, 100.0);
        let moments: Vec<Duration> = (0..3).map(|_| schedule.take() - began).collect();
        assert_eq!(moments, [0, 10, 20].map(Duration::from_millis));
    }
}
