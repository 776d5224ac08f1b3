//! What was seen, as tables for people and as JSON for programs.

use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::plan::{Operation, Order, Phase, Plan};
use crate::host::{Host, Medium};
use crate::latency::Latency;
use crate::units::{show_nanos, show_size};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) host: Host,
    pub(super) plan: Plan,
    pub(super) disks: Vec<DiskReport>,
}

/// One disk.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DiskReport {
    pub(super) path: PathBuf,
    pub(super) medium: Medium,
    /// Alignment of direct I/O.
    pub(super) unit_bytes: u32,
    /// What the engine takes the disk for: true means that a write is durable only after a flush.
    pub(super) volatile_cache: bool,
    /// False when the memlock limit did not allow it; each operation then costs a little more.
    pub(super) buffers_registered: bool,
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
            Operation::Flush => write!(f, "flush after a write of {}", show_size(self.block_bytes)),
        }
    }
}

/// What the user sees while the run goes on: a bar on a terminal's stderr, rows on stdout.
pub(super) struct Display {
    bar: ProgressBar,
    json: bool,
    phase_count: usize,
    phases_begun: usize,
}

impl Display {
    pub(super) fn new(json: bool, plan: &Plan) -> Self {
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("[{bar:30}] {prefix} {msg}").expect("the template is valid");
        let bar = ProgressBar::with_draw_target(Some(1), target).with_style(style.progress_chars("=> "));
        Self { bar, json, phase_count: plan.phases().len(), phases_begun: 0 }
    }

    pub(super) fn disk(&self, disk: &DiskReport) {
        if self.json {
            return;
        }
        let medium = &disk.medium;
        let rotational = if medium.rotational == Some(true) { ", rotational says the kernel" } else { "" };
        let registered = if disk.buffers_registered { "" } else { ", buffers not registered (memlock limit)" };
        let cache =
            if disk.volatile_cache { "volatile: writes below are not durable until flushed" } else { "not volatile" };
        self.bar.suspend(|| {
            println!();
            println!("disk      {} on {} ({}{rotational})", disk.path.display(), medium.source, medium.file_system);
            println!("          model {}, scheduler {}", medium.model, medium.scheduler);
            println!("          cache {cache} (kernel: {})", medium.write_cache);
            println!("          unit {} bytes, direct I/O{registered}", disk.unit_bytes);
            println!("used      {}, allocated and written before", show_size(disk.size_bytes));
            println!();
            println!(
                "{:<6} {:<10} {:>7} {:>5} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>11}",
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
                "max",
                "flush after"
            );
        });
    }

    pub(super) fn begun(&mut self, what: &str, ends_in: Duration) {
        let ticks = u64::try_from(ends_in.as_millis() / 100).unwrap_or(u64::MAX);
        self.bar.reset();
        self.bar.set_length(ticks.max(1));
        self.bar.set_prefix(format!("{}/{}", self.phases_begun, self.phase_count));
        self.bar.set_message(what.to_owned());
        self.phases_begun += 1;
    }

    pub(super) fn tick(&self) {
        self.bar.inc(1);
    }

    pub(super) fn row(&self, row: &Row) {
        if !self.json {
            self.bar.suspend(|| println!("{}", line(row)));
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn line(row: &Row) -> String {
    let operation = match row.phase.operation {
        Operation::Write => "write",
        Operation::Read => "read",
        Operation::Flush => "flush",
    };
    let order = match row.phase.order {
        Order::Sequential => "sequential",
        Order::Random => "random",
    };
    let or_dash = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
    let latency = |of: fn(&Latency) -> u64| or_dash(row.latency_ns.as_ref().map(|latency| show_nanos(of(latency))));
    format!(
        "{operation:<6} {order:<10} {:>7} {:>5} {:>9.0} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>11}",
        show_size(row.phase.block_bytes),
        row.phase.depth,
        row.operations_per_second,
        or_dash(row.bytes_per_second.map(|bytes| format!("{:.1}", bytes / f64::from(1 << 20)))),
        or_dash(row.cpu_us_per_operation.map(|micros| format!("{micros:.1}"))),
        latency(|latency| latency.p50),
        latency(|latency| latency.p90),
        latency(|latency| latency.p99),
        latency(|latency| latency.p99_9),
        latency(|latency| latency.max),
        or_dash(row.flush_after_ns.map(show_nanos)),
    )
}
