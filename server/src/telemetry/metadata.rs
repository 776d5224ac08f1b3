//! What the metadata service does, as samples. Its host publishes a copy now and then.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use anvil_model::io::World;
use anvil_node::metadata::batch::{BatchFigures, Figures};
use anvil_node::metadata::client::{Onlooker, QueueLengths};

use super::metrics::{LatencySample, Metrics, Sample, SampleKind, float};

/// How old the figures on the page may be.
const PUBLISHED_EVERY: Duration = Duration::from_secs(1);

/// The latest figures of the service.
#[derive(Debug, Default)]
pub struct MetadataFigures {
    latest: Mutex<(Figures, QueueLengths)>,
}

impl MetadataFigures {
    /// Puts them on the page of `metrics`.
    #[must_use]
    pub fn watched_by(metrics: &Metrics) -> Arc<Self> {
        let figures = Arc::new(Self::default());
        let (numbers, durations) = (Arc::clone(&figures), Arc::clone(&figures));
        metrics.watch(move || numbers.samples());
        metrics.watch_latencies(move || durations.latencies());
        figures
    }

    /// Publishes what the service did and what waits for it, for as long as the future is polled.
    pub async fn publish<W: World>(&self, world: &W, figures: Rc<RefCell<Figures>>, queues: Onlooker) {
        loop {
            let now = (*figures.borrow(), queues.waiting());
            // A page that is read at this very moment keeps the older figures: a core does not wait for it.
            match self.latest.try_lock() {
                Ok(mut latest) => *latest = now,
                Err(TryLockError::Poisoned(latest)) => *latest.into_inner() = now,
                Err(TryLockError::WouldBlock) => {}
            }
            world.sleep(PUBLISHED_EVERY).await;
        }
    }

    fn latest(&self) -> (Figures, QueueLengths) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn samples(&self) -> Vec<Sample> {
        let (figures, queues) = self.latest();
        let sample = |name, help, kind, commits, look_ups| Sample {
            name,
            help,
            kind,
            values: vec![labelled("commit", commits), labelled("look_up", look_ups)],
        };
        let (commits, look_ups) = (float(figures.commits.requests), float(figures.look_ups.requests));
        let waiting = |count: usize| float(count as u64);
        vec![
            sample("metadata_requests", "Requests in batches of the metadata", SampleKind::Counter, commits, look_ups),
            sample(
                "metadata_queue",
                "Requests that wait for a batch of the metadata",
                SampleKind::Gauge,
                waiting(queues.commits),
                waiting(queues.look_ups),
            ),
        ]
    }

    fn latencies(&self) -> Vec<LatencySample> {
        let (Figures { commits, look_ups }, _) = self.latest();
        let of = |kind, figures: BatchFigures| labelled(kind, figures.latency);
        vec![LatencySample {
            name: "metadata_batch_seconds",
            help: "Time of a batch of the metadata, with its flush where it commits",
            values: vec![of("commit", commits), of("look_up", look_ups)],
        }]
    }
}

fn labelled<T>(kind: &str, value: T) -> (Vec<super::Label>, T) {
    (vec![("kind", kind.to_owned())], value)
}
