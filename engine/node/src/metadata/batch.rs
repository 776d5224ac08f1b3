//! Natural batching: while one batch of commits is in flight the next one fills. No timer decides, so a lone request
//! waits for nobody.
//!
//! - Look-ups have batches of their own and never wait for a commit.
//! - A batch is in the order of keys. Mutations of one key keep their order; where the implementation takes only so
//!   many of one key at once, the others wait, and a hot key delays only itself.
//! - A request whose caller is gone or late is left out of a batch that was not sent yet.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anvil_model::io::World;
use anvil_model::latency::Latencies;
use futures_util::future::{self, Either};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use super::client::{CommitJob, LookUpJob, Mailboxes, RETRY_AFTER};
use super::{Metadata, MetadataError};

/// How much is gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that wait in a mailbox, at most, for each kind. More are turned away at once.
    pub queue: usize,
    /// Mutations of one batch, at most.
    pub mutations: usize,
    /// Bytes of one batch's mutations, about, at most; a larger mutation is alone.
    pub bytes: usize,
    /// Mutations of one target in one batch, at most: 1 where a statement takes a key only once.
    pub mutations_per_target: usize,
    /// Queries of one batch, at most.
    pub queries: usize,
    /// Batches of queries in flight, at most.
    pub look_ups_in_flight: usize,
}

impl Limits {
    /// For the embedded metadata: a batch is a log record of at most 1 MiB, decided row by row, and answered by two
    /// reader threads.
    pub const EMBEDDED: Self = Self {
        queue: 8192,
        mutations: 512,
        bytes: 768 << 10,
        mutations_per_target: usize::MAX,
        queries: 256,
        look_ups_in_flight: 2,
    };

    /// For a database: a batch is a transaction that locks its keys, of which a server has some thousands at once, and
    /// look-ups go over four connections.
    pub const DATABASE: Self = Self {
        queue: 8192,
        mutations: 256,
        bytes: 768 << 10,
        mutations_per_target: usize::MAX,
        queries: 256,
        look_ups_in_flight: 4,
    };
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
    figures: Rc<RefCell<Figures>>,
}

/// What the service did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Batches of commits.
    pub commits: BatchFigures,
    /// Batches of look-ups.
    pub look_ups: BatchFigures,
}

/// The batches of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchFigures {
    /// Requests in all batches.
    pub requests: u64,
    /// How long each batch took, from when it was sent to its last outcome.
    pub latency: Latencies,
}

impl BatchFigures {
    fn record(&mut self, requests: usize, took: Duration) {
        self.requests += requests as u64;
        self.latency.record(took);
    }
}

impl<W: World, M: Metadata> Service<W, M> {
    /// A service that answers what comes to `inbox`.
    pub fn new(world: W, metadata: M, inbox: Inbox, limits: Limits) -> Self {
        Self { world, metadata: Rc::new(metadata), inbox, limits, figures: Rc::default() }
    }

    /// What it does, for as long as it serves.
    #[must_use]
    pub fn figures(&self) -> Rc<RefCell<Figures>> {
        Rc::clone(&self.figures)
    }

    /// Serves until all [`Mailboxes`] are gone and everything that they sent is answered.
    pub async fn run(self) {
        let Self { world, metadata, inbox, limits, figures } = self;
        let commits = commits(&world, &metadata, inbox.commits, limits, &figures);
        let look_ups = look_ups(&world, &metadata, inbox.look_ups, limits, &figures);
        future::join(commits, look_ups).await;
    }
}

async fn commits<W: World, M: Metadata>(
    world: &W,
    metadata: &Rc<M>,
    mut inbox: mpsc::Receiver<CommitJob>,
    limits: Limits,
    figures: &RefCell<Figures>,
) {
    let mut waiting = Waiting { jobs: Vec::new(), limits };
    loop {
        if waiting.jobs.is_empty() {
            match inbox.recv().await {
                Some(job) => waiting.admit(job),
                None => return,
            }
        }
        while waiting.has_room() {
            match inbox.try_recv() {
                Ok(job) => waiting.admit(job),
                Err(_) => break,
            }
        }
        waiting.turn_away_late(world);
        let batch = waiting.take_batch();
        if batch.is_empty() {
            continue;
        }
        let (mutations, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.mutation, job.reply)).unzip();
        let began = world.now();
        let outcomes = metadata.commit(Arc::from(mutations)).await;
        figures.borrow_mut().commits.record(replies.len(), world.now().since(began));
        assert_eq!(outcomes.len(), replies.len(), "each mutation has its outcome");
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // Whoever left takes its answer with it; the change stays.
            let _ = reply.send(outcome);
        }
    }
}

/// Commits that are not sent yet, in the order in which they came.
struct Waiting {
    jobs: Vec<CommitJob>,
    limits: Limits,
}

impl Waiting {
    /// Room for two batches, so that the leftovers of hot keys leave room for the others.
    fn has_room(&self) -> bool {
        self.jobs.len() < 2 * self.limits.mutations
    }

    /// Takes a job in. One key may fill half a batch's worth of places; more of it are turned away.
    fn admit(&mut self, job: CommitJob) {
        if self.limits.mutations_per_target < self.limits.mutations {
            let target = job.mutation.target();
            let same = self.jobs.iter().filter(|other| other.mutation.target() == target).count();
            if same >= (self.limits.mutations / 2).max(1) {
                let _ = job.reply.send(Err(MetadataError::Unavailable { retry_after: RETRY_AFTER }));
                return;
            }
        }
        self.jobs.push(job);
    }

    fn turn_away_late<W: World>(&mut self, world: &W) {
        let now = world.now();
        self.jobs.retain(|job| !job.reply.is_closed());
        for late in self.jobs.extract_if(.., |job| job.deadline <= now) {
            let _ = late.reply.send(Err(MetadataError::Unavailable { retry_after: RETRY_AFTER }));
        }
    }

    /// The next batch, in the order of targets, and of arrival within a target.
    fn take_batch(&mut self) -> Vec<CommitJob> {
        let mut targets: BTreeMap<(u64, &[u8]), usize> = BTreeMap::new();
        let (mut count, mut bytes) = (0, 0);
        let mut chosen = vec![false; self.jobs.len()];
        for (job, chosen) in self.jobs.iter().zip(&mut chosen) {
            let of_target = targets.entry(job.mutation.target()).or_default();
            if *of_target >= self.limits.mutations_per_target {
                continue;
            }
            bytes += job.mutation.weight();
            if count == self.limits.mutations || (count > 0 && bytes > self.limits.bytes) {
                break;
            }
            *of_target += 1;
            count += 1;
            *chosen = true;
        }
        let mut chosen = chosen.into_iter();
        let mut batch: Vec<CommitJob> = self.jobs.extract_if(.., |_| chosen.next().expect("one per job")).collect();
        batch.sort_by(|a, b| a.mutation.target().cmp(&b.mutation.target()));
        batch
    }
}

async fn look_ups<W: World, M: Metadata>(
    world: &W,
    metadata: &Rc<M>,
    mut inbox: mpsc::Receiver<LookUpJob>,
    limits: Limits,
    figures: &RefCell<Figures>,
) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        let job = if in_flight.is_empty() {
            inbox.recv().await
        } else if in_flight.len() < limits.look_ups_in_flight {
            match future::select(pin!(inbox.recv()), in_flight.next()).await {
                Either::Left((job, _)) => job,
                Either::Right(_) => continue,
            }
        } else {
            in_flight.next().await;
            continue;
        };
        let Some(job) = job else { break };
        let mut batch = vec![job];
        while batch.len() < limits.queries {
            match inbox.try_recv() {
                Ok(job) => batch.push(job),
                Err(_) => break,
            }
        }
        in_flight.push(answer(world, metadata, in_time(world, batch), figures));
    }
    while in_flight.next().await.is_some() {}
}

/// Those of a batch whose callers still wait.
fn in_time<W: World>(world: &W, mut batch: Vec<LookUpJob>) -> Vec<LookUpJob> {
    let now = world.now();
    batch.retain(|job| !job.reply.is_closed() && job.deadline > now);
    batch
}

async fn answer<W: World, M: Metadata>(world: &W, metadata: &Rc<M>, batch: Vec<LookUpJob>, figures: &RefCell<Figures>) {
    let (queries, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.query, job.reply)).unzip();
    if queries.is_empty() {
        return;
    }
    let began = world.now();
    let answers = metadata.look_up(queries).await;
    figures.borrow_mut().look_ups.record(replies.len(), world.now().since(began));
    assert_eq!(answers.len(), replies.len(), "each query has its answer");
    for (reply, answer) in replies.into_iter().zip(answers) {
        let _ = reply.send(answer);
    }
}

#[cfg(test)]
mod tests;
