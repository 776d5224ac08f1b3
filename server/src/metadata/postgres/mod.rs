//! The metadata in PostgreSQL: a regional database for what is stored, a global one for what regions share.
//!
//! - `address`, `password_file`: where a database is; `session` and `lane`: a connection, and always having one.
//! - `schema`: migrations, and which of them a program understands.
//! - `commit`, `rows`, `load`, `save`: a batch as a transaction, decided by `anvil_node`'s decisions over rows that
//!   were loaded and locked for them.
//! - [`access`]: tenants, apps and grants, which are global.
//! - `cluster`: what a node says of itself in the databases, once and at each start.
//! - [`registry`]: what regions share of themselves: which there are, and which has a bucket's name.
//! - `moving`, `leaving`, `whole`: the metadata of a node brought into databases, and out of them; all rows, compared and written
//!   out.
//!
//! Everything runs on one thread with an executor of its own, never on an engine core; cores send batches and get answers.
//! Why it is like this stands in `docs/adr/0008-postgresql.md`.

/// Statements with their names, for the test that explains them.
#[cfg(test)]
macro_rules! named {
    ($($statement:ident),+ $(,)?) => {
        vec![$((stringify!($statement), &*$statement as &'static str)),+]
    };
}

pub mod access;
mod address;
pub mod cluster;
mod columns;
mod commit;
mod lane;
pub(crate) mod leaving;
mod load;
pub(crate) mod moving;
mod password_file;
pub mod registry;
mod rows;
mod save;
pub mod schema;
mod session;
pub mod tasks;
mod usage;
mod whole;
mod work;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use anvil_model::ids::{Generation, NodeId, WriteId};
use anvil_node::metadata::client::RETRY_AFTER;
use anvil_node::metadata::mutation::{Mutation, Outcome};
use anvil_node::metadata::query::{Answer, Query};
use anvil_node::metadata::{Metadata, MetadataError};
use cluster::Databases;
use tokio::sync::{mpsc, oneshot};

pub use address::{AddressError, Database};
pub use session::SessionError;

/// The metadata of a region, as the core that gathers batches sees it.
#[derive(Debug)]
pub struct Postgres {
    commits: mpsc::Sender<CommitJob>,
    look_ups: mpsc::Sender<LookUpJob>,
}

/// The thread that speaks to the database. It ends when the [`Postgres`] is dropped.
#[derive(Debug)]
pub struct PostgresThread(JoinHandle<()>);

impl PostgresThread {
    /// Waits for its end.
    pub fn join(self) {
        // A thread that panicked has said so.
        let _ = self.0.join();
    }
}

/// Where a node last saw the metadata stand: the history, and a change in it that must still be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Drawn when the database was made.
    pub lineage: u128,
    /// A change that this node heard of, if it did of any.
    pub change: Option<(Generation, WriteId)>,
}

/// Which of a region's databases is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseRole {
    /// What regions share.
    Global,
    /// What is stored here.
    Regional,
}

impl DatabaseRole {
    /// What it is called in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Regional => "regional",
        }
    }
}

/// Hears whether a database answers, from the thread.
pub type OnHealth = Box<dyn Fn(DatabaseRole, bool) + Send>;
/// Hears of the last change, from the thread, now and then.
pub type OnSeen = Box<dyn Fn(Seen) + Send>;

struct CommitJob {
    batch: Arc<[Mutation]>,
    reply: oneshot::Sender<Vec<Result<Outcome, MetadataError>>>,
}

struct LookUpJob {
    queries: Vec<Query>,
    reply: oneshot::Sender<Vec<Result<Answer, MetadataError>>>,
}

impl Postgres {
    /// Starts the thread, which changes things as `node`. Every connection to the regional database must be of the history `seen`, and have its last
    /// change; of the global one it is only asked whether it answers.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        databases: Databases,
        node: NodeId,
        seen: Seen,
        on_health: OnHealth,
        on_seen: OnSeen,
    ) -> io::Result<(Self, PostgresThread)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (commits, commit_jobs) = mpsc::channel(QUEUE);
        let (look_ups, look_up_jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("metadata-postgres".to_owned());
        let handle = thread.spawn(move || {
            let work = work::run(databases, node, seen, on_health, on_seen, commit_jobs, look_up_jobs);
            tokio::task::LocalSet::new().block_on(&runtime, work);
        })?;
        Ok((Self { commits, look_ups }, PostgresThread(handle)))
    }
}

impl Metadata for Postgres {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        let count = batch.len();
        let (reply, answer) = oneshot::channel();
        if self.commits.send(CommitJob { batch, reply }).await.is_err() {
            return vec![unavailable(); count];
        }
        // The thread ended with it: it may have been sent.
        answer.await.unwrap_or_else(|_| vec![Err(MetadataError::Unknown); count])
    }

    async fn look_up(&self, queries: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        let count = queries.len();
        let (reply, answers) = oneshot::channel();
        let sent = self.look_ups.send(LookUpJob { queries, reply }).await.is_ok();
        let answers = if sent { answers.await.ok() } else { None };
        answers.unwrap_or_else(|| vec![unavailable(); count])
    }
}

fn unavailable<T>() -> Result<T, MetadataError> {
    Err(MetadataError::Unavailable { retry_after: RETRY_AFTER })
}

/// Batches on their way to the thread. The service sends one of commits, and of look-ups a few at a time.
const QUEUE: usize = 8;

#[cfg(test)]
mod tests;
