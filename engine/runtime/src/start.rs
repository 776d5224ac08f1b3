//! From options to running cores, and to their end.

use std::future::Future;
use std::io;
use std::sync::Arc;

use anvil_model::ids::CoreId;

use crate::core::Core;
use crate::probe::ProbeError;
use crate::stats::CoreStats;

/// How the cores are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CPU of each core, in the order of their ids; a CPU may stand here twice. See [`available_cpus`].
    pub cpus: Vec<usize>,
    /// Pool buffers of each core, `BUFFER_BYTES` each. They are resident memory when they could be registered.
    pub buffers_per_core: usize,
    /// How many of them are kept for `Reserve::Progress`; less than `buffers_per_core`.
    pub progress_reserve: usize,
    /// Small receive buffers of each core: a power of two, at most 32768.
    pub receive_buffers_per_core: u16,
    /// Bytes of each small receive buffer.
    pub receive_buffer_bytes: usize,
    /// A panic in a task ends the process (true, as a server wants it: a core must not die in silence), or only its
    /// core, which [`Cores::join`] then reports (false, for tests).
    pub abort_on_panic: bool,
}

impl Default for Options {
    /// Every available CPU; 32 buffers (32 MiB) and 256 receive buffers of 16 KiB (4 MiB) per core.
    fn default() -> Self {
        Self {
            cpus: available_cpus(),
            buffers_per_core: 32,
            progress_reserve: 4,
            receive_buffers_per_core: 256,
            receive_buffer_bytes: 16 << 10,
            abort_on_panic: true,
        }
    }
}

/// Why the cores did not start. None of them runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(&'static str),
    /// This host cannot run the engine.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A core could not get what it needs.
    #[error("core {core} cannot {step}: {source}")]
    Core {
        /// Which.
        core: CoreId,
        /// What it tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A core ended by a panic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("core {core} panicked: {message}")]
pub struct JoinError {
    /// Which.
    pub core: CoreId,
    /// What the panic said.
    pub message: String,
}

/// The running cores.
#[derive(Debug)]
pub struct Cores {
    stats: Arc<[Arc<CoreStats>]>,
}

impl Cores {
    /// The counters of all cores, in the order of their ids.
    #[must_use]
    pub fn stats(&self) -> Arc<[Arc<CoreStats>]> {
        Arc::clone(&self.stats)
    }

    /// Waits (blocking) until every core has ended, or one has panicked.
    ///
    /// # Errors
    /// When a core panicked.
    pub fn join(self) -> Result<(), JoinError> {
        todo!()
    }
}

/// The CPUs that this process may use (sched_getaffinity(2)), in ascending order.
#[must_use]
pub fn available_cpus() -> Vec<usize> {
    todo!()
}

/// Starts one thread per entry of `options.cpus`, each with its own ring, and runs `main` on each. A core ends when
/// its `main` has ended: then its remaining tasks are dropped, its operations cancelled and reaped, its ring closed.
///
/// # Errors
/// When a core cannot have what it needs; then none of them runs.
pub fn start<F, Fut>(options: Options, main: F) -> Result<Cores, StartError>
where
    F: Fn(Core) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    todo!()
}
