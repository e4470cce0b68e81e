//! After a change: caches forget what they knew, and residents follow.
//!
//! Role: the second half of every change of a plan, a subscription, a key or a token, on each node; the
//! first is the store's, and the router tells every node. A change is in the store before this file hears
//! of it, so a subscription that is not in memory needs nothing: it reads the change when it is loaded.
//! One that is being loaded may have read what was there before, so it is waited for and then told like a
//! resident.
//!
//! What nobody told of is found in the audit log ([`trail`]).
//!
//! The work goes on when the caller goes away or its time is up: a plan may have more residents than
//! one request has time for.

pub mod trail;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use weir_core::terms::Terms;
use weir_core::units::{PlanId, Seq, SubscriptionId};
use weir_store::{Error, Loaded, Store};

use crate::catalog::{Catalog, PlanLookupError};
use crate::codec::peers::Change;
use crate::metrics::chain;
use crate::shard::Shards;

/// Subscriptions read at once. More: one answer of the store grows large. Fewer: the round trips
/// dominate a change that a hundred thousand residents follow.
const BATCH_MAX: usize = 256;
/// Actors told at once. More: their replies crowd out decisions. Fewer: one busy actor holds up the
/// rest.
const TOLD_AT_ONCE: usize = 16;
/// How long the answer to a change waits for its followers. More: near the request time-out. Fewer:
/// "at once" is not yet true when the caller goes on.
pub const WAIT_MAX: Duration = Duration::from_secs(5);
/// What of this node follows.
#[derive(Clone, Debug)]
pub struct Follow {
    /// Caches.
    pub catalog: Arc<Catalog>,
    /// Residents.
    pub shards: Shards,
    /// Where the change is.
    pub store: Arc<dyn Store>,
}

impl Follow {
    /// Something was changed, by this node or another.
    pub async fn changed(&self, change: Change) {
        self.forget(&change);
        let follow = self.clone();
        let following = tokio::spawn(async move { follow.followed(&change).await });
        if tokio::time::timeout(WAIT_MAX, following).await.is_err() {
            tracing::info!("a change is made and answered; residents are still following it");
        }
    }

    fn forget(&self, change: &Change) {
        match change {
            Change::Plan(plan) => self.catalog.forget_plan(*plan),
            Change::Subscription(id) => self.catalog.forget_subscription(*id),
            Change::Key(hash) => self.catalog.forget_key(hash),
            Change::Token(hash) => self.catalog.forget_token(hash),
        }
    }

    async fn followed(&self, change: &Change) {
        let ids = match change {
            Change::Plan(plan) => self.behind(*plan).await,
            Change::Subscription(id) => vec![*id],
            Change::Key(_) | Change::Token(_) => return,
        };
        if let Err(error) = self.redefine(&ids).await {
            // The audit log has it, and is read until it is followed.
            tracing::warn!(error = %chain(&error), "residents do not follow a change yet");
        }
    }

    /// Those that a plan's newest version has not reached: of a hundred thousand, all or nearly none.
    async fn behind(&self, plan: PlanId) -> Vec<SubscriptionId> {
        let newest = self.catalog.newest_plan(plan).await.map(|plan| plan.version);
        // In this order: what has stopped starting by now is found among the residents.
        let mut ids = self.shards.starting().await;
        ids.extend(self.shards.on_plan_behind(plan, newest.unwrap_or(u32::MAX)));
        ids
    }

    async fn redefine(&self, ids: &[SubscriptionId]) -> Result<(), Error> {
        for batch in ids.chunks(BATCH_MAX) {
            self.redefine_batch(batch).await?;
        }
        Ok(())
    }

    async fn redefine_batch(&self, ids: &[SubscriptionId]) -> Result<(), Error> {
        let (catalog, shards) = (&self.catalog, &self.shards);
        let running: HashMap<SubscriptionId, Arc<Terms>> = stream::iter(ids.iter().copied())
            .map(|id| async move {
                let terms = shards.resident_terms(id, catalog.shard_of(id)).await;
                terms.map(|terms| (id, terms))
            })
            .buffer_unordered(TOLD_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        if running.is_empty() {
            return Ok(());
        }
        // Their ledgers are not wanted: no row lies after the last position.
        let wanted: Vec<_> =
            running.keys().map(|&id| (id, catalog.shard_of(id), Seq(u64::MAX))).collect();
        let loaded = self.store.load(&wanted).await?;
        let running = &running;
        let told: Vec<Result<(), Error>> = stream::iter(loaded)
            .map(|loaded| async move { self.tell(&loaded, running).await })
            .buffer_unordered(TOLD_AT_ONCE)
            .collect()
            .await;
        told.into_iter().collect()
    }

    async fn tell(
        &self,
        loaded: &Loaded,
        running: &HashMap<SubscriptionId, Arc<Terms>>,
    ) -> Result<(), Error> {
        let row = &loaded.subscription;
        // A version means something only for the plan that it is of.
        let version = running
            .get(&row.id)
            .filter(|terms| terms.plan.id == row.plan)
            .map(|terms| terms.plan.version);
        let newest = u32::try_from(loaded.plan_version).unwrap_or_default();
        match self.catalog.define(row, newest, version).await {
            Ok(definition) => {
                self.shards.define(row.id, definition).await;
                Ok(())
            }
            Err(PlanLookupError::Store(error)) => Err(error),
            Err(error) => {
                tracing::error!(subscription = %row.id, error = %chain(&error), "a resident keeps its terms");
                Ok(())
            }
        }
    }
}
