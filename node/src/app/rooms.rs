//! The rooms of a node between the store and the edges, begun in order.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderValue;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::Config;
use weir_core::units::Span;
use weir_store::Store;

use super::{StartError, alone, lease_ms};
use crate::analytics::Analytics;
use crate::billing::{Billing, BillingParts, LEASE_FOR};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::cluster::Peers;
use crate::follow::Follow;
use crate::http::{Api, HttpLimits};
use crate::metrics::Metrics;
use crate::ownership::Ownership;
use crate::recorder::{
    Checkpointer, CheckpointerParts, Health, Recorder, RecorderLimits, SharedApply,
};
use crate::retention::Upkeep;
use crate::router::{Router, RouterParts};
use crate::shard::{ActorLimits, Deps, Shards};

/// How long a check may wait for the escrow's commit: many times a healthy commit, less than a
/// gateway's patience.
const COMMIT_WAIT: Duration = Duration::from_millis(300);
/// The same while the store is at work. More: callers give up first. Less: checks fail on a busy machine,
/// most of all those of shards that have just moved, whose escrow is written anew.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(1);

/// What runs before anybody can ask.
pub(super) struct Rooms {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    pub(super) lost: CancellationToken,
    pub(super) ownership: Arc<Ownership>,
    pub(super) checkpointer: Arc<Checkpointer>,
    pub(super) checkpoints: JoinHandle<()>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) follow: Follow,
}

impl Rooms {
    /// A node with peers owns nothing yet; one that is alone has taken every shard.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        config: &Config,
        has_peers: bool,
        stop_lease: &CancellationToken,
    ) -> Result<Self, StartError> {
        let shard_count = init_shards(&*store, config).await?;
        let clock = Arc::new(Clock::start());
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::default());
        let lost = CancellationToken::new();
        let incarnation = Uuid::now_v7();
        let ownership = if has_peers {
            let ownership = Ownership::none(incarnation, usize::from(shard_count.get()));
            ownership.trust(None);
            Arc::new(ownership)
        } else {
            let states = alone::take_shards(&*store, config, incarnation, shard_count).await?;
            let ownership = Arc::new(Ownership::new(incarnation, &states));
            // Before anything that may take as long as the lease.
            let (health, lost) = (health.clone(), lost.clone());
            let trusting = config.database_url.is_shared().then(|| ownership.clone());
            let lease = alone::Lease {
                store: store.clone(),
                incarnation,
                health,
                lost,
                trusting,
                clock: clock.clone(),
            };
            tokio::spawn(lease.keep(config.clone(), stop_lease.clone()));
            ownership.find_uncounted(&*store, ownership.shards()).await?;
            ownership
        };
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
            limits: actor_limits(config),
        };
        let shards = Shards::start(store.clone(), deps).await.map_err(StartError::Actors)?;
        let recorder = Recorder::start(
            store.clone(),
            ownership.clone(),
            health.clone(),
            metrics.clone(),
            &(Arc::new(shards.clone()) as SharedApply),
            recorder_limits(config),
            lost.clone(),
        );
        let recorder = Arc::new(recorder);
        let follow = Follow { catalog, shards, store: store.clone() };
        Ok(Self {
            store,
            clock,
            metrics,
            health,
            lost,
            ownership,
            checkpointer,
            checkpoints,
            recorder,
            follow,
        })
    }

    /// What handlers work with.
    pub(super) fn api(
        &self,
        config: &Config,
        peers: Option<Peers>,
        stop_jobs: &CancellationToken,
    ) -> Api {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let ownership = self.ownership.clone();
        let node_id = HeaderValue::from_str(config.node_id.as_str());
        Api {
            router: Router::new(RouterParts {
                catalog: self.follow.catalog.clone(),
                shards: self.follow.shards.clone(),
                recorder: self.recorder.clone(),
                ownership: ownership.clone(),
                metrics: self.metrics.clone(),
                follow: self.follow.clone(),
                peers,
            }),
            recorder: self.recorder.clone(),
            checkpointer: self.checkpointer.clone(),
            store: store.clone(),
            billing: self.billing(config),
            upkeep: Upkeep::new(store.clone(), config.ingest.accept_window),
            analytics: Analytics::start(store, ownership, clock.clone(), stop_jobs.clone()),
            clock,
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            leaving: AtomicBool::new(false),
            node_id: node_id.unwrap_or(HeaderValue::from_static("node")),
            limits: http_limits(config),
        }
    }
}

impl Rooms {
    /// Charges and periods; they need no shard, so every node may.
    fn billing(&self, config: &Config) -> Billing {
        Billing::new(BillingParts {
            store: self.store.clone(),
            catalog: self.follow.catalog.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            holder: self.ownership.incarnation(),
            grace: Span::from(config.billing.grace),
            lease: LEASE_FOR,
        })
    }
}

fn actor_limits(config: &Config) -> ActorLimits {
    let actors = &config.actors;
    ActorLimits {
        mailbox_messages_max: u32::try_from(actors.mailbox_messages_max).unwrap_or(u32::MAX),
        commit_wait: COMMIT_WAIT,
        commit_wait_max: COMMIT_WAIT_MAX,
        passivate_after: actors.passivate_after,
        resident_max: actors.resident_max,
    }
}

fn recorder_limits(config: &Config) -> RecorderLimits {
    RecorderLimits {
        lanes: lanes(config),
        append_rows_max: config.recorder.append_rows_max,
        queue_rows_max: config.recorder.queue_rows_max,
        lease_ms: lease_ms(config),
    }
}

/// How many shards there are: fixed when the database was made.
async fn init_shards(store: &dyn Store, config: &Config) -> Result<NonZeroU16, StartError> {
    let wanted = config.cluster.shard_count.get();
    let count = store.init_shards(wanted).await?;
    if count != wanted {
        tracing::warn!(count, wanted, "the shard count was fixed when the database was made");
    }
    NonZeroU16::new(count).ok_or(StartError::Shards { got: 0, wanted: usize::from(wanted) })
}

/// SQLite has one writer; Postgres gains by a second lane that gathers while the first commits.
fn lanes(config: &Config) -> usize {
    if config.database_url.is_shared() { config.recorder.lanes } else { 1 }
}

fn http_limits(config: &Config) -> HttpLimits {
    HttpLimits {
        body_bytes_max: config.server.body_bytes_max,
        body_read_timeout: config.server.body_read_timeout,
        request_timeout: config.server.request_timeout,
        checks_max: config.ingest.batch_checks_max,
        events_max: config.ingest.batch_events_max,
        accept_window: Span::from(config.ingest.accept_window),
    }
}
