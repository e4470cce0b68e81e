//! The store on SQLite, for one node.
//!
//! Role: the embedded default. One process opens the file, held by a lock beside it; within the
//! process one connection writes (SQLite has one writer in any case, and a queue of our own is
//! fairer than its busy handler) and a few read beside it, which the write-ahead log allows. The
//! rules of ownership are those of Postgres, so that a restarted process is fenced from its
//! predecessor all the same.

mod analytics;
mod brake;
mod bulk;
mod checkpoint;
mod ledger;
mod lock_file;
mod membership;
mod options;
mod verdict;

// The rooms that both engines share are compiled here once more, against this engine's types: sqlx
// has no bound that says "either of these two", and a copy by hand would drift.
#[path = "../sql/audit.rs"]
mod audit;
#[path = "../sql/billing.rs"]
mod billing;
#[path = "../sql/calls.rs"]
mod calls;
#[path = "../sql/connections.rs"]
mod connections;
#[path = "../sql/decode.rs"]
mod decode;
#[path = "../sql/keys.rs"]
mod keys;
#[path = "../sql/load.rs"]
mod load;
#[path = "../sql/migrate.rs"]
mod migrate;
#[path = "../sql/notifications.rs"]
mod notifications;
#[path = "../sql/outbox.rs"]
mod outbox;
#[path = "../sql/page.rs"]
mod page;
#[path = "../sql/plans.rs"]
mod plans;
#[path = "../sql/reads.rs"]
mod reads;
#[path = "../sql/reservations.rs"]
mod reservations;
#[path = "../sql/session.rs"]
mod session;
#[path = "../sql/subscriptions.rs"]
mod subscriptions;
#[path = "../sql/tokens.rs"]
mod tokens;
#[path = "../sql/usage.rs"]
mod usage;

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, QueryBuilder};
use uuid::Uuid;
use weir_core::units::Micros;

use crate::failure::Call;
use crate::rows::{LedgerRow, NodeRow};
use crate::{Appended, Fence, Result};
use brake::{Brake, open};
use connections::Connections;
use lock_file::LockFile;
use session::{Session, bounded};
use verdict::verdict;

pub use options::{Place, SqliteOptions};

// What the shared rooms know of this engine.
type Engine = SqliteStore;
type Db = sqlx::Sqlite;
type Conn = sqlx::SqliteConnection;
type SqlRow = sqlx::sqlite::SqliteRow;
type Opening = sqlx::sqlite::SqliteConnectOptions;
const NAME: &str = "sqlite";
/// Taken at once: a transaction that reads first and then writes could be refused half way.
const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";
const BEGIN_SNAPSHOT: &str = "BEGIN DEFERRED";
/// The writer is alone anyway.
const LOCK_FOR_SHARE: &str = "";
const LOCK_FOR_UPDATE: &str = "";
const SKIP_LOCKED: &str = "";
/// A connection to a file does not age.
const AGE_MAX: Duration = Duration::MAX;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

/// The ledger, checkpoints and catalogue in a SQLite file.
pub struct SqliteStore {
    options: SqliteOptions,
    writers: Arc<Connections>,
    readers: Arc<Connections>,
    /// Keeps an in-memory database alive while no other connection does.
    _anchor: Option<std::sync::Mutex<Conn>>,
    /// Released last.
    _lock: Option<LockFile>,
}

impl SqliteStore {
    /// Opens the file, alone, and brings its tables up to date.
    pub async fn open(options: &SqliteOptions) -> Result<Self> {
        let lock = match &options.place {
            Place::File(path) => Some(LockFile::take(path)?),
            Place::Memory => None,
        };
        let connect = options.connect_options()?;
        let anchor = migrate::migrated(&connect, options.upkeep_timeout).await?;
        let writers = Connections::new(connect.clone(), 1, options.acquire_timeout);
        // In memory there is no write-ahead log: a reader of its own would be refused by the
        // writer.
        let (readers, anchor) = match &options.place {
            Place::Memory => (Arc::clone(&writers), Some(std::sync::Mutex::new(anchor))),
            Place::File(_) => {
                let size = options.read_connections_max;
                // Anything it did is in the file.
                anchor.close().await.ok();
                (Connections::new(connect, size, options.acquire_timeout), None)
            }
        };
        Ok(Self { options: options.clone(), writers, readers, _anchor: anchor, _lock: lock })
    }

    /// Brings the tables of a file up to date, alone.
    pub async fn migrate(options: &SqliteOptions) -> Result<()> {
        Self::open(options).await.map(drop)
    }

    fn writers(&self) -> &Arc<Connections> {
        &self.writers
    }

    fn readers(&self) -> &Arc<Connections> {
        &self.readers
    }

    fn looks(&self) -> &Arc<Connections> {
        &self.readers
    }

    async fn join_within(&self, node: &NodeRow, lease_ms: u32) -> Result<()> {
        let call = Call::new("join");
        bounded(&call, self.options.query_timeout, async {
            let mut session = Session::write(&self.writers, &call).await?;
            let done = membership::join(session.connection(), node, lease_ms).await;
            session.end(done).await
        })
        .await
    }

    async fn renew_within(&self, incarnation: Uuid, lease_ms: u32) -> Result<bool> {
        let call = Call::new("renew the lease");
        bounded(&call, self.options.query_timeout, async {
            let mut session = Session::write(&self.writers, &call).await?;
            let done = membership::renew(session.connection(), incarnation, lease_ms).await;
            session.end(done).await
        })
        .await
    }

    /// A file that is locked is not exchanged under the process that has it.
    #[allow(clippy::unused_async, reason = "the other engine waits here")]
    async fn accept_within(&self) -> Result<bool> {
        Ok(false)
    }

    fn query_timeout(&self) -> Duration {
        self.options.query_timeout
    }

    fn upkeep_timeout(&self) -> Duration {
        self.options.upkeep_timeout
    }

    async fn append_within(&self, fence: &Fence, rows: &[LedgerRow]) -> Result<Appended> {
        let call = Call::new("append");
        bounded(&call, self.options.query_timeout, async {
            let mut session = Session::write(&self.writers, &call).await?;
            let done = ledger::append(session.connection(), fence, rows).await;
            session.end(done).await
        })
        .await
    }

    /// There are no partitions here. Folds the write-ahead log back into the file instead, so that
    /// it does not stay as long as the longest read once made it.
    async fn make_room(&self, _now: Micros, _days_ahead: u16) -> Result<()> {
        let call = Call::new("fold the log");
        bounded(&call, self.options.upkeep_timeout, async {
            let mut session = Session::read(&self.writers, &call).await?;
            let done = membership::fold_log(session.connection()).await;
            session.end(done).await
        })
        .await
    }
}

/// Sums of measures, held at the largest number that JSON carries.
/// `sum` refuses to overflow, and one tenant's numbers must not fail another's read; `total` is exact
/// up to the bound.
const SUMS: &str = "CAST(min(total(m.requests), 9007199254740991.0) AS BIGINT), \
     CAST(min(total(m.units), 9007199254740991.0) AS BIGINT), \
     CAST(min(total(m.errors), 9007199254740991.0) AS BIGINT), \
     CAST(min(total(m.denied), 9007199254740991.0) AS BIGINT), \
     CAST(min(total(m.bytes_in), 9007199254740991.0) AS BIGINT), \
     CAST(min(total(m.bytes_out), 9007199254740991.0) AS BIGINT)";

/// Limits a column to these ids, given as one parameter so that the statement stays the same.
fn push_among(select: &mut QueryBuilder<Db>, ids: impl IntoIterator<Item = Uuid>) {
    select.push(" IN (SELECT unhex(value) FROM json_each(").push_bind(json_ids(ids)).push("))");
}

/// A JSON array of ids as 32 hexadecimal digits each.
fn json_ids(ids: impl IntoIterator<Item = Uuid>) -> String {
    let ids: Vec<String> = ids.into_iter().map(|id| id.simple().to_string()).collect();
    serde_json::Value::from(ids).to_string()
}

/// `usage_records r` that count in sums and are not in rollups, with `event_time` in `[start, end)`.
/// CROSS JOIN keeps SQLite to this order: a short walk per shard.
fn push_unrolled(select: &mut QueryBuilder<Db>, start: i64, end: i64) {
    select.push(concat!(
        "(SELECT l.* FROM shard_progress p CROSS JOIN usage_records l \
         WHERE l.shard_id = p.shard_id AND l.seq > p.rolled AND ",
        counts_in_sums!("l"),
        " AND l.event_time >= ",
    ));
    select.push_bind(start).push(" AND l.event_time < ").push_bind(end).push(") r");
}
