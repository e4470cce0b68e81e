//! Asking another node: typed questions over the transport.
//!
//! Role: turns domain values into bodies and answers back. Says of every failure whether the peer may
//! have acted, because that decides whether the question may be asked again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::HeaderValue;
use uuid::Uuid;
use weir_core::units::ShardId;

use super::table::Table;
use super::transport::{PeerError, PeerTransport};
use crate::codec::peers::{Ask, Change, Reply, decode_reply, encode_ask};

/// Peers, and where things are.
#[derive(Clone)]
pub struct Peers {
    table: Arc<Table>,
    transport: Arc<dyn PeerTransport>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("table", &self.table).finish_non_exhaustive()
    }
}

/// Why a peer gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// It certainly did nothing: ask again, or another.
    NotSent,
    /// It may have done what it was asked for.
    Unknown,
}

impl Peers {
    /// Over a transport.
    pub fn new(table: Arc<Table>, transport: Arc<dyn PeerTransport>) -> Self {
        Self { table, transport }
    }

    /// The boot that owns a shard, as far as is known.
    pub fn owner(&self, shard: ShardId) -> Option<Uuid> {
        self.table.owner(shard)
    }

    /// This boot.
    pub fn me(&self) -> Uuid {
        self.table.me()
    }

    /// The name of a boot.
    pub fn name(&self, boot: Uuid) -> Option<HeaderValue> {
        self.table.name(boot)
    }

    /// Asks one node and waits for its answer, at most for `deadline`.
    ///
    /// # Errors
    /// [`NoReply`] when there is none.
    pub async fn ask(&self, to: Uuid, ask: &Ask, deadline: Duration) -> Result<Reply, NoReply> {
        let answered = self.transport.request(to, encode_ask(ask), deadline).await;
        let body = answered.map_err(|error| match error {
            PeerError::NotSent => NoReply::NotSent,
            PeerError::Unknown => NoReply::Unknown,
        })?;
        decode_reply(&body).map_err(|error| {
            tracing::warn!(error = %crate::metrics::chain(&error), "a peer's answer cannot be read");
            NoReply::Unknown
        })
    }

    /// Tells every node of a change and waits until those that are linked have followed it. The others
    /// doubt what they know when they are linked again.
    pub async fn tell_change(&self, change: &Change, patience: Duration) {
        let ask = Ask::Changed(*change);
        let peers = self.table.peers();
        let telling = peers.iter().map(|peer| self.ask(peer.boot, &ask, patience));
        let missed = join_all(telling).await.into_iter().filter(Result::is_err).count();
        if missed > 0 {
            tracing::info!(missed, "peers hear of a change when they are linked again");
        }
    }
}
