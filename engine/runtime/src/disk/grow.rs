//! Growing a disk ahead of its use, so that no write on the way of a request allocates.

use std::ffi::CString;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use anvil_model::io::DeviceError;

use super::{Disk, Handle, device_error, flush, open};
use crate::op;
use crate::region::{HUGE_PAGE_BYTES, Region};

/// Allocates, zeroes and makes durable what is missing to `size_bytes`, one caller at a time over all cores.
pub(crate) async fn grow(handle: &Rc<Handle>, size_bytes: u64) -> Result<(), DeviceError> {
    let disk = &handle.disk;
    let unit = u64::from(disk.geometry().unit_bytes);
    assert!(size_bytes.is_multiple_of(unit), "a size of {size_bytes} with a unit of {unit}");
    if size_bytes > disk.geometry().capacity_bytes_max {
        return Err(DeviceError::NoSpace);
    }
    let _turn = disk.shared.grow_turn.acquire().await.expect("the semaphore is never closed");
    let missing = disk.size_bytes()..size_bytes;
    if missing.is_empty() {
        return Ok(());
    }
    // A file that was cut short would have its old length again, with a hole where its bytes were.
    disk.shared.opened.present(missing.start).map_err(|error| disk.lose(error))?;
    check_reserve(disk, missing.end - missing.start)?;
    let result = fill(handle, &missing).await;
    if result.is_err() {
        shrink_back(disk);
    } else {
        disk.shared.size_bytes.store(missing.end, Ordering::Release);
    }
    result
}

async fn fill(handle: &Rc<Handle>, missing: &Range<u64>) -> Result<(), DeviceError> {
    allocate(handle, missing).await?;
    write_zeros(handle, missing).await?;
    flush(handle).await
}

async fn allocate(handle: &Rc<Handle>, missing: &Range<u64>) -> Result<(), DeviceError> {
    loop {
        let (result, _) = op::allocate::allocate(handle, missing).await;
        match -result {
            ..=0 => return Ok(()),
            // A file system that cannot: the zeros allocate as they go.
            libc::EOPNOTSUPP => return lengthen(handle, missing.end),
            _ if op::is_retry(result) => {}
            _ => return Err(device_error(result)),
        }
    }
}

/// What allocation does too. A block device has its length.
fn lengthen(handle: &Rc<Handle>, size_bytes: u64) -> Result<(), DeviceError> {
    let opened = &handle.disk.shared.opened;
    if opened.present(size_bytes).is_ok() {
        return Ok(());
    }
    opened.file.set_len(size_bytes).map_err(|error| DeviceError::Io(error.raw_os_error().unwrap_or(libc::EIO)))
}

async fn write_zeros(handle: &Rc<Handle>, missing: &Range<u64>) -> Result<(), DeviceError> {
    // Never written, so it costs no memory: the kernel shows its own page of zeros. A region that may be a huge page shows a
    // huge one, which a write takes in one piece rather than in 256.
    let zeros = Region::new(HUGE_PAGE_BYTES).map_err(|error| DeviceError::Io(error.raw_os_error().unwrap_or(0)))?;
    zeros.prefer_huge_pages();
    let zeros = Rc::new(zeros);
    let mut offset = missing.start;
    while offset < missing.end {
        // It has its new length already: if not, it was cut short since, and the last piece would hide that.
        handle.disk.shared.opened.present(missing.end).map_err(|error| handle.disk.lose(error))?;
        let length = u32::try_from(missing.end - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let (result, _) = op::write::write_region(handle, &zeros, length, offset).await;
        match u64::try_from(result) {
            Ok(0) => return Err(DeviceError::Io(libc::EIO)),
            Ok(count) => offset += count,
            Err(_) if op::is_retry(result) => {}
            Err(_) => return Err(device_error(result)),
        }
    }
    Ok(())
}

/// Refuses to take what the operator keeps for others on this file system.
fn check_reserve(disk: &Disk, wanted: u64) -> Result<(), DeviceError> {
    let opened = &disk.shared.opened;
    let space = space(&opened.file_path).map_err(|error| open::unnamed(&error))?;
    let kept = space.total_bytes / 100 * u64::from(opened.reserve_percent);
    match space.free_bytes.checked_sub(kept) {
        Some(usable) if usable >= wanted => Ok(()),
        _ => Err(DeviceError::NoSpace),
    }
}

/// Gives back what a failed growth took; a file that was cut short stays as short as it is. This blocks the core for the time
/// of one small change of the file system; it is rare, and leaving the blocks allocated would make a full disk fuller.
fn shrink_back(disk: &Disk) {
    let file = &disk.shared.opened.file;
    let shrunk = file.metadata().and_then(|now| match now.len() > disk.size_bytes() {
        true => file.set_len(disk.size_bytes()),
        false => Ok(()),
    });
    if let Err(error) = shrunk {
        tracing::warn!(disk = %disk.path().display(), %error, "could not give back what a failed growth took");
    }
}

/// The room of a file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) total_bytes: u64,
    /// For those who are not root.
    pub(super) free_bytes: u64,
}

/// Asks the file system that `path` lies on (statvfs(3)); from its memory, without I/O.
pub(super) fn space(path: &std::path::Path) -> std::io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a statvfs is numbers only, for all of which zero is valid.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte and the answer is ours; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut answer) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let total_bytes = answer.f_blocks.saturating_mul(answer.f_frsize);
    Ok(Space { total_bytes, free_bytes: answer.f_bavail.saturating_mul(answer.f_frsize) })
}

/// Zeros are written in pieces of this size, one at a time: in the background of what clients wait for.
const CHUNK_BYTES: u32 = 1 << 20;
