//! One sample of a piece of code over bytes, and the figure that many of them make.

use crate::clock::{gigahertz, thread_ns};

/// CPU time that a sample takes at least.
const SAMPLE_NS: u64 = 400_000;

/// What a sample showed.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) cycles_per_byte: f64,
    /// Of the CPU, right behind it.
    pub(crate) gigahertz: f64,
}

impl Sample {
    /// Runs `work`, which takes a number of turns over `bytes` bytes each: first one turn, which brings the bytes into the
    /// caches and says how many make a sample.
    pub(crate) fn take(bytes: f64, mut work: impl FnMut(u32) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let warming = thread_ns()?;
        work(1)?;
        let once_ns = (thread_ns()? - warming).max(1);
        let turns = u32::try_from((SAMPLE_NS / once_ns).clamp(2, 1 << 16))?;
        let begun = thread_ns()?;
        work(turns)?;
        let nanos = thread_ns()? - begun;
        let gigahertz = gigahertz()?;
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        Ok(Self { cycles_per_byte: nanos as f64 * gigahertz / (f64::from(turns) * bytes), gigahertz })
    }

    /// The lower quartile: others on the machine can only make a sample slower. `None` when there is no sample.
    pub(crate) fn lower_quartile(samples: &mut [Self]) -> Option<Self> {
        samples.sort_by(|a, b| a.cycles_per_byte.total_cmp(&b.cycles_per_byte));
        samples.get(samples.len() / 4).copied()
    }

    pub(crate) fn gigabytes_per_second(self) -> f64 {
        self.gigahertz / self.cycles_per_byte
    }
}
