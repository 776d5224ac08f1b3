//! What was seen, as tables for people and as JSON for programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::back_end::BackEnd;
use super::plan::{Operation, Order, Phase, Plan};
use crate::host::Medium;
use crate::latency::{Bucket, Latency};
use crate::units::{show_nanos, show_size};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) plan: Plan,
    pub(super) disks: Vec<DiskReport>,
}

/// One disk.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DiskReport {
    pub(super) path: PathBuf,
    pub(super) medium: Medium,
    pub(super) back_end: BackEnd,
    /// Alignment of direct I/O.
    pub(super) unit_bytes: u32,
    /// What the engine takes the disk for: true means that a write is durable only after a flush.
    pub(super) volatile_cache: bool,
    /// False when the back end does not, or the memlock limit did not allow it; each operation then costs a little more. None
    /// when that is not known.
    pub(super) buffers_registered: Option<bool>,
    /// Bytes that were written before and then used.
    pub(super) size_bytes: u64,
    pub(super) rows: Vec<Row>,
}

/// One phase, measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    pub(super) phase: Phase,
    pub(super) operations: u64,
    /// Length of the time that was counted.
    pub(super) seconds: f64,
    pub(super) operations_per_second: f64,
    /// None for flushes.
    pub(super) bytes_per_second: Option<f64>,
    /// User and system time of the whole process; for flushes with the write before each. None when nothing ended.
    pub(super) cpu_us_per_operation: Option<f64>,
    /// From submission to completion, as the task that waits sees it.
    pub(super) latency_ns: Option<Latency>,
    /// The same as counts, by doubling.
    pub(super) histogram_ns: Vec<Bucket>,
    /// How long the flush behind a phase of writes took: what the device's cache still held.
    pub(super) flush_after_ns: Option<u64>,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::Sequential => "sequential",
            Order::Random => "random",
        };
        match self.operation {
            Operation::Write => write!(f, "{order} write of {}, {} in flight", show_size(self.block_bytes), self.depth),
            Operation::Read => write!(f, "{order} read of {}, {} in flight", show_size(self.block_bytes), self.depth),
            Operation::Mixed => {
                write!(f, "{order} reads and writes of {}, {} in flight", show_size(self.block_bytes), self.depth)
            }
            Operation::Flush => write!(f, "flush after a write of {}", show_size(self.block_bytes)),
            Operation::Dsync => write!(f, "durable write of {}", show_size(self.block_bytes)),
            Operation::MixedRead | Operation::MixedWrite => write!(f, "{order} {}", self.operation.name()),
        }
    }
}

impl DiskReport {
    /// Prints what its rows are of.
    pub(super) fn print_head(&self) {
        let registered = match self.buffers_registered {
            Some(true) => "registered",
            Some(false) => "not registered",
            None => "perhaps registered",
        };
        let cache =
            if self.volatile_cache { "volatile: writes below are not durable until flushed" } else { "not volatile" };
        println!();
        self.medium.print("disk", &self.path);
        println!("          taken for {cache}; unit {} bytes, direct I/O", self.unit_bytes);
        println!("back end  {}, buffers {registered}", self.back_end.name());
        println!("used      {}, allocated and written before", show_size(self.size_bytes));
        println!();
        println!(
            "{:<6} {:<10} {:>7} {:>5} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>11}",
            "",
            "",
            "block",
            "depth",
            "ops/s",
            "MiB/s",
            "CPU us/op",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "flush after"
        );
    }
}

impl Row {
    pub(super) fn print(&self) {
        println!("{}", line(self));
        if matches!(self.phase.operation, Operation::MixedRead | Operation::MixedWrite) {
            let most = self.histogram_ns.iter().map(|bucket| bucket.count).max().unwrap_or(1);
            for Bucket { up_to, count } in &self.histogram_ns {
                let bar = "#".repeat(usize::try_from(count * BAR_CHARS / most).unwrap_or(0));
                println!("{:>20} {count:>9} {bar}", format!("to {}", show_nanos(*up_to)));
            }
        }
    }
}

fn line(row: &Row) -> String {
    let operation = row.phase.operation.name();
    let order = match row.phase.order {
        Order::Sequential => "sequential",
        Order::Random => "random",
    };
    let or_dash = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
    let latency = |of: fn(&Latency) -> u64| or_dash(row.latency_ns.as_ref().map(|latency| show_nanos(of(latency))));
    format!(
        "{operation:<6} {order:<10} {:>7} {:>5} {:>9.0} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>11}",
        show_size(row.phase.block_bytes),
        row.phase.depth,
        row.operations_per_second,
        or_dash(row.bytes_per_second.map(|bytes| format!("{:.1}", bytes / f64::from(1 << 20)))),
        or_dash(row.cpu_us_per_operation.map(|micros| format!("{micros:.1}"))),
        latency(|latency| latency.p50),
        latency(|latency| latency.p90),
        latency(|latency| latency.p99),
        latency(|latency| latency.p99_9),
        latency(|latency| latency.p99_99),
        latency(|latency| latency.max),
        or_dash(row.flush_after_ns.map(show_nanos)),
    )
}

/// The longest bar of a histogram.
const BAR_CHARS: u64 = 60;
