//! What buckets and tenants hold and may, as samples: the largest by name, all others together, so that clients who make buckets
//! add no labels without end.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anvil_model::access::State;
use anvil_model::ids::TenantId;
use anvil_model::io::World as _;
use anvil_model::limits::PAGE_KEYS_MAX;
use anvil_node::metadata::MetadataError;
use anvil_node::metadata::usage::{Quota, Usage};
use anvil_node::{Caller, Node};
use anvil_runtime::Core;

use super::metrics::{Label, Metrics, Sample, SampleKind};
use crate::access::AccessKeeper;

/// Buckets, and tenants, that have numbers of their own.
const NAMED_MAX: usize = 50;
/// What all others are called; no bucket and no tenant can have this name.
const OTHER: &str = "(other)";
/// How often all usage is read. A round reads one row for each bucket.
const READ_EVERY: Duration = Duration::from_secs(60);

/// What was read last.
#[derive(Debug, Default)]
pub struct UsageFigures {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    buckets: Largest,
    tenants: Largest,
}

/// The largest, and the sum of all others.
#[derive(Clone, Debug, Default)]
struct Largest {
    named: Vec<Holder>,
    other: Usage,
}

#[derive(Clone, Debug)]
struct Holder {
    labels: Vec<Label>,
    usage: Usage,
    quota: Quota,
}

impl UsageFigures {
    /// Puts them on the page of `metrics`.
    #[must_use]
    pub fn watched_by(metrics: &Metrics) -> Arc<Self> {
        let figures = Arc::new(Self::default());
        let watched = Arc::clone(&figures);
        metrics.watch(move || watched.samples());
        figures
    }

    /// Reads what is held now and then, for as long as the future is polled.
    pub async fn publish(&self, node: &Node<Core>, keeper: &AccessKeeper) {
        loop {
            // Where it is not known who there is, names wait for the next round.
            if let Ok(known) = keeper.known() {
                match Held::read(node, &known.state).await {
                    Ok(held) => *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held,
                    Err(error) => tracing::debug!(%error, "what is held is not counted at the moment"),
                }
            }
            node.world().sleep(READ_EVERY).await;
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let [objects, bytes, upload_bytes, quota_bytes, quota_objects] = held.buckets.values(&["bucket", "tenant"]);
        let mut samples = vec![
            gauge("bucket_objects", "Objects by bucket, the largest by name", objects),
            gauge("bucket_bytes", "Bytes of objects and of uploads under way by bucket, the largest by name", bytes),
            gauge("bucket_upload_bytes", "Those of uploads under way", upload_bytes),
            gauge("bucket_quota_bytes", "How many bytes a bucket may hold, where there is a bound", quota_bytes),
            gauge("bucket_quota_objects", "How many objects a bucket may hold, where there is a bound", quota_objects),
        ];
        let [objects, bytes, upload_bytes, quota_bytes, quota_objects] = held.tenants.values(&["tenant"]);
        samples.extend([
            gauge("tenant_objects", "Objects by tenant, the largest by name", objects),
            gauge("tenant_bytes", "Bytes of objects and of uploads under way by tenant, the largest by name", bytes),
            gauge("tenant_upload_bytes", "Those of uploads under way", upload_bytes),
            gauge("tenant_quota_bytes", "How many bytes a tenant may hold, where there is a bound", quota_bytes),
            gauge("tenant_quota_objects", "How many objects a tenant may hold, where there is a bound", quota_objects),
        ]);
        samples
    }
}

fn gauge(name: &'static str, help: &'static str, values: Vec<(Vec<Label>, f64)>) -> Sample {
    Sample { name, help, kind: SampleKind::Gauge, values }
}

impl Held {
    async fn read(node: &Node<Core>, state: &State) -> Result<Self, MetadataError> {
        let (mut buckets, mut tenants) = (Largest::default(), BTreeMap::<TenantId, (Usage, Quota)>::new());
        let mut after = None;
        loop {
            let page = node.bucket_usages(after, PAGE_KEYS_MAX).await?;
            let is_last = page.len() < PAGE_KEYS_MAX;
            after = page.last().map(|last| last.bucket.id).or(after);
            for found in page.into_iter().filter(|found| found.bucket.tenant != Caller::NODE.tenant) {
                let (usage, of_tenant) = (found.usage, tenants.entry(found.bucket.tenant).or_default());
                *of_tenant = (of_tenant.0 + usage, found.tenant_quota);
                let tenant = state.tenant_name(found.bucket.tenant).to_owned();
                let labels = vec![("bucket", found.bucket.name.as_str().to_owned()), ("tenant", tenant)];
                buckets.named.push(Holder { labels, usage, quota: found.bucket.quota });
            }
            buckets.fold();
            if is_last {
                break;
            }
        }
        let holder = |(tenant, (usage, quota))| {
            let labels = vec![("tenant", state.tenant_name(tenant).to_owned())];
            Holder { labels, usage, quota }
        };
        let mut tenants = Largest { named: tenants.into_iter().map(holder).collect(), ..Largest::default() };
        tenants.fold();
        Ok(Self { buckets, tenants })
    }
}

impl Largest {
    /// Adds all but the largest up.
    fn fold(&mut self) {
        self.named.sort_by_key(|holder| Reverse(holder.usage.bytes()));
        let smaller = self.named.drain(NAMED_MAX.min(self.named.len())..);
        self.other = smaller.fold(self.other, |sum, holder| sum + holder.usage);
    }

    /// Objects, bytes, bytes of uploads, and both quotas, each with its labels.
    fn values(&self, names: &[&'static str]) -> [Vec<(Vec<Label>, f64)>; 5] {
        let others = names.iter().map(|name| (*name, OTHER.to_owned())).collect();
        let other = Holder { labels: others, usage: self.other, quota: Quota::NONE };
        let all = || self.named.iter().chain([&other]);
        let used = |read: fn(Usage) -> i64| all().map(|of| (of.labels.clone(), number(read(of.usage)))).collect();
        let most = |read: fn(Quota) -> Option<u64>| {
            let bound = |of: &Holder| Some((of.labels.clone(), super::metrics::float(read(of.quota)?)));
            self.named.iter().filter_map(bound).collect()
        };
        [
            used(|usage| usage.objects),
            used(Usage::bytes),
            used(|usage| usage.upload_bytes),
            most(|quota| quota.bytes),
            most(|quota| quota.objects),
        ]
    }
}

/// Below zero only where it drifted.
fn number(held: i64) -> f64 {
    super::metrics::float(u64::try_from(held).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: labels are bounded and nothing is left out of the sums. Method: more buckets than have names, in several rounds.
    #[test]
    fn all_but_the_largest_are_one() {
        let mut largest = Largest::default();
        for size in 1..=200_u64 {
            let labels = vec![("bucket", format!("bucket-{size}")), ("tenant", "t".to_owned())];
            let quota = Quota { bytes: Some(1000), objects: None };
            largest.named.push(Holder { labels, usage: Usage::of_object(size), quota });
            if size % 60 == 0 {
                largest.fold();
            }
        }
        largest.fold();
        let [objects, bytes, _, quota_bytes, quota_objects] = largest.values(&["bucket", "tenant"]);
        assert_eq!((objects.len(), quota_bytes.len(), quota_objects.len()), (NAMED_MAX + 1, NAMED_MAX, 0));
        assert_eq!(bytes[0], (vec![("bucket", "bucket-200".to_owned()), ("tenant", "t".to_owned())], 200.0));
        let sum = |values: &[(Vec<Label>, f64)]| values.iter().map(|(_, value)| value).sum::<f64>();
        assert_eq!((sum(&objects), sum(&bytes)), (200.0, 20_100.0));
    }
}
