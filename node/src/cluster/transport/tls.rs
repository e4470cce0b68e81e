//! Mutual TLS 1.3 between nodes: the cluster's own authority, and names that must fit.
//!
//! A certificate is taken when the authority signed it and one of its subject alternative names is
//! the peer's node id or the host that membership says it is dialled at. The library checks one name
//! and we allow two, so the chain is checked in the handshake and the names right after it, before
//! the secret is proven, with the same function on both ends.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::handshake::Binding;
use super::{TlsOptions, TransportError};

const EXPORTER_LABEL: &[u8] = b"EXPORTER-weir-peer-v1";

/// Every algorithm comes from one library, named here: more than one is linked into the program, and
/// then there is no default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Both ends' configuration.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// Reads the PEM.
    pub(super) fn new(options: &TlsOptions) -> Result<Self, TransportError> {
        let other = |source: Error| TransportError::Tls(Box::new(source));
        let chain = certificates("the node's certificate", &options.certificate_pem)?;
        let key = PrivateKeyDer::from_pem_slice(&options.key_pem)
            .map_err(|source| TransportError::Pem { what: "the node's key", source })?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates("the authority's certificate", &options.authority_pem)? {
            roots.add(certificate).map_err(other)?;
        }
        let roots = Arc::new(roots);
        let verifier = |source| TransportError::Tls(Box::new(source));
        let peers = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(verifier)?;
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(other)?
            .with_client_cert_verifier(peers)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(other)?;
        let chain_only = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(verifier)?;
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ChainOnly(chain_only)))
            .with_client_auth_cert(chain, key)
            .map_err(other)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// TLS as the one who was dialled.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        Ok(TlsStream::Server(self.acceptor.accept(stream).await?))
    }

    /// TLS as the one who dialled. The name is sent to the peer and not relied on.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        Ok(TlsStream::Client(self.connector.connect(name, stream).await?))
    }
}

/// Whether the peer's certificate has one of these names.
pub(super) fn has_name(stream: &TlsStream<TcpStream>, names: &[&str]) -> bool {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let parsed = certificate.and_then(|one| ParsedCertificate::try_from(one).ok());
    let fits = |parsed: &ParsedCertificate<'_>, name: &&str| {
        ServerName::try_from(*name).is_ok_and(|name| verify_server_name(parsed, &name).is_ok())
    };
    parsed.is_some_and(|parsed| names.iter().any(|name| fits(&parsed, name)))
}

/// What only the two ends of this session know.
pub(super) fn binding(stream: &TlsStream<TcpStream>) -> Result<Binding, Error> {
    let material = Binding::default();
    match stream {
        TlsStream::Client(stream) => {
            stream.get_ref().1.export_keying_material(material, EXPORTER_LABEL, None)
        }
        TlsStream::Server(stream) => {
            stream.get_ref().1.export_keying_material(material, EXPORTER_LABEL, None)
        }
    }
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let failed = |source| TransportError::Pem { what, source };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(failed(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// Checks the chain, the times and the signatures, and leaves the name to [`has_name`].
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // Comes last: whatever else is wrong is found before.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
