//! The live state of a subscription, as its owner has it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;
use weir_core::meter::Decision;
use weir_core::units::{SubscriptionId, Units};

use super::missing;
use crate::http::Api;
use crate::http::auth::Reader;
use crate::http::decision::{QuotaAnswer, Quotas, RateAnswer, Rates, respond, standing};
use crate::http::moment::Moment;
use crate::http::parameters::Ids;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::quota::undecided_problem;
use crate::shard::UsageView;

/// Where a subscription stands.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the JSON that `Snapshot` writes")]
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
    let view = api.router.usage(id).await.map_err(undecided_problem)?;
    Ok(respond(&api, &Snapshot { id, view: &view }))
}

/// Writes the live state.
struct Snapshot<'a> {
    id: SubscriptionId,
    view: &'a UsageView,
}

impl Serialize for Snapshot<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let decision = &self.view.decision;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", "snapshot")?;
        map.serialize_entry("subscriptionId", &self.id.to_string())?;
        standing(&mut map, decision)?;
        map.serialize_entry("overageUnits", &overage_units(decision).get())?;
        map.serialize_entry("overageAmount", &())?;
        map.serialize_entry("currency", &decision.terms.plan.currency)?;
        map.serialize_entry("quotas", &Quotas(decision))?;
        map.serialize_entry("rate", &Rates(decision))?;
        map.serialize_entry("requestsPerSecond", &())?;
        map.serialize_entry("deniedPerSecond", &())?;
        map.serialize_entry("at", &Moment(self.view.at))?;
        map.end()
    }
}

/// Units of the first quota beyond where its overage starts; see [`weir_core::meter::QuotaView`] for
/// the floor.
fn overage_units(decision: &Decision) -> Units {
    let start = decision.terms.quotas().first().and_then(|quota| quota.overage_from);
    match (decision.quotas.first(), start) {
        (Some(view), Some(start)) => view.used.saturating_sub(start.max(view.overage_floor)),
        _ => Units::ZERO,
    }
}
