//! Operations as futures: each owns what the kernel uses until the kernel is done with it.

pub(crate) mod accept;
pub(crate) mod allocate;
pub(crate) mod connect;
pub(crate) mod flush;
pub(crate) mod hang_up;
pub(crate) mod read;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod wait;
pub(crate) mod write;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::core::Inner;
use crate::disk::Handle;
use crate::driver::{Arrival, DiskCall, Key, Kind, Request};
use crate::net::address::RawAddress;
use crate::net::socket::Socket;
use crate::op::send::{Gathered, Message};
use crate::pool::Buffer;
use crate::region::Region;
use crate::timer::Sleep;

/// Memory that the kernel uses during an operation. Moving the value moves none of that memory.
#[derive(Debug)]
pub(crate) enum Held {
    Nothing,
    Buffer(Buffer),
    Bytes(Vec<u8>),
    Message(Box<Message>),
    Gathered(Box<Gathered>),
    Address(#[expect(dead_code, reason = "kept for the kernel")] Box<RawAddress>),
    Region(#[expect(dead_code, reason = "kept for the kernel")] Rc<Region>),
}

impl Held {
    pub(crate) fn into_buffer(self) -> Buffer {
        match self {
            Self::Buffer(buffer) => buffer,
            other => unreachable!("the operation was given a buffer, and holds {other:?}"),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            other => unreachable!("the operation was given bytes, and holds {other:?}"),
        }
    }
}

/// What keeps the file of an operation open: a number that is closed could name another file before the kernel looks.
#[derive(Debug)]
pub(crate) enum Keep {
    /// It lives longer than the ring.
    Nothing,
    Socket(#[expect(dead_code, reason = "kept for the kernel")] Rc<Socket>),
    Disk(#[expect(dead_code, reason = "kept for the kernel")] Rc<Handle>),
}

/// An operation with one completion: gives the kernel's number and what the operation held. Dropping it cancels it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Op {
    inner: Rc<Inner>,
    key: Option<Key>,
}

impl Op {
    /// Starts it with the next submission. For `request` see [`crate::driver::Driver::start`].
    pub(crate) fn start(inner: &Rc<Inner>, held: Held, keep: Keep, request: Request) -> Self {
        let key = inner.driver.borrow_mut().start(Kind::Once, held, keep, request);
        Self { inner: Rc::clone(inner), key: Some(key) }
    }

    /// Does `call` with a disk's file; `held` owns the memory that it names.
    pub(crate) fn on_disk(handle: &Rc<Handle>, held: Held, call: DiskCall) -> Self {
        let request = Request::Disk { file: handle.file(), call };
        Self::start(handle.inner(), held, Keep::Disk(Rc::clone(handle)), request)
    }

    /// Asks the kernel to end it soon. It still completes, with what was done until then.
    pub(crate) fn cancel(&mut self) {
        if let Some(key) = self.key {
            self.inner.driver.borrow_mut().cancel(key);
        }
    }

    /// Completes like the operation, which is cancelled when its time is over. Says whether it was.
    pub(crate) async fn within(&mut self, limit: Duration) -> (i32, Held, bool) {
        let mut sleep: Option<Sleep> = None;
        let mut cancelled = false;
        std::future::poll_fn(|context| {
            if let Poll::Ready((result, held)) = Future::poll(Pin::new(&mut *self), context) {
                return Poll::Ready((result, held, cancelled));
            }
            if !cancelled {
                // Made only now: what is done at once needs no timer.
                let sleep = sleep.get_or_insert_with(|| Sleep::new(Rc::clone(&self.inner), self.inner.now() + limit));
                cancelled = Future::poll(Pin::new(sleep), context).is_ready();
                if cancelled {
                    self.cancel();
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Goes on as the keeper of what a dropped receive brought, see [`crate::driver::Driver::salvage`].
    pub(crate) fn salvage(self, from: usize, base: usize) -> Self {
        if let Some(key) = self.key {
            let leftover = self.inner.driver.borrow_mut().salvage(key, from, base);
            leftover.settle();
        }
        self
    }
}

impl Future for Op {
    type Output = (i32, Held);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(i32, Held)> {
        let key = self.key.expect("polled after it was done");
        let outcome = self.inner.driver.borrow_mut().poll_once(key, context);
        let (result, held, keep) = std::task::ready!(outcome);
        self.key = None;
        // Outside the borrow: it may close a file.
        drop(keep);
        Poll::Ready((result, held))
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let leftover = self.inner.driver.borrow_mut().abandon(key);
            leftover.settle();
        }
    }
}

/// An operation with many completions. Dropping it cancels it; what had come and was not fetched is closed or given
/// back.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Rc<Inner>,
    key: Key,
}

impl Stream {
    pub(crate) fn start(inner: &Rc<Inner>, kind: Kind, keep: Keep, request: Request) -> Self {
        let key = inner.driver.borrow_mut().start(kind, Held::Nothing, keep, request);
        Self { inner: Rc::clone(inner), key }
    }

    /// The next completion; `None` after the last one.
    pub(crate) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<Arrival>> {
        self.inner.driver.borrow_mut().poll_next(self.key, context)
    }

    /// What is already there.
    pub(crate) fn take_next(&mut self) -> Option<Arrival> {
        self.inner.driver.borrow_mut().take_next(self.key)
    }

    /// Ends it soon; what comes until then still comes, in order.
    pub(crate) fn stop(&mut self) {
        self.inner.driver.borrow_mut().cancel(self.key);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let leftover = self.inner.driver.borrow_mut().abandon(self.key);
        leftover.settle();
    }
}

/// The system call was disturbed and is to be repeated as it was.
pub(crate) const fn is_retry(result: i32) -> bool {
    matches!(-result, libc::EINTR | libc::EAGAIN)
}
