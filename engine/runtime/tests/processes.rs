//! What concerns a whole process: an ordinary user's limits, and the end by a panic. Most tests run themselves again as a
//! child process, which takes the limits on.

mod common;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anvil_model::io::{Device as _, DeviceError, Reserve, Task as _, World};
use anvil_runtime::{Disk, DiskOptions, Io, Options, ProbeError, StartError, start};
use tempfile::TempDir;

use common::{alone, io, options, run, run_one};

const CHILD: &str = "ANVIL_RUNTIME_TEST_CHILD";

/// Runs the test `name` of this program in a child, which must pass.
fn in_child(name: &str) {
    let (status, text) = child(name);
    assert!(status.success() && text.contains("1 passed"), "{text}");
}

/// Runs the test `name` of this program in a child; gives how it ended and what it printed.
fn child(name: &str) -> (ExitStatus, String) {
    // Without privileges, the memory that other tests lock counts towards this one's limit.
    let _alone = alone();
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status, text)
}

fn is_root() -> bool {
    // SAFETY: geteuid(2) takes no memory.
    unsafe { libc::geteuid() == 0 }
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the kernel reads a local variable.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// The limit of an ordinary user: some cores have their buffers registered, others not.
#[test]
fn a_memlock_limit_of_8_mib_is_enough() {
    if !is_child() {
        return in_child("a_memlock_limit_of_8_mib_is_enough");
    }
    become_user(65_534, 8 << 20);
    let registered = write_and_read(Options { buffers_per_core: 6, ..options(3) });
    assert!((0..=1).contains(&registered), "6 MiB fit once, unless another process of this user has locked memory");
}

/// A limit in which nothing fits but the rings, and the second of them only when it is made smaller.
#[test]
fn a_memlock_limit_of_128_kib_is_enough() {
    if !is_child() {
        // An ordinary user may have more than that locked already, in other processes.
        if is_root() {
            in_child("a_memlock_limit_of_128_kib_is_enough");
        }
        return;
    }
    become_user(65_533, 128 << 10);
    assert_eq!(write_and_read(options(2)), 0);
}

/// Becomes a user without privileges and with this limit on locked memory: root could lock what it likes. Each test takes
/// another user, because the kernel counts over all processes of a user.
fn become_user(user: u32, memlock_bytes: u64) {
    limit(libc::RLIMIT_MEMLOCK, memlock_bytes);
    if is_root() {
        // SAFETY: these calls take no memory.
        unsafe {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setresgid(user, user, user), 0);
            assert_eq!(libc::setresuid(user, user, user), 0);
        }
    }
}

/// Writes and reads a disk on every core; gives how many of them have registered buffers.
fn write_and_read(options: Options) -> u64 {
    let directory = TempDir::new_in("/tmp").unwrap();
    let disk = Disk::open(directory.path(), &DiskOptions { create: true, ..DiskOptions::default() }).unwrap();
    let registered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&registered);
    run(options, move |core| {
        let (device, count) = (disk.device(&core), Arc::clone(&count));
        async move {
            count.fetch_add(core.stats().buffers_registered.value(), Ordering::Relaxed);
            device.grow(4 << 20).await.unwrap();
            let offset = u64::from(core.core().0) << 20;
            let mut out = core.buffer(Reserve::Foreground).await;
            out.fill(7);
            let (result, mut back) = device.write(offset, out, 0..1 << 20).await;
            result.unwrap();
            device.flush().await.unwrap();
            back.fill(0);
            let (result, back) = device.read(offset, back, 0..1 << 20).await;
            result.unwrap();
            assert!(back[..1 << 20].iter().all(|&byte| byte == 7));
        }
    });
    registered.load(Ordering::Relaxed)
}

/// With enough memlock (or as root) the buffers are registered.
#[test]
fn buffers_are_registered_when_the_limit_allows() {
    let mut memlock = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let _alone = alone();
    // SAFETY: the kernel fills a local variable.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut memlock) }, 0);
    let enough = is_root() || memlock.rlim_cur >= 64 << 20;
    let on_ring = io() == Io::Uring;
    run_one(move |core| async move {
        let registered = core.stats().buffers_registered.value();
        assert_eq!(core.stats().on_ring.value(), u64::from(on_ring));
        assert!(if on_ring { registered == 1 || !enough } else { registered == 0 });
    });
}

/// Where a sandbox refuses io_uring, `auto` runs on the blocking driver and `uring` refuses with a sentence.
#[test]
fn a_sandbox_that_denies_io_uring() {
    if !is_child() {
        return in_child("a_sandbox_that_denies_io_uring");
    }
    deny_io_uring(libc::EPERM);
    let refused = start(Options { io: Io::Uring, ..options(1) }, |_| async {}).unwrap_err();
    assert!(matches!(refused, StartError::Probe(ProbeError::Denied | ProbeError::SwitchedOff)), "{refused}");
    let runs = Options { io: Io::Auto, ..options(2) };
    assert_eq!(write_and_read(runs), 0);
    run(Options { io: Io::Auto, ..options(1) }, |core| async move { assert_eq!(core.stats().on_ring.value(), 0) });
}

/// A kernel without io_uring is the same to us.
#[test]
fn a_kernel_without_io_uring() {
    if !is_child() {
        return in_child("a_kernel_without_io_uring");
    }
    deny_io_uring(libc::ENOSYS);
    let refused = start(Options { io: Io::Uring, ..options(1) }, |_| async {}).unwrap_err();
    assert!(matches!(refused, StartError::Probe(ProbeError::NotBuilt)), "{refused}");
    assert_eq!(write_and_read(Options { io: Io::Auto, ..options(2) }), 0);
}

/// Puts this thread, and those that it starts, where io_uring_setup(2) fails, as the profiles of containers do it
/// (seccomp(2)).
fn deny_io_uring(errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k };
    let number_at = 0;
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let is_setup = libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup) };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number_at),
        is_setup,
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads local variables, whose lengths it is told.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// A growth that the system stops half-way leaves the disk as it was.
#[test]
fn a_growth_that_fails_is_taken_back() {
    if !is_child() {
        return in_child("a_growth_that_fails_is_taken_back");
    }
    limit(libc::RLIMIT_FSIZE, 8 << 20);
    // SAFETY: ignoring a signal installs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let directory = TempDir::new().unwrap();
    let options = DiskOptions { create: true, reserve_percent: 0, ..DiskOptions::default() };
    let disk = Disk::open(directory.path(), &options).unwrap();
    let path = directory.path().join("anvil.disk");
    run_one(move |core| {
        let (device, path) = (disk.device(&core), path.clone());
        async move {
            device.grow(4 << 20).await.unwrap();
            assert_eq!(device.grow(16 << 20).await, Err(DeviceError::NoSpace));
            assert_eq!(device.size_bytes(), 4 << 20);
            assert_eq!(std::fs::metadata(path).unwrap().len(), 4 << 20);
            device.grow(8 << 20).await.unwrap();
        }
    });
}

/// In a server, a panic of one task ends the process with a message that names the core: nothing runs on without it.
#[test]
fn a_panic_ends_the_process() {
    if !is_child() {
        let (status, text) = child("a_panic_ends_the_process");
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{text}");
        assert!(text.contains("core 1 panicked (on purpose)"), "{text}");
        return;
    }
    run(Options { abort_on_panic: true, ..options(2) }, |core| async move {
        if core.core().0 == 1 {
            core.spawn(async { panic!("on purpose") }).detach();
        }
        std::future::pending().await
    });
}

/// All of the above on the blocking driver.
#[test]
fn also_without_io_uring() {
    common::also_without_io_uring();
}
