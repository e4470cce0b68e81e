//! A receiver of webhooks on loopback: answers as the story wants, and keeps what it was sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::eventually;

/// Longest wait for what must arrive. A loaded machine is slow, and pauses of a node add up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a receiver answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// With a redirect to there.
    Redirect(String),
    /// With 200, once there is a permit.
    Held(Arc<Semaphore>),
    /// Never.
    Silence,
}

/// A webhook as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Path and query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Received {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a webhook's body is JSON")
    }

    /// A header.
    ///
    /// # Panics
    /// When it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("a header of text")
    }

    /// Its `webhook-id`.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The `threshold` in its data.
    pub fn threshold(&self) -> u64 {
        self.json()["data"]["threshold"].as_u64().unwrap_or_default()
    }

    /// Whether a receiver who knows this secret believes it, by the library that receivers use.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let receiver = standardwebhooks::Webhook::new(secret).expect("a secret");
        receiver.verify(&self.body, &self.headers).is_ok()
    }
}

/// A receiver; it is gone with this value.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    accepting: AbortHandle,
}

impl Receiver {
    /// Answers every webhook with 200.
    pub async fn start() -> Self {
        Self::answering(|_| Reply::Status(200)).await
    }

    /// Answers the webhook of this number, from 0, in this way.
    pub async fn answering(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let reply: Arc<dyn Fn(usize) -> Reply + Send + Sync> = Arc::new(reply);
        let accepting = tokio::spawn(accept(listener, received.clone(), reply)).abort_handle();
        Self { address, received, accepting }
    }

    /// Where webhooks are to be sent.
    pub fn url(&self) -> String {
        format!("http://{}/hook?customer=7", self.address)
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What came so far, in the order in which it came.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.received).clone()
    }

    /// Waits until so many have come, and returns all.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually("webhooks", PATIENCE, || async {
            let received = self.received();
            let came = received.len();
            if came >= count { Ok(received) } else { Err(format!("{came} of {count}")) }
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    received: Arc<Mutex<Vec<Received>>>,
    reply: Arc<dyn Fn(usize) -> Reply + Send + Sync>,
) {
    // Connections end with the listener.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (received, reply) = (received.clone(), reply.clone());
        let answer = service_fn(move |request| answer(request, received.clone(), reply.clone()));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), answer);
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    received: Arc<Mutex<Vec<Received>>>,
    reply: Arc<dyn Fn(usize) -> Reply + Send + Sync>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A sender that goes away half way has sent nothing.
    let Ok(body) = body.collect().await else { return Ok(Response::default()) };
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let number = {
        let mut received = lock(&received);
        received.push(Received { path, headers: head.headers, body: body.to_bytes() });
        received.len() - 1
    };
    let answer = match reply(number) {
        Reply::Status(status) => Response::builder().status(status),
        Reply::Redirect(to) => Response::builder().status(302).header(LOCATION, to),
        Reply::Held(permits) => {
            permits.acquire().await.expect("it is never closed").forget();
            Response::builder()
        }
        Reply::Silence => std::future::pending().await,
    };
    Ok(answer.body(Empty::new()).expect("a well-formed answer"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
