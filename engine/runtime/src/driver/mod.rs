//! The operations of one core that the kernel has, and the engine that gives them to it: a ring, or the blocking one.
//!
//! Invariants:
//! - What the kernel may touch (memory, file) is owned by the operation's slot from before its submission until its last
//!   completion, whatever becomes of the future that asked for it.
//! - A slot's number is in every completion together with its generation; a completion for another generation is a bug.
//! - Nothing foreign is dropped or woken while the driver is borrowed: it comes out as [`Leftover`].

mod blocking;
mod request;
pub(crate) mod ring;
mod uring;
mod workers;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::op::{Held, Keep};
use crate::pool::Pool;
use crate::receive_ring::{ReceiveRing, Received};
use crate::stats::CoreStats;
use blocking::Blocking;
pub(crate) use request::{DiskCall, Request};
use uring::Uring;

/// Names one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    const fn user_data(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    const fn from_user_data(user_data: u64) -> Self {
        Self { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// What the kernel, or who plays its part, says of an operation.
#[derive(Clone, Copy, Debug)]
struct Completion {
    key: Key,
    /// A number, or the negative of an error number.
    result: i32,
    /// Others follow.
    more: bool,
    /// The buffer of the receive ring that was filled.
    buffer: Option<u16>,
}

impl Completion {
    const fn last(key: Key, result: i32) -> Self {
        Self { key, result, more: false, buffer: None }
    }
}

/// Who does the operations.
enum Engine {
    Uring(Uring),
    Blocking(Blocking),
    /// The core has ended.
    Closed,
}

/// What an operation's completions mean.
#[derive(Debug)]
pub(crate) enum Kind {
    /// One completion, one number.
    Once,
    /// Many: file descriptors of new connections.
    Accept,
    /// Many: bytes in buffers of this ring.
    Receive(Rc<ReceiveRing>),
}

/// One completion of an operation that has many.
#[derive(Debug)]
pub(crate) enum Arrival {
    Connection(OwnedFd),
    /// Empty at the end of the stream.
    Bytes(Received),
    /// The error number; it was the last completion.
    Failed(i32),
}

/// Whether to wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    /// For at least one, at most this long.
    AtMost(Option<Duration>),
}

/// What a completion leaves to be done when the driver is no longer borrowed: dropping and waking.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Leftover {
    held: Option<(Held, Keep)>,
    arrivals: VecDeque<Arrival>,
    waker: Option<Waker>,
}

impl Leftover {
    pub(crate) fn settle(self) {
        drop(self.held);
        drop(self.arrivals);
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    operation: Option<Operation>,
}

#[derive(Debug)]
struct Operation {
    kind: Kind,
    held: Held,
    keep: Keep,
    owner: Owner,
    cancelled: bool,
    /// The last completion has come.
    finished: bool,
    /// Of `Kind::Once`.
    result: i32,
    /// Of the other kinds: what nobody has fetched yet.
    arrivals: VecDeque<Arrival>,
}

#[derive(Debug)]
enum Owner {
    /// A future fetches the outcome.
    Future(Option<Waker>),
    /// As above, but the buffer is wanted back at once: the bytes from `from` on are copied out of it when the kernel
    /// is done. The kernel writes from `base` on.
    Salvage { from: usize, base: usize, waker: Option<Waker> },
    /// Nobody: the slot is freed with the last completion.
    Nobody,
}

/// The engine and the slots of its operations.
pub(crate) struct Driver {
    engine: Engine,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Completions taken from the engine and not yet dispatched.
    backlog: VecDeque<Completion>,
    live: usize,
    stats: Arc<CoreStats>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Driver {
    /// On a ring of its own, which gets the small buffers; they must not go before the ring is closed.
    pub(crate) fn on_ring(receive: &Rc<ReceiveRing>, stats: Arc<CoreStats>) -> io::Result<Self> {
        let ring = Uring::new()?;
        ring.register_receive_ring(receive)?;
        stats.on_ring.set(1);
        Ok(Self::new(Engine::Uring(ring), stats))
    }

    /// Without io_uring.
    pub(crate) fn without_ring(receive: &Rc<ReceiveRing>, stats: Arc<CoreStats>) -> io::Result<Self> {
        Ok(Self::new(Engine::Blocking(Blocking::new(receive, &stats)?), stats))
    }

    const fn new(engine: Engine, stats: Arc<CoreStats>) -> Self {
        Self { engine, slots: Vec::new(), free: Vec::new(), backlog: VecDeque::new(), live: 0, stats }
    }

    /// Registers the memory of the pool; it must not go before the ring is closed. False when there is no ring.
    pub(crate) fn register_buffers(&self, pool: &Pool) -> io::Result<bool> {
        match &self.engine {
            Engine::Uring(ring) => ring.register_buffers(pool).map(|()| true),
            Engine::Blocking(_) | Engine::Closed => Ok(false),
        }
    }

    /// Puts a file in the ring's table; `None` when there is no room or no table.
    pub(crate) fn register_file(&mut self, fd: RawFd) -> Option<u32> {
        match &mut self.engine {
            Engine::Uring(ring) => ring.register_file(fd),
            Engine::Blocking(_) | Engine::Closed => None,
        }
    }

    pub(crate) fn unregister_file(&mut self, index: u32) {
        if let Engine::Uring(ring) = &mut self.engine {
            ring.unregister_file(index);
        }
    }

    /// Gives an operation to the kernel with the next submission. `request` may point only into what `held` owns at an
    /// address that does not move with it, and name only the file that `keep` keeps open.
    pub(crate) fn start(&mut self, kind: Kind, held: Held, keep: Keep, request: Request) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 operations");
            self.slots.push(Slot { generation: 0, operation: None });
            index
        });
        let slot = &mut self.slots[index as usize];
        let key = Key { index, generation: slot.generation };
        slot.operation = Some(Operation {
            kind,
            held,
            keep,
            owner: Owner::Future(None),
            cancelled: false,
            finished: false,
            result: 0,
            arrivals: VecDeque::new(),
        });
        self.live += 1;
        self.stats.operations.add(1);
        self.stats.operations_live.add(1);
        match &mut self.engine {
            Engine::Uring(ring) => ring.start(key, &request, &mut self.backlog, &self.stats),
            Engine::Blocking(blocking) => blocking.start(key, request),
            Engine::Closed => unreachable!("operations start only while the core runs"),
        }
        key
    }

    /// Asks the kernel to end an operation soon; its completions still come.
    pub(crate) fn cancel(&mut self, key: Key) {
        let operation = self.operation(key);
        if !operation.finished && !operation.cancelled {
            operation.cancelled = true;
            match &mut self.engine {
                Engine::Uring(ring) => ring.cancel(key, &mut self.backlog, &self.stats),
                Engine::Blocking(blocking) => blocking.cancel(key, &mut self.backlog),
                Engine::Closed => unreachable!("what the engine had is finished, or was left to the kernel"),
            }
        }
    }

    /// The future of this operation is gone.
    pub(crate) fn abandon(&mut self, key: Key) -> Leftover {
        if matches!(self.engine, Engine::Closed) && self.slots[key.index as usize].operation.is_none() {
            return Leftover::default(); // left to the kernel when the ring was closed
        }
        let operation = self.operation(key);
        if operation.finished {
            return self.release(key, None);
        }
        operation.owner = Owner::Nobody;
        let arrivals = std::mem::take(&mut operation.arrivals);
        self.cancel(key);
        Leftover { arrivals, ..Leftover::default() }
    }

    /// The future of this receive into `buffer[base..]` is gone, but what came must not be lost: when the kernel is
    /// done, the buffer goes back and the operation holds a copy of the bytes from `from` on instead.
    pub(crate) fn salvage(&mut self, key: Key, from: usize, base: usize) -> Leftover {
        let operation = self.operation(key);
        operation.owner = Owner::Salvage { from, base, waker: None };
        if operation.finished {
            return operation.salvage();
        }
        self.cancel(key);
        Leftover::default()
    }

    /// The outcome of an operation with one completion; frees its slot.
    pub(crate) fn poll_once(&mut self, key: Key, context: &Context<'_>) -> Poll<(i32, Held, Keep)> {
        let operation = self.operation(key);
        if !operation.finished {
            operation.owner.wait(context);
            return Poll::Pending;
        }
        let result = operation.result;
        let operation = self.free_slot(key);
        Poll::Ready((result, operation.held, operation.keep))
    }

    /// The next completion of an operation that has many; `None` after the last one.
    pub(crate) fn poll_next(&mut self, key: Key, context: &Context<'_>) -> Poll<Option<Arrival>> {
        let operation = self.operation(key);
        match operation.arrivals.pop_front() {
            Some(arrival) => Poll::Ready(Some(arrival)),
            None if operation.finished => Poll::Ready(None),
            None => {
                operation.owner.wait(context);
                Poll::Pending
            }
        }
    }

    /// What has come of an operation that has many, without waiting.
    pub(crate) fn take_next(&mut self, key: Key) -> Option<Arrival> {
        self.operation(key).arrivals.pop_front()
    }

    /// Submits what was started, and waits for completions when asked to.
    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        match &mut self.engine {
            Engine::Uring(ring) => ring.enter(wait, &mut self.backlog, &self.stats),
            Engine::Blocking(blocking) => blocking.enter(wait, &mut self.backlog, &self.stats),
            Engine::Closed => unreachable!("the executor ends before its engine"),
        }
    }

    /// Dispatches one completion; `None` when there is none.
    pub(crate) fn dispatch(&mut self) -> Option<Leftover> {
        let completion = self.backlog.pop_front()?;
        Some(self.complete(&completion))
    }

    /// Operations that the kernel still has.
    pub(crate) const fn live(&self) -> usize {
        self.live
    }

    /// Asks the kernel to end every operation.
    pub(crate) fn cancel_all(&mut self) {
        let keys: Vec<Key> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.operation.is_some())
            .map(|(index, slot)| Key { index, generation: slot.generation })
            .collect();
        for key in keys {
            self.cancel(key);
        }
    }

    /// Closes the engine. With operations still under way, what they own is never freed: the kernel may yet write to it.
    pub(crate) fn close(&mut self) {
        self.engine = Engine::Closed;
        if self.live == 0 {
            return;
        }
        tracing::error!(operations = self.live, "the kernel did not let go of operations; their memory is left to it");
        for slot in &mut self.slots {
            if slot.operation.as_ref().is_some_and(|operation| !operation.finished) {
                std::mem::forget(slot.operation.take());
            }
        }
    }

    fn complete(&mut self, completion: &Completion) -> Leftover {
        let key = completion.key;
        let finished = !completion.more;
        let operation = self.operation(key);
        let arrival = operation.arrival(completion);
        if finished {
            operation.finished = true;
            self.live -= 1;
            self.stats.operations_live.subtract(1);
        }
        if matches!(arrival, Some(Arrival::Failed(libc::ENOBUFS))) {
            self.spill_all();
        }
        let operation = self.operation(key);
        match operation.owner {
            Owner::Nobody if finished => return self.release(key, arrival),
            Owner::Nobody => return Leftover { arrivals: arrival.into_iter().collect(), ..Leftover::default() },
            Owner::Salvage { .. } if finished => return operation.salvage(),
            Owner::Salvage { .. } => return Leftover::default(),
            Owner::Future(_) => {}
        }
        let Some(mut arrival) = arrival else {
            return Leftover { waker: operation.owner.take_waker(), ..Leftover::default() };
        };
        // More than its share: the connection stops receiving until its owner has caught up.
        let too_many = operation.arrivals.len() >= operation.kind.arrivals_max();
        if let (true, Arrival::Bytes(bytes)) = (too_many, &mut arrival) {
            bytes.spill();
        }
        if operation.arrivals.capacity() == 0 {
            // Mostly each is fetched before the next one comes, and an idle connection keeps what this takes.
            operation.arrivals.reserve_exact(1);
        }
        operation.arrivals.push_back(arrival);
        let waker = operation.owner.take_waker();
        if too_many {
            self.cancel(key);
        }
        Leftover { waker, ..Leftover::default() }
    }

    /// Moves all bytes that nobody has fetched to the heap: slow readers must not keep the buffers from others.
    fn spill_all(&mut self) {
        let arrivals = self.slots.iter_mut().filter_map(|slot| slot.operation.as_mut()).flat_map(|o| &mut o.arrivals);
        for arrival in arrivals {
            if let Arrival::Bytes(bytes) = arrival {
                bytes.spill();
            }
        }
    }

    fn release(&mut self, key: Key, arrival: Option<Arrival>) -> Leftover {
        let mut operation = self.free_slot(key);
        operation.arrivals.extend(arrival);
        Leftover { held: Some((operation.held, operation.keep)), arrivals: operation.arrivals, waker: None }
    }

    fn free_slot(&mut self, key: Key) -> Operation {
        let slot = &mut self.slots[key.index as usize];
        assert!(slot.generation == key.generation, "freed once");
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        slot.operation.take().expect("it was in use")
    }

    fn operation(&mut self, key: Key) -> &mut Operation {
        let slot = &mut self.slots[key.index as usize];
        assert!(slot.generation == key.generation, "an operation is known by its generation until it is freed");
        slot.operation.as_mut().expect("a slot of this generation is in use")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Kind {
    const fn arrivals_max(&self) -> usize {
        match self {
            Self::Once => 1,
            Self::Accept => ACCEPTED_QUEUE_MAX,
            Self::Receive(_) => RECEIVED_QUEUE_MAX,
        }
    }
}

impl Operation {
    /// What a completion brought; takes ownership of its file or buffer.
    fn arrival(&mut self, completion: &Completion) -> Option<Arrival> {
        let result = completion.result;
        match &self.kind {
            Kind::Once => {
                self.result = result;
                None
            }
            Kind::Accept if result >= 0 => {
                // SAFETY: the kernel made this descriptor for this completion; nobody else knows it.
                Some(Arrival::Connection(unsafe { OwnedFd::from_raw_fd(result) }))
            }
            Kind::Receive(ring) if result >= 0 => {
                let bytes = completion.buffer.map_or_else(Received::end, |id| {
                    ring.taken();
                    Received::ring(ring, id, usize::try_from(result).expect("not negative"))
                });
                Some(Arrival::Bytes(bytes))
            }
            Kind::Accept | Kind::Receive(_) => Some(Arrival::Failed(-result)),
        }
    }

    /// Copies what came out of the buffer, which goes back.
    fn salvage(&mut self) -> Leftover {
        let Owner::Salvage { from, base, waker } = &mut self.owner else { return Leftover::default() };
        let came = usize::try_from(self.result).unwrap_or(0);
        let waker = waker.take();
        let Held::Buffer(buffer) = &self.held else { return Leftover { waker, ..Leftover::default() } };
        let bytes = buffer[*from..*base + came].to_vec();
        let buffer = std::mem::replace(&mut self.held, Held::Bytes(bytes));
        Leftover { held: Some((buffer, Keep::Nothing)), waker, ..Leftover::default() }
    }
}

impl Owner {
    fn wait(&mut self, context: &Context<'_>) {
        match self {
            Self::Future(waker) | Self::Salvage { waker, .. } => match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            },
            Self::Nobody => unreachable!("an abandoned operation is not polled"),
        }
    }

    const fn take_waker(&mut self) -> Option<Waker> {
        match self {
            Self::Future(waker) | Self::Salvage { waker, .. } => waker.take(),
            Self::Nobody => None,
        }
    }
}

/// Connections that wait to be fetched from a listener; more stay in the kernel's backlog.
const ACCEPTED_QUEUE_MAX: usize = 64;
/// Receive buffers that one connection may fill ahead of its reader.
const RECEIVED_QUEUE_MAX: usize = 4;
