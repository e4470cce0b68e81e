//! The socket: hyper under axum, with what axum's own server leaves open — a time for the headers to
//! arrive, a bound on connections, an orderly end.
//!
//! The outermost layer lives here as one plain function rather than a stack of layers, because it runs
//! on every request: it names the request, catches a panic, and writes the name into the answer. For the
//! same reason a check goes straight to its handler: the way through the router costs as much as deciding
//! (ARCHITECTURE.md, *Decisions*).

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::header::{ALLOW, CONNECTION};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use uuid::Uuid;
#[cfg(target_os = "linux")]
use weir_config::limits;

use super::problem::Problem;
use super::{Api, quota};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A client's own request id is kept when it is no longer than this.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Pause after a failed accept, so that a process out of sockets does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sizes and times of the socket.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// From a connection's first byte to the end of a request's headers.
    pub header_read_timeout: Duration,
    /// Bytes of a request's line and headers.
    pub head_bytes_max: usize,
    /// Connections open at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How long open requests may go on after the end was asked for.
    pub drain_timeout: Duration,
}

/// Who answers.
#[derive(Clone, Debug)]
pub struct Front {
    api: Arc<Api>,
    router: Router,
}

impl Front {
    /// Every route.
    pub fn new(api: Arc<Api>) -> Self {
        let router = super::router(api.clone());
        Self { api, router }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response, Infallible> {
        if quota::is_check(&request) {
            let (parts, _) = request.into_parts();
            return Ok(quota::answer(&self.api, &parts).await.into_response());
        }
        self.router.oneshot(request.map(Body::new)).await
    }
}

/// Serves until `stop`, then lets open requests end.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    limits: ServeLimits,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                // A token of its own: every turn of a connection looks at it under its lock, which
                // connections on other threads need not share.
                let stop = stop.child_token();
                let connection = serve_connection(socket, front.clone(), limits, stop);
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "requests were cut off at the end");
    }
}

async fn serve_connection(
    socket: TcpStream,
    front: Front,
    limits: ServeLimits,
    stop: CancellationToken,
) {
    // Answers are small: waiting to fill a segment would only add latency.
    let _ = socket.set_nodelay(true);
    bound_stalls(&socket);
    let service = service_fn(move |request| respond(front.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A client that reads nothing does not hold its connection for ever.
fn bound_stalls(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    {
        // Where the kernel refuses, the bound on connections remains.
        let _ = SockRef::from(socket).set_tcp_user_timeout(Some(limits::SOCKET_STALL_TIMEOUT));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

async fn respond(front: Front, request: Request<Incoming>) -> Result<Response, Infallible> {
    let id = request_id(&request);
    let leaving = front.api.leaving.load(Ordering::Relaxed);
    let answering = AssertUnwindSafe(front.answer(request)).catch_unwind();
    let mut response = match answering.await {
        Ok(Ok(response)) => response,
        Err(_) => {
            tracing::error!(request = ?id, "a handler panicked");
            let detail = "this request met a defect; others go on";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
                .respond(id.to_str().ok())
        }
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        response = named(response, &id);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    if leaving {
        // Its next request goes to another node, instead of meeting a connection that closes.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Gives a problem its `instance`, and the framework's own bare refusals the shape of a problem.
fn named(mut response: Response, id: &HeaderValue) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let mut answer = problem.respond(id.to_str().ok());
        // The router's own word on a 405: which methods there are (RFC 9110, 15.5.6).
        if let Some(methods) = response.headers_mut().remove(ALLOW) {
            answer.headers_mut().insert(ALLOW, methods);
        }
        return answer;
    }
    let is_problem = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json");
    if is_problem {
        return response;
    }
    let status = response.status();
    let code = match status {
        StatusCode::REQUEST_TIMEOUT => "request_timeout",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_encoding",
        StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
        status if status.is_server_error() => "internal",
        _ => "bad_request",
    };
    let detail = status.canonical_reason().unwrap_or("the request was refused");
    Problem::new(status, code, detail).respond(id.to_str().ok())
}

fn request_id(request: &Request<Incoming>) -> HeaderValue {
    let given = request.headers().get(&REQUEST_ID).filter(|value| {
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        !value.is_empty()
            && value.len() <= REQUEST_ID_BYTES_MAX
            && value.to_str().is_ok_and(visible)
    });
    if let Some(given) = given {
        return given.clone();
    }
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
    // Hexadecimal digits and hyphens are a valid header value.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}
