//! `anvil store`: looks at disks that no node uses. Never writes to them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anvil_model::format::Subject;
use anvil_model::ids::DiskId;
use anvil_model::profile::Profile;
use anvil_runtime::{Core, Disk};
use anvil_store::{BadRecord, DiskIdentity, ExtentReport, ExtentState, ExtentVerdict, Inspection};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::offline::{self, EXIT_INTERRUPTED, Stop};
use super::{Failure, print};
use crate::data_dir::DataDir;

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Says what disks hold, by the headers and footers of their extents
    Inspect(Look),
    /// Reads every record and compares it with its checksums; names each that is damaged
    Verify(Look),
}

#[derive(Debug, Args)]
pub(super) struct Look {
    /// Disks, or the data directory of a node whose disks are meant. The node must not be running
    #[arg(value_name = "DIR", required = true)]
    paths: Vec<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Few are enough.
const BUFFERS: usize = 8;

/// A disk, looked through.
struct Found {
    path: PathBuf,
    identity: DiskIdentity,
    verdicts: Vec<ExtentVerdict>,
}

pub(super) fn run(command: StoreCommand) -> Result<(), Failure> {
    let (look, verify) = match command {
        StoreCommand::Inspect(look) => (look, false),
        StoreCommand::Verify(look) => (look, true),
    };
    let (paths, _held) = disks_of(&look.paths)?;
    let open = |path: PathBuf| offline::open_disk(&path).map(|disk| (path, disk));
    let disks = paths.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let found = offline::run_on_a_core(BUFFERS, async move |core, stop| look_at_all(core, stop, &disks, verify).await)?;
    let found = found.map_err(Failure::run)?;
    // A signal that came when all was read changes nothing.
    let interrupted = found.iter().any(Found::is_cut_short);
    let text = if look.json {
        let disks: Vec<_> = found.iter().map(|found| found.to_json(verify)).collect();
        format!("{:#}\n", json!({ "complete": !interrupted, "disks": disks }))
    } else {
        found.iter().map(|found| found.to_text(verify)).collect()
    };
    print(&text)?;
    if interrupted {
        return Err(Failure { sentence: "interrupted: not everything was read".into(), code: EXIT_INTERRUPTED });
    }
    let bad: usize = found.iter().map(Found::failures).sum();
    if bad > 0 { Err(Failure::run(format!("{bad} records are damaged"))) } else { Ok(()) }
}

/// The disks that are meant, and the data directories that are held meanwhile.
fn disks_of(paths: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<DataDir>), Failure> {
    let (mut disks, mut held) = (Vec::new(), Vec::new());
    for path in paths {
        if !path.exists() {
            return Err(Failure::usage(format!("there is nothing at {}", path.display())));
        }
        if !path.join(crate::identity::FILE_NAME).exists() {
            disks.push(path.clone());
            continue;
        }
        let data = DataDir::open(path).map_err(Failure::run)?;
        disks.extend(offline::disks_of_node(&data)?);
        held.push(data);
    }
    disks.sort();
    disks.dedup();
    Ok((disks, held))
}

async fn look_at_all(core: &Core, stop: &Stop, disks: &[(PathBuf, Disk)], verify: bool) -> Result<Vec<Found>, String> {
    let mut all = Vec::new();
    for (path, disk) in disks {
        let named = |error: &dyn std::fmt::Display| format!("the disk at {}: {error}", path.display());
        let device = disk.device(core);
        let inspection = Inspection::open(core, &device).await.map_err(|error| named(&error))?;
        let identity = inspection.identity().clone();
        let mut found = Found { path: path.clone(), identity, verdicts: Vec::new() };
        let bar = offline::bar(found.identity.extents_prepared.into(), path.display().to_string(), "extents");
        for extent in 0..found.identity.extents_prepared {
            if stop.is_set() {
                break;
            }
            let verdict = if verify {
                inspection.verify(extent).await
            } else {
                let report = inspection.extent(extent).await;
                report.map(|report| ExtentVerdict { report, bad: Vec::new(), doubtful: Vec::new() })
            };
            found.verdicts.push(verdict.map_err(|error| named(&error))?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        all.push(found);
    }
    Ok(all)
}

/// Extents of one kind and state.
#[derive(Default)]
struct Sum {
    extents: u64,
    records: u64,
    bytes: u64,
}

impl Found {
    fn reports(&self) -> impl Iterator<Item = &ExtentReport> {
        self.verdicts.iter().map(|verdict| &verdict.report)
    }

    /// True when extents were left out.
    fn is_cut_short(&self) -> bool {
        self.verdicts.len() < self.identity.extents_prepared as usize
    }

    /// Records that make the disk a bad one. What is doubtful may have been torn when the last life was cut, and after a
    /// clean end it was not.
    fn failures(&self) -> usize {
        let doubtful = |verdict: &ExtentVerdict| if self.identity.clean { verdict.doubtful.len() } else { 0 };
        self.verdicts.iter().map(|verdict| verdict.bad.len() + doubtful(verdict)).sum()
    }

    fn to_text(&self, verify: bool) -> String {
        let DiskIdentity { disk, cluster, extent_bytes, format_version, extents_prepared, clean, ref roster, .. } =
            self.identity;
        let closed = if clean { "closed cleanly" } else { "not closed cleanly" };
        let mut lines = vec![
            format!("disk {disk} at {}", self.path.display()),
            format!("  cluster {cluster:032x}, format {format_version}, {closed}"),
            format!("  one of {} disks, {} given up", roster.disks.len(), roster.lost.len()),
            format!("  {extents_prepared} extents of {:.1} MiB", mebibytes(extent_bytes)),
            format!("  {:<8} {:<5} {:>8} {:>10} {:>12} {:>6}", "state", "kind", "extents", "records", "MiB", "fill"),
        ];
        let mut sums: BTreeMap<(ExtentState, &str), Sum> = BTreeMap::new();
        for report in self.reports() {
            let sum = sums.entry((report.state, kind(report))).or_default();
            sum.extents += 1;
            sum.records += report.records;
            sum.bytes += report.record_bytes;
        }
        for ((state, kind), Sum { extents, records, bytes }) in sums {
            let fill = bytes as f64 / (extents * extent_bytes) as f64 * 100.0;
            let (state, size) = (state_name(state), mebibytes(bytes));
            lines.push(format!("  {state:<8} {kind:<5} {extents:>8} {records:>10} {size:>12.1} {fill:>5.0}%"));
        }
        let numbers = self.reports().filter_map(|report| report.log_numbers);
        if let Some((first, last)) = numbers.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) {
            lines.push(format!("  metadata log: batches {first} to {last}"));
        }
        let mut cells: BTreeMap<(Profile, u8), u64> = BTreeMap::new();
        for ((profile, shard), records) in self.reports().flat_map(|report| &report.cells) {
            *cells.entry((*profile, *shard)).or_default() += records;
        }
        for ((profile, shard), records) in cells {
            lines.push(format!("  profile {profile}, shard {shard}: {records} records"));
        }
        for report in self.reports().filter(|report| report.header_lost) {
            lines.push(format!("  extent {}: its header is lost; a start restores it", report.extent));
        }
        for verdict in &self.verdicts {
            lines.extend(verdict.bad.iter().map(|bad| format!("  damaged: {}", describe(bad))));
            let what = if self.identity.clean { "damaged" } else { "torn by a crash, or damaged" };
            lines.extend(verdict.doubtful.iter().map(|bad| format!("  {what}: {}", describe(bad))));
        }
        if verify {
            let records: u64 = self.reports().map(|report| report.records).sum();
            lines.push(format!("  {records} records read, {} damaged", self.failures()));
        } else if let damaged @ 1.. = self.reports().map(|report| report.damaged).sum::<u64>() {
            lines.push(format!("  {damaged} records are torn or damaged; `anvil store verify` names them"));
        }
        lines.join("\n") + "\n"
    }

    fn to_json(&self, verify: bool) -> Value {
        let DiskIdentity { disk, cluster, extent_bytes, format_version, extents_prepared, clean, ref roster, .. } =
            self.identity;
        let names = |disks: &[DiskId]| disks.iter().map(DiskId::to_string).collect::<Vec<_>>();
        let extents: Vec<_> = self.reports().map(extent_to_json).collect();
        let mut value = json!({
            "path": self.path.display().to_string(),
            "disk": disk.to_string(),
            "cluster": format!("{cluster:032x}"),
            "format_version": format_version,
            "extent_bytes": extent_bytes,
            "extents_prepared": extents_prepared,
            "clean": clean,
            "roster": json!({
                "generation": roster.generation,
                "disks": names(&roster.disks),
                "given_up": names(&roster.lost),
            }),
            "extents": extents,
        });
        if verify {
            let named = |records: Vec<&BadRecord>| records.into_iter().map(record_to_json).collect::<Vec<_>>();
            value["damaged"] = json!(named(self.verdicts.iter().flat_map(|verdict| &verdict.bad).collect()));
            value["torn_or_damaged"] =
                json!(named(self.verdicts.iter().flat_map(|verdict| &verdict.doubtful).collect()));
        }
        value
    }
}

fn extent_to_json(report: &ExtentReport) -> Value {
    let cell = |((profile, shard), records): (&(Profile, u8), &u64)| json!({ "profile": profile.to_string(), "shard": shard, "records": records });
    let cells: Vec<_> = report.cells.iter().map(cell).collect();
    json!({
        "extent": report.extent,
        "state": state_name(report.state),
        "kind": kind(report),
        "log_sequence": report.log_sequence,
        "log_numbers": report.log_numbers.map(|(first, last)| [first, last]),
        "cells": cells,
        "begun_at_unix_ms": report.begun_at.map(|at| at.unix_ms),
        "header_lost": report.header_lost,
        "records": report.records,
        "record_bytes": report.record_bytes,
        "torn_or_damaged": report.damaged,
    })
}

fn record_to_json(bad: &BadRecord) -> Value {
    let mut record = json!({ "extent": bad.extent, "offset": bad.offset });
    match bad.subject {
        Subject::Blob { blob, profile, shard, window } => {
            record["blob"] = json!(blob.to_string());
            record["profile"] = json!(profile.to_string());
            record["shard"] = json!(shard);
            record["window"] = json!(window);
        }
        Subject::Log { number, .. } => record["log_number"] = json!(number),
    }
    record
}

fn describe(bad: &BadRecord) -> String {
    let what = match bad.subject {
        Subject::Blob { blob, profile: Profile::SINGLE, window, .. } => format!("window {window} of blob {blob}"),
        Subject::Blob { blob, profile, shard, window } => {
            format!("shard {shard} ({profile}) of window {window} of blob {blob}")
        }
        Subject::Log { number, .. } => format!("batch {number} of the metadata log"),
    };
    format!("{what}, in extent {} at {}", bad.extent, bad.offset)
}

fn kind(report: &ExtentReport) -> &'static str {
    match (report.state, report.log_sequence) {
        (ExtentState::Free, _) => "",
        (_, None) => "data",
        (_, Some(_)) => "log",
    }
}

fn state_name(state: ExtentState) -> &'static str {
    match state {
        ExtentState::Free => "free",
        ExtentState::Open => "open",
        ExtentState::Sealed => "sealed",
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
