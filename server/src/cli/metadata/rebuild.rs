//! An index made from the log beside the one that is there, and compared with it.
//!
//! Nothing is written to a disk, and nothing of the data directory is touched but files of names of their own, until the
//! new index is put in place. Both indexes are brought to the same batch first: the old one, in a copy, by what a start
//! would give it.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anvil_model::ids::DiskId;
use anvil_model::time::WallTime;
use anvil_node::metadata::MetadataError;
use anvil_node::metadata::decide::Decision;
use anvil_node::metadata::embedded::{self, Index, IndexError, OpenError, Replayed};
use anvil_node::metadata::log::{self, Batch};
use anvil_node::metadata::mutation::Mutation;
use anvil_node::metadata::query::{Answer, Query};
use anvil_node::metadata::rows::Counters;
use anvil_runtime::{Core, Device, Disk};
use anvil_store::{Identity, Recovered, identify, survey};
use indicatif::ProgressBar;

use super::offline::{self, Stop};
use crate::cli::Failure;
use crate::metadata::tables::{self, Compared, Difference, Tables};
use crate::metadata::threads::{self, FILE_NAME};
use crate::metadata::{SqliteIndex, Threads};

/// For reading several disks at once.
const BUFFERS: usize = 32;

/// What the log came to.
#[derive(Clone, Debug)]
pub(super) struct Rebuilt {
    pub(super) lineage: u128,
    /// Batches that are there.
    pub(super) batches: usize,
    pub(super) first: u64,
    /// The last one that the new index contains.
    pub(super) last: u64,
    /// How many were read.
    pub(super) disks: usize,
    pub(super) notes: Vec<String>,
    pub(super) comparison: Comparison,
    /// Of the new index, by table.
    pub(super) rows: Vec<(String, u64)>,
}

/// What is known of the old index.
#[derive(Clone, Debug)]
pub(super) enum Comparison {
    /// There is none.
    NoOld,
    /// It cannot be read, or is of another history.
    Impossible(String),
    Compared {
        tables: Vec<Compared>,
        /// The first of the rows that differ.
        named: Vec<Difference>,
    },
}

/// The files of a rebuild. Those that are not put in place are removed when this is dropped.
pub(super) struct Files {
    current: PathBuf,
    pub(super) new: PathBuf,
    /// A copy of the current one, to be brought up to the log.
    copy: PathBuf,
}

impl Files {
    /// Of the data directory that this process holds. Removes what an earlier rebuild left that was killed.
    pub(super) fn of(directory: &Path) -> Result<Self, Failure> {
        let path = |end: &str| directory.join(format!("{FILE_NAME}{end}"));
        let files = Self { current: path(""), new: path(".new"), copy: path(".copy") };
        files.clear().map_err(|error| Failure::run(format!("cannot remove {}: {error}", files.new.display())))?;
        Ok(files)
    }

    /// The new index, which nobody has open, instead of the current one.
    pub(super) fn put_in_place(&self) -> io::Result<()> {
        threads::put_in_place(&self.new, &self.current)
    }

    fn clear(&self) -> io::Result<()> {
        threads::remove(&self.new)?;
        threads::remove(&self.copy)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // The next rebuild tries again.
        let _ = self.clear();
    }
}

/// A new index, beside the old one.
pub(super) struct Made {
    files: Files,
    pub(super) rebuilt: Rebuilt,
}

impl Made {
    pub(super) fn put_in_place(self) -> io::Result<()> {
        self.files.put_in_place()
    }

    /// The file of the new index.
    pub(super) fn index(&self) -> &Path {
        &self.files.new
    }
}

/// Makes an index from the log on these disks and compares it with the one that is there, if there is one. `None` when Ctrl-C
/// ended it.
pub(super) fn make(disks: Vec<(PathBuf, Disk)>, files: Files, named_max: usize) -> Result<Option<Made>, Failure> {
    let old = if files.current.exists() { Some(copy(&files)) } else { None };
    run(disks, files, Purpose::Compare { old, named_max })
}

/// The same for writing it out: with the last batch of the log.
pub(super) fn make_for_export(disks: Vec<(PathBuf, Disk)>, files: Files) -> Result<Option<Made>, Failure> {
    run(disks, files, Purpose::Export)
}

enum Purpose {
    Compare { old: Option<Result<(), String>>, named_max: usize },
    Export,
}

fn copy(files: &Files) -> Result<(), String> {
    let spinner = offline::spinner("copying the index that is there");
    let copied = Tables::open(&files.current).and_then(|old| old.copy_to(&files.copy));
    spinner.finish_and_clear();
    copied.map_err(|error| format!("the index that is there cannot be read ({error})"))
}

fn run(disks: Vec<(PathBuf, Disk)>, files: Files, purpose: Purpose) -> Result<Option<Made>, Failure> {
    let made = offline::run_on_a_core(BUFFERS, async move |core, stop| {
        let rebuilt = rebuild(core, stop, &disks, &files, purpose).await?;
        Ok::<_, String>(rebuilt.map(|rebuilt| Made { files, rebuilt }))
    });
    made?.map_err(Failure::run)
}

async fn rebuild(
    core: &Core,
    stop: &Stop,
    disks: &[(PathBuf, Disk)],
    files: &Files,
    purpose: Purpose,
) -> Result<Option<Rebuilt>, String> {
    let Some(recovered) = stop.unless_set(core, read_log(core, disks)).await else { return Ok(None) };
    let recovered = recovered?;
    let Some(first) = recovered.log.first() else {
        return Err("the disks hold no record of the metadata log: name others, or see --salvage".to_owned());
    };
    let notes = recovered.lost.iter().map(|error| format!("{error}; it was left out")).collect();
    let making = Making { core, stop, recovered: &recovered };
    let Some((new, replayed)) = making.index(&files.new, "the log").await? else { return Ok(None) };
    let replayed = replayed.map_err(|error| error.to_string())?;
    let undecided = replayed.tip.as_ref().map(|tip| tip.header.number);
    let mut comparison = Comparison::NoOld;
    let mut to_compare = None;
    match purpose {
        Purpose::Export => {
            if let Some(number) = undecided {
                making.give(&new, number).await?;
            }
        }
        Purpose::Compare { old: None, .. } => {}
        Purpose::Compare { old: Some(Err(why)), .. } => comparison = Comparison::Impossible(why),
        Purpose::Compare { old: Some(Ok(())), named_max } => {
            let Some((old, of_old)) = making.index(&files.copy, "the index that is there").await? else {
                return Ok(None);
            };
            match of_old {
                Err(error) => {
                    comparison =
                        Comparison::Impossible(format!("the index that is there does not fit the log ({error})"));
                }
                Ok(Replayed { rebuilt: true, .. }) => {
                    let what = "the index that is there is damaged, or of another history than the log";
                    comparison = Comparison::Impossible(what.to_owned());
                }
                Ok(_) => {
                    // Whether the last batch of the log counts, a start decides; what the old index has of it does.
                    let undecided = undecided.or(replayed.void);
                    if let Some(number) = undecided
                        && counters(&old).await?.batch >= number
                    {
                        making.give(&new, number).await?;
                    }
                    to_compare = Some(named_max);
                }
            }
            old.close();
        }
    }
    let Counters { lineage, batch: last, .. } = counters(&new).await?;
    new.close();
    let failed = |error: rusqlite::Error| format!("an index cannot be read: {error}");
    if let Some(named_max) = to_compare {
        match compare(files, named_max, stop).map_err(failed)? {
            Some(compared) => comparison = compared,
            None => return Ok(None),
        }
    }
    let rows = count(&files.new).map_err(failed)?;
    let (batches, disks) = (recovered.log.count(), recovered.log.disks().count());
    Ok(Some(Rebuilt { lineage, batches, first, last, disks, notes, comparison, rows }))
}

/// What the disks hold.
async fn read_log(core: &Core, disks: &[(PathBuf, Disk)]) -> Result<Recovered<Core>, String> {
    let devices = devices(core, disks).await?;
    let spinner = offline::spinner("reading the disks");
    let recovered = survey(core, devices).await;
    spinner.finish_and_clear();
    recovered.map_err(|error| error.to_string())
}

/// The disks by their ids. They must be of one node.
pub(super) async fn devices(core: &Core, disks: &[(PathBuf, Disk)]) -> Result<Vec<(DiskId, Device)>, String> {
    let mut devices = Vec::new();
    let mut of: Option<(u128, &Path)> = None;
    for (path, disk) in disks {
        let device = disk.device(core);
        let known = match identify(core, &device).await {
            Ok(Identity::Anvil(known)) => known,
            Ok(Identity::Blank | Identity::Foreign) => return Err(format!("{} holds no Anvil disk", path.display())),
            Err(error) => return Err(format!("the disk at {}: {error}", path.display())),
        };
        let (cluster, first) = *of.get_or_insert((known.cluster, path));
        if cluster != known.cluster {
            return Err(format!("{} and {} are disks of different clusters", first.display(), path.display()));
        }
        if devices.iter().any(|(disk, _)| *disk == known.disk) {
            return Err(format!(
                "{} holds disk {}, and so does another path: leave one out",
                path.display(),
                known.disk
            ));
        }
        devices.push((known.disk, device));
    }
    Ok(devices)
}

/// Makes indexes from one log.
struct Making<'a> {
    core: &'a Core,
    stop: &'a Stop,
    recovered: &'a Recovered<Core>,
}

impl Making<'_> {
    /// Opens the index in a file, which may be a new one, and brings it up to the log. `None` when it was interrupted.
    async fn index(&self, path: &Path, what: &str) -> Result<Option<(Watched, Result<Replayed, OpenError>)>, String> {
        let (index, threads) = SqliteIndex::start_in(path.to_owned()).map_err(|error| error.to_string())?;
        let bar = offline::bar(self.recovered.log.count() as u64, what, "batches");
        let index = Watched { index, threads, bar };
        let replayed = self.stop.unless_set(self.core, embedded::replay(self.core, self.recovered, &index)).await;
        index.bar.finish_and_clear();
        Ok(replayed.map(|replayed| (index, replayed)))
    }

    /// Gives the index a batch of the log.
    async fn give(&self, index: &Watched, number: u64) -> Result<(), String> {
        let record = self.recovered.log.read(number).next().await;
        let record = record.filter(|record| record.as_ref().map_or(true, |record| record.number == number));
        let payload = record.ok_or("the last batch is gone")?.map_err(|error| error.to_string())?.payload;
        let batch = log::decode(&payload).map_err(|error| error.to_string())?;
        index.replay(vec![batch]).await.map_err(|error| error.to_string())
    }
}

async fn counters(index: &Watched) -> Result<Counters, String> {
    index.counters().await.map_err(|error| error.to_string())
}

fn compare(files: &Files, named_max: usize, stop: &Stop) -> rusqlite::Result<Option<Comparison>> {
    let spinner = offline::spinner("comparing");
    let (old, new) = (Tables::open(&files.copy)?, Tables::open(&files.new)?);
    let mut named = Vec::new();
    let tell = |difference| {
        if named.len() < named_max {
            named.push(difference);
        }
    };
    let compared = tables::compare(&old, &new, tell, || !stop.is_set())?;
    spinner.finish_and_clear();
    Ok(compared.map(|tables| Comparison::Compared { tables, named }))
}

fn count(index: &Path) -> rusqlite::Result<Vec<(String, u64)>> {
    let tables = Tables::open(index)?;
    tables.list()?.into_iter().map(|table| Ok((table.name.clone(), tables.count(&table)?))).collect()
}

/// An index whose progress is shown.
struct Watched {
    index: SqliteIndex,
    threads: Threads,
    bar: ProgressBar,
}

impl Watched {
    /// Ends its threads, which closes the file.
    fn close(self) {
        let Self { index, threads, .. } = self;
        drop(index);
        threads.join();
    }
}

impl Index for Watched {
    async fn counters(&self) -> Result<Counters, IndexError> {
        self.index.counters().await
    }

    async fn reset(&self, lineage: u128) -> Result<(), IndexError> {
        self.index.reset(lineage).await
    }

    async fn replay(&self, batches: Vec<Batch>) -> Result<(), IndexError> {
        let count = batches.len() as u64;
        self.index.replay(batches).await?;
        self.bar.inc(count);
        Ok(())
    }

    async fn decide(
        &self,
        batch: Arc<[Mutation]>,
        range: Range<usize>,
        number: u64,
        now: WallTime,
    ) -> Result<Decision, IndexError> {
        self.index.decide(batch, range, number, now).await
    }

    async fn commit(&self) -> Result<(), IndexError> {
        self.index.commit().await
    }

    async fn rollback(&self) -> Result<(), IndexError> {
        self.index.rollback().await
    }

    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        self.index.look_up(batch).await
    }
}
