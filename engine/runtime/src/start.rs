//! From options to running cores, and to their end.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use anvil_model::ids::CoreId;

use crate::core::{Core, Inner};
use crate::executor;
use crate::net::placement::Placement;
use crate::pool;
use crate::probe::{ProbeError, probe};
use crate::stats::CoreStats;

/// Which driver does the I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// io_uring where the host lets us, otherwise the blocking driver, with a warning.
    #[default]
    Auto,
    /// io_uring, or no start.
    Uring,
    /// epoll, and threads for the disks: for hosts that forbid io_uring. Works the same, and costs more.
    Blocking,
}

/// How the cores are made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CPU of each core, in the order of their ids; a CPU may stand here twice. See [`available_cpus`].
    pub cpus: Vec<usize>,
    /// Which driver does the I/O.
    pub io: Io,
    /// Pool buffers of each core, `BUFFER_BYTES` each. They are resident memory when they could be registered.
    pub buffers_per_core: usize,
    /// How many of them are kept for `Reserve::Progress`; less than `buffers_per_core`.
    pub progress_reserve: usize,
    /// Has the kernel take the buffers beforehand (io_uring_register_buffers(3)), where it lets us: an operation of a disk
    /// then costs less. False only to measure how much.
    pub register_buffers: bool,
    /// Small receive buffers of each core: a power of two, at most 32768.
    pub receive_buffers_per_core: u16,
    /// Bytes of each small receive buffer: 512 to 1 MiB.
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
            io: Io::Auto,
            buffers_per_core: 32,
            progress_reserve: 4,
            register_buffers: true,
            receive_buffers_per_core: 256,
            receive_buffer_bytes: 16 << 10,
            abort_on_panic: true,
        }
    }
}

impl Options {
    fn check(&self) -> Result<(), StartError> {
        let rules = [
            (!self.cpus.is_empty() && self.cpus.len() <= CORES_MAX, "a node has 1 to 1024 cores"),
            (self.progress_reserve < self.buffers_per_core, "the progress reserve must leave buffers for requests"),
            (self.buffers_per_core <= pool::SLOTS_MAX, "a core has at most 1 TiB of buffers"),
            (
                self.receive_buffers_per_core.is_power_of_two() && self.receive_buffers_per_core <= 1 << 15,
                "the number of receive buffers must be a power of two, at most 32768",
            ),
            ((512..=1 << 20).contains(&self.receive_buffer_bytes), "a receive buffer has 512 bytes to 1 MiB"),
        ];
        match rules.into_iter().find(|(kept, _)| !kept) {
            Some((_, rule)) => Err(StartError::Options(rule)),
            None => Ok(()),
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
    threads: Vec<JoinHandle<()>>,
    ends: Receiver<Result<(), JoinError>>,
    stats: Arc<[Arc<CoreStats>]>,
}

impl Cores {
    /// The counters of all cores, in the order of their ids.
    #[must_use]
    pub fn stats(&self) -> Arc<[Arc<CoreStats>]> {
        Arc::clone(&self.stats)
    }

    /// Waits (blocking) until every core has ended, or one has panicked; the others are left running then.
    ///
    /// # Errors
    /// When a core panicked.
    pub fn join(self) -> Result<(), JoinError> {
        for _ in &self.threads {
            self.ends.recv().expect("every core says how it ended")?;
        }
        for thread in self.threads {
            thread.join().expect("a core has caught its panics before it said how it ended");
        }
        Ok(())
    }
}

/// The CPUs that this process may use (sched_getaffinity(2)), in ascending order.
#[must_use]
pub fn available_cpus() -> Vec<usize> {
    // SAFETY: a cpu_set_t is an array of bits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills a local variable of the size that it is told.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return vec![0];
    }
    let count = 8 * size_of_val(&set);
    // SAFETY: the index is less than the number of bits.
    (0..count).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
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
    options.check()?;
    let options = Options { io: choose(options.io)?, ..options };
    let stats: Arc<[Arc<CoreStats>]> = options.cpus.iter().map(|_| Arc::default()).collect();
    let placement = Placement::new(Arc::clone(&stats));
    let (options, main) = (Arc::new(options), Arc::new(main));
    let (ready, readies) = mpsc::channel();
    let (end, ends) = mpsc::channel();
    let mut threads = Vec::new();
    let mut go_signals = Vec::new();
    for (id, cpu) in (0..).map(CoreId).zip(options.cpus.clone()) {
        let (go, going) = mpsc::channel();
        let (options, main, stats) = (Arc::clone(&options), Arc::clone(&main), Arc::clone(&stats));
        let (ready, end, placement) = (ready.clone(), end.clone(), Arc::clone(&placement));
        let body = move || {
            let Some(inner) = prepare(id, cpu, &options, (stats, placement), &ready) else { return };
            drop(ready);
            // A closed channel means that another core failed to start.
            if going.recv().is_err() {
                return;
            }
            let abort = options.abort_on_panic.then_some(id);
            if options.register_buffers {
                inner.register_buffers();
            }
            let core = Core { inner: inner.clone() };
            let result = executor::run(&inner, Box::pin(async move { main(core).await }), abort);
            drop(inner);
            // Nobody may be waiting.
            let _ = end.send(result.map_err(|message| JoinError { core: id, message }));
        };
        let spawned = thread::Builder::new().name(format!("anvil-core-{id}")).spawn(body);
        let thread = spawned.map_err(|source| StartError::Core { core: id, step: "start its thread", source })?;
        threads.push(thread);
        go_signals.push(go);
    }
    drop(ready);
    if let Err(error) = all_ready(&readies, threads.len()) {
        drop(go_signals);
        for thread in threads {
            thread.join().expect("a core that did not begin has nothing to panic about");
        }
        return Err(error);
    }
    for go in go_signals {
        go.send(()).expect("a core that is ready waits for it");
    }
    Ok(Cores { threads, ends, stats })
}

/// Finds out which driver it is to be; never gives [`Io::Auto`].
fn choose(wanted: Io) -> Result<Io, ProbeError> {
    match (wanted, probe()) {
        (Io::Blocking, _) => Ok(Io::Blocking),
        (Io::Auto | Io::Uring, Ok(_)) => Ok(Io::Uring),
        (Io::Auto, Err(error)) if error.is_of_the_host() => {
            tracing::warn!(
                "running without io_uring, on the blocking driver: small disk operations cost several times the CPU. \
                 To have io_uring back: {error}"
            );
            Ok(Io::Blocking)
        }
        (_, Err(error)) => Err(error),
    }
}

type Ready = Result<(), StartError>;

/// Makes a core on its own thread and says whether that worked.
fn prepare(
    id: CoreId,
    cpu: usize,
    options: &Options,
    (stats, placement): (Arc<[Arc<CoreStats>]>, Arc<Placement>),
    ready: &Sender<Ready>,
) -> Option<std::rc::Rc<Inner>> {
    let made = pin(cpu).map_err(|source| ("run on its CPU", source));
    let made = made.and_then(|()| Inner::new(id, options, stats, placement));
    let (inner, report) = match made {
        Ok(inner) => (Some(inner), Ok(())),
        Err((step, source)) => (None, Err(StartError::Core { core: id, step, source })),
    };
    ready.send(report).ok()?;
    inner
}

fn all_ready(readies: &Receiver<Ready>, count: usize) -> Result<(), StartError> {
    (0..count).try_for_each(|_| readies.recv().expect("every core says whether it is ready"))
}

/// Keeps this thread on one CPU.
fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is an array of bits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of_val(&set) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the index is less than the number of bits.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads a local variable of the size that it is told.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

const CORES_MAX: usize = 1024;
