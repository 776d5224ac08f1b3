//! The decisions: what a mutation does to the rows. Pure and deterministic: the same rows, mutation and stamp give the
//! same rows and outcome, which is what lets the embedded log be replayed.
//!
//! Every decision first checks, then writes, so a refusal leaves the rows as they were. An error of the rows does not:
//! then the transaction is rolled back.

mod copies;

use std::collections::BTreeSet;
use std::time::Duration;

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, Incarnation, TenantId, UploadId, WriteId};
use anvil_model::limits::{OBJECT_BYTES_MAX, PART_BYTES_MIN, PART_NUMBER_MAX};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Key, WriteConditions};
use anvil_model::time::WallTime;

use super::log::{Batch, Header};
use super::mutation::{
    BlobClaim, BlobSpread, BucketRef, Change, Completed, Mutation, NewObject, NewPart, NewUpload, Outcome, Stamp,
    Written,
};
use super::rows::{
    BlobRow, BlobState, BucketRow, BucketState, CompletedUpload, Content, GarbageRow, Ownership, PartRow,
    PublicAccessBlock, Rows, RowsError, SEGMENTS_PER_VERSION_MAX, SegmentPart, SegmentRow, Slice, StorageClass,
    UploadRow, VersionRow, Versioning, WriteRow, WriterRow,
};
use super::usage::{Account, Quota, Usage, UsageOf};
use super::{Refusal, check_conditions, sums};
use crate::multipart::PartName;

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
    /// The generation of the first change; the others follow without gaps.
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
            counters.generation.0 += 1;
        }
        decision.verdicts.push(verdict);
    }
    if decision.changed() {
        account.settle(rows)?;
        rows.forget_writes(Generation(counters.generation.0.saturating_sub(WRITES_KEPT)))?;
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
            if decided.changed {
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
            Change::SpreadAnew { blob, from, to } => self.spread_anew(*blob, from, to),
            Change::AppendPart { bucket, key, upload, part } => self.append_part(*bucket, key, *upload, part),
            Change::CompleteWrite { bucket, key, upload, size, checksum, conditions } => {
                self.complete_write(*bucket, key, *upload, (*size, checksum), conditions)
            }
            Change::SetBucketQuota { bucket, quota } => self.set_bucket_quota(*bucket, *quota),
            Change::SetTenantQuota { tenant, quota } => self.set_tenant_quota(*tenant, *quota),
        }
    }

    fn written(&self) -> Written {
        Written { generation: self.stamp.generation, last_modified: self.stamp.at }
    }
}

/// Buckets.
impl<R: Rows> One<'_, R> {
    fn create_bucket(&mut self, tenant: TenantId, name: &BucketName, region: &str) -> Result<Decided, No> {
        match self.rows.bucket_named(name)? {
            // It is not there for its tenant, and will be gone.
            Some(row) if row.tenant == tenant && row.state == BucketState::Closed => {
                return Err(Refusal::BucketBeingDeleted.into());
            }
            Some(row) if row.tenant == tenant => return Err(Refusal::BucketAlreadyOwnedByYou.into()),
            Some(_) => return Err(Refusal::BucketAlreadyExists.into()),
            None => {}
        }
        if self.rows.bucket_count(tenant)? >= BUCKETS_PER_TENANT_MAX {
            return Err(Refusal::TooManyBuckets.into());
        }
        let generation = self.stamp.generation;
        let id = BucketId(generation.0);
        self.rows.put_bucket(&BucketRow {
            id,
            name: name.clone(),
            tenant,
            region: region.to_owned(),
            state: BucketState::Active,
            generation,
            created_at: self.stamp.at,
            versioning: Versioning::Off,
            ownership: Ownership::BucketOwnerEnforced,
            public_access_block: PublicAccessBlock::ALL,
            object_lock: None,
            encryption: None,
            storage_class: StorageClass::Standard,
            quota: Quota::NONE,
        })?;
        Ok(changed(Outcome::BucketCreated(BucketRef { id, tenant, generation })))
    }

    fn delete_bucket(&mut self, bucket: BucketRef) -> Result<Decided, No> {
        let row = self.usable_or_closed(bucket)?;
        let uploads = self.rows.open_uploads(row.id, (&[], UploadId(0)), None, 1)?;
        if self.rows.has_versions(row.id)? || !uploads.is_empty() {
            return Err(Refusal::BucketNotEmpty.into());
        }
        self.rows.delete_bucket(row.id)?;
        self.rows.delete_usage(UsageOf::Bucket(row.id))?;
        self.account.forget(row.id);
        Ok(changed(Outcome::BucketDeleted))
    }

    /// What was decided before is refused from here on: by its state, and by its generation once it is gone.
    fn close_bucket(&mut self, bucket: BucketRef) -> Result<Decided, No> {
        let mut row = self.usable(bucket)?;
        row.generation = self.stamp.generation;
        row.state = BucketState::Closed;
        self.rows.put_bucket(&row)?;
        Ok(changed(Outcome::BucketClosed(BucketRef { generation: row.generation, ..bucket })))
    }

    /// What was decided under the configuration before is refused from here on, and asks again.
    fn update_bucket(&mut self, bucket: BucketRef, storage_class: &StorageClass) -> Result<Decided, No> {
        let mut row = self.usable(bucket)?;
        if row.storage_class == *storage_class {
            return Ok(unchanged(Outcome::BucketUpdated(bucket)));
        }
        row.generation = self.stamp.generation;
        row.storage_class = storage_class.clone();
        self.rows.put_bucket(&row)?;
        Ok(changed(Outcome::BucketUpdated(BucketRef { generation: row.generation, ..bucket })))
    }

    fn set_bucket_quota(&mut self, bucket: BucketRef, quota: Quota) -> Result<Decided, No> {
        let mut row = self.usable(bucket)?;
        check_quota(quota)?;
        let is_other = row.quota != quota;
        row.quota = quota;
        if is_other {
            self.rows.put_bucket(&row)?;
        }
        Ok(Decided { outcome: Outcome::QuotaSet, changed: is_other })
    }

    fn set_tenant_quota(&mut self, tenant: TenantId, quota: Quota) -> Result<Decided, No> {
        check_quota(quota)?;
        let is_other = self.rows.tenant_quota(tenant)? != quota;
        if is_other {
            self.rows.put_tenant_quota(tenant, &quota)?;
            self.account.set_tenant_quota(tenant, quota);
        }
        Ok(Decided { outcome: Outcome::QuotaSet, changed: is_other })
    }

    /// Whether the quotas leave room for what a change makes of a bucket.
    fn admit(&mut self, bucket: &BucketRow, change: Usage) -> Result<(), No> {
        Ok(self.account.admit(self.rows, bucket, change)??)
    }

    /// As [`Self::usable`], also for who names a bucket as it is since it was closed.
    fn usable_or_closed(&self, bucket: BucketRef) -> Result<BucketRow, No> {
        let closed = |row: &BucketRow| {
            row.state == BucketState::Closed && (row.tenant, row.generation) == (bucket.tenant, bucket.generation)
        };
        match self.rows.bucket(bucket.id)?.filter(closed) {
            Some(row) => Ok(row),
            None => self.usable(bucket),
        }
    }

    /// The bucket, if it still is what the request was decided under.
    fn usable(&self, bucket: BucketRef) -> Result<BucketRow, No> {
        let row = self.rows.bucket(bucket.id)?.ok_or(Refusal::NoSuchBucket)?;
        if row.state != BucketState::Active {
            return Err(Refusal::NoSuchBucket.into());
        }
        if row.tenant != bucket.tenant {
            return Err(Refusal::AccessDenied.into());
        }
        if row.generation != bucket.generation {
            return Err(Refusal::OperationAborted.into());
        }
        if row.versioning != Versioning::Off {
            // No operation turns it on yet: deciding as if it were off would lose versions.
            return Err(RowsError::Inconsistent(format!("bucket {} keeps versions", row.name)).into());
        }
        Ok(row)
    }
}

fn check_quota(quota: Quota) -> Result<(), Refusal> {
    if quota.is_valid() { Ok(()) } else { Err(Refusal::InvalidRequest("a quota is below 2^63")) }
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

/// Blobs and their references.
impl<R: Rows> One<'_, R> {
    /// Whether a blob may be claimed by this write; gives the slice that is all of it.
    fn claimable(&self, claim: Option<&BlobClaim>, size: u64) -> Result<Option<Slice>, No> {
        if claim.map_or(0, |claim| claim.length) != size || claim.is_some_and(|claim| claim.length == 0) {
            return Err(Refusal::InvalidRequest("the size is not that of the data").into());
        }
        let Some(BlobClaim { blob, length, .. }) = claim else { return Ok(None) };
        let open = self.rows.writer(blob.node)?.map(|row| row.incarnation);
        if open != Some(blob.incarnation) {
            return Err(Refusal::WriterClosed.into());
        }
        if self.rows.blob(*blob)?.is_some() {
            return Err(Refusal::BlobClaimed.into());
        }
        Ok(Some(Slice { blob: *blob, offset: 0, length: *length }))
    }

    fn claim(&mut self, claim: Option<&BlobClaim>) -> Result<(), RowsError> {
        let Some(claim) = claim else { return Ok(()) };
        self.rows.put_blob(&BlobRow {
            blob: claim.blob,
            profile: claim.profile,
            length: claim.length,
            places: claim.places.clone(),
            references: 1,
            state: BlobState::Live,
            envelope: None,
        })
    }

    /// Drops one reference; with the last one the blob is dead and garbage.
    fn release(&mut self, blob: BlobId) -> Result<(), RowsError> {
        let row = self.rows.blob(blob)?.filter(|row| row.state == BlobState::Live && row.references > 0);
        let Some(mut row) = row else {
            return Err(RowsError::Inconsistent(format!("blob {blob} is referenced and not live")));
        };
        row.references -= 1;
        if row.references == 0 {
            row.state = BlobState::Dead;
            self.list_garbage(blob)?;
        }
        self.rows.put_blob(&row)
    }

    fn list_garbage(&mut self, blob: BlobId) -> Result<(), RowsError> {
        self.rows.put_garbage(&GarbageRow { generation: self.stamp.generation, blob, since: self.stamp.at })
    }

    fn claim_orphans(&mut self, blobs: &[BlobClaim]) -> Result<Decided, No> {
        for claim in blobs {
            let open = self.rows.writer(claim.blob.node)?;
            if open.is_none_or(|open| claim.blob.incarnation >= open.incarnation) {
                return Err(Refusal::InvalidRequest("the writer of the data is not closed").into());
            }
        }
        let mut count = 0;
        for claim in blobs {
            if self.rows.blob(claim.blob)?.is_some() {
                continue;
            }
            self.claim(Some(claim))?;
            self.release(claim.blob)?;
            count += 1;
        }
        Ok(Decided { outcome: Outcome::OrphansClaimed(count), changed: count > 0 })
    }

    /// Compare and set. A blob without places (an orphan's, or one of a test) has nothing to compare with.
    fn move_shard(&mut self, blob: BlobId, shard: u8, from: DiskId, to: DiskId) -> Result<Decided, No> {
        let row = self.rows.blob(blob)?.filter(|row| row.state == BlobState::Live);
        let Some(mut row) = row else { return Err(Refusal::ShardMoved.into()) };
        match row.places.get_mut(usize::from(shard)) {
            // The places of a narrow blob that are no shard's stay free.
            Some(place) if *place == from && (row.profile.shards() > shard || to == DiskId::NONE) => {
                *place = DiskId::NONE
            }
            _ => return Err(Refusal::ShardMoved.into()),
        }
        if to != DiskId::NONE && row.places.contains(&to) {
            return Err(Refusal::InvalidRequest("the disk has another shard of the data").into());
        }
        row.places[usize::from(shard)] = to;
        if from != to {
            self.rows.put_blob(&row)?;
        }
        Ok(Decided { outcome: Outcome::ShardMoved, changed: from != to })
    }

    /// Compare and set, as a move of a shard.
    fn spread_anew(&mut self, blob: BlobId, from: &BlobSpread, to: &BlobSpread) -> Result<Decided, No> {
        let row = self.rows.blob(blob)?.filter(|row| row.state == BlobState::Live);
        let row = row.filter(|row| (row.profile, &row.places) == (from.profile, &from.places));
        let Some(row) = row else { return Err(Refusal::ShardMoved.into()) };
        let disks: BTreeSet<DiskId> = to.places.iter().copied().filter(|&place| place != DiskId::NONE).collect();
        if !to.profile.is_valid()
            || to.places.len() != usize::from(to.profile.shards())
            || disks.len() != to.places.len()
        {
            return Err(Refusal::InvalidRequest("the data has a disk of its own for each shard").into());
        }
        self.rows.put_blob(&BlobRow { profile: to.profile, places: to.places.clone(), ..row })?;
        Ok(changed(Outcome::BlobSpread))
    }

    fn forget_garbage(&mut self, blobs: &[(Generation, BlobId)]) -> Result<Decided, No> {
        for (_, blob) in blobs {
            if self.rows.blob(*blob)?.is_some_and(|row| row.state == BlobState::Live) {
                return Err(Refusal::InvalidRequest("the data is live").into());
            }
        }
        for (generation, blob) in blobs {
            self.rows.delete_garbage(*generation, *blob)?;
            self.rows.delete_blob(*blob)?;
        }
        Ok(Decided { outcome: Outcome::GarbageForgotten, changed: !blobs.is_empty() })
    }
}

/// Uploads.
impl<R: Rows> One<'_, R> {
    fn create_upload(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        about: &NewUpload,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        if self.rows.upload(upload)?.is_some() {
            return Err(Refusal::InvalidRequest("the upload exists").into());
        }
        if let Some((ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256, ChecksumType::FullObject)) = about.checksum {
            return Err(Refusal::InvalidRequest("SHA checksums of an upload are composite").into());
        }
        if let Some((ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite)) = about.checksum {
            return Err(Refusal::InvalidRequest("a CRC64NVME is of the full object").into());
        }
        self.admit_object_to_be(&holder, key)?;
        self.forget_completed()?;
        self.rows.put_upload(&UploadRow {
            upload,
            bucket: bucket.id,
            key: key.as_bytes().to_vec(),
            owner: holder.tenant,
            headers: about.headers.clone(),
            tags: about.tags.clone(),
            checksum: about.checksum,
            storage_class: about.storage_class.clone(),
            envelope: None,
            initiated_at: self.stamp.at,
            completed: None,
        })?;
        Ok(changed(Outcome::UploadCreated))
    }

    /// Says no to an upload that could not become an object now, before its parts come.
    fn admit_object_to_be(&mut self, holder: &BucketRow, key: &Key) -> Result<(), No> {
        let object = Usage::of_object(0);
        let refused = match self.account.admit(self.rows, holder, object)? {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let head = self.rows.head(holder.id, key.as_bytes())?;
        if Usage::of_version(head.as_ref()).objects > 0 { Ok(()) } else { Err(refused.into()) }
    }

    /// Forgets two old completed uploads for each new one, so that they never gather.
    fn forget_completed(&mut self) -> Result<(), RowsError> {
        let kept_ms = u64::try_from(COMPLETED_KEPT.as_millis()).expect("a day");
        let before = WallTime { unix_ms: self.stamp.at.unix_ms.saturating_sub(kept_ms) };
        for upload in self.rows.uploads_completed_before(before, 2)? {
            self.rows.delete_upload(upload)?;
        }
        Ok(())
    }

    fn put_part(&mut self, bucket: BucketRef, key: &Key, upload: UploadId, part: &NewPart) -> Result<Decided, No> {
        let (holder, row) = self.open_upload(bucket, key, upload)?;
        check_part(&row, part)?;
        let slice = self.claimable(part.blob.as_ref(), part.size)?;
        let replaced = self.admit_part(&holder, upload, part)?;

        self.claim(part.blob.as_ref())?;
        self.store_part(upload, part, slice.into_iter().collect(), replaced)?;
        Ok(changed(Outcome::PartStored(self.written())))
    }

    fn append_part(&mut self, bucket: BucketRef, key: &Key, upload: UploadId, part: &NewPart) -> Result<Decided, No> {
        let (holder, row) = self.open_upload(bucket, key, upload)?;
        check_part(&row, part)?;
        let follows = part.number == 1 || self.rows.part(upload, part.number - 1)?.is_some();
        if !follows || self.rows.part(upload, part.number)?.is_some() {
            return Err(Refusal::OtherWriter.into());
        }
        let slice = self.claimable(part.blob.as_ref(), part.size)?;
        let replaced = self.admit_part(&holder, upload, part)?;

        self.claim(part.blob.as_ref())?;
        self.store_part(upload, part, slice.into_iter().collect(), replaced)?;
        Ok(changed(Outcome::PartStored(self.written())))
    }

    /// Takes a part into account, the last check before something changes. Gives the one that it replaces.
    fn admit_part(&mut self, holder: &BucketRow, upload: UploadId, part: &NewPart) -> Result<Option<PartRow>, No> {
        let replaced = self.rows.part(upload, part.number)?;
        let usage = Usage::of_parts([part.size]) - Usage::of_parts(replaced.iter().map(|part| part.size));
        self.admit(holder, usage)?;
        self.account.add(holder, usage);
        Ok(replaced)
    }

    /// Puts a part in the place of the one with its number. Its slices are held already.
    fn store_part(
        &mut self,
        upload: UploadId,
        part: &NewPart,
        slices: Vec<Slice>,
        replaced: Option<PartRow>,
    ) -> Result<(), RowsError> {
        if let Some(replaced) = replaced {
            self.release_all(&replaced)?;
        }
        let part = PartRow {
            number: part.number,
            write: self.write,
            size: part.size,
            etag: part.etag.clone(),
            checksum: part.checksum.clone(),
            crc64nvme: part.crc64nvme,
            last_modified: self.stamp.at,
            slices,
            envelope: None,
        };
        self.rows.put_part(upload, &part)
    }

    fn release_all(&mut self, part: &PartRow) -> Result<(), RowsError> {
        part.slices.iter().try_for_each(|slice| self.release(slice.blob))
    }

    fn complete_upload(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        wish: Completion<'_>,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        let row = self.named_upload(bucket, key, upload)?;
        let list = sums::fingerprint(wish.parts);
        if let Some(done) = row.completed {
            return repeated(upload, done, list);
        }
        let head = self.rows.head(bucket.id, key.as_bytes())?;
        check(head.as_ref(), wish.conditions)?;
        let uploaded = self.rows.parts(upload, 0, usize::from(PART_NUMBER_MAX))?;
        let chosen = choose(&uploaded, wish.parts)?;
        self.complete(&holder, key, (row, list), head.as_ref(), chosen, wish.checksum)
    }

    fn complete_write(
        &mut self,
        bucket: BucketRef,
        key: &Key,
        upload: UploadId,
        (size, checksum): (u64, &Checksum),
        conditions: &WriteConditions,
    ) -> Result<Decided, No> {
        let holder = self.usable(bucket)?;
        let row = self.named_upload(bucket, key, upload)?;
        let list = sums::fingerprint_of_all(size, checksum);
        if let Some(done) = row.completed {
            return repeated(upload, done, list);
        }
        let head = self.rows.head(bucket.id, key.as_bytes())?;
        check(head.as_ref(), conditions)?;
        let uploaded = self.rows.parts(upload, 0, usize::from(PART_NUMBER_MAX))?;
        if uploaded.is_empty() {
            return Err(Refusal::InvalidRequest("an object has at least one part").into());
        }
        let is_whole = uploaded.iter().zip(1..).all(|(part, number)| part.number == number);
        if !is_whole || uploaded.iter().map(|part| part.size).sum::<u64>() != size {
            return Err(Refusal::OtherWriter.into());
        }
        let chosen = Chosen { listed: uploaded.iter().collect(), unlisted: Vec::new() };
        self.complete(&holder, key, (row, list), head.as_ref(), chosen, Some(checksum))
    }

    /// Makes the object of the chosen parts of an upload that is under way, and notes what they were chosen by.
    fn complete(
        &mut self,
        bucket: &BucketRow,
        key: &Key,
        (mut row, list): (UploadRow, [u8; 16]),
        head: Option<&VersionRow>,
        Chosen { listed, unlisted }: Chosen<'_>,
        wanted: Option<&Checksum>,
    ) -> Result<Decided, No> {
        let upload = row.upload;
        let size = listed.iter().map(|part| part.size).sum();
        if size > OBJECT_BYTES_MAX {
            return Err(Refusal::EntityTooLarge.into());
        }
        if listed.iter().map(|part| part.slices.len().max(1)).sum::<usize>() > SEGMENTS_PER_VERSION_MAX {
            return Err(Refusal::TooManyPieces.into());
        }
        let (algorithm, of) = row.checksum.unwrap_or((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject));
        let checksum = object_checksum(&listed, algorithm, of)?;
        if wanted.is_some_and(|wanted| wanted.algorithm != algorithm || wanted.value != checksum.value) {
            return Err(Refusal::BadDigest.into());
        }
        let parts = Usage::of_parts(listed.iter().chain(&unlisted).map(|part| part.size));
        let usage = Usage::of_object(size) - Usage::of_version(head) - parts;
        self.admit(bucket, usage)?;

        self.account.add(bucket, usage);
        self.drop_content(bucket.id, head)?;
        unlisted.iter().try_for_each(|part| self.release_all(part))?;
        self.rows.delete_parts(upload)?;
        let mut start = 0;
        for part in &listed {
            for segment in segments(start, part) {
                self.rows.put_segment(bucket.id, self.stamp.generation, &segment)?;
            }
            start += part.size;
        }
        let result = Completed { etag: sums::etag(&listed), checksum, size, written: self.written() };
        let version = VersionRow {
            generation: self.stamp.generation,
            write: self.write,
            null: true,
            delete_marker: false,
            owner: row.owner,
            etag: result.etag.clone(),
            size,
            checksum: result.checksum.clone(),
            crc64nvme: sums::crc64nvme(&listed),
            headers: row.headers.clone(),
            tags: row.tags.clone(),
            last_modified: self.stamp.at,
            parts: Some(u16::try_from(listed.len()).expect("as many as part numbers, at most")),
            content: Content::Segments,
            storage_class: row.storage_class.clone(),
            envelope: row.envelope.clone(),
            retention: None,
            legal_hold: false,
        };
        self.rows.put_head(bucket.id, key.as_bytes(), &version)?;
        row.completed = Some(CompletedUpload { list, result: result.clone() });
        self.rows.put_upload(&row)?;
        Ok(changed(Outcome::UploadCompleted(result)))
    }

    fn abort_upload(&mut self, bucket: BucketRef, key: &Key, upload: UploadId) -> Result<Decided, No> {
        let holder = self.usable_or_closed(bucket)?;
        self.upload_under_way(bucket, key, upload)?;
        let parts = self.rows.parts(upload, 0, usize::from(PART_NUMBER_MAX))?;
        self.account.add(&holder, Usage::NONE - Usage::of_parts(parts.iter().map(|part| part.size)));
        parts.iter().try_for_each(|part| self.release_all(part))?;
        self.rows.delete_parts(upload)?;
        self.rows.delete_upload(upload)?;
        Ok(changed(Outcome::UploadAborted))
    }

    fn open_upload(&self, bucket: BucketRef, key: &Key, upload: UploadId) -> Result<(BucketRow, UploadRow), No> {
        let holder = self.usable(bucket)?;
        Ok((holder, self.upload_under_way(bucket, key, upload)?))
    }

    fn upload_under_way(&self, bucket: BucketRef, key: &Key, upload: UploadId) -> Result<UploadRow, No> {
        let row = self.named_upload(bucket, key, upload)?;
        if row.completed.is_some() { Err(Refusal::NoSuchUpload(upload).into()) } else { Ok(row) }
    }

    /// The upload of that id, if it is of this bucket and key.
    fn named_upload(&self, bucket: BucketRef, key: &Key, upload: UploadId) -> Result<UploadRow, No> {
        let row = self.rows.upload(upload)?.filter(|row| row.bucket == bucket.id && row.key == key.as_bytes());
        Ok(row.ok_or(Refusal::NoSuchUpload(upload))?)
    }
}

/// The answer to a completion that comes again; another one finds no upload any more.
fn repeated(upload: UploadId, done: CompletedUpload, list: [u8; 16]) -> Result<Decided, No> {
    if done.list == list {
        Ok(unchanged(Outcome::UploadCompleted(done.result)))
    } else {
        Err(Refusal::NoSuchUpload(upload).into())
    }
}

/// Whether a part fits its upload.
fn check_part(upload: &UploadRow, part: &NewPart) -> Result<(), Refusal> {
    if !(1..=PART_NUMBER_MAX).contains(&part.number) {
        return Err(Refusal::InvalidRequest("a part number is out of range"));
    }
    if upload.checksum.is_some_and(|(algorithm, _)| algorithm != part.checksum.algorithm) {
        return Err(Refusal::InvalidRequest("the checksum is not by the upload's algorithm"));
    }
    Ok(())
}

/// What a client wants completed.
struct Completion<'c> {
    parts: &'c [PartName],
    checksum: Option<&'c Checksum>,
    conditions: &'c WriteConditions,
}

/// The parts of an upload that became the object, in order, and those that did not.
struct Chosen<'p> {
    listed: Vec<&'p PartRow>,
    unlisted: Vec<&'p PartRow>,
}

/// Finds the listed parts among the uploaded ones, both in ascending order of numbers.
fn choose<'p>(uploaded: &'p [PartRow], list: &[PartName]) -> Result<Chosen<'p>, Refusal> {
    if list.is_empty() {
        return Err(Refusal::InvalidRequest("an object has at least one part"));
    }
    if list.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(Refusal::InvalidPartOrder);
    }
    let mut chosen = Chosen { listed: Vec::with_capacity(list.len()), unlisted: Vec::new() };
    let mut wanted = list.iter().peekable();
    for part in uploaded {
        match wanted.next_if(|name| name.number == part.number) {
            Some(name) => {
                let same_sum = name
                    .checksum
                    .as_ref()
                    .is_none_or(|sum| sum.algorithm == part.checksum.algorithm && sum.value == part.checksum.value);
                if name.etag != part.etag || !same_sum {
                    return Err(Refusal::InvalidPart(name.number));
                }
                chosen.listed.push(part);
            }
            None => chosen.unlisted.push(part),
        }
    }
    if let Some(missing) = wanted.next() {
        return Err(Refusal::InvalidPart(missing.number));
    }
    let (_, but_last) = chosen.listed.split_last().expect("the list is not empty");
    match but_last.iter().find(|part| part.size < PART_BYTES_MIN) {
        Some(part) => Err(Refusal::EntityTooSmall { number: part.number, length: part.size }),
        None => Ok(chosen),
    }
}

/// The object's checksum by the upload's algorithm; parts that came without it (CRC64NVME is always there) give the
/// CRC64NVME of the bytes instead.
fn object_checksum(listed: &[&PartRow], algorithm: ChecksumAlgorithm, of: ChecksumType) -> Result<Checksum, Refusal> {
    if let Some(checksum) = sums::checksum(listed, algorithm, of) {
        return Ok(checksum);
    }
    if algorithm != ChecksumAlgorithm::Crc64Nvme {
        return Err(Refusal::InvalidRequest("a part has no checksum by the upload's algorithm"));
    }
    let value = sums::crc64nvme(listed).to_be_bytes().to_vec();
    Ok(Checksum { algorithm, of: ChecksumType::FullObject, value })
}

/// A part as segments of a version: the first one says which part begins there.
fn segments(start: u64, part: &PartRow) -> Vec<SegmentRow> {
    let mut kept = Some(SegmentPart {
        number: part.number,
        size: part.size,
        etag: part.etag.clone(),
        checksum: part.checksum.clone(),
    });
    if part.slices.is_empty() {
        return vec![SegmentRow { start, slice: None, part: kept }];
    }
    let mut at = start;
    let segment = |slice: &Slice| {
        let begins = at;
        at += slice.length;
        SegmentRow { start: begins, slice: Some(*slice), part: kept.take() }
    };
    part.slices.iter().map(segment).collect()
}
