//! `GET /api/v1/usage/records`: the audit trail of one subscription's requests.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use weir_config::limits::PATH_BYTES_MAX;
use weir_core::units::{Micros, Seq};
use weir_store::rows::{LedgerRow, OutcomeKind, RowKind};
use weir_store::{Page, RecordFilter};

use super::super::Api;
use super::super::auth::Reader;
use super::super::moment::{Moment, moment_parameter};
use super::super::page::{self, List};
use super::super::parameters::Parameters;
use super::super::problem::{Problem, ProblemBody};
use super::range::Range;
use super::{invalid, subscription_parameter, within_reach};

const LIST: &str = "records";
/// Before every record.
const BEGINNING: Micros = Micros::from_micros(i64::MIN);
/// Bytes of a position: time and place in the ledger.
const POSITION_BYTES: usize = 16;

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecordsQuery {
    /// Whose.
    subscription_id: String,
    /// RFC 3339, inclusive; without it, from the oldest kept.
    from: Option<String>,
    /// RFC 3339, exclusive; without it, up to the newest.
    to: Option<String>,
    /// Only this HTTP status.
    status: Option<u16>,
    /// Only this path, exactly as it was recorded.
    path: Option<String>,
    /// Records on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A line of the ledger.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageRecord {
    /// The event's id, as its sender made it.
    id: String,
    /// `usage` for a request, `commit` for a reservation that was settled.
    kind: &'static str,
    /// Whose.
    subscription_id: String,
    /// When it happened.
    timestamp: Moment,
    /// When it was taken in.
    recorded_at: Moment,
    /// HTTP method; empty when the gateway did not say.
    method: String,
    /// Path; empty when the gateway did not say.
    api_path: String,
    /// HTTP status.
    status_code: Option<i16>,
    /// Whether the gateway called it a success.
    success: Option<bool>,
    /// Response time in milliseconds.
    response_time_ms: Option<f64>,
    /// Request bytes.
    request_size: Option<i64>,
    /// Response bytes.
    response_size: Option<i64>,
    /// User agent.
    user_agent: Option<String>,
    /// Client address.
    ip_address: Option<String>,
    /// ISO 3166 country code.
    country: Option<String>,
    /// Units on the meter `requests`.
    units: i64,
    /// Amounts on other meters.
    #[schema(value_type = Object)]
    quantities: Map<String, Value>,
    /// `served`, `denied` or `aborted`.
    outcome: &'static str,
    /// Whether the units count against quotas.
    charged: bool,
    /// The named hold that it settled.
    reservation_id: Option<String>,
    /// The API that the subscription was for.
    api_id: Option<String>,
    /// The subscription's key that was used, when it came by key.
    key_id: Option<String>,
}

/// The audit trail of one subscription's requests, newest first.
#[utoipa::path(
    get, path = "/api/v1/usage/records", tag = "read", security(("bearer" = [])),
    params(RecordsQuery),
    responses((status = 200, body = List<UsageRecord>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn records(
    State(api): State<Arc<Api>>,
    caller: Reader,
    Parameters(query): Parameters<RecordsQuery>,
) -> Result<JsonAnswer<List<UsageRecord>>, Problem> {
    let filter = filter(query)?;
    within_reach(&api, &caller, filter.subscription).await?;
    Ok(JsonAnswer(list(api.store.records(&filter).await?)))
}

fn filter(query: RecordsQuery) -> Result<RecordFilter, Problem> {
    let subscription = subscription_parameter(&query.subscription_id)?;
    let from = query.from.map(|from| moment_parameter("from", &from)).transpose()?;
    let to = query.to.map(|to| moment_parameter("to", &to)).transpose()?;
    let range = Range::new(from.unwrap_or(BEGINNING), to.unwrap_or(Micros::MAX))?;
    if query.path.as_ref().is_some_and(|path| path.len() > PATH_BYTES_MAX) {
        return Err(invalid(format!("`path` must have at most {PATH_BYTES_MAX} bytes")));
    }
    Ok(RecordFilter {
        subscription,
        from: range.from,
        to: range.to,
        status: query.status.map(status).transpose()?,
        path: query.path,
        before: query.cursor.map(|cursor| position(&cursor)).transpose()?,
        limit: page::limit(query.limit)?,
    })
}

fn status(status: u16) -> Result<i16, Problem> {
    let known = (100..=599).contains(&status).then(|| i16::try_from(status).ok()).flatten();
    known.ok_or_else(|| invalid("`status` must be from 100 to 599"))
}

fn list(page: Page<LedgerRow>) -> List<UsageRecord> {
    let last = page.data.last().filter(|_| page.more);
    let next_cursor = last.map(cursor);
    List { data: page.data.into_iter().map(record).collect(), next_cursor }
}

fn cursor(row: &LedgerRow) -> String {
    let mut position = [0; POSITION_BYTES];
    let (time, seq) = position.split_at_mut(8);
    time.copy_from_slice(&row.event_time.get().to_be_bytes());
    seq.copy_from_slice(&row.seq.0.to_be_bytes());
    page::cursor(LIST, &position)
}

fn position(cursor: &str) -> Result<(Micros, Seq), Problem> {
    let [t0, t1, t2, t3, t4, t5, t6, t7, seq @ ..] =
        page::position::<POSITION_BYTES>(LIST, cursor)?;
    let time = i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
    Ok((Micros::from_micros(time), Seq(u64::from_be_bytes(seq))))
}

fn record(row: LedgerRow) -> UsageRecord {
    UsageRecord {
        kind: if row.kind == RowKind::Commit { "commit" } else { "usage" },
        subscription_id: row.subscription.to_string(),
        timestamp: Moment(row.event_time),
        recorded_at: Moment(row.recorded_at),
        response_time_ms: row.response_time_us.map(millis),
        quantities: row.quantities.as_deref().map(quantities).unwrap_or_default(),
        outcome: match row.outcome {
            OutcomeKind::Served => "served",
            OutcomeKind::Denied => "denied",
            OutcomeKind::Aborted => "aborted",
        },
        reservation_id: row.reservation.map(|id| id.to_string()),
        key_id: row.key_id.map(|id| id.to_string()),
        id: row.event_id,
        method: row.method,
        api_path: row.api_path,
        status_code: row.status_code,
        success: row.success,
        request_size: row.request_size,
        response_size: row.response_size,
        user_agent: row.user_agent,
        ip_address: row.ip_address,
        country: row.country,
        units: row.units,
        charged: row.charged,
        api_id: row.api_id,
    }
}

/// Written by the recorder only; a damaged column shows as none.
fn quantities(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "ingest refuses times that a double cannot hold")]
fn millis(micros: i64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weir_core::units::{ReservationId, ShardId, SubscriptionId};

    use super::*;

    fn row() -> LedgerRow {
        LedgerRow {
            subscription: SubscriptionId::from_uuid(Uuid::from_u128(1)),
            shard: ShardId(0),
            seq: Seq(u64::MAX),
            event_id: "e-1".to_owned(),
            kind: RowKind::Usage,
            event_time: Micros::from_micros(-1),
            recorded_at: Micros::EPOCH,
            units: 5,
            quantities: Some("{\"tokens\":743}".to_owned()),
            charged: true,
            outcome: OutcomeKind::Aborted,
            reservation: Some(ReservationId::from_uuid(Uuid::from_u128(2))),
            key_id: None,
            api_id: Some("search".to_owned()),
            api_path: "/v1/search".to_owned(),
            method: "GET".to_owned(),
            status_code: Some(200),
            success: Some(true),
            response_time_us: Some(12_500),
            request_size: None,
            response_size: Some(5_120),
            user_agent: None,
            ip_address: Some("203.0.113.9".to_owned()),
            country: Some("DE".to_owned()),
        }
    }

    fn query(subscription_id: &str) -> RecordsQuery {
        RecordsQuery {
            subscription_id: subscription_id.to_owned(),
            from: None,
            to: None,
            status: None,
            path: None,
            limit: None,
            cursor: None,
        }
    }

    #[test]
    fn a_record_shows_what_was_recorded() {
        let page = list(Page { data: vec![row()], more: false });
        let json = serde_json::to_value(&page).unwrap();
        let expected = serde_json::json!({"nextCursor": null, "data": [{
            "id": "e-1", "kind": "usage", "subscriptionId": Uuid::from_u128(1),
            "timestamp": "1969-12-31T23:59:59.999Z", "recordedAt": "1970-01-01T00:00:00.000Z",
            "method": "GET", "apiPath": "/v1/search", "statusCode": 200, "success": true,
            "responseTimeMs": 12.5, "requestSize": null, "responseSize": 5120, "userAgent": null,
            "ipAddress": "203.0.113.9", "country": "DE", "units": 5, "quantities": {"tokens": 743},
            "outcome": "aborted", "charged": true, "reservationId": Uuid::from_u128(2),
            "apiId": "search", "keyId": null,
        }]});
        assert_eq!(json, expected);
    }

    #[test]
    fn the_cursor_of_a_page_leads_behind_its_last_record() {
        let page = list(Page { data: vec![row()], more: true });
        let query = RecordsQuery { cursor: page.next_cursor, ..query(&Uuid::nil().to_string()) };
        let filter = filter(query).unwrap();
        assert_eq!(filter.before, Some((Micros::from_micros(-1), Seq(u64::MAX))));
    }

    #[test]
    fn parameters_are_judged_one_by_one() {
        let good = || query("00000000-0000-0000-0000-000000000001");
        let text = |text: &str| Some(text.to_owned());
        for (name, query, code) in [
            ("nothing but whose", good(), None),
            ("no id", query("x"), Some("invalid_parameter")),
            ("status", RecordsQuery { status: Some(404), ..good() }, None),
            ("no status", RecordsQuery { status: Some(99), ..good() }, Some("invalid_parameter")),
            ("limit", RecordsQuery { limit: Some(0), ..good() }, Some("invalid_parameter")),
            ("cursor", RecordsQuery { cursor: text("ff"), ..good() }, Some("invalid_cursor")),
            (
                "no moment",
                RecordsQuery { from: text("today"), ..good() },
                Some("invalid_parameter"),
            ),
            ("one end", RecordsQuery { to: text("1960-01-01T00:00:00Z"), ..good() }, None),
            (
                "backwards",
                RecordsQuery {
                    from: text("2026-01-02T00:00:00Z"),
                    to: text("2026-01-01T00:00:00Z"),
                    ..good()
                },
                Some("invalid_parameter"),
            ),
            (
                "long path",
                RecordsQuery { path: Some("/".repeat(3_000)), ..good() },
                Some("invalid_parameter"),
            ),
        ] {
            let found = filter(query).err().map(|problem| problem.code());
            assert_eq!(found, code, "{name}");
        }
    }
}
