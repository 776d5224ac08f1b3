//! The timers of one core.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use anvil_model::time::Moment;

use crate::core::Inner;

/// Who is to be woken when, in order; the number tells equal moments apart.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    waiting: BTreeMap<(Moment, u64), Waker>,
    number_next: u64,
}

impl Timers {
    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// One whose time has come.
    pub(crate) fn pop_due(&mut self, now: Moment) -> Option<Waker> {
        let entry = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    /// Forgets all of them, at the end of the core.
    pub(crate) fn clear(&mut self) -> BTreeMap<(Moment, u64), Waker> {
        std::mem::take(&mut self.waiting)
    }
}

/// Completes at a moment.
pub(crate) struct Sleep {
    inner: Rc<Inner>,
    due: Moment,
    number: Option<u64>,
}

impl Sleep {
    pub(crate) fn new(inner: Rc<Inner>, due: Moment) -> Self {
        Self { inner, due, number: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { inner, due, number } = &mut *self;
        if let Some(at) = *number {
            // It is taken out when its time has come: until then nobody looks at the clock.
            if let Some(waker) = inner.timers.borrow_mut().waiting.get_mut(&(*due, at)) {
                waker.clone_from(context.waker());
                return Poll::Pending;
            }
            *number = None;
        }
        if inner.now() >= *due {
            return Poll::Ready(());
        }
        let mut timers = inner.timers.borrow_mut();
        timers.number_next += 1;
        let at = timers.number_next;
        timers.waiting.insert((*due, at), context.waker().clone());
        *number = Some(at);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.inner.timers.borrow_mut().waiting.remove(&(self.due, number));
            drop(waker);
        }
    }
}
