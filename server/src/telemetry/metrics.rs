//! The page that Prometheus reads, and how numbers come onto it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anvil_model::ids::CoreId;
use anvil_model::latency::{LATENCY_BOUNDS_US, Latencies};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::requests::{CoreCounters, Requests};

/// A label of a sample.
pub type Label = (&'static str, String);

/// A number that is asked for when the page is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name without `anvil_` in front and without `_total` behind; `process_` stands for itself.
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

/// Durations that are asked for when the page is read.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencySample {
    /// Name without `anvil_` in front; ends in `_seconds`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What was counted, each with its labels.
    pub values: Vec<(Vec<Label>, Latencies)>,
}

/// All that the node counts.
#[derive(Debug)]
pub struct Metrics {
    cores: Arc<[Arc<CoreCounters>]>,
    registries: Mutex<Registries>,
}

/// Our own numbers, and those whose names Prometheus gives to every process.
#[derive(Debug)]
struct Registries {
    anvil: Registry,
    process: Registry,
}

impl Metrics {
    /// Counters for so many cores, the time of the start, and the version.
    #[must_use]
    pub fn new(core_count: u16) -> Self {
        let cores: Arc<[_]> = (0..core_count).map(|_| Arc::new(CoreCounters::default())).collect();
        let mut anvil = Registry::with_prefix("anvil");
        anvil.register_collector(Box::new(Requests(Arc::clone(&cores))));
        let registries = Registries { anvil, process: Registry::default() };
        let metrics = Self { cores, registries: Mutex::new(registries) };
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        metrics.watch(|| {
            vec![Sample {
                name: "build_info",
                help: "The version that runs, as a label",
                kind: SampleKind::Gauge,
                values: vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
            }]
        });
        metrics.watch_process(move || {
            let name = "process_start_time_seconds";
            vec![Sample::gauge(name, "When the process started, in seconds since 1970", started)]
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
        self.registries().anvil.register_collector(Box::new(Watched(Box::new(ask))));
    }

    /// The same for numbers of the process, whose names have no prefix.
    pub fn watch_process(&self, ask: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        self.registries().process.register_collector(Box::new(Watched(Box::new(ask))));
    }

    /// The same for durations.
    pub fn watch_latencies(&self, ask: impl Fn() -> Vec<LatencySample> + Send + Sync + 'static) {
        self.registries().anvil.register_collector(Box::new(WatchedLatencies(Box::new(ask))));
    }

    /// The page, in the text format of OpenMetrics.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::new();
        let registries = self.registries();
        encode_registry(&mut page, &registries.anvil).expect("a String takes everything");
        encode_registry(&mut page, &registries.process).expect("a String takes everything");
        encode_eof(&mut page).expect("a String takes everything");
        page
    }

    fn registries(&self) -> std::sync::MutexGuard<'_, Registries> {
        self.registries.lock().unwrap_or_else(PoisonError::into_inner)
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

pub(super) fn encode_value(metric: &mut MetricEncoder<'_>, kind: SampleKind, value: f64) -> fmt::Result {
    match kind {
        SampleKind::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        SampleKind::Gauge => metric.encode_gauge(&value),
    }
}

struct WatchedLatencies(Box<dyn Fn() -> Vec<LatencySample> + Send + Sync>);

impl fmt::Debug for WatchedLatencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchedLatencies")
    }
}

impl Collector for WatchedLatencies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for sample in (self.0)() {
            let mut metric = encoder.encode_descriptor(sample.name, sample.help, None, MetricType::Histogram)?;
            for (labels, latencies) in &sample.values {
                encode_latencies(&mut metric, labels, latencies)?;
            }
        }
        Ok(())
    }
}

pub(super) fn encode_latencies(metric: &mut MetricEncoder<'_>, labels: &[Label], latencies: &Latencies) -> fmt::Result {
    #[expect(clippy::cast_precision_loss, reason = "a few digits")]
    let bounds = LATENCY_BOUNDS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(latencies.counts).collect();
    let mut family = metric.encode_family(&labels)?;
    family.encode_histogram::<NoLabelSet>(latencies.sum.as_secs_f64(), latencies.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::http::Head;
    use crate::telemetry::{Exchange, Protocol};

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
            first_byte: duration / 2,
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
        exchange(&metrics, 1, "NoSuchOperation", 599, 1);
        let in_flight = metrics.core(CoreId(0));
        let guard = (in_flight.in_flight(), in_flight.speaks(Protocol::Http1));
        let page = metrics.render();
        for line in [
            "anvil_requests_total{operation=\"GetObject\",status=\"200\"} 1",
            "anvil_requests_total{operation=\"GetObject\",status=\"206\"} 1",
            "anvil_requests_total{operation=\"GetObject\",status=\"404\"} 1",
            "anvil_requests_total{operation=\"Other\",status=\"other\"} 1",
            "anvil_request_duration_seconds_count{operation=\"GetObject\"} 3",
            "anvil_request_duration_seconds_bucket{le=\"0.0001\",operation=\"GetObject\"} 1",
            "anvil_request_duration_seconds_bucket{le=\"0.00025\",operation=\"GetObject\"} 2",
            "anvil_request_duration_seconds_bucket{le=\"300.0\",operation=\"GetObject\"} 2",
            "anvil_request_duration_seconds_bucket{le=\"+Inf\",operation=\"GetObject\"} 3",
            "anvil_request_first_byte_seconds_bucket{le=\"0.00005\",operation=\"GetObject\"} 1",
            "anvil_connections{core=\"0\",protocol=\"http1\"} 1.0",
            "anvil_connections{core=\"1\",protocol=\"http1\"} 0.0",
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
