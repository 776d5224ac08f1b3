//! `anvil-bench ec`: what erasure coding costs on one CPU, by Anvil's kernels and beside them by other libraries.
//!
//! A stripe lies in memory as in a buffer of the server: its cells one behind another, each behind the room of a record's
//! header. Every result is compared with the bytes that were lost before any is timed.

#[cfg(target_arch = "x86_64")]
mod isal;
mod library;
mod measure;
mod report;
#[cfg(feature = "reed-solomon-simd")]
mod simd;
mod stripe;

use std::str::FromStr;

use anvil_model::geometry;
use anvil_model::profile::Profile;
use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::run::RunArgs;
use crate::{clock, units};
use library::Library;
use measure::Plan;
use report::Report;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Profiles, from 1+1 to 16+4
    #[arg(long, default_value = "2+1,2+2,4+2,6+3,8+3,8+4,12+4,16+4", value_delimiter = ',', value_name = "K+M")]
    profile: Vec<Profile>,
    /// Bytes of a cell, a multiple of 64, at most 1MiB; `full` is what the server makes of a large object
    #[arg(long, default_value = "4KiB,64KiB,full", value_delimiter = ',', value_name = "SIZE")]
    cell: Vec<CellSize>,
    /// What to do
    #[arg(long, default_value = "encode,rebuild,verify", value_delimiter = ',', value_name = "OPERATION")]
    operation: Vec<Operation>,
    /// Whose code: kernels of Anvil (naive, avx2, avx512, avx2-gfni, avx512-gfni), `isal` where libisal.so.2 is found,
    /// `reed-solomon-simd` where it is built in; by default all that there are
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    library: Vec<String>,
    #[command(flatten)]
    run: RunArgs,
}

/// What is done with a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    /// Parity cells from data cells
    Encode,
    /// Lost data cells, from 1 to m of them, from k others
    Rebuild,
    /// Whether parity cells are those of the data cells
    Verify,
}

/// The length of a cell, as a user says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellSize {
    Full,
    Bytes(usize),
}

impl FromStr for CellSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "full" {
            return Ok(Self::Full);
        }
        let bytes = units::size(text)?;
        if bytes == 0 || bytes > 1 << 20 || bytes % 64 != 0 {
            return Err(format!("a cell of {text} cannot be measured: take a multiple of 64 bytes, at most 1MiB"));
        }
        usize::try_from(bytes).map(Self::Bytes).map_err(|error| error.to_string())
    }
}

/// Measures, and prints what was seen.
///
/// # Errors
/// One sentence; [`Interrupted`](crate::signals::Interrupted) after Ctrl-C, when what was measured so far has been printed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    for profile in &args.profile {
        ensure!(profile.parity > 0, "{profile} has no parity to measure");
    }
    let mut run = args.run.begin("ec")?;
    let plan = Plan::new(&shapes(args), &args.operation, libraries(&args.library)?);
    clock::pin(run.one_cpu())?;

    let mut report = Report::new(&plan);
    run.print_header();
    if run.is_for_people() {
        report.print_head();
    }
    report.rows = measure::run(&plan, &run)?;
    run.finish(&report, Report::print_tables)
}

/// Every profile with every length of a cell, each once.
fn shapes(args: &Args) -> Vec<(Profile, usize)> {
    let mut shapes = Vec::new();
    for &profile in &args.profile {
        for size in &args.cell {
            let bytes = match *size {
                CellSize::Full => geometry::cell_bytes_full(profile),
                CellSize::Bytes(bytes) => bytes,
            };
            if !shapes.contains(&(profile, bytes)) {
                shapes.push((profile, bytes));
            }
        }
    }
    shapes
}

/// Those asked for, or all that there are.
fn libraries(names: &[String]) -> anyhow::Result<Vec<Library>> {
    let all = Library::found();
    if names.is_empty() {
        return Ok(all);
    }
    let known = all.iter().map(Library::name).collect::<Vec<_>>().join(", ");
    let mut chosen: Vec<Library> = Vec::new();
    for name in names {
        let library = all.iter().find(|library| library.name() == name);
        let library = library.with_context(|| format!("there is no `{name}` here, only {known}"))?;
        if !chosen.iter().any(|other| other.name() == name) {
            chosen.push(library.clone());
        }
    }
    Ok(chosen)
}
