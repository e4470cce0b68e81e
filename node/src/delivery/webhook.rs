//! Sends one webhook: one request on a connection of its own, bounded in time and in what is read.
//!
//! Role: HTTP/1.1 over a socket that leads to an address that was checked ([`guard`]). There is no
//! client library between: one that follows redirects, keeps connections by name, or asks the
//! environment for a proxy would each be a way round the check.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use uuid::Uuid;
use weir_config::{Networks, SigningKey, limits};

use super::attempt::Failed;
use super::guard::{self, Refusal};
use super::signature::signatures;
use crate::metrics::chain;

const AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// What every webhook of a node shares.
pub(super) struct WebhookSender {
    tls: TlsConnector,
    keys: Vec<SigningKey>,
    allowed: Networks,
    timeout: Duration,
}

/// What is sent.
pub(super) struct Webhook<'w> {
    pub(super) url: &'w str,
    pub(super) id: Uuid,
    /// Moment of the attempt, Unix seconds.
    pub(super) seconds: i64,
    pub(super) body: String,
}

impl WebhookSender {
    /// `keys`: the newest first; without any nothing is sent. `roots`: whom receivers' certificates
    /// must be signed by.
    pub(super) fn new(
        keys: Vec<SigningKey>,
        allowed: Networks,
        timeout: Duration,
        roots: RootCertStore,
    ) -> Result<Self, rustls::Error> {
        // Named, because more than one library of algorithms is linked into the program.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), keys, allowed, timeout })
    }

    /// Sends it once. 2xx is success; a redirect is not followed and is none.
    pub(super) async fn send(&self, webhook: Webhook<'_>) -> Result<(), Failed> {
        if self.keys.is_empty() {
            return Err(Failed::for_good("`delivery.webhook_secret` is not set"));
        }
        let target = Target::parse(webhook.url)
            .ok_or_else(|| Failed::for_good("the webhook's URL is none"))?;
        let sending = self.exchange(&target, webhook);
        let answer = tokio::time::timeout(self.timeout, sending).await;
        let (status, headers) =
            answer.map_err(|_| Failed::for_now("no answer within `delivery.timeout`"))??;
        judge(status, &headers)
    }

    async fn exchange(
        &self,
        target: &Target,
        webhook: Webhook<'_>,
    ) -> Result<(StatusCode, HeaderMap), Failed> {
        let stream = self.connect(target).await?;
        let request = self.request(target, webhook)?;
        if target.is_https {
            let name = ServerName::try_from(target.host.clone())
                .map_err(|_| Failed::for_good("the URL's host is no name for a certificate"))?;
            let stream =
                self.tls.connect(name, stream).await.map_err(|error| failed("TLS", &error))?;
            answer_to(stream, request).await
        } else {
            answer_to(stream, request).await
        }
    }

    /// Tries the checked addresses one after the other, within the time of the attempt.
    async fn connect(&self, target: &Target) -> Result<TcpStream, Failed> {
        let found = guard::checked_addresses(&target.host, target.port, &self.allowed).await;
        let addresses = found.map_err(|refusal| match refusal {
            Refusal::NotPublic(_) => Failed::for_good(refusal.to_string()),
            _ => failed("DNS", &refusal),
        })?;
        let mut failure = Failed::for_now("no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A small request in one piece; without it nothing is lost but time.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = failed("connect", &error),
            }
        }
        Err(failure)
    }

    fn request(
        &self,
        target: &Target,
        webhook: Webhook<'_>,
    ) -> Result<Request<Full<Bytes>>, Failed> {
        let id = webhook.id.to_string();
        let signature = signatures(&self.keys, &id, webhook.seconds, webhook.body.as_bytes());
        Request::builder()
            .method(Method::POST)
            .uri(&target.path)
            .header(HOST, &target.authority)
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .header("webhook-id", id)
            .header("webhook-timestamp", webhook.seconds)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(webhook.body)))
            .map_err(|error| Failed::for_good(format!("no request can be made: {error}")))
    }
}

/// Sends and waits for the head of the answer. Its body is not read: the connection goes.
async fn answer_to(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, HeaderMap), Failed> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(limits::WEBHOOK_ANSWER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed("HTTP", &error))?;
    let mut exchange = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        // Its end ends the exchange, one way or the other: an answer may have come with it.
        _ = connection => exchange.await,
    };
    let head = answer.map_err(|error| failed("HTTP", &error))?.into_parts().0;
    Ok((head.status, head.headers))
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Result<(), Failed> {
    if status.is_success() {
        return Ok(());
    }
    let reason = format!("the receiver answered {}", status.as_u16());
    // Standard Webhooks: who answers 410 wants no more of them.
    let failed = if status == StatusCode::GONE {
        Failed::for_good(reason)
    } else if status.is_redirection() {
        Failed::for_now(format!("{reason}; redirects are not followed"))
    } else {
        Failed::for_now(reason)
    };
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err(Failed { retry_after: seconds.map(Duration::from_secs), ..failed })
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failed {
    Failed::for_now(format!("{what}: {}", chain(error)))
}

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    is_https: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As in the `Host` header.
    authority: String,
    /// With the query.
    path: String,
}

impl Target {
    /// `None` when it is no http or https URL, or one with a user name or password.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let is_https = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok()?,
            None if is_https => 443,
            None => 80,
        };
        (!host.is_empty()).then(|| Self {
            is_https,
            host: host.to_ascii_lowercase(),
            port,
            authority: authority.as_str().to_ascii_lowercase(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// What all URLs to the same server share.
    pub(super) fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests;
