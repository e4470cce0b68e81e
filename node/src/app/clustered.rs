//! A node of a cluster: listens for peers, joins, and lets membership decide what it serves.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::Config;
use weir_core::ownership::Settings;
use weir_core::units::Span;
use weir_store::Store;
use weir_store::rows::NodeRow;

use super::rooms::Rooms;
use super::{StartError, lease_ms, refused};
use crate::cluster::transport::{
    self, PeerTransport, TlsOptions, TransportError, TransportOptions,
};
use crate::cluster::{Answering, Membership, PASSING_MAX, Parts, Peers, Table};
use crate::metrics::chain;

/// Shards on their way to other nodes at once. More: a move waits for the writes of the others. Fewer: a
/// node takes longer to join or leave.
const MOVES_MAX: usize = 8;
/// How long a node that begins waits for the links to its peers. More: one whose network is cut begins
/// late. Less: it is asked for what it cannot reach yet.
const LINK_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks.
const LINK_WAIT: Duration = Duration::from_millis(20);
/// Time for requests of peers that are under way when everything was given away.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// What a node needs to become one of a cluster.
pub(super) struct Joining<'a> {
    pub(super) config: &'a Config,
    pub(super) peers_at: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) rooms: &'a Rooms,
    pub(super) stop: CancellationToken,
}

/// A node's part in its cluster.
pub(super) struct Clustered {
    /// Where peers reach it.
    pub(super) address: SocketAddr,
    pub(super) peers: Peers,
    membership: Membership,
    store: Arc<dyn Store>,
    /// Held until the node ends: dropping it closes every link.
    _transport: Arc<dyn PeerTransport>,
}

impl Joining<'_> {
    /// Joins, and waits until every shard has an owner, or for as long as a dead node's may take.
    pub(super) async fn join(self) -> Result<Clustered, StartError> {
        let (config, rooms) = (self.config, self.rooms);
        let incarnation = rooms.ownership.incarnation();
        let table = Arc::new(Table::new(incarnation, rooms.ownership.len()));
        let membership: Arc<OnceLock<Membership>> = Arc::default();
        let passing: Arc<OnceLock<Weak<dyn PeerTransport>>> = Arc::default();
        let answering = Answering {
            recorder: rooms.recorder.clone(),
            ownership: rooms.ownership.clone(),
            table: table.clone(),
            follow: rooms.follow.clone(),
            metrics: rooms.metrics.clone(),
            membership: membership.clone(),
            transport: passing.clone(),
            passing: Semaphore::new(PASSING_MAX),
        };
        let options = self.transport_options(incarnation)?;
        let seal = transport::seal(&options.secret);
        let (transport, address) = transport::start(options, Arc::new(answering)).await?;
        // Set once, here.
        let _ = passing.set(Arc::downgrade(&transport));
        let asked_at = rooms.clock.now();
        rooms
            .store
            .join(&self.row(incarnation, address, seal), lease_ms(config))
            .await
            .map_err(refused)?;
        let parts = Parts {
            store: rooms.store.clone(),
            ownership: rooms.ownership.clone(),
            shards: rooms.follow.shards.clone(),
            transport: transport.clone(),
            table: table.clone(),
            clock: rooms.clock.clone(),
            health: rooms.health.clone(),
            lease_ms: lease_ms(config),
            settings: settings(config),
            lost: rooms.lost.clone(),
        };
        let running = Membership::start(parts, asked_at, self.stop);
        // Set once, here.
        let _ = membership.set(running.clone());
        let patience = config.cluster.lease * 2 + Duration::from_secs(2);
        if !running.wait(patience, |progress| progress.settled).await {
            tracing::warn!("not every shard has an owner yet; requests for those are refused");
        }
        let linked = tokio::time::timeout(LINK_PATIENCE, all_linked(&*transport)).await;
        if linked.is_err() {
            tracing::warn!("not every peer is linked yet; requests for what they own are refused");
        }
        Ok(Clustered {
            address,
            peers: Peers::new(table, transport.clone(), rooms.metrics.clone()),
            membership: running,
            store: rooms.store.clone(),
            _transport: transport,
        })
    }

    fn transport_options(&self, incarnation: Uuid) -> Result<TransportOptions, StartError> {
        let config = self.config;
        let cluster = &config.cluster;
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|source| StartError::File { path: path.to_owned(), source })
        };
        let files = (&cluster.tls_authority, &cluster.tls_certificate, &cluster.tls_key);
        let tls = match files {
            (Some(authority), Some(certificate), Some(key)) => Some(TlsOptions {
                authority_pem: read(authority)?,
                certificate_pem: read(certificate)?,
                key_pem: read(key)?,
            }),
            _ => None,
        };
        // The configuration was checked: a cluster has a secret.
        let secret = config.cluster_secret.clone().ok_or(StartError::NoSecret)?;
        Ok(TransportOptions {
            node_id: config.node_id.as_str().to_owned(),
            incarnation,
            listen: self.peers_at,
            secret,
            tls,
            insecure_plaintext: cluster.insecure_plaintext,
            metrics: self.rooms.metrics.clone(),
        })
    }

    fn row(&self, incarnation: Uuid, bound: SocketAddr, seal: String) -> NodeRow {
        let advertised = self.config.cluster_advertise.as_ref().map(ToString::to_string);
        let host =
            advertised.as_deref().and_then(|text| text.rsplit_once(':')).map(|(host, _)| host);
        let http = match host {
            // Every interface is no address: the one that peers dial is also good for HTTP.
            Some(host) if self.http.ip().is_unspecified() => format!("{host}:{}", self.http.port()),
            _ => self.http.to_string(),
        };
        NodeRow {
            id: self.config.node_id.as_str().to_owned(),
            incarnation,
            http,
            cluster: advertised.unwrap_or_else(|| bound.to_string()),
            seal,
        }
    }
}

impl Clustered {
    /// Gives everything away, if there is anybody to take it; at most for `patience`.
    pub(super) async fn give_away(&self, patience: Duration) {
        // Nobody gives this boot anything from now on; a later boot of the same name is not meant.
        if let Err(error) = self.store.drain_boot(self.peers.me()).await {
            tracing::warn!(error = %chain(&error), "the others do not know that this node leaves");
        }
        self.membership.drain().await;
        // What was given just before is seen by a look that began after: by the second from now.
        let looks = self.membership.looks() + 2;
        let done =
            self.membership.wait(patience, |is| (is.empty && is.looks >= looks) || !is.heirs).await;
        if !done {
            tracing::warn!("not every shard was given away in time; the others take the rest");
        }
    }

    /// Lets what peers still ask be answered.
    pub(super) async fn last_answers(&self) {
        tokio::time::sleep(LAST_ANSWERS).await;
    }
}

fn settings(config: &Config) -> Settings {
    let every = config.cluster.lease_renew;
    Settings {
        lease: Span::from(config.cluster.lease),
        renew_every: Span::from(every),
        look_every: Span::from(every),
        settle: Span::from(2 * every),
        moves_max: MOVES_MAX,
        propose: weir_config::placement::propose,
    }
}

/// Waits until whoever should be linked is.
async fn all_linked(transport: &dyn PeerTransport) {
    while !transport.links().iter().all(|link| link.connected) {
        tokio::time::sleep(LINK_WAIT).await;
    }
}

impl From<TransportError> for StartError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}
