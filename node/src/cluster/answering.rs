//! What peers ask of this node.
//!
//! Role: the other end of [`Peers`](super::Peers). Answers for the shards that are served here, and says
//! who serves the others. It passes a question on only to the peer that it is for, when the one that asks
//! has no link to it; what it is in is not looked at.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use uuid::Uuid;
use weir_config::limits::PEER_WINDOW_MESSAGES;
use weir_core::units::ShardId;
use weir_store::rows::LedgerRow;

use super::membership::Membership;
use super::table::Table;
use super::transport::{PeerError, PeerHandler, PeerTransport};
use crate::codec::peers::{Ask, Reply, Standing, Tell, decode_ask, decode_tell, encode_reply};
use crate::follow::Follow;
use crate::metrics::{Metrics, chain};
use crate::outcome::{RecordError, Undecided};
use crate::ownership::Ownership;
use crate::recorder::Recorder;

/// Answers peers.
pub struct Answering {
    /// The ledger's writers.
    pub recorder: Arc<Recorder>,
    /// What is served.
    pub ownership: Arc<Ownership>,
    /// Who serves the rest.
    pub table: Arc<Table>,
    /// Changes, and the catalogue and actors that follow them.
    pub follow: Follow,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Set once it runs; whoever tells before that will tell again, or is seen at the next look.
    pub membership: Arc<OnceLock<Membership>>,
    /// The way to other peers, set once there is one. Weak: it holds this.
    pub transport: Arc<OnceLock<Weak<dyn PeerTransport>>>,
    /// Questions that are being passed on.
    pub passing: Semaphore,
}

/// Questions that are passed on at once. More: a peer that has just stopped takes the places of those
/// that this node answers. Fewer: a link that is cut carries less by way of it.
pub const PASSING_MAX: usize = PEER_WINDOW_MESSAGES / 4;

#[async_trait]
impl PeerHandler for Answering {
    async fn handle(&self, _from: Uuid, body: Vec<u8>) -> Vec<u8> {
        let reply = match decode_ask(&body) {
            Ok(ask) => self.answer(ask).await,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "a peer's question cannot be read");
                Reply::Unreadable
            }
        };
        encode_reply(&reply)
    }

    async fn told(&self, _from: Uuid, body: Vec<u8>) {
        match decode_tell(&body) {
            Ok(Tell::Owners(owners)) => {
                if let Some(membership) = self.membership.get() {
                    membership.told(owners).await;
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "what a peer tells cannot be read");
            }
        }
    }
}

impl Answering {
    async fn answer(&self, ask: Ask) -> Reply {
        match ask {
            Ask::Check { subscription, check } => {
                let shard = self.follow.catalog.shard_of(subscription);
                if !self.ownership.awaited(shard, || self.table.owner(shard)).await {
                    return self.not_here(shard);
                }
                match self.follow.shards.check(subscription, shard, &check).await {
                    Ok(decision) => {
                        self.metrics.decided(&decision);
                        Reply::Decided(Standing::of(&decision))
                    }
                    Err(Undecided::NotHere) => self.not_here(shard),
                    Err(reason) => Reply::Undecided(reason),
                }
            }
            Ask::Usage { subscription } => {
                let shard = self.follow.catalog.shard_of(subscription);
                if !self.ownership.awaited(shard, || self.table.owner(shard)).await {
                    return self.not_here(shard);
                }
                match self.follow.shards.usage(subscription, shard).await {
                    Ok(view) => Reply::Used { standing: Standing::of(&view.decision), at: view.at },
                    Err(Undecided::NotHere) => self.not_here(shard),
                    Err(reason) => Reply::Undecided(reason),
                }
            }
            Ask::Record { rows } => self.record(rows).await,
            Ask::Changed(change) => {
                self.follow.changed(change).await;
                Reply::Done
            }
            Ask::Pass { to, within, body } => self.pass(to, within, body).await,
        }
    }

    async fn pass(&self, to: Uuid, within: Duration, body: Vec<u8>) -> Reply {
        let Some(transport) = self.transport.get().and_then(Weak::upgrade) else {
            return Reply::NotPassed;
        };
        // Into silence nothing is passed: it would only hold the asker's places here, which its questions
        // for this node need.
        let is_well = transport.link(to).is_some_and(|link| link.connected && !link.suspect);
        let Some(place) = self.passing.try_acquire().ok().filter(|_| is_well) else {
            return Reply::NotPassed;
        };
        let passed = transport.request(to, body, within).await;
        drop(place);
        match passed {
            Ok(answer) => Reply::Passed(answer),
            Err(PeerError::NotSent) => Reply::NotPassed,
            Err(PeerError::Unknown) => Reply::NoAnswer,
        }
    }

    async fn record(&self, rows: Vec<LedgerRow>) -> Reply {
        let mut shards: Vec<ShardId> = rows.iter().map(|row| row.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        for &shard in &shards {
            if !self.ownership.awaited(shard, || self.table.owner(shard)).await {
                return self.not_here(shard);
            }
        }
        match self.recorder.record(rows).await {
            Ok(recorded) => Reply::Recorded(recorded),
            Err(RecordError::NotHere) => Reply::NotHere(None),
            Err(error) => Reply::NotRecorded(error),
        }
    }

    fn not_here(&self, shard: ShardId) -> Reply {
        Reply::NotHere(self.table.owner(shard).filter(|boot| *boot != self.table.me()))
    }
}
