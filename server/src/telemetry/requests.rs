//! What the frontend counts, one set of counters per core, added up when the page is read.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anvil_model::latency::Latencies;
use anvil_runtime::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::access::{self, Exchange};
use super::metrics::{SampleKind, encode_latencies, encode_value, float};

/// What requests are counted by: the names of AWS's API, and those of our own.
pub const OPERATIONS: &[&str] = &[
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
    "BidiWrite",
    "QueryWrite",
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
    "PutBucketPolicy",
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
    "ListDisks",
    "OfflineDisk",
    "OnlineDisk",
    "ReplaceDisk",
    "AdoptDisk",
    "RepairStatus",
    "ListStorageClasses",
    "UpdateBucket",
    "CreateTenant",
    "ListTenants",
    "DeleteTenant",
    "CreateApp",
    "ListApps",
    "DeleteApp",
    "ResetAppSecret",
    "GrantPolicy",
    "RevokePolicy",
    "ListPolicies",
    "SetBucketPublicAccess",
    "ListAuditRecords",
    "Login",
    "CreateUser",
    "ListUsers",
    "UpdateUser",
    "DeleteUser",
    "CreateRole",
    "ListRoles",
    "DeleteRole",
    "ListTasks",
    "RetryTask",
    "CancelTask",
    "RemoveBucket",
    "RotateEncryptionKey",
    "RotateTokenKey",
    "MintToken",
    "RevokeToken",
    "ListRevokedTokens",
    "PruneDenylist",
    "CacheStats",
    "CreateRegion",
    "ListRegions",
    "ListBucketUsage",
    "ListTenantUsage",
    "UpdateTenant",
    "GetAccessToken",
    "GrantAccess",
    "RevokeAccess",
    "SetPublicAccess",
    "GetBucket",
    "WriteObject",
    "UpdateMetadata",
    "BatchGet",
    "BidiRead",
    "InitiateMultipartUpload",
    "Check",
    "Watch",
    "ServerReflectionInfo",
    "NotImplemented",
];

/// The statuses that are counted by themselves; any other counts as `other`.
const STATUSES: [u16; 25] = [
    100, 200, 204, 206, 301, 304, 307, 400, 403, 404, 405, 408, 409, 411, 412, 413, 416, 429, 431, 499, 500, 501, 503,
    505, 507,
];

/// What a connection was found to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing yet, or nothing that is known.
    Unknown,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The label of each [`Protocol`].
const PROTOCOLS: [&str; 3] = ["unknown", "http1", "http2"];

/// What one core counts. Only that core writes, so no cache line is fought for; every thread may read.
#[derive(Debug)]
pub struct CoreCounters {
    /// In the order of [`OPERATIONS`].
    operations: [OperationCounters; OPERATIONS.len()],
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    in_flight: AtomicU64,
    /// By protocol.
    connections: [AtomicU64; PROTOCOLS.len()],
    connections_refused: AtomicU64,
    incomplete: AtomicU64,
    panics: AtomicU64,
}

#[derive(Debug, Default)]
struct OperationCounters {
    /// In the order of [`STATUSES`], and one for the others.
    by_status: [AtomicU64; STATUSES.len() + 1],
    first_byte: Histogram,
    whole: Histogram,
}

impl Default for CoreCounters {
    fn default() -> Self {
        Self {
            operations: std::array::from_fn(|_| OperationCounters::default()),
            received_bytes: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            in_flight: AtomicU64::default(),
            connections: std::array::from_fn(|_| AtomicU64::default()),
            connections_refused: AtomicU64::default(),
            incomplete: AtomicU64::default(),
            panics: AtomicU64::default(),
        }
    }
}

impl CoreCounters {
    /// Counts a request and writes its line to the access log.
    pub fn record(&self, exchange: &Exchange<'_>) {
        let index = OPERATIONS.iter().position(|&name| name == exchange.operation).unwrap_or(0);
        let counters = &self.operations[index];
        let status = STATUSES.iter().position(|&status| status == exchange.status).unwrap_or(STATUSES.len());
        add(&counters.by_status[status], 1);
        counters.first_byte.record(exchange.first_byte);
        counters.whole.record(exchange.duration);
        add(&self.received_bytes, exchange.received_bytes);
        add(&self.sent_bytes, exchange.sent_bytes);
        if !exchange.complete {
            add(&self.incomplete, 1);
        }
        access::log(exchange);
    }

    /// A request is being served, until the guard is dropped.
    pub(crate) fn in_flight(&self) -> Held<'_> {
        Held::new(&self.in_flight)
    }

    /// A connection speaks this, until the guard is dropped.
    pub(crate) fn speaks(&self, protocol: Protocol) -> Held<'_> {
        Held::new(&self.connections[protocol as usize])
    }

    pub(crate) fn connection_refused(&self) {
        add(&self.connections_refused, 1);
    }

    /// A request met a bug, which ended it.
    pub(crate) fn panicked(&self, panic: &(dyn Any + Send), request_id: &str) {
        add(&self.panics, 1);
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        tracing::error!(request_id, panic = text, "a request met a bug in the server; please report it");
    }

    /// Connections that are open now, of which it is known what they speak.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Counts something that is there, until it is dropped.
pub(crate) struct Held<'a>(&'a AtomicU64);

impl<'a> Held<'a> {
    fn new(gauge: &'a AtomicU64) -> Self {
        add(gauge, 1);
        Self(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The requests of all cores.
#[derive(Debug)]
pub(super) struct Requests(pub(super) Arc<[Arc<CoreCounters>]>);

impl Requests {
    fn sum(&self, read: impl Fn(&CoreCounters) -> &AtomicU64) -> u64 {
        self.0.iter().map(|core| read(core).load(Ordering::Relaxed)).sum()
    }

    fn count(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests answered, by operation and status";
        let mut metric = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
        for (operation, name) in OPERATIONS.iter().enumerate() {
            for status in 0..=STATUSES.len() {
                let count = self.sum(|core| &core.operations[operation].by_status[status]);
                if count > 0 {
                    let status = STATUSES.get(status).map_or("other".to_owned(), u16::to_string);
                    let labels = [("operation", *name), ("status", status.as_str())];
                    metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn latency(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        read: fn(&OperationCounters) -> &Histogram,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (index, operation) in OPERATIONS.iter().enumerate() {
            let mut sum = Latencies::default();
            self.0.iter().for_each(|core| sum.add(&read(&core.operations[index]).value()));
            if sum.count() > 0 {
                encode_latencies(&mut metric, &[("operation", (*operation).to_owned())], &sum)?;
            }
        }
        Ok(())
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections that are open, by what they were found to speak";
        let mut metric = encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        for (number, core) in self.0.iter().enumerate() {
            for (protocol, count) in PROTOCOLS.iter().zip(&core.connections) {
                let labels = [("core", number.to_string()), ("protocol", (*protocol).to_owned())];
                let value = float(count.load(Ordering::Relaxed));
                encode_value(&mut metric.encode_family(&labels)?, SampleKind::Gauge, value)?;
            }
        }
        Ok(())
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.count(&mut encoder)?;
        let whole = "From the first byte of a request to the last of its answer";
        self.latency(&mut encoder, "request_duration_seconds", whole, |counters| &counters.whole)?;
        let first = "From the first byte of a request to the first of its answer";
        self.latency(&mut encoder, "request_first_byte_seconds", first, |counters| &counters.first_byte)?;
        self.connections(&mut encoder)?;
        let mut one = |name, help, kind, value| -> fmt::Result {
            let metric_type = if kind == SampleKind::Counter { MetricType::Counter } else { MetricType::Gauge };
            encode_value(&mut encoder.encode_descriptor(name, help, None, metric_type)?, kind, float(value))
        };
        let counter = SampleKind::Counter;
        one("request_received_bytes", "Bytes of request bodies", counter, self.sum(|core| &core.received_bytes))?;
        one("request_sent_bytes", "Bytes of answers' bodies", counter, self.sum(|core| &core.sent_bytes))?;
        one("requests_incomplete", "Answers that broke off", counter, self.sum(|core| &core.incomplete))?;
        one("requests_panicked", "Requests that met a bug in the server", counter, self.sum(|core| &core.panics))?;
        one(
            "connections_refused",
            "Connections refused for want of room",
            counter,
            self.sum(|core| &core.connections_refused),
        )?;
        one("requests_in_flight", "Requests being served", SampleKind::Gauge, self.sum(|core| &core.in_flight))
    }
}
