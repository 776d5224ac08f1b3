//! What a histogram of latencies says, in few numbers.

use hdrhistogram::Histogram;
use serde::Serialize;

/// In the unit of the histogram that it was read from; who holds it names that in the field's name.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: u64,
    #[serde(rename = "p99.99")]
    pub(crate) p99_99: u64,
    pub(crate) max: u64,
}

/// So many took at most so long, and longer than the bucket before says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bucket {
    /// In the unit of the histogram.
    pub(crate) up_to: u64,
    pub(crate) count: u64,
}

/// The whole histogram by doubling from `first` on, without empty buckets.
pub(crate) fn buckets(histogram: &Histogram<u64>, first: u64) -> Vec<Bucket> {
    let of = |step: hdrhistogram::iterators::IterationValue<u64>| Bucket {
        up_to: step.value_iterated_to(),
        count: step.count_since_last_iteration(),
    };
    histogram.iter_log(first, 2.0).map(of).filter(|bucket| bucket.count > 0).collect()
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |percentile| histogram.value_at_percentile(percentile);
        Self { p50: at(50.0), p90: at(90.0), p99: at(99.0), p99_9: at(99.9), p99_99: at(99.99), max: histogram.max() }
    }
}
