//! What was seen, as tables for people and as JSON for programs.

use anvil_digest::{Algorithm, Kernel};
use serde::Serialize;

use super::streams::Digested;
use crate::units::show_size;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The kernel that the server takes on this machine.
    kernel: &'static str,
    /// Whether it takes many streams of SHA-256 at once, or one after the other.
    sha256_in_lanes: bool,
    /// Bytes of each stream that go in step.
    step_bytes: usize,
    pub(super) rows: Vec<Row>,
}

/// One case: a quarter of its samples were as fast or faster.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) algorithm: Digested,
    pub(super) code: &'static str,
    pub(super) lanes: u16,
    pub(super) samples: usize,
    /// 10^9 bytes of all streams together.
    pub(super) gigabytes_per_second: f64,
    /// Cycles of the core for each byte of any stream.
    pub(super) cycles_per_byte: f64,
    /// The clock right behind the sample.
    pub(super) gigahertz: f64,
}

impl Report {
    pub(super) fn new(step_bytes: usize) -> Self {
        let kernel = Kernel::detect();
        let sha256_in_lanes = kernel.lanes(Algorithm::Sha256) > 1;
        Self { kernel: kernel.name(), sha256_in_lanes, step_bytes, rows: Vec::new() }
    }

    pub(super) fn print_head(&self) {
        let sha256 = if self.sha256_in_lanes { "in lanes too" } else { "by the CPU's own instructions, or alone" };
        println!("kernel    {} is what the server takes here; SHA-256 {sha256}", self.kernel);
        println!("step      {} of each stream", show_size(self.step_bytes as u64));
        println!("figures   GB/s of all streams (CPU cycles per byte), one thread, lower quartile of the samples");
    }

    pub(super) fn print_tables(&self) {
        let mut lanes: Vec<u16> = self.rows.iter().map(|row| row.lanes).collect();
        lanes.sort_unstable();
        lanes.dedup();
        println!();
        print!("{:<10} {:<10}", "", "streams");
        lanes.iter().for_each(|lanes| print!(" {lanes:>16}"));
        println!();
        let mut cases: Vec<(Digested, &str)> = self.rows.iter().map(|row| (row.algorithm, row.code)).collect();
        cases.dedup();
        for (algorithm, code) in cases {
            print!("{:<10} {code:<10}", format!("{algorithm:?}").to_lowercase());
            for &lanes in &lanes {
                let mut rows = self.rows.iter();
                let row = rows.find(|row| (row.algorithm, row.code, row.lanes) == (algorithm, code, lanes));
                let figure = row.map(|row| format!("{:.2} ({:.3})", row.gigabytes_per_second, row.cycles_per_byte));
                print!(" {:>16}", figure.as_deref().unwrap_or("-"));
            }
            println!();
        }
        println!();
        match self.rows.iter().map(|row| row.samples).min() {
            None => println!("Nothing was measured: take a longer --duration."),
            Some(fewest) => println!("At least {fewest} samples in each place; `-` had no turn."),
        }
    }
}
