//! How far the repair of shards is. Each core publishes a copy of its figures now and then; who asks gets their sum.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anvil_model::ids::DiskId;
use anvil_model::io::World;
use anvil_node::Node;
use anvil_node::repair::{Remaining, RepairFigures};

use super::metrics::{Metrics, Sample, SampleKind, float};

/// How old the figures may be.
const PUBLISHED_EVERY: Duration = Duration::from_secs(1);

/// The latest figures of each core.
#[derive(Debug)]
pub struct RepairBoard {
    cores: Mutex<Vec<RepairFigures>>,
}

impl RepairBoard {
    /// Puts figures for so many cores on the page of `metrics`.
    #[must_use]
    pub fn watched_by(metrics: &Metrics, core_count: u16) -> Arc<Self> {
        let board = Arc::new(Self { cores: Mutex::new(vec![RepairFigures::default(); core_count.into()]) });
        let watched = Arc::clone(&board);
        metrics.watch(move || samples(&watched.total()));
        board
    }

    /// Publishes the figures of a node's core, for as long as the future is polled.
    pub async fn publish<W: World>(&self, node: &Node<W>) {
        let core = usize::from(node.world().core().0);
        loop {
            // Figures that are read at this very moment stay the older ones: a core does not wait for it.
            if let Ok(mut cores) = self.cores.try_lock() {
                cores[core] = node.repair_figures();
            }
            node.world().sleep(PUBLISHED_EVERY).await;
        }
    }

    /// Of all cores together; what remains is in the order of disks, shards without a place first.
    #[must_use]
    pub fn total(&self) -> RepairFigures {
        sum(&self.cores.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn sum(cores: &[RepairFigures]) -> RepairFigures {
    let mut total = RepairFigures::default();
    for figures in cores {
        total.shards += figures.shards;
        total.bytes += figures.bytes;
        total.failed += figures.failed;
        total.bytes_per_second += figures.bytes_per_second;
        total.narrow += figures.narrow;
        total.respread += figures.respread;
        total.rounds += figures.rounds;
        for of in &figures.remaining {
            match total.remaining.iter_mut().find(|known| known.disk == of.disk) {
                Some(known) => {
                    *known = Remaining { shards: known.shards + of.shards, bytes: known.bytes + of.bytes, ..*known }
                }
                None => total.remaining.push(*of),
            }
        }
    }
    total.remaining.sort_by_key(|of| of.disk);
    total
}

fn samples(total: &RepairFigures) -> Vec<Sample> {
    let left = |read: fn(&Remaining) -> u64| float(total.remaining.iter().map(read).sum());
    let counter = |name, help, value| Sample { kind: SampleKind::Counter, ..Sample::gauge(name, help, float(value)) };
    let seconds = total.estimated_end().map_or(0, |time| time.as_secs());
    vec![
        counter("repaired_shards", "Shards that were made again", total.shards),
        counter("repaired_bytes", "Their bytes", total.bytes),
        counter("repair_failures", "Attempts to make a shard again that failed", total.failed),
        counter("respread_blobs", "Blobs that were spread anew, as wide as their class wants", total.respread),
        counter("repair_rounds", "Times that a core read all that is left to repair", total.rounds),
        Sample::gauge("narrow_blobs", "Blobs narrower than their class wants", float(total.narrow)),
        Sample::gauge("repair_remaining_shards", "Shards that are to be made again", left(|of| of.shards)),
        Sample::gauge("repair_remaining_bytes", "Their bytes", left(|of| of.bytes)),
        Sample::gauge("repair_remaining_seconds", "Until nothing remains, at the present rate", float(seconds)),
    ]
}

/// What has no place is on no disk.
#[must_use]
pub fn is_debt(disk: DiskId) -> bool {
    disk == DiskId::NONE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_added_up_disk_by_disk() {
        let of = |disk, shards, bytes| Remaining { disk, shards, bytes };
        let figures = |remaining| RepairFigures {
            shards: 1,
            bytes: 10,
            bytes_per_second: 5,
            remaining,
            ..RepairFigures::default()
        };
        let one = figures(vec![of(DiskId(9), 2, 20), of(DiskId::NONE, 1, 10)]);
        let other = figures(vec![of(DiskId(9), 3, 30)]);
        let total = sum(&[one, other, RepairFigures::default()]);
        assert_eq!((total.shards, total.bytes, total.failed), (2, 20, 0));
        assert_eq!(total.remaining, [of(DiskId::NONE, 1, 10), of(DiskId(9), 5, 50)]);
        assert_eq!(total.estimated_end(), Some(Duration::from_secs(6)));
        assert_eq!(sum(&[RepairFigures::default()]).estimated_end(), None);
    }
}
