-- Money: which terms a period's units lie under, what was charged for it, and who may charge now.

-- Units of a period by the terms they were used under; until_at is when those went, the largest number
-- when they held to the period's end. Checkpoints add to it together with billing_periods.
CREATE TABLE billing_segments (
    subscription_id BLOB    NOT NULL,
    quota           TEXT    NOT NULL,
    period_start    INTEGER NOT NULL,
    until_at        INTEGER NOT NULL,
    used            INTEGER NOT NULL,
    overage_from    INTEGER,
    plan_id         BLOB    NOT NULL,
    plan_version    INTEGER NOT NULL,
    priced_as       TEXT    NOT NULL,
    PRIMARY KEY (subscription_id, quota, period_start, until_at)
) STRICT;
INSERT INTO billing_segments
SELECT subscription_id, quota, period_start, 9223372036854775807, used, quota_limit, plan_id,
       plan_version, quota
FROM billing_periods;

-- A period's account. charged is the sum of its charges in smallest units of the currency: a price may
-- make it longer than 64 bits, so it is text that only Weir reads. booked_used is what the period was
-- closed with, and grows with each correction.
ALTER TABLE billing_periods ADD COLUMN charges INTEGER NOT NULL DEFAULT 0;
ALTER TABLE billing_periods ADD COLUMN charged TEXT NOT NULL DEFAULT '0';
ALTER TABLE billing_periods ADD COLUMN charged_units INTEGER NOT NULL DEFAULT 0;
ALTER TABLE billing_periods ADD COLUMN currency TEXT;
ALTER TABLE billing_periods ADD COLUMN booked_used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE billing_periods ADD COLUMN closed_at INTEGER;

-- What is still to be looked at: not closed, or changed since.
CREATE INDEX billing_periods_unsettled ON billing_periods (subscription_id)
    WHERE status < 2 OR used <> booked_used;

-- What was charged. Append-only. kind: 0 overage, 1 correction of a closed period (corrects_start and
-- corrects_end name it; the line stands on the period that was open). Ids are UUIDv7.
CREATE TABLE charges (
    id              BLOB    NOT NULL PRIMARY KEY,
    subscription_id BLOB    NOT NULL,
    quota           TEXT    NOT NULL,
    meter           TEXT    NOT NULL,
    period_start    INTEGER NOT NULL,
    period_end      INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    kind            INTEGER NOT NULL,
    amount          TEXT    NOT NULL,
    currency        TEXT    NOT NULL,
    units           INTEGER NOT NULL,
    description     TEXT    NOT NULL,
    corrects_start  INTEGER,
    corrects_end    INTEGER,
    created_at      INTEGER NOT NULL,
    idempotency_key TEXT    NOT NULL UNIQUE
) STRICT;
CREATE INDEX charges_subscription ON charges (subscription_id, id);

-- Versions of plans that were deleted: what was used under them is still to be priced.
CREATE TABLE pricing_models_retired (
    id            BLOB    NOT NULL,
    version       INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    config        TEXT    NOT NULL,
    at_period_end INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    PRIMARY KEY (id, version)
) STRICT;

-- Which node runs a job. The token grows whenever it is taken; every write of a job names it, so that
-- one who was overtaken changes nothing. until_at is by the clock of whoever wrote it.
CREATE TABLE job_leases (
    job      TEXT    NOT NULL PRIMARY KEY,
    holder   BLOB    NOT NULL,
    token    INTEGER NOT NULL,
    until_at INTEGER NOT NULL
) STRICT;
