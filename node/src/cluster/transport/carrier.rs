//! The only file that knows `ractor_cluster`: it carries frames, as casts, and nothing else.
//!
//! One remotable actor a node, in one process group; a peer is found in that group by its session.
//! What the library does not do is done around it: sockets, proof of the secret, liveness, windows
//! and reconnecting are ours. Its own listener cannot be left out, so it is bound to loopback and
//! sealed: no TLS handshake with it ever succeeds. Its registries are the process's, so a process
//! has one carrier.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, pg};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{
    IncomingEncryptionMode, NodeEventSubscription, NodeServer, NodeServerMessage,
    RactorClusterMessage,
};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::limits::{PEER_FRAME_BYTES_MAX, PEER_HANDSHAKE_TIMEOUT};

use super::TransportError;
use super::socket::Carried;
use super::tls;

const GROUP: &str = "weir-peer-links";
/// What the library puts round one of our frames.
const ENVELOPE_BYTES_MAX: u64 = 4 * 1024;
/// Looks for the peer's actor after its session is ready, with a pause between them: the group is
/// joined before, on another task.
const LOOKS_MAX: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What is given every frame that arrives. It must not wait.
pub(super) type Inbound = Arc<dyn Fn(Vec<u8>) + Send + Sync>;

/// The one message between nodes.
#[derive(RactorClusterMessage)]
enum PeerLinkMessage {
    Frame(Vec<u8>),
}

struct PeerLink;

impl Actor for PeerLink {
    type Msg = PeerLinkMessage;
    type State = Inbound;
    type Arguments = Inbound;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        inbound: Inbound,
    ) -> Result<Inbound, ActorProcessingErr> {
        pg::join(GROUP.to_owned(), vec![myself.get_cell()]);
        Ok(inbound)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        PeerLinkMessage::Frame(bytes): Self::Msg,
        inbound: &mut Inbound,
    ) -> Result<(), ActorProcessingErr> {
        // A node must not grow deaf to all its peers by what one of them sent.
        if catch_unwind(AssertUnwindSafe(|| inbound(bytes))).is_err() {
            tracing::error!("a frame of a peer could not be dealt with");
        }
        Ok(())
    }
}

/// Carries frames to and from every peer of this process.
pub(super) struct Carrier {
    server: ActorRef<NodeServerMessage>,
    peer_link: ActorRef<PeerLinkMessage>,
    sessions: Arc<Sessions>,
}

impl Carrier {
    /// Starts the actors.
    ///
    /// `cookie` is what the library's own handshake compares; `name` and `incarnation` make the
    /// node's name, which must be new at every boot: between two sessions of one name the library
    /// elects by chance.
    pub(super) async fn start(
        cookie: String,
        name: &str,
        incarnation: Uuid,
        inbound: Inbound,
    ) -> Result<Self, TransportError> {
        let failed = |source: ractor::SpawnErr| TransportError::Carrier(Box::new(source));
        let (peer_link, _) =
            Actor::spawn(Some(actor_name(incarnation)), PeerLink, inbound).await.map_err(failed)?;
        let server = NodeServer::new(
            0,
            cookie,
            format!("weir-{name}.{incarnation}"),
            // The library takes two nodes of one host and port for the same; this is nobody else's.
            incarnation.simple().to_string(),
            Some(IncomingEncryptionMode::Tls(sealed()?)),
            Some(NodeConnectionMode::Isolated),
        )
        .with_listen_addr(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .with_max_inbound_frame_size(PEER_FRAME_BYTES_MAX as u64 + ENVELOPE_BYTES_MAX);
        let (server, _) = Actor::spawn(None, server, ()).await.map_err(failed)?;
        let sessions = Arc::new(Sessions::default());
        let subscription = Box::new(Events(Arc::clone(&sessions)));
        let subscribe =
            NodeServerMessage::SubscribeToEvents { id: "weir".to_owned(), subscription };
        let carrier = Self { server, peer_link, sessions };
        let sent = carrier.server.cast(subscribe);
        sent.map_err(|source| TransportError::Carrier(source.to_string().into()))?;
        Ok(carrier)
    }

    /// Hands a proven socket over and waits until frames pass; `None` when they do not in time, and
    /// then the socket is cut.
    pub(super) async fn join(&self, peer: Uuid, socket: Carried, accepted: bool) -> Option<Remote> {
        let label = socket.label.clone();
        let cut = socket.cut.clone();
        let (ready, became_ready) = oneshot::channel();
        let gone = CancellationToken::new();
        let session = Session { ready: Some(ready), gone: gone.clone() };
        self.sessions.lock().insert(label.clone(), session);
        let opened = NodeServerMessage::ConnectionOpenedExternal {
            stream: Box::new(socket),
            is_server: accepted,
        };
        let joined = async {
            self.server.cast(opened).ok()?;
            let node_id = became_ready.await.ok()?;
            let actor = find(node_id, &actor_name(peer)).await?;
            Some(Remote { actor, gone: gone.clone() })
        };
        let remote = tokio::time::timeout(PEER_HANDSHAKE_TIMEOUT, joined).await.ok().flatten();
        if remote.is_none() {
            cut.cancel();
            self.sessions.lock().remove(&label);
        }
        remote
    }

    /// Ends the actors, and every session with them.
    pub(super) fn stop(&self) {
        self.server.stop(None);
        self.peer_link.stop(None);
    }
}

/// The peer's end, as long as its session lasts.
#[derive(Clone)]
pub(super) struct Remote {
    actor: ActorRef<PeerLinkMessage>,
    gone: CancellationToken,
}

impl Remote {
    /// Queues a frame; false when the session is gone. That it is true says nothing: the library
    /// drops what it cannot deliver.
    pub(super) fn send(&self, frame: Vec<u8>) -> bool {
        !self.gone.is_cancelled() && self.actor.cast(PeerLinkMessage::Frame(frame)).is_ok()
    }

    /// Ends when the session did.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

/// An actor is named after its node's boot.
fn actor_name(incarnation: Uuid) -> String {
    format!("{GROUP}.{incarnation}")
}

async fn find(session: u64, name: &str) -> Option<ActorRef<PeerLinkMessage>> {
    let is_peers = |cell: &ActorCell| {
        let here = matches!(cell.get_id(), ActorId::Remote { node_id, .. } if node_id == session);
        here && cell.get_name().as_deref() == Some(name)
    };
    for _ in 0..LOOKS_MAX {
        if let Some(cell) = pg::get_members(&GROUP.to_owned()).into_iter().find(&is_peers) {
            return Some(cell.into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    None
}

/// Sessions by the label of their socket, which is the only thing both sides of the library know.
#[derive(Default)]
struct Sessions(Mutex<HashMap<String, Session>>);

struct Session {
    ready: Option<oneshot::Sender<u64>>,
    gone: CancellationToken,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Events(Arc<Sessions>);

impl NodeEventSubscription for Events {
    fn node_session_opened(&self, _: NodeServerSessionInformation) {}

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        let mut sessions = self.0.lock();
        let ready = sessions.get_mut(&session.peer_addr).and_then(|one| one.ready.take());
        if let Some(ready) = ready {
            // Whoever waited may have given up.
            let _ = ready.send(session.node_id);
        }
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        // Dropping `ready` ends a join that still waits.
        if let Some(session) = self.0.lock().remove(&session.peer_addr) {
            session.gone.cancel();
        }
    }
}

/// A TLS configuration that has no certificate for anybody.
fn sealed() -> Result<TlsAcceptor, TransportError> {
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TransportError::Tls(Box::new(source)))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A cookie is text.
pub(super) fn cookie(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    use super::*;

    #[tokio::test]
    async fn the_librarys_own_listener_shakes_no_hands() {
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let sealed = sealed().unwrap();
        let (client, server) = tokio::join!(connector.connect(name, near), sealed.accept(far));
        assert!(server.is_err());
        // It ends before a certificate is shown that the client could dislike.
        let error = client.err().and_then(std::io::Error::into_inner).unwrap();
        let error = error.downcast_ref::<rustls::Error>().unwrap();
        assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error:?}");
    }
}
