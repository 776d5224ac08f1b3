//! The embedded metadata: a log on the node's disks is the truth, an index beside it answers.
//!
//! A batch goes this way: decided by the index in an open transaction, appended to every disk of the log, made durable by
//! one flush of each of them and of every disk that the batch's data touched, committed in the index, answered. So
//! - the index never contains what is not durable in the log, and no reader sees it;
//! - the flush that makes the batch durable makes its data durable too;
//! - after a failed append or flush the batch is void, and the next batch of the log says so; until that one is durable,
//!   the outcome is unknown.
//!
//! After a crash the last batch of the log is the only one that may have data that is not there, because every batch
//! names the one that was durable before it began. If its data is not wholly there, nobody was told of it, and it is
//! void as a whole.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use anvil_model::ids::{DiskId, Incarnation, NodeId, WriteId};
use anvil_model::io::World;
use anvil_model::time::WallTime;
use anvil_store::{AppendError, LOG_PAYLOAD_BYTES_MAX, LogError, LogRecord, LogWriter, Recovered};
use tokio::sync::Mutex;

use super::client::RETRY_AFTER;
use super::decide::{Decided, Decision};
use super::log::chain::{Broken, Chain};
use super::log::{self, Batch, DecodeError, Header};
use super::mutation::{BlobClaim, Change, LostShard, Mutation, Outcome};
use super::query::{Answer, Query};
use super::rows::{Counters, RowsError};
use super::{Metadata, MetadataError, Refusal, flushed};

/// The rows on a thread of their own. One transaction at a time decides; readers see what is committed and never wait
/// for it.
pub trait Index: 'static {
    /// Where the committed rows stand. Lineage 0 and batch 0 when there are none yet.
    fn counters(&self) -> impl Future<Output = Result<Counters, IndexError>>;
    /// Throws all rows away and begins anew with that lineage, durably in no particular time.
    fn reset(&self, lineage: u128) -> impl Future<Output = Result<(), IndexError>>;
    /// Applies logged batches in order ([`super::decide::replay`]), all or none, and commits.
    fn replay(&self, batches: Vec<Batch>) -> impl Future<Output = Result<(), IndexError>>;
    /// Begins a transaction, decides `batch[range]` in it ([`super::decide::decide`]) and leaves it open. After an error
    /// there is no transaction.
    fn decide(
        &self,
        batch: Arc<[Mutation]>,
        range: Range<usize>,
        number: u64,
        now: WallTime,
    ) -> impl Future<Output = Result<Decision, IndexError>>;
    /// Commits the open transaction. After an error there is no transaction, and its changes did not happen.
    fn commit(&self) -> impl Future<Output = Result<(), IndexError>>;
    /// Rolls the open transaction back.
    fn rollback(&self) -> impl Future<Output = Result<(), IndexError>>;
    /// Answers from committed rows, all queries from one view.
    fn look_up(&self, batch: Vec<Query>) -> impl Future<Output = Vec<Result<Answer, MetadataError>>>;
}

/// The index does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Its rows cannot be had, or contradict the log.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// Its thread has ended.
    #[error("the metadata index has stopped")]
    Stopped,
}

/// Why the metadata cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The log cannot be read.
    #[error("the metadata log cannot be read: {0}")]
    Log(#[from] LogError),
    /// A record of the log is not a batch.
    #[error("record {number}: {source}")]
    Decode {
        /// Which.
        number: u64,
        /// Why.
        source: DecodeError,
    },
    /// The log belongs to more than one history.
    #[error("the metadata log changes from one history to another at record {0}")]
    Mixed(u64),
    /// A record takes back what another one says was durable: disks were in use without one another.
    #[error(
        "record {number} of the metadata log follows {follows}, and {counted} was durable behind that: disks of this node \
         were in use without one another; start without those that were away"
    )]
    Forked {
        /// Which record.
        number: u64,
        /// The one that it follows.
        follows: u64,
        /// The one that counted before.
        counted: u64,
    },
    /// The index has seen more of this history than the disks hold. Making it anew would lose what was acknowledged.
    #[error(
        "the metadata log on the disks ends at record {log}, and this node had made changes durable up to record {index}: \
         a disk was rolled back, exchanged or emptied; bring it back as it was (or, to go on without those changes, take \
         metadata.sqlite out of the data directory)"
    )]
    Behind {
        /// Where the log on the disks ends; 0 when there is none.
        log: u64,
        /// Where the index stands.
        index: u64,
    },
    /// The index fails even after it was made anew.
    #[error("the metadata index cannot be brought up to the log: {0}")]
    Index(#[from] IndexError),
    /// The first batch of this life did not become durable.
    #[error("the metadata log cannot be written: {0}")]
    Write(#[from] MetadataError),
}

/// Where the log ended and the index stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The history.
    pub lineage: u128,
    /// The number for the next record.
    pub next: u64,
    /// The last batch that counts.
    pub durable_through: u64,
    /// Batches that the index had to be given.
    pub applied: u64,
    /// The last record, when it does not count because its data is not there.
    pub void: Option<u64>,
    /// True when the index was made anew from the log.
    pub rebuilt: bool,
    /// The last batch, when it counts and the index does not have it yet. A crash may have left it on one disk only, so
    /// that it goes to the others before anything builds on it.
    pub tip: Option<Batch>,
    /// Shards of the last batch that are not on the disks that it names, which are here. A crash tore them before anybody
    /// was told of their blobs; enough others are there.
    pub torn: Vec<LostShard>,
}

/// Brings the index up to the log that recovery found. An index of another history, or that fails, is made anew.
///
/// # Errors
/// When the log cannot be read, the index cannot be made from it, or the log ends before the index does.
pub async fn replay<W: World, I: Index>(world: &W, recovered: &Recovered<W>, index: &I) -> Result<Replayed, OpenError> {
    let problem = match index.counters().await {
        Ok(counters) if counters.lineage == 0 && recovered.log.first().is_none() => {
            index.reset(new_id(world)).await?;
            return begin(recovered, index).await;
        }
        Ok(counters) if counters.lineage == 0 => "there is none".to_owned(),
        Ok(counters) => match catch_up(recovered, index, counters).await {
            Ok(Some(replayed)) => return Ok(replayed),
            Ok(None) => "it is of another history".to_owned(),
            Err(OpenError::Index(error @ IndexError::Rows(_))) => error.to_string(),
            Err(error) => return Err(error),
        },
        Err(error @ IndexError::Rows(_)) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let lineage = first_header(recovered).await?.map_or_else(|| new_id(world), |first| first.lineage);
    tracing::warn!(problem, last = recovered.log.last(), "making the metadata index anew from the log");
    index.reset(lineage).await?;
    Ok(Replayed { rebuilt: true, ..begin(recovered, index).await? })
}

/// Fills an index that was just reset.
async fn begin<W: World, I: Index>(recovered: &Recovered<W>, index: &I) -> Result<Replayed, OpenError> {
    let counters = index.counters().await?;
    let replayed = catch_up(recovered, index, counters).await?;
    replayed.ok_or(OpenError::Mixed(recovered.log.first().unwrap_or(0)))
}

fn new_id(world: &impl World) -> u128 {
    u128::from(world.random()) << 64 | u128::from(world.random())
}

/// Gives the index what it lacks. `None` when it is not of the log's history.
async fn catch_up<W: World, I: Index>(
    recovered: &Recovered<W>,
    index: &I,
    counters: Counters,
) -> Result<Option<Replayed>, OpenError> {
    let log = &recovered.log;
    let last = log.last().unwrap_or(0);
    if last < counters.batch {
        if !same_history(recovered, &counters).await? {
            return Ok(None);
        }
        return Err(match log.torn() {
            // The index contains it, so it was durable: the crash did not tear it.
            Some(torn) if torn <= counters.batch => LogError::Damaged(torn).into(),
            _ => OpenError::Behind { log: last, index: counters.batch },
        });
    }
    let mut replayed = Replayed {
        lineage: counters.lineage,
        next: log.next_number(),
        durable_through: counters.batch,
        applied: 0,
        void: None,
        rebuilt: false,
        tip: None,
        torn: Vec::new(),
    };
    let Some(oldest) = log.first() else { return Ok(Some(replayed)) };
    let mut due = Due { index, batches: Vec::new(), bytes: 0 };
    let mut chain = Chain::behind(counters.batch);
    let mut latest: Option<(Batch, usize)> = None;
    let mut damaged: Option<u64> = None;
    let mut records = log.read(counters.batch.max(oldest));
    while let Some(record) = records.next().await {
        let LogRecord { number, payload } = match record {
            Ok(record) => record,
            Err(LogError::Damaged(number)) => {
                // The index may have it already; otherwise the next whole record says whether it counts.
                damaged = Some(number).filter(|&number| number > counters.batch);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let batch = log::decode(&payload).map_err(|source| OpenError::Decode { number, source })?;
        if batch.header.number != number {
            let source = DecodeError::Malformed(format!("it says that it is batch {}", batch.header.number));
            return Err(OpenError::Decode { number, source });
        }
        if batch.header.lineage != counters.lineage {
            return Ok(None);
        }
        if number <= counters.batch {
            continue;
        }
        damaged = None;
        let follows = batch.header.durable_through;
        let mut before = latest.replace((batch, payload.len()));
        for number in chain.push(number, follows)? {
            let (batch, bytes) = match before.take_if(|(before, _)| before.header.number == number) {
                Some(before) => before,
                None => again(recovered, number).await?,
            };
            replayed.applied += 1;
            due.push(batch, bytes).await?;
        }
    }
    if let Some(damaged) = damaged {
        return Err(LogError::Damaged(damaged).into());
    }
    chain.end()?;
    due.apply().await?;
    replayed.durable_through = chain.counted();
    if let Some((batch, _)) = latest {
        if batch
            .mutations
            .iter()
            .filter_map(Mutation::claim)
            .all(|claim| recovered.holds(claim.blob, claim.profile, claim.length))
        {
            replayed.durable_through = batch.header.number;
            replayed.applied += 1;
            replayed.torn = torn_shards(recovered, &batch);
            replayed.tip = Some(batch);
        } else {
            tracing::warn!(batch = batch.header.number, "the last batch of the log is void: its data is not there");
            replayed.void = Some(batch.header.number);
        }
    }
    Ok(Some(replayed))
}

/// A record that was read before, when another one seemed to count in its place.
async fn again<W: World>(recovered: &Recovered<W>, number: u64) -> Result<(Batch, usize), OpenError> {
    let record = recovered.log.read(number).next().await.ok_or(LogError::Damaged(number))??;
    let batch = log::decode(&record.payload).map_err(|source| OpenError::Decode { number, source })?;
    Ok((batch, record.payload.len()))
}

impl From<Broken> for OpenError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Missing(number) => LogError::Damaged(number).into(),
            Broken::Forked { number, follows, counted } => Self::Forked { number, follows, counted },
        }
    }
}

fn torn_shards<W: World>(recovered: &Recovered<W>, batch: &Batch) -> Vec<LostShard> {
    let is_here = |disk| recovered.log.disks().any(|here| here == disk);
    let claims = batch.mutations.iter().filter_map(Mutation::claim);
    let torn = claims.flat_map(|claim| {
        let &BlobClaim { blob, profile, length, ref places } = claim;
        let lacking = recovered.lacks(blob, profile, length).into_iter();
        lacking.map(move |shard| LostShard { blob, profile, shard, disk: places[usize::from(shard)] })
    });
    torn.filter(|torn| is_here(torn.disk)).collect()
}

async fn same_history<W: World>(recovered: &Recovered<W>, counters: &Counters) -> Result<bool, OpenError> {
    Ok(first_header(recovered).await?.is_none_or(|header| header.lineage == counters.lineage))
}

/// The history of the log that recovery found; `None` when there is no log.
///
/// # Errors
/// When its first record cannot be read.
pub async fn lineage<W: World>(recovered: &Recovered<W>) -> Result<Option<u128>, OpenError> {
    Ok(first_header(recovered).await?.map(|header| header.lineage))
}

async fn first_header<W: World>(recovered: &Recovered<W>) -> Result<Option<Header>, OpenError> {
    let Some(first) = recovered.log.first() else { return Ok(None) };
    let Some(record) = recovered.log.read(first).next().await else { return Ok(None) };
    let record = record?;
    let batch = log::decode(&record.payload).map_err(|source| OpenError::Decode { number: record.number, source })?;
    Ok(Some(batch.header))
}

/// Batches on their way to the index, many in one transaction.
struct Due<'i, I> {
    index: &'i I,
    batches: Vec<Batch>,
    bytes: usize,
}

impl<I: Index> Due<'_, I> {
    async fn push(&mut self, batch: Batch, bytes: usize) -> Result<(), IndexError> {
        self.batches.push(batch);
        self.bytes += bytes;
        if self.bytes >= REPLAY_BYTES { self.apply().await } else { Ok(()) }
    }

    async fn apply(&mut self) -> Result<(), IndexError> {
        self.bytes = 0;
        let batches = std::mem::take(&mut self.batches);
        if batches.is_empty() { Ok(()) } else { self.index.replay(batches).await }
    }
}

/// Bytes of the log that are replayed in one transaction, about.
const REPLAY_BYTES: usize = 4 << 20;
/// Encoded mutations of one record, at most.
const MUTATION_BYTES_MAX: usize = LOG_PAYLOAD_BYTES_MAX - log::HEADER_BYTES_MAX;

/// The metadata of one node without a database.
pub struct Embedded<W: World, I: Index> {
    world: W,
    index: I,
    /// Held for the whole of a commit: one batch is in flight at a time.
    tail: Mutex<Tail<W>>,
}

/// Where the log goes on.
struct Tail<W: World> {
    writer: LogWriter<W>,
    lineage: u128,
    /// The number of the next record.
    next: u64,
    /// The last batch that counts.
    durable_through: u64,
    /// A batch that is durable and that the index did not commit. Nothing is decided before it did.
    behind: Option<Batch>,
    /// True while a commit runs. One that was dropped in the middle leaves it so: then nobody knows whether the open
    /// transaction of the index is in the log, and only a restart finds out.
    in_flight: bool,
}

impl<W: World, I: Index> Embedded<W, I> {
    /// Goes on behind what was [`replay`]ed and opens the next life of this node, durably. `writer` is of this core.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub async fn open(
        world: W,
        writer: LogWriter<W>,
        index: I,
        replayed: Replayed,
        node: NodeId,
    ) -> Result<(Self, Incarnation), OpenError> {
        let write = WriteId(new_id(&world));
        let embedded = Self::new(world, writer, index, &replayed);
        // A node of which one disk is left can be read, and told to replace the others. No client relies on this.
        embedded.tail.lock().await.writer.allow_one_copy(true);
        if let Some(tip) = replayed.tip {
            embedded.take_tip(tip).await?;
        }
        let mut opening = vec![Mutation { write, change: Change::OpenWriter { node } }];
        // What a crash tore is made again by repair like any shard that is nowhere.
        let lost =
            |&torn: &LostShard| Mutation { write: WriteId(new_id(&embedded.world)), change: Change::LoseShard(torn) };
        opening.extend(replayed.torn.iter().map(lost));
        let opened = embedded.commit(opening.into()).await.into_iter().next();
        embedded.tail.lock().await.writer.allow_one_copy(false);
        match opened {
            Some(Ok(Outcome::WriterOpened(incarnation))) => Ok((embedded, incarnation)),
            Some(Err(error)) => Err(error.into()),
            other => unreachable!("opening a writer gives a life, not {other:?}"),
        }
    }

    /// Begins a history on disks that hold no log, for whoever makes it of other things and opens the lives himself. One copy
    /// of a batch is enough for it: nobody is told anything before the next start, which copies what is on too few disks.
    ///
    /// # Panics
    /// When there is a history already.
    pub async fn begin(world: W, writer: LogWriter<W>, index: I, replayed: &Replayed) -> Self {
        assert_eq!((replayed.durable_through, &replayed.tip), (0, &None), "the log is empty");
        let embedded = Self::new(world, writer, index, replayed);
        embedded.tail.lock().await.writer.allow_one_copy(true);
        embedded
    }

    fn new(world: W, writer: LogWriter<W>, index: I, replayed: &Replayed) -> Self {
        let tail = Tail {
            writer,
            lineage: replayed.lineage,
            next: replayed.next,
            durable_through: replayed.durable_through,
            behind: None,
            in_flight: false,
        };
        Self { world, index, tail: Mutex::new(tail) }
    }

    /// [`Metadata::commit`] at a time of the caller's, or at the latest one given if that is later.
    pub async fn commit_at(&self, batch: Arc<[Mutation]>, now: WallTime) -> Vec<Result<Outcome, MetadataError>> {
        let mut tail = self.tail.lock().await;
        if tail.in_flight || self.catch_up(&mut tail).await.is_err() {
            return vec![unavailable(); batch.len()];
        }
        tail.in_flight = true;
        let encoded: Vec<_> = batch.iter().map(log::encode_mutation).collect();
        let mut answers = Vec::with_capacity(batch.len());
        while answers.len() < batch.len() {
            let range = fitting(&encoded, answers.len());
            if range.is_empty() {
                answers.push(Err(Refusal::EntityTooLarge.into()));
            } else {
                answers.extend(self.commit_range(&mut tail, &batch, &encoded, range, now).await);
            }
        }
        tail.in_flight = false;
        answers
    }
}

impl<W: World, I: Index> Metadata for Embedded<W, I> {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        self.commit_at(batch, self.world.wall_clock()).await
    }

    fn look_up(&self, batch: Vec<Query>) -> impl Future<Output = Vec<Result<Answer, MetadataError>>> {
        self.index.look_up(batch)
    }
}

/// The mutations from `start` on that fit into one record; none when the first alone does not.
fn fitting(encoded: &[Vec<u8>], start: usize) -> Range<usize> {
    let mut bytes = 0;
    let fits = |mutation: &&Vec<u8>| {
        bytes += mutation.len();
        bytes <= MUTATION_BYTES_MAX
    };
    start..start + encoded[start..].iter().take_while(fits).count()
}

fn unavailable<T>() -> Result<T, MetadataError> {
    Err(MetadataError::Unavailable { retry_after: RETRY_AFTER })
}

impl<W: World, I: Index> Embedded<W, I> {
    /// Makes sure of the last batch of the log, and gives it to the index.
    async fn take_tip(&self, tip: Batch) -> Result<(), OpenError> {
        let encoded: Vec<_> = tip.mutations.iter().map(log::encode_mutation).collect();
        let payload = log::encode(&tip.header, encoded.iter().map(Vec::as_slice));
        let secured = self.tail.lock().await.writer.secure(tip.header.number, &payload).await;
        secured.map_err(|error| {
            tracing::error!(%error, "the last batch of the metadata log cannot be copied");
            MetadataError::Unavailable { retry_after: RETRY_AFTER }
        })?;
        let taken = self.index.replay(vec![tip]).await;
        if let Err(IndexError::Rows(_)) = taken {
            // It is of no use: the next start makes it anew.
            self.index.reset(0).await?;
        }
        Ok(taken?)
    }

    /// Gives the index the batch that it did not commit.
    async fn catch_up(&self, tail: &mut Tail<W>) -> Result<(), IndexError> {
        let Some(batch) = tail.behind.take() else { return Ok(()) };
        let replayed = self.index.replay(vec![batch.clone()]).await;
        if let Err(error) = &replayed {
            tracing::error!(%error, batch = batch.header.number, "the metadata index does not take a durable batch");
            tail.behind = Some(batch);
        }
        replayed
    }

    async fn commit_range(
        &self,
        tail: &mut Tail<W>,
        batch: &Arc<[Mutation]>,
        encoded: &[Vec<u8>],
        range: Range<usize>,
        now: WallTime,
    ) -> Vec<Result<Outcome, MetadataError>> {
        if tail.behind.is_some() {
            return vec![unavailable(); range.len()];
        }
        let (number, all) = (tail.next, range.clone());
        let decided = self.index.decide(Arc::clone(batch), range.clone(), number, now).await;
        let decision = match decided {
            Ok(decision) => decision,
            Err(IndexError::Rows(error)) if range.len() > 1 => {
                tracing::warn!(%error, mutations = range.len(), "dividing a batch that cannot be decided");
                let middle = range.start + range.len() / 2;
                let mut answers = Box::pin(self.commit_range(tail, batch, encoded, range.start..middle, now)).await;
                answers.extend(Box::pin(self.commit_range(tail, batch, encoded, middle..range.end, now)).await);
                return answers;
            }
            Err(error) => {
                tracing::error!(%error, mutations = range.len(), "a change cannot be decided");
                return vec![unavailable(); range.len()];
            }
        };
        if !decision.changed() {
            // What was decided is what is committed, so it holds without a record. A rollback that fails is seen by the
            // next decision.
            let _ = self.index.rollback().await;
            return decision.verdicts.into_iter().map(answer).collect();
        }
        let header = Header {
            lineage: tail.lineage,
            number,
            durable_through: tail.durable_through,
            at: decision.at,
            first: decision.first,
        };
        let changes: Vec<usize> =
            range.zip(&decision.verdicts).filter(|(_, verdict)| is_change(verdict)).map(|(index, _)| index).collect();
        let payload = log::encode(&header, changes.iter().map(|&change| encoded[change].as_slice()));
        let claims = changes.iter().filter_map(|&change| batch[change].claim());
        let places = claims.flat_map(|claim| claim.places.iter().copied());
        let failed = match self.write(tail, number, &payload, places.filter(|&disk| disk != DiskId::NONE)).await {
            Ok(failed) => failed,
            Err(error) => {
                tracing::error!(%error, batch = number, "a metadata batch did not become durable");
                let _ = self.index.rollback().await;
                return decision.verdicts.into_iter().map(not_known).collect();
            }
        };
        if !failed.is_empty() {
            // What the record says of these shards is not so: it is void, and another one says what is.
            let _ = self.index.rollback().await;
            tracing::error!(?failed, batch = number, "disks did not make their shards durable");
            let Some(batch) = without_shards_on(batch, &failed) else {
                return decision.verdicts.into_iter().map(not_known).collect();
            };
            let encoded: Vec<_> = batch.iter().map(log::encode_mutation).collect();
            return Box::pin(self.commit_range(tail, &batch, &encoded, all, now)).await;
        }
        tail.durable_through = number;
        if let Err(error) = self.index.commit().await {
            tracing::error!(%error, batch = number, "the metadata index did not commit a durable batch");
            let mutations = changes.into_iter().map(|change| batch[change].clone()).collect();
            tail.behind = Some(Batch { header, mutations });
            return decision.verdicts.into_iter().map(not_known).collect();
        }
        decision.verdicts.into_iter().map(answer).collect()
    }

    /// Appends a record and makes it durable together with the data on the disks `data`. Gives those of them that could not
    /// make theirs durable.
    async fn write(
        &self,
        tail: &mut Tail<W>,
        number: u64,
        payload: &[u8],
        data: impl Iterator<Item = DiskId>,
    ) -> Result<Vec<DiskId>, WriteError> {
        // Whatever becomes of it, no other batch gets this number: some disk may have written it.
        tail.next = number + 1;
        let data: Vec<DiskId> = data.collect();
        let failed = tail.writer.commit(number, payload, &data).await?;
        Ok(failed.into_iter().map(|(disk, _)| disk).collect())
    }
}

/// The same changes, with shards on these disks as repair debt. `None` when too few shards of a blob are left.
fn without_shards_on(batch: &[Mutation], failed: &[DiskId]) -> Option<Arc<[Mutation]>> {
    batch.iter().map(|mutation| flushed::without_shards_on(mutation, failed)).collect()
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("log: {0}")]
    Log(#[from] AppendError),
}

fn is_change(verdict: &Result<Decided, Refusal>) -> bool {
    verdict.as_ref().is_ok_and(|decided| decided.changed)
}

fn answer(verdict: Result<Decided, Refusal>) -> Result<Outcome, MetadataError> {
    Ok(verdict?.outcome)
}

/// The answer to a mutation whose batch may or may not be in the log: what was no change did not and will not happen,
/// but was decided next to changes that may not have happened either.
fn not_known(verdict: Result<Decided, Refusal>) -> Result<Outcome, MetadataError> {
    if is_change(&verdict) { Err(MetadataError::Unknown) } else { unavailable() }
}
