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

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |percentile| histogram.value_at_percentile(percentile);
        Self { p50: at(50.0), p90: at(90.0), p99: at(99.0), p99_9: at(99.9), p99_99: at(99.99), max: histogram.max() }
    }
}
