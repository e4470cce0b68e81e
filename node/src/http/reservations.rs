//! Settling named holds: commit charges what was really used, release gives the hold back.
//!
//! A commit is a ledger row whose identity is the reservation, so that it counts once however often
//! it is sent, through whichever node, across crashes. A commit after the hold returned still charges
//! (the usage happened) and says that it was late.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_config::limits;
use weir_core::units::{ReservationId, Units};
use weir_store::rows::{LedgerRow, ReservationRow, RowKind};

use super::Api;
use super::auth::Gateway;
use super::body::{Raw, parse};
use super::events::{internal_row, record_problem};
use super::problem::Problem;
use super::quota::undecided_problem;
use crate::catalog::Known;
use crate::recorder::{Recorded, quantities_json};

/// What was used.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitBody {
    /// Units on the meter `requests`; without any amount, what was held.
    units: Option<u64>,
    /// Units on other meters.
    #[serde(default)]
    quantities: BTreeMap<String, u64>,
}

/// How a reservation ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// Its id.
    reservation_id: String,
    /// `committed` or `released`.
    status: &'static str,
    /// Units charged on the meter `requests`.
    units: u64,
    /// Units charged on other meters.
    quantities: BTreeMap<String, u64>,
    /// The hold had returned before.
    late: bool,
    /// This was said before; nothing changed now.
    duplicate: bool,
}

/// Charges what a reservation really used: less, as much, or more than it held.
#[utoipa::path(
    post, path = "/api/v1/quota/reservations/{id}/commit", tag = "decide", security(("bearer" = [])),
    params(("id" = String, Path, description = "`reservationId` of the check")),
    request_body = CommitBody,
    responses((status = 200, body = Settled), (status = 404, description = "no such reservation"),
        (status = 409, description = "it was released"))
)]
pub async fn commit(
    State(api): State<Arc<Api>>,
    caller: Gateway,
    Path(id): Path<String>,
    Raw(bytes): Raw,
) -> Result<JsonAnswer<Settled>, Problem> {
    let body: CommitBody = if bytes.is_empty() { CommitBody::default() } else { parse(&bytes)? };
    let (row, known) = find(&api, &caller, &id).await?;
    if let Some(before) = committed_before(&api, &row).await? {
        return Ok(JsonAnswer(before));
    }
    if row.released_at.is_some() {
        return Err(Problem::conflict("reservation_released", "the reservation was released"));
    }
    let (units, quantities) = amounts(body, &row)?;
    let now = api.clock.now();
    let mut ledger =
        internal_row(row.subscription, &known, RowKind::Commit, row.id.to_string(), now);
    // The hold belongs to the period it was made in, and is settled there.
    ledger.event_time = row.created_at;
    ledger.units = i64::try_from(units).unwrap_or(i64::MAX);
    ledger.quantities = quantities_json(quantities.iter().map(|(meter, &n)| (&**meter, n)));
    ledger.reservation = Some(row.id);
    let outcomes = api.recorder.record(vec![ledger]).await.map_err(record_problem)?;
    if outcomes.first() == Some(&Recorded::Duplicate)
        && let Some(before) = committed_before(&api, &row).await?
    {
        return Ok(JsonAnswer(before));
    }
    Ok(JsonAnswer(Settled {
        reservation_id: row.id.to_string(),
        status: "committed",
        units,
        quantities,
        late: now >= row.expires_at,
        duplicate: false,
    }))
}

/// Gives a reservation's hold back.
#[utoipa::path(
    post, path = "/api/v1/quota/reservations/{id}/release", tag = "decide", security(("bearer" = [])),
    params(("id" = String, Path, description = "`reservationId` of the check")),
    responses((status = 200, body = Settled), (status = 404, description = "no such reservation"),
        (status = 409, description = "it was committed"))
)]
pub async fn release(
    State(api): State<Arc<Api>>,
    caller: Gateway,
    Path(id): Path<String>,
) -> Result<JsonAnswer<Settled>, Problem> {
    let (row, _) = find(&api, &caller, &id).await?;
    if committed_before(&api, &row).await?.is_some() {
        return Err(Problem::conflict("reservation_committed", "the reservation was committed"));
    }
    let duplicate = row.released_at.is_some();
    if !duplicate {
        api.router.release(row.subscription, row.id).await.map_err(undecided_problem)?;
    }
    Ok(JsonAnswer(Settled {
        reservation_id: row.id.to_string(),
        status: "released",
        units: 0,
        quantities: BTreeMap::new(),
        late: api.clock.now() >= row.expires_at,
        duplicate,
    }))
}

async fn find(
    api: &Api,
    caller: &Gateway,
    id: &str,
) -> Result<(ReservationRow, Arc<Known>), Problem> {
    let missing = || Problem::not_found("reservation");
    let id: ReservationId = id.parse().map_err(|_| missing())?;
    let row = api.store.find_reservation(id).await?.ok_or_else(missing)?;
    let known = api.router.catalog().find_subscription(row.subscription).await?;
    let known = known.ok_or_else(missing)?;
    if caller.sees(&known.tenant, known.id) { Ok((row, known)) } else { Err(missing()) }
}

async fn committed_before(api: &Api, row: &ReservationRow) -> Result<Option<Settled>, Problem> {
    let id = row.id.to_string();
    let found = api.store.find_record(row.subscription, RowKind::Commit, &id).await?;
    Ok(found.map(|ledger| Settled {
        reservation_id: id,
        status: "committed",
        units: u64::try_from(ledger.units).unwrap_or_default(),
        quantities: stored_amounts(&ledger),
        late: ledger.recorded_at >= row.expires_at,
        duplicate: true,
    }))
}

fn stored_amounts(ledger: &LedgerRow) -> BTreeMap<String, u64> {
    ledger.quantities.as_deref().map(parse_amounts).unwrap_or_default()
}

fn parse_amounts(json: &str) -> BTreeMap<String, u64> {
    // Written by this node's own code; a damaged column reads as nothing held.
    serde_json::from_str(json).unwrap_or_default()
}

fn amounts(
    body: CommitBody,
    row: &ReservationRow,
) -> Result<(u64, BTreeMap<String, u64>), Problem> {
    if body.units.is_none() && body.quantities.is_empty() {
        let mut held = parse_amounts(&row.amounts);
        let units = held.remove(weir_core::plan::REQUESTS).unwrap_or_default();
        return Ok((units, held));
    }
    let range = "an integer from 0 to 9007199254740991";
    let units = body.units.unwrap_or_default();
    if Units::new(units).is_none() {
        return Err(Problem::invalid_field("/units", "out_of_range", range));
    }
    if body.quantities.len() > limits::QUANTITIES_MAX {
        return Err(Problem::invalid_field("/quantities", "too_many", "too many meters"));
    }
    for (meter, &amount) in &body.quantities {
        if Units::new(amount).is_none() || meter == weir_core::plan::REQUESTS {
            let pointer = format!("/quantities/{meter}");
            return Err(Problem::invalid_field(pointer, "out_of_range", range));
        }
    }
    Ok((units, body.quantities))
}
