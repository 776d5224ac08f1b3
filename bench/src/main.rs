//! `anvil-bench`: measures the parts that Anvil is made of, on this machine, through Anvil's own code.
//!
//! Every figure comes with the machine, the command and the conditions that made it.
#![forbid(unsafe_code)]

mod disk;
mod host;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what Anvil is made of, through Anvil's own I/O path.
#[derive(Debug, Parser)]
#[command(name = "anvil-bench", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measures disks: sequential and random reads and writes with direct I/O, and flushes
    Disk(disk::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().what {
        What::Disk(args) => disk::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<disk::Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("anvil-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
