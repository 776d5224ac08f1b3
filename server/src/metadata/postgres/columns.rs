//! Columns of PostgreSQL to types and back. What a column may hold is said in `migrations/regional`.

use anvil_model::ids::{BlobId, BucketId, Generation, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::{BucketName, Checksum, Etag, Headers};
use anvil_model::profile::Profile;
use anvil_model::time::WallTime;
use anvil_node::metadata::mutation::{Completed, Outcome, Written};
use anvil_node::metadata::rows::{
    BlobRow, BlobState, BucketRow, BucketState, CompletedUpload, Content, GarbageRow, ListedRow, LockDefault,
    Ownership, PartRow, Retention, RowsError, SegmentPart, SegmentRow, Slice, StorageClass, UploadRow, VersionRow,
    Versioning, WriteRow, WriterRow,
};
use anvil_node::metadata::usage::{Quota, Usage, UsageOf};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use crate::metadata::columns as sets;

/// Columns of a table, as `name type, name type`: reading wants the names, writing the types too.
pub(super) type Columns = &'static str;

pub(super) const WRITER: Columns = "node bigint, incarnation bigint, opened_at_ms bigint";
pub(super) const WRITE: Columns = "generation bigint, write_id bytea, outcome bytea";
pub(super) const BUCKET: Columns = "id bigint, name text, tenant bigint, region text, state smallint, \
    generation bigint, created_at_ms bigint, versioning smallint, ownership smallint, public_access_block smallint, \
    lock_enabled boolean, lock_mode smallint, lock_days bigint, encryption bytea, storage_class_name text, \
    quota_bytes bigint, quota_objects bigint";
pub(super) const USAGE: Columns =
    "scope smallint, id bigint, node bigint, objects bigint, object_bytes bigint, upload_bytes bigint";
pub(super) const TENANT_QUOTA: Columns = "tenant bigint, quota_bytes bigint, quota_objects bigint";
pub(super) const HEAD: Columns = "bucket bigint, key bytea, generation bigint, write_id bytea, is_null boolean, \
    delete_marker boolean, owner bigint, etag text, size bigint, checksum_algorithm smallint, checksum_of smallint, \
    checksum bytea, crc64nvme bigint, content_type text, cache_control text, content_disposition text, \
    content_encoding text, content_language text, expires text, website_redirect text, user_metadata text, tags text, \
    last_modified_ms bigint, parts integer, content smallint, blob bytea, blob_offset bigint, blob_length bigint, \
    storage_class smallint, storage_class_name text, envelope bytea, retention_mode smallint, \
    retain_until_ms bigint, legal_hold boolean";
pub(super) const LISTED: Columns = "key bytea, etag text, checksum_algorithm smallint, checksum_of smallint, \
    checksum bytea, size bigint, last_modified_ms bigint, storage_class smallint, storage_class_name text";
pub(super) const SEGMENT: Columns = "bucket bigint, version bigint, start bigint, blob bytea, blob_offset bigint, \
    blob_length bigint, part integer, part_size bigint, part_etag text, part_checksum_algorithm smallint, \
    part_checksum_of smallint, part_checksum bytea";
pub(super) const BLOB: Columns = "blob bytea, data_shards smallint, parity_shards smallint, length bigint, \
    places bytea, refs bigint, state smallint, in_debt boolean, envelope bytea";
pub(super) const GARBAGE: Columns = "generation bigint, blob bytea, since_ms bigint";
pub(super) const UPLOAD: Columns = "upload bytea, bucket bigint, key bytea, owner bigint, content_type text, \
    cache_control text, content_disposition text, content_encoding text, content_language text, expires text, \
    website_redirect text, user_metadata text, tags text, checksum_algorithm smallint, checksum_of smallint, \
    storage_class smallint, storage_class_name text, envelope bytea, initiated_at_ms bigint, completed_at_ms bigint, \
    completed_list bytea, result_generation bigint, result_etag text, result_size bigint, \
    result_checksum_algorithm smallint, result_checksum_of smallint, result_checksum bytea";
pub(super) const PART: Columns = "upload bytea, number integer, write_id bytea, size bigint, etag text, \
    checksum_algorithm smallint, checksum_of smallint, checksum bytea, crc64nvme bigint, last_modified_ms bigint, \
    blob bytea, blob_offset bigint, blob_length bigint, envelope bytea, slices bytea";

/// The names of columns, each behind `prefix`.
pub(super) fn names(columns: Columns, prefix: &str) -> String {
    let names: Vec<String> = pairs(columns).map(|(name, _)| format!("{prefix}{name}")).collect();
    names.join(", ")
}

/// `INSERT` of many rows, given as an array per column.
pub(super) fn insert(table: &str, columns: Columns) -> String {
    let arrays: Vec<String> =
        (1..).zip(pairs(columns)).map(|(number, (_, kind))| format!("${number}::{kind}[]")).collect();
    format!("INSERT INTO {table} ({}) SELECT * FROM unnest({})", names(columns, ""), arrays.join(", "))
}

/// The same, replacing what is there under the key.
pub(super) fn upsert(table: &str, columns: Columns, key: &str) -> String {
    let keys: Vec<&str> = key.split(", ").collect();
    let sets: Vec<String> = pairs(columns)
        .filter(|(name, _)| !keys.contains(name))
        .map(|(name, _)| format!("{name} = excluded.{name}"))
        .collect();
    format!("{} ON CONFLICT ({key}) DO UPDATE SET {}", insert(table, columns), sets.join(", "))
}

fn pairs(columns: Columns) -> impl Iterator<Item = (&'static str, &'static str)> {
    columns.split(", ").map(|pair| pair.trim().split_once(' ').expect("a name and a type"))
}

/// Rows on their way to a statement: an array per column.
#[derive(Default)]
pub(super) struct Arrays<'r> {
    columns: Vec<Box<dyn ToSql + Sync + 'r>>,
}

impl<'r> Arrays<'r> {
    /// The next column.
    pub(super) fn push<R, T>(&mut self, rows: &'r [R], value: impl Fn(&'r R) -> T)
    where
        T: 'r,
        Vec<T>: ToSql + Sync,
    {
        self.columns.push(Box::new(rows.iter().map(value).collect::<Vec<T>>()));
    }

    /// As parameters.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect()
    }
}

/// A number as its column has it: the same bits.
pub(super) fn int(number: u64) -> i64 {
    number.cast_signed()
}

/// The end of a range: numbers in ordered columns are below 2^63.
pub(super) fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of a small set.
pub(super) fn small(number: i64) -> i16 {
    i16::try_from(number).expect("sets are small")
}

pub(super) fn id_bytes(id: u128) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(super) fn blob_bytes(blob: BlobId) -> Vec<u8> {
    sets::blob_bytes(blob).to_vec()
}

/// Reads the columns of a row one after another.
pub(super) struct Reader<'r> {
    row: &'r Row,
    next: usize,
}

type Read<T> = Result<T, RowsError>;

impl<'r> Reader<'r> {
    pub(super) fn new(row: &'r Row) -> Self {
        Self { row, next: 0 }
    }

    pub(super) fn take<T: FromSql<'r>>(&mut self) -> Read<T> {
        let value = self.row.try_get(self.next).map_err(|error| RowsError::Inconsistent(error.to_string()))?;
        self.next += 1;
        Ok(value)
    }

    /// A number whose bits are those of the column.
    pub(super) fn number(&mut self) -> Read<u64> {
        self.take::<i64>().map(i64::cast_unsigned)
    }

    /// A number that fits a smaller type.
    fn small<T: TryFrom<i64>>(&mut self) -> Read<T> {
        let value: i64 = self.take()?;
        T::try_from(value).map_err(|_| self.wrong("a number out of range"))
    }

    fn smallest<T: TryFrom<i16>>(&mut self) -> Read<T> {
        let value: i16 = self.take()?;
        T::try_from(value).map_err(|_| self.wrong("a number out of range"))
    }

    fn part_number(&mut self) -> Read<u16> {
        let value: i32 = self.take()?;
        u16::try_from(value).map_err(|_| self.wrong("a number out of range"))
    }

    fn bytes<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes: &[u8] = self.take()?;
        bytes.try_into().map_err(|_| self.wrong("bytes of another length"))
    }

    pub(super) fn id(&mut self) -> Read<u128> {
        self.bytes().map(u128::from_be_bytes)
    }

    pub(super) fn blob_id(&mut self) -> Read<BlobId> {
        self.bytes().map(sets::blob_from_bytes)
    }

    pub(super) fn generation(&mut self) -> Read<Generation> {
        self.number().map(Generation)
    }

    pub(super) fn time(&mut self) -> Read<WallTime> {
        self.number().map(|unix_ms| WallTime { unix_ms })
    }

    /// One of a listed set; `known` gives `None` for others.
    fn one_of<T>(&mut self, known: impl Fn(i64) -> Option<T>) -> Read<T> {
        let value: i16 = self.take()?;
        known(value.into()).ok_or_else(|| self.wrong("a number that is not of the set"))
    }

    fn optional_one_of<T>(&mut self, known: impl Fn(i64) -> Option<T>) -> Read<Option<T>> {
        match self.take::<Option<i16>>()? {
            None => Ok(None),
            Some(value) => known(value.into()).map(Some).ok_or_else(|| self.wrong("a number that is not of the set")),
        }
    }

    fn pairs(&mut self) -> Read<Vec<(String, String)>> {
        match self.take::<Option<&str>>()? {
            None => Ok(Vec::new()),
            Some(json) => serde_json::from_str(json).map_err(|_| self.wrong("not a list of pairs")),
        }
    }

    fn headers(&mut self) -> Read<Headers> {
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

    fn checksum(&mut self) -> Read<Checksum> {
        Ok(Checksum {
            algorithm: self.one_of(sets::algorithm)?,
            of: self.one_of(sets::checksum_of)?,
            value: self.take()?,
        })
    }

    fn quota(&mut self) -> Read<Quota> {
        let mut most = || self.take::<Option<i64>>().map(|most| most.map(i64::cast_unsigned));
        Ok(Quota { bytes: most()?, objects: most()? })
    }

    fn slice(&mut self) -> Read<Option<Slice>> {
        let blob: Option<&[u8]> = self.take()?;
        let (offset, length): (Option<i64>, Option<i64>) = (self.take()?, self.take()?);
        match (blob, offset, length) {
            (Some(blob), Some(offset), Some(length)) => {
                let blob = blob.try_into().map_err(|_| self.wrong("not a blob"))?;
                let (offset, length) = (offset.cast_unsigned(), length.cast_unsigned());
                Ok(Some(Slice { blob: sets::blob_from_bytes(blob), offset, length }))
            }
            (None, None, None) => Ok(None),
            _ => Err(self.wrong("half a slice")),
        }
    }

    fn storage_class(&mut self) -> Read<StorageClass> {
        match (self.take::<i16>()?, self.take::<Option<&str>>()?) {
            (1, None) => Ok(StorageClass::Standard),
            (2, Some(name)) => name.parse().map_err(|_| self.wrong("not a storage class's name")),
            _ => Err(self.wrong("half a storage class")),
        }
    }

    /// Says that the column that was just read is not what the schema promises.
    fn wrong(&self, problem: &'static str) -> RowsError {
        let column = self.row.columns().get(self.next - 1).map_or("?", |column| column.name());
        RowsError::Inconsistent(format!("the column {column} holds {problem}"))
    }
}

pub(super) fn writer(row: &Row) -> Read<WriterRow> {
    let mut c = Reader::new(row);
    Ok(WriterRow { node: c.small().map(NodeId)?, incarnation: c.small().map(Incarnation)?, opened_at: c.time()? })
}

pub(super) fn write(row: &Row) -> Read<WriteRow> {
    let mut c = Reader::new(row);
    let (generation, write) = (c.generation()?, c.id().map(WriteId)?);
    let outcome = Outcome::from_bytes(c.take()?).ok_or_else(|| c.wrong("no outcome"))?;
    Ok(WriteRow { generation, write, outcome })
}

pub(super) fn bucket(row: &Row) -> Read<BucketRow> {
    let mut c = Reader::new(row);
    Ok(BucketRow {
        id: c.number().map(BucketId)?,
        name: BucketName::new(c.take()?).map_err(|_| c.wrong("not a bucket's name"))?,
        tenant: c.number().map(TenantId)?,
        region: c.take()?,
        state: c.one_of(|number| {
            let all = [BucketState::Active, BucketState::Closed];
            all.into_iter().find(|&state| sets::bucket_state_number(state) == number)
        })?,
        generation: c.generation()?,
        created_at: c.time()?,
        versioning: c.one_of(|number| {
            let all = [Versioning::Off, Versioning::Enabled, Versioning::Suspended];
            all.into_iter().find(|&versioning| sets::versioning_number(versioning) == number)
        })?,
        ownership: c.one_of(|number| {
            let all = [Ownership::BucketOwnerEnforced, Ownership::BucketOwnerPreferred, Ownership::ObjectWriter];
            all.into_iter().find(|&ownership| sets::ownership_number(ownership) == number)
        })?,
        public_access_block: c.one_of(sets::public_access)?,
        object_lock: {
            let enabled: bool = c.take()?;
            let (mode, days) = (c.optional_one_of(sets::retention_mode)?, c.take::<Option<i64>>()?);
            let days = u32::try_from(days.unwrap_or(0)).map_err(|_| c.wrong("a number out of range"))?;
            enabled.then_some(LockDefault { mode, days })
        },
        encryption: c.take()?,
        storage_class: match c.take::<Option<&str>>()? {
            None => StorageClass::Standard,
            Some(name) => name.parse().map_err(|_| c.wrong("not a storage class's name"))?,
        },
        quota: c.quota()?,
    })
}

/// Whose usage, and what the nodes came to.
pub(super) fn usage(row: &Row) -> Read<(UsageOf, Usage)> {
    let mut c = Reader::new(row);
    let scope: i16 = c.take()?;
    let id = c.number()?;
    let all = [UsageOf::Bucket(BucketId(id)), UsageOf::Tenant(TenantId(id))];
    let of = all.into_iter().find(|of| sets::usage_scope(*of).0 == i64::from(scope));
    let of = of.ok_or_else(|| c.wrong("a number that is not of the set"))?;
    Ok((of, Usage { objects: c.take()?, object_bytes: c.take()?, upload_bytes: c.take()? }))
}

pub(super) fn tenant_quota(row: &Row) -> Read<(TenantId, Quota)> {
    let mut c = Reader::new(row);
    Ok((c.number().map(TenantId)?, c.quota()?))
}

/// The bucket and key of a head, and its version.
pub(super) fn head(row: &Row) -> Read<((BucketId, Vec<u8>), VersionRow)> {
    let mut columns = Reader::new(row);
    let c = &mut columns;
    let place = (c.number().map(BucketId)?, c.take()?);
    let version = VersionRow {
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
        parts: match c.take::<Option<i32>>()? {
            None => None,
            Some(count) => Some(u16::try_from(count).map_err(|_| c.wrong("a number out of range"))?),
        },
        content: match (c.take::<i16>()?, c.slice()?) {
            (0, None) => Content::Empty,
            (1, Some(slice)) => Content::Single(slice),
            (2, None) => Content::Segments,
            _ => return Err(c.wrong("a content of no kind")),
        },
        storage_class: c.storage_class()?,
        envelope: c.take()?,
        retention: match (c.optional_one_of(sets::retention_mode)?, c.take::<Option<i64>>()?) {
            (Some(mode), Some(until)) => Some(Retention { mode, until: WallTime { unix_ms: until.cast_unsigned() } }),
            (None, None) => None,
            _ => return Err(c.wrong("half a retention")),
        },
        legal_hold: c.take()?,
    };
    Ok((place, version))
}

pub(super) fn listed(row: &Row) -> Read<ListedRow> {
    let mut c = Reader::new(row);
    Ok(ListedRow {
        key: c.take()?,
        etag: c.take().map(Etag)?,
        checksum: c.checksum()?,
        size: c.number()?,
        last_modified: c.time()?,
        storage_class: c.storage_class()?,
    })
}

/// The bucket and the version of a segment.
pub(super) fn segment_of(row: &Row) -> Read<(BucketId, Generation)> {
    let mut c = Reader::new(row);
    Ok((c.number().map(BucketId)?, c.generation()?))
}

pub(super) fn segment(row: &Row) -> Read<SegmentRow> {
    let mut c = Reader { row, next: 2 };
    let (start, slice) = (c.number()?, c.slice()?);
    let part = match c.take::<Option<i32>>()? {
        None => None,
        Some(number) => {
            let number = u16::try_from(number).map_err(|_| c.wrong("a number out of range"))?;
            let (size, etag) = (c.number()?, c.take().map(Etag)?);
            Some(SegmentPart { number, size, etag, checksum: c.checksum()? })
        }
    };
    Ok(SegmentRow { start, slice, part })
}

pub(super) fn blob(row: &Row) -> Read<BlobRow> {
    let mut c = Reader::new(row);
    Ok(BlobRow {
        blob: c.blob_id()?,
        profile: Profile { data: c.smallest()?, parity: c.smallest()? },
        length: c.number()?,
        places: {
            let bytes: &[u8] = c.take()?;
            sets::places(bytes).ok_or_else(|| c.wrong("not a list of disks"))?
        },
        references: c.small()?,
        state: c.one_of(|number| {
            let all = [BlobState::Live, BlobState::Dead];
            all.into_iter().find(|&state| sets::blob_state_number(state) == number)
        })?,
        envelope: {
            let _in_debt: bool = c.take()?;
            c.take()?
        },
    })
}

pub(super) fn garbage(row: &Row) -> Read<GarbageRow> {
    let mut c = Reader::new(row);
    Ok(GarbageRow { generation: c.generation()?, blob: c.blob_id()?, since: c.time()? })
}

pub(super) fn upload(row: &Row) -> Read<UploadRow> {
    let mut columns = Reader::new(row);
    let c = &mut columns;
    Ok(UploadRow {
        upload: c.id().map(UploadId)?,
        bucket: c.number().map(BucketId)?,
        key: c.take()?,
        owner: c.number().map(TenantId)?,
        headers: c.headers()?,
        tags: c.pairs()?,
        checksum: match (c.optional_one_of(sets::algorithm)?, c.optional_one_of(sets::checksum_of)?) {
            (Some(algorithm), Some(of)) => Some((algorithm, of)),
            (None, None) => None,
            _ => return Err(c.wrong("half a checksum")),
        },
        storage_class: c.storage_class()?,
        envelope: c.take()?,
        initiated_at: c.time()?,
        completed: match c.take::<Option<i64>>()? {
            None => None,
            Some(at) => Some(CompletedUpload {
                list: c.bytes()?,
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

/// A part and its upload.
pub(super) fn part(row: &Row) -> Read<(UploadId, PartRow)> {
    let mut columns = Reader::new(row);
    let c = &mut columns;
    let upload = c.id().map(UploadId)?;
    let mut part = PartRow {
        number: c.part_number()?,
        write: c.id().map(WriteId)?,
        size: c.number()?,
        etag: c.take().map(Etag)?,
        checksum: c.checksum()?,
        crc64nvme: c.number()?,
        last_modified: c.time()?,
        slices: c.slice()?.into_iter().collect(),
        envelope: c.take()?,
    };
    if let Some(bytes) = c.take::<Option<&[u8]>>()? {
        let several = sets::slices(bytes).filter(|_| part.slices.is_empty());
        part.slices = several.ok_or_else(|| c.wrong("not a list of slices"))?;
    }
    Ok((upload, part))
}
