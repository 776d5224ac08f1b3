//! Disks: what is written is read, growth, limits, and disks that vanish.

mod common;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use anvil_model::io::{Buffer as _, Device as _, DeviceError, Reserve, World};
use anvil_runtime::{Buffer, Core, Device, Disk, DiskOptions, OpenError, Options};
use futures_util::future::join_all;
use tempfile::TempDir;

use common::{options, pattern_bytes, run, run_one, settled, wait_until};

const MIB: u64 = 1 << 20;

fn create() -> DiskOptions {
    DiskOptions { create: true, reserve_percent: 0, ..DiskOptions::default() }
}

fn on_disk<F, Fut>(options: DiskOptions, test: F)
where
    F: Fn(Core, Device, PathBuf) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk");
    let disk = Disk::open(&path, &options).unwrap_or_else(|error| panic!("{error}"));
    run_one(move |core| {
        let device = disk.device(&core);
        let test = test(core.clone(), device, path.clone());
        async move {
            test.await;
            settled(&core, 1).await;
        }
    });
}

async fn buffer(core: &Core) -> Buffer {
    core.buffer(Reserve::Foreground).await
}

/// Writes of several sizes and places come back as they were, also after the disk was opened again by other cores.
#[test]
fn what_is_written_is_read() {
    let directory = TempDir::new().unwrap();
    let open = |options: &DiskOptions| Disk::open(directory.path(), options).unwrap_or_else(|error| panic!("{error}"));
    let disk = open(&create());
    run_one(move |core| {
        let device = disk.device(&core);
        async move {
            device.grow(8 * MIB).await.unwrap();
            let unit = device.geometry().unit_bytes as usize;
            for (offset, range) in [(0, 0..unit), (4 * MIB, 4096..4096 + MIB as usize), (unit as u64, 0..3 * unit)] {
                let mut out = buffer(&core).await;
                out[range.clone()].copy_from_slice(&pattern_bytes(offset as usize, range.len()));
                let (result, _) = device.write(offset, out, range).await;
                result.unwrap();
            }
            // The views of one buffer, side by side; what is behind the front of the second one.
            let mut second = buffer(&core).await;
            second[..3 * 4096].copy_from_slice(&pattern_bytes(6 << 20, 3 * 4096));
            let first = second.split_to(4096);
            let writes = (device.write(6 * MIB, first, 0..4096), device.write(6 * MIB + 4096, second, 0..2 * 4096));
            let ((first_result, first), (second_result, second)) = futures_util::join!(writes.0, writes.1);
            first_result.and(second_result).unwrap();
            let (result, second) = device.read(6 * MIB, second, 0..3 * 4096).await;
            result.unwrap();
            assert!(second[..3 * 4096] == pattern_bytes(6 << 20, 3 * 4096), "the front is another view's now");
            assert!(first.unsplit(second)[4096..4 * 4096] == pattern_bytes(6 << 20, 3 * 4096));
            device.flush().await.unwrap();
        }
    });
    let disk = open(&DiskOptions::default());
    assert_eq!(disk.size_bytes(), 8 * MIB);
    let shared = disk.clone();
    run(options(2), move |core| {
        let device = shared.device(&core);
        async move {
            let (result, read) = device.read(4 * MIB, buffer(&core).await, 0..MIB as usize).await;
            result.unwrap();
            assert!(read[..MIB as usize] == pattern_bytes(4 << 20, MIB as usize));
            // Never written: zeros.
            let (result, read) = device.read(7 * MIB, read, 0..MIB as usize).await;
            result.unwrap();
            assert!(read[..MIB as usize].iter().all(|&byte| byte == 0));
        }
    });
    assert_eq!(disk.stats().reads.value(), 4);
    assert_eq!(disk.stats().read_bytes.value(), 4 * MIB);
    assert_eq!(disk.stats().errors.value(), 0);
}

/// Reads and writes of many sizes at once, as many as there are buffers, do not mix up.
#[test]
fn operations_at_once_do_not_mix_up() {
    on_disk(create(), |core, device, _| async move {
        device.grow(64 * MIB).await.unwrap();
        let mut tasks = Vec::new();
        let done = Rc::new(Cell::new(0));
        for number in 0..40_usize {
            let (core, device, done) = (core.clone(), device.clone(), Rc::clone(&done));
            tasks.push(core.clone().spawn(async move {
                let offset = number as u64 * MIB;
                let expected = pattern_bytes(number << 20, 1 << 20);
                let mut out = buffer(&core).await;
                out[..1 << 20].copy_from_slice(&expected);
                let (result, mut back) = device.write(offset, out, 0..1 << 20).await;
                result.unwrap();
                back.fill(0);
                let (result, back) = device.read(offset, back, 0..1 << 20).await;
                result.unwrap();
                assert!(back[..1 << 20] == expected);
                done.set(done.get() + 1);
            }));
        }
        wait_until(&core, "forty round trips", || done.get() == 40).await;
    });
}

/// More operations at once than submissions and completions have room for: all of them end, whether they are waited for
/// or dropped, and the core goes on.
#[test]
fn more_operations_than_the_ring_has_room_for() {
    const OPERATIONS: usize = 6_000;
    on_disk(create(), |core, device, _| async move {
        device.grow(MIB).await.unwrap();
        let many = || join_all((0..OPERATIONS).map(|_| device.flush()));
        assert!(many().await.into_iter().all(|result| result.is_ok()));
        // One poll starts them all, and the drop adds as many cancels.
        assert!(common::poll_some(&core, 1, many()).await.is_none());
        settled(&core, 1).await;
        assert!(core.stats().operations.value() >= 2 * OPERATIONS as u64);
        device.flush().await.unwrap();
    });
}

/// A violated alignment is a bug; an address beyond the disk is an error and extends nothing.
#[test]
fn wrong_addresses_are_refused() {
    on_disk(create(), |core, device, path| async move {
        device.grow(MIB).await.unwrap();
        let (result, _) = device.write(MIB, buffer(&core).await, 0..4096).await;
        assert_eq!(result, Err(DeviceError::Io(libc_einval())));
        let (result, _) = device.read(u64::MAX - 4095, buffer(&core).await, 0..4096).await;
        assert_eq!(result, Err(DeviceError::Io(libc_einval())));
        assert_eq!(std::fs::metadata(path.join("anvil.disk")).unwrap().len(), MIB);
    });
    let directory = TempDir::new().unwrap();
    let disk = Disk::open(directory.path(), &create()).unwrap();
    let cores = anvil_runtime::start(options(1), move |core| {
        let device = disk.device(&core);
        async move {
            let buffer = core.buffer(Reserve::Foreground).await;
            drop(device.read(100, buffer, 0..4096).await);
        }
    });
    let error = cores.unwrap().join().unwrap_err();
    assert!(error.message.contains("direct I/O at 100"), "{error}");
}

const fn libc_einval() -> i32 {
    22
}

/// Growth makes zeros, is seen by all cores, happens once when all ask at once, and stops at the capacity.
#[test]
fn growth_is_shared_and_bounded() {
    let directory = TempDir::new().unwrap();
    let options_disk = DiskOptions { capacity_bytes: Some(16 * MIB), ..create() };
    let disk = Disk::open(directory.path(), &options_disk).unwrap();
    assert_eq!((disk.size_bytes(), disk.geometry().capacity_bytes_max), (0, 16 * MIB));
    let shared = disk.clone();
    run(options(2), move |core| {
        let device = shared.device(&core);
        async move {
            for size in [MIB, 5 * MIB, 3 * MIB, 16 * MIB] {
                device.grow(size).await.unwrap();
                assert!(device.size_bytes() >= size);
            }
            assert_eq!(device.grow(16 * MIB + 4096).await, Err(DeviceError::NoSpace));
        }
    });
    assert_eq!(disk.size_bytes(), 16 * MIB);
    assert_eq!(std::fs::metadata(directory.path().join("anvil.disk")).unwrap().len(), 16 * MIB);
    use std::os::unix::fs::MetadataExt as _;
    let blocks = std::fs::metadata(directory.path().join("anvil.disk")).unwrap().blocks();
    assert!(blocks * 512 >= 16 * MIB, "allocated, not sparse");
}

/// Growth leaves the operator's share of the file system free.
#[test]
fn growth_keeps_the_reserve() {
    on_disk(DiskOptions { reserve_percent: 100, ..create() }, |_, device, path| async move {
        assert_eq!(device.grow(MIB).await, Err(DeviceError::NoSpace));
        assert_eq!(device.size_bytes(), 0);
        assert_eq!(std::fs::metadata(path.join("anvil.disk")).unwrap().len(), 0);
    });
}

/// A disk whose file was unlinked, replaced, or whose directory was renamed acknowledges nothing any more.
#[test]
fn a_disk_that_vanished_is_gone() {
    fn vanish(change: fn(&Path)) {
        on_disk(create(), move |core, device, path| async move {
            device.grow(MIB).await.unwrap();
            device.flush().await.unwrap();
            change(&path);
            let (result, _) = device.write(0, buffer(&core).await, 0..4096).await;
            assert_eq!(result, Ok(()));
            assert_eq!(device.flush().await, Err(DeviceError::Gone));
            assert_eq!(device.grow(2 * MIB).await, Err(DeviceError::Gone));
            // Where the file is still to be found, the failed growth was taken back.
            let away = std::fs::metadata(path.join("away"));
            assert_eq!(away.map_or(MIB, |metadata| metadata.len()), MIB);
        });
    }
    vanish(|path| std::fs::remove_file(path.join("anvil.disk")).unwrap());
    vanish(|path| std::fs::remove_dir_all(path).unwrap());
    vanish(|path| std::fs::rename(path, path.with_extension("away")).unwrap());
    vanish(|path| {
        std::fs::rename(path.join("anvil.disk"), path.join("away")).unwrap();
        std::fs::write(path.join("anvil.disk"), b"another file").unwrap();
    });
}

/// Growth does not hide that a file was cut short.
#[test]
fn a_disk_that_was_cut_short_does_not_grow() {
    on_disk(create(), move |_, device, path| async move {
        device.grow(2 * MIB).await.unwrap();
        std::fs::File::options().write(true).open(path.join("anvil.disk")).unwrap().set_len(MIB).unwrap();
        assert_eq!(device.grow(3 * MIB).await, Err(DeviceError::Gone));
        assert_eq!(std::fs::metadata(path.join("anvil.disk")).unwrap().len(), MIB);
        assert_eq!(device.flush().await, Err(DeviceError::Gone));
    });
}

/// Not while it grows either.
#[test]
fn a_disk_that_is_cut_short_while_it_grows_is_gone() {
    on_disk(create(), move |_, device, path| async move {
        device.grow(2 * MIB).await.unwrap();
        let file = std::fs::File::options().write(true).open(path.join("anvil.disk")).unwrap();
        let cutter = std::thread::spawn(move || {
            while file.metadata().unwrap().len() <= 2 * MIB {
                std::thread::yield_now();
            }
            file.set_len(MIB).unwrap();
        });
        // Known to the growth, or to the flush behind it.
        let grown = device.grow(256 * MIB).await;
        assert!(matches!(grown, Ok(()) | Err(DeviceError::Gone)), "{grown:?}");
        cutter.join().unwrap();
        assert_eq!(device.flush().await, Err(DeviceError::Gone));
    });
}

/// One disk has one user; the lock ends with the last clone.
#[test]
fn a_disk_is_opened_once() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::open(directory.path(), &create()).unwrap();
    let clone = disk.clone();
    assert!(matches!(Disk::open(directory.path(), &create()), Err(OpenError::InUse(_))));
    drop(disk);
    assert!(matches!(Disk::open(directory.path(), &create()), Err(OpenError::InUse(_))));
    drop(clone);
    open_again(directory.path()).unwrap();
}

/// Opens a disk that was closed a moment ago. A child that another test starts has the lock too, until it becomes its program.
fn open_again(path: &Path) -> Result<Disk, OpenError> {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Disk::open(path, &DiskOptions::default()) {
            Err(OpenError::InUse(_)) if std::time::Instant::now() < patience => std::thread::yield_now(),
            result => return result,
        }
    }
}

/// A missing disk is made only when asked for; a file is no disk.
#[test]
fn a_disk_is_made_only_when_asked_for() {
    let directory = TempDir::new().unwrap();
    let inside = directory.path().join("a/b");
    let open = |path: &Path, options: &DiskOptions| Disk::open(path, options).map(|disk| disk.size_bytes());
    assert!(matches!(open(&inside, &DiskOptions::default()), Err(OpenError::NotFound(_))));
    assert!(matches!(open(directory.path(), &DiskOptions::default()), Err(OpenError::NotFound(_))));
    assert!(matches!(open(&inside, &create()), Ok(0)));
    assert!(matches!(open_again(&inside).map(|disk| disk.size_bytes()), Ok(0)));
    assert!(matches!(open(&inside.join("anvil.disk"), &create()), Err(OpenError::WrongKind(_))));
    let error = open(Path::new("/proc/nothing/here"), &create()).unwrap_err();
    assert!(error.to_string().contains("/proc/nothing/here"), "{error}");
}

/// The geometry is one that the store can use.
#[test]
fn geometry_is_sane() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::open(directory.path(), &create()).unwrap();
    let geometry = disk.geometry();
    assert!(geometry.unit_bytes.is_power_of_two() && (512..=4096).contains(&geometry.unit_bytes));
    assert!(geometry.capacity_bytes_max.is_multiple_of(u64::from(geometry.unit_bytes)));
    assert!(geometry.capacity_bytes_max > 0);
    assert_eq!(disk.path(), directory.path());
    drop(Arc::new(disk));
}

/// A loop device over a file of 8 MiB, taken away when dropped.
struct LoopDevice {
    path: PathBuf,
    _directory: TempDir,
}

impl LoopDevice {
    /// `None` for those who may not make one.
    fn make() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("image");
        std::fs::File::create(&file).unwrap().set_len(8 * MIB).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        output.status.success().then_some(Self { path, _directory: directory })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        assert!(detached.is_ok_and(|status| status.success()), "{}", self.path.display());
    }
}

/// A block device is a disk of its whole size that cannot grow further. Needs the right to make a loop device; who does
/// not have it sees the same code with a file in the other tests, but for the size and the lock.
#[test]
fn a_block_device_is_used_whole() {
    let Some(device) = LoopDevice::make() else { return };
    let disk = Disk::open(&device.path, &create()).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(Disk::open(&device.path, &create()), Err(OpenError::InUse(_))));
    assert_eq!((disk.size_bytes(), disk.geometry().capacity_bytes_max), (8 * MIB, 8 * MIB));
    run_one(move |core| {
        let device = disk.device(&core);
        async move {
            device.grow(8 * MIB).await.unwrap();
            assert_eq!(device.grow(9 * MIB).await, Err(DeviceError::NoSpace));
            let mut out = buffer(&core).await;
            out.fill(5);
            let (result, mut back) = device.write(7 * MIB, out, 0..1 << 20).await;
            result.unwrap();
            device.flush().await.unwrap();
            back.fill(0);
            let (result, back) = device.read(7 * MIB, back, 0..1 << 20).await;
            result.unwrap();
            assert!(back[..1 << 20].iter().all(|&byte| byte == 5));
        }
    });
    let smaller = DiskOptions { capacity_bytes: Some(3 * MIB + 1), ..create() };
    assert_eq!(Disk::open(&device.path, &smaller).unwrap().size_bytes(), 3 * MIB);
}

/// However many operations a background task wants at once, few are under way; one that is dropped gives its turn back.
/// The foreground has no such limit.
#[test]
fn the_background_is_bounded_on_the_disk() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::open(directory.path(), &create()).unwrap();
    run(Options { buffers_per_core: 16, ..options(1) }, move |core| {
        let device = disk.device(&core);
        async move {
            device.grow(16 * MIB).await.unwrap();
            let stats = core.stats();
            let reads = |core: &Core| {
                let (core, device) = (core.clone(), device.clone());
                join_all((0..12_u64).map(move |number| {
                    let (core, device) = (core.clone(), device.clone());
                    async move {
                        let buffer = buffer(&core).await;
                        device.read(number * MIB, buffer, 0..1 << 20).await.0.unwrap();
                    }
                }))
            };
            // Its first poll starts all that it may: none can have completed.
            for (is_background, most) in [(true, 4), (false, 12)] {
                for _ in 0..3 {
                    let (began, counted) = (stats.operations.value(), Rc::new(Cell::new(0)));
                    let (mut reading, stats, count) = (Box::pin(reads(&core)), core.stats(), Rc::clone(&counted));
                    let first = async move {
                        let polled = std::future::poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
                        assert!(polled.is_pending());
                        count.set(stats.operations.value() - began);
                    };
                    let task = if is_background { core.spawn_background(first) } else { core.spawn(first) };
                    wait_until(&core, "the first poll", || counted.get() > 0).await;
                    drop(task);
                    assert_eq!(counted.get(), most);
                    settled(&core, 1).await;
                }
            }
            let (done, reading) = (Rc::new(Cell::new(false)), reads(&core));
            let is_done = Rc::clone(&done);
            let _task = core.spawn_background(async move {
                reading.await;
                is_done.set(true);
            });
            wait_until(&core, "all reads of the background", || {
                assert!(stats.operations_live.value() <= 1 + 4);
                done.get()
            })
            .await;
        }
    });
}

/// All of the above on the blocking driver.
#[test]
fn also_without_io_uring() {
    common::also_without_io_uring();
}
