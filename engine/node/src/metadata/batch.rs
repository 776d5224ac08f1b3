//! Natural batching: while one batch of commits is in flight the next one fills.

use std::rc::Rc;

use anvil_model::io::World;
use tokio::sync::mpsc;

use super::Metadata;
use super::client::{CommitJob, LookUpJob, Mailboxes};

/// How much is gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that wait in a mailbox, at most, for each kind.
    pub queue: usize,
    /// Mutations of one batch, at most.
    pub mutations: usize,
    /// Bytes of one batch's mutations, about, at most.
    pub bytes: usize,
    /// Mutations of one key in one batch, at most.
    pub mutations_per_key: usize,
    /// Queries of one batch, at most.
    pub queries: usize,
    /// Batches of queries in flight, at most.
    pub look_ups_in_flight: usize,
}

/// The receiving end of [`Mailboxes`].
#[derive(Debug)]
pub struct Inbox {
    commits: mpsc::Receiver<CommitJob>,
    look_ups: mpsc::Receiver<LookUpJob>,
}

/// Makes the mailboxes, before any core runs.
#[must_use]
pub fn mailboxes(limits: Limits) -> (Mailboxes, Inbox) {
    let (commits, commit_jobs) = mpsc::channel(limits.queue);
    let (look_ups, look_up_jobs) = mpsc::channel(limits.queue);
    (Mailboxes { commits, look_ups }, Inbox { commits: commit_jobs, look_ups: look_up_jobs })
}

/// Gathers the requests of all cores into batches. Runs as one task on one core.
pub struct Service<W: World, M: Metadata> {
    world: W,
    metadata: Rc<M>,
    inbox: Inbox,
    limits: Limits,
}

impl<W: World, M: Metadata> Service<W, M> {
    /// A service that answers what comes to `inbox`.
    pub fn new(world: W, metadata: M, inbox: Inbox, limits: Limits) -> Self {
        Self { world, metadata: Rc::new(metadata), inbox, limits }
    }

    /// Serves until all [`Mailboxes`] are gone and everything that they sent is answered.
    pub async fn run(self) {
        todo!()
    }
}
