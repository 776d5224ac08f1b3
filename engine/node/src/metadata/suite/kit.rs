//! What the cases share: a caller that resolves what is unknown, a bad line, a die, and metadata without a log.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anvil_model::ids::{BlobId, Generation, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;

use crate::metadata::embedded::Index;
use crate::metadata::mutation::{BlobClaim, BucketRef, Change, Mutation, NewObject, NewPart, NewUpload, Outcome};
use crate::metadata::query::{Answer, BucketPath, FoundObject, Query};
use crate::metadata::rows::{BlobRow, BlobState, GarbageRow, StorageClass};
use crate::metadata::{Metadata, MetadataError, Refusal};

/// The tenant of most cases.
pub(super) const TENANT: TenantId = TenantId(1);
/// The node that writes.
pub(super) const NODE: NodeId = NodeId(1);
/// How often a lost answer is asked for again.
const ATTEMPTS_MAX: usize = 200;

/// A small deterministic generator (SplitMix64): cases differ by seed and repeat exactly.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).expect("a usize fits");
        usize::try_from(self.roll() % count).expect("below a usize")
    }

    /// True once in `count`.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of these.
    pub fn pick<'t, T>(&mut self, things: &'t [T]) -> &'t T {
        &things[self.below(things.len())]
    }
}

/// Speaks to metadata as a node does: with write ids of its own, until each change is known to have happened or not.
pub struct Caller<'m, M> {
    metadata: &'m M,
    incarnation: Cell<Incarnation>,
    blobs: Cell<u64>,
    ids: Cell<u128>,
}

impl<'m, M: Metadata> Caller<'m, M> {
    /// Opens a life of node 1.
    pub async fn open(metadata: &'m M) -> Self {
        let caller = Self { metadata, incarnation: Cell::new(Incarnation(0)), blobs: Cell::new(0), ids: Cell::new(0) };
        caller.reopen().await;
        caller
    }

    /// Opens the next life.
    pub(super) async fn reopen(&self) {
        match self.commit(Change::OpenWriter { node: NODE }).await {
            Ok(Outcome::WriterOpened(incarnation)) => self.incarnation.set(incarnation),
            other => panic!("opening a writer came to {other:?}"),
        }
    }

    /// An id that no other call gives, whichever caller of this case asks.
    fn id(&self) -> u128 {
        self.ids.set(self.ids.get() + 1);
        u128::from(self.incarnation.get().0) << 64 | self.ids.get()
    }

    pub(super) fn upload_id(&self) -> UploadId {
        UploadId(self.id())
    }

    pub(super) fn mutation(&self, change: Change) -> Mutation {
        Mutation { write: WriteId(self.id()), change }
    }

    pub(super) async fn commit(&self, change: Change) -> Result<Outcome, Refusal> {
        self.send(self.mutation(change)).await
    }

    /// Sends one mutation until its outcome is known.
    pub(super) async fn send(&self, mutation: Mutation) -> Result<Outcome, Refusal> {
        self.send_all(vec![mutation]).await.pop().expect("one outcome")
    }

    /// Sends one batch; what is lost is asked for, and sent again under its write id.
    pub(super) async fn send_all(&self, batch: Vec<Mutation>) -> Vec<Result<Outcome, Refusal>> {
        let batch: Arc<[Mutation]> = batch.into();
        let first = self.metadata.commit(Arc::clone(&batch)).await;
        assert_eq!(first.len(), batch.len(), "each mutation has its outcome");
        let mut outcomes = Vec::new();
        for (mutation, outcome) in batch.iter().zip(first) {
            outcomes.push(self.settle(mutation, outcome).await);
        }
        outcomes
    }

    async fn settle(
        &self,
        mutation: &Mutation,
        mut outcome: Result<Outcome, MetadataError>,
    ) -> Result<Outcome, Refusal> {
        for _ in 0..ATTEMPTS_MAX {
            match outcome {
                Ok(outcome) => return Ok(outcome),
                Err(MetadataError::Refused(refusal)) => return Err(refusal),
                Err(MetadataError::Unavailable { .. }) => {}
                Err(MetadataError::Unknown) => {
                    if let Ok(Answer::Write(Some(outcome))) = self.ask(Query::Write(mutation.write)).await {
                        return Ok(outcome);
                    }
                }
            }
            outcome = self.metadata.commit(Arc::new([mutation.clone()])).await.pop().expect("one outcome");
        }
        panic!("the metadata never answers");
    }

    pub(super) async fn ask(&self, query: Query) -> Result<Answer, Refusal> {
        for _ in 0..ATTEMPTS_MAX {
            match self.metadata.look_up(vec![query.clone()]).await.pop().expect("one answer") {
                Ok(answer) => return Ok(answer),
                Err(MetadataError::Refused(refusal)) => return Err(refusal),
                Err(MetadataError::Unavailable { .. }) => {}
                Err(MetadataError::Unknown) => panic!("a look-up is not unknown"),
            }
        }
        panic!("the metadata never answers");
    }
}

/// Shorter ways to say the usual.
impl<M: Metadata> Caller<'_, M> {
    pub(super) async fn create_bucket(&self, name: &str) -> BucketRef {
        let create = Change::CreateBucket { tenant: TENANT, name: bucket_name(name), region: "here".to_owned() };
        match self.commit(create).await {
            Ok(Outcome::BucketCreated(bucket)) => bucket,
            other => panic!("creating {name} came to {other:?}"),
        }
    }

    /// A blob that nobody has claimed, of the open life.
    pub(super) fn claim(&self, length: u64) -> BlobClaim {
        self.blobs.set(self.blobs.get() + 1);
        let blob = BlobId { node: NODE, incarnation: self.incarnation.get(), sequence: self.blobs.get() };
        // On no disk: an implementation that flushes what a change brings has nothing to flush.
        BlobClaim { blob, profile: Profile::SINGLE, length, places: Vec::new() }
    }

    /// A version of `size` bytes with a tag of its own.
    pub(super) fn object(&self, size: u64) -> NewObject {
        let number = self.id();
        NewObject {
            etag: Etag(format!("{number:032x}")),
            size,
            checksum: crc(u64::try_from(number & 0xffff).expect("16 bits")),
            crc64nvme: 5,
            headers: Headers::default(),
            tags: Vec::new(),
            storage_class: StorageClass::Standard,
            blob: (size > 0).then(|| self.claim(size)),
        }
    }

    pub(super) async fn put(&self, bucket: BucketRef, key: &str, size: u64) -> NewObject {
        let object = self.object(size);
        self.put_if(bucket, key, &object, WriteConditions::default()).await.expect("nothing speaks against it");
        object
    }

    pub(super) async fn put_if(
        &self,
        bucket: BucketRef,
        key: &str,
        object: &NewObject,
        conditions: WriteConditions,
    ) -> Result<Outcome, Refusal> {
        let object = Box::new(object.clone());
        self.commit(Change::PutObject { bucket, key: self::key(key), object, conditions }).await
    }

    pub(super) async fn delete(&self, bucket: BucketRef, key: &str) -> Result<Outcome, Refusal> {
        let conditions = WriteConditions::default();
        self.commit(Change::DeleteObject { bucket, key: self::key(key), conditions }).await
    }

    pub(super) async fn object_at(&self, bucket: &str, key: &str) -> Result<FoundObject, Refusal> {
        let query = Query::Object { bucket: path(bucket), key: self::key(key), read_from: None };
        match self.ask(query).await? {
            Answer::Object(found) => Ok(*found),
            other => panic!("an object is not {other:?}"),
        }
    }

    pub(super) async fn create_upload(&self, bucket: BucketRef, key: &str, about: NewUpload) -> UploadId {
        let upload = self.upload_id();
        let create = Change::CreateUpload { bucket, key: self::key(key), upload, about: Box::new(about) };
        assert_eq!(self.commit(create).await, Ok(Outcome::UploadCreated));
        upload
    }

    /// A part of `size` bytes with a tag of its own.
    pub(super) fn part(&self, number: u16, size: u64) -> NewPart {
        let object = self.object(size);
        NewPart {
            number,
            etag: object.etag,
            size,
            checksum: crc(u64::from(number)),
            crc64nvme: u64::from(number),
            blob: object.blob,
        }
    }

    pub(super) async fn put_part(
        &self,
        bucket: BucketRef,
        key: &str,
        upload: UploadId,
        part: &NewPart,
    ) -> Result<Outcome, Refusal> {
        self.commit(Change::PutPart { bucket, key: self::key(key), upload, part: Box::new(part.clone()) }).await
    }

    pub(super) async fn blob(&self, blob: BlobId) -> Option<BlobRow> {
        match self.ask(Query::Blob(blob)).await {
            Ok(Answer::Blob(row)) => row,
            other => panic!("a blob is not {other:?}"),
        }
    }

    /// The whole garbage list, read in small pages.
    pub(super) async fn garbage(&self) -> Vec<GarbageRow> {
        let (mut all, mut after) = (Vec::new(), None::<(Generation, BlobId)>);
        loop {
            let page = match self.ask(Query::Garbage { after, max: 3 }).await {
                Ok(Answer::Garbage(page)) => page,
                other => panic!("garbage is not {other:?}"),
            };
            let Some(last) = page.last() else { return all };
            after = Some((last.generation, last.blob));
            all.extend(page);
        }
    }

    /// Checks that exactly these blobs are live and these are dead, and that the garbage list is the dead ones.
    pub(super) async fn audit(&self, live: impl IntoIterator<Item = BlobId>, dead: impl IntoIterator<Item = BlobId>) {
        for blob in live {
            let row = self.blob(blob).await.unwrap_or_else(|| panic!("{blob} has no row"));
            assert_eq!((row.state, row.references), (BlobState::Live, 1), "{blob} is referenced once");
        }
        let mut expected: Vec<BlobId> = dead.into_iter().collect();
        for blob in &expected {
            let row = self.blob(*blob).await.unwrap_or_else(|| panic!("{blob} has no row"));
            assert_eq!((row.state, row.references), (BlobState::Dead, 0), "{blob} is not referenced");
        }
        let mut listed: Vec<BlobId> = self.garbage().await.into_iter().map(|row| row.blob).collect();
        expected.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, expected, "the garbage list is the dead blobs, each once");
    }
}

pub(super) fn bucket_name(name: &str) -> BucketName {
    BucketName::new(name).expect("a case names buckets well")
}

pub(super) fn key(key: &str) -> Key {
    Key::new(key.as_bytes().to_vec()).expect("a case names keys well")
}

pub(super) fn path(bucket: &str) -> BucketPath {
    BucketPath { tenant: TENANT, name: bucket_name(bucket) }
}

pub(super) fn crc(value: u64) -> Checksum {
    Checksum {
        algorithm: ChecksumAlgorithm::Crc64Nvme,
        of: ChecksumType::FullObject,
        value: value.to_be_bytes().to_vec(),
    }
}

pub(super) fn blob_of(object: &NewObject) -> BlobId {
    object.blob.as_ref().expect("it has bytes").blob
}

/// Metadata behind a line that loses a request before or after it arrived, delivers it twice, or late.
pub struct Unreliable<M> {
    inner: M,
    dice: RefCell<Dice>,
}

impl<M: Metadata> Unreliable<M> {
    /// Puts a bad line before `inner`.
    pub fn new(inner: M, seed: u64) -> Self {
        Self { inner, dice: RefCell::new(Dice::new(seed)) }
    }

    fn below(&self, count: usize) -> usize {
        self.dice.borrow_mut().below(count)
    }

    /// Lets others go first for a while.
    async fn dawdle(&self) {
        for _ in 0..self.below(4) {
            let mut waited = false;
            poll_fn(|context| {
                if waited {
                    return Poll::Ready(());
                }
                waited = true;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }
}

impl<M: Metadata> Metadata for Unreliable<M> {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        self.dawdle().await;
        let unknown = vec![Err(MetadataError::Unknown); batch.len()];
        match self.below(5) {
            0 => unknown,
            1 => {
                self.inner.commit(batch).await;
                self.dawdle().await;
                unknown
            }
            2 => {
                let first = self.inner.commit(Arc::clone(&batch)).await;
                let second = self.inner.commit(batch).await;
                for (first, second) in first.iter().zip(second) {
                    if first.is_ok() {
                        assert_eq!(*first, second, "what was delivered twice is answered as before");
                    }
                }
                first
            }
            _ => self.inner.commit(batch).await,
        }
    }

    async fn look_up(&self, batch: Vec<Query>) -> Vec<Result<Answer, MetadataError>> {
        self.dawdle().await;
        if self.below(6) == 0 {
            return vec![Err(MetadataError::Unavailable { retry_after: Duration::ZERO }); batch.len()];
        }
        self.inner.look_up(batch).await
    }
}

/// An index as metadata without a log: for the suite of what an index has to do.
pub struct Logless<I> {
    index: I,
    next: tokio::sync::Mutex<u64>,
}

impl<I: Index> Logless<I> {
    /// An index that holds nothing.
    pub fn new(index: I) -> Self {
        Self { index, next: tokio::sync::Mutex::new(1) }
    }
}

impl<I: Index> Metadata for Logless<I> {
    async fn commit(&self, batch: Arc<[Mutation]>) -> Vec<Result<Outcome, MetadataError>> {
        let mut number = self.next.lock().await;
        let all = 0..batch.len();
        let decision = self.index.decide(batch, all, *number, WallTime { unix_ms: 1 }).await.expect("it decides");
        if decision.changed() {
            self.index.commit().await.expect("it commits");
            *number += 1;
        } else {
            self.index.rollback().await.expect("it rolls back");
        }
        decision.verdicts.into_iter().map(|verdict| Ok(verdict?.outcome)).collect()
    }

    fn look_up(&self, batch: Vec<Query>) -> impl Future<Output = Vec<Result<Answer, MetadataError>>> {
        self.index.look_up(batch)
    }
}
