//! A node that serves its database alone: it takes every shard, once no other node is alive.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::Config;
use weir_core::units::{ShardId, Span};
use weir_store::rows::NodeRow;
use weir_store::{ShardState, Store};

use super::{StartError, lease_ms, refused};
use crate::clock::Clock;
use crate::metrics::chain;
use crate::ownership::Ownership;
use crate::recorder::Health;

/// Registers this boot and takes every shard, once no other node is alive.
pub(super) async fn take_shards(
    store: &dyn Store,
    config: &Config,
    incarnation: Uuid,
    count: NonZeroU16,
) -> Result<Vec<ShardState>, StartError> {
    let lease_ms = lease_ms(config);
    let node = NodeRow {
        id: config.node_id.as_str().to_owned(),
        incarnation,
        http: config.http.to_string(),
        cluster: config.cluster_listen.map(|address| address.to_string()).unwrap_or_default(),
        seal: String::new(),
    };
    store.join(&node, lease_ms).await.map_err(refused)?;
    wait_for_others(store, config, incarnation, lease_ms).await?;
    let all: Vec<_> = (0..count.get()).map(ShardId).collect();
    store.bury_expired().await?;
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
pub(super) struct Lease {
    pub(super) store: Arc<dyn Store>,
    pub(super) incarnation: Uuid,
    pub(super) health: Arc<Health>,
    pub(super) lost: CancellationToken,
    /// What is trusted as long as the lease is; `None` where nobody else can open the database.
    pub(super) trusting: Option<Arc<Ownership>>,
    pub(super) clock: Arc<Clock>,
}

impl Lease {
    pub(super) async fn keep(self, config: Config, stop: CancellationToken) {
        let lease_ms = lease_ms(&config);
        let every = config.cluster.lease_renew;
        // Less a tenth for what the two clocks may drift and for the way of the answer.
        let trusted_for = Span::from(config.cluster.lease * 9 / 10);
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let asked_at = self.clock.now();
            match self.store.renew(self.incarnation, lease_ms).await {
                Ok(true) => {
                    self.health.set_up(true);
                    if let Some(ownership) = &self.trusting {
                        ownership.trust(Some(asked_at.plus(trusted_for)));
                    }
                }
                Ok(false) => {
                    tracing::error!("this node was replaced by another");
                    return self.lost.cancel();
                }
                Err(error @ weir_store::Error::Rewound { .. }) => {
                    tracing::error!(error = %chain(&error), "this node ends rather than write to it");
                    return self.lost.cancel();
                }
                // Another may be started on this database meanwhile, and reach it.
                Err(error) => {
                    self.health.set_up(!error.is_away());
                    tracing::debug!(error = %chain(&error), "the lease was not renewed");
                }
            }
        }
    }
}
