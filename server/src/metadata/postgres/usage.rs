//! Counts usage anew, before a node serves, where it may not be what the rows say.

use super::session::{Session, SqlError};

/// Counts what every bucket and tenant holds, if a life of a node was not one that adds it up: a program of before wrote, or
/// the rows were brought here by an import. Gives whether it did. Nobody else may be writing.
pub(super) async fn recount_if_due(regional: &Session) -> Result<bool, SqlError> {
    if regional.query(IS_DUE, &[]).await?.is_empty() {
        return Ok(false);
    }
    regional.run(BEGIN).await?;
    let counted = async {
        regional.run(RECOUNT).await?;
        regional.run("COMMIT").await
    };
    let counted = counted.await;
    if counted.is_err() {
        // Without a connection there is nothing to roll back.
        let _ = regional.run("ROLLBACK").await;
    }
    counted.map(|()| true)
}

const IS_DUE: &str = "SELECT 1 FROM writers AS w LEFT JOIN usage_writers AS u USING (node) \
                      WHERE u.incarnation IS DISTINCT FROM w.incarnation LIMIT 1";
// All rows are read, which is what sessions otherwise avoid; it takes as long as it takes.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; \
                     SET LOCAL enable_hashagg = on";
const RECOUNT: &str = "DELETE FROM usage; \
    INSERT INTO usage (scope, id, node, objects, object_bytes, upload_bytes) \
    SELECT 1, bucket, 0, sum(objects), sum(object_bytes), sum(upload_bytes) FROM ( \
        SELECT bucket, 1 AS objects, size AS object_bytes, 0 AS upload_bytes FROM heads WHERE NOT delete_marker \
        UNION ALL SELECT bucket, 1, size, 0 FROM versions WHERE NOT delete_marker \
        UNION ALL SELECT uploads.bucket, 0, 0, parts.size FROM parts JOIN uploads USING (upload) \
    ) AS held GROUP BY bucket HAVING sum(objects) > 0 OR sum(upload_bytes) > 0; \
    INSERT INTO usage (scope, id, node, objects, object_bytes, upload_bytes) \
    SELECT 2, buckets.tenant, 0, sum(usage.objects), sum(usage.object_bytes), sum(usage.upload_bytes) \
    FROM usage JOIN buckets ON buckets.id = usage.id WHERE usage.scope = 1 GROUP BY buckets.tenant; \
    INSERT INTO usage_writers (node, incarnation) SELECT node, incarnation FROM writers \
    ON CONFLICT (node) DO UPDATE SET incarnation = excluded.incarnation";
