//! A server that runs for one turn.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::recipe::Recipe;
use crate::host::{DeviceCounts, Medium};
use crate::run::Run;
use crate::s3::{Access, Endpoint, Server, Usage};

/// A process with all that it started. Dropping it ends them.
pub(super) struct Running {
    process: Child,
    log: PathBuf,
    pub(super) endpoint: Endpoint,
    pub(super) access: Access,
    pub(super) address: SocketAddr,
    medium: Medium,
}

/// What it had used at some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) usage: Usage,
    pub(super) device: Option<DeviceCounts>,
    pub(super) peak_resident_bytes: u64,
}

impl Running {
    /// Starts it in the new directory `home`, on the CPUs of this thread, and waits until it has a bucket.
    pub(super) fn start(recipe: &Recipe, home: PathBuf, run: &Run) -> anyhow::Result<Self> {
        let data = home.join("data");
        fs::create_dir_all(&data)?;
        // Free now; whoever takes it before the server does makes it fail.
        let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let (address, spare_address) = (one.local_addr()?, other.local_addr()?);
        drop((one, other));
        let access = Access {
            // The form of Garage's, which is the strictest.
            access_key: format!("GK{}", drawn(12)?),
            secret_key: drawn(32)?,
            region: recipe.region.clone(),
            bucket: "anvil-bench".to_owned(),
            prefix: "bench/".to_owned(),
        };
        let filled = |text: &str| {
            text.replace("{data}", &data.display().to_string())
                .replace("{spare_address}", &spare_address.to_string())
                .replace("{address}", &address.to_string())
                .replace("{port}", &address.port().to_string())
                .replace("{access_key}", &access.access_key)
                .replace("{secret_key}", &access.secret_key)
        };
        for directory in &recipe.directories {
            fs::create_dir_all(data.join(filled(directory)))?;
        }
        for (name, content) in &recipe.files {
            fs::write(data.join(name), filled(content))?;
        }
        let log = home.join("log");
        let command = |words: &[String]| -> anyhow::Result<Command> {
            let out = File::options().create(true).append(true).open(&log)?;
            let mut command = Command::new(filled(&words[0]));
            command.args(words[1..].iter().map(|word| filled(word)));
            command.envs(recipe.env.iter().map(|(name, value)| (name, filled(value))));
            command.current_dir(&data).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
            Ok(command)
        };
        // A group of its own: Ctrl-C is ours to pass on, and what it starts ends with it.
        let process = command(&recipe.command)?.process_group(0).spawn();
        let process = process.with_context(|| format!("{} cannot be started", recipe.command[0]))?;
        let mut endpoint = Endpoint::new(&filled(&recipe.endpoint), access.clone())?;
        endpoint.disk = Some(data.clone());
        endpoint.has_metrics = recipe.metrics;
        let medium = Medium::look(&data);
        let (log, access) = (log.clone(), access.clone());
        let mut running = Self { process, log, endpoint, access, address, medium };
        running.wait_until("listens", run, |running| Ok(std::net::TcpStream::connect(running.address).map(drop)?))?;
        for words in &recipe.setup {
            let status = command(words)?.status().with_context(|| format!("{} cannot be run", words[0]))?;
            ensure!(status.success(), "`{}` has failed:{}", words.join(" "), running.last_words());
        }
        running.wait_until("has a bucket", run, |running| running.endpoint.make_bucket())?;
        running.endpoint.server = Some(Server::watch(running.process.id())?);
        Ok(running)
    }

    fn wait_until(&mut self, what: &str, run: &Run, is_so: impl Fn(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let Err(error) = is_so(self) else { return Ok(()) };
            run.check()?;
            if let Some(status) = self.process.try_wait()? {
                bail!("it has ended before it {what} ({status}):{}", self.last_words());
            }
            if begun.elapsed() > START_TIME_MAX {
                bail!("it does not come so far that it {what}: {error:#};{}", self.last_words());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What it has used so far.
    pub(super) fn watch(&self) -> anyhow::Result<Used> {
        let server = self.endpoint.server.context("it is watched from its start")?;
        Ok(Used {
            usage: server.usage()?,
            device: self.medium.counts(),
            peak_resident_bytes: server.peak_resident_bytes()?,
        })
    }

    pub(super) fn used_since(&self, before: &Used) -> anyhow::Result<Used> {
        let now = self.watch()?;
        let device = now.device.zip(before.device).map(|(now, before)| now.since(before));
        Ok(Used { usage: now.usage.since(before.usage), device, ..now })
    }

    /// Ends it, and says so when it had ended before.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("it has ended while it was measured ({status}):{}", self.last_words());
        }
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.process.id()).expect("a process's number fits"));
        // A group that is gone is what we want.
        killpg(group, Signal::SIGTERM).ok();
        let begun = Instant::now();
        while begun.elapsed() < STOP_TIME_MAX && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK_EVERY);
        }
        killpg(group, Signal::SIGKILL).ok();
        self.process.wait().ok();
    }

    /// The end of its log, on one line.
    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(LAST_LINES).collect();
        lines
            .iter()
            .rev()
            .fold(String::new(), |words, line| format!("{words} | {}", line.trim()))
            .replace(&self.access.secret_key, "(secret)")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Letters and digits that nobody can guess.
fn drawn(bytes: usize) -> anyhow::Result<String> {
    let mut drawn = vec![0; bytes];
    getrandom::fill(&mut drawn).context("the system has no random numbers")?;
    Ok(hex::encode(drawn))
}

/// Whether a program of this name is on the PATH; with its place.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file: &PathBuf| Path::is_file(file))
}

const START_TIME_MAX: Duration = Duration::from_secs(60);
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LAST_LINES: usize = 4;
