//! Tasks: their futures, which stay on the core, and their wakers, which may go anywhere.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use anvil_model::io;

use crate::core::Inner;
use crate::doorbell::{Doorbell, Queued};
use crate::stats::CoreStats;

/// A task of this core. Dropping it cancels the task: its future is dropped, at once or, when it is just being
/// polled, at its next await.
#[must_use = "dropping a task cancels it"]
pub struct Task {
    owner: Option<(Rc<Inner>, TaskId)>,
}

impl Task {
    pub(crate) fn new(inner: Rc<Inner>, id: TaskId) -> Self {
        Self { owner: Some((inner, id)) }
    }

    /// A task that is over already: the core is ending.
    pub(crate) const fn ended() -> Self {
        Self { owner: None }
    }
}

impl io::Task for Task {
    fn detach(mut self) {
        self.owner = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some((inner, id)) = self.owner.take() {
            let future = inner.tasks.borrow_mut().cancel(id);
            // Outside the borrow: it may own tasks.
            drop(future);
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Task").field(&self.owner.as_ref().map(|(_, id)| id)).finish()
    }
}

/// Whose turn comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Class {
    /// Somebody waits for it.
    #[default]
    Foreground,
    /// Nobody does.
    Background,
}

/// Names a task; never reused within 2^32 tasks of the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    index: u32,
    generation: u32,
    class: Class,
}

pub(crate) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// What a waker knows of its task. Holds nothing that belongs to the core's thread.
#[derive(Debug)]
struct Header {
    id: TaskId,
    queued: Queued,
    bell: Arc<Doorbell<TaskId>>,
}

impl Wake for Header {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.raise() && !push_if_here(&self.bell, self.id) {
            self.bell.post(self.id);
        }
    }
}

thread_local! {
    /// Whose core this thread is.
    static HERE: Cell<*const Doorbell<TaskId>> = const { Cell::new(std::ptr::null()) };
    /// The tasks of this thread's core that are to be polled.
    static READY: RefCell<Ready> = const { RefCell::new(Ready::new()) };
}

/// The tasks that are to be polled, in the order in which they were woken.
struct Ready {
    foreground: VecDeque<TaskId>,
    background: VecDeque<TaskId>,
    /// Woken by other threads, on their way to the two above.
    posted: VecDeque<TaskId>,
}

impl Ready {
    const fn new() -> Self {
        Self { foreground: VecDeque::new(), background: VecDeque::new(), posted: VecDeque::new() }
    }

    fn push(&mut self, id: TaskId) {
        match id.class {
            Class::Foreground => self.foreground.push_back(id),
            Class::Background => self.background.push_back(id),
        }
    }
}

/// Puts a task in the queue of this thread if it belongs here.
fn push_if_here(bell: &Arc<Doorbell<TaskId>>, id: TaskId) -> bool {
    let here = HERE.try_with(Cell::get).is_ok_and(|here| std::ptr::eq(here, Arc::as_ptr(bell)));
    here && READY.try_with(|ready| ready.borrow_mut().push(id)).is_ok()
}

/// Tasks that are to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) foreground: usize,
    pub(crate) background: usize,
}

/// The queue of this thread's core, from now until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    bell: Arc<Doorbell<TaskId>>,
}

impl ReadyQueue {
    pub(crate) fn enter(bell: Arc<Doorbell<TaskId>>) -> Self {
        HERE.with(|here| {
            assert!(here.get().is_null(), "a thread is one core");
            here.set(Arc::as_ptr(&bell));
        });
        Self { bell }
    }

    /// The next task of this class to be polled.
    pub(crate) fn pop(&self, class: Class) -> Option<TaskId> {
        READY.with_borrow_mut(|ready| match class {
            Class::Foreground => ready.foreground.pop_front(),
            Class::Background => ready.background.pop_front(),
        })
    }

    /// Takes in what other threads woke; gives how many tasks of each class are ready now.
    pub(crate) fn collect(&self) -> Counts {
        READY.with_borrow_mut(|ready| {
            self.bell.drain(&mut ready.posted);
            while let Some(id) = ready.posted.pop_front() {
                ready.push(id);
            }
            Counts { foreground: ready.foreground.len(), background: ready.background.len() }
        })
    }
}

impl Drop for ReadyQueue {
    fn drop(&mut self) {
        HERE.with(|here| here.set(std::ptr::null()));
        READY.set(Ready::new());
    }
}

/// All tasks of a core.
#[derive(Debug)]
pub(crate) struct Tasks {
    places: Vec<Place>,
    free: Vec<u32>,
    /// No new ones: the core is ending.
    closed: bool,
    bell: Arc<Doorbell<TaskId>>,
    stats: Arc<CoreStats>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    stage: Stage,
}

enum Stage {
    Free,
    Idle(TaskFuture, Arc<Header>),
    /// Its future is with the executor.
    Running,
    /// Like `Running`, and to be dropped when it comes back.
    Cancelled,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Free => "Free",
            Self::Idle(..) => "Idle",
            Self::Running => "Running",
            Self::Cancelled => "Cancelled",
        })
    }
}

impl Tasks {
    pub(crate) fn new(bell: Arc<Doorbell<TaskId>>, stats: Arc<CoreStats>) -> Self {
        Self { places: Vec::new(), free: Vec::new(), closed: false, bell, stats }
    }

    /// A new task, ready to be polled; the future comes back when the core is ending.
    pub(crate) fn insert(&mut self, future: TaskFuture, class: Class) -> Result<TaskId, TaskFuture> {
        if self.closed {
            return Err(future);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.places.len()).expect("fewer than 2^32 tasks");
            self.places.push(Place { generation: 0, stage: Stage::Free });
            index
        });
        let place = &mut self.places[index as usize];
        let id = TaskId { index, generation: place.generation, class };
        let header = Arc::new(Header { id, queued: Queued::new(), bell: Arc::clone(&self.bell) });
        header.wake_by_ref();
        place.stage = Stage::Idle(future, header);
        self.stats.tasks_live.add(1);
        Ok(id)
    }

    pub(crate) fn exists(&self, id: TaskId) -> bool {
        self.places[id.index as usize].generation == id.generation
    }

    /// Removes a task; its future is the caller's to drop, unless it is being polled.
    pub(crate) fn cancel(&mut self, id: TaskId) -> Option<TaskFuture> {
        let place = self.places.get_mut(id.index as usize).filter(|place| place.generation == id.generation)?;
        if matches!(place.stage, Stage::Running | Stage::Cancelled) {
            place.stage = Stage::Cancelled;
            return None;
        }
        self.remove(id)
    }

    /// No new tasks from now on; gives one that is left.
    pub(crate) fn close_one(&mut self) -> Option<TaskFuture> {
        self.closed = true;
        let index = self.places.iter().position(|place| matches!(place.stage, Stage::Idle(..)))?;
        let generation = self.places[index].generation;
        let index = u32::try_from(index).expect("it was one when it was made");
        self.remove(TaskId { index, generation, class: Class::Foreground })
    }

    fn check_out(&mut self, id: TaskId) -> Option<(TaskFuture, Arc<Header>)> {
        let place = self.places.get_mut(id.index as usize).filter(|place| place.generation == id.generation)?;
        match std::mem::replace(&mut place.stage, Stage::Running) {
            Stage::Idle(future, header) => Some((future, header)),
            other => unreachable!("a task that is {other:?} was taken from the queue"),
        }
    }

    /// Takes a future back that is not done; gives it back when it was cancelled meanwhile.
    fn check_in(&mut self, future: TaskFuture, header: Arc<Header>) -> Option<TaskFuture> {
        let id = header.id;
        let place = &mut self.places[id.index as usize];
        if matches!(place.stage, Stage::Cancelled) {
            self.remove(id);
            return Some(future);
        }
        place.stage = Stage::Idle(future, header);
        None
    }

    fn remove(&mut self, id: TaskId) -> Option<TaskFuture> {
        let place = &mut self.places[id.index as usize];
        assert!(place.generation == id.generation, "removed once");
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.index);
        self.stats.tasks_live.subtract(1);
        match std::mem::replace(&mut place.stage, Stage::Free) {
            Stage::Idle(future, _) => Some(future),
            _ => None,
        }
    }
}

/// Polls a task once, if it still exists. Nothing of the core is borrowed meanwhile.
pub(crate) fn poll(inner: &Inner, id: TaskId) {
    let tasks = &inner.tasks;
    let checked_out = tasks.borrow_mut().check_out(id);
    let Some((mut future, header)) = checked_out else { return };
    header.queued.lower();
    let waker = Waker::from(Arc::clone(&header));
    inner.stats.polls.add(1);
    if id.class == Class::Background {
        inner.stats.polls_background.add(1);
    }
    inner.polling.set(id.class);
    let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
    inner.polling.set(Class::default());
    let dropped = match polled {
        Poll::Ready(()) => {
            tasks.borrow_mut().remove(id);
            Some(future)
        }
        Poll::Pending => tasks.borrow_mut().check_in(future, header),
    };
    // Outside the borrow: it may own tasks.
    drop(dropped);
}
