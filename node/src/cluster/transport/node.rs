//! The transport of one node: the port, the loop that makes links, and the trait round both.
//!
//! ```text
//!   set_peers ─▶ roster ─▶ reconcile loop ─▶ dial ──▶ TLS ─▶ proof ─┐
//!                              accept loop ────────▶ TLS ─▶ proof ─┴─▶ carrier ─▶ link
//! ```
//! The loop compares who should be linked with who is, and acts on nothing else, so a missed event
//! can only delay it. A peer stays busy until its session is gone from the carrier, since a second
//! session of the same peer would be elected by chance.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::limits::{PEER_HANDSHAKE_TIMEOUT, PEER_HANDSHAKES_MAX};

use super::carrier::{self, Carrier, Inbound};
use super::handshake::{self, Binding, Me, Proven, Refused};
use super::link::Link;
use super::roster::{Entry, Roster};
use super::socket::{Carried, PeerSocket, set_options};
use super::tls::{self, Tls};
use super::{
    LinkView, PeerAddress, PeerError, PeerHandler, PeerTransport, TransportError, TransportOptions,
};
use crate::clock::{Clock, Stopwatch};
use crate::codec::frames::decode_frame;
use crate::metrics::{Metrics, PeerRefusal};

/// How often desired and actual links are compared without a reason. An idle node wakes up for it.
const RECONCILE_EVERY: Duration = Duration::from_millis(250);
/// After a failed accept, which means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Starts to listen for peers. Nobody is dialled before [`PeerTransport::set_peers`].
///
/// Returns the transport and the address that was bound. Within a process one transport at a time:
/// the carrier's registries are the process's.
///
/// # Errors
/// [`TransportError`] when peers would talk in the clear against the options, the address cannot be
/// bound, or the PEM is no TLS configuration.
pub async fn start(
    options: TransportOptions,
    handler: Arc<dyn PeerHandler>,
) -> Result<(Arc<dyn PeerTransport>, SocketAddr), TransportError> {
    let clear = options.tls.is_none() && !options.insecure_plaintext;
    if clear && !options.listen.ip().is_loopback() {
        return Err(TransportError::Plaintext(options.listen));
    }
    let tls = options.tls.as_ref().map(Tls::new).transpose()?;
    let bind = |source| TransportError::Bind { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let roster = Arc::new(Mutex::new(Roster::new(options.incarnation)));
    let cookie = carrier::cookie(&handshake::cookie(&options.secret));
    let inbound = inbound(Arc::clone(&roster), Arc::clone(&options.metrics));
    let carrier = Carrier::start(cookie, &options.node_id, options.incarnation, inbound).await?;
    let node = Arc::new(Node {
        options,
        tls,
        handler,
        carrier,
        roster,
        changed: Notify::new(),
        started: Clock::stopwatch(),
        connections: AtomicU64::new(0),
        stop: CancellationToken::new(),
    });
    tokio::spawn(Arc::clone(&node).accept_loop(listener));
    tokio::spawn(Arc::clone(&node).reconcile_loop());
    Ok((Arc::new(Transport(node)), bound))
}

/// Finds the link of each frame.
fn inbound(roster: Arc<Mutex<Roster>>, metrics: Arc<Metrics>) -> Inbound {
    Arc::new(move |bytes| {
        let frame = decode_frame(&bytes);
        if let Ok(frame) = &frame {
            metrics.peers().received(frame.messages.len(), bytes.len());
        }
        let link = frame.as_ref().ok().and_then(|frame| lock(&roster).numbered(frame.link));
        match (link, frame) {
            (Some(link), Ok(frame)) => link.accept(frame),
            // Of a link that is gone, or no frame at all: the sender hears nothing of it.
            (_, frame) => {
                metrics.peers().refused(PeerRefusal::BadFrame);
                if let Err(error) = frame {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a frame is dropped");
                }
            }
        }
    })
}

fn lock(roster: &Mutex<Roster>) -> MutexGuard<'_, Roster> {
    roster.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Node {
    options: TransportOptions,
    tls: Option<Tls>,
    handler: Arc<dyn PeerHandler>,
    carrier: Carrier,
    roster: Arc<Mutex<Roster>>,
    changed: Notify,
    started: Stopwatch,
    /// Numbers the labels of sockets.
    connections: AtomicU64,
    stop: CancellationToken,
}

/// What the rest of the node holds; the tasks hold [`Node`], so that dropping this ends them.
struct Transport(Arc<Node>);

impl Drop for Transport {
    fn drop(&mut self) {
        // Every link's token is a child of this one.
        self.0.stop.cancel();
        self.0.carrier.stop();
    }
}

#[async_trait]
impl PeerTransport for Transport {
    fn set_peers(&self, peers: Vec<PeerAddress>) {
        for link in lock(&self.0.roster).want(peers) {
            link.cut.cancel();
        }
        self.0.changed.notify_one();
    }

    async fn request(
        &self,
        to: Uuid,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, PeerError> {
        let link = lock(&self.0.roster).link(to).ok_or(PeerRefusal::NoLink);
        let outcome = link.and_then(|link| link.request(body)).map_err(|why| self.refuse(why))?;
        match timeout(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(PeerError::Unknown),
        }
    }

    fn tell(&self, to: Uuid, body: Vec<u8>) -> bool {
        let link = lock(&self.0.roster).link(to).ok_or(PeerRefusal::NoLink);
        link.and_then(|link| link.tell(body)).map_err(|why| self.refuse(why)).is_ok()
    }

    fn link(&self, to: Uuid) -> Option<LinkView> {
        lock(&self.0.roster).link(to).map(|link| link.view())
    }

    fn links(&self) -> Vec<LinkView> {
        lock(&self.0.roster).views()
    }
}

impl Transport {
    fn refuse(&self, why: PeerRefusal) -> PeerError {
        self.0.options.metrics.peers().refused(why);
        PeerError::NotSent
    }
}

impl Node {
    async fn reconcile_loop(self: Arc<Self>) {
        let mut every = tokio::time::interval(RECONCILE_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.changed.notified() => {}
                _ = every.tick() => {}
            }
            let overstayed = lock(&self.roster).overstayed();
            for link in overstayed {
                tracing::info!(peer = %link.peer, "membership does not name the peer, the link is cut");
                link.cut.cancel();
            }
            let due = lock(&self.roster).due(self.started.elapsed());
            for peer in due {
                tokio::spawn(Arc::clone(&self).dial(peer));
            }
        }
    }

    async fn dial(self: Arc<Self>, peer: PeerAddress) {
        let incarnation = peer.incarnation;
        let reached = timeout(PEER_HANDSHAKE_TIMEOUT, self.reach(&peer)).await;
        let linked = match reached {
            Ok(Ok((socket, proven))) => self.serve(socket, proven, false).await,
            Ok(Err(refused)) => {
                // Peers that are down are dialled all the time; what is wrong with them is worth a line.
                let error: &dyn std::error::Error = &refused;
                if matches!(refused, Refused::Io(_)) {
                    tracing::debug!(peer = %peer.node_id, address = peer.cluster, error, "not reached");
                } else {
                    tracing::warn!(peer = %peer.node_id, address = peer.cluster, error, "not linked");
                    self.options.metrics.peers().refused(PeerRefusal::Handshake);
                }
                false
            }
            Err(_) => false,
        };
        self.idle(incarnation, !linked);
    }

    async fn reach(&self, peer: &PeerAddress) -> Result<(PeerSocket, Proven), Refused> {
        let stream = TcpStream::connect(&peer.cluster).await?;
        set_options(&stream)?;
        self.check_clear(&stream)?;
        let host = peer.cluster.rsplit_once(':').map_or(peer.cluster.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (mut socket, binding) = match &self.tls {
            None => (PeerSocket::Plain(stream), Binding::default()),
            Some(tls) => {
                let stream = tls.connect(stream, host).await?;
                if !tls::has_name(&stream, &[&peer.node_id, host]) {
                    return Err(Refused::Name);
                }
                let binding = tls::binding(&stream).map_err(std::io::Error::other)?;
                (PeerSocket::Tls(Box::new(stream)), binding)
            }
        };
        let proven = handshake::dial(&mut socket, self.me(), peer.incarnation, &binding).await?;
        if proven.node_id == peer.node_id {
            Ok((socket, proven))
        } else {
            Err(Refused::SomebodyElse)
        }
    }

    fn me(&self) -> Me<'_> {
        Me {
            node_id: &self.options.node_id,
            incarnation: self.options.incarnation,
            secret: &self.options.secret,
        }
    }

    /// Without TLS both ends must be this machine, unless the operator said otherwise.
    fn check_clear(&self, stream: &TcpStream) -> Result<(), Refused> {
        let local =
            stream.local_addr()?.ip().is_loopback() && stream.peer_addr()?.ip().is_loopback();
        let allowed = self.tls.is_some() || self.options.insecure_plaintext || local;
        if allowed { Ok(()) } else { Err(Refused::Plaintext) }
    }

    async fn accept_loop(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(PEER_HANDSHAKES_MAX));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, from)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
                self.options.metrics.peers().refused(PeerRefusal::HandshakesFull);
                continue;
            };
            let node = Arc::clone(&self);
            tokio::spawn(async move {
                let proven = timeout(PEER_HANDSHAKE_TIMEOUT, node.prove(stream)).await;
                drop(permit);
                match proven {
                    Ok(Ok((socket, proven))) => {
                        let incarnation = proven.incarnation;
                        let linked = node.serve(socket, proven, true).await;
                        node.idle(incarnation, !linked);
                    }
                    Ok(Err(refused)) => {
                        node.options.metrics.peers().refused(PeerRefusal::Handshake);
                        let error: &dyn std::error::Error = &refused;
                        tracing::debug!(%from, error, "a connection to the cluster port is refused");
                    }
                    Err(_) => node.options.metrics.peers().refused(PeerRefusal::Handshake),
                }
            });
        }
    }

    /// Lets a connection prove itself; its peer is busy when it did.
    async fn prove(&self, stream: TcpStream) -> Result<(PeerSocket, Proven), Refused> {
        set_options(&stream)?;
        self.check_clear(&stream)?;
        let (mut socket, binding) = match &self.tls {
            None => (PeerSocket::Plain(stream), Binding::default()),
            Some(tls) => {
                let stream = tls.accept(stream).await?;
                let binding = tls::binding(&stream).map_err(std::io::Error::other)?;
                (PeerSocket::Tls(Box::new(stream)), binding)
            }
        };
        let proven = handshake::accept(&mut socket, self.me(), &binding).await?;
        if let PeerSocket::Tls(stream) = &socket {
            // Where membership says that it is; unnamed, it must at least be the node it claims.
            let known = lock(&self.roster).address(proven.incarnation).cloned();
            let cluster = known.map(|known| known.cluster).unwrap_or_default();
            let host = cluster.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            if !tls::has_name(stream, &[&proven.node_id, host]) {
                return Err(Refused::Name);
            }
        }
        let entry = lock(&self.roster).let_in(proven.incarnation, &proven.node_id);
        match entry {
            Entry::Yes => Ok((socket, proven)),
            Entry::No => Err(Refused::NotLetIn),
            Entry::AfterLink(old) => {
                // It dials because its end is gone; ours must go before it can come in. It tries again.
                if let Some(old) = old {
                    old.cut.cancel();
                }
                Err(Refused::LinkedAlready)
            }
        }
    }

    /// Serves a link as long as it lasts; false when it never came up.
    async fn serve(&self, socket: PeerSocket, proven: Proven, accepted: bool) -> bool {
        let cut = self.stop.child_token();
        let link = Link::new(
            proven.incarnation,
            proven.link,
            cut.clone(),
            Arc::clone(&self.handler),
            Arc::clone(&self.options.metrics),
        );
        // Before the carrier has it: the peer may be ready first, and its frames must find the link.
        lock(&self.roster).add(Arc::clone(&link));
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let label = format!("{}#{number}", proven.incarnation);
        let carried = Carried { socket, label, cut };
        let joined = self.carrier.join(proven.incarnation, carried, accepted).await;
        let linked = joined.is_some();
        if let Some(remote) = joined {
            let (peer, node) = (proven.incarnation, proven.node_id.as_str());
            tracing::info!(%peer, node, "peer linked");
            link.pump(&remote).await;
            link.close();
            // Until then the peer stays busy.
            let gone = timeout(PEER_HANDSHAKE_TIMEOUT, remote.gone()).await;
            tracing::info!(%peer, node, clean = gone.is_ok(), "peer unlinked");
        }
        link.close();
        lock(&self.roster).remove(&link);
        linked
    }

    fn idle(&self, incarnation: Uuid, failed: bool) {
        let now = self.started.elapsed();
        lock(&self.roster).idle(incarnation, failed, now, rand::random());
        self.changed.notify_one();
    }
}
