//! A decision as JSON.
//!
//! Written straight from the domain value, field names and punctuation as literals: it is the most
//! frequent answer, and a general serialiser, which looks at every character of every name, would
//! cost as much as deciding. [`CheckAnswer`] describes the same shape for readers; a test holds the
//! two together.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use utoipa::ToSchema;
use weir_core::meter::{Decision, QuotaView, Reason};
use weir_core::units::{ReservationId, SubscriptionId, Units};

use super::Api;
use super::text::{field, push_bool, push_list, push_moment, push_optional, push_plain};
use super::text::{push_string, push_units, push_uuid};
use crate::router::Verdict;

const OWNER: HeaderName = HeaderName::from_static("x-weir-owner");
const HOPS: HeaderName = HeaderName::from_static("x-weir-hops");

/// The answer to a check.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields))]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the JSON that `Body` writes")]
pub struct CheckAnswer {
    /// Whether the request may pass.
    allowed: bool,
    /// `ok`, `quota_exceeded`, `rate_limited`, `unknown_key`, `key_revoked`,
    /// `subscription_suspended`, `subscription_not_started`, `subscription_ended`.
    reason: String,
    /// Null for a key that is not good.
    subscription_id: Option<String>,
    /// Units a period of the first quota; null = unlimited.
    limit: Option<u64>,
    /// Units charged in the running period.
    used: u64,
    /// Units held by checks that were not settled yet.
    pending: u64,
    /// `max(0, limit - used - pending)`; null = unlimited.
    remaining: Option<u64>,
    /// Whether this request is charged beyond the limit.
    overage: bool,
    /// RFC 3339.
    period_start: Option<String>,
    /// RFC 3339; when the first quota starts anew.
    reset_at: Option<String>,
    /// Whole seconds, rounded up.
    retry_after: u64,
    /// Every quota.
    quotas: Vec<QuotaAnswer>,
    /// Every rate limit that the request matches.
    rate: Vec<RateAnswer>,
    /// Names of the quotas and rate limits that refused.
    violated: Vec<String>,
    /// `enforced`, `shadow`, `degraded`.
    mode: String,
    /// Id of the named hold, when one was asked for and given.
    reservation_id: Option<String>,
}

/// A quota in an answer.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields))]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the JSON that `Body` writes")]
pub struct QuotaAnswer {
    name: String,
    meter: String,
    limit: Option<u64>,
    used: u64,
    pending: u64,
    remaining: Option<u64>,
    reset_at: String,
}

/// A rate limit in an answer.
#[derive(ToSchema)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "camelCase", deny_unknown_fields))]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes the JSON that `Body` writes")]
pub struct RateAnswer {
    name: String,
    limit: u64,
    remaining: u64,
    reset_at: String,
}

/// What is said about a check.
pub enum Body<'a> {
    /// The meter's.
    Decided(SubscriptionId, &'a Decision),
    /// Without a meter.
    Refused(Reason),
}

impl<'a> From<&'a Verdict> for Body<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Decided(decided) => Self::Decided(decided.id, &decided.decision),
            Verdict::Refused(reason) => Self::Refused(*reason),
        }
    }
}

impl Body<'_> {
    /// Appends it as JSON.
    pub(super) fn push(&self, json: &mut Vec<u8>) {
        match self {
            Self::Decided(id, decision) => decided(json, *id, decision),
            Self::Refused(reason) => refused(json, *reason),
        }
    }
}

fn decided(json: &mut Vec<u8>, id: SubscriptionId, decision: &Decision) {
    field!(json, "{", "allowed", push_bool, decision.allowed);
    field!(json, ",", "reason", push_plain, decision.reason.as_str());
    field!(json, ",", "subscriptionId", push_uuid, id.uuid());
    standing(json, decision);
    field!(json, ",", "retryAfter", push_units, decision.retry_after.seconds_ceil());
    quotas_and_rates(json, decision);
    field!(json, ",", "violated", push_violated, decision);
    field!(json, ",", "mode", push_plain, decision.mode.as_str());
    let reservation = decision.reservation.map(ReservationId::uuid);
    field!(json, ",", "reservationId", push_optional, reservation, push_uuid);
    json.push(b'}');
}

/// The numbers of the first quota: fields that follow others.
pub(super) fn standing(json: &mut Vec<u8>, decision: &Decision) {
    let first: Option<&QuotaView> = decision.quotas.first();
    let limit = first.and_then(|quota| quota.limit).map(Units::get);
    let remaining = first.and_then(QuotaView::remaining).map(Units::get);
    field!(json, ",", "limit", push_optional, limit, push_units);
    field!(json, ",", "used", push_units, first.map_or(0, |quota| quota.used.get()));
    field!(json, ",", "pending", push_units, first.map_or(0, |quota| quota.pending.get()));
    field!(json, ",", "remaining", push_optional, remaining, push_units);
    field!(json, ",", "overage", push_bool, decision.overage);
    let start = first.map(|quota| quota.period_start);
    field!(json, ",", "periodStart", push_optional, start, push_moment);
    field!(json, ",", "resetAt", push_optional, first.map(|quota| quota.reset_at), push_moment);
}

fn refused(json: &mut Vec<u8>, reason: Reason) {
    field!(json, "{", "allowed", push_bool, false);
    field!(json, ",", "reason", push_plain, reason.as_str());
    json.extend_from_slice(
        concat!(
            r#","subscriptionId":null,"limit":null,"used":0,"pending":0,"remaining":0"#,
            r#","overage":false,"periodStart":null,"resetAt":null,"retryAfter":0"#,
            r#","quotas":[],"rate":[],"violated":[],"mode":"enforced","reservationId":null}"#,
        )
        .as_bytes(),
    );
}

/// `quotas` and `rate`: fields that follow others.
pub(super) fn quotas_and_rates(json: &mut Vec<u8>, decision: &Decision) {
    let plan = &decision.plan;
    json.extend_from_slice(br#","quotas":"#);
    push_list(json, plan.quotas.iter().zip(&decision.quotas), |json, (quota, view)| {
        field!(json, "{", "name", push_string, &quota.name);
        field!(json, ",", "meter", push_string, &quota.meter);
        field!(json, ",", "limit", push_optional, view.limit.map(Units::get), push_units);
        field!(json, ",", "used", push_units, view.used.get());
        field!(json, ",", "pending", push_units, view.pending.get());
        let remaining = view.remaining().map(Units::get);
        field!(json, ",", "remaining", push_optional, remaining, push_units);
        field!(json, ",", "resetAt", push_moment, view.reset_at);
        json.push(b'}');
    });
    // Decision and plan come from the same step, so every index is there.
    let rates = decision.rates.iter();
    let rates = rates.filter_map(|view| Some((plan.rates.get(usize::from(view.index))?, view)));
    json.extend_from_slice(br#","rate":"#);
    push_list(json, rates, |json, (rate, view)| {
        field!(json, "{", "name", push_string, &rate.name);
        field!(json, ",", "limit", push_units, rate.spec.limit().get());
        field!(json, ",", "remaining", push_units, view.remaining.get());
        field!(json, ",", "resetAt", push_moment, view.reset_at);
        json.push(b'}');
    });
}

fn push_violated(json: &mut Vec<u8>, decision: &Decision) {
    let (plan, violated) = (&decision.plan, decision.violated);
    let quotas = plan.quotas.iter().enumerate();
    let quotas = quotas.filter(|(index, _)| violated.quotas & (1 << index) != 0);
    let rates = plan.rates.iter().enumerate();
    let rates = rates.filter(|(index, _)| violated.rates & (1 << index) != 0);
    let names = quotas.map(|(_, quota)| &*quota.name).chain(rates.map(|(_, rate)| &*rate.name));
    push_list(json, names, push_string);
}

/// A response with the headers that every decision carries. `owner` is the node that decided, when it
/// was another.
pub(super) fn respond(api: &Api, json: Vec<u8>, owner: Option<HeaderValue>) -> Response {
    let hops = HeaderValue::from_static(if owner.is_some() { "1" } else { "0" });
    let mut response = json.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(OWNER, owner.unwrap_or_else(|| api.node_id.clone()));
    headers.insert(HOPS, hops);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use smallvec::smallvec;
    use uuid::Uuid;
    use weir_core::meter::{Mode, RateView, Violated};
    use weir_core::units::{Micros, PlanId, Span};

    use super::*;
    use crate::catalog::plan_document::parse;

    const PLAN: &str = r#"{"name":"p","currency":"USD","baseFee":"0",
     "quotas":[{"name":"calls","meter":"requests","limit":10,"every":"P1M","anchor":"calendar","enforcement":"hard"},
               {"name":"bytes","meter":"bytes","limit":null,"every":"P1M","anchor":"calendar","enforcement":"soft"}],
     "rateLimits":[{"name":"burst","limit":5,"window":"PT1S","algorithm":"token_bucket","burst":5}]}"#;

    fn units(count: u64) -> Units {
        Units::new(count).expect("within range")
    }

    fn decision() -> Decision {
        let id = PlanId::from_uuid(Uuid::from_u128(7));
        let plan = Arc::new(parse(PLAN.as_bytes(), id, 1).expect("a plan"));
        let (start, reset) = (Micros::from_micros(0), Micros::from_micros(2_678_400_000_000));
        let view = |limit: Option<u64>, used| QuotaView {
            limit: limit.map(units),
            used: units(used),
            pending: units(1),
            period_start: start,
            reset_at: reset,
            overage_from: limit.map(units),
            overage_floor: units(0),
        };
        Decision {
            allowed: false,
            reason: Reason::QuotaExceeded,
            mode: Mode::Enforced,
            overage: false,
            violated: Violated { quotas: 1, rates: 1 },
            retry_after: Span::from_micros(1_500_000),
            reservation: None,
            quotas: smallvec![view(Some(10), 8), view(None, 9_007_199_254_740_991)],
            rates: smallvec![RateView { index: 0, remaining: units(4), reset_at: reset }],
            plan: weir_core::meter::PlanOf::Plan(plan),
        }
    }

    fn written(body: &Body<'_>) -> CheckAnswer {
        let mut json = Vec::new();
        body.push(&mut json);
        // Refuses fields that the document does not have, and misses none of those it has.
        serde_json::from_slice(&json).expect("the documented shape")
    }

    #[test]
    fn what_is_written_is_what_the_document_describes() {
        let id = SubscriptionId::from_uuid(Uuid::from_u128(1));
        let mut decision = decision();
        let answer = written(&Body::Decided(id, &decision));
        assert_eq!(
            (answer.allowed, &*answer.reason, &*answer.mode),
            (false, "quota_exceeded", "enforced")
        );
        assert_eq!(answer.subscription_id, Some(id.uuid().to_string()));
        assert_eq!(
            (answer.limit, answer.used, answer.pending, answer.remaining),
            (Some(10), 8, 1, Some(1))
        );
        assert_eq!((answer.overage, answer.retry_after), (false, 2));
        assert_eq!(answer.period_start.as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(answer.reset_at.as_deref(), Some("1970-02-01T00:00:00.000Z"));
        assert_eq!(
            (answer.violated, answer.reservation_id),
            (vec!["calls".into(), "burst".into()], None)
        );
        let [calls, bytes] = &answer.quotas[..] else { panic!("two quotas") };
        assert_eq!((&*calls.name, &*calls.meter, calls.remaining), ("calls", "requests", Some(1)));
        assert_eq!((calls.limit, calls.used, calls.pending), (Some(10), 8, 1));
        assert_eq!((&*bytes.name, &*bytes.meter), ("bytes", "bytes"));
        assert_eq!((bytes.limit, bytes.remaining, bytes.used), (None, None, 9_007_199_254_740_991));
        let [rate] = &answer.rate[..] else { panic!("one rate limit") };
        assert_eq!((&*rate.name, rate.limit, rate.remaining), ("burst", 5, 4));
        assert_eq!([&*calls.reset_at, &*rate.reset_at], ["1970-02-01T00:00:00.000Z"; 2]);

        let hold = Uuid::from_u128(9);
        decision.reservation = Some(ReservationId::from_uuid(hold));
        let answer = written(&Body::Decided(id, &decision));
        assert_eq!(answer.reservation_id, Some(hold.to_string()));
    }

    #[test]
    fn a_refusal_without_a_meter_has_the_same_shape() {
        let answer = written(&Body::Refused(Reason::UnknownKey));
        assert_eq!((answer.allowed, &*answer.reason), (false, "unknown_key"));
        assert_eq!((answer.remaining, answer.quotas.len(), answer.rate.len()), (Some(0), 0, 0));
    }
}
