//! What a transport is started with, and why it may not start.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;
use weir_config::Secret;

use crate::metrics::Metrics;

/// How a transport is started.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// This node's name.
    pub node_id: String,
    /// This boot.
    pub incarnation: Uuid,
    /// Where peers are listened for; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What peers must know too.
    pub secret: Secret,
    /// Mutual TLS; without it only loopback is served, unless `insecure_plaintext` is set.
    pub tls: Option<TlsOptions>,
    /// Allows plaintext between machines. Whoever can read the network then reads the traffic, and
    /// whoever can change it can change usage; the secret is still never sent.
    pub insecure_plaintext: bool,
    /// Figures.
    pub metrics: Arc<Metrics>,
}

/// This node's certificate and the authority that signs every node's, as PEM.
#[derive(Clone)]
pub struct TlsOptions {
    /// Certificates of the authority.
    pub authority_pem: Vec<u8>,
    /// This node's chain, its own certificate first. Its subject alternative names have the node's
    /// name or the host it is dialled at.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").finish_non_exhaustive()
    }
}

/// Why a transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Peers on other machines would talk in the clear.
    #[error("the cluster address {0} is no loopback and there is no TLS")]
    Plaintext(SocketAddr),
    /// The address is taken, or is none of ours.
    #[error("the cluster address {address} cannot be bound")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The PEM cannot be read, or holds no certificate or no key.
    #[error("{what} cannot be read as PEM")]
    Pem {
        /// Which text.
        what: &'static str,
        /// The parser's error.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate, key and authority do not make a TLS configuration.
    #[error("the cluster's TLS cannot be set up")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The actors that carry frames did not start.
    #[error("the carrier of frames did not start")]
    Carrier(#[source] Box<dyn std::error::Error + Send + Sync>),
}
