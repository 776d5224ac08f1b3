//! The ring of one core and the operations that the kernel has.
//!
//! Invariants:
//! - What the kernel may touch (memory, file) is owned by the operation's slot from before its submission until its last
//!   completion, whatever becomes of the future that asked for it.
//! - A slot's number is in every completion together with its generation; a completion for another generation is a bug.
//! - Nothing foreign is dropped or woken while the driver is borrowed: it comes out as [`Leftover`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::op::{Held, Keep};
use crate::pool::Pool;
use crate::receive_ring::{GROUP, ReceiveRing, Received};
use crate::ring;
use crate::stats::CoreStats;

/// Names one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The ring and its slots.
pub(crate) struct Driver {
    /// `None` once the core has ended.
    ring: Option<IoUring>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Completions taken from the ring and not yet dispatched.
    backlog: VecDeque<cqueue::Entry>,
    live: usize,
    files: Vec<u32>,
    deferred: bool,
    stats: Arc<CoreStats>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("live", &self.live).finish_non_exhaustive()
    }
}

impl Driver {
    pub(crate) fn new(stats: Arc<CoreStats>) -> io::Result<Self> {
        let (ring, deferred) = ring::build(SUBMISSIONS)?;
        // Without a table of registered files every disk is used by its descriptor: slower, not wrong.
        let files = match ring.submitter().register_files_sparse(FILES_MAX) {
            Ok(()) => (0..FILES_MAX).rev().collect(),
            Err(error) => {
                tracing::debug!(%error, "the kernel has no table for registered files");
                Vec::new()
            }
        };
        Ok(Self {
            ring: Some(ring),
            slots: Vec::new(),
            free: Vec::new(),
            backlog: VecDeque::new(),
            live: 0,
            files,
            deferred,
            stats,
        })
    }

    pub(crate) const fn deferred(&self) -> bool {
        self.deferred
    }

    /// Registers the memory of the pool; it must not go before the ring is closed.
    pub(crate) fn register_buffers(&self, pool: &Pool) -> io::Result<()> {
        let submitter = self.ring().submitter();
        // SAFETY: the pieces are mapped as long as the pool lives, and the core keeps it until it has closed the ring.
        unsafe { submitter.register_buffers(&pool.registrations()) }
    }

    /// Gives the kernel the small buffers; they must not go before the ring is closed.
    pub(crate) fn register_receive_ring(&self, receive: &ReceiveRing) -> io::Result<()> {
        let (address, count) = receive.registration();
        // SAFETY: the entries are mapped, initialised and page-aligned; the core keeps them until it has closed the ring.
        unsafe { self.ring().submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }
    }

    /// Puts a file in the ring's table; `None` when there is no room or no table.
    pub(crate) fn register_file(&mut self, fd: RawFd) -> Option<u32> {
        let index = self.files.pop()?;
        match self.ring().submitter().register_files_update(index, &[fd]) {
            Ok(_) => Some(index),
            Err(error) => {
                tracing::debug!(%error, "a disk is used without a registered file");
                self.files.push(index);
                None
            }
        }
    }

    pub(crate) fn unregister_file(&mut self, index: u32) {
        let Some(ring) = &self.ring else { return };
        // Operations under way keep the file for themselves; failing leaves a file open until the ring is closed.
        if ring.submitter().register_files_update(index, &[-1]).is_ok() {
            self.files.push(index);
        }
    }

    /// Gives an operation to the kernel with the next submission. `entry` may point only into what `held` owns at an
    /// address that does not move with it, and name only the file that `keep` keeps open.
    pub(crate) fn start(&mut self, kind: Kind, held: Held, keep: Keep, entry: Entry) -> Key {
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
        self.push(&entry.user_data(key.user_data()));
        key
    }

    /// Asks the kernel to end an operation soon; its completions still come.
    pub(crate) fn cancel(&mut self, key: Key) {
        let operation = self.operation(key);
        if !operation.finished && !operation.cancelled {
            operation.cancelled = true;
            self.push_cancel(key);
        }
    }

    /// The future of this operation is gone.
    pub(crate) fn abandon(&mut self, key: Key) -> Leftover {
        if self.ring.is_none() && self.slots[key.index as usize].operation.is_none() {
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
        let ring = self.ring.as_mut().expect("the executor ends before its ring");
        let submissions = ring.submission();
        let nothing = submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow();
        drop(submissions);
        if wait == Wait::No && nothing {
            self.backlog.extend(ring.completion());
            return Ok(());
        }
        let entered = match wait {
            Wait::No => ring.submit(),
            _ if !self.backlog.is_empty() => ring.submit(),
            Wait::AtMost(None) => ring.submit_and_wait(1),
            Wait::AtMost(Some(duration)) => {
                let timeout = Timespec::from(duration);
                ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
        };
        self.stats.enters.add(1);
        self.backlog.extend(ring.completion());
        match entered {
            Ok(_) => Ok(()),
            // Nothing came in time, a signal came, the kernel is short of memory, or has more completions than room:
            // the executor comes back with the ring drained.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Dispatches one completion; `None` when there is none.
    pub(crate) fn dispatch(&mut self) -> Option<Leftover> {
        let completion = self.backlog.pop_front()?;
        if completion.user_data() == IGNORED {
            return Some(Leftover::default());
        }
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

    /// Closes the ring. With operations still under way, what they own is never freed: the kernel may yet write to it.
    pub(crate) fn close(&mut self) {
        self.ring = None;
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

    fn complete(&mut self, completion: &cqueue::Entry) -> Leftover {
        let key = Key::from_user_data(completion.user_data());
        let result = completion.result();
        let finished = !cqueue::more(completion.flags());
        let operation = self.operation(key);
        let arrival = operation.arrival(result, completion.flags());
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

    fn push_cancel(&mut self, key: Key) {
        self.push(&opcode::AsyncCancel::new(key.user_data()).build().user_data(IGNORED));
    }

    fn push(&mut self, entry: &Entry) {
        let Self { ring, backlog, stats, .. } = self;
        let ring = ring.as_mut().expect("operations start only while the core runs");
        // SAFETY: `start` put what the entry points to into a slot, where it stays until the last completion; a cancel
        // points to nothing.
        while unsafe { ring.submission().push(entry) }.is_err() {
            stats.enters.add(1);
            // Whatever the error, emptying the completion queue is what can help; a ring that never takes anything again
            // fails in `enter`.
            if ring.submit().is_err() {
                backlog.extend(ring.completion());
            }
        }
    }

    fn ring(&self) -> &IoUring {
        self.ring.as_ref().expect("registrations are made while the core runs")
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
    fn arrival(&mut self, result: i32, flags: u32) -> Option<Arrival> {
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
                let bytes = cqueue::buffer_select(flags).map_or_else(Received::end, |id| {
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

/// Submissions that fit before the kernel is entered.
const SUBMISSIONS: u32 = 512;
/// Disks that are used as registered files.
const FILES_MAX: u32 = 256;
/// Connections that wait to be fetched from a listener; more stay in the kernel's backlog.
const ACCEPTED_QUEUE_MAX: usize = 64;
/// Receive buffers that one connection may fill ahead of its reader.
const RECEIVED_QUEUE_MAX: usize = 4;
/// The completion of a cancel: whether it found anything, the operation's own completion says.
const IGNORED: u64 = u64::MAX;
