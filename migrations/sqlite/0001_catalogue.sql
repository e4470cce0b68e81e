-- What is sold and to whom: plans, subscriptions, their keys, API tokens, and who changed what.
-- The same tables as in Postgres. Ids are 16-byte blobs, whose order is the order of the UUIDs; times
-- are microseconds since the Unix epoch; booleans are 0 and 1. STRICT: a wrong type is an error here too.

-- A plan is all its versions; a subscription names the plan, never a version.
CREATE TABLE pricing_models (
    id            BLOB    NOT NULL,
    version       INTEGER NOT NULL CHECK (version >= 1),
    name          TEXT    NOT NULL,
    config        TEXT    NOT NULL,
    at_period_end INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    PRIMARY KEY (id, version)
) STRICT;

CREATE TABLE api_subscriptions (
    id            BLOB    NOT NULL PRIMARY KEY,
    plan_id       BLOB    NOT NULL,
    next_plan_id  BLOB,
    external_id   TEXT,
    tenant        TEXT    NOT NULL,
    api_id        TEXT,
    user_email    TEXT,
    time_zone     TEXT    NOT NULL,
    status        INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    ends_at       INTEGER,
    webhook_url   TEXT,
    limits        TEXT    NOT NULL,
    metadata      TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    revision      INTEGER NOT NULL,
    requests_used INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Status 2 is deleted: its name may be given to another.
CREATE UNIQUE INDEX api_subscriptions_external_id ON api_subscriptions (tenant, external_id)
    WHERE external_id IS NOT NULL AND status <> 2;
CREATE INDEX api_subscriptions_tenant ON api_subscriptions (tenant, id);
CREATE INDEX api_subscriptions_plan ON api_subscriptions (plan_id, id);
CREATE INDEX api_subscriptions_next_plan ON api_subscriptions (next_plan_id)
    WHERE next_plan_id IS NOT NULL;

-- Only the SHA-256 of a key is kept.
CREATE TABLE subscription_keys (
    id              BLOB    NOT NULL PRIMARY KEY,
    subscription_id BLOB    NOT NULL REFERENCES api_subscriptions (id),
    hash            BLOB    NOT NULL UNIQUE,
    hint            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    revoked_at      INTEGER
) STRICT;
CREATE INDEX subscription_keys_subscription ON subscription_keys (subscription_id, created_at);

-- subscriptions: a JSON array of ids; null means all.
CREATE TABLE api_tokens (
    id            BLOB    NOT NULL PRIMARY KEY,
    hash          BLOB    NOT NULL UNIQUE,
    name          TEXT    NOT NULL,
    scope         TEXT    NOT NULL,
    tenant        TEXT,
    subscriptions TEXT,
    expires_at    INTEGER,
    created_at    INTEGER NOT NULL,
    revoked_at    INTEGER
) STRICT;

-- Append-only. Ids are UUIDv7, so their order is the order of time.
CREATE TABLE audit_log (
    id           BLOB    NOT NULL PRIMARY KEY,
    at           INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    action       TEXT    NOT NULL,
    target_kind  TEXT    NOT NULL,
    target_id    TEXT    NOT NULL,
    tenant       TEXT,
    state_before TEXT,
    state_after  TEXT,
    reason       TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_log_tenant ON audit_log (tenant, id);
