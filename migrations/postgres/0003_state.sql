-- State that checkpoints write: counters, snapshots, holds, and the messages that must go out with them.

-- One row per subscription, rewritten with each checkpoint. Half of a page is left free so that the new
-- version fits beside the old one and no index is touched; for the same reason nothing but the key is
-- indexed. snapshot is already compact: no time is spent compressing it.
CREATE TABLE subscription_checkpoints (
    subscription_id uuid    NOT NULL PRIMARY KEY,
    epoch           bigint  NOT NULL,
    version         bigint  NOT NULL,
    last_seq        bigint  NOT NULL,
    used            bigint  NOT NULL,
    quota_limit     bigint,
    period_start    bigint  NOT NULL,
    period_end      bigint  NOT NULL,
    escrow_hi       bigint  NOT NULL,
    taken_at        bigint  NOT NULL,
    shard_id        integer NOT NULL,
    clean           boolean NOT NULL,
    snapshot        bytea   NOT NULL
) WITH (fillfactor = 50);
ALTER TABLE subscription_checkpoints ALTER COLUMN snapshot SET STORAGE EXTERNAL;

-- A quota's counter in a period. status: 0 open, 1 grace, 2 closed. usage_snapshot is written once, when
-- the period is closed.
CREATE TABLE billing_periods (
    subscription_id uuid     NOT NULL,
    quota           text     NOT NULL,
    period_start    bigint   NOT NULL,
    period_end      bigint   NOT NULL,
    meter           text     NOT NULL,
    used            bigint   NOT NULL,
    quota_limit     bigint,
    status          smallint NOT NULL DEFAULT 0,
    plan_id         uuid     NOT NULL,
    plan_version    integer  NOT NULL,
    usage_snapshot  text,
    PRIMARY KEY (subscription_id, quota, period_start)
);

-- The outbox. status: 0 waiting, 1 delivered, 2 dead letter. A second row with the same
-- idempotency_key is dropped, so a message is enqueued once whatever is repeated.
CREATE TABLE event_queue (
    id              uuid     NOT NULL PRIMARY KEY,
    subscription_id uuid     NOT NULL,
    kind            text     NOT NULL,
    priority        smallint NOT NULL,
    idempotency_key text     COLLATE "C" NOT NULL UNIQUE,
    payload         text     NOT NULL,
    created_at      bigint   NOT NULL,
    status          smallint NOT NULL DEFAULT 0,
    attempts        integer  NOT NULL DEFAULT 0,
    next_attempt_at bigint   NOT NULL,
    last_error      text,
    finished_at     bigint
);
CREATE INDEX event_queue_waiting ON event_queue (priority, next_attempt_at) WHERE status = 0;

-- Named holds: lets any node find the subscription of a reservation.
CREATE TABLE quota_reservations (
    id              uuid   NOT NULL PRIMARY KEY,
    subscription_id uuid   NOT NULL,
    amounts         text   NOT NULL,
    created_at      bigint NOT NULL,
    expires_at      bigint NOT NULL,
    released_at     bigint
);

-- The last checkpoint batch of each of a node's lanes. It moves by one in the batch's own transaction,
-- which is what makes a repeated batch change nothing.
CREATE TABLE checkpoint_batches (
    incarnation uuid     NOT NULL,
    lane        smallint NOT NULL,
    number      bigint   NOT NULL,
    PRIMARY KEY (incarnation, lane)
);
