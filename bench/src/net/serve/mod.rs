//! Servers that answer nothing but what is measured, one for each runtime, with one thread.

mod anvil;
#[cfg(feature = "monoio")]
mod monoio;
mod threads;
#[cfg(feature = "tokio-net")]
mod tokio;

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};

use anyhow::Context;
use clap::ValueEnum;

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Runtime {
    /// Anvil's own, as the server uses it
    Anvil,
    /// None: a blocking thread for each connection, all on one CPU
    Threads,
    /// The crate tokio: its runtime of one thread, on epoll
    #[cfg(feature = "tokio-net")]
    Tokio,
    /// The crate monoio, on io_uring
    #[cfg(feature = "monoio")]
    Monoio,
}

impl Runtime {
    /// As the command line says it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Serves on `cpu` until the process ends; with the address, where that is.
    pub(super) fn serve(self, address: SocketAddr, cpu: usize) -> anyhow::Result<SocketAddr> {
        let (bound, result) = mpsc::channel();
        match self {
            Self::Anvil => anvil::start(address, cpu, bound)?,
            Self::Threads => start(cpu, move || threads::serve(address, &bound)),
            #[cfg(feature = "tokio-net")]
            Self::Tokio => start(cpu, move || tokio::serve(address, &bound)),
            #[cfg(feature = "monoio")]
            Self::Monoio => start(cpu, move || monoio::serve(address, &bound)),
        }
        let result = result.recv().context("the server has ended before it began")?;
        result.with_context(|| format!("cannot listen on {address}"))
    }
}

/// Where it listens, or why it does not.
type Bound = Sender<io::Result<SocketAddr>>;

/// Runs a server on a thread of its own, and of those that this one starts, on one CPU.
#[allow(clippy::needless_pass_by_value, reason = "a thread takes what it runs")]
fn start(cpu: usize, serve: impl FnOnce() -> io::Result<()> + Send + 'static) {
    std::thread::spawn(move || {
        let result = crate::clock::pin(cpu).map_err(io::Error::other).and_then(|()| serve());
        if let Err(error) = result {
            eprintln!("anvil-bench: the server has ended: {error}");
        }
    });
}
