-- What all regions share: regions, nodes, tenants. Small tables; those of apps, policies, administrators, tasks and the names
-- of buckets are added by the migrations that need them.

CREATE TABLE timeline (
    one      smallint NOT NULL PRIMARY KEY CHECK (one = 1),
    lineage  bytea    NOT NULL CHECK (length(lineage) = 16)
);
INSERT INTO timeline VALUES (1, decode(replace(gen_random_uuid()::text, '-', ''), 'hex'));

CREATE TABLE regions (
    name        text COLLATE "C" NOT NULL PRIMARY KEY,
    lineage     bytea NOT NULL UNIQUE CHECK (length(lineage) = 16),   -- of its database
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE nodes (
    id             integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity       bytea NOT NULL UNIQUE CHECK (length(identity) = 16),   -- drawn at its first start and kept in its data directory
    region         text COLLATE "C" NOT NULL REFERENCES regions (name),
    registered_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenants (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text COLLATE "C" NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now()
);
