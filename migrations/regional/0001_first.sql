-- The metadata of a region: buckets as they are, versions, blobs, uploads, parts. The rows of anvil_node::metadata::rows.
--
-- Conventions, kept by every later migration:
--   ids of 128 bits, blobs and disks are bytea of 16 bytes, big-endian, so that ids drawn one after another lie together;
--   unsigned numbers of 64 bits are bigint with their bits unchanged; those that are ordered stay below 2^63;
--   keys are bytea and compare as bytes; names are text with COLLATE "C"; times are milliseconds since 1970-01-01 UTC;
--   small sets are smallint, listed beside the column; lists of pairs are JSON in text, NULL when empty.
-- Columns that nothing sets yet (versions, locks, envelopes, tags) are here because adding them later would rewrite
-- every row of the largest tables. Those tables are partitioned by hash for the same reason: a bucket stays in one
-- partition, so that a list is one ordered range, and vacuum and index builds go by the partition.

-- Which history this is, and of which region. A database that was restored has the same lineage and a lower sequence.
CREATE TABLE timeline (
    one         smallint NOT NULL PRIMARY KEY CHECK (one = 1),
    lineage     bytea    NOT NULL CHECK (length(lineage) = 16),
    region      text     COLLATE "C"   -- NULL until a node registered it
);
INSERT INTO timeline VALUES (1, decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), NULL);

-- What orders all changes. A commit draws from it while it holds the locks of its keys.
CREATE SEQUENCE generations AS bigint START 1 CACHE 1;

CREATE TABLE writers (
    node          bigint NOT NULL PRIMARY KEY,
    incarnation   bigint NOT NULL,   -- the open one; all lower ones are closed
    opened_at_ms  bigint NOT NULL
);

-- Outcomes of the latest writes, for those who did not hear them. Rows come and go with every write.
CREATE TABLE writes (
    generation  bigint NOT NULL PRIMARY KEY,
    write_id    bytea  NOT NULL UNIQUE,
    outcome     bytea  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, autovacuum_vacuum_insert_scale_factor = 0,
        autovacuum_vacuum_insert_threshold = 200000);

CREATE TABLE buckets (
    id                   bigint   NOT NULL PRIMARY KEY,   -- never reused
    name                 text     COLLATE "C" NOT NULL UNIQUE,
    tenant               bigint   NOT NULL,
    region               text     COLLATE "C" NOT NULL,
    state                smallint NOT NULL,   -- 1 active, 2 deleted
    generation           bigint   NOT NULL,   -- of the configuration
    created_at_ms        bigint   NOT NULL,
    versioning           smallint NOT NULL,   -- 0 off, 1 enabled, 2 suspended
    ownership            smallint NOT NULL,   -- 1 BucketOwnerEnforced, 2 BucketOwnerPreferred, 3 ObjectWriter
    public_access_block  smallint NOT NULL,   -- 1 block ACLs, 2 ignore ACLs, 4 block policy, 8 restrict buckets
    lock_enabled         boolean  NOT NULL,
    lock_mode            smallint,            -- 1 governance, 2 compliance
    lock_days            bigint,
    encryption           bytea,
    storage_class_name   text                 -- of new objects whose request names none; NULL is STANDARD
);
CREATE INDEX buckets_of_tenant ON buckets (tenant, name);

-- One row per key, with its current version. An index of heads that are no delete markers belongs to the migration
-- that makes delete markers possible.
CREATE TABLE heads (
    bucket              bigint   NOT NULL,
    key                 bytea    NOT NULL,
    generation          bigint   NOT NULL,
    write_id            bytea    NOT NULL,
    is_null             boolean  NOT NULL,
    delete_marker       boolean  NOT NULL,
    owner               bigint   NOT NULL,
    etag                text     NOT NULL,
    size                bigint   NOT NULL,
    checksum_algorithm  smallint NOT NULL,   -- 1 CRC32, 2 CRC32C, 3 CRC64NVME, 4 SHA1, 5 SHA256
    checksum_of         smallint NOT NULL,   -- 1 the bytes, 2 the checksums of the parts
    checksum            bytea    NOT NULL,
    crc64nvme           bigint   NOT NULL,
    content_type        text,
    cache_control       text,
    content_disposition text,
    content_encoding    text,
    content_language    text,
    expires             text,
    website_redirect    text,
    user_metadata       text,
    tags                text,
    last_modified_ms    bigint   NOT NULL,
    parts               integer,
    content             smallint NOT NULL,   -- 0 none, 1 the slice in this row, 2 in segments
    blob                bytea,
    blob_offset         bigint,
    blob_length         bigint,
    storage_class       smallint NOT NULL,   -- 1 STANDARD, 2 the one that is named
    storage_class_name  text,
    envelope            bytea,
    retention_mode      smallint,            -- 1 governance, 2 compliance
    retain_until_ms     bigint,
    legal_hold          boolean  NOT NULL,
    PRIMARY KEY (bucket, key)
) PARTITION BY HASH (bucket);

-- Versions and delete markers that are not current: the columns of heads.
CREATE TABLE versions (
    LIKE heads INCLUDING DEFAULTS,
    PRIMARY KEY (bucket, key, generation)
) PARTITION BY HASH (bucket);

-- The pieces of versions that have several, found by where they begin.
CREATE TABLE segments (
    bucket                   bigint NOT NULL,
    version                  bigint NOT NULL,   -- its generation
    start                    bigint NOT NULL,
    blob                     bytea,
    blob_offset              bigint,
    blob_length              bigint,
    part                     integer,           -- the number of the part that begins here
    part_size                bigint,
    part_etag                text,
    part_checksum_algorithm  smallint,
    part_checksum_of         smallint,
    part_checksum            bytea,
    PRIMARY KEY (bucket, version, start)
) PARTITION BY HASH (bucket);

CREATE TABLE blobs (
    blob           bytea    NOT NULL PRIMARY KEY,
    data_shards    smallint NOT NULL,
    parity_shards  smallint NOT NULL,
    length         bigint   NOT NULL,
    places         bytea    NOT NULL,   -- disks, one behind the other, in the order of shards
    refs           bigint   NOT NULL,
    state          smallint NOT NULL,   -- 1 live, 2 dead
    in_debt        boolean  NOT NULL,   -- live, with a shard whose place is zero
    envelope       bytea,
    CHECK ((refs > 0) = (state = 1))
) PARTITION BY HASH (blob);

DO $$
BEGIN
    FOR part IN 0..7 LOOP
        EXECUTE format('CREATE TABLE heads_%s PARTITION OF heads FOR VALUES WITH (MODULUS 8, REMAINDER %s) WITH (fillfactor = 90)', part, part);
        EXECUTE format('CREATE TABLE versions_%s PARTITION OF versions FOR VALUES WITH (MODULUS 8, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE segments_%s PARTITION OF segments FOR VALUES WITH (MODULUS 8, REMAINDER %s)', part, part);
        EXECUTE format('CREATE TABLE blobs_%s PARTITION OF blobs FOR VALUES WITH (MODULUS 8, REMAINDER %s) WITH (fillfactor = 90)', part, part);
    END LOOP;
END $$;
-- Few, and asked for often.
CREATE INDEX blobs_in_debt ON blobs (blob) WHERE in_debt;

CREATE TABLE garbage (
    generation  bigint NOT NULL,
    blob        bytea  NOT NULL,
    since_ms    bigint NOT NULL,
    PRIMARY KEY (generation, blob)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

CREATE TABLE uploads (
    upload              bytea    NOT NULL PRIMARY KEY,
    bucket              bigint   NOT NULL,
    key                 bytea    NOT NULL,
    owner               bigint   NOT NULL,
    content_type        text,
    cache_control       text,
    content_disposition text,
    content_encoding    text,
    content_language    text,
    expires             text,
    website_redirect    text,
    user_metadata       text,
    tags                text,
    checksum_algorithm  smallint,
    checksum_of         smallint,
    storage_class       smallint NOT NULL,
    storage_class_name  text,
    envelope            bytea,
    initiated_at_ms     bigint   NOT NULL,
    -- What a completed upload answers to repeats; all NULL while it is under way.
    completed_at_ms     bigint,
    completed_list      bytea,
    result_generation   bigint,
    result_etag         text,
    result_size         bigint,
    result_checksum_algorithm smallint,
    result_checksum_of  smallint,
    result_checksum     bytea
);
CREATE INDEX uploads_under_way ON uploads (bucket, key, upload) WHERE completed_at_ms IS NULL;
CREATE INDEX uploads_completed ON uploads (completed_at_ms, upload) WHERE completed_at_ms IS NOT NULL;

CREATE TABLE parts (
    upload              bytea    NOT NULL,
    number              integer  NOT NULL,
    write_id            bytea    NOT NULL,
    size                bigint   NOT NULL,
    etag                text     NOT NULL,
    checksum_algorithm  smallint NOT NULL,
    checksum_of         smallint NOT NULL,
    checksum            bytea    NOT NULL,
    crc64nvme           bigint   NOT NULL,
    last_modified_ms    bigint   NOT NULL,
    -- One slice of a blob; of several these are NULL and the slices are behind one another in slices: 16 bytes of the blob,
    -- then offset and length, big-endian.
    blob                bytea,
    blob_offset         bigint,
    blob_length         bigint,
    envelope            bytea,
    slices              bytea,
    PRIMARY KEY (upload, number)
);
