//! Messages between nodes: requests with an answer, and messages without.
//!
//! ```text
//!   caller ─▶ PeerTransport ─▶ link (window, batch) ─▶ carrier (ractor_cluster) ─▶ our socket ─▶ peer
//!   handler ◀─ PeerHandler ◀── link by its number ◀─── PeerLink actor ◀─────────── our socket ◀─ peer
//! ```
//! Invariants: at most one link a peer, and none before both ends proved the cluster's secret; what
//! waits for a peer is bounded (INV-6), whatever the peer does; a request that was refused with
//! [`PeerError::NotSent`] was never seen by the peer; a malformed frame is counted and dropped.
//! Callers: membership sets the peers, the router and the moves ask and tell. Nothing here knows what
//! a body means.

mod carrier;
mod handshake;
mod link;
mod node;
mod options;
mod outbox;
mod roster;
mod socket;
mod tls;

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

pub use handshake::seal;
pub use node::start;
pub use options::{TlsOptions, TransportError, TransportOptions};

/// Where a peer is; `incarnation` is new at every boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its name, which survives a restart.
    pub node_id: String,
    /// This boot of it.
    pub incarnation: Uuid,
    /// Where it listens for peers, as `host:port`.
    pub cluster: String,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Certainly not delivered: there is no link, the window is full or the body is too large.
    #[error("the request was not sent to the peer")]
    NotSent,
    /// It was sent, and no answer came in time, the link broke or the handler failed: the peer may
    /// or may not have done it.
    #[error("the peer did not answer")]
    Unknown,
}

/// A link as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// The peer's boot.
    pub incarnation: Uuid,
    /// Whether frames pass.
    pub connected: bool,
    /// Connected, and no pong came for [`weir_config::limits::PEER_SUSPECT_AFTER`].
    pub suspect: bool,
    /// Of the last ping that was answered.
    pub round_trip: Option<Duration>,
}

/// Reaches peers by their incarnation. Dropping it closes every link.
#[async_trait]
pub trait PeerTransport: Send + Sync + 'static {
    /// Who should be connected; a loop makes it so. Called at every change of membership. Whoever is
    /// no longer named is disconnected.
    fn set_peers(&self, peers: Vec<PeerAddress>);

    /// Sends and waits for the answer, at most for `deadline`.
    ///
    /// # Errors
    /// [`PeerError`] says whether the peer may have seen it.
    async fn request(
        &self,
        to: Uuid,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, PeerError>;

    /// Sends and does not wait; false when it certainly was not sent.
    fn tell(&self, to: Uuid, body: Vec<u8>) -> bool;

    /// The link to a peer, when there is one.
    fn link(&self, to: Uuid) -> Option<LinkView>;

    /// Every peer that should be linked or is, in order of incarnation.
    fn links(&self) -> Vec<LinkView>;
}

/// What a peer's messages are given to.
#[async_trait]
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers a request of a peer that is authenticated. Called concurrently, at most
    /// [`weir_config::limits::PEER_WINDOW_MESSAGES`] times a peer. When it panics, or its answer is
    /// too large, the peer gets [`PeerError::Unknown`] at once.
    async fn handle(&self, from: Uuid, body: Vec<u8>) -> Vec<u8>;

    /// A message that wants no answer. One at a time for each peer, in the order they were told.
    async fn told(&self, from: Uuid, body: Vec<u8>);
}
