//! What peers ask of this node.
//!
//! Role: the other end of [`Peers`](super::Peers). Answers for the shards that are served here, and says
//! who serves the others; it never passes a request on, so that one is passed on at most once.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use uuid::Uuid;
use weir_core::units::ShardId;
use weir_store::rows::LedgerRow;

use super::membership::Membership;
use super::table::Table;
use super::transport::PeerHandler;
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
}

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
