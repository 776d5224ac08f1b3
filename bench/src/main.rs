//! `anvil-bench`: measures the parts that Anvil is made of, on this machine, through Anvil's own code, whole nodes as a
//! client sees them, and what others would pick in their place.
//!
//! Every figure comes with the machine, the command and the conditions that made it.
#![deny(unsafe_code)]

mod bare;
mod clock;
mod compare;
mod digest;
mod disk;
mod ec;
mod grpc;
mod host;
mod latency;
mod load;
mod net;
mod report;
mod run;
mod s3;
mod sample;
mod signals;
mod store;
mod target;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures disks, the store on them, the erasure code, digests and the network through Anvil's own code, and S3 endpoints as a
/// client: each suite prints what it was measured on, and one JSON document with --json.
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
    /// Measures the erasure code: encoding, rebuilding and verifying, by kernel, beside other libraries
    Ec(ec::Args),
    /// Measures the store on disks, without any network: appends, starts, reads, group commit, reclaim
    Store(store::Args),
    /// Measures the digests of payloads by the streams that go in step, on one CPU
    Digest(digest::Args),
    /// Loads an S3 endpoint, as fast as it answers or at a given rate, and shows latencies, errors and the server's cost
    S3(s3::Args),
    /// Loads a gRPC endpoint in the same ways: objects, ranges and small calls
    Grpc(grpc::Args),
    /// Serves the same gRPC methods from memory with tonic, to compare with
    #[cfg(feature = "tonic")]
    GrpcPeer(grpc::peer::Args),
    /// Compares S3 servers on this machine under the same load, in turn
    Compare(compare::Args),
    /// Measures what TCP costs a server for each request and byte, with Anvil's runtime and others
    Net(net::Args),
    /// Serves what no store can leave out and nothing else, to compare with: from the socket to the disk and back
    Bare(bare::Args),
    /// Turns saved JSON documents into one page with plots
    Report(report::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().what {
        What::Disk(args) => disk::run(&args),
        What::Ec(args) => ec::run(&args),
        What::Store(args) => store::run(&args),
        What::Digest(args) => digest::run(&args),
        What::S3(args) => s3::run(&args),
        What::Grpc(args) => grpc::run(&args),
        #[cfg(feature = "tonic")]
        What::GrpcPeer(args) => grpc::peer::run(&args),
        What::Compare(args) => compare::run(&args),
        What::Net(args) => net::run(&args),
        What::Bare(args) => bare::run(&args),
        What::Report(args) => report::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<signals::Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("anvil-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
