//! Programs of others that run beside a node: on free ports of 127.0.0.1, gone with the test.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::clients::find;

/// A file of the repository, by its path from the root.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    log: PathBuf,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Daemon {
    /// Starts `program` with its files in `directory`, and waits until it takes connections at `address`. The command is
    /// completed by `prepare`.
    pub(crate) fn start(
        program: &str,
        directory: &Path,
        address: SocketAddr,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let log = directory.join(format!("{program}.log"));
        let output = File::create(&log).unwrap();
        let mut command = Command::new(find(program));
        command.current_dir(directory).env("HOME", directory).env("XDG_DATA_HOME", directory);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        prepare(&mut command);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut daemon = Self { process, log, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = daemon.process.try_wait().unwrap();
            assert!(ended.is_none(), "{program} ended: {ended:?}");
            assert!(begun.elapsed() < Duration::from_secs(60), "{program} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// An address that nobody listens at.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
