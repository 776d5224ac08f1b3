//! What was seen, as tables for people and as JSON for programs.

use anvil_erasure::Kernel;
use serde::Serialize;

use super::Operation;
use super::library::Library;
use super::measure::Plan;
use crate::units::show_size;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The kernel that the server takes on this machine.
    kernel: &'static str,
    /// All that were measured.
    libraries: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
}

/// One case: a quarter of its samples were as fast or faster.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) operation: Operation,
    /// Data cells that are rebuilt at once; 0 unless the operation rebuilds.
    pub(super) lost: u8,
    pub(super) profile: String,
    pub(super) cell_bytes: usize,
    pub(super) library: &'static str,
    pub(super) samples: usize,
    /// 10^9 bytes of data cells, k times the cell, for every operation.
    pub(super) gigabytes_per_second: f64,
    /// Cycles of the core for each of those bytes.
    pub(super) cycles_per_byte: f64,
    /// The clock right behind the sample.
    pub(super) gigahertz: f64,
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        let libraries = plan.libraries.iter().map(Library::name).collect();
        Self { kernel: Kernel::best().name(), libraries, rows: Vec::new() }
    }

    pub(super) fn print_head(&self) {
        println!("kernel    {} is what the server takes here", self.kernel);
        println!("figures   GB/s of data cells (CPU cycles per byte), one thread, lower quartile of its samples");
    }

    pub(super) fn print_tables(&self) {
        let lost_max = self.rows.iter().map(|row| row.lost).max().unwrap_or(0);
        self.print_table("encode", Operation::Encode, 0);
        for lost in 1..=lost_max {
            self.print_table(&format!("rebuild {lost} lost"), Operation::Rebuild, lost);
        }
        self.print_table("verify", Operation::Verify, 0);
        let samples = || self.rows.iter().map(|row| row.samples);
        println!();
        match samples().min() {
            None => println!("Nothing was measured: take a longer --duration."),
            Some(fewest) => println!("At least {fewest} samples in each place; `-` had no turn, or no such case."),
        }
    }

    fn print_table(&self, title: &str, operation: Operation, lost: u8) {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.operation == operation && row.lost == lost).collect();
        let mut shapes: Vec<(&str, usize)> = rows.iter().map(|row| (row.profile.as_str(), row.cell_bytes)).collect();
        shapes.dedup();
        if shapes.is_empty() {
            return;
        }
        println!();
        print!("{title:<16}");
        self.libraries.iter().for_each(|library| print!(" {library:>17}"));
        println!();
        for shape in shapes {
            print!("{:<6}{:>10}", shape.0, show_size(shape.1 as u64));
            for library in &self.libraries {
                let row =
                    rows.iter().find(|row| (row.profile.as_str(), row.cell_bytes) == shape && row.library == *library);
                let figure = row.map(|row| format!("{:.2} ({:.3})", row.gigabytes_per_second, row.cycles_per_byte));
                print!(" {:>17}", figure.as_deref().unwrap_or("-"));
            }
            println!();
        }
    }
}
