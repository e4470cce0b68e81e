//! From a key to a decision: key → subscription → shard → its owner.
//!
//! Role: the one place that knows where a subscription is answered. What is served here is answered
//! here, at no more than a look at the shard's [`Service`](crate::ownership::Service); everything else is
//! asked of its owner, once that is known. A shard that moves is waited for. With one node every shard
//! is here. Callers: `http`.

mod changes;
mod places;
mod records;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use uuid::Uuid;
use weir_core::meter::{Check, Decision, Reason};
use weir_core::units::{ShardId, SubscriptionId};
use weir_store::Error;

use crate::catalog::{Catalog, KeyLookup, Known, PlanLookupError};
use crate::cluster::{NoReply, Peers};
use crate::codec::peers::{Ask, Reply, Standing};
use crate::follow::Follow;
use crate::metrics::Metrics;
use crate::outcome::Undecided;
use crate::ownership::Ownership;
use crate::recorder::Recorder;
use crate::shard::{Shards, UsageView};
use places::{Place, Search};

/// How long a peer may take to decide. More: a caller waits for a node that has stopped. Less: a check
/// that waits for a commit at its owner fails.
const PEER_DECIDES_WITHIN: Duration = Duration::from_secs(2);

/// Routes requests to the owner of their subscription.
#[derive(Clone, Debug)]
pub struct Router {
    catalog: Arc<Catalog>,
    shards: Shards,
    recorder: Arc<Recorder>,
    ownership: Arc<Ownership>,
    metrics: Arc<Metrics>,
    follow: Follow,
    peers: Option<Peers>,
}

/// What a router leads to.
#[derive(Debug)]
pub struct RouterParts {
    /// Keys, subscriptions and plans.
    pub catalog: Arc<Catalog>,
    /// The actors of this node.
    pub shards: Shards,
    /// The ledger's writers of this node.
    pub recorder: Arc<Recorder>,
    /// What this node serves.
    pub ownership: Arc<Ownership>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Changes, on this node.
    pub follow: Follow,
    /// Other nodes, in a cluster.
    pub peers: Option<Peers>,
}

/// Answer to a check.
#[derive(Debug)]
pub enum Verdict {
    /// The subscription's meter decided.
    Decided(Decided),
    /// There is no meter to ask.
    Refused(Reason),
}

/// A decision, and whose it is.
#[derive(Debug)]
pub struct Decided {
    /// About whom.
    pub id: SubscriptionId,
    /// What.
    pub decision: Box<Decision>,
    /// The node that decided, when it was another.
    pub owner: Option<HeaderValue>,
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
    /// No node serves the subscription now.
    #[error("no node serves the subscription now")]
    NoOwner,
    /// The owner was asked and did not answer: it may have decided.
    #[error("the owner did not answer in time")]
    NoAnswer,
}

impl Router {
    /// A router over this node's shards and its peers.
    pub fn new(parts: RouterParts) -> Self {
        let RouterParts { catalog, shards, recorder, ownership, metrics, follow, peers } = parts;
        Self { catalog, shards, recorder, ownership, metrics, follow, peers }
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
            // The one that decided counts.
            Ok(Verdict::Decided(Decided { owner: Some(_), .. })) => {}
            Ok(Verdict::Decided(Decided { decision, .. })) => self.metrics.decided(decision),
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
        let here = if self.ownership.serves(shard) {
            self.shards.check(id, shard, &check).await
        } else {
            Err(Undecided::NotHere)
        };
        let decided = match here {
            Ok(decision) => Ok((decision, None)),
            // Boxed, so that the answer that is given here does not carry the room of the other.
            Err(Undecided::NotHere) => Box::pin(self.check_elsewhere(id, shard, check)).await,
            Err(error) => Err(error.into()),
        };
        match decided {
            Ok((decision, owner)) => {
                Ok(Verdict::Decided(Decided { id, decision: Box::new(decision), owner }))
            }
            // Deleted between look-up and load.
            Err(RouteError::Undecided(Undecided::NotFound)) => {
                Ok(Verdict::Refused(Reason::UnknownKey))
            }
            Err(error) => Err(error),
        }
    }

    async fn check_elsewhere(
        &self,
        id: SubscriptionId,
        shard: ShardId,
        check: Check,
    ) -> Result<(Decision, Option<HeaderValue>), RouteError> {
        // A repeat of it gets the same answer, so it may be asked again.
        let is_safe = check.request_id.is_some() || check.asks_for_nothing();
        let ask = Ask::Check { subscription: id, check: check.clone() };
        let mut search = Search::begin(self, shard);
        loop {
            match search.next().await? {
                Place::Here => match self.shards.check(id, shard, &check).await {
                    Err(Undecided::NotHere) => {}
                    decided => return Ok((decided?, None)),
                },
                Place::There(peers, boot) => {
                    match peers.ask(boot, &ask, PEER_DECIDES_WITHIN).await {
                        Ok(Reply::Decided(standing)) => {
                            let decision = self.with_plan(standing).await?;
                            return Ok((decision, Some(peers.name(boot))));
                        }
                        Ok(Reply::NotHere(owner)) => search.not_there(boot, owner),
                        Ok(Reply::Undecided(reason)) => return Err(reason.into()),
                        Err(NoReply::NotSent) => search.not_reached()?,
                        Err(NoReply::Unknown) if is_safe => search.not_reached()?,
                        Ok(_) | Err(NoReply::Unknown) => return Err(RouteError::NoAnswer),
                    }
                }
            }
        }
    }

    /// Where a subscription stands.
    pub async fn usage(&self, id: SubscriptionId) -> Result<UsageView, RouteError> {
        let shard = self.catalog.shard_of(id);
        let mut search = Search::begin(self, shard);
        loop {
            match search.next().await? {
                Place::Here => match self.shards.usage(id, shard).await {
                    Err(Undecided::NotHere) => {}
                    view => return Ok(view?),
                },
                Place::There(peers, boot) => {
                    let ask = Ask::Usage { subscription: id };
                    match peers.ask(boot, &ask, PEER_DECIDES_WITHIN).await {
                        Ok(Reply::Used { standing, at }) => {
                            let decision = self.with_plan(standing).await?;
                            return Ok(UsageView { decision, at });
                        }
                        Ok(Reply::NotHere(owner)) => search.not_there(boot, owner),
                        Ok(Reply::Undecided(reason)) => return Err(reason.into()),
                        Ok(_) => return Err(RouteError::NoAnswer),
                        Err(_) => search.not_reached()?,
                    }
                }
            }
        }
    }

    /// The plan of another node's decision, by which it names its numbers.
    async fn with_plan(&self, standing: Standing) -> Result<Decision, RouteError> {
        match self.catalog.plan(standing.plan, standing.plan_version).await {
            Ok(plan) => Ok(standing.into_decision(plan)),
            Err(PlanLookupError::Store(error)) => Err(error.into()),
            Err(error) => {
                tracing::error!(error = %crate::metrics::chain(&error), "a peer's plan is not here");
                Err(RouteError::NoAnswer)
            }
        }
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
