//! The seam: everything that the store and the stories ask of the world.
//!
//! `runtime` implements it on io_uring with one thread per core, `sim` on one thread from one seed. A value of
//! [`World`] belongs to one core and never leaves it; what crosses cores goes through bounded `tokio::sync`
//! channels, which need no runtime and behave the same in both worlds. A reply channel is made before the request
//! is sent, so a reply always has room and never blocks.
//!
//! Rules that both worlds keep:
//! - An operation owns its buffer until the device is done with it. Dropping the future of an operation cancels it;
//!   the buffer returns to its pool only when the device has let go of it. A cancelled write may or may not have
//!   happened, in any part.
//! - A completed write is readable at once, and durable only after a flush that began after its completion.
//! - Nothing here blocks a thread.

use std::future::Future;
use std::ops::{DerefMut, Range};
use std::time::Duration;

use crate::ids::CoreId;
use crate::time::{Moment, WallTime};

/// One core's view of the world. Cheap to clone.
pub trait World: Clone + 'static {
    /// Memory that a device can read and write.
    type Buffer: Buffer;
    /// A disk, opened on this core.
    type Device: Device<Buffer = Self::Buffer>;
    /// A spawned task.
    type Task: Task;

    /// The core that this value belongs to.
    fn core(&self) -> CoreId;
    /// How many cores the process runs; at least 1.
    fn core_count(&self) -> u16;
    /// A clock that never goes back.
    fn now(&self) -> Moment;
    /// The clock on the wall, which may go back.
    fn wall_clock(&self) -> WallTime;
    /// 64 unpredictable bits (in simulation: from the seed).
    fn random(&self) -> u64;
    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;
    /// Runs `future` on this core.
    #[must_use = "dropping a task cancels it"]
    fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Self::Task;
    /// Runs `future` on this core behind the tasks of [`Self::spawn`]: for scrub, reclaim and the sweep, which no
    /// client waits for. It is slowed down by them and never stopped.
    #[must_use = "dropping a task cancels it"]
    fn spawn_background(&self, future: impl Future<Output = ()> + 'static) -> Self::Task {
        self.spawn(future)
    }
    /// A buffer from this core's pool; waits, first come first served, until one is free. Contents are undefined
    /// (but initialised).
    fn buffer(&self, reserve: Reserve) -> impl Future<Output = Self::Buffer> + 'static;
}

/// Whose buffers may be taken. The last ones of a pool are kept for those on whom others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Requests of clients.
    Foreground,
    /// Work that requests wait for: the metadata log, packs, seals. Never starved by the foreground.
    Progress,
}

/// A spawned task. Dropping it cancels the task at its next await.
pub trait Task: 'static {
    /// Lets the task run to its end by itself.
    fn detach(self);
}

/// Memory of [`BUFFER_BYTES`](crate::limits::BUFFER_BYTES) bytes, aligned to
/// [`BUFFER_ALIGNMENT`](crate::limits::BUFFER_ALIGNMENT), or an exclusive view of a part of it. Goes back to its pool when
/// its last view is dropped. Whatever is bounded in buffers counts a buffer once, however it is split.
pub trait Buffer: DerefMut<Target = [u8]> + Sized + 'static {
    /// Gives away the front: returns a view of the first `at` bytes and keeps those behind them. Ranges of both begin at
    /// zero from here on.
    ///
    /// # Panics
    /// When `at` is no multiple of [`BUFFER_ALIGNMENT`](crate::limits::BUFFER_ALIGNMENT), or would leave either empty.
    #[must_use = "the front is given back when it is dropped"]
    fn split_to(&mut self, at: usize) -> Self;

    /// Joins this view with the one that begins where it ends.
    ///
    /// # Panics
    /// When they are not neighbours in one buffer.
    #[must_use = "both are given back when this is dropped"]
    fn unsplit(self, other: Self) -> Self;
}

/// A disk's address space, opened on one core. Clones share the handle. Offsets and lengths are bytes and must be
/// multiples of [`Geometry::unit_bytes`]; a violation is a bug and panics.
pub trait Device: Clone + 'static {
    /// The buffers that this device's operations own while they run.
    type Buffer: Buffer;

    /// What the device is like.
    fn geometry(&self) -> Geometry;
    /// Bytes that are allocated and written now, and so may be addressed.
    fn size_bytes(&self) -> u64;
    /// Reads exactly `range.len()` bytes at `offset` into `buffer[range]`.
    fn read(
        &self,
        offset: u64,
        buffer: Self::Buffer,
        range: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Self::Buffer)> + 'static;
    /// Writes all of `buffer[range]` at `offset`.
    fn write(
        &self,
        offset: u64,
        buffer: Self::Buffer,
        range: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Self::Buffer)> + 'static;
    /// Makes every write that completed before this call durable.
    fn flush(&self) -> impl Future<Output = Result<(), DeviceError>> + 'static;
    /// Grows the disk to `size_bytes`: allocates, fills the new part with zeros and makes both durable, so that
    /// later writes into it need no allocation. All clones on all cores see the new size. Runs in the background
    /// of other operations. Fails with [`DeviceError::NoSpace`] and leaves the old size when there is no room,
    /// counting the space that the operator reserved for others.
    fn grow(&self, size_bytes: u64) -> impl Future<Output = Result<(), DeviceError>> + 'static;
}

/// What a device asks of those who use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Alignment of offsets, lengths and memory: a power of two, 512 to 4096. The larger of what direct I/O asks
    /// for (statx(2), `stx_dio_*_align`) and the physical sector.
    pub unit_bytes: u32,
    /// The largest size that [`Device::grow`] may ask for: what the operator allowed, or the whole device.
    pub capacity_bytes_max: u64,
    /// True when the device says that it has a volatile write cache, or does not say.
    pub volatile_cache: bool,
}

/// Why a device did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The operation failed with this error number (errno(3)).
    #[error("input/output error (os error {0})")]
    Io(i32),
    /// The file system or device has no room left.
    #[error("no space left")]
    NoSpace,
    /// The disk has gone: unmounted, removed, unplugged.
    #[error("the disk is gone")]
    Gone,
    /// An administrator took the disk out of use. No device says this.
    #[error("the disk is out of use")]
    Offline,
}
