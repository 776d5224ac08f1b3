//! The `anvil` binary in a process of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::s3::{Client, Credentials};

/// A directory for a test's files, on a real file system, removed at the end.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory takes files")
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The command before the command: `prlimit` and its like. They must end in `exec`, so that the pid is the node's.
    pub prefix: Vec<String>,
    /// Another copy of the binary.
    pub binary: Option<PathBuf>,
    /// More arguments of `anvil dev`.
    pub arguments: Vec<String>,
    /// Variables.
    pub environment: Vec<(String, String)>,
}

/// A running node, killed when dropped. Its log is shown when the test fails.
#[derive(Debug)]
pub struct Node {
    process: Child,
    log: PathBuf,
    /// Where it answers.
    pub address: SocketAddr,
    /// What it printed.
    pub credentials: Credentials,
    /// What it said above them.
    pub banner: String,
    /// From the start of the process to the first 200 of `/ready`.
    pub start_time: Duration,
}

impl Node {
    /// Starts `anvil dev` on a free port and waits until it is ready.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &Options::default())
    }

    /// The same with options.
    pub fn start_with(data_dir: &Path, options: &Options) -> Self {
        let log = data_dir.with_extension("log");
        let begun = Instant::now();
        let mut process = spawn(data_dir, options, &log);
        let lines = drain(process.stdout.take().expect("piped"));
        let mut printed = Printed::default();
        let node = loop {
            match lines.recv_timeout(START_TIME_MAX.saturating_sub(begun.elapsed())) {
                Ok(line) => printed.read(&line),
                Err(error) => {
                    process.kill().ok();
                    let status = process.wait();
                    show_log(&log);
                    panic!("the node did not print its credentials: {error}, {status:?}");
                }
            }
            if let Some((address, credentials)) = printed.complete() {
                let banner = printed.banner;
                break Self { process, log, address, credentials, banner, start_time: Duration::ZERO };
            }
        };
        node.wait_until_ready(begun)
    }

    /// Starts it and ends it with SIGKILL after this time, however far it has come.
    pub fn start_and_kill(data_dir: &Path, options: &Options, after: Duration) {
        let mut process = spawn(data_dir, options, &data_dir.with_extension("log"));
        std::thread::sleep(after);
        process.kill().expect("it is our child");
        process.wait().expect("it is our child");
    }

    fn wait_until_ready(mut self, begun: Instant) -> Self {
        while status_of_ready(self.address) != Some(200) {
            assert!(begun.elapsed() < START_TIME_MAX, "the node is not ready after {START_TIME_MAX:?}");
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                panic!("the node ended while it started: {status}");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        self.start_time = begun.elapsed();
        self
    }

    /// An S3 client with the node's credentials.
    pub fn client(&self) -> Client {
        Client::new(self.address, self.credentials.clone())
    }

    /// The endpoint as clients take it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `/ready` answers.
    pub fn ready(&self) -> u16 {
        status_of_ready(self.address).expect("the node answers")
    }

    /// The whole answer of `/ready`.
    pub fn ready_answer(&self) -> String {
        get(self.address, "/ready").expect("the node answers")
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> String {
        get(self.address, "/metrics").expect("the node answers")
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.metrics();
        let samples = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let values: Vec<f64> =
            samples.map(|line| line.rsplit(' ').next().unwrap_or_default().parse().expect("a number")).collect();
        assert!(!values.is_empty(), "{name} is not in\n{page}");
        values.iter().sum()
    }

    /// What its start had to read: the figures of its log's last line about that.
    pub fn recovered(&self) -> String {
        let log = fs::read_to_string(&self.log).expect("the log is there");
        let line = log.lines().rev().find(|line| line.contains("extents_scanned=")).expect("a start says what it read");
        line.split_once("took_ms=").expect("it says how long it took").1.to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A value of `/proc/PID/status` in bytes, such as `VmHWM`.
    pub fn memory_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the node runs");
        let line = status.lines().find(|line| line.split(':').next() == Some(name)).expect("the kernel knows it");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib << 10
    }

    /// Ends it as a crash would: SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }

    /// Ends it as an operator would: SIGTERM, and exit code 0 in good time.
    pub fn stop(self) {
        let (status, _) = self.terminate();
        assert!(status.success(), "after SIGTERM the node ended with {status}");
    }

    /// SIGTERM, unless it has ended by itself; gives how it ended and what it said.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        // A process that has ended takes signals until it is waited for.
        kill(pid, Signal::SIGTERM).expect("it is our child");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                return (status, fs::read_to_string(&self.log).expect("the log is there"));
            }
            assert!(begun.elapsed() < STOP_TIME_MAX, "the node still runs {STOP_TIME_MAX:?} after SIGTERM");
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            show_log(&self.log);
        }
    }
}

/// Starts a node that has to refuse; gives what it says.
pub fn start_to_fail(data_dir: &Path, options: &Options) -> String {
    let log = data_dir.with_extension("refusal");
    let mut process = spawn(data_dir, options, &log);
    let _lines = drain(process.stdout.take().expect("piped"));
    let begun = Instant::now();
    loop {
        if let Some(status) = process.try_wait().expect("it is our child") {
            let said = fs::read_to_string(&log).expect("the log is there");
            assert_eq!(status.code(), Some(1), "{said}");
            return said;
        }
        if begun.elapsed() > START_TIME_MAX {
            process.kill().ok();
            process.wait().ok();
            panic!("the node neither starts nor ends");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The binary that is tested: `ANVIL_TEST_BINARY`, or the one that Cargo built beside the tests.
pub fn anvil() -> PathBuf {
    std::env::var_os("ANVIL_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_anvil").into()).into()
}

fn spawn(data_dir: &Path, options: &Options, log: &Path) -> Child {
    let binary = options.binary.clone().unwrap_or_else(anvil);
    let mut words = options.prefix.iter().map(Into::into).chain([binary.into_os_string()]);
    let mut command = Command::new(words.next().expect("the binary at least"));
    command.args(words).arg("dev").arg("--data-dir").arg(data_dir).args(["--http-bind-addr", "127.0.0.1:0"]);
    command.args(&options.arguments);
    // So that every test can be run on the other driver.
    if let Ok(driver) = std::env::var("ANVIL_TEST_DRIVER")
        && !options.arguments.iter().any(|argument| argument == "--io")
    {
        command.args(["--io", &driver]);
    }
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANVIL_") || name == "HTTP_BIND_ADDR") {
        command.env_remove(name);
    }
    // All clients of a test have one address.
    command.envs([("ANVIL_LIMIT_ANONYMOUS", "off"), ("ANVIL_LIMIT_LOGINS", "off")]);
    let errors = File::options().create(true).append(true).open(log).expect("the log can be written");
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    command.spawn().expect("the binary can be started")
}

/// The credentials among the lines that `anvil dev` prints to be pasted into a shell.
#[derive(Debug, Default)]
struct Printed {
    access_key: Option<String>,
    secret_key: Option<String>,
    endpoint: Option<String>,
    banner: String,
}

impl Printed {
    fn read(&mut self, line: &str) {
        if line.starts_with('#') {
            self.banner += line;
            self.banner.push('\n');
        }
        let Some(assignments) = line.trim().strip_prefix("export ") else { return };
        for assignment in assignments.split_whitespace() {
            let Some((name, value)) = assignment.split_once('=') else { continue };
            let value = Some(value.trim_matches(['\'', '"']).to_owned());
            match name {
                "AWS_ACCESS_KEY_ID" => self.access_key = value,
                "AWS_SECRET_ACCESS_KEY" => self.secret_key = value,
                "AWS_ENDPOINT_URL" => self.endpoint = value,
                _ => {}
            }
        }
    }

    fn complete(&self) -> Option<(SocketAddr, Credentials)> {
        let (Some(access_key), Some(secret_key), Some(endpoint)) = (&self.access_key, &self.secret_key, &self.endpoint)
        else {
            return None;
        };
        let (_, address) = endpoint.split_once("://").unwrap_or_default();
        let address = address.trim_end_matches('/').parse();
        let address = address.unwrap_or_else(|_| panic!("{endpoint} is not an endpoint"));
        Some((address, Credentials { access_key: access_key.clone(), secret_key: secret_key.clone() }))
    }
}

/// Reads lines for as long as there are any, so that the node never waits for its reader.
fn drain(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            sender.send(line).ok();
        }
    });
    lines
}

fn status_of_ready(address: SocketAddr) -> Option<u16> {
    get(address, "/ready")?.split(' ').nth(1)?.parse().ok()
}

/// The whole answer, with its head.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn show_log(log: &Path) {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- the end of the node's log");
    lines[lines.len().saturating_sub(60)..].iter().for_each(|line| eprintln!("{line}"));
    eprintln!("---");
}

const START_TIME_MAX: Duration = Duration::from_secs(120);
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
