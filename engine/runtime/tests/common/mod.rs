//! What the tests of the runtime share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anvil_model::io::World;
use anvil_runtime::{Core, Io, Options, available_cpus, start};

/// The driver that the tests of this process run on.
pub fn io() -> Io {
    match std::env::var(DRIVER).as_deref() {
        Ok("blocking") => Io::Blocking,
        _ => Io::Uring,
    }
}

/// Runs the tests of this program again on the blocking driver, in a child; all must pass. Each program has a test of
/// this name that calls it.
pub fn also_without_io_uring() {
    if io() == Io::Blocking {
        return;
    }
    // The pipes to the child are descriptors of this process.
    let _alone = alone();
    let program = std::env::current_exe().unwrap();
    let child =
        Command::new(program).args(["--skip", "also_without_io_uring"]).env(DRIVER, "blocking").output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{text}");
    assert!(text.contains(" passed; 0 failed; 0 ignored") && !text.contains(" 0 passed"), "{text}");
}

const DRIVER: &str = "ANVIL_TEST_DRIVER";

/// Few buffers, so that everything runs out of them; a panic fails the test and not the process.
pub fn options(cores: usize) -> Options {
    Options {
        io: io(),
        cpus: available_cpus().into_iter().cycle().take(cores).collect(),
        buffers_per_core: 4,
        progress_reserve: 1,
        register_buffers: true,
        receive_buffers_per_core: 16,
        receive_buffer_bytes: 1024,
        abort_on_panic: false,
    }
}

/// Runs `main` on every core to its end.
pub fn run<F, Fut>(options: Options, main: F)
where
    F: Fn(Core) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let cores = start(options, main).unwrap_or_else(|error| panic!("{error}"));
    cores.join().unwrap_or_else(|error| panic!("{error}"));
}

/// Runs `main` on one core to its end.
pub fn run_one<F, Fut>(main: F)
where
    F: Fn(Core) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    run(options(1), main);
}

/// Polls `future` at most `polls` times, with turns of the core in between, then drops it. Its output if it got there.
pub async fn poll_some<T>(core: &Core, polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        core.yield_now().await;
    }
    None
}

/// Waits until `condition` holds; fails the test when it does not within ten seconds.
pub async fn wait_until(core: &Core, what: &str, condition: impl Fn() -> bool) {
    let deadline = core.now() + Duration::from_secs(10);
    while !condition() {
        assert!(core.now() < deadline, "waited in vain: {what}");
        core.sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the core has all its buffers back and only `operations` operations with the kernel, one of which is the
/// doorbell's.
pub async fn settled(core: &Core, operations: u64) {
    let stats = core.stats();
    wait_until(core, "all buffers and operations come back", || {
        stats.buffers_free.value() == stats.buffers_total.value()
            && stats.receive_buffers_free.value() == stats.receive_buffers_total.value()
            && stats.operations_live.value() == operations
    })
    .await;
}

/// File descriptors of this process.
pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Lets tests that look at the whole process run one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Byte `index` of a stream that looks different everywhere.
pub fn pattern(index: usize) -> u8 {
    let word = (index as u64 / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_le_bytes()[index % 8] ^ (index as u8)
}

/// The bytes of the stream from `start` on.
pub fn pattern_bytes(start: usize, count: usize) -> Vec<u8> {
    (start..start + count).map(pattern).collect()
}
