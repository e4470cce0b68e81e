//! A database of its own with a plan, a gateway token and many subscriptions.
//!
//! Subscriptions are put in by bulk SQL, not over HTTP: fifty thousand single commits would take longer
//! than all benches together. Plan and token go through the store, and the tables are the store's.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use harness::postgres::{Postgres, TestDatabase};
use sqlx::{Connection as _, PgConnection, QueryBuilder, SqliteConnection};
use uuid::Uuid;
use weir_config::{Config, Overrides};
use weir_core::units::{Micros, PlanId, SubscriptionId};
use weir_node::catalog::hash_secret;
use weir_node::catalog::principal::{Scope, new_key, new_token};
use weir_node::clock::Clock;
use weir_store::Store;
use weir_store::rows::{AuditRow, PlanRow, TokenRow};

use crate::machine::Scratch;

/// A hard quota that no bench reaches, so that the exact path of hard plans is measured, and one rate
/// limit that never refuses.
pub(super) const PLAN: &str = r#"{"name":"bench","currency":"USD","baseFee":"0",
 "quotas":[{"name":"requests","meter":"requests","limit":1000000000,"every":"P1M","anchor":"calendar","enforcement":"hard"}],
 "rateLimits":[{"name":"per-second","limit":1000000,"window":"PT1S","algorithm":"token_bucket","burst":1000000}]}"#;

/// What the subscriptions' events are for.
pub(super) const API_ID: &str = "bench-api";

/// Rows of one INSERT: seventeen values each stay below both engines' limit of parameters.
const ROWS_OF_INSERT: usize = 500;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// A file in a directory of its own.
    Sqlite,
    /// A database of its own on the server that the tests use, too.
    Postgres,
}

impl Engine {
    /// As the table names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
        }
    }
}

/// A subscription that was put in.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) id: SubscriptionId,
    pub(super) key_id: Uuid,
    pub(super) key: String,
}

/// The database; gone with this value.
#[derive(Debug)]
pub(super) struct Fixture {
    pub(super) database_url: String,
    /// A gateway's token.
    pub(super) token: String,
    pub(super) subscriptions: Vec<Made>,
    _place: Place,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for what happens when they are dropped")]
enum Place {
    Directory(Scratch),
    Database(TestDatabase),
}

impl Fixture {
    /// A new database with `count` subscriptions.
    pub(super) async fn make(engine: Engine, count: usize) -> Result<Self> {
        let (database_url, place) = match engine {
            Engine::Sqlite => {
                let directory = Scratch::make()?;
                let url = format!("sqlite://{}", directory.path().join("weir.db").display());
                (url, Place::Directory(directory))
            }
            Engine::Postgres => {
                let database = Postgres::shared().await.fresh_database().await?;
                (database.url.clone(), Place::Database(database))
            }
        };
        let token = new_token(Scope::Gateway);
        let now = Clock::start().now();
        let plan = PlanId::from_uuid(Uuid::now_v7());
        let store = weir_node::app::open_store(&config(&database_url)?).await?;
        fill_catalogue(&store, plan, &token, now).await?;
        // The SQLite store holds the file alone.
        drop(store);
        let subscriptions: Vec<Made> = (0..count)
            .map(|_| Made {
                id: SubscriptionId::from_uuid(Uuid::now_v7()),
                key_id: Uuid::now_v7(),
                key: new_key(),
            })
            .collect();
        match engine {
            Engine::Sqlite => fill_sqlite(&database_url, plan, &subscriptions, now).await?,
            Engine::Postgres => fill_postgres(&database_url, plan, &subscriptions, now).await?,
        }
        Ok(Self { database_url, token, subscriptions, _place: place })
    }

    /// Opens it in this process.
    pub(super) async fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(weir_node::app::open_store(&config(&self.database_url)?).await?)
    }

    /// The configuration of a node on it in this process.
    pub(super) fn config(&self) -> Result<Config> {
        config(&self.database_url)
    }

    /// All keys.
    pub(super) fn keys(&self) -> Vec<String> {
        self.subscriptions.iter().map(|made| made.key.clone()).collect()
    }
}

/// How the Postgres server commits, for the record.
pub(super) async fn durability(url: &str) -> Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let statement = "SELECT 'Postgres ' || current_setting('server_version') || ', fsync ' || \
         current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit')";
    let text = sqlx::query_scalar::<_, String>(statement).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(text)
}

fn config(database_url: &str) -> Result<Config> {
    let overrides = Overrides {
        database_url: Some(database_url.to_owned()),
        http: Some("127.0.0.1:0".to_owned()),
        ..Overrides::default()
    };
    // Our own environment may speak of another node.
    let nothing: [(&str, &str); 0] = [];
    Ok(Config::load(None, nothing, overrides)?)
}

async fn fill_catalogue(
    store: &Arc<dyn Store>,
    plan: PlanId,
    token: &str,
    now: Micros,
) -> Result<()> {
    let plan_row = PlanRow {
        id: plan,
        version: 1,
        name: "bench".to_owned(),
        config: PLAN.to_owned(),
        at_period_end: false,
        created_at: now,
    };
    store.insert_plan(&plan_row, &audit("plan.create", now)).await.context("insert the plan")?;
    let token_row = TokenRow {
        id: Uuid::now_v7(),
        hash: hash_secret(token),
        name: "bench".to_owned(),
        scope: Scope::Gateway.as_str().to_owned(),
        tenant: None,
        subscriptions: None,
        expires_at: None,
        created_at: now,
        revoked_at: None,
    };
    store.insert_token(&token_row, &audit("token.create", now)).await.context("insert the token")
}

fn audit(action: &str, now: Micros) -> AuditRow {
    AuditRow {
        id: Uuid::now_v7(),
        at: now,
        actor: "bench".to_owned(),
        action: action.to_owned(),
        target_kind: "bench".to_owned(),
        target_id: "bench".to_owned(),
        tenant: None,
        before: None,
        after: None,
        reason: None,
    }
}

const INTO_SUBSCRIPTIONS: &str = "INSERT INTO api_subscriptions (id, plan_id, external_id, tenant, \
     api_id, time_zone, status, started_at, limits, metadata, created_at, updated_at, revision) ";
const INTO_KEYS: &str =
    "INSERT INTO subscription_keys (id, subscription_id, hash, hint, created_at) ";

/// The same for both engines, whose types in sqlx have nothing in common.
macro_rules! fill {
    ($connection:ident, $plan:ident, $subscriptions:ident, $now:ident) => {{
        let mut change = $connection.begin().await?;
        for chunk in $subscriptions.chunks(ROWS_OF_INSERT) {
            let mut insert = QueryBuilder::new(INTO_SUBSCRIPTIONS);
            insert.push_values(chunk, |mut row, made| {
                row.push_bind(made.id.uuid())
                    .push_bind($plan.uuid())
                    .push_bind(made.id.uuid().to_string())
                    .push_bind("default")
                    .push_bind(API_ID)
                    .push_bind("UTC")
                    .push_bind(0_i16)
                    .push_bind($now.get())
                    .push_bind("{}")
                    .push_bind("{}")
                    .push_bind($now.get())
                    .push_bind($now.get())
                    .push_bind(1_i64);
            });
            insert.build().execute(&mut *change).await?;
            let mut insert = QueryBuilder::new(INTO_KEYS);
            insert.push_values(chunk, |mut row, made| {
                row.push_bind(made.key_id)
                    .push_bind(made.id.uuid())
                    .push_bind(hash_secret(&made.key).to_vec())
                    .push_bind("bench")
                    .push_bind($now.get());
            });
            insert.build().execute(&mut *change).await?;
        }
        change.commit().await?;
    }};
}

async fn fill_sqlite(url: &str, plan: PlanId, subscriptions: &[Made], now: Micros) -> Result<()> {
    let mut connection = SqliteConnection::connect(url).await.context("open the file")?;
    fill!(connection, plan, subscriptions, now);
    connection.close().await.context("close the file")
}

async fn fill_postgres(url: &str, plan: PlanId, subscriptions: &[Made], now: Micros) -> Result<()> {
    let mut connection = PgConnection::connect(url).await.context("connect")?;
    fill!(connection, plan, subscriptions, now);
    // So many new rows would be unknown to the planner until autovacuum comes round.
    let mut analysed = sqlx::raw_sql("ANALYZE").execute_many(&mut connection);
    while let Some(step) = analysed.next().await {
        step?;
    }
    drop(analysed);
    connection.close().await.context("disconnect")
}
