//! Fresh stores, nodes that own shards, and rows with one interesting field each.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use harness::postgres::{Postgres, TestDatabase};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnectOptions;
use uuid::Uuid;
use weir_core::units::{Epoch, Micros, PlanId, ReservationId, Seq, ShardId, SubscriptionId};
use weir_store::postgres::{PostgresOptions, PostgresStore};
use weir_store::rows::{
    AuditRow, CheckpointBatch, CheckpointRow, KeyRow, LedgerRow, NodeRow, OutcomeKind, PlanRow,
    ReservationRow, RowKind, SubscriptionRow, SubscriptionStatus, TokenRow,
};
use weir_store::sqlite::{SqliteOptions, SqliteStore};
use weir_store::{Fence, Reach, Store};

/// 2026-03-01 12:00:00 UTC.
pub(crate) const NOON: i64 = (20_513 * 24 + 12) * 3_600 * SECOND;
/// In microseconds.
pub(crate) const SECOND: i64 = 1_000_000;
/// In microseconds.
pub(crate) const MINUTE: i64 = 60 * SECOND;
/// In microseconds.
pub(crate) const DAY: i64 = 24 * 60 * MINUTE;
/// Long enough that no lease ends while a story is told.
pub(crate) const LEASE_MS: u32 = 600_000;
/// Shards of every fresh store.
pub(crate) const SHARDS: u16 = 8;

/// A fresh store with its shards made, and what must be cleared away after it.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) place: Place,
}

/// Where a fresh store lies.
pub(crate) enum Place {
    Postgres(TestDatabase),
    Sqlite(Directory),
}

/// A directory that goes with this value.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("weir-store-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&path).expect("a temporary directory");
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("weir.db")
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Limits that a loaded machine keeps: these stories are not about time.
pub(crate) fn patient(url: &str) -> PostgresOptions {
    let mut options = PostgresOptions::new(url);
    options.query_timeout = Duration::from_secs(30);
    options.acquire_timeout = Duration::from_secs(30);
    options
}

pub(crate) async fn postgres() -> Fixture {
    let database = Postgres::shared().await.fresh_database().await.expect("a database");
    let store = PostgresStore::connect(&patient(&database.url)).await.expect("connect");
    Fixture::over(Arc::new(store), Place::Postgres(database)).await
}

pub(crate) async fn sqlite() -> Fixture {
    let directory = Directory::new();
    let mut options = SqliteOptions::file(directory.file());
    options.query_timeout = Duration::from_secs(30);
    options.acquire_timeout = Duration::from_secs(30);
    let store = SqliteStore::open(&options).await.expect("open");
    Fixture::over(Arc::new(store), Place::Sqlite(directory)).await
}

impl Fixture {
    async fn over(store: Arc<dyn Store>, place: Place) -> Self {
        store.init_shards(SHARDS).await.expect("shards");
        Self { store, place }
    }

    /// A number straight from the database, for what the trait does not read yet.
    pub(crate) async fn number(&self, select: &'static str) -> i64 {
        let number = match &self.place {
            Place::Postgres(database) => {
                let mut connection =
                    sqlx::PgConnection::connect(&database.url).await.expect("connect");
                sqlx::query_scalar(select).fetch_one(&mut connection).await
            }
            Place::Sqlite(directory) => {
                let options = SqliteConnectOptions::new().filename(directory.file());
                let mut connection =
                    sqlx::SqliteConnection::connect_with(&options).await.expect("open");
                sqlx::query_scalar(select).fetch_one(&mut connection).await
            }
        };
        number.expect("a number")
    }

    /// A node that joined and took these shards.
    pub(crate) async fn owner(&self, name: &str, shards: &[u16]) -> Owner {
        let node = node(name);
        self.store.join(&node, LEASE_MS).await.expect("join");
        Owner::claim(&self.store, node.incarnation, shards).await
    }

    /// A subscription in the catalogue, on a plan of its own.
    pub(crate) async fn subscription(&self, tenant: &str) -> SubscriptionRow {
        let plan = plan();
        self.store.insert_plan(&plan, &audit()).await.expect("plan");
        let row = SubscriptionRow { tenant: tenant.to_owned(), ..subscription(plan.id) };
        self.store.insert_subscription(&row, &key(row.id), &audit()).await.expect("subscription");
        row
    }

    /// The subscription as everyone sees it.
    pub(crate) async fn seen(&self, id: SubscriptionId) -> SubscriptionRow {
        let found = self.store.find_subscription(id, &Reach::default()).await.expect("find");
        found.expect("the subscription is there")
    }
}

/// A node with the shards that it owns.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) incarnation: Uuid,
    pub(crate) fence: Fence,
}

impl Owner {
    pub(crate) async fn claim(store: &Arc<dyn Store>, incarnation: Uuid, shards: &[u16]) -> Self {
        let wanted: Vec<ShardId> = shards.iter().copied().map(ShardId).collect();
        let taken = store.claim(incarnation, &wanted).await.expect("claim");
        assert_eq!(taken.len(), shards.len(), "every shard was free to take");
        let shards = taken.iter().map(|state| (state.shard, state.epoch)).collect();
        Self { incarnation, fence: Fence { incarnation, shards } }
    }

    pub(crate) fn epoch(&self, shard: u16) -> Epoch {
        let held = self.fence.shards.iter().find(|(held, _)| held.0 == shard);
        held.expect("a shard of this owner").1
    }
}

pub(crate) fn at(micros: i64) -> Micros {
    Micros::from_micros(micros)
}

pub(crate) fn node(name: &str) -> NodeRow {
    NodeRow {
        id: name.to_owned(),
        incarnation: Uuid::now_v7(),
        http: format!("{name}:8080"),
        cluster: format!("{name}:7070"),
        seal: "seal".to_owned(),
    }
}

pub(crate) fn subscription_id() -> SubscriptionId {
    SubscriptionId::from_uuid(Uuid::now_v7())
}

pub(crate) fn plan() -> PlanRow {
    PlanRow {
        id: PlanId::from_uuid(Uuid::now_v7()),
        version: 1,
        name: "Basic".to_owned(),
        config: r#"{"quotas":[]}"#.to_owned(),
        at_period_end: false,
        created_at: at(NOON),
    }
}

pub(crate) fn subscription(plan: PlanId) -> SubscriptionRow {
    let id = subscription_id();
    SubscriptionRow {
        id,
        plan,
        next_plan: None,
        external_id: Some(format!("customer-{id}")),
        tenant: "default".to_owned(),
        api_id: Some("search".to_owned()),
        user_email: Some("a@example.com".to_owned()),
        time_zone: "Europe/Berlin".to_owned(),
        status: SubscriptionStatus::Active,
        started_at: at(NOON),
        ends_at: Some(at(NOON + 365 * DAY)),
        webhook_url: Some("https://example.com/hook".to_owned()),
        limits: r#"{"monthly":10}"#.to_owned(),
        metadata: r#"{"tier":"gold"}"#.to_owned(),
        created_at: at(NOON),
        updated_at: at(NOON),
        revision: 1,
        requests_used: 0,
    }
}

/// A hash that no other row has.
pub(crate) fn hash() -> [u8; 32] {
    let mut bytes = [7; 32];
    bytes[..16].copy_from_slice(Uuid::now_v7().as_bytes());
    bytes
}

pub(crate) fn key(subscription: SubscriptionId) -> KeyRow {
    KeyRow {
        id: Uuid::now_v7(),
        subscription,
        hash: hash(),
        hint: "wk_1234".to_owned(),
        created_at: at(NOON),
        revoked_at: None,
    }
}

pub(crate) fn token() -> TokenRow {
    TokenRow {
        id: Uuid::now_v7(),
        hash: hash(),
        name: "gateway".to_owned(),
        scope: "gateway".to_owned(),
        tenant: None,
        subscriptions: None,
        expires_at: None,
        created_at: at(NOON),
        revoked_at: None,
    }
}

pub(crate) fn audit() -> AuditRow {
    AuditRow {
        id: Uuid::now_v7(),
        at: at(NOON),
        actor: "bootstrap".to_owned(),
        action: "test".to_owned(),
        target_kind: "plan".to_owned(),
        target_id: "1".to_owned(),
        tenant: None,
        before: None,
        after: Some("{}".to_owned()),
        reason: None,
    }
}

/// One charged unit, served with 200.
pub(crate) fn record(subscription: SubscriptionId, shard: u16, seq: u64) -> LedgerRow {
    LedgerRow {
        subscription,
        shard: ShardId(shard),
        seq: Seq(seq),
        event_id: format!("event-{seq}"),
        kind: RowKind::Usage,
        event_time: at(NOON + i64::try_from(seq).expect("small")),
        recorded_at: at(NOON),
        units: 1,
        quantities: None,
        charged: true,
        outcome: OutcomeKind::Served,
        reservation: None,
        key_id: None,
        api_id: None,
        api_path: "/v1/search".to_owned(),
        method: "GET".to_owned(),
        status_code: Some(200),
        success: Some(true),
        response_time_us: Some(1_200),
        request_size: Some(100),
        response_size: Some(2_000),
        user_agent: None,
        ip_address: None,
        country: None,
    }
}

/// A row in which every optional column says something.
pub(crate) fn full_record(subscription: SubscriptionId, shard: u16, seq: u64) -> LedgerRow {
    LedgerRow {
        quantities: Some(r#"{"tokens":743}"#.to_owned()),
        outcome: OutcomeKind::Aborted,
        charged: false,
        units: -3,
        kind: RowKind::Commit,
        reservation: Some(ReservationId::from_uuid(Uuid::now_v7())),
        key_id: Some(Uuid::now_v7()),
        api_id: Some("search".to_owned()),
        user_agent: Some("curl/8".to_owned()),
        ip_address: Some("2001:db8::1".to_owned()),
        country: Some("DE".to_owned()),
        event_id: "ein Ereignis · №1 \u{1F980}".to_owned(),
        ..record(subscription, shard, seq)
    }
}

/// State after `last_seq`, with that many used.
pub(crate) fn checkpoint(
    owner: &Owner,
    subscription: SubscriptionId,
    shard: u16,
    version: i64,
    last_seq: u64,
) -> CheckpointRow {
    let used = i64::try_from(last_seq).expect("small");
    CheckpointRow {
        subscription,
        shard: ShardId(shard),
        epoch: owner.epoch(shard),
        version,
        last_seq: Seq(last_seq),
        used,
        quota_limit: Some(100),
        period_start: at(NOON),
        period_end: at(NOON + 30 * DAY),
        escrow_hi: used + 10,
        clean: false,
        snapshot: vec![1, 2, 3, u8::try_from(version).expect("small")],
        taken_at: at(NOON),
    }
}

pub(crate) fn batch(number: i64, subscriptions: Vec<CheckpointRow>) -> CheckpointBatch {
    CheckpointBatch { lane: 0, number, subscriptions, ..CheckpointBatch::default() }
}

pub(crate) fn reservation(subscription: SubscriptionId) -> ReservationRow {
    ReservationRow {
        id: ReservationId::from_uuid(Uuid::now_v7()),
        subscription,
        amounts: r#"{"requests":5}"#.to_owned(),
        created_at: at(NOON),
        expires_at: at(NOON + MINUTE),
    }
}

/// Whole reach.
pub(crate) fn everything() -> Reach {
    Reach::default()
}
