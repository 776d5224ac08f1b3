//! Counters of requests, one set per core, and the page that Prometheus reads.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anvil_model::ids::CoreId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::access::{self, Exchange};

/// What requests are counted by: the names of AWS's API, and those of our own.
pub const OPERATIONS: [&str; 53] = [
    "Other",
    "Refused",
    "Health",
    "Ready",
    "Metrics",
    "ListBuckets",
    "CreateBucket",
    "HeadBucket",
    "DeleteBucket",
    "GetBucketLocation",
    "PutObject",
    "GetObject",
    "HeadObject",
    "DeleteObject",
    "DeleteObjects",
    "CopyObject",
    "ListObjects",
    "ListObjectsV2",
    "ListObjectVersions",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListMultipartUploads",
    "ListParts",
    "GetObjectAttributes",
    "GetObjectTagging",
    "PutObjectTagging",
    "DeleteObjectTagging",
    "GetBucketVersioning",
    "PutBucketVersioning",
    "GetBucketAcl",
    "GetObjectAcl",
    "GetObjectRetention",
    "GetObjectLegalHold",
    "GetObjectLockConfiguration",
    "GetBucketPolicy",
    "GetBucketPolicyStatus",
    "GetBucketTagging",
    "GetBucketLifecycleConfiguration",
    "GetBucketEncryption",
    "GetBucketCors",
    "GetBucketReplication",
    "GetBucketWebsite",
    "GetBucketNotificationConfiguration",
    "GetBucketLogging",
    "GetBucketAccelerateConfiguration",
    "GetBucketRequestPayment",
    "GetBucketOwnershipControls",
    "GetPublicAccessBlock",
    "PostObject",
    "NotImplemented",
];

/// Upper bounds of the latency buckets in microseconds; above the last there is one more.
const LATENCY_BOUNDS_US: [u64; 16] = [
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
    5_000_000,
    30_000_000,
    300_000_000,
];
/// Status classes 1xx to 5xx.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What one core counts. Only that core writes, so no cache line is fought for; every thread may read.
#[derive(Debug)]
pub struct CoreCounters {
    /// In the order of [`OPERATIONS`].
    operations: [OperationCounters; OPERATIONS.len()],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    in_flight: AtomicU64,
    connections: AtomicU64,
    connections_refused: AtomicU64,
    incomplete: AtomicU64,
}

#[derive(Debug, Default)]
struct OperationCounters {
    by_class: [AtomicU64; CLASSES.len()],
    by_latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    latency_us: AtomicU64,
}

impl Default for CoreCounters {
    fn default() -> Self {
        Self {
            operations: std::array::from_fn(|_| OperationCounters::default()),
            received_bytes: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            in_flight: AtomicU64::default(),
            connections: AtomicU64::default(),
            connections_refused: AtomicU64::default(),
            incomplete: AtomicU64::default(),
        }
    }
}

impl CoreCounters {
    /// Counts a request and writes its line to the access log.
    pub fn record(&self, exchange: &Exchange<'_>) {
        let index = OPERATIONS.iter().position(|&name| name == exchange.operation).unwrap_or(0);
        let counters = &self.operations[index];
        let class = usize::from(exchange.status / 100).clamp(1, CLASSES.len()) - 1;
        let latency_us = u64::try_from(exchange.duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|&bound| bound < latency_us);
        add(&counters.by_class[class], 1);
        add(&counters.by_latency[bucket], 1);
        add(&counters.latency_us, latency_us);
        add(&self.received_bytes, exchange.received_bytes);
        add(&self.sent_bytes, exchange.sent_bytes);
        if !exchange.complete {
            add(&self.incomplete, 1);
        }
        access::log(exchange);
    }

    /// A request is being served, until the guard is dropped.
    pub(crate) fn in_flight(&self) -> InFlight<'_> {
        add(&self.in_flight, 1);
        InFlight(&self.in_flight)
    }

    pub(crate) fn connection_opened(&self) {
        add(&self.connections, 1);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_refused(&self) {
        add(&self.connections_refused, 1);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(crate) struct InFlight<'a>(&'a AtomicU64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A label of a sample.
pub type Label = (&'static str, String);

/// A number that is asked for when the page is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name without `anvil_` in front and without `_total` behind.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What kind of number.
    pub kind: SampleKind,
    /// The values, each with its labels.
    pub values: Vec<(Vec<Label>, f64)>,
}

/// How a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// All that the node counts.
#[derive(Debug)]
pub struct Metrics {
    cores: Arc<[Arc<CoreCounters>]>,
    registry: Mutex<Registry>,
}

impl Metrics {
    /// Counters for so many cores, the time since now, and the version.
    #[must_use]
    pub fn new(core_count: u16) -> Self {
        let cores: Arc<[_]> = (0..core_count).map(|_| Arc::new(CoreCounters::default())).collect();
        let mut registry = Registry::with_prefix("anvil");
        registry.register_collector(Box::new(Requests(Arc::clone(&cores))));
        let metrics = Self { cores, registry: Mutex::new(registry) };
        let started = Instant::now();
        metrics.watch(move || {
            vec![
                Sample::gauge("uptime_seconds", "Time since the process started", started.elapsed().as_secs_f64()),
                Sample {
                    name: "build_info",
                    help: "The version that runs, as a label",
                    kind: SampleKind::Gauge,
                    values: vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
                },
            ]
        });
        metrics
    }

    /// The counters of one core.
    #[must_use]
    pub fn core(&self, core: CoreId) -> Arc<CoreCounters> {
        Arc::clone(&self.cores[usize::from(core.0)])
    }

    /// Adds numbers that are asked for whenever the page is read. `ask` runs on the core that serves the page: it must
    /// only read what lies in memory.
    pub fn watch(&self, ask: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        let mut registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.register_collector(Box::new(Watched(Box::new(ask))));
    }

    /// The page, in the text format of OpenMetrics.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        encode(&mut page, &registry).expect("a String takes everything");
        page
    }
}

impl Sample {
    /// A gauge with one value and no label.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, kind: SampleKind::Gauge, values: vec![(Vec::new(), value)] }
    }
}

/// Counts are shown as floating-point numbers, exact up to 2^53.
#[allow(clippy::cast_precision_loss)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

struct Watched(Box<dyn Fn() -> Vec<Sample> + Send + Sync>);

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl Collector for Watched {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for sample in (self.0)() {
            let metric_type = match sample.kind {
                SampleKind::Counter => MetricType::Counter,
                SampleKind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(sample.name, sample.help, None, metric_type)?;
            for (labels, value) in &sample.values {
                if labels.is_empty() {
                    encode_value(&mut metric, sample.kind, *value)?;
                } else {
                    encode_value(&mut metric.encode_family(labels)?, sample.kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: SampleKind, value: f64) -> fmt::Result {
    match kind {
        SampleKind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        SampleKind::Gauge => metric.encode_gauge(&value),
    }
}

/// The requests of all cores, added up when they are asked for.
#[derive(Debug)]
struct Requests(Arc<[Arc<CoreCounters>]>);

impl Requests {
    fn sum(&self, read: impl Fn(&CoreCounters) -> &AtomicU64) -> u64 {
        self.0.iter().map(|core| read(core).load(Ordering::Relaxed)).sum()
    }

    fn count(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests answered, by operation and class of status";
        let mut metric = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (operation, name) in OPERATIONS.iter().enumerate() {
            for (class, class_name) in CLASSES.iter().enumerate() {
                let count = self.sum(|core| &core.operations[operation].by_class[class]);
                if count > 0 {
                    let labels = [("operation", *name), ("status", *class_name)];
                    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn latency(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From the first byte of a request to the last of its answer";
        let mut metric = encoder.encode_descriptor("request_seconds", help, None, MetricType::Histogram)?;
        for (operation, name) in OPERATIONS.iter().enumerate() {
            let bounds = LATENCY_BOUNDS_US.iter().map(|&us| Duration::from_micros(us).as_secs_f64());
            let buckets: Vec<(f64, u64)> = bounds
                .chain([f64::INFINITY])
                .enumerate()
                .map(|(at, bound)| (bound, self.sum(|core| &core.operations[operation].by_latency[at])))
                .collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            if count > 0 {
                let sum = Duration::from_micros(self.sum(|core| &core.operations[operation].latency_us));
                let labels = [("operation", *name)];
                let mut family = metric.encode_family(&labels)?;
                family.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.count(&mut encoder)?;
        self.latency(&mut encoder)?;
        let mut one = |name, help, kind, value| -> fmt::Result {
            let metric_type = if kind == SampleKind::Counter { MetricType::Counter } else { MetricType::Gauge };
            encode_value(&mut encoder.encode_descriptor(name, help, None, metric_type)?, kind, float(value))
        };
        let counter = SampleKind::Counter;
        one("request_received_bytes", "Bytes of request bodies", counter, self.sum(|core| &core.received_bytes))?;
        one("request_sent_bytes", "Bytes of answers' bodies", counter, self.sum(|core| &core.sent_bytes))?;
        one("requests_incomplete", "Answers that broke off", counter, self.sum(|core| &core.incomplete))?;
        one(
            "connections_refused",
            "Connections refused for want of room",
            counter,
            self.sum(|core| &core.connections_refused),
        )?;
        one("requests_in_flight", "Requests being served", SampleKind::Gauge, self.sum(|core| &core.in_flight))?;
        one("connections", "Connections that are open", SampleKind::Gauge, self.sum(|core| &core.connections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Head;

    fn exchange(metrics: &Metrics, core: u16, operation: &'static str, status: u16, micros: u64) {
        let head = Head {
            method: "GET".to_owned(),
            path: "/b/k".to_owned(),
            query: None,
            headers: Vec::new(),
            peer: "127.0.0.1:1".parse().unwrap(),
            request_id: "R".to_owned(),
        };
        let duration = Duration::from_micros(micros);
        metrics.core(CoreId(core)).record(&Exchange {
            head: &head,
            operation,
            status,
            received_bytes: 3,
            sent_bytes: 5,
            duration,
            complete: true,
        });
    }

    #[test]
    fn requests_of_all_cores_are_added_up_on_the_page() {
        let metrics = Metrics::new(2);
        exchange(&metrics, 0, "GetObject", 200, 100);
        exchange(&metrics, 1, "GetObject", 206, 101);
        exchange(&metrics, 1, "GetObject", 404, 400_000_000);
        exchange(&metrics, 1, "NoSuchOperation", 500, 1);
        let in_flight = metrics.core(CoreId(0));
        let guard = in_flight.in_flight();
        let page = metrics.render();
        for line in [
            "anvil_requests_total{operation=\"GetObject\",status=\"2xx\"} 2",
            "anvil_requests_total{operation=\"GetObject\",status=\"4xx\"} 1",
            "anvil_requests_total{operation=\"Other\",status=\"5xx\"} 1",
            "anvil_request_seconds_count{operation=\"GetObject\"} 3",
            "anvil_request_seconds_bucket{le=\"0.0001\",operation=\"GetObject\"} 1",
            "anvil_request_seconds_bucket{le=\"0.00025\",operation=\"GetObject\"} 2",
            "anvil_request_seconds_bucket{le=\"300.0\",operation=\"GetObject\"} 2",
            "anvil_request_seconds_bucket{le=\"+Inf\",operation=\"GetObject\"} 3",
            "anvil_request_received_bytes_total 12.0",
            "anvil_request_sent_bytes_total 20.0",
            "anvil_requests_in_flight 1.0",
            "# EOF",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        drop(guard);
        assert!(metrics.render().contains("anvil_requests_in_flight 0.0\n"));
    }

    #[test]
    fn what_is_watched_is_asked_when_the_page_is_read() {
        let metrics = Metrics::new(1);
        let space = Arc::new(AtomicU64::new(7));
        let watched = Arc::clone(&space);
        metrics.watch(move || {
            vec![Sample {
                name: "disk_free_bytes",
                help: "Free",
                kind: SampleKind::Gauge,
                values: vec![(vec![("disk", "a\"b".to_owned())], float(watched.load(Ordering::Relaxed)))],
            }]
        });
        assert!(metrics.render().contains("anvil_disk_free_bytes{disk=\"a\\\"b\"} 7.0\n"));
        space.store(8, Ordering::Relaxed);
        assert!(metrics.render().contains("anvil_disk_free_bytes{disk=\"a\\\"b\"} 8.0\n"));
    }
}
