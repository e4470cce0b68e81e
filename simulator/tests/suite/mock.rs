//! A small faithful Weir: real counters behind the few endpoints that the simulator uses, and a
//! switch for each way a metering service can be wrong, so that the ledger check can be seen to fail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde_json::{Value, json};

pub(crate) const ADMIN: &str = "admin-token";
pub(crate) const GATEWAY: &str = "gateway-token";

/// Ways to be wrong; all off by default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Every n-th event is acknowledged and forgotten.
    pub(crate) lose_every: u64,
    /// Every n-th event is counted twice.
    pub(crate) double_every: u64,
    /// Checks are let through this far beyond the limit.
    pub(crate) over_admit: u64,
    /// The first n batches are answered 503 without being recorded.
    pub(crate) refuse_batches: u64,
    /// The first n batches are recorded and then answered 503, so that they are sent again.
    pub(crate) swallow_answers: u64,
    /// Every n-th event is rejected.
    pub(crate) reject_every: u64,
    /// Event batches are never answered with anything but 503, but are recorded.
    pub(crate) never_acknowledge: bool,
    /// Revoked keys go on working.
    pub(crate) ignore_revocation: bool,
    /// Each reading of a subscription's stats shows what the reading before should have shown.
    pub(crate) stats_lag: bool,
}

#[derive(Debug, Default)]
struct Subscription {
    limit: Option<u64>,
    used: u64,
    pending: u64,
    requests: u64,
    bytes: u64,
    statuses: BTreeMap<String, u64>,
    days: BTreeMap<String, u64>,
    shown: Option<Value>,
}

#[derive(Debug, Default)]
struct World {
    faults: Faults,
    plans: HashMap<String, Option<u64>>,
    subscriptions: HashMap<String, Subscription>,
    keys: HashMap<String, (String, bool)>,
    seen: HashSet<(String, String)>,
    batches: u64,
    events: u64,
    ids: u64,
    paths: HashSet<String>,
}

impl World {
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("00000000-0000-7000-8000-{:012x}", self.ids)
    }
}

type Shared = Arc<Mutex<World>>;

/// A running mock; it ends with the process.
pub(crate) struct Mock {
    pub(crate) url: String,
    world: Shared,
}

impl Mock {
    pub(crate) fn start(faults: Faults) -> Self {
        let world = Arc::new(Mutex::new(World { faults, ..World::default() }));
        let app = router(Arc::clone(&world));
        let (told, address) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self { url: format!("http://{}", address.recv().unwrap()), world }
    }

    /// Subscriptions made.
    pub(crate) fn subscriptions(&self) -> usize {
        lock(&self.world).subscriptions.len()
    }

    /// Requests recorded, over all subscriptions.
    pub(crate) fn requests(&self) -> u64 {
        lock(&self.world).subscriptions.values().map(|one| one.requests).sum()
    }

    /// Paths that events named.
    pub(crate) fn paths(&self) -> HashSet<String> {
        lock(&self.world).paths.clone()
    }
}

fn router(world: Shared) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/api/v1/plans", post(create_plan))
        .route("/api/v1/subscriptions", post(create_subscription))
        .route("/api/v1/subscriptions/{id}/usage", get(usage))
        .route("/api/v1/subscriptions/{id}/keys", post(create_key))
        .route("/api/v1/subscriptions/{id}/keys/{key}", delete(revoke_key))
        .route("/api/v1/quota/check", get(check))
        .route("/api/v1/usage/events", post(events))
        .route("/api/v1/usage/stats", get(stats))
        .route("/api/v1/usage/trends", get(trends))
        .route("/api/v1/usage/summary", get(async || axum::Json(json!({"totals": {}}))))
        .with_state(world)
}

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({"title": "no", "status": status.as_u16(), "detail": detail});
    (status, body.to_string()).into_response()
}

fn refusal(headers: &HeaderMap, scopes: &[&str]) -> Option<Response> {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok());
    match token.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if scopes.contains(&token) => None,
        Some(ADMIN | GATEWAY) => Some(problem(StatusCode::FORBIDDEN, "wrong scope")),
        _ => Some(problem(StatusCode::UNAUTHORIZED, "unknown token")),
    }
}

async fn create_plan(State(world): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN]) {
        return refusal;
    }
    let plan: Value = serde_json::from_slice(&body).unwrap();
    let mut world = lock(&world);
    let id = world.id();
    world.plans.insert(id.clone(), plan["quota"]["limit"].as_u64());
    (StatusCode::CREATED, json!({ "id": id }).to_string()).into_response()
}

async fn create_subscription(
    State(world): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN]) {
        return refusal;
    }
    let wanted: Value = serde_json::from_slice(&body).unwrap();
    let mut world = lock(&world);
    let Some(limit) = world.plans.get(text(&wanted, "planId")).copied() else {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "unknown plan");
    };
    let id = world.id();
    let key = wanted["key"].as_str().map_or_else(|| format!("key-{id}"), str::to_owned);
    if world.keys.contains_key(&key) {
        return problem(StatusCode::CONFLICT, "key exists");
    }
    world.keys.insert(key.clone(), (id.clone(), false));
    world.subscriptions.insert(id.clone(), Subscription { limit, ..Subscription::default() });
    (StatusCode::CREATED, json!({ "id": id, "key": key }).to_string()).into_response()
}

async fn create_key(
    State(world): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN]) {
        return refusal;
    }
    let mut world = lock(&world);
    let key = world.id();
    world.keys.insert(key.clone(), (id, false));
    (StatusCode::CREATED, json!({ "id": key, "key": key }).to_string()).into_response()
}

async fn revoke_key(
    State(world): State<Shared>,
    Path((_, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN]) {
        return refusal;
    }
    let mut world = lock(&world);
    let is_obeyed = !world.faults.ignore_revocation;
    match world.keys.get_mut(&key) {
        Some((_, revoked)) => {
            *revoked = is_obeyed;
            StatusCode::NO_CONTENT.into_response()
        }
        None => problem(StatusCode::NOT_FOUND, "no such key"),
    }
}

async fn check(
    State(world): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN, GATEWAY]) {
        return refusal;
    }
    let key = headers.get("x-subscription-key").and_then(|key| key.to_str().ok()).unwrap_or("");
    let cost: u64 = query.get("cost").map_or(1, |cost| cost.parse().unwrap());
    let mut world = lock(&world);
    let over_admit = world.faults.over_admit;
    let Some((id, revoked)) = world.keys.get(key).cloned() else {
        return decision(false, "unknown_key", None);
    };
    if revoked {
        return decision(false, "key_revoked", Some(&id));
    }
    let subscription = world.subscriptions.get_mut(&id).unwrap();
    let held = subscription.used + subscription.pending;
    if subscription.limit.is_some_and(|limit| held + cost > limit + over_admit) {
        return decision(false, "quota_exceeded", Some(&id));
    }
    subscription.pending += cost;
    decision(true, "ok", Some(&id))
}

fn decision(allowed: bool, reason: &str, id: Option<&str>) -> Response {
    let body = json!({
        "allowed": allowed, "reason": reason, "subscriptionId": id, "limit": 5, "used": 0,
        "mode": "enforced", "quotas": [], "rate": [],
    });
    body.to_string().into_response()
}

async fn events(State(world): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN, GATEWAY]) {
        return refusal;
    }
    let batch: Value = serde_json::from_slice(&body).unwrap();
    let mut world = lock(&world);
    let faults = world.faults;
    world.batches += 1;
    if world.batches <= faults.refuse_batches {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the store is away");
    }
    let (mut accepted, mut duplicates, mut rejected) = (0, 0, Vec::new());
    for (index, event) in batch["events"].as_array().unwrap().iter().enumerate() {
        world.events += 1;
        let number = world.events;
        let hits = |every: u64| every > 0 && number.is_multiple_of(every);
        let identity = (text(event, "subscription_id").to_owned(), text(event, "id").to_owned());
        if hits(faults.reject_every) || !world.subscriptions.contains_key(&identity.0) {
            rejected.push(json!({
                "index": index, "id": identity.1, "code": "invalid_event", "detail": "as told",
            }));
        } else if world.seen.insert(identity.clone()) {
            accepted += 1;
            world.paths.insert(text(event, "api_path").to_owned());
            let times =
                if hits(faults.lose_every) { 0 } else { 1 + u64::from(hits(faults.double_every)) };
            record(world.subscriptions.get_mut(&identity.0).unwrap(), event, times);
        } else {
            duplicates += 1;
        }
    }
    if faults.never_acknowledge || world.batches <= faults.refuse_batches + faults.swallow_answers {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "recorded, but you cannot know");
    }
    json!({ "accepted": accepted, "duplicates": duplicates, "rejected": rejected })
        .to_string()
        .into_response()
}

fn record(subscription: &mut Subscription, event: &Value, times: u64) {
    let units = event["units"].as_u64().unwrap_or(1);
    subscription.pending = subscription.pending.saturating_sub(units);
    subscription.used += units * times;
    subscription.requests += times;
    subscription.bytes += event["response_size"].as_u64().unwrap() * times;
    *subscription.statuses.entry(event["status_code"].to_string()).or_default() += times;
    let day = text(event, "timestamp")[..10].to_owned();
    *subscription.days.entry(day).or_default() += times;
}

async fn usage(
    State(world): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN]) {
        return refusal;
    }
    let world = lock(&world);
    let one = &world.subscriptions[&id];
    json!({
        "subscriptionId": id, "used": one.used, "pending": one.pending, "limit": one.limit,
        "remaining": one.limit.map(|limit| limit.saturating_sub(one.used + one.pending)),
    })
    .to_string()
    .into_response()
}

async fn stats(
    State(world): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = refusal(&headers, &[ADMIN]) {
        return refusal;
    }
    assert!(query["from"] < query["to"], "a range goes forward");
    let mut world = lock(&world);
    let lag = world.faults.stats_lag;
    let one = world.subscriptions.get_mut(&query["subscriptionId"]).unwrap();
    let fresh = json!({
        "requests": one.requests, "units": one.used, "bytesOut": one.bytes,
        "statusCodes": one.statuses, "denied": 0,
    });
    let nothing = json!({ "requests": 0, "units": 0, "bytesOut": 0, "statusCodes": {} });
    let older = one.shown.replace(fresh.clone()).unwrap_or(nothing);
    if lag { older } else { fresh }.to_string().into_response()
}

async fn trends(
    State(world): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let world = lock(&world);
    let one = &world.subscriptions[&query["subscriptionId"]];
    let data: Vec<_> = one
        .days
        .iter()
        .map(|(day, requests)| json!({ "start": format!("{day}T00:00:00.000Z"), "requests": requests }))
        .collect();
    json!({ "data": data }).to_string().into_response()
}
