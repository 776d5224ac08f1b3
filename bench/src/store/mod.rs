//! `anvil-bench store`: what the engine makes of a disk, without any network: blobs that are appended, found again by a start,
//! read, made durable one by one, and given up.
//!
//! Uses the real store and runtime, on one core. Makes a directory of its own in each path and removes it again, also after
//! Ctrl-C.
//!
//! | file | what happens there |
//! | --- | --- |
//! | `plan` | what is done, and for how long |
//! | `bench` | what all operations need: a store, blobs, many at once |
//! | `keep` | append, recover, read |
//! | `group_commit`, `reclaim` | each on a disk of its own |
//! | `report` | what was seen |

mod bench;
mod group_commit;
mod keep;
mod plan;
mod reclaim;
mod report;

use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anvil_runtime::{Disk, Options};
use anyhow::{Context, ensure};

use crate::host::Medium;
use crate::run::{Bar, Run, RunArgs};
use crate::signals::Interrupted;
use crate::target::Target;
use crate::units;
use bench::{Bench, Event, Work};
use plan::{Life, Operation, Plan};
use report::{DiskReport, Report};

/// What to do with the disks.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Directories on the disks to measure, one after the other
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Blobs to append, and the most that each step reads or commits
    #[arg(long, default_value_t = 1_000_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    records: u64,
    /// Bytes of each blob, at most 16MiB: up to 64KiB they are packed, above that they are cells
    #[arg(long, default_value = "100", value_parser = units::size, value_name = "SIZE")]
    size: u64,
    /// What a disk may grow to, at least 256MiB and 64 times --size; reclaim uses 512MiB of it
    #[arg(long, default_value = "15GiB", value_parser = units::size, value_name = "SIZE")]
    capacity: u64,
    /// What to do
    #[arg(
        long,
        default_value = "append,recover,read,group-commit,reclaim",
        value_delimiter = ',',
        value_name = "OPERATION"
    )]
    operation: Vec<Operation>,
    #[command(flatten)]
    run: RunArgs,
}

/// Measures every path and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`] after Ctrl-C. Nothing that the run made is left behind in either case.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let least = CAPACITY_BYTES_MIN.max(args.size.saturating_mul(BLOBS_MIN));
    ensure!(
        (1..=SIZE_MAX).contains(&args.size),
        "--size is {}: take 1 byte to {}",
        units::show_size(args.size),
        units::show_size(SIZE_MAX)
    );
    ensure!(
        args.capacity >= least,
        "--capacity is {}: take at least {}, so that there is room for many blobs",
        units::show_size(args.capacity),
        units::show_size(least)
    );
    let mut run = args.run.begin("store")?;
    let cpu = run.one_cpu();
    // Every path is looked at before anything is written to any of them.
    let targets: Vec<Target> = args.paths.iter().map(|path| Target::claim(path, false)).collect::<Result<_, _>>()?;
    run.print_header();
    let session = Session { args, plan: Plan::new(&args.operation), cpu, run: &run, bar: run.bar() };
    let mut disks = Vec::new();
    let mut left = u32::try_from(targets.len()).context("too many paths")?;
    for target in targets {
        let deadline = Instant::now() + run.left() / left;
        left -= 1;
        let disk = session.measure(&target, deadline);
        disks.push(disk.with_context(|| format!("cannot measure {}", target.path().display()))?);
        target.remove()?;
        if run.is_interrupted() {
            break;
        }
    }
    session.bar.finish();
    let first = disks.remove(0);
    run.finish(&Report { first, more_disks: disks }, Report::print)
}

/// What is done with every path.
struct Session<'a> {
    args: &'a Args,
    plan: Plan,
    cpu: usize,
    run: &'a Run,
    bar: Bar,
}

impl Session<'_> {
    /// What was seen until all was done, or the user has ended it.
    fn measure(&self, target: &Target, deadline: Instant) -> anyhow::Result<DiskReport> {
        let mut report = DiskReport {
            path: target.path().to_owned(),
            medium: Medium::look(target.path()),
            blob_bytes: self.args.size,
            appended: None,
            recoveries: Vec::new(),
            reads: Vec::new(),
            group_commits: Vec::new(),
            reclaim: None,
        };
        for life in self.plan.lives() {
            let capacity = match life {
                Life::Keep | Life::GroupCommit => self.args.capacity,
                Life::Reclaim => self.args.capacity.min(reclaim::CAPACITY_BYTES_MAX),
            };
            let lived = self.live(life, target.open(capacity)?, deadline, &mut report);
            target.empty()?;
            match lived {
                Err(error) if error.is::<Interrupted>() => break,
                lived => lived?,
            }
        }
        Ok(report)
    }

    /// A life, on a core of its own.
    fn live(&self, life: Life, disk: Disk, deadline: Instant, report: &mut DiskReport) -> anyhow::Result<()> {
        let (sender, events) = mpsc::channel();
        let work = Work {
            plan: self.plan.clone(),
            size: self.args.size,
            records: self.args.records,
            disk,
            deadline,
            interrupted: Arc::clone(self.run.interrupted()),
            events: sender,
        };
        let options =
            Options { cpus: vec![self.cpu], buffers_per_core: BUFFERS, abort_on_panic: false, ..Options::default() };
        let cores = anvil_runtime::start(options, move |core| {
            let work = work.clone();
            async move {
                let result = Bench::new(core, work.clone()).live(life).await;
                work.tell(Event::Ended(result));
            }
        })?;
        let mut end = Ok(());
        loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Doing(what)) => self.bar.say(what),
                Ok(Event::Seen(figures)) => report.add(figures),
                Ok(Event::Ended(result)) => end = result,
                Err(RecvTimeoutError::Timeout) => self.bar.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        cores.join()?;
        end
    }
}

/// A few windows of a blob.
const SIZE_MAX: u64 = 16 << 20;
/// On smaller disks extents hold so few windows that half of each may be lost to what is moved.
const CAPACITY_BYTES_MIN: u64 = 256 << 20;
/// The capacity holds at least so many blobs.
const BLOBS_MIN: u64 = 64;
/// For 32 that are read, and those that a store keeps for itself.
const BUFFERS: usize = 48;
const TICK: Duration = Duration::from_millis(100);
