//! Wiring: the only file that knows every room, and the order in which they begin and end.
//!
//! ```text
//!   begin  store ─▶ join, claim ─▶ catalog ─▶ checkpointer ─▶ shards ─▶ recorder ─▶ analytics ─▶ http
//!   end    http ─▶ recorder ─▶ shards rest (clean checkpoints) ─▶ checkpointer ─▶ leave ─▶ store
//! ```
//! The end is the beginning reversed, so that nothing is asked of a room that is gone.

use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::{Config, DatabaseUrl, limits};
use weir_core::units::{ShardId, Span};
use weir_store::postgres::{PostgresOptions, PostgresStore};
use weir_store::rows::NodeRow;
use weir_store::sqlite::{SqliteOptions, SqliteStore};
use weir_store::{ShardState, Store};

use crate::analytics::Analytics;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::http::{Api, HttpLimits, ServeLimits};
use crate::metrics::{Metrics, chain};
use crate::ownership::Ownership;
use crate::recorder::{
    Checkpointer, CheckpointerParts, Health, Recorder, RecorderLimits, SharedApply,
};
use crate::router::Router;
use crate::shard::{ActorLimits, Deps, Shards};

/// Days of partitions made ahead: a node that cannot reach its upkeep for a week still writes.
const PARTITION_DAYS_AHEAD: u16 = 7;
/// How often upkeep runs.
const MAINTAIN_EVERY: Duration = Duration::from_hours(1);
/// How often the clock is compared and histograms are folded.
const TICK: Duration = Duration::from_secs(1);
/// How long a check may wait for the escrow's commit: many times a healthy commit, less than a
/// gateway's patience.
const COMMIT_WAIT: Duration = Duration::from_millis(300);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be opened or read.
    #[error("the store could not be used")]
    Store(#[from] weir_store::Error),
    /// Another node works on this database.
    #[error("node {0} is alive on this database; one node serves it at a time")]
    OtherNode(String),
    /// The shards could not be had.
    #[error("only {got} of {wanted} shards could be claimed")]
    Shards {
        /// How many were claimed.
        got: usize,
        /// How many there are.
        wanted: usize,
    },
    /// An address could not be bound.
    #[error("could not listen on {address}")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An actor could not be started.
    #[error("the shard actors could not be started")]
    Actors(#[source] ractor::SpawnErr),
}

/// A node that serves.
pub struct Running {
    /// Where HTTP is served.
    pub address: std::net::SocketAddr,
    /// What handlers work with; benchmarks ask it directly.
    pub api: Arc<Api>,
    /// Cancelled when this node finds that it no longer owns its shards.
    pub lost: CancellationToken,
    store: Arc<dyn Store>,
    incarnation: Uuid,
    checkpointer: Arc<Checkpointer>,
    checkpoints: JoinHandle<()>,
    server: JoinHandle<()>,
    stop_http: CancellationToken,
    stop_jobs: CancellationToken,
    stop_lease: CancellationToken,
    drain_timeout: Duration,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Opens the configured store and brings its tables up to date.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, weir_store::Error> {
    match &config.database_url {
        DatabaseUrl::Sqlite { path } => {
            let mut options = SqliteOptions::file(path);
            options.query_timeout = config.store.query_timeout;
            options.acquire_timeout = config.store.acquire_timeout;
            Ok(Arc::new(SqliteStore::open(&options).await?))
        }
        DatabaseUrl::Postgres { url } => {
            let mut options = PostgresOptions::new(url.expose());
            let connections = u16::try_from(config.store.pool_size).unwrap_or(u16::MAX);
            options.write_connections_max = connections.div_ceil(2).max(2);
            options.read_connections_max = (connections / 2).max(2);
            options.query_timeout = config.store.query_timeout;
            options.acquire_timeout = config.store.acquire_timeout;
            Ok(Arc::new(PostgresStore::connect(&options).await?))
        }
    }
}

/// The directory of a SQLite database must exist; making it saves a new user a puzzle.
pub fn make_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => std::fs::create_dir_all(parent),
        _ => Ok(()),
    }
}

/// Starts a node on the configured store.
pub async fn start(config: &Config) -> Result<Running, StartError> {
    start_on(open_store(config).await?, config).await
}

/// Starts a node on a store that is open already.
pub async fn start_on(store: Arc<dyn Store>, config: &Config) -> Result<Running, StartError> {
    let incarnation = Uuid::now_v7();
    let states = take_shards(&*store, config, incarnation).await?;
    let shard_count = u16::try_from(states.len()).ok().and_then(NonZeroU16::new);
    let shard_count = shard_count.ok_or(StartError::Shards { got: 0, wanted: 0 })?;

    let clock = Arc::new(Clock::start());
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::default());
    let lost = CancellationToken::new();
    let stop_jobs = CancellationToken::new();
    let ownership = Arc::new(Ownership::new(incarnation, &states));
    // Before anything that may take as long as the lease.
    let stop_lease = CancellationToken::new();
    let lease_ends = stop_lease.clone().drop_guard();
    let lease =
        Lease { store: store.clone(), incarnation, health: health.clone(), lost: lost.clone() };
    tokio::spawn(lease.keep(config.clone(), stop_lease.clone()));
    ownership.find_uncounted(&*store).await?;
    let admin_token = config.admin_token.as_ref().map(weir_config::Secret::expose);
    let catalog = Catalog::new(store.clone(), clock.clone(), shard_count, admin_token);
    let catalog = Arc::new(catalog);
    let checkpointer = Checkpointer::new();
    let checkpoints = checkpointer.start(CheckpointerParts {
        store: store.clone(),
        ownership: ownership.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        interval: config.checkpoint.interval,
        chunk_rows_max: config.checkpoint.chunk_rows_max,
        lost: lost.clone(),
    });
    let deps = Deps {
        clock: clock.clone(),
        catalog: catalog.clone(),
        checkpointer: checkpointer.clone(),
        ownership: ownership.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
        limits: ActorLimits {
            mailbox_messages_max: u32::try_from(config.actors.mailbox_messages_max)
                .unwrap_or(u32::MAX),
            commit_wait: COMMIT_WAIT,
            passivate_after: config.actors.passivate_after,
            resident_max: config.actors.resident_max,
        },
    };
    let shards = Shards::start(store.clone(), deps).await.map_err(StartError::Actors)?;
    let recorder = Recorder::start(
        store.clone(),
        ownership.clone(),
        health.clone(),
        metrics.clone(),
        &(Arc::new(shards.clone()) as SharedApply),
        RecorderLimits {
            lanes: lanes(config),
            append_rows_max: config.recorder.append_rows_max,
            queue_rows_max: config.recorder.queue_rows_max,
            lease_ms: lease_ms(config),
        },
        lost.clone(),
    );
    let analytics = Analytics::start(store.clone(), ownership, clock.clone(), stop_jobs.clone());
    let api = Arc::new(Api {
        router: Router::new(catalog, shards, metrics.clone()),
        recorder,
        checkpointer: checkpointer.clone(),
        store: store.clone(),
        analytics,
        clock: clock.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
        node_id: HeaderValue::from_str(config.node_id.as_str())
            .unwrap_or(HeaderValue::from_static("node")),
        limits: http_limits(config),
    });

    let listen = |source| StartError::Listen { address: config.http, source };
    let listener = TcpListener::bind(config.http).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let stop_http = CancellationToken::new();
    let front = crate::http::Front::new(api.clone());
    let serving = crate::http::serve(listener, front, serve_limits(config), stop_http.clone());
    let server = tokio::spawn(serving);
    tokio::spawn(maintain(store.clone(), clock.clone(), config.clone(), stop_jobs.clone()));
    tokio::spawn(tick(clock, metrics, stop_jobs.clone()));
    // From here on `Running` ends it.
    let _ = lease_ends.disarm();
    Ok(Running {
        address,
        api,
        lost,
        store,
        incarnation,
        checkpointer,
        checkpoints,
        server,
        stop_http,
        stop_jobs,
        stop_lease,
        drain_timeout: config.server.drain_timeout,
    })
}

impl Running {
    /// Ends in order: open requests are answered, counters and unused escrow are written.
    pub async fn stop(self) {
        self.stop_http.cancel();
        let lost = self.lost.is_cancelled();
        let ending = async {
            // Either task only fails by a panic, which has been logged.
            let _ = self.server.await;
            self.stop_jobs.cancel();
            if !lost {
                self.api.router.shards().rest().await;
                self.checkpointer.drain();
                let _ = self.checkpoints.await;
            }
        };
        if tokio::time::timeout(self.drain_timeout, ending).await.is_err() {
            tracing::warn!("not everything was written in time; the next start recovers it");
        }
        self.stop_jobs.cancel();
        // Held to the last write: a successor that waits for it must not claim before.
        self.stop_lease.cancel();
        if !lost && let Err(error) = self.store.leave(self.incarnation).await {
            tracing::warn!(error = %chain(&error), "the lease could not be given up");
        }
    }
}

impl Running {
    /// Ends as a killed process would, as far as a process can do that to itself: nothing more is
    /// written or answered. For drills; what was promised before must hold on the next start.
    pub async fn abandon(self) {
        self.lost.cancel();
        self.stop().await;
    }
}

fn lease_ms(config: &Config) -> u32 {
    u32::try_from(config.cluster.lease.as_millis()).unwrap_or(u32::MAX)
}

/// SQLite has one writer; Postgres gains by a second lane that gathers while the first commits.
fn lanes(config: &Config) -> usize {
    if config.database_url.is_shared() { config.recorder.lanes } else { 1 }
}

fn http_limits(config: &Config) -> HttpLimits {
    let window = i64::try_from(config.ingest.accept_window.as_micros()).unwrap_or(i64::MAX);
    HttpLimits {
        body_bytes_max: config.server.body_bytes_max,
        body_read_timeout: config.server.body_read_timeout,
        request_timeout: config.server.request_timeout,
        checks_max: config.ingest.batch_checks_max,
        events_max: config.ingest.batch_events_max,
        accept_window: Span::from_micros(window),
    }
}

fn serve_limits(config: &Config) -> ServeLimits {
    ServeLimits {
        header_read_timeout: config.server.header_read_timeout,
        head_bytes_max: limits::REQUEST_HEAD_BYTES_MAX,
        connections_max: config.server.connections_max,
        // Half of the whole: the rest is for the last checkpoints.
        drain_timeout: config.server.drain_timeout / 2,
    }
}

/// Registers this boot and takes every shard, once no other node is alive.
async fn take_shards(
    store: &dyn Store,
    config: &Config,
    incarnation: Uuid,
) -> Result<Vec<ShardState>, StartError> {
    let wanted = config.cluster.shard_count.get();
    let count = store.init_shards(wanted).await?;
    if count != wanted {
        tracing::warn!(count, wanted, "the shard count was fixed when the database was made");
    }
    let lease_ms = lease_ms(config);
    let node = NodeRow {
        id: config.node_id.as_str().to_owned(),
        incarnation,
        http: config.http.to_string(),
        cluster: config.cluster_listen.map(|address| address.to_string()).unwrap_or_default(),
    };
    store.join(&node, lease_ms).await?;
    wait_for_others(store, config, incarnation, lease_ms).await?;
    let all: Vec<_> = (0..count).map(ShardId).collect();
    let mut states = store.claim(incarnation, &all).await?;
    states.sort_by_key(|state| state.shard);
    if states.len() == all.len() {
        Ok(states)
    } else {
        Err(StartError::Shards { got: states.len(), wanted: all.len() })
    }
}

/// A node that was killed keeps its lease for a while; one that lives keeps it for ever.
async fn wait_for_others(
    store: &dyn Store,
    config: &Config,
    incarnation: Uuid,
    lease_ms: u32,
) -> Result<(), StartError> {
    let pause = Duration::from_millis(250);
    let patience = config.cluster.lease + Duration::from_secs(2);
    let stopwatch = Clock::stopwatch();
    loop {
        let others = store.others_alive(incarnation).await?;
        let Some(other) = others.first() else { return Ok(()) };
        if stopwatch.elapsed() > patience {
            return Err(StartError::OtherNode(other.id.clone()));
        }
        tracing::info!(other = %other.id, "waiting for another node's lease to end");
        tokio::time::sleep(pause).await;
        store.renew(incarnation, lease_ms).await?;
    }
}

/// Keeps this boot alive in the store; also what notices first that the store went or came back.
struct Lease {
    store: Arc<dyn Store>,
    incarnation: Uuid,
    health: Arc<Health>,
    lost: CancellationToken,
}

impl Lease {
    async fn keep(self, config: Config, stop: CancellationToken) {
        let lease_ms = lease_ms(&config);
        let mut ticks = tokio::time::interval(config.cluster.lease_renew);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            match self.store.renew(self.incarnation, lease_ms).await {
                Ok(true) => self.health.set_up(true),
                Ok(false) => {
                    tracing::error!("this node was replaced by another");
                    return self.lost.cancel();
                }
                // While the store is away nobody can take the shards: go on, the fence decides later.
                Err(error) => {
                    self.health.set_up(!error.is_away());
                    tracing::debug!(error = %chain(&error), "the lease was not renewed");
                }
            }
        }
    }
}

async fn maintain(
    store: Arc<dyn Store>,
    clock: Arc<Clock>,
    config: Config,
    stop: CancellationToken,
) {
    let window = i64::try_from(config.ingest.accept_window.as_micros()).unwrap_or(i64::MAX);
    let skew = i64::try_from(limits::FUTURE_SKEW.as_micros()).unwrap_or(i64::MAX);
    let remembered = Span::from_micros(window.saturating_add(skew.saturating_mul(2)));
    let mut ticks = tokio::time::interval(MAINTAIN_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = clock.now();
        match store.maintain(now, PARTITION_DAYS_AHEAD, now.minus(remembered)).await {
            Ok(forgotten) => tracing::debug!(forgotten, "upkeep done"),
            Err(error) => tracing::warn!(error = %chain(&error), "upkeep failed; it runs again"),
        }
    }
}

async fn tick(clock: Arc<Clock>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        clock.follow();
        metrics.upkeep();
    }
}
