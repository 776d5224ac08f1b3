//! What the metadata keeps, as typed rows, and what a decision asks of whoever keeps them.
//!
//! The rows are the schema of every implementation: SQLite and PostgreSQL have these columns, the simulator has these
//! structs in maps, and the log of a node that was moved has them in the wire form of `postcard`: there a field that is added
//! needs a row of another name in [`super::taken`]. Columns that no operation of today sets (versions, retention, legal hold, envelopes, tags) are
//! here from the first migration, because adding one later would rewrite a table of 10^9 rows.

use std::ops::Range;

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use serde::{Deserialize, Serialize};

use super::mutation::{Completed, Outcome};
use super::usage::{Quota, Usage, UsageOf};
use crate::classes::ClassName;

/// A bucket. Its id is never reused; its name is unique among the buckets that are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRow {
    /// The generation that its creation was given: unique, never reused.
    pub id: BucketId,
    /// As created.
    pub name: BucketName,
    /// Whose.
    pub tenant: TenantId,
    /// Where.
    pub region: String,
    /// Whether objects may be written.
    pub state: BucketState,
    /// Of its configuration: a mutation that was decided under another one is refused.
    pub generation: Generation,
    /// When it was made.
    pub created_at: WallTime,
    /// Whether it keeps old versions.
    pub versioning: Versioning,
    /// Whose the objects are.
    pub ownership: Ownership,
    /// What public access is refused whatever a policy says.
    pub public_access_block: PublicAccessBlock,
    /// Set when object lock was enabled at creation: what a new version is protected by.
    pub object_lock: Option<LockDefault>,
    /// What a new version is encrypted with, when the request does not say.
    pub encryption: Option<Vec<u8>>,
    /// Of a new version, when the request does not say.
    pub storage_class: StorageClass,
    /// How much it may hold.
    pub quota: Quota,
}

/// Whether a bucket takes reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketState {
    /// Takes reads and writes.
    Active,
    /// No client sees it any more. What it holds is being deleted; until then its name is taken.
    Closed,
}

/// Versioning state of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// Never enabled: every version is the null version.
    Off,
    /// Every write makes a version with an id of its own.
    Enabled,
    /// Was enabled: writes replace the null version, older versions stay.
    Suspended,
}

/// `ObjectOwnership` of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ownership {
    /// ACLs are off; the bucket's owner owns everything.
    BucketOwnerEnforced,
    /// The writer owns what it writes unless it grants the bucket's owner full control.
    BucketOwnerPreferred,
    /// The writer owns what it writes.
    ObjectWriter,
}

/// `PublicAccessBlockConfiguration` of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as S3 names them")]
pub struct PublicAccessBlock {
    pub block_public_acls: bool,
    pub ignore_public_acls: bool,
    pub block_public_policy: bool,
    pub restrict_public_buckets: bool,
}

impl PublicAccessBlock {
    /// All four, as a new bucket has them (AWS, since 2023-04).
    pub const ALL: Self = Self {
        block_public_acls: true,
        ignore_public_acls: true,
        block_public_policy: true,
        restrict_public_buckets: true,
    };
}

/// What protects a new version in a bucket with object lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockDefault {
    /// How strictly, when there is a default retention.
    pub mode: Option<RetentionMode>,
    /// For how long.
    pub days: u32,
}

/// How strictly a version is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionMode {
    /// Those with a special permission may delete it.
    Governance,
    /// Nobody may delete it.
    Compliance,
}

/// Until when a version is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How strictly.
    pub mode: RetentionMode,
    /// Until then.
    pub until: WallTime,
}

/// Storage class of S3; names a profile, see [`Classes`](crate::classes::Classes).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StorageClass {
    /// `STANDARD`.
    #[default]
    Standard,
    /// One that the operator named.
    Named(ClassName),
}

/// One version of a key. The current one lies inline in the key's head row, so that a GET is one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// Given under the lock of the head row; names the version within its bucket.
    pub generation: Generation,
    /// The write that made it.
    pub write: WriteId,
    /// The null version, of which a key has at most one.
    pub null: bool,
    /// Says that the key was deleted here; has no content.
    pub delete_marker: bool,
    /// Whose.
    pub owner: TenantId,
    /// Opaque.
    pub etag: Etag,
    /// Bytes.
    pub size: u64,
    /// The client's algorithm, or CRC64NVME.
    pub checksum: Checksum,
    /// Of all bytes, whatever the client sent.
    pub crc64nvme: u64,
    /// What the client said of it.
    pub headers: Headers,
    /// Tags in the order given.
    pub tags: Vec<(String, String)>,
    /// Given with the generation; only grows.
    pub last_modified: WallTime,
    /// Parts, when it was uploaded in parts.
    pub parts: Option<u16>,
    /// Where its bytes are.
    pub content: Content,
    /// Under which class.
    pub storage_class: StorageClass,
    /// How it is encrypted: sealed, opaque here.
    pub envelope: Option<Vec<u8>>,
    /// Not to be deleted before.
    pub retention: Option<Retention>,
    /// Not to be deleted while true.
    pub legal_hold: bool,
}

/// Where the bytes of a version are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// There are none.
    Empty,
    /// In one piece.
    Single(Slice),
    /// In the [`SegmentRow`]s of this version.
    Segments,
}

/// A range of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Of which blob.
    pub blob: BlobId,
    /// Where in the blob it begins.
    pub offset: u64,
    /// Bytes, at least 1.
    pub length: u64,
}

/// One piece of a version whose content is [`Content::Segments`], in order of `start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRow {
    /// Where in the version it begins. A last part without bytes begins at the version's size.
    pub start: u64,
    /// The bytes; `None` for a part without bytes.
    pub slice: Option<Slice>,
    /// The part that begins here, kept for requests by part number.
    pub part: Option<SegmentPart>,
}

/// What is kept of a part after completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentPart {
    /// As uploaded; numbers may have gaps.
    pub number: u16,
    /// Bytes.
    pub size: u64,
    /// Its tag.
    pub etag: Etag,
    /// Its checksum.
    pub checksum: Checksum,
}

/// What lists show of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRow {
    /// The key.
    pub key: Vec<u8>,
    /// As in [`VersionRow`].
    pub etag: Etag,
    /// As in [`VersionRow`].
    pub checksum: Checksum,
    /// As in [`VersionRow`].
    pub size: u64,
    /// As in [`VersionRow`].
    pub last_modified: WallTime,
    /// As in [`VersionRow`].
    pub storage_class: StorageClass,
}

/// A blob that a version or part references, or did. A dead row keeps its id from being claimed until its bytes are
/// gone, which takes longer than a commit may wait to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// Its id, unique.
    pub blob: BlobId,
    /// How it is spread.
    pub profile: Profile,
    /// Bytes.
    pub length: u64,
    /// The disks that hold its shards, in the order of the shards; [`DiskId::NONE`] for one that is to be repaired. More than
    /// its profile has shards where it is [narrow](Self::is_narrow).
    pub places: Vec<DiskId>,
    /// Slices of it that versions and parts hold; 0 exactly when it is dead.
    pub references: u32,
    /// Whether it may be read.
    pub state: BlobState,
    /// The key that it is encrypted with: sealed, opaque here.
    pub envelope: Option<Vec<u8>>,
}

/// Whether a blob is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobState {
    /// Something references it.
    Live,
    /// Nothing does or ever will; it is on the garbage list.
    Dead,
}

/// A blob that became garbage, listed by the transaction that made it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageRow {
    /// Of the mutation that dropped the last reference; orders the list.
    pub generation: Generation,
    /// Which.
    pub blob: BlobId,
    /// When.
    pub since: WallTime,
}

/// A multipart upload: under way, or completed and kept so that a repeat gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRow {
    /// Its id.
    pub upload: UploadId,
    /// Into which bucket.
    pub bucket: BucketId,
    /// Under which key.
    pub key: Vec<u8>,
    /// Whose the object will be.
    pub owner: TenantId,
    /// What is said of the object to be.
    pub headers: Headers,
    /// Tags of the object to be.
    pub tags: Vec<(String, String)>,
    /// What parts and object are summed with, when the client asked for something.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Class of the object to be.
    pub storage_class: StorageClass,
    /// As in [`VersionRow`].
    pub envelope: Option<Vec<u8>>,
    /// When it began.
    pub initiated_at: WallTime,
    /// Set when it was completed.
    pub completed: Option<CompletedUpload>,
}

/// What a completed upload answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedUpload {
    /// MD5 over the list of parts that it was completed with.
    pub list: [u8; 16],
    /// The answer.
    pub result: Completed,
}

/// A part of an upload under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// 1 to `PART_NUMBER_MAX`.
    pub number: u16,
    /// The write that made it.
    pub write: WriteId,
    /// Bytes.
    pub size: u64,
    /// Its tag.
    pub etag: Etag,
    /// By the upload's algorithm, or CRC64NVME.
    pub checksum: Checksum,
    /// Of its bytes.
    pub crc64nvme: u64,
    /// When it was written.
    pub last_modified: WallTime,
    /// Its bytes in order, at most [`SLICES_PER_PART_MAX`] pieces: none where it has no byte, several only in a copy.
    pub slices: Vec<Slice>,
    /// As in [`VersionRow`].
    pub envelope: Option<Vec<u8>>,
}

/// Slices of one part, at most. A part of 5 GiB that is copied from parts of the least size has 1,025.
pub const SLICES_PER_PART_MAX: usize = 2048;
/// Segments of one version, at most. 10,000 parts that are copied from ranges across two parts each have 20,000; copies of
/// copies of copies could have any number.
pub const SEGMENTS_PER_VERSION_MAX: usize = 32_768;

/// The open life of a node. All its earlier lives are closed: what they wrote and did not commit is orphaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterRow {
    /// Which node.
    pub node: NodeId,
    /// The life that may commit.
    pub incarnation: Incarnation,
    /// Since when.
    pub opened_at: WallTime,
}

/// What became of a write, kept for those who did not hear it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRow {
    /// The generation that the write was given; orders the list.
    pub generation: Generation,
    /// Which write.
    pub write: WriteId,
    /// What was answered.
    pub outcome: Outcome,
}

/// Where the metadata stands. One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Drawn when this metadata began; another one is another history.
    pub lineage: u128,
    /// The last batch of the log that these rows contain; 0 before the first.
    pub batch: u64,
    /// The next generation to give; starts at 1. Each change takes one, so this is the commit counter too.
    pub generation: Generation,
    /// The latest time given; times only grow, whatever the clock does.
    pub at: WallTime,
}

impl BlobRow {
    /// Whether a repair has something to do for it because of this disk: it is needed, and has a shard there.
    #[must_use]
    pub fn needs_repair_of(&self, disk: DiskId) -> bool {
        self.state == BlobState::Live && self.places.contains(&disk)
    }

    /// Whether it was written narrower than its class wants, because disks were missing: it has more places than shards.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.places.len() > self.profile.shards().into()
    }
}

impl Counters {
    /// The generation that the first ordinary change of a new history is given.
    pub const FIRST: Generation = Generation(1);

    /// Where a new history begins.
    #[must_use]
    pub const fn new(lineage: u128) -> Self {
        Self { lineage, batch: 0, generation: Self::FIRST, at: WallTime { unix_ms: 0 } }
    }
}

/// The rows do not answer. Nothing of the transaction may be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// The store of rows failed.
    #[error("the metadata rows cannot be used: {0}")]
    Failed(String),
    /// The rows contradict themselves or the log: a bug, or damage.
    #[error("the metadata rows are inconsistent: {0}")]
    Inconsistent(String),
}

/// Typed rows in one transaction. Reads see the writes before them; a put replaces the row with the same key.
///
/// Scans are bounded by their callers and ordered by the bytes of the key.
#[allow(missing_docs, clippy::missing_errors_doc, reason = "every method fails when the rows cannot be had")]
pub trait Rows {
    /// The counters; present from the beginning.
    fn counters(&self) -> Result<Counters, RowsError>;
    fn put_counters(&mut self, row: &Counters) -> Result<(), RowsError>;

    fn writer(&self, node: NodeId) -> Result<Option<WriterRow>, RowsError>;
    fn put_writer(&mut self, row: &WriterRow) -> Result<(), RowsError>;

    fn write(&self, write: WriteId) -> Result<Option<WriteRow>, RowsError>;
    fn put_write(&mut self, row: &WriteRow) -> Result<(), RowsError>;
    /// Drops the rows of generations below this one.
    fn forget_writes(&mut self, below: Generation) -> Result<(), RowsError>;

    fn bucket(&self, id: BucketId) -> Result<Option<BucketRow>, RowsError>;
    fn bucket_named(&self, name: &BucketName) -> Result<Option<BucketRow>, RowsError>;
    fn put_bucket(&mut self, row: &BucketRow) -> Result<(), RowsError>;
    fn delete_bucket(&mut self, id: BucketId) -> Result<(), RowsError>;
    /// A tenant's buckets by name, those after `after`.
    fn buckets(&self, tenant: TenantId, after: &str, max: usize) -> Result<Vec<BucketRow>, RowsError>;
    /// How many buckets a tenant has.
    fn bucket_count(&self, tenant: TenantId) -> Result<usize, RowsError>;
    /// Buckets of all tenants by id, those after `after`.
    fn buckets_by_id(&self, after: Option<BucketId>, max: usize) -> Result<Vec<BucketRow>, RowsError>;

    /// What is held; nothing where nothing was added.
    fn usage(&self, of: UsageOf) -> Result<Usage, RowsError>;
    /// Adds to what is held. Not seen by [`Self::usage`] in the same transaction where a database adds it up itself.
    fn add_usage(&mut self, of: UsageOf, change: Usage) -> Result<(), RowsError>;
    /// Drops the account of a bucket that is deleted.
    fn delete_usage(&mut self, of: UsageOf) -> Result<(), RowsError>;
    /// How much a tenant may hold in this region.
    fn tenant_quota(&self, tenant: TenantId) -> Result<Quota, RowsError>;
    fn put_tenant_quota(&mut self, tenant: TenantId, quota: &Quota) -> Result<(), RowsError>;

    /// The current version of a key.
    fn head(&self, bucket: BucketId, key: &[u8]) -> Result<Option<VersionRow>, RowsError>;
    fn put_head(&mut self, bucket: BucketId, key: &[u8], row: &VersionRow) -> Result<(), RowsError>;
    fn delete_head(&mut self, bucket: BucketId, key: &[u8]) -> Result<(), RowsError>;
    /// Heads whose current version is not a delete marker, from `from` on and before `until` (`None`: to the end).
    fn heads(
        &self,
        bucket: BucketId,
        from: &[u8],
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<ListedRow>, RowsError>;
    /// Whether the bucket has any head or any older version or delete marker.
    fn has_versions(&self, bucket: BucketId) -> Result<bool, RowsError>;

    /// The segments of a version that hold bytes of `range`, in order: from the last one that begins at or before
    /// `range.start`.
    fn segments(
        &self,
        bucket: BucketId,
        version: Generation,
        range: Range<u64>,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError>;
    /// The segments of a version at which a part with a number above `after` begins, in order.
    fn segments_of_parts(
        &self,
        bucket: BucketId,
        version: Generation,
        after: u16,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError>;
    fn put_segment(&mut self, bucket: BucketId, version: Generation, row: &SegmentRow) -> Result<(), RowsError>;
    /// Drops all segments of a version.
    fn delete_segments(&mut self, bucket: BucketId, version: Generation) -> Result<(), RowsError>;

    fn blob(&self, blob: BlobId) -> Result<Option<BlobRow>, RowsError>;
    fn put_blob(&mut self, row: &BlobRow) -> Result<(), RowsError>;
    fn delete_blob(&mut self, blob: BlobId) -> Result<(), RowsError>;
    /// Blobs by id, after that one.
    fn blobs(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError>;
    /// Live blobs with a shard whose place is [`DiskId::NONE`], by id, after that one. Costs what it finds, not what
    /// there is.
    fn blobs_in_debt(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError>;

    /// Garbage by (generation, blob), after that position.
    fn garbage(&self, after: Option<(Generation, BlobId)>, max: usize) -> Result<Vec<GarbageRow>, RowsError>;
    fn put_garbage(&mut self, row: &GarbageRow) -> Result<(), RowsError>;
    fn delete_garbage(&mut self, generation: Generation, blob: BlobId) -> Result<(), RowsError>;

    fn upload(&self, upload: UploadId) -> Result<Option<UploadRow>, RowsError>;
    fn put_upload(&mut self, row: &UploadRow) -> Result<(), RowsError>;
    fn delete_upload(&mut self, upload: UploadId) -> Result<(), RowsError>;
    /// Uploads under way (not completed) by (key, id), from that position on, before the key `until`.
    fn open_uploads(
        &self,
        bucket: BucketId,
        from: (&[u8], UploadId),
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<UploadRow>, RowsError>;
    /// Uploads by id, also completed ones, after that one.
    fn uploads(&self, after: Option<UploadId>, max: usize) -> Result<Vec<UploadRow>, RowsError>;
    /// Completed uploads whose result was given before that time, oldest first.
    fn uploads_completed_before(&self, before: WallTime, max: usize) -> Result<Vec<UploadId>, RowsError>;

    fn part(&self, upload: UploadId, number: u16) -> Result<Option<PartRow>, RowsError>;
    /// Parts by number, those above `after`.
    fn parts(&self, upload: UploadId, after: u16, max: usize) -> Result<Vec<PartRow>, RowsError>;
    fn put_part(&mut self, upload: UploadId, row: &PartRow) -> Result<(), RowsError>;
    /// Drops all parts of an upload.
    fn delete_parts(&mut self, upload: UploadId) -> Result<(), RowsError>;
}
