-- The ledger: every counter can be rebuilt from it. Insert speed decides how fast Weir ingests, so
-- each index here has a reader named beside it.

-- An identity is inserted once; that is what makes a repeated event harmless. event_time and seq lead
-- to the row in usage_records without an index on event_id there. Collation C: identities are compared
-- as bytes, which is both exact and several times faster than a locale's rules.
CREATE TABLE usage_event_ids (
    subscription_id uuid     NOT NULL,
    recorded_at     bigint   NOT NULL,
    event_time      bigint   NOT NULL,
    seq             bigint   NOT NULL,
    kind            smallint NOT NULL,
    event_id        text     COLLATE "C" NOT NULL,
    PRIMARY KEY (subscription_id, event_id, kind)
);

-- Forgetting identities older than the accept window. Rows arrive in the order of recorded_at, so a
-- block range index is exact enough and costs next to nothing to keep.
CREATE INDEX usage_event_ids_recorded_at ON usage_event_ids USING brin (recorded_at);

-- One row per event, one partition per day of event_time. Partitions are made ahead by upkeep and on
-- demand by an append, and are dropped whole once archived. Fixed-width columns come first so that no
-- bytes go to padding.
CREATE TABLE usage_records (
    subscription_id  uuid     NOT NULL,
    seq              bigint   NOT NULL,
    event_time       bigint   NOT NULL,
    recorded_at      bigint   NOT NULL,
    units            bigint   NOT NULL,
    response_time_us bigint,
    request_size     bigint,
    response_size    bigint,
    reservation_id   uuid,
    key_id           uuid,
    shard_id         integer  NOT NULL,
    kind             smallint NOT NULL,
    outcome          smallint NOT NULL,
    status_code      smallint,
    charged          boolean  NOT NULL,
    success          boolean,
    event_id         text     NOT NULL,
    quantities       text,
    api_id           text,
    api_path         text     NOT NULL,
    method           text     NOT NULL,
    user_agent       text,
    ip_address       text,
    country          text
) PARTITION BY RANGE (event_time);

-- Recovery and analytics read a shard's ledger after a position.
CREATE INDEX usage_records_shard ON usage_records (shard_id, seq);
-- The request log and usage queries read one subscription over a range of time.
CREATE INDEX usage_records_subscription ON usage_records (subscription_id, event_time, seq);

-- Minute counters per endpoint. detail: status codes, countries and the latency sketch, in the node's
-- own versioned bytes.
CREATE TABLE api_usage_analytics (
    subscription_id uuid   NOT NULL,
    minute          bigint NOT NULL,
    path            text   COLLATE "C" NOT NULL,
    method          text   COLLATE "C" NOT NULL,
    requests        bigint NOT NULL,
    units           bigint NOT NULL,
    errors          bigint NOT NULL,
    denied          bigint NOT NULL,
    bytes_in        bigint NOT NULL,
    bytes_out       bigint NOT NULL,
    detail          bytea  NOT NULL,
    PRIMARY KEY (subscription_id, minute, path, method)
);

-- Sums over all subscriptions in a range of time; minutes arrive nearly in order.
CREATE INDEX api_usage_analytics_minute ON api_usage_analytics USING brin (minute);
