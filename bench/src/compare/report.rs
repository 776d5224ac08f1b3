//! What was seen, as tables for people and as JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::recipe::{About, Recipe};
use super::server::Used;
use super::warp::Seen;
use crate::host::Medium;
use crate::s3::{self, Promise};

/// A whole comparison.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    servers: Vec<About>,
    medium: Medium,
    connections: u32,
    payload: Promise,
    /// Every turn, in the order in which they were made.
    turns: Vec<Turn>,
    /// The same by load, who drove it, and server.
    rows: Vec<Row>,
}

/// One load of one server, once.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Turn {
    pub(super) server: String,
    pub(super) load: String,
    pub(super) round: u32,
    /// Who was the client: `anvil-bench` or `warp`.
    pub(super) tool: &'static str,
    /// Operations that failed.
    pub(super) errors: u64,
    pub(super) figures: Figures,
    /// All that was seen. None for warp.
    pub(super) report: Option<s3::Report>,
}

/// What is compared, by name; what is not known is missing.
pub(super) type Figures = BTreeMap<&'static str, f64>;

/// All turns of one load on one server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    load: String,
    tool: &'static str,
    server: String,
    rounds: usize,
    errors: u64,
    figures: BTreeMap<&'static str, Compared>,
}

/// One figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Compared {
    pub(super) value: Spread,
    /// To that of the last server in the same round. None for the last one itself, and where one of the two is not known or 0.
    pub(super) ratio: Option<Spread>,
}

/// The middle, the least and the most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            *values.get(middle)?
        };
        Some(Self { median, least: *values.first()?, most: *values.last()? })
    }
}

/// Names, what they are called in tables, and digits behind the point.
const FIGURES: [(&str, &str, usize); 8] = [
    ("operations_per_second", "operations/s", 0),
    ("mib_per_second", "MiB/s", 1),
    ("p99_us", "p99 us", 0),
    ("cpu_us_per_operation", "CPU us per operation", 1),
    ("cpu_seconds_per_gib", "CPU s per GiB", 2),
    ("peak_resident_mib", "peak memory MiB", 0),
    ("flushes_per_operation", "flushes per operation", 3),
    ("written_per_acknowledged_byte", "bytes written by the last 200, per byte acknowledged", 2),
];

impl Turn {
    pub(super) fn by_us(recipe: &Recipe, load: &str, round: u32, report: s3::Report) -> Self {
        let sum = |of: fn(&s3::Row) -> f64| report.rows.iter().map(of).reduce(|sum, next| sum + next);
        let server = report.server.as_ref();
        let device = report.device.as_ref();
        let mib = f64::from(1 << 20);
        let known = [
            ("operations_per_second", sum(|row| row.operations_per_second)),
            ("mib_per_second", sum(|row| row.bytes_per_second).map(|bytes| bytes / mib)),
            // Of a mix, that of the operation that has the worst.
            ("p99_us", report.rows.iter().map(|row| row.latency_us.p99 as f64).reduce(f64::max)),
            ("cpu_us_per_operation", server.and_then(|server| server.cpu_us_per_operation)),
            ("cpu_seconds_per_gib", server.and_then(|server| server.cpu_seconds_per_gib)),
            ("peak_resident_mib", server.map(|server| server.peak_resident_bytes as f64 / mib)),
            ("flushes_per_operation", device.and_then(|device| device.flushes_per_operation)),
            ("written_per_acknowledged_byte", device.and_then(|device| device.written_per_acknowledged_byte)),
        ];
        Self {
            server: recipe.name.clone(),
            load: load.to_owned(),
            round,
            tool: "anvil-bench",
            errors: report.errors(),
            figures: figures(known),
            report: Some(report),
        }
    }

    /// The server's CPU and its disk are over all that warp did, what it prepared and removed too: so they are not figures here,
    /// but for memory.
    pub(super) fn by_warp(recipe: &Recipe, load: &str, round: u32, seen: &Seen, used: Used) -> Self {
        let mib = f64::from(1 << 20);
        let known = [
            ("operations_per_second", Some(seen.operations_per_second)),
            ("mib_per_second", Some(seen.bytes_per_second / mib)),
            ("p99_us", seen.p99_us),
            ("peak_resident_mib", Some(used.peak_resident_bytes as f64 / mib)),
            ("cpu_seconds_with_preparation", Some(used.usage.cpu_seconds())),
        ];
        Self {
            server: recipe.name.clone(),
            load: load.to_owned(),
            round,
            tool: "warp",
            errors: seen.errors,
            figures: figures(known),
            report: None,
        }
    }
}

fn figures<const N: usize>(known: [(&'static str, Option<f64>); N]) -> Figures {
    known.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| value.is_finite())?))).collect()
}

impl Report {
    pub(super) fn new(
        servers: Vec<About>,
        medium: Medium,
        connections: u32,
        payload: Promise,
        turns: Vec<Turn>,
        names: Vec<String>,
        loads: Vec<String>,
    ) -> Self {
        let mut rows = Vec::new();
        for load in &loads {
            for tool in ["anvil-bench", "warp"] {
                for name in &names {
                    rows.extend(Row::new(load, tool, name, names.last().expect("at least one"), &turns));
                }
            }
        }
        Self { servers, medium, connections, payload, turns, rows }
    }

    pub(super) fn print(&self) {
        for server in &self.servers {
            println!("server    {}: {}", server.name, server.version);
            println!("          {}", server.command.join(" "));
            println!("          durability: {}", server.durability);
        }
        println!("load      {} connections, payload {:?}", self.connections, self.payload);
        println!("figures   median of the rounds (least to most); x: times that of the last server, in the same round");
        for row in &self.rows {
            println!();
            println!("{} on {} by {}, {} rounds, {} errors", row.load, row.server, row.tool, row.rounds, row.errors);
            for (name, title, digits) in FIGURES {
                let Some(figure) = row.figures.get(name) else { continue };
                let Spread { median, least, most } = figure.value;
                let ratio = figure.ratio.map_or_else(String::new, |ratio| {
                    format!("   x {:.2} ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most)
                });
                println!("  {title:<53} {median:>10.digits$} ({least:.digits$} to {most:.digits$}){ratio}");
            }
        }
        if self.rows.is_empty() {
            println!("Nothing was measured.");
        }
    }
}

impl Row {
    /// `None` when there was no such turn.
    fn new(load: &str, tool: &'static str, server: &str, last: &str, turns: &[Turn]) -> Option<Self> {
        let of = |name: &str| -> BTreeMap<u32, &Turn> {
            let turns = turns.iter().filter(|turn| turn.load == load && turn.tool == tool && turn.server == name);
            turns.map(|turn| (turn.round, turn)).collect()
        };
        let (own, others) = (of(server), of(last));
        if own.is_empty() {
            return None;
        }
        let mut names: Vec<&'static str> = own.values().flat_map(|turn| turn.figures.keys().copied()).collect();
        names.sort_unstable();
        names.dedup();
        let compared = |name: &'static str| {
            let value = Spread::of(own.values().filter_map(|turn| turn.figures.get(name).copied()).collect())?;
            let ratio = |(round, turn): (&u32, &&Turn)| {
                let (own, other) = (turn.figures.get(name)?, others.get(round)?.figures.get(name)?);
                (server != last && *other > 0.0).then(|| own / other)
            };
            Some((name, Compared { value, ratio: Spread::of(own.iter().filter_map(ratio).collect()) }))
        };
        Some(Self {
            load: load.to_owned(),
            tool,
            server: server.to_owned(),
            rounds: own.len(),
            errors: own.values().map(|turn| turn.errors).sum(),
            figures: names.into_iter().filter_map(compared).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(server: &str, round: u32, value: f64) -> Turn {
        Turn {
            server: server.to_owned(),
            load: "put:1KiB".to_owned(),
            round,
            tool: "anvil-bench",
            errors: 1,
            figures: figures([("p99_us", Some(value)), ("mib_per_second", None)]),
            report: None,
        }
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let turns =
            [turn("a", 0, 10.0), turn("b", 0, 5.0), turn("a", 1, 400.0), turn("b", 1, 100.0), turn("a", 2, 9.0)];
        let row = Row::new("put:1KiB", "anvil-bench", "a", "b", &turns).unwrap();
        let figure = row.figures["p99_us"];
        assert_eq!(figure.value, Spread { median: 10.0, least: 9.0, most: 400.0 });
        assert_eq!(figure.ratio, Some(Spread { median: 3.0, least: 2.0, most: 4.0 }));
        assert_eq!((row.rounds, row.errors, row.figures.len()), (3, 3, 1));
        assert!(Row::new("put:1KiB", "anvil-bench", "b", "b", &turns).unwrap().figures["p99_us"].ratio.is_none());
        assert!(Row::new("put:1KiB", "warp", "a", "b", &turns).is_none());
    }
}
