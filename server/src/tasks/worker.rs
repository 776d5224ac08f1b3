//! The loop of a node's worker: lease a task, do a slice of it, report.
//!
//! One per node, behind the tasks of clients. A task is given back after each slice, so that a long one lets others through.
//! The worker may end at any moment: its leases are void in the next life.

use std::pin::pin;
use std::time::Duration;

use anvil_model::io::World as _;
use anvil_node::Node;
use anvil_runtime::Core;
use futures_util::future;

use super::jobs::{self, Jobs, NodeJobs};
use super::task::{NewTask, Report, TaskState, Worker};
use super::{TaskError, TaskKeeper, TaskStore};
use crate::access::AccessKeeper;
use crate::telemetry::TaskFigures;

/// How often a worker that was told of nothing looks for tasks.
const LOOKED_EVERY: Duration = Duration::from_secs(5);

/// Works for as long as the future is polled.
pub async fn work(
    keeper: &TaskKeeper,
    node: &Node<Core>,
    worker: Worker,
    upload_expiry: Option<Duration>,
    access: &AccessKeeper,
    figures: &TaskFigures,
) {
    let (tasks, jobs) = (keeper.on(node), NodeJobs { node, upload_expiry, access });
    let rest = async || {
        future::select(pin!(keeper.changed.notified()), pin!(node.world().sleep(LOOKED_EVERY))).await;
    };
    let (began, mut regular) = (node.world().now(), jobs::regular(upload_expiry));
    let mut complained = false;
    loop {
        if let Err(error) = add_regular(&tasks, &mut regular, node.world().now().since(began)).await {
            tracing::debug!(%error, "the node's own tasks are added later");
        }
        let worked = turn(&tasks, &jobs, worker, figures).await;
        match tasks.list().await {
            Ok(all) => figures.publish(&all, node.world().wall_clock()),
            Err(error) => tracing::debug!(%error, "tasks are not counted at the moment"),
        }
        match worked {
            Ok(true) => {}
            Ok(false) => {
                complained = false;
                rest().await;
            }
            Err(error) => {
                // One line per outage.
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%error, "tasks wait");
                }
                rest().await;
            }
        }
    }
}

/// Adds those whose time has come.
async fn add_regular(
    tasks: &impl TaskStore,
    regular: &mut Vec<(Duration, NewTask)>,
    up_for: Duration,
) -> Result<(), TaskError> {
    while let Some(index) = regular.iter().position(|(after, _)| *after <= up_for) {
        tasks.add(regular[index].1.clone()).await?;
        regular.remove(index);
    }
    Ok(())
}

/// Does a slice of the next task. Says whether there was one.
async fn turn(
    tasks: &impl TaskStore,
    jobs: &impl Jobs,
    worker: Worker,
    figures: &TaskFigures,
) -> Result<bool, TaskError> {
    let Some(task) = tasks.lease(worker).await? else { return Ok(false) };
    let (id, kind, about) = (task.id, task.kind.as_str(), task.about.as_str());
    if task.state == TaskState::Failed {
        tracing::error!(id, kind, about, "a task failed too often, and waits for an administrator");
        return Ok(true);
    }
    let report = jobs.slice(&task).await;
    match &report {
        Report::Failed(error) => {
            figures.failed(kind);
            tracing::warn!(id, kind, about, attempts = task.attempts, %error, "a task failed");
        }
        Report::Done | Report::Again(_) => {
            figures.finished(kind);
            tracing::debug!(id, kind, about, "a task is done");
        }
        Report::More(_) | Report::Later(_) => {}
    }
    if !tasks.report(&task, report).await? {
        tracing::warn!(
            id,
            kind,
            about,
            "a task was taken by another worker, or cancelled, while a slice of it was done"
        );
    }
    Ok(true)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;

    use super::super::task::Task;
    use super::*;

    /// Does what it was told to, one report after the other.
    pub(in super::super) struct Told(pub(in super::super) RefCell<Vec<Report>>);

    impl Jobs for Told {
        async fn slice(&self, _: &Task) -> Report {
            self.0.borrow_mut().pop().expect("a case says enough")
        }
    }

    pub(in super::super) async fn one_turn(tasks: &impl TaskStore, worker: Worker, report: Report) -> bool {
        let figures = TaskFigures::default();
        turn(tasks, &Told(RefCell::new(vec![report])), worker, &figures).await.expect("the tasks can be had")
    }
}
