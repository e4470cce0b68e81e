-- What is sold and to whom: plans, subscriptions, their keys, API tokens, and who changed what.
-- Times are microseconds since the Unix epoch in every table, so that a value read equals the value
-- written. JSON that only Weir reads is kept as text: it is never searched, so it need not be parsed.

-- A plan is all its versions; a subscription names the plan, never a version.
CREATE TABLE pricing_models (
    id            uuid    NOT NULL,
    version       integer NOT NULL CHECK (version >= 1),
    name          text    NOT NULL,
    config        text    NOT NULL,
    at_period_end boolean NOT NULL,
    created_at    bigint  NOT NULL,
    PRIMARY KEY (id, version)
);

-- fillfactor: every checkpoint rewrites requests_used; free room on the page keeps that off the indexes.
CREATE TABLE api_subscriptions (
    id            uuid     NOT NULL PRIMARY KEY,
    plan_id       uuid     NOT NULL,
    next_plan_id  uuid,
    external_id   text,
    tenant        text     NOT NULL,
    api_id        text,
    user_email    text,
    time_zone     text     NOT NULL,
    status        smallint NOT NULL,
    started_at    bigint   NOT NULL,
    ends_at       bigint,
    webhook_url   text,
    limits        text     NOT NULL,
    metadata      text     NOT NULL,
    created_at    bigint   NOT NULL,
    updated_at    bigint   NOT NULL,
    revision      bigint   NOT NULL,
    requests_used bigint   NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Status 2 is deleted: its name may be given to another.
CREATE UNIQUE INDEX api_subscriptions_external_id ON api_subscriptions (tenant, external_id)
    WHERE external_id IS NOT NULL AND status <> 2;
CREATE INDEX api_subscriptions_tenant ON api_subscriptions (tenant, id);
CREATE INDEX api_subscriptions_plan ON api_subscriptions (plan_id, id);
CREATE INDEX api_subscriptions_next_plan ON api_subscriptions (next_plan_id)
    WHERE next_plan_id IS NOT NULL;

-- Only the SHA-256 of a key is kept.
CREATE TABLE subscription_keys (
    id              uuid   NOT NULL PRIMARY KEY,
    subscription_id uuid   NOT NULL REFERENCES api_subscriptions (id),
    hash            bytea  NOT NULL UNIQUE,
    hint            text   NOT NULL,
    created_at      bigint NOT NULL,
    revoked_at      bigint
);
CREATE INDEX subscription_keys_subscription ON subscription_keys (subscription_id, created_at);

-- subscriptions: a JSON array of ids; null means all.
CREATE TABLE api_tokens (
    id            uuid   NOT NULL PRIMARY KEY,
    hash          bytea  NOT NULL UNIQUE,
    name          text   NOT NULL,
    scope         text   NOT NULL,
    tenant        text,
    subscriptions text,
    expires_at    bigint,
    created_at    bigint NOT NULL,
    revoked_at    bigint
);

-- Append-only. Ids are UUIDv7, so their order is the order of time.
CREATE TABLE audit_log (
    id           uuid   NOT NULL PRIMARY KEY,
    at           bigint NOT NULL,
    actor        text   NOT NULL,
    action       text   NOT NULL,
    target_kind  text   NOT NULL,
    target_id    text   NOT NULL,
    tenant       text,
    state_before text,
    state_after  text,
    reason       text
);
CREATE INDEX audit_log_tenant ON audit_log (tenant, id);
