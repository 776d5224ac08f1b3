//! The task queue: work that no client waits for and that has to outlive the node's life that took it on.
//!
//! - [`task`]: what may become of a task. Pure.
//! - [`TaskStore`]: where tasks are; without a database an object of the node (`document`), with one rows of the global
//!   database (`metadata::postgres::tasks`).
//! - [`jobs`]: what is done for a task, a slice at a time. [`chores`]: what the cores do for the disks while they are let.
//!   [`worker`]: the loop that leases, works and reports.
//!
//! **Invariants**
//! - Nothing is lost and nothing is done twice at a cost: a task is there until its job says that all is done, and each
//!   slice may be repeated from its position, or from an earlier one.
//! - A worker that lost its lease changes nothing of its task.
//! - Tasks are coarse: one for a bucket, none for an object.

pub mod chores;
mod document;
pub mod jobs;
pub mod task;
pub mod worker;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use anvil_node::Node;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_runtime::Core;
use tokio::sync::Notify;

use crate::metadata::postgres::tasks::TaskDatabase;
use chores::Chores;
use document::{Document, NodeObject};
use task::{NewTask, Order, Report, Task, Worker};

/// Keeps tasks. Both implementations pass one suite.
pub trait TaskStore {
    /// Adds a task that is due at once. One of the same kind about the same stays as it is, and is given.
    fn add(&self, new: NewTask) -> impl Future<Output = Result<Task, TaskError>>;

    /// Gives the next task that is due to a worker; of those with the same priority the one that waits for longest.
    fn lease(&self, worker: Worker) -> impl Future<Output = Result<Option<Task>, TaskError>>;

    /// Keeps what a slice came to. Of a lease that was lost nothing is kept, and `false` said.
    fn report(&self, leased: &Task, report: Report) -> impl Future<Output = Result<bool, TaskError>>;

    /// All tasks, by id.
    fn list(&self) -> impl Future<Output = Result<Vec<Task>, TaskError>>;

    /// Does what an administrator wants. Gives the task as it is then, or was when it went.
    fn order(&self, id: u64, order: Order) -> impl Future<Output = Result<Task, TaskError>>;
}

/// Why something was not done with a task, or is not known to be. Each text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says itself what it is")]
pub enum TaskError {
    #[error("there is no task {0}: it is done, or was cancelled")]
    NoSuchTask(u64),
    #[error("there are {} tasks already, as many as there may be", task::TASKS_MAX)]
    TooMany,
    #[error("tasks cannot be had at the moment: {0}")]
    Away(String),
    #[error("it is not known whether the task was changed: look, and try again if not")]
    Unknown,
    #[error("other tasks were changed all the time: try again")]
    Busy,
    #[error("what this node keeps of tasks cannot be read: {0}")]
    Unreadable(String),
}

impl From<MetadataError> for TaskError {
    fn from(error: MetadataError) -> Self {
        match error {
            MetadataError::Unknown => Self::Unknown,
            MetadataError::Refused(Refusal::OperationAborted) => Self::Busy,
            error => Self::Away(error.to_string()),
        }
    }
}

/// The tasks of a node's region. Shared by all cores.
pub struct TaskKeeper {
    place: Place,
    /// Tells the worker that something may be due.
    changed: Arc<Notify>,
    /// Those of this node.
    chores: Chores,
}

enum Place {
    Node,
    Database(TaskDatabase),
}

/// Keeps these tasks, for a node that had a database.
///
/// # Errors
/// When they cannot be kept.
pub(crate) async fn keep_on(node: &Node<Core>, tasks: Vec<Task>) -> Result<(), TaskError> {
    Document::new(NodeObject { node }).set(tasks).await
}

/// [`TaskKeeper`] as a core has it.
#[derive(Clone, Copy)]
pub struct Tasks<'k> {
    keeper: &'k TaskKeeper,
    node: &'k Node<Core>,
}

impl TaskKeeper {
    /// Keeps them on the node's disks.
    #[must_use]
    pub fn on_node() -> Self {
        Self::at(Place::Node)
    }

    /// Keeps them in the global database.
    #[must_use]
    pub fn in_database(database: TaskDatabase) -> Self {
        Self::at(Place::Database(database))
    }

    fn at(place: Place) -> Self {
        let changed = Arc::new(Notify::new());
        Self { place, chores: Chores::new(&changed), changed }
    }

    /// What the cores of this node do for their disks when they are let.
    #[must_use]
    pub fn chores(&self) -> &Chores {
        &self.chores
    }

    /// The tasks, asked for on the core of `node`.
    #[must_use]
    pub fn on<'k>(&'k self, node: &'k Node<Core>) -> Tasks<'k> {
        Tasks { keeper: self, node }
    }
}

impl Tasks<'_> {
    fn document(&self) -> Document<NodeObject<'_>> {
        Document::new(NodeObject { node: self.node })
    }
}

impl TaskStore for Tasks<'_> {
    async fn add(&self, new: NewTask) -> Result<Task, TaskError> {
        let added = match &self.keeper.place {
            Place::Node => self.document().add(new).await,
            Place::Database(database) => database.add(new).await,
        };
        self.keeper.changed.notify_one();
        added
    }

    async fn lease(&self, worker: Worker) -> Result<Option<Task>, TaskError> {
        match &self.keeper.place {
            Place::Node => self.document().lease(worker).await,
            Place::Database(database) => database.lease(worker).await,
        }
    }

    async fn report(&self, leased: &Task, report: Report) -> Result<bool, TaskError> {
        match &self.keeper.place {
            Place::Node => self.document().report(leased, report).await,
            Place::Database(database) => database.report(leased, report).await,
        }
    }

    async fn list(&self) -> Result<Vec<Task>, TaskError> {
        match &self.keeper.place {
            Place::Node => self.document().list().await,
            Place::Database(database) => database.list().await,
        }
    }

    async fn order(&self, id: u64, order: Order) -> Result<Task, TaskError> {
        let ordered = match &self.keeper.place {
            Place::Node => self.document().order(id, order).await,
            Place::Database(database) => database.order(id, order).await,
        };
        self.keeper.changed.notify_one();
        ordered
    }
}

impl fmt::Debug for TaskKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskKeeper")
    }
}

#[cfg(test)]
pub(crate) mod suite;
