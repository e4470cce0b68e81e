-- Who is there and who owns what: a cluster of one, under the same rules as in Postgres, so that one
-- code path serves both and a restarted process is fenced from what its predecessor left behind.

-- Facts fixed at the cluster's birth; one row.
CREATE TABLE cluster_meta (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    shard_count INTEGER NOT NULL CHECK (shard_count > 0)
) STRICT;

-- One row per node name. lease_until: microseconds by the clock of SQLite's own functions. dead and left
-- are final for an incarnation.
CREATE TABLE nodes (
    id          TEXT    NOT NULL PRIMARY KEY,
    incarnation BLOB    NOT NULL UNIQUE,
    http        TEXT    NOT NULL,
    cluster     TEXT    NOT NULL,
    state       TEXT    NOT NULL
        CHECK (state IN ('joining', 'up', 'draining', 'dead', 'left')),
    lease_until INTEGER NOT NULL
) STRICT;

-- Ownership. Every write of a shard's state first compares its epoch and its own incarnation.
CREATE TABLE shards (
    shard_id          INTEGER NOT NULL PRIMARY KEY,
    epoch             INTEGER NOT NULL,
    owner_incarnation BLOB
) STRICT;

-- How far a shard's ledger is in checkpoints (counted) and in analytics (rolled).
CREATE TABLE shard_progress (
    shard_id INTEGER NOT NULL PRIMARY KEY,
    counted  INTEGER NOT NULL DEFAULT 0,
    rolled   INTEGER NOT NULL DEFAULT 0
) STRICT;
