//! The HTTP edge.
//!
//! Role: reads requests into domain values, asks the router, the recorder or the store, writes
//! answers. No rule lives here. One file a resource; each documents its own part of `/openapi.json`.
//! Only `app` starts it.

mod audit;
mod auth;
mod body;
mod charges;
mod cluster;
mod decision;
mod events;
pub mod ingest;
mod jobs;
mod moment;
mod notifications;
mod operate;
mod page;
mod parameters;
mod periods;
mod plan_preview;
mod plans;
mod problem;
mod quota;
mod reach;
mod reads;
mod reservations;
mod serve;
mod subscriptions;
mod text;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router as AxumRouter;
use axum::response::IntoResponse;
use http::StatusCode;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;
use weir_core::units::Span;
use weir_store::Store;

use crate::analytics::Analytics;
use crate::billing::Billing;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::recorder::{Checkpointer, Health, Recorder};
use crate::retention::Upkeep;
use crate::router::Router;
pub use serve::{Front, ServeLimits, serve};

/// Sizes and times of this room.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Bytes of a body, after decompression too.
    pub body_bytes_max: usize,
    /// Time for a body to arrive.
    pub body_read_timeout: Duration,
    /// Time for a request to be answered.
    pub request_timeout: Duration,
    /// Checks in one request.
    pub checks_max: usize,
    /// Events in one request.
    pub events_max: usize,
    /// How old an event may be.
    pub accept_window: Span,
}

/// What handlers work with.
pub struct Api {
    /// Decisions.
    pub router: Router,
    /// The ledger's writers of this node, for figures only.
    pub recorder: Arc<Recorder>,
    /// Counters' writers, for figures only.
    pub checkpointer: Arc<Checkpointer>,
    /// Catalogue and reads.
    pub store: Arc<dyn Store>,
    /// Sums over time.
    pub analytics: Analytics,
    /// Charges and periods.
    pub billing: Billing,
    /// What is older than needed goes.
    pub upkeep: Upkeep,
    /// Time.
    pub clock: Arc<Clock>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Whether the store answers.
    pub health: Arc<Health>,
    /// It gives everything away and will end: send traffic elsewhere.
    pub leaving: AtomicBool,
    /// This node's name, told with every decision.
    pub node_id: http::HeaderValue,
    /// Sizes and times.
    pub limits: HttpLimits,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Weir", description = "Distributed metering: quotas, rate limits, usage."),
    modifiers(&Bearer),
    components(schemas(problem::ProblemBody, problem::FieldError))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        if let Some(components) = document.components.as_mut() {
            components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
        }
    }
}

/// Every route, and the document that describes them.
fn router(api: Arc<Api>) -> AxumRouter {
    let limits = api.limits;
    let timeout =
        TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limits.request_timeout);
    // The parts of a check that wait are bounded by themselves, so the most frequent request needs
    // no timer of its own.
    let checks = OpenApiRouter::new().routes(routes!(quota::check, quota::check_batch));
    let ingest = OpenApiRouter::new()
        .routes(routes!(events::record))
        .layer(RequestDecompressionLayer::new())
        .layer(timeout);
    let rest = OpenApiRouter::new()
        .routes(routes!(reservations::commit))
        .routes(routes!(reservations::release))
        .routes(routes!(operate::livez))
        .routes(routes!(operate::readyz))
        .routes(routes!(operate::metrics))
        .merge(plans::routes())
        .merge(plan_preview::routes())
        .merge(periods::routes())
        .merge(subscriptions::routes())
        .merge(tokens::routes())
        .merge(audit::routes())
        .merge(notifications::routes())
        .merge(charges::routes())
        .merge(jobs::routes())
        .merge(cluster::routes())
        .merge(reads::routes())
        .layer(timeout);
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(checks)
        .merge(ingest)
        .merge(rest)
        .split_for_parts();
    router
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

async fn no_such_path() -> impl IntoResponse {
    problem::Problem::not_found("path")
}

async fn no_such_method() -> impl IntoResponse {
    let detail = "this path does not answer to this method";
    problem::Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
