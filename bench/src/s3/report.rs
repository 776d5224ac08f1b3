//! What was seen, as a table for people and as JSON for programs.

use std::path::PathBuf;

use serde::Serialize;

use super::Plan;
use super::disks::DiskCounts;
use crate::host::{DeviceCounts, Medium};
use crate::load::report::{Prepared, Row, ServerReport, mebibytes, print_rows, ratio};

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
        print_rows(&self.rows);
        if let Some(server) = &self.server {
            server.print();
        }
        self.print_disks();
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
