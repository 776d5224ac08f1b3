//! The loop of a node's worker: lease a task, do a slice of it, report.
//!
//! One per node, behind the tasks of clients. A task is given back after each slice, so that a long one lets others through. The
//! disks' chores are done by all cores and take long: the worker lets the cores begin, renews the lease while they are at
//! it, and reports when the last one has ended. It may end at any moment: its leases are void in the next life.

use std::pin::pin;
use std::time::Duration;

use anvil_model::io::World as _;
use anvil_model::time::Moment;
use anvil_node::Node;
use anvil_runtime::Core;
use anvil_store::CameTo;
use futures_util::future;

use super::chores::Chores;
use super::jobs::{self, Jobs, NodeJobs};
use super::task::{LEASE, NewTask, Report, Task, TaskState, Worker};
use super::{TaskError, TaskKeeper, TaskStore};
use crate::access::AccessKeeper;
use crate::telemetry::TaskFigures;

/// How often a worker that was told of nothing looks for tasks.
const LOOKED_EVERY: Duration = Duration::from_secs(5);
/// How often the lease of a task is renewed whose work goes on.
const RENEWED_EVERY: Duration = Duration::from_secs(LEASE.as_secs() / 3);
/// Before a chore that was interrupted is tried again.
const LATER: Duration = Duration::from_secs(5);

/// Works for as long as the future is polled.
pub async fn work(
    keeper: &TaskKeeper,
    node: &Node<Core>,
    worker: Worker,
    upload_expiry: Option<Duration>,
    access: &AccessKeeper,
    figures: &TaskFigures,
) {
    let jobs = NodeJobs { node, upload_expiry, access };
    let tasks = keeper.on(node);
    let mut hands = Hands::new(&tasks, jobs, &keeper.chores, worker, figures);
    let rest = async || {
        future::select(pin!(keeper.changed.notified()), pin!(node.world().sleep(LOOKED_EVERY))).await;
    };
    let (began, mut regular) = (node.world().now(), jobs::regular(upload_expiry));
    let mut complained = false;
    loop {
        let now = node.world().now();
        if let Err(error) = add_regular(&tasks, &mut regular, now.since(began)).await {
            tracing::debug!(%error, "the node's own tasks are added later");
        }
        let worked = hands.turn(now).await;
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

/// What a worker works with.
struct Hands<'h, T, J> {
    tasks: &'h T,
    jobs: J,
    chores: &'h Chores,
    worker: Worker,
    figures: &'h TaskFigures,
    /// Chores that the cores are at.
    rounds: Vec<Round>,
}

/// A round of a chore, under the lease of its task.
struct Round {
    task: Task,
    renewed_at: Moment,
}

impl<'h, T: TaskStore, J: Jobs> Hands<'h, T, J> {
    fn new(tasks: &'h T, jobs: J, chores: &'h Chores, worker: Worker, figures: &'h TaskFigures) -> Self {
        Self { tasks, jobs, chores, worker, figures, rounds: Vec::new() }
    }

    /// Looks after the chores, and does a slice of the next task. Says whether there was one.
    async fn turn(&mut self, now: Moment) -> Result<bool, TaskError> {
        let tended = self.tend_rounds(now).await;
        self.note_wanted().await;
        tended?;
        let Some(task) = self.tasks.lease(self.worker).await? else { return Ok(false) };
        if task.state == TaskState::Failed {
            let Task { id, kind, about, .. } = &task;
            tracing::error!(id, kind, about, "a task failed too often, and waits for an administrator");
            return Ok(true);
        }
        let report = match self.chores.of(&task.kind) {
            Some(chore) if chore.open() => {
                self.rounds.push(Round { task, renewed_at: now });
                return Ok(true);
            }
            // An earlier life asked for it.
            Some(_) => Report::Done,
            None => self.jobs.slice(&task).await,
        };
        self.report(&task, report).await?;
        Ok(true)
    }

    /// Reports what the rounds have come to that ended, and keeps the leases of the others.
    async fn tend_rounds(&mut self, now: Moment) -> Result<(), TaskError> {
        for index in (0..self.rounds.len()).rev() {
            let Round { task, renewed_at } = &self.rounds[index];
            let chore = self.chores.of(&task.kind).expect("a round is one of a chore");
            let report = match chore.ended() {
                Some(CameTo::Done) => Report::Done,
                Some(CameTo::Interrupted) => Report::Later(LATER),
                Some(CameTo::Failed(error)) => Report::Failed(error),
                None if now.since(*renewed_at) < RENEWED_EVERY => continue,
                None => Report::Working,
            };
            if report == Report::Working {
                if self.report(task, report).await? {
                    self.rounds[index].renewed_at = now;
                    continue;
                }
                self.rounds.remove(index);
            } else {
                // When this is not heard the lease runs out, and the next one finds that nothing is wanted.
                let Round { task, .. } = self.rounds.remove(index);
                self.report(&task, report).await?;
            }
        }
        Ok(())
    }

    /// Adds tasks for the chores that are wanted. What cannot be noted is not put off: nobody else would do it, and what is lost
    /// must be made again, whatever becomes of the queue.
    async fn note_wanted(&self) {
        for wanted in self.chores.wanted(self.worker.node) {
            let kind = wanted.kind;
            if self.rounds.iter().any(|round| round.task.kind == kind) {
                continue;
            }
            let in_vain = match self.tasks.add(wanted).await {
                // That administrators are asked to look at it puts nothing off either.
                Ok(task) if task.state == TaskState::Failed => "its task failed too often".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            tracing::debug!(kind, error = in_vain, "a chore of this node is done without a task");
            self.chores.of(kind).expect("it is a chore").open();
        }
    }

    /// Says whether the lease was still held.
    async fn report(&self, task: &Task, report: Report) -> Result<bool, TaskError> {
        let (id, kind, about) = (task.id, task.kind.as_str(), task.about.as_str());
        let kept = self.tasks.report(task, report.clone()).await?;
        match report {
            Report::Failed(error) => {
                self.figures.failed(kind);
                tracing::warn!(id, kind, about, attempts = task.attempts, %error, "a task failed");
            }
            Report::Done | Report::Again(_) => {
                self.figures.finished(kind);
                tracing::debug!(id, kind, about, "a task is done");
            }
            Report::More(_) | Report::Later(_) | Report::Working => {}
        }
        if !kept {
            tracing::warn!(id, kind, about, "a task was taken by another worker, or cancelled, while it was worked on");
        }
        Ok(kept)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use anvil_store::Turn;
    use tokio::sync::Notify;

    use super::super::chores::about;
    use super::super::jobs::{REPAIR, SCRUB};
    use super::super::suite::Timed;
    use super::super::task::Order;
    use super::*;

    /// Does what it was told to, one report after the other.
    pub(in super::super) struct Told(pub(in super::super) RefCell<Vec<Report>>);

    impl Jobs for Told {
        async fn slice(&self, _: &Task) -> Report {
            self.0.borrow_mut().pop().expect("a case says enough")
        }
    }

    pub(in super::super) async fn one_turn(tasks: &impl TaskStore, worker: Worker, report: Report) -> bool {
        let (chores, figures) = (Chores::new(&Arc::new(Notify::new())), TaskFigures::default());
        let jobs = Told(RefCell::new(vec![report]));
        let mut hands = Hands::new(tasks, jobs, &chores, worker, &figures);
        hands.turn(at(0)).await.expect("the tasks can be had")
    }

    /// Where chores are all there is to do.
    fn idle() -> Told {
        Told(RefCell::default())
    }

    fn at(seconds: u64) -> Moment {
        Moment { nanos: seconds * 1_000_000_000 }
    }

    /// A turn that has begun.
    fn had(turn: std::pin::Pin<&mut impl Future<Output = Turn>>) -> Turn {
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => turn,
            Poll::Pending => panic!("the chore is let in"),
        }
    }

    /// Of tasks there are as many as there may be: nobody waits for that with what is lost.
    pub(in super::super) async fn a_chore_needs_no_task(tasks: &impl TaskStore, worker: Worker) {
        let (chores, figures) = (Chores::new(&Arc::new(Notify::new())), TaskFigures::default());
        let hands = Hands::new(tasks, idle(), &chores, worker, &figures);
        let mut turn = Box::pin(chores.repair.turn());
        assert!(turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        hands.note_wanted().await;
        drop(had(turn.as_mut()));
    }

    /// Its task is a dead letter, for a reason that may be no more: what is lost is made again all the same.
    pub(in super::super) async fn a_chore_outlives_its_task(tasks: &impl Timed, worker: Worker) {
        tasks.add(NewTask { kind: REPAIR, about: about(worker.node), priority: 5 }).await.unwrap();
        while let Some(task) = tasks.lease(worker).await.unwrap() {
            tasks.report(&task, Report::Failed("no".to_owned())).await.unwrap();
            tasks.pass(Duration::from_hours(24)).await;
        }
        a_chore_needs_no_task(tasks, worker).await;
        let left = tasks.list().await.unwrap().pop().unwrap();
        assert_eq!(left.state, TaskState::Failed);
        tasks.order(left.id, Order::Retry).await.unwrap();
        assert!(one_turn(tasks, worker, Report::Done).await);
        assert_eq!(tasks.list().await.unwrap(), []);
    }

    /// A chore is a task from when it is wanted until it has ended, and its lease goes on as long as it does.
    pub(in super::super) async fn a_chore_is_a_task(tasks: &impl Timed, worker: Worker) {
        let (chores, figures) = (Chores::new(&Arc::new(Notify::new())), TaskFigures::default());
        let mut hands = Hands::new(tasks, idle(), &chores, worker, &figures);
        assert_eq!(hands.turn(at(0)).await, Ok(false), "nothing is wanted");
        for (came_to, error) in [(CameTo::Failed("no".to_owned()), Some("no")), (CameTo::Done, None)] {
            let mut turn = Box::pin(chores.scrub.turn());
            assert!(turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(hands.turn(at(0)).await, Ok(true));
            let turn = had(turn.as_mut());
            // Longer than a lease takes.
            for seconds in (0..200).step_by(25) {
                assert_eq!(hands.turn(at(seconds)).await, Ok(false), "it goes on");
                let task = tasks.list().await.unwrap().pop().unwrap();
                assert_eq!((task.kind.as_str(), task.state), (SCRUB, TaskState::Running(worker)));
                tasks.pass(Duration::from_secs(25)).await;
            }
            turn.end(came_to);
            assert_eq!(hands.turn(at(200)).await, Ok(false));
            let left = tasks.list().await.unwrap().pop();
            assert_eq!(left.and_then(|task| task.last_error).as_deref(), error);
            tasks.pass(Duration::from_mins(1)).await;
        }
        assert!(hands.rounds.is_empty());
        // Left by an earlier life, and not wanted now.
        tasks.add(NewTask { kind: SCRUB, about: about(worker.node), priority: 30 }).await.unwrap();
        assert_eq!(hands.turn(at(300)).await, Ok(true));
        assert_eq!(tasks.list().await.unwrap(), []);
    }
}
