//! Look-ups: what may be asked of the metadata, and the answers, each made from one consistent view of the rows.

use std::ops::Range;

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, TenantId, UploadId, WriteId};
use anvil_model::limits::{PAGE_KEYS_MAX, PART_NUMBER_MAX};
use anvil_model::object::{BucketName, ChecksumAlgorithm, ChecksumType, Etag, Key};
use anvil_model::time::WallTime;

use super::mutation::{BucketRef, Completed, Outcome};
use super::rows::{
    BlobRow, BucketRow, BucketState, Content, Counters, GarbageRow, Rows, RowsError, SegmentPart, SegmentRow,
    StorageClass, UploadRow, VersionRow,
};
use super::usage::{Quota, Room, Usage, UsageOf};
use super::{Refusal, pages};
use crate::list::{ListObjects, Page};
use crate::multipart::{ListUploads, PartsPage, UploadsPage};

/// A bucket as a caller names it. The look-up decides in the same view whether the caller may use it: `NoSuchBucket`
/// and `AccessDenied` (another tenant's) are decided before anything is said of what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPath {
    /// Who asks.
    pub tenant: TenantId,
    /// The bucket's name.
    pub name: BucketName,
}

/// One look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The current version of a key, and the first page of the segments that a read will want.
    Object {
        /// In which bucket.
        bucket: BucketPath,
        /// Which key.
        key: Key,
        /// Where a read will begin; `None` for those who want no bytes.
        read_from: Option<ReadFrom>,
    },
    /// The next segments of a version that was found. None at all when the version is gone.
    Segments {
        /// Its bucket.
        bucket: BucketId,
        /// Its generation.
        version: Generation,
        /// Which bytes are wanted.
        range: Range<u64>,
    },
    /// The current version of a key, and a page of the parts that it was made of.
    ObjectParts {
        /// In which bucket.
        bucket: BucketPath,
        /// Which key.
        key: Key,
        /// Those above this number.
        after: u16,
        /// At most, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
    /// What a write must know before its body comes.
    Prepare {
        /// Into which bucket.
        bucket: BucketPath,
        /// Under which key.
        key: Key,
    },
    /// A bucket.
    Bucket(BucketPath),
    /// A tenant's buckets by name.
    Buckets {
        /// Whose.
        tenant: TenantId,
        /// Those after this name.
        after: Option<String>,
        /// At most, up to [`BUCKETS_PER_PAGE_MAX`].
        max: usize,
    },
    /// A page of a bucket's keys.
    List {
        /// Which bucket.
        bucket: BucketPath,
        /// Which page.
        list: ListObjects,
    },
    /// An upload under way.
    Upload {
        /// In which bucket.
        bucket: BucketPath,
        /// Under which key.
        key: Key,
        /// Which.
        upload: UploadId,
    },
    /// A page of a bucket's uploads under way.
    Uploads {
        /// Which bucket.
        bucket: BucketPath,
        /// Which page.
        list: ListUploads,
    },
    /// A page of an upload's parts.
    Parts {
        /// In which bucket.
        bucket: BucketPath,
        /// Under which key.
        key: Key,
        /// Which upload.
        upload: UploadId,
        /// Those above this number.
        after: u16,
        /// At most, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
    /// How far a resumable write is: an upload whose parts are appended, under way or completed.
    Progress {
        /// In which bucket.
        bucket: BucketPath,
        /// Under which key.
        key: Key,
        /// Which upload.
        upload: UploadId,
    },
    /// What became of a write.
    Write(WriteId),
    /// Lines of the garbage list.
    Garbage {
        /// Those after this one.
        after: Option<(Generation, BlobId)>,
        /// At most, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
    /// A blob's row.
    Blob(BlobId),
    /// Rows of blobs, by id.
    Blobs {
        /// Those after this one.
        after: Option<BlobId>,
        /// At most, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
    /// Live blobs with a shard on a disk, by id; for [`DiskId::NONE`] those with a shard that is to be repaired.
    BlobsOnDisk {
        /// Which.
        disk: DiskId,
        /// Those after this one.
        after: Option<BlobId>,
        /// At most, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
    /// Where the metadata stands.
    Counters,
    /// A bucket, whoever's it is and also a closed one: for administrators.
    AnyBucket(BucketName),
    /// What a bucket holds and may, whoever's it is and also a closed one.
    BucketUsage(BucketName),
    /// What buckets hold and may, of all tenants and also closed ones, by id.
    BucketUsages {
        /// Those after this one.
        after: Option<BucketId>,
        /// At most, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
    /// What a tenant's buckets hold and may.
    TenantUsage(TenantId),
    /// What a bucket holds, also a closed one: for who empties it.
    Holdings {
        /// Which.
        bucket: BucketId,
        /// From this key on.
        from: Vec<u8>,
        /// At most so many keys and so many uploads, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
    /// Uploads under way that began before a time, by id; not those of closed buckets.
    StaleUploads {
        /// That time.
        before: WallTime,
        /// Those after this one.
        after: Option<UploadId>,
        /// Uploads that are looked at, at most, up to `PAGE_KEYS_MAX`.
        max: usize,
    },
}

/// Where a read will begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// At this byte.
    Start(u64),
    /// So many bytes before the end.
    Last(u64),
    /// With the part of this number.
    Part(u16),
}

/// The answer to the [`Query`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "one per query")]
pub enum Answer {
    Object(Box<FoundObject>),
    Segments(Vec<SegmentRow>),
    ObjectParts(Box<FoundParts>),
    Prepared(Prepared),
    Bucket(BucketRow),
    Buckets(Vec<BucketRow>),
    List(Page),
    Upload(Box<FoundUpload>),
    Uploads(UploadsPage),
    Parts(PartsPage),
    Progress(Box<Progress>),
    Write(Option<Outcome>),
    Garbage(Vec<GarbageRow>),
    Blob(Option<BlobRow>),
    Blobs(Vec<BlobRow>),
    BlobsOnDisk(BlobsOnDisk),
    Counters(Counters),
    AnyBucket(Option<BucketRow>),
    BucketUsage(Option<Box<BucketUsage>>),
    BucketUsages(Vec<BucketUsage>),
    TenantUsage(TenantUsage),
    Holdings(Option<Box<Holdings>>),
    StaleUploads(StaleUploads),
}

/// What a bucket holds, beside its row, which has its quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUsage {
    /// The bucket.
    pub bucket: BucketRow,
    /// What it holds.
    pub usage: Usage,
    /// How much its tenant may hold.
    pub tenant_quota: Quota,
}

/// What a tenant's buckets in this region hold, and may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantUsage {
    /// How much they may hold.
    pub quota: Quota,
    /// What they hold.
    pub usage: Usage,
}

/// A part of what a bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// To be named by the changes.
    pub bucket: BucketRef,
    /// Whether it is closed.
    pub closed: bool,
    /// Keys with a current version, in order.
    pub keys: Vec<Key>,
    /// Uploads under way, by key and id.
    pub uploads: Vec<(Key, UploadId)>,
    /// From which key on there may be more than these; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// A page of uploads that are under way for too long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaleUploads {
    /// By id. May be none although more follow.
    pub uploads: Vec<(BucketRef, Key, UploadId)>,
    /// Behind which the next page begins; `None` at the end.
    pub next: Option<UploadId>,
}

/// A page of the blobs on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobsOnDisk {
    /// By id. May be none although more follow: a look-up reads only so many rows.
    pub rows: Vec<BlobRow>,
    /// Behind which the next page begins; `None` at the end.
    pub next: Option<BlobId>,
}

/// A current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundObject {
    /// Its bucket.
    pub bucket: BucketRef,
    /// The version.
    pub version: VersionRow,
    /// Where its content is segments: the first [`SEGMENTS_PER_PAGE`] that hold what the read will want.
    pub segments: Vec<SegmentRow>,
    /// Where a read was to begin with a part of this version: that part.
    pub part: Option<FoundPart>,
}

/// A part of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPart {
    /// Where in the version it begins.
    pub start: u64,
    /// What is kept of it.
    pub part: SegmentPart,
}

/// A page of a version's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundParts {
    /// The version.
    pub version: VersionRow,
    /// In order of their numbers; none for a version that was not uploaded in parts.
    pub parts: Vec<SegmentPart>,
    /// True when there are more behind the last one.
    pub more: bool,
}

/// What a write knows before its body comes. The conditions are checked again under the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// To be named by the commit.
    pub bucket: BucketRef,
    /// Tag and generation of the current version, when there is one.
    pub current: Option<(Etag, Generation)>,
    /// The bucket's, for a request that names none.
    pub storage_class: StorageClass,
    /// What the quotas leave for it.
    pub room: Room,
}

/// How far a resumable write is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What its parts are summed with, when its client asked for something.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Its parts; none any more when it was completed.
    pub parts: u16,
    /// Bytes of them, all durable.
    pub size: u64,
    /// Whether they have the numbers from 1 on, so that another one can be appended.
    pub is_in_order: bool,
    /// What it came to, for as long as a repeat is answered.
    pub completed: Option<Completed>,
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUpload {
    /// To be named by the commit.
    pub bucket: BucketRef,
    /// The upload.
    pub upload: UploadRow,
    /// What the quotas leave for a part that replaces none.
    pub room: Room,
}

/// Segments of one answer, at most. At the least part size they hold 320 MiB.
pub const SEGMENTS_PER_PAGE: usize = 64;
/// Rows that one look-up of the blobs on a disk reads, at most: some milliseconds of a reader.
const SCANNED_ROWS_MAX: usize = 4096;
/// Buckets of one answer, at most (AWS, ListBuckets, `max-buckets`).
pub const BUCKETS_PER_PAGE_MAX: usize = 10_000;

/// Answers a query from one view of the rows.
///
/// # Errors
/// When the rows cannot be had.
pub fn look_up(rows: &impl Rows, query: &Query) -> Result<Result<Answer, Refusal>, RowsError> {
    match answer(rows, query) {
        Ok(answer) => Ok(Ok(answer)),
        Err(No::Refused(refusal)) => Ok(Err(refusal)),
        Err(No::Rows(error)) => Err(error),
    }
}

/// Why there is no answer.
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

fn answer(rows: &impl Rows, query: &Query) -> Result<Answer, No> {
    Ok(match query {
        Query::Object { bucket, key, read_from } => Answer::Object(Box::new(object(rows, bucket, key, *read_from)?)),
        Query::Segments { bucket, version, range } => {
            Answer::Segments(rows.segments(*bucket, *version, range.clone(), SEGMENTS_PER_PAGE)?)
        }
        Query::ObjectParts { bucket, key, after, max } => {
            Answer::ObjectParts(Box::new(object_parts(rows, bucket, key, *after, (*max).min(PAGE_KEYS_MAX))?))
        }
        Query::Prepare { bucket, key } => {
            let bucket = usable(rows, bucket)?;
            let current = rows.head(bucket.id, key.as_bytes())?.filter(|version| !version.delete_marker);
            Answer::Prepared(Prepared {
                bucket: reference(&bucket),
                room: Room::of(rows, &bucket, Usage::of_version(current.as_ref()))?,
                current: current.map(|version| (version.etag, version.generation)),
                storage_class: bucket.storage_class,
            })
        }
        Query::Bucket(bucket) => Answer::Bucket(usable(rows, bucket)?),
        Query::Buckets { tenant, after, max } => {
            let max = (*max).min(BUCKETS_PER_PAGE_MAX);
            Answer::Buckets(active_buckets(rows, *tenant, after.as_deref().unwrap_or(""), max)?)
        }
        Query::List { bucket, list } => Answer::List(pages::objects(rows, usable(rows, bucket)?.id, list)?),
        Query::Upload { bucket, key, upload: id } => {
            let bucket = usable(rows, bucket)?;
            let upload = upload(rows, &bucket, key, *id)?;
            let room = Room::of(rows, &bucket, Usage::NONE)?;
            Answer::Upload(Box::new(FoundUpload { bucket: reference(&bucket), upload, room }))
        }
        Query::Uploads { bucket, list } => Answer::Uploads(pages::uploads(rows, usable(rows, bucket)?.id, list)?),
        Query::Parts { bucket, key, upload: id, after, max } => {
            let upload = upload(rows, &usable(rows, bucket)?, key, *id)?;
            Answer::Parts(pages::parts(rows, &upload, *after, (*max).min(PAGE_KEYS_MAX))?)
        }
        Query::Progress { bucket, key, upload } => Answer::Progress(Box::new(progress(rows, bucket, key, *upload)?)),
        Query::Write(write) => Answer::Write(rows.write(*write)?.map(|row| row.outcome)),
        Query::Garbage { after, max } => Answer::Garbage(rows.garbage(*after, (*max).min(PAGE_KEYS_MAX))?),
        Query::Blob(blob) => Answer::Blob(rows.blob(*blob)?),
        Query::Blobs { after, max } => Answer::Blobs(rows.blobs(*after, (*max).min(PAGE_KEYS_MAX))?),
        Query::BlobsOnDisk { disk, after, max } => {
            Answer::BlobsOnDisk(blobs_on_disk(rows, *disk, *after, (*max).clamp(1, PAGE_KEYS_MAX))?)
        }
        Query::Counters => Answer::Counters(rows.counters()?),
        Query::AnyBucket(name) => Answer::AnyBucket(rows.bucket_named(name)?),
        Query::BucketUsage(name) => {
            let found = rows.bucket_named(name)?.map(|bucket| bucket_usage(rows, bucket));
            Answer::BucketUsage(found.transpose()?.map(Box::new))
        }
        Query::BucketUsages { after, max } => {
            let buckets = rows.buckets_by_id(*after, (*max).clamp(1, PAGE_KEYS_MAX))?;
            // All are asked for before one that is missing ends it: where rows are loaded, they are loaded together.
            let found: Vec<_> = buckets.into_iter().map(|bucket| bucket_usage(rows, bucket)).collect();
            Answer::BucketUsages(found.into_iter().collect::<Result<_, _>>()?)
        }
        Query::TenantUsage(tenant) => {
            let (quota, usage) = (rows.tenant_quota(*tenant), rows.usage(UsageOf::Tenant(*tenant)));
            Answer::TenantUsage(TenantUsage { quota: quota?, usage: usage? })
        }
        Query::Holdings { bucket, from, max } => {
            Answer::Holdings(holdings(rows, *bucket, from, (*max).clamp(1, PAGE_KEYS_MAX))?.map(Box::new))
        }
        Query::StaleUploads { before, after, max } => {
            Answer::StaleUploads(stale_uploads(rows, *before, *after, (*max).clamp(1, PAGE_KEYS_MAX))?)
        }
    })
}

fn bucket_usage(rows: &impl Rows, bucket: BucketRow) -> Result<BucketUsage, RowsError> {
    let (usage, tenant_quota) = (rows.usage(UsageOf::Bucket(bucket.id)), rows.tenant_quota(bucket.tenant));
    Ok(BucketUsage { usage: usage?, tenant_quota: tenant_quota?, bucket })
}

fn active_buckets(rows: &impl Rows, tenant: TenantId, after: &str, max: usize) -> Result<Vec<BucketRow>, RowsError> {
    let (mut active, mut after) = (Vec::new(), after.to_owned());
    while active.len() < max {
        let page = rows.buckets(tenant, &after, max)?;
        let is_last = page.len() < max;
        if let Some(last) = page.last() {
            last.name.as_str().clone_into(&mut after);
        }
        active.extend(page.into_iter().filter(|bucket| bucket.state == BucketState::Active));
        if is_last {
            break;
        }
    }
    active.truncate(max);
    Ok(active)
}

fn holdings(rows: &impl Rows, bucket: BucketId, from: &[u8], max: usize) -> Result<Option<Holdings>, RowsError> {
    let Some(row) = rows.bucket(bucket)? else { return Ok(None) };
    let heads = rows.heads(bucket, from, None, max);
    let uploads = rows.open_uploads(bucket, (from, UploadId(0)), None, max);
    let (heads, uploads) = (heads?, uploads?);
    let more_heads = heads.last().filter(|_| heads.len() == max).map(|head| head.key.clone());
    let more_uploads = uploads.last().filter(|_| uploads.len() == max).map(|upload| upload.key.clone());
    let next = [more_heads, more_uploads].into_iter().flatten().min();
    let keys = heads.into_iter().map(|head| readable(head.key)).collect::<Result<_, _>>()?;
    let uploads = uploads.into_iter().map(|upload| Ok((readable(upload.key)?, upload.upload)));
    Ok(Some(Holdings {
        bucket: reference(&row),
        closed: row.state == BucketState::Closed,
        keys,
        uploads: uploads.collect::<Result<_, RowsError>>()?,
        next,
    }))
}

/// A list by age would cost every upload a row, for a question that is asked now and then about what is rare.
fn stale_uploads(
    rows: &impl Rows,
    before: WallTime,
    after: Option<UploadId>,
    max: usize,
) -> Result<StaleUploads, RowsError> {
    let scanned = rows.uploads(after, max)?;
    let next = scanned.last().map(|row| row.upload).filter(|_| scanned.len() == max);
    let stale: Vec<UploadRow> =
        scanned.into_iter().filter(|row| row.completed.is_none() && row.initiated_at < before).collect();
    // All are asked for before the first error counts, so that rows which are loaded on demand are loaded at once.
    let buckets: Vec<_> = stale.iter().map(|row| rows.bucket(row.bucket)).collect();
    let mut uploads = Vec::with_capacity(stale.len());
    for (row, bucket) in stale.into_iter().zip(buckets) {
        if let Some(bucket) = bucket?.filter(|bucket| bucket.state == BucketState::Active) {
            uploads.push((reference(&bucket), readable(row.key)?, row.upload));
        }
    }
    Ok(StaleUploads { uploads, next })
}

fn readable(key: Vec<u8>) -> Result<Key, RowsError> {
    Key::new(key).map_err(|_| RowsError::Inconsistent("a key is not one".to_owned()))
}

/// A list by disk would cost every write a row per shard, for a question that is asked when a disk is lost: then most
/// blobs of a node have a shard there, and reading all of them costs a small part of what their repair does. Debt is
/// asked for all the time and is rare, so that it has an index.
fn blobs_on_disk(rows: &impl Rows, disk: DiskId, after: Option<BlobId>, max: usize) -> Result<BlobsOnDisk, RowsError> {
    if disk == DiskId::NONE {
        let rows = rows.blobs_in_debt(after, max)?;
        let next = rows.last().map(|row| row.blob).filter(|_| rows.len() == max);
        return Ok(BlobsOnDisk { rows, next });
    }
    let scanned = rows.blobs(after, SCANNED_ROWS_MAX)?;
    let end = scanned.last().map(|row| row.blob).filter(|_| scanned.len() == SCANNED_ROWS_MAX);
    let mut rows: Vec<_> = scanned.into_iter().filter(|row| row.needs_repair_of(disk)).take(max + 1).collect();
    if rows.len() <= max {
        return Ok(BlobsOnDisk { rows, next: end });
    }
    rows.truncate(max);
    let next = rows.last().map(|row| row.blob);
    Ok(BlobsOnDisk { rows, next })
}

fn object(rows: &impl Rows, bucket: &BucketPath, key: &Key, read_from: Option<ReadFrom>) -> Result<FoundObject, No> {
    let bucket = usable(rows, bucket)?;
    let version = current(rows, &bucket, key)?;
    let part = match read_from {
        Some(ReadFrom::Part(number)) => part(rows, &bucket, &version, number)?,
        _ => None,
    };
    let start = match read_from {
        Some(ReadFrom::Start(start)) => Some(start),
        Some(ReadFrom::Last(length)) => Some(version.size.saturating_sub(length)),
        Some(ReadFrom::Part(_)) => part.as_ref().map(|part| part.start),
        None => None,
    };
    let segments = match (version.content, start) {
        (Content::Segments, Some(start)) if start < version.size => {
            rows.segments(bucket.id, version.generation, start..version.size, SEGMENTS_PER_PAGE)?
        }
        _ => Vec::new(),
    };
    Ok(FoundObject { bucket: reference(&bucket), version, segments, part })
}

fn object_parts(rows: &impl Rows, bucket: &BucketPath, key: &Key, after: u16, max: usize) -> Result<FoundParts, No> {
    let bucket = usable(rows, bucket)?;
    let version = current(rows, &bucket, key)?;
    let mut begun = match (version.content, max) {
        (Content::Segments, 1..) => rows.segments_of_parts(bucket.id, version.generation, after, max + 1)?,
        _ => Vec::new(),
    };
    let more = begun.len() > max;
    begun.truncate(max);
    let parts = begun.into_iter().filter_map(|segment| segment.part).collect();
    Ok(FoundParts { version, parts, more })
}

fn current(rows: &impl Rows, bucket: &BucketRow, key: &Key) -> Result<VersionRow, No> {
    let version = rows.head(bucket.id, key.as_bytes())?.filter(|version| !version.delete_marker);
    Ok(version.ok_or(Refusal::NoSuchKey)?)
}

fn part(
    rows: &impl Rows,
    bucket: &BucketRow,
    version: &VersionRow,
    number: u16,
) -> Result<Option<FoundPart>, RowsError> {
    if version.content != Content::Segments {
        return Ok(None);
    }
    let from = rows.segments_of_parts(bucket.id, version.generation, number.saturating_sub(1), 1)?;
    let part =
        from.into_iter().next().and_then(|SegmentRow { start, part, .. }| Some(FoundPart { start, part: part? }));
    Ok(part.filter(|found| found.part.number == number))
}

/// The bucket of that name, if the caller may use it. Never answered from anything but its row.
fn usable(rows: &impl Rows, path: &BucketPath) -> Result<BucketRow, No> {
    let bucket = rows.bucket_named(&path.name)?.filter(|bucket| bucket.state == BucketState::Active);
    let bucket = bucket.ok_or(Refusal::NoSuchBucket)?;
    if bucket.tenant == path.tenant { Ok(bucket) } else { Err(Refusal::AccessDenied.into()) }
}

fn reference(bucket: &BucketRow) -> BucketRef {
    BucketRef { id: bucket.id, tenant: bucket.tenant, generation: bucket.generation }
}

fn upload(rows: &impl Rows, bucket: &BucketRow, key: &Key, upload: UploadId) -> Result<UploadRow, No> {
    let row = rows
        .upload(upload)?
        .filter(|row| row.bucket == bucket.id && row.key == key.as_bytes() && row.completed.is_none());
    Ok(row.ok_or(Refusal::NoSuchUpload(upload))?)
}

fn progress(rows: &impl Rows, bucket: &BucketPath, key: &Key, upload: UploadId) -> Result<Progress, No> {
    let bucket = usable(rows, bucket)?;
    let row = rows.upload(upload)?.filter(|row| row.bucket == bucket.id && row.key == key.as_bytes());
    let row = row.ok_or(Refusal::NoSuchUpload(upload))?;
    if let Some(completed) = row.completed.map(|done| done.result) {
        let size = completed.size;
        return Ok(Progress { checksum: row.checksum, parts: 0, size, is_in_order: true, completed: Some(completed) });
    }
    let parts = rows.parts(upload, 0, usize::from(PART_NUMBER_MAX))?;
    Ok(Progress {
        checksum: row.checksum,
        parts: u16::try_from(parts.len()).expect("as many as part numbers, at most"),
        size: parts.iter().map(|part| part.size).sum(),
        is_in_order: parts.iter().zip(1..).all(|(part, number)| part.number == number),
        completed: None,
    })
}
