//! A batch of changes as one transaction: locks in order, rows, decisions, writes.
//!
//! - The locks of keys are advisory ones of the transaction, so that an absent key has one too, taken in ascending order
//!   before anything is looked at. A bucket's row is never written for a lock: objects share the bucket's lock,
//!   what changes the bucket has it alone. A writer's lock likewise, so that a life ends behind its commits.
//! - Generations are drawn while the locks are held: those of one key grow in the order of its changes.
//! - Nothing is sent that may commit until all of it is decided.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use anvil_model::ids::{BucketId, Generation, NodeId};
use anvil_model::object::BucketName;
use anvil_model::time::WallTime;
use anvil_node::metadata::decide::{Verdict, apply};
use anvil_node::metadata::mutation::{BucketRef, Change, CopySource, LostShard, Mutation, Stamp};
use anvil_node::metadata::rows::RowsError;
use anvil_node::metadata::usage::{Account, UsageOf};
use futures_util::future::join4;

use super::columns::Reader;
use super::load::{Aim, load};
use super::rows::{Loaded, Need};
use super::save::{Saved, Tables, Writes};
use super::session::{Session, SqlError};

/// What became of a batch.
pub(super) enum Attempt {
    /// Kept, or nothing changed. `None` for a row that cannot be decided.
    Done { verdicts: Vec<Option<Verdict>>, last: Option<Generation>, at: WallTime },
    /// Nothing happened, for certain.
    Nothing(SqlError),
    /// It may have happened, or may yet. These are its verdicts if it does.
    Unknown { verdicts: Vec<Option<Verdict>>, error: SqlError },
}

/// The batch's parts that may share a transaction: what changes a bucket or a writer is alone, so that lists and counts
/// that a decision reads need not see what the same transaction changes.
pub(super) fn runs(batch: &[Mutation]) -> impl Iterator<Item = &[Mutation]> {
    batch.chunk_by(|a, b| !is_alone(a) && !is_alone(b))
}

fn is_alone(mutation: &Mutation) -> bool {
    matches!(
        mutation.change,
        Change::OpenWriter { .. }
            | Change::CreateBucket { .. }
            | Change::DeleteBucket { .. }
            | Change::UpdateBucket { .. }
            | Change::SetBucketQuota { .. }
            | Change::SetTenantQuota { .. }
            | Change::CloseBucket { .. }
            | Change::TakeIn { .. }
            | Change::BeginAt { .. }
    )
}

/// Decides and keeps a run, as `node`. `floor` is a time before which no change is given; `sent` becomes true before the first byte
/// that may commit goes out.
pub(super) async fn attempt(
    session: &Session,
    node: NodeId,
    run: &[Mutation],
    floor: WallTime,
    sent: &Cell<bool>,
) -> Attempt {
    match decide(session, run, floor).await {
        Ok(Decided { rows, verdicts, last, at }) => {
            let tables = Tables::of(&rows.found, &rows.changes, node);
            let writes = Writes::of(&tables);
            match writes.commit(session, || sent.set(true)).await {
                Saved::Committed => Attempt::Done { verdicts, last, at },
                Saved::Nothing(error) => Attempt::Nothing(error),
                Saved::Unknown(error) => Attempt::Unknown { verdicts, error },
            }
        }
        Err(error) => Attempt::Nothing(error),
    }
}

struct Decided {
    rows: Loaded,
    verdicts: Vec<Option<Verdict>>,
    /// Of the last change.
    last: Option<Generation>,
    at: WallTime,
}

async fn decide(session: &Session, run: &[Mutation], floor: WallTime) -> Result<Decided, SqlError> {
    let Locks { numbers, shared } = Locks::of(run);
    let count = i64::try_from(run.len()).expect("a batch is bounded");
    // Prepared before anything is sent, so that all of it leaves in this order.
    session.prepare(LOCK).await?;
    session.prepare(STAMPS).await?;
    let mut rows = Loaded::default();
    let needs = run.iter().flat_map(needs_of).collect();
    let (begun, locked, stamped, loaded) = join4(
        session.run("BEGIN ISOLATION LEVEL READ COMMITTED"),
        session.query(LOCK, &[&numbers, &shared]),
        session.query(STAMPS, &[&count]),
        load(session, needs, &mut rows.found, Aim::Change),
    )
    .await;
    // The first error is the cause of those behind it.
    begun?;
    locked?;
    let stamps = read_stamps(&stamped?, floor).map_err(SqlError::Rows)?;
    loaded?;
    let mut undecidable = BTreeSet::new();
    for _ in 0..PASSES_MAX {
        rows.begin_pass();
        let passed = pass(&mut rows, run, &stamps, &undecidable);
        let needs = rows.take_needs();
        if !needs.is_empty() {
            load(session, needs, &mut rows.found, Aim::Change).await?;
            continue;
        }
        match passed {
            Ok(verdicts) => {
                let changed = |verdict: &Option<Verdict>| matches!(verdict, Some(Ok(decided)) if decided.changed);
                let last = stamps.iter().zip(&verdicts).rfind(|(_, verdict)| changed(verdict));
                let (last, at) =
                    (last.map(|(stamp, _)| stamp.generation), stamps.last().map_or(floor, |stamp| stamp.at));
                return Ok(Decided { rows, verdicts, last, at });
            }
            Err((index, error)) => {
                tracing::error!(%error, write = %run[index].write, "a change cannot be decided");
                undecidable.insert(index);
            }
        }
    }
    Err(SqlError::Rows(RowsError::Failed(format!("a batch is not decided after {PASSES_MAX} passes"))))
}

/// Decides everything over what is loaded. An error is that of the first row that cannot be decided; where rows are
/// needed, it means nothing.
fn pass(
    rows: &mut Loaded,
    run: &[Mutation],
    stamps: &[Stamp],
    undecidable: &BTreeSet<usize>,
) -> Result<Vec<Option<Verdict>>, (usize, RowsError)> {
    let (mut verdicts, mut first_error) = (Vec::with_capacity(run.len()), None);
    let mut account = Account::default();
    for (index, (mutation, stamp)) in run.iter().zip(stamps).enumerate() {
        if undecidable.contains(&index) {
            verdicts.push(None);
            continue;
        }
        // On after an error, so that the pass asks for what the others need too.
        match apply(rows, &mut account, mutation, *stamp) {
            Ok(verdict) => verdicts.push(Some(verdict)),
            Err(error) => {
                first_error.get_or_insert((index, error));
                verdicts.push(None);
            }
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => account.settle(rows).map(|()| verdicts).map_err(|error| (0, error)),
    }
}

fn read_stamps(rows: &[tokio_postgres::Row], floor: WallTime) -> Result<Vec<Stamp>, RowsError> {
    let stamp = |row| {
        let mut columns = Reader::new(row);
        Ok(Stamp { generation: columns.generation()?, at: columns.time()?.max(floor) })
    };
    let mut stamps: Vec<Stamp> = rows.iter().map(stamp).collect::<Result<_, RowsError>>()?;
    stamps.sort_by_key(|stamp| stamp.generation);
    Ok(stamps)
}

/// What a change will look at, as far as it says so itself: all of it is loaded together with the locks.
fn needs_of(mutation: &Mutation) -> Vec<Need> {
    let mut needs = vec![Need::Write(mutation.write)];
    let head = |bucket: BucketId, key: &[u8], replaced: bool| {
        let mut wanted = vec![Need::Bucket(bucket), Need::Head(bucket, key.to_vec())];
        wanted.extend(replaced.then(|| Need::BlobOfHead(bucket, key.to_vec())));
        wanted
    };
    match &mutation.change {
        Change::OpenWriter { node } => needs.push(Need::Writer(*node)),
        Change::CreateBucket { tenant, name, .. } => {
            needs.extend([Need::BucketNamed(name.as_str().to_owned()), Need::BucketCount(*tenant)]);
        }
        Change::DeleteBucket { bucket } => needs.extend([Need::Bucket(bucket.id), Need::HasVersions(bucket.id)]),
        Change::UpdateBucket { bucket, .. }
        | Change::SetBucketQuota { bucket, .. }
        | Change::CloseBucket { bucket } => needs.push(Need::Bucket(bucket.id)),
        Change::SetTenantQuota { tenant, .. } => needs.push(Need::TenantQuota(*tenant)),
        Change::PutObject { bucket, key, .. } | Change::DeleteObject { bucket, key, .. } => {
            needs.extend(head(bucket.id, key.as_bytes(), true));
        }
        Change::CopyObject { bucket, key, copy, .. } => {
            needs.extend(head(bucket.id, key.as_bytes(), true));
            let CopySource { bucket, key, .. } = &copy.source;
            needs.extend(head(bucket.id, key.as_bytes(), true));
        }
        Change::CreateUpload { bucket, upload, .. } => needs.extend([Need::Bucket(bucket.id), Need::Upload(*upload)]),
        Change::PutPart { bucket, upload, part, .. } => {
            needs.extend([Need::Bucket(bucket.id), Need::Upload(*upload), Need::Part(*upload, part.number)]);
        }
        Change::AppendPart { bucket, upload, part, .. } => {
            let before = part.number.saturating_sub(1);
            needs.extend([Need::Bucket(bucket.id), Need::Upload(*upload)]);
            needs.extend([before, part.number].map(|number| Need::Part(*upload, number)));
        }
        Change::CopyPart { bucket, upload, part, source, .. } => {
            needs.extend([Need::Bucket(bucket.id), Need::Upload(*upload), Need::Part(*upload, part.number)]);
            needs.extend(head(source.bucket.id, source.key.as_bytes(), true));
        }
        Change::CompleteUpload { bucket, key, upload, .. } | Change::CompleteWrite { bucket, key, upload, .. } => {
            needs.extend(head(bucket.id, key.as_bytes(), true));
            needs.extend([Need::Upload(*upload), Need::Parts(*upload, 0, PARTS_MAX)]);
        }
        Change::AbortUpload { bucket, upload, .. } => {
            needs.extend([Need::Bucket(bucket.id), Need::Upload(*upload), Need::Parts(*upload, 0, PARTS_MAX)]);
        }
        Change::ClaimOrphans { blobs } => {
            needs.extend(blobs.iter().flat_map(|claim| [Need::Writer(claim.blob.node), Need::Blob(claim.blob)]));
        }
        Change::ForgetGarbage { blobs } => needs.extend(blobs.iter().map(|(_, blob)| Need::Blob(*blob))),
        Change::MoveShard { blob, .. }
        | Change::SpreadAnew { blob, .. }
        | Change::LoseShard(LostShard { blob, .. }) => needs.push(Need::Blob(*blob)),
        // A database has rows brought to it otherwise.
        Change::TakeIn { .. } | Change::BeginAt { .. } => {}
    }
    if let Some(bucket) = grown(&mutation.change) {
        let of = [UsageOf::Bucket(bucket.id), UsageOf::Tenant(bucket.tenant)];
        needs.push(Need::TenantQuota(bucket.tenant));
        needs.extend(of.map(Need::Usage));
    }
    if let Some(claim) = mutation.claim() {
        needs.extend([Need::Writer(claim.blob.node), Need::Blob(claim.blob)]);
    }
    needs
}

/// The bucket that a change may make larger, so that its quotas are asked.
fn grown(change: &Change) -> Option<&BucketRef> {
    match change {
        Change::PutObject { bucket, .. }
        | Change::CopyObject { bucket, .. }
        | Change::CreateUpload { bucket, .. }
        | Change::PutPart { bucket, .. }
        | Change::CopyPart { bucket, .. }
        | Change::AppendPart { bucket, .. }
        | Change::CompleteUpload { bucket, .. }
        | Change::CompleteWrite { bucket, .. } => Some(bucket),
        _ => None,
    }
}

/// The locks of a run: numbers in ascending order, each with whether it is shared.
struct Locks {
    numbers: Vec<i64>,
    shared: Vec<bool>,
}

impl Locks {
    fn of(run: &[Mutation]) -> Self {
        let mut locks: BTreeMap<i64, bool> = BTreeMap::new();
        let mut take = |number: i64, shared: bool| {
            // Who needs it alone does not share it.
            locks.entry(number).and_modify(|both| *both &= shared).or_insert(shared);
        };
        for mutation in run {
            if let Some(claim) = mutation.claim() {
                take(of_writer(claim.blob.node), true);
            }
            match &mutation.change {
                Change::OpenWriter { node } => take(of_writer(*node), false),
                Change::CreateBucket { name, .. } => take(of_name(name), false),
                Change::DeleteBucket { bucket }
                | Change::UpdateBucket { bucket, .. }
                | Change::SetBucketQuota { bucket, .. }
                | Change::CloseBucket { bucket } => {
                    take(of_bucket(bucket.id), false);
                }
                Change::ClaimOrphans { blobs } => blobs.iter().for_each(|claim| take(of_writer(claim.blob.node), true)),
                Change::SetTenantQuota { tenant, .. } => take(lock(b"tenant", tenant.0, &[]), false),
                // The rows of their blobs are locked.
                Change::ForgetGarbage { .. }
                | Change::MoveShard { .. }
                | Change::LoseShard(_)
                | Change::SpreadAnew { .. } => {}
                Change::CopyObject { copy, .. } => take_source(&mut take, &copy.source),
                Change::CopyPart { source, .. } => take_source(&mut take, source),
                Change::PutObject { .. }
                | Change::DeleteObject { .. }
                | Change::CreateUpload { .. }
                | Change::PutPart { .. }
                | Change::AppendPart { .. }
                | Change::CompleteUpload { .. }
                | Change::CompleteWrite { .. }
                | Change::AbortUpload { .. }
                | Change::TakeIn { .. }
                | Change::BeginAt { .. } => {}
            }
            if is_of_key(&mutation.change) {
                let (bucket, key) = mutation.target();
                take(of_bucket(BucketId(bucket)), true);
                take(lock(b"key", bucket, key), false);
            }
        }
        let (numbers, shared) = locks.into_iter().unzip();
        Self { numbers, shared }
    }
}

fn take_source(take: &mut impl FnMut(i64, bool), source: &CopySource) {
    take(of_bucket(source.bucket.id), true);
    take(lock(b"key", source.bucket.id.0, source.key.as_bytes()), true);
}

fn is_of_key(change: &Change) -> bool {
    matches!(
        change,
        Change::PutObject { .. }
            | Change::DeleteObject { .. }
            | Change::CopyObject { .. }
            | Change::CreateUpload { .. }
            | Change::PutPart { .. }
            | Change::CopyPart { .. }
            | Change::AppendPart { .. }
            | Change::CompleteUpload { .. }
            | Change::CompleteWrite { .. }
            | Change::AbortUpload { .. }
    )
}

fn of_bucket(bucket: BucketId) -> i64 {
    lock(b"bucket", bucket.0, &[])
}

/// The lock of a bucket's name.
pub(super) fn of_name(name: &BucketName) -> i64 {
    lock(b"name", 0, name.as_str().as_bytes())
}

fn of_writer(node: NodeId) -> i64 {
    lock(b"writer", node.0.into(), &[])
}

/// The number of a lock. Two things with the same number wait for each other without need, and nothing else.
fn lock(kind: &[u8], number: u64, name: &[u8]) -> i64 {
    let digest = anvil_digest::sha256(&[kind, &[0], &number.to_be_bytes(), name].concat());
    let (first, _) = digest.split_first_chunk().expect("a digest is longer");
    i64::from_be_bytes(*first)
}

const LOCK: &str = "SELECT CASE WHEN shared THEN pg_advisory_xact_lock_shared(number) \
    ELSE pg_advisory_xact_lock(number) END FROM unnest($1::bigint[], $2::boolean[]) AS locks (number, shared)";
const STAMPS: &str = "SELECT nextval('generations'), floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint \
    FROM generate_series(1, $1::bigint)";
/// A pass learns what the next one needs; chains are short: the key, its version, its pieces, their blobs.
const PASSES_MAX: usize = 32;
/// As many as an upload may have.
const PARTS_MAX: usize = anvil_model::limits::PART_NUMBER_MAX as usize;

/// Every statement of this file, for the test that explains them.
#[cfg(test)]
pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    named![LOCK, STAMPS]
}

#[cfg(test)]
mod tests {
    use anvil_model::ids::{TenantId, UploadId, WriteId};
    use anvil_model::object::Key;

    use super::*;

    fn mutation(change: Change) -> Mutation {
        Mutation { write: WriteId(1), change }
    }

    fn abort(bucket: u64, key: &str) -> Mutation {
        let bucket = BucketRef { id: BucketId(bucket), tenant: TenantId(1), generation: Generation(1) };
        mutation(Change::AbortUpload { bucket, key: Key::new(key.into()).unwrap(), upload: UploadId(1) })
    }

    /// Goal: batches never deadlock on these locks. Method: two batches in opposite order ask for them in the same one.
    #[test]
    fn locks_are_taken_in_one_order() {
        let there = Locks::of(&[abort(1, "a"), abort(1, "b"), abort(2, "a")]);
        let back = Locks::of(&[abort(2, "a"), abort(1, "b"), abort(1, "a")]);
        assert_eq!((&there.numbers, &there.shared), (&back.numbers, &back.shared));
        assert!(there.numbers.is_sorted() && there.numbers.len() == 5);
        assert_eq!(there.shared.iter().filter(|shared| **shared).count(), 2, "buckets are shared");
    }

    #[test]
    fn what_changes_a_bucket_is_alone() {
        let name = BucketName::new("bucket").unwrap();
        let create = mutation(Change::CreateBucket { tenant: TenantId(1), name, region: String::new() });
        let batch = [create.clone(), create, abort(1, "a"), abort(1, "b")];
        assert_eq!(runs(&batch).map(<[Mutation]>::len).collect::<Vec<_>>(), [1, 1, 2]);
    }
}
