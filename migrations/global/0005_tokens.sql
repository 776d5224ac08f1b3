-- What tokens are signed with, and which are good no more before their time. They change as apps do, under the row of access.

CREATE TABLE token_keys (
    id             text   COLLATE "C" NOT NULL PRIMARY KEY,   -- stands in each token
    sealed         bytea  NOT NULL,   -- opened by ANVIL_SECRET_ENCRYPTION_KEY alone
    made_at_ms     bigint NOT NULL,
    good_until_ms  bigint             -- the one without an end signs
);

CREATE TABLE denied_tokens (
    id        text   COLLATE "C" NOT NULL PRIMARY KEY,
    until_ms  bigint NOT NULL   -- it has ended by itself then
);
