//! Opening a disk: what it is, whether it is ours alone, how it wants to be used. Blocks; runs at start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anvil_model::io::{DeviceError, Geometry};

use super::grow;

/// How a disk is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The largest size that it may grow to; `None` is all that the file system or block device has.
    pub capacity_bytes: Option<u64>,
    /// Growing leaves this share of the file system free for others; 0 to 100.
    pub reserve_percent: u8,
    /// Make the directory and the file in it when they do not exist.
    pub create: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { capacity_bytes: None, reserve_percent: 5, create: false }
    }
}

/// Why a disk could not be opened. The text names the path.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or this one) has it open.
    #[error("the disk {0} is in use, by another process or as another disk of this one")]
    InUse(PathBuf),
    /// There is no disk at this path, and none was to be made.
    #[error("there is no disk at {0}")]
    NotFound(PathBuf),
    /// Neither a directory nor a block device.
    #[error("{0} is neither a directory nor a block device")]
    WrongKind(PathBuf),
    /// It asks for a larger alignment than 4096 bytes.
    #[error("the disk {0} asks for an alignment of {1} bytes; at most 4096 are supported")]
    Alignment(PathBuf, u32),
    /// The system refused.
    #[error("cannot {step} the disk {path}: {source}")]
    Io {
        /// Which disk.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A disk's file and all that is known about it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    /// The device, or the file in the directory.
    pub(super) file_path: PathBuf,
    /// Holds the lock (flock(2)) until it is closed: by us, and by the kernel for operations that are under way. So the
    /// lock of a process that was killed ends after the last of its writes, and not before.
    pub(super) file: File,
    pub(super) geometry: Geometry,
    pub(super) size_bytes: u64,
    pub(super) direct: bool,
    pub(super) reserve_percent: u8,
    identity: Identity,
}

/// What tells a file from another one that has taken its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    File { device: u64, inode: u64 },
    Block { number: u64 },
}

impl Opened {
    pub(super) fn open(path: &Path, options: &DiskOptions) -> Result<Self, OpenError> {
        assert!(options.reserve_percent <= 100, "a share");
        let failed = |step| move |source| OpenError::Io { path: path.to_owned(), step, source };
        let file_path = find(path, options.create)?;
        let new = options.create && !file_path.exists();
        let (file, direct) = open_file(&file_path, options.create).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => OpenError::NotFound(path.to_owned()),
            // A block device that is mounted or part of something.
            Some(libc::EBUSY) => OpenError::InUse(path.to_owned()),
            _ => failed("open")(error),
        })?;
        lock(&file).map_err(|error| match error.raw_os_error() {
            Some(libc::EWOULDBLOCK) => OpenError::InUse(path.to_owned()),
            _ => failed("lock")(error),
        })?;
        if new {
            sync_names(path).map_err(failed("make durable"))?;
        }
        if !direct {
            tracing::warn!(disk = %path.display(), "no direct I/O here: every byte is copied through the page cache");
        }
        let metadata = file.metadata().map_err(failed("examine"))?;
        let identity = Identity::of(&metadata);
        let unit_bytes = unit_bytes(&file, identity, direct);
        if unit_bytes > UNIT_BYTES_MAX {
            return Err(OpenError::Alignment(path.to_owned(), unit_bytes));
        }
        let (present, room) = match identity {
            Identity::Block { .. } => {
                let bytes = block_device_bytes(&file).map_err(failed("measure"))?;
                (bytes, bytes)
            }
            Identity::File { .. } => {
                let room = grow::space(&file_path).map_err(failed("measure"))?;
                (metadata.len(), room.total_bytes)
            }
        };
        let whole_units = |bytes: u64| bytes / u64::from(unit_bytes) * u64::from(unit_bytes);
        let capacity = options.capacity_bytes.unwrap_or(room).min(room);
        let size_bytes = match identity {
            Identity::Block { .. } => whole_units(capacity),
            Identity::File { .. } => whole_units(present),
        };
        let geometry = Geometry {
            unit_bytes,
            // What is there already was allowed once.
            capacity_bytes_max: whole_units(capacity).max(size_bytes),
            volatile_cache: has_volatile_cache(identity),
        };
        let reserve_percent = options.reserve_percent;
        Ok(Self { path: path.to_owned(), file_path, file, geometry, size_bytes, direct, reserve_percent, identity })
    }

    /// Whether the path names the file that is open, with all the bytes that it had. A file that was unlinked, or whose
    /// file system was unmounted or covered by another, takes writes and flushes without complaint, and nobody will find
    /// them again; one that was cut short has lost what was behind its end.
    pub(super) fn present(&self, size_bytes: u64) -> Result<(), DeviceError> {
        let named = fs::metadata(&self.file_path).map_err(|error| unnamed(&error))?;
        let identity = Identity::of(&named);
        let is_whole = matches!(identity, Identity::Block { .. }) || named.len() >= size_bytes;
        if identity == self.identity && is_whole { Ok(()) } else { Err(DeviceError::Gone) }
    }
}

/// What it means that a path cannot be looked at: nothing is there, or its file system fails.
pub(super) fn unnamed(error: &io::Error) -> DeviceError {
    match error.raw_os_error() {
        Some(libc::EIO) => DeviceError::Io(libc::EIO),
        _ => DeviceError::Gone,
    }
}

impl Identity {
    fn of(metadata: &fs::Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Block { number: metadata.rdev() }
        } else {
            Self::File { device: metadata.dev(), inode: metadata.ino() }
        }
    }

    /// Where the kernel describes the block device below.
    fn queue(self) -> [PathBuf; 2] {
        let (Self::Block { number } | Self::File { device: number, .. }) = self;
        let device = format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number));
        // A partition has no queue of its own; its parent has.
        [format!("{device}/queue").into(), format!("{device}/../queue").into()]
    }

    fn queue_value(self, name: &str) -> Option<String> {
        let texts = self.queue().into_iter().map(|queue| fs::read_to_string(queue.join(name)));
        texts.flatten().next().map(|text| text.trim().to_owned())
    }
}

/// The file that is the disk: the device itself, or the one in the directory.
fn find(path: &Path, create: bool) -> Result<PathBuf, OpenError> {
    let failed = |step| move |source| OpenError::Io { path: path.to_owned(), step, source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(path.join(FILE_NAME)),
        Ok(metadata) if metadata.file_type().is_block_device() => Ok(path.to_owned()),
        Ok(_) => Err(OpenError::WrongKind(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            fs::create_dir_all(path).map_err(failed("make the directory of"))?;
            Ok(path.join(FILE_NAME))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::NotFound(path.to_owned())),
        Err(error) => Err(failed("look at")(error)),
    }
}

/// Opens with direct I/O where the file system has it.
fn open_file(path: &Path, create: bool) -> io::Result<(File, bool)> {
    let is_block = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
    // On a block device O_EXCL asks that nothing else uses it, mounts among them (open(2)).
    let exclusive = if is_block { libc::O_EXCL } else { 0 };
    let open = |flags| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create && !is_block).mode(0o600).custom_flags(flags | exclusive);
        options.open(path)
    };
    match open(libc::O_DIRECT) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((open(0)?, false)),
        Err(error) => Err(error),
    }
}

fn lock(file: &File) -> io::Result<()> {
    // SAFETY: flock(2) takes a descriptor, which `file` keeps open, and no memory.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes the name of a new file, and of its directory, survive a crash.
fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    let directory = fs::canonicalize(directory)?;
    match directory.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// What direct I/O asks for (statx(2), `STATX_DIOALIGN`), or the physical sector if that is larger, so that no write
/// makes the disk read first.
fn unit_bytes(file: &File, identity: Identity, direct: bool) -> u32 {
    let asked = if direct { direct_alignment(file) } else { None };
    let sector = identity.queue_value("physical_block_size").and_then(|text| text.parse().ok());
    let unit = asked.unwrap_or(UNIT_BYTES_MAX).max(sector.unwrap_or(0)).max(UNIT_BYTES_MIN);
    unit.checked_next_power_of_two().unwrap_or(u32::MAX)
}

/// The larger of the alignments of memory and offset; `None` when the file system does not say.
fn direct_alignment(file: &File) -> Option<u32> {
    // SAFETY: a statx is numbers only, for all of which zero is valid.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_DIOALIGN;
    // SAFETY: the empty path is a constant and the answer is ours; the descriptor is open as long as `file`.
    let status = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, mask, &raw mut answer) };
    let answered = status == 0 && answer.stx_mask & mask != 0;
    let alignment = answer.stx_dio_mem_align.max(answer.stx_dio_offset_align);
    (answered && alignment > 0).then_some(alignment)
}

fn block_device_bytes(file: &File) -> io::Result<u64> {
    let mut bytes = 0_u64;
    // SAFETY: the kernel writes eight bytes to a local variable (ioctl_list(2), BLKGETSIZE64).
    if unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) } == 0 {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// True unless the kernel says that the device writes through.
fn has_volatile_cache(identity: Identity) -> bool {
    identity.queue_value("write_cache").is_none_or(|text| text != "write through")
}

/// The disk in its directory.
const FILE_NAME: &str = "anvil.disk";
const UNIT_BYTES_MIN: u32 = 512;
/// What `anvil_model::io::Geometry` allows.
const UNIT_BYTES_MAX: u32 = 4096;
/// `_IOR(0x12, 114, size_t)` of linux/fs.h on 64-bit machines.
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
