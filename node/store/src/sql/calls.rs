//! The trait [`Store`], one short entry per call: which connection, how long, which room does the
//! work.

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;
use weir_core::units::{Epoch, Micros, PlanId, ReservationId, Seq, ShardId, SubscriptionId};

use super::session::{Session, bounded};
use super::{
    Engine, analytics, audit, billing, checkpoint, keys, ledger, load, membership, notifications,
    outbox, plans, reads, reservations, subscriptions, tokens, usage,
};
use crate::billing::{
    BillingChange, BillingState, ChargeFilter, ChargeRow, JobLease, PeriodFilter, PeriodRow,
};
use crate::failure::Call;
use crate::outbox::{
    Addressed, ClaimedDelivery, DeliveryClaim, FinishedDelivery, NotificationFilter,
    NotificationRow, OutboxDepth, Unaddressed,
};
use crate::rows::{
    AuditRow, CheckpointBatch, CheckpointRow, KeyRow, LedgerRow, MemberRow, NodeRow, PlanRow,
    ReservationRow, RollupRow, RollupSums, RowKind, SubscriptionRow, TokenRow,
};
use crate::{
    Appended, CursorMove, Fence, HandOver, Loaded, MergeDetail, Page, Reach, RecordFilter, Result,
    ShardState, Store, SubscriptionFilter, SubscriptionUsage, UsageWindow,
};

/// A call's work, within its time: begin, do, end.
macro_rules! call {
    ($begin:ident on $connections:expr, $limit:expr, $operation:literal,
     |$connection:ident| $work:expr) => {{
        let call = Call::new($operation);
        bounded(&call, $limit, async {
            let mut session = Session::$begin($connections, &call).await?;
            let $connection = session.connection();
            let done = $work.await;
            session.end(done).await
        })
        .await
    }};
}

/// Reads by one statement, or by several that need not agree.
macro_rules! read {
    ($self:ident, $operation:literal, |$connection:ident| $work:expr) => {
        call!(read on $self.readers(), $self.query_timeout(), $operation, |$connection| $work)
    };
}

/// Reads that decide who serves what: no report and no burst of changes is before them.
macro_rules! look {
    ($self:ident, $operation:literal, |$connection:ident| $work:expr) => {
        call!(read on $self.looks(), $self.query_timeout(), $operation, |$connection| $work)
    };
}

/// Changes, all or none.
macro_rules! write {
    ($self:ident, $operation:literal, |$connection:ident| $work:expr) => {
        call!(write on $self.writers(), $self.query_timeout(), $operation, |$connection| $work)
    };
}

#[async_trait]
impl Store for Engine {
    fn engine(&self) -> &'static str {
        super::NAME
    }

    async fn ping(&self) -> Result<()> {
        read!(self, "ping", |connection| membership::ping(connection))
    }

    async fn init_shards(&self, shard_count: u16) -> Result<u16> {
        call!(write on self.writers(), self.upkeep_timeout(), "make the shards", |connection| {
            membership::init_shards(connection, shard_count)
        })
    }

    async fn join(&self, node: &NodeRow, lease_ms: u32) -> Result<()> {
        self.join_within(node, lease_ms).await
    }

    async fn renew(&self, incarnation: Uuid, lease_ms: u32) -> Result<bool> {
        self.renew_within(incarnation, lease_ms).await
    }

    async fn leave(&self, incarnation: Uuid) -> Result<()> {
        write!(self, "leave", |connection| membership::leave(connection, incarnation))
    }

    async fn others_alive(&self, incarnation: Uuid) -> Result<Vec<NodeRow>> {
        read!(self, "list the nodes", |connection| {
            membership::others_alive(connection, incarnation)
        })
    }

    async fn accept_rewound(&self) -> Result<bool> {
        self.accept_within().await
    }

    async fn members(&self) -> Result<Vec<MemberRow>> {
        look!(self, "list the nodes", |connection| membership::members(connection))
    }

    async fn drain(&self, node: &str) -> Result<bool> {
        write!(self, "drain a node", |connection| membership::drain(connection, node))
    }

    async fn drain_boot(&self, incarnation: Uuid) -> Result<bool> {
        write!(self, "drain a boot", |connection| {
            membership::drain_boot(connection, incarnation)
        })
    }

    async fn bury_expired(&self) -> Result<()> {
        write!(self, "declare nodes dead", |connection| membership::bury_expired(connection))
    }

    async fn claim(&self, incarnation: Uuid, shards: &[ShardId]) -> Result<Vec<ShardState>> {
        write!(self, "claim shards", |connection| {
            membership::claim(connection, incarnation, shards)
        })
    }

    async fn hand_over(
        &self,
        from: Uuid,
        to: Uuid,
        shards: &[HandOver],
    ) -> Result<Vec<(ShardId, Epoch)>> {
        write!(self, "hand shards over", |connection| {
            membership::hand_over(connection, from, to, shards)
        })
    }

    async fn shards(&self) -> Result<Vec<ShardState>> {
        look!(self, "list the shards", |connection| membership::shards(connection))
    }

    async fn append(&self, fence: &Fence, rows: &[LedgerRow]) -> Result<Appended> {
        self.append_within(fence, rows).await
    }

    async fn ledger_after(&self, after: &[(ShardId, Seq)], limit: u32) -> Result<Vec<LedgerRow>> {
        read!(self, "read the ledger", |connection| ledger::after(connection, after, limit))
    }

    async fn find_record(
        &self,
        subscription: SubscriptionId,
        kind: RowKind,
        event_id: &str,
    ) -> Result<Option<LedgerRow>> {
        read!(self, "find a record", |connection| {
            reads::find_record(connection, subscription, kind, event_id)
        })
    }

    async fn checkpoint(&self, fence: &Fence, batch: &CheckpointBatch) -> Result<()> {
        write!(self, "checkpoint", |connection| checkpoint::write(connection, fence, batch))
    }

    async fn load(&self, ids: &[(SubscriptionId, ShardId, Seq)]) -> Result<Vec<Loaded>> {
        read!(self, "load subscriptions", |connection| load::load(connection, ids))
    }

    async fn find_reservation(&self, id: ReservationId) -> Result<Option<ReservationRow>> {
        read!(self, "find a reservation", |connection| reservations::find(connection, id))
    }

    async fn find_reservations(&self, ids: &[ReservationId]) -> Result<Vec<ReservationRow>> {
        read!(self, "find reservations", |connection| reservations::find_among(connection, ids))
    }

    async fn insert_plan(&self, plan: &PlanRow, audit: &AuditRow) -> Result<()> {
        write!(self, "insert a plan", |connection| plans::insert(connection, plan, audit))
    }

    async fn insert_plan_version(&self, plan: &PlanRow, audit: &AuditRow) -> Result<()> {
        write!(self, "insert a plan version", |connection| {
            plans::insert_version(connection, plan, audit)
        })
    }

    async fn find_plan(&self, id: PlanId, version: Option<i32>) -> Result<Option<PlanRow>> {
        read!(self, "find a plan", |connection| plans::find(connection, id, version))
    }

    async fn list_plans(&self, after: Option<PlanId>, limit: u32) -> Result<Page<PlanRow>> {
        read!(self, "list plans", |connection| plans::list(connection, after, limit))
    }

    async fn delete_plan(&self, id: PlanId, audit: &AuditRow) -> Result<()> {
        write!(self, "delete a plan", |connection| plans::delete(connection, id, audit))
    }

    async fn insert_subscription(
        &self,
        row: &SubscriptionRow,
        key: &KeyRow,
        audit: &AuditRow,
    ) -> Result<()> {
        write!(self, "insert a subscription", |connection| {
            subscriptions::insert(connection, row, key, audit)
        })
    }

    async fn find_subscription(
        &self,
        id: SubscriptionId,
        reach: &Reach,
    ) -> Result<Option<SubscriptionRow>> {
        read!(self, "find a subscription", |connection| {
            subscriptions::find(connection, id, reach)
        })
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
    ) -> Result<Page<SubscriptionRow>> {
        read!(self, "list subscriptions", |connection| subscriptions::list(connection, filter))
    }

    async fn update_subscription(&self, row: &SubscriptionRow, audit: &AuditRow) -> Result<()> {
        write!(self, "update a subscription", |connection| {
            subscriptions::update(connection, row, audit)
        })
    }

    async fn insert_key(&self, key: &KeyRow, audit: &AuditRow) -> Result<()> {
        write!(self, "insert a key", |connection| keys::insert(connection, key, audit))
    }

    async fn revoke_key(
        &self,
        subscription: SubscriptionId,
        key: Uuid,
        at: Micros,
        audit: &AuditRow,
    ) -> Result<bool> {
        write!(self, "revoke a key", |connection| {
            keys::revoke(connection, subscription, key, at, audit)
        })
    }

    async fn list_keys(&self, subscription: SubscriptionId) -> Result<Vec<KeyRow>> {
        read!(self, "list keys", |connection| keys::list(connection, subscription))
    }

    async fn find_key(&self, hash: &[u8; 32]) -> Result<Option<(KeyRow, SubscriptionRow)>> {
        read!(self, "find a key", |connection| keys::find(connection, hash))
    }

    async fn insert_token(&self, token: &TokenRow, audit: &AuditRow) -> Result<()> {
        write!(self, "insert a token", |connection| tokens::insert(connection, token, audit))
    }

    async fn find_token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>> {
        read!(self, "find a token", |connection| tokens::find(connection, hash))
    }

    async fn list_tokens(&self, after: Option<Uuid>, limit: u32) -> Result<Page<TokenRow>> {
        read!(self, "list tokens", |connection| tokens::list(connection, after, limit))
    }

    async fn revoke_token(
        &self,
        id: Uuid,
        at: Micros,
        audit: &AuditRow,
    ) -> Result<Option<TokenRow>> {
        write!(self, "revoke a token", |connection| tokens::revoke(connection, id, at, audit))
    }

    async fn insert_audit(&self, audit: &AuditRow) -> Result<()> {
        write!(self, "insert an audit entry", |connection| audit::insert(connection, audit))
    }

    async fn list_audit(
        &self,
        tenant: Option<&str>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Page<AuditRow>> {
        read!(self, "list the audit log", |connection| {
            audit::list(connection, tenant, before, limit)
        })
    }

    async fn changes_after(
        &self,
        after: Uuid,
        actions: &[&str],
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        read!(self, "list changes", |connection| {
            audit::changes_after(connection, after, actions, limit)
        })
    }

    async fn find_retired_plan(&self, id: PlanId, version: i32) -> Result<Option<PlanRow>> {
        read!(self, "find a retired plan", |connection| {
            plans::find_retired(connection, id, version)
        })
    }

    async fn take_job(
        &self,
        job: &str,
        holder: Uuid,
        now: Micros,
        until: Micros,
    ) -> Result<Option<JobLease>> {
        write!(self, "take a job", |connection| billing::take(connection, job, holder, now, until))
    }

    async fn keep_job(&self, lease: &JobLease, until: Micros) -> Result<bool> {
        write!(self, "keep a job", |connection| billing::keep(connection, lease, until))
    }

    async fn subscription_ids(
        &self,
        after: Option<SubscriptionId>,
        limit: u32,
    ) -> Result<Vec<SubscriptionId>> {
        read!(self, "list subscriptions", |connection| billing::ids(connection, after, limit))
    }

    async fn billing_states(
        &self,
        ids: &[(SubscriptionId, ShardId)],
        named: &[(String, Micros)],
    ) -> Result<Vec<BillingState>> {
        call!(snapshot on self.readers(), self.query_timeout(), "read for billing", |connection| {
            billing::states(connection, ids, named)
        })
    }

    async fn bill(&self, lease: &JobLease, change: &BillingChange) -> Result<()> {
        write!(self, "bill", |connection| billing::write(connection, lease, change))
    }

    async fn list_charges(&self, filter: &ChargeFilter) -> Result<Page<ChargeRow>> {
        read!(self, "list charges", |connection| billing::list_charges(connection, filter))
    }

    async fn list_periods(&self, filter: &PeriodFilter) -> Result<Page<PeriodRow>> {
        read!(self, "list periods", |connection| billing::list_periods(connection, filter))
    }

    async fn records(&self, filter: &RecordFilter) -> Result<Page<LedgerRow>> {
        read!(self, "list records", |connection| reads::records(connection, filter))
    }

    async fn next_usage(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
    ) -> Result<Option<Micros>> {
        read!(self, "find usage", |connection| usage::next(connection, subscription, from, to))
    }

    async fn usage_window(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
    ) -> Result<UsageWindow> {
        let limit = self.query_timeout();
        call!(snapshot on self.readers(), limit, "read usage", |connection| {
            usage::window(connection, subscription, from, to)
        })
    }

    async fn usage_by_subscription(
        &self,
        reach: &Reach,
        from: Micros,
        to: Micros,
        limit: u32,
    ) -> Result<Vec<SubscriptionUsage>> {
        read!(self, "read usage by subscription", |connection| {
            usage::by_subscription(connection, reach, from, to, limit)
        })
    }

    async fn usage_totals(&self, reach: &Reach, from: Micros, to: Micros) -> Result<RollupSums> {
        read!(self, "read usage totals", |connection| usage::totals(connection, reach, from, to))
    }

    async fn fullest(&self, reach: &Reach, now: Micros, limit: u32) -> Result<Vec<CheckpointRow>> {
        read!(self, "read the fullest quotas", |connection| {
            reads::fullest(connection, reach, now, limit)
        })
    }

    async fn count_subscriptions(&self, reach: &Reach) -> Result<u64> {
        read!(self, "count subscriptions", |connection| subscriptions::count(connection, reach))
    }

    async fn roll(
        &self,
        fence: &Fence,
        cursors: &[CursorMove],
        deltas: &[RollupRow],
        merge: MergeDetail<'_>,
    ) -> Result<()> {
        write!(self, "roll", |connection| {
            analytics::roll(connection, fence, cursors, deltas, merge)
        })
    }

    async fn unaddressed(&self, limit: u32) -> Result<Vec<Unaddressed>> {
        read!(self, "read the outbox", |connection| outbox::unaddressed(connection, limit))
    }

    async fn address(&self, messages: &[Addressed], now: Micros) -> Result<()> {
        write!(self, "address messages", |connection| outbox::address(connection, messages, now))
    }

    async fn claim_deliveries(&self, claim: &DeliveryClaim) -> Result<Vec<ClaimedDelivery>> {
        write!(self, "claim deliveries", |connection| outbox::claim(connection, claim))
    }

    async fn finish_deliveries(&self, finished: &[FinishedDelivery]) -> Result<Vec<bool>> {
        write!(self, "finish deliveries", |connection| outbox::finish(connection, finished))
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth> {
        read!(self, "measure the outbox", |connection| outbox::depth(connection))
    }

    async fn list_notifications(
        &self,
        filter: &NotificationFilter,
    ) -> Result<Page<NotificationRow>> {
        let limit = self.query_timeout();
        call!(snapshot on self.readers(), limit, "list notifications", |connection| {
            notifications::list(connection, filter)
        })
    }

    async fn find_notification(&self, id: Uuid, reach: &Reach) -> Result<Option<NotificationRow>> {
        let limit = self.query_timeout();
        call!(snapshot on self.readers(), limit, "find a notification", |connection| {
            notifications::find(connection, id, reach)
        })
    }

    async fn redeliver(&self, id: Uuid, now: Micros, audit: &AuditRow) -> Result<()> {
        write!(self, "redeliver", |connection| {
            notifications::redeliver(connection, id, now, audit)
        })
    }

    async fn maintain(&self, now: Micros, days_ahead: u16, forget_before: Micros) -> Result<u64> {
        self.make_room(now, days_ahead).await?;
        // Each turn is a transaction of its own; what time does not suffice for goes the next time.
        let started = Instant::now();
        while started.elapsed() < self.upkeep_timeout() {
            let gone = write!(self, "forget reservations", |connection| {
                reservations::forget(connection, forget_before, FORGET_ROWS)
            })?;
            if gone < u64::from(FORGET_ROWS) {
                break;
            }
        }
        let started = Instant::now();
        let mut forgotten = 0;
        while started.elapsed() < self.upkeep_timeout() {
            let gone = write!(self, "forget identities", |connection| {
                ledger::forget(connection, forget_before, FORGET_ROWS)
            })?;
            forgotten += gone;
            if gone < u64::from(FORGET_ROWS) {
                break;
            }
        }
        Ok(forgotten)
    }
}

/// Identities, or reservations, forgotten in one transaction. More, and ingest waits behind it
/// (SQLite has one writer); fewer, and its cost is all round trips.
const FORGET_ROWS: u32 = 10_000;
