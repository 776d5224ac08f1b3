//! What every place of tasks has to do, as cases over the trait: run over the document, with and without others that write it at
//! the same time, and over PostgreSQL.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anvil_model::ids::{Incarnation, NodeId};
use anvil_model::object::Etag;
use anvil_model::time::WallTime;

use super::chores::about;
use super::document::{Document, Slot};
use super::jobs::{DELETE_BUCKET, EXPIRE_UPLOADS, SWEEP};
use super::task::{ATTEMPTS_MAX, LEASE, NewTask, Order, Report, TASKS_MAX, Task, TaskState, Worker, pause};
use super::worker::tests::{a_chore_is_a_task, a_chore_needs_no_task, a_chore_outlives_its_task, one_turn};
use super::{TaskError, TaskStore};

/// Tasks whose time a case passes.
pub(crate) trait Timed: TaskStore {
    async fn pass(&self, time: Duration);
}

const ONE: Worker = Worker { node: NodeId(1), life: Incarnation(7) };
const OTHER: Worker = Worker { node: NodeId(2), life: Incarnation(3) };
const SECOND: Duration = Duration::from_secs(1);

fn new(kind: &'static str, about: &str, priority: u8) -> NewTask {
    NewTask { kind, about: about.to_owned(), priority }
}

async fn only(tasks: &impl TaskStore) -> Task {
    let mut all = tasks.list().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.pop().unwrap()
}

async fn lease(tasks: &impl TaskStore, worker: Worker) -> Option<Task> {
    tasks.lease(worker).await.unwrap()
}

/// One of a kind about one thing; numbers are not given twice.
pub(crate) async fn a_task_is_added_once(tasks: &impl Timed) {
    let first = tasks.add(new(DELETE_BUCKET, "1/a", 20)).await.unwrap();
    assert_eq!((first.state, first.attempts, first.position.as_str()), (TaskState::Pending, 0, ""));
    assert_eq!(tasks.add(new(DELETE_BUCKET, "1/a", 20)).await.unwrap(), first);
    let other = tasks.add(new(EXPIRE_UPLOADS, "1/a", 10)).await.unwrap();
    assert!(other.id > first.id);
    assert_eq!(tasks.list().await.unwrap(), [first.clone(), other.clone()]);
    assert_eq!(tasks.order(other.id, Order::Cancel).await.unwrap(), other);
    assert_eq!(tasks.order(other.id, Order::Cancel).await, Err(TaskError::NoSuchTask(other.id)));
    assert_eq!(tasks.order(other.id, Order::Retry).await, Err(TaskError::NoSuchTask(other.id)));
    assert!(tasks.add(new(EXPIRE_UPLOADS, "1/a", 10)).await.unwrap().id > other.id);
}

/// Two workers never have one task; the more urgent is first, and of those the one that waits for longest.
pub(crate) async fn tasks_are_leased_in_their_order(tasks: &impl Timed) {
    for (about, priority) in [("1/late", 20), ("2/first", 5), ("3/last", 20)] {
        tasks.add(new(DELETE_BUCKET, about, priority)).await.unwrap();
        tasks.pass(SECOND).await;
    }
    tasks.add(new("of a newer program", "", 1)).await.unwrap();
    let first = lease(tasks, ONE).await.unwrap();
    assert_eq!((first.about.as_str(), first.state, first.attempts), ("2/first", TaskState::Running(ONE), 1));
    assert_eq!(lease(tasks, OTHER).await.unwrap().about, "1/late");
    // Behind the one that waits since.
    assert_eq!(tasks.report(&first, Report::More("here".to_owned())).await, Ok(true));
    let again = lease(tasks, ONE).await.unwrap();
    assert_eq!((again.about.as_str(), again.position.as_str(), again.attempts), ("2/first", "here", 1));
    assert_eq!(lease(tasks, ONE).await.unwrap().about, "3/last");
    assert_eq!(lease(tasks, ONE).await, None);
    assert_eq!(tasks.report(&again, Report::Done).await, Ok(true));
    assert!(tasks.list().await.unwrap().iter().all(|task| task.about != "2/first"));
}

/// A long task lets others of its priority through.
pub(crate) async fn slices_take_turns(tasks: &impl Timed) {
    for about in ["1/a", "2/b"] {
        tasks.add(new(DELETE_BUCKET, about, 20)).await.unwrap();
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        tasks.pass(SECOND).await;
        let task = lease(tasks, ONE).await.unwrap();
        tasks.report(&task, Report::More("x".to_owned())).await.unwrap();
        order.push(task.about);
    }
    assert_eq!(order, ["1/a", "2/b", "1/a", "2/b"]);
}

/// What a worker that was killed had is taken by another one when the lease has run out, by its own next life at once, and
/// what the first one says then is not heard.
pub(crate) async fn a_lease_that_ran_out_is_taken(tasks: &impl Timed) {
    tasks.add(new(DELETE_BUCKET, "1/a", 20)).await.unwrap();
    let lost = lease(tasks, ONE).await.unwrap();
    tasks.pass(LEASE - 10 * SECOND).await;
    assert_eq!((lease(tasks, OTHER).await, lease(tasks, ONE).await), (None, None));
    tasks.pass(10 * SECOND).await;
    let taken = lease(tasks, OTHER).await.unwrap();
    assert_eq!((taken.id, taken.attempts, taken.state), (lost.id, 2, TaskState::Running(OTHER)));
    for report in [Report::Done, Report::More("late".to_owned()), Report::Failed("late".to_owned())] {
        assert_eq!(tasks.report(&lost, report).await, Ok(false));
    }
    assert_eq!(only(tasks).await, taken);
    let next = Worker { life: Incarnation(OTHER.life.0 + 1), ..OTHER };
    let resumed = lease(tasks, next).await.unwrap();
    assert_eq!((resumed.id, resumed.state), (lost.id, TaskState::Running(next)));
    assert_eq!(tasks.report(&taken, Report::Done).await, Ok(false));
    assert_eq!(lease(tasks, OTHER).await, None, "an earlier life takes nothing from a later one");
    assert_eq!(tasks.report(&resumed, Report::Done).await, Ok(true));
    assert_eq!(tasks.list().await.unwrap(), []);
}

/// A job that always fails comes back after pauses that grow, and is a dead letter in the end, which nobody gets; an
/// administrator brings it back.
pub(crate) async fn a_job_that_always_fails_is_a_dead_letter(tasks: &impl Timed) {
    let id = tasks.add(new(DELETE_BUCKET, "1/a", 20)).await.unwrap().id;
    for attempt in 1..=ATTEMPTS_MAX {
        assert!(one_turn(tasks, ONE, Report::Failed(format!("no {attempt}"))).await, "attempt {attempt}");
        let task = only(tasks).await;
        assert_eq!((task.attempts, task.last_error.unwrap()), (attempt, format!("no {attempt}")));
        let is_last = attempt == ATTEMPTS_MAX;
        assert_eq!(task.state, if is_last { TaskState::Failed } else { TaskState::Pending });
        let paused = pause(id, attempt);
        tasks.pass(paused / 8).await;
        assert_eq!(lease(tasks, ONE).await, None, "it pauses");
        tasks.pass(paused).await;
    }
    tasks.pass(Duration::from_hours(1000)).await;
    assert_eq!((lease(tasks, ONE).await, lease(tasks, OTHER).await), (None, None));
    assert_eq!(tasks.add(new(DELETE_BUCKET, "1/a", 20)).await.unwrap().state, TaskState::Failed);
    let retried = tasks.order(id, Order::Retry).await.unwrap();
    assert_eq!((retried.state, retried.attempts), (TaskState::Pending, 0));
    assert!(one_turn(tasks, OTHER, Report::Done).await);
    assert_eq!(tasks.list().await.unwrap(), []);
    assert!(!one_turn(tasks, ONE, Report::Done).await);
}

/// An outage makes no dead letter, and a task that comes back waits for its time, which an administrator may cut short.
pub(crate) async fn tasks_wait_for_their_time(tasks: &impl Timed) {
    let id = tasks.add(new(EXPIRE_UPLOADS, "", 10)).await.unwrap().id;
    for _ in 0..2 * ATTEMPTS_MAX {
        assert!(one_turn(tasks, ONE, Report::Later(SECOND)).await);
        tasks.pass(SECOND).await;
    }
    assert!(one_turn(tasks, ONE, Report::Again(Duration::from_hours(1))).await);
    assert_eq!(lease(tasks, ONE).await, None);
    tasks.order(id, Order::Retry).await.unwrap();
    assert!(one_turn(tasks, ONE, Report::Again(Duration::from_hours(1))).await);
    tasks.pass(Duration::from_mins(59)).await;
    assert_eq!(lease(tasks, ONE).await, None);
    tasks.pass(Duration::from_mins(1)).await;
    let task = lease(tasks, ONE).await.unwrap();
    assert_eq!((task.id, task.attempts), (id, 1));
    // What runs goes on; what is cancelled is not heard any more.
    assert_eq!(tasks.order(id, Order::Retry).await.unwrap().state, TaskState::Running(ONE));
    assert_eq!(tasks.order(id, Order::Cancel).await.unwrap().id, id);
    assert_eq!(tasks.report(&task, Report::More("on".to_owned())).await, Ok(false));
    assert_eq!(tasks.list().await.unwrap(), []);
}

/// There are not more than there may be.
pub(crate) async fn tasks_are_bounded(tasks: &impl Timed) {
    for number in 0..TASKS_MAX {
        tasks.add(new(DELETE_BUCKET, &format!("{number}/a"), 20)).await.unwrap();
    }
    assert_eq!(tasks.add(new(DELETE_BUCKET, "one too many", 20)).await, Err(TaskError::TooMany));
    assert!(tasks.add(new(DELETE_BUCKET, "5/a", 20)).await.is_ok(), "it is there");
    a_chore_needs_no_task(tasks, ONE).await;
    assert!(one_turn(tasks, ONE, Report::Done).await);
    assert!(tasks.add(new(DELETE_BUCKET, "one more", 20)).await.is_ok());
}

/// Who says that a task is being worked on keeps it.
pub(crate) async fn a_lease_goes_on_with_its_work(tasks: &impl Timed) {
    tasks.add(new(DELETE_BUCKET, "1/a", 20)).await.unwrap();
    let task = lease(tasks, ONE).await.unwrap();
    for _ in 0..3 {
        tasks.pass(LEASE / 3 * 2).await;
        assert_eq!(lease(tasks, OTHER).await, None);
        assert_eq!(tasks.report(&task, Report::Working).await, Ok(true));
        assert_eq!(only(tasks).await.state, TaskState::Running(ONE));
    }
    tasks.pass(LEASE).await;
    let taken = lease(tasks, OTHER).await.unwrap();
    assert_eq!((taken.attempts, taken.leases), (2, 2));
    assert_eq!(tasks.report(&task, Report::Working).await, Ok(false));
    assert_eq!(only(tasks).await, taken);
}

/// Nobody else sees to a node's disks, however long it is away.
pub(crate) async fn what_is_of_a_node_is_left_to_it(tasks: &impl Timed) {
    tasks.add(new(SWEEP, &about(ONE.node), 5)).await.unwrap();
    tasks.add(new(DELETE_BUCKET, "1/a", 20)).await.unwrap();
    assert_eq!(lease(tasks, OTHER).await.unwrap().kind, DELETE_BUCKET);
    assert_eq!(lease(tasks, OTHER).await, None);
    assert_eq!(lease(tasks, ONE).await.unwrap().kind, SWEEP);
    tasks.pass(2 * LEASE).await;
    assert_eq!(lease(tasks, OTHER).await.unwrap().kind, DELETE_BUCKET);
    assert_eq!(lease(tasks, OTHER).await, None);
    assert_eq!(lease(tasks, ONE).await.unwrap().kind, SWEEP);
}

/// See there.
pub(crate) async fn chores_are_tasks(tasks: &impl Timed) {
    a_chore_is_a_task(tasks, ONE).await;
    a_chore_outlives_its_task(tasks, ONE).await;
}

/// Makes a test of each case; `$run` takes a case and runs it over tasks of which there are none yet.
macro_rules! task_suite {
    ($run:path) => {
        $crate::tasks::suite::task_suite!(@cases $run: a_task_is_added_once, tasks_are_leased_in_their_order,
            slices_take_turns, a_lease_that_ran_out_is_taken, a_job_that_always_fails_is_a_dead_letter,
            tasks_wait_for_their_time, tasks_are_bounded, a_lease_goes_on_with_its_work,
            what_is_of_a_node_is_left_to_it, chores_are_tasks);
    };
    (@cases $run:path: $($case:ident),+) => {
        $(
            #[test]
            fn $case() {
                $run(async |tasks| $crate::tasks::suite::$case(&tasks).await);
            }
        )+
    };
}
pub(crate) use task_suite;

/// Bytes in memory, replaced as those of an object are.
struct Memory {
    bytes: RefCell<Option<Vec<u8>>>,
    writes: Cell<u64>,
    now: Cell<WallTime>,
    /// Every other write finds that somebody was faster.
    contended: bool,
    tries: Cell<u64>,
}

impl Memory {
    fn new(contended: bool) -> Self {
        let now = Cell::new(WallTime { unix_ms: 1_000_000 });
        Self { bytes: RefCell::default(), writes: Cell::new(0), now, contended, tries: Cell::new(0) }
    }

    fn tag(&self) -> Etag {
        Etag(self.writes.get().to_string())
    }
}

impl Slot for Memory {
    async fn read(&self) -> Result<Option<(Vec<u8>, Etag)>, TaskError> {
        Ok(self.bytes.borrow().clone().map(|bytes| (bytes, self.tag())))
    }

    async fn replace(&self, seen: Option<&Etag>, bytes: Vec<u8>) -> Result<bool, TaskError> {
        self.tries.set(self.tries.get() + 1);
        let there = self.bytes.borrow().is_some().then(|| self.tag());
        if seen != there.as_ref() || (self.contended && self.tries.get() % 2 == 1) {
            return Ok(false);
        }
        self.writes.set(self.writes.get() + 1);
        *self.bytes.borrow_mut() = Some(bytes);
        Ok(true)
    }

    fn now(&self) -> WallTime {
        self.now.get()
    }
}

impl Timed for Document<Memory> {
    async fn pass(&self, time: Duration) {
        let now = &self.slot().now;
        now.set(super::task::later(now.get(), time));
    }
}

/// Nothing here waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("bytes in memory are there"),
    }
}

fn on_a_document(case: impl AsyncFnOnce(Document<Memory>)) {
    at_once(case(Document::new(Memory::new(false))));
}

fn on_a_contended_document(case: impl AsyncFnOnce(Document<Memory>)) {
    at_once(case(Document::new(Memory::new(true))));
}

mod document {
    super::task_suite!(super::on_a_document);
}

mod contended_document {
    super::task_suite!(super::on_a_contended_document);
}

/// What an earlier version wrote is read for ever.
#[test]
fn a_document_is_frozen() {
    let bytes = r#"{"version":1,"next":3,"tasks":[{"id":2,"kind":"delete-bucket","about":"5/b","priority":20,
        "state":{"Running":{"node":1,"life":7}},"attempts":1,"not_before":{"unix_ms":9},"leases":4,"position":"61",
        "last_error":null,"created_at":{"unix_ms":1},"changed_at":{"unix_ms":2}}]}"#;
    let memory = Memory::new(false);
    *memory.bytes.borrow_mut() = Some(bytes.as_bytes().to_vec());
    let task = at_once(only(&Document::new(memory)));
    assert_eq!((task.id, task.state, task.leases, task.position.as_str()), (2, TaskState::Running(ONE), 4, "61"));
    let memory = Memory::new(false);
    *memory.bytes.borrow_mut() = Some(bytes.replace(r#""version":1"#, r#""version":2"#).into_bytes());
    let refused = at_once(Document::new(memory).list()).unwrap_err().to_string();
    assert!(refused.contains("version 2, of a newer program"), "{refused}");
}
