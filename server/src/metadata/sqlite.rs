//! The rows in SQLite.
//!
//! One connection writes, others read. Every statement is prepared once per connection. The file is an index that can
//! be made anew from the log, so it is durable only as far as a crash must not damage it (`synchronous = NORMAL` in WAL
//! mode: SQLite documentation, "PRAGMA synchronous").

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;

use anvil_model::ids::{BlobId, BucketId, DiskId, Generation, Incarnation, NodeId, TenantId, UploadId, WriteId};
use anvil_model::object::BucketName;
use anvil_model::time::WallTime;
use anvil_node::metadata::mutation::Outcome;
use anvil_node::metadata::rows::{
    BlobRow, BucketRow, Counters, GarbageRow, ListedRow, PartRow, Rows, RowsError, SegmentRow, UploadRow, VersionRow,
    WriteRow, WriterRow,
};
use anvil_node::metadata::usage::{Quota, Usage, UsageOf};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row, params};

use super::columns::{self, Columns, blob_bytes};

/// Every migration, in order; the schema's version is how many have run.
const MIGRATIONS: [&str; 5] = [
    include_str!("../../../migrations/embedded/0001_first.sql"),
    include_str!("../../../migrations/embedded/0002_slices_of_parts.sql"),
    include_str!("../../../migrations/embedded/0003_repair_debt.sql"),
    include_str!("../../../migrations/embedded/0004_storage_classes.sql"),
    include_str!("../../../migrations/embedded/0005_usage.sql"),
];
/// Bytes of a page. Rows of `heads` have some hundred bytes and lie in the tree itself, which wants more than the usual
/// 4 KiB.
const PAGE_BYTES: u32 = 8192;
/// Pages in the write-ahead log before they go to the file: 32 MiB.
const CHECKPOINT_PAGES: u32 = 4096;
/// Memory for pages per connection.
const CACHE_KIB: i32 = 16 << 10;
/// More than there are statements here.
const STATEMENTS: usize = 64;
/// Buckets that a reader keeps, at most; some hundred bytes each.
const BUCKETS_KEPT_MAX: usize = 256;

/// Why the index cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Made by a newer program.
    #[error(
        "the metadata index {path} has schema version {found}, this program knows versions up to {newest}: start the \
         newer program, or move the file away to have it made anew from the log"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// The newest known here.
        newest: usize,
    },
    /// Not a database, or damaged.
    #[error("the metadata index {path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Anything else.
    #[error("the metadata index {path} cannot be opened: {source}")]
    Sqlite {
        /// The file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

/// A connection to the index.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// Of one that reads: the buckets that it found since the last change, for most look-ups are of the same few.
    kept: Option<RefCell<BTreeMap<BucketName, BucketRow>>>,
}

impl Sqlite {
    /// Opens the file for writing; makes or migrates it as needed.
    ///
    /// # Errors
    /// When it is newer than this program, damaged, or not to be opened.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let named = |source| name_error(path, source);
        let connection = Connection::open(path).map_err(named)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(named)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(named)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(named)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(named)?;
        let sqlite = Self::with(connection).map_err(named)?;
        sqlite.migrate(path)?;
        Ok(sqlite)
    }

    /// Opens the file for reading only.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_reader(path: &Path) -> Result<Self, OpenError> {
        let named = |source| name_error(path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(named)?;
        Ok(Self { kept: Some(RefCell::default()), ..Self::with(connection).map_err(named)? })
    }

    fn with(connection: Connection) -> rusqlite::Result<Self> {
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Self { connection, kept: None })
    }

    fn migrate(&self, path: &Path) -> Result<(), OpenError> {
        let named = |source| name_error(path, source);
        let version: u32 = self.connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(named)?;
        if version as usize > MIGRATIONS.len() {
            let path = path.display().to_string();
            return Err(OpenError::Newer { path, found: version, newest: MIGRATIONS.len() });
        }
        for (number, migration) in (1..).zip(MIGRATIONS).skip(version as usize) {
            let script = format!("BEGIN IMMEDIATE; {migration} PRAGMA user_version = {number}; COMMIT;");
            self.connection.execute_batch(&script).map_err(named)?;
        }
        Ok(())
    }

    /// Begins a transaction that will write.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn begin(&self) -> Result<(), RowsError> {
        self.run("BEGIN IMMEDIATE", [])
    }

    /// Begins a transaction that sees one state of what is committed.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn begin_view(&self) -> Result<(), RowsError> {
        self.run("BEGIN DEFERRED", [])
    }

    /// Nothing that was kept is known to hold: something may have been committed since.
    pub fn forget(&self) {
        if let Some(kept) = &self.kept {
            kept.borrow_mut().clear();
        }
    }

    /// Commits the open transaction; rolls it back when that fails.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn commit(&self) -> Result<(), RowsError> {
        let committed = self.run("COMMIT", []);
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    /// Rolls the open transaction back, if there is one: some errors of SQLite have done so already.
    pub fn roll_back(&self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "a transaction of the metadata index cannot be rolled back");
        }
    }

    /// Says to which history an index without rows belongs.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn set_lineage(&mut self, lineage: u128) -> Result<(), RowsError> {
        self.put_counters(&Counters::new(lineage))
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<(), RowsError> {
        self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map_err(failed)?;
        Ok(())
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, RowsError> {
        let found =
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.query_row(params, read).optional());
        found.map_err(failed)
    }

    fn many<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, RowsError> {
        let found =
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.query_map(params, read)?.collect());
        found.map_err(failed)
    }

    fn exists(&self, sql: &str, params: impl Params) -> Result<bool, RowsError> {
        self.one(sql, params, |_| Ok(())).map(|row| row.is_some())
    }
}

fn name_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.display().to_string();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, source },
        _ => OpenError::Sqlite { path, source },
    }
}

/// Values that are not what the schema promises are an inconsistency, everything else is SQLite's.
fn failed(error: rusqlite::Error) -> RowsError {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => RowsError::Inconsistent(error.to_string()),
        error if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            RowsError::Inconsistent(error.to_string())
        }
        error => RowsError::Failed(error.to_string()),
    }
}

/// A number as its column has it: the same bits.
fn int(number: u64) -> i64 {
    number.cast_signed()
}

/// The end of a range: numbers in ordered columns are below 2^63.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// The columns `scope` and `id` of usage.
fn params_of(of: UsageOf) -> (i64, i64) {
    let (scope, id) = columns::usage_scope(of);
    (scope, int(id))
}

/// Behind every key: bytes that no UTF-8 text has, longer than any key.
const END: &[u8] = &[0xff; 1025];

impl Rows for Sqlite {
    fn counters(&self) -> Result<Counters, RowsError> {
        let sql = "SELECT lineage, batch, generation, at_ms FROM counters";
        let row = self.one(sql, [], |row| {
            let mut c = Columns::new(row);
            Ok(Counters { lineage: c.id()?, batch: c.number()?, generation: c.generation()?, at: c.time()? })
        })?;
        row.ok_or_else(|| RowsError::Inconsistent("there are no counters".to_owned()))
    }

    fn put_counters(&mut self, row: &Counters) -> Result<(), RowsError> {
        self.run(
            "UPDATE counters SET lineage = ?1, batch = ?2, generation = ?3, at_ms = ?4",
            params![row.lineage.to_be_bytes(), int(row.batch), int(row.generation.0), int(row.at.unix_ms)],
        )
    }

    fn writer(&self, node: NodeId) -> Result<Option<WriterRow>, RowsError> {
        self.one("SELECT incarnation, opened_at_ms FROM writers WHERE node = ?1", [node.0], |row| {
            let mut c = Columns::new(row);
            Ok(WriterRow { node, incarnation: c.small().map(Incarnation)?, opened_at: c.time()? })
        })
    }

    fn put_writer(&mut self, row: &WriterRow) -> Result<(), RowsError> {
        self.run(
            "INSERT OR REPLACE INTO writers (node, incarnation, opened_at_ms) VALUES (?1, ?2, ?3)",
            params![row.node.0, row.incarnation.0, int(row.opened_at.unix_ms)],
        )
    }

    fn write(&self, write: WriteId) -> Result<Option<WriteRow>, RowsError> {
        let sql = "SELECT generation, outcome FROM writes WHERE write_id = ?1";
        let row = self.one(sql, [write.0.to_be_bytes()], |row| {
            let mut c = Columns::new(row);
            Ok((c.generation()?, c.take::<Vec<u8>>()?))
        })?;
        let Some((generation, outcome)) = row else { return Ok(None) };
        let outcome = Outcome::from_bytes(&outcome);
        let outcome = outcome.ok_or_else(|| RowsError::Inconsistent(format!("write {write} has no outcome")))?;
        Ok(Some(WriteRow { generation, write, outcome }))
    }

    fn put_write(&mut self, row: &WriteRow) -> Result<(), RowsError> {
        self.run(
            "INSERT INTO writes (generation, write_id, outcome) VALUES (?1, ?2, ?3)",
            params![int(row.generation.0), row.write.0.to_be_bytes(), row.outcome.to_bytes()],
        )
    }

    fn forget_writes(&mut self, below: Generation) -> Result<(), RowsError> {
        self.run("DELETE FROM writes WHERE generation < ?1", [bound(below.0)])
    }

    fn bucket(&self, id: BucketId) -> Result<Option<BucketRow>, RowsError> {
        let sql = format!("SELECT {} FROM buckets WHERE id = ?1", columns::BUCKET);
        self.one(&sql, [int(id.0)], columns::bucket)
    }

    fn bucket_named(&self, name: &BucketName) -> Result<Option<BucketRow>, RowsError> {
        if let Some(row) = self.kept.as_ref().and_then(|kept| kept.borrow().get(name).cloned()) {
            return Ok(Some(row));
        }
        let sql = format!("SELECT {} FROM buckets WHERE name = ?1", columns::BUCKET);
        let row = self.one(&sql, [name.as_str()], columns::bucket)?;
        if let (Some(kept), Some(row)) = (&self.kept, &row) {
            let mut kept = kept.borrow_mut();
            if kept.len() >= BUCKETS_KEPT_MAX {
                kept.clear();
            }
            kept.insert(name.clone(), row.clone());
        }
        Ok(row)
    }

    fn put_bucket(&mut self, row: &BucketRow) -> Result<(), RowsError> {
        let sql = format!(
            "INSERT OR REPLACE INTO buckets ({}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            columns::BUCKET
        );
        let lock = row.object_lock;
        self.run(
            &sql,
            params![
                int(row.id.0),
                row.name.as_str(),
                int(row.tenant.0),
                row.region,
                columns::bucket_state_number(row.state),
                int(row.generation.0),
                int(row.created_at.unix_ms),
                columns::versioning_number(row.versioning),
                columns::ownership_number(row.ownership),
                columns::public_access_number(row.public_access_block),
                lock.is_some(),
                lock.and_then(|lock| lock.mode).map(columns::retention_number),
                lock.map(|lock| lock.days),
                row.encryption,
                columns::storage_class_columns(&row.storage_class).1,
                row.quota.bytes.map(int),
                row.quota.objects.map(int),
            ],
        )
    }

    fn delete_bucket(&mut self, id: BucketId) -> Result<(), RowsError> {
        self.run("DELETE FROM buckets WHERE id = ?1", [int(id.0)])
    }

    fn buckets(&self, tenant: TenantId, after: &str, max: usize) -> Result<Vec<BucketRow>, RowsError> {
        let sql =
            format!("SELECT {} FROM buckets WHERE tenant = ?1 AND name > ?2 ORDER BY name LIMIT ?3", columns::BUCKET);
        self.many(&sql, params![int(tenant.0), after, limit(max)], columns::bucket)
    }

    fn bucket_count(&self, tenant: TenantId) -> Result<usize, RowsError> {
        let sql = "SELECT count(*) FROM buckets WHERE tenant = ?1";
        Ok(self.one(sql, [int(tenant.0)], |row| Columns::new(row).small())?.unwrap_or(0))
    }

    fn buckets_by_id(&self, after: Option<BucketId>, max: usize) -> Result<Vec<BucketRow>, RowsError> {
        let sql = format!("SELECT {} FROM buckets WHERE id > ?1 ORDER BY id LIMIT ?2", columns::BUCKET);
        // No bucket has the id 0: generations begin at 1.
        self.many(&sql, params![after.map_or(0, |id| int(id.0)), limit(max)], columns::bucket)
    }

    fn usage(&self, of: UsageOf) -> Result<Usage, RowsError> {
        let sql = "SELECT objects, object_bytes, upload_bytes FROM usage WHERE scope = ?1 AND id = ?2 AND node = 0";
        let row = self.one(sql, params_of(of), |row| {
            Ok(Usage { objects: row.get(0)?, object_bytes: row.get(1)?, upload_bytes: row.get(2)? })
        })?;
        Ok(row.unwrap_or_default())
    }

    fn add_usage(&mut self, of: UsageOf, change: Usage) -> Result<(), RowsError> {
        let sum = self.usage(of)? + change;
        if sum == Usage::NONE {
            return self.delete_usage(of);
        }
        let (scope, id) = params_of(of);
        self.run(
            "INSERT OR REPLACE INTO usage (scope, id, node, objects, object_bytes, upload_bytes) \
             VALUES (?1, ?2, 0, ?3, ?4, ?5)",
            params![scope, id, sum.objects, sum.object_bytes, sum.upload_bytes],
        )
    }

    fn delete_usage(&mut self, of: UsageOf) -> Result<(), RowsError> {
        self.run("DELETE FROM usage WHERE scope = ?1 AND id = ?2", params_of(of))
    }

    fn tenant_quota(&self, tenant: TenantId) -> Result<Quota, RowsError> {
        let sql = "SELECT quota_bytes, quota_objects FROM tenant_quotas WHERE tenant = ?1";
        Ok(self.one(sql, [int(tenant.0)], |row| Columns::new(row).quota())?.unwrap_or_default())
    }

    fn put_tenant_quota(&mut self, tenant: TenantId, quota: &Quota) -> Result<(), RowsError> {
        if *quota == Quota::NONE {
            return self.run("DELETE FROM tenant_quotas WHERE tenant = ?1", [int(tenant.0)]);
        }
        self.run(
            "INSERT OR REPLACE INTO tenant_quotas (tenant, quota_bytes, quota_objects) VALUES (?1, ?2, ?3)",
            params![int(tenant.0), quota.bytes.map(int), quota.objects.map(int)],
        )
    }

    fn head(&self, bucket: BucketId, key: &[u8]) -> Result<Option<VersionRow>, RowsError> {
        // Asked for by every request.
        static SQL: LazyLock<String> =
            LazyLock::new(|| format!("SELECT {} FROM heads WHERE bucket = ?1 AND key = ?2", columns::VERSION));
        self.one(&SQL, params![int(bucket.0), key], columns::version)
    }

    fn put_head(&mut self, bucket: BucketId, key: &[u8], row: &VersionRow) -> Result<(), RowsError> {
        let sql = format!(
            "INSERT OR REPLACE INTO heads (bucket, key, {}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, \
             ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, \
             ?33, ?34)",
            columns::VERSION
        );
        let (content, slice) = columns::content_number(row.content);
        let (class, class_name) = columns::storage_class_columns(&row.storage_class);
        self.run(
            &sql,
            params![
                int(bucket.0),
                key,
                int(row.generation.0),
                row.write.0.to_be_bytes(),
                row.null,
                row.delete_marker,
                int(row.owner.0),
                row.etag.0,
                int(row.size),
                columns::algorithm_number(row.checksum.algorithm),
                columns::checksum_of_number(row.checksum.of),
                row.checksum.value,
                int(row.crc64nvme),
                row.headers.content_type,
                row.headers.cache_control,
                row.headers.content_disposition,
                row.headers.content_encoding,
                row.headers.content_language,
                row.headers.expires,
                row.headers.website_redirect_location,
                columns::pairs_json(&row.headers.user),
                columns::pairs_json(&row.tags),
                int(row.last_modified.unix_ms),
                row.parts,
                content,
                slice.map(|slice| blob_bytes(slice.blob)),
                slice.map(|slice| int(slice.offset)),
                slice.map(|slice| int(slice.length)),
                class,
                class_name,
                row.envelope,
                row.retention.map(|retention| columns::retention_number(retention.mode)),
                row.retention.map(|retention| int(retention.until.unix_ms)),
                row.legal_hold,
            ],
        )
    }

    fn delete_head(&mut self, bucket: BucketId, key: &[u8]) -> Result<(), RowsError> {
        self.run("DELETE FROM heads WHERE bucket = ?1 AND key = ?2", params![int(bucket.0), key])
    }

    fn heads(
        &self,
        bucket: BucketId,
        from: &[u8],
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<ListedRow>, RowsError> {
        let sql = format!(
            "SELECT {} FROM heads WHERE bucket = ?1 AND key >= ?2 AND key < ?3 AND delete_marker = 0 \
             ORDER BY key LIMIT ?4",
            columns::LISTED
        );
        self.many(&sql, params![int(bucket.0), from, until.unwrap_or(END), limit(max)], columns::listed)
    }

    fn has_versions(&self, bucket: BucketId) -> Result<bool, RowsError> {
        Ok(self.exists("SELECT 1 FROM heads WHERE bucket = ?1 LIMIT 1", [int(bucket.0)])?
            || self.exists("SELECT 1 FROM versions WHERE bucket = ?1 LIMIT 1", [int(bucket.0)])?)
    }

    fn segments(
        &self,
        bucket: BucketId,
        version: Generation,
        range: Range<u64>,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError> {
        let sql = format!(
            "SELECT {} FROM segments WHERE bucket = ?1 AND version = ?2 AND start < ?4 AND start >= coalesce((\
                 SELECT max(start) FROM segments WHERE bucket = ?1 AND version = ?2 AND start <= ?3), 0) \
             ORDER BY start LIMIT ?5",
            columns::SEGMENT
        );
        self.many(
            &sql,
            params![int(bucket.0), int(version.0), bound(range.start), bound(range.end), limit(max)],
            columns::segment,
        )
    }

    fn segments_of_parts(
        &self,
        bucket: BucketId,
        version: Generation,
        after: u16,
        max: usize,
    ) -> Result<Vec<SegmentRow>, RowsError> {
        let sql = format!(
            "SELECT {} FROM segments WHERE bucket = ?1 AND version = ?2 AND part > ?3 ORDER BY start LIMIT ?4",
            columns::SEGMENT
        );
        self.many(&sql, params![int(bucket.0), int(version.0), after, limit(max)], columns::segment)
    }

    fn put_segment(&mut self, bucket: BucketId, version: Generation, row: &SegmentRow) -> Result<(), RowsError> {
        let sql = format!(
            "INSERT OR REPLACE INTO segments (bucket, version, {}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            columns::SEGMENT
        );
        let part = row.part.as_ref();
        self.run(
            &sql,
            params![
                int(bucket.0),
                int(version.0),
                int(row.start),
                row.slice.map(|slice| blob_bytes(slice.blob)),
                row.slice.map(|slice| int(slice.offset)),
                row.slice.map(|slice| int(slice.length)),
                part.map(|part| part.number),
                part.map(|part| int(part.size)),
                part.map(|part| &part.etag.0),
                part.map(|part| columns::algorithm_number(part.checksum.algorithm)),
                part.map(|part| columns::checksum_of_number(part.checksum.of)),
                part.map(|part| &part.checksum.value),
            ],
        )
    }

    fn delete_segments(&mut self, bucket: BucketId, version: Generation) -> Result<(), RowsError> {
        self.run("DELETE FROM segments WHERE bucket = ?1 AND version = ?2", [int(bucket.0), int(version.0)])
    }

    fn blob(&self, blob: BlobId) -> Result<Option<BlobRow>, RowsError> {
        let sql = format!("SELECT {} FROM blobs WHERE blob = ?1", columns::BLOB);
        self.one(&sql, [blob_bytes(blob)], columns::blob)
    }

    fn put_blob(&mut self, row: &BlobRow) -> Result<(), RowsError> {
        let sql = format!("INSERT OR REPLACE INTO blobs ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", columns::BLOB);
        self.run(
            &sql,
            params![
                blob_bytes(row.blob),
                row.profile.data,
                row.profile.parity,
                int(row.length),
                columns::places_bytes(&row.places),
                row.references,
                columns::blob_state_number(row.state),
                row.envelope,
            ],
        )
    }

    fn delete_blob(&mut self, blob: BlobId) -> Result<(), RowsError> {
        self.run("DELETE FROM blobs WHERE blob = ?1", [blob_bytes(blob)])
    }

    fn blobs(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError> {
        // No blob has the id 0: lives are counted from 1.
        let after = after.map_or([0; 16], blob_bytes);
        let sql = format!("SELECT {} FROM blobs WHERE blob > ?1 ORDER BY blob LIMIT ?2", columns::BLOB);
        self.many(&sql, params![after, limit(max)], columns::blob)
    }

    fn blobs_in_debt(&self, after: Option<BlobId>, max: usize) -> Result<Vec<BlobRow>, RowsError> {
        let after = after.map_or([0; 16], blob_bytes);
        // The condition is that of the index, word for word, so that the index serves it; the filter does not mistake
        // zeros across two disks for one.
        let sql = format!(
            "SELECT {} FROM blobs WHERE state = 1 AND instr(places, zeroblob(16)) > 0 AND blob > ?1 \
             ORDER BY blob LIMIT ?2",
            columns::BLOB
        );
        let mut rows = self.many(&sql, params![after, limit(max)], columns::blob)?;
        rows.retain(|row| row.needs_repair_of(DiskId::NONE));
        Ok(rows)
    }

    fn garbage(&self, after: Option<(Generation, BlobId)>, max: usize) -> Result<Vec<GarbageRow>, RowsError> {
        let sql = "SELECT generation, blob, since_ms FROM garbage WHERE (generation, blob) > (?1, ?2) \
                   ORDER BY generation, blob LIMIT ?3";
        // Generations begin at 1.
        let (generation, blob) = after.map_or((0, [0; 16]), |(generation, blob)| (int(generation.0), blob_bytes(blob)));
        self.many(sql, params![generation, blob, limit(max)], |row| {
            let mut c = Columns::new(row);
            Ok(GarbageRow { generation: c.generation()?, blob: c.blob_id()?, since: c.time()? })
        })
    }

    fn put_garbage(&mut self, row: &GarbageRow) -> Result<(), RowsError> {
        self.run(
            "INSERT OR REPLACE INTO garbage (generation, blob, since_ms) VALUES (?1, ?2, ?3)",
            params![int(row.generation.0), blob_bytes(row.blob), int(row.since.unix_ms)],
        )
    }

    fn delete_garbage(&mut self, generation: Generation, blob: BlobId) -> Result<(), RowsError> {
        let sql = "DELETE FROM garbage WHERE generation = ?1 AND blob = ?2";
        self.run(sql, params![int(generation.0), blob_bytes(blob)])
    }

    fn upload(&self, upload: UploadId) -> Result<Option<UploadRow>, RowsError> {
        let sql = format!("SELECT {} FROM uploads WHERE upload = ?1", columns::UPLOAD);
        self.one(&sql, [upload.0.to_be_bytes()], columns::upload)
    }

    fn put_upload(&mut self, row: &UploadRow) -> Result<(), RowsError> {
        let sql = format!(
            "INSERT OR REPLACE INTO uploads ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
             ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)",
            columns::UPLOAD
        );
        let done = row.completed.as_ref();
        let result = done.map(|done| &done.result);
        let (class, class_name) = columns::storage_class_columns(&row.storage_class);
        self.run(
            &sql,
            params![
                row.upload.0.to_be_bytes(),
                int(row.bucket.0),
                row.key,
                int(row.owner.0),
                row.headers.content_type,
                row.headers.cache_control,
                row.headers.content_disposition,
                row.headers.content_encoding,
                row.headers.content_language,
                row.headers.expires,
                row.headers.website_redirect_location,
                columns::pairs_json(&row.headers.user),
                columns::pairs_json(&row.tags),
                row.checksum.map(|(algorithm, _)| columns::algorithm_number(algorithm)),
                row.checksum.map(|(_, of)| columns::checksum_of_number(of)),
                class,
                class_name,
                row.envelope,
                int(row.initiated_at.unix_ms),
                result.map(|result| int(result.written.last_modified.unix_ms)),
                done.map(|done| done.list),
                result.map(|result| int(result.written.generation.0)),
                result.map(|result| &result.etag.0),
                result.map(|result| int(result.size)),
                result.map(|result| columns::algorithm_number(result.checksum.algorithm)),
                result.map(|result| columns::checksum_of_number(result.checksum.of)),
                result.map(|result| &result.checksum.value),
            ],
        )
    }

    fn delete_upload(&mut self, upload: UploadId) -> Result<(), RowsError> {
        self.run("DELETE FROM uploads WHERE upload = ?1", [upload.0.to_be_bytes()])
    }

    fn open_uploads(
        &self,
        bucket: BucketId,
        from: (&[u8], UploadId),
        until: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<UploadRow>, RowsError> {
        let sql = format!(
            "SELECT {} FROM uploads WHERE bucket = ?1 AND (key, upload) >= (?2, ?3) AND key < ?4 \
             AND completed_at_ms IS NULL ORDER BY key, upload LIMIT ?5",
            columns::UPLOAD
        );
        self.many(
            &sql,
            params![int(bucket.0), from.0, from.1.0.to_be_bytes(), until.unwrap_or(END), limit(max)],
            columns::upload,
        )
    }

    fn uploads(&self, after: Option<UploadId>, max: usize) -> Result<Vec<UploadRow>, RowsError> {
        let sql = format!("SELECT {} FROM uploads WHERE upload > ?1 ORDER BY upload LIMIT ?2", columns::UPLOAD);
        // No bytes are before all ids.
        let after = after.map_or_else(Vec::new, |upload| upload.0.to_be_bytes().to_vec());
        self.many(&sql, params![after, limit(max)], columns::upload)
    }

    fn uploads_completed_before(&self, before: WallTime, max: usize) -> Result<Vec<UploadId>, RowsError> {
        let sql = "SELECT upload FROM uploads WHERE completed_at_ms < ?1 ORDER BY completed_at_ms, upload LIMIT ?2";
        self.many(sql, params![bound(before.unix_ms), limit(max)], |row| Columns::new(row).id().map(UploadId))
    }

    fn part(&self, upload: UploadId, number: u16) -> Result<Option<PartRow>, RowsError> {
        let sql = format!("SELECT {} FROM parts WHERE upload = ?1 AND number = ?2", columns::PART);
        self.one(&sql, params![upload.0.to_be_bytes(), number], columns::part)
    }

    fn parts(&self, upload: UploadId, after: u16, max: usize) -> Result<Vec<PartRow>, RowsError> {
        let sql =
            format!("SELECT {} FROM parts WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3", columns::PART);
        self.many(&sql, params![upload.0.to_be_bytes(), after, limit(max)], columns::part)
    }

    fn put_part(&mut self, upload: UploadId, row: &PartRow) -> Result<(), RowsError> {
        let sql = format!(
            "INSERT OR REPLACE INTO parts (upload, {}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            columns::PART
        );
        let (slice, slices) = columns::part_slices(&row.slices);
        self.run(
            &sql,
            params![
                upload.0.to_be_bytes(),
                row.number,
                row.write.0.to_be_bytes(),
                int(row.size),
                row.etag.0,
                columns::algorithm_number(row.checksum.algorithm),
                columns::checksum_of_number(row.checksum.of),
                row.checksum.value,
                int(row.crc64nvme),
                int(row.last_modified.unix_ms),
                slice.map(|slice| blob_bytes(slice.blob)),
                slice.map(|slice| int(slice.offset)),
                slice.map(|slice| int(slice.length)),
                row.envelope,
                slices,
            ],
        )
    }

    fn delete_parts(&mut self, upload: UploadId) -> Result<(), RowsError> {
        self.run("DELETE FROM parts WHERE upload = ?1", [upload.0.to_be_bytes()])
    }
}
