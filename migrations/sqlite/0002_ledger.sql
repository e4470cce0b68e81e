-- The ledger: every counter can be rebuilt from it. Each index has a reader named beside it.

-- An identity is inserted once; that is what makes a repeated event harmless. event_time and seq lead
-- to the row in usage_records without an index on event_id there.
CREATE TABLE usage_event_ids (
    subscription_id BLOB    NOT NULL,
    event_id        TEXT    NOT NULL,
    kind            INTEGER NOT NULL,
    recorded_at     INTEGER NOT NULL,
    event_time      INTEGER NOT NULL,
    seq             INTEGER NOT NULL,
    PRIMARY KEY (subscription_id, event_id, kind)
) STRICT, WITHOUT ROWID;

-- Forgetting identities older than the accept window. Entries arrive in its order, at the right edge.
CREATE INDEX usage_event_ids_recorded_at ON usage_event_ids (recorded_at);

-- One row per event, kept in the order in which recovery and analytics read it. The key also refuses a
-- position that is given out twice.
CREATE TABLE usage_records (
    shard_id         INTEGER NOT NULL,
    seq              INTEGER NOT NULL,
    subscription_id  BLOB    NOT NULL,
    event_time       INTEGER NOT NULL,
    recorded_at      INTEGER NOT NULL,
    units            INTEGER NOT NULL,
    response_time_us INTEGER,
    request_size     INTEGER,
    response_size    INTEGER,
    reservation_id   BLOB,
    key_id           BLOB,
    kind             INTEGER NOT NULL,
    outcome          INTEGER NOT NULL,
    status_code      INTEGER,
    charged          INTEGER NOT NULL,
    success          INTEGER,
    event_id         TEXT    NOT NULL,
    quantities       TEXT,
    api_id           TEXT,
    api_path         TEXT    NOT NULL,
    method           TEXT    NOT NULL,
    user_agent       TEXT,
    ip_address       TEXT,
    country          TEXT,
    PRIMARY KEY (shard_id, seq)
) STRICT, WITHOUT ROWID;

-- The request log and usage queries read one subscription over a range of time.
CREATE INDEX usage_records_subscription ON usage_records (subscription_id, event_time, seq);

-- Minute counters per endpoint. detail: status codes, countries and the latency sketch, in the node's
-- own versioned bytes.
CREATE TABLE api_usage_analytics (
    subscription_id BLOB    NOT NULL,
    minute          INTEGER NOT NULL,
    path            TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    requests        INTEGER NOT NULL,
    units           INTEGER NOT NULL,
    errors          INTEGER NOT NULL,
    denied          INTEGER NOT NULL,
    bytes_in        INTEGER NOT NULL,
    bytes_out       INTEGER NOT NULL,
    detail          BLOB    NOT NULL,
    PRIMARY KEY (subscription_id, minute, path, method)
) STRICT;

-- Sums over all subscriptions in a range of time.
CREATE INDEX api_usage_analytics_minute ON api_usage_analytics (minute);
