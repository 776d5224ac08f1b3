//! Columns to types and back. What a column may hold is said in the migrations.

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::{BucketName, Checksum, ChecksumAlgorithm, ChecksumType, Etag, Headers};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_node::metadata::mutation::{Completed, Written};
use anvil_node::metadata::rows::{
    BlobRow, BlobState, BucketRow, BucketState, CompletedUpload, Content, ListedRow, LockDefault, Ownership, PartRow,
    PublicAccessBlock, Retention, RetentionMode, SegmentPart, SegmentRow, Slice, StorageClass, UploadRow, VersionRow,
    Versioning,
};
use anvil_node::metadata::usage::{Quota, UsageOf};
use rusqlite::types::{FromSql, Type};
use rusqlite::{Error, Result, Row};

/// Columns of [`version`], behind the bucket and the key.
pub(super) const VERSION: &str = "generation, write_id, is_null, delete_marker, owner, etag, size, \
    checksum_algorithm, checksum_of, checksum, crc64nvme, content_type, cache_control, content_disposition, \
    content_encoding, content_language, expires, website_redirect, user_metadata, tags, last_modified_ms, parts, \
    content, blob, blob_offset, blob_length, storage_class, storage_class_name, envelope, retention_mode, \
    retain_until_ms, legal_hold";
/// Columns of [`listed`].
pub(super) const LISTED: &str = "key, etag, checksum_algorithm, checksum_of, checksum, size, last_modified_ms, \
    storage_class, storage_class_name";
/// Columns of [`bucket`].
pub(super) const BUCKET: &str = "id, name, tenant, region, state, generation, created_at_ms, versioning, ownership, \
    public_access_block, lock_enabled, lock_mode, lock_days, encryption, storage_class_name, \
    quota_bytes, quota_objects";
/// Columns of [`segment`], behind the bucket and the version.
pub(super) const SEGMENT: &str = "start, blob, blob_offset, blob_length, part, part_size, part_etag, \
    part_checksum_algorithm, part_checksum_of, part_checksum";
/// Columns of [`blob`].
pub(super) const BLOB: &str = "blob, data_shards, parity_shards, length, places, refs, state, envelope";
/// Columns of [`upload`].
pub(super) const UPLOAD: &str = "upload, bucket, key, owner, content_type, cache_control, content_disposition, \
    content_encoding, content_language, expires, website_redirect, user_metadata, tags, checksum_algorithm, \
    checksum_of, storage_class, storage_class_name, envelope, initiated_at_ms, completed_at_ms, completed_list, result_generation, \
    result_etag, result_size, result_checksum_algorithm, result_checksum_of, result_checksum";
/// Columns of [`part`], behind the upload.
pub(super) const PART: &str = "number, write_id, size, etag, checksum_algorithm, checksum_of, checksum, crc64nvme, \
    last_modified_ms, blob, blob_offset, blob_length, envelope, slices";

/// Reads the columns of a row one after another.
pub(super) struct Columns<'r> {
    row: &'r Row<'r>,
    next: usize,
}

impl<'r> Columns<'r> {
    pub(super) fn new(row: &'r Row<'r>) -> Self {
        Self { row, next: 0 }
    }

    pub(super) fn take<T: FromSql>(&mut self) -> Result<T> {
        let value = self.row.get(self.next)?;
        self.next += 1;
        Ok(value)
    }

    /// A number whose bits are those of the column.
    pub(super) fn number(&mut self) -> Result<u64> {
        self.take::<i64>().map(i64::cast_unsigned)
    }

    pub(super) fn small<T: TryFrom<i64>>(&mut self) -> Result<T> {
        let value: i64 = self.take()?;
        T::try_from(value).map_err(|_| self.wrong("a number out of range"))
    }

    pub(super) fn id(&mut self) -> Result<u128> {
        self.take::<[u8; 16]>().map(u128::from_be_bytes)
    }

    pub(super) fn blob_id(&mut self) -> Result<BlobId> {
        self.take().map(blob_from_bytes)
    }

    pub(super) fn generation(&mut self) -> Result<Generation> {
        self.number().map(Generation)
    }

    pub(super) fn time(&mut self) -> Result<WallTime> {
        self.number().map(|unix_ms| WallTime { unix_ms })
    }

    pub(super) fn quota(&mut self) -> Result<Quota> {
        let mut most = || self.take::<Option<i64>>().map(|most| most.map(i64::cast_unsigned));
        Ok(Quota { bytes: most()?, objects: most()? })
    }

    /// One of a listed set; `known` gives `None` for others.
    fn one_of<T>(&mut self, known: impl Fn(i64) -> Option<T>) -> Result<T> {
        let value = self.take()?;
        known(value).ok_or_else(|| self.wrong("a number that is not of the set"))
    }

    fn optional_one_of<T>(&mut self, known: impl Fn(i64) -> Option<T>) -> Result<Option<T>> {
        match self.take()? {
            None => Ok(None),
            Some(value) => known(value).map(Some).ok_or_else(|| self.wrong("a number that is not of the set")),
        }
    }

    fn pairs(&mut self) -> Result<Vec<(String, String)>> {
        match self.take::<Option<String>>()? {
            None => Ok(Vec::new()),
            Some(json) => serde_json::from_str(&json).map_err(|_| self.wrong("not a list of pairs")),
        }
    }

    fn headers(&mut self) -> Result<Headers> {
        Ok(Headers {
            content_type: self.take()?,
            cache_control: self.take()?,
            content_disposition: self.take()?,
            content_encoding: self.take()?,
            content_language: self.take()?,
            expires: self.take()?,
            website_redirect_location: self.take()?,
            user: self.pairs()?,
        })
    }

    fn checksum(&mut self) -> Result<Checksum> {
        Ok(Checksum { algorithm: self.one_of(algorithm)?, of: self.one_of(checksum_of)?, value: self.take()? })
    }

    fn slice(&mut self) -> Result<Option<Slice>> {
        let blob: Option<[u8; 16]> = self.take()?;
        let (offset, length): (Option<i64>, Option<i64>) = (self.take()?, self.take()?);
        match (blob, offset, length) {
            (Some(blob), Some(offset), Some(length)) => Ok(Some(Slice {
                blob: blob_from_bytes(blob),
                offset: offset.cast_unsigned(),
                length: length.cast_unsigned(),
            })),
            (None, None, None) => Ok(None),
            _ => Err(self.wrong("half a slice")),
        }
    }

    /// Says that the column that was just read is not what the schema promises.
    fn wrong(&self, problem: &'static str) -> Error {
        Error::FromSqlConversionFailure(self.next - 1, Type::Null, problem.into())
    }
}

/// The bytes by which a blob is found: its numbers big-endian, so that later ones lie behind earlier ones.
pub(super) fn blob_bytes(blob: BlobId) -> [u8; 16] {
    let number = u128::from(blob.node.0) << 96 | u128::from(blob.incarnation.0) << 64 | u128::from(blob.sequence);
    number.to_be_bytes()
}

pub(super) fn blob_from_bytes(bytes: [u8; 16]) -> BlobId {
    let [a, b, c, d, e, f, g, h, sequence @ ..] = bytes;
    BlobId {
        node: NodeId(u32::from_be_bytes([a, b, c, d])),
        incarnation: Incarnation(u32::from_be_bytes([e, f, g, h])),
        sequence: u64::from_be_bytes(sequence),
    }
}

pub(super) fn places_bytes(places: &[DiskId]) -> Vec<u8> {
    places.iter().flat_map(|disk| disk.0.to_be_bytes()).collect()
}

pub(super) fn places(bytes: &[u8]) -> Option<Vec<DiskId>> {
    let (disks, []) = bytes.as_chunks() else { return None };
    Some(disks.iter().map(|disk| DiskId(u128::from_be_bytes(*disk))).collect())
}

/// A list of pairs as its column has it.
pub(super) fn pairs_json(pairs: &[(String, String)]) -> Option<String> {
    if pairs.is_empty() {
        return None;
    }
    Some(serde_json::to_string(pairs).expect("pairs of text are JSON"))
}

pub(super) fn algorithm_number(algorithm: ChecksumAlgorithm) -> i64 {
    match algorithm {
        ChecksumAlgorithm::Crc32 => 1,
        ChecksumAlgorithm::Crc32c => 2,
        ChecksumAlgorithm::Crc64Nvme => 3,
        ChecksumAlgorithm::Sha1 => 4,
        ChecksumAlgorithm::Sha256 => 5,
    }
}

pub(super) fn algorithm(number: i64) -> Option<ChecksumAlgorithm> {
    ChecksumAlgorithm::ALL.into_iter().find(|&algorithm| algorithm_number(algorithm) == number)
}

pub(super) fn checksum_of_number(of: ChecksumType) -> i64 {
    match of {
        ChecksumType::FullObject => 1,
        ChecksumType::Composite => 2,
    }
}

pub(super) fn checksum_of(number: i64) -> Option<ChecksumType> {
    [ChecksumType::FullObject, ChecksumType::Composite].into_iter().find(|&of| checksum_of_number(of) == number)
}

pub(super) fn bucket_state_number(state: BucketState) -> i64 {
    match state {
        BucketState::Active => 1,
        BucketState::Closed => 2,
    }
}

pub(super) fn versioning_number(versioning: Versioning) -> i64 {
    match versioning {
        Versioning::Off => 0,
        Versioning::Enabled => 1,
        Versioning::Suspended => 2,
    }
}

pub(super) fn ownership_number(ownership: Ownership) -> i64 {
    match ownership {
        Ownership::BucketOwnerEnforced => 1,
        Ownership::BucketOwnerPreferred => 2,
        Ownership::ObjectWriter => 3,
    }
}

pub(super) fn public_access_number(block: PublicAccessBlock) -> i64 {
    i64::from(block.block_public_acls)
        | i64::from(block.ignore_public_acls) << 1
        | i64::from(block.block_public_policy) << 2
        | i64::from(block.restrict_public_buckets) << 3
}

pub(super) fn public_access(number: i64) -> Option<PublicAccessBlock> {
    (0..16).contains(&number).then_some(PublicAccessBlock {
        block_public_acls: number & 1 != 0,
        ignore_public_acls: number & 2 != 0,
        block_public_policy: number & 4 != 0,
        restrict_public_buckets: number & 8 != 0,
    })
}

pub(super) fn retention_number(mode: RetentionMode) -> i64 {
    match mode {
        RetentionMode::Governance => 1,
        RetentionMode::Compliance => 2,
    }
}

pub(super) fn retention_mode(number: i64) -> Option<RetentionMode> {
    [RetentionMode::Governance, RetentionMode::Compliance].into_iter().find(|&mode| retention_number(mode) == number)
}

/// What the columns `storage_class` and `storage_class_name` hold.
pub(super) fn storage_class_columns(class: &StorageClass) -> (i64, Option<&str>) {
    match class {
        StorageClass::Standard => (1, None),
        StorageClass::Named(_) => (2, Some(class.as_str())),
    }
}

fn storage_class(c: &mut Columns<'_>) -> Result<StorageClass> {
    match (c.take::<i64>()?, c.take::<Option<String>>()?) {
        (1, None) => Ok(StorageClass::Standard),
        (2, Some(name)) => name.parse().map_err(|_| c.wrong("not a storage class's name")),
        _ => Err(c.wrong("half a storage class")),
    }
}

pub(super) fn blob_state_number(state: BlobState) -> i64 {
    match state {
        BlobState::Live => 1,
        BlobState::Dead => 2,
    }
}

pub(super) fn version(row: &Row<'_>) -> Result<VersionRow> {
    let mut columns = Columns::new(row);
    let c = &mut columns;
    Ok(VersionRow {
        generation: c.generation()?,
        write: c.id().map(WriteId)?,
        null: c.take()?,
        delete_marker: c.take()?,
        owner: c.number().map(TenantId)?,
        etag: c.take().map(Etag)?,
        size: c.number()?,
        checksum: c.checksum()?,
        crc64nvme: c.number()?,
        headers: c.headers()?,
        tags: c.pairs()?,
        last_modified: c.time()?,
        parts: c.take()?,
        content: content(c)?,
        storage_class: storage_class(c)?,
        envelope: c.take()?,
        retention: retention(c)?,
        legal_hold: c.take()?,
    })
}

/// What the columns `content` and `blob` to `blob_length` hold.
pub(super) fn content_number(content: Content) -> (i64, Option<Slice>) {
    match content {
        Content::Empty => (0, None),
        Content::Single(slice) => (1, Some(slice)),
        Content::Segments => (2, None),
    }
}

fn content(c: &mut Columns<'_>) -> Result<Content> {
    let kind: i64 = c.take()?;
    match (kind, c.slice()?) {
        (0, None) => Ok(Content::Empty),
        (1, Some(slice)) => Ok(Content::Single(slice)),
        (2, None) => Ok(Content::Segments),
        _ => Err(c.wrong("a content of no kind")),
    }
}

fn retention(c: &mut Columns<'_>) -> Result<Option<Retention>> {
    let (mode, until) = (c.optional_one_of(retention_mode)?, c.take::<Option<i64>>()?);
    match (mode, until) {
        (Some(mode), Some(until)) => Ok(Some(Retention { mode, until: WallTime { unix_ms: until.cast_unsigned() } })),
        (None, None) => Ok(None),
        _ => Err(c.wrong("half a retention")),
    }
}

pub(super) fn listed(row: &Row<'_>) -> Result<ListedRow> {
    let mut c = Columns::new(row);
    Ok(ListedRow {
        key: c.take()?,
        etag: c.take().map(Etag)?,
        checksum: c.checksum()?,
        size: c.number()?,
        last_modified: c.time()?,
        storage_class: storage_class(&mut c)?,
    })
}

pub(super) fn bucket(row: &Row<'_>) -> Result<BucketRow> {
    let mut c = Columns::new(row);
    Ok(BucketRow {
        id: c.number().map(BucketId)?,
        name: {
            let name: String = c.take()?;
            BucketName::new(&name).map_err(|_| c.wrong("not a bucket's name"))?
        },
        tenant: c.number().map(TenantId)?,
        region: c.take()?,
        state: c.one_of(|number| {
            [BucketState::Active, BucketState::Closed].into_iter().find(|&state| bucket_state_number(state) == number)
        })?,
        generation: c.generation()?,
        created_at: c.time()?,
        versioning: c.one_of(|number| {
            let all = [Versioning::Off, Versioning::Enabled, Versioning::Suspended];
            all.into_iter().find(|&versioning| versioning_number(versioning) == number)
        })?,
        ownership: c.one_of(|number| {
            let all = [Ownership::BucketOwnerEnforced, Ownership::BucketOwnerPreferred, Ownership::ObjectWriter];
            all.into_iter().find(|&ownership| ownership_number(ownership) == number)
        })?,
        public_access_block: c.one_of(public_access)?,
        object_lock: {
            let (enabled, mode, days) = (c.take()?, c.optional_one_of(retention_mode)?, c.take::<Option<u32>>()?);
            if enabled { Some(LockDefault { mode, days: days.unwrap_or(0) }) } else { None }
        },
        encryption: c.take()?,
        storage_class: match c.take::<Option<String>>()? {
            None => StorageClass::Standard,
            Some(name) => name.parse().map_err(|_| c.wrong("not a storage class's name"))?,
        },
        quota: c.quota()?,
    })
}

/// What the columns `scope` and `id` of usage hold.
pub(super) fn usage_scope(of: UsageOf) -> (i64, u64) {
    match of {
        UsageOf::Bucket(bucket) => (1, bucket.0),
        UsageOf::Tenant(tenant) => (2, tenant.0),
    }
}

pub(super) fn segment(row: &Row<'_>) -> Result<SegmentRow> {
    let mut c = Columns::new(row);
    let (start, slice) = (c.number()?, c.slice()?);
    let part = match c.take()? {
        None => None,
        Some(number) => {
            let (size, etag) = (c.number()?, c.take().map(Etag)?);
            Some(SegmentPart { number, size, etag, checksum: c.checksum()? })
        }
    };
    Ok(SegmentRow { start, slice, part })
}

pub(super) fn blob(row: &Row<'_>) -> Result<BlobRow> {
    let mut c = Columns::new(row);
    Ok(BlobRow {
        blob: c.blob_id()?,
        profile: Profile { data: c.small()?, parity: c.small()? },
        length: c.number()?,
        places: {
            let bytes: Vec<u8> = c.take()?;
            places(&bytes).ok_or_else(|| c.wrong("not a list of disks"))?
        },
        references: c.small()?,
        state: c.one_of(|number| {
            [BlobState::Live, BlobState::Dead].into_iter().find(|&state| blob_state_number(state) == number)
        })?,
        envelope: c.take()?,
    })
}

pub(super) fn upload(row: &Row<'_>) -> Result<UploadRow> {
    let mut columns = Columns::new(row);
    let c = &mut columns;
    Ok(UploadRow {
        upload: c.id().map(UploadId)?,
        bucket: c.number().map(BucketId)?,
        key: c.take()?,
        owner: c.number().map(TenantId)?,
        headers: c.headers()?,
        tags: c.pairs()?,
        checksum: match (c.optional_one_of(algorithm)?, c.optional_one_of(checksum_of)?) {
            (Some(algorithm), Some(of)) => Some((algorithm, of)),
            (None, None) => None,
            _ => return Err(c.wrong("half a checksum")),
        },
        storage_class: storage_class(c)?,
        envelope: c.take()?,
        initiated_at: c.time()?,
        completed: match c.take::<Option<i64>>()? {
            None => None,
            Some(at) => Some(CompletedUpload {
                list: c.take()?,
                result: {
                    let last_modified = WallTime { unix_ms: at.cast_unsigned() };
                    let written = Written { generation: c.generation()?, last_modified };
                    let (etag, size) = (c.take().map(Etag)?, c.number()?);
                    Completed { etag, checksum: c.checksum()?, size, written }
                },
            }),
        },
    })
}

pub(super) fn part(row: &Row<'_>) -> Result<PartRow> {
    let mut columns = Columns::new(row);
    let c = &mut columns;
    let part = PartRow {
        number: c.take()?,
        write: c.id().map(WriteId)?,
        size: c.number()?,
        etag: c.take().map(Etag)?,
        checksum: c.checksum()?,
        crc64nvme: c.number()?,
        last_modified: c.time()?,
        slices: c.slice()?.into_iter().collect(),
        envelope: c.take()?,
    };
    with_slices(c, part)
}

/// What the columns `blob` to `blob_length` and `slices` of a part hold: one slice in its own columns, several behind one
/// another.
pub(super) fn part_slices(slices: &[Slice]) -> (Option<Slice>, Option<Vec<u8>>) {
    match slices {
        [] => (None, None),
        [one] => (Some(*one), None),
        several => {
            let bytes = |slice: &Slice| {
                [&blob_bytes(slice.blob)[..], &slice.offset.to_be_bytes(), &slice.length.to_be_bytes()].concat()
            };
            (None, Some(several.iter().flat_map(bytes).collect()))
        }
    }
}

fn with_slices(c: &mut Columns<'_>, mut part: PartRow) -> Result<PartRow> {
    let Some(bytes) = c.take::<Option<Vec<u8>>>()? else { return Ok(part) };
    let several = slices(&bytes).filter(|_| part.slices.is_empty());
    part.slices = several.ok_or_else(|| c.wrong("not a list of slices"))?;
    Ok(part)
}

/// Several slices, as [`part_slices`] puts them behind one another.
pub(super) fn slices(bytes: &[u8]) -> Option<Vec<Slice>> {
    let (slices, []) = bytes.as_chunks::<32>() else { return None };
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let slice = |slice: &[u8; 32]| {
        let (blob, rest) = slice.split_first_chunk().expect("32 bytes begin with 16");
        Slice { blob: blob_from_bytes(*blob), offset: number(&rest[..8]), length: number(&rest[8..]) }
    };
    (slices.len() >= 2).then(|| slices.iter().map(slice).collect())
}
