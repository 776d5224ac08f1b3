//! What the runtime counts, as samples.

use std::sync::{Arc, Mutex, PoisonError};

use anvil_runtime::{CoreStats, DiskStats, Histogram};

use super::metrics::{LatencySample, Metrics, Sample, SampleKind, float};

impl Metrics {
    /// Adds what the runtime counts on each core.
    pub fn watch_cores(&self, stats: Arc<[Arc<CoreStats>]>) {
        self.watch(move || core_samples(&stats));
    }

    /// Adds what the runtime counts of each disk, under the disk's name.
    pub fn watch_disks(&self, disks: Vec<Named>) -> WatchedDisks {
        let watched = WatchedDisks { disks: Arc::new(Mutex::new(disks)) };
        let (counted, timed) = (watched.clone(), watched.clone());
        self.watch(move || disk_samples(&counted.all()));
        self.watch_latencies(move || disk_latencies(&timed.all()));
        watched
    }
}

/// The disks on the page, by name.
#[derive(Clone, Debug)]
pub struct WatchedDisks {
    disks: Arc<Mutex<Vec<Named>>>,
}

/// What the operator calls a disk, and what is counted of it.
type Named = (String, Arc<DiskStats>);

impl WatchedDisks {
    /// Adds one that has come, in the place of any other of this name.
    pub fn add(&self, name: String, stats: Arc<DiskStats>) {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        disks.retain(|(other, _)| *other != name);
        disks.push((name, stats));
    }

    fn all(&self) -> Vec<Named> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn core_samples(cores: &[Arc<CoreStats>]) -> Vec<Sample> {
    use SampleKind::{Counter, Gauge};
    let sample = |name, help, kind, read: fn(&CoreStats) -> u64| Sample {
        name,
        help,
        kind,
        values: cores
            .iter()
            .enumerate()
            .map(|(core, stats)| (vec![("core", core.to_string())], float(read(stats))))
            .collect(),
    };
    let drivers = Sample {
        name: "io_driver",
        help: "1 for the driver that does the I/O: uring, or blocking where the host forbids io_uring",
        kind: Gauge,
        values: cores
            .iter()
            .enumerate()
            .map(|(core, stats)| {
                let driver = if stats.on_ring.value() == 1 { "uring" } else { "blocking" };
                (vec![("core", core.to_string()), ("driver", driver.to_owned())], float(1))
            })
            .collect(),
    };
    vec![
        drivers,
        sample("buffers", "Pool buffers", Gauge, |s| s.buffers_total.value()),
        sample("buffers_free", "Pool buffers that nobody holds", Gauge, |s| s.buffers_free.value()),
        sample("buffers_registered", "1 when the kernel took the pool as registered buffers", Gauge, |s| {
            s.buffers_registered.value()
        }),
        sample("buffer_waits", "Times that somebody waited for a pool buffer", Counter, |s| s.buffer_waits.value()),
        sample("receive_buffers", "Small receive buffers", Gauge, |s| s.receive_buffers_total.value()),
        sample("receive_buffers_free", "Small receive buffers that the kernel may fill", Gauge, |s| {
            s.receive_buffers_free.value()
        }),
        sample("receive_spills", "Times that received bytes were copied to the heap", Counter, |s| {
            s.receive_spills.value()
        }),
        sample("ring_operations", "Operations given to the kernel", Counter, |s| s.operations.value()),
        sample("ring_operations_live", "Operations that the kernel has now", Gauge, |s| s.operations_live.value()),
        sample("ring_enters", "Calls of io_uring_enter, or of epoll_wait without a ring", Counter, |s| {
            s.enters.value()
        }),
        sample("tasks", "Tasks that exist now", Gauge, |s| s.tasks_live.value()),
        sample("task_polls", "Times that a task was polled", Counter, |s| s.polls.value()),
        sample("background_polls", "Polls of tasks that no client waits for", Counter, |s| s.polls_background.value()),
        sample("remote_wakes", "Wakes that came from another thread", Counter, |s| s.wakes_remote.value()),
        sample("doorbells", "Remote wakes that found the core asleep", Counter, |s| s.doorbells.value()),
        sample("connections_accepted", "Connections placed on the core", Counter, |s| s.connections_accepted.value()),
        sample("connections_open", "Connections of the core that are open", Gauge, |s| s.connections_open.value()),
        sample("socket_received_bytes", "Bytes received from sockets", Counter, |s| s.received_bytes.value()),
        sample("socket_sent_bytes", "Bytes sent to sockets", Counter, |s| s.sent_bytes.value()),
    ]
}

fn disk_samples(disks: &[Named]) -> Vec<Sample> {
    let sample = |name, help, read: fn(&DiskStats) -> u64| Sample {
        name,
        help,
        kind: SampleKind::Counter,
        values: disks.iter().map(|(disk, stats)| (vec![("disk", disk.clone())], float(read(stats)))).collect(),
    };
    vec![
        sample("disk_reads", "Reads that ended", |s| s.reads.value()),
        sample("disk_read_bytes", "Bytes read", |s| s.read_bytes.value()),
        sample("disk_writes", "Writes that ended", |s| s.writes.value()),
        sample("disk_written_bytes", "Bytes written", |s| s.written_bytes.value()),
        sample("disk_flushes", "Flushes that ended", |s| s.flushes.value()),
        sample("disk_errors", "Operations that failed", |s| s.errors.value()),
    ]
}

fn disk_latencies(disks: &[Named]) -> Vec<LatencySample> {
    let sample = |name, help, read: fn(&DiskStats) -> &Histogram| LatencySample {
        name,
        help,
        values: disks.iter().map(|(disk, stats)| (vec![("disk", disk.clone())], read(stats).value())).collect(),
    };
    vec![
        sample("disk_read_seconds", "Time of a read, as the task that waits sees it", |s| &s.read_latency),
        sample("disk_write_seconds", "Time of a write, as the task that waits sees it", |s| &s.write_latency),
        sample("disk_flush_seconds", "Time of a flush, as the task that waits sees it", |s| &s.flush_latency),
    ]
}
