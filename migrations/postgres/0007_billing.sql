-- Money: which terms a period's units lie under, what was charged for it, and who may charge now.

-- Units of a period by the terms they were used under; until_at is when those went, the largest number
-- when they held to the period's end. Checkpoints add to it together with billing_periods.
CREATE TABLE billing_segments (
    subscription_id uuid    NOT NULL,
    quota           text    NOT NULL,
    period_start    bigint  NOT NULL,
    until_at        bigint  NOT NULL,
    used            bigint  NOT NULL,
    overage_from    bigint,
    plan_id         uuid    NOT NULL,
    plan_version    integer NOT NULL,
    priced_as       text    NOT NULL,
    PRIMARY KEY (subscription_id, quota, period_start, until_at)
);
INSERT INTO billing_segments
SELECT subscription_id, quota, period_start, 9223372036854775807, used, quota_limit, plan_id,
       plan_version, quota
FROM billing_periods;

-- A period's account. charged is the sum of its charges in smallest units of the currency: a price may
-- make it longer than 64 bits, so it is text that only Weir reads. booked_used is what the period was
-- closed with, and grows with each correction.
ALTER TABLE billing_periods ADD COLUMN charges integer NOT NULL DEFAULT 0;
ALTER TABLE billing_periods ADD COLUMN charged text NOT NULL DEFAULT '0';
ALTER TABLE billing_periods ADD COLUMN charged_units bigint NOT NULL DEFAULT 0;
ALTER TABLE billing_periods ADD COLUMN currency text;
ALTER TABLE billing_periods ADD COLUMN booked_used bigint NOT NULL DEFAULT 0;
ALTER TABLE billing_periods ADD COLUMN closed_at bigint;

-- What is still to be looked at: not closed, or changed since.
CREATE INDEX billing_periods_unsettled ON billing_periods (subscription_id)
    WHERE status < 2 OR used <> booked_used;

-- What was charged. Append-only. kind: 0 overage, 1 correction of a closed period (corrects_start and
-- corrects_end name it; the line stands on the period that was open). Ids are UUIDv7.
CREATE TABLE charges (
    id              uuid     NOT NULL PRIMARY KEY,
    subscription_id uuid     NOT NULL,
    quota           text     NOT NULL,
    meter           text     NOT NULL,
    period_start    bigint   NOT NULL,
    period_end      bigint   NOT NULL,
    number          integer  NOT NULL,
    kind            smallint NOT NULL,
    amount          text     NOT NULL,
    currency        text     NOT NULL,
    units           bigint   NOT NULL,
    description     text     NOT NULL,
    corrects_start  bigint,
    corrects_end    bigint,
    created_at      bigint   NOT NULL,
    idempotency_key text     COLLATE "C" NOT NULL UNIQUE
);
CREATE INDEX charges_subscription ON charges (subscription_id, id);

-- Versions of plans that were deleted: what was used under them is still to be priced.
CREATE TABLE pricing_models_retired (
    id            uuid    NOT NULL,
    version       integer NOT NULL,
    name          text    NOT NULL,
    config        text    NOT NULL,
    at_period_end boolean NOT NULL,
    created_at    bigint  NOT NULL,
    PRIMARY KEY (id, version)
);

-- Which node runs a job. The token grows whenever it is taken; every write of a job names it, so that
-- one who was overtaken changes nothing. until_at is by the clock of whoever wrote it.
CREATE TABLE job_leases (
    job      text   NOT NULL PRIMARY KEY,
    holder   uuid   NOT NULL,
    token    bigint NOT NULL,
    until_at bigint NOT NULL
);
