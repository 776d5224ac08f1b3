//! SQLite on threads of its own: one that writes, two that read. Nothing here runs on a core, so a checkpoint or a slow
//! page never stops a core, and a commit never delays a look-up.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anvil_model::time::WallTime;
use anvil_node::metadata::client::RETRY_AFTER;
use anvil_node::metadata::decide::{self, Decision};
use anvil_node::metadata::embedded::{Index, IndexError};
use anvil_node::metadata::log::Batch;
use anvil_node::metadata::mutation::Mutation;
use anvil_node::metadata::query::{Answer, Query, look_up};
use anvil_node::metadata::rows::{Counters, Rows, RowsError};
use anvil_node::metadata::{MetadataError, Refusal};
use tokio::sync::{mpsc, oneshot};

use super::sqlite::{OpenError, Sqlite};

/// Threads that answer look-ups.
pub const READERS: usize = 2;
/// Requests that wait for a thread. The service has at most one for the writer and one per reader under way.
const QUEUE: usize = 8;
/// The file's name within the data directory.
pub const FILE_NAME: &str = "metadata.sqlite";

/// The index, as the core that runs the metadata service sees it.
#[derive(Debug)]
pub struct SqliteIndex {
    writer: mpsc::Sender<WriterJob>,
    readers: mpsc::Sender<ReaderJob>,
}

/// The threads. They end when the [`SqliteIndex`] is dropped.
#[derive(Debug)]
pub struct Threads {
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Waits for the threads to end, which closes the file.
    pub fn join(self) {
        for handle in self.handles {
            // A thread that panicked has said so.
            let _ = handle.join();
        }
    }
}

/// Why the index cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A damaged file cannot be moved away.
    #[error("the damaged metadata index {path} cannot be moved away: {source}")]
    MoveAway {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// No thread can be had.
    #[error("the threads of the metadata index cannot be started: {0}")]
    Spawn(io::Error),
}

enum WriterJob {
    Counters(oneshot::Sender<Result<Counters, RowsError>>),
    Reset(u128, oneshot::Sender<Result<(), RowsError>>),
    Replay(Vec<Batch>, oneshot::Sender<Result<(), RowsError>>),
    Decide(ToDecide, oneshot::Sender<Result<Decision, RowsError>>),
    Commit(oneshot::Sender<Result<(), RowsError>>),
    RollBack(oneshot::Sender<Result<(), RowsError>>),
}

struct ToDecide {
    batch: Arc<[Mutation]>,
    range: Range<usize>,
    number: u64,
    now: WallTime,
}

struct ReaderJob {
    queries: Vec<Query>,
    reply: oneshot::Sender<Vec<Result<Answer, MetadataError>>>,
}

impl SqliteIndex {
    /// Opens the index in `directory` and starts its threads. A damaged file is moved aside and begun anew; the log
    /// fills it.
    ///
    /// # Errors
    /// When the file is newer than this program or cannot be opened or moved, or no thread can be had.
    pub fn start(directory: &Path) -> Result<(Self, Threads), StartError> {
        Self::start_in(directory.join(FILE_NAME))
    }

    /// The same with a file of any name.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(path: PathBuf) -> Result<(Self, Threads), StartError> {
        let rows = match Sqlite::open(&path) {
            Err(OpenError::Damaged { path: name, source }) => {
                tracing::warn!(path = name, error = %source, "the metadata index is damaged and is made anew");
                move_away(&path).map_err(|source| StartError::MoveAway { path: name, source })?;
                Sqlite::open(&path)?
            }
            opened => opened?,
        };
        let changes = Arc::new(Changes::default());
        let (writer, writer_jobs) = mpsc::channel(QUEUE);
        let (readers, reader_jobs) = mpsc::channel(QUEUE);
        let writing = Writer { path: path.clone(), rows: Some(rows), changes: Arc::clone(&changes) };
        let mut handles = vec![spawn("metadata-writer".to_owned(), move || writing.run(writer_jobs))?];
        let reader_jobs = Arc::new(Mutex::new(reader_jobs));
        for number in 0..READERS {
            let reading = Reader { path: path.clone(), rows: None, commits: 0, changes: Arc::clone(&changes) };
            let jobs = Arc::clone(&reader_jobs);
            handles.push(spawn(format!("metadata-read-{number}"), move || reading.run(&jobs))?);
        }
        Ok((Self { writer, readers }, Threads { handles }))
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, RowsError>>) -> WriterJob,
    ) -> Result<T, IndexError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(job(reply)).await.map_err(|_| IndexError::Stopped)?;
        Ok(answer.await.map_err(|_| IndexError::Stopped)??)
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Spawn)
}

/// Renames the file and what belongs to it, so that an operator can look at it. One old file is kept.
fn move_away(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(path, &format!(".old{suffix}")));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => remove_file(&to)?,
            renamed => renamed?,
        }
    }
    Ok(())
}

/// Puts one index, which nobody has open, into the place of another, which is kept aside as a damaged one is. A crash in
/// between leaves none: then the next start makes it from the log.
pub(crate) fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    if path.exists() {
        move_away(path)?;
    }
    for suffix in ["-wal", "-shm"] {
        remove_file(&with_suffix(path, suffix))?;
    }
    fs::rename(new, path)?;
    let directory = path.parent().expect("a file is in a directory");
    fs::File::open(directory)?.sync_all()
}

/// Removes an index, if it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let suffixes = ["", "-wal", "-shm", ".old", ".old-wal", ".old-shm"];
    suffixes.iter().try_for_each(|suffix| remove_file(&with_suffix(path, suffix)))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

impl Index for SqliteIndex {
    async fn counters(&self) -> Result<Counters, IndexError> {
        self.ask(WriterJob::Counters).await
    }

    async fn reset(&self, lineage: u128) -> Result<(), IndexError> {
        self.ask(|reply| WriterJob::Reset(lineage, reply)).await
    }

    async fn replay(&self, batches: Vec<Batch>) -> Result<(), IndexError> {
        self.ask(|reply| WriterJob::Replay(batches, reply)).await
    }

    async fn decide(
        &self,
        batch: Arc<[Mutation]>,
        range: Range<usize>,
        number: u64,
        now: WallTime,
    ) -> Result<Decision, IndexError> {
        self.ask(|reply| WriterJob::Decide(ToDecide { batch, range, number, now }, reply)).await
    }

    async fn commit(&self) -> Result<(), IndexError> {
        self.ask(WriterJob::Commit).await
    }

    async fn rollback(&self) -> Result<(), IndexError> {
        self.ask(WriterJob::RollBack).await
    }

    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        let count = batch.len();
        let (reply, answers) = oneshot::channel();
        let job = ReaderJob { queries: batch, reply };
        let sent = self.readers.send(job).await.is_ok();
        let answers = if sent { answers.await.ok() } else { None };
        answers.unwrap_or_else(|| vec![unavailable(); count])
    }
}

fn unavailable<T>() -> Result<T, MetadataError> {
    Err(MetadataError::Unavailable { retry_after: RETRY_AFTER })
}

/// What the writer tells the readers.
#[derive(Debug, Default)]
struct Changes {
    /// Files that it has begun: whether theirs is an old one.
    life: AtomicU64,
    /// Commits that have ended, well or badly, each counted before anybody is told of it: whether what was found before still
    /// holds for whoever asks now.
    commits: AtomicU64,
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    /// `None` only when making the file anew failed.
    rows: Option<Sqlite>,
    changes: Arc<Changes>,
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<WriterJob>) {
        while let Some(job) = jobs.blocking_recv() {
            // An asker that is gone does not change what was asked for.
            match job {
                WriterJob::Counters(reply) => drop(reply.send(self.with(|rows| rows.counters()))),
                WriterJob::Reset(lineage, reply) => drop(reply.send(self.reset(lineage))),
                WriterJob::Replay(batches, reply) => drop(reply.send(self.changing(|rows| replay(rows, &batches)))),
                WriterJob::Decide(what, reply) => drop(reply.send(self.with(|rows| decide(rows, &what)))),
                WriterJob::Commit(reply) => drop(reply.send(self.changing(|rows| rows.commit()))),
                WriterJob::RollBack(reply) => drop(reply.send(self.with(|rows| {
                    rows.roll_back();
                    Ok(())
                }))),
            }
        }
    }

    fn with<T>(&mut self, run: impl FnOnce(&mut Sqlite) -> Result<T, RowsError>) -> Result<T, RowsError> {
        match &mut self.rows {
            Some(rows) => run(rows),
            None => Err(RowsError::Failed("there is no file".to_owned())),
        }
    }

    /// The same with what commits.
    fn changing<T>(&mut self, run: impl FnOnce(&mut Sqlite) -> Result<T, RowsError>) -> Result<T, RowsError> {
        let result = self.with(run);
        self.changes.commits.fetch_add(1, Ordering::Release);
        result
    }

    /// Puts the file aside, unless nothing was ever in it, and begins another one.
    fn reset(&mut self, lineage: u128) -> Result<(), RowsError> {
        if let Some(rows) = &mut self.rows
            && rows.counters().is_ok_and(|counters| counters == Counters::new(0))
        {
            return rows.set_lineage(lineage);
        }
        let failed = |error: &dyn std::error::Error| RowsError::Failed(error.to_string());
        self.rows = None;
        move_away(&self.path).map_err(|error| failed(&error))?;
        let mut rows = Sqlite::open(&self.path).map_err(|error| failed(&error))?;
        rows.set_lineage(lineage)?;
        self.rows = Some(rows);
        self.changes.life.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

fn replay(rows: &mut Sqlite, batches: &[Batch]) -> Result<(), RowsError> {
    rows.begin()?;
    let replayed = batches.iter().try_for_each(|batch| decide::replay(rows, batch));
    match replayed {
        Ok(()) => rows.commit(),
        Err(error) => {
            rows.roll_back();
            Err(error)
        }
    }
}

fn decide(rows: &mut Sqlite, what: &ToDecide) -> Result<Decision, RowsError> {
    rows.begin()?;
    let decided = decide::decide(rows, &what.batch[what.range.clone()], what.number, what.now);
    if decided.is_err() {
        rows.roll_back();
    }
    decided
}

/// A thread that reads.
struct Reader {
    path: PathBuf,
    /// With the life of the file that it was opened in; `None` before the first look-up and after an error.
    rows: Option<(u64, Sqlite)>,
    /// The commits that what the rows keep is not older than.
    commits: u64,
    changes: Arc<Changes>,
}

impl Reader {
    fn run(mut self, jobs: &Mutex<mpsc::Receiver<ReaderJob>>) {
        loop {
            // Whoever holds the lock waits for the next batch; the other one works, or waits for the lock.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            let Some(ReaderJob { queries, reply }) = job else { return };
            let answers = self.answer(&queries).unwrap_or_else(|error| {
                tracing::error!(%error, "the metadata index cannot be read");
                self.rows = None;
                vec![unavailable(); queries.len()]
            });
            let _ = reply.send(answers);
        }
    }

    fn answer(&mut self, queries: &[Query]) -> Result<Vec<Result<Answer, MetadataError>>, RowsError> {
        let life = self.changes.life.load(Ordering::Acquire);
        // Before the view begins, which has them all then; what it sees beyond them was told to nobody yet.
        let commits = self.changes.commits.load(Ordering::Acquire);
        if self.rows.as_ref().is_none_or(|(opened_in, _)| *opened_in != life) {
            let rows = Sqlite::open_reader(&self.path).map_err(|error| RowsError::Failed(error.to_string()))?;
            self.rows = Some((life, rows));
        }
        let (_, rows) = self.rows.as_ref().expect("just opened");
        if std::mem::replace(&mut self.commits, commits) != commits {
            rows.forget();
        }
        rows.begin_view()?;
        let answers = queries.iter().map(|query| match look_up(rows, query) {
            Ok(answer) => answer.map_err(|refusal: Refusal| refusal.into()),
            Err(error) => {
                tracing::error!(%error, "a look-up failed");
                unavailable()
            }
        });
        let answers = answers.collect();
        rows.commit()?;
        Ok(answers)
    }
}
