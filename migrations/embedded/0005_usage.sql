-- How much a bucket may hold; NULL is no bound.
ALTER TABLE buckets ADD COLUMN quota_bytes INTEGER;
ALTER TABLE buckets ADD COLUMN quota_objects INTEGER;
-- How much a tenant's buckets may hold, all together.
CREATE TABLE tenant_quotas (
    tenant         INTEGER NOT NULL PRIMARY KEY,
    quota_bytes    INTEGER,
    quota_objects  INTEGER
) STRICT;
-- What is held. Who holds nothing has no row.
CREATE TABLE usage (
    scope         INTEGER NOT NULL,   -- 1 a bucket, 2 a tenant
    id            INTEGER NOT NULL,   -- of the bucket or the tenant
    node          INTEGER NOT NULL,   -- 0; a database has a row for each node that adds to it
    objects       INTEGER NOT NULL,
    object_bytes  INTEGER NOT NULL,
    upload_bytes  INTEGER NOT NULL,   -- of parts of uploads under way
    PRIMARY KEY (scope, id, node)
) STRICT, WITHOUT ROWID;
INSERT INTO usage (scope, id, node, objects, object_bytes, upload_bytes)
SELECT 1, bucket, 0, sum(objects), sum(object_bytes), sum(upload_bytes) FROM (
    SELECT bucket, 1 AS objects, size AS object_bytes, 0 AS upload_bytes FROM heads WHERE delete_marker = 0
    UNION ALL
    SELECT uploads.bucket, 0, 0, parts.size FROM parts JOIN uploads ON uploads.upload = parts.upload
) GROUP BY bucket HAVING sum(objects) > 0 OR sum(upload_bytes) > 0;
INSERT INTO usage (scope, id, node, objects, object_bytes, upload_bytes)
SELECT 2, buckets.tenant, 0, sum(usage.objects), sum(usage.object_bytes), sum(usage.upload_bytes)
FROM usage JOIN buckets ON buckets.id = usage.id WHERE usage.scope = 1 GROUP BY buckets.tenant;
