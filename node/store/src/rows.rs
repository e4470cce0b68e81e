//! What lies in the tables, as plain rows.
//!
//! Role: the one family of types that both databases read and write. Rows know nothing of the
//! domain's rules: plan and snapshot are opaque text and bytes here; the node converts at the edge.
//! Times are [`Micros`], counters `i64` because SQL has no unsigned type; the node keeps them
//! within `0 ..= 2^53 - 1` except for adjustments, which may be negative.

use uuid::Uuid;
use weir_core::units::{Epoch, Micros, PlanId, ReservationId, Seq, ShardId, SubscriptionId};

/// What a ledger row means. The numbers are stored; never reuse one.
///
/// The kind is part of a row's identity, so that an event id chosen by a gateway can never collide
/// with the id of an adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum RowKind {
    /// A request that the gateway reported.
    Usage = 0,
    /// An audited correction; units may be negative.
    Adjustment = 1,
    /// Sets the counters of the running periods to zero.
    Reset = 2,
    /// A named reservation was settled; the id of the row is the reservation's, so that it happens
    /// once. With the outcome denied it was released: nothing was used.
    Commit = 3,
}

impl RowKind {
    /// From the stored number.
    pub const fn from_i16(number: i16) -> Option<Self> {
        match number {
            0 => Some(Self::Usage),
            1 => Some(Self::Adjustment),
            2 => Some(Self::Reset),
            3 => Some(Self::Commit),
            _ => None,
        }
    }
}

/// How the gateway ended a request. The numbers are stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum OutcomeKind {
    /// The upstream answered.
    Served = 0,
    /// The gateway refused it; recorded, never charged.
    Denied = 1,
    /// The client went away.
    Aborted = 2,
}

impl OutcomeKind {
    /// From the stored number.
    pub const fn from_i16(number: i16) -> Option<Self> {
        match number {
            0 => Some(Self::Served),
            1 => Some(Self::Denied),
            2 => Some(Self::Aborted),
            _ => None,
        }
    }
}

/// One row of `usage_records`: the ledger that every counter can be rebuilt from.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerRow {
    /// Whose usage.
    pub subscription: SubscriptionId,
    /// The subscription's shard; its writer assigns `seq`.
    pub shard: ShardId,
    /// Position in the shard's ledger.
    pub seq: Seq,
    /// With `subscription` and `kind` the identity of the row.
    pub event_id: String,
    /// What the row means.
    pub kind: RowKind,
    /// When it happened, by the sender's clock; decides the period and the partition.
    pub event_time: Micros,
    /// When Weir took it in.
    pub recorded_at: Micros,
    /// Units on the meter `requests`.
    pub units: i64,
    /// Amounts on other meters, a JSON object `{"tokens":743}`.
    pub quantities: Option<String>,
    /// Whether the units count against quotas (outcome and the plan's `bill` decide).
    pub charged: bool,
    /// How the request ended.
    pub outcome: OutcomeKind,
    /// The named reservation that this row settles.
    pub reservation: Option<ReservationId>,
    /// Which of the subscription's keys was used, when it came by key.
    pub key_id: Option<Uuid>,
    /// The API that the subscription is for.
    pub api_id: Option<String>,
    /// Path as the gateway reported it; empty when unknown.
    pub api_path: String,
    /// HTTP method; empty when unknown.
    pub method: String,
    /// HTTP status.
    pub status_code: Option<i16>,
    /// Whether the gateway called it a success.
    pub success: Option<bool>,
    /// Response time in microseconds.
    pub response_time_us: Option<i64>,
    /// Request bytes.
    pub request_size: Option<i64>,
    /// Response bytes.
    pub response_size: Option<i64>,
    /// User agent.
    pub user_agent: Option<String>,
    /// Client address, as text.
    pub ip_address: Option<String>,
    /// ISO 3166 country code.
    pub country: Option<String>,
}

/// A subscription's durable state between ledger rows.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointRow {
    /// Whose state.
    pub subscription: SubscriptionId,
    /// Its shard.
    pub shard: ShardId,
    /// Epoch under which it was taken.
    pub epoch: Epoch,
    /// Grows with every checkpoint of this subscription within an epoch.
    pub version: i64,
    /// Ledger rows up to this one are in it.
    pub last_seq: Seq,
    /// `used` of the first quota; copied to `api_subscriptions.requests_used`.
    pub used: i64,
    /// Limit of the first quota; `None` = unlimited.
    pub quota_limit: Option<i64>,
    /// Running period of the first quota.
    pub period_start: Micros,
    /// Its end.
    pub period_end: Micros,
    /// Upper bound that the owner may admit to on the first quota (all of them are in `snapshot`).
    pub escrow_hi: i64,
    /// Written at an orderly end: holds in it are exact, nothing was admitted after it.
    pub clean: bool,
    /// The state machine's own bytes.
    pub snapshot: Vec<u8>,
    /// When it was taken.
    pub taken_at: Micros,
}

/// Growth of one quota's counter in one period that is no longer the running one.
#[derive(Clone, Debug, PartialEq)]
pub struct PeriodDelta {
    /// Whose period.
    pub subscription: SubscriptionId,
    /// Name of the quota.
    pub quota: String,
    /// Its meter.
    pub meter: String,
    /// Start, inclusive.
    pub start: Micros,
    /// End, exclusive.
    pub end: Micros,
    /// To add to `used`.
    pub used_delta: i64,
    /// The limit when the period ran.
    pub quota_limit: Option<i64>,
    /// When the terms that these units lie under went; [`Micros::MAX`] = not before the period's end.
    pub until: Micros,
    /// The plan then.
    pub plan: PlanId,
    /// Its version.
    pub plan_version: i32,
    /// Name of the quota in it.
    pub priced_as: String,
    /// Where overage starts by those terms; `None` = nowhere.
    pub overage_from: Option<i64>,
}

/// A message on its way out (`event_queue`). Written in the transaction of the state that caused
/// it.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// Stable id, also the `webhook-id`.
    pub id: Uuid,
    /// Whose message.
    pub subscription: SubscriptionId,
    /// `quota_warning`, …
    pub kind: String,
    /// Smaller leaves first.
    pub priority: i16,
    /// A second row with the same key is dropped.
    pub idempotency_key: String,
    /// JSON.
    pub payload: String,
    /// When it came to be.
    pub created_at: Micros,
}

/// A named hold (`quota_reservations`): lets any node find the subscription of a reservation. It is
/// written once; whether it was settled says the ledger row of kind commit with its id.
#[derive(Clone, Debug, PartialEq)]
pub struct ReservationRow {
    /// Identity, given to the client.
    pub id: ReservationId,
    /// Whose hold.
    pub subscription: SubscriptionId,
    /// Units held on the meter `requests` and others, a JSON object.
    pub amounts: String,
    /// When it was made.
    pub created_at: Micros,
    /// When the hold returns by itself.
    pub expires_at: Micros,
}

/// What one checkpoint transaction writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointBatch {
    /// Which of the node's checkpoint lanes writes; lanes count their batches separately.
    pub lane: i16,
    /// This batch's number on its lane, from 1. The same number again changes nothing, which makes
    /// a retry after an unknown outcome safe although period deltas are additions.
    pub number: i64,
    /// New state of dirty subscriptions, at most one row each.
    pub subscriptions: Vec<CheckpointRow>,
    /// Counters of past periods.
    pub periods: Vec<PeriodDelta>,
    /// Messages.
    pub outbox: Vec<OutboxRow>,
    /// Reservations made; one that is there already stays as it is. How they end is in the ledger.
    pub reservations: Vec<ReservationRow>,
    /// Subscriptions that moved to the plan that was waiting for their period's end. Nothing
    /// changes where another plan waits by now.
    pub plan_switches: Vec<(SubscriptionId, PlanId)>,
    /// Per shard: every ledger row up to this one is in some committed checkpoint.
    pub counted: Vec<(ShardId, Seq)>,
}

/// A plan's version (`pricing_models`).
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    /// Identity over all versions.
    pub id: PlanId,
    /// From 1.
    pub version: i32,
    /// Display name.
    pub name: String,
    /// The plan document, JSON.
    pub config: String,
    /// Subscriptions follow it at their next period rather than at once.
    pub at_period_end: bool,
    /// When this version was made.
    pub created_at: Micros,
}

/// Life of a subscription. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum SubscriptionStatus {
    /// May be used.
    Active = 0,
    /// Refused until made active again.
    Suspended = 1,
    /// Gone for every reader; its ledger stays.
    Deleted = 2,
}

impl SubscriptionStatus {
    /// From the stored number.
    pub const fn from_i16(number: i16) -> Option<Self> {
        match number {
            0 => Some(Self::Active),
            1 => Some(Self::Suspended),
            2 => Some(Self::Deleted),
            _ => None,
        }
    }
}

/// A subscription (`api_subscriptions`).
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionRow {
    /// Identity.
    pub id: SubscriptionId,
    /// Its plan.
    pub plan: PlanId,
    /// The plan it moves to when the period ends.
    pub next_plan: Option<PlanId>,
    /// The customer's own name for it; unique within the tenant among those not deleted.
    pub external_id: Option<String>,
    /// Whose customer.
    pub tenant: String,
    /// Which API.
    pub api_id: Option<String>,
    /// Where notices go.
    pub user_email: Option<String>,
    /// IANA name.
    pub time_zone: String,
    /// Life.
    pub status: SubscriptionStatus,
    /// From when it may be used; anchor `subscription` counts from here.
    pub started_at: Micros,
    /// Until when.
    pub ends_at: Option<Micros>,
    /// Where webhooks go.
    pub webhook_url: Option<String>,
    /// Limits that differ from the plan's, a JSON object quota name → limit.
    pub limits: String,
    /// The customer's own notes, a JSON object.
    pub metadata: String,
    /// Made when.
    pub created_at: Micros,
    /// Changed when.
    pub updated_at: Micros,
    /// Grows with each change; an update names the one it saw.
    pub revision: i64,
    /// `used` of the first quota as of the last checkpoint; read only.
    pub requests_used: i64,
}

/// A subscription key (`subscription_keys`). Only its hash is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRow {
    /// Identity.
    pub id: Uuid,
    /// Whose key.
    pub subscription: SubscriptionId,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// First characters, to recognise it by.
    pub hint: String,
    /// Made when.
    pub created_at: Micros,
    /// Refused from when.
    pub revoked_at: Option<Micros>,
}

/// An API token (`api_tokens`). Only its hash is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRow {
    /// Identity.
    pub id: Uuid,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Display name.
    pub name: String,
    /// `admin`, `gateway` or `dashboard`.
    pub scope: String,
    /// Limits it to one tenant.
    pub tenant: Option<String>,
    /// Limits it to these subscriptions; `None` = all.
    pub subscriptions: Option<Vec<SubscriptionId>>,
    /// Refused from when.
    pub expires_at: Option<Micros>,
    /// Made when.
    pub created_at: Micros,
    /// Taken back when.
    pub revoked_at: Option<Micros>,
}

/// Who changed what (`audit_log`). Append-only; written in the transaction of the change.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// UUIDv7, so that the order of ids is the order of time.
    pub id: Uuid,
    /// When.
    pub at: Micros,
    /// Token id or `bootstrap`.
    pub actor: String,
    /// `plan.create`, `subscription.reset`, …
    pub action: String,
    /// What kind of thing.
    pub target_kind: String,
    /// Which one.
    pub target_id: String,
    /// The tenant it belongs to, when it belongs to one.
    pub tenant: Option<String>,
    /// Before, JSON.
    pub before: Option<String>,
    /// After, JSON.
    pub after: Option<String>,
    /// Why, when the caller said.
    pub reason: Option<String>,
}

/// Minute counters of one endpoint of one subscription (`api_usage_analytics`).
#[derive(Clone, Debug, PartialEq)]
pub struct RollupRow {
    /// Whose usage.
    pub subscription: SubscriptionId,
    /// Start of the minute.
    pub minute: Micros,
    /// Path.
    pub path: String,
    /// Method.
    pub method: String,
    /// The additive counters.
    pub sums: RollupSums,
    /// Status codes, countries and the latency sketch, in the node's own bytes.
    pub detail: Vec<u8>,
}

/// Counters that add up over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RollupSums {
    /// Rows of kind usage.
    pub requests: i64,
    /// Charged units on `requests`.
    pub units: i64,
    /// Status >= 400, without refusals by the gateway.
    pub errors: i64,
    /// Outcome denied.
    pub denied: i64,
    /// Request bytes.
    pub bytes_in: i64,
    /// Response bytes.
    pub bytes_out: i64,
}

/// This node's row in `nodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Stable name.
    pub id: String,
    /// New at every boot.
    pub incarnation: Uuid,
    /// Where HTTP is served.
    pub http: String,
    /// Where peers connect.
    pub cluster: String,
    /// Mark of the cluster secret it was started with; empty when it needs none. Two living nodes
    /// with different marks are not let in together.
    pub seal: String,
}

/// What [`Error::Conflict`](crate::Error::Conflict) names when a node is not let in for its seal.
pub const SEAL: &str = "cluster secret";

/// What [`Error::Conflict`](crate::Error::Conflict) names when nobody is let in since the database has lost
/// commits.
pub const REWOUND: &str = "lost commits";

/// A node as everybody sees it (`nodes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Name, boot and addresses.
    pub node: NodeRow,
    /// `joining`, `up`, `draining`, `dead`, `left`.
    pub state: String,
    /// Milliseconds until its lease ends, by the store's clock; not above zero when it has ended.
    pub lease_left_ms: i64,
}

impl MemberRow {
    /// Whether it serves and its lease runs.
    pub fn is_alive(&self) -> bool {
        self.lease_left_ms > 0 && matches!(self.status(), "joining" | "up" | "draining")
    }

    /// Its state, or `expired`: its lease has run out, and nobody has declared it dead yet.
    pub fn status(&self) -> &str {
        match self.state.as_str() {
            "joining" | "up" | "draining" if self.lease_left_ms <= 0 => "expired",
            state => state,
        }
    }
}
