//! How patient a read is with a disk, and which disks have used that up.
//!
//! A read that waits for a disk much longer than reads of most disks take asks others for the same bytes (`window`). A
//! disk that makes reads do so often is slow: it is reported, and asked last, but for a read now and then that finds
//! out whether it still is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::latency::{LATENCY_BOUNDS_US, Latencies};

/// One core's view of how fast its disks answer.
#[derive(Debug, Default)]
pub(crate) struct Hedging {
    disks: RefCell<BTreeMap<DiskId, DiskPace>>,
    /// Counts reads, and says when patience is to be worked out anew.
    reads: Cell<u64>,
    patience: Cell<Option<Duration>>,
    /// Bytes that were made from cells of others.
    decoded_bytes: Cell<u64>,
}

#[derive(Debug, Default)]
struct DiskPace {
    /// Of the latest reads; those that were given up count with the time until then.
    latencies: Latencies,
    figures: DiskReads,
    /// Grows by a late read and shrinks by one in time.
    lateness: u32,
}

/// What a core read from a disk for clients since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskReads {
    /// Reads of cells.
    pub reads: u64,
    /// Those that took so long that others were asked for the same bytes.
    pub hedged: u64,
    /// Of these, those that others answered first.
    pub outrun: u64,
    /// Whether it is asked last at the moment.
    pub slow: bool,
}

/// However fast the disks are, nobody is asked earlier than this.
const PATIENCE_MIN: Duration = Duration::from_millis(10);
/// In multiples of what nearly all reads of most disks take.
const PATIENCE_FACTOR: u32 = 4;
/// Reads between two looks at how long reads take.
const LOOK_EVERY: u64 = 64;
/// Reads of a disk after which older ones count half.
const REMEMBERED: u64 = 1024;
/// What a late read adds.
const LATE: u32 = 8;
/// From here on a disk is slow.
const SLOW: u32 = 64;
/// And not any more at half of it; it never gets further than this.
const LATENESS_MAX: u32 = 128;
/// Of so many reads that would have gone to a slow disk one does.
const TRIED_EVERY: u64 = 64;

impl Hedging {
    /// For how long a read waits before it asks others.
    pub(crate) fn patience(&self) -> Duration {
        if let Some(patience) = self.patience.get()
            && !self.reads.get().is_multiple_of(LOOK_EVERY)
        {
            return patience;
        }
        let disks = self.disks.borrow();
        let mut usual: Vec<Duration> = disks.values().filter_map(|pace| nearly_all(&pace.latencies)).collect();
        usual.sort_unstable();
        // Of two disks the faster one, so that half of the disks may be slow.
        let of_most = usual.len().checked_sub(1).map_or(Duration::ZERO, |last| usual[last / 2]);
        let patience = (of_most * PATIENCE_FACTOR).max(PATIENCE_MIN);
        self.patience.set(Some(patience));
        patience
    }

    /// A read of this disk took so long.
    pub(crate) fn note(&self, disk: DiskId, took: Duration, late: bool) {
        self.reads.set(self.reads.get() + 1);
        let mut disks = self.disks.borrow_mut();
        let pace = disks.entry(disk).or_default();
        pace.figures.reads += 1;
        if pace.latencies.count() >= REMEMBERED {
            pace.latencies.counts.iter_mut().for_each(|count| *count /= 2);
        }
        pace.latencies.record(took);
        if late {
            pace.figures.hedged += 1;
            pace.lateness = (pace.lateness + LATE).min(LATENESS_MAX);
        } else {
            pace.lateness = pace.lateness.saturating_sub(1);
        }
        if !pace.figures.slow && pace.lateness >= SLOW {
            pace.figures.slow = true;
            tracing::warn!(%disk, "the disk is much slower than the others: it is read last");
        } else if pace.figures.slow && pace.lateness <= SLOW / 2 {
            pace.figures.slow = false;
            tracing::info!(%disk, "the disk is as fast as the others again");
        }
    }

    /// Others answered before this disk did.
    pub(crate) fn note_outrun(&self, disk: DiskId) {
        self.disks.borrow_mut().entry(disk).or_default().figures.outrun += 1;
    }

    /// So many bytes were made from others.
    pub(crate) fn note_decoded(&self, bytes: usize) {
        self.decoded_bytes.set(self.decoded_bytes.get() + bytes as u64);
    }

    /// Bytes that were made from cells of others.
    pub(crate) fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes.get()
    }

    /// Whether to ask others first.
    pub(crate) fn avoids(&self, disk: DiskId, random: impl FnOnce() -> u64) -> bool {
        let slow = self.disks.borrow().get(&disk).is_some_and(|pace| pace.figures.slow);
        slow && !random().is_multiple_of(TRIED_EVERY)
    }

    /// Disk by disk.
    pub(crate) fn figures(&self) -> Vec<(DiskId, DiskReads)> {
        self.disks.borrow().iter().map(|(&disk, pace)| (disk, pace.figures)).collect()
    }
}

/// What 99 of 100 reads do not exceed.
fn nearly_all(latencies: &Latencies) -> Option<Duration> {
    let count = latencies.count();
    let mut seen = 0;
    let bucket = latencies.counts.iter().position(|of_bucket| {
        seen += of_bucket;
        count > 0 && seen * 100 >= count * 99
    })?;
    let bound = LATENCY_BOUNDS_US.get(bucket).or(LATENCY_BOUNDS_US.last()).expect("there are bounds");
    Some(Duration::from_micros(*bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Goal: one slow disk of four is found out without making reads more patient. Method: reads of all four; those of
    /// one are late.
    #[test]
    fn a_slow_disk_is_found_out() {
        let hedging = Hedging::default();
        for _ in 0..200 {
            for disk in 1..=4 {
                let slow = disk == 4;
                let took = if slow { hedging.patience() } else { Duration::from_micros(200) };
                hedging.note(DiskId(disk), took, slow);
            }
        }
        assert_eq!(hedging.patience(), PATIENCE_MIN);
        let avoided: Vec<_> = (1..=4).filter(|&disk| hedging.avoids(DiskId(disk), || 1)).collect();
        assert_eq!(avoided, [4]);
        assert!(!hedging.avoids(DiskId(4), || TRIED_EVERY), "it is tried now and then");
        for _ in 0..LATENESS_MAX {
            hedging.note(DiskId(4), millis(1), false);
        }
        assert!(!hedging.avoids(DiskId(4), || 1), "it is as fast as the others again");
        assert_eq!(hedging.figures()[3].1.hedged, 200);
    }

    /// Goal: where all disks are slow nobody is asked twice for long. Method: every read takes 80 ms.
    #[test]
    fn patience_grows_with_the_reads_of_most_disks() {
        let hedging = Hedging::default();
        let mut late = 0;
        for _ in 0..4 * LOOK_EVERY {
            for disk in 1..=4 {
                let patience = hedging.patience();
                let is_late = millis(80) > patience;
                late += u64::from(is_late);
                hedging.note(DiskId(disk), millis(80).min(patience), is_late);
            }
        }
        assert!(hedging.patience() >= millis(80), "{:?}", hedging.patience());
        assert!(late <= 3 * LOOK_EVERY, "{late} of {} reads were late", 16 * LOOK_EVERY);
    }
}
