//! What the runtime counts. Written by the owning core, readable from every thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anvil_model::latency::{LATENCY_BUCKETS, Latencies, latency_bucket};

/// A number that any thread may read; its core writes it, and who gives it a connection.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now; of another core, perhaps a moment old.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Durations sorted into buckets, written and read by any thread.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; LATENCY_BUCKETS],
    sum_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_nanos: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&self, duration: Duration) {
        self.counts[latency_bucket(duration)].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn value(&self) -> Latencies {
        Latencies {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
        }
    }
}

/// Counters and gauges of one core.
#[derive(Debug, Default)]
pub struct CoreStats {
    /// 1 when the core runs on io_uring, 0 when on the blocking driver.
    pub on_ring: Counter,
    /// 1 when the kernel took the pool as registered buffers, 0 when the core runs without (memlock limit, or no ring).
    pub buffers_registered: Counter,
    /// Pool buffers of this core.
    pub buffers_total: Counter,
    /// Pool buffers that nobody holds now.
    pub buffers_free: Counter,
    /// Times that somebody had to wait for a pool buffer.
    pub buffer_waits: Counter,
    /// Small receive buffers of this core.
    pub receive_buffers_total: Counter,
    /// Small receive buffers that the kernel may fill now.
    pub receive_buffers_free: Counter,
    /// Times that received bytes were copied to the heap, because no receive buffer was free or a connection had
    /// more than its share.
    pub receive_spills: Counter,
    /// Operations given to the kernel since the start.
    pub operations: Counter,
    /// Operations that the kernel has now.
    pub operations_live: Counter,
    /// Calls of `io_uring_enter`, or of `epoll_wait` without a ring.
    pub enters: Counter,
    /// Tasks that exist now.
    pub tasks_live: Counter,
    /// Times that a task was polled.
    pub polls: Counter,
    /// Of those, polls of background tasks.
    pub polls_background: Counter,
    /// Wakes, and completions without a ring, that came from another thread.
    pub wakes_remote: Counter,
    /// How many of those found the core asleep and rang its doorbell.
    pub doorbells: Counter,
    /// Connections placed on this core.
    pub connections_accepted: Counter,
    /// Of those, the ones that are open now. New ones go to the core with the fewest.
    pub connections_open: Counter,
    /// Bytes received from sockets.
    pub received_bytes: Counter,
    /// Bytes sent to sockets.
    pub sent_bytes: Counter,
}

/// Counters of one disk, over all cores.
#[derive(Debug, Default)]
pub struct DiskStats {
    /// Reads that ended, well or badly.
    pub reads: Counter,
    /// Bytes read.
    pub read_bytes: Counter,
    /// Writes that ended, well or badly.
    pub writes: Counter,
    /// Bytes written.
    pub written_bytes: Counter,
    /// Flushes that ended, well or badly.
    pub flushes: Counter,
    /// Operations that failed.
    pub errors: Counter,
    /// From the submission of a read to its end, as the task that waits sees it.
    pub read_latency: Histogram,
    /// The same of writes.
    pub write_latency: Histogram,
    /// The same of flushes.
    pub flush_latency: Histogram,
}
