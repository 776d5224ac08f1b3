//! What a core does for its disks that no client asked for: garbage is given back, blobs that nobody needs are found, shards
//! that are lost are made again.
//!
//! One task per core, behind the tasks of clients. It can be dropped at any moment: what was not done is done by the next
//! life. What is told here is remembered nowhere but in the metadata.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::ids::CoreId;
use anvil_model::io::World;
use anvil_model::time::Moment;
use anvil_store::{CameTo, Chore, DiskSpace};
use futures_util::future;
use tokio::sync::watch;

use crate::Node;
use crate::metadata::MetadataError;
use crate::reclaim::Reclaimer;
use crate::repair::LostDisks;
pub use crate::sweep::{CurrentLife, Swept};

/// How a node keeps its disks.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// The life that runs.
    pub life: CurrentLife,
    /// What was deleted or overwritten is kept so long, for those who read it at that moment.
    pub reclaim_delay: Duration,
    /// Between two looks at the garbage list, when there is nothing to do.
    pub look_every: Duration,
    /// Between two sweeps; the first one is at the start.
    pub sweep_every: Duration,
    /// Each sweep is a turn of it. One for all cores.
    pub sweep: Chore,
    /// Each round of repair that has something to do is a turn of it. One for all cores.
    pub repair: Chore,
    /// Whether the disks are nearly full. One for all cores.
    pub pressure: Pressure,
    /// The disks that were given up. One for all cores.
    pub lost: LostDisks,
    /// What one core repairs per second, at most.
    pub repair_bytes_per_second: u64,
}

/// What upkeep did on a core since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpkeepFigures {
    /// Blobs of the garbage list that were released to the store.
    pub released: u64,
    /// Lines of the garbage list that were forgotten because the blob's bytes are gone.
    pub forgotten: u64,
    /// Blobs of writes that failed in this life and were released.
    pub abandoned: u64,
    /// Blobs of earlier lives that no object needs, claimed as garbage.
    pub orphans: u64,
    /// Sweeps that were finished.
    pub sweeps: u64,
    /// Blobs that objects need and that the last finished sweep did not find wholly.
    pub missing: u64,
    /// Blobs that finished sweeps compared with their rows.
    pub compared: u64,
    /// Shards that sweeps did not find where their rows say.
    pub lacking: u64,
    /// Records that were given up because their rows name others.
    pub settled: u64,
}

/// [`UpkeepFigures`] as they grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) released: Cell<u64>,
    pub(crate) forgotten: Cell<u64>,
    pub(crate) abandoned: Cell<u64>,
    pub(crate) orphans: Cell<u64>,
    pub(crate) settled: Cell<u64>,
    sweeps: Cell<u64>,
    missing: Cell<u64>,
    compared: Cell<u64>,
    lacking: Cell<u64>,
    /// When a write was last turned away because the disks are full.
    full_at: Cell<Option<Moment>>,
}

/// Which cores see a disk nearly full. Cheap to clone, and to send to a core.
#[derive(Clone, Debug)]
pub struct Pressure {
    cores: Arc<watch::Sender<BTreeSet<CoreId>>>,
}

/// After an error of the metadata.
const RETRY: Duration = Duration::from_secs(5);
/// What a full disk makes of the delay, at most.
const DELAY_UNDER_PRESSURE: Duration = Duration::from_secs(5);
/// Between two looks at the garbage list on a full disk.
const LOOK_UNDER_PRESSURE: Duration = Duration::from_millis(200);
/// A disk is nearly full when less than this part of it is free, or a write waits for room.
const LOW_SHARE: u64 = 16;
/// For how long a write that was turned away counts.
const FULL_REMEMBERED: Duration = Duration::from_secs(30);

impl Pressure {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self { cores: Arc::new(watch::Sender::new(BTreeSet::new())) }
    }

    /// Whether any core sees a disk nearly full.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cores.borrow().is_empty()
    }

    /// What this core sees. True when that changes it for the node.
    fn tell(&self, core: CoreId, low: bool) -> bool {
        let mut changed = false;
        self.cores.send_if_modified(|cores| {
            let before = cores.is_empty();
            let modified = if low { cores.insert(core) } else { cores.remove(&core) };
            changed = cores.is_empty() != before;
            modified
        });
        changed
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    pub(crate) fn add(&self, counter: impl Fn(&Self) -> &Cell<u64>, count: usize) {
        let counter = counter(self);
        counter.set(counter.get() + count as u64);
    }

    pub(crate) fn note_full(&self, now: Moment) {
        self.full_at.set(Some(now));
    }
}

impl<W: World> Node<W> {
    /// Keeps this core's share of the disks, until it is dropped.
    pub async fn upkeep(&self, upkeep: Upkeep) {
        let space = future::join(self.keep_reclaiming(&upkeep), self.keep_sweeping(&upkeep));
        let shards = future::join(self.keep_telling(&upkeep), self.keep_repairing(&upkeep));
        future::join(space, shards).await;
    }

    /// What upkeep did on this core.
    #[must_use]
    pub fn upkeep_figures(&self) -> UpkeepFigures {
        let Counters {
            released,
            forgotten,
            abandoned,
            orphans,
            settled,
            sweeps,
            missing,
            compared,
            lacking,
            full_at: _,
        } = &*self.upkeep;
        UpkeepFigures {
            released: released.get(),
            forgotten: forgotten.get(),
            abandoned: abandoned.get(),
            orphans: orphans.get(),
            sweeps: sweeps.get(),
            missing: missing.get(),
            compared: compared.get(),
            lacking: lacking.get(),
            settled: settled.get(),
        }
    }

    async fn keep_reclaiming(&self, upkeep: &Upkeep) {
        let mut reclaimer = Reclaimer::new(self.clone());
        loop {
            let pause = match reclaimer.round(self.delay(upkeep)).await {
                Ok(true) => Duration::ZERO,
                Ok(false) if upkeep.pressure.is_on() => upkeep.look_every.min(LOOK_UNDER_PRESSURE),
                Ok(false) => upkeep.look_every,
                Err(error) => {
                    tracing::debug!(%error, "garbage is not given back at the moment");
                    RETRY
                }
            };
            self.rest(pause, &upkeep.pressure).await;
        }
    }

    /// Waits for so long, or until there is pressure or none any more. Looked at by the clock: who waits for a change beside
    /// others would be woken in an order that differs from run to run.
    async fn rest(&self, pause: Duration, pressure: &Pressure) {
        let (began, before) = (self.world.now(), pressure.is_on());
        while let Some(left) = pause.checked_sub(self.world.now().since(began))
            && !left.is_zero()
            && pressure.is_on() == before
        {
            self.world.sleep(left.min(LOOK_UNDER_PRESSURE)).await;
        }
    }

    /// For how long garbage is kept at the moment.
    fn delay(&self, upkeep: &Upkeep) -> Duration {
        let (delay, short) = (upkeep.reclaim_delay, upkeep.reclaim_delay.min(DELAY_UNDER_PRESSURE));
        if upkeep.pressure.tell(self.world.core(), self.is_low()) && short < delay {
            if upkeep.pressure.is_on() {
                tracing::warn!(
                    seconds = short.as_secs(),
                    instead_of = delay.as_secs(),
                    "the disks are nearly full: deleted data is kept for a shorter time"
                );
            } else {
                tracing::info!(seconds = delay.as_secs(), "there is room again: deleted data is kept as configured");
            }
        }
        if upkeep.pressure.is_on() { short } else { delay }
    }

    /// Whether a disk whose home is here is nearly full, or a write found no room lately.
    fn is_low(&self) -> bool {
        let full = |at: Moment| self.world.now().since(at) < FULL_REMEMBERED;
        self.upkeep.full_at.get().is_some_and(full)
            || self.store.stats().disks.iter().filter_map(|disk| disk.space.as_ref()).any(is_low)
    }

    async fn keep_sweeping(&self, upkeep: &Upkeep) {
        loop {
            let turn = upkeep.sweep.turn().await;
            let swept = self.sweep(upkeep.life).await;
            turn.end(came_to(&swept));
            let pause = match swept {
                Ok(Swept { blobs, orphans, missing, lacking }) => {
                    self.upkeep.add(|counters| &counters.sweeps, 1);
                    self.upkeep.missing.set(missing);
                    for (counter, found) in [(&self.upkeep.compared, blobs), (&self.upkeep.lacking, lacking)] {
                        counter.set(counter.get() + found);
                    }
                    if missing > 0 {
                        tracing::error!(blobs, orphans, missing, "swept; objects need blobs that the disks have not");
                    } else {
                        tracing::info!(blobs, orphans, lacking, "swept");
                    }
                    upkeep.sweep_every
                }
                Err(error) => {
                    tracing::debug!(%error, "the sweep begins again later");
                    RETRY
                }
            };
            self.world.sleep(pause).await;
        }
    }
}

/// What a turn came to that ended so.
pub(crate) fn came_to<T>(result: &Result<T, MetadataError>) -> CameTo {
    match result {
        Ok(_) => CameTo::Done,
        Err(MetadataError::Unavailable { .. } | MetadataError::Unknown) => CameTo::Interrupted,
        Err(MetadataError::Refused(refusal)) => CameTo::Failed(refusal.to_string()),
    }
}

fn is_low(space: &DiskSpace) -> bool {
    space.waiting > 0 || space.capacity_bytes.saturating_sub(space.used_bytes) < space.capacity_bytes / LOW_SHARE
}
