//! What was seen, as a table for people and as JSON for programs.

use serde::Serialize;

use super::Plan;
use crate::load::report::{Prepared, Row, ServerReport, print_rows};
use crate::units::show_size;

/// A whole load.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) endpoint: String,
    pub(super) plan: Plan,
    /// Objects that were there when it began, and how long they took to put. None when there was nothing to prepare.
    pub(super) prepared: Option<Prepared>,
    /// Length of the time that was counted, to the end of the last operation.
    pub(super) seconds: f64,
    /// Operations that were to begin in that time and did not, because all callers waited: the rate was not reached, and their
    /// latencies are missing. 0 without a rate.
    pub(super) not_begun: u64,
    pub(super) rows: Vec<Row>,
    /// What the server used in that time.
    pub(super) server: Option<ServerReport>,
}

impl Report {
    /// Operations that succeeded, of every kind.
    pub(super) fn operations(&self) -> u64 {
        Row::sum(&self.rows, |row| row.operations)
    }

    /// Prints it for people.
    pub(super) fn print(&self) {
        let plan = &self.plan;
        println!("endpoint  {}, bucket {}, keys {}…", self.endpoint, plan.bucket, plan.prefix);
        let pace = plan.rate.map_or_else(
            || "each call behind the one before it".to_owned(),
            |rate| format!("{rate} operations/s are begun, and latency counts from when they were to"),
        );
        println!(
            "load      {} connections of {} streams (HTTP/2, frames up to {}), {pace}; objects of {}, written in chunks of {}",
            plan.connections,
            plan.streams,
            show_size(u64::from(plan.frame_bytes)),
            plan.sizes,
            show_size(plan.chunk_bytes)
        );
        println!(
            "          {} ranges of {} in each bidi-read, {} objects in each batch-get",
            plan.ranges,
            show_size(plan.range_bytes),
            plan.batch
        );
        if let Some(prepared) = self.prepared {
            println!("prepared  {} objects in {:.1} s", prepared.objects, prepared.seconds);
            if prepared.objects < plan.objects {
                println!("          and not {}: half of --duration was over", plan.objects);
            }
        }
        println!("counted   {:.2} s", self.seconds);
        if self.not_begun > 0 {
            println!("          {} operations were not begun: the rate was NOT reached", self.not_begun);
        }
        print_rows(&self.rows);
        if let Some(server) = &self.server {
            server.print();
        }
    }
}
