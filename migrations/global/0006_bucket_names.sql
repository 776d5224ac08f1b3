-- Names of buckets: each belongs to one region at most. A name is claimed before its bucket is made in the region's database, held
-- while the bucket is there, and its row goes behind the bucket.
CREATE TABLE bucket_names (
    name        text COLLATE "C" NOT NULL PRIMARY KEY,
    region      text COLLATE "C" NOT NULL REFERENCES regions (name),
    tenant      bigint NOT NULL,
    write_id    bytea  NOT NULL CHECK (length(write_id) = 16),   -- of the last claim; zeros for a bucket that was there before
    bucket      bigint,                                          -- in the region's database; NULL while the name is only claimed
    claimed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX bucket_names_claimed ON bucket_names (region, name) WHERE bucket IS NULL;
CREATE INDEX bucket_names_held ON bucket_names (region, bucket);
CREATE INDEX bucket_names_of_region ON bucket_names (region, name);

-- Generations of a region begin with its number, times 2^48, so that no two regions give one id to two buckets. A region may be known
-- before its database is: until that joins, its lineage is drawn.
ALTER TABLE regions ADD COLUMN number integer NOT NULL DEFAULT 0 UNIQUE CHECK (number BETWEEN 0 AND 32000);
ALTER TABLE regions ADD COLUMN joined boolean NOT NULL DEFAULT true;
