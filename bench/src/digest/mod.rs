//! `anvil-bench digest`: what the digests of payloads cost on one CPU, by the number of streams that go in step, and beside
//! them by other libraries, which take one stream after the other.
//!
//! Every code's values are compared with one another before any is timed.

mod measure;
mod report;
mod streams;

use anyhow::ensure;

use crate::run::RunArgs;
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
    #[command(flatten)]
    run: RunArgs,
}

/// Measures, and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`](crate::signals::Interrupted) after Ctrl-C, when what was measured so far has been printed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!((1..=1 << 20).contains(&args.step), "--step is not between 1 byte and 1MiB");
    let mut run = args.run.begin("digest")?;
    let step_bytes = usize::try_from(args.step)?;
    let plan = Plan::new(&args.algorithm, &args.lanes, step_bytes, &Code::named(&args.code)?)?;
    clock::pin(run.one_cpu())?;

    let mut report = Report::new(step_bytes);
    run.print_header();
    if run.is_for_people() {
        report.print_head();
    }
    report.rows = measure::run(plan, &run)?;
    run.finish(&report, Report::print_tables)
}
