//! From a key to a decision: key → subscription → shard → its owner.
//!
//! Role: the one place that knows where a subscription is answered. With one node every shard is
//! here. Callers: `http`.

use std::sync::Arc;

use uuid::Uuid;
use weir_core::meter::{Check, Decision, Reason};
use weir_core::units::SubscriptionId;
use weir_store::Error;

use crate::catalog::{Catalog, KeyLookup, Known};
use crate::metrics::Metrics;
use crate::shard::{Shards, Undecided, UsageView};

/// Routes requests to the owner of their subscription.
#[derive(Clone, Debug)]
pub struct Router {
    catalog: Arc<Catalog>,
    shards: Shards,
    metrics: Arc<Metrics>,
}

/// Answer to a check.
#[derive(Debug)]
pub enum Verdict {
    /// The subscription's meter decided.
    Decided(SubscriptionId, Box<Decision>),
    /// There is no meter to ask.
    Refused(Reason),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The owner could not decide.
    #[error("no decision could be made")]
    Undecided(#[from] Undecided),
    /// The key could not be looked up.
    #[error("the key could not be looked up")]
    Store(#[from] Error),
}

impl Router {
    /// A router over this node's shards.
    pub const fn new(catalog: Arc<Catalog>, shards: Shards, metrics: Arc<Metrics>) -> Self {
        Self { catalog, shards, metrics }
    }

    /// Keys, subscriptions and plans.
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The actors.
    pub const fn shards(&self) -> &Shards {
        &self.shards
    }

    /// May the holder of this key pass? `sees` says whether the caller may ask for it at all; one
    /// that may not gets the answer for a key that nobody has.
    pub async fn check(
        &self,
        key: &str,
        check: Check,
        sees: impl Fn(&Known) -> bool,
        sees_all: bool,
    ) -> Result<Verdict, RouteError> {
        let verdict = self.decide(key, check, sees, sees_all).await;
        match &verdict {
            Ok(Verdict::Decided(_, decision)) => self.metrics.decided(decision),
            Ok(Verdict::Refused(reason)) => {
                self.metrics.decided_as(weir_core::meter::Mode::Enforced, *reason);
            }
            Err(_) => self.metrics.check_failed(),
        }
        verdict
    }

    async fn decide(
        &self,
        key: &str,
        check: Check,
        sees: impl Fn(&Known) -> bool,
        sees_all: bool,
    ) -> Result<Verdict, RouteError> {
        let (id, revoked) = match self.catalog.find_key(key).await? {
            KeyLookup::Unknown => return Ok(Verdict::Refused(Reason::UnknownKey)),
            KeyLookup::Revoked { subscription, .. } => (subscription, true),
            KeyLookup::Good { subscription, .. } => (subscription, false),
        };
        if !sees_all {
            let known = self.catalog.find_subscription(id).await?;
            // The same for another tenant's key as for nobody's, good or not.
            if !known.is_some_and(|known| sees(&known)) {
                return Ok(Verdict::Refused(Reason::UnknownKey));
            }
        }
        if revoked {
            return Ok(Verdict::Refused(Reason::KeyRevoked));
        }
        let shard = self.catalog.shard_of(id);
        match self.shards.check(id, shard, &check).await {
            Ok(decision) => Ok(Verdict::Decided(id, Box::new(decision))),
            // Deleted between look-up and load.
            Err(Undecided::NotFound) => Ok(Verdict::Refused(Reason::UnknownKey)),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a subscription stands.
    pub async fn usage(&self, id: SubscriptionId) -> Result<UsageView, Undecided> {
        self.shards.usage(id, self.catalog.shard_of(id)).await
    }

    /// The subscription and the key of an event.
    pub async fn subscription_of_key(
        &self,
        key: &str,
    ) -> Result<Option<(Uuid, Arc<Known>)>, Error> {
        match self.catalog.find_key(key).await? {
            // A revoked key's requests were made while it was good: they are charged.
            KeyLookup::Good { key, subscription } | KeyLookup::Revoked { key, subscription } => {
                let known = self.catalog.find_subscription(subscription).await?;
                Ok(known.map(|known| (key, known)))
            }
            KeyLookup::Unknown => Ok(None),
        }
    }
}
