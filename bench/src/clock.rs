//! CPU time of this thread, and the clock of its CPU.
//!
//! Performance counters cannot be had in most guests. So the frequency is taken from a chain of operations, each of
//! one cycle and waiting for the one before it, that runs right behind what is measured: what lowers the clock there lowers it here.

use std::hint::black_box;

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Keeps this thread, and those that it starts, on one CPU.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    pin_to(&[cpu])
}

/// Keeps this thread, and the threads and processes that it starts, on some CPUs.
pub(crate) fn pin_to(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter()
        .try_for_each(|cpu| set.set(*cpu))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .with_context(|| format!("cannot stay on the CPUs {cpus:?}"))
}

/// Nanoseconds that this thread has used.
pub(crate) fn thread_ns() -> anyhow::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot read the thread's CPU time")?;
    let (seconds, nanos) = (time.tv_sec().cast_unsigned(), time.tv_nsec().cast_unsigned());
    Ok(seconds * 1_000_000_000 + nanos)
}

/// The frequency at this moment, in GHz.
pub(crate) fn gigahertz() -> anyhow::Result<f64> {
    const TURNS: u32 = 1_000;
    const CYCLES_PER_TURN: u32 = 32;
    let (a, b) = black_box((0x9e37_79b9_7f4a_7c15_u64, 0xbf58_476d_1ce4_e5b9));
    let mut value = black_box(1_u64);
    let begun = thread_ns()?;
    for _ in 0..TURNS {
        // An addition and an XOR by turns: no compiler can take two together.
        for _ in 0..CYCLES_PER_TURN / 2 {
            value = value.wrapping_add(a) ^ b;
        }
    }
    black_box(value);
    let nanos = (thread_ns()? - begun).max(1);
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    Ok(f64::from(TURNS * CYCLES_PER_TURN) / nanos as f64)
}
