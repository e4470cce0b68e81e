//! Settling named holds: commit charges what was really used, release gives the hold back.
//!
//! Either is a ledger row whose identity is the reservation, and so is what a usage event with a
//! `reservation_id` adds (`events.rs`): of all that are sent, however often, through whichever node,
//! across crashes, the first one recorded is how the reservation ended. There is no other state of it
//! that could disagree. A commit after the hold returned still charges (the usage happened) and says
//! that it was late.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_config::limits;
use weir_core::units::{Micros, ReservationId, Units};
use weir_store::rows::{LedgerRow, OutcomeKind, ReservationRow, RowKind};

use super::Api;
use super::auth::Gateway;
use super::body::{Raw, parse};
use super::events::{internal_row, record_problem};
use super::problem::Problem;
use crate::catalog::Known;
use crate::outcome::Recorded;
use crate::recorder::quantities_json;

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
    let (reservation, known) = find(&api, &caller, &id).await?;
    let (units, quantities) = amounts(body, &reservation)?;
    let mut row = settling_row(&reservation, &known, api.clock.now());
    row.units = i64::try_from(units).unwrap_or(i64::MAX);
    row.quantities = quantities_json(quantities.iter().map(|(meter, &n)| (&**meter, n)));
    let end = settle(&api, &reservation, row).await?;
    if end.is_release() {
        Err(Problem::conflict("reservation_released", "the reservation was released"))
    } else {
        Ok(JsonAnswer(end.shown()))
    }
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
    let (reservation, known) = find(&api, &caller, &id).await?;
    let mut row = settling_row(&reservation, &known, api.clock.now());
    // Closes the hold like a commit and charges nothing.
    row.outcome = OutcomeKind::Denied;
    row.charged = false;
    let end = settle(&api, &reservation, row).await?;
    if end.is_release() {
        Ok(JsonAnswer(end.shown()))
    } else {
        Err(Problem::conflict("reservation_committed", "the reservation was committed"))
    }
}

/// The row that settles a reservation: its id is the reservation's, so of all that are sent, from
/// anywhere and at any time, one counts.
fn settling_row(reservation: &ReservationRow, known: &Known, now: Micros) -> LedgerRow {
    let id = reservation.id.to_string();
    let row = internal_row(reservation.subscription, known, RowKind::Commit, id, now);
    // The hold belongs to the period it was made in, and is settled there.
    LedgerRow { event_time: reservation.created_at, reservation: Some(reservation.id), ..row }
}

/// How a reservation ended: the row that settled it, this one or an earlier one.
struct End {
    row: LedgerRow,
    late: bool,
    duplicate: bool,
}

impl End {
    fn is_release(&self) -> bool {
        self.row.outcome == OutcomeKind::Denied
    }

    fn shown(self) -> Settled {
        // An event may have settled it that the plan does not bill.
        let amounts = self.row.quantities.as_deref().filter(|_| self.row.charged);
        let units = if self.row.charged { self.row.units } else { 0 };
        Settled {
            reservation_id: self.row.event_id.clone(),
            status: if self.is_release() { "released" } else { "committed" },
            units: u64::try_from(units).unwrap_or_default(),
            quantities: amounts.map(parse_amounts).unwrap_or_default(),
            late: self.late,
            duplicate: self.duplicate,
        }
    }
}

/// Records `row` unless the reservation is settled already; says by which row it is.
async fn settle(api: &Api, reservation: &ReservationRow, row: LedgerRow) -> Result<End, Problem> {
    let end = |row: LedgerRow, duplicate| End {
        late: row.recorded_at >= reservation.expires_at,
        row,
        duplicate,
    };
    let outcomes = api.router.record(vec![row.clone()]).await.map_err(record_problem)?;
    if outcomes.first() != Some(&Recorded::Duplicate) {
        return Ok(end(row, false));
    }
    let found = api.store.find_record(row.subscription, row.kind, &row.event_id).await?;
    // An identity without a row is about to be forgotten, and the reservation with it.
    found.map(|before| end(before, true)).ok_or_else(|| Problem::not_found("reservation"))
}

async fn find(
    api: &Api,
    caller: &Gateway,
    id: &str,
) -> Result<(ReservationRow, Arc<Known>), Problem> {
    let missing = || Problem::not_found("reservation");
    let id: ReservationId = id.parse().map_err(|_| missing())?;
    let row = api.store.find_reservation(id).await?.ok_or_else(missing)?;
    // What settled it is remembered as long as any event is; later nobody could tell a repeat.
    let remembered = row.created_at.plus(api.limits.accept_window).max(row.expires_at);
    if api.clock.now() > remembered {
        return Err(missing());
    }
    let known = api.router.catalog().find_subscription(row.subscription).await?;
    let known = known.ok_or_else(missing)?;
    if caller.sees(&known.tenant, known.id) { Ok((row, known)) } else { Err(missing()) }
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
