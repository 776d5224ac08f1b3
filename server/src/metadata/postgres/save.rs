//! Writes what a pass changed: all rows of a table by one statement, all statements behind one another in one round trip,
//! the commit behind them.
//!
//! What was not there when it was looked for, and is not protected by the lock of its key, is inserted and never
//! replaced: if somebody else has made it since, the statement fails and the batch is decided anew.

use std::sync::LazyLock;

use anvil_model::ids::{BlobId, NodeId, TenantId, UploadId};
use anvil_node::metadata::rows::{
    BlobRow, BlobState, BucketRow, GarbageRow, PartRow, SegmentRow, UploadRow, VersionRow, WriteRow, WriterRow,
};
use anvil_node::metadata::usage::{Quota, Usage, UsageOf};
use futures_util::future::{LocalBoxFuture, join, join_all};

use super::columns::{
    Arrays, BLOB, BUCKET, GARBAGE, HEAD, PART, SEGMENT, TENANT_QUOTA, UPLOAD, USAGE, WRITE, WRITER, blob_bytes,
    id_bytes, insert, int, small, upsert,
};
use super::rows::{Changes, Found, Place, Version};
use super::session::{Session, SqlError};
use crate::metadata::columns as sets;

/// Statements with their rows, in the order in which they run.
pub(super) struct Writes<'c> {
    statements: Vec<(&'static str, Arrays<'c>)>,
}

/// What became of the writes.
pub(super) enum Saved {
    Committed,
    /// Nothing happened, for certain.
    Nothing(SqlError),
    /// The commit may have happened, or may yet.
    Unknown(SqlError),
}

/// Rows by table, borrowed, so that each table's are one list.
pub(super) struct Tables<'c> {
    writers: Vec<&'c WriterRow>,
    writes: Vec<&'c WriteRow>,
    buckets: Vec<&'c BucketRow>,
    buckets_gone: Vec<i64>,
    heads: Vec<(&'c Place, &'c VersionRow)>,
    heads_gone: Vec<&'c Place>,
    segments: Vec<(Version, &'c SegmentRow)>,
    segments_gone: Vec<Version>,
    blobs_new: Vec<&'c BlobRow>,
    blobs_changed: Vec<&'c BlobRow>,
    blobs_gone: Vec<BlobId>,
    garbage: Vec<&'c GarbageRow>,
    garbage_gone: Vec<(anvil_model::ids::Generation, BlobId)>,
    uploads_new: Vec<&'c UploadRow>,
    uploads_changed: Vec<&'c UploadRow>,
    uploads_gone: Vec<UploadId>,
    parts: Vec<(UploadId, &'c PartRow)>,
    parts_gone: Vec<UploadId>,
    usage: Vec<(NodeId, UsageOf, Usage)>,
    usage_gone: Vec<UsageOf>,
    tenant_quotas: Vec<(TenantId, Quota)>,
}

impl<'c> Tables<'c> {
    /// The rows of a pass; what it adds to usage is `node`'s.
    pub(super) fn of(found: &Found, changes: &'c Changes, node: NodeId) -> Self {
        let was_there = |blob: &BlobId| matches!(found.blobs.get(blob), Some(Some(_)));
        let blobs = || changes.blobs.values().flatten();
        let upload_was_there = |upload: &UploadId| matches!(found.uploads.get(upload), Some(Some(_)));
        let uploads = || changes.uploads.values().flatten();
        Self {
            writers: changes.writers.values().collect(),
            writes: changes.writes.values().collect(),
            buckets: changes.buckets.values().flatten().collect(),
            buckets_gone: changes.buckets.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| int(id.0)).collect(),
            heads: changes.heads.iter().filter_map(|(place, row)| Some((place, row.as_ref()?))).collect(),
            heads_gone: changes.heads.iter().filter(|(_, row)| row.is_none()).map(|(place, _)| place).collect(),
            segments: changes
                .segments
                .iter()
                .flat_map(|(version, rows)| rows.values().map(move |row| (*version, row)))
                .collect(),
            segments_gone: changes.segments_dropped.iter().copied().collect(),
            blobs_new: blobs().filter(|row| !was_there(&row.blob)).collect(),
            blobs_changed: blobs().filter(|row| was_there(&row.blob)).collect(),
            blobs_gone: changes.blobs.iter().filter(|(_, row)| row.is_none()).map(|(blob, _)| *blob).collect(),
            garbage: changes.garbage.values().flatten().collect(),
            garbage_gone: changes.garbage.iter().filter(|(_, row)| row.is_none()).map(|(line, _)| *line).collect(),
            uploads_new: uploads().filter(|row| !upload_was_there(&row.upload)).collect(),
            uploads_changed: uploads().filter(|row| upload_was_there(&row.upload)).collect(),
            uploads_gone: changes.uploads.iter().filter(|(_, row)| row.is_none()).map(|(upload, _)| *upload).collect(),
            parts: changes.parts.iter().map(|((upload, _), row)| (*upload, row)).collect(),
            parts_gone: changes.parts_dropped.iter().copied().collect(),
            usage: changes.usage.iter().map(|(of, change)| (node, *of, *change)).collect(),
            usage_gone: changes.usage_dropped.iter().copied().collect(),
            tenant_quotas: changes.tenant_quotas.iter().map(|(tenant, quota)| (*tenant, *quota)).collect(),
        }
    }
}

impl<'c> Writes<'c> {
    /// The statements for these rows; none for a table that does not change.
    pub(super) fn of(tables: &'c Tables<'c>) -> Self {
        let mut writes = Self { statements: Vec::new() };
        writes.add(&INSERT_WRITES, &tables.writes, write_columns);
        writes.add(&UPSERT_WRITERS, &tables.writers, writer_columns);
        // This program adds up usage.
        writes.add(UPSERT_USAGE_WRITERS, &tables.writers, |arrays, rows| {
            arrays.push(rows, |row| i64::from(row.node.0));
            arrays.push(rows, |row| i64::from(row.incarnation.0));
        });
        writes.add(&UPSERT_TENANT_QUOTAS, &tables.tenant_quotas, |arrays, rows| {
            arrays.push(rows, |(tenant, _)| int(tenant.0));
            arrays.push(rows, |(_, quota)| quota.bytes.map(int));
            arrays.push(rows, |(_, quota)| quota.objects.map(int));
        });
        writes.add(&UPSERT_BUCKETS, &tables.buckets, bucket_columns);
        writes.add(DELETE_BUCKETS, &tables.buckets_gone, |arrays, rows| arrays.push(rows, |id| *id));
        writes.add(DELETE_HEADS, &tables.heads_gone, |arrays, rows| {
            arrays.push(rows, |place| int(place.0.0));
            arrays.push(rows, |place| place.1.as_slice());
        });
        writes.add(&UPSERT_HEADS, &tables.heads, head_columns);
        writes.add(DELETE_SEGMENTS, &tables.segments_gone, |arrays, rows| {
            arrays.push(rows, |(bucket, _)| int(bucket.0));
            arrays.push(rows, |(_, version)| int(version.0));
        });
        writes.add(&INSERT_SEGMENTS, &tables.segments, segment_columns);
        writes.add(&INSERT_BLOBS, &tables.blobs_new, blob_columns);
        writes.add(UPDATE_BLOBS, &tables.blobs_changed, |arrays, rows| {
            arrays.push(rows, |row| blob_bytes(row.blob));
            arrays.push(rows, |row| i16::from(row.profile.data));
            arrays.push(rows, |row| i16::from(row.profile.parity));
            arrays.push(rows, |row| sets::places_bytes(&row.places));
            arrays.push(rows, |row| i64::from(row.references));
            arrays.push(rows, |row| small(sets::blob_state_number(row.state)));
            arrays.push(rows, |row| in_debt(row));
        });
        writes.add(DELETE_BLOBS, &tables.blobs_gone, |arrays, rows| arrays.push(rows, |blob| blob_bytes(*blob)));
        writes.add(&INSERT_GARBAGE, &tables.garbage, |arrays, rows| {
            arrays.push(rows, |row| int(row.generation.0));
            arrays.push(rows, |row| blob_bytes(row.blob));
            arrays.push(rows, |row| int(row.since.unix_ms));
        });
        writes.add(DELETE_GARBAGE, &tables.garbage_gone, |arrays, rows| {
            arrays.push(rows, |(generation, _)| int(generation.0));
            arrays.push(rows, |(_, blob)| blob_bytes(*blob));
        });
        writes.add(DELETE_PARTS, &tables.parts_gone, |arrays, rows| arrays.push(rows, |upload| id_bytes(upload.0)));
        writes.add(&UPSERT_PARTS, &tables.parts, part_columns);
        writes.add(DELETE_UPLOADS, &tables.uploads_gone, |arrays, rows| arrays.push(rows, |upload| id_bytes(upload.0)));
        writes.add(&INSERT_UPLOADS, &tables.uploads_new, upload_columns);
        writes.add(&UPSERT_UPLOADS, &tables.uploads_changed, upload_columns);
        writes.add(DELETE_USAGE, &tables.usage_gone, |arrays, rows| {
            arrays.push(rows, |of| small(sets::usage_scope(*of).0));
            arrays.push(rows, |of| int(sets::usage_scope(*of).1));
        });
        // In the order of the keys, and last: others wait for these rows for as short as can be.
        writes.add(&ADD_USAGE, &tables.usage, |arrays, rows| {
            arrays.push(rows, |(_, of, _)| small(sets::usage_scope(*of).0));
            arrays.push(rows, |(_, of, _)| int(sets::usage_scope(*of).1));
            arrays.push(rows, |(node, ..)| i64::from(node.0));
            arrays.push(rows, |(.., change)| change.objects);
            arrays.push(rows, |(.., change)| change.object_bytes);
            arrays.push(rows, |(.., change)| change.upload_bytes);
        });
        writes
    }

    fn add<R>(&mut self, sql: &'static str, rows: &'c [R], columns: impl FnOnce(&mut Arrays<'c>, &'c [R])) {
        if rows.is_empty() {
            return;
        }
        let mut arrays = Arrays::default();
        columns(&mut arrays, rows);
        self.statements.push((sql, arrays));
    }

    /// Sends all of it with the commit behind, and waits for the answers. `sent` is told before the first byte that may
    /// commit goes out.
    pub(super) async fn commit(&self, session: &Session, sent: impl FnOnce()) -> Saved {
        // Preparing comes first: it would let the commit overtake a statement.
        for (sql, _) in &self.statements {
            if let Err(error) = session.prepare(sql).await {
                return Saved::Nothing(error);
            }
        }
        sent();
        let statements = self.statements.iter().map(|(sql, arrays)| -> LocalBoxFuture<'_, Result<u64, SqlError>> {
            Box::pin(async move { session.execute(sql, &arrays.parameters()).await })
        });
        let (written, committed) = join(join_all(statements), session.run("COMMIT")).await;
        // An answer that says no to a statement before the commit means that there was nothing to commit.
        match written.into_iter().find_map(Result::err) {
            Some(error) if error.is_an_answer() => return Saved::Nothing(error),
            Some(error) => return Saved::Unknown(error),
            None => {}
        }
        match committed {
            Ok(()) => Saved::Committed,
            // A server that is being stopped ends a connection that may have committed already.
            Err(error) if error.is_an_answer() && error.meaning() != super::session::Meaning::Lost => {
                Saved::Nothing(error)
            }
            Err(error) => Saved::Unknown(error),
        }
    }
}

fn writer_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [&'c WriterRow]) {
    arrays.push(rows, |row| i64::from(row.node.0));
    arrays.push(rows, |row| i64::from(row.incarnation.0));
    arrays.push(rows, |row| int(row.opened_at.unix_ms));
}

fn write_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [&'c WriteRow]) {
    arrays.push(rows, |row| int(row.generation.0));
    arrays.push(rows, |row| id_bytes(row.write.0));
    arrays.push(rows, |row| row.outcome.to_bytes());
}

fn bucket_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [&'c BucketRow]) {
    arrays.push(rows, |row| int(row.id.0));
    arrays.push(rows, |row| row.name.as_str());
    arrays.push(rows, |row| int(row.tenant.0));
    arrays.push(rows, |row| row.region.as_str());
    arrays.push(rows, |row| small(sets::bucket_state_number(row.state)));
    arrays.push(rows, |row| int(row.generation.0));
    arrays.push(rows, |row| int(row.created_at.unix_ms));
    arrays.push(rows, |row| small(sets::versioning_number(row.versioning)));
    arrays.push(rows, |row| small(sets::ownership_number(row.ownership)));
    arrays.push(rows, |row| small(sets::public_access_number(row.public_access_block)));
    arrays.push(rows, |row| row.object_lock.is_some());
    arrays.push(rows, |row| row.object_lock.and_then(|lock| lock.mode).map(|mode| small(sets::retention_number(mode))));
    arrays.push(rows, |row| row.object_lock.map(|lock| i64::from(lock.days)));
    arrays.push(rows, |row| row.encryption.as_deref());
    arrays.push(rows, |row| sets::storage_class_columns(&row.storage_class).1);
    arrays.push(rows, |row| row.quota.bytes.map(int));
    arrays.push(rows, |row| row.quota.objects.map(int));
}

fn head_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [(&'c Place, &'c VersionRow)]) {
    arrays.push(rows, |(place, _)| int(place.0.0));
    arrays.push(rows, |(place, _)| place.1.as_slice());
    arrays.push(rows, |(_, row)| int(row.generation.0));
    arrays.push(rows, |(_, row)| id_bytes(row.write.0));
    arrays.push(rows, |(_, row)| row.null);
    arrays.push(rows, |(_, row)| row.delete_marker);
    arrays.push(rows, |(_, row)| int(row.owner.0));
    arrays.push(rows, |(_, row)| row.etag.0.as_str());
    arrays.push(rows, |(_, row)| int(row.size));
    arrays.push(rows, |(_, row)| small(sets::algorithm_number(row.checksum.algorithm)));
    arrays.push(rows, |(_, row)| small(sets::checksum_of_number(row.checksum.of)));
    arrays.push(rows, |(_, row)| row.checksum.value.as_slice());
    arrays.push(rows, |(_, row)| int(row.crc64nvme));
    arrays.push(rows, |(_, row)| row.headers.content_type.as_deref());
    arrays.push(rows, |(_, row)| row.headers.cache_control.as_deref());
    arrays.push(rows, |(_, row)| row.headers.content_disposition.as_deref());
    arrays.push(rows, |(_, row)| row.headers.content_encoding.as_deref());
    arrays.push(rows, |(_, row)| row.headers.content_language.as_deref());
    arrays.push(rows, |(_, row)| row.headers.expires.as_deref());
    arrays.push(rows, |(_, row)| row.headers.website_redirect_location.as_deref());
    arrays.push(rows, |(_, row)| sets::pairs_json(&row.headers.user));
    arrays.push(rows, |(_, row)| sets::pairs_json(&row.tags));
    arrays.push(rows, |(_, row)| int(row.last_modified.unix_ms));
    arrays.push(rows, |(_, row)| row.parts.map(i32::from));
    arrays.push(rows, |(_, row)| small(sets::content_number(row.content).0));
    arrays.push(rows, |(_, row)| sets::content_number(row.content).1.map(|slice| blob_bytes(slice.blob)));
    arrays.push(rows, |(_, row)| sets::content_number(row.content).1.map(|slice| int(slice.offset)));
    arrays.push(rows, |(_, row)| sets::content_number(row.content).1.map(|slice| int(slice.length)));
    arrays.push(rows, |(_, row)| small(sets::storage_class_columns(&row.storage_class).0));
    arrays.push(rows, |(_, row)| sets::storage_class_columns(&row.storage_class).1);
    arrays.push(rows, |(_, row)| row.envelope.as_deref());
    arrays.push(rows, |(_, row)| row.retention.map(|retention| small(sets::retention_number(retention.mode))));
    arrays.push(rows, |(_, row)| row.retention.map(|retention| int(retention.until.unix_ms)));
    arrays.push(rows, |(_, row)| row.legal_hold);
}

fn segment_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [(Version, &'c SegmentRow)]) {
    arrays.push(rows, |((bucket, _), _)| int(bucket.0));
    arrays.push(rows, |((_, version), _)| int(version.0));
    arrays.push(rows, |(_, row)| int(row.start));
    arrays.push(rows, |(_, row)| row.slice.map(|slice| blob_bytes(slice.blob)));
    arrays.push(rows, |(_, row)| row.slice.map(|slice| int(slice.offset)));
    arrays.push(rows, |(_, row)| row.slice.map(|slice| int(slice.length)));
    arrays.push(rows, |(_, row)| row.part.as_ref().map(|part| i32::from(part.number)));
    arrays.push(rows, |(_, row)| row.part.as_ref().map(|part| int(part.size)));
    arrays.push(rows, |(_, row)| row.part.as_ref().map(|part| part.etag.0.as_str()));
    arrays.push(rows, |(_, row)| row.part.as_ref().map(|part| small(sets::algorithm_number(part.checksum.algorithm))));
    arrays.push(rows, |(_, row)| row.part.as_ref().map(|part| small(sets::checksum_of_number(part.checksum.of))));
    arrays.push(rows, |(_, row)| row.part.as_ref().map(|part| part.checksum.value.as_slice()));
}

fn blob_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [&'c BlobRow]) {
    arrays.push(rows, |row| blob_bytes(row.blob));
    arrays.push(rows, |row| i16::from(row.profile.data));
    arrays.push(rows, |row| i16::from(row.profile.parity));
    arrays.push(rows, |row| int(row.length));
    arrays.push(rows, |row| sets::places_bytes(&row.places));
    arrays.push(rows, |row| i64::from(row.references));
    arrays.push(rows, |row| small(sets::blob_state_number(row.state)));
    arrays.push(rows, |row| in_debt(row));
    arrays.push(rows, |row| row.envelope.as_deref());
}

/// What the column `in_debt` says: live, with a shard whose place is zero.
fn in_debt(row: &BlobRow) -> bool {
    row.state == BlobState::Live && row.needs_repair_of(anvil_model::ids::DiskId::NONE)
}

fn upload_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [&'c UploadRow]) {
    arrays.push(rows, |row| id_bytes(row.upload.0));
    arrays.push(rows, |row| int(row.bucket.0));
    arrays.push(rows, |row| row.key.as_slice());
    arrays.push(rows, |row| int(row.owner.0));
    arrays.push(rows, |row| row.headers.content_type.as_deref());
    arrays.push(rows, |row| row.headers.cache_control.as_deref());
    arrays.push(rows, |row| row.headers.content_disposition.as_deref());
    arrays.push(rows, |row| row.headers.content_encoding.as_deref());
    arrays.push(rows, |row| row.headers.content_language.as_deref());
    arrays.push(rows, |row| row.headers.expires.as_deref());
    arrays.push(rows, |row| row.headers.website_redirect_location.as_deref());
    arrays.push(rows, |row| sets::pairs_json(&row.headers.user));
    arrays.push(rows, |row| sets::pairs_json(&row.tags));
    arrays.push(rows, |row| row.checksum.map(|(algorithm, _)| small(sets::algorithm_number(algorithm))));
    arrays.push(rows, |row| row.checksum.map(|(_, of)| small(sets::checksum_of_number(of))));
    arrays.push(rows, |row| small(sets::storage_class_columns(&row.storage_class).0));
    arrays.push(rows, |row| sets::storage_class_columns(&row.storage_class).1);
    arrays.push(rows, |row| row.envelope.as_deref());
    arrays.push(rows, |row| int(row.initiated_at.unix_ms));
    arrays.push(rows, |row| row.completed.as_ref().map(|done| int(done.result.written.last_modified.unix_ms)));
    arrays.push(rows, |row| row.completed.as_ref().map(|done| done.list.as_slice()));
    arrays.push(rows, |row| row.completed.as_ref().map(|done| int(done.result.written.generation.0)));
    arrays.push(rows, |row| row.completed.as_ref().map(|done| done.result.etag.0.as_str()));
    arrays.push(rows, |row| row.completed.as_ref().map(|done| int(done.result.size)));
    arrays.push(rows, |row| {
        row.completed.as_ref().map(|done| small(sets::algorithm_number(done.result.checksum.algorithm)))
    });
    arrays
        .push(rows, |row| row.completed.as_ref().map(|done| small(sets::checksum_of_number(done.result.checksum.of))));
    arrays.push(rows, |row| row.completed.as_ref().map(|done| done.result.checksum.value.as_slice()));
}

fn part_columns<'c>(arrays: &mut Arrays<'c>, rows: &'c [(UploadId, &'c PartRow)]) {
    arrays.push(rows, |(upload, _)| id_bytes(upload.0));
    arrays.push(rows, |(_, row)| i32::from(row.number));
    arrays.push(rows, |(_, row)| id_bytes(row.write.0));
    arrays.push(rows, |(_, row)| int(row.size));
    arrays.push(rows, |(_, row)| row.etag.0.as_str());
    arrays.push(rows, |(_, row)| small(sets::algorithm_number(row.checksum.algorithm)));
    arrays.push(rows, |(_, row)| small(sets::checksum_of_number(row.checksum.of)));
    arrays.push(rows, |(_, row)| row.checksum.value.as_slice());
    arrays.push(rows, |(_, row)| int(row.crc64nvme));
    arrays.push(rows, |(_, row)| int(row.last_modified.unix_ms));
    arrays.push(rows, |(_, row)| sets::part_slices(&row.slices).0.map(|slice| blob_bytes(slice.blob)));
    arrays.push(rows, |(_, row)| sets::part_slices(&row.slices).0.map(|slice| int(slice.offset)));
    arrays.push(rows, |(_, row)| sets::part_slices(&row.slices).0.map(|slice| int(slice.length)));
    arrays.push(rows, |(_, row)| row.envelope.as_deref());
    arrays.push(rows, |(_, row)| sets::part_slices(&row.slices).1);
}

type Sql = LazyLock<String>;

static INSERT_WRITES: Sql = LazyLock::new(|| insert("writes", WRITE));
static UPSERT_WRITERS: Sql = LazyLock::new(|| upsert("writers", WRITER, "node"));
static UPSERT_BUCKETS: Sql = LazyLock::new(|| upsert("buckets", BUCKET, "id"));
const DELETE_BUCKETS: &str = "DELETE FROM buckets WHERE id = ANY($1::bigint[])";
static UPSERT_HEADS: Sql = LazyLock::new(|| upsert("heads", HEAD, "bucket, key"));
const DELETE_HEADS: &str = "DELETE FROM heads AS h USING unnest($1::bigint[], $2::bytea[]) AS gone (bucket, key) \
                            WHERE h.bucket = gone.bucket AND h.key = gone.key";
static INSERT_SEGMENTS: Sql = LazyLock::new(|| insert("segments", SEGMENT));
const DELETE_SEGMENTS: &str = "DELETE FROM segments AS s USING unnest($1::bigint[], $2::bigint[]) AS gone (bucket, version) \
                               WHERE s.bucket = gone.bucket AND s.version = gone.version";
static INSERT_BLOBS: Sql = LazyLock::new(|| insert("blobs", BLOB));
const UPDATE_BLOBS: &str = "UPDATE blobs AS b SET data_shards = new.data_shards, parity_shards = new.parity_shards, \
    places = new.places, refs = new.refs, state = new.state, in_debt = new.in_debt \
    FROM unnest($1::bytea[], $2::smallint[], $3::smallint[], $4::bytea[], $5::bigint[], $6::smallint[], $7::boolean[]) \
    AS new (blob, data_shards, parity_shards, places, refs, state, in_debt) WHERE b.blob = new.blob";
const DELETE_BLOBS: &str = "DELETE FROM blobs WHERE blob = ANY($1::bytea[])";
static INSERT_GARBAGE: Sql = LazyLock::new(|| insert("garbage", GARBAGE));
const DELETE_GARBAGE: &str = "DELETE FROM garbage AS g USING unnest($1::bigint[], $2::bytea[]) AS gone (generation, blob) \
                              WHERE g.generation = gone.generation AND g.blob = gone.blob";
static INSERT_UPLOADS: Sql = LazyLock::new(|| insert("uploads", UPLOAD));
static UPSERT_UPLOADS: Sql = LazyLock::new(|| upsert("uploads", UPLOAD, "upload"));
const DELETE_UPLOADS: &str = "DELETE FROM uploads WHERE upload = ANY($1::bytea[])";
static UPSERT_PARTS: Sql = LazyLock::new(|| upsert("parts", PART, "upload, number"));
const DELETE_PARTS: &str = "DELETE FROM parts WHERE upload = ANY($1::bytea[])";

const UPSERT_USAGE_WRITERS: &str = "INSERT INTO usage_writers (node, incarnation) \
    SELECT * FROM unnest($1::bigint[], $2::bigint[]) ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation";
static UPSERT_TENANT_QUOTAS: Sql = LazyLock::new(|| upsert("tenant_quotas", TENANT_QUOTA, "tenant"));
const DELETE_USAGE: &str = "DELETE FROM usage AS u USING unnest($1::smallint[], $2::bigint[]) AS gone (scope, id) \
                            WHERE u.scope = gone.scope AND u.id = gone.id";
static ADD_USAGE: Sql = LazyLock::new(|| {
    format!(
        "{} ON CONFLICT (scope, id, node) DO UPDATE SET objects = usage.objects + excluded.objects, \
         object_bytes = usage.object_bytes + excluded.object_bytes, \
         upload_bytes = usage.upload_bytes + excluded.upload_bytes",
        insert("usage", USAGE)
    )
});

/// Every statement that writes, for the test that explains them.
#[cfg(test)]
pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    named![
        INSERT_WRITES,
        UPSERT_WRITERS,
        UPSERT_BUCKETS,
        DELETE_BUCKETS,
        UPSERT_HEADS,
        DELETE_HEADS,
        INSERT_SEGMENTS,
        DELETE_SEGMENTS,
        INSERT_BLOBS,
        UPDATE_BLOBS,
        DELETE_BLOBS,
        INSERT_GARBAGE,
        DELETE_GARBAGE,
        INSERT_UPLOADS,
        UPSERT_UPLOADS,
        DELETE_UPLOADS,
        UPSERT_PARTS,
        DELETE_PARTS,
        UPSERT_USAGE_WRITERS,
        UPSERT_TENANT_QUOTAS,
        DELETE_USAGE,
        ADD_USAGE,
    ]
}
