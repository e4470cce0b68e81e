//! The admin and read calls of the contract, typed. Not used on the measured path.
//!
//! Unknown fields in answers are ignored: the server may say more than the simulator needs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;
use crate::client::{Answer, Endpoint, Failure, Lane, Prepared};
use crate::clock;

/// How long an admin call is tried again while Weir answers 503 or not at all. Longer than a
/// fail-over (lease + 2 s), shorter than a person's patience.
const TRY_FOR: Duration = Duration::from_secs(20);
/// Wait between two tries.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// One admin call may take this long; creating a subscription is one small transaction.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent admin calls: enough to fill the server's group commit, few enough to be no load test.
pub const CONCURRENCY: usize = 16;
/// How much of an error body is shown.
const DETAIL_CHARS_MAX: usize = 300;

/// One connection with one token.
#[derive(Debug)]
pub struct Api {
    lane: Lane,
    authorization: HeaderValue,
}

/// The answer to making a subscription or a key.
#[derive(Debug, Clone, Deserialize)]
pub struct Created {
    /// The new resource.
    pub id: String,
    /// The key in clear, shown once; absent on plans.
    pub key: Option<String>,
}

/// `GET /api/v1/subscriptions/{id}/usage`, as far as the ledger check needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Usage {
    /// Units charged in the current period.
    pub used: u64,
    /// Units held by checks whose events have not arrived.
    pub pending: u64,
    /// The hard or included limit; none on an unlimited plan.
    pub limit: Option<u64>,
}

/// `GET /api/v1/usage/stats`, as far as the ledger check needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Stats {
    /// Requests recorded.
    pub requests: u64,
    /// Units recorded.
    pub units: u64,
    /// Response bytes recorded.
    pub bytes_out: u64,
    /// Requests by status.
    pub status_codes: BTreeMap<String, u64>,
}

/// One bucket of `GET /api/v1/usage/trends`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TrendBucket {
    /// Start of the bucket, RFC 3339.
    pub start: String,
    /// Requests recorded in it.
    pub requests: u64,
}

#[derive(Debug, Deserialize)]
struct Trends {
    data: Vec<TrendBucket>,
}

/// What a new subscription is called and where it belongs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSubscription<'a> {
    /// The plan it follows.
    pub plan_id: &'a str,
    /// Our name for it.
    pub external_id: &'a str,
    /// The tenant it belongs to.
    pub tenant: &'a str,
    /// An own key, so that a run can be taken up again; made by Weir otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// Free form; the simulator puts the run's name there.
    pub metadata: Value,
}

/// Where a peek (a check of cost 0) led.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peek {
    /// Whether a request would pass.
    pub allowed: bool,
    /// The decision's reason.
    pub reason: String,
    /// The subscription behind the key, when it is known.
    pub subscription_id: Option<String>,
}

impl Api {
    /// An admin connection that begins at target number `first`.
    pub fn new(endpoints: Arc<[Endpoint]>, first: usize, authorization: HeaderValue) -> Self {
        Self { lane: Lane::new(endpoints, first, CALL_TIMEOUT), authorization }
    }

    /// One connection for each of [`CONCURRENCY`] concurrent callers.
    pub fn several(endpoints: &Arc<[Endpoint]>, authorization: &HeaderValue) -> Vec<Self> {
        (0..CONCURRENCY)
            .map(|index| Self::new(Arc::clone(endpoints), index, authorization.clone()))
            .collect()
    }

    /// Fails when nobody answers `/livez` at the lane's targets; tried once per target.
    pub async fn reach(&mut self, targets: usize) -> Result<(), Error> {
        let request = Prepared::get(Uri::from_static("/livez"), HeaderMap::new());
        let mut outcome = self.lane.call(&request).await;
        for _ in 1..targets {
            if outcome.is_ok() {
                break;
            }
            outcome = self.lane.call(&request).await;
        }
        match outcome {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(refused("GET /livez", &answer)),
            Err(source) => Err(self.unreachable(source)),
        }
    }

    /// `POST /api/v1/plans`.
    pub async fn create_plan(&mut self, plan: &Value) -> Result<Created, Error> {
        self.post("/api/v1/plans", plan).await
    }

    /// `POST /api/v1/subscriptions`.
    pub async fn create_subscription(
        &mut self,
        subscription: &NewSubscription<'_>,
    ) -> Result<Created, Error> {
        self.post("/api/v1/subscriptions", subscription).await
    }

    /// `POST /api/v1/subscriptions/{id}/keys`.
    pub async fn create_key(&mut self, subscription: &str) -> Result<Created, Error> {
        self.post(&format!("/api/v1/subscriptions/{subscription}/keys"), &json!({})).await
    }

    /// `DELETE /api/v1/subscriptions/{id}/keys/{keyId}`.
    pub async fn revoke_key(&mut self, subscription: &str, key: &str) -> Result<(), Error> {
        let path = format!("/api/v1/subscriptions/{subscription}/keys/{key}");
        self.call(Method::DELETE, &path, HeaderMap::new(), Bytes::new()).await.map(drop)
    }

    /// A check of cost 0: changes nothing, but wakes the subscription's actor.
    pub async fn peek(&mut self, key: &str) -> Result<Peek, Error> {
        let mut headers = HeaderMap::new();
        headers.insert("x-subscription-key", key_header(key)?);
        self.read("/api/v1/quota/check?cost=0", headers).await
    }

    /// `GET /api/v1/subscriptions/{id}/usage`.
    pub async fn usage(&mut self, subscription: &str) -> Result<Usage, Error> {
        let path = format!("/api/v1/subscriptions/{subscription}/usage");
        self.read(&path, HeaderMap::new()).await
    }

    /// `GET /api/v1/usage/stats` of one subscription.
    pub async fn stats(&mut self, subscription: &str, range: &Range) -> Result<Stats, Error> {
        let path = format!("/api/v1/usage/stats?subscriptionId={subscription}&{}", range.query());
        self.read(&path, HeaderMap::new()).await
    }

    /// `GET /api/v1/usage/trends` of one subscription, a bucket a UTC day.
    pub async fn days(
        &mut self,
        subscription: &str,
        range: &Range,
    ) -> Result<Vec<TrendBucket>, Error> {
        let path = format!(
            "/api/v1/usage/trends?subscriptionId={subscription}&granularity=P1D&timeZone=UTC&{}",
            range.query()
        );
        let trends: Trends = self.read(&path, HeaderMap::new()).await?;
        Ok(trends.data)
    }

    /// `GET /api/v1/usage/summary`, as it comes: its shape is the dashboard's business.
    pub async fn summary(&mut self) -> Result<Value, Error> {
        self.read("/api/v1/usage/summary", HeaderMap::new()).await
    }

    async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let operation = || format!("POST {path}");
        let body = serde_json::to_vec(body)
            .map_err(|source| Error::Unreadable { operation: operation(), source })?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.call(Method::POST, path, headers, body.into()).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|source| Error::Unreadable { operation: operation(), source })
    }

    async fn read<T: DeserializeOwned>(
        &mut self,
        path: &str,
        headers: HeaderMap,
    ) -> Result<T, Error> {
        let answer = self.call(Method::GET, path, headers, Bytes::new()).await?;
        serde_json::from_slice(&answer.body)
            .map_err(|source| Error::Unreadable { operation: format!("GET {path}"), source })
    }

    /// One call, tried again while the answer is 503 or the connection cannot be made. A call whose
    /// outcome is unknown is repeated only when it is a read.
    async fn call(
        &mut self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Error> {
        headers.insert(AUTHORIZATION, self.authorization.clone());
        let operation = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let uri = path
            .parse::<Uri>()
            .map_err(|why| Error::usage(format!("{operation}: not a path ({why})")))?;
        let may_repeat = method == Method::GET;
        let request = Prepared { method, uri, headers, body };
        let give_up_at = clock::now() + TRY_FOR;
        loop {
            let out_of_time = clock::now() >= give_up_at;
            match self.lane.call(&request).await {
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE && !out_of_time => {}
                Ok(answer) => return Err(refused(&operation, &answer)),
                Err(failure) if (may_repeat || failure.is_unsent()) && !out_of_time => {}
                Err(source) => return Err(self.unreachable(source)),
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    fn unreachable(&self, source: Failure) -> Error {
        Error::Unreachable { target: self.lane.endpoint().authority().to_owned(), source }
    }
}

/// The key as a header value, marked sensitive.
pub(crate) fn key_header(key: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(key)
        .map_err(|_| Error::usage("Weir made a key that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The time range asked of the ledger, `[from, to)`, in Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// Start, inclusive.
    pub from_ms: i64,
    /// End, exclusive.
    pub to_ms: i64,
}

const HOUR_MS: i64 = 3_600_000;

impl Range {
    /// Covers both times with whole UTC hours and one more on either side, so that no bucket of the
    /// server's analytics is cut, whatever its granularity below an hour.
    pub fn around(first_ms: i64, last_ms: i64) -> Self {
        Self::covering(first_ms, last_ms, HOUR_MS)
    }

    /// The same in whole UTC days, for day buckets.
    pub fn days_around(first_ms: i64, last_ms: i64) -> Self {
        let day = 24 * HOUR_MS;
        Self { from_ms: first_ms.div_euclid(day) * day, to_ms: (last_ms.div_euclid(day) + 1) * day }
    }

    fn covering(first_ms: i64, last_ms: i64, step: i64) -> Self {
        Self {
            from_ms: (first_ms.div_euclid(step) - 1) * step,
            to_ms: (last_ms.div_euclid(step) + 2) * step,
        }
    }

    fn query(&self) -> String {
        format!("from={}&to={}", clock::rfc3339(self.from_ms), clock::rfc3339(self.to_ms))
    }
}

/// Runs `work` for 0, 1, … `count` − 1, as many at a time as there are connections, and returns the
/// results in order. The first error stops it.
pub async fn for_each<T>(
    apis: &mut [Api],
    count: usize,
    work: impl AsyncFn(&mut Api, usize) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let next = Cell::new(0_usize);
    let results: RefCell<Vec<Option<T>>> =
        RefCell::new(std::iter::repeat_with(|| None).take(count).collect());
    let runners = apis.iter_mut().map(|api| {
        let (next, results, work) = (&next, &results, &work);
        async move {
            loop {
                let index = next.get();
                if index >= count {
                    return Ok(());
                }
                next.set(index + 1);
                let result = work(api, index).await?;
                results.borrow_mut()[index] = Some(result);
            }
        }
    });
    futures::future::try_join_all(runners).await?;
    Ok(results.into_inner().into_iter().flatten().collect())
}

fn refused(operation: &str, answer: &Answer) -> Error {
    let hint = match answer.status.as_u16() {
        401 => " (the token is missing, unknown or expired: see --token and --admin-token)",
        403 => " (the token's scope does not allow it: set-up and ledger need --admin-token)",
        404 => " (not found: is this a Weir node, and may the token see that resource?)",
        503 => " for longer than the simulator waits",
        _ => "",
    };
    Error::Refused {
        operation: operation.to_owned(),
        status: answer.status.as_u16(),
        hint,
        detail: detail_of(&answer.body),
    }
}

/// The `detail` (else `title`) of a problem document, else the start of the body.
fn detail_of(body: &[u8]) -> String {
    let problem: Option<Value> = serde_json::from_slice(body).ok();
    let told = problem.as_ref().and_then(|problem| {
        ["detail", "title"].iter().find_map(|field| problem.get(*field).and_then(Value::as_str))
    });
    let text = told.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_covers_whole_hours_on_both_sides() {
        let range = Range::around(10 * HOUR_MS + 1, 12 * HOUR_MS + 59);
        assert_eq!((range.from_ms, range.to_ms), (9 * HOUR_MS, 14 * HOUR_MS));
    }

    #[test]
    fn a_problem_document_is_told_by_its_detail() {
        for (body, told) in [
            (r#"{"title":"No","detail":"the plan is unknown"}"#, "the plan is unknown"),
            (r#"{"title":"No"}"#, "No"),
            ("plain text", "plain text"),
        ] {
            assert_eq!(detail_of(body.as_bytes()), told);
        }
    }
}
