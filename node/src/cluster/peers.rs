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

use super::detour::Detours;
use super::table::Table;
use super::transport::{PeerError, PeerTransport};
use crate::codec::peers::{Ask, Change, Reply, decode_reply, encode_ask};
use crate::metrics::Metrics;

/// Peers, and where things are.
#[derive(Clone)]
pub struct Peers {
    table: Arc<Table>,
    transport: Arc<dyn PeerTransport>,
    detours: Arc<Detours>,
    metrics: Arc<Metrics>,
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
    pub fn new(
        table: Arc<Table>,
        transport: Arc<dyn PeerTransport>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { table, transport, detours: Arc::default(), metrics }
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
    pub fn name(&self, boot: Uuid) -> HeaderValue {
        self.table.name(boot)
    }

    /// Asks one node and waits for its answer, at most for `deadline`; when only the link to it is down,
    /// by way of another node.
    ///
    /// # Errors
    /// [`NoReply`] when there is none.
    pub async fn ask(&self, to: Uuid, ask: &Ask, deadline: Duration) -> Result<Reply, NoReply> {
        // A link that is suspect swallows what it is given, for as long as its peer is silent.
        if self.transport.link(to).is_some_and(|link| link.suspect) {
            match self.ask_round(to, ask, deadline).await {
                Err(NoReply::NotSent) => {}
                answered => return answered,
            }
        }
        match self.ask_straight(to, ask, deadline).await {
            Err(NoReply::NotSent) => self.ask_round(to, ask, deadline).await,
            answered => answered,
        }
    }

    async fn ask_straight(
        &self,
        to: Uuid,
        ask: &Ask,
        deadline: Duration,
    ) -> Result<Reply, NoReply> {
        let answered = self.transport.request(to, encode_ask(ask), deadline).await;
        let body = answered.map_err(|error| match error {
            PeerError::NotSent => NoReply::NotSent,
            PeerError::Unknown => NoReply::Unknown,
        })?;
        read(&body)
    }

    async fn ask_round(&self, to: Uuid, ask: &Ask, deadline: Duration) -> Result<Reply, NoReply> {
        let ways = self.detours.to(to, &self.transport.links());
        if ways.is_empty() {
            return Err(NoReply::NotSent);
        }
        // Whoever passes on gives up first, so that it can say so.
        let pass = Ask::Pass { to, within: deadline * 9 / 10, body: encode_ask(ask) };
        for way in ways {
            match self.ask_straight(way, &pass, deadline).await {
                Ok(Reply::Passed(body)) => {
                    self.metrics.peers().went_round();
                    return read(&body);
                }
                // One that is older does not know how to pass on, and has not.
                Ok(Reply::NotPassed | Reply::Unreadable) | Err(NoReply::NotSent) => {}
                Ok(_) | Err(NoReply::Unknown) => return Err(NoReply::Unknown),
            }
        }
        self.detours.close(to);
        Err(NoReply::NotSent)
    }

    /// Tells every node of a change and waits until those that are linked have followed it. The others
    /// find it in the audit log.
    pub async fn tell_change(&self, change: &Change, patience: Duration) {
        let ask = Ask::Changed(*change);
        let peers = self.table.peers();
        let telling = peers.iter().map(|peer| self.ask(peer.boot, &ask, patience));
        let missed = join_all(telling).await.into_iter().filter(Result::is_err).count();
        if missed > 0 {
            tracing::info!(missed, "peers will find a change in the audit log");
        }
    }
}

fn read(body: &[u8]) -> Result<Reply, NoReply> {
    decode_reply(body).map_err(|error| {
        tracing::warn!(error = %crate::metrics::chain(&error), "a peer's answer cannot be read");
        NoReply::Unknown
    })
}
