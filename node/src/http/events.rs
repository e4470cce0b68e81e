//! `/api/v1/usage/events`: what happened, made durable before it is answered.
//!
//! An event with the `reservation_id` of a reservation of its subscription makes two rows in one
//! transaction: the event itself, not charged, and the row that settles the reservation (see
//! `reservations.rs`) with the event's amounts. So the reservation is charged once whatever else is
//! sent for it: after a commit or another event nothing more, and after a release nothing at all,
//! because the gateway said that nothing was used.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use weir_config::limits;
use weir_core::plan::{Fault, Plan};
use weir_core::units::{Micros, ReservationId, Seq, Span, SubscriptionId, Units};
use weir_store::rows::{LedgerRow, OutcomeKind, RowKind};

use super::Api;
use super::auth::Gateway;
use super::body::Raw;
use super::ingest::{BodyError, Limits, Outcome, SubscriptionRef, UsageEvent, parse_body};
use super::problem::Problem;
use crate::catalog::principal::Principal;
use crate::catalog::{Known, PlanLookupError};
use crate::metrics::chain;
use crate::outcome::{RecordError, Recorded};
use crate::recorder::quantities_json;

const FUTURE_SKEW: Span = Span::from_seconds(limits::FUTURE_SKEW.as_secs().cast_signed());

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordAnswer {
    /// Events that are in the ledger now and were not before.
    pub accepted: usize,
    /// Events whose id was there already; they count once.
    pub duplicates: usize,
    /// Events that cannot be recorded; their neighbours are.
    pub rejected: Vec<RejectedEvent>,
}

/// An event that cannot be recorded.
#[derive(Debug, Serialize, ToSchema)]
pub struct RejectedEvent {
    /// Position in the body, from 0.
    pub index: usize,
    /// Its own id, where it could be read.
    pub id: Option<String>,
    /// `invalid_event`, `unknown_subscription`, `timestamp_in_future`, `timestamp_too_old`.
    pub code: &'static str,
    /// What is expected.
    pub detail: String,
}

/// Records usage events: one, an array, `{"events":[…]}`, NDJSON, or CloudEvents 1.0.
///
/// Answered only after the events are durable. A retry of the same batch is always safe: an id counts
/// once, ever within the accept window. `Content-Encoding: gzip` and `zstd` are understood.
#[utoipa::path(
    post, path = "/api/v1/usage/events", tag = "record", security(("bearer" = [])),
    request_body(content = serde_json::Value, content_type = "application/json"),
    responses((status = 200, body = RecordAnswer), (status = 400, body = super::problem::ProblemBody),
        (status = 413, description = "body too large"),
        (status = 422, description = "more than 10,000 events"),
        (status = 503, description = "the store is away; nothing is half-counted, send it again"))
)]
pub async fn record(
    State(api): State<Arc<Api>>,
    caller: Gateway,
    headers: HeaderMap,
    Raw(bytes): Raw,
) -> Result<JsonAnswer<RecordAnswer>, Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let batch = parse_body(content_type, &bytes, Limits { events_max: api.limits.events_max })
        .map_err(body_problem)?;
    let mut senders = Senders { api: &api, principal: &caller.0, known: HashMap::new() };
    let now = api.clock.now();
    let settleable = Settleable::find(&api, batch.items.iter().flatten()).await?;
    let mut rows = Vec::with_capacity(batch.items.len());
    let mut settling = Vec::new();
    let mut rejected = Vec::new();
    let (unknown_fields, dropped_fields) = (batch.unknown_fields, batch.dropped_fields);
    for (index, item) in batch.items.into_iter().enumerate() {
        let refused = match item {
            Ok(event) => match judge(&api, now, &event) {
                None => match senders.find(&event.subscription).await? {
                    Some(sender) => {
                        let mut row = row_of(event, &sender, now);
                        if settleable.by(&row) {
                            settling.push(settling_row(&row, &sender.known));
                            row.charged = false;
                        }
                        rows.push(row);
                        continue;
                    }
                    None => RejectedEvent {
                        index,
                        id: Some(event.id.into_owned()),
                        code: "unknown_subscription",
                        detail: "no subscription has this key or id".to_owned(),
                    },
                },
                Some((code, detail)) => {
                    RejectedEvent { index, id: Some(event.id.into_owned()), code, detail }
                }
            },
            Err(bad) => {
                RejectedEvent { index: bad.index, id: bad.id, code: bad.code, detail: bad.detail }
            }
        };
        rejected.push(refused);
    }
    // The answer is about events, not about what they settle.
    let events = rows.len();
    rows.append(&mut settling);
    let mut outcomes = if rows.is_empty() {
        Vec::new()
    } else {
        api.router.record(rows).await.map_err(record_problem)?
    };
    outcomes.truncate(events);
    let accepted = outcomes.iter().filter(|&&outcome| outcome == Recorded::New).count();
    let duplicates = outcomes.len() - accepted;
    api.metrics.left_out(rejected.len(), unknown_fields, dropped_fields);
    Ok(JsonAnswer(RecordAnswer { accepted, duplicates, rejected }))
}

/// Why rows were not taken, to the sender.
pub(super) fn record_problem(error: RecordError) -> Problem {
    match error {
        RecordError::Busy => Problem::unavailable("recorder_busy", error.to_string()),
        RecordError::Away => {
            Problem::unavailable("store_unavailable", "the store is away; send the same ids again")
        }
        RecordError::Fenced | RecordError::NotHere => {
            Problem::unavailable("not_owner", error.to_string())
        }
    }
}

fn body_problem(error: BodyError) -> Problem {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    match error {
        BodyError::WrongShape { pointer, detail } => {
            Problem::invalid(vec![Fault::new(pointer, "invalid_body", detail)])
        }
        other => Problem::new(status, other.code(), other.to_string()),
    }
}

fn judge(api: &Api, now: Micros, event: &UsageEvent<'_>) -> Option<(&'static str, String)> {
    if event.timestamp > now.plus(FUTURE_SKEW) {
        return Some(("timestamp_in_future", "more than 5 minutes ahead".to_owned()));
    }
    let window = api.limits.accept_window;
    if event.timestamp < now.minus(window) {
        let days = window.get() / (86_400 * weir_core::units::MICROS_PER_SECOND);
        return Some(("timestamp_too_old", format!("older than the accept window of {days} days")));
    }
    None
}

/// Who sent an event, and on which terms it is charged.
struct Sender {
    key: Option<Uuid>,
    known: Arc<Known>,
    plan: Arc<Plan>,
}

/// Senders of one batch, each looked up once.
struct Senders<'a> {
    api: &'a Api,
    principal: &'a Principal,
    known: HashMap<String, Option<Arc<Sender>>>,
}

impl Senders<'_> {
    async fn find(
        &mut self,
        reference: &SubscriptionRef<'_>,
    ) -> Result<Option<Arc<Sender>>, Problem> {
        // Ids and keys are told apart by a prefix that no id has.
        let name = match reference {
            SubscriptionRef::Key(key) => format!("key {key}"),
            SubscriptionRef::Id(id) => id.to_string(),
        };
        if let Some(found) = self.known.get(&name) {
            return Ok(found.clone());
        }
        let found = self.look_up(reference).await?.map(Arc::new);
        self.known.insert(name, found.clone());
        Ok(found)
    }

    async fn look_up(&self, reference: &SubscriptionRef<'_>) -> Result<Option<Sender>, Problem> {
        let found = match reference {
            SubscriptionRef::Key(key) => {
                let found = self.api.router.subscription_of_key(key).await?;
                found.map(|(key, known)| (Some(key), known))
            }
            SubscriptionRef::Id(id) => {
                let found = self.api.router.catalog().find_subscription(*id).await?;
                found.map(|known| (None, known))
            }
        };
        let Some((key, known)) = found else { return Ok(None) };
        if !self.principal.sees(&known.tenant, known.id) {
            return Ok(None);
        }
        match self.api.router.catalog().newest_plan(known.plan).await {
            Ok(plan) => Ok(Some(Sender { key, known, plan })),
            Err(PlanLookupError::Store(error)) => Err(error.into()),
            Err(error) => {
                tracing::error!(error = %chain(&error), "a subscription's plan cannot be read");
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "damaged plan"))
            }
        }
    }
}

/// Reservations that the events of one batch name, by id: whose they are.
struct Settleable(HashMap<ReservationId, SubscriptionId>);

impl Settleable {
    async fn find<'e>(
        api: &Api,
        events: impl Iterator<Item = &'e UsageEvent<'e>>,
    ) -> Result<Self, Problem> {
        let mut named: Vec<ReservationId> =
            events.filter_map(|event| event.reservation_id).collect();
        named.sort_unstable();
        named.dedup();
        if named.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let found = api.store.find_reservations(&named).await?;
        Ok(Self(found.into_iter().map(|row| (row.id, row.subscription)).collect()))
    }

    /// Whether this event settles a reservation. One that names none of its own subscription is an
    /// event like any other, and so is a request that was denied.
    fn by(&self, event: &LedgerRow) -> bool {
        let owner = event.reservation.and_then(|id| self.0.get(&id));
        event.outcome != OutcomeKind::Denied && owner == Some(&event.subscription)
    }
}

/// What settles the reservation that `event` names, with the event's amounts.
fn settling_row(event: &LedgerRow, known: &Known) -> LedgerRow {
    let id = event.reservation.map(|id| id.to_string()).unwrap_or_default();
    LedgerRow {
        event_time: event.event_time,
        units: event.units,
        quantities: event.quantities.clone(),
        charged: event.charged,
        reservation: event.reservation,
        key_id: event.key_id,
        ..internal_row(event.subscription, known, RowKind::Commit, id, event.recorded_at)
    }
}

fn row_of(event: UsageEvent<'_>, sender: &Sender, now: Micros) -> LedgerRow {
    let outcome = match event.outcome {
        Outcome::Served => OutcomeKind::Served,
        Outcome::Denied => OutcomeKind::Denied,
        Outcome::Aborted => OutcomeKind::Aborted,
    };
    let units = event
        .units
        .unwrap_or_else(|| sender.plan.cost(event.method.as_deref(), event.api_path.as_deref()));
    let charged = outcome != OutcomeKind::Denied && sender.plan.bill.charges(event.status_code);
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    LedgerRow {
        subscription: sender.known.id,
        shard: sender.known.shard,
        seq: Seq::default(),
        event_id: event.id.into_owned(),
        kind: RowKind::Usage,
        event_time: event.timestamp,
        recorded_at: now,
        units: signed(units.get()),
        quantities: quantities_json(event.quantities.iter().map(|(m, u)| (&**m, Units::get(*u)))),
        charged,
        outcome,
        reservation: event.reservation_id,
        key_id: sender.key,
        api_id: sender.known.api_id.clone(),
        api_path: event.api_path.map(Into::into).unwrap_or_default(),
        method: event.method.map(Into::into).unwrap_or_default(),
        status_code: event.status_code.and_then(|status| i16::try_from(status).ok()),
        success: event.success,
        response_time_us: event.response_time_micros,
        request_size: event.request_size.map(signed),
        response_size: event.response_size.map(signed),
        user_agent: event.user_agent.map(Into::into),
        ip_address: event.ip_address.map(|ip| ip.to_string()),
        country: event.country.map(Into::into),
    }
}

/// A ledger row that no gateway sent: an adjustment, a reset, a settled reservation.
pub(super) fn internal_row(
    subscription: SubscriptionId,
    known: &Known,
    kind: RowKind,
    event_id: String,
    now: Micros,
) -> LedgerRow {
    LedgerRow {
        subscription,
        shard: known.shard,
        seq: Seq::default(),
        event_id,
        kind,
        event_time: now,
        recorded_at: now,
        units: 0,
        quantities: None,
        charged: true,
        outcome: OutcomeKind::Served,
        reservation: None,
        key_id: None,
        api_id: known.api_id.clone(),
        api_path: String::new(),
        method: String::new(),
        status_code: None,
        success: None,
        response_time_us: None,
        request_size: None,
        response_size: None,
        user_agent: None,
        ip_address: None,
        country: None,
    }
}
