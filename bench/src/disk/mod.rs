//! `anvil-bench disk`: what the engine's own I/O path gets out of a disk.
//!
//! Uses the runtime's ring, buffers and disk exactly as the server does, on one core. Makes a directory of its own in
//! each path and removes it again, also after Ctrl-C; touches nothing that it did not make.

mod measure;
mod plan;
mod report;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anvil_model::io::Geometry;
use anvil_runtime::{Options, available_cpus};
use anyhow::{Context, bail, ensure};

use crate::host::{Host, Medium};
use crate::signals::{self, Interrupted};
use crate::target::Target;
use crate::units;
use measure::{Event, Job};
use plan::Plan;
use report::{DiskReport, Report};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Directories on the disks to measure, one after the other; each needs --size of free space
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How long the whole run takes, preparation included
    #[arg(long, default_value = "60s", value_parser = units::duration, value_name = "TIME")]
    duration: Duration,
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
    #[arg(long, default_value = "write,read,flush", value_delimiter = ',', value_name = "OPERATION")]
    operation: Vec<plan::Operation>,
    /// In which order of addresses
    #[arg(long, default_value = "sequential,random", value_delimiter = ',', value_name = "ORDER")]
    order: Vec<plan::Order>,
    /// The CPU that does the work; by default the first that this process may use
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    /// Prints one JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Takes a block device as PATH and overwrites what is on it
    #[arg(long)]
    destroy_device: bool,
}

/// Measures every path and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`] after Ctrl-C. Nothing that the run made is left behind in either case.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let plan = Plan::new(&args.operation, &args.order, &args.block_size, &args.depth)?;
    ensure!(args.size >= plan.block_bytes_max(), "--size is smaller than the largest block");
    let cpus = available_cpus();
    let cpu = match args.cpu {
        Some(cpu) if !cpus.contains(&cpu) => bail!("this process may not use CPU {cpu}, only {cpus:?}"),
        Some(cpu) => cpu,
        None => *cpus.first().context("this process may use no CPU")?,
    };
    let interrupted = signals::catch().context("cannot catch signals")?;

    let mut report = Report { host: Host::look(cpu, cpus.len()), plan: plan.clone(), disks: Vec::new() };
    // Every path is looked at before anything is written to any of them.
    let targets: Vec<Target> =
        args.paths.iter().map(|path| Target::claim(path, args.destroy_device)).collect::<Result<_, _>>()?;
    if !args.json {
        report.host.print();
    }
    let share = args.duration / u32::try_from(targets.len()).context("too many paths")?;
    for target in targets {
        let disk = measure_one(&target, args, &plan, share, cpu, &interrupted)
            .with_context(|| format!("cannot measure {}", target.path().display()))?;
        target.remove()?;
        report.disks.push(disk);
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    if interrupted.load(Ordering::Relaxed) {
        return Err(Interrupted.into());
    }
    Ok(())
}

fn measure_one(
    target: &Target,
    args: &Args,
    plan: &Plan,
    share: Duration,
    cpu: usize,
    interrupted: &Arc<AtomicBool>,
) -> anyhow::Result<DiskReport> {
    let disk = target.open(args.size)?;
    let geometry = disk.geometry();
    plan.check(geometry)?;
    let mut report = DiskReport {
        path: target.path().to_owned(),
        medium: Medium::look(target.path()),
        unit_bytes: geometry.unit_bytes,
        volatile_cache: geometry.volatile_cache,
        buffers_registered: false,
        size_bytes: 0,
        rows: Vec::new(),
    };
    let size = fit(args.size, geometry, plan)?;
    let (events, received) = mpsc::channel();
    let job = Job { disk, plan: plan.clone(), size, share, interrupted: Arc::clone(interrupted), events };
    let options = Options {
        cpus: vec![cpu],
        // One buffer per operation in flight, and one to fill the disk from.
        buffers_per_core: plan.depth_max() + measure::FILL_DEPTH + 1,
        progress_reserve: 1,
        abort_on_panic: false,
        ..Options::default()
    };
    let cores = anvil_runtime::start(options, move |core| measure::run(core, job.clone()))?;
    let mut display = report::Display::new(args.json, plan);
    let mut failure = None;
    for event in received {
        match event {
            Event::Prepared { size_bytes, buffers_registered } => {
                report.size_bytes = size_bytes;
                report.buffers_registered = buffers_registered;
                display.disk(&report);
            }
            Event::Begun { what, ends_in } => display.begun(&what, ends_in),
            Event::Tick => display.tick(),
            Event::Measured(row) => {
                display.row(&row);
                report.rows.push(row);
            }
            Event::Failed(error) => failure = Some(error),
        }
    }
    display.finish();
    cores.join()?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(report),
    }
}

/// The size to use: whole blocks of every size asked for, within what the disk may hold.
fn fit(size: u64, geometry: Geometry, plan: &Plan) -> anyhow::Result<u64> {
    let size = size.min(geometry.capacity_bytes_max);
    let size = size - size % measure::FILL_STEP_BYTES.max(plan.block_bytes_max());
    ensure!(size > 0, "there is no room for {}", units::show_size(measure::FILL_STEP_BYTES));
    Ok(size)
}
