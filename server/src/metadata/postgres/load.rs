//! Loads what passes need: all needs of one kind by one statement, all statements behind one another in one round trip.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anvil_model::ids::{BlobId, UploadId};
use anvil_node::metadata::rows::{Counters, RowsError};
use anvil_node::metadata::usage::{Quota, Usage};
use futures_util::future::{LocalBoxFuture, try_join_all};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::columns::{
    self, BLOB, BUCKET, GARBAGE, HEAD, LISTED, PART, Reader, SEGMENT, TENANT_QUOTA, UPLOAD, WRITE, WRITER, blob_bytes,
    bound, id_bytes, int, names, small,
};
use super::rows::{Found, Need, Scan};
use super::session::{Session, SqlError};
use crate::metadata::columns as sets;

/// Whether the rows are loaded to be changed: then blobs are locked, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    Read,
    Change,
}

/// Loads all of it into `found`.
pub(super) async fn load(
    session: &Session,
    needs: BTreeSet<Need>,
    found: &mut Found,
    aim: Aim,
) -> Result<(), SqlError> {
    let groups = Groups::of(needs);
    let mut loads: Vec<LocalBoxFuture<'_, Result<Loaded, SqlError>>> = Vec::new();
    groups.points(session, aim, &mut loads);
    for need in &groups.scans {
        loads.push(Box::pin(async move { Ok(Loaded::Scan(need.clone(), scan(session, need, aim).await?)) }));
    }
    let loaded = try_join_all(loads).await?;
    groups.note_absent(found);
    for rows in loaded {
        rows.keep(found).map_err(SqlError::Rows)?;
    }
    // Behind the buckets, of which the ids are known only now.
    for (name, key) in groups.named_heads {
        if let Some(Some(bucket)) = found.named.get(&name) {
            found.heads.entry((bucket.id, key)).or_insert(None);
        }
    }
    Ok(())
}

/// Needs by their kind.
#[derive(Default)]
struct Groups {
    writers: Vec<i64>,
    writes: Vec<Vec<u8>>,
    buckets: Vec<i64>,
    names: Vec<String>,
    heads: (Vec<i64>, Vec<Vec<u8>>),
    named_heads: Vec<(String, Vec<u8>)>,
    blobs: Vec<Vec<u8>>,
    blobs_of_heads: (Vec<i64>, Vec<Vec<u8>>),
    uploads: Vec<Vec<u8>>,
    parts: (Vec<Vec<u8>>, Vec<i32>),
    usage: (Vec<i16>, Vec<i64>),
    tenant_quotas: Vec<i64>,
    scans: Vec<Need>,
    points: Vec<Need>,
}

/// What one statement gave.
enum Loaded {
    Writers(Vec<Row>),
    Writes(Vec<Row>),
    Buckets(Vec<Row>),
    Heads(Vec<Row>),
    Blobs(Vec<Row>),
    Uploads(Vec<Row>),
    Parts(Vec<Row>),
    Usage(Vec<Row>),
    TenantQuotas(Vec<Row>),
    Scan(Need, Scan),
}

impl Groups {
    fn of(needs: BTreeSet<Need>) -> Self {
        let mut groups = Self::default();
        for need in needs {
            match &need {
                Need::Writer(node) => groups.writers.push(node.0.into()),
                Need::Write(write) => groups.writes.push(id_bytes(write.0)),
                Need::Bucket(id) => groups.buckets.push(int(id.0)),
                Need::BucketNamed(name) => groups.names.push(name.clone()),
                Need::Head(bucket, key) => {
                    groups.heads.0.push(int(bucket.0));
                    groups.heads.1.push(key.clone());
                }
                Need::HeadNamed(name, key) => {
                    groups.names.push(name.clone());
                    groups.named_heads.push((name.clone(), key.clone()));
                }
                Need::Blob(blob) => groups.blobs.push(blob_bytes(*blob)),
                Need::BlobOfHead(bucket, key) => {
                    groups.blobs_of_heads.0.push(int(bucket.0));
                    groups.blobs_of_heads.1.push(key.clone());
                }
                Need::Upload(upload) => groups.uploads.push(id_bytes(upload.0)),
                Need::Part(upload, number) => {
                    groups.parts.0.push(id_bytes(upload.0));
                    groups.parts.1.push((*number).into());
                }
                Need::Usage(of) => {
                    let (scope, id) = sets::usage_scope(*of);
                    groups.usage.0.push(small(scope));
                    groups.usage.1.push(int(id));
                }
                Need::TenantQuota(tenant) => groups.tenant_quotas.push(int(tenant.0)),
                _ => {
                    groups.scans.push(need);
                    continue;
                }
            }
            groups.points.push(need);
        }
        groups.names.dedup();
        groups
    }

    /// One statement for each kind that is needed.
    fn points<'g>(
        &'g self,
        session: &'g Session,
        aim: Aim,
        loads: &mut Vec<LocalBoxFuture<'g, Result<Loaded, SqlError>>>,
    ) {
        let mut add =
            |empty: bool, sql: &'static str, parameters: Vec<&'g (dyn ToSql + Sync)>, kind: fn(Vec<Row>) -> Loaded| {
                if !empty {
                    loads.push(Box::pin(async move { Ok(kind(session.query(sql, &parameters).await?)) }));
                }
            };
        let blobs_sql = if aim == Aim::Change { &BLOBS_LOCKED } else { &BLOBS };
        add(self.writers.is_empty(), &WRITERS, vec![&self.writers], Loaded::Writers);
        add(self.writes.is_empty(), &WRITES, vec![&self.writes], Loaded::Writes);
        add(self.buckets.is_empty(), &BUCKETS, vec![&self.buckets], Loaded::Buckets);
        add(self.names.is_empty(), &BUCKETS_NAMED, vec![&self.names], Loaded::Buckets);
        add(self.heads.0.is_empty(), &HEADS, vec![&self.heads.0, &self.heads.1], Loaded::Heads);
        let blobs = &self.blobs_of_heads;
        add(blobs.0.is_empty(), &BLOBS_OF_HEADS, vec![&blobs.0, &blobs.1], Loaded::Blobs);
        add(self.blobs.is_empty(), blobs_sql, vec![&self.blobs], Loaded::Blobs);
        add(self.uploads.is_empty(), &UPLOADS, vec![&self.uploads], Loaded::Uploads);
        add(self.parts.0.is_empty(), &PARTS_NUMBERED, vec![&self.parts.0, &self.parts.1], Loaded::Parts);
        add(self.usage.0.is_empty(), USAGE, vec![&self.usage.0, &self.usage.1], Loaded::Usage);
        add(self.tenant_quotas.is_empty(), &TENANT_QUOTAS, vec![&self.tenant_quotas], Loaded::TenantQuotas);
        if !self.named_heads.is_empty() {
            loads.push(Box::pin(async move {
                let (names, keys): (Vec<&str>, Vec<&[u8]>) =
                    self.named_heads.iter().map(|(name, key)| (name.as_str(), key.as_slice())).unzip();
                Ok(Loaded::Heads(session.query(&HEADS_NAMED, &[&names, &keys]).await?))
            }));
        }
    }

    /// What is not found is not there.
    fn note_absent(&self, found: &mut Found) {
        for need in &self.points {
            match need.clone() {
                Need::Writer(node) => drop(found.writers.insert(node, None)),
                Need::Write(write) => drop(found.writes.insert(write, None)),
                Need::Bucket(id) => drop(found.buckets.insert(id, None)),
                Need::BucketNamed(name) | Need::HeadNamed(name, _) => drop(found.named.insert(name, None)),
                Need::Head(bucket, key) => drop(found.heads.insert((bucket, key), None)),
                Need::Blob(blob) => drop(found.blobs.insert(blob, None)),
                Need::Upload(upload) => drop(found.uploads.insert(upload, None)),
                Need::Part(upload, number) => drop(found.parts.insert((upload, number), None)),
                Need::Usage(of) => drop(found.usage.insert(of, Usage::NONE)),
                Need::TenantQuota(tenant) => drop(found.tenant_quotas.insert(tenant, Quota::NONE)),
                _ => {}
            }
        }
    }
}

impl Loaded {
    fn keep(self, found: &mut Found) -> Result<(), RowsError> {
        match self {
            Self::Writers(rows) => {
                for row in rows.iter().map(columns::writer) {
                    let row = row?;
                    found.writers.insert(row.node, Some(row));
                }
            }
            Self::Writes(rows) => {
                for row in rows.iter().map(columns::write) {
                    let row = row?;
                    found.writes.insert(row.write, Some(row));
                }
            }
            Self::Buckets(rows) => {
                for row in rows.iter().map(columns::bucket) {
                    let row = row?;
                    found.named.insert(row.name.as_str().to_owned(), Some(row.clone()));
                    found.buckets.insert(row.id, Some(row));
                }
            }
            Self::Heads(rows) => {
                for row in rows.iter().map(columns::head) {
                    let (place, version) = row?;
                    found.heads.insert(place, Some(version));
                }
            }
            Self::Blobs(rows) => {
                for row in rows.iter().map(columns::blob) {
                    let row = row?;
                    found.blobs.insert(row.blob, Some(row));
                }
            }
            Self::Uploads(rows) => {
                for row in rows.iter().map(columns::upload) {
                    let row = row?;
                    found.uploads.insert(row.upload, Some(row));
                }
            }
            Self::Parts(rows) => {
                for row in rows.iter().map(columns::part) {
                    let (upload, part) = row?;
                    found.parts.insert((upload, part.number), Some(part));
                }
            }
            Self::Usage(rows) => {
                for row in rows.iter().map(columns::usage) {
                    let (of, usage) = row?;
                    found.usage.insert(of, usage);
                }
            }
            Self::TenantQuotas(rows) => {
                for row in rows.iter().map(columns::tenant_quota) {
                    let (tenant, quota) = row?;
                    found.tenant_quotas.insert(tenant, quota);
                }
            }
            Self::Scan(need, scan) => drop(found.scans.insert(need, scan)),
        }
        Ok(())
    }
}

async fn scan(session: &Session, need: &Need, aim: Aim) -> Result<Scan, SqlError> {
    let limit = |max: &usize| i64::try_from(*max).unwrap_or(i64::MAX);
    Ok(match need {
        Need::Counters => Scan::Counters(counters(session).await?),
        Need::Buckets(tenant, after, max) => {
            let rows = session.query(&BUCKETS_OF_TENANT, &[&int(tenant.0), after, &limit(max)]).await?;
            Scan::Buckets(read(&rows, columns::bucket)?)
        }
        Need::BucketCount(tenant) => {
            let rows = session.query(BUCKET_COUNT, &[&int(tenant.0)]).await?;
            let count = rows.first().map_or(Ok(0), |row| Reader::new(row).number()).map_err(SqlError::Rows)?;
            Scan::Count(usize::try_from(count).unwrap_or(usize::MAX))
        }
        Need::BucketsById(after, max) => {
            // No bucket has the id 0: generations begin at 1.
            let after = after.map_or(0, |bucket| int(bucket.0));
            Scan::Buckets(read(&session.query(&BUCKETS_BY_ID, &[&after, &limit(max)]).await?, columns::bucket)?)
        }
        Need::Heads(bucket, from, until, max) => {
            let until = until.as_deref().unwrap_or(END);
            let rows = session.query(&HEADS_LISTED, &[&int(bucket.0), from, &until, &limit(max)]).await?;
            Scan::Heads(read(&rows, columns::listed)?)
        }
        Need::HasVersions(bucket) => Scan::Has(!session.query(HAS_VERSIONS, &[&int(bucket.0)]).await?.is_empty()),
        Need::Segments(bucket, version, start, end, max) => {
            let parameters: [&(dyn ToSql + Sync); 5] =
                [&int(bucket.0), &int(version.0), &bound(*start), &bound(*end), &limit(max)];
            Scan::Segments(read(&session.query(&SEGMENTS, &parameters).await?, columns::segment)?)
        }
        Need::SegmentsOfParts(bucket, version, after, max) => {
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&int(bucket.0), &int(version.0), &i32::from(*after), &limit(max)];
            Scan::Segments(read(&session.query(&SEGMENTS_OF_PARTS, &parameters).await?, columns::segment)?)
        }
        Need::Blobs(after, max) => {
            let rows = session.query(&BLOBS_AFTER, &[&first_after(*after), &limit(max)]).await?;
            Scan::Blobs(read(&rows, columns::blob)?)
        }
        Need::BlobsInDebt(after, max) => {
            let rows = session.query(&BLOBS_IN_DEBT, &[&first_after(*after), &limit(max)]).await?;
            Scan::Blobs(read(&rows, columns::blob)?)
        }
        Need::Garbage(after, max) => {
            // Generations begin at 1.
            let (generation, blob) =
                after.map_or((0, vec![0; 16]), |(generation, blob)| (int(generation.0), blob_bytes(blob)));
            let rows = session.query(&GARBAGE_AFTER, &[&generation, &blob, &limit(max)]).await?;
            Scan::Garbage(read(&rows, columns::garbage)?)
        }
        Need::OpenUploads(bucket, (key, upload), until, max) => {
            let until = until.as_deref().unwrap_or(END);
            let parameters: [&(dyn ToSql + Sync); 5] = [&int(bucket.0), key, &id_bytes(upload.0), &until, &limit(max)];
            Scan::Uploads(read(&session.query(&UPLOADS_UNDER_WAY, &parameters).await?, columns::upload)?)
        }
        Need::Uploads(after, max) => {
            // No bytes are before all ids.
            let after = after.map_or_else(Vec::new, |upload| id_bytes(upload.0));
            Scan::Uploads(read(&session.query(&UPLOADS_AFTER, &[&after, &limit(max)]).await?, columns::upload)?)
        }
        Need::CompletedBefore(before, max) => {
            let sql = if aim == Aim::Change { COMPLETED_LOCKED } else { COMPLETED };
            let rows = session.query(sql, &[&bound(before.unix_ms), &limit(max)]).await?;
            Scan::UploadIds(read(&rows, |row| Reader::new(row).id().map(UploadId))?)
        }
        Need::Parts(upload, after, max) => {
            let parameters: [&(dyn ToSql + Sync); 3] = [&id_bytes(upload.0), &i32::from(*after), &limit(max)];
            let rows = session.query(&PARTS, &parameters).await?;
            Scan::Parts(read(&rows, |row| columns::part(row).map(|(_, part)| part))?)
        }
        point => unreachable!("{point:?} is no scan"),
    })
}

/// Where the metadata stands. There is no log, hence no batch.
pub(super) async fn counters(session: &Session) -> Result<Counters, SqlError> {
    let rows = session.query(COUNTERS, &[]).await?;
    let row = rows.first().ok_or_else(|| SqlError::Rows(RowsError::Inconsistent("there is no timeline".to_owned())))?;
    let mut c = Reader::new(row);
    let mut read = || Ok(Counters { lineage: c.id()?, batch: 0, generation: c.generation()?, at: c.time()? });
    read().map_err(SqlError::Rows)
}

fn read<T>(rows: &[Row], of: impl Fn(&Row) -> Result<T, RowsError>) -> Result<Vec<T>, SqlError> {
    rows.iter().map(of).collect::<Result<_, _>>().map_err(SqlError::Rows)
}

/// No blob has the id 0: lives are counted from 1.
fn first_after(after: Option<BlobId>) -> Vec<u8> {
    after.map_or(vec![0; 16], blob_bytes)
}

/// Behind every key: bytes that no UTF-8 text has, longer than any key.
const END: &[u8] = &[0xff; 1025];

/// A statement that is made once from the lists of columns.
type Sql = LazyLock<String>;

static WRITERS: Sql = LazyLock::new(|| format!("SELECT {} FROM writers WHERE node = ANY($1)", names(WRITER, "")));
static WRITES: Sql = LazyLock::new(|| format!("SELECT {} FROM writes WHERE write_id = ANY($1)", names(WRITE, "")));
static BUCKETS: Sql = LazyLock::new(|| format!("SELECT {} FROM buckets WHERE id = ANY($1)", names(BUCKET, "")));
static BUCKETS_NAMED: Sql = LazyLock::new(|| format!("SELECT {} FROM buckets WHERE name = ANY($1)", names(BUCKET, "")));
static BUCKETS_OF_TENANT: Sql = LazyLock::new(|| {
    format!("SELECT {} FROM buckets WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3", names(BUCKET, ""))
});
static BUCKETS_BY_ID: Sql =
    LazyLock::new(|| format!("SELECT {} FROM buckets WHERE id > $1 ORDER BY id LIMIT $2", names(BUCKET, "")));
const USAGE: &str = "SELECT u.scope, u.id, sum(u.objects)::bigint, sum(u.object_bytes)::bigint, \
                     sum(u.upload_bytes)::bigint FROM unnest($1::smallint[], $2::bigint[]) AS wanted (scope, id) \
                     JOIN usage AS u USING (scope, id) GROUP BY u.scope, u.id";
static TENANT_QUOTAS: Sql =
    LazyLock::new(|| format!("SELECT {} FROM tenant_quotas WHERE tenant = ANY($1)", names(TENANT_QUOTA, "")));
const BUCKET_COUNT: &str = "SELECT count(*) FROM buckets WHERE tenant = $1";
static HEADS: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM unnest($1::bigint[], $2::bytea[]) AS wanted (bucket, key) JOIN heads AS h USING (bucket, key)",
        names(HEAD, "h.")
    )
});
// The inner look-up stands for itself (OFFSET 0): otherwise the planner may find heads by their bucket alone and compare keys.
static HEADS_NAMED: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM unnest($1::text[], $2::bytea[]) AS wanted (name, key) \
         JOIN buckets AS b ON b.name = wanted.name CROSS JOIN LATERAL \
         (SELECT * FROM heads WHERE bucket = b.id AND heads.key = wanted.key OFFSET 0) AS h",
        names(HEAD, "h.")
    )
});
static HEADS_LISTED: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM heads WHERE bucket = $1 AND key >= $2 AND key < $3 AND NOT delete_marker ORDER BY key LIMIT $4",
        names(LISTED, "")
    )
});
const HAS_VERSIONS: &str = "(SELECT 1 FROM heads WHERE bucket = $1 LIMIT 1) UNION ALL \
                            (SELECT 1 FROM versions WHERE bucket = $1 LIMIT 1)";
static SEGMENTS: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM segments WHERE bucket = $1 AND version = $2 AND start < $4 AND start >= coalesce((\
             SELECT s.start FROM segments AS s WHERE s.bucket = $1 AND s.version = $2 AND s.start <= $3 \
             ORDER BY s.start DESC LIMIT 1), 0) \
         ORDER BY start LIMIT $5",
        names(SEGMENT, "")
    )
});
// Numbers grow as places do.
static SEGMENTS_OF_PARTS: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM segments WHERE bucket = $1 AND version = $2 AND part > $3 ORDER BY part LIMIT $4",
        names(SEGMENT, "")
    )
});
static BLOBS: Sql = LazyLock::new(|| format!("SELECT {} FROM blobs WHERE blob = ANY($1)", names(BLOB, "")));
static BLOBS_LOCKED: Sql =
    LazyLock::new(|| format!("SELECT {} FROM blobs WHERE blob = ANY($1) ORDER BY blob FOR UPDATE", names(BLOB, "")));
static BLOBS_OF_HEADS: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM blobs WHERE blob = ANY(ARRAY(\
             SELECT h.blob FROM unnest($1::bigint[], $2::bytea[]) AS wanted (bucket, key) \
             JOIN heads AS h USING (bucket, key) WHERE h.blob IS NOT NULL)) \
         ORDER BY blob FOR UPDATE",
        names(BLOB, "")
    )
});
static BLOBS_AFTER: Sql =
    LazyLock::new(|| format!("SELECT {} FROM blobs WHERE blob > $1 ORDER BY blob LIMIT $2", names(BLOB, "")));
static BLOBS_IN_DEBT: Sql = LazyLock::new(|| {
    format!("SELECT {} FROM blobs WHERE in_debt AND blob > $1 ORDER BY blob LIMIT $2", names(BLOB, ""))
});
static GARBAGE_AFTER: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM garbage WHERE (generation, blob) > ($1, $2) ORDER BY generation, blob LIMIT $3",
        names(GARBAGE, "")
    )
});
static UPLOADS: Sql = LazyLock::new(|| format!("SELECT {} FROM uploads WHERE upload = ANY($1)", names(UPLOAD, "")));
static UPLOADS_UNDER_WAY: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM uploads WHERE bucket = $1 AND (key, upload) >= ($2, $3) AND key < $4 \
         AND completed_at_ms IS NULL ORDER BY key, upload LIMIT $5",
        names(UPLOAD, "")
    )
});
static UPLOADS_AFTER: Sql =
    LazyLock::new(|| format!("SELECT {} FROM uploads WHERE upload > $1 ORDER BY upload LIMIT $2", names(UPLOAD, "")));
const COMPLETED: &str =
    "SELECT upload FROM uploads WHERE completed_at_ms < $1 ORDER BY completed_at_ms, upload LIMIT $2";
// Who forgets them does not matter: nobody waits for another one who does.
const COMPLETED_LOCKED: &str = "SELECT upload FROM uploads WHERE completed_at_ms < $1 \
                                ORDER BY completed_at_ms, upload LIMIT $2 FOR UPDATE SKIP LOCKED";
static PARTS_NUMBERED: Sql = LazyLock::new(|| {
    format!(
        "SELECT {} FROM unnest($1::bytea[], $2::integer[]) AS wanted (upload, number) \
         JOIN parts AS p USING (upload, number)",
        names(PART, "p.")
    )
});
static PARTS: Sql = LazyLock::new(|| {
    format!("SELECT {} FROM parts WHERE upload = $1 AND number > $2 ORDER BY number LIMIT $3", names(PART, ""))
});
const COUNTERS: &str = "SELECT t.lineage, g.last_value + CASE WHEN g.is_called THEN 1 ELSE 0 END, \
                        floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint \
                        FROM timeline AS t CROSS JOIN generations AS g";

/// Every statement that reads, for the test that explains them.
#[cfg(test)]
pub(super) fn statements() -> Vec<(&'static str, &'static str)> {
    named![
        WRITERS,
        WRITES,
        BUCKETS,
        BUCKETS_NAMED,
        BUCKETS_OF_TENANT,
        BUCKET_COUNT,
        BUCKETS_BY_ID,
        USAGE,
        TENANT_QUOTAS,
        HEADS,
        HEADS_NAMED,
        HEADS_LISTED,
        HAS_VERSIONS,
        SEGMENTS,
        SEGMENTS_OF_PARTS,
        BLOBS,
        BLOBS_LOCKED,
        BLOBS_OF_HEADS,
        BLOBS_AFTER,
        BLOBS_IN_DEBT,
        GARBAGE_AFTER,
        UPLOADS,
        UPLOADS_UNDER_WAY,
        UPLOADS_AFTER,
        COMPLETED,
        COMPLETED_LOCKED,
        PARTS_NUMBERED,
        PARTS,
        COUNTERS,
    ]
}
