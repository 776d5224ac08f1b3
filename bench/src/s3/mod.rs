//! `anvil-bench s3`: a load on an S3 endpoint, and what it costs the server.
//!
//! Each connection is a blocking thread: the client is simple, because the server's CPU is what is judged. Without a rate
//! (closed loop) each sends its next request when the one before it is answered. With one (open loop) operations have
//! moments at which they begin, whatever became of those before, and latency counts from there: a server that stalls
//! shows it in every operation that was to begin meanwhile. Objects are put under one prefix of one bucket and deleted
//! again, also after Ctrl-C; `--keep` leaves them for the next run.

mod connection;
mod disks;
mod payload;
mod report;
mod request;
mod sign;
mod worker;

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::host::Medium;
use crate::load::report::{Prepared, ServerReport};
use crate::load::{Pace, Tally, check_mix, due, rate, share};
use crate::run::{Bar, Run, RunArgs};
use crate::signals::Interrupted;
use crate::units;
use connection::Connection;
use disks::DiskCounts;
use payload::Payloads;
use report::{DeviceReport, DiskReport};
use request::Target;
use sign::Signer;
use worker::{Phase, Worker};

pub(crate) use crate::load::report::Row;
pub(crate) use crate::load::{Server, Sizes, Usage};
pub(crate) use payload::Promise;
pub(crate) use report::Report;
pub(crate) use request::Operation;

/// What to do. The credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the server listens, such as http://127.0.0.1:50051
    endpoint: String,
    #[command(flatten)]
    load: LoadArgs,
    /// How many operations at most
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// The objects are there already, from a run with --keep and the same --size
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
    /// Where the server stores, on this machine: what kind of disk that is, and what it did, are shown
    #[arg(long, value_name = "PATH")]
    server_disk: Option<PathBuf>,
    /// Reads the server's /metrics before and after: what its disks did is shown
    #[arg(long)]
    server_metrics: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// What is done to any endpoint.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// What to do: one operation, or several with their shares, such as get=45,head=30,put=15,delete=10
    #[arg(long, required = true, value_delimiter = ',', value_parser = share::<Operation>, value_name = "OPERATION[=SHARE]")]
    operation: Vec<(Operation, u32)>,
    /// Size of each object, at most 1GiB; several with their shares, such as 4KiB=70,1MiB=30; or from one to another by
    /// doubling, such as 4KiB..1MiB
    #[arg(long, default_value = "1MiB", value_name = "SIZE")]
    size: Sizes,
    /// Connections, and so the most requests in flight
    #[arg(long, default_value_t = 8, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Operations to begin each second, over all connections (open loop); latency then counts from the moment when each was
    /// to begin. By default each begins when the one before it on its connection has ended (closed loop)
    #[arg(long, value_parser = rate, value_name = "OPERATIONS")]
    rate: Option<f64>,
    /// What a PUT promises of its body
    #[arg(long, value_enum, default_value_t = Promise::Signed)]
    payload: Promise,
    /// How many objects are read, listed or deleted; they are put first, in at most half of the time. When there are only
    /// puts: how many keys they go round over (by default each has a new one)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    objects: Option<u64>,
    /// Bytes of each part that `multipart` puts, at least 5MiB
    #[arg(long, default_value = "8MiB", value_parser = units::size, value_name = "SIZE")]
    part_size: u64,
}

/// What is done, as the report says it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) mix: Vec<(Operation, u32)>,
    pub(crate) connections: u32,
    pub(crate) sizes: Sizes,
    pub(crate) payload: Promise,
    /// See [`LoadArgs::objects`]; 0 when each put has a new key.
    pub(crate) objects: u64,
    /// Operations to begin each second; none in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) part_bytes: u64,
}

impl Plan {
    /// # Errors
    /// One sentence, when the flags contradict themselves.
    pub(crate) fn new(args: &LoadArgs) -> anyhow::Result<Self> {
        check_mix(&args.operation)?;
        ensure!(args.part_size >= PART_BYTES_MIN, "--part-size is at least {}", units::show_size(PART_BYTES_MIN));
        let mut plan = Self {
            mix: args.operation.clone(),
            connections: args.connections,
            sizes: args.size.clone(),
            payload: args.payload,
            objects: 0,
            rate: args.rate,
            part_bytes: args.part_size,
        };
        plan.objects = args.objects.unwrap_or(if plan.reads() { OBJECTS_DEFAULT } else { 0 });
        Ok(plan)
    }

    /// Whether the objects must be there before it begins.
    pub(crate) fn reads(&self) -> bool {
        self.mix.iter().any(|(operation, _)| !operation.writes())
    }

    fn has_parts(&self) -> bool {
        self.mix.iter().any(|(operation, _)| *operation == Operation::Multipart)
    }
}

/// Where a load goes, and who watches.
#[derive(Debug)]
pub(crate) struct Endpoint {
    url: String,
    target: Target,
    /// The server's process, on this machine.
    pub(crate) server: Option<Server>,
    /// Where it stores.
    pub(crate) disk: Option<PathBuf>,
    /// It has Anvil's metrics.
    pub(crate) has_metrics: bool,
}

/// Who asks, and for what.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) region: String,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

/// How far a load goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Preparation included; deleting comes on top.
    pub(crate) duration: Duration,
    /// Operations.
    pub(crate) count: Option<u64>,
    /// The objects are there already.
    pub(crate) prepared: bool,
    /// They stay.
    pub(crate) keep: bool,
}

/// Loads the endpoint and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`] after Ctrl-C. Errors of single operations are counted and shown, but a run without
/// one success is an error.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let plan = Plan::new(&args.load)?;
    ensure!(!args.prepared || plan.reads(), "--prepared says nothing to puts alone");
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(access_key), Some(secret_key)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
    else {
        bail!("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set");
    };
    let access = Access {
        access_key,
        secret_key,
        region: args.region.clone(),
        bucket: args.bucket.clone(),
        prefix: args.prefix.clone(),
    };
    let mut endpoint = Endpoint::new(&args.endpoint, access)?;
    endpoint.server = args.server_pid.map(Server::watch).transpose().context("--server-pid is of no use")?;
    endpoint.disk.clone_from(&args.server_disk);
    endpoint.has_metrics = args.server_metrics;
    if let Some(disk) = &endpoint.disk {
        ensure!(disk.exists(), "--server-disk {} does not exist", disk.display());
    }
    let run = args.run.begin("s3")?;
    run.pin()?;
    endpoint.make_bucket()?;
    run.print_header();
    let bar = run.bar();
    let limits = Limits { duration: run.duration(), count: args.count, prepared: args.prepared, keep: args.keep };
    let report = measure(&endpoint, &plan, limits, &run, &bar)?;
    bar.finish();
    run.finish(&report, Report::print)?;
    ensure!(report.operations() > 0, "no operation succeeded");
    Ok(())
}

/// Prepares the endpoint, loads it, and deletes what was put.
///
/// # Errors
/// When it cannot be prepared or watched; [`Interrupted`] when the user ended it before anything was counted.
pub(crate) fn measure(
    endpoint: &Endpoint,
    plan: &Plan,
    limits: Limits,
    run: &Run,
    bar: &Bar,
) -> anyhow::Result<Report> {
    let load = Load {
        plan,
        endpoint,
        payloads: Payloads::new(&plan.sizes, plan.payload, plan.has_parts().then_some(plan.part_bytes))?,
        next: AtomicU64::new(0),
        interrupted: run.interrupted(),
        bar,
    };
    let result = load.measure(limits);
    if !limits.keep {
        load.clean();
    }
    result
}

/// One load, from the first object to the last.
struct Load<'a> {
    plan: &'a Plan,
    endpoint: &'a Endpoint,
    payloads: Payloads,
    /// One more than the highest number that was put.
    next: AtomicU64,
    interrupted: &'a AtomicBool,
    bar: &'a Bar,
}

/// What of a phase differs from others.
struct Work<'a> {
    what: &'a str,
    mix: &'a [(Operation, u32)],
    /// See [`Phase::objects`].
    objects: u64,
    /// Operations at most.
    count: u64,
    next: &'a AtomicU64,
    duration: Option<Duration>,
    rate: Option<f64>,
}

impl Load<'_> {
    fn measure(&self, limits: Limits) -> anyhow::Result<Report> {
        let (plan, endpoint) = (self.plan, self.endpoint);
        let began = Instant::now();
        let is_to_prepare = plan.reads() && !limits.prepared;
        let prepared = if is_to_prepare { Some(self.prepare(limits.duration / 2)?) } else { None };
        let objects = prepared.map_or(plan.objects, |prepared| prepared.objects);
        self.next.fetch_max(if plan.reads() { objects } else { 0 }, Ordering::Relaxed);

        let medium = endpoint.disk.as_deref().map(Medium::look);
        let device = || medium.as_ref().and_then(Medium::counts);
        let disks = || endpoint.has_metrics.then(|| DiskCounts::read(endpoint.target.address)).transpose();
        let usage = || endpoint.server.map(Server::usage).transpose();
        let (device_before, disks_before, usage_before) = (device(), disks()?, usage()?);
        let deletes_only = matches!(plan.mix[..], [(Operation::Delete, _)]);
        // Deletions begin with the first object.
        let deleted = AtomicU64::new(0);
        // Also when the last objects came late: a run without a figure is of no use to anybody.
        let duration = limits.duration.saturating_sub(began.elapsed()).max(limits.duration / 4);
        let (tally, took) = self.phase(&Work {
            what: "measuring",
            mix: &plan.mix,
            objects,
            count: limits.count.unwrap_or(u64::MAX),
            next: if deletes_only { &deleted } else { &self.next },
            duration: Some(duration),
            rate: plan.rate,
        });
        let (usage_after, disks_after, device_after) = (usage()?, disks()?, device());

        let seconds = took.as_secs_f64();
        let rows = Row::all(&tally, seconds, plan.rate.is_some());
        let tried: u64 = rows.iter().map(|row| row.operations + row.errors.values().sum::<u64>()).sum();
        let server = match (endpoint.server, usage_before.zip(usage_after)) {
            (Some(server), Some((before, after))) => {
                let peak = server.peak_resident_bytes()?;
                Some(ServerReport::new(server.context()?, after.since(before), peak, &rows))
            }
            _ => None,
        };
        let counts = device_before.zip(device_after).map(|(before, after)| after.since(before));
        let device = endpoint.disk.clone().zip(medium);
        Ok(Report {
            endpoint: endpoint.url.clone(),
            bucket: endpoint.target.bucket.clone(),
            prefix: endpoint.target.prefix.clone(),
            plan: plan.clone(),
            prepared,
            seconds,
            not_begun: plan.rate.map_or(0, |rate| {
                let until = took.min(duration).as_secs_f64();
                // Nothing more was there to begin when --count was reached, or all objects were deleted.
                let most = limits.count.unwrap_or(u64::MAX).min(if deletes_only { objects } else { u64::MAX });
                due(rate, until).min(most).saturating_sub(tried)
            }),
            server,
            disks: disks_before.zip(disks_after).map(|(before, after)| DiskReport::new(after.since(before), &rows)),
            device: device.map(|(path, medium)| DeviceReport::new(path, medium, counts, &rows)),
            rows,
        })
    }

    /// Puts the objects that are then read, as many as the time allows.
    fn prepare(&self, duration: Duration) -> anyhow::Result<Prepared> {
        let (tally, took) = self.phase(&Work {
            what: "preparing",
            mix: &[(Operation::Put, 1)],
            objects: 0,
            count: self.plan.objects,
            next: &self.next,
            duration: Some(duration),
            rate: None,
        });
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        let objects = self.next.load(Ordering::Relaxed);
        if let Some((_, seen)) = tally.iter().find(|(_, seen)| !seen.errors.is_empty()) {
            let (code, count) = seen.errors.iter().max_by_key(|(_, count)| **count).expect("not empty");
            bail!("{count} of {objects} objects could not be put: {code}");
        }
        ensure!(objects > 0, "no object could be put in half of --duration");
        Ok(Prepared { objects, seconds: took.as_secs_f64() })
    }

    /// Deletes what was put. It is done to the end, also after Ctrl-C; a second one ends the process.
    fn clean(&self) {
        let is_round = !self.plan.reads() && self.plan.objects > 0;
        let put = self.next.load(Ordering::Relaxed);
        let count = if is_round { put.min(self.plan.objects) } else { put };
        let never = AtomicBool::new(false);
        let load = Load { interrupted: &never, payloads: self.payloads.clone(), next: AtomicU64::new(0), ..*self };
        let (tally, _) = load.phase(&Work {
            what: "deleting",
            mix: &[(Operation::Delete, 1)],
            objects: count,
            count,
            next: &load.next,
            duration: None,
            rate: None,
        });
        let failed: u64 = tally.iter().flat_map(|(_, seen)| seen.errors.values()).sum();
        if failed > 0 {
            eprintln!("anvil-bench: {failed} objects could not be deleted");
        }
    }

    /// Works with all connections until the time is over, so many operations are done, or nothing is left.
    fn phase(&self, work: &Work<'_>) -> (Tally<Operation>, Duration) {
        let pace = Pace::new(work.count, work.duration, work.rate, self.interrupted);
        let phase = Phase {
            target: &self.endpoint.target,
            payloads: &self.payloads,
            mix: work.mix,
            objects: work.objects,
            next: work.next,
            pace: &pace,
        };
        let mut tally = Tally::default();
        std::thread::scope(|scope| {
            let phase = &phase;
            let workers: Vec<_> = (0..self.plan.connections)
                .map(|seed| scope.spawn(move || Worker::new(phase, u64::from(seed)).run()))
                .collect();
            while self.bar.is_shown() && workers.iter().any(|worker| !worker.is_finished()) {
                self.bar.say(format!("{} {}", work.what, pace.begun()));
                std::thread::sleep(BAR_EVERY);
            }
            for worker in workers {
                tally.add(&worker.join().expect("a worker does not panic"));
            }
        });
        (tally, pace.elapsed())
    }
}

impl Endpoint {
    /// # Errors
    /// One sentence, when the address or a name cannot be used.
    pub(crate) fn new(url: &str, access: Access) -> anyhow::Result<Self> {
        let Access { access_key, secret_key, region, bucket, prefix } = access;
        ensure!(request::is_plain(&bucket) && !bucket.contains('/'), "--bucket is not a bucket's name");
        ensure!(request::is_plain(&prefix), "--prefix takes letters, digits, and any of - _ . /");
        let Some(host) = url.strip_prefix("http://").map(|host| host.trim_end_matches('/')) else {
            bail!("the endpoint is {url:?}, and must begin with http:// (TLS is not spoken here)");
        };
        let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .with_context(|| format!("the endpoint {url:?} cannot be found"))?
            .next()
            .with_context(|| format!("the endpoint {url:?} has no address"))?;
        let signer = Signer::new(access_key, secret_key, region);
        let target = Target { host: host.to_owned(), address, bucket, prefix, signer };
        Ok(Self { url: url.to_owned(), target, server: None, disk: None, has_metrics: false })
    }

    /// Also finds out whether the endpoint is there and the credentials hold, before anything is measured.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn make_bucket(&self) -> anyhow::Result<()> {
        let target = &self.target;
        let connect = || Connection::open(target.address).with_context(|| format!("cannot connect to {}", target.host));
        let head = connect()?.exchange(target.bucket("HEAD").head.as_bytes(), b"", true, &mut |_| {})?;
        if head.status == 200 {
            return Ok(());
        }
        let mut body = Vec::new();
        let sink = &mut |piece: &[u8]| body.extend_from_slice(piece);
        let put = connect()?.exchange(target.bucket("PUT").head.as_bytes(), b"", false, sink)?;
        let text = String::from_utf8_lossy(&body);
        let says = worker::element(&text, "Code").unwrap_or("without a code");
        ensure!(put.status == 200, "bucket {} cannot be made: {} {says}", target.bucket, put.status);
        Ok(())
    }
}

const OBJECTS_DEFAULT: u64 = 1000;
/// S3 takes no smaller one but the last.
const PART_BYTES_MIN: u64 = 5 << 20;
const BAR_EVERY: Duration = Duration::from_millis(200);
