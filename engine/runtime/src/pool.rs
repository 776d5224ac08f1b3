//! The buffers of one core: one region of memory, registered with the ring once, lent out slot by slot.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use anvil_model::io as seam;
use anvil_model::io::Reserve;
use anvil_model::limits::{BUFFER_ALIGNMENT, BUFFER_BYTES};

use crate::region::Region;
use crate::stats::CoreStats;
use crate::waiters::{Ticket, Waiters};

/// A slot of the core's pool, `BUFFER_BYTES` bytes aligned to `BUFFER_ALIGNMENT`, or a view of a part of it. The slot goes
/// back when its last view is dropped. Views of one slot never overlap.
#[derive(Debug)]
pub struct Buffer {
    pool: Rc<Pool>,
    slot: u32,
    memory: NonNull<u8>,
    length: usize,
}

impl Buffer {
    /// The address of `range`, for the kernel, which may use it as long as the operation owns this buffer.
    pub(crate) fn pointer(&mut self, range: &Range<usize>) -> *mut u8 {
        self[range.clone()].as_mut_ptr()
    }

    /// Which registered buffer it lies in, when they are registered.
    pub(crate) fn registered_index(&self) -> Option<u16> {
        self.pool.registered.get().then(|| {
            let index = self.slot as usize / SLOTS_PER_REGISTRATION;
            u16::try_from(index).expect("the number of registrations was checked at start")
        })
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: these bytes of the slot, initialised by the kernel's zeros, are lent to this value alone until it is
        // dropped; while the kernel uses them, an operation owns the value and nobody can call this.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

impl seam::Buffer for Buffer {
    fn split_to(&mut self, at: usize) -> Self {
        assert!(
            at.is_multiple_of(BUFFER_ALIGNMENT) && 0 < at && at < self.length,
            "split {} bytes at {at}",
            self.length
        );
        self.pool.add_view(self.slot);
        let front = Self { pool: Rc::clone(&self.pool), slot: self.slot, memory: self.memory, length: at };
        // SAFETY: `at` is less than the length of this view, which lies in the slot.
        self.memory = unsafe { self.memory.add(at) };
        self.length -= at;
        front
    }

    fn unsplit(mut self, mut other: Self) -> Self {
        let end = self.memory.as_ptr().addr() + self.length;
        let neighbours = Rc::ptr_eq(&self.pool, &other.pool) && self.slot == other.slot;
        assert!(neighbours && end == other.memory.as_ptr().addr(), "views that do not lie behind one another");
        // Its bytes are this view's from here on, and its drop forbids none of them.
        self.length += std::mem::take(&mut other.length);
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.forbid(self.slot, self.memory, self.length);
        self.pool.end_view(self.slot);
    }
}

/// All slots of a core. A slot is free, lent as a [`Buffer`], or granted to a waiter, never two of them.
#[derive(Debug)]
pub(crate) struct Pool {
    region: Region,
    slot_count: u32,
    progress_reserve: usize,
    registered: Cell<bool>,
    /// Of each slot: the buffers that share it, 0 when it is not lent.
    views: Box<[Cell<u16>]>,
    state: RefCell<State>,
    stats: Arc<CoreStats>,
}

#[derive(Debug)]
struct State {
    free: Vec<u32>,
    progress: Waiters<u32>,
    foreground: Waiters<u32>,
}

impl State {
    fn waiters(&mut self, reserve: Reserve) -> &mut Waiters<u32> {
        match reserve {
            Reserve::Progress => &mut self.progress,
            Reserve::Foreground => &mut self.foreground,
        }
    }
}

impl Pool {
    pub(crate) fn new(slot_count: usize, progress_reserve: usize, stats: Arc<CoreStats>) -> io::Result<Rc<Self>> {
        assert!(progress_reserve < slot_count, "checked with the options");
        let region = Region::new(slot_count * BUFFER_BYTES)?;
        region.prefer_huge_pages();
        region.forbid(0, slot_count * BUFFER_BYTES);
        let views = vec![Cell::new(0); slot_count].into_boxed_slice();
        let slot_count = u32::try_from(slot_count).expect("checked with the options");
        stats.buffers_total.set(slot_count.into());
        stats.buffers_free.set(slot_count.into());
        let state =
            State { free: (0..slot_count).rev().collect(), progress: Waiters::new(), foreground: Waiters::new() };
        let registered = Cell::new(false);
        Ok(Rc::new(Self { region, slot_count, progress_reserve, registered, views, state: RefCell::new(state), stats }))
    }

    /// The memory in pieces that the kernel accepts as registered buffers: at most 1 GiB each (io_uring_register(2)),
    /// none of which cuts a slot.
    pub(crate) fn registrations(&self) -> Vec<libc::iovec> {
        let slot_count = self.slot_count as usize;
        let piece = |first: usize| libc::iovec {
            iov_base: self.region.at(first * BUFFER_BYTES).as_ptr().cast(),
            iov_len: (slot_count - first).min(SLOTS_PER_REGISTRATION) * BUFFER_BYTES,
        };
        (0..slot_count).step_by(SLOTS_PER_REGISTRATION).map(piece).collect()
    }

    /// The kernel took the registrations.
    pub(crate) fn set_registered(&self) {
        self.registered.set(true);
        self.stats.buffers_registered.set(1);
    }

    /// A buffer, as soon as it is this caller's turn.
    pub(crate) fn take(self: &Rc<Self>, reserve: Reserve) -> Take {
        Take { pool: Rc::clone(self), reserve, ticket: None }
    }

    fn take_now(&self, reserve: Reserve) -> Option<u32> {
        let mut state = self.state.borrow_mut();
        let kept = match reserve {
            Reserve::Progress => 0,
            Reserve::Foreground => self.progress_reserve,
        };
        if state.waiters(reserve).anybody() || state.free.len() <= kept {
            return None;
        }
        state.free.pop()
    }

    fn lend(self: &Rc<Self>, slot: u32) -> Buffer {
        self.stats.buffers_free.subtract(1);
        let offset = slot as usize * BUFFER_BYTES;
        self.region.allow(offset, BUFFER_BYTES);
        let memory = self.region.at(offset);
        let views = self.views[slot as usize].replace(1);
        assert_eq!(views, 0, "a slot is lent once");
        Buffer { pool: Rc::clone(self), slot, memory, length: BUFFER_BYTES }
    }

    /// Another buffer shares the slot.
    fn add_view(&self, slot: u32) {
        let views = &self.views[slot as usize];
        views.set(views.get() + 1);
    }

    /// A buffer shares the slot no more; it is free when that was the last one.
    fn end_view(&self, slot: u32) {
        let views = &self.views[slot as usize];
        views.set(views.get() - 1);
        if views.get() == 0 {
            self.stats.buffers_free.add(1);
            self.hand_on(slot);
        }
    }

    /// Nobody may touch the bytes of a view that is dropped.
    fn forbid(&self, slot: u32, memory: NonNull<u8>, length: usize) {
        let start = slot as usize * BUFFER_BYTES;
        let into = memory.as_ptr().addr() - self.region.at(start).as_ptr().addr();
        self.region.forbid(start + into, length);
    }

    /// Gives a slot that nobody holds to whoever is next.
    fn hand_on(&self, slot: u32) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            match state.progress.grant(slot) {
                Ok(waker) => wakers.extend(waker),
                Err(slot) => state.free.push(slot),
            }
            while state.free.len() > self.progress_reserve && state.foreground.anybody() {
                let slot = state.free.pop().expect("there are more than the reserve");
                let waker = state.foreground.grant(slot).expect("somebody waits");
                wakers.extend(waker);
            }
        }
        for waker in wakers {
            waker.wake();
        }
    }
}

/// Waits for a buffer.
pub(crate) struct Take {
    pool: Rc<Pool>,
    reserve: Reserve,
    ticket: Option<Ticket>,
}

impl Future for Take {
    type Output = Buffer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Buffer> {
        let pool = Rc::clone(&self.pool);
        let reserve = self.reserve;
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None => {
                if let Some(slot) = pool.take_now(reserve) {
                    return Poll::Ready(pool.lend(slot));
                }
                pool.stats.buffer_waits.add(1);
                *self.ticket.insert(pool.state.borrow_mut().waiters(reserve).join())
            }
        };
        let slot = std::task::ready!(pool.state.borrow_mut().waiters(reserve).poll(ticket, context));
        self.ticket = None;
        Poll::Ready(pool.lend(slot))
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let granted = self.pool.state.borrow_mut().waiters(self.reserve).leave(ticket);
        if let Some(slot) = granted {
            self.pool.hand_on(slot);
        }
    }
}

/// As many slots as fit in the 1 GiB that one registered buffer may have.
const SLOTS_PER_REGISTRATION: usize = (1 << 30) / BUFFER_BYTES;
/// Views of a slot are counted in 16 bits.
const _: () = assert!(BUFFER_BYTES / BUFFER_ALIGNMENT < u16::MAX as usize, "a view has one unit at least");
/// At most this many slots, so that an index of a registration fits in the 14 bits the kernel takes.
pub(crate) const SLOTS_MAX: usize = SLOTS_PER_REGISTRATION * 1024;

const _: () = assert!(BUFFER_BYTES.is_multiple_of(BUFFER_ALIGNMENT), "all slots of an aligned region are aligned");

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use anvil_model::io::Buffer as _;

    use super::*;

    fn poll(take: &mut Take) -> Poll<Buffer> {
        Pin::new(take).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn pool(slots: usize, reserve: usize) -> (Rc<Pool>, Arc<CoreStats>) {
        let stats = Arc::new(CoreStats::default());
        (Pool::new(slots, reserve, Arc::clone(&stats)).expect("a few MiB of memory"), stats)
    }

    fn expect(poll: Poll<Buffer>) -> Buffer {
        match poll {
            Poll::Ready(buffer) => buffer,
            Poll::Pending => panic!("a buffer should be there"),
        }
    }

    /// Waiters are served in the order in which they came, by polling them in the opposite order.
    #[test]
    fn waiters_are_served_in_order() {
        let (pool, stats) = pool(1, 0);
        let held = expect(poll(&mut pool.take(Reserve::Foreground)));
        let mut first = pool.take(Reserve::Foreground);
        let mut second = pool.take(Reserve::Foreground);
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        drop(held);
        assert!(poll(&mut second).is_pending(), "not its turn");
        assert!(poll(&mut pool.take(Reserve::Foreground)).is_pending(), "a newcomer does not overtake");
        drop(expect(poll(&mut first)));
        drop(expect(poll(&mut second)));
        assert_eq!(stats.buffers_free.value(), 1);
    }

    /// The last buffers are kept for progress, and a waiting progress task goes first.
    #[test]
    fn the_reserve_is_for_progress() {
        let (pool, stats) = pool(2, 1);
        let one = expect(poll(&mut pool.take(Reserve::Foreground)));
        let mut foreground = pool.take(Reserve::Foreground);
        assert!(poll(&mut foreground).is_pending(), "the last is reserved");
        let two = expect(poll(&mut pool.take(Reserve::Progress)));
        let mut progress = pool.take(Reserve::Progress);
        assert!(poll(&mut progress).is_pending());
        drop(one);
        assert!(poll(&mut foreground).is_pending());
        let one = expect(poll(&mut progress));
        drop(two);
        assert!(poll(&mut foreground).is_pending(), "only the reserve is free");
        drop(one);
        drop(expect(poll(&mut foreground)));
        assert_eq!(stats.buffers_free.value(), 2);
    }

    /// A waiter that goes away after its turn came passes it on.
    #[test]
    fn a_dropped_waiter_passes_its_turn_on() {
        let (pool, _) = pool(1, 0);
        let held = expect(poll(&mut pool.take(Reserve::Foreground)));
        let mut first = pool.take(Reserve::Foreground);
        let mut second = pool.take(Reserve::Foreground);
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        drop(held);
        drop(first);
        drop(expect(poll(&mut second)));
    }

    /// Slots are disjoint, aligned, and as long as promised.
    #[test]
    fn slots_are_aligned_and_disjoint() {
        let (pool, _) = pool(3, 0);
        let mut buffers: Vec<Buffer> = (0..3).map(|_| expect(poll(&mut pool.take(Reserve::Foreground)))).collect();
        for (mark, buffer) in (1..).zip(&mut buffers) {
            assert!(buffer.memory.as_ptr().addr().is_multiple_of(BUFFER_ALIGNMENT));
            buffer.fill(mark);
        }
        for (mark, buffer) in (1..).zip(&buffers) {
            assert!(buffer.len() == BUFFER_BYTES && buffer.iter().all(|&byte| byte == mark));
        }
    }

    /// The views of a split buffer are its bytes, each of them alone; the slot is lent again only when the last one is
    /// dropped, in whatever order, joined again or not.
    #[test]
    fn a_split_buffer_is_one_buffer() {
        for joined in [false, true] {
            let (pool, stats) = pool(1, 0);
            let mut rest = expect(poll(&mut pool.take(Reserve::Foreground)));
            let whole = rest.memory;
            rest.fill(9);
            let mut front = rest.split_to(BUFFER_ALIGNMENT);
            let middle = rest.split_to(3 * BUFFER_ALIGNMENT);
            front.fill(1);
            assert_eq!([front.len(), middle.len()], [BUFFER_ALIGNMENT, 3 * BUFFER_ALIGNMENT]);
            assert_eq!(rest.len(), BUFFER_BYTES - 4 * BUFFER_ALIGNMENT);
            assert_eq!(rest.pointer(&(7..9)).addr(), whole.as_ptr().addr() + 4 * BUFFER_ALIGNMENT + 7);
            let mut waiting = pool.take(Reserve::Foreground);
            if joined {
                let front = front.unsplit(middle);
                assert!(front[..BUFFER_ALIGNMENT].iter().all(|&byte| byte == 1) && front[BUFFER_ALIGNMENT] == 9);
                assert!(poll(&mut waiting).is_pending(), "two views are left");
                let again = front.unsplit(rest);
                assert_eq!((again.len(), again.memory), (BUFFER_BYTES, whole));
                assert!(poll(&mut waiting).is_pending(), "one view is left");
                drop(again);
            } else {
                drop(middle);
                drop(front);
                assert!(poll(&mut waiting).is_pending(), "one view is left");
                drop(rest);
            }
            drop(expect(poll(&mut waiting)));
            assert_eq!((stats.buffers_free.value(), Rc::strong_count(&pool)), (1, 2), "the pool and `waiting`");
        }
    }

    #[test]
    #[should_panic(expected = "do not lie behind one another")]
    fn only_neighbours_are_joined() {
        let (pool, _) = pool(1, 0);
        let mut rest = expect(poll(&mut pool.take(Reserve::Foreground)));
        let front = rest.split_to(BUFFER_ALIGNMENT);
        drop(rest.unsplit(front));
    }

    /// Pieces for registration cover every slot once and cut none.
    #[test]
    fn registrations_cut_no_slot() {
        let (pool, _) = pool(SLOTS_PER_REGISTRATION + 2, 0);
        let lengths: Vec<usize> = pool.registrations().iter().map(|piece| piece.iov_len).collect();
        assert_eq!(lengths, [SLOTS_PER_REGISTRATION * BUFFER_BYTES, 2 * BUFFER_BYTES]);
        assert!(lengths[0] <= 1 << 30);
    }
}
