-- Who may do what: apps, what was granted to them, which buckets everybody may read, and what administrators did.
-- Everything changes in a transaction that holds the row of access, whose revision tells readers that it did.

CREATE TABLE access (
    one          smallint NOT NULL PRIMARY KEY CHECK (one = 1),
    revision     bigint   NOT NULL,
    next_tenant  bigint   NOT NULL   -- no id of a tenant is given twice
);
INSERT INTO access SELECT 1, 1, coalesce(max(id), 0) + 1 FROM tenants;

CREATE TABLE apps (
    client_id      text   COLLATE "C" NOT NULL PRIMARY KEY,
    tenant         bigint NOT NULL REFERENCES tenants (id),
    name           text   COLLATE "C" NOT NULL,
    sealed_secret  bytea  NOT NULL,   -- opened by ANVIL_SECRET_ENCRYPTION_KEY alone
    created_at_ms  bigint NOT NULL,
    UNIQUE (tenant, name)
);

CREATE TABLE grants (
    app       text COLLATE "C" NOT NULL REFERENCES apps (client_id) ON DELETE CASCADE,
    action    text COLLATE "C" NOT NULL,   -- object:read, object:*, *
    resource  text COLLATE "C" NOT NULL,   -- bucket, bucket/key, with stars
    given_by  text COLLATE "C" NOT NULL,   -- the client id of the app that passed it on; empty for an administrator
    PRIMARY KEY (app, action, resource, given_by)
);

CREATE TABLE public_buckets (
    bucket  bigint NOT NULL PRIMARY KEY,   -- in the regional database
    name    text   COLLATE "C" NOT NULL UNIQUE,
    tenant  bigint NOT NULL REFERENCES tenants (id)
);

CREATE TABLE audit (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms     bigint NOT NULL,
    who       text   NOT NULL,   -- an access key
    come_from text   NOT NULL,   -- an address
    action    text   NOT NULL,
    about     text   NOT NULL,
    result    text   NOT NULL    -- ok, or why not
);

-- Every process that listens hears of a change when it is committed.
CREATE FUNCTION tell_of_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('anvil_access', NEW.revision::text);
    RETURN NULL;
END $$;
CREATE TRIGGER access_changed AFTER UPDATE ON access FOR EACH ROW EXECUTE FUNCTION tell_of_access();
