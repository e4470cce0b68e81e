//! `GET /api/v1/usage/trends`: one subscription's usage by minute, hour, day or month.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::calendar::{Every, Period, Zone};

use super::super::Api;
use super::super::auth::Reader;
use super::super::moment::Moment;
use super::super::parameters::Parameters;
use super::super::problem::{Problem, ProblemBody};
use super::range::Range;
use super::{invalid, subscription_parameter, within_reach};
use crate::analytics::{Buckets, Measure, TooManyBuckets};

/// What a trend may be cut into.
const GRANULARITIES: [&str; 4] = ["PT1M", "PT1H", "P1D", "P1M"];
const GRANULARITY_DEFAULT: &str = "PT1H";

/// Which usage, and how finely.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TrendsQuery {
    /// Whose.
    subscription_id: String,
    /// `PT1M`, `PT1H` (default), `P1D` or `P1M`.
    granularity: Option<String>,
    /// RFC 3339, inclusive; a day before `to` by default.
    from: Option<String>,
    /// RFC 3339, exclusive; now by default.
    to: Option<String>,
    /// IANA name of the zone whose hours, days and months are meant; UTC by default.
    time_zone: Option<String>,
}

/// Usage by bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct Trends {
    /// Every bucket that the range touches, in order, empty ones too.
    data: Vec<TrendBucket>,
}

/// A calendar minute, hour, day or month. Only what lies in the asked range is counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrendBucket {
    /// Inclusive; the first bucket may begin before the range.
    start: Moment,
    /// Exclusive; the last bucket may end after the range.
    end: Moment,
    /// Requests reported, refused ones too.
    requests: i64,
    /// Units charged on the meter `requests`.
    units: i64,
    /// Status 400 and above, without refusals.
    errors: i64,
    /// Requests that the gateway refused.
    denied: i64,
    /// Half were answered faster, in milliseconds; null when nothing was timed.
    p50: Option<f64>,
    /// 95 of 100 were answered faster.
    p95: Option<f64>,
    /// 99 of 100 were answered faster.
    p99: Option<f64>,
}

/// One subscription's usage over time, empty buckets included.
#[utoipa::path(
    get, path = "/api/v1/usage/trends", tag = "read", security(("bearer" = [])),
    params(TrendsQuery),
    responses((status = 200, body = Trends), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 422, description = "`too_many_buckets`", body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn trends(
    State(api): State<Arc<Api>>,
    caller: Reader,
    Parameters(query): Parameters<TrendsQuery>,
) -> Result<JsonAnswer<Trends>, Problem> {
    let id = subscription_parameter(&query.subscription_id)?;
    let every = granularity(query.granularity.as_deref().unwrap_or(GRANULARITY_DEFAULT))?;
    let zone = zone(query.time_zone.as_deref())?;
    let range = Range::parse(query.from.as_deref(), query.to.as_deref(), api.clock.now())?;
    within_reach(&api, &caller, id).await?;
    let buckets = Buckets::new(every, zone, range.from, range.to)?;
    let measures = api.analytics.trends(id, range.from, range.to, &buckets).await?;
    let data = buckets.as_slice().iter().zip(&measures).map(bucket).collect();
    Ok(JsonAnswer(Trends { data }))
}

impl From<TooManyBuckets> for Problem {
    fn from(error: TooManyBuckets) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too_many_buckets", error.to_string())
    }
}

fn granularity(text: &str) -> Result<Every, Problem> {
    let named = GRANULARITIES.contains(&text).then(|| Every::parse(text).ok()).flatten();
    named.ok_or_else(|| {
        invalid(format!("`granularity` must be one of {}", GRANULARITIES.join(", ")))
    })
}

fn zone(name: Option<&str>) -> Result<Zone, Problem> {
    let Some(name) = name else { return Ok(Zone::utc()) };
    Zone::parse(name).map_err(|error| invalid(format!("`timeZone`: {error}")))
}

fn bucket((period, measure): (&Period, &Measure)) -> TrendBucket {
    TrendBucket {
        start: Moment(period.start),
        end: Moment(period.end),
        requests: measure.sums.requests,
        units: measure.sums.units,
        errors: measure.sums.errors,
        denied: measure.sums.denied,
        p50: measure.latency.quantile_ms(0.5),
        p95: measure.latency.quantile_ms(0.95),
        p99: measure.latency.quantile_ms(0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_granularities_are_taken() {
        for text in GRANULARITIES {
            assert!(granularity(text).is_ok(), "{text}");
        }
        for text in ["", "PT1S", "PT60M", "P1W", "1h", "pt1h", "day"] {
            let problem = granularity(text).expect_err(text);
            assert_eq!(problem.code(), "invalid_parameter", "{text}");
        }
    }

    #[test]
    fn a_zone_is_an_iana_name_or_utc() {
        assert_eq!(zone(None).unwrap().name(), "UTC");
        assert_eq!(zone(Some("Europe/Berlin")).unwrap().name(), "Europe/Berlin");
        for name in ["", "Mars/Olympus", "+02:00"] {
            assert_eq!(zone(Some(name)).expect_err(name).code(), "invalid_parameter", "{name}");
        }
    }
}
