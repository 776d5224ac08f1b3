//! What was seen, as a table for people and as JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Plan;
use super::server::{Cpu, DiskCounts};
use super::tally::{Seen, Tally};
use crate::host::Host;
use crate::latency::Latency;
use crate::units::{show_nanos, show_size};

/// A whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    /// The machine of the client; on loopback that of the server too.
    pub(super) host: Host,
    pub(super) plan: &'a Plan,
    /// How long the objects that are read took to put. None when there was nothing to prepare.
    pub(super) prepare_seconds: Option<f64>,
    /// Length of the time that was counted, to the end of the last operation.
    pub(super) seconds: f64,
    pub(super) rows: Vec<Row>,
    /// What the server used in that time.
    pub(super) server: Option<ServerReport>,
    pub(super) disks: Option<DiskReport>,
}

/// One kind of operation.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) operation: String,
    pub(super) operations: u64,
    pub(super) operations_per_second: f64,
    pub(super) objects_per_second: f64,
    pub(super) bytes: u64,
    pub(super) bytes_per_second: f64,
    pub(super) latency_us: Latency,
    pub(super) first_byte_us: Latency,
    pub(super) errors: BTreeMap<String, u64>,
}

/// The server's process in the time that was counted.
#[derive(Debug, Serialize)]
pub(super) struct ServerReport {
    pub(super) cpu: Cpu,
    pub(super) cpu_us_per_operation: Option<f64>,
    /// Over the bytes of objects that were moved.
    pub(super) cpu_seconds_per_gib: Option<f64>,
    /// Since the process began.
    pub(super) peak_resident_bytes: u64,
}

/// The server's disks in the time that was counted.
#[derive(Debug, Serialize)]
pub(super) struct DiskReport {
    #[serde(flatten)]
    pub(super) counts: DiskCounts,
    pub(super) flushes_per_operation: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "figures are shown with a few digits")]
fn ratio(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}

impl Row {
    pub(super) fn all(tally: &Tally, seconds: f64) -> Vec<Self> {
        let row = |(operation, seen): (super::request::Operation, &Seen)| Self {
            operation: operation.to_string(),
            operations: seen.operations,
            operations_per_second: ratio(seen.operations, seconds),
            objects_per_second: ratio(seen.objects, seconds),
            bytes: seen.bytes,
            bytes_per_second: ratio(seen.bytes, seconds),
            latency_us: Latency::of(&seen.latency_us),
            first_byte_us: Latency::of(&seen.first_byte_us),
            errors: seen.errors.clone(),
        };
        tally.iter().map(row).collect()
    }
}

impl ServerReport {
    pub(super) fn new(cpu: Cpu, peak_resident_bytes: u64, rows: &[Row]) -> Self {
        let per = |count: u64, unit: f64| (count > 0).then(|| cpu.total_seconds() * unit / ratio(count, 1.0));
        Self {
            cpu,
            cpu_us_per_operation: per(rows.iter().map(|row| row.operations).sum(), 1e6),
            cpu_seconds_per_gib: per(rows.iter().map(|row| row.bytes).sum(), f64::from(1 << 30)),
            peak_resident_bytes,
        }
    }
}

impl DiskReport {
    pub(super) fn new(counts: DiskCounts, rows: &[Row]) -> Self {
        let operations: u64 = rows.iter().map(|row| row.operations).sum();
        let flushes_per_operation = (operations > 0).then(|| ratio(counts.flushes, ratio(operations, 1.0)));
        Self { counts, flushes_per_operation }
    }
}

impl Report<'_> {
    /// Prints it for people.
    pub(super) fn print(&self) {
        self.host.print();
        let plan = self.plan;
        println!("endpoint  {}, bucket {}, keys {}…", plan.endpoint, plan.bucket, plan.prefix);
        println!(
            "load      {} connections (HTTP/1.1, kept alive), objects of {}, payload {:?}",
            plan.connections,
            show_size(plan.size_bytes),
            plan.payload
        );
        if let Some(seconds) = self.prepare_seconds {
            println!("prepared  {} objects in {seconds:.1} s", plan.objects);
        }
        println!("counted   {:.2} s", self.seconds);
        println!();
        println!(
            "{:<7} {:>9} {:>10} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10}",
            "", "ops", "ops/s", "objects/s", "MiB/s", "p50", "p90", "p99", "p99.9", "max", "first p50"
        );
        for row in &self.rows {
            println!("{}", line(row));
        }
        for row in &self.rows {
            for (code, count) in &row.errors {
                println!("error     {} {}: {code}", count, row.operation);
            }
        }
        if let Some(server) = &self.server {
            println!();
            println!(
                "server    CPU {:.2} s user, {:.2} s system; peak memory {:.1} MiB",
                server.cpu.user_seconds,
                server.cpu.system_seconds,
                ratio(server.peak_resident_bytes, f64::from(1 << 20))
            );
            if let Some(micros) = server.cpu_us_per_operation {
                println!("          {micros:.1} CPU us per operation");
            }
            if let Some(seconds) = server.cpu_seconds_per_gib {
                println!("          {seconds:.2} CPU s per GiB of objects");
            }
        }
        if let Some(disks) = &self.disks {
            let DiskCounts { reads, read_bytes, writes, written_bytes, flushes } = disks.counts;
            println!(
                "disks     {flushes} flushes ({:.3} per operation), {writes} writes of {:.1} MiB, {reads} reads of {:.1} MiB",
                disks.flushes_per_operation.unwrap_or(0.0),
                ratio(written_bytes, f64::from(1 << 20)),
                ratio(read_bytes, f64::from(1 << 20))
            );
        }
    }
}

fn line(row: &Row) -> String {
    let shown = |micros: u64| show_nanos(micros.saturating_mul(1000));
    let latency = row.latency_us;
    format!(
        "{:<7} {:>9} {:>10.1} {:>10.1} {:>9.1} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10}",
        row.operation,
        row.operations,
        row.operations_per_second,
        row.objects_per_second,
        row.bytes_per_second / f64::from(1 << 20),
        shown(latency.p50),
        shown(latency.p90),
        shown(latency.p99),
        shown(latency.p99_9),
        shown(latency.max),
        shown(row.first_byte_us.p50),
    )
}
