-- The index of the embedded metadata: what the log of batches says, as rows. It can be made anew from the log.
--
-- Conventions, kept by every later migration:
--   ids of 128 bits, blobs and disks are 16 bytes, big-endian, so that ids drawn one after another lie together;
--   unsigned numbers of 64 bits are stored with their bits unchanged;
--   keys are bytes and compare as bytes; times are milliseconds since 1970-01-01 UTC;
--   small sets are numbers, listed beside the column; lists of pairs are JSON, NULL when empty.
-- Columns that nothing sets yet (versions, locks, envelopes, tags) are here because adding them later would rewrite
-- every row of the largest tables.

CREATE TABLE counters (
    one         INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    lineage     BLOB    NOT NULL,   -- zero until the first batch of a history
    batch       INTEGER NOT NULL,   -- the last batch of the log that these rows contain
    generation  INTEGER NOT NULL,   -- the next to give
    at_ms       INTEGER NOT NULL    -- the latest time given
) STRICT;
INSERT INTO counters VALUES (1, zeroblob(16), 0, 1, 0);

CREATE TABLE writers (
    node           INTEGER NOT NULL PRIMARY KEY,
    incarnation    INTEGER NOT NULL,   -- the open one; all lower ones are closed
    opened_at_ms   INTEGER NOT NULL
) STRICT;

-- Outcomes of the latest writes, for those who did not hear them.
CREATE TABLE writes (
    generation  INTEGER NOT NULL PRIMARY KEY,
    write_id    BLOB    NOT NULL UNIQUE,
    outcome     BLOB    NOT NULL
) STRICT;

CREATE TABLE buckets (
    id                   INTEGER NOT NULL PRIMARY KEY,   -- never reused
    name                 TEXT    NOT NULL UNIQUE,
    tenant               INTEGER NOT NULL,
    region               TEXT    NOT NULL,
    state                INTEGER NOT NULL,   -- 1 active, 2 deleted
    generation           INTEGER NOT NULL,   -- of the configuration
    created_at_ms        INTEGER NOT NULL,
    versioning           INTEGER NOT NULL,   -- 0 off, 1 enabled, 2 suspended
    ownership            INTEGER NOT NULL,   -- 1 BucketOwnerEnforced, 2 BucketOwnerPreferred, 3 ObjectWriter
    public_access_block  INTEGER NOT NULL,   -- 1 block ACLs, 2 ignore ACLs, 4 block policy, 8 restrict buckets
    lock_enabled         INTEGER NOT NULL,   -- 0, 1
    lock_mode            INTEGER,            -- 1 governance, 2 compliance
    lock_days            INTEGER,
    encryption           BLOB
) STRICT;
CREATE INDEX buckets_of_tenant ON buckets (tenant, name);

-- One row per key, with its current version. An index of heads that are no delete markers belongs to the migration
-- that makes delete markers possible.
CREATE TABLE heads (
    bucket              INTEGER NOT NULL,
    key                 BLOB    NOT NULL,
    generation          INTEGER NOT NULL,
    write_id            BLOB    NOT NULL,
    is_null             INTEGER NOT NULL,   -- 0, 1
    delete_marker       INTEGER NOT NULL,   -- 0, 1
    owner               INTEGER NOT NULL,
    etag                TEXT    NOT NULL,
    size                INTEGER NOT NULL,
    checksum_algorithm  INTEGER NOT NULL,   -- 1 CRC32, 2 CRC32C, 3 CRC64NVME, 4 SHA1, 5 SHA256
    checksum_of         INTEGER NOT NULL,   -- 1 the bytes, 2 the checksums of the parts
    checksum            BLOB    NOT NULL,
    crc64nvme           INTEGER NOT NULL,
    content_type        TEXT,
    cache_control       TEXT,
    content_disposition TEXT,
    content_encoding    TEXT,
    content_language    TEXT,
    expires             TEXT,
    website_redirect    TEXT,
    user_metadata       TEXT,
    tags                TEXT,
    last_modified_ms    INTEGER NOT NULL,
    parts               INTEGER,
    content             INTEGER NOT NULL,   -- 0 none, 1 the slice in this row, 2 in segments
    blob                BLOB,
    blob_offset         INTEGER,
    blob_length         INTEGER,
    storage_class       INTEGER NOT NULL,   -- 1 STANDARD
    envelope            BLOB,
    retention_mode      INTEGER,            -- 1 governance, 2 compliance
    retain_until_ms     INTEGER,
    legal_hold          INTEGER NOT NULL,   -- 0, 1
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;

-- Versions and delete markers that are not current: the columns of heads.
CREATE TABLE versions (
    bucket              INTEGER NOT NULL,
    key                 BLOB    NOT NULL,
    generation          INTEGER NOT NULL,
    write_id            BLOB    NOT NULL,
    is_null             INTEGER NOT NULL,
    delete_marker       INTEGER NOT NULL,
    owner               INTEGER NOT NULL,
    etag                TEXT    NOT NULL,
    size                INTEGER NOT NULL,
    checksum_algorithm  INTEGER NOT NULL,
    checksum_of         INTEGER NOT NULL,
    checksum            BLOB    NOT NULL,
    crc64nvme           INTEGER NOT NULL,
    content_type        TEXT,
    cache_control       TEXT,
    content_disposition TEXT,
    content_encoding    TEXT,
    content_language    TEXT,
    expires             TEXT,
    website_redirect    TEXT,
    user_metadata       TEXT,
    tags                TEXT,
    last_modified_ms    INTEGER NOT NULL,
    parts               INTEGER,
    content             INTEGER NOT NULL,
    blob                BLOB,
    blob_offset         INTEGER,
    blob_length         INTEGER,
    storage_class       INTEGER NOT NULL,
    envelope            BLOB,
    retention_mode      INTEGER,
    retain_until_ms     INTEGER,
    legal_hold          INTEGER NOT NULL,
    PRIMARY KEY (bucket, key, generation DESC)
) STRICT, WITHOUT ROWID;

-- The pieces of versions that have several, found by where they begin.
CREATE TABLE segments (
    bucket                   INTEGER NOT NULL,
    version                  INTEGER NOT NULL,   -- its generation
    start                    INTEGER NOT NULL,
    blob                     BLOB,
    blob_offset              INTEGER,
    blob_length              INTEGER,
    part                     INTEGER,            -- the number of the part that begins here
    part_size                INTEGER,
    part_etag                TEXT,
    part_checksum_algorithm  INTEGER,
    part_checksum_of         INTEGER,
    part_checksum            BLOB,
    PRIMARY KEY (bucket, version, start)
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
    blob         BLOB    NOT NULL PRIMARY KEY,
    data_shards  INTEGER NOT NULL,
    parity_shards INTEGER NOT NULL,
    length       INTEGER NOT NULL,
    places       BLOB    NOT NULL,   -- disks, one behind the other, in the order of shards
    refs         INTEGER NOT NULL,
    state        INTEGER NOT NULL,   -- 1 live, 2 dead
    envelope     BLOB,
    CHECK ((refs > 0) = (state = 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE garbage (
    generation  INTEGER NOT NULL,
    blob        BLOB    NOT NULL,
    since_ms    INTEGER NOT NULL,
    PRIMARY KEY (generation, blob)
) STRICT, WITHOUT ROWID;

CREATE TABLE uploads (
    upload              BLOB    NOT NULL PRIMARY KEY,
    bucket              INTEGER NOT NULL,
    key                 BLOB    NOT NULL,
    owner               INTEGER NOT NULL,
    content_type        TEXT,
    cache_control       TEXT,
    content_disposition TEXT,
    content_encoding    TEXT,
    content_language    TEXT,
    expires             TEXT,
    website_redirect    TEXT,
    user_metadata       TEXT,
    tags                TEXT,
    checksum_algorithm  INTEGER,
    checksum_of         INTEGER,
    storage_class       INTEGER NOT NULL,
    envelope            BLOB,
    initiated_at_ms     INTEGER NOT NULL,
    -- What a completed upload answers to repeats; all NULL while it is under way.
    completed_at_ms     INTEGER,
    completed_list      BLOB,
    result_generation   INTEGER,
    result_etag         TEXT,
    result_size         INTEGER,
    result_checksum_algorithm INTEGER,
    result_checksum_of  INTEGER,
    result_checksum     BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_under_way ON uploads (bucket, key, upload) WHERE completed_at_ms IS NULL;
CREATE INDEX uploads_completed ON uploads (completed_at_ms) WHERE completed_at_ms IS NOT NULL;

CREATE TABLE parts (
    upload              BLOB    NOT NULL,
    number              INTEGER NOT NULL,
    write_id            BLOB    NOT NULL,
    size                INTEGER NOT NULL,
    etag                TEXT    NOT NULL,
    checksum_algorithm  INTEGER NOT NULL,
    checksum_of         INTEGER NOT NULL,
    checksum            BLOB    NOT NULL,
    crc64nvme           INTEGER NOT NULL,
    last_modified_ms    INTEGER NOT NULL,
    blob                BLOB,
    blob_offset         INTEGER,
    blob_length         INTEGER,
    envelope            BLOB,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;
