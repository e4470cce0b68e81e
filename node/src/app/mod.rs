//! Wiring: the only file that knows every room, and the order in which they begin and end.
//!
//! ```text
//!   begin  store ─▶ catalog ─▶ checkpointer ─▶ shards ─▶ recorder ─▶ (peers ─▶ join) ─▶ analytics
//!          ─▶ http ─▶ delivery
//!   end    (give away) ─▶ http, delivery ─▶ recorder ─▶ shards rest (clean checkpoints)
//!          ─▶ checkpointer ─▶ leave
//! ```
//! In brackets what only a node of a cluster does; one that is alone takes every shard first.
//! The end is the beginning reversed, so that nothing is asked of a room that is gone.

mod alone;
mod clustered;
pub mod operator;
mod rooms;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::{Config, DatabaseUrl, limits};
use weir_store::Store;
use weir_store::postgres::{PostgresOptions, PostgresStore};
use weir_store::rows::{REWOUND, SEAL};
use weir_store::sqlite::{SqliteOptions, SqliteStore};

use crate::billing::Job;
use crate::clock::Clock;
use crate::cluster::transport::TransportError;
use crate::delivery::{Authorities, Delivery, Parts as DeliveryParts, SetupError};
use crate::http::{Api, ServeLimits};
use crate::metrics::{Metrics, chain};
use crate::recorder::Checkpointer;
use crate::retention::Upkeep;
use clustered::{Clustered, Joining};
use rooms::Rooms;

/// How often upkeep runs.
const MAINTAIN_EVERY: Duration = Duration::from_hours(1);
/// How often the clock is compared and histograms are folded.
const TICK: Duration = Duration::from_secs(1);
/// Connections that may wait to be accepted: a gateway's whole pool, come anew at once.
const BACKLOG: u32 = 1_024;

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
    /// A file of the configuration could not be read.
    #[error("{path} could not be read")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A cluster needs a secret.
    #[error("`cluster_secret` is missing")]
    NoSecret,
    /// Nodes that could never speak with one another are not one cluster.
    #[error(
        "the living nodes of this cluster were started with another `cluster_secret`; to change it, \
         stop them all first"
    )]
    AnotherSecret,
    /// What was committed is not there any more.
    #[error(
        "the database has lost commits that nodes know of: it is a copy that was restored, or a standby \
         that was behind. Bring back the one that has them, or take this one as it is by `weir cluster \
         accept-restore`; what it lost then is lost"
    )]
    Rewound,
    /// Peers could not be listened for.
    #[error("peers could not be listened for")]
    Transport(#[source] TransportError),
    /// The ways out of messages could not be set up.
    #[error("deliveries could not be set up")]
    Delivery(#[from] SetupError),
    /// An actor could not be started.
    #[error("the shard actors could not be started")]
    Actors(#[source] ractor::SpawnErr),
}

/// A node that serves.
pub struct Running {
    /// Where HTTP is served.
    pub address: std::net::SocketAddr,
    /// Where peers reach it, when it is one of a cluster.
    pub cluster: Option<std::net::SocketAddr>,
    /// What handlers work with; benchmarks ask it directly.
    pub api: Arc<Api>,
    /// Cancelled when this node finds that it no longer owns its shards.
    pub lost: CancellationToken,
    store: Arc<dyn Store>,
    clustered: Option<Clustered>,
    incarnation: Uuid,
    checkpointer: Arc<Checkpointer>,
    checkpoints: JoinHandle<()>,
    server: JoinHandle<()>,
    deliveries: JoinHandle<()>,
    stop_http: CancellationToken,
    stop_delivery: CancellationToken,
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
    open_store_that(config, true).await
}

/// Opens the configured store; Postgres, which running nodes share, as its tables are unless it `migrates`.
async fn open_store_that(
    config: &Config,
    migrates: bool,
) -> Result<Arc<dyn Store>, weir_store::Error> {
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
            options.migrates = migrates;
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
    // A mistake in its settings is told before anything is taken from other nodes.
    let delivery = Delivery::new(&config.delivery, &config.smtp, &authorities(config)?)?;
    let peers_at = config.cluster_listen.filter(|_| config.database_url.is_shared());
    let stop_lease = CancellationToken::new();
    let lease_ends = stop_lease.clone().drop_guard();
    let rooms = Rooms::open(store, config, peers_at.is_some(), &stop_lease).await?;
    let since = rooms.clock.now();

    let listen = |source| StartError::Listen { address: config.http, source };
    let socket = bound(config.http).map_err(listen)?;
    let address = socket.local_addr().map_err(listen)?;
    let clustered = match peers_at {
        None => None,
        Some(peers_at) => {
            let joining = Joining {
                config,
                peers_at,
                http: address,
                rooms: &rooms,
                stop: stop_lease.clone(),
            };
            Some(joining.join().await?)
        }
    };
    let stop_jobs = CancellationToken::new();
    let peers = clustered.as_ref().map(|clustered| clustered.peers.clone());
    let api = Arc::new(rooms.api(config, peers, &stop_jobs));

    // Not before there is somebody to answer: a gateway would wait in the queue instead of asking another.
    let listener = socket.listen(BACKLOG).map_err(listen)?;
    let stop_http = CancellationToken::new();
    let front = crate::http::Front::new(api.clone());
    let serving = crate::http::serve(listener, front, serve_limits(config), stop_http.clone());
    let server = tokio::spawn(serving);
    let stop_delivery = CancellationToken::new();
    let deliveries = delivery.start(DeliveryParts {
        store: rooms.store.clone(),
        clock: rooms.clock.clone(),
        metrics: rooms.metrics.clone(),
        stop: stop_delivery.clone(),
        lost: rooms.lost.clone(),
    });
    let (store, clock) = (rooms.store.clone(), rooms.clock.clone());
    let follow = rooms.follow.clone();
    tokio::spawn(crate::follow::trail::keep(follow, clock.clone(), since, stop_jobs.clone()));
    tokio::spawn(maintain(api.upkeep.clone(), clock.clone(), stop_jobs.clone()));
    let timers = [
        (Job::Overage, config.billing.overage_every),
        (Job::Rollover, config.billing.rollover_every),
    ];
    for (job, every) in timers {
        tokio::spawn(api.billing.clone().keep_running(job, every, stop_jobs.clone()));
    }
    tokio::spawn(tick(clock, rooms.metrics.clone(), stop_jobs.clone()));
    // From here on `Running` ends it.
    let _ = lease_ends.disarm();
    Ok(Running {
        address,
        cluster: clustered.as_ref().map(|clustered| clustered.address),
        api,
        lost: rooms.lost,
        store,
        clustered,
        incarnation: rooms.ownership.incarnation(),
        checkpointer: rooms.checkpointer,
        checkpoints: rooms.checkpoints,
        server,
        deliveries,
        stop_http,
        stop_delivery,
        stop_jobs,
        stop_lease,
        drain_timeout: config.server.drain_timeout,
    })
}

impl Running {
    /// Ends in order: open requests are answered, counters and unused escrow are written.
    pub async fn stop(self) {
        let lost = self.lost.is_cancelled();
        if let Some(clustered) = self.clustered.as_ref().filter(|_| !lost) {
            self.api.leaving.store(true, Ordering::Relaxed);
            // Requests go on meanwhile: those for what is given away are asked of its new owner.
            clustered.give_away(self.drain_timeout / 2).await;
        }
        self.stop_http.cancel();
        self.stop_delivery.cancel();
        let ending = async {
            // A task only fails by a panic, which has been logged.
            let _ = self.server.await;
            let _ = self.deliveries.await;
            if let Some(clustered) = &self.clustered {
                clustered.last_answers().await;
            }
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

fn refused(error: weir_store::Error) -> StartError {
    match error {
        weir_store::Error::Conflict { with: SEAL, .. } => StartError::AnotherSecret,
        weir_store::Error::Conflict { with: REWOUND, .. } | weir_store::Error::Rewound { .. } => {
            StartError::Rewound
        }
        error => error.into(),
    }
}

/// An address of ours that refuses connections until it is listened on.
fn bound(address: std::net::SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As a listener of the standard library: connections of the last boot that linger are no hindrance.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Reads what receivers and the mail server are trusted by.
fn authorities(config: &Config) -> Result<Authorities, StartError> {
    let read = |path: &Option<PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let file = |source| StartError::File { path: path.clone(), source };
        std::fs::read(path).map(Some).map_err(file)
    };
    Ok(Authorities {
        webhooks: read(&config.delivery.tls_authority)?,
        mail: read(&config.smtp.tls_authority)?,
    })
}

fn lease_ms(config: &Config) -> u32 {
    u32::try_from(config.cluster.lease.as_millis()).unwrap_or(u32::MAX)
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

async fn maintain(upkeep: Upkeep, clock: Arc<Clock>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(MAINTAIN_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        match upkeep.run(clock.now()).await {
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
