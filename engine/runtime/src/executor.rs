//! The loop of one core: completions, then ready tasks under a budget, those of the background last, then sleep.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anvil_model::ids::CoreId;

use crate::core::Inner;
use crate::driver::Wait;
use crate::op::{Op, wait};
use crate::task::{self, Class, Counts, ReadyQueue, TaskFuture};

/// Runs `main` and everything that it spawns until `main` has ended; then drops the other tasks, cancels and reaps all
/// operations and closes the ring. An error is the message of a panic, which ends the core too.
pub(crate) fn run(inner: &Rc<Inner>, main: TaskFuture, abort_on_panic: Option<CoreId>) -> Result<(), String> {
    let ready = ReadyQueue::enter(Arc::clone(&inner.bell));
    let result = guarded(abort_on_panic, || turn_until_done(inner, main, &ready));
    let ended = guarded(abort_on_panic, || {
        drop_tasks(inner);
        reap(inner);
    });
    inner.driver.borrow_mut().close();
    drop(ready);
    result.and(ended)
}

fn turn_until_done(inner: &Rc<Inner>, main: TaskFuture, ready: &ReadyQueue) {
    let main = inner
        .tasks
        .borrow_mut()
        .insert(main, Class::Foreground)
        .unwrap_or_else(|_| unreachable!("the core has just begun"));
    let mut doorbell = Doorbell::new(inner);
    let mut background = Background::default();
    loop {
        fire_timers(inner);
        run_ready(inner, ready, &mut background);
        if !inner.tasks.borrow().exists(main) {
            return;
        }
        doorbell.arm(inner);
        enter(inner, ready);
        dispatch(inner);
    }
}

fn fire_timers(inner: &Inner) {
    if inner.timers.borrow().next_due().is_none() {
        return;
    }
    let now = inner.now();
    loop {
        let due = inner.timers.borrow_mut().pop_due(now);
        let Some(waker) = due else { return };
        waker.wake();
    }
}

fn run_ready(inner: &Inner, ready: &ReadyQueue, background: &mut Background) {
    let counts = ready.collect();
    for _ in 0..counts.foreground.min(POLLS_PER_TURN) {
        let Some(id) = ready.pop(Class::Foreground) else { break };
        task::poll(inner, id);
    }
    if background.has_its_turn(counts)
        && let Some(id) = ready.pop(Class::Background)
    {
        task::poll(inner, id);
    }
}

/// When the background has a poll. It is one at a time, so that a client's task waits for no more than that; and in the
/// end it always comes, for a client may wait for what the background frees.
#[derive(Debug, Default)]
struct Background {
    /// Turns that it waited, which all went to the foreground.
    waited: u32,
}

impl Background {
    fn has_its_turn(&mut self, counts: Counts) -> bool {
        if counts.background == 0 {
            self.waited = 0;
            return false;
        }
        self.waited += 1;
        let now = counts.foreground == 0 || self.waited >= TURNS_PER_BACKGROUND_POLL;
        if now {
            self.waited = 0;
        }
        now
    }
}

/// Submits, and sleeps when there is nothing to do.
fn enter(inner: &Inner, ready: &ReadyQueue) {
    let nobody = Counts { foreground: 0, background: 0 };
    let may_sleep = ready.collect() == nobody && inner.bell.fall_asleep();
    let wait = if may_sleep { Wait::AtMost(time_to_next(inner)) } else { Wait::No };
    let entered = inner.driver.borrow_mut().enter(wait);
    if may_sleep {
        inner.bell.wake_up();
    }
    entered.expect("the ring takes submissions");
}

fn time_to_next(inner: &Inner) -> Option<Duration> {
    let due = inner.timers.borrow().next_due()?;
    Some(due.since(inner.now()))
}

fn dispatch(inner: &Inner) {
    loop {
        let leftover = inner.driver.borrow_mut().dispatch();
        let Some(leftover) = leftover else { return };
        leftover.settle();
    }
}

fn drop_tasks(inner: &Inner) {
    loop {
        let task = inner.tasks.borrow_mut().close_one();
        let Some(task) = task else { break };
        drop(task);
    }
    let timers = inner.timers.borrow_mut().clear();
    drop(timers);
}

/// Waits until the kernel has let go of everything, but not for ever: a disk that hangs must not keep the process.
fn reap(inner: &Inner) {
    inner.driver.borrow_mut().cancel_all();
    let deadline = inner.now() + REAP_AT_MOST;
    while inner.driver.borrow().live() > 0 {
        let left = deadline.since(inner.now());
        if left.is_zero() {
            return;
        }
        inner.driver.borrow_mut().enter(Wait::AtMost(Some(left))).expect("the ring takes submissions");
        dispatch(inner);
    }
}

/// The read of the doorbell's eventfd, which ends the sleep of the core when another thread writes it.
struct Doorbell {
    read: Op,
}

impl Doorbell {
    fn new(inner: &Rc<Inner>) -> Self {
        Self { read: wait::wait(inner, inner.bell.fd(), Vec::new()) }
    }

    /// Reads again when the last read is done. Nobody is woken by it: the sleep has ended, and that is all.
    fn arm(&mut self, inner: &Rc<Inner>) {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready((_, held)) = Future::poll(Pin::new(&mut self.read), &mut context) {
            self.read = wait::wait(inner, inner.bell.fd(), held.into_bytes());
        }
    }
}

/// Runs `work`; a panic ends the process, or becomes a message.
fn guarded(abort_on_panic: Option<CoreId>, work: impl FnOnce()) -> Result<(), String> {
    let Err(panic) = catch_unwind(AssertUnwindSafe(work)) else { return Ok(()) };
    let message = message(panic.as_ref());
    if let Some(core) = abort_on_panic {
        eprintln!(
            "core {core} panicked ({message}); the process ends, for a node must not run without one of its cores"
        );
        std::process::abort();
    }
    Err(message)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

/// Tasks that are polled before completions and timers have a turn again.
const POLLS_PER_TURN: usize = 128;
/// Of turns in which clients' tasks are polled, the background gets one poll in so many.
const TURNS_PER_BACKGROUND_POLL: u32 = 16;
/// How long a core waits at its end for the kernel to let go of its operations.
const REAP_AT_MOST: Duration = Duration::from_secs(10);
