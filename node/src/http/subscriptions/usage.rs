//! The live state of a subscription, as its owner has it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use utoipa::ToSchema;
use uuid::Uuid;
use weir_core::meter::{Decision, QuotaView};
use weir_core::units::{SubscriptionId, Units};

use super::missing;
use crate::http::Api;
use crate::http::auth::Reader;
use crate::http::decision::{QuotaAnswer, RateAnswer, quotas_and_rates, respond, standing};
use crate::http::parameters::Ids;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::quota::unrouted;
use crate::http::text::{field, push_moment, push_plain, push_string, push_units, push_uuid};
use crate::shard::UsageView;

/// Where a subscription stands.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the JSON that `snapshot` writes")]
pub struct UsageAnswer {
    /// `snapshot`.
    #[schema(rename = "type")]
    kind: String,
    subscription_id: String,
    /// Units a period of the first quota; null = unlimited.
    limit: Option<u64>,
    /// Units charged in the running period.
    used: u64,
    /// Units held by checks that were not settled yet.
    pending: u64,
    /// `max(0, limit - used - pending)`; null = unlimited.
    remaining: Option<u64>,
    /// Whether more than the limit was used.
    overage: bool,
    /// RFC 3339.
    period_start: Option<String>,
    /// RFC 3339; when the first quota starts anew.
    reset_at: Option<String>,
    /// Units of the first quota beyond those that its price includes.
    overage_units: u64,
    /// What they cost so far, a decimal string; null when it was not rated.
    overage_amount: Option<String>,
    /// The plan's currency, ISO 4217.
    currency: String,
    /// Every quota.
    quotas: Vec<QuotaAnswer>,
    /// Every rate limit.
    rate: Vec<RateAnswer>,
    /// Requests a second; null where only the live stream measures it.
    requests_per_second: Option<f64>,
    /// Refusals a second; null where only the live stream measures it.
    denied_per_second: Option<f64>,
    /// When it was read, RFC 3339.
    at: String,
}

/// The live state of a subscription, from the one that decides for it.
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{id}/usage", tag = "subscriptions",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    responses((status = 200, body = UsageAnswer), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn usage(
    State(api): State<Arc<Api>>,
    caller: Reader,
    Ids(id): Ids<Uuid>,
) -> Result<Response, Problem> {
    let id = SubscriptionId::from_uuid(id);
    // What is remembered will do: who owns a subscription never changes.
    let known = api.router.catalog().find_subscription(id).await?;
    known.filter(|known| caller.sees(&known.tenant, id)).ok_or_else(missing)?;
    let view = api.router.usage(id).await.map_err(|error| unrouted(&error))?;
    Ok(respond(&api, snapshot(id, &view), None))
}

/// The live state as JSON.
fn snapshot(id: SubscriptionId, view: &UsageView) -> Vec<u8> {
    let decision = &view.decision;
    let mut text = Vec::with_capacity(640);
    let json = &mut text;
    field!(json, "{", "type", push_plain, "snapshot");
    field!(json, ",", "subscriptionId", push_uuid, id.uuid());
    standing(json, decision);
    field!(json, ",", "overageUnits", push_units, overage_units(decision).get());
    json.extend_from_slice(br#","overageAmount":null"#);
    field!(json, ",", "currency", push_string, &decision.plan.currency);
    quotas_and_rates(json, decision);
    json.extend_from_slice(br#","requestsPerSecond":null,"deniedPerSecond":null"#);
    field!(json, ",", "at", push_moment, view.at);
    json.push(b'}');
    text
}

/// Units of the first quota beyond what is included.
fn overage_units(decision: &Decision) -> Units {
    decision.quotas.first().map_or(Units::ZERO, QuotaView::overage_units)
}
