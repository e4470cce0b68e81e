//! `/api/v1/quota/check`: may this request pass?

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::join_all;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;
use weir_config::limits;
use weir_core::meter::{Check, Reason};
use weir_core::plan::REQUESTS;
use weir_core::units::{ReservationId, Units};
use xxhash_rust::xxh3::Xxh3;

use super::Api;
use super::auth::Gateway;
use super::body::Json;
use super::decision::{Body, CheckAnswer, respond};
use super::problem::Problem;
use super::text::{field, push_list, push_string};
use crate::catalog::principal::Principal;
use crate::metrics::chain;
use crate::outcome::Undecided;
use crate::router::{Decided, RouteError, Verdict};

static KEY_HEADER: HeaderName = HeaderName::from_static("x-subscription-key");
static IDEMPOTENCY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Bytes of an answer with two quotas and a rate limit; more make the buffer grow.
const ANSWER_BYTES: usize = 768;

/// Decides whether one request may pass.
///
/// Always 200 when a decision was made. `cost.METER=N` asks for another meter. An allowed check of
/// cost n holds n units until usage events settle them or the plan's `holdTtl` returns them.
#[utoipa::path(
    get, path = "/api/v1/quota/check", tag = "decide", security(("bearer" = [])),
    params(
        ("subscriptionKey" = Option<String>, Query, description = "the key, better sent as header"),
        ("X-Subscription-Key" = Option<String>, Header, description = "the key"),
        ("cost" = Option<u64>, Query, description = "units; 0 looks and changes nothing; default the plan's cost for method and path, else 1"),
        ("method" = Option<String>, Query, description = "HTTP method of the request to decide about"),
        ("path" = Option<String>, Query, description = "its path"),
        ("reserve" = Option<bool>, Query, description = "hold by name; the answer has `reservationId`"),
        ("requestId" = Option<String>, Query, description = "same as `Idempotency-Key`"),
        ("Idempotency-Key" = Option<String>, Header, description = "a repeat of the same check within 10 s gets the same decision and charges nothing"),
    ),
    responses((status = 200, body = CheckAnswer), (status = 400, body = super::problem::ProblemBody),
        (status = 503, description = "no owner can decide; apply your fail policy"))
)]
pub async fn check(
    State(api): State<Arc<Api>>,
    // Taken whole: the extractor of parts would copy every header.
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    answer(&api, &parts).await
}

/// Whether [`answer`] may be asked at once. HEAD reaches it by the router, which cuts off the body.
pub(super) fn is_check<B>(request: &http::Request<B>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/api/v1/quota/check"
}

/// Answers a check. Its body, should it have one, says nothing.
pub(super) async fn answer(api: &Api, request: &Parts) -> Result<Response, Problem> {
    let caller = Gateway::admit(&request.headers, api).await?;
    let Asked { key, check } = asked(&request.headers, &request.uri)?;
    let verdict = decide(api, &caller, &key, check).await?;
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    Body::from(&verdict).push(&mut json);
    Ok(respond(api, json, owner(verdict)))
}

/// The node that decided, when it was another.
fn owner(verdict: Verdict) -> Option<HeaderValue> {
    match verdict {
        Verdict::Decided(decided) => decided.owner,
        Verdict::Refused(_) => None,
    }
}

async fn decide(
    api: &Api,
    principal: &Principal,
    key: &str,
    check: Check,
) -> Result<Verdict, Problem> {
    let sees = |known: &crate::catalog::Known| principal.sees(&known.tenant, known.id);
    let verdict = api.router.check(key, check, sees, principal.sees_all()).await;
    match verdict.map_err(|error| unrouted(&error))? {
        Verdict::Decided(Decided { decision, .. })
            if decision.reason == Reason::TooManyReservations =>
        {
            let detail = "settle some of this subscription's open reservations first";
            Err(Problem::conflict("too_many_reservations", detail))
        }
        verdict => Ok(verdict),
    }
}

/// 503 in every case: the caller applies its fail policy.
pub(super) fn unrouted(error: &RouteError) -> Problem {
    match error {
        RouteError::NoOwner => {
            tracing::debug!("no owner was found in time");
            Problem::unavailable("no_owner", error.to_string())
        }
        RouteError::NoAnswer => {
            tracing::debug!("the owner did not answer");
            Problem::unavailable("no_answer", error.to_string())
        }
        RouteError::Undecided(reason) => undecided_problem(*reason),
        RouteError::Store(error) => {
            tracing::debug!(error = %chain(error), "a check was not decided");
            Problem::unavailable(
                "store_unavailable",
                "the key is not known here and the store is away",
            )
        }
    }
}

/// Why an owner gave no answer.
fn undecided_problem(reason: Undecided) -> Problem {
    match reason {
        Undecided::NotFound => Problem::not_found("subscription"),
        Undecided::Busy => Problem::unavailable("subscription_busy", reason.to_string()),
        Undecided::StoreAway => Problem::unavailable("store_unavailable", reason.to_string()),
        Undecided::NotLoaded | Undecided::NotHere | Undecided::Failed => {
            Problem::unavailable("undecided", reason.to_string())
        }
    }
}

struct Asked<'a> {
    key: Cow<'a, str>,
    check: Check,
}

fn asked<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Result<Asked<'a>, Problem> {
    let mut key = header(headers, &KEY_HEADER)?.map(Cow::Borrowed);
    let mut request_id = header(headers, &IDEMPOTENCY_HEADER)?.map(Cow::Borrowed);
    let mut check = Check::default();
    let mut hold = None;
    let query = uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "subscriptionKey" if key.is_none() => key = Some(value),
            // The header is preferred.
            "subscriptionKey" => {}
            "cost" if check.cost.is_none() => check.cost = Some(units(&name, &value)?),
            "method" if check.method.is_none() => {
                check.method = Some(text(&name, &value, limits::METHOD_BYTES_MAX)?);
            }
            "path" if check.path.is_none() => {
                check.path = Some(text(&name, &value, limits::PATH_BYTES_MAX)?);
            }
            "reserve" if hold.is_none() => hold = Some(reserve(&value)?),
            "cost" | "method" | "path" | "reserve" => {
                return Err(parameter(&name, "is given twice"));
            }
            "requestId" => request_id = request_id.or(Some(value)),
            other => match other.strip_prefix("cost.") {
                Some(meter) => push_cost(&mut check, meter, units(&name, &value)?)?,
                None => return Err(parameter(other, "is not a parameter of a check")),
            },
        }
    }
    check.reserve = hold.flatten();
    let key = key.filter(|key| !key.is_empty() && key.len() <= limits::KEY_BYTES_MAX);
    let key = key.ok_or_else(|| {
        let detail = "send the key as X-Subscription-Key, 1 to 512 bytes";
        Problem::bad_request("missing_key", detail)
    })?;
    check.request_id = request_id.map(|id| fingerprint(&id, &check)).transpose()?;
    Ok(Asked { key, check })
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        Problem::bad_request("invalid_header", format!("`{name}` must be visible ASCII"))
    })?;
    Ok(Some(text))
}

/// Adds a cost on a meter other than `requests`.
fn push_cost(check: &mut Check, meter: &str, cost: Units) -> Result<(), Problem> {
    let refuse = |expected| Err(parameter(&format!("cost.{meter}"), expected));
    if meter.is_empty() || check.others.len() >= limits::QUANTITIES_MAX {
        return refuse("names no meter, or one too many");
    }
    if meter == REQUESTS {
        return refuse("is spelled `cost`");
    }
    if check.others.iter().any(|(other, _)| **other == *meter) {
        return refuse("is given twice");
    }
    check.others.push((meter.into(), cost));
    Ok(())
}

/// A repeat is the same id *and* the same question: an id used again with another cost is another
/// request, or whoever chooses ids could ask for one unit and be told yes for a thousand.
fn fingerprint(id: &str, check: &Check) -> Result<u128, Problem> {
    if id.is_empty() || id.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        let detail = format!("1 to {} bytes", limits::IDEMPOTENCY_KEY_BYTES_MAX);
        return Err(Problem::bad_request("invalid_request_id", detail));
    }
    let mut hash = Xxh3::new();
    let mut put = |part: Option<&[u8]>| {
        // Lengths keep neighbouring parts apart; a part that is missing differs from an empty one.
        hash.update(&part.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hash.update(part.unwrap_or_default());
    };
    put(Some(id.as_bytes()));
    put(check.cost.map(|cost| cost.get().to_le_bytes()).as_ref().map(|bytes| &bytes[..]));
    for (meter, cost) in &check.others {
        put(Some(meter.as_bytes()));
        put(Some(&cost.get().to_le_bytes()));
    }
    put(check.method.as_deref().map(str::as_bytes));
    put(check.path.as_deref().map(str::as_bytes));
    put(check.reserve.is_some().then_some(b"reserve"));
    Ok(hash.digest128())
}

fn units(name: &str, value: &str) -> Result<Units, Problem> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.then(|| value.parse().ok()).flatten();
    count
        .and_then(Units::new)
        .ok_or_else(|| parameter(name, "must be an integer from 0 to 9007199254740991"))
}

fn text(name: &str, value: &str, bytes_max: usize) -> Result<Box<str>, Problem> {
    if value.is_empty() || value.len() > bytes_max {
        return Err(parameter(name, &format!("must have 1 to {bytes_max} bytes")));
    }
    Ok(value.into())
}

fn reserve(value: &str) -> Result<Option<ReservationId>, Problem> {
    match value {
        "true" => Ok(Some(ReservationId::from_uuid(Uuid::now_v7()))),
        "false" => Ok(None),
        _ => Err(parameter("reserve", "must be true or false")),
    }
}

fn parameter(name: &str, expected: &str) -> Problem {
    Problem::bad_request("invalid_parameter", format!("`{name}` {expected}"))
}

/// Several checks at once.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    /// At most 1,000.
    #[schema(value_type = Vec<CheckItem>)]
    checks: Vec<Box<RawValue>>,
}

/// One of several checks.
#[derive(Default, ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct CheckItem {
    /// The key.
    subscription_key: String,
    /// Units on the meter `requests`.
    cost: Option<u64>,
    /// Units on other meters; in JSON each is a field `cost.METER`.
    #[schema(ignore)]
    costs: Vec<(String, u64)>,
    /// HTTP method.
    method: Option<String>,
    /// Path.
    path: Option<String>,
    /// Hold by name.
    reserve: bool,
    /// Makes a repeat safe.
    request_id: Option<String>,
}

/// Answers in order. An item that is not a check, or that could not be decided, has `error` instead
/// of a decision and does not touch its neighbours.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the JSON that `answers` writes")]
pub struct CheckAnswers {
    results: Vec<CheckAnswer>,
}

/// Decides about several requests, each on its own, answered in order.
#[utoipa::path(
    post, path = "/api/v1/quota/check", tag = "decide", security(("bearer" = [])),
    request_body = Checks,
    responses((status = 200, body = CheckAnswers), (status = 422, body = super::problem::ProblemBody))
)]
pub async fn check_batch(
    State(api): State<Arc<Api>>,
    caller: Gateway,
    Json(Checks { checks }): Json<Checks>,
) -> Result<Response, Problem> {
    if checks.len() > api.limits.checks_max {
        let detail = format!("at most {} checks", api.limits.checks_max);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "batch_too_large", detail));
    }
    let items = checks.iter().map(|item| CheckItem::read(item)?.into_check());
    let results = decide_in_order(&api, &caller, items.collect()).await;
    let json = answers(&results);
    // Whoever decided the first of those that went elsewhere: a hint, as with one check.
    let owner = results.into_iter().flatten().find_map(owner);
    Ok(respond(&api, json, owner))
}

/// Decides each; those of one key in the order they stand, whoever serves it.
async fn decide_in_order(
    api: &Api,
    caller: &Principal,
    items: Vec<Result<(String, Check), Problem>>,
) -> Vec<Result<Verdict, Problem>> {
    let mut by_key: BTreeMap<String, Vec<(usize, Check)>> = BTreeMap::new();
    let mut results: Vec<Option<Result<Verdict, Problem>>> = Vec::with_capacity(items.len());
    for (place, item) in items.into_iter().enumerate() {
        match item {
            Ok((key, check)) => {
                by_key.entry(key).or_default().push((place, check));
                results.push(None);
            }
            Err(problem) => results.push(Some(Err(problem))),
        }
    }
    let deciding = by_key.into_iter().map(|(key, checks)| async move {
        let (key, mut checks) = (&*key, checks.into_iter());
        let mut decided = Vec::with_capacity(checks.len());
        // The first brings the subscription into memory: whoever waits for that is woken in any order.
        if let Some((place, check)) = checks.next() {
            decided.push((place, decide(api, caller, key, check).await));
        }
        let elsewhere = matches!(
            decided.first(),
            Some((_, Ok(Verdict::Decided(Decided { owner: Some(_), .. }))))
        );
        if elsewhere {
            // Messages to a peer are worked on side by side.
            for (place, check) in checks {
                decided.push((place, decide(api, caller, key, check).await));
            }
        } else {
            // Each is given to the meter, or begins to wait for it, in this order.
            let rest = checks.map(|(place, check)| async move {
                (place, decide(api, caller, key, check).await)
            });
            decided.extend(join_all(rest).await);
        }
        decided
    });
    for (place, decided) in join_all(deciding).await.into_iter().flatten() {
        results[place] = Some(decided);
    }
    results.into_iter().flatten().collect()
}

fn answers(results: &[Result<Verdict, Problem>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(ANSWER_BYTES * results.len().max(1));
    let json = &mut text;
    field!(json, "{", "results", push_list, results.iter(), push_answer);
    json.push(b'}');
    text
}

fn push_answer(json: &mut Vec<u8>, result: &Result<Verdict, Problem>) {
    match result {
        Ok(verdict) => Body::from(verdict).push(json),
        Err(problem) => {
            field!(json, r#"{"error":{"#, "code", push_string, problem.code());
            field!(json, ",", "detail", push_string, problem.detail());
            json.extend_from_slice(b"}}");
        }
    }
}

/// Reads an object and nothing else: an array would give values a meaning by their place.
struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = CheckItem;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a check, an object with `subscriptionKey`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CheckItem, A::Error> {
        let mut item = CheckItem::default();
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            match &*name {
                "subscriptionKey" => item.subscription_key = map.next_value()?,
                "cost" => item.cost = map.next_value()?,
                "method" => item.method = map.next_value()?,
                "path" => item.path = map.next_value()?,
                "reserve" => item.reserve = map.next_value()?,
                "requestId" => item.request_id = map.next_value()?,
                other => match other.strip_prefix("cost.") {
                    Some(meter) => item.costs.push((meter.to_owned(), map.next_value()?)),
                    None => return Err(A::Error::custom(format!("unknown field `{other}`"))),
                },
            }
            if seen.contains(&name) {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
            seen.push(name);
        }
        if seen.iter().any(|name| name == "subscriptionKey") {
            Ok(item)
        } else {
            Err(A::Error::missing_field("subscriptionKey"))
        }
    }
}

impl<'de> Deserialize<'de> for CheckItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

impl CheckItem {
    fn read(item: &RawValue) -> Result<Self, Problem> {
        serde_json::from_str(item.get())
            .map_err(|error| Problem::bad_request("invalid_check", error.to_string()))
    }

    fn into_check(self) -> Result<(String, Check), Problem> {
        let out_of_range = || parameter("cost", "must be from 0 to 9007199254740991");
        let cost = self.cost.map(|cost| Units::new(cost).ok_or_else(out_of_range)).transpose()?;
        let mut check = Check { cost, ..Check::default() };
        for (meter, cost) in self.costs {
            let cost = Units::new(cost).ok_or_else(out_of_range)?;
            push_cost(&mut check, &meter, cost)?;
        }
        if self.subscription_key.is_empty() || self.subscription_key.len() > limits::KEY_BYTES_MAX {
            return Err(parameter("subscriptionKey", "must have 1 to 512 bytes"));
        }
        if let Some(method) = self.method {
            check.method = Some(text("method", &method, limits::METHOD_BYTES_MAX)?);
        }
        if let Some(path) = self.path {
            check.path = Some(text("path", &path, limits::PATH_BYTES_MAX)?);
        }
        check.reserve = self.reserve.then(|| ReservationId::from_uuid(Uuid::now_v7()));
        check.request_id = self.request_id.map(|id| fingerprint(&id, &check)).transpose()?;
        Ok((self.subscription_key, check))
    }
}
