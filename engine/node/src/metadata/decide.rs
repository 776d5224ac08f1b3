//! The decisions: what a mutation does to the rows. Pure and deterministic: the same rows, mutation and stamp give the
//! same rows and outcome, which is what lets the embedded log be replayed.
//!
//! Every decision first checks, then writes, so a refusal leaves the rows as they were. An error of the rows does not:
//! then the transaction is rolled back.

mod blobs;
mod buckets;
mod copies;
mod taken;
mod uploads;

use std::time::Duration;

use anvil_model::ids::{BucketId, Generation, Incarnation, WriteId};
use anvil_model::object::{Key, WriteConditions};
use anvil_model::time::WallTime;

use self::uploads::Completion;
use super::log::{Batch, Header};
use super::mutation::{BucketRef, Change, Mutation, NewObject, Outcome, Stamp, Written};
use super::rows::{Content, Counters, Rows, RowsError, VersionRow, WriteRow, WriterRow};
use super::usage::{Account, Usage};
use super::{Refusal, check_conditions};

/// What a decision comes to, when the rows can be had.
pub type Verdict = Result<Decided, Refusal>;

/// An outcome, and whether the rows changed: only a change is logged and takes the stamp's generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What to answer.
    pub outcome: Outcome,
    /// False for a repeat and for the deletion of what is not there.
    pub changed: bool,
}

/// Buckets of one tenant, at most (AWS, "general purpose bucket quotas").
pub const BUCKETS_PER_TENANT_MAX: usize = 10_000;
/// For how long a completed upload answers repeats.
pub const COMPLETED_KEPT: Duration = Duration::from_hours(24);
/// For how many changes an outcome can be asked for by its write id. Those who ask do so within seconds.
pub const WRITES_KEPT: u64 = 1 << 17;

/// What a batch comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// One per mutation, in their order.
    pub verdicts: Vec<Verdict>,
    /// The generation of the first change; those of the others follow, without gaps between ordinary ones.
    pub first: Generation,
    /// The time that all changes were given.
    pub at: WallTime,
}

impl Decision {
    /// Whether the rows changed at all. If not, there is nothing to log or commit.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.verdicts.iter().flatten().any(|decided| decided.changed)
    }
}

/// Decides a batch in the order given and notes in the counters that the rows contain it as batch `number`, if it
/// changed anything.
///
/// # Errors
/// When the rows cannot be had or contain a later batch; the transaction must be rolled back.
pub fn decide(rows: &mut impl Rows, batch: &[Mutation], number: u64, now: WallTime) -> Result<Decision, RowsError> {
    let mut counters = rows.counters()?;
    if number <= counters.batch {
        let problem = format!("batch {number} cannot follow batch {}", counters.batch);
        return Err(RowsError::Inconsistent(problem));
    }
    counters.at = counters.at.max(now);
    let mut decision =
        Decision { verdicts: Vec::with_capacity(batch.len()), first: counters.generation, at: counters.at };
    let mut account = Account::default();
    for mutation in batch {
        let verdict = apply(rows, &mut account, mutation, Stamp { generation: counters.generation, at: counters.at })?;
        if verdict.as_ref().is_ok_and(|decided| decided.changed) {
            counters.generation = mutation.next_generation(counters.generation);
        }
        decision.verdicts.push(verdict);
    }
    if decision.changed() {
        account.settle(rows)?;
        // At the beginning there is nothing to forget but what was taken in, and that is to be what it was.
        if decision.first != Counters::FIRST {
            rows.forget_writes(Generation(counters.generation.0.saturating_sub(WRITES_KEPT)))?;
        }
        counters.batch = number;
        rows.put_counters(&counters)?;
    }
    Ok(decision)
}

/// Applies a logged batch again: it follows the last one that the rows contain, from the same generation on, and every
/// mutation of it is a change again.
///
/// # Errors
/// [`RowsError::Inconsistent`] when the rows decide otherwise than they did; the transaction must be rolled back.
pub fn replay(rows: &mut impl Rows, batch: &Batch) -> Result<(), RowsError> {
    let Header { lineage, number, durable_through, at, first } = batch.header;
    let counters = rows.counters()?;
    if (lineage, durable_through, first) != (counters.lineage, counters.batch, counters.generation) {
        let problem = format!(
            "batch {number} follows batch {durable_through} of history {lineage:032x} at generation {first}; here are \
             batch {} of history {:032x} at generation {}",
            counters.batch, counters.lineage, counters.generation
        );
        return Err(RowsError::Inconsistent(problem));
    }
    let decision = decide(rows, &batch.mutations, number, at)?;
    for (mutation, verdict) in batch.mutations.iter().zip(decision.verdicts) {
        if !verdict.as_ref().is_ok_and(|decided| decided.changed) {
            let problem = format!("write {} of batch {number} is decided anew as {verdict:?}", mutation.write);
            return Err(RowsError::Inconsistent(problem));
        }
    }
    Ok(())
}

/// Decides one mutation and applies it to the rows. A refusal leaves them as they were. What it does to usage is noted in the
/// account of its batch, which whoever decides the batch settles behind the last mutation.
///
/// # Errors
/// When the rows cannot be had; the transaction must be rolled back.
pub fn apply(
    rows: &mut impl Rows,
    account: &mut Account,
    mutation: &Mutation,
    stamp: Stamp,
) -> Result<Verdict, RowsError> {
    if let Some(known) = rows.write(mutation.write)? {
        return Ok(Ok(Decided { outcome: known.outcome, changed: false }));
    }
    let mut one = One { rows, account, write: mutation.write, stamp };
    match one.change(&mutation.change) {
        Ok(decided) => {
            if decided.changed && mutation.is_remembered() {
                let outcome = decided.outcome.clone();
                rows.put_write(&WriteRow { generation: stamp.generation, write: mutation.write, outcome })?;
            }
            Ok(Ok(decided))
        }
        Err(No::Refused(refusal)) => Ok(Err(refusal)),
        Err(No::Rows(error)) => Err(error),
    }
}

/// Why a decision ended early.
enum No {
    Refused(Refusal),
    Rows(RowsError),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RowsError> for No {
    fn from(error: RowsError) -> Self {
        Self::Rows(error)
    }
}

struct One<'r, R: Rows> {
    rows: &'r mut R,
    account: &'r mut Account,
    write: WriteId,
    stamp: Stamp,
}

fn changed(outcome: Outcome) -> Decided {
    Decided { outcome, changed: true }
}

fn unchanged(outcome: Outcome) -> Decided {
    Decided { outcome, changed: false }
}

impl<R: Rows> One<'_, R> {
    fn change(&mut self, change: &Change) -> Result<Decided, No> {
        match change {
            Change::OpenWriter { node } => {
                let last = self.rows.writer(*node)?.map_or(0, |row| row.incarnation.0);
                let incarnation = Incarnation(last + 1);
                self.rows.put_writer(&WriterRow { node: *node, incarnation, opened_at: self.stamp.at })?;
                Ok(changed(Outcome::WriterOpened(incarnation)))
            }
            Change::CreateBucket { tenant, name, region } => self.create_bucket(*tenant, name, region),
            Change::DeleteBucket { bucket } => self.delete_bucket(*bucket),
            Change::CloseBucket { bucket } => self.close_bucket(*bucket),
            Change::PutObject { bucket, key, object, conditions } => self.put_object(*bucket, key, object, conditions),
            Change::DeleteObject { bucket, key, conditions } => self.delete_object(*bucket, key, conditions),
            Change::CreateUpload { bucket, key, upload, about } => self.create_upload(*bucket, key, *upload, about),
            Change::PutPart { bucket, key, upload, part } => self.put_part(*bucket, key, *upload, part),
            Change::CompleteUpload { bucket, key, upload, parts, checksum, conditions } => {
                let wish = Completion { parts, checksum: checksum.as_ref(), conditions };
                self.complete_upload(*bucket, key, *upload, wish)
            }
            Change::AbortUpload { bucket, key, upload } => self.abort_upload(*bucket, key, *upload),
            Change::ClaimOrphans { blobs } => self.claim_orphans(blobs),
            Change::ForgetGarbage { blobs } => self.forget_garbage(blobs),
            Change::CopyObject { bucket, key, copy, conditions } => self.copy_object(*bucket, key, copy, conditions),
            Change::UpdateBucket { bucket, storage_class } => self.update_bucket(*bucket, storage_class),
            Change::CopyPart { bucket, key, upload, part, source, start } => {
                let range = *start..start.saturating_add(part.size);
                self.copy_part(*bucket, key, *upload, part, (source, range))
            }
            Change::MoveShard { blob, shard, from, to } => self.move_shard(*blob, *shard, *from, *to),
            Change::LoseShard(lost) => self.lose_shard(*lost),
            Change::SpreadAnew { blob, from, to } => self.spread_anew(*blob, from, to),
            Change::AppendPart { bucket, key, upload, part } => self.append_part(*bucket, key, *upload, part),
            Change::CompleteWrite { bucket, key, upload, size, checksum, conditions } => {
                self.complete_write(*bucket, key, *upload, (*size, checksum), conditions)
            }
            Change::SetBucketQuota { bucket, quota } => self.set_bucket_quota(*bucket, *quota),
            Change::SetTenantQuota { tenant, quota } => self.set_tenant_quota(*tenant, *quota),
            Change::TakeIn { rows } => self.take_in(rows),
            Change::BeginAt { generation } => self.begin_at(*generation),
        }
    }

    fn written(&self) -> Written {
        Written { generation: self.stamp.generation, last_modified: self.stamp.at }
    }
}

/// Objects.
impl<R: Rows> One<'_, R> {
    fn put_object(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        object: &NewObject,
        conditions: &WriteConditions,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        let head = self.rows.head(bucket.id, key.as_bytes())?;
        check(head.as_ref(), conditions)?;
        let slice = self.claimable(object.blob.as_ref(), object.size)?;
        let usage = Usage::of_object(object.size) - Usage::of_version(head.as_ref());
        self.admit(&holder, usage)?;

        self.account.add(&holder, usage);
        self.claim(object.blob.as_ref())?;
        self.drop_content(bucket.id, head.as_ref())?;
        let row = VersionRow {
            generation: self.stamp.generation,
            write: self.write,
            null: true,
            delete_marker: false,
            owner: holder.tenant,
            etag: object.etag.clone(),
            size: object.size,
            checksum: object.checksum.clone(),
            crc64nvme: object.crc64nvme,
            headers: object.headers.clone(),
            tags: object.tags.clone(),
            last_modified: self.stamp.at,
            parts: None,
            content: slice.map_or(Content::Empty, Content::Single),
            storage_class: object.storage_class.clone(),
            envelope: None,
            retention: None,
            legal_hold: false,
        };
        self.rows.put_head(bucket.id, key.as_bytes(), &row)?;
        Ok(changed(Outcome::ObjectStored(self.written())))
    }

    fn delete_object(&mut self, bucket: BucketRef, key: &Key, conditions: &WriteConditions) -> Result<Decided, No> {
        let holder = self.usable_or_closed(bucket)?;
        let head = self.rows.head(bucket.id, key.as_bytes())?;
        check(head.as_ref(), conditions)?;
        if head.is_none() {
            return Ok(unchanged(Outcome::ObjectDeleted));
        }
        self.account.add(&holder, Usage::NONE - Usage::of_version(head.as_ref()));
        self.drop_content(bucket.id, head.as_ref())?;
        self.rows.delete_head(bucket.id, key.as_bytes())?;
        Ok(changed(Outcome::ObjectDeleted))
    }

    /// Drops the references that a version's content holds, and its segments.
    fn drop_content(&mut self, bucket: BucketId, version: Option<&VersionRow>) -> Result<(), RowsError> {
        let Some(version) = version else { return Ok(()) };
        match version.content {
            Content::Empty => Ok(()),
            Content::Single(slice) => self.release(slice.blob),
            Content::Segments => {
                let segments = self.segments_of(bucket, version)?;
                segments.iter().filter_map(|segment| segment.slice).try_for_each(|slice| self.release(slice.blob))?;
                self.rows.delete_segments(bucket, version.generation)
            }
        }
    }
}

/// Whether a write may happen over the current version. A delete marker counts as absent.
fn check(current: Option<&VersionRow>, conditions: &WriteConditions) -> Result<(), Refusal> {
    let current = current.filter(|version| !version.delete_marker);
    check_conditions(conditions, current.map(|version| (&version.etag, version.generation)))
}
