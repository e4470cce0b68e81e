//! An HTTP client for tests: every answer in full, every request bounded in time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Shorter than any time after which a node of a test closes an idle connection.
const POOL_IDLE: Duration = Duration::from_millis(500);
/// Longer than any time-out of a node, so that a node that hangs is found out.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one node with one token.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    token: Option<String>,
}

/// An answer in full.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Http {
    /// A client without a token.
    pub fn new(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new())
            // A connection that the server may be about to close is not used again.
            .pool_idle_timeout(POOL_IDLE)
            .build(HttpConnector::new());
        Self { client, address, token: None }
    }

    /// The same client as somebody else.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Where it asks.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A request to fill in.
    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Sends; an error means that no answer came.
    pub async fn try_send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let request = request.body(Full::new(body.into())).context("the request is well-formed")?;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.context("no answer in time")?
    }

    /// Sends.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let told = format!("{:?} {:?}", request.method_ref(), request.uri_ref());
        self.try_send(request, body).await.unwrap_or_else(|error| panic!("{told}: {error:#}"))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path), Bytes::new()).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path), Bytes::new()).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json(Method::POST, path, body).await
    }

    /// Any method with a JSON body.
    pub async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.post_bytes(method, path, "application/json", body.to_string()).await
    }

    /// Any method with any body.
    pub async fn post_bytes(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send(self.request(method, path).header(CONTENT_TYPE, content_type), body).await
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts the status and returns the body.
    ///
    /// # Panics
    /// When the status is another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts that this is a problem document as the contract wants it, and returns its body.
    ///
    /// # Panics
    /// When it is not, or another.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{problem}");
        assert!(!self.header("x-request-id").is_empty(), "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        assert_eq!(problem["title"].as_str(), title, "{problem}");
        for member in ["type", "detail", "instance"] {
            let told = problem[member].as_str().is_some_and(|text| !text.is_empty());
            assert!(told, "no {member}: {problem}");
        }
        problem
    }
}

/// Writes these pieces to a fresh connection, one after the other, and reads what comes until the
/// other side closes or `patience` ends. Returns what came and whether it was closed.
pub async fn raw_exchange(
    address: SocketAddr,
    pieces: &[&[u8]],
    patience: Duration,
) -> (String, bool) {
    let mut socket = TcpStream::connect(address).await.expect("the node takes connections");
    for piece in pieces {
        // The other side may have had enough.
        if socket.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut received = Vec::new();
    let closed = tokio::time::timeout(patience, socket.read_to_end(&mut received)).await;
    (String::from_utf8_lossy(&received).into_owned(), closed.is_ok())
}
