//! A queue of those who wait for their turn at something that is handed out one by one.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

/// First come, first served. What is granted belongs to the waiter at once, so that nobody can overtake it; a waiter
/// that goes away gives its grant back (the caller's duty, see [`Self::leave`]).
#[derive(Debug)]
pub(crate) struct Waiters<T> {
    queue: BTreeMap<u64, Waiter<T>>,
    ticket_next: u64,
}

#[derive(Debug)]
enum Waiter<T> {
    Waiting(Option<Waker>),
    Granted(T),
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl<T> Waiters<T> {
    pub(crate) const fn new() -> Self {
        Self { queue: BTreeMap::new(), ticket_next: 0 }
    }

    /// True when somebody waits who has not been granted anything yet.
    pub(crate) fn anybody(&self) -> bool {
        self.queue.values().any(|waiter| matches!(waiter, Waiter::Waiting(_)))
    }

    pub(crate) fn join(&mut self) -> Ticket {
        let ticket = self.ticket_next;
        self.ticket_next += 1;
        self.queue.insert(ticket, Waiter::Waiting(None));
        Ticket(ticket)
    }

    /// What was granted to this ticket, which is gone then.
    pub(crate) fn poll(&mut self, ticket: Ticket, context: &Context<'_>) -> Poll<T> {
        let waiter = self.queue.get_mut(&ticket.0).expect("polled only between join and the grant");
        if let Waiter::Waiting(waker) = waiter {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        match self.queue.remove(&ticket.0) {
            Some(Waiter::Granted(grant)) => Poll::Ready(grant),
            _ => unreachable!("it was granted a moment ago"),
        }
    }

    /// Gives `grant` to the first who waits; the waker is to be woken by the caller, outside its borrows. Nobody waits:
    /// the grant comes back.
    pub(crate) fn grant(&mut self, grant: T) -> Result<Option<Waker>, T> {
        for waiter in self.queue.values_mut() {
            if let Waiter::Waiting(waker) = waiter {
                let waker = waker.take();
                *waiter = Waiter::Granted(grant);
                return Ok(waker);
            }
        }
        Err(grant)
    }

    /// Leaves the queue; a grant that was not fetched comes back, to be given to somebody else.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        match self.queue.remove(&ticket.0) {
            Some(Waiter::Granted(grant)) => Some(grant),
            _ => None,
        }
    }
}
