//! `anvil admin metadata`: the metadata of a node that does not run, made again from what its disks hold; written out; moved
//! into a database.

mod import;
mod rebuild;
mod reconcile;
mod salvage;
mod to_disks;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anvil_runtime::Disk;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use self::rebuild::{Comparison, Files, Rebuilt};
pub(super) use self::salvage::check_finished;
use super::offline::{self, EXIT_INTERRUPTED};
use super::{Failure, print};
use crate::config::{Environment, databases};
use crate::data_dir::DataDir;
use crate::metadata::postgres::cluster::{Databases, is_of_a_database};
use crate::metadata::postgres::moving::{MoveError, each_row};
use crate::metadata::tables::{Compared, Tables, Value as RowValue};

#[derive(Debug, Subcommand)]
pub(super) enum MetadataCommand {
    /// Makes the metadata's index anew from its log on the disks, and compares it with the one that is there row by row.
    /// The node must not be running
    Rebuild(Rebuild),
    /// Writes all metadata as lines of JSON: with `REGIONAL_DATABASE_URL`, as the database has it, also while the node runs;
    /// without, as the log on the disks has it, and the node must not be running
    Export(Export),
    /// Moves the metadata of a node from its disks into the databases of `GLOBAL_DATABASE_URL` and `REGIONAL_DATABASE_URL`, or from
    /// these to its disks, and compares every row. The node must not be running; from then on it starts with these databases, or
    /// without
    Import(Import),
    /// Has a node go on with a regional database that went back, as it is: restored from an older backup, or failed over to a
    /// standby that was behind. What was written since is given up. The node must not be running
    Reconcile(Reconcile),
}

#[derive(Debug, Args)]
pub(super) struct Reconcile {
    /// The node's data directory [env: ANVIL_DATA_DIR, default: anvil-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The node's data directory [env: ANVIL_DATA_DIR, default: anvil-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the metadata goes
    #[arg(long, value_enum, default_value_t = Into::Databases, value_name = "PLACE")]
    into: Into,
    /// The region of the databases, which is made [env: REGION, default: us-east-1]
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Where metadata is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Into {
    Databases,
    Disks,
}

#[derive(Debug, Args)]
pub(super) struct Rebuild {
    #[command(flatten)]
    of: Of,
    /// Puts the new index in place of one that is there, which is kept aside as metadata.sqlite.old. Where there is none
    /// the new one is put in place without it
    #[arg(long)]
    replace: bool,
    /// Makes metadata of the objects' bytes instead, where no disk holds the log any more: plain PUTs come back, parts as
    /// uploads under way; what cannot be known is written to a list
    #[arg(long)]
    salvage: bool,
    /// Where the list is written [default: salvage-list.jsonl in the data directory]
    #[arg(long, value_name = "FILE", requires = "salvage")]
    list: Option<PathBuf>,
    /// The region of the buckets that come back [env: REGION, default: us-east-1]
    #[arg(long, value_name = "NAME", requires = "salvage")]
    region: Option<String>,
    /// Gives up for good what is left of a log that cannot be read to its end
    #[arg(long, requires = "salvage")]
    discard_log: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    of: Of,
}

/// Which node.
#[derive(Debug, Args)]
struct Of {
    /// The node's data directory, which may have been lost [env: ANVIL_DATA_DIR, default: anvil-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A disk of the node. Any one that holds the log is enough; repeat it for several [default: those that the data
    /// directory knows]
    #[arg(long = "disk", value_name = "PATH")]
    disks: Vec<PathBuf>,
}

/// Rows that differ and are named, at most; the others are counted.
const DIFFERENCES_NAMED_MAX: usize = 100;

/// A node's data directory and disks, which nobody else uses meanwhile.
struct Held {
    data: DataDir,
    disks: Vec<(PathBuf, Disk)>,
    /// What the node knows and could not be opened.
    notes: Vec<String>,
}

pub(super) fn run(command: MetadataCommand) -> Result<(), Failure> {
    match command {
        MetadataCommand::Rebuild(rebuild) => self::rebuild(&rebuild),
        MetadataCommand::Export(export) => self::export(&export),
        MetadataCommand::Import(import) => self::import(&import),
        MetadataCommand::Reconcile(reconcile) => self::reconcile(&reconcile),
    }
}

impl Of {
    fn hold(&self) -> Result<Held, Failure> {
        let environment = Environment::of_process().map_err(Failure::usage)?;
        let data = open_data(self.data_dir.as_deref(), &environment)?;
        if is_of_a_database(&data).map_err(Failure::run)? {
            return Err(Failure::run("the metadata of this node is in PostgreSQL, and its disks hold none"));
        }
        let mut held = Held { data, disks: Vec::new(), notes: Vec::new() };
        for path in &self.disks {
            held.disks.push((path.clone(), offline::open_disk(path)?));
        }
        if !self.disks.is_empty() {
            return Ok(held);
        }
        for path in offline::disks_of_node(&held.data)? {
            match offline::open_disk(&path) {
                Ok(disk) => held.disks.push((path, disk)),
                Err(Failure { sentence, .. }) => held.notes.push(sentence),
            }
        }
        match held.notes.pop() {
            _ if !held.disks.is_empty() => Ok(held),
            Some(note) => Err(Failure::run(note)),
            None => {
                let path = held.data.path().display();
                Err(Failure::usage(format!(
                    "the data directory {path} knows no disk: name the node's disks with --disk"
                )))
            }
        }
    }
}

fn open_data(named: Option<&Path>, environment: &Environment) -> Result<DataDir, Failure> {
    let directory = named.or_else(|| environment.value("ANVIL_DATA_DIR").map(Path::new));
    DataDir::open(directory.unwrap_or(Path::new("anvil-data"))).map_err(Failure::run)
}

fn region(named: Option<&str>, environment: &Environment) -> String {
    named.or_else(|| environment.value("REGION")).unwrap_or("us-east-1").to_owned()
}

fn import(args: &Import) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let databases = databases(&environment).map_err(Failure::usage)?;
    let data = open_data(args.data_dir.as_deref(), &environment)?;
    let compared = match args.into {
        Into::Databases => import::import(&databases, &data, &region(args.region.as_deref(), &environment))?,
        Into::Disks => to_disks::to_disks(&databases, data)?,
    };
    if args.json {
        let tables = compared.iter().flatten().map(|table| (table.table.clone(), json!(table.new_rows)));
        let tables: serde_json::Map<_, _> = tables.collect();
        return print(&format!("{:#}\n", json!({ "rows": tables, "moved_before": compared.is_none() })));
    }
    let Some(compared) = compared else {
        return print(match args.into {
            Into::Databases => "the metadata is in the databases already; what was left of its log is given up\n",
            Into::Disks => "the metadata is on the disks of this node already\n",
        });
    };
    let mut text = format!("{:<12} {:>12}\n", "table", "rows");
    text.extend(compared.iter().map(|Compared { table, new_rows, .. }| format!("{table:<12} {new_rows:>12}\n")));
    text += match args.into {
        Into::Databases => {
            "every row is in the database as it was on the disks; start the node with the same two URLs\n"
        }
        Into::Disks => "every row is on the disks as it was in the database; start the node without the two URLs\n",
    };
    print(&text)
}

fn reconcile(args: &Reconcile) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let databases = databases(&environment).map_err(Failure::usage)?;
    let data = open_data(args.data_dir.as_deref(), &environment)?;
    match reconcile::reconcile(&databases, &data)? {
        None => print("the database has all that this node was told is kept; nothing was changed\n"),
        Some(how) => print(&format!(
            "{how}\nthe node goes on with it as it is from its next start on: what was written since is given up, and its space \
             returns; what was deleted since is back, as far as its bytes were not given back\n"
        )),
    }
}

fn interrupted() -> Failure {
    Failure { sentence: "interrupted: nothing was changed".into(), code: EXIT_INTERRUPTED }
}

fn rebuild(args: &Rebuild) -> Result<(), Failure> {
    let Held { data, disks, notes } = args.of.hold()?;
    if args.salvage {
        return salvage(args, data, disks, &notes);
    }
    check_finished(&data)?;
    let files = Files::of(data.path())?;
    let made = rebuild::make(disks, files, DIFFERENCES_NAMED_MAX)?.ok_or_else(interrupted)?;
    let replaces = matches!(made.rebuilt.comparison, Comparison::NoOld) || args.replace;
    let rebuilt = made.rebuilt.clone();
    if replaces {
        made.put_in_place().map_err(|error| Failure::run(format!("the new index cannot be put in place: {error}")))?;
    }
    let text =
        if args.json { format!("{:#}\n", to_json(&rebuilt, &notes, replaces)) } else { to_text(&rebuilt, &notes) };
    print(&text)?;
    match (&rebuilt.comparison, replaces) {
        (_, true) if args.json => Ok(()),
        (_, true) => print("the new index is in place\n"),
        (Comparison::Compared { tables, .. }, false) => match tables.iter().map(|table| table.differences).sum::<u64>()
        {
            0 if args.json => Ok(()),
            0 => print("the index that is there says what the log says; it was left in place\n"),
            rows => Err(Failure::run(format!(
                "{rows} rows of the index that is there are not what the log says: --replace puts the new one in place"
            ))),
        },
        (Comparison::Impossible(why), false) => {
            Err(Failure::run(format!("{why}: --replace puts the new one in its place")))
        }
        (Comparison::NoOld, false) => unreachable!("without an old index the new one is put in place"),
    }
}

fn salvage(args: &Rebuild, data: DataDir, disks: Vec<(PathBuf, Disk)>, notes: &[String]) -> Result<(), Failure> {
    if salvage::index_is_there(data.path()) && !args.replace {
        let path = data.path().display();
        return Err(Failure::usage(format!(
            "there is an index in {path}, which knows more than can be salvaged: look for the disks that hold its log, or give \
             it up with --replace"
        )));
    }
    let environment = Environment::of_process().map_err(Failure::usage)?;
    let request = salvage::Request {
        list: args.list.clone(),
        region: region(args.region.as_deref(), &environment),
        discard_log: args.discard_log,
    };
    let files = Files::of(data.path())?;
    let outcome = salvage::salvage(data, disks, files, request)?.ok_or_else(interrupted)?;
    let salvage::Outcome { objects, parts, superseded, left_out, refused, list } = outcome;
    if args.json {
        let json = json!({
            "objects": objects,
            "parts": parts,
            "superseded": superseded,
            "left_out": left_out,
            "refused": refused,
            "list": list.display().to_string(),
            "notes": notes,
        });
        return print(&format!("{json:#}\n"));
    }
    let mut text: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    text += &format!("{objects} objects are back, and {parts} parts in uploads under way\n");
    text += &format!("{superseded} older blobs were superseded, {left_out} are left out, {refused} were refused\n");
    text += &format!("the list is in {}; it says what nobody can know, too\n", list.display());
    text += "a node that starts now gives the space of what is not back to others, after its --reclaim-delay\n";
    print(&text)
}

fn export(args: &Export) -> Result<(), Failure> {
    let environment = Environment::of_process().map_err(Failure::usage)?;
    if environment.value("REGIONAL_DATABASE_URL").is_some() {
        let databases = databases(&environment).map_err(Failure::usage)?;
        return written(write_database(&databases, &mut BufWriter::new(io::stdout().lock())));
    }
    let Held { data, disks, notes } = args.of.hold()?;
    for note in notes {
        eprintln!("anvil: {note}");
    }
    check_finished(&data)?;
    let files = Files::of(data.path())?;
    let made = rebuild::make_for_export(disks, files)?.ok_or_else(interrupted)?;
    written(write_rows(made.index(), &made.rebuilt, &mut BufWriter::new(io::stdout().lock())))
}

/// A reader that went away wants no more.
fn written(outcome: Result<(), ExportError>) -> Result<(), Failure> {
    match outcome {
        Ok(()) => Ok(()),
        Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::run(error)),
    }
}

/// The same lines of a database.
fn write_database(databases: &Databases, out: &mut impl Write) -> Result<(), ExportError> {
    writeln!(out, "{}", json!({ "format": "anvil metadata", "version": EXPORT_VERSION }))?;
    each_row::<ExportError>(databases, |table, row| Ok(write_row(table, row, out)?))?;
    Ok(out.flush()?)
}

fn write_row(table: &str, row: impl IntoIterator<Item = (String, RowValue)>, out: &mut impl Write) -> io::Result<()> {
    let columns = row.into_iter().map(|(name, value)| {
        let json = value.to_json(&name);
        (name, json)
    });
    let columns: serde_json::Map<_, _> = columns.collect();
    writeln!(out, "{}", json!({ "table": table, "row": columns }))
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the index cannot be read: {0}")]
    Read(#[from] rusqlite::Error),
    #[error("cannot write to stdout: {0}")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Database(#[from] MoveError),
}

/// A line that says what follows, and a line for each row. Keys of sealed secrets are as sealed as in the rows.
fn write_rows(index: &Path, rebuilt: &Rebuilt, out: &mut impl Write) -> Result<(), ExportError> {
    let head = json!({
        "format": "anvil metadata",
        "version": EXPORT_VERSION,
        "history": format!("{:032x}", rebuilt.lineage),
        "last_batch": rebuilt.last,
    });
    writeln!(out, "{head}")?;
    let tables = Tables::open(index)?;
    for table in tables.list()? {
        tables.each(&table, |row| {
            let row = table.columns.iter().cloned().zip(row.iter().cloned());
            Ok::<_, ExportError>(write_row(&table.name, row, out)?)
        })?;
    }
    Ok(out.flush()?)
}

/// Of the lines that [`write_rows`] writes.
const EXPORT_VERSION: u32 = 1;

fn to_text(rebuilt: &Rebuilt, notes: &[String]) -> String {
    let Rebuilt { lineage, batches, first, last, disks, notes: found, comparison, rows } = rebuilt;
    let mut lines: Vec<String> = notes.iter().chain(found).map(|note| format!("note: {note}")).collect();
    let disks = if *disks == 1 { "1 disk".to_owned() } else { format!("{disks} disks") };
    lines.push(format!("the metadata log: {batches} batches on {disks}, {first} to {last}, of history {lineage:032x}"));
    match comparison {
        Comparison::NoOld => {
            lines.push(format!("{:<12} {:>12}", "table", "rows"));
            lines.extend(rows.iter().map(|(table, rows)| format!("{table:<12} {rows:>12}")));
        }
        Comparison::Impossible(why) => lines.push(why.clone()),
        Comparison::Compared { tables, named } => {
            lines.push(format!("{:<12} {:>12} {:>12} {:>12}", "table", "by the log", "in the index", "differ"));
            for Compared { table, old_rows, new_rows, differences } in tables {
                lines.push(format!("{table:<12} {new_rows:>12} {old_rows:>12} {differences:>12}"));
            }
            lines.extend(named.iter().map(|difference| format!("differs: {difference}")));
            let all: u64 = tables.iter().map(|table| table.differences).sum();
            if all > named.len() as u64 {
                lines.push(format!("and {} more", all - named.len() as u64));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn to_json(rebuilt: &Rebuilt, notes: &[String], in_place: bool) -> Value {
    let Rebuilt { lineage, batches, first, last, disks, notes: found, comparison, rows } = rebuilt;
    let table = |Compared { table, old_rows, new_rows, differences }: &Compared| json!({ "table": table, "rows": new_rows, "rows_in_old_index": old_rows, "differences": differences });
    let comparison = match comparison {
        Comparison::NoOld => Value::Null,
        Comparison::Impossible(why) => json!({ "impossible": why }),
        Comparison::Compared { tables, named } => json!({
            "tables": tables.iter().map(table).collect::<Vec<_>>(),
            "named": named.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    };
    json!({
        "history": format!("{lineage:032x}"),
        "batches": batches,
        "first_batch": first,
        "last_batch": last,
        "disks": disks,
        "notes": notes.iter().chain(found).collect::<Vec<_>>(),
        "rows": rows.iter().map(|(table, rows)| (table.clone(), json!(rows))).collect::<serde_json::Map<_, _>>(),
        "compared": comparison,
        "in_place": in_place,
    })
}
