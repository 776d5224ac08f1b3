//! Whose code does the I/O: the same lanes run on each of them.

#[cfg(feature = "glommio")]
mod glommio;
#[cfg(feature = "monoio")]
mod monoio;
mod runtime;

#[cfg(any(feature = "glommio", feature = "monoio"))]
use std::fs::File;
use std::io;
#[cfg(any(feature = "glommio", feature = "monoio"))]
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use super::measure::Job;
use crate::target::Target;

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BackEnd {
    /// Anvil's runtime on io_uring, as the server uses it
    Uring,
    /// The same without registered buffers
    UringUnregistered,
    /// Anvil's runtime without io_uring: pread(2) and pwrite(2) on threads
    Blocking,
    /// The crate glommio: threads of its own around io_uring
    #[cfg(feature = "glommio")]
    Glommio,
    /// The crate monoio: io_uring without registered buffers
    #[cfg(feature = "monoio")]
    Monoio,
}

impl BackEnd {
    /// As the command line says it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What a lane asks for. Clones share the disk.
pub(super) trait Disk: Clone + 'static {
    /// 1 MiB that direct I/O takes.
    type Buffer: 'static;

    fn bytes(buffer: &mut Self::Buffer) -> &mut [u8];
    async fn buffer(&self) -> Self::Buffer;
    async fn sleep(&self, time: Duration);
    /// Runs it beside the others, to its end.
    fn spawn(&self, lane: impl Future<Output = ()> + 'static);
    /// Bytes that may be addressed.
    fn size_bytes(&self) -> u64;
    async fn grow(&self, size_bytes: u64) -> io::Result<()>;
    /// Exactly `length` bytes, all of them or an error; the same for writes.
    async fn read(&self, offset: u64, buffer: Self::Buffer, length: usize) -> (io::Result<()>, Self::Buffer);
    async fn write(&self, offset: u64, buffer: Self::Buffer, length: usize) -> (io::Result<()>, Self::Buffer);
    async fn flush(&self) -> io::Result<()>;
    /// Whether the kernel has taken the buffers beforehand; `None` when that is not known.
    fn buffers_registered(&self) -> Option<bool>;
}

/// A measurement that runs.
pub(super) enum Running {
    Runtime(anvil_runtime::Cores),
    #[cfg(any(feature = "glommio", feature = "monoio"))]
    Thread(std::thread::JoinHandle<()>),
}

impl Running {
    /// Begins `job` on one thread of this back end. The job's channel is closed when it has ended.
    pub(super) fn start(which: BackEnd, target: &Target, job: Job) -> anyhow::Result<Self> {
        match which {
            BackEnd::Uring | BackEnd::UringUnregistered | BackEnd::Blocking => {
                runtime::start(which, target, job).map(Self::Runtime)
            }
            #[cfg(feature = "glommio")]
            BackEnd::Glommio => glommio::start(target, job).map(Self::Thread),
            #[cfg(feature = "monoio")]
            BackEnd::Monoio => monoio::start(target, job).map(Self::Thread),
        }
    }

    pub(super) fn join(self) -> anyhow::Result<()> {
        match self {
            Self::Runtime(cores) => cores.join().context("a core of the runtime has died"),
            #[cfg(any(feature = "glommio", feature = "monoio"))]
            Self::Thread(thread) => thread.join().map_err(|_| anyhow::anyhow!("the measuring thread has died")),
        }
    }
}

/// Runs it, and tells when it fails or panics: its tasks may keep the channel open for ever.
#[cfg(any(feature = "glommio", feature = "monoio"))]
fn tell_failure<E: std::fmt::Display>(
    events: &std::sync::mpsc::Sender<super::measure::Event>,
    name: &str,
    run: impl FnOnce() -> Result<(), E>,
) {
    let problem = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{name}: {error:#}"),
        Err(_) => format!("{name} has panicked"),
    };
    super::measure::tell(events, super::measure::Event::Ended(Err(io::Error::other(problem))));
}

/// A new file for direct I/O, in the directory that we made.
#[cfg(any(feature = "glommio", feature = "monoio"))]
fn new_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let direct = nix::fcntl::OFlag::O_DIRECT.bits();
    File::options().read(true).write(true).create_new(true).mode(0o600).custom_flags(direct).open(path)
}

/// Allocates: what is filled afterwards needs no more of it.
#[cfg(any(feature = "glommio", feature = "monoio"))]
fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    let size = i64::try_from(size_bytes).map_err(io::Error::other)?;
    Ok(nix::fcntl::posix_fallocate(file, 0, size)?)
}
