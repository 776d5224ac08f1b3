//! `anvil-bench disk`: what the engine's own I/O path gets out of a disk, and what others' get.
//!
//! Uses the runtime's ring, buffers and disk exactly as the server does, on one core; other back ends run the same lanes.
//! Makes a directory of its own in each path and removes it again, also after Ctrl-C; touches nothing that it did not make.

mod back_end;
mod durable;
mod measure;
mod plan;
mod report;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anvil_model::io::Geometry;
use anyhow::{Context, ensure};

use crate::host::Medium;
use crate::run::{Bar, Run, RunArgs};
use crate::target::Target;
use crate::units;
use back_end::{BackEnd, Running};
use durable::Durable;
use measure::{Event, Job};
use plan::Plan;
use report::{DiskReport, Report, Row};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Directories on the disks to measure, one after the other; each needs --size of free space
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Bytes that are written and read on each disk; less when writing them would take a third of the run
    #[arg(long, default_value = "1GiB", value_parser = units::size, value_name = "SIZE")]
    size: u64,
    /// Block sizes, at most 1MiB
    #[arg(long, default_value = "4KiB,64KiB,1MiB", value_delimiter = ',', value_parser = units::size, value_name = "SIZE")]
    block_size: Vec<u64>,
    /// Operations in flight, at most 256
    #[arg(long, default_value = "1,32", value_delimiter = ',', value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=256))]
    depth: Vec<u32>,
    /// What to do
    #[arg(long, default_value = "write,read,mixed,flush,dsync", value_delimiter = ',', value_name = "OPERATION")]
    operation: Vec<plan::Operation>,
    /// In which order of addresses
    #[arg(long, default_value = "sequential,random", value_delimiter = ',', value_name = "ORDER")]
    order: Vec<plan::Order>,
    /// Whose code does the I/O; others are there when they were built in (features `glommio` and `monoio`)
    #[arg(long, default_value = "uring", value_delimiter = ',', value_name = "NAME")]
    back_end: Vec<BackEnd>,
    /// Takes a block device as PATH and overwrites what is on it
    #[arg(long)]
    destroy_device: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Measures every path and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`](crate::signals::Interrupted) after Ctrl-C. Nothing that the run made is left behind in either case.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let plan = Plan::new(&args.operation, &args.order, &args.block_size, &args.depth)?;
    ensure!(args.size >= plan.block_bytes_max(), "--size is smaller than the largest block");
    let mut run = args.run.begin("disk")?;
    let cpu = run.one_cpu();
    // Every path is looked at before anything is written to any of them.
    let targets: Vec<Target> =
        args.paths.iter().map(|path| Target::claim(path, args.destroy_device)).collect::<Result<_, _>>()?;
    run.print_header();
    let mut report = Report { plan: plan.clone(), disks: Vec::new() };
    let count = u32::try_from(targets.len() * args.back_end.len()).context("too many paths")?;
    let work = Work { args, plan: &plan, share: run.duration() / count, cpu, run: &run, bar: run.bar() };
    for target in targets {
        for &back_end in &args.back_end {
            let disk = work.measure(&target, back_end);
            let disk = disk.with_context(|| format!("cannot measure {}", target.path().display()))?;
            target.empty()?;
            report.disks.push(disk);
            if run.is_interrupted() {
                break;
            }
        }
        target.remove()?;
        if run.is_interrupted() {
            break;
        }
    }
    work.bar.finish();
    // People have read the tables already.
    run.finish(&report, |_| ())
}

/// What is done with every path.
struct Work<'a> {
    args: &'a Args,
    plan: &'a Plan,
    /// Time for one path and back end.
    share: Duration,
    cpu: usize,
    run: &'a Run,
    bar: Bar,
}

impl Work<'_> {
    fn measure(&self, target: &Target, back_end: BackEnd) -> anyhow::Result<DiskReport> {
        let geometry = target.open(self.args.size)?.geometry();
        self.plan.check(geometry)?;
        let mut disk = DiskReport {
            path: target.path().to_owned(),
            medium: Medium::look(target.path()),
            back_end,
            unit_bytes: geometry.unit_bytes,
            volatile_cache: geometry.volatile_cache,
            buffers_registered: None,
            size_bytes: 0,
            rows: Vec::new(),
        };
        let (events, received) = mpsc::channel();
        let job = Job {
            cpu: self.cpu,
            plan: self.plan.clone(),
            size: fit(self.args.size, geometry, self.plan)?,
            share: self.share,
            durable: self.plan.has_durable_writes().then(|| Durable::open(target)).transpose()?.map(Arc::new),
            interrupted: Arc::clone(self.run.interrupted()),
            events,
        };
        let running = Running::start(back_end, target, job)?;
        let mut end = Ok(());
        for event in received {
            match event {
                Event::Prepared { size_bytes, buffers_registered } => {
                    disk.size_bytes = size_bytes;
                    disk.buffers_registered = buffers_registered;
                    self.aside(|| disk.print_head());
                }
                Event::Begun { what } => self.bar.say(what),
                Event::Tick => self.bar.tick(),
                Event::Measured(rows) => {
                    self.aside(|| rows.iter().for_each(Row::print));
                    disk.rows.extend(rows);
                }
                Event::Ended(result) => {
                    end = result;
                    break;
                }
            }
        }
        running.join()?;
        end?;
        Ok(disk)
    }

    fn aside(&self, print: impl FnOnce()) {
        if self.run.is_for_people() {
            self.bar.aside(print);
        }
    }
}

/// The size to use: whole blocks of every size asked for, within what the disk may hold.
fn fit(size: u64, geometry: Geometry, plan: &Plan) -> anyhow::Result<u64> {
    let size = size.min(geometry.capacity_bytes_max);
    let size = size - size % measure::FILL_STEP_BYTES.max(plan.block_bytes_max());
    ensure!(size > 0, "there is no room for {}", units::show_size(measure::FILL_STEP_BYTES));
    Ok(size)
}
