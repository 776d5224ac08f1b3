//! What the thread does: one lane for commits, a few for look-ups, one that watches.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anvil_model::ids::{Generation, NodeId, WriteId};
use anvil_model::object::Key;
use anvil_model::time::WallTime;
use anvil_node::metadata::MetadataError;
use anvil_node::metadata::decide::{Verdict, WRITES_KEPT};
use anvil_node::metadata::mutation::{Mutation, Outcome};
use anvil_node::metadata::query::{Answer, BucketPath, Query, look_up};
use anvil_node::metadata::usage::UsageOf;
use futures_util::future::{join, join_all};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::address::Database;
use super::cluster::Databases;
use super::commit::{self, Attempt};
use super::lane::{Lane, jittered};
use super::load::{Aim, counters, load};
use super::rows::{Loaded, Need};
use super::session::{Meaning, Session, SqlError};
use super::{CommitJob, DatabaseRole, LookUpJob, OnHealth, OnSeen, Seen, unavailable};

/// Serves until both queues are closed.
pub(super) async fn run(
    databases: Databases,
    node: NodeId,
    seen: Seen,
    on_health: OnHealth,
    on_seen: OnSeen,
    commits: mpsc::Receiver<CommitJob>,
    look_ups: mpsc::Receiver<LookUpJob>,
) {
    let (database, global) = (Rc::new(databases.regional), Rc::new(databases.global));
    let timeline = Rc::new(Timeline { seen: Cell::new(seen), moved: Cell::new(false) });
    let on_seen = Rc::new(on_seen);
    let on_health = Rc::new(on_health);
    let watching = watch(Rc::clone(&database), Rc::clone(&timeline), Rc::clone(&on_health), Rc::clone(&on_seen));
    let watching = tokio::task::spawn_local(join(watching, watch_global(global, on_health)));
    let look_ups = Rc::new(Mutex::new(look_ups));
    let readers = join_all((0..READERS).map(|_| {
        let reader = Reader { lane: Lane::new(Rc::clone(&database)), timeline: Rc::clone(&timeline), known: false };
        reader.run(Rc::clone(&look_ups))
    }));
    let writer = Writer { node, lane: Lane::new(database), timeline, known: false, at: WallTime { unix_ms: 0 } };
    let timeline = Rc::clone(&writer.timeline);
    join(writer.run(commits), readers).await;
    watching.abort();
    on_seen(timeline.seen.get());
}

/// Whether the database still is the one that this node has heard from.
struct Timeline {
    seen: Cell<Seen>,
    moved: Cell<bool>,
}

impl Timeline {
    fn note(&self, last: Option<(Generation, WriteId)>) {
        if let Some(change) = last {
            self.seen.set(Seen { change: Some(change), ..self.seen.get() });
        }
    }

    /// Asked of every connection before it is used: behind a failover or a restore may be an older state.
    async fn check(&self, session: &Session) -> Result<(), SqlError> {
        let moved = has_moved(session, &self.seen.get()).await?;
        if let Some(how) = &moved
            && !self.moved.get()
        {
            tracing::error!("{how}; nothing is served and nothing is reclaimed until it is back");
        }
        self.moved.set(moved.is_some());
        Ok(())
    }
}

/// How the database is not what was seen of it; `None` when it is.
pub(super) async fn has_moved(session: &Session, seen: &Seen) -> Result<Option<String>, SqlError> {
    let now = counters(session).await?;
    if now.lineage != seen.lineage {
        let (found, expected) = (now.lineage, seen.lineage);
        return Ok(Some(format!("the regional database is another one ({found:032x}, and not {expected:032x})")));
    }
    let Some((generation, write)) = seen.change else { return Ok(None) };
    // Outcomes are forgotten after many changes; so many later ones are proof enough.
    if now.generation.0 > generation.0.saturating_add(WRITES_KEPT / 2) {
        return Ok(None);
    }
    let (number, id) = (super::columns::int(generation.0), super::columns::id_bytes(write.0));
    let there = session.query(SEEN, &[&number, &id]).await?;
    Ok(there.is_empty().then(|| {
        format!(
            "the regional database went back: it does not have change {generation}, which this node was told was kept; it \
             was restored from a backup, or failed over to a standby that was behind"
        )
    }))
}

/// Commits, one batch at a time.
struct Writer {
    /// Whose changes these are.
    node: NodeId,
    lane: Lane,
    timeline: Rc<Timeline>,
    /// Whether the connection was held against the timeline.
    known: bool,
    /// The latest time given by this node.
    at: WallTime,
}

impl Writer {
    async fn run(mut self, mut jobs: mpsc::Receiver<CommitJob>) {
        while let Some(CommitJob { batch, reply }) = jobs.recv().await {
            let deadline = Instant::now() + COMMIT_TIME_MAX;
            let mut outcomes = Vec::with_capacity(batch.len());
            for run in commit::runs(&batch) {
                outcomes.extend(self.commit(run, deadline).await);
            }
            // An asker that is gone does not change what was asked for.
            let _ = reply.send(outcomes);
        }
    }

    async fn commit(&mut self, run: &[Mutation], deadline: Instant) -> Vec<Result<Outcome, MetadataError>> {
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                sleep(jittered(AGAIN_AFTER * attempt)).await;
            }
            let error = match self.attempt(run, deadline).await {
                None => break,
                Some(Attempt::Done { verdicts, last, at }) => {
                    self.at = self.at.max(at);
                    let write = last.and_then(|generation| Some((generation, last_change(run, &verdicts)?)));
                    self.timeline.note(write);
                    return verdicts.into_iter().map(answer).collect();
                }
                Some(Attempt::Unknown { verdicts, error }) => {
                    tracing::warn!(%error, mutations = run.len(), "the outcome of a batch is not known");
                    self.lane.give_up();
                    return verdicts.into_iter().map(not_known).collect();
                }
                Some(Attempt::Nothing(error)) => error,
            };
            match error.meaning() {
                Meaning::Again => tracing::debug!(%error, "a batch is decided once more"),
                Meaning::Divide if run.len() > 1 => {
                    tracing::warn!(%error, mutations = run.len(), "dividing a batch");
                    let (first, second) = run.split_at(run.len() / 2);
                    let mut outcomes = Box::pin(self.commit(first, deadline)).await;
                    outcomes.extend(Box::pin(self.commit(second, deadline)).await);
                    return outcomes;
                }
                Meaning::Divide => {
                    tracing::error!(%error, write = %run[0].write, "a change cannot be made");
                    break;
                }
                Meaning::Lost => {
                    tracing::warn!(%error, "the connection for commits is lost");
                    self.lane.give_up();
                }
            }
        }
        run.iter().map(|_| unavailable()).collect()
    }

    /// `None` when the database is away or late.
    async fn attempt(&mut self, run: &[Mutation], deadline: Instant) -> Option<Attempt> {
        self.known &= !self.lane.is_down();
        let session = self.lane.session().await?;
        if !self.known {
            if self.timeline.check(session).await.is_err() {
                self.lane.give_up();
                return None;
            }
            self.known = true;
        }
        if self.timeline.moved.get() {
            return None;
        }
        let sent = Cell::new(false);
        let time = deadline.saturating_duration_since(Instant::now());
        let attempt = match timeout(time, commit::attempt(session, self.node, run, self.at, &sent)).await {
            Ok(attempt) => attempt,
            Err(_) => {
                // The connection goes, and with it a transaction that was not committed.
                tracing::warn!(mutations = run.len(), sent = sent.get(), "the database is late with a batch");
                self.lane.give_up();
                let error = SqlError::Rows(anvil_node::metadata::rows::RowsError::Failed("it is late".to_owned()));
                return sent.get().then(|| Attempt::Unknown { verdicts: run.iter().map(|_| None).collect(), error });
            }
        };
        if let Attempt::Nothing(error) = &attempt
            && error.meaning() != Meaning::Lost
            && session.run("ROLLBACK").await.is_err()
        {
            self.lane.give_up();
        }
        Some(attempt)
    }
}

fn last_change(run: &[Mutation], verdicts: &[Option<Verdict>]) -> Option<WriteId> {
    let changed = |verdict: &Option<Verdict>| matches!(verdict, Some(Ok(decided)) if decided.changed);
    run.iter().zip(verdicts).rfind(|(_, verdict)| changed(verdict)).map(|(mutation, _)| mutation.write)
}

fn answer(verdict: Option<Verdict>) -> Result<Outcome, MetadataError> {
    match verdict {
        Some(verdict) => Ok(verdict?.outcome),
        None => unavailable(),
    }
}

/// What was no change did not and will not happen, but was decided beside changes that may not have happened either. Where
/// nothing is known of the verdicts, all of it may have happened.
fn not_known(verdict: Option<Verdict>) -> Result<Outcome, MetadataError> {
    match verdict {
        Some(Ok(decided)) if !decided.changed => unavailable(),
        Some(Err(_)) => unavailable(),
        _ => Err(MetadataError::Unknown),
    }
}

/// Answers look-ups, a batch at a time.
struct Reader {
    lane: Lane,
    timeline: Rc<Timeline>,
    known: bool,
}

impl Reader {
    async fn run(mut self, jobs: Rc<Mutex<mpsc::Receiver<LookUpJob>>>) {
        loop {
            // Whoever holds the lock waits for the next batch; the others work, or wait for the lock.
            let job = jobs.lock().await.recv().await;
            let Some(LookUpJob { queries, reply }) = job else { return };
            let answers = timeout(LOOK_UP_TIME_MAX, self.answer(&queries)).await;
            let answers = answers.unwrap_or_else(|_| {
                tracing::warn!(queries = queries.len(), "the database is late with look-ups");
                self.lane.give_up();
                None
            });
            let _ = reply.send(answers.unwrap_or_else(|| queries.iter().map(|_| unavailable()).collect()));
            self.end().await;
        }
    }

    /// `None` when the database is away.
    async fn answer(&mut self, queries: &[Query]) -> Option<Vec<Result<Answer, MetadataError>>> {
        // A connection that idled may have been lost meanwhile: once more with another one.
        for _ in 0..2 {
            self.known &= !self.lane.is_down();
            let session = self.lane.session().await?;
            let answered = async {
                if !self.known {
                    self.timeline.check(session).await?;
                }
                answer_all(session, queries).await
            };
            match answered.await {
                Ok(_) if self.timeline.moved.get() => {
                    self.known = false;
                    return None;
                }
                Ok(answers) => {
                    self.known = true;
                    return Some(answers);
                }
                Err(error) => {
                    tracing::warn!(%error, "look-ups failed");
                    self.known = false;
                    self.lane.give_up();
                }
            }
        }
        None
    }

    /// Lets go of the view, behind the answers: nobody waits for it.
    async fn end(&mut self) {
        if self.lane.is_down() {
            return;
        }
        let Some(session) = self.lane.session().await else { return };
        if !matches!(timeout(LOOK_UP_TIME_MAX, session.run("COMMIT")).await, Ok(Ok(()))) {
            self.lane.give_up();
        }
    }
}

/// Answers all queries from one view, in as many round trips as the deepest of them needs. Leaves the view open.
async fn answer_all(session: &Session, queries: &[Query]) -> Result<Vec<Result<Answer, MetadataError>>, SqlError> {
    let mut rows = Loaded::default();
    let needs = queries.iter().flat_map(needs_of).collect();
    let (begun, loaded) = join(
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
        load(session, needs, &mut rows.found, Aim::Read),
    )
    .await;
    begun?;
    loaded?;
    let mut answers: Vec<Option<Result<Answer, MetadataError>>> = queries.iter().map(|_| None).collect();
    loop {
        let mut needs = std::collections::BTreeSet::new();
        for (query, slot) in queries.iter().zip(&mut answers).filter(|(_, slot)| slot.is_none()) {
            let answer = look_up(&rows, query);
            let needed = rows.take_needs();
            if !needed.is_empty() {
                needs.extend(needed);
                continue;
            }
            *slot = Some(match answer {
                Ok(answer) => answer.map_err(MetadataError::from),
                Err(error) => {
                    tracing::error!(%error, "a look-up failed");
                    unavailable()
                }
            });
        }
        if needs.is_empty() {
            return Ok(answers.into_iter().map(|answer| answer.expect("what needs nothing is answered")).collect());
        }
        load(session, needs, &mut rows.found, Aim::Read).await?;
    }
}

/// What a look-up needs first.
fn needs_of(query: &Query) -> Vec<Need> {
    let named_head =
        |bucket: &BucketPath, key: &Key| Need::HeadNamed(bucket.name.as_str().to_owned(), key.as_bytes().to_vec());
    let first = match query {
        Query::Object { bucket, key, .. } | Query::ObjectParts { bucket, key, .. } => Some(named_head(bucket, key)),
        Query::Prepare { bucket, key } => {
            return vec![named_head(bucket, key), Need::TenantQuota(bucket.tenant)];
        }
        Query::Upload { bucket, .. } => {
            let named = Need::BucketNamed(bucket.name.as_str().to_owned());
            return vec![named, Need::TenantQuota(bucket.tenant)];
        }
        Query::TenantUsage(tenant) => {
            return vec![Need::TenantQuota(*tenant), Need::Usage(UsageOf::Tenant(*tenant))];
        }
        Query::Bucket(bucket)
        | Query::List { bucket, .. }
        | Query::Uploads { bucket, .. }
        | Query::Parts { bucket, .. }
        | Query::Progress { bucket, .. } => Some(Need::BucketNamed(bucket.name.as_str().to_owned())),
        Query::AnyBucket(name) | Query::BucketUsage(name) => Some(Need::BucketNamed(name.as_str().to_owned())),
        Query::Holdings { bucket, .. } => Some(Need::Bucket(*bucket)),
        Query::Write(write) => Some(Need::Write(*write)),
        Query::Blob(blob) => Some(Need::Blob(*blob)),
        Query::Counters => Some(Need::Counters),
        Query::Segments { .. }
        | Query::Buckets { .. }
        | Query::Garbage { .. }
        | Query::Blobs { .. }
        | Query::BucketUsages { .. }
        | Query::StaleUploads { .. }
        | Query::BlobsOnDisk { .. } => None,
    };
    first.into_iter().collect()
}

/// Says whether the database answers, tells what was seen last, and forgets old outcomes.
async fn watch(database: Rc<Database>, timeline: Rc<Timeline>, on_health: Rc<OnHealth>, on_seen: Rc<OnSeen>) {
    let mut lane = Lane::new(database);
    let (mut healthy, mut told, mut rounds) = (true, timeline.seen.get(), 0_u32);
    loop {
        let looked = timeout(WATCH_TIME_MAX, look(&mut lane, &timeline)).await;
        let now = looked.unwrap_or_else(|_| {
            lane.give_up();
            false
        });
        on_health(DatabaseRole::Regional, now);
        if now != healthy {
            healthy = now;
            if now { tracing::info!("the metadata is back") } else { tracing::error!("the metadata is away") }
        }
        rounds += 1;
        if rounds.is_multiple_of(TOLD_EVERY) && timeline.seen.get() != told {
            told = timeline.seen.get();
            on_seen(told);
        }
        sleep(WATCHED_EVERY).await;
    }
}

async fn look(lane: &mut Lane, timeline: &Timeline) -> bool {
    let Some(session) = lane.session().await else { return false };
    let looked = async {
        timeline.check(session).await?;
        let now = counters(session).await?;
        let below = now.generation.0.saturating_sub(WRITES_KEPT);
        session.execute(FORGET_WRITES, &[&super::columns::int(below)]).await
    };
    match looked.await {
        Ok(_) => !timeline.moved.get(),
        Err(error) => {
            tracing::debug!(%error, "the database does not answer the one that watches it");
            lane.give_up();
            false
        }
    }
}

/// Says whether the global database answers. No request waits for it, but a node that cannot reach it would miss what other
/// regions and administrators decide.
async fn watch_global(database: Rc<Database>, on_health: Rc<OnHealth>) {
    let mut lane = Lane::new(database);
    let mut healthy = true;
    loop {
        let asked = timeout(WATCH_TIME_MAX, async {
            match lane.session().await {
                Some(session) => session.run("SELECT 1").await.is_ok(),
                None => false,
            }
        });
        let now = asked.await.unwrap_or(false);
        if !now {
            lane.give_up();
        }
        on_health(DatabaseRole::Global, now);
        if now != healthy {
            healthy = now;
            if now {
                tracing::info!("the global database is back");
            } else {
                tracing::error!("the global database is away");
            }
        }
        sleep(WATCHED_EVERY).await;
    }
}

/// Connections for look-ups.
const READERS: usize = 4;
/// A commit is answered before the story that waits for it gives up (`COMMIT_ANSWER_WAIT`).
const COMMIT_TIME_MAX: Duration = Duration::from_secs(18);
/// As `LOOK_UP_DEADLINE`.
const LOOK_UP_TIME_MAX: Duration = Duration::from_secs(9);
/// How often a batch is sent, where others were in its way or the connection was lost before its commit.
const ATTEMPTS_MAX: u32 = 6;
const AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How soon `/ready` follows the database.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
const WATCH_TIME_MAX: Duration = Duration::from_secs(5);
/// Rounds of the watch between two notes of what was seen.
const TOLD_EVERY: u32 = 10;
const SEEN: &str = "SELECT 1 FROM writes WHERE generation = $1 AND write_id = $2";
/// In small bites, and never waiting for another node that does the same.
const FORGET_WRITES: &str = "DELETE FROM writes WHERE generation = ANY(ARRAY(SELECT generation FROM writes \
    WHERE generation < $1 ORDER BY generation LIMIT 20000 FOR UPDATE SKIP LOCKED))";

/// Every statement of this file, for the test that explains them.
#[cfg(test)]
pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    named![SEEN, FORGET_WRITES]
}
