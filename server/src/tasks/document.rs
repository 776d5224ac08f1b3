//! The tasks of a node without a database: one object in the node's own bucket, as who may do what is (`access::document`). So
//! they survive what every object survives, and need no rows of their own.
//!
//! A change replaces the object under the condition that it is still the one that was read. The tasks of a node change a few
//! times a second at most, while one of them runs.

use anvil_model::io::World as _;
use anvil_model::object::Etag;
use anvil_model::time::WallTime;
use anvil_node::Node;
use anvil_runtime::Core;
use serde::{Deserialize, Serialize};

use super::chores::about;
use super::task::{NewTask, Order, Report, TASKS_MAX, Task, Worker};
use super::{TaskError, TaskStore, jobs};
use crate::node_object::{self, ObjectError};

/// What the object holds, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Queue {
    version: u32,
    next: u64,
    tasks: Vec<Task>,
}

const VERSION: u32 = 1;
const KEY: &str = "tasks/queue.json";
/// How often a change is made anew because another one came first.
const ATTEMPTS_MAX: usize = 16;

/// Where the bytes are: replaced as a whole, if they are still those that were read.
pub(super) trait Slot {
    /// The bytes with their tag; `None` before they were first written.
    async fn read(&self) -> Result<Option<(Vec<u8>, Etag)>, TaskError>;
    /// Says `false` when the bytes are not those of this tag any more.
    async fn replace(&self, seen: Option<&Etag>, bytes: Vec<u8>) -> Result<bool, TaskError>;
    fn now(&self) -> WallTime;
}

/// Tasks in one slot.
pub(super) struct Document<S> {
    slot: S,
}

/// What a change of the queue gives, and whether there is anything to keep.
enum Changed<T> {
    Keep(T),
    Leave(T),
}

impl<S: Slot> Document<S> {
    pub(super) fn new(slot: S) -> Self {
        Self { slot }
    }

    #[cfg(test)]
    pub(super) fn slot(&self) -> &S {
        &self.slot
    }

    async fn read(&self) -> Result<(Queue, Option<Etag>), TaskError> {
        let Some((bytes, etag)) = self.slot.read().await? else {
            return Ok((Queue { version: VERSION, next: 1, tasks: Vec::new() }, None));
        };
        let queue: Queue = serde_json::from_slice(&bytes).map_err(|error| TaskError::Unreadable(error.to_string()))?;
        if queue.version != VERSION {
            return Err(TaskError::Unreadable(format!("it has version {}, of a newer program", queue.version)));
        }
        Ok((queue, Some(etag)))
    }

    async fn change<T>(
        &self,
        mut decide: impl FnMut(&mut Queue, WallTime) -> Result<Changed<T>, TaskError>,
    ) -> Result<T, TaskError> {
        for _ in 0..ATTEMPTS_MAX {
            let (mut queue, etag) = self.read().await?;
            match decide(&mut queue, self.slot.now())? {
                Changed::Leave(answer) => return Ok(answer),
                Changed::Keep(answer) => {
                    let bytes = serde_json::to_vec(&queue).expect("plain structs become JSON");
                    if self.slot.replace(etag.as_ref(), bytes).await? {
                        return Ok(answer);
                    }
                }
            }
        }
        Err(TaskError::Busy)
    }
}

impl<S: Slot> Document<S> {
    /// Has these be all tasks, by id.
    pub(super) async fn set(&self, tasks: Vec<Task>) -> Result<(), TaskError> {
        self.change(|queue, _| {
            queue.next = tasks.last().map_or(queue.next, |last| queue.next.max(last.id + 1));
            queue.tasks.clone_from(&tasks);
            Ok(Changed::Keep(()))
        })
        .await
    }
}

impl Queue {
    /// Takes a task out, to put back what becomes of it.
    fn take(&mut self, wanted: impl Fn(&Task) -> bool) -> Option<Task> {
        let index = self.tasks.iter().position(wanted)?;
        Some(self.tasks.remove(index))
    }

    fn put(&mut self, task: Task) {
        let index = self.tasks.partition_point(|other| other.id < task.id);
        self.tasks.insert(index, task);
    }
}

impl<S: Slot> TaskStore for Document<S> {
    async fn add(&self, new: NewTask) -> Result<Task, TaskError> {
        self.change(|queue, now| {
            let same = |task: &&Task| (task.kind.as_str(), &task.about) == (new.kind, &new.about);
            if let Some(task) = queue.tasks.iter().find(same) {
                return Ok(Changed::Leave(task.clone()));
            }
            if queue.tasks.len() >= TASKS_MAX {
                return Err(TaskError::TooMany);
            }
            let task = new.clone().at(queue.next, now);
            queue.next += 1;
            queue.put(task.clone());
            Ok(Changed::Keep(task))
        })
        .await
    }

    async fn lease(&self, worker: Worker) -> Result<Option<Task>, TaskError> {
        self.change(|queue, now| {
            let own = about(worker.node);
            let is_ours = |task: &&Task| {
                jobs::is_known(&task.kind) && (!jobs::chores().contains(&&*task.kind) || task.about == own)
            };
            let due = queue.tasks.iter().filter(is_ours).filter(|task| task.is_due(worker, now));
            let Some(id) = due.min_by_key(|task| (task.priority, task.not_before, task.id)).map(|task| task.id) else {
                return Ok(Changed::Leave(None));
            };
            let task = queue.take(|task| task.id == id).expect("just found").leased(worker, now);
            queue.put(task.clone());
            Ok(Changed::Keep(Some(task)))
        })
        .await
    }

    async fn report(&self, leased: &Task, report: Report) -> Result<bool, TaskError> {
        self.change(|queue, now| {
            let is_it = |task: &Task| (task.id, task.leases, task.state) == (leased.id, leased.leases, leased.state);
            let Some(task) = queue.take(is_it) else { return Ok(Changed::Leave(false)) };
            if let Some(task) = task.reported(&report, now) {
                queue.put(task);
            }
            Ok(Changed::Keep(true))
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Task>, TaskError> {
        Ok(self.read().await?.0.tasks)
    }

    async fn order(&self, id: u64, order: Order) -> Result<Task, TaskError> {
        self.change(|queue, now| {
            let task = queue.take(|task| task.id == id).ok_or(TaskError::NoSuchTask(id))?;
            let Some(kept) = task.clone().ordered(order, now) else { return Ok(Changed::Keep(task)) };
            queue.put(kept.clone());
            Ok(Changed::Keep(kept))
        })
        .await
    }
}

/// An object in the node's own bucket.
pub(super) struct NodeObject<'n> {
    pub(super) node: &'n Node<Core>,
}

impl Slot for NodeObject<'_> {
    async fn read(&self) -> Result<Option<(Vec<u8>, Etag)>, TaskError> {
        Ok(node_object::read(self.node, KEY).await?)
    }

    async fn replace(&self, seen: Option<&Etag>, bytes: Vec<u8>) -> Result<bool, TaskError> {
        Ok(node_object::replace(self.node, KEY, seen, bytes).await?)
    }

    fn now(&self) -> WallTime {
        self.node.world().wall_clock()
    }
}

impl From<ObjectError> for TaskError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Metadata(error) => error.into(),
            ObjectError::Unreadable(why) => Self::Unreadable(why),
            error @ (ObjectError::BucketTaken | ObjectError::NotWritten(_)) => Self::Away(error.to_string()),
        }
    }
}
