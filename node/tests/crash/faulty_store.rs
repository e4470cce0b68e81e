//! A store whose answers can be lost, before or after the commit, by seed.
//!
//! Role: the fault that no real database shows on demand. It stands in front of the real embedded
//! store, so what was committed is real; only the caller is told that the outcome is unknown, or that
//! the store is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;
use weir_core::units::{Epoch, Micros, PlanId, ReservationId, Seq, ShardId, SubscriptionId};
use weir_store::billing::{
    BillingChange, BillingState, ChargeFilter, ChargeRow, JobLease, PeriodFilter, PeriodRow,
};
use weir_store::outbox::{
    Addressed, ClaimedDelivery, DeliveryClaim, FinishedDelivery, NotificationFilter,
    NotificationRow, OutboxDepth, Unaddressed,
};
use weir_store::rows::{
    AuditRow, CheckpointBatch, CheckpointRow, KeyRow, LedgerRow, MemberRow, NodeRow, PlanRow,
    ReservationRow, RollupRow, RollupSums, RowKind, SubscriptionRow, TokenRow,
};
use weir_store::{
    Appended, CursorMove, Error, Fence, HandOver, Loaded, MergeDetail, Page, Reach, RecordFilter,
    Result, ShardState, Store, SubscriptionFilter, SubscriptionUsage, UsageWindow,
};

/// What happens to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It commits and the caller is told.
    Told,
    /// It commits and the answer is lost.
    AnswerLost,
    /// It does not commit and nobody can tell.
    NeverArrived,
    /// The store refuses.
    Refused,
}

/// The store in front of a store.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    fates: std::sync::Mutex<StdRng>,
    /// Of 100 writes, how many have another fate than to be told.
    faults_percent: AtomicU32,
    /// How many had.
    pub faults: AtomicU32,
    /// The one call that goes wrong, counted down, and how.
    planned: std::sync::Mutex<Option<(u32, Fate)>>,
    /// Whose state it will not have.
    unwanted: std::sync::Mutex<Option<SubscriptionId>>,
}

impl FaultyStore {
    /// In front of `inner`, without faults until told otherwise.
    pub fn new(inner: Arc<dyn Store>, seed: u64) -> Self {
        Self {
            inner,
            fates: std::sync::Mutex::new(StdRng::seed_from_u64(seed)),
            faults_percent: AtomicU32::new(0),
            faults: AtomicU32::new(0),
            planned: std::sync::Mutex::new(None),
            unwanted: std::sync::Mutex::new(None),
        }
    }

    /// From now on this many of 100 writes go wrong.
    pub fn set_faults(&self, percent: u32) {
        self.faults_percent.store(percent, Ordering::Relaxed);
    }

    /// The call after so many others has this fate, and no other.
    pub fn plan_fault(&self, calls_before: u32, fate: Fate) {
        *self.planned.lock().expect("no test panics under this lock") = Some((calls_before, fate));
    }

    /// Whether the planned fault is still to come; it is called off.
    pub fn call_off(&self) -> bool {
        self.planned.lock().expect("no test panics under this lock").take().is_some()
    }

    /// From now on no checkpoint with the state of this one is taken.
    pub fn refuse_state_of(&self, subscription: Option<SubscriptionId>) {
        *self.unwanted.lock().expect("no test panics under this lock") = subscription;
    }

    fn fate(&self) -> Fate {
        let mut planned = self.planned.lock().expect("no test panics under this lock");
        if let Some((calls_before, fate)) = *planned {
            *planned = calls_before.checked_sub(1).map(|left| (left, fate));
            if planned.is_none() {
                self.faults.fetch_add(1, Ordering::Relaxed);
                return fate;
            }
            return Fate::Told;
        }
        drop(planned);
        let mut rng = self.fates.lock().expect("no test panics under this lock");
        if rng.random_range(0..100) >= self.faults_percent.load(Ordering::Relaxed) {
            return Fate::Told;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        [Fate::AnswerLost, Fate::NeverArrived, Fate::Refused][rng.random_range(0..3)]
    }
}

fn unknown(operation: &'static str) -> Error {
    Error::Unknown { operation, source: None }
}

fn refused(operation: &'static str) -> Error {
    Error::Unavailable { operation, source: None }
}

/// Lets a write meet its fate.
macro_rules! meet {
    ($self:ident, $operation:literal, $write:expr) => {
        match $self.fate() {
            Fate::Told => $write.await,
            Fate::AnswerLost => {
                $write.await?;
                Err(unknown($operation))
            }
            Fate::NeverArrived => Err(unknown($operation)),
            Fate::Refused => Err(refused($operation)),
        }
    };
}

#[async_trait]
impl Store for FaultyStore {
    async fn append(&self, fence: &Fence, rows: &[LedgerRow]) -> Result<Appended> {
        meet!(self, "append", self.inner.append(fence, rows))
    }

    async fn checkpoint(&self, fence: &Fence, batch: &CheckpointBatch) -> Result<()> {
        let unwanted = *self.unwanted.lock().expect("no test panics under this lock");
        if batch.subscriptions.iter().any(|row| Some(row.subscription) == unwanted) {
            return Err(Error::Broken { operation: "checkpoint", source: "unwanted".into() });
        }
        meet!(self, "checkpoint", self.inner.checkpoint(fence, batch))
    }

    async fn find_retired_plan(&self, id: PlanId, version: i32) -> Result<Option<PlanRow>> {
        self.inner.find_retired_plan(id, version).await
    }

    async fn take_job(
        &self,
        job: &str,
        holder: Uuid,
        now: Micros,
        until: Micros,
    ) -> Result<Option<JobLease>> {
        meet!(self, "take a job", self.inner.take_job(job, holder, now, until))
    }

    async fn keep_job(&self, lease: &JobLease, until: Micros) -> Result<bool> {
        meet!(self, "keep a job", self.inner.keep_job(lease, until))
    }

    async fn subscription_ids(
        &self,
        after: Option<SubscriptionId>,
        limit: u32,
    ) -> Result<Vec<SubscriptionId>> {
        match self.fate() {
            Fate::Told => self.inner.subscription_ids(after, limit).await,
            _ => Err(refused("list subscriptions")),
        }
    }

    async fn billing_states(
        &self,
        ids: &[(SubscriptionId, ShardId)],
        named: &[(String, Micros)],
    ) -> Result<Vec<BillingState>> {
        match self.fate() {
            Fate::Told => self.inner.billing_states(ids, named).await,
            _ => Err(refused("read for billing")),
        }
    }

    async fn bill(&self, lease: &JobLease, change: &BillingChange) -> Result<()> {
        meet!(self, "bill", self.inner.bill(lease, change))
    }

    async fn list_charges(&self, filter: &ChargeFilter) -> Result<Page<ChargeRow>> {
        self.inner.list_charges(filter).await
    }

    async fn list_periods(&self, filter: &PeriodFilter) -> Result<Page<PeriodRow>> {
        self.inner.list_periods(filter).await
    }

    async fn members(&self) -> Result<Vec<MemberRow>> {
        self.inner.members().await
    }

    async fn accept_rewound(&self) -> Result<bool> {
        self.inner.accept_rewound().await
    }

    async fn drain_boot(&self, incarnation: Uuid) -> Result<bool> {
        self.inner.drain_boot(incarnation).await
    }

    async fn drain(&self, node: &str) -> Result<bool> {
        self.inner.drain(node).await
    }

    async fn bury_expired(&self) -> Result<()> {
        self.inner.bury_expired().await
    }

    async fn hand_over(
        &self,
        from: Uuid,
        to: Uuid,
        shards: &[HandOver],
    ) -> Result<Vec<(ShardId, Epoch)>> {
        meet!(self, "hand over", self.inner.hand_over(from, to, shards))
    }

    async fn claim(&self, incarnation: Uuid, shards: &[ShardId]) -> Result<Vec<ShardState>> {
        meet!(self, "claim", self.inner.claim(incarnation, shards))
    }

    async fn load(&self, ids: &[(SubscriptionId, ShardId, Seq)]) -> Result<Vec<Loaded>> {
        match self.fate() {
            Fate::Told => self.inner.load(ids).await,
            _ => Err(refused("load")),
        }
    }

    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn init_shards(&self, shard_count: u16) -> Result<u16> {
        self.inner.init_shards(shard_count).await
    }

    async fn join(&self, node: &NodeRow, lease_ms: u32) -> Result<()> {
        self.inner.join(node, lease_ms).await
    }

    async fn renew(&self, incarnation: Uuid, lease_ms: u32) -> Result<bool> {
        self.inner.renew(incarnation, lease_ms).await
    }

    async fn leave(&self, incarnation: Uuid) -> Result<()> {
        self.inner.leave(incarnation).await
    }

    async fn others_alive(&self, incarnation: Uuid) -> Result<Vec<NodeRow>> {
        self.inner.others_alive(incarnation).await
    }

    async fn shards(&self) -> Result<Vec<ShardState>> {
        self.inner.shards().await
    }

    async fn ledger_after(&self, after: &[(ShardId, Seq)], limit: u32) -> Result<Vec<LedgerRow>> {
        self.inner.ledger_after(after, limit).await
    }

    async fn find_record(
        &self,
        subscription: SubscriptionId,
        kind: RowKind,
        event_id: &str,
    ) -> Result<Option<LedgerRow>> {
        self.inner.find_record(subscription, kind, event_id).await
    }

    async fn find_reservation(&self, id: ReservationId) -> Result<Option<ReservationRow>> {
        self.inner.find_reservation(id).await
    }

    async fn find_reservations(&self, ids: &[ReservationId]) -> Result<Vec<ReservationRow>> {
        self.inner.find_reservations(ids).await
    }

    async fn insert_plan(&self, plan: &PlanRow, audit: &AuditRow) -> Result<()> {
        self.inner.insert_plan(plan, audit).await
    }

    async fn insert_plan_version(&self, plan: &PlanRow, audit: &AuditRow) -> Result<()> {
        self.inner.insert_plan_version(plan, audit).await
    }

    async fn find_plan(&self, id: PlanId, version: Option<i32>) -> Result<Option<PlanRow>> {
        self.inner.find_plan(id, version).await
    }

    async fn list_plans(&self, after: Option<PlanId>, limit: u32) -> Result<Page<PlanRow>> {
        self.inner.list_plans(after, limit).await
    }

    async fn delete_plan(&self, id: PlanId, audit: &AuditRow) -> Result<()> {
        self.inner.delete_plan(id, audit).await
    }

    async fn insert_subscription(
        &self,
        row: &SubscriptionRow,
        key: &KeyRow,
        audit: &AuditRow,
    ) -> Result<()> {
        self.inner.insert_subscription(row, key, audit).await
    }

    async fn find_subscription(
        &self,
        id: SubscriptionId,
        reach: &Reach,
    ) -> Result<Option<SubscriptionRow>> {
        self.inner.find_subscription(id, reach).await
    }

    async fn list_subscriptions(
        &self,
        filter: &SubscriptionFilter,
    ) -> Result<Page<SubscriptionRow>> {
        self.inner.list_subscriptions(filter).await
    }

    async fn update_subscription(&self, row: &SubscriptionRow, audit: &AuditRow) -> Result<()> {
        self.inner.update_subscription(row, audit).await
    }

    async fn insert_key(&self, key: &KeyRow, audit: &AuditRow) -> Result<()> {
        self.inner.insert_key(key, audit).await
    }

    async fn revoke_key(
        &self,
        subscription: SubscriptionId,
        key: Uuid,
        at: Micros,
        audit: &AuditRow,
    ) -> Result<bool> {
        self.inner.revoke_key(subscription, key, at, audit).await
    }

    async fn list_keys(&self, subscription: SubscriptionId) -> Result<Vec<KeyRow>> {
        self.inner.list_keys(subscription).await
    }

    async fn find_key(&self, hash: &[u8; 32]) -> Result<Option<(KeyRow, SubscriptionRow)>> {
        self.inner.find_key(hash).await
    }

    async fn insert_token(&self, token: &TokenRow, audit: &AuditRow) -> Result<()> {
        self.inner.insert_token(token, audit).await
    }

    async fn find_token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>> {
        self.inner.find_token(hash).await
    }

    async fn list_tokens(&self, after: Option<Uuid>, limit: u32) -> Result<Page<TokenRow>> {
        self.inner.list_tokens(after, limit).await
    }

    async fn revoke_token(
        &self,
        id: Uuid,
        at: Micros,
        audit: &AuditRow,
    ) -> Result<Option<TokenRow>> {
        self.inner.revoke_token(id, at, audit).await
    }

    async fn insert_audit(&self, audit: &AuditRow) -> Result<()> {
        self.inner.insert_audit(audit).await
    }

    async fn list_audit(
        &self,
        tenant: Option<&str>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Page<AuditRow>> {
        self.inner.list_audit(tenant, before, limit).await
    }

    async fn changes_after(
        &self,
        after: Uuid,
        actions: &[&str],
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        self.inner.changes_after(after, actions, limit).await
    }

    async fn records(&self, filter: &RecordFilter) -> Result<Page<LedgerRow>> {
        self.inner.records(filter).await
    }

    async fn next_usage(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
    ) -> Result<Option<Micros>> {
        self.inner.next_usage(subscription, from, to).await
    }

    async fn usage_window(
        &self,
        subscription: SubscriptionId,
        from: Micros,
        to: Micros,
    ) -> Result<UsageWindow> {
        self.inner.usage_window(subscription, from, to).await
    }

    async fn usage_by_subscription(
        &self,
        reach: &Reach,
        from: Micros,
        to: Micros,
        limit: u32,
    ) -> Result<Vec<SubscriptionUsage>> {
        self.inner.usage_by_subscription(reach, from, to, limit).await
    }

    async fn usage_totals(&self, reach: &Reach, from: Micros, to: Micros) -> Result<RollupSums> {
        self.inner.usage_totals(reach, from, to).await
    }

    async fn fullest(&self, reach: &Reach, now: Micros, limit: u32) -> Result<Vec<CheckpointRow>> {
        self.inner.fullest(reach, now, limit).await
    }

    async fn count_subscriptions(&self, reach: &Reach) -> Result<u64> {
        self.inner.count_subscriptions(reach).await
    }

    async fn roll(
        &self,
        fence: &Fence,
        cursors: &[CursorMove],
        deltas: &[RollupRow],
        merge: MergeDetail<'_>,
    ) -> Result<()> {
        self.inner.roll(fence, cursors, deltas, merge).await
    }

    async fn unaddressed(&self, limit: u32) -> Result<Vec<Unaddressed>> {
        self.inner.unaddressed(limit).await
    }

    async fn address(&self, messages: &[Addressed], now: Micros) -> Result<()> {
        self.inner.address(messages, now).await
    }

    async fn claim_deliveries(&self, claim: &DeliveryClaim) -> Result<Vec<ClaimedDelivery>> {
        self.inner.claim_deliveries(claim).await
    }

    async fn finish_deliveries(&self, finished: &[FinishedDelivery]) -> Result<Vec<bool>> {
        self.inner.finish_deliveries(finished).await
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth> {
        self.inner.outbox_depth().await
    }

    async fn list_notifications(
        &self,
        filter: &NotificationFilter,
    ) -> Result<Page<NotificationRow>> {
        self.inner.list_notifications(filter).await
    }

    async fn find_notification(&self, id: Uuid, reach: &Reach) -> Result<Option<NotificationRow>> {
        self.inner.find_notification(id, reach).await
    }

    async fn redeliver(&self, id: Uuid, now: Micros, audit: &AuditRow) -> Result<()> {
        self.inner.redeliver(id, now, audit).await
    }

    async fn maintain(&self, now: Micros, days_ahead: u16, forget_before: Micros) -> Result<u64> {
        self.inner.maintain(now, days_ahead, forget_before).await
    }
}
