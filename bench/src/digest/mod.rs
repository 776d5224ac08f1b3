//! `anvil-bench digest`: what the digests of payloads cost on one CPU, by the number of streams that go in step, and beside
//! them by other libraries, which take one stream after the other.
//!
//! Every code's values are compared with one another before any is timed.

mod measure;
mod report;
mod streams;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anvil_runtime::available_cpus;
use anyhow::{Context, bail, ensure};

use crate::host::Host;
use crate::signals::{self, Interrupted};
use crate::{clock, units};
use measure::Plan;
use report::Report;
use streams::{Code, Digested};

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Which digests
    #[arg(
        long,
        default_value = "md5,sha256,sha1,crc32,crc32c,crc64nvme,blake3",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    algorithm: Vec<Digested>,
    /// Streams that go in step, 1 to 64
    #[arg(long, default_value = "1,2,4,8,16", value_delimiter = ',', value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=64))]
    lanes: Vec<u16>,
    /// Bytes of each stream that go in step, at most 1MiB
    #[arg(long, default_value = "32KiB", value_parser = units::size, value_name = "SIZE")]
    step: u64,
    /// Whose code: kernels of Anvil (single, portable, avx2, avx512vl), `server` for what the server takes here, or
    /// libraries (md-5, sha2, ring, blake3); by default all that there are but `portable`
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    code: Vec<String>,
    /// How long the whole run takes
    #[arg(long, default_value = "60s", value_parser = units::duration, value_name = "TIME")]
    duration: Duration,
    /// The CPU that does the work; by default the first that this process may use
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    /// Prints one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

/// Measures, and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`] after Ctrl-C, when what was measured so far has been printed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!((1..=1 << 20).contains(&args.step), "--step is not between 1 byte and 1MiB");
    let cpus = available_cpus();
    let cpu = match args.cpu {
        Some(cpu) if !cpus.contains(&cpu) => bail!("this process may not use CPU {cpu}, only {cpus:?}"),
        Some(cpu) => cpu,
        None => *cpus.first().context("this process may use no CPU")?,
    };
    let step_bytes = usize::try_from(args.step)?;
    let plan = Plan::new(&args.algorithm, &args.lanes, step_bytes, &Code::named(&args.code)?)?;
    let interrupted = signals::catch().context("cannot catch signals")?;
    clock::pin(cpu)?;

    let mut report = Report::new(Host::look(cpu, cpus.len()), step_bytes);
    if !args.json {
        report.print_head();
    }
    report.rows = measure::run(plan, args.duration, &interrupted)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print_tables();
    }
    if interrupted.load(Ordering::Relaxed) {
        return Err(Interrupted.into());
    }
    Ok(())
}
