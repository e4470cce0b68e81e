-- Who is there and who owns what.

-- Facts fixed at the cluster's birth; one row.
CREATE TABLE cluster_meta (
    id          smallint NOT NULL PRIMARY KEY CHECK (id = 1),
    shard_count integer  NOT NULL CHECK (shard_count > 0)
);

-- One row per node name. lease_until is the only column in the database's own time: leases are compared
-- by its clock alone. Renewal and declaring dead write the same row, so one of them always sees the
-- other. dead and left are final for an incarnation.
CREATE TABLE nodes (
    id          text        NOT NULL PRIMARY KEY,
    incarnation uuid        NOT NULL UNIQUE,
    http        text        NOT NULL,
    cluster     text        NOT NULL,
    state       text        NOT NULL
        CHECK (state IN ('joining', 'up', 'draining', 'dead', 'left')),
    lease_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Ownership. Every write of a shard's state first locks the row FOR SHARE with its epoch and its own
-- incarnation; taking a shard raises the epoch and so waits for those writes and shuts out later ones.
CREATE TABLE shards (
    shard_id          integer NOT NULL PRIMARY KEY,
    epoch             bigint  NOT NULL,
    owner_incarnation uuid
) WITH (fillfactor = 50);
CREATE INDEX shards_owner ON shards (owner_incarnation) WHERE owner_incarnation IS NOT NULL;

-- How far a shard's ledger is in checkpoints (counted) and in analytics (rolled). Apart from shards, so
-- that moving a cursor never waits for, nor breaks, a fence.
CREATE TABLE shard_progress (
    shard_id integer NOT NULL PRIMARY KEY,
    counted  bigint  NOT NULL DEFAULT 0,
    rolled   bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
