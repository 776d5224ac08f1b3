//! What upkeep did, as samples. Each core publishes a copy of its figures now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anvil_model::io::World;
use anvil_node::Node;
use anvil_node::upkeep::UpkeepFigures;

use super::metrics::{Metrics, Sample, SampleKind, float};

/// How old the figures on the page may be.
const PUBLISHED_EVERY: Duration = Duration::from_secs(5);

/// The latest figures of each core.
#[derive(Debug)]
pub struct UpkeepSamples {
    cores: Mutex<Vec<UpkeepFigures>>,
}

impl UpkeepSamples {
    /// Puts figures for so many cores on the page of `metrics`.
    #[must_use]
    pub fn watched_by(metrics: &Metrics, core_count: u16) -> Arc<Self> {
        let samples = Arc::new(Self { cores: Mutex::new(vec![UpkeepFigures::default(); core_count.into()]) });
        let watched = Arc::clone(&samples);
        metrics.watch(move || watched.samples());
        samples
    }

    /// Publishes the figures of a node's core, for as long as the future is polled.
    pub async fn publish<W: World>(&self, node: &Node<W>) {
        let core = usize::from(node.world().core().0);
        loop {
            // A page that is read at this very moment keeps the older figures: a core does not wait for it.
            if let Ok(mut cores) = self.cores.try_lock() {
                cores[core] = node.upkeep_figures();
            }
            node.world().sleep(PUBLISHED_EVERY).await;
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sample = |name, help, kind, read: fn(&UpkeepFigures) -> u64| {
            let sum = cores.iter().map(read).sum();
            Sample { kind, ..Sample::gauge(name, help, float(sum)) }
        };
        use SampleKind::{Counter, Gauge};
        vec![
            sample("garbage_released_blobs", "Blobs of deleted data given to the store", Counter, |f| f.released),
            sample("garbage_forgotten_blobs", "Blobs of deleted data whose bytes are gone", Counter, |f| f.forgotten),
            sample("abandoned_blobs", "Blobs of failed writes that were given up", Counter, |f| f.abandoned),
            sample("orphaned_blobs", "Blobs of earlier lives that no object needs", Counter, |f| f.orphans),
            sample("sweeps", "Sweeps that were finished, on all cores", Counter, |f| f.sweeps),
            sample("swept_blobs", "Blobs that sweeps compared with their rows", Counter, |f| f.compared),
            sample("swept_lost_shards", "Shards that sweeps did not find where their rows say", Counter, |f| f.lacking),
            sample("settled_records", "Records given up because their shards count elsewhere", Counter, |f| f.settled),
            sample("missing_blobs", "Blobs that objects need and the last sweep did not find", Gauge, |f| f.missing),
        ]
    }
}
