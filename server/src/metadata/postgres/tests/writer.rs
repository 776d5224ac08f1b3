//! A node that writes, as far as its metadata sees it: until it knows what became of each change.

use std::time::{Duration, Instant};

use anvil_model::ids::{BlobId, BucketId, Incarnation, NodeId, TenantId};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;
use anvil_node::metadata::mutation::{BlobClaim, BucketRef, Change, CopySource, NewCopy, NewObject};
use anvil_node::metadata::query::BucketPath;
use anvil_node::metadata::rows::StorageClass;

use super::*;

/// What became of the changes that a writer sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Answered at once.
    pub(super) answered: usize,
    /// Said not to have happened, and sent again.
    pub(super) unavailable: usize,
    /// Not known, and found by the write id.
    pub(super) found: usize,
    /// Not known, not found, and sent again under its write id.
    pub(super) sent_again: usize,
    /// The longest that a batch waited for its answer.
    pub(super) longest: Duration,
}

pub(super) struct Writer<'m, M> {
    metadata: &'m M,
    incarnation: Incarnation,
    node: NodeId,
    next: u64,
    pub(super) seen: Seen,
}

const TENANT: TenantId = TenantId(1);
const BUCKET: &str = "bucket";
/// More than a change that is made at all needs.
const ATTEMPTS_MAX: usize = 50;

impl<'m, M: Metadata> Writer<'m, M> {
    pub(super) async fn open(metadata: &'m M, node: u32) -> Self {
        let node = NodeId(node);
        let mut writer = Self { metadata, incarnation: Incarnation(0), node, next: 0, seen: Seen::default() };
        match writer.send(Change::OpenWriter { node }).await {
            Ok(Outcome::WriterOpened(incarnation)) => writer.incarnation = incarnation,
            other => panic!("opening a writer came to {other:?}"),
        }
        writer
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn mutation(&mut self, change: Change) -> Mutation {
        let write = u128::from(self.node.0) << 96 | u128::from(self.incarnation.0) << 64 | u128::from(self.next());
        Mutation { write: WriteId(write), change }
    }

    pub(super) async fn send(&mut self, change: Change) -> Result<Outcome, MetadataError> {
        let mutation = self.mutation(change);
        self.send_all(vec![mutation]).await.remove(0)
    }

    /// Sends a batch until each change of it happened or was refused.
    pub(super) async fn send_all(&mut self, batch: Vec<Mutation>) -> Vec<Result<Outcome, MetadataError>> {
        let batch: Arc<[Mutation]> = batch.into();
        let begun = Instant::now();
        let first = self.metadata.commit(Arc::clone(&batch)).await;
        self.seen.longest = self.seen.longest.max(begun.elapsed());
        assert_eq!(first.len(), batch.len(), "each mutation has its outcome");
        let mut outcomes = Vec::new();
        for (mutation, outcome) in batch.iter().zip(first) {
            self.seen.answered += usize::from(outcome.is_ok());
            outcomes.push(self.settle(mutation, outcome).await);
        }
        outcomes
    }

    async fn settle(
        &mut self,
        mutation: &Mutation,
        mut outcome: Result<Outcome, MetadataError>,
    ) -> Result<Outcome, MetadataError> {
        for _ in 0..ATTEMPTS_MAX {
            match outcome {
                Ok(_) | Err(MetadataError::Refused(_)) => return outcome,
                Err(MetadataError::Unavailable { .. }) => {
                    assert_eq!(self.outcome(mutation.write).await, None, "what was said not to have happened did");
                    self.seen.unavailable += 1;
                }
                Err(MetadataError::Unknown) => {
                    if let Some(found) = self.outcome(mutation.write).await {
                        self.seen.found += 1;
                        return Ok(found);
                    }
                    self.seen.sent_again += 1;
                }
            }
            outcome = self.metadata.commit(Arc::new([mutation.clone()])).await.remove(0);
        }
        panic!("the metadata never answers");
    }

    async fn outcome(&self, write: WriteId) -> Option<Outcome> {
        match self.ask(Query::Write(write)).await {
            Ok(Answer::Write(outcome)) => outcome,
            other => panic!("a write is not {other:?}"),
        }
    }

    pub(super) async fn ask(&self, query: Query) -> Result<Answer, MetadataError> {
        for _ in 0..ATTEMPTS_MAX {
            match self.metadata.look_up(vec![query.clone()]).await.remove(0) {
                Err(MetadataError::Unavailable { .. }) => thread::sleep(Duration::from_millis(10)),
                answer => return answer,
            }
        }
        panic!("the metadata never answers");
    }

    pub(super) async fn create_bucket(&mut self) -> BucketRef {
        let name = BucketName::new(BUCKET).unwrap();
        match self.send(Change::CreateBucket { tenant: TENANT, name, region: "here".to_owned() }).await {
            Ok(Outcome::BucketCreated(bucket)) => bucket,
            other => panic!("creating a bucket came to {other:?}"),
        }
    }

    /// A version with a blob of its own.
    pub(super) fn object(&mut self) -> NewObject {
        let sequence = self.next();
        let blob = BlobId { node: self.node, incarnation: self.incarnation, sequence };
        let checksum = Checksum {
            algorithm: ChecksumAlgorithm::Crc64Nvme,
            of: ChecksumType::FullObject,
            value: sequence.to_be_bytes().to_vec(),
        };
        NewObject {
            etag: Etag(format!("{}-{sequence}", self.node.0)),
            size: 1,
            checksum,
            crc64nvme: sequence,
            headers: Headers::default(),
            tags: Vec::new(),
            storage_class: StorageClass::Standard,
            blob: Some(BlobClaim { blob, profile: Profile::SINGLE, length: 1, places: Vec::new() }),
        }
    }

    pub(super) fn put(
        &mut self,
        bucket: BucketRef,
        key: &str,
        object: NewObject,
        conditions: WriteConditions,
    ) -> Mutation {
        let object = Box::new(object);
        self.mutation(Change::PutObject { bucket, key: self::key(key), object, conditions })
    }

    pub(super) fn delete(&mut self, bucket: BucketRef, key: &str) -> Mutation {
        let conditions = WriteConditions::default();
        self.mutation(Change::DeleteObject { bucket, key: self::key(key), conditions })
    }

    pub(super) fn copy(&mut self, bucket: BucketRef, from: &str, to: &str) -> Mutation {
        let source = CopySource { bucket, key: key(from), version: None };
        let (headers, website_redirect_location, tags, checksum) = (None, None, None, None);
        let storage_class = StorageClass::Standard;
        let copy = Box::new(NewCopy { source, headers, website_redirect_location, tags, checksum, storage_class });
        self.mutation(Change::CopyObject { bucket, key: key(to), copy, conditions: WriteConditions::default() })
    }

    /// The tag of the current version.
    pub(super) async fn etag_of(&self, key: &str) -> Option<Etag> {
        let bucket = BucketPath { tenant: TENANT, name: BucketName::new(BUCKET).unwrap() };
        match self.ask(Query::Object { bucket, key: self::key(key), read_from: None }).await {
            Ok(Answer::Object(found)) => Some(found.version.etag),
            Err(MetadataError::Refused(anvil_node::metadata::Refusal::NoSuchKey)) => None,
            other => panic!("an object is not {other:?}"),
        }
    }
}

pub(super) fn key(key: &str) -> Key {
    Key::new(key.as_bytes().to_vec()).unwrap()
}

/// Every blob is held as often as its row says, and is on the garbage list, once, when nothing holds it. Gives how many are
/// live and how many are garbage.
pub(super) async fn audit(server: &Server, database: &str, bucket: BucketId) -> (usize, usize) {
    let wrong = sql(
        server,
        database,
        &format!(
            "WITH held AS (
                SELECT blob, count(*) AS holders FROM (
                    SELECT blob FROM heads WHERE bucket = {bucket} AND blob IS NOT NULL
                    UNION ALL SELECT blob FROM segments WHERE blob IS NOT NULL
                    UNION ALL SELECT blob FROM parts WHERE blob IS NOT NULL) AS holders GROUP BY blob),
            listed AS (SELECT blob, count(*) AS times FROM garbage GROUP BY blob)
            SELECT coalesce(b.blob, held.blob, listed.blob)::text FROM blobs AS b
            FULL JOIN held ON held.blob = b.blob FULL JOIN listed ON listed.blob = coalesce(b.blob, held.blob)
            WHERE b.blob IS NULL OR b.refs <> coalesce(holders, 0) OR coalesce(times, 0) <> CASE WHEN b.refs = 0 THEN 1 ELSE 0 END",
            bucket = bucket.0
        ),
    )
    .await;
    assert_eq!(wrong, Vec::<String>::new(), "blobs that are not held as their rows say");
    let count = async |table: &str| {
        sql(server, database, &format!("SELECT count(*) FROM {table}")).await.remove(0).parse().unwrap()
    };
    (count("blobs WHERE state = 1").await, count("garbage").await)
}
