//! `anvil-bench net`: what TCP costs a server, by whose runtime serves: of each request that is answered, and of each byte that
//! comes or goes.
//!
//! The server is a process of its own, so that its CPU time is its own: on this host one for each runtime, which this process
//! starts and ends, or one on another host that was started with `--listen` and is named by `--connect`. All serve with one
//! thread on one CPU. Clients are blocking threads on another CPU. Rounds go over all runtimes in turn: what disturbs the
//! machine for a while then disturbs all alike. Over loopback the kernel does work of the receiving side on the sender's CPU;
//! between two hosts the network card's interrupts are on top, and charged to nobody.

mod client;
mod protocol;
mod report;
mod serve;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::run::{Run, RunArgs};
use crate::{clock, units};
use client::{Case, Sample};
use protocol::Operation;
use report::{Report, Row};
use serve::Runtime;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose runtime serves; others are there when they were built in (features `tokio-net` and `monoio`). By default all that
    /// there are
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    runtime: Vec<Runtime>,
    /// What is done
    #[arg(long, default_value = "echo,upload,download", value_delimiter = ',', value_name = "OPERATION")]
    operation: Vec<Operation>,
    /// Bytes of each request and answer of `echo`, at most 1MiB
    #[arg(long, default_value = "256", value_delimiter = ',', value_parser = units::size, value_name = "SIZE")]
    size: Vec<u64>,
    /// Connections at once
    #[arg(long, default_value = "1,64", value_delimiter = ',', value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: Vec<u16>,
    /// How often each case is measured
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The CPU of the clients; by default the last that is not the server's
    #[arg(long, value_name = "CPU")]
    client_cpu: Option<usize>,
    /// Only serves, for --duration, for a client on another host that names this address with --connect
    #[arg(long, value_name = "ADDRESS", conflicts_with = "connect")]
    listen: Option<SocketAddr>,
    /// Measures a server on another host
    #[arg(long, value_name = "ADDRESS", conflicts_with = "runtime")]
    connect: Option<SocketAddr>,
    #[command(flatten)]
    run: RunArgs,
}

/// Measures or serves.
///
/// # Errors
/// One sentence; [`Interrupted`](crate::signals::Interrupted) after Ctrl-C. The processes that it started have ended in either
/// case.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    for &size in &args.size {
        ensure!((1..=protocol::MESSAGE_BYTES_MAX as u64).contains(&size), "--size is 1 byte to 1MiB");
    }
    let mut run = args.run.begin("net")?;
    let cpu = run.one_cpu();
    if let Some(address) = args.listen {
        return serve_until_over(&run, address, &args.runtime, cpu);
    }
    let client_cpu = match args.client_cpu {
        Some(cpu) => cpu,
        None => run.cpus().iter().rev().copied().find(|other| *other != cpu).unwrap_or(cpu),
    };
    ensure!(run.cpus().contains(&client_cpu), "this process may not use CPU {client_cpu}, only {:?}", run.cpus());
    let servers = match args.connect {
        Some(address) => vec![Server::elsewhere(address)?],
        None => {
            let asked = if args.runtime.is_empty() { Runtime::value_variants() } else { &args.runtime };
            asked.iter().map(|runtime| Server::start(*runtime, cpu, run.left())).collect::<Result<_, _>>()?
        }
    };
    clock::pin(client_cpu)?;
    run.print_header();
    let cases = cases(args);
    let report = Report::new(client_cpu, args.connect.is_some(), measure(&run, args.rounds, &servers, &cases)?);
    drop(servers);
    run.finish(&report, Report::print)
}

/// Every case, in the order of the tables.
fn cases(args: &Args) -> Vec<Case> {
    let mut cases = Vec::new();
    for &operation in &args.operation {
        let sizes: &[u64] =
            if operation == Operation::Echo { &args.size } else { &[protocol::MESSAGE_BYTES_MAX as u64] };
        for &bytes in sizes {
            let message_bytes = usize::try_from(bytes).expect("at most 1 MiB");
            cases.extend(args.connections.iter().map(|&connections| Case { operation, message_bytes, connections }));
        }
    }
    cases
}

fn measure(run: &Run, rounds: u32, servers: &[Server], cases: &[Case]) -> anyhow::Result<Vec<Row>> {
    let turns = u32::try_from(servers.len() * cases.len())?.saturating_mul(rounds).max(1);
    let bar = run.bar();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); servers.len() * cases.len()];
    let mut turns_left = turns;
    for round in 0..rounds {
        for (case_index, case) in cases.iter().enumerate() {
            for (server_index, server) in servers.iter().enumerate() {
                if run.is_interrupted() {
                    break;
                }
                bar.say(format!("round {} of {rounds}: {case} by {}", round + 1, server.name));
                let time = (run.left() / turns_left).max(TURN_TIME_MIN);
                turns_left = turns_left.saturating_sub(1).max(1);
                let sample = client::measure(server.address, *case, time, run.interrupted());
                let sample = sample.with_context(|| format!("{} by {} cannot be measured", case, server.name))?;
                samples[case_index * servers.len() + server_index].push(sample);
            }
        }
    }
    bar.finish();
    let of = |index: usize| (&cases[index / servers.len()], &servers[index % servers.len()]);
    let rows = samples.into_iter().enumerate().filter_map(|(index, samples)| {
        let (case, server) = of(index);
        Row::new(&server.name, case, samples)
    });
    Ok(rows.collect())
}

/// A server, and its process where it is ours.
struct Server {
    name: String,
    address: SocketAddr,
    process: Option<Child>,
}

impl Server {
    fn elsewhere(address: SocketAddr) -> anyhow::Result<Self> {
        let (name, _) = client::cpu(address).with_context(|| {
            format!("nobody serves at {address}: start `anvil-bench net --listen {address}` there first")
        })?;
        Ok(Self { name, address, process: None })
    }

    /// Starts this very program again, to serve.
    fn start(runtime: Runtime, cpu: usize, time: Duration) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program does not know where it is")?;
        // It ends by itself should this process be killed.
        let time = format!("{}s", time.as_secs() + 60);
        let mut process = Command::new(program)
            .args(["net", "--listen", "127.0.0.1:0", "--runtime", &runtime.name()])
            .args(["--cpu", &cpu.to_string(), "--duration", &time])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server's process")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let name = runtime.name();
        let address = line.trim().strip_prefix(LISTENING).and_then(|address| address.parse().ok());
        let mut server = Self { name, address: SocketAddr::from(([127, 0, 0, 1], 0)), process: Some(process) };
        server.address = address.with_context(|| format!("{} cannot serve here", server.name))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended already, by the same Ctrl-C.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

fn serve_until_over(run: &Run, address: SocketAddr, runtimes: &[Runtime], cpu: usize) -> anyhow::Result<()> {
    let runtime = match runtimes {
        [] => Runtime::Anvil,
        [runtime] => *runtime,
        _ => anyhow::bail!("one process serves with one runtime: name one with --runtime"),
    };
    let address = runtime.serve(address, cpu)?;
    let mut out = std::io::stdout();
    writeln!(out, "{LISTENING}{address}")?;
    out.flush()?;
    while !run.is_over() {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(run.check()?)
}

/// In front of the address, on the first line of a server.
const LISTENING: &str = "listening on ";
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Below this a figure says nothing.
const TURN_TIME_MIN: Duration = Duration::from_millis(50);
