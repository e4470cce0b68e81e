//! `/api/v1/subscriptions/{id}/periods`: what was used in each period, and what it costs.
//!
//! Role: closed periods as they were closed; open ones and those in grace reckoned as the next charge
//! would be, from what is durable (a running period is at most a checkpoint behind its owner). A period
//! has an id made of its start and its quota's name: a plan's quotas have periods of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use weir_core::rating::Stage;
use weir_core::units::{Micros, SubscriptionId, Units};
use weir_store::billing::{ChargeFilter, ChargeKind, PeriodFilter, PeriodRow, PeriodStatus};

use super::find;
use crate::billing::{AccountsError, Priced, lines};
use crate::http::Api;
use crate::http::auth::Reader;
use crate::http::charges::ChargeAnswer;
use crate::http::moment::Moment;
use crate::http::page::{self, List};
use crate::http::parameters::{Ids, Parameters};
use crate::http::problem::{Problem, ProblemBody};
use crate::metrics::chain;

const LIST: &str = "periods";
/// Bytes of a quota's name in a cursor: names are no longer.
const NAME_BYTES: usize = 64;
/// Corrections shown with a period; there are as many as runs that found a change.
const ADJUSTMENTS_MAX: u32 = 1_000;

/// Which periods.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PeriodsQuery {
    /// Periods on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// One period of one quota.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeriodAnswer {
    /// Names it within the subscription.
    #[schema(example = "1764547200000000.requests")]
    id: String,
    /// Name of the quota.
    quota: String,
    /// What it counts.
    meter: String,
    /// Inclusive.
    start: Moment,
    /// Exclusive.
    end: Moment,
    /// `open`; `grace`, when late events still count; `closed`.
    status: &'static str,
    /// Units counted; of a closed period, when it was closed.
    used: u64,
    /// Units that the quota allowed at its end; null = unlimited.
    limit: Option<u64>,
    /// The plan at its end.
    plan_id: String,
    /// Version of the plan.
    plan_version: i32,
    /// Units beyond what is included, priced or not.
    overage_units: u64,
    /// What they cost, as it stands; of a closed period, when it was closed.
    #[schema(example = "1.00")]
    amount: String,
    /// ISO 4217.
    currency: String,
    /// What `amount` consists of.
    #[schema(value_type = Vec<Object>)]
    lines: Value,
    /// Corrections that stand on this period, or correct it.
    adjustments: Vec<ChargeAnswer>,
    /// What it was closed with; null before.
    #[schema(value_type = Option<Object>)]
    usage_snapshot: Option<Value>,
}

/// Lists a subscription's periods, latest first.
///
/// A quota has periods of its own. One in which nothing was ever counted is not listed once it is over.
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{id}/periods", tag = "billing", security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id"), PeriodsQuery),
    responses((status = 200, body = List<PeriodAnswer>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Reader,
    Ids(id): Ids<Uuid>,
    Parameters(query): Parameters<PeriodsQuery>,
) -> Result<JsonAnswer<List<PeriodAnswer>>, Problem> {
    let subscription = find(&api, &caller, id).await?.id;
    let limit = page::limit(query.limit)?;
    let after = query.cursor.as_deref().map(position).transpose()?;
    let filter = PeriodFilter { subscription, only: None, after: after.clone(), limit };
    let stored = api.store.list_periods(&filter).await?;
    let more_stored = stored.more;
    let mut all = reckoned(&api, subscription).await?;
    let last = stored.data.last().map(|row| key(row.start, &row.quota));
    let from = after.as_ref().map(|(start, quota)| key(*start, quota));
    // Of those that are not stored yet, the ones that lie on this page.
    all.retain(|at, _| {
        from.as_ref().is_none_or(|from| at > from)
            && (!more_stored || last.as_ref().is_none_or(|last| at <= last))
    });
    let adjustments = adjustments(&api, subscription, None).await?;
    let mut answers: BTreeMap<Key, PeriodAnswer> = BTreeMap::new();
    for row in stored.data {
        let at = key(row.start, &row.quota);
        if !all.contains_key(&at) {
            answers.insert(at, PeriodAnswer::stored(&api, &row));
        }
    }
    answers.extend(all.into_iter().map(|(at, priced)| (at, PeriodAnswer::reckoned(&api, &priced))));
    let more = more_stored || answers.len() > limit as usize;
    let mut data: Vec<PeriodAnswer> = answers.into_values().take(limit as usize).collect();
    for answer in &mut data {
        let own = adjustments.iter().filter(|row| answer.is_touched_by(row)).cloned();
        answer.adjustments = own.map(ChargeAnswer::from).collect();
    }
    let end = data.last().filter(|_| more);
    let next_cursor = end.map(|answer| cursor(answer.start.0, &answer.quota));
    Ok(JsonAnswer(List { data, next_cursor }))
}

/// Shows a period.
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{id}/periods/{periodId}", tag = "billing",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id"),
        ("periodId" = String, Path, description = "the period's id, from the list")),
    responses((status = 200, body = PeriodAnswer), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Reader,
    Ids((id, period)): Ids<(Uuid, String)>,
) -> Result<JsonAnswer<PeriodAnswer>, Problem> {
    let subscription = find(&api, &caller, id).await?.id;
    let (start, quota) = period.split_once('.').ok_or_else(missing)?;
    let start = Micros::from_micros(start.parse().map_err(|_| missing())?);
    let mut all = reckoned(&api, subscription).await?;
    let mut answer = if let Some(priced) = all.remove(&key(start, quota)) {
        PeriodAnswer::reckoned(&api, &priced)
    } else {
        let only = Some((quota.to_owned(), start));
        let filter = PeriodFilter { subscription, only, after: None, limit: 1 };
        let row = api.store.list_periods(&filter).await?.data.pop().ok_or_else(missing)?;
        PeriodAnswer::stored(&api, &row)
    };
    let period = Some((quota.to_owned(), start));
    let adjustments = adjustments(&api, subscription, period).await?;
    answer.adjustments = adjustments.into_iter().map(ChargeAnswer::from).collect();
    Ok(JsonAnswer(answer))
}

/// The order of the list: latest start first, then by quota.
type Key = (std::cmp::Reverse<Micros>, String);

fn key(start: Micros, quota: &str) -> Key {
    (std::cmp::Reverse(start), quota.to_owned())
}

fn missing() -> Problem {
    Problem::not_found("period")
}

/// Periods that are not closed yet, priced. A closed one that changed since is shown as it was closed.
async fn reckoned(api: &Api, id: SubscriptionId) -> Result<BTreeMap<Key, Priced>, Problem> {
    let accounts = api.billing.accounts(id).await.map_err(|error| match error {
        AccountsError::Store(error) => Problem::from(error),
        AccountsError::Reckon(error) => {
            tracing::error!(subscription = %id, error = %chain(&error), "periods cannot be reckoned");
            Problem::unavailable("not_reckoned", "the periods cannot be reckoned now")
        }
    })?;
    let open = accounts.into_iter().filter(|priced| {
        let account = &priced.account;
        let counts = account.runs || account.used > 0 || account.row.charges > 0;
        account.row.status == PeriodStatus::Open && counts
    });
    Ok(open.map(|one| (key(one.account.row.start, &one.account.row.quota), one)).collect())
}

async fn adjustments(
    api: &Api,
    subscription: SubscriptionId,
    period: Option<(String, Micros)>,
) -> Result<Vec<weir_store::billing::ChargeRow>, Problem> {
    let filter = ChargeFilter {
        subscription: Some(subscription),
        kind: Some(ChargeKind::Correction as i16),
        period,
        limit: ADJUSTMENTS_MAX,
        ..ChargeFilter::default()
    };
    Ok(api.store.list_charges(&filter).await?.data)
}

/// A start and a name, of fixed length.
fn cursor(start: Micros, quota: &str) -> String {
    let mut bytes = [0; 8 + NAME_BYTES];
    bytes[..8].copy_from_slice(&start.get().to_be_bytes());
    let length = quota.len().min(NAME_BYTES);
    bytes[8..8 + length].copy_from_slice(&quota.as_bytes()[..length]);
    page::cursor(LIST, &bytes)
}

fn position(cursor: &str) -> Result<(Micros, String), Problem> {
    let bytes = page::position::<{ 8 + NAME_BYTES }>(LIST, cursor)?;
    let (start, name) = bytes.split_at(8);
    let start = start.try_into().map(i64::from_be_bytes).unwrap_or_default();
    let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
    Ok((Micros::from_micros(start), String::from_utf8_lossy(&name).into_owned()))
}

impl PeriodAnswer {
    fn is_touched_by(&self, row: &weir_store::billing::ChargeRow) -> bool {
        let starts = self.start.0;
        row.quota == self.quota
            && (row.start == starts || row.corrects.is_some_and(|(start, _)| start == starts))
    }

    fn reckoned(api: &Api, priced: &Priced) -> Self {
        let row = &priced.account.row;
        let stage = Stage::of(&priced.period(), api.billing.grace(), api.clock.now());
        Self {
            used: priced.account.used,
            overage_units: priced.rated.overage_units.get(),
            amount: priced.text(priced.rated.amount),
            currency: priced.currency.clone(),
            lines: Value::Array(lines(priced)),
            // One whose grace is over waits for the next rollover: it still counts.
            status: if stage == Stage::Open { "open" } else { "grace" },
            ..Self::bare(row)
        }
    }

    /// As it was closed. One that is stored and not closed is always reckoned.
    fn stored(api: &Api, row: &PeriodRow) -> Self {
        let snapshot =
            row.usage_snapshot.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let snapshot: Value = snapshot.unwrap_or_default();
        let text = |field: &str| snapshot[field].as_str().unwrap_or_default().to_owned();
        let closed = row.status == PeriodStatus::Closed;
        let over = api.clock.now() >= row.end;
        Self {
            used: snapshot["used"].as_u64().or(u64::try_from(row.used).ok()).unwrap_or_default(),
            overage_units: snapshot["overageUnits"].as_u64().unwrap_or_default(),
            amount: text("amount"),
            currency: text("currency"),
            lines: snapshot["lines"].clone(),
            status: match (closed, over) {
                (true, _) => "closed",
                (false, true) => "grace",
                (false, false) => "open",
            },
            usage_snapshot: Some(snapshot).filter(|snapshot| !snapshot.is_null()),
            ..Self::bare(row)
        }
    }

    fn bare(row: &PeriodRow) -> Self {
        Self {
            id: format!("{}.{}", row.start.get(), row.quota),
            quota: row.quota.clone(),
            meter: row.meter.clone(),
            start: Moment(row.start),
            end: Moment(row.end),
            status: "open",
            used: Units::ZERO.get(),
            limit: row.quota_limit.and_then(|limit| u64::try_from(limit).ok()),
            plan_id: row.plan.to_string(),
            plan_version: row.plan_version,
            overage_units: 0,
            amount: String::new(),
            currency: String::new(),
            lines: Value::Array(Vec::new()),
            adjustments: Vec::new(),
            usage_snapshot: None,
        }
    }
}
