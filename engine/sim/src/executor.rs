//! Tasks of all cores on this thread, in an order that the seed draws, and a clock that jumps.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::random::{Random, split_mix};

/// What a poll costs at most, in virtual time: completions arrive between polls, not only when all is quiet.
const POLL_NANOS_MAX: u64 = 3_000;
/// One poll in so many takes its core away for a while, as a page fault or a busy host does.
const STALL_ONE_IN: u64 = 2_000;
const STALL_NANOS_MAX: u64 = 20_000_000;

/// When, and in which order among those of one moment.
pub(crate) type EventKey = (u64, u64);

pub(crate) struct Executor {
    /// Virtual nanoseconds since the universe began.
    now: Cell<u64>,
    random: RefCell<Random>,
    trace: Cell<u64>,
    steps: Cell<u64>,
    stalls: bool,
    tasks: RefCell<BTreeMap<u64, Slot>>,
    task_next: Cell<u64>,
    /// Shared with wakers, which must be `Send`.
    ready: Arc<Mutex<Vec<u64>>>,
    events: RefCell<BTreeMap<EventKey, Box<dyn FnOnce()>>>,
    event_next: Cell<u64>,
    /// Until when each core is away.
    stalled_until: RefCell<Vec<u64>>,
    /// What the task that is polled now waits for.
    wait: Cell<Option<&'static str>>,
}

struct Slot {
    core: u16,
    name: &'static str,
    /// Absent while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
    cancelled: bool,
    wait: Option<&'static str>,
}

struct TaskWaker {
    task: u64,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.task);
        }
    }
}

impl Executor {
    pub(crate) fn new(core_count: u16, now: u64, random: Random, stalls: bool) -> Self {
        Self {
            now: Cell::new(now),
            random: RefCell::new(random),
            trace: Cell::new(u64::from(core_count)),
            steps: Cell::new(0),
            stalls,
            tasks: RefCell::default(),
            task_next: Cell::new(0),
            ready: Arc::default(),
            events: RefCell::default(),
            event_next: Cell::new(0),
            stalled_until: RefCell::new(vec![0; usize::from(core_count)]),
            wait: Cell::new(None),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// Adds to the hash that two runs of one seed must share.
    pub(crate) fn note(&self, what: u64) {
        let mut state = self.trace.get() ^ what;
        self.trace.set(split_mix(&mut state));
    }

    pub(crate) fn note_wait(&self, what: &'static str) {
        self.wait.set(Some(what));
    }

    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(&self, core: u16, future: F) -> u64 {
        let task = self.task_next.replace(self.task_next.get() + 1);
        let waker = Arc::new(TaskWaker { task, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        Arc::clone(&waker).wake();
        let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
        let slot = Slot { core, name: type_name::<F>(), future: Some(future), waker, cancelled: false, wait: None };
        self.tasks.borrow_mut().insert(task, slot);
        task
    }

    /// The task is dropped when its turn comes next; it is not polled again.
    pub(crate) fn cancel(&self, task: u64) {
        if let Some(slot) = self.tasks.borrow_mut().get_mut(&task) {
            slot.cancelled = true;
            Arc::clone(&slot.waker).wake();
        }
    }

    /// Runs `event` after that much virtual time; events of one moment keep their order.
    pub(crate) fn after(&self, nanos: u64, event: impl FnOnce() + 'static) -> EventKey {
        let number = self.event_next.replace(self.event_next.get() + 1);
        let key = (self.now.get().saturating_add(nanos), number);
        self.events.borrow_mut().insert(key, Box::new(event));
        key
    }

    pub(crate) fn forget(&self, event: EventKey) {
        let event = self.events.borrow_mut().remove(&event);
        drop(event);
    }

    /// Polls one task, or lets one event happen. False when there is neither: nothing will ever move again.
    pub(crate) fn step(&self) -> bool {
        self.steps.set(self.steps.get() + 1);
        if self.fire(self.now.get()) {
            return true;
        }
        if let Some(task) = self.pick() {
            self.poll(task);
            return true;
        }
        let ready = !self.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let event = self.events.borrow().first_key_value().map(|(key, _)| key.0);
        let core = ready.then(|| self.back_soonest());
        match event.into_iter().chain(core).min() {
            Some(next) => {
                self.now.set(self.now.get().max(next));
                true
            }
            None => false,
        }
    }

    fn fire(&self, now: u64) -> bool {
        let mut events = self.events.borrow_mut();
        let Some(first) = events.first_entry().filter(|first| first.key().0 <= now) else {
            return false;
        };
        let (key, event) = first.remove_entry();
        drop(events);
        self.note(key.1);
        event();
        true
    }

    /// A ready task of a core that is not away.
    fn pick(&self) -> Option<u64> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = self.tasks.borrow();
        ready.retain(|task| tasks.contains_key(task));
        let stalled = self.stalled_until.borrow();
        let here = |task: &u64| stalled[usize::from(tasks[task].core)] <= self.now.get();
        let count = ready.iter().filter(|task| here(task)).count();
        if count == 0 {
            return None;
        }
        let drawn = self.random.borrow_mut().index(count);
        let (position, _) = ready.iter().enumerate().filter(|(_, task)| here(task)).nth(drawn)?;
        Some(ready.swap_remove(position))
    }

    /// When the first of the cores that are away and have something to do comes back.
    fn back_soonest(&self) -> u64 {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = self.tasks.borrow();
        let stalled = self.stalled_until.borrow();
        let cores = ready.iter().map(|task| stalled[usize::from(tasks[task].core)]);
        cores.min().unwrap_or(self.now.get())
    }

    fn poll(&self, task: u64) {
        let (mut future, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let slot = tasks.get_mut(&task).expect("picked among those that live");
            slot.waker.queued.store(false, Ordering::Relaxed);
            self.draw_delays(slot.core);
            if slot.cancelled {
                let slot = tasks.remove(&task);
                drop(tasks);
                drop(slot);
                return;
            }
            (slot.future.take().expect("one poll at a time"), Waker::from(Arc::clone(&slot.waker)))
        };
        self.note(task);
        self.note(self.now.get());
        self.wait.set(None);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.tasks.borrow_mut();
        match polled {
            Poll::Ready(()) => {
                let slot = tasks.remove(&task);
                drop(tasks);
                drop((slot, future));
            }
            Poll::Pending => {
                // Absent when the life ended meanwhile.
                if let Some(slot) = tasks.get_mut(&task) {
                    slot.future = Some(future);
                    slot.wait = self.wait.take();
                }
            }
        }
    }

    fn draw_delays(&self, core: u16) {
        let mut random = self.random.borrow_mut();
        self.now.set(self.now.get() + random.below(POLL_NANOS_MAX));
        if self.stalls && random.one_in(STALL_ONE_IN) {
            self.stalled_until.borrow_mut()[usize::from(core)] = self.now.get() + random.below(STALL_NANOS_MAX);
        }
    }

    /// Drops all tasks and events, as a process that ends.
    pub(crate) fn clear(&self) {
        loop {
            let first = self.tasks.borrow_mut().pop_first();
            let Some((_, slot)) = first else { break };
            drop(slot);
        }
        loop {
            let first = self.events.borrow_mut().pop_first();
            let Some((_, event)) = first else { break };
            drop(event);
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One line per task: who it is and what it waits for.
    pub(crate) fn waiting(&self) -> String {
        let mut lines = String::new();
        for (task, slot) in self.tasks.borrow().iter() {
            let wait = slot.wait.unwrap_or("another task");
            write!(lines, "\n  core {} task {task} waits for {wait}: {}", slot.core, slot.name)
                .expect("a string takes everything");
        }
        lines
    }
}
