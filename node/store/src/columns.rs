//! Column lists, in the order in which `sql/decode.rs` takes them.
//!
//! Role: a list is written once for both engines. Macros, because a statement must be a literal to
//! be prepared once and because `concat!` takes nothing else.

/// `usage_records`, named `r`.
macro_rules! ledger_columns {
    () => {
        "r.subscription_id, r.shard_id, r.seq, r.event_id, r.kind, r.event_time, r.recorded_at, \
         r.units, r.quantities, r.charged, r.outcome, r.reservation_id, r.key_id, r.api_id, \
         r.api_path, r.method, r.status_code, r.success, r.response_time_us, r.request_size, \
         r.response_size, r.user_agent, r.ip_address, r.country"
    };
}

/// `api_subscriptions`, named `s`.
macro_rules! subscription_columns {
    () => {
        "s.id, s.plan_id, s.next_plan_id, s.external_id, s.tenant, s.api_id, s.user_email, \
         s.time_zone, s.status, s.started_at, s.ends_at, s.webhook_url, s.limits, s.metadata, \
         s.created_at, s.updated_at, s.revision, s.requests_used"
    };
}

/// `subscription_checkpoints`, named `c`.
macro_rules! checkpoint_columns {
    () => {
        "c.subscription_id, c.shard_id, c.epoch, c.version, c.last_seq, c.used, c.quota_limit, \
         c.period_start, c.period_end, c.escrow_hi, c.clean, c.snapshot, c.taken_at"
    };
}

/// `pricing_models`, named `p`.
macro_rules! plan_columns {
    () => {
        "p.id, p.version, p.name, p.config, p.at_period_end, p.created_at"
    };
}

/// `subscription_keys`, named `k`.
macro_rules! key_columns {
    () => {
        "k.id, k.subscription_id, k.hash, k.hint, k.created_at, k.revoked_at"
    };
}

/// `api_tokens`, named `t`.
macro_rules! token_columns {
    () => {
        "t.id, t.hash, t.name, t.scope, t.tenant, t.subscriptions, t.expires_at, t.created_at, \
         t.revoked_at"
    };
}

/// `audit_log`, named `a`.
macro_rules! audit_columns {
    () => {
        "a.id, a.at, a.actor, a.action, a.target_kind, a.target_id, a.tenant, a.state_before, \
         a.state_after, a.reason"
    };
}

/// `quota_reservations`, named `q`.
macro_rules! reservation_columns {
    () => {
        "q.id, q.subscription_id, q.amounts, q.created_at, q.expires_at"
    };
}

/// `event_queue`, named `e`, with the tenant of `api_subscriptions`, named `s`.
macro_rules! notification_columns {
    () => {
        "e.id, e.subscription_id, s.tenant, e.kind, e.payload, e.created_at, e.status, e.attempts, \
         e.last_error, e.finished_at"
    };
}

/// `api_usage_analytics`, named `u`.
macro_rules! rollup_columns {
    () => {
        "u.subscription_id, u.minute, u.path, u.method, u.requests, u.units, u.errors, u.denied, \
         u.bytes_in, u.bytes_out, u.detail"
    };
}

/// Whether a row of `usage_records`, named by the literal, counts in sums over time: requests, and
/// the units that a reservation was committed with. 0 and 3 are `RowKind`'s usage and commit; a row
/// of another kind, or of a release, adds nothing and makes no rollup.
macro_rules! counts_in_sums {
    ($name:literal) => {
        concat!("(", $name, ".kind = 0 OR (", $name, ".kind = 3 AND ", $name, ".charged))")
    };
}
