//! `anvil-bench grpc`: a load on the ObjectService of a node, or of the peer that `anvil-bench grpc-peer` is, and what it costs the
//! server.
//!
//! Each connection is a thread, with as many callers as `--streams` says: they share it as the calls of one channel do. The server's
//! CPU is what is judged; so chunks are framed once, and answers only compared with what was put. Closed and open loops,
//! objects and their end are as in `anvil-bench s3`.

mod channel;
mod message;
mod operation;
mod payload;
#[cfg(feature = "tonic")]
pub(crate) mod peer;
mod report;
mod session;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anvil_proto::v1;
use anyhow::{Context, anyhow, bail, ensure};
use futures_util::future::join_all;
use serde::Serialize;

use crate::load::report::{Prepared, Row, ServerReport};
use crate::load::{Pace, Server, Sizes, Tally, check_mix, due, rate, share};
use crate::run::{Bar, Run, RunArgs};
use crate::signals::Interrupted;
use crate::units;
use channel::{Channel, Failure};
use operation::Operation;
use payload::Payloads;
use report::Report;
use session::Session;
use worker::{Phase, Worker};

/// What to do. Client id and secret come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the server listens, such as http://127.0.0.1:50051
    endpoint: String,
    /// What to do: one operation, or several with their shares, such as get-object=50,head-object=50
    #[arg(long, required = true, value_delimiter = ',', value_parser = share::<Operation>, value_name = "OPERATION[=SHARE]")]
    operation: Vec<(Operation, u32)>,
    /// Size of each object, at most 1GiB; several with their shares, such as 4KiB=70,1MiB=30; or from one to another by
    /// doubling, such as 4KiB..1MiB
    #[arg(long, default_value = "1MiB", value_name = "SIZE")]
    size: Sizes,
    /// Connections
    #[arg(long, default_value_t = 8, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Calls at once on each connection
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    streams: u32,
    /// Operations to begin each second, over all connections (open loop); latency then counts from the moment when each was
    /// to begin. By default each begins when the one before it has ended (closed loop)
    #[arg(long, value_parser = rate, value_name = "OPERATIONS")]
    rate: Option<f64>,
    /// How many objects are read or deleted; they are put first, in at most half of the time. When there are only
    /// writes: how many keys they go round over (by default each has a new one)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    objects: Option<u64>,
    /// Ranges of each `bidi-read`
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    ranges: u32,
    /// Bytes of each of these ranges, which begin anywhere
    #[arg(long, default_value = "64KiB", value_parser = units::size, value_name = "SIZE")]
    range_size: u64,
    /// Objects of each `batch-get`
    #[arg(long, default_value_t = 100, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    /// Bytes of each chunk that `write-object` sends, 4KiB to 2MiB
    #[arg(long, default_value = "1MiB", value_parser = units::size, value_name = "SIZE")]
    chunk_size: u64,
    /// The largest HTTP/2 frame that this end takes, 16KiB to 8MiB: HTTP/2's own default, which most clients keep
    #[arg(long, default_value = "16KiB", value_parser = units::size, value_name = "SIZE")]
    frame_size: u64,
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
    /// The server's process on this machine: its CPU time and memory are shown
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    #[command(flatten)]
    run: RunArgs,
}

/// What is done, as the report says it.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    mix: Vec<(Operation, u32)>,
    bucket: String,
    prefix: String,
    connections: u32,
    /// Calls at once on each connection.
    streams: u32,
    sizes: Sizes,
    /// See [`Args::objects`]; 0 when each write has a new key.
    objects: u64,
    /// Operations to begin each second; none in a closed loop.
    rate: Option<f64>,
    /// Ranges of a BidiRead.
    ranges: u32,
    range_bytes: u64,
    /// Objects of a BatchGet.
    batch: u32,
    chunk_bytes: u64,
    frame_bytes: u32,
}

impl Plan {
    /// # Errors
    /// One sentence, when the flags contradict themselves.
    fn new(args: &Args) -> anyhow::Result<Self> {
        check_mix(&args.operation)?;
        let has = |of: fn(Operation) -> bool| args.operation.iter().any(|(operation, _)| of(*operation));
        let (least, most) = (args.size.bytes_min(), args.size.bytes_max());
        ensure!(
            !has(Operation::is_small) || most <= SMALL_BYTES_MAX,
            "--size is at most {} for put-object and batch-get",
            units::show_size(SMALL_BYTES_MAX)
        );
        let has_ranges = has(|operation| operation == Operation::BidiRead);
        ensure!(args.range_size > 0, "--range-size is 0");
        ensure!(!has_ranges || least >= args.range_size, "--size is at least --range-size for bidi-read");
        ensure!((4 << 10..=2 << 20).contains(&args.chunk_size), "--chunk-size is 4 KiB to 2 MiB");
        ensure!((16 << 10..=8 << 20).contains(&args.frame_size), "--frame-size is 16 KiB to 8 MiB");
        let mut plan = Self {
            mix: args.operation.clone(),
            bucket: args.bucket.clone(),
            prefix: args.prefix.clone(),
            connections: args.connections,
            streams: args.streams,
            sizes: args.size.clone(),
            objects: 0,
            rate: args.rate,
            ranges: args.ranges,
            range_bytes: args.range_size,
            batch: args.batch,
            chunk_bytes: args.chunk_size,
            frame_bytes: u32::try_from(args.frame_size)?,
        };
        plan.objects = args.objects.unwrap_or(if plan.reads() { OBJECTS_DEFAULT } else { 0 });
        Ok(plan)
    }

    /// Whether the objects must be there before it begins.
    fn reads(&self) -> bool {
        self.mix.iter().any(|(operation, _)| !operation.writes())
    }

    /// What puts the objects that are read: one message, where all of them fit it.
    fn writer(&self) -> Operation {
        if self.sizes.bytes_max() <= SMALL_BYTES_MAX { Operation::PutObject } else { Operation::WriteObject }
    }

    fn streams_in(&self) -> bool {
        let is_mixed = self.mix.iter().any(|(operation, _)| *operation == Operation::WriteObject);
        is_mixed || self.writer() == Operation::WriteObject
    }

    /// The key of an object by its number.
    fn key(&self, number: u64) -> String {
        format!("{}{number:010}", self.prefix)
    }
}

/// Loads the endpoint and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`] after Ctrl-C. Errors of single operations are counted and shown, but a run without
/// one success is an error.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let plan = Plan::new(args)?;
    ensure!(!args.prepared || plan.reads(), "--prepared says nothing to writes alone");
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(client_id), Some(client_secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
    else {
        bail!("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set");
    };
    let session = Session::new(&args.endpoint, client_id, client_secret, plan.frame_bytes)?;
    let server = args.server_pid.map(Server::watch).transpose().context("--server-pid is of no use")?;
    let run = args.run.begin("grpc")?;
    run.pin()?;
    make_bucket(&session, &plan.bucket)?;
    run.print_header();
    let bar = run.bar();
    let load = Load {
        payloads: Payloads::new(&plan.sizes, usize::try_from(plan.chunk_bytes)?, plan.streams_in())?,
        plan: &plan,
        session: &session,
        server,
        next: AtomicU64::new(0),
        interrupted: run.interrupted(),
        bar: &bar,
    };
    let result = load.measure(args, &run);
    if !args.keep {
        load.clean();
    }
    let report = result?;
    bar.finish();
    run.finish(&report, Report::print)?;
    ensure!(report.operations() > 0, "no operation succeeded");
    Ok(())
}

/// Also finds out whether the endpoint is there and the credentials hold, before anything is measured.
fn make_bucket(session: &Session, bucket: &str) -> anyhow::Result<()> {
    let made = runtime()?.block_on(async {
        let channel = Channel::new(session);
        let authorization = Some(session.authorization(&channel).await?);
        let (path, bucket_name) = ("/anvil.v1.BucketService/GetBucket", bucket.to_owned());
        let there: Result<v1::GetBucketResponse, _> =
            channel.call(path, authorization.clone(), &v1::GetBucketRequest { bucket_name }).await;
        match there {
            Err(Failure { code, .. }) if code.starts_with("NOT_FOUND") => {
                let (path, bucket_name) = ("/anvil.v1.BucketService/CreateBucket", bucket.to_owned());
                let request = v1::CreateBucketRequest { bucket_name, region: String::new() };
                channel.call::<v1::CreateBucketResponse>(path, authorization, &request).await.map(drop)
            }
            other => other.map(drop),
        }
    });
    made.map_err(|Failure { code, .. }| anyhow!("{} with bucket {bucket} cannot be used: {code}", session.url))
}

/// One thread's.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a thread's tasks")
}

/// One load, from the first object to the last.
struct Load<'a> {
    plan: &'a Plan,
    session: &'a Session,
    server: Option<Server>,
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
    interrupted: &'a AtomicBool,
}

impl Load<'_> {
    fn measure(&self, args: &Args, run: &Run) -> anyhow::Result<Report> {
        let plan = self.plan;
        let began = Instant::now();
        let is_to_prepare = plan.reads() && !args.prepared;
        let prepared = if is_to_prepare { Some(self.prepare(run.duration() / 2)?) } else { None };
        let objects = prepared.map_or(plan.objects, |prepared| prepared.objects);
        self.next.fetch_max(if plan.reads() { objects } else { 0 }, Ordering::Relaxed);

        let usage = || self.server.map(Server::usage).transpose();
        let usage_before = usage()?;
        let deletes_only = matches!(plan.mix[..], [(Operation::DeleteObject, _)]);
        // Deletions begin with the first object.
        let deleted = AtomicU64::new(0);
        // Also when the last objects came late: a run without a figure is of no use to anybody.
        let duration = run.duration().saturating_sub(began.elapsed()).max(run.duration() / 4);
        let (tally, took) = self.phase(&Work {
            what: "measuring",
            mix: &plan.mix,
            objects,
            count: args.count.unwrap_or(u64::MAX),
            next: if deletes_only { &deleted } else { &self.next },
            duration: Some(duration),
            rate: plan.rate,
            interrupted: self.interrupted,
        })?;
        let usage_after = usage()?;

        let seconds = took.as_secs_f64();
        let rows = Row::all(&tally, seconds, plan.rate.is_some());
        let tried: u64 = rows.iter().map(|row| row.operations + row.errors.values().sum::<u64>()).sum();
        let server = match (self.server, usage_before.zip(usage_after)) {
            (Some(server), Some((before, after))) => {
                let peak = server.peak_resident_bytes()?;
                Some(ServerReport::new(server.context()?, after.since(before), peak, &rows))
            }
            _ => None,
        };
        Ok(Report {
            endpoint: self.session.url.clone(),
            plan: plan.clone(),
            prepared,
            seconds,
            not_begun: plan.rate.map_or(0, |rate| {
                let until = took.min(duration).as_secs_f64();
                // Nothing more was there to begin when --count was reached, or all objects were deleted.
                let most = args.count.unwrap_or(u64::MAX).min(if deletes_only { objects } else { u64::MAX });
                due(rate, until).min(most).saturating_sub(tried)
            }),
            server,
            rows,
        })
    }

    /// Puts the objects that are then read, as many as the time allows.
    fn prepare(&self, duration: Duration) -> anyhow::Result<Prepared> {
        let (tally, took) = self.phase(&Work {
            what: "preparing",
            mix: &[(self.plan.writer(), 1)],
            objects: 0,
            count: self.plan.objects,
            next: &self.next,
            duration: Some(duration),
            rate: None,
            interrupted: self.interrupted,
        })?;
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
        let cleaned = self.phase(&Work {
            what: "deleting",
            mix: &[(Operation::DeleteObject, 1)],
            objects: count,
            count,
            next: &AtomicU64::new(0),
            duration: None,
            rate: None,
            interrupted: &AtomicBool::new(false),
        });
        let failed = match cleaned {
            Ok((tally, _)) => tally.iter().flat_map(|(_, seen)| seen.errors.values()).sum(),
            Err(_) => count,
        };
        if failed > 0 {
            eprintln!("anvil-bench: {failed} objects could not be deleted");
        }
    }

    /// Works with all connections until the time is over, so many operations are done, or nothing is left.
    fn phase(&self, work: &Work<'_>) -> anyhow::Result<(Tally<Operation>, Duration)> {
        let runtimes = (0..self.plan.connections).map(|_| runtime()).collect::<anyhow::Result<Vec<_>>>()?;
        let pace = Pace::new(work.count, work.duration, work.rate, work.interrupted);
        let phase = Phase {
            session: self.session,
            plan: self.plan,
            payloads: &self.payloads,
            mix: work.mix,
            objects: work.objects,
            next: work.next,
            pace: &pace,
        };
        let streams = u64::from(self.plan.streams);
        let mut tally = Tally::default();
        std::thread::scope(|scope| {
            let phase = &phase;
            let connections: Vec<_> = (0..)
                .zip(runtimes)
                .map(|(number, runtime): (u64, _)| {
                    scope.spawn(move || {
                        let channel = Channel::new(phase.session);
                        let seeds = number * streams..(number + 1) * streams;
                        runtime.block_on(join_all(seeds.map(|seed| Worker::new(phase, &channel, seed).run())))
                    })
                })
                .collect();
            while self.bar.is_shown() && connections.iter().any(|connection| !connection.is_finished()) {
                self.bar.say(format!("{} {}", work.what, pace.begun()));
                std::thread::sleep(BAR_EVERY);
            }
            for connection in connections {
                for seen in connection.join().expect("a worker does not panic") {
                    tally.add(&seen);
                }
            }
        });
        Ok((tally, pace.elapsed()))
    }
}

const OBJECTS_DEFAULT: u64 = 1000;
/// What one message of the API holds.
const SMALL_BYTES_MAX: u64 = 1 << 20;
const BAR_EVERY: Duration = Duration::from_millis(200);
