//! What was seen, as a table for people and as JSON for programs.

use serde::Serialize;

use super::client::{Case, Sample};
use super::protocol::Operation;
use crate::latency::Latency;
use crate::units::{show_nanos, show_size};

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Where the clients were.
    client_cpu: usize,
    /// The server was on another host; otherwise everything went over loopback.
    two_hosts: bool,
    rows: Vec<Row>,
}

/// One case of one runtime.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    runtime: String,
    operation: Operation,
    message_bytes: usize,
    connections: u16,
    samples: usize,
    messages_per_second: f64,
    /// In one direction; of `echo` as much goes in the other.
    bytes_per_second: f64,
    /// Of the server's process, for each request of `echo`: the median of all samples. None of streams, where it says nothing.
    cpu_us_per_request: Option<Spread>,
    /// The same for each byte of a stream. None of `echo`.
    cpu_ns_per_byte: Option<Spread>,
    /// Of `echo`, as the client sees it, in the sample in the middle.
    latency_ns: Option<Latency>,
}

/// The middle of some samples, the least and the most of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Row {
    /// `None` when nothing was seen.
    #[expect(clippy::cast_precision_loss, reason = "figures are shown with a few digits")]
    pub(super) fn new(runtime: &str, case: &Case, mut samples: Vec<Sample>) -> Option<Self> {
        samples.retain(|sample| sample.messages > 0);
        let cost = |sample: &Sample| match case.operation {
            Operation::Echo => sample.cpu_ns as f64 / 1e3 / sample.messages as f64,
            _ => sample.cpu_ns as f64 / sample.bytes as f64,
        };
        samples.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let (least, middle, most) = (samples.first()?, samples.get(samples.len() / 2)?, samples.last()?);
        let spread = Spread { median: cost(middle), least: cost(least), most: cost(most) };
        let is_echo = case.operation == Operation::Echo;
        Some(Self {
            runtime: runtime.to_owned(),
            operation: case.operation,
            message_bytes: case.message_bytes,
            connections: case.connections,
            samples: samples.len(),
            messages_per_second: middle.messages as f64 / middle.seconds,
            bytes_per_second: middle.bytes as f64 / middle.seconds,
            cpu_us_per_request: is_echo.then_some(spread),
            cpu_ns_per_byte: (!is_echo).then_some(spread),
            latency_ns: middle.latency_ns,
        })
    }
}

impl Report {
    pub(super) fn new(client_cpu: usize, two_hosts: bool, rows: Vec<Row>) -> Self {
        Self { client_cpu, two_hosts, rows }
    }

    pub(super) fn print(&self) {
        let way = if self.two_hosts { "a server on another host" } else { "loopback, a process for each server" };
        println!("way       {way}; one thread serves, clients on CPU {}", self.client_cpu);
        println!("figures   the server's CPU: median of the rounds (least to most)");
        println!();
        println!(
            "{:<9} {:>7} {:>5} {:<9} {:>10} {:>9} {:>24} {:>24} {:>8} {:>8}",
            "", "size", "conns", "runtime", "messages/s", "MiB/s", "CPU us per request", "CPU ns per KiB", "p50", "p99"
        );
        for row in &self.rows {
            let dash = || "-".to_owned();
            let shown = |spread: Option<Spread>, times: f64| {
                spread.map_or_else(dash, |Spread { median, least, most }| {
                    format!("{:.2} ({:.2} to {:.2})", median * times, least * times, most * times)
                })
            };
            println!(
                "{:<9} {:>7} {:>5} {:<9} {:>10.0} {:>9.1} {:>24} {:>24} {:>8} {:>8}",
                row.operation.to_string(),
                show_size(row.message_bytes as u64),
                row.connections,
                row.runtime,
                row.messages_per_second,
                row.bytes_per_second / f64::from(1 << 20),
                shown(row.cpu_us_per_request, 1.0),
                shown(row.cpu_ns_per_byte, 1024.0),
                row.latency_ns.map_or_else(dash, |latency| show_nanos(latency.p50)),
                row.latency_ns.map_or_else(dash, |latency| show_nanos(latency.p99)),
            );
        }
        if self.rows.is_empty() {
            println!("Nothing was measured: take a longer --duration.");
        }
    }
}
