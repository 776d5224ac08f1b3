-- Who administrates with a password, and what their roles allow. They change as apps do, under the row of access.

CREATE TABLE roles (
    name           text   COLLATE "C" NOT NULL PRIMARY KEY,
    actions        text[] COLLATE "C" NOT NULL,   -- disk:read, disk:*, *:read
    created_at_ms  bigint NOT NULL
);

CREATE TABLE users (
    username       text   COLLATE "C" NOT NULL PRIMARY KEY,
    email          text   NOT NULL,
    role           text   COLLATE "C" NOT NULL,   -- of roles, or one that every program knows
    password       text   NOT NULL,   -- hashed with Argon2id, in the PHC string format
    credential     bigint NOT NULL,   -- another one with each password: tokens of an earlier one are good no more
    created_at_ms  bigint NOT NULL
);
