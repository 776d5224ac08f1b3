//! What a story holds of the metadata: one core's handle on the service that batches for all cores.

use std::pin::pin;
use std::time::Duration;

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, TenantId, UploadId, WriteId};
use anvil_model::io::World;
use anvil_model::object::{BucketName, Key};
use anvil_model::time::{Moment, WallTime};
use futures_util::future::{self, Either};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::MetadataError;
use super::mutation::{Change, Mutation, Outcome};
use super::query::{
    Answer, BlobsOnDisk, BucketPath, BucketUsage, FoundObject, FoundParts, FoundUpload, Holdings, Prepared, Progress,
    Query, ReadFrom, StaleUploads, TenantUsage,
};
use super::rows::{BlobRow, BucketRow, Counters, GarbageRow, SegmentRow};
use crate::list::{ListObjects, Page};
use crate::multipart::{ListUploads, PartsPage, UploadsPage};

/// The entrances of the service: bounded, shared by all cores, cheap to clone and to send to a core.
#[derive(Clone, Debug)]
pub struct Mailboxes {
    pub(super) commits: mpsc::Sender<CommitJob>,
    pub(super) look_ups: mpsc::Sender<LookUpJob>,
}

/// Looks at the entrances without keeping the service alive.
#[derive(Clone, Debug)]
pub struct Onlooker {
    commits: mpsc::WeakSender<CommitJob>,
    look_ups: mpsc::WeakSender<LookUpJob>,
}

/// Requests that no batch has taken up yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLengths {
    /// Commits.
    pub commits: usize,
    /// Look-ups.
    pub look_ups: usize,
}

impl Mailboxes {
    /// Watches how full they are.
    #[must_use]
    pub fn onlooker(&self) -> Onlooker {
        Onlooker { commits: self.commits.downgrade(), look_ups: self.look_ups.downgrade() }
    }
}

impl Onlooker {
    /// What waits now; nothing when the service has ended.
    #[must_use]
    pub fn waiting(&self) -> QueueLengths {
        fn length<T>(queue: &mpsc::WeakSender<T>) -> usize {
            queue.upgrade().map_or(0, |queue| queue.max_capacity() - queue.capacity())
        }
        QueueLengths { commits: length(&self.commits), look_ups: length(&self.look_ups) }
    }
}

/// A mutation on its way to a batch. When the waiting side is gone before the batch is sent, it is left out.
#[derive(Debug)]
pub(super) struct CommitJob {
    pub(super) mutation: Mutation,
    /// Not sent any more after this moment.
    pub(super) deadline: Moment,
    pub(super) reply: oneshot::Sender<Result<Outcome, MetadataError>>,
}

/// A query on its way to a batch.
#[derive(Debug)]
pub(super) struct LookUpJob {
    pub(super) query: Query,
    pub(super) deadline: Moment,
    pub(super) reply: oneshot::Sender<Result<Answer, MetadataError>>,
}

/// One core's handle. Cheap to clone.
#[derive(Clone)]
pub struct Client<W: World> {
    world: W,
    mailboxes: Mailboxes,
}

/// For how long a change is waited for, with the question what became of it.
pub const COMMIT_DEADLINE: Duration = Duration::from_secs(20);
/// A commit that waited this long is not sent any more; one that was sent is unknown, and asked for.
pub const COMMIT_ANSWER_WAIT: Duration = Duration::from_millis(18_500);
const _: () = assert!(COMMIT_ANSWER_WAIT.as_millis() < COMMIT_DEADLINE.as_millis(), "time is left for the question");
/// A look-up that waited this long is answered with [`MetadataError::Unavailable`].
pub const LOOK_UP_DEADLINE: Duration = Duration::from_secs(10);
/// When a full queue asks its callers to come back.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often the write id of an unknown commit is asked for within its deadline, and how long is waited before the first
/// time; each further wait is twice as long.
pub const UNKNOWN_ASKED_MAX: u32 = 6;
const UNKNOWN_FIRST_WAIT: Duration = Duration::from_millis(50);

impl<W: World> Client<W> {
    /// A handle for the core of `world`.
    #[must_use]
    pub fn new(world: W, mailboxes: Mailboxes) -> Self {
        Self { world, mailboxes }
    }

    /// A write id that nobody else has.
    #[must_use]
    pub fn new_write(&self) -> WriteId {
        WriteId(self.random_id())
    }

    /// An upload id that nobody else has.
    #[must_use]
    pub fn new_upload(&self) -> UploadId {
        UploadId(self.random_id())
    }

    /// Makes a change under a fresh write id. When this returns `Ok`, it is durable and every later look-up sees it.
    ///
    /// # Errors
    /// [`MetadataError::Refused`] and [`MetadataError::Unavailable`]: it did not happen. [`MetadataError::Unknown`]: it
    /// may have, even after its write id was asked for. Dropping the future does not take back a change that was sent.
    pub async fn commit(&self, change: Change) -> Result<Outcome, MetadataError> {
        self.commit_as(Mutation { write: self.new_write(), change }).await
    }

    /// As [`Self::commit`], under a write id of the caller.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub async fn commit_as(&self, mutation: Mutation) -> Result<Outcome, MetadataError> {
        let (write, deadline) = (mutation.write, self.world.now() + COMMIT_DEADLINE);
        match self.send(mutation).await {
            Err(MetadataError::Unknown) => self.resolve(write, deadline).await,
            known => known,
        }
    }

    /// Several changes, each with an outcome of its own; they may end up in one batch. They are not atomic together,
    /// and not ordered unless they belong to one key.
    pub async fn commit_all(&self, changes: Vec<Change>) -> Vec<Result<Outcome, MetadataError>> {
        future::join_all(changes.into_iter().map(|change| self.commit(change))).await
    }

    /// Asks one question.
    ///
    /// # Errors
    /// [`MetadataError::Refused`] as an answer, [`MetadataError::Unavailable`] when there is none.
    pub async fn look_up(&self, query: Query) -> Result<Answer, MetadataError> {
        self.look_up_within(query, LOOK_UP_DEADLINE).await
    }

    async fn look_up_within(&self, query: Query, wait: Duration) -> Result<Answer, MetadataError> {
        let (reply, answer) = oneshot::channel();
        let deadline = self.world.now() + wait;
        self.mailboxes.look_ups.try_send(LookUpJob { query, deadline, reply }).map_err(full)?;
        match future::select(answer, pin!(self.world.sleep(wait))).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(_), _)) | Either::Right(_) => {
                Err(MetadataError::Unavailable { retry_after: RETRY_AFTER })
            }
        }
    }

    async fn send(&self, mutation: Mutation) -> Result<Outcome, MetadataError> {
        let (reply, outcome) = oneshot::channel();
        let deadline = self.world.now() + COMMIT_ANSWER_WAIT;
        self.mailboxes.commits.try_send(CommitJob { mutation, deadline, reply }).map_err(full)?;
        match future::select(outcome, pin!(self.world.sleep(COMMIT_ANSWER_WAIT))).await {
            Either::Left((Ok(outcome), _)) => outcome,
            // The service went away with it, or it is late: it may have been sent.
            Either::Left((Err(_), _)) | Either::Right(_) => Err(MetadataError::Unknown),
        }
    }

    /// Asks what became of a write until it is found, or its time is over; a write that is not found may still come.
    async fn resolve(&self, write: WriteId, deadline: Moment) -> Result<Outcome, MetadataError> {
        let left = || deadline.since(self.world.now());
        let mut wait = UNKNOWN_FIRST_WAIT;
        for _ in 0..UNKNOWN_ASKED_MAX {
            self.world.sleep(wait.min(left())).await;
            let asked = self.look_up_within(Query::Write(write), left().min(LOOK_UP_DEADLINE));
            if let Ok(Answer::Write(Some(outcome))) = asked.await {
                return Ok(outcome);
            }
            wait *= 2;
        }
        Err(MetadataError::Unknown)
    }

    fn random_id(&self) -> u128 {
        u128::from(self.world.random()) << 64 | u128::from(self.world.random())
    }
}

/// One method per query, for those who want the answer and not the enum.
#[allow(clippy::missing_errors_doc, reason = "as for look_up")]
impl<W: World> Client<W> {
    /// [`Query::Object`].
    pub async fn object(
        &self,
        bucket: BucketPath,
        key: Key,
        read_from: Option<ReadFrom>,
    ) -> Result<Box<FoundObject>, MetadataError> {
        match self.look_up(Query::Object { bucket, key, read_from }).await? {
            Answer::Object(found) => Ok(found),
            other => mismatch(&other),
        }
    }

    /// [`Query::Segments`].
    pub async fn segments(
        &self,
        bucket: BucketId,
        version: Generation,
        range: std::ops::Range<u64>,
    ) -> Result<Vec<SegmentRow>, MetadataError> {
        match self.look_up(Query::Segments { bucket, version, range }).await? {
            Answer::Segments(segments) => Ok(segments),
            other => mismatch(&other),
        }
    }

    /// [`Query::ObjectParts`].
    pub async fn object_parts(
        &self,
        bucket: BucketPath,
        key: Key,
        after: u16,
        max: usize,
    ) -> Result<Box<FoundParts>, MetadataError> {
        match self.look_up(Query::ObjectParts { bucket, key, after, max }).await? {
            Answer::ObjectParts(found) => Ok(found),
            other => mismatch(&other),
        }
    }

    /// [`Query::Prepare`].
    pub async fn prepare(&self, bucket: BucketPath, key: Key) -> Result<Prepared, MetadataError> {
        match self.look_up(Query::Prepare { bucket, key }).await? {
            Answer::Prepared(prepared) => Ok(prepared),
            other => mismatch(&other),
        }
    }

    /// [`Query::Bucket`].
    pub async fn bucket(&self, bucket: BucketPath) -> Result<BucketRow, MetadataError> {
        match self.look_up(Query::Bucket(bucket)).await? {
            Answer::Bucket(row) => Ok(row),
            other => mismatch(&other),
        }
    }

    /// [`Query::Buckets`].
    pub async fn buckets(
        &self,
        tenant: TenantId,
        after: Option<String>,
        max: usize,
    ) -> Result<Vec<BucketRow>, MetadataError> {
        match self.look_up(Query::Buckets { tenant, after, max }).await? {
            Answer::Buckets(rows) => Ok(rows),
            other => mismatch(&other),
        }
    }

    /// [`Query::List`].
    pub async fn list(&self, bucket: BucketPath, list: ListObjects) -> Result<Page, MetadataError> {
        match self.look_up(Query::List { bucket, list }).await? {
            Answer::List(page) => Ok(page),
            other => mismatch(&other),
        }
    }

    /// [`Query::Upload`].
    pub async fn upload(
        &self,
        bucket: BucketPath,
        key: Key,
        upload: UploadId,
    ) -> Result<Box<FoundUpload>, MetadataError> {
        match self.look_up(Query::Upload { bucket, key, upload }).await? {
            Answer::Upload(found) => Ok(found),
            other => mismatch(&other),
        }
    }

    /// [`Query::Uploads`].
    pub async fn uploads(&self, bucket: BucketPath, list: ListUploads) -> Result<UploadsPage, MetadataError> {
        match self.look_up(Query::Uploads { bucket, list }).await? {
            Answer::Uploads(page) => Ok(page),
            other => mismatch(&other),
        }
    }

    /// [`Query::Parts`].
    pub async fn parts(
        &self,
        bucket: BucketPath,
        key: Key,
        upload: UploadId,
        after: u16,
        max: usize,
    ) -> Result<PartsPage, MetadataError> {
        match self.look_up(Query::Parts { bucket, key, upload, after, max }).await? {
            Answer::Parts(page) => Ok(page),
            other => mismatch(&other),
        }
    }

    /// [`Query::Progress`].
    pub async fn progress(
        &self,
        bucket: BucketPath,
        key: Key,
        upload: UploadId,
    ) -> Result<Box<Progress>, MetadataError> {
        match self.look_up(Query::Progress { bucket, key, upload }).await? {
            Answer::Progress(progress) => Ok(progress),
            other => mismatch(&other),
        }
    }

    /// [`Query::Garbage`].
    pub async fn garbage(
        &self,
        after: Option<(Generation, BlobId)>,
        max: usize,
    ) -> Result<Vec<GarbageRow>, MetadataError> {
        match self.look_up(Query::Garbage { after, max }).await? {
            Answer::Garbage(rows) => Ok(rows),
            other => mismatch(&other),
        }
    }

    /// [`Query::Blob`].
    pub async fn blob(&self, blob: BlobId) -> Result<Option<BlobRow>, MetadataError> {
        match self.look_up(Query::Blob(blob)).await? {
            Answer::Blob(row) => Ok(row),
            other => mismatch(&other),
        }
    }

    /// [`Query::Blobs`].
    pub async fn blobs(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, MetadataError> {
        match self.look_up(Query::Blobs { after, max }).await? {
            Answer::Blobs(rows) => Ok(rows),
            other => mismatch(&other),
        }
    }

    /// [`Query::BlobsOnDisk`].
    pub async fn blobs_on_disk(
        &self,
        disk: DiskId,
        after: Option<BlobId>,
        max: usize,
    ) -> Result<BlobsOnDisk, MetadataError> {
        match self.look_up(Query::BlobsOnDisk { disk, after, max }).await? {
            Answer::BlobsOnDisk(page) => Ok(page),
            other => mismatch(&other),
        }
    }

    /// [`Query::AnyBucket`].
    pub async fn any_bucket(&self, name: BucketName) -> Result<Option<BucketRow>, MetadataError> {
        match self.look_up(Query::AnyBucket(name)).await? {
            Answer::AnyBucket(row) => Ok(row),
            other => mismatch(&other),
        }
    }

    /// [`Query::BucketUsage`].
    pub async fn bucket_usage(&self, name: BucketName) -> Result<Option<Box<BucketUsage>>, MetadataError> {
        match self.look_up(Query::BucketUsage(name)).await? {
            Answer::BucketUsage(found) => Ok(found),
            other => mismatch(&other),
        }
    }

    /// [`Query::BucketUsages`].
    pub async fn bucket_usages(&self, after: Option<BucketId>, max: usize) -> Result<Vec<BucketUsage>, MetadataError> {
        match self.look_up(Query::BucketUsages { after, max }).await? {
            Answer::BucketUsages(found) => Ok(found),
            other => mismatch(&other),
        }
    }

    /// [`Query::TenantUsage`].
    pub async fn tenant_usage(&self, tenant: TenantId) -> Result<TenantUsage, MetadataError> {
        match self.look_up(Query::TenantUsage(tenant)).await? {
            Answer::TenantUsage(found) => Ok(found),
            other => mismatch(&other),
        }
    }

    /// [`Query::Holdings`].
    pub async fn holdings(
        &self,
        bucket: BucketId,
        from: Vec<u8>,
        max: usize,
    ) -> Result<Option<Box<Holdings>>, MetadataError> {
        match self.look_up(Query::Holdings { bucket, from, max }).await? {
            Answer::Holdings(holdings) => Ok(holdings),
            other => mismatch(&other),
        }
    }

    /// [`Query::StaleUploads`].
    pub async fn stale_uploads(
        &self,
        before: WallTime,
        after: Option<UploadId>,
        max: usize,
    ) -> Result<StaleUploads, MetadataError> {
        match self.look_up(Query::StaleUploads { before, after, max }).await? {
            Answer::StaleUploads(page) => Ok(page),
            other => mismatch(&other),
        }
    }

    /// [`Query::Counters`].
    pub async fn counters(&self) -> Result<Counters, MetadataError> {
        match self.look_up(Query::Counters).await? {
            Answer::Counters(counters) => Ok(counters),
            other => mismatch(&other),
        }
    }
}

impl BucketPath {
    /// The bucket `name` as `tenant` names it.
    #[must_use]
    pub fn new(tenant: TenantId, name: BucketName) -> Self {
        Self { tenant, name }
    }
}

/// A full queue turns its callers away at once; a closed one is a service that stops.
fn full<T>(_: TrySendError<T>) -> MetadataError {
    MetadataError::Unavailable { retry_after: RETRY_AFTER }
}

fn mismatch<T>(answer: &Answer) -> T {
    panic!("a query is answered by the answer of its name, not by {answer:?}")
}
