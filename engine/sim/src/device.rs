//! A disk as one core sees it, and the lies that it tells.
//!
//! What may happen, and so must be survived:
//! - Operations complete in any order, after any time. A read that overlaps a write in flight sees any of its sectors.
//! - A write that completed is seen by every later read, on every core. It is durable only when a flush that was
//!   called after its completion has completed; whether the disk says that it has a volatile cache changes nothing.
//! - A power cut ([`Life::power_cut`](crate::Life::power_cut)) keeps, drops or tears each write that no flush covered,
//!   in flight or completed, independently of all others; a torn one leaves any of its sectors of 512 bytes. Where such
//!   writes overlap, an older one never replaces a newer one that was kept.
//! - A killed process ([`Life::kill`](crate::Life::kill)) leaves what it completed, still unflushed; each of its writes
//!   in flight is kept, dropped or torn.
//! - An operation whose future was dropped goes on, owns its buffer until its end, and a write among them is then kept,
//!   dropped or torn.
//! - A write that fails left any part of itself. A flush that fails made the oldest of the writes that it covers
//!   durable, or none, or all; the others are read as written, but no other flush of this process makes them durable.
//! - Growing that was cut short leaves the old size, the new one, or one between. The new part is zero.
//! - As far as [`Faults`](crate::Faults) says: EIO, no space, wrong bits at rest and on the way, misdirected writes, and
//!   everything a hundred times slower. And the disk may go away, for good or for a while, be exchanged for a blank one
//!   or come back as it was some lives ago.
//!
//! What is never done, because nothing could survive it or the seam forbids it:
//! - A flush that completed is true (but for [`DiskOptions::flush_lies`](crate::DiskOptions::flush_lies)), and what it
//!   made durable stays, unless a fault above hits it. Bytes are not wrong under good checksums (but for
//!   [`SimDisk::set_tamper`]).
//! - A sector of 512 bytes is not torn.
//! - A write of a process that was killed does not land after the next process has begun.
//!
//! What panics, as a bug of the caller: an offset, length or buffer position that is no multiple of the unit; an access
//! behind the end of the disk; growing beyond its capacity; two writes in flight to the same bytes.

use std::future::Future;
use std::hash::Hasher;
use std::ops::Range;
use std::rc::Rc;

use anvil_model::io::{Device, DeviceError, Geometry};

use crate::disk::{Operation, SimDisk, Writing};
use crate::executor::Executor;
use crate::wait::{Promise, promise};
use crate::world::SimBuffer;

/// A [`SimDisk`], opened on a core.
#[derive(Clone)]
pub struct SimDevice {
    pub(crate) disk: SimDisk,
    pub(crate) executor: Rc<Executor>,
}

type Outcome = (Result<(), DeviceError>, SimBuffer);

impl Device for SimDevice {
    type Buffer = SimBuffer;

    fn geometry(&self) -> Geometry {
        self.disk.state.borrow().geometry()
    }

    fn size_bytes(&self) -> u64 {
        self.disk.state.borrow().size
    }

    fn read(&self, offset: u64, buffer: SimBuffer, range: Range<usize>) -> impl Future<Output = Outcome> + 'static {
        self.check(offset, &buffer, &range);
        let device = self.clone();
        async move {
            let (promise, wait) = promise(&device.executor, "a read");
            let latency = device.disk.state.borrow_mut().latency_nanos(Operation::Read);
            let executor = Rc::clone(&device.executor);
            executor.after(latency, move || device.complete_read(offset, buffer, range, promise));
            wait.await
        }
    }

    fn write(&self, offset: u64, buffer: SimBuffer, range: Range<usize>) -> impl Future<Output = Outcome> + 'static {
        self.check(offset, &buffer, &range);
        let device = self.clone();
        async move {
            let (promise, wait) = promise(&device.executor, "a write");
            let (operation, latency) = device.begin_write(Writing { offset, buffer, range });
            let executor = Rc::clone(&device.executor);
            executor.after(latency, move || device.complete_write(operation, promise));
            wait.await
        }
    }

    fn flush(&self) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        let device = self.clone();
        // The least that the seam promises: nothing that completes after this call.
        let bound = self.disk.state.borrow().flush_bound();
        async move {
            let (promise, wait) = promise(&device.executor, "a flush");
            let latency = device.begin_flush();
            let executor = Rc::clone(&device.executor);
            executor.after(latency, move || device.complete_flush(bound, promise));
            wait.await
        }
    }

    fn grow(&self, size_bytes: u64) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        let Geometry { unit_bytes, capacity_bytes_max, .. } = self.geometry();
        assert!(size_bytes.is_multiple_of(u64::from(unit_bytes)), "a size of {size_bytes} bytes is not in units");
        assert!(size_bytes <= capacity_bytes_max, "{size_bytes} bytes are more than the disk may ever have");
        let device = self.clone();
        async move {
            let (promise, wait) = promise(&device.executor, "growing");
            let (operation, latency) = {
                let mut disk = device.disk.state.borrow_mut();
                let operation = disk.operation();
                disk.growing.insert(operation, size_bytes);
                (operation, disk.latency_nanos(Operation::Grow))
            };
            let executor = Rc::clone(&device.executor);
            executor.after(latency, move || device.complete_grow(operation, size_bytes, promise));
            wait.await
        }
    }
}

impl SimDevice {
    fn check(&self, offset: u64, buffer: &SimBuffer, range: &Range<usize>) {
        let disk = self.disk.state.borrow();
        let unit = disk.options.unit_bytes as usize;
        let aligned =
            offset.is_multiple_of(unit as u64) && range.start.is_multiple_of(unit) && range.end.is_multiple_of(unit);
        assert!(aligned, "offset {offset} and buffer range {range:?} are not in units of {unit} bytes");
        assert!(!range.is_empty() && range.end <= buffer.len(), "{range:?} is no part of a buffer");
        let end = offset + range.len() as u64;
        assert!(end <= disk.size, "an access up to byte {end} of a disk of {} bytes", disk.size);
    }

    fn begin_write(&self, writing: Writing) -> (u64, u64) {
        let mut disk = self.disk.state.borrow_mut();
        let end = writing.offset + writing.range.len() as u64;
        let overlap = disk
            .writing
            .values()
            .find(|other| other.offset < end && writing.offset < other.offset + other.range.len() as u64);
        if let Some(other) = overlap {
            panic!("writes at {} and {} are in flight to the same bytes", other.offset, writing.offset);
        }
        disk.counts.writes_begun += 1;
        let operation = disk.operation();
        disk.writing.insert(operation, writing);
        (operation, disk.latency_nanos(Operation::Write))
    }

    fn begin_flush(&self) -> u64 {
        let mut disk = self.disk.state.borrow_mut();
        disk.counts.flushes_begun += 1;
        disk.latency_nanos(Operation::Flush)
    }

    fn complete_write(&self, operation: u64, promise: Promise<Outcome>) {
        let mut disk = self.disk.state.borrow_mut();
        let Some(writing) = disk.writing.remove(&operation) else {
            return;
        };
        disk.counts.writes += 1;
        disk.counts.written_bytes += writing.range.len() as u64;
        let error = disk.error(Operation::Write);
        if error.is_some() || promise.is_abandoned() {
            disk.land_some(&writing);
        } else {
            disk.land_whole(&writing);
        }
        drop(disk);
        self.note(Operation::Write, writing.offset, &writing.buffer[writing.range.clone()], error);
        drop(promise.keep((error.map_or(Ok(()), Err), writing.buffer)));
    }

    fn complete_read(&self, offset: u64, mut buffer: SimBuffer, range: Range<usize>, promise: Promise<Outcome>) {
        let mut disk = self.disk.state.borrow_mut();
        disk.counts.reads += 1;
        let error = disk.error(Operation::Read);
        if error.is_none() {
            disk.read(offset, &mut buffer[range.clone()]);
        }
        drop(disk);
        self.note(Operation::Read, offset, &buffer[range], error);
        drop(promise.keep((error.map_or(Ok(()), Err), buffer)));
    }

    fn complete_flush(&self, bound: u64, promise: Promise<Result<(), DeviceError>>) {
        let mut disk = self.disk.state.borrow_mut();
        disk.counts.flushes += 1;
        let error = disk.error(Operation::Flush);
        disk.flush(bound, error.is_some());
        drop(disk);
        self.note(Operation::Flush, bound, &[], error);
        let _ = promise.keep(error.map_or(Ok(()), Err));
    }

    fn complete_grow(&self, operation: u64, size_bytes: u64, promise: Promise<Result<(), DeviceError>>) {
        let mut disk = self.disk.state.borrow_mut();
        if disk.growing.remove(&operation).is_none() {
            return;
        }
        let full = size_bytes > disk.options.space_bytes;
        let error = disk.error(Operation::Grow).or(full.then_some(DeviceError::NoSpace));
        match error {
            None => disk.size = disk.size.max(size_bytes),
            Some(_) if full => disk.counts.injected.no_space += 1,
            Some(_) => {}
        }
        drop(disk);
        self.note(Operation::Grow, size_bytes, &[], error);
        let _ = promise.keep(error.map_or(Ok(()), Err));
    }

    /// Puts what was done, to which bytes, into the trace.
    fn note(&self, operation: Operation, at: u64, bytes: &[u8], error: Option<DeviceError>) {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        hasher.write_u64(operation as u64);
        hasher.write_u64(at);
        hasher.write_u64(u64::from(error.is_some()));
        hasher.write(bytes);
        self.executor.note(hasher.finish());
    }
}

/// FNV-1a over words of eight bytes, long runs in lanes side by side: the same everywhere, unlike the hashers of the
/// standard library.
struct Fnv(u64);

const LANES: usize = 4;
const PRIME: u64 = 0x0100_0000_01b3;

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let (runs, rest) = bytes.as_chunks::<{ 8 * LANES }>();
        let mut lanes: [u64; LANES] = std::array::from_fn(|lane| self.0 ^ lane as u64);
        for run in runs {
            for (lane, bytes) in lanes.iter_mut().zip(run.as_chunks::<8>().0) {
                *lane = (*lane ^ u64::from_le_bytes(*bytes)).wrapping_mul(PRIME);
            }
        }
        lanes.into_iter().for_each(|lane| self.write_u64(lane));
        rest.chunks_exact(8).for_each(|bytes| self.write_u64(word(bytes)));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(PRIME);
    }
}
