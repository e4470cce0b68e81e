//! `GET /api/v1/charges`: what was charged, newest first.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_core::rating::{Amount, Currency};
use weir_core::units::{Micros, SubscriptionId};
use weir_store::billing::{ChargeFilter, ChargeKind, ChargeRow};

use super::Api;
use super::auth::Admin;
use super::moment::Moment;
use super::page::{self, List};
use super::parameters::Parameters;
use super::problem::{Problem, ProblemBody};
use crate::billing::kind;

const LIST: &str = "charges";

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which charges.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChargesQuery {
    /// Only of this subscription.
    subscription_id: Option<String>,
    /// Only `overage` or only `correction`.
    kind: Option<String>,
    /// Charges on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A stretch of time, `[start, end)`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Bounds {
    /// Inclusive.
    pub start: Moment,
    /// Exclusive.
    pub end: Moment,
}

/// A charge. It never changes; what it should have been otherwise is another charge.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargeAnswer {
    /// Its id; ids grow with time.
    id: String,
    subscription_id: String,
    /// `overage`, or `correction` of a period that was closed before.
    kind: &'static str,
    /// Name of the quota.
    quota: String,
    /// What it counts.
    meter: String,
    /// Which one of its period it is, from 1.
    number: i32,
    /// Overage units that it adds; of a correction, units counted more or fewer.
    units: i64,
    /// A decimal string; negative when it gives back.
    #[schema(example = "1.00")]
    amount: String,
    /// ISO 4217.
    currency: String,
    /// In words.
    description: String,
    /// The period that it stands on.
    period: Bounds,
    /// The closed period that a correction corrects.
    corrects: Option<Bounds>,
    /// Names it wherever it is computed or told: the same charge never has two.
    idempotency_key: String,
    created_at: Moment,
}

/// Lists charges, newest first.
#[utoipa::path(
    get, path = "/api/v1/charges", tag = "billing", security(("bearer" = [])),
    params(ChargesQuery),
    responses((status = 200, body = List<ChargeAnswer>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Parameters(query): Parameters<ChargesQuery>,
) -> Result<JsonAnswer<List<ChargeAnswer>>, Problem> {
    let subscription = query.subscription_id.map(|id| id.parse::<SubscriptionId>()).transpose();
    let subscription = subscription.map_err(|_| {
        let detail = "`subscriptionId` must be the id of a subscription";
        Problem::bad_request("invalid_parameter", detail)
    })?;
    let filter = ChargeFilter {
        reach: caller.reach.clone(),
        subscription,
        kind: query.kind.as_deref().map(kind_of).transpose()?,
        period: None,
        before: page::after_id(LIST, query.cursor.as_deref())?,
        limit: page::limit(query.limit)?,
    };
    let page = api.store.list_charges(&filter).await?;
    Ok(JsonAnswer(page::by_id(LIST, page, |row| row.id, ChargeAnswer::from)))
}

fn kind_of(text: &str) -> Result<i16, Problem> {
    let known = [ChargeKind::Overage, ChargeKind::Correction];
    let found = known.into_iter().find(|known| kind(*known) == text);
    found.map(|kind| kind as i16).ok_or_else(|| {
        let detail = "`kind` must be `overage` or `correction`";
        Problem::bad_request("invalid_parameter", detail)
    })
}

impl From<ChargeRow> for ChargeAnswer {
    fn from(row: ChargeRow) -> Self {
        let bounds =
            |(start, end): (Micros, Micros)| Bounds { start: Moment(start), end: Moment(end) };
        // Written by us as an integer.
        let amount = Amount::from_minor(row.amount.parse().unwrap_or_default());
        Self {
            id: row.id.to_string(),
            subscription_id: row.subscription.to_string(),
            kind: kind(row.kind),
            quota: row.quota,
            meter: row.meter,
            number: row.number,
            units: row.units,
            amount: Currency::of(&row.currency).text(amount),
            currency: row.currency,
            description: row.description,
            period: bounds((row.start, row.end)),
            corrects: row.corrects.map(bounds),
            idempotency_key: row.idempotency_key,
            created_at: Moment(row.created_at),
        }
    }
}
