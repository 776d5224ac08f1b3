-- How much a bucket may hold; NULL is no bound.
ALTER TABLE buckets ADD COLUMN quota_bytes bigint;
ALTER TABLE buckets ADD COLUMN quota_objects bigint;
-- How much a tenant's buckets in this region may hold, all together.
CREATE TABLE tenant_quotas (
    tenant         bigint NOT NULL PRIMARY KEY,
    quota_bytes    bigint,
    quota_objects  bigint
);
-- What is held: the sum over the nodes. A node adds to rows of its own alone, so that no row is waited for by all; one of them
-- alone may be below zero.
CREATE TABLE usage (
    scope         smallint NOT NULL,   -- 1 a bucket, 2 a tenant
    id            bigint   NOT NULL,   -- of the bucket or the tenant
    node          bigint   NOT NULL,   -- who added it up; 0 for what was counted
    objects       bigint   NOT NULL,
    object_bytes  bigint   NOT NULL,
    upload_bytes  bigint   NOT NULL,   -- of parts of uploads under way
    PRIMARY KEY (scope, id, node)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
-- Which life of a node was the last that added up usage. Where it is not the one in writers, a program that does not know usage
-- wrote since, or the rows were brought here: the next start counts everything anew.
CREATE TABLE usage_writers (
    node         bigint NOT NULL PRIMARY KEY,
    incarnation  bigint NOT NULL
);
