//! Durations sorted into fixed buckets, for metrics.

use std::time::Duration;

/// Upper bounds of the buckets, in microseconds; above the last there is one more bucket.
pub const LATENCY_BOUNDS_US: [u64; 19] = [
    25,
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    60_000_000,
    300_000_000,
];
/// How many buckets there are.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// The bucket of a duration: that with the smallest bound which is not exceeded.
#[must_use]
pub fn latency_bucket(duration: Duration) -> usize {
    LATENCY_BOUNDS_US.partition_point(|&bound| Duration::from_micros(bound) < duration)
}

/// How many durations fell into each bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Per bucket; not added up.
    pub counts: [u64; LATENCY_BUCKETS],
    /// All durations together.
    pub sum: Duration,
}

impl Latencies {
    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        self.counts[latency_bucket(duration)] += 1;
        self.sum = self.sum.saturating_add(duration);
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut latencies = Latencies::default();
        for nanos in [0, 25_000, 25_001, 300_000_000_000, 300_000_000_001] {
            latencies.record(Duration::from_nanos(nanos));
        }
        assert_eq!((latencies.counts[0], latencies.counts[1]), (2, 1));
        assert_eq!(latencies.counts[LATENCY_BUCKETS - 2..], [1, 1]);
        let mut sum = latencies;
        sum.add(&latencies);
        assert_eq!((sum.count(), sum.sum), (10, 2 * latencies.sum));
    }
}
