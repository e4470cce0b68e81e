//! `GET /api/v1/usage/stats`: one subscription's usage in a range.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_config::limits::{ENDPOINTS_PER_MINUTE_MAX, PATH_BYTES_MAX};

use super::super::Api;
use super::super::auth::Reader;
use super::super::moment::Moment;
use super::super::parameters::Parameters;
use super::super::problem::{Problem, ProblemBody};
use super::range::Range;
use super::{invalid, subscription_parameter, within_reach};
use crate::analytics::{self, Latency, Measure, Stats, StatsFilter};

/// Endpoints in one answer: as many as a minute keeps apart. More: a page nobody reads.
const ENDPOINTS_MAX: usize = ENDPOINTS_PER_MINUTE_MAX;

/// Which usage.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// Whose.
    subscription_id: String,
    /// RFC 3339, inclusive; a day before `to` by default.
    from: Option<String>,
    /// RFC 3339, exclusive; now by default.
    to: Option<String>,
    /// Only if the subscription is for this API; otherwise everything is zero.
    api_id: Option<String>,
    /// Only this path, exactly as it was recorded.
    path: Option<String>,
}

/// One subscription's usage.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageStats {
    /// Whose.
    subscription_id: String,
    /// Inclusive.
    from: Moment,
    /// Exclusive.
    to: Moment,
    /// Requests reported, refused ones too.
    requests: i64,
    /// Units that these requests were charged on the meter `requests`. Adjustments and commits of
    /// reservations are no requests: they are in the subscription's `used`.
    units: i64,
    /// Requests that the gateway refused.
    denied: i64,
    /// Status 400 and above, without refusals.
    errors: i64,
    /// Request bytes.
    bytes_in: i64,
    /// Response bytes.
    bytes_out: i64,
    /// Requests by HTTP status.
    status_codes: BTreeMap<String, u64>,
    /// Response times in milliseconds.
    latency: LatencyStats,
    /// Requests by country (ISO 3166).
    countries: BTreeMap<String, u64>,
    /// Most requests first, at most 200. What goes beyond the endpoints kept apart in a minute is
    /// one, with path and method `*`.
    endpoints: Vec<EndpointStats>,
}

/// Response times in milliseconds, within 1 % (`max` is exact); null when nothing was timed.
#[derive(Debug, Serialize, ToSchema)]
pub struct LatencyStats {
    /// Half were faster.
    p50: Option<f64>,
    /// 95 of 100 were faster.
    p95: Option<f64>,
    /// 99 of 100 were faster.
    p99: Option<f64>,
    /// The slowest.
    max: Option<f64>,
}

/// An endpoint's share.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStats {
    /// Path as reported.
    path: String,
    /// HTTP method.
    method: String,
    /// Requests.
    requests: i64,
    /// 95 of 100 were answered faster, in milliseconds; null when nothing was timed.
    p95: Option<f64>,
    /// `errors / requests`, 0 to 1.
    error_rate: f64,
}

/// One subscription's usage in a range of time, exact to the event.
///
/// Percentiles are within 1 % of the true value, merged from sketches, never averaged.
#[utoipa::path(
    get, path = "/api/v1/usage/stats", tag = "read", security(("bearer" = [])),
    params(StatsQuery),
    responses((status = 200, body = UsageStats), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn stats(
    State(api): State<Arc<Api>>,
    caller: Reader,
    Parameters(query): Parameters<StatsQuery>,
) -> Result<JsonAnswer<UsageStats>, Problem> {
    let id = subscription_parameter(&query.subscription_id)?;
    let range = Range::parse(query.from.as_deref(), query.to.as_deref(), api.clock.now())?;
    if query.path.as_ref().is_some_and(|path| path.len() > PATH_BYTES_MAX) {
        return Err(invalid(format!("`path` must have at most {PATH_BYTES_MAX} bytes")));
    }
    let known = within_reach(&api, &caller, id).await?;
    let other_api = query.api_id.is_some_and(|asked| known.api_id.as_ref() != Some(&asked));
    let stats = if other_api {
        Stats::default()
    } else {
        let filter = StatsFilter { path: query.path };
        api.analytics.stats(id, range.from, range.to, filter).await?
    };
    Ok(JsonAnswer(shown(id.to_string(), range, &stats)))
}

fn shown(subscription_id: String, range: Range, stats: &Stats) -> UsageStats {
    let sums = stats.total.measure.sums;
    let by_status = stats.total.statuses().iter();
    let by_country = stats.total.countries().iter();
    UsageStats {
        subscription_id,
        from: Moment(range.from),
        to: Moment(range.to),
        requests: sums.requests,
        units: sums.units,
        denied: sums.denied,
        errors: sums.errors,
        bytes_in: sums.bytes_in,
        bytes_out: sums.bytes_out,
        status_codes: by_status.map(|(status, &count)| (status.to_string(), count)).collect(),
        latency: latency(&stats.total.measure.latency),
        countries: by_country.map(|(country, &count)| (country.to_string(), count)).collect(),
        endpoints: stats.endpoints.iter().take(ENDPOINTS_MAX).map(endpoint).collect(),
    }
}

fn latency(latency: &Latency) -> LatencyStats {
    LatencyStats {
        p50: latency.quantile_ms(0.5),
        p95: latency.quantile_ms(0.95),
        p99: latency.quantile_ms(0.99),
        max: latency.max_ms(),
    }
}

fn endpoint(endpoint: &analytics::Endpoint) -> EndpointStats {
    EndpointStats {
        path: endpoint.path.to_string(),
        method: endpoint.method.to_string(),
        requests: endpoint.measure.sums.requests,
        p95: endpoint.measure.latency.quantile_ms(0.95),
        error_rate: error_rate(&endpoint.measure),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people; counts stay below 2^53")]
fn error_rate(measure: &Measure) -> f64 {
    // Without requests there is no rate; nothing failed then either.
    measure.sums.errors as f64 / measure.sums.requests.max(1) as f64
}

#[cfg(test)]
mod tests {
    use weir_core::units::Micros;
    use weir_store::rows::RollupSums;

    use super::*;
    use crate::analytics::Endpoint;

    const DAY: Range = Range { from: Micros::EPOCH, to: Micros::from_seconds(86_400) };

    #[test]
    fn nothing_used_is_zeros_and_nulls() {
        let json = serde_json::to_value(shown("id".into(), DAY, &Stats::default())).unwrap();
        let expected = serde_json::json!({
            "subscriptionId": "id", "from": "1970-01-01T00:00:00.000Z",
            "to": "1970-01-02T00:00:00.000Z", "requests": 0, "units": 0, "denied": 0, "errors": 0,
            "bytesIn": 0, "bytesOut": 0, "statusCodes": {}, "countries": {}, "endpoints": [],
            "latency": {"p50": null, "p95": null, "p99": null, "max": null},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn an_answer_shows_the_busiest_endpoints_and_no_more_than_its_limit() {
        let endpoint = |number: usize| {
            let sums = RollupSums { requests: 4, errors: 1, ..RollupSums::default() };
            let mut latency = Latency::default();
            latency.record(12_500);
            let path = format!("/{number}").into();
            Endpoint { path, method: "GET".into(), measure: Measure { sums, latency } }
        };
        let stats = Stats { endpoints: (0..300).map(endpoint).collect(), ..Stats::default() };
        let json = serde_json::to_value(shown("id".into(), DAY, &stats)).unwrap();
        assert_eq!(json["endpoints"].as_array().map(Vec::len), Some(200));
        let first = serde_json::json!(
            {"path": "/0", "method": "GET", "requests": 4, "p95": 12.5, "errorRate": 0.25}
        );
        assert_eq!(json["endpoints"][0], first);
    }
}
