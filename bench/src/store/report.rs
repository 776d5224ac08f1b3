//! What was seen of each disk, as lines for people and as JSON for programs.

use std::path::PathBuf;

use serde::Serialize;

use crate::host::Medium;
use crate::latency::Latency;
use crate::units::{show_nanos, show_size};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Of the first path, where there is mostly only one.
    #[serde(flatten)]
    pub(super) first: DiskReport,
    /// Of the others, in their order.
    pub(super) more_disks: Vec<DiskReport>,
}

/// One disk. What was not asked for, or what the user's end left out, is missing.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DiskReport {
    pub(super) path: PathBuf,
    pub(super) medium: Medium,
    pub(super) blob_bytes: u64,
    pub(super) appended: Option<Appended>,
    /// As after a clean stop, and with every footer destroyed.
    pub(super) recoveries: Vec<Recovery>,
    pub(super) reads: Vec<Read>,
    pub(super) group_commits: Vec<GroupCommit>,
    pub(super) reclaim: Option<Reclaim>,
}

/// Something that was seen.
pub(super) enum Figures {
    Appended(Appended),
    Recovered(Recovery),
    Read(Read),
    GroupCommit(GroupCommit),
    Reclaim(Reclaim),
}

/// Operations that went on side by side, each with a whole blob.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Measured {
    pub(super) operations: u64,
    pub(super) seconds: f64,
    pub(super) operations_per_second: f64,
    /// Of the blobs alone.
    pub(super) bytes_per_second: f64,
    /// As the task that waits sees it. None when there was no room for any.
    pub(super) latency_ns: Option<Latency>,
}

/// Blobs that were appended, without a flush for each.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Appended {
    /// Less than was asked for when that would have taken more than its part of the time or three quarters of the disk.
    pub(super) records: u64,
    #[serde(flatten)]
    pub(super) measured: Measured,
    /// Of the disk, in use.
    pub(super) bytes: u64,
    pub(super) bytes_per_record: f64,
}

/// A start.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Recovery {
    pub(super) from: &'static str,
    pub(super) seconds: f64,
    pub(super) records: u64,
    pub(super) extents: u64,
    pub(super) extents_scanned: u64,
    pub(super) scanned_bytes: u64,
    pub(super) index_entries: u64,
    pub(super) index_bytes: u64,
    /// By how much the process has grown since it began.
    pub(super) grown_bytes: u64,
}

/// Whole blobs that were read in random order and verified.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Read {
    pub(super) in_flight: usize,
    #[serde(flatten)]
    pub(super) measured: Measured,
}

/// Blobs that were appended and flushed, each by itself.
#[derive(Clone, Debug, Serialize)]
pub(super) struct GroupCommit {
    pub(super) writers: usize,
    #[serde(flatten)]
    pub(super) measured: Measured,
    /// Of the device.
    pub(super) flushes: u64,
    /// Blobs that shared a flush, on the average.
    pub(super) per_flush: f64,
}

/// Blobs that were overwritten in random order on a disk that is half full of them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reclaim {
    /// Of the disk, smaller than that of the others.
    pub(super) capacity_bytes: u64,
    /// False when the time was too short for that: then reclaim had less to do than it has in the long run.
    pub(super) used_up: bool,
    #[serde(flatten)]
    pub(super) measured: Measured,
    pub(super) payload_bytes: u64,
    /// Meanwhile to the disk, with headers and padding, and with what was moved.
    pub(super) written_bytes: u64,
    /// Of these, for each byte of payload.
    pub(super) write_amplification: f64,
    pub(super) moved_bytes: u64,
    /// In extents that were given back meanwhile.
    pub(super) freed_bytes: u64,
    pub(super) freed_bytes_per_second: f64,
    pub(super) emptied: Emptied,
}

/// All blobs given up at once: how their space came back.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Emptied {
    pub(super) seconds: f64,
    pub(super) bytes: u64,
    pub(super) bytes_per_second: f64,
    /// Of extents that were open; of more when the time was over before.
    pub(super) used_bytes_after: u64,
}

impl DiskReport {
    pub(super) fn add(&mut self, figures: Figures) {
        match figures {
            Figures::Appended(appended) => self.appended = Some(appended),
            Figures::Recovered(recovery) => self.recoveries.push(recovery),
            Figures::Read(read) => self.reads.push(read),
            Figures::GroupCommit(commit) => self.group_commits.push(commit),
            Figures::Reclaim(reclaim) => self.reclaim = Some(reclaim),
        }
    }

    fn print(&self) {
        self.medium.print("disk", &self.path);
        if let Some(Appended { records, measured, bytes, bytes_per_record }) = &self.appended {
            let Measured { seconds, .. } = measured;
            println!(
                "{records} blobs of {} bytes appended in {seconds:.2} s: {} on disk, {bytes_per_record:.0} bytes each",
                self.blob_bytes,
                show_size(*bytes)
            );
        }
        self.recoveries.iter().for_each(Recovery::print);
        self.print_table();
        if let Some(reclaim) = &self.reclaim {
            reclaim.print();
        }
    }

    fn print_table(&self) {
        let appended = self.appended.iter().map(|appended| ("append".to_owned(), &appended.measured, String::new()));
        let reads = self
            .reads
            .iter()
            .map(|read| (format!("read, {} in flight", read.in_flight), &read.measured, String::new()));
        let commits = self.group_commits.iter().map(|commit| {
            let shared = format!("{:.1} share a flush", commit.per_flush);
            (format!("group commit, {} at once", commit.writers), &commit.measured, shared)
        });
        let overwrites = self.reclaim.iter().map(|reclaim| ("overwrite".to_owned(), &reclaim.measured, String::new()));
        println!("{:<26} {:>10} {:>9} {:>8} {:>8} {:>8}", "", "ops/s", "MiB/s", "p50", "p99", "max");
        for (what, measured, remark) in appended.chain(reads).chain(commits).chain(overwrites) {
            let latency = |of: fn(&Latency) -> u64| {
                measured.latency_ns.as_ref().map_or_else(|| "-".to_owned(), |latency| show_nanos(of(latency)))
            };
            let line = format!(
                "{what:<26} {:>10.0} {:>9.1} {:>8} {:>8} {:>8}  {remark}",
                measured.operations_per_second,
                mib(measured.bytes_per_second),
                latency(|latency| latency.p50),
                latency(|latency| latency.p99),
                latency(|latency| latency.max),
            );
            println!("{}", line.trim_end());
        }
    }
}

impl Report {
    pub(super) fn print(&self) {
        self.first.print();
        for disk in &self.more_disks {
            println!();
            disk.print();
        }
    }
}

impl Recovery {
    fn print(&self) {
        let Self { from, seconds, records, extents, extents_scanned, .. } = self;
        let rate = mib(self.scanned_bytes as f64 / seconds);
        println!("recovered from {from} in {seconds:.2} s: {records} records in {extents} extents");
        println!("  {extents_scanned} extents read whole, {rate:.0} MiB/s");
        println!(
            "  index: {} entries, {:.1} bytes per record; the process has grown by {:.1} bytes per record",
            self.index_entries,
            self.index_bytes as f64 / *records as f64,
            self.grown_bytes as f64 / *records as f64,
        );
    }
}

impl Reclaim {
    fn print(&self) {
        let Self { write_amplification, emptied, .. } = self;
        println!(
            "reclaim while half of {} is overwritten: {:.1} MiB/s come back, {:.1} MiB moved; {write_amplification:.2} bytes \
             written for each byte of a blob",
            show_size(self.capacity_bytes),
            mib(self.freed_bytes_per_second),
            mib(self.moved_bytes as f64),
        );
        if !self.used_up {
            println!("  its time was over before the disk was used up: take a longer --duration");
        }
        println!(
            "  all given up: {:.1} MiB came back in {:.2} s, {:.1} MiB/s; {:.1} MiB are still used",
            mib(emptied.bytes as f64),
            emptied.seconds,
            mib(emptied.bytes_per_second),
            mib(emptied.used_bytes_after as f64),
        );
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
