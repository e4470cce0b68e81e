-- State that checkpoints write: counters, snapshots, holds, and the messages that must go out with them.

-- One row per subscription, rewritten with each checkpoint.
CREATE TABLE subscription_checkpoints (
    subscription_id BLOB    NOT NULL PRIMARY KEY,
    epoch           INTEGER NOT NULL,
    version         INTEGER NOT NULL,
    last_seq        INTEGER NOT NULL,
    used            INTEGER NOT NULL,
    quota_limit     INTEGER,
    period_start    INTEGER NOT NULL,
    period_end      INTEGER NOT NULL,
    escrow_hi       INTEGER NOT NULL,
    taken_at        INTEGER NOT NULL,
    shard_id        INTEGER NOT NULL,
    clean           INTEGER NOT NULL,
    snapshot        BLOB    NOT NULL
) STRICT;

-- A quota's counter in a period. status: 0 open, 1 grace, 2 closed. usage_snapshot is written once, when
-- the period is closed.
CREATE TABLE billing_periods (
    subscription_id BLOB    NOT NULL,
    quota           TEXT    NOT NULL,
    period_start    INTEGER NOT NULL,
    period_end      INTEGER NOT NULL,
    meter           TEXT    NOT NULL,
    used            INTEGER NOT NULL,
    quota_limit     INTEGER,
    status          INTEGER NOT NULL DEFAULT 0,
    plan_id         BLOB    NOT NULL,
    plan_version    INTEGER NOT NULL,
    usage_snapshot  TEXT,
    PRIMARY KEY (subscription_id, quota, period_start)
) STRICT;

-- The outbox. status: 0 waiting, 1 delivered, 2 dead letter. A second row with the same
-- idempotency_key is dropped, so a message is enqueued once whatever is repeated.
CREATE TABLE event_queue (
    id              BLOB    NOT NULL PRIMARY KEY,
    subscription_id BLOB    NOT NULL,
    kind            TEXT    NOT NULL,
    priority        INTEGER NOT NULL,
    idempotency_key TEXT    NOT NULL UNIQUE,
    payload         TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    status          INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    last_error      TEXT,
    finished_at     INTEGER
) STRICT;
CREATE INDEX event_queue_waiting ON event_queue (priority, next_attempt_at) WHERE status = 0;

-- Named holds: lets any node find the subscription of a reservation.
CREATE TABLE quota_reservations (
    id              BLOB    NOT NULL PRIMARY KEY,
    subscription_id BLOB    NOT NULL,
    amounts         TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    released_at     INTEGER
) STRICT;

-- The last checkpoint batch of each of a node's lanes. It moves by one in the batch's own transaction,
-- which is what makes a repeated batch change nothing.
CREATE TABLE checkpoint_batches (
    incarnation BLOB    NOT NULL,
    lane        INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    PRIMARY KEY (incarnation, lane)
) STRICT, WITHOUT ROWID;
