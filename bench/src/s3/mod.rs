//! `anvil-bench s3`: a closed-loop load on an S3 endpoint, and what it costs the server.
//!
//! Each connection is a blocking thread that sends its next request when the one before it is answered: the client is
//! simple, because the server's CPU is what is judged. Objects are put under one prefix of one bucket and deleted
//! again, also after Ctrl-C; `--keep` leaves them for the next run.

mod connection;
mod payload;
mod report;
mod request;
mod server;
mod sign;
mod tally;
mod worker;

use std::io::IsTerminal;
use std::net::ToSocketAddrs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anvil_runtime::available_cpus;
use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::host::Host;
use crate::signals::{self, Interrupted};
use crate::units;
use connection::Connection;
use payload::{Payload, Promise};
use report::{DiskReport, Report, Row, ServerReport};
use request::{Operation, Target};
use server::{DiskCounts, Server};
use sign::Signer;
use tally::Tally;
use worker::{Phase, Worker};

/// What to do. The credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the server listens, such as http://127.0.0.1:50051
    endpoint: String,
    /// What to do: one operation, or several with their shares, such as get=45,head=30,put=15,delete=10
    #[arg(long, required = true, value_delimiter = ',', value_parser = share, value_name = "OPERATION[=SHARE]")]
    operation: Vec<(Operation, u32)>,
    /// Size of each object, at most 1GiB
    #[arg(long, default_value = "1MiB", value_parser = units::size, value_name = "SIZE")]
    size: u64,
    /// Requests in flight, each on a connection of its own
    #[arg(long, default_value_t = 8, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// What a PUT promises of its body
    #[arg(long, value_enum, default_value_t = Promise::Signed)]
    payload: Promise,
    /// How long to go on
    #[arg(long, default_value = "10s", value_parser = units::duration, value_name = "TIME")]
    duration: Duration,
    /// How many operations at most
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// How many objects are read, listed or deleted; they are put first. When there are only puts: how many keys they
    /// go round over (by default each has a new one)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    objects: Option<u64>,
    /// The objects are there already, from a run with --keep and the same size
    #[arg(long)]
    prepared: bool,
    /// Leaves the objects where they are; otherwise all of them are deleted at the end, prepared ones too
    #[arg(long)]
    keep: bool,
    /// The bucket; it is made when it is not there, and stays
    #[arg(long, default_value = "anvil-bench", value_name = "NAME")]
    bucket: String,
    /// What all keys begin with
    #[arg(long, default_value = "bench/", value_name = "PREFIX")]
    prefix: String,
    /// The region that requests are signed for
    #[arg(long, default_value = "us-east-1", value_name = "NAME")]
    region: String,
    /// The server's process on this machine: its CPU time and memory are shown
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Reads the server's /metrics before and after: what its disks did is shown
    #[arg(long)]
    server_metrics: bool,
    /// Prints one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

/// What is done, as the report says it.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    endpoint: String,
    bucket: String,
    prefix: String,
    mix: Vec<(Operation, u32)>,
    connections: u32,
    size_bytes: u64,
    payload: Promise,
    /// See [`Args::objects`]; 0 when each put has a new key.
    objects: u64,
}

impl Plan {
    fn new(args: &Args) -> anyhow::Result<Self> {
        ensure!(args.size <= SIZE_MAX, "--size is at most {}", units::show_size(SIZE_MAX));
        ensure!(request::is_plain(&args.bucket) && !args.bucket.contains('/'), "--bucket is not a bucket's name");
        ensure!(request::is_plain(&args.prefix), "--prefix takes letters, digits, and any of - _ . /");
        for (at, (operation, share)) in args.operation.iter().enumerate() {
            ensure!(*share > 0, "--operation {operation} has a share of 0");
            let is_twice = args.operation[..at].iter().any(|(other, _)| other == operation);
            ensure!(!is_twice, "--operation {operation} is there twice");
        }
        let only_puts = matches!(args.operation[..], [(Operation::Put, _)]);
        ensure!(!(args.prepared && only_puts), "--prepared says nothing to puts alone");
        Ok(Self {
            endpoint: args.endpoint.clone(),
            bucket: args.bucket.clone(),
            prefix: args.prefix.clone(),
            mix: args.operation.clone(),
            connections: args.connections,
            size_bytes: args.size,
            payload: args.payload,
            objects: args.objects.unwrap_or(if only_puts { 0 } else { OBJECTS_DEFAULT }),
        })
    }

    /// Whether the objects must be there before it begins.
    fn reads(&self) -> bool {
        self.mix.iter().any(|(operation, _)| *operation != Operation::Put)
    }
}

/// Loads the endpoint and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`] after Ctrl-C. Errors of single operations are counted and shown, but a run without
/// one success is an error.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let plan = Plan::new(args)?;
    let target = target(args)?;
    let server = args.server_pid.map(Server::watch).transpose()?;
    let interrupted = signals::catch().context("cannot catch signals")?;
    make_bucket(&target)?;

    let size = usize::try_from(args.size).context("--size is larger than memory")?;
    let run = Run {
        plan: &plan,
        target: &target,
        payload: Payload::new(size, args.payload),
        next: AtomicU64::new(0),
        interrupted: &interrupted,
    };
    let result = run.measure(args, server);
    if !args.keep {
        run.clean();
    }
    let report = result?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    if interrupted.load(Ordering::Relaxed) {
        return Err(Interrupted.into());
    }
    ensure!(report.rows.iter().any(|row| row.operations > 0), "no operation succeeded");
    Ok(())
}

/// One run, from the first object to the last.
struct Run<'a> {
    plan: &'a Plan,
    target: &'a Target,
    payload: Payload,
    /// One more than the highest number that was put.
    next: AtomicU64,
    interrupted: &'a AtomicBool,
}

impl Run<'_> {
    fn measure(&self, args: &Args, server: Option<Server>) -> anyhow::Result<Report<'_>> {
        let plan = self.plan;
        let prepare_seconds = if plan.reads() && !args.prepared { Some(self.prepare()?) } else { None };
        self.next.fetch_max(if plan.reads() { plan.objects } else { 0 }, Ordering::Relaxed);

        let counts = || args.server_metrics.then(|| DiskCounts::read(self.target.address)).transpose();
        let (disks_before, cpu_before) = (counts()?, server.map(Server::cpu).transpose()?);
        let left = args.count.unwrap_or(u64::MAX);
        let deletes_only = matches!(plan.mix[..], [(Operation::Delete, _)]);
        // Deletions begin with the first object.
        let deleted = AtomicU64::new(0);
        let next = if deletes_only { &deleted } else { &self.next };
        let (tally, took) = self.phase("", &plan.mix, plan.objects, left, next, Some(args.duration));
        let (cpu_after, disks_after) = (server.map(Server::cpu).transpose()?, counts()?);

        let seconds = took.as_secs_f64();
        let rows = Row::all(&tally, seconds);
        let server = match (server, cpu_before, cpu_after) {
            (Some(server), Some(before), Some(after)) => {
                Some(ServerReport::new(after.since(before), server.peak_resident_bytes()?, &rows))
            }
            _ => None,
        };
        let disks = disks_before.zip(disks_after).map(|(before, after)| DiskReport::new(after.since(before), &rows));
        let cpus = available_cpus();
        let host = Host::look(cpus.first().copied().unwrap_or(0), cpus.len());
        Ok(Report { host, plan, prepare_seconds, seconds, rows, server, disks })
    }

    /// Puts the objects that are then read; says how long it took.
    fn prepare(&self) -> anyhow::Result<f64> {
        let objects = self.plan.objects;
        let (tally, took) = self.phase("preparing", &[(Operation::Put, 1)], 0, objects, &self.next, None);
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        if let Some((_, seen)) = tally.iter().find(|(_, seen)| !seen.errors.is_empty()) {
            let (code, count) = seen.errors.iter().max_by_key(|(_, count)| **count).expect("not empty");
            bail!("{count} of {objects} objects could not be put: {code}");
        }
        Ok(took.as_secs_f64())
    }

    /// Deletes what was put.
    fn clean(&self) {
        let is_round = !self.plan.reads() && self.plan.objects > 0;
        let put = self.next.load(Ordering::Relaxed);
        let count = if is_round { put.min(self.plan.objects) } else { put };
        // It is done to the end, also after Ctrl-C; a second one ends the process.
        let never = AtomicBool::new(false);
        let run = Run { interrupted: &never, payload: self.payload.clone(), next: AtomicU64::new(0), ..*self };
        let (tally, _) = run.phase("deleting", &[(Operation::Delete, 1)], count, count, &run.next, None);
        let failed: u64 = tally.iter().flat_map(|(_, seen)| seen.errors.values()).sum();
        if failed > 0 {
            eprintln!("anvil-bench: {failed} objects could not be deleted");
        }
    }

    /// Works with all connections until the time is over, so many operations are done, or nothing is left.
    fn phase(
        &self,
        what: &str,
        mix: &[(Operation, u32)],
        objects: u64,
        count: u64,
        next: &AtomicU64,
        duration: Option<Duration>,
    ) -> (Tally, Duration) {
        let left = AtomicU64::new(count);
        let began = Instant::now();
        let phase = Phase {
            target: self.target,
            payload: &self.payload,
            mix,
            objects,
            left: &left,
            next,
            deadline: duration.map(|duration| began + duration),
            interrupted: self.interrupted,
        };
        let bar = bar(what, duration, count);
        let mut tally = Tally::default();
        std::thread::scope(|scope| {
            let phase = &phase;
            let workers: Vec<_> = (0..self.plan.connections)
                .map(|seed| scope.spawn(move || Worker::new(phase, u64::from(seed)).run()))
                .collect();
            while !bar.is_hidden() && workers.iter().any(|worker| !worker.is_finished()) {
                let done = count - left.load(Ordering::Relaxed);
                let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                bar.set_position(if duration.is_some() { elapsed } else { done });
                bar.set_message(format!("{what} {done} operations"));
                std::thread::sleep(BAR_EVERY);
            }
            for worker in workers {
                tally.add(&worker.join().expect("a worker does not panic"));
            }
        });
        let took = began.elapsed();
        bar.finish_and_clear();
        (tally, took)
    }
}

fn target(args: &Args) -> anyhow::Result<Target> {
    let Some(host) = args.endpoint.strip_prefix("http://").map(|host| host.trim_end_matches('/')) else {
        bail!("the endpoint is {:?}, and must begin with http:// (TLS is not spoken here)", args.endpoint);
    };
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = with_port
        .to_socket_addrs()
        .with_context(|| format!("the endpoint {:?} cannot be found", args.endpoint))?
        .next()
        .with_context(|| format!("the endpoint {:?} has no address", args.endpoint))?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(access_key), Some(secret_key)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
    else {
        bail!("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set");
    };
    Ok(Target {
        host: host.to_owned(),
        address,
        bucket: args.bucket.clone(),
        prefix: args.prefix.clone(),
        signer: Signer::new(access_key, secret_key, args.region.clone()),
    })
}

/// Also finds out whether the endpoint is there and the credentials hold, before anything is measured.
fn make_bucket(target: &Target) -> anyhow::Result<()> {
    let mut connection =
        Connection::open(target.address).with_context(|| format!("cannot connect to {}", target.host))?;
    let head = connection.exchange(target.bucket("HEAD").as_bytes(), b"", true, &mut |_| {})?;
    if head.status == 200 {
        return Ok(());
    }
    let mut body = Vec::new();
    let put =
        Connection::open(target.address)?
            .exchange(target.bucket("PUT").as_bytes(), b"", false, &mut |piece| body.extend_from_slice(piece))?;
    let text = String::from_utf8_lossy(&body);
    let says = worker::element(&text, "Code").unwrap_or("without a code");
    ensure!(put.status == 200, "bucket {} cannot be made: {} {says}", target.bucket, put.status);
    Ok(())
}

/// A bar on a terminal's stderr.
fn bar(what: &str, duration: Option<Duration>, count: u64) -> ProgressBar {
    let shown = std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
    let length = duration.map_or(count, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let style = ProgressStyle::with_template("[{bar:30}] {msg}").expect("the template is valid");
    ProgressBar::with_draw_target(Some(length), target)
        .with_style(style.progress_chars("=> "))
        .with_message(what.to_owned())
}

/// Reads `get` or `get=45`.
fn share(text: &str) -> Result<(Operation, u32), String> {
    let (name, share) = text.split_once('=').unwrap_or((text, "1"));
    let operation = <Operation as clap::ValueEnum>::from_str(name, false)
        .map_err(|_| format!("`{name}` is none of put, get, head, list, delete"))?;
    let share = share.parse().ok().filter(|share| *share <= 1000).ok_or("a share is a number up to 1000")?;
    Ok((operation, share))
}

/// Objects are put from memory.
const SIZE_MAX: u64 = 1 << 30;
const OBJECTS_DEFAULT: u64 = 1000;
const BAR_EVERY: Duration = Duration::from_millis(200);
