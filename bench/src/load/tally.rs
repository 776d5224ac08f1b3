//! What a worker has seen, added up over all of them at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// All operations that were tried, by their kind.
#[derive(Clone, Debug)]
pub(crate) struct Tally<O>(BTreeMap<O, Seen>);

/// One kind of operation.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Operations that succeeded.
    pub(crate) operations: u64,
    /// Bytes of objects that they moved.
    pub(crate) bytes: u64,
    /// Objects that they put, read, listed or deleted.
    pub(crate) objects: u64,
    /// Microseconds to the last byte received, from the first that was sent; at a given rate from the moment when it was to
    /// be sent, so that waiting behind slow answers counts.
    pub(crate) latency_us: Histogram<u64>,
    /// The same to the first byte received.
    pub(crate) first_byte_us: Histogram<u64>,
    /// Microseconds by which an operation began later than it was to, at a given rate.
    pub(crate) late_us: Histogram<u64>,
    /// What failed, by the code of the answer or of the connection.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// An operation that succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Success {
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
    pub(crate) latency: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) late: Duration,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            operations: 0,
            bytes: 0,
            objects: 0,
            latency_us: histogram(),
            first_byte_us: histogram(),
            late_us: histogram(),
            errors: BTreeMap::new(),
        }
    }
}

impl<O> Default for Tally<O> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<O: Copy + Ord> Tally<O> {
    pub(crate) fn succeeded(&mut self, operation: O, success: &Success) {
        let seen = self.0.entry(operation).or_default();
        seen.operations += 1;
        seen.bytes += success.bytes;
        seen.objects += success.objects;
        for (histogram, time) in [
            (&mut seen.latency_us, success.latency),
            (&mut seen.first_byte_us, success.first_byte),
            (&mut seen.late_us, success.late),
        ] {
            histogram.record(micros(time)).expect("a histogram grows to what is recorded");
        }
    }

    pub(crate) fn failed(&mut self, operation: O, code: String) {
        let errors = &mut self.0.entry(operation).or_default().errors;
        let code = if errors.len() < CODES_MAX { code } else { "other".to_owned() };
        *errors.entry(code).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (operation, other) in &other.0 {
            let seen = self.0.entry(*operation).or_default();
            seen.operations += other.operations;
            seen.bytes += other.bytes;
            seen.objects += other.objects;
            for (histogram, other) in [
                (&mut seen.latency_us, &other.latency_us),
                (&mut seen.first_byte_us, &other.first_byte_us),
                (&mut seen.late_us, &other.late_us),
            ] {
                histogram.add(other).expect("a histogram grows to what is added");
            }
            for (code, count) in &other.errors {
                *seen.errors.entry(code.clone()).or_default() += count;
            }
        }
    }

    /// In the order of their kinds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (O, &Seen)> {
        self.0.iter().map(|(operation, seen)| (*operation, seen))
    }
}

/// Different codes that one worker keeps apart.
const CODES_MAX: usize = 32;
/// Ten minutes: longer is shown as that.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Takes memory as far as what is recorded needs it: there is one for each worker.
fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are valid")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(LATENCY_US_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_added_up() {
        let success = |millis| Success {
            bytes: 10,
            objects: 1,
            latency: Duration::from_millis(millis),
            first_byte: Duration::from_millis(1),
            late: Duration::ZERO,
        };
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.succeeded("get", &success(5));
        two.succeeded("get", &success(9));
        two.failed("get", "503 SlowDown".to_owned());
        one.add(&two);
        let all: Vec<_> = one.iter().collect();
        assert_eq!(all.len(), 1);
        let (operation, seen) = &all[0];
        assert_eq!((*operation, seen.operations, seen.bytes), ("get", 2, 20));
        assert!(seen.latency_us.max() >= 9_000 && seen.errors["503 SlowDown"] == 1);
    }
}
