//! Who came too often.

use std::sync::Arc;

use super::metrics::{Metrics, Sample, SampleKind, float};
use crate::admission::{Admission, AdmissionCounts, Limit};

/// Puts what limits have refused on the page of `metrics`.
pub fn watch_admission(metrics: &Metrics, admission: Arc<Admission>) {
    metrics.watch(move || {
        let sample = |name, help, count: fn(AdmissionCounts) -> u64| {
            let value =
                |&limit: &Limit| (vec![("limit", limit.name().to_owned())], float(count(admission.counts(limit))));
            Sample { name, help, kind: SampleKind::Counter, values: Limit::ALL.iter().map(value).collect() }
        };
        vec![
            sample("limited_requests", "Requests that were refused because there were too many", |counts| {
                counts.refused
            }),
            sample("limited_forgotten", "Addresses and apps whose use of a limit was forgotten for others", |counts| {
                counts.forgotten
            }),
        ]
    });
}
