//! `anvil admin task` and `anvil admin bucket delete`.

use anvil_proto::v1;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::admin::{Common, Node, tell};
use super::tenants::{BucketArgument, table, time};

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Lists the tasks; one that is done is not there any more
    List {
        /// Only those that failed too often and wait for you
        #[arg(long)]
        failed: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Shows a task
    Show(OneTask),
    /// Lets a task that failed, or waits, begin now
    Retry(OneTask),
    /// Takes a task off; what it did stays done
    Cancel(OneTask),
}

#[derive(Debug, Args)]
pub(super) struct OneTask {
    /// Its number
    #[arg(value_name = "ID")]
    id: u64,
    #[command(flatten)]
    common: Common,
}

pub(super) fn task(command: TaskCommand) -> Result<(), Failure> {
    match command {
        TaskCommand::List { failed, common } => {
            let mut tasks = list(&mut Node::open(&common)?)?;
            tasks.retain(|task| !failed || task.state() == v1::TaskState::Failed);
            tell(&common, || tasks.iter().map(to_json).collect(), || to_table(&tasks))
        }
        TaskCommand::Show(OneTask { id, common }) => {
            let found = list(&mut Node::open(&common)?)?.into_iter().find(|task| task.id == id);
            let task =
                found.ok_or_else(|| Failure::run(format!("there is no task {id}: it is done, or was cancelled")))?;
            tell(&common, || to_json(&task), || to_text(&task))
        }
        TaskCommand::Retry(OneTask { id, common }) => {
            let response: v1::RetryTaskResponse =
                Node::open(&common)?.ask("RetryTask", &v1::RetryTaskRequest { id })?;
            let task = response.task.unwrap_or_default();
            tell(&common, || to_json(&task), || format!("task {id} is {}\n", word(&task)))
        }
        TaskCommand::Cancel(OneTask { id, common }) => {
            let response: v1::CancelTaskResponse =
                Node::open(&common)?.ask("CancelTask", &v1::CancelTaskRequest { id })?;
            let task = response.task.unwrap_or_default();
            tell(&common, || to_json(&task), || format!("task {id} is cancelled; what it did stays done\n"))
        }
    }
}

pub(super) fn delete_bucket(bucket: BucketArgument, force: bool, common: &Common) -> Result<(), Failure> {
    let bucket = bucket.name();
    let request = v1::RemoveBucketRequest { bucket: bucket.clone(), force };
    let response: v1::RemoveBucketResponse = Node::open(common)?.ask("RemoveBucket", &request)?;
    let id = response.task.as_ref().map(|task| task.id);
    let told = match id {
        Some(id) => format!("bucket {bucket} is closed; task {id} deletes what it held, and frees its name\n"),
        None => format!("bucket {bucket} is deleted\n"),
    };
    tell(common, || json!({ "bucket": bucket, "task": id }), || told)
}

fn list(node: &mut Node) -> Result<Vec<v1::Task>, Failure> {
    let response: v1::ListTasksResponse = node.ask("ListTasks", &v1::ListTasksRequest {})?;
    Ok(response.tasks)
}

fn word(task: &v1::Task) -> &'static str {
    match task.state() {
        v1::TaskState::Unspecified => "unknown",
        v1::TaskState::Pending => "pending",
        v1::TaskState::Running => "running",
        v1::TaskState::Failed => "failed",
    }
}

fn to_json(task: &v1::Task) -> Value {
    let or_null = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    json!({
        "id": task.id,
        "kind": task.kind,
        "about": task.about,
        "priority": task.priority,
        "state": word(task),
        "attempts": task.attempts,
        "slices": task.slices,
        "not_before": time(task.not_before_ms),
        "worker": or_null(&task.worker),
        "last_error": or_null(&task.last_error),
        "created_at": time(task.created_at_ms),
        "changed_at": time(task.changed_at_ms),
    })
}

fn to_table(tasks: &[v1::Task]) -> String {
    let row = |task: &v1::Task| {
        vec![
            task.id.to_string(),
            task.kind.clone(),
            word(task).to_owned(),
            task.attempts.to_string(),
            time(task.not_before_ms),
            task.about.clone(),
            task.last_error.clone(),
        ]
    };
    table(&["ID", "KIND", "STATE", "ATTEMPTS", "NOT BEFORE", "ABOUT", "LAST ERROR"], tasks.iter().map(row).collect())
}

fn to_text(task: &v1::Task) -> String {
    let lines = [
        ("id", task.id.to_string()),
        ("kind", task.kind.clone()),
        ("about", task.about.clone()),
        ("priority", task.priority.to_string()),
        ("state", word(task).to_owned()),
        ("worker", task.worker.clone()),
        ("attempts", task.attempts.to_string()),
        ("slices", task.slices.to_string()),
        ("not before", time(task.not_before_ms)),
        ("last error", task.last_error.clone()),
        ("created", time(task.created_at_ms)),
        ("changed", time(task.changed_at_ms)),
    ];
    lines.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}: {value}\n")).collect()
}
