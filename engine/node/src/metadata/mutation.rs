//! Changes of the metadata as values: decided under a lock, written to the log, decided again at replay.
//!
//! The embedded log holds these in the wire form of `postcard` (docs/FORMAT.md): fields and variants are never
//! reordered or removed, new variants go to the end.

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers, Key, WriteConditions};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use serde::{Deserialize, Serialize};

use super::rows::StorageClass;
use super::taken::TakenRow;
use super::usage::Quota;
use crate::multipart::PartName;

/// One attempt to change something. Sent again with the same id it changes nothing and answers as before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation {
    /// Names the attempt.
    pub write: WriteId,
    /// What to change.
    pub change: Change,
}

/// A bucket as a look-up found it: in the caller's hands because an authorisation said so. The change is refused when
/// the bucket is gone or its configuration is no longer the one that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRef {
    /// Never reused, so it also says which life of the name is meant.
    pub id: BucketId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The configuration that the request was decided under.
    pub generation: Generation,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Begins the next life of a node and closes all earlier ones.
    OpenWriter {
        /// Which node.
        node: NodeId,
    },
    /// Makes a bucket.
    CreateBucket {
        /// Whose.
        tenant: TenantId,
        /// Its name, unique among live buckets.
        name: BucketName,
        /// Where.
        region: String,
    },
    /// Deletes a bucket that holds nothing: no version, no delete marker, no upload under way.
    DeleteBucket {
        /// Which.
        bucket: BucketRef,
    },
    /// Makes a version the current one of its key.
    PutObject {
        /// Into which bucket.
        bucket: BucketRef,
        /// Under which key.
        key: Key,
        /// What.
        object: Box<NewObject>,
        /// What must hold.
        conditions: WriteConditions,
    },
    /// Deletes a key. A key that is not there is deleted too.
    DeleteObject {
        /// From which bucket.
        bucket: BucketRef,
        /// Which key.
        key: Key,
        /// What must hold.
        conditions: WriteConditions,
    },
    /// Begins an upload.
    CreateUpload {
        /// Into which bucket.
        bucket: BucketRef,
        /// Under which key.
        key: Key,
        /// Its id, drawn by the caller.
        upload: UploadId,
        /// What is said of the object to be.
        about: Box<NewUpload>,
    },
    /// Stores a part, or replaces the one of that number.
    PutPart {
        /// The upload's bucket.
        bucket: BucketRef,
        /// The upload's key.
        key: Key,
        /// The upload.
        upload: UploadId,
        /// The part.
        part: Box<NewPart>,
    },
    /// Makes the object of the listed parts.
    CompleteUpload {
        /// The upload's bucket.
        bucket: BucketRef,
        /// The upload's key.
        key: Key,
        /// The upload.
        upload: UploadId,
        /// In ascending order of numbers.
        parts: Vec<PartName>,
        /// What the client says that the object's checksum is.
        checksum: Option<Checksum>,
        /// What must hold of the key.
        conditions: WriteConditions,
    },
    /// Ends an upload without an object.
    AbortUpload {
        /// The upload's bucket.
        bucket: BucketRef,
        /// The upload's key.
        key: Key,
        /// The upload.
        upload: UploadId,
    },
    /// Claims blobs that no row references and whose writer is closed, as dead: from here on no commit can reference
    /// them, and they are on the garbage list.
    ClaimOrphans {
        /// Which; those that have a row already are left alone.
        blobs: Vec<BlobClaim>,
    },
    /// Says that the bytes of garbage are gone. Drops the blobs' rows and their lines of the list.
    ForgetGarbage {
        /// Lines of the garbage list.
        blobs: Vec<(Generation, BlobId)>,
    },
    /// Makes a version that shares the bytes of another one the current one of its key.
    CopyObject {
        /// Into which bucket.
        bucket: BucketRef,
        /// Under which key.
        key: Key,
        /// What.
        copy: Box<NewCopy>,
        /// What must hold of the key.
        conditions: WriteConditions,
    },
    /// Stores a part that shares the bytes of a version, or replaces the one of that number.
    CopyPart {
        /// The upload's bucket.
        bucket: BucketRef,
        /// The upload's key.
        key: Key,
        /// The upload.
        upload: UploadId,
        /// The part; brings no blob.
        part: Box<NewPart>,
        /// Whose bytes.
        source: CopySource,
        /// Where in the source the part begins.
        start: u64,
    },
    /// Says that a shard lies elsewhere now, or nowhere. What `to` names was durable before this was sent.
    MoveShard {
        /// Of which blob; refused when nothing references it any more.
        blob: BlobId,
        /// Which: 0 to k+m-1.
        shard: u8,
        /// Where it was when the move was decided; refused when it is elsewhere.
        from: DiskId,
        /// Where it is, on no disk of another shard; [`DiskId::NONE`] when it is to be repaired.
        to: DiskId,
    },
    /// Changes the configuration of a bucket.
    UpdateBucket {
        /// Which.
        bucket: BucketRef,
        /// Of new versions whose request names none.
        storage_class: StorageClass,
    },
    /// Says that a blob is spread otherwise now. What `to` names was durable before this was sent.
    SpreadAnew {
        /// Which; refused when nothing references it any more.
        blob: BlobId,
        /// How it was spread when this was decided; refused when it is not so any more.
        from: BlobSpread,
        /// How it is: wider, on disks that differ, one for each shard.
        to: BlobSpread,
    },
    /// Closes a bucket, whatever it holds: no client sees it any more. Whoever names it as the outcome does may delete its
    /// objects, abort its uploads and at last delete the bucket, and nothing else.
    CloseBucket {
        /// Which.
        bucket: BucketRef,
    },
    /// Stores a part behind those that are there: a slice of a resumable write. Refused where a part of this number is
    /// there already or the one before it is not, so that of two writers one goes on, and what was acknowledged stays.
    AppendPart {
        /// The upload's bucket.
        bucket: BucketRef,
        /// The upload's key.
        key: Key,
        /// The upload.
        upload: UploadId,
        /// The part.
        part: Box<NewPart>,
    },
    /// Makes the object of all parts of an upload, which have the numbers from 1 on and may be of any size.
    CompleteWrite {
        /// The upload's bucket.
        bucket: BucketRef,
        /// The upload's key.
        key: Key,
        /// The upload.
        upload: UploadId,
        /// Bytes of all parts; refused when they are not as many.
        size: u64,
        /// Of all bytes, by the upload's algorithm.
        checksum: Checksum,
        /// What must hold of the key.
        conditions: WriteConditions,
    },
    /// Says how much a bucket may hold. Its configuration stays the one that requests were decided under: a quota is read
    /// where a change is decided, so nobody has to ask again.
    SetBucketQuota {
        /// Which.
        bucket: BucketRef,
        /// How much.
        quota: Quota,
    },
    /// Says how much a tenant's buckets may hold in this region, all together.
    SetTenantQuota {
        /// Whose.
        tenant: TenantId,
        /// How much.
        quota: Quota,
    },
    /// Puts rows as they are: see [`super::taken`]. Only at the beginning of a history.
    TakeIn {
        /// Which; none of them is there yet.
        rows: Vec<TakenRow>,
    },
    /// Says with which generation a history goes on that began with rows. From here on it takes ordinary changes only.
    BeginAt {
        /// Above all that its rows have and that were ever given where they come from.
        generation: Generation,
    },
    /// Says that a shard is to be repaired: it is not, or not whole, on the disk that its row names. Refused when the blob is
    /// spread otherwise by now, the shard elsewhere, or nothing references it any more.
    LoseShard(LostShard),
}

/// A shard that is not on the disk that its row names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LostShard {
    /// Of which blob.
    pub blob: BlobId,
    /// As it was spread when this was seen. A shard of another spread has the same number, and may be on the same disk.
    pub profile: Profile,
    /// Which: 0 to k+m-1.
    pub shard: u8,
    /// Where it should be.
    pub disk: DiskId,
}

/// How a blob is spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSpread {
    /// In how many shards.
    pub profile: Profile,
    /// As in [`BlobClaim::places`].
    pub places: Vec<DiskId>,
}

/// The version that a copy shares its bytes with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySource {
    /// Its bucket, of the same tenant.
    pub bucket: BucketRef,
    /// Its key.
    pub key: Key,
    /// Its generation, where the request was decided by what it is; otherwise whichever is current.
    pub version: Option<Generation>,
}

/// A copy to be. What is not said is the source's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCopy {
    /// Of what.
    pub source: CopySource,
    /// What the client says of it instead of what it said of the source.
    pub headers: Option<Headers>,
    /// What a copy never takes over from its source; counts where `headers` are the source's.
    pub website_redirect_location: Option<String>,
    /// Tags instead of the source's.
    pub tags: Option<Vec<(String, String)>>,
    /// A checksum of the source's bytes by another algorithm. Only with the source's generation.
    pub checksum: Option<Checksum>,
    /// Under which class.
    pub storage_class: StorageClass,
}

/// A blob that was written and flushed by the time the change is durable, and that no row references yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobClaim {
    /// Which.
    pub blob: BlobId,
    /// How it is spread.
    pub profile: Profile,
    /// Bytes, at least 1.
    pub length: u64,
    /// The disks that hold its shards, in the order of the shards; [`DiskId::NONE`] for one that is to be repaired. None
    /// at all where nothing is known of them. A blob that was written narrower than its class wants, because disks were
    /// missing, has more places than its profile has shards: as many as the class's, all of the others
    /// [`DiskId::NONE`].
    pub places: Vec<DiskId>,
}

/// A version to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewObject {
    /// Opaque.
    pub etag: Etag,
    /// Bytes; the blob's length, or 0 without one.
    pub size: u64,
    /// The client's algorithm, or CRC64NVME.
    pub checksum: Checksum,
    /// Of all bytes.
    pub crc64nvme: u64,
    /// What the client said of it.
    pub headers: Headers,
    /// Tags in the order given.
    pub tags: Vec<(String, String)>,
    /// Under which class.
    pub storage_class: StorageClass,
    /// The bytes; `None` when there are none.
    pub blob: Option<BlobClaim>,
}

/// An upload to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUpload {
    /// What is said of the object to be.
    pub headers: Headers,
    /// Tags of the object to be.
    pub tags: Vec<(String, String)>,
    /// What parts and object are summed with, when the client asked for something.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Class of the object to be.
    pub storage_class: StorageClass,
}

/// A part to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPart {
    /// 1 to `PART_NUMBER_MAX`.
    pub number: u16,
    /// The MD5 of its bytes.
    pub etag: Etag,
    /// Bytes; the blob's length, or 0 without one.
    pub size: u64,
    /// By the upload's algorithm, or CRC64NVME.
    pub checksum: Checksum,
    /// Of its bytes.
    pub crc64nvme: u64,
    /// The bytes; `None` when there are none.
    pub blob: Option<BlobClaim>,
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// This life may commit.
    WriterOpened(Incarnation),
    /// The bucket is there.
    BucketCreated(BucketRef),
    /// The bucket is gone.
    BucketDeleted,
    /// The version is the current one.
    ObjectStored(Written),
    /// The key has no current version.
    ObjectDeleted,
    /// The upload is open.
    UploadCreated,
    /// The part is there.
    PartStored(Written),
    /// The object is there.
    UploadCompleted(Completed),
    /// The upload is gone.
    UploadAborted,
    /// How many orphans were claimed.
    OrphansClaimed(u32),
    /// The lines are gone.
    GarbageForgotten,
    /// The copy is the current version.
    ObjectCopied(Completed),
    /// The shard is where the change said.
    ShardMoved,
    /// The bucket has this configuration.
    BucketUpdated(BucketRef),
    /// The blob is spread as the change said.
    BlobSpread,
    /// The bucket is closed, and named like this from here on.
    BucketClosed(BucketRef),
    /// The quota holds for every change that is decided from here on.
    QuotaSet,
    /// The history began so.
    TakenIn,
}

impl Outcome {
    /// The form in which it is kept beside its write id.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("an outcome has a wire form and memory grows")
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` when it did not write these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

/// What a write was given under the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its place in the order of all changes.
    pub generation: Generation,
    /// Its `Last-Modified`.
    pub last_modified: WallTime,
}

/// An object made of parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// `<md5 of the parts' md5s>-<parts>`.
    pub etag: Etag,
    /// By the upload's algorithm, or CRC64NVME.
    pub checksum: Checksum,
    /// Bytes.
    pub size: u64,
    /// Its generation and time.
    pub written: Written,
}

/// What the metadata gives a change when it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The change's place in the order of all changes.
    pub generation: Generation,
    /// Its time: the clock's, or the last one given when the clock went back.
    pub at: WallTime,
}

impl Mutation {
    /// Where the change belongs in the order of a batch: its bucket and key. Changes with the same target keep the order
    /// in which they came.
    #[must_use]
    pub fn target(&self) -> (u64, &[u8]) {
        match &self.change {
            Change::OpenWriter { .. }
            | Change::ClaimOrphans { .. }
            | Change::ForgetGarbage { .. }
            | Change::MoveShard { .. }
            | Change::SetTenantQuota { .. }
            | Change::TakeIn { .. }
            | Change::BeginAt { .. }
            | Change::LoseShard(_)
            | Change::SpreadAnew { .. } => (0, &[]),
            Change::CreateBucket { name, .. } => (0, name.as_str().as_bytes()),
            Change::DeleteBucket { bucket }
            | Change::UpdateBucket { bucket, .. }
            | Change::SetBucketQuota { bucket, .. }
            | Change::CloseBucket { bucket } => (bucket.id.0, &[]),
            Change::PutObject { bucket, key, .. }
            | Change::DeleteObject { bucket, key, .. }
            | Change::CreateUpload { bucket, key, .. }
            | Change::PutPart { bucket, key, .. }
            | Change::CompleteUpload { bucket, key, .. }
            | Change::AbortUpload { bucket, key, .. }
            | Change::CopyObject { bucket, key, .. }
            | Change::CopyPart { bucket, key, .. }
            | Change::AppendPart { bucket, key, .. }
            | Change::CompleteWrite { bucket, key, .. } => (bucket.id.0, key.as_bytes()),
        }
    }

    /// The blob that this change brings, whose bytes must be durable when the change is.
    #[must_use]
    pub fn claim(&self) -> Option<&BlobClaim> {
        match &self.change {
            Change::PutObject { object, .. } => object.blob.as_ref(),
            Change::PutPart { part, .. } | Change::AppendPart { part, .. } => part.blob.as_ref(),
            _ => None,
        }
    }

    /// [`Self::claim`], to say of it where shards are not.
    pub(super) fn claim_mut(&mut self) -> Option<&mut BlobClaim> {
        match &mut self.change {
            Change::PutObject { object, .. } => object.blob.as_mut(),
            Change::PutPart { part, .. } | Change::AppendPart { part, .. } => part.blob.as_mut(),
            _ => None,
        }
    }

    /// The generation of the change behind this one, which was made at `now`.
    #[must_use]
    pub(super) fn next_generation(&self, now: Generation) -> Generation {
        match self.change {
            Change::TakeIn { .. } => now,
            Change::BeginAt { generation } => generation,
            _ => Generation(now.0 + 1),
        }
    }

    /// Whether its outcome is kept beside its id. Who takes rows in begins anew when an answer is lost.
    pub(super) fn is_remembered(&self) -> bool {
        !matches!(self.change, Change::TakeIn { .. } | Change::BeginAt { .. })
    }

    /// About how many bytes the change takes in a batch.
    #[must_use]
    pub fn weight(&self) -> usize {
        const FIXED: usize = 256;
        const PART: usize = 80;
        let about = match &self.change {
            Change::PutObject { object, .. } => headers_weight(&object.headers) + pairs_weight(&object.tags),
            Change::CreateUpload { about, .. } => headers_weight(&about.headers) + pairs_weight(&about.tags),
            Change::CompleteUpload { parts, .. } => parts.len() * PART,
            Change::ClaimOrphans { blobs } => blobs.len() * PART,
            Change::ForgetGarbage { blobs } => blobs.len() * PART,
            Change::SpreadAnew { from, to, .. } => (from.places.len() + to.places.len()) * size_of::<DiskId>(),
            Change::CopyObject { copy, .. } => {
                let website = copy.website_redirect_location.as_ref().map_or(0, String::len);
                let told = copy.headers.as_ref().map_or(website, headers_weight);
                PART + copy.source.key.as_bytes().len() + told + copy.tags.as_deref().map_or(0, pairs_weight)
            }
            Change::CopyPart { source, .. } => PART + source.key.as_bytes().len(),
            _ => 0,
        };
        FIXED + self.target().1.len() + about
    }
}

fn headers_weight(headers: &Headers) -> usize {
    let Headers {
        content_type,
        cache_control,
        content_disposition,
        content_encoding,
        content_language,
        expires,
        website_redirect_location,
        user,
    } = headers;
    let named = [
        content_type,
        cache_control,
        content_disposition,
        content_encoding,
        content_language,
        expires,
        website_redirect_location,
    ];
    named.into_iter().flatten().map(String::len).sum::<usize>() + pairs_weight(user)
}

fn pairs_weight(pairs: &[(String, String)]) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}
