//! Disks: a file in a directory, or a block device, used with direct I/O.

mod grow;
mod handle;
mod open;

use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anvil_model::io::{self as seam, DeviceError, Geometry};
use tokio::sync::Semaphore;

use crate::core::Core;
use crate::op::{self, Held, Op};
use crate::pool::Buffer;
use crate::stats::DiskStats;
pub(crate) use handle::{FileRef, Handle};
use open::Opened;
pub use open::{DiskOptions, OpenError};

/// An open disk, locked against other processes. Shared by all cores; clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    opened: Opened,
    /// Only grows, and only by the holder of the turn; every byte below it is allocated and written.
    size_bytes: AtomicU64,
    grow_turn: Semaphore,
    /// Why no flush may succeed any more. The kernel tells of writes that were lost in one flush only (fsync(2)), which may be one
    /// that a growth makes; and a file that was cut short becomes longer again by the next write.
    lost: OnceLock<DeviceError>,
    stats: Arc<DiskStats>,
}

impl Disk {
    /// Opens the disk at `path`: a directory (the disk is the file `anvil.disk` in it) or a block device, which is
    /// used whole. What a block device held before stays readable until it is written over. Blocks; meant for the
    /// start.
    ///
    /// # Errors
    /// When it is not there, in use, or not usable.
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Self, OpenError> {
        let opened = Opened::open(path, options)?;
        let size_bytes = AtomicU64::new(opened.size_bytes);
        let (grow_turn, lost) = (Semaphore::new(1), OnceLock::new());
        let shared = Shared { opened, size_bytes, grow_turn, lost, stats: Arc::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.opened.path
    }

    /// What it is like.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.shared.opened.geometry
    }

    /// Bytes that may be addressed now.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes.load(Ordering::Acquire)
    }

    /// False when its file system has no direct I/O, so that every byte is copied through the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.shared.opened.direct
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<DiskStats> {
        &self.shared.stats
    }

    /// This disk as `core` uses it. Call it once per core and clone the handle.
    #[must_use]
    pub fn device(&self, core: &Core) -> Device {
        Device { handle: Rc::new(Handle::new(self.clone(), Rc::clone(&core.inner))) }
    }

    fn check(&self, offset: u64, range: &Range<usize>) -> Result<(), DeviceError> {
        let unit = u64::from(self.geometry().unit_bytes);
        let aligned = |bytes: usize| (bytes as u64).is_multiple_of(unit);
        assert!(
            offset.is_multiple_of(unit) && aligned(range.start) && aligned(range.end) && range.start <= range.end,
            "direct I/O at {offset} of {range:?} with a unit of {unit}"
        );
        let end = offset.checked_add(range.len() as u64);
        if end.is_none_or(|end| end > self.size_bytes()) {
            return Err(DeviceError::Io(libc::EINVAL));
        }
        Ok(())
    }

    /// From now on no flush succeeds: with this error, or the first one.
    fn lose(&self, error: DeviceError) -> DeviceError {
        *self.shared.lost.get_or_init(|| error)
    }

    fn note<T>(&self, result: Result<T, DeviceError>) -> Result<T, DeviceError> {
        if result.is_err() {
            self.stats().errors.add(1);
        }
        result
    }
}

/// A disk, opened on one core.
#[derive(Clone, Debug)]
pub struct Device {
    handle: Rc<Handle>,
}

impl Device {
    /// Repeats `step(buffer, what is left, where)` until all of `range` is done.
    async fn transfer(
        &self,
        offset: u64,
        mut buffer: Buffer,
        range: Range<usize>,
        step: fn(&Rc<Handle>, Buffer, &Range<usize>, u64) -> Op,
    ) -> (Result<(), DeviceError>, Buffer) {
        if let Err(error) = self.handle.disk.check(offset, &range) {
            return (Err(error), buffer);
        }
        let mut left = range.clone();
        while !left.is_empty() {
            let at = offset + (left.start - range.start) as u64;
            let (result, held) = step(&self.handle, buffer, &left, at).await;
            buffer = held.into_buffer();
            match usize::try_from(result) {
                // The file has become shorter than it was.
                Ok(0) => return (Err(DeviceError::Io(libc::EIO)), buffer),
                Ok(count) => left.start += count,
                Err(_) if op::is_retry(result) => {}
                Err(_) => return (Err(device_error(result)), buffer),
            }
        }
        (Ok(()), buffer)
    }
}

impl seam::Device for Device {
    type Buffer = Buffer;

    fn geometry(&self) -> Geometry {
        self.handle.disk.geometry()
    }

    fn size_bytes(&self) -> u64 {
        self.handle.disk.size_bytes()
    }

    fn read(
        &self,
        offset: u64,
        buffer: Buffer,
        range: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Buffer)> + 'static {
        let device = self.clone();
        async move {
            let handle = Rc::clone(&device.handle);
            let disk = &handle.disk;
            let _turn = handle.turn().await;
            let length = range.len() as u64;
            let began = handle.now();
            let (result, buffer) = device.transfer(offset, buffer, range, op::read::read).await;
            disk.stats().read_latency.record(handle.now().since(began));
            disk.stats().reads.add(1);
            if result.is_ok() {
                disk.stats().read_bytes.add(length);
            }
            (disk.note(result), buffer)
        }
    }

    fn write(
        &self,
        offset: u64,
        buffer: Buffer,
        range: Range<usize>,
    ) -> impl Future<Output = (Result<(), DeviceError>, Buffer)> + 'static {
        let device = self.clone();
        async move {
            let handle = Rc::clone(&device.handle);
            let disk = &handle.disk;
            let _turn = handle.turn().await;
            let length = range.len() as u64;
            let began = handle.now();
            let (result, buffer) = device.transfer(offset, buffer, range, op::write::write).await;
            disk.stats().write_latency.record(handle.now().since(began));
            disk.stats().writes.add(1);
            if result.is_ok() {
                disk.stats().written_bytes.add(length);
            }
            (disk.note(result), buffer)
        }
    }

    /// Also fails with [`DeviceError::Gone`] when the disk's path no longer names the file that was opened, or that was cut
    /// short: what was written would be lost with this process, or is already.
    fn flush(&self) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            let _turn = handle.turn().await;
            let began = handle.now();
            let result = flush(&handle).await;
            handle.disk.stats().flush_latency.record(handle.now().since(began));
            handle.disk.stats().flushes.add(1);
            handle.disk.note(result)
        }
    }

    /// A block device has its whole size from the beginning; growing it within that does nothing.
    fn grow(&self, size_bytes: u64) -> impl Future<Output = Result<(), DeviceError>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            let result = grow::grow(&handle, size_bytes).await;
            handle.disk.note(result)
        }
    }
}

async fn flush(handle: &Rc<Handle>) -> Result<(), DeviceError> {
    let disk = &handle.disk;
    loop {
        let (result, Held::Nothing) = op::flush::flush(handle).await else { unreachable!("a flush holds nothing") };
        match result {
            0.. => break,
            _ if op::is_retry(result) => {}
            _ => return Err(disk.lose(device_error(result))),
        }
    }
    disk.shared.opened.present(disk.size_bytes()).map_err(|error| disk.lose(error))?;
    disk.shared.lost.get().map_or(Ok(()), |error| Err(*error))
}

/// The meaning of a negative result.
fn device_error(result: i32) -> DeviceError {
    match -result {
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => DeviceError::NoSpace,
        libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESTALE | libc::ENOTCONN => DeviceError::Gone,
        errno => DeviceError::Io(errno),
    }
}
