//! The part of `anvil.v1.AdminService` that is about the task queue, and about buckets that are deleted with all they hold.

use std::time::Duration;

use anvil_node::Caller;
use anvil_node::metadata::{MetadataError, Refusal};
use anvil_proto::v1;

use super::services::Services;
use super::status::{Code, Status};
use super::words;
use crate::access::By;
use crate::tasks::task::{Order, Task, TaskState};
use crate::tasks::{TaskError, TaskStore as _, Tasks, jobs};

/// These methods, for one call.
pub(super) struct TasksOf<'a> {
    pub(super) services: &'a Services,
    pub(super) by: By,
}

impl TasksOf<'_> {
    pub(super) async fn list(&self, _: v1::ListTasksRequest) -> Result<v1::ListTasksResponse, Status> {
        let tasks = self.tasks().list().await?;
        Ok(v1::ListTasksResponse { tasks: tasks.into_iter().map(told).collect() })
    }

    pub(super) async fn retry(
        &self,
        v1::RetryTaskRequest { id }: v1::RetryTaskRequest,
    ) -> Result<v1::RetryTaskResponse, Status> {
        let task = self.noted("task retry", id.to_string(), self.order(id, Order::Retry).await).await?;
        Ok(v1::RetryTaskResponse { task: Some(told(task)) })
    }

    pub(super) async fn cancel(
        &self,
        v1::CancelTaskRequest { id }: v1::CancelTaskRequest,
    ) -> Result<v1::CancelTaskResponse, Status> {
        let task = self.noted("task cancel", id.to_string(), self.cancel_unless_regular(id).await).await?;
        Ok(v1::CancelTaskResponse { task: Some(told(task)) })
    }

    pub(super) async fn remove_bucket(
        &self,
        v1::RemoveBucketRequest { bucket, force }: v1::RemoveBucketRequest,
    ) -> Result<v1::RemoveBucketResponse, Status> {
        let action = if force { "bucket delete --force" } else { "bucket delete" };
        let task = self.noted(action, bucket.clone(), self.remove(&bucket, force).await).await?;
        Ok(v1::RemoveBucketResponse { task: task.map(told) })
    }

    /// The task is there before the bucket is closed: a crash between the two leaves a task that closes it.
    async fn remove(&self, bucket: &str, force: bool) -> Result<Option<Task>, Status> {
        let node = &self.services.node;
        let name = words::bucket_name(bucket)?;
        let found = node.any_bucket(name.clone()).await?.filter(|found| found.tenant != Caller::NODE.tenant);
        let found = found.ok_or(MetadataError::Refused(Refusal::NoSuchBucket))?;
        if !force {
            node.delete_bucket(Caller { tenant: found.tenant }, name).await?;
            return Ok(None);
        }
        let mut task = self.tasks().add(jobs::delete_bucket(found.info.id, &name)).await?;
        if task.state == TaskState::Failed {
            task = self.order(task.id, Order::Retry).await?;
        }
        node.close_bucket(found.info.id).await.map_err(|error| {
            let message =
                format!("task {} deletes the bucket as soon as it can, and it is still there: {error}", task.id);
            Status::new(Code::Unavailable, "NOT_CLOSED_YET", message)
        })?;
        Ok(Some(task))
    }

    async fn cancel_unless_regular(&self, id: u64) -> Result<Task, Status> {
        let task = self.tasks().list().await?.into_iter().find(|task| task.id == id);
        let task = task.ok_or(TaskError::NoSuchTask(id))?;
        if jobs::is_regular(&task.kind) {
            let message = format!("task {id} is a {} of a node's own, and would come back", task.kind);
            return Err(Status::new(Code::FailedPrecondition, "REGULAR_TASK", message));
        }
        self.order(id, Order::Cancel).await
    }

    async fn order(&self, id: u64, order: Order) -> Result<Task, Status> {
        Ok(self.tasks().order(id, order).await?)
    }

    /// What was tried, and what came of it, goes to the audit.
    async fn noted<T>(&self, action: &str, about: String, result: Result<T, Status>) -> Result<T, Status> {
        let outcome = result.as_ref().err().map_or_else(|| "ok".to_owned(), |status| status.message.clone());
        self.services.keeper.note(&self.services.node, &self.by, action, about, &outcome).await;
        result
    }

    fn tasks(&self) -> Tasks<'_> {
        self.services.tasks.on(&self.services.node)
    }
}

fn told(task: Task) -> v1::Task {
    let state = match task.state {
        TaskState::Pending => v1::TaskState::Pending,
        TaskState::Running(_) => v1::TaskState::Running,
        TaskState::Failed => v1::TaskState::Failed,
    };
    let worker = match task.state {
        TaskState::Running(worker) => worker.node.to_string(),
        TaskState::Pending | TaskState::Failed => String::new(),
    };
    v1::Task {
        id: task.id,
        kind: task.kind,
        about: task.about,
        priority: task.priority.into(),
        state: state.into(),
        attempts: task.attempts,
        not_before_ms: task.not_before.unix_ms,
        worker,
        last_error: task.last_error.unwrap_or_default(),
        created_at_ms: task.created_at.unix_ms,
        changed_at_ms: task.changed_at.unix_ms,
        slices: task.leases,
    }
}

impl From<TaskError> for Status {
    fn from(error: TaskError) -> Self {
        let message = error.to_string();
        match error {
            TaskError::NoSuchTask(_) => Self::new(Code::NotFound, "NO_SUCH_TASK", message),
            TaskError::TooMany => Self::new(Code::ResourceExhausted, "TOO_MANY", message),
            TaskError::Away(_) => Self::new(Code::Unavailable, "TASKS_AWAY", message).retry_after(SOON),
            TaskError::Busy => Self::new(Code::Aborted, "CONFIGURATION_CHANGED", message).retry_after(SOON),
            TaskError::Unknown => Self::new(Code::Unknown, "OUTCOME_UNKNOWN", message),
            TaskError::Unreadable(_) => Self::new(Code::Internal, "TASKS_UNREADABLE", message),
        }
    }
}

const SOON: Duration = Duration::from_secs(1);
