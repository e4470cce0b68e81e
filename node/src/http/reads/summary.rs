//! `GET /api/v1/usage/summary`: all subscriptions that a token may see, at a glance.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use weir_core::units::{Micros, Span};
use weir_store::rows::{CheckpointRow, RollupSums};
use weir_store::{Reach, SubscriptionUsage};

use super::super::Api;
use super::super::auth::Reader;
use super::super::moment::Moment;
use super::super::parameters::Parameters;
use super::super::problem::{Problem, ProblemBody};
use super::invalid;
use super::range::Range;

/// Entries of each list when the caller does not say, and at most. More: a glance becomes a report.
const LIMIT_DEFAULT: u32 = 10;
const LIMIT_MAX: u32 = 100;
/// From this share of its limit on a subscription is listed, in percent: the first default threshold.
const NEAR_LIMIT_PERCENT: f64 = 80.0;
/// A minute in microseconds.
const MINUTE: Span = Span::from_seconds(60);

/// Which range, and how long the lists are.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SummaryQuery {
    /// RFC 3339, inclusive, rounded down to the minute; a day before `to` by default.
    from: Option<String>,
    /// RFC 3339, exclusive, rounded up to the minute; now by default.
    to: Option<String>,
    /// Entries of each list, 1 to 100; 10 by default.
    limit: Option<u32>,
}

/// All subscriptions at a glance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageSummary {
    /// Inclusive, a whole minute.
    from: Moment,
    /// Exclusive, a whole minute.
    to: Moment,
    /// How many subscriptions the token may see.
    subscriptions: u64,
    /// Sums over all of them.
    totals: SummaryTotals,
    /// Requests a second over the last 60 seconds: what the running minute has, and of the minute
    /// before it the share that lies within the 60 seconds. Whatever `from` and `to` are.
    requests_per_second: f64,
    /// Subscriptions that used 80 % or more of their first quota, fullest first.
    near_limit: Vec<NearLimit>,
    /// Most requests first.
    top: Vec<TopSubscription>,
}

/// Sums over subscriptions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SummaryTotals {
    /// Requests reported, refused ones too.
    requests: i64,
    /// Units charged on the meter `requests`.
    units: i64,
    /// Requests that gateways refused.
    denied: i64,
    /// Status 400 and above, without refusals.
    errors: i64,
    /// Request bytes.
    bytes_in: i64,
    /// Response bytes.
    bytes_out: i64,
}

/// A subscription that is near its limit or beyond it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NearLimit {
    /// Which.
    subscription_id: String,
    /// Units used in the running period of the first quota, as of its last checkpoint (about a second
    /// ago).
    used: i64,
    /// That quota's limit.
    limit: i64,
    /// `used / limit` in percent, to two decimals; above 100 with overage.
    percentage: f64,
    /// When the period ends.
    reset_at: Moment,
}

/// A subscription with much traffic.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopSubscription {
    /// Which.
    subscription_id: String,
    /// Requests reported, refused ones too.
    requests: i64,
    /// Units charged on the meter `requests`.
    units: i64,
    /// Status 400 and above, without refusals.
    errors: i64,
}

/// All subscriptions that the token may see: totals, live rate, those near their limit, the busiest.
#[utoipa::path(
    get, path = "/api/v1/usage/summary", tag = "read", security(("bearer" = [])),
    params(SummaryQuery),
    responses((status = 200, body = UsageSummary), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn summary(
    State(api): State<Arc<Api>>,
    caller: Reader,
    Parameters(query): Parameters<SummaryQuery>,
) -> Result<JsonAnswer<UsageSummary>, Problem> {
    let now = api.clock.now();
    let limit = limit(query.limit)?;
    let range = Range::parse(query.from.as_deref(), query.to.as_deref(), now)?.whole_minutes();
    let (store, reach) = (&api.store, &caller.reach);
    let totals = store.usage_totals(reach, range.from, range.to).await?;
    let top = store.usage_by_subscription(reach, range.from, range.to, limit).await?;
    let fullest = store.fullest(reach, now, limit).await?;
    Ok(JsonAnswer(UsageSummary {
        from: Moment(range.from),
        to: Moment(range.to),
        subscriptions: store.count_subscriptions(reach).await?,
        totals: SummaryTotals::from(totals),
        requests_per_second: requests_per_second(&api, reach, now).await?,
        near_limit: near_limit(&fullest),
        top: top.into_iter().map(TopSubscription::from).collect(),
    }))
}

fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        Ok(limit)
    } else {
        Err(invalid(format!("`limit` must be from 1 to {LIMIT_MAX}")))
    }
}

async fn requests_per_second(api: &Api, reach: &Reach, now: Micros) -> Result<f64, Problem> {
    let running = Range { from: now, to: now.plus(Span::from_micros(1)) }.whole_minutes();
    let before = running.from.minus(MINUTE);
    let earlier = api.store.usage_totals(reach, before, running.from).await?.requests;
    let current = api.store.usage_totals(reach, running.from, running.to).await?.requests;
    Ok(rate(earlier, current, now.since(running.from)))
}

/// A sliding window of one minute over two fixed ones.
#[expect(clippy::cast_precision_loss, reason = "a rate for people; counts stay below 2^53")]
fn rate(earlier: i64, current: i64, into_minute: Span) -> f64 {
    let passed = into_minute.get() as f64 / MINUTE.get() as f64;
    let requests = earlier as f64 * (1.0 - passed) + current as f64;
    two_decimals(requests / 60.0)
}

fn near_limit(fullest: &[CheckpointRow]) -> Vec<NearLimit> {
    fullest
        .iter()
        .filter_map(|checkpoint| {
            let limit = checkpoint.quota_limit?;
            let percentage = percentage(checkpoint.used, limit);
            (percentage >= NEAR_LIMIT_PERCENT).then(|| NearLimit {
                subscription_id: checkpoint.subscription.to_string(),
                used: checkpoint.used,
                limit,
                percentage,
                reset_at: Moment(checkpoint.period_end),
            })
        })
        .collect()
}

/// A limit of nothing is always full.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people; units stay below 2^53")]
fn percentage(used: i64, limit: i64) -> f64 {
    if limit <= 0 { 100.0 } else { two_decimals(used as f64 * 100.0 / limit as f64) }
}

fn two_decimals(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

impl From<RollupSums> for SummaryTotals {
    fn from(sums: RollupSums) -> Self {
        Self {
            requests: sums.requests,
            units: sums.units,
            denied: sums.denied,
            errors: sums.errors,
            bytes_in: sums.bytes_in,
            bytes_out: sums.bytes_out,
        }
    }
}

impl From<SubscriptionUsage> for TopSubscription {
    fn from(usage: SubscriptionUsage) -> Self {
        Self {
            subscription_id: usage.subscription.to_string(),
            requests: usage.sums.requests,
            units: usage.sums.units,
            errors: usage.sums.errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use weir_core::units::{Epoch, Seq, ShardId, SubscriptionId};

    use super::*;

    fn checkpoint(number: u128, used: i64, limit: Option<i64>, ends: i64) -> CheckpointRow {
        CheckpointRow {
            subscription: SubscriptionId::from_uuid(Uuid::from_u128(number)),
            shard: ShardId(0),
            epoch: Epoch(1),
            version: 1,
            last_seq: Seq(0),
            used,
            quota_limit: limit,
            period_start: Micros::EPOCH,
            period_end: Micros::from_seconds(ends),
            escrow_hi: 0,
            clean: true,
            snapshot: Vec::new(),
            taken_at: Micros::EPOCH,
        }
    }

    #[test]
    fn near_the_limit_are_those_at_eighty_percent() {
        let fullest = [
            checkpoint(1, 0, Some(0), 100),
            checkpoint(2, 150, Some(100), 100),
            checkpoint(4, 80, Some(100), 100),
            checkpoint(5, 799, Some(1_000), 100),
            checkpoint(6, 900, None, 100),
        ];
        let listed: Vec<(String, f64)> = near_limit(&fullest)
            .into_iter()
            .map(|entry| (entry.subscription_id, entry.percentage))
            .collect();
        let id = |number| Uuid::from_u128(number).to_string();
        assert_eq!(listed, [(id(1), 100.0), (id(2), 150.0), (id(4), 80.0)]);
    }

    #[test]
    fn the_live_rate_slides_from_one_minute_into_the_next() {
        for (earlier, current, seconds, expected) in [
            (600, 0, 0, 10.0),
            (600, 0, 30, 5.0),
            (600, 300, 30, 10.0),
            (0, 59, 59, 0.98),
            (0, 0, 10, 0.0),
        ] {
            let found = rate(earlier, current, Span::from_seconds(seconds));
            assert!((found - expected).abs() < 1e-9, "{earlier} {current} {seconds}: {found}");
        }
    }

    #[test]
    fn a_limit_is_held_to_its_range() {
        for (asked, expected) in
            [(None, Some(10)), (Some(100), Some(100)), (Some(0), None), (Some(101), None)]
        {
            assert_eq!(limit(asked).ok(), expected, "{asked:?}");
        }
    }
}
