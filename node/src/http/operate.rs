//! `/livez`, `/readyz`, `/metrics`: for whoever keeps the node running.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;

/// Answers while the process serves. Never touches the store.
#[utoipa::path(get, path = "/livez", tag = "operate",
    responses((status = 200, body = String, content_type = "application/json")))]
pub async fn livez() -> Response {
    let mut response = r#"{"status":"ok"}"#.into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Whether traffic should be sent here.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    status: &'static str,
    /// The store is away: checks are answered from memory, events are refused.
    degraded: bool,
    store: &'static str,
    node: String,
    version: &'static str,
}

/// Answers 200 while the node serves, store or no store, and 503 once it is about to end.
#[utoipa::path(get, path = "/readyz", tag = "operate",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, JsonAnswer<Readiness>) {
    let (code, status) = if api.leaving.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ready")
    };
    let readiness = Readiness {
        status,
        degraded: !api.health.is_up(),
        store: api.store.engine(),
        node: api.node_id.to_str().unwrap_or_default().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
    };
    (code, JsonAnswer(readiness))
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operate",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let count = |number: usize| u32::try_from(number).map_or(f64::MAX, f64::from);
    let text = api.metrics.render(&[
        ("weir_resident_subscriptions", count(api.router.shards().resident())),
        ("weir_recorder_queued_rows", count(api.recorder.queued_rows())),
        ("weir_checkpoint_queued_subscriptions", count(api.checkpointer.queued())),
        (
            "weir_analytics_rows_behind",
            count(usize::try_from(api.analytics.rows_behind()).unwrap_or(usize::MAX)),
        ),
        ("weir_store_up", if api.health.is_up() { 1.0 } else { 0.0 }),
    ]);
    let mut response = text.into_response();
    let prometheus = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, prometheus);
    response
}
