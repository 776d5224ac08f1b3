//! Metadata whose answers get lost, come late, or whose changes are sent twice: as over a network.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::io::{Task, World};
use anvil_node::metadata::mutation::{Mutation, Outcome};
use anvil_node::metadata::query::{Answer, Query};
use anvil_node::metadata::{Metadata, MetadataError};

use crate::random::Random;
use crate::world::SimWorld;

/// Real metadata behind a bad line.
pub struct Lossy<M> {
    inner: Rc<M>,
    world: SimWorld,
    random: RefCell<Random>,
    line: Line,
}

/// How bad the line is, per million batches of changes. Shared: may be changed while the metadata serves.
#[derive(Clone, Debug, Default)]
pub struct Line {
    share: Rc<Cell<u32>>,
}

impl Line {
    /// From now on so many of a million batches do not go well.
    pub fn set_share(&self, per_million: u32) {
        self.share.set(per_million);
    }
}

type Outcomes = Vec<Result<Outcome, MetadataError>>;

/// A batch may arrive this much later.
const LATE_NANOS_MAX: u64 = 40_000_000_000;

impl<M: Metadata> Lossy<M> {
    /// Puts the line before `inner`.
    #[must_use]
    pub fn new(inner: M, world: SimWorld, random: Random, line: Line) -> Self {
        Self { inner: Rc::new(inner), world, random: RefCell::new(random), line }
    }

    /// Sends the changes that were made once more: nothing may change, and the answers must be the same.
    async fn send_twice(&self, batch: &Arc<[Mutation]>, outcomes: &Outcomes) {
        let done = batch.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        let (again, expected): (Vec<Mutation>, Outcomes) =
            done.map(|(mutation, outcome)| (mutation.clone(), outcome.clone())).unzip();
        if again.is_empty() {
            return;
        }
        for (second, first) in self.inner.commit(again.into()).await.into_iter().zip(expected) {
            // An unavailable or unknown repeat says nothing.
            if second.is_ok() {
                assert_eq!(second, first, "a repeated change is answered as it was");
            }
        }
    }
}

impl<M: Metadata> Metadata for Lossy<M> {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Outcomes {
        let (bad, what, nanos) = {
            let mut random = self.random.borrow_mut();
            (random.per_million(self.line.share.get()), random.below(4), random.below(LATE_NANOS_MAX))
        };
        let unknown = vec![Err(MetadataError::Unknown); batch.len()];
        match what {
            _ if !bad => self.inner.commit(batch).await,
            // It never arrives.
            0 => unknown,
            // It arrives after everybody has given up, beside later ones.
            1 => {
                let (inner, world) = (Rc::clone(&self.inner), self.world.clone());
                let late = self.world.spawn(async move {
                    world.sleep(Duration::from_nanos(nanos)).await;
                    // Nobody listens any more.
                    drop(inner.commit(batch).await);
                });
                late.detach();
                unknown
            }
            // The answer does not come back.
            2 => {
                drop(self.inner.commit(batch).await);
                unknown
            }
            // It arrives twice.
            _ => {
                let outcomes = self.inner.commit(Arc::clone(&batch)).await;
                self.send_twice(&batch, &outcomes).await;
                outcomes
            }
        }
    }

    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        self.inner.look_up(batch).await
    }
}
