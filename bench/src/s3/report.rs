//! What was seen, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::Plan;
use super::request::Operation;
use super::server::{DiskCounts, ServerContext, Usage};
use super::tally::{Seen, Tally};
use crate::host::{DeviceCounts, Medium};
use crate::latency::Latency;
use crate::units::show_nanos;

/// A whole load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) plan: Plan,
    /// Objects that were there when it began, and how long they took to put. None when there was nothing to prepare.
    pub(crate) prepared: Option<Prepared>,
    /// Length of the time that was counted, to the end of the last operation.
    pub(crate) seconds: f64,
    /// Operations that were to begin in that time and did not, because all connections waited: the rate was not reached,
    /// and their latencies are missing. 0 without a rate.
    pub(crate) not_begun: u64,
    pub(crate) rows: Vec<Row>,
    /// What the server used in that time.
    pub(crate) server: Option<ServerReport>,
    pub(crate) disks: Option<DiskReport>,
    pub(crate) device: Option<DeviceReport>,
}

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

/// The server's disks in the time that was counted, as it says itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DiskReport {
    #[serde(flatten)]
    pub(crate) counts: DiskCounts,
    pub(crate) flushes_per_operation: Option<f64>,
}

/// The disk that the server stores on in the time that was counted, as the kernel counts it: with what others did there.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceReport {
    pub(crate) path: PathBuf,
    pub(crate) medium: Medium,
    /// None where the kernel does not count.
    pub(crate) counts: Option<DeviceCounts>,
    pub(crate) flushes_per_operation: Option<f64>,
    /// Bytes that the disk had taken when the last answer came, for each byte that was put and acknowledged until then. Below
    /// 1 some of them were nowhere but in memory; 1 and more does not prove that it was these, nor that the disk's own cache
    /// was flushed. None when nothing was put.
    pub(crate) written_per_acknowledged_byte: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "figures are shown with a few digits")]
fn ratio(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}

impl Row {
    pub(super) fn all(tally: &Tally, seconds: f64, has_rate: bool) -> Vec<Self> {
        let row = |(operation, seen): (Operation, &Seen)| Self {
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

    fn sum(rows: &[Self], of: impl Fn(&Self) -> u64) -> u64 {
        rows.iter().map(of).sum()
    }
}

impl ServerReport {
    pub(super) fn new(context: ServerContext, usage: Usage, peak_resident_bytes: u64, rows: &[Row]) -> Self {
        let per = |count: u64, unit: f64| (count > 0).then(|| usage.cpu_seconds() * unit / ratio(count, 1.0));
        Self {
            context,
            usage,
            cpu_us_per_operation: per(Row::sum(rows, |row| row.operations), 1e6),
            cpu_seconds_per_gib: per(Row::sum(rows, |row| row.bytes), f64::from(1 << 30)),
            peak_resident_bytes,
        }
    }
}

impl DiskReport {
    pub(super) fn new(counts: DiskCounts, rows: &[Row]) -> Self {
        let operations = Row::sum(rows, |row| row.operations);
        let flushes_per_operation = (operations > 0).then(|| ratio(counts.flushes, ratio(operations, 1.0)));
        Self { counts, flushes_per_operation }
    }
}

impl DeviceReport {
    pub(super) fn new(path: PathBuf, medium: Medium, counts: Option<DeviceCounts>, rows: &[Row]) -> Self {
        let operations = Row::sum(rows, |row| row.operations);
        let is_write = |row: &Row| matches!(&*row.operation, "put" | "multipart");
        let acknowledged = Row::sum(rows, |row| if is_write(row) { row.bytes } else { 0 });
        Self {
            path,
            medium,
            counts,
            flushes_per_operation: counts
                .filter(|_| operations > 0)
                .map(|counts| ratio(counts.flushes, ratio(operations, 1.0))),
            written_per_acknowledged_byte: counts
                .filter(|_| acknowledged > 0)
                .map(|counts| ratio(counts.written_bytes, ratio(acknowledged, 1.0))),
        }
    }
}

impl Report {
    /// Operations that succeeded, of every kind.
    pub(crate) fn operations(&self) -> u64 {
        Row::sum(&self.rows, |row| row.operations)
    }

    /// Operations that did not.
    pub(crate) fn errors(&self) -> u64 {
        Row::sum(&self.rows, |row| row.errors.values().sum())
    }

    /// Prints it for people.
    pub(super) fn print(&self) {
        let plan = &self.plan;
        println!("endpoint  {}, bucket {}, keys {}…", self.endpoint, self.bucket, self.prefix);
        let pace = plan.rate.map_or_else(
            || "each request behind the one before it".to_owned(),
            |rate| format!("{rate} operations/s are begun, and latency counts from when they were to"),
        );
        println!(
            "load      {} connections (HTTP/1.1, kept alive), {pace}; objects of {}, payload {:?}",
            plan.connections, plan.sizes, plan.payload
        );
        if let Some(prepared) = self.prepared {
            println!("prepared  {} objects in {:.1} s", prepared.objects, prepared.seconds);
            if prepared.objects < plan.objects {
                println!("          and not {}: half of --duration was over", plan.objects);
            }
        }
        if let Some(device) = &self.device {
            device.medium.print("disk", &device.path);
        }
        println!("counted   {:.2} s", self.seconds);
        if self.not_begun > 0 {
            println!("          {} operations were not begun: the rate was NOT reached", self.not_begun);
        }
        self.print_rows();
        self.print_server();
        self.print_disks();
    }

    fn print_rows(&self) {
        println!();
        println!(
            "{:<10} {:>9} {:>10} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "",
            "ops",
            "ops/s",
            "objects/s",
            "MiB/s",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "1st p50",
            "1st p99"
        );
        for row in &self.rows {
            println!("{}", line(row));
        }
        for row in &self.rows {
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

    fn print_server(&self) {
        let Some(server) = &self.server else { return };
        let ServerContext { pid, name, threads, cpus_allowed } = &server.context;
        let or_unknown = |known: Option<String>| known.unwrap_or_else(|| "unknown".to_owned());
        println!();
        println!(
            "server    {name} ({pid}), {} threads, CPUs {}",
            or_unknown(threads.map(|count| count.to_string())),
            or_unknown(cpus_allowed.clone())
        );
        println!(
            "          CPU {:.2} s user, {:.2} s system; peak memory {:.1} MiB; {} switches by itself, {} forced",
            server.usage.user_seconds,
            server.usage.system_seconds,
            mebibytes(server.peak_resident_bytes),
            server.usage.voluntary_switches,
            server.usage.involuntary_switches
        );
        if let Some(micros) = server.cpu_us_per_operation {
            println!("          {micros:.1} CPU us per operation");
        }
        if let Some(seconds) = server.cpu_seconds_per_gib {
            println!("          {seconds:.2} CPU s per GiB of objects");
        }
    }

    fn print_disks(&self) {
        if let Some(disks) = &self.disks {
            let DiskCounts { reads, read_bytes, writes, written_bytes, flushes } = disks.counts;
            println!(
                "disks     {flushes} flushes ({:.3} per operation), {writes} writes of {:.1} MiB, {reads} reads of {:.1} MiB",
                disks.flushes_per_operation.unwrap_or(0.0),
                mebibytes(written_bytes),
                mebibytes(read_bytes)
            );
        }
        if let Some(device) = &self.device {
            match device.counts {
                None => println!("device    the kernel does not count what it did"),
                Some(counts) => println!(
                    "device    {} flushes ({:.3} per operation), {:.1} MiB written, others' too{}",
                    counts.flushes,
                    device.flushes_per_operation.unwrap_or(0.0),
                    mebibytes(counts.written_bytes),
                    device
                        .written_per_acknowledged_byte
                        .map_or_else(String::new, |ratio| format!(": {ratio:.2} times the bytes acknowledged"))
                ),
            }
        }
    }
}

fn mebibytes(bytes: u64) -> f64 {
    ratio(bytes, f64::from(1 << 20))
}

fn shown(micros: u64) -> String {
    show_nanos(micros.saturating_mul(1000))
}

fn line(row: &Row) -> String {
    let latency = row.latency_us;
    format!(
        "{:<10} {:>9} {:>10.1} {:>10.1} {:>9.1} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
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
