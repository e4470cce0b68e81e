//! The store on Postgres, for a cluster.
//!
//! Role: several nodes write to one database; row locks on `shards` decide who may. Every statement
//! moves a whole batch by `UNNEST`, so that a call costs a handful of round trips whatever its
//! size. Reads and writes have connections of their own: a slow report never keeps an event from
//! being recorded.

mod analytics;
mod checkpoint;
mod ledger;
mod membership;
mod options;
mod partitions;
mod verdict;
mod witness;

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
use sqlx::{Connection as _, QueryBuilder, query_scalar};
use uuid::Uuid;
use weir_core::units::Micros;

use crate::failure::{Call, Failure};
use crate::rows::{LedgerRow, NodeRow};
use crate::{Appended, Error, Fence, Result};
use connections::Connections;
use partitions::Partitions;
use session::{Session, bounded};
use verdict::verdict;
use witness::{Opening, Witness, open};

pub use options::PostgresOptions;

// What the shared rooms know of this engine.
type Engine = PostgresStore;
type Db = sqlx::Postgres;
type Conn = sqlx::PgConnection;
type SqlRow = sqlx::postgres::PgRow;
/// The server notices by itself that nobody waits for its answer, at the latest at its own limit.
type Brake = ();
const NAME: &str = "postgres";
const BEGIN_WRITE: &str = "BEGIN";
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Connections for looks at who serves what.
const LOOK_CONNECTIONS: u16 = 2;
const LOCK_FOR_SHARE: &str = " FOR SHARE";
const LOCK_FOR_UPDATE: &str = " FOR UPDATE";
/// Of what another transaction holds nothing is waited for. `d` is what is to be locked.
const SKIP_LOCKED: &str = " FOR UPDATE OF d SKIP LOCKED";
/// A server process grows with what it has seen; replacing it now and then keeps it small.
const AGE_MAX: Duration = Duration::from_mins(30);

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");

/// The ledger, checkpoints and catalogue in a Postgres database.
pub struct PostgresStore {
    options: PostgresOptions,
    writers: Arc<Connections>,
    readers: Arc<Connections>,
    /// For looks at who serves what.
    looks: Arc<Connections>,
    /// One, for the lease, which must not wait behind what it is the lease of, nor behind whoever looks.
    lease: Arc<Connections>,
    witness: Witness,
    partitions: Partitions,
}

impl PostgresStore {
    /// Brings the tables up to date, if it is to, and is then ready for calls. Later losses of the connection
    /// heal by themselves.
    pub async fn connect(options: &PostgresOptions) -> Result<Self> {
        if options.migrates {
            Self::migrate(options).await?;
        }
        let call = Call::new("connect");
        let durable =
            bounded(&call, options.query_timeout, commits_durably(&call, options)).await?;
        let wait = options.acquire_timeout;
        let witness = Witness::default();
        let opening = |options| Opening { options, witness: witness.clone() };
        let by_key = opening(options.connect_options_by_key(durable)?);
        let reading = opening(options.connect_options(durable)?);
        Ok(Self {
            writers: Connections::new(by_key.clone(), options.write_connections_max, wait),
            readers: Connections::new(reading, options.read_connections_max, wait),
            looks: Connections::new(by_key.clone(), LOOK_CONNECTIONS, wait),
            lease: Connections::new(by_key, 1, wait),
            witness,
            partitions: Partitions::default(),
            options: options.clone(),
        })
    }

    /// Brings the tables up to date. Nodes that start together wait for each other.
    pub async fn migrate(options: &PostgresOptions) -> Result<()> {
        let connect = options.connect_options_unbounded()?;
        let connection = migrate::migrated(&connect, options.migrate_timeout).await?;
        // A goodbye that is lost changes nothing.
        connection.close().await.ok();
        Ok(())
    }

    fn writers(&self) -> &Arc<Connections> {
        &self.writers
    }

    fn readers(&self) -> &Arc<Connections> {
        &self.readers
    }

    fn looks(&self) -> &Arc<Connections> {
        &self.looks
    }

    async fn join_within(&self, node: &NodeRow, lease_ms: u32) -> Result<()> {
        let call = Call::new("join");
        let number = bounded(&call, self.options.query_timeout, async {
            let mut session = Session::write(&self.lease, &call).await?;
            let done = membership::join(session.connection(), node, lease_ms).await;
            session.end(done).await
        })
        .await?;
        self.witness.joined(node.incarnation, number);
        Ok(())
    }

    async fn renew_within(&self, incarnation: Uuid, lease_ms: u32) -> Result<bool> {
        let call = Call::new("renew the lease");
        let expected = self.witness.expects(incarnation);
        let renewed = bounded(&call, self.options.query_timeout, async {
            let mut session = Session::write(&self.lease, &call).await?;
            let done =
                membership::renew(session.connection(), incarnation, lease_ms, expected).await;
            session.end(done).await
        })
        .await;
        if matches!(renewed, Err(Error::Rewound { .. })) {
            self.mark_rewound(incarnation, expected).await;
        }
        let beats = renewed?;
        if let Some(beats) = beats {
            self.witness.renewed(incarnation, beats);
        }
        Ok(beats.is_some())
    }

    /// Tells every node, those to come as well. On a connection of its own, since the others refuse.
    async fn mark_rewound(&self, incarnation: Uuid, expected: (i64, i64)) {
        let call = Call::new("mark the database");
        let marked = bounded(&call, self.options.query_timeout, async {
            let options = self.options.connect_options(true)?;
            let marking = async {
                let mut connection = Conn::connect_with(&options).await?;
                membership::mark_rewound(&mut connection, incarnation, expected).await?;
                connection.close().await.map_err(Failure::from)
            };
            marking.await.map_err(|failure| call.failed(failure, verdict))
        });
        // Every other node finds out by itself; the mark is for those that are started later.
        drop(marked.await);
    }

    async fn accept_within(&self) -> Result<bool> {
        let call = Call::new("accept the database");
        bounded(&call, self.options.query_timeout, async {
            let mut session = Session::write(&self.lease, &call).await?;
            let done = membership::accept_rewound(session.connection()).await;
            session.end(done).await
        })
        .await
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
            self.partitions.make(&self.writers, &partitions::days_of(rows)).await?;
            let mut session = Session::write(&self.writers, &call).await?;
            let done = ledger::append(session.connection(), fence, rows).await;
            if let Err(Failure::Engine(error)) = &done
                && verdict::is_missing_partition(error)
            {
                // Archived and dropped since we saw it: the next try makes it anew.
                self.partitions.forget_all();
            }
            session.end(done).await
        })
        .await
    }

    async fn make_room(&self, now: Micros, days_ahead: u16) -> Result<()> {
        let call = Call::new("make partitions");
        let today = partitions::day_of(now);
        let days: Vec<_> = (today - 1..=today + i64::from(days_ahead)).collect();
        bounded(&call, self.options.upkeep_timeout, self.partitions.make(&self.writers, &days))
            .await
    }
}

/// Sums of measures, held at the largest number that JSON carries.
/// One tenant's numbers must not fail another's read.
const SUMS: &str = "CAST(LEAST(COALESCE(sum(m.requests), 0), 9007199254740991) AS BIGINT), \
     CAST(LEAST(COALESCE(sum(m.units), 0), 9007199254740991) AS BIGINT), \
     CAST(LEAST(COALESCE(sum(m.errors), 0), 9007199254740991) AS BIGINT), \
     CAST(LEAST(COALESCE(sum(m.denied), 0), 9007199254740991) AS BIGINT), \
     CAST(LEAST(COALESCE(sum(m.bytes_in), 0), 9007199254740991) AS BIGINT), \
     CAST(LEAST(COALESCE(sum(m.bytes_out), 0), 9007199254740991) AS BIGINT)";

/// Limits a column to these ids.
fn push_among(select: &mut QueryBuilder<Db>, ids: impl IntoIterator<Item = Uuid>) {
    let ids: Vec<Uuid> = ids.into_iter().collect();
    select.push(" = ANY(").push_bind(ids).push(")");
}

/// `usage_records r` that count in sums and are not in rollups, with `event_time` in `[start, end)`.
/// The OFFSET keeps the planner from turning a short walk per shard into a scan of whole
/// partitions.
fn push_unrolled(select: &mut QueryBuilder<Db>, start: i64, end: i64) {
    select.push(concat!(
        "shard_progress p CROSS JOIN LATERAL (SELECT * FROM usage_records l \
         WHERE l.shard_id = p.shard_id AND l.seq > p.rolled AND ",
        counts_in_sums!("l"),
        " AND l.event_time >= ",
    ));
    select.push_bind(start).push(" AND l.event_time < ").push_bind(end).push(" OFFSET 0) r");
}

/// Whether a commit here means that the change is on disk.
async fn commits_durably(call: &Call, options: &PostgresOptions) -> Result<bool> {
    let connect = options.connect_options_unbounded()?;
    let asked = async {
        let mut connection = Conn::connect_with(&connect).await?;
        let setting: String = query_scalar("SELECT current_setting('synchronous_commit')")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await.ok();
        Ok::<bool, sqlx::Error>(setting != "off")
    };
    asked.await.map_err(|error| call.failed(error.into(), verdict))
}
