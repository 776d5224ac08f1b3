//! The small buffers that the kernel picks from when bytes arrive (a provided buffer ring, io_uring_register_buf_ring(3)).

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};

use io_uring::types::BufRingEntry;

use crate::region::Region;
use crate::stats::CoreStats;
use crate::waiters::{Ticket, Waiters};

/// Bytes that came from a connection, in a small buffer of the core. Goes back when dropped: don't keep it while
/// waiting for something else, the core has few of them.
#[derive(Debug)]
pub struct Received {
    bytes: Bytes,
    /// How many of them were taken already.
    start: usize,
}

#[derive(Debug)]
enum Bytes {
    Ring { ring: Rc<ReceiveRing>, id: u16, length: usize },
    Heap(Vec<u8>),
}

impl Received {
    /// Nothing: the end of the stream.
    pub(crate) const fn end() -> Self {
        Self::heap(Vec::new())
    }

    pub(crate) const fn heap(bytes: Vec<u8>) -> Self {
        Self { bytes: Bytes::Heap(bytes), start: 0 }
    }

    /// The first `length` bytes of buffer `id`, which the kernel has filled and let go of.
    pub(crate) fn ring(ring: &Rc<ReceiveRing>, id: u16, length: usize) -> Self {
        assert!(id < ring.count && length <= ring.buffer_bytes, "the kernel fills only what it was given");
        ring.buffers.allow(usize::from(id) * ring.buffer_bytes, ring.buffer_bytes);
        Self { bytes: Bytes::Ring { ring: Rc::clone(ring), id, length }, start: 0 }
    }

    /// Moves the bytes to the heap, so that the buffer can go back.
    pub(crate) fn spill(&mut self) {
        if let Bytes::Ring { ring, .. } = &self.bytes {
            ring.stats.receive_spills.add(1);
            *self = Self::heap(self.to_vec());
        }
    }

    /// Copies as much as fits to `into`; gives how much that is, and keeps the rest.
    pub(crate) fn take(&mut self, into: &mut [u8]) -> usize {
        let count = self.len().min(into.len());
        into[..count].copy_from_slice(&self[..count]);
        self.start += count;
        count
    }
}

impl Deref for Received {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Heap(bytes) => &bytes[self.start..],
            Bytes::Ring { ring, id, length } => {
                // SAFETY: the kernel gave buffer `id` to this value with `length` initialised bytes and does not touch
                // it until it is given back in `drop`.
                let bytes = unsafe { std::slice::from_raw_parts(ring.buffer(*id).as_ptr(), *length) };
                &bytes[self.start..]
            }
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Bytes::Ring { ring, id, .. } = &self.bytes {
            ring.give_back(*id);
        }
    }
}

/// The ring and its buffers. A buffer is the kernel's, or a [`Received`] holds it.
#[derive(Debug)]
pub(crate) struct ReceiveRing {
    entries: Region,
    buffers: Region,
    count: u16,
    buffer_bytes: usize,
    tail: Cell<u16>,
    /// The next entry to be picked, when there is no kernel to do it.
    head: Cell<u16>,
    starved: RefCell<Waiters<()>>,
    stats: Arc<CoreStats>,
}

impl ReceiveRing {
    pub(crate) fn new(count: u16, buffer_bytes: usize, stats: Arc<CoreStats>) -> io::Result<Rc<Self>> {
        assert!(count.is_power_of_two(), "checked with the options");
        let entries = Region::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Region::new(usize::from(count) * buffer_bytes)?;
        stats.receive_buffers_total.set(count.into());
        let starved = RefCell::new(Waiters::new());
        let ring =
            Self { entries, buffers, count, buffer_bytes, tail: Cell::new(0), head: Cell::new(0), starved, stats };
        for id in 0..count {
            ring.give_back(id);
        }
        Ok(Rc::new(ring))
    }

    /// What the kernel is told at registration: the address and the number of entries. The ring must outlive the
    /// registration.
    pub(crate) fn registration(&self) -> (u64, u16) {
        (self.entries.at(0).as_ptr().expose_provenance() as u64, self.count)
    }

    /// Waits until a buffer has come back since the kernel found none. Each one that comes back wakes one connection.
    pub(crate) fn poll_refilled(&self, ticket: &mut Option<Ticket>, context: &Context<'_>) -> Poll<()> {
        let mut starved = self.starved.borrow_mut();
        let place = match *ticket {
            Some(place) => place,
            None if self.stats.receive_buffers_free.value() > 0 && !starved.anybody() => return Poll::Ready(()),
            None => *ticket.insert(starved.join()),
        };
        std::task::ready!(starved.poll(place, context));
        *ticket = None;
        Poll::Ready(())
    }

    /// A connection that waited here went away.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let granted = self.starved.borrow_mut().leave(ticket);
        if granted.is_some() {
            self.pass_on();
        }
    }

    /// A connection that was called did not take a buffer: another one may.
    pub(crate) fn pass_on(&self) {
        if self.stats.receive_buffers_free.value() > 0 {
            self.wake_one();
        }
    }

    /// The kernel took a buffer.
    pub(crate) fn taken(&self) {
        self.stats.receive_buffers_free.subtract(1);
    }

    /// Without a ring: the buffer that is picked next, and its length.
    pub(crate) fn peek(&self) -> Option<(u16, NonNull<u8>, usize)> {
        if self.head.get() == self.tail.get() {
            return None;
        }
        let index = self.head.get() & (self.count - 1);
        let base = self.entries.at(0).cast::<BufRingEntry>();
        // SAFETY: the region holds `count` entries; between head and tail they were written by `give_back`.
        let id = unsafe { base.add(usize::from(index)).as_ref() }.bid();
        self.buffers.allow(usize::from(id) * self.buffer_bytes, self.buffer_bytes);
        Some((id, self.buffer(id), self.buffer_bytes))
    }

    /// Without a ring: the buffer of [`Self::peek`] was filled, and belongs to a [`Received`] soon.
    pub(crate) fn pick(&self) {
        assert!(self.head.get() != self.tail.get(), "there was one to peek at");
        self.head.set(self.head.get().wrapping_add(1));
    }

    fn buffer(&self, id: u16) -> NonNull<u8> {
        self.buffers.at(usize::from(id) * self.buffer_bytes)
    }

    fn give_back(&self, id: u16) {
        self.buffers.forbid(usize::from(id) * self.buffer_bytes, self.buffer_bytes);
        let tail = self.tail.get();
        let index = tail & (self.count - 1);
        let base = self.entries.at(0).cast::<BufRingEntry>();
        // SAFETY: the region holds `count` entries and zeros are a valid entry; the kernel reads an entry only after the
        // tail below has passed it, and has consumed the one that stood here, or buffer `id` could not be with us.
        let entry = unsafe { base.add(usize::from(index)).as_mut() };
        entry.set_addr(self.buffer(id).as_ptr().expose_provenance() as u64);
        entry.set_len(u32::try_from(self.buffer_bytes).expect("checked with the options"));
        entry.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the tail lies in the reserved field of the first entry (io_uring_register_buf_ring(3)), is aligned,
        // and lives as long as the region; the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base.as_ptr()).cast_mut()) };
        tail.store(self.tail.get(), Ordering::Release);
        self.stats.receive_buffers_free.add(1);
        self.wake_one();
    }

    fn wake_one(&self) {
        let granted = self.starved.borrow_mut().grant(());
        if let Ok(Some(waker)) = granted {
            waker.wake();
        }
    }
}

/// The only group of provided buffers on a ring.
pub(crate) const GROUP: u16 = 0;
