//! What the node tells of itself: lines of log on stderr, and metrics for Prometheus.
//!
//! Never tells a secret: no `Authorization`, no signature, no token. Never makes a core wait: a line that the log
//! cannot take is dropped and counted, and a counter belongs to the core that writes it.

mod access;
mod admission;
mod allow;
mod log;
mod metadata;
mod metrics;
mod process;
mod readiness;
mod repair;
mod requests;
mod runtime;
mod store;
mod tasks;
mod upkeep;
mod usage;

pub use access::Exchange;
pub use admission::watch_admission;
pub use allow::{METRICS_ALLOW_DEFAULT, MetricsAllow};
pub use log::{LogError, LogFormat, LogGuard, init};
pub use metadata::MetadataFigures;
pub use metrics::{Label, LatencySample, Metrics, Sample, SampleKind};
pub use process::ProcessFigures;
pub use readiness::watch_readiness;
pub use repair::{RepairBoard, is_debt};
pub use requests::{CoreCounters, OPERATIONS, Protocol};
pub use runtime::WatchedDisks;
pub use store::{DiskNames, StoreFigures};
pub use tasks::TaskFigures;
pub use upkeep::UpkeepSamples;
pub use usage::UsageFigures;
