//! A decision as JSON.
//!
//! Written straight from the domain value: it is the most frequent answer, and copying it into a
//! body first would cost as much as deciding. [`CheckAnswer`] describes the same shape for readers;
//! a test holds the two together.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use weir_core::meter::{Decision, QuotaView, Reason};
use weir_core::units::{ReservationId, SubscriptionId, Units};

use super::Api;
use super::moment::Moment;
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
    /// `subscription_suspended`, `subscription_not_started`, `subscription_ended`,
    /// `too_many_reservations`.
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

/// Writes the answer to a check.
pub enum Body<'a> {
    /// The meter's.
    Decided(SubscriptionId, &'a Decision),
    /// Without a meter.
    Refused(Reason),
}

impl<'a> From<&'a Verdict> for Body<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Decided(id, decision) => Self::Decided(*id, decision),
            Verdict::Refused(reason) => Self::Refused(*reason),
        }
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Decided(id, decision) => decided(&mut map, *id, decision)?,
            Self::Refused(reason) => refused(&mut map, *reason)?,
        }
        map.end()
    }
}

fn decided<M: SerializeMap>(
    map: &mut M,
    id: SubscriptionId,
    decision: &Decision,
) -> Result<(), M::Error> {
    map.serialize_entry("allowed", &decision.allowed)?;
    map.serialize_entry("reason", decision.reason.as_str())?;
    map.serialize_entry("subscriptionId", &id.uuid())?;
    standing(map, decision)?;
    map.serialize_entry("retryAfter", &decision.retry_after.seconds_ceil())?;
    map.serialize_entry("quotas", &Quotas(decision))?;
    map.serialize_entry("rate", &Rates(decision))?;
    map.serialize_entry("violated", &Violated(decision))?;
    map.serialize_entry("mode", decision.mode.as_str())?;
    map.serialize_entry("reservationId", &decision.reservation.map(ReservationId::uuid))
}

/// The numbers of the first quota.
pub(super) fn standing<M: SerializeMap>(map: &mut M, decision: &Decision) -> Result<(), M::Error> {
    let first: Option<&QuotaView> = decision.quotas.first();
    map.serialize_entry("limit", &first.and_then(|quota| quota.limit).map(Units::get))?;
    map.serialize_entry("used", &first.map_or(0, |quota| quota.used.get()))?;
    map.serialize_entry("pending", &first.map_or(0, |quota| quota.pending.get()))?;
    map.serialize_entry("remaining", &first.and_then(QuotaView::remaining).map(Units::get))?;
    map.serialize_entry("overage", &decision.overage)?;
    map.serialize_entry("periodStart", &first.map(|quota| Moment(quota.period_start)))?;
    map.serialize_entry("resetAt", &first.map(|quota| Moment(quota.reset_at)))
}

fn refused<M: SerializeMap>(map: &mut M, reason: Reason) -> Result<(), M::Error> {
    const NONE: [(); 0] = [];
    map.serialize_entry("allowed", &false)?;
    map.serialize_entry("reason", reason.as_str())?;
    for key in ["subscriptionId", "limit"] {
        map.serialize_entry(key, &())?;
    }
    map.serialize_entry("used", &0)?;
    map.serialize_entry("pending", &0)?;
    map.serialize_entry("remaining", &0)?;
    map.serialize_entry("overage", &false)?;
    for key in ["periodStart", "resetAt"] {
        map.serialize_entry(key, &())?;
    }
    map.serialize_entry("retryAfter", &0)?;
    for key in ["quotas", "rate", "violated"] {
        map.serialize_entry(key, &NONE)?;
    }
    map.serialize_entry("mode", "enforced")?;
    map.serialize_entry("reservationId", &())
}

/// `quotas` of an answer.
pub(super) struct Quotas<'a>(pub(super) &'a Decision);

impl Serialize for Quotas<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.quotas.len()))?;
        for (quota, view) in self.0.terms.plan.quotas.iter().zip(&self.0.quotas) {
            list.serialize_element(&QuotaBody {
                name: &quota.name,
                meter: &quota.meter,
                limit: view.limit.map(Units::get),
                used: view.used.get(),
                pending: view.pending.get(),
                remaining: view.remaining().map(Units::get),
                reset_at: Moment(view.reset_at),
            })?;
        }
        list.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotaBody<'a> {
    name: &'a str,
    meter: &'a str,
    limit: Option<u64>,
    used: u64,
    pending: u64,
    remaining: Option<u64>,
    reset_at: Moment,
}

/// `rate` of an answer.
pub(super) struct Rates<'a>(pub(super) &'a Decision);

impl Serialize for Rates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.rates.len()))?;
        for view in &self.0.rates {
            // Decision and terms come from the same step, so the index is there.
            if let Some(rate) = self.0.terms.plan.rates.get(usize::from(view.index)) {
                list.serialize_element(&RateBody {
                    name: &rate.name,
                    limit: rate.spec.limit().get(),
                    remaining: view.remaining.get(),
                    reset_at: Moment(view.reset_at),
                })?;
            }
        }
        list.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RateBody<'a> {
    name: &'a str,
    limit: u64,
    remaining: u64,
    reset_at: Moment,
}

struct Violated<'a>(&'a Decision);

impl Serialize for Violated<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (plan, violated) = (&self.0.terms.plan, self.0.violated);
        let quotas = plan.quotas.iter().enumerate();
        let quotas = quotas.filter(|(index, _)| violated.quotas & (1 << index) != 0);
        let rates = plan.rates.iter().enumerate();
        let rates = rates.filter(|(index, _)| violated.rates & (1 << index) != 0);
        let names = quotas.map(|(_, quota)| &*quota.name).chain(rates.map(|(_, rate)| &*rate.name));
        serializer.collect_seq(names)
    }
}

/// A decision's response, with the headers that every decision carries.
pub(super) fn respond(api: &Api, body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(640);
    // Numbers and strings only: this cannot fail.
    let written = serde_json::to_writer(&mut bytes, body);
    debug_assert!(written.is_ok());
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(OWNER, api.node_id.clone());
    headers.insert(HOPS, HeaderValue::from_static("0"));
    response
}
