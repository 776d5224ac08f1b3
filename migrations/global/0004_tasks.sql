-- The task queue: coarse jobs of a region that outlive the process that took them on. Done tasks are not here.

CREATE TABLE tasks (
    id             bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    region         text     COLLATE "C" NOT NULL REFERENCES regions (name),   -- whose nodes may lease it
    kind           text     COLLATE "C" NOT NULL,
    about          text     COLLATE "C" NOT NULL,
    priority       smallint NOT NULL,   -- the lowest number is first
    state          smallint NOT NULL CHECK (state BETWEEN 1 AND 3),   -- 1 pending, 2 running, 3 failed
    attempts       integer  NOT NULL,
    not_before_ms  bigint   NOT NULL,   -- by the clock of this database; of a running task the end of its lease
    leases         bigint   NOT NULL,   -- the fence: a worker reports under the number that it was given
    lease_node     bigint,
    lease_life     bigint,
    position       text     NOT NULL,
    last_error     text,
    created_at_ms  bigint   NOT NULL,
    changed_at_ms  bigint   NOT NULL,
    CHECK ((state = 2) = (lease_node IS NOT NULL) AND (state = 2) = (lease_life IS NOT NULL)),
    UNIQUE (region, kind, about)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE INDEX tasks_due ON tasks (region, priority, not_before_ms, id) WHERE state < 3;
