//! The leaf of every await in a false world: something that will have a value at a later moment.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::executor::Executor;

struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    abandoned: bool,
}

/// The side that provides the value.
pub(crate) struct Promise<T> {
    state: Rc<RefCell<State<T>>>,
}

/// The side that waits for it.
pub(crate) struct Wait<T> {
    state: Rc<RefCell<State<T>>>,
    executor: Rc<Executor>,
    /// Told when nothing moves any more.
    what: &'static str,
}

pub(crate) fn promise<T>(executor: &Rc<Executor>, what: &'static str) -> (Promise<T>, Wait<T>) {
    let state = Rc::new(RefCell::new(State { value: None, waker: None, abandoned: false }));
    (Promise { state: Rc::clone(&state) }, Wait { state, executor: Rc::clone(executor), what })
}

impl<T> Promise<T> {
    /// Gives the value back when nobody waits any more.
    pub(crate) fn keep(self, value: T) -> Result<(), T> {
        let mut state = self.state.borrow_mut();
        if state.abandoned {
            return Err(value);
        }
        state.value = Some(value);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.state.borrow().abandoned
    }
}

impl<T> Future for Wait<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state.borrow_mut();
        if let Some(value) = state.value.take() {
            return Poll::Ready(value);
        }
        state.waker = Some(context.waker().clone());
        drop(state);
        self.executor.note_wait(self.what);
        Poll::Pending
    }
}

impl<T> Drop for Wait<T> {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.abandoned = true;
        // What was given and not taken is dropped outside of the borrow: it may wake others.
        let value = state.value.take();
        drop(state);
        drop(value);
    }
}
