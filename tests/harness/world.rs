//! A node on a store of its own with tokens, and the words most stories are told in.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::Connection as _;
use uuid::Uuid;

use crate::caller::{Caller, Subscription};
use crate::client::{Answer, Http};
use crate::node::{Node, NodeOptions};
use crate::postgres::{HeldTables, Postgres, TestDatabase};
use crate::watchdog::TestDirectory;

/// The SQLite file in a story's directory.
const DATABASE_FILE: &str = "weir.db";

/// Which store a story runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// One file.
    Sqlite,
    /// A database on the test process's server.
    Postgres,
}

/// A node, its store and its tokens.
#[derive(Debug)]
pub struct World {
    /// The node.
    pub node: Node,
    gateway_token: String,
    dashboard_token: String,
    // Dropped after the node: fields are dropped in their order.
    database: Option<TestDatabase>,
    directory: TestDirectory,
}

impl World {
    /// A node with the default settings.
    pub async fn start(store: Store) -> Self {
        Self::start_with(store, &[]).await
    }

    /// A node with these variables.
    pub async fn start_with(store: Store, environment: &[(&str, &str)]) -> Self {
        match store {
            Store::Sqlite => Self::open(None, environment).await,
            Store::Postgres => {
                let database = Postgres::shared().await.fresh_database().await;
                Self::open(Some(database.expect("a database can be made")), environment).await
            }
        }
    }

    /// A node on a server of the story's own.
    pub async fn start_on(server: &Postgres, environment: &[(&str, &str)]) -> Self {
        let database = server.fresh_database().await.expect("a database can be made");
        Self::open(Some(database), environment).await
    }

    /// Ends every session of the node in its Postgres database.
    pub async fn cut_sessions(&self) {
        let database = self.database.as_ref().expect("this story runs on Postgres");
        database.terminate_sessions().await.expect("an administrator may end sessions");
    }

    /// Changes the SQLite file of a stopped node behind its back; returns how many rows.
    pub async fn tamper(&self, statement: &'static str) -> u64 {
        use sqlx::Executor as _;
        let url = format!("sqlite://{}", self.directory.path().join(DATABASE_FILE).display());
        let file = sqlx::SqliteConnection::connect(&url).await;
        let mut file = file.expect("the stopped node's file can be opened");
        let done = file.execute(statement).await.expect("the statement fits the tables");
        file.close().await.expect("a connection can be closed");
        done.rows_affected()
    }

    /// Keeps everybody from these tables of the Postgres database until what is returned is dropped.
    pub async fn hold_tables(&self, tables: &str) -> HeldTables {
        let database = self.database.as_ref().expect("this story runs on Postgres");
        database.hold_tables(tables).await.expect("tables can be locked")
    }

    /// Puts a message into the outbox as a job of the node would.
    pub async fn enqueue(&self, kind: &str, subscription: &str, data: &Value) {
        let subscription: Uuid = subscription.parse().expect("an id");
        // One text for both engines.
        macro_rules! insert {
            ($connection:expr) => {
                sqlx::query(
                    "INSERT INTO event_queue (id, subscription_id, kind, priority, \
                     idempotency_key, payload, created_at, next_attempt_at) \
                     VALUES ($1, $2, $3, 5, $4, $5, $6, $6)",
                )
                .bind(Uuid::now_v7())
                .bind(subscription)
                .bind(kind)
                .bind(Uuid::now_v7().to_string())
                .bind(data.to_string())
                .bind(Timestamp::now().as_microsecond())
                .execute($connection)
                .await
                .expect("a message can be enqueued")
                .rows_affected()
            };
        }
        let rows = if let Some(database) = &self.database {
            let connection = sqlx::PgConnection::connect(&database.url).await;
            insert!(&mut connection.expect("the database can be reached"))
        } else {
            let url = format!("sqlite://{}", self.directory.path().join(DATABASE_FILE).display());
            let file = sqlx::SqliteConnection::connect(&url).await;
            insert!(&mut file.expect("the node's file can be opened"))
        };
        assert_eq!(rows, 1);
    }

    async fn open(database: Option<TestDatabase>, environment: &[(&str, &str)]) -> Self {
        let directory = TestDirectory::new();
        let file = directory.path().join(DATABASE_FILE);
        let database_url = match &database {
            Some(database) => database.url.clone(),
            None => format!("sqlite://{}", file.display()),
        };
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(pair).collect();
        let options = NodeOptions { database_url, environment, arguments: Vec::new() };
        let node = Node::start(options).await;
        let admin = node.admin();
        let of_scope = |scope: &str| json!({"name": scope, "scope": scope});
        let gateway_token = token(&admin, &of_scope("gateway")).await;
        let dashboard_token = token(&admin, &of_scope("dashboard")).await;
        Self { node, gateway_token, dashboard_token, database, directory }
    }

    /// A client of scope admin.
    pub fn admin(&self) -> Http {
        self.node.admin()
    }

    /// A client of scope gateway.
    pub fn gateway(&self) -> Http {
        self.node.anonymous().with_token(&self.gateway_token)
    }

    /// A client of scope dashboard.
    pub fn dashboard(&self) -> Http {
        self.node.anonymous().with_token(&self.dashboard_token)
    }

    /// The node, asked in the words of a story.
    pub fn caller(&self) -> Caller {
        Caller { admin: self.admin(), gateway: self.gateway(), dashboard: self.dashboard() }
    }

    /// Where the story may keep files.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Makes a token and returns its text.
    pub async fn token(&self, body: &Value) -> String {
        token(&self.admin(), body).await
    }

    /// Makes a plan and returns its id. What `fields` leaves out: a name.
    pub async fn plan(&self, fields: Value) -> String {
        self.caller().plan(fields).await
    }

    /// Makes a subscription of a plan.
    pub async fn subscribe(&self, plan: &str) -> Subscription {
        self.caller().subscribe(plan).await
    }

    /// Makes a subscription with these fields.
    pub async fn subscribe_with(&self, plan: &str, fields: Value) -> Subscription {
        self.caller().subscribe_with(plan, fields).await
    }

    /// A subscription of a new hard monthly plan with this limit.
    pub async fn subscribe_hard(&self, limit: u64) -> Subscription {
        self.caller().subscribe_hard(limit).await
    }

    /// Asks whether a request may pass.
    pub async fn check(&self, key: &str) -> Value {
        self.caller().check(key).await
    }

    /// Asks with these parameters, such as `cost=3&path=/v1`.
    pub async fn check_with(&self, key: &str, query: &str) -> Value {
        self.caller().check_with(key, query).await
    }

    /// Asks, and returns whatever is answered.
    pub async fn try_check(&self, key: &str, query: &str) -> Answer {
        self.caller().try_check(key, query).await
    }

    /// Looks without changing anything.
    pub async fn peek(&self, key: &str) -> Value {
        self.caller().peek(key).await
    }

    /// Records events, in any of the forms.
    pub async fn record(&self, body: &Value) -> Value {
        self.caller().record(body).await
    }

    /// Waits until the subscription's `used` is this and returns the decision that said so.
    pub async fn await_used(&self, key: &str, used: u64) -> Value {
        self.caller().await_used(key, used).await
    }

    /// Every ledger row of a subscription, page by page.
    ///
    /// # Panics
    /// When the pages do not end.
    pub async fn records(&self, id: &str, query: &str) -> Vec<Value> {
        self.caller().records(id, query).await
    }
}

pub(crate) async fn token(admin: &Http, body: &Value) -> String {
    let made = admin.post("/api/v1/tokens", body).await.expect(201);
    made["token"].as_str().expect("its making shows the token").to_owned()
}

/// A moment `seconds` from now, as the contract writes it.
pub fn rfc3339(seconds: i64) -> String {
    let at = Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// A served request of now, with an id of its own.
pub fn event(key: &str) -> Value {
    event_of(key, &Uuid::now_v7().to_string())
}

/// A served request of now with this id.
pub fn event_of(key: &str, id: &str) -> Value {
    json!({
        "id": id, "subscription_key": key, "timestamp": rfc3339(0), "method": "GET",
        "api_path": "/v1/search", "status_code": 200, "success": true, "response_time_ms": 12.5,
        "request_size": 100, "response_size": 5120, "user_agent": "curl/8.5",
        "ip_address": "203.0.113.9", "country": "DE",
    })
}

/// A served request of another time, with an id of its own.
pub fn event_at(key: &str, timestamp: &str) -> Value {
    let mut event = event(key);
    event["timestamp"] = json!(timestamp);
    event
}
