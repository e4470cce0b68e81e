//! The HTTP/1.1 client: one TCP connection a lane, prepared requests, no pool and no lock.
//!
//! A [`Lane`] is owned by one task and has at most one request under way. When its connection breaks
//! it goes on with the next target, waiting a little longer each time, so a node that dies takes
//! down only the requests that were on the wire.
//!
//! ```text
//! idle ──call──► connecting ──► sending ──► answered ─► idle
//!                    │              │
//!                    └── failure ───┴──► broken (next target, back-off) ─► idle
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Error;

/// First wait after a broken connection. Shorter would spin on a dead port.
const RECONNECT_MIN: Duration = Duration::from_millis(10);
/// Longest wait between two tries. Longer would miss the moment a node comes back.
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// One `http://host:port` that answers for Weir.
#[derive(Debug, Clone)]
pub struct Endpoint {
    authority: String,
    host: HeaderValue,
}

impl Endpoint {
    /// Reads `http://host:port` (a path is refused: the contract's paths start at the root).
    pub fn parse(url: &str) -> Result<Self, Error> {
        let uri: Uri =
            url.parse().map_err(|why| Error::usage(format!("`{url}` is not a URL ({why})")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(Error::usage(format!(
                    "`{url}`: the simulator speaks plain HTTP only; point it at a node, not at a TLS proxy"
                )));
            }
            _ => return Err(Error::usage(format!("`{url}` must begin with http://"))),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(Error::usage(format!("`{url}` must be a bare http://host:port")));
        }
        let authority =
            uri.authority().ok_or_else(|| Error::usage(format!("`{url}` names no host")))?;
        if authority.as_str().contains('@') {
            return Err(Error::usage("a target must not contain credentials; use --token"));
        }
        let host = HeaderValue::from_str(authority.as_str())
            .map_err(|_| Error::usage(format!("`{url}` has a host that cannot be sent")))?;
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { authority: format!("{}:{port}", authority.host()), host })
    }

    /// `host:port`, for messages.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

/// Reads the comma-separated `--target`.
pub fn parse_targets(targets: &[String]) -> Result<Arc<[Endpoint]>, Error> {
    let endpoints: Vec<Endpoint> = targets
        .iter()
        .map(|url| url.trim())
        .filter(|url| !url.is_empty())
        .map(Endpoint::parse)
        .collect::<Result<_, _>>()?;
    if endpoints.is_empty() {
        return Err(Error::usage("--target names no address"));
    }
    Ok(endpoints.into())
}

/// The header value for `Authorization`, marked sensitive so that it is never printed.
pub fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::usage("the token contains characters that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request that is built once and sent often.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// HTTP method.
    pub method: Method,
    /// Path and query only.
    pub uri: Uri,
    /// All headers but `Host`, which is the lane's.
    pub headers: HeaderMap,
    /// The body, shared and not copied between tries.
    pub body: Bytes,
}

impl Prepared {
    /// A GET without a body.
    pub fn get(uri: Uri, headers: HeaderMap) -> Self {
        Self { method: Method::GET, uri, headers, body: Bytes::new() }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// `Retry-After` in seconds, when it is given as a number.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection: nothing was sent.
    #[error("connecting failed")]
    Connect(#[source] std::io::Error),
    /// The connection broke; whether the server acted is not known.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The answer took too long; whether the server acted is not known.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl Failure {
    /// True when the server cannot have seen the request.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect(_))
    }
}

/// Says that every target answers again, as a gateway's health check would find out. Without it
/// lanes would stay with the targets that never failed, and one that came back would idle.
#[derive(Debug, Clone, Default)]
pub struct Healed(Arc<AtomicU64>);

impl Healed {
    /// Sends every lane home with its next call.
    pub fn announce(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn times(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One connection at a time to one of the targets.
#[derive(Debug)]
pub struct Lane {
    endpoints: Arc<[Endpoint]>,
    home: usize,
    at: usize,
    /// How often all targets were healed, and how often this lane has gone home for it.
    healed: Option<(Healed, u64)>,
    open: Option<SendRequest<Full<Bytes>>>,
    failures_in_row: u32,
    request_timeout: Duration,
}

impl Lane {
    /// A lane that begins at target number `first` (modulo their count) and connects on first use.
    pub fn new(endpoints: Arc<[Endpoint]>, first: usize, request_timeout: Duration) -> Self {
        let home = first % endpoints.len().max(1);
        Self {
            endpoints,
            home,
            at: home,
            healed: None,
            open: None,
            failures_in_row: 0,
            request_timeout,
        }
    }

    /// Goes back to its first target whenever all are announced healed.
    #[must_use]
    pub fn homing(mut self, healed: Healed) -> Self {
        let seen = healed.times();
        self.healed = Some((healed, seen));
        self
    }

    /// The target in use.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.at]
    }

    /// As [`Self::call`], but a request whose connection could not be made or broke is sent again,
    /// once to each other target. The server may have acted on it: it needs an `Idempotency-Key`.
    /// Also returns how often it was sent again.
    pub async fn call_any(&mut self, request: &Prepared) -> (Result<Answer, Failure>, usize) {
        let mut again = 0;
        loop {
            match self.call(request).await {
                Err(Failure::Connect(_) | Failure::Broken(_))
                    if again + 1 < self.endpoints.len() =>
                {
                    again += 1;
                }
                outcome => return (outcome, again),
            }
        }
    }

    /// Sends one request and reads its whole answer.
    pub async fn call(&mut self, request: &Prepared) -> Result<Answer, Failure> {
        self.go_home();
        if self.failures_in_row > 0 && self.open.is_none() {
            tokio::time::sleep(self.back_off()).await;
        }
        let limit = self.request_timeout;
        let outcome = tokio::time::timeout(limit, self.exchange(request)).await;
        match outcome {
            Ok(Ok(answer)) => {
                self.failures_in_row = 0;
                Ok(answer)
            }
            Ok(Err(failure)) => {
                self.break_off();
                Err(failure)
            }
            Err(_elapsed) => {
                self.break_off();
                Err(Failure::Timeout(limit))
            }
        }
    }

    async fn exchange(&mut self, request: &Prepared) -> Result<Answer, Failure> {
        let mut message = self.message(request);
        // A kept-alive connection may have been closed while idle. hyper gives the message back when
        // it was not written, and only then is a second try free of doubt.
        let mut may_resend = true;
        loop {
            let sender = self.opened().await?;
            match sender.try_send_request(message).await {
                Ok(response) => return read_answer(response).await,
                Err(mut refused) => {
                    self.open = None;
                    match refused.take_message() {
                        Some(unsent) if may_resend => message = unsent,
                        _ => return Err(Failure::Broken(refused.into_error())),
                    }
                }
            }
            may_resend = false;
        }
    }

    fn message(&self, request: &Prepared) -> Request<Full<Bytes>> {
        let mut message = Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = request.uri.clone();
        let mut headers = request.headers.clone();
        headers.insert(HOST, self.endpoint().host.clone());
        *message.headers_mut() = headers;
        message
    }

    async fn opened(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failure> {
        let usable = match self.open.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => connect(self.endpoint()).await?,
        };
        let sender = self.open.insert(usable);
        sender.ready().await.map_err(Failure::Broken)?;
        Ok(sender)
    }

    fn go_home(&mut self) {
        let Some((healed, seen)) = &mut self.healed else { return };
        let times = healed.times();
        if std::mem::replace(seen, times) != times && self.at != self.home {
            self.at = self.home;
            self.open = None;
            self.failures_in_row = 0;
        }
    }

    fn break_off(&mut self) {
        self.open = None;
        self.at = (self.at + 1) % self.endpoints.len();
        self.failures_in_row = self.failures_in_row.saturating_add(1);
    }

    /// Doubles from the minimum, once per full round of the targets: with one target left standing
    /// the first switch to it costs no more than the minimum.
    fn back_off(&self) -> Duration {
        let rounds = self.failures_in_row / u32::try_from(self.endpoints.len()).unwrap_or(1);
        (RECONNECT_MIN * 2_u32.saturating_pow(rounds.min(10))).min(RECONNECT_MAX)
    }
}

async fn connect(endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = TcpStream::connect(endpoint.authority()).await.map_err(Failure::Connect)?;
    stream.set_nodelay(true).map_err(Failure::Connect)?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Broken)?;
    // The driver ends with the connection; what went wrong is told to the waiting request.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn read_answer(response: http::Response<hyper::body::Incoming>) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(Failure::Broken)?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_bare_http_address() {
        for (url, authority) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://weir.local/", "weir.local:80"),
            ("http://[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(Endpoint::parse(url).expect(url).authority(), authority);
        }
        for (url, said) in [
            ("https://weir:1", "plain HTTP"),
            ("127.0.0.1:80", "http://"),
            ("http://weir/api", "bare"),
            ("http://user:pass@weir", "credentials"),
            ("ht tp://", "not a URL"),
        ] {
            let message = Endpoint::parse(url).expect_err(url).to_string();
            assert!(message.contains(said), "{url}: {message}");
        }
    }

    #[test]
    fn a_token_is_not_shown_by_debug() {
        assert_eq!(format!("{:?}", bearer("secret").expect("valid")), "Sensitive");
    }
}
