//! What was seen of a load and of its server, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::server::{ServerContext, Usage};
use super::tally::{Seen, Tally};
use crate::latency::Latency;
use crate::units::show_nanos;

/// What was put before the time that is counted.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Prepared {
    pub(crate) objects: u64,
    pub(crate) seconds: f64,
}

/// One kind of operation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) operation: String,
    pub(crate) operations: u64,
    pub(crate) operations_per_second: f64,
    pub(crate) objects_per_second: f64,
    pub(crate) bytes: u64,
    pub(crate) bytes_per_second: f64,
    pub(crate) latency_us: Latency,
    pub(crate) first_byte_us: Latency,
    /// By how much operations began later than they were to. None without a rate.
    pub(crate) late_us: Option<Latency>,
    pub(crate) errors: BTreeMap<String, u64>,
}

/// The server's process in the time that was counted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerReport {
    #[serde(flatten)]
    pub(crate) context: ServerContext,
    pub(crate) usage: Usage,
    pub(crate) cpu_us_per_operation: Option<f64>,
    /// Over the bytes of objects that were moved.
    pub(crate) cpu_seconds_per_gib: Option<f64>,
    /// Since the process began.
    pub(crate) peak_resident_bytes: u64,
}

impl Row {
    /// One for each kind that was tried.
    pub(crate) fn all<O: Copy + Ord + fmt::Display>(tally: &Tally<O>, seconds: f64, has_rate: bool) -> Vec<Self> {
        let row = |(operation, seen): (O, &Seen)| Self {
            operation: operation.to_string(),
            operations: seen.operations,
            operations_per_second: ratio(seen.operations, seconds),
            objects_per_second: ratio(seen.objects, seconds),
            bytes: seen.bytes,
            bytes_per_second: ratio(seen.bytes, seconds),
            latency_us: Latency::of(&seen.latency_us),
            first_byte_us: Latency::of(&seen.first_byte_us),
            late_us: has_rate.then(|| Latency::of(&seen.late_us)),
            errors: seen.errors.clone(),
        };
        tally.iter().map(row).collect()
    }

    /// Over all of them.
    pub(crate) fn sum(rows: &[Self], of: impl Fn(&Self) -> u64) -> u64 {
        rows.iter().map(of).sum()
    }
}

impl ServerReport {
    pub(crate) fn new(context: ServerContext, usage: Usage, peak_resident_bytes: u64, rows: &[Row]) -> Self {
        let per = |count: u64, unit: f64| (count > 0).then(|| usage.cpu_seconds() * unit / ratio(count, 1.0));
        Self {
            context,
            usage,
            cpu_us_per_operation: per(Row::sum(rows, |row| row.operations), 1e6),
            cpu_seconds_per_gib: per(Row::sum(rows, |row| row.bytes), f64::from(1 << 30)),
            peak_resident_bytes,
        }
    }

    /// A few lines for people.
    pub(crate) fn print(&self) {
        let ServerContext { pid, name, threads, cpus_allowed } = &self.context;
        let or_unknown = |known: Option<String>| known.unwrap_or_else(|| "unknown".to_owned());
        println!();
        println!(
            "server    {name} ({pid}), {} threads, CPUs {}",
            or_unknown(threads.map(|count| count.to_string())),
            or_unknown(cpus_allowed.clone())
        );
        println!(
            "          CPU {:.2} s user, {:.2} s system; peak memory {:.1} MiB; {} switches by itself, {} forced",
            self.usage.user_seconds,
            self.usage.system_seconds,
            mebibytes(self.peak_resident_bytes),
            self.usage.voluntary_switches,
            self.usage.involuntary_switches
        );
        if let Some(micros) = self.cpu_us_per_operation {
            println!("          {micros:.1} CPU us per operation, {:.0} operations per CPU s", 1e6 / micros);
        }
        if let Some(seconds) = self.cpu_seconds_per_gib {
            println!("          {seconds:.3} CPU s per GiB of objects");
        }
    }
}

/// A table for people.
pub(crate) fn print_rows(rows: &[Row]) {
    println!();
    println!(
        "{:<13} {:>9} {:>10} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "ops", "ops/s", "objects/s", "MiB/s", "p50", "p90", "p99", "p99.9", "p99.99", "max", "1st p50", "1st p99"
    );
    for row in rows {
        println!("{}", line(row));
    }
    for row in rows {
        if let Some(late) = &row.late_us {
            let [p50, p99, max] = [late.p50, late.p99, late.max].map(shown);
            println!(
                "late      {}: p50 {p50}, p99 {p99}, max {max} behind the moment when it was to begin",
                row.operation
            );
        }
        for (code, count) in &row.errors {
            println!("error     {} {}: {code}", count, row.operation);
        }
    }
}

/// For people.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    ratio(bytes, f64::from(1 << 20))
}

fn shown(micros: u64) -> String {
    show_nanos(micros.saturating_mul(1000))
}

fn line(row: &Row) -> String {
    let latency = row.latency_us;
    format!(
        "{:<13} {:>9} {:>10.1} {:>10.1} {:>9.1} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        row.operation,
        row.operations,
        row.operations_per_second,
        row.objects_per_second,
        row.bytes_per_second / f64::from(1 << 20),
        shown(latency.p50),
        shown(latency.p90),
        shown(latency.p99),
        shown(latency.p99_9),
        shown(latency.p99_99),
        shown(latency.max),
        shown(row.first_byte_us.p50),
        shown(row.first_byte_us.p99),
    )
}

/// `count` for each one of `of`; 0 where that is nothing.
#[expect(clippy::cast_precision_loss, reason = "figures are shown with a few digits")]
pub(crate) fn ratio(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}
