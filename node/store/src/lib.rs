//! The store: the ledger, the checkpoints and the catalogue, behind one trait.
//!
//! Role: the only room that knows SQL. Two engines, [`postgres::PostgresStore`] for a cluster and
//! [`sqlite::SqliteStore`] for one node, pass one conformance suite (`tests/conformance`).
//! Invariants kept here: INV-1 (a row named in [`Appended::new`] is durable before the call
//! returns), INV-2 (an identity is inserted once), INV-4 (every write of a shard's state is fenced
//! by its epoch and the writer's incarnation). The node's `recorder`, `shard`, `analytics` and
//! `http` rooms call it.
//!
//! Every call is bounded in time by the engine itself. When time runs out the connection is
//! dropped, never returned to the pool, because its answer may still be under way; the caller is
//! told [`Error::Unknown`] where the call may have committed and [`Error::Unavailable`] where it
//! cannot have.

#![allow(
    clippy::duplicate_mod,
    reason = "the rooms in sql/ are compiled once per engine, see postgres/mod.rs"
)]

#[macro_use]
mod columns;
mod batch;
pub mod billing;
mod error;
mod failure;
mod number;
pub mod outbox;
pub mod postgres;
mod rollups;
pub mod rows;
pub mod sqlite;

use async_trait::async_trait;
use uuid::Uuid;
use weir_core::units::{Epoch, Micros, PlanId, ReservationId, Seq, ShardId, SubscriptionId};

use billing::{
    BillingChange, BillingState, ChargeFilter, ChargeRow, JobLease, PeriodFilter, PeriodRow,
};
pub use error::Error;
use outbox::{
    Addressed, ClaimedDelivery, DeliveryClaim, FinishedDelivery, NotificationFilter,
    NotificationRow, OutboxDepth, Unaddressed,
};
use rows::{
    AuditRow, CheckpointBatch, CheckpointRow, KeyRow, LedgerRow, MemberRow, NodeRow, PlanRow,
    ReservationRow, RollupRow, RollupSums, RowKind, SubscriptionRow, TokenRow,
};

/// Result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// Proof of ownership that a fenced write carries: valid while every named shard still has this
/// epoch and this incarnation in `shards`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The writer's boot.
    pub incarnation: Uuid,
    /// Shards in ascending order (all writers lock in that order), with the epoch held.
    pub shards: Vec<(ShardId, Epoch)>,
}

/// A shard as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardState {
    /// Which.
    pub shard: ShardId,
    /// Current fencing token.
    pub epoch: Epoch,
    /// Owner's boot, if it has one.
    pub owner: Option<Uuid>,
    /// Every ledger row up to here is in committed checkpoints.
    pub counted: Seq,
    /// Every ledger row up to here is in `api_usage_analytics`.
    pub rolled: Seq,
    /// Last ledger row committed (0 when there is none). Exact in the answer of [`Store::claim`];
    /// in that of [`Store::shards`] a lower bound, because that list is polled and must not touch
    /// the ledger.
    pub last: Seq,
}

/// A shard to be given away, see [`Store::hand_over`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Which.
    pub shard: ShardId,
    /// Epoch at which the giver owns it.
    pub epoch: Epoch,
    /// Every row up to here is in checkpoints.
    pub counted: Seq,
}

/// Answer of [`Store::append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Per row of the batch, whether its identity was new and it is now in the ledger.
    pub new: Vec<bool>,
}

/// Everything an actor starts from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The subscription.
    pub subscription: SubscriptionRow,
    /// Newest version of its plan; 0 when the plan is gone, which only a deleted subscription can
    /// see.
    pub plan_version: i32,
    /// Last checkpoint, if there was one.
    pub checkpoint: Option<CheckpointRow>,
    /// Ledger rows after the checkpoint's `last_seq`, ascending by `seq`.
    pub tail: Vec<LedgerRow>,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Whether there are more.
    pub more: bool,
}

/// What a token may see; part of every catalogue read, so that no caller can forget it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Only this tenant.
    pub tenant: Option<String>,
    /// Only these subscriptions.
    pub subscriptions: Option<Vec<SubscriptionId>>,
}

/// Filter of [`Store::list_subscriptions`].
#[derive(Clone, Debug, Default)]
pub struct SubscriptionFilter {
    /// What the caller may see.
    pub reach: Reach,
    /// Only with this plan.
    pub plan: Option<PlanId>,
    /// Only with this external id.
    pub external_id: Option<String>,
    /// Only ids after this one (ascending by id).
    pub after: Option<SubscriptionId>,
    /// At most this many.
    pub limit: u32,
}

/// Filter of [`Store::records`]: newest first by (`event_time`, `seq`).
#[derive(Clone, Debug)]
pub struct RecordFilter {
    /// Whose.
    pub subscription: SubscriptionId,
    /// From, inclusive.
    pub from: Micros,
    /// To, exclusive.
    pub to: Micros,
    /// Only this status.
    pub status: Option<i16>,
    /// Only this path (exact).
    pub path: Option<String>,
    /// Only rows before this (time, seq) in the order of the list.
    pub before: Option<(Micros, Seq)>,
    /// At most this many.
    pub limit: u32,
}

/// What [`Store::usage_window`] reads, all in one snapshot.
#[derive(Clone, Debug)]
pub struct UsageWindow {
    /// Rollups of whole minutes inside the range.
    pub rollups: Vec<RollupRow>,
    /// Ledger rows of kind usage, and commits that charged, that are not in those rollups: not yet
    /// rolled, or in a minute that the range cuts.
    pub rows: Vec<LedgerRow>,
}

/// Sums of one subscription in [`Store::usage_by_subscription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionUsage {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Sums over the range.
    pub sums: RollupSums,
}

/// One position of a shard's analytics cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// Which shard.
    pub shard: ShardId,
    /// Where the cursor must stand now.
    pub from: Seq,
    /// Where it goes.
    pub to: Seq,
}

/// Merges the opaque details of two rollups of the same key.
pub type MergeDetail<'a> = &'a (dyn Fn(&[u8], &[u8]) -> Vec<u8> + Send + Sync);

impl std::fmt::Debug for dyn Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.engine())
    }
}

/// The store. See the module for what every call promises.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `postgres` or `sqlite`, for logs and `/readyz`.
    fn engine(&self) -> &'static str;

    /// Answers when the store answers.
    async fn ping(&self) -> Result<()>;

    // ---- membership and shards ----

    /// Fixes the shard count at the first call of a database's life and makes the shard rows;
    /// afterwards returns the count that was fixed.
    async fn init_shards(&self, shard_count: u16) -> Result<u16>;

    /// Registers this boot with a lease of `lease_ms` by the store's clock, replacing an earlier
    /// incarnation of the same node id (which is thereby dead). The same incarnation again is fine
    /// while it lives; [`Error::Conflict`] once it was declared dead or left, because that is
    /// final, and ([`SEAL`](rows::SEAL)) while another node lives that knows another secret.
    async fn join(&self, node: &NodeRow, lease_ms: u32) -> Result<()>;

    /// Prolongs the lease. `false`: this incarnation was replaced or declared dead; stop writing.
    async fn renew(&self, incarnation: Uuid, lease_ms: u32) -> Result<bool>;

    /// Ends the lease and gives the shards up, in order.
    async fn leave(&self, incarnation: Uuid) -> Result<()>;

    /// Other nodes whose lease still runs.
    async fn others_alive(&self, incarnation: Uuid) -> Result<Vec<NodeRow>>;

    /// Takes a database as it is that was found to have lost commits ([`Error::Rewound`]). `false` when it
    /// was not.
    async fn accept_rewound(&self) -> Result<bool>;

    /// Every node's row, by name.
    async fn members(&self) -> Result<Vec<MemberRow>>;

    /// Asks the node of this name to give its shards away. `false` when no such node is alive.
    async fn drain(&self, node: &str) -> Result<bool>;

    /// Asks this boot, and no later one of the same name, to give its shards away. `false` when it is not
    /// alive.
    async fn drain_boot(&self, incarnation: Uuid) -> Result<bool>;

    /// Marks nodes whose lease has run out as dead, one compare-and-set per row: a renewal at the same
    /// time either comes first or finds that it is too late.
    async fn bury_expired(&self) -> Result<()>;

    /// Takes every named shard that has no owner, a dead one, or is already ours, raising its epoch by
    /// one. Blocks until transactions that hold the shard's fence have ended, so that after it returns
    /// nothing older can still commit. Returns the shards taken, with their cursors. `lease_until` of the
    /// caller must run, else [`Error::Fenced`] names them all. Taking a shard that one already owns is how
    /// an owner settles an unknown outcome.
    async fn claim(&self, incarnation: Uuid, shards: &[ShardId]) -> Result<Vec<ShardState>>;

    /// Gives shards to another boot: each that is still ours at the named epoch gets its owner and the
    /// next epoch, all or none of one call, if the heir is up and its lease runs. Blocks until writes
    /// that hold a fence have ended. `counted` says that every row up to there is in checkpoints.
    /// Returns the shards given, with their new epochs; those missing are certainly as they were.
    async fn hand_over(
        &self,
        from: Uuid,
        to: Uuid,
        shards: &[HandOver],
    ) -> Result<Vec<(ShardId, Epoch)>>;

    /// All shards.
    async fn shards(&self) -> Result<Vec<ShardState>>;

    // ---- ledger ----

    /// Makes rows durable: fence, insert identities, insert the new ones, commit. Rows carry the
    /// `seq` that the shard's writer assigned; the row of a known identity is dropped (its `seq`
    /// stays unused). The caller passes no identity twice. Fails whole with [`Error::Fenced`] when
    /// any shard is lost. Makes missing day partitions itself.
    async fn append(&self, fence: &Fence, rows: &[LedgerRow]) -> Result<Appended>;

    /// Ledger rows of these shards after the given positions, ascending by (shard, seq), at most
    /// `limit`.
    async fn ledger_after(&self, after: &[(ShardId, Seq)], limit: u32) -> Result<Vec<LedgerRow>>;

    /// One row by identity; `None` too once [`Store::maintain`] has forgotten the identity.
    async fn find_record(
        &self,
        subscription: SubscriptionId,
        kind: RowKind,
        event_id: &str,
    ) -> Result<Option<LedgerRow>>;

    // ---- checkpoints and activation ----

    /// Writes a checkpoint batch. See [`CheckpointBatch`] for what a repeat does. A checkpoint row
    /// is only replaced by one with a greater (epoch, version). A number that is neither the lane's
    /// last nor the one after it is [`Error::Conflict`].
    async fn checkpoint(&self, fence: &Fence, batch: &CheckpointBatch) -> Result<()>;

    /// Loads actors' state, many at once; ids that do not exist are absent in the answer, deleted
    /// ones are not. `counted` is a lower bound for the tail: rows up to it are in checkpoints.
    async fn load(&self, ids: &[(SubscriptionId, ShardId, Seq)]) -> Result<Vec<Loaded>>;

    /// A named reservation.
    async fn find_reservation(&self, id: ReservationId) -> Result<Option<ReservationRow>>;

    /// Those of these reservations that exist, in no order.
    async fn find_reservations(&self, ids: &[ReservationId]) -> Result<Vec<ReservationRow>>;

    // ---- catalogue: each change writes its audit row in the same transaction ----

    /// A new plan (version 1).
    async fn insert_plan(&self, plan: &PlanRow, audit: &AuditRow) -> Result<()>;
    /// A plan's next version; [`Error::Conflict`] when it is not the one after the newest,
    /// [`Error::NotFound`] when there is no such plan.
    async fn insert_plan_version(&self, plan: &PlanRow, audit: &AuditRow) -> Result<()>;
    /// A version, or the newest.
    async fn find_plan(&self, id: PlanId, version: Option<i32>) -> Result<Option<PlanRow>>;
    /// Newest versions, ascending by id.
    async fn list_plans(&self, after: Option<PlanId>, limit: u32) -> Result<Page<PlanRow>>;
    /// Removes a plan; [`Error::Conflict`] while a subscription that is not deleted uses it.
    async fn delete_plan(&self, id: PlanId, audit: &AuditRow) -> Result<()>;

    /// A new subscription with its first key. [`Error::Conflict`] for a taken key or external id,
    /// [`Error::NotFound`] for an unknown plan.
    async fn insert_subscription(
        &self,
        row: &SubscriptionRow,
        key: &KeyRow,
        audit: &AuditRow,
    ) -> Result<()>;
    /// One that is not deleted, within reach.
    async fn find_subscription(
        &self,
        id: SubscriptionId,
        reach: &Reach,
    ) -> Result<Option<SubscriptionRow>>;
    /// A page.
    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
    ) -> Result<Page<SubscriptionRow>>;
    /// Replaces all but `requests_used` where `revision` is still `row.revision`, which then grows;
    /// [`Error::Conflict`] otherwise.
    async fn update_subscription(&self, row: &SubscriptionRow, audit: &AuditRow) -> Result<()>;

    /// A further key; [`Error::Conflict`] when taken.
    async fn insert_key(&self, key: &KeyRow, audit: &AuditRow) -> Result<()>;
    /// Revokes a key of that subscription; `false` when there is none. Again: `true`, unchanged.
    async fn revoke_key(
        &self,
        subscription: SubscriptionId,
        key: Uuid,
        at: Micros,
        audit: &AuditRow,
    ) -> Result<bool>;
    /// A subscription's keys, oldest first.
    async fn list_keys(&self, subscription: SubscriptionId) -> Result<Vec<KeyRow>>;
    /// The key with this hash (revoked ones too) and its subscription (deleted ones too).
    async fn find_key(&self, hash: &[u8; 32]) -> Result<Option<(KeyRow, SubscriptionRow)>>;

    /// A new token.
    async fn insert_token(&self, token: &TokenRow, audit: &AuditRow) -> Result<()>;
    /// By hash, revoked ones too.
    async fn find_token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>>;
    /// Not revoked, ascending by id.
    async fn list_tokens(&self, after: Option<Uuid>, limit: u32) -> Result<Page<TokenRow>>;
    /// `None` when there is none; otherwise the row as it is now.
    async fn revoke_token(
        &self,
        id: Uuid,
        at: Micros,
        audit: &AuditRow,
    ) -> Result<Option<TokenRow>>;

    /// An audit entry without another change (adjustments and resets change the ledger instead).
    async fn insert_audit(&self, audit: &AuditRow) -> Result<()>;
    /// Newest first; only ids before `before`.
    async fn list_audit(
        &self,
        tenant: Option<&str>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Page<AuditRow>>;

    /// Entries of these actions with an id above `after`, oldest first.
    async fn changes_after(
        &self,
        after: Uuid,
        actions: &[&str],
        limit: u32,
    ) -> Result<Vec<AuditRow>>;

    // ---- billing ----

    /// A version of a plan that was deleted: what was used under it is still to be priced.
    async fn find_retired_plan(&self, id: PlanId, version: i32) -> Result<Option<PlanRow>>;

    /// Takes a job for this boot until then, if nobody else has it at `now`; `None` when somebody has.
    /// The lease's token is greater than every earlier one's.
    async fn take_job(
        &self,
        job: &str,
        holder: Uuid,
        now: Micros,
        until: Micros,
    ) -> Result<Option<JobLease>>;

    /// Prolongs a job's lease; `false` when it was taken by another meanwhile.
    async fn keep_job(&self, lease: &JobLease, until: Micros) -> Result<bool>;

    /// Ids of subscriptions after this one, ascending, deleted ones too: what they used is owed.
    async fn subscription_ids(
        &self,
        after: Option<SubscriptionId>,
        limit: u32,
    ) -> Result<Vec<SubscriptionId>>;

    /// What billing starts from, in one snapshot of the database: state as [`Store::load`] gives it,
    /// the periods that are not settled and those named by quota and start, and their parts.
    async fn billing_states(
        &self,
        ids: &[(SubscriptionId, ShardId)],
        named: &[(String, Micros)],
    ) -> Result<Vec<BillingState>>;

    /// Writes charges, what becomes of their periods, and messages, all or nothing.
    /// [`Error::Conflict`] when the lease was taken by another (`job`), or when a period's charges are
    /// not those that the change was computed from (`charges`).
    async fn bill(&self, lease: &JobLease, change: &BillingChange) -> Result<()>;

    /// Charges within reach, newest first.
    async fn list_charges(&self, filter: &ChargeFilter) -> Result<Page<ChargeRow>>;

    /// A subscription's periods as they are stored, latest start first, then by quota.
    async fn list_periods(&self, filter: &PeriodFilter) -> Result<Page<PeriodRow>>;

    // ---- reads ----

    /// The audit trail of requests: rows of kind usage, and of kind commit unless the reservation was
    /// released.
    async fn records(&self, filter: &RecordFilter) -> Result<Page<LedgerRow>>;

    /// The first moment in `[from, to)` at which a subscription has usage, rolled up (then the start of
    /// its minute) or not. Lets a reader of a long range pass over the time when there was none.
    async fn next_usage(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
    ) -> Result<Option<Micros>>;

    /// One subscription's usage in `[from, to)`, in one snapshot of the database. A commit that
    /// charged counts with its units and is no request, here and in the two sums below.
    async fn usage_window(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
    ) -> Result<UsageWindow>;

    /// Sums per subscription over whole minutes in `[from, to)`, most requests first, in one
    /// snapshot; rolled and not yet rolled rows alike. Without deleted subscriptions.
    async fn usage_by_subscription(
        &self,
        reach: &Reach,
        from: Micros,
        to: Micros,
        limit: u32,
    ) -> Result<Vec<SubscriptionUsage>>;

    /// Sums over everything within reach, in whole minutes of `[from, to)`. Deleted subscriptions
    /// count: their traffic did happen.
    async fn usage_totals(&self, reach: &Reach, from: Micros, to: Micros) -> Result<RollupSums>;

    /// Checkpoints within reach whose period runs at `now`, fullest quota first (used / limit,
    /// unlimited last).
    async fn fullest(&self, reach: &Reach, now: Micros, limit: u32) -> Result<Vec<CheckpointRow>>;

    /// How many subscriptions that are not deleted are within reach.
    async fn count_subscriptions(&self, reach: &Reach) -> Result<u64>;

    // ---- outbox, see `outbox` ----

    /// Messages that have no deliveries yet, by priority, then time.
    async fn unaddressed(&self, limit: u32) -> Result<Vec<Unaddressed>>;

    /// Makes the deliveries of messages. What was addressed meanwhile stays as it is, so that
    /// several nodes may do this at once.
    async fn address(&self, messages: &[Addressed], now: Micros) -> Result<()>;

    /// Takes deliveries that are due, by priority, then time, the first of each lane only. Each
    /// counts as an attempt from now on. The same claim again takes nothing more: it returns what it
    /// still holds, prolonged.
    async fn claim_deliveries(&self, claim: &DeliveryClaim) -> Result<Vec<ClaimedDelivery>>;

    /// Ends claims. `false` where the claim held no longer: it ran out and another worker has the
    /// delivery, or this very call was repeated; then nothing changed.
    async fn finish_deliveries(&self, finished: &[FinishedDelivery]) -> Result<Vec<bool>>;

    /// How much waits.
    async fn outbox_depth(&self) -> Result<OutboxDepth>;

    /// Messages and their deliveries, newest first.
    async fn list_notifications(
        &self,
        filter: &NotificationFilter,
    ) -> Result<Page<NotificationRow>>;

    /// A message within reach.
    async fn find_notification(&self, id: Uuid, reach: &Reach) -> Result<Option<NotificationRow>>;

    /// Sends a message again, with fresh attempts, on the channels on which it was given up, or on all
    /// of them when it was on none. [`Error::NotFound`] when there is no such message,
    /// [`Error::Conflict`] while it is pending.
    async fn redeliver(&self, id: Uuid, now: Micros, audit: &AuditRow) -> Result<()>;

    // ---- analytics and upkeep ----

    /// Adds rollups and moves the cursors, in one fenced transaction. [`Error::Conflict`] when a
    /// cursor stands elsewhere (then nothing changed). Rows of equal key in one call are not
    /// allowed.
    async fn roll(
        &self,
        fence: &Fence,
        cursors: &[CursorMove],
        deltas: &[RollupRow],
        merge: MergeDetail<'_>,
    ) -> Result<()>;

    /// Makes day partitions for `days_ahead` days from `now`, and forgets event identities recorded
    /// before `forget_before` and reservations whose holds returned before it. Returns how many
    /// identities went.
    async fn maintain(&self, now: Micros, days_ahead: u16, forget_before: Micros) -> Result<u64>;
}
