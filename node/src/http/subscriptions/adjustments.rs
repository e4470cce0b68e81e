//! Corrections of what was used: adjustments and resets.
//!
//! Role: both are rows of the ledger, so that they count once, survive a crash and can be explained
//! later. The row is written first, then the entry in the audit log. The entry's id follows from the
//! row, so a repeat finds it, or makes it when a crash came between the two.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::{Builder, Uuid};
use weir_config::limits;
use weir_core::meter::{Decision, QuotaView};
use weir_core::plan::{Fault, REQUESTS};
use weir_core::units::{Micros, SubscriptionId, UNITS_MAX, Units};
use weir_store::Error;
use weir_store::rows::{LedgerRow, RowKind, SubscriptionRow};
use xxhash_rust::xxh3::xxh3_128;

use super::{find, missing, target};
use crate::catalog::principal::Principal;
use crate::http::Api;
use crate::http::audit;
use crate::http::auth::Admin;
use crate::http::body::Json;
use crate::http::events::{internal_row, record_problem};
use crate::http::parameters::Ids;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::quota::unrouted;
use crate::metrics::chain;
use crate::outcome::Recorded;
use crate::shard::UsageView;

const MICROS_PER_MILLI: i64 = 1_000;

/// A correction.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adjustment {
    /// Added to what was used on the meter `requests`; not 0, negative gives back.
    #[schema(example = -5, minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64)]
    units: i64,
    /// Why, 1 to 1,000 characters; stands in the audit log.
    reason: String,
    /// Makes a repeat safe, 1 to 128 characters.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// A new beginning.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reset {
    /// Why, 1 to 1,000 characters; stands in the audit log.
    reason: String,
    /// Makes a repeat safe, 1 to 128 characters.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// What a correction led to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Corrected {
    subscription_id: String,
    /// The adjustment; absent for a reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<i64>,
    /// The reason given with this request.
    reason: String,
    /// Send it again and nothing more happens; made for you when you sent none.
    idempotency_key: String,
    /// This was said before; nothing changed now.
    duplicate: bool,
    /// Used of the first quota, as it stands now; null when it could not be read.
    used: Option<u64>,
    /// Left of the first quota; null when it is unlimited, or could not be read.
    remaining: Option<u64>,
}

/// Adds to, or takes from, what was used in the running periods.
///
/// Counts on every quota of the meter `requests`. The same `idempotencyKey` again changes nothing; with
/// other `units` it is refused. So is one that takes more than the running period of one of those
/// quotas has used (`below_zero`): what is used stays the sum of the ledger. Should something else take
/// as much in the moment between the look and the row, the counter stops at zero, in every replay alike.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{id}/adjustments", tag = "subscriptions",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    request_body = Adjustment,
    responses((status = 200, body = Corrected), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn adjust(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
    Json(body): Json<Adjustment>,
) -> Result<JsonAnswer<Corrected>, Problem> {
    let subscription = find(&api, &caller, id).await?;
    let correction = body.into_correction().map_err(Problem::invalid)?;
    correct(&api, &caller, &subscription, correction).await.map(JsonAnswer)
}

/// Sets what was used in the running periods to zero, on every quota.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{id}/reset", tag = "subscriptions",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    request_body = Reset,
    responses((status = 200, body = Corrected), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn reset(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
    Json(body): Json<Reset>,
) -> Result<JsonAnswer<Corrected>, Problem> {
    let subscription = find(&api, &caller, id).await?;
    let correction = body.into_correction().map_err(Problem::invalid)?;
    correct(&api, &caller, &subscription, correction).await.map(JsonAnswer)
}

/// Either of the two.
#[derive(Debug, PartialEq, Eq)]
struct Correction {
    /// None for a reset.
    units: Option<i64>,
    reason: String,
    key: Option<String>,
}

impl Adjustment {
    fn into_correction(self) -> Result<Correction, Vec<Fault>> {
        let mut faults = Vec::new();
        if self.units == 0 || self.units.unsigned_abs() > UNITS_MAX {
            let detail = format!("an integer from -{UNITS_MAX} to {UNITS_MAX}, not 0");
            faults.push(Fault::new("/units", "out_of_range", detail));
        }
        judge(&mut faults, &self.reason, self.idempotency_key.as_deref());
        let correction =
            Correction { units: Some(self.units), reason: self.reason, key: self.idempotency_key };
        if faults.is_empty() { Ok(correction) } else { Err(faults) }
    }
}

impl Reset {
    fn into_correction(self) -> Result<Correction, Vec<Fault>> {
        let mut faults = Vec::new();
        judge(&mut faults, &self.reason, self.idempotency_key.as_deref());
        let correction = Correction { units: None, reason: self.reason, key: self.idempotency_key };
        if faults.is_empty() { Ok(correction) } else { Err(faults) }
    }
}

fn judge(faults: &mut Vec<Fault>, reason: &str, key: Option<&str>) {
    let chars = reason.chars().count();
    if reason.trim().is_empty() || chars > limits::REASON_CHARS_MAX {
        let detail = format!("1 to {} characters", limits::REASON_CHARS_MAX);
        faults.push(Fault::new("/reason", "invalid_length", detail));
    }
    let max = limits::EVENT_ID_CHARS_MAX;
    if key.is_some_and(|key| !(1..=max).contains(&key.chars().count())) {
        let detail = format!("1 to {max} characters");
        faults.push(Fault::new("/idempotencyKey", "invalid_length", detail));
    }
}

async fn correct(
    api: &Arc<Api>,
    caller: &Principal,
    subscription: &SubscriptionRow,
    correction: Correction,
) -> Result<Corrected, Problem> {
    // Dropped half-way this would leave a row without its entry, so it goes on when the caller leaves.
    let (api, caller) = (api.clone(), caller.clone());
    let subscription = subscription.clone();
    let work = async move { Correcting { api, caller, subscription }.run(correction).await };
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(error = %chain(&error), "a correction was not carried out");
        Err(Problem::unavailable("undecided", "the correction may not have been made; repeat it"))
    })
}

struct Correcting {
    api: Arc<Api>,
    caller: Principal,
    subscription: SubscriptionRow,
}

impl Correcting {
    async fn run(&self, correction: Correction) -> Result<Corrected, Problem> {
        let Correction { units, reason, key } = correction;
        let kind = if units.is_some() { RowKind::Adjustment } else { RowKind::Reset };
        let id = self.subscription.id;
        let before = self.api.router.usage(id).await.map_err(|error| unrouted(&error))?;
        if let Some(fault) = units.and_then(|units| out_of_range(units, &before.decision))
            && !self.is_repeat(kind, key.as_deref()).await?
        {
            return Err(Problem::invalid(vec![fault]));
        }
        let row = self.row(kind, units, key).await?;
        let (key, now) = (row.event_id.clone(), row.recorded_at);
        let outcomes = self.api.router.record(vec![row]).await.map_err(|error| {
            let problem = record_problem(error);
            repeat(problem.code(), "it may have been made", &key)
        })?;
        let duplicate = outcomes.first() == Some(&Recorded::Duplicate);
        let (units, at) = if duplicate {
            let row = self.stored(kind, units, &key).await?;
            (units.map(|_| row.units), row.recorded_at)
        } else {
            (units, now)
        };
        let after = self.api.router.usage(id).await.ok();
        // A repeat cannot tell what was used before the first time.
        let entry = Entry { kind, at, units, before: (!duplicate).then_some(&before) };
        self.audit(&entry, after.as_ref(), &key, &reason).await?;
        let first = after.as_ref().and_then(|view| view.decision.quotas.first());
        Ok(Corrected {
            subscription_id: id.to_string(),
            units,
            reason,
            idempotency_key: key,
            duplicate,
            used: after.as_ref().map(|_| first.map_or(0, |quota| quota.used.get())),
            remaining: first.and_then(QuotaView::remaining).map(Units::get),
        })
    }

    async fn row(
        &self,
        kind: RowKind,
        units: Option<i64>,
        key: Option<String>,
    ) -> Result<LedgerRow, Problem> {
        let id = self.subscription.id;
        let known = self.api.router.catalog().find_subscription(id).await?.ok_or_else(missing)?;
        let key = key.unwrap_or_else(|| Uuid::now_v7().to_string());
        let row = internal_row(id, &known, kind, key, self.api.clock.now());
        Ok(LedgerRow { units: units.unwrap_or_default(), charged: true, ..row })
    }

    /// Whether the key has its row: then nothing is taken this time.
    async fn is_repeat(&self, kind: RowKind, key: Option<&str>) -> Result<bool, Problem> {
        let Some(key) = key else { return Ok(false) };
        Ok(self.api.store.find_record(self.subscription.id, kind, key).await?.is_some())
    }

    /// The row of a key that was there already.
    async fn stored(
        &self,
        kind: RowKind,
        units: Option<i64>,
        key: &str,
    ) -> Result<LedgerRow, Problem> {
        let found = self.api.store.find_record(self.subscription.id, kind, key).await?;
        let row = found.ok_or_else(|| {
            // Its identity is kept longer than the row itself.
            Problem::conflict("idempotency_key_reused", "the key was used for a row that is gone")
        })?;
        if units.is_some_and(|units| units != row.units) {
            let detail = format!("this key was used for {} units", row.units);
            return Err(Problem::invalid_field(
                "/idempotencyKey",
                "idempotency_key_reused",
                detail,
            ));
        }
        Ok(row)
    }

    async fn audit(
        &self,
        correction: &Entry<'_>,
        after: Option<&UsageView>,
        key: &str,
        reason: &str,
    ) -> Result<(), Problem> {
        let action = match correction.kind {
            RowKind::Reset => "subscription.reset",
            _ => "subscription.adjust",
        };
        let mut entry = audit::entry(&self.api, &self.caller, action, target(&self.subscription));
        entry.id = entry_id(correction.at, self.subscription.id, correction.kind, key);
        entry.at = correction.at;
        entry.before =
            correction.before.and_then(|view| audit::state(&json!({"used": used(view)})));
        entry.after = audit::state(&json!({
            "used": after.map(used),
            "units": correction.units,
            "idempotencyKey": key,
        }));
        entry.reason = Some(reason.to_owned());
        match self.api.store.insert_audit(&entry).await {
            // The entry is there: the first time got this far.
            Ok(()) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(?entry, error, "a correction has no audit entry yet");
                Err(repeat("store_unavailable", "it was made and has no audit entry yet", key))
            }
        }
    }
}

/// What an audit entry tells of a correction.
struct Entry<'a> {
    kind: RowKind,
    at: Micros,
    units: Option<i64>,
    before: Option<&'a UsageView>,
}

/// What is wrong with taking more than was used, or giving more than a counter holds: what is used would
/// no longer be the sum of the ledger.
fn out_of_range(units: i64, decision: &Decision) -> Option<Fault> {
    below_zero(units, decision).or_else(|| beyond_max(units, decision))
}

fn beyond_max(units: i64, decision: &Decision) -> Option<Fault> {
    let given = u64::try_from(units).ok()?;
    let quotas = decision.plan.quotas.iter().zip(&decision.quotas);
    let (quota, most) = quotas
        .filter(|(quota, _)| *quota.meter == *REQUESTS)
        .map(|(quota, view)| (&quota.name, view.used))
        .max_by_key(|(_, used)| *used)?;
    Units::new(most.get().checked_add(given)?).is_none().then(|| {
        let detail = format!("the quota {quota:?} would pass 2^53 - 1; {most} are used");
        Fault::new("/units", "out_of_range", detail)
    })
}

fn below_zero(units: i64, decision: &Decision) -> Option<Fault> {
    let taken = Units::new(units.checked_neg()?.try_into().ok()?)?;
    let quotas = decision.plan.quotas.iter().zip(&decision.quotas);
    let (quota, least) = quotas
        .filter(|(quota, _)| *quota.meter == *REQUESTS)
        .map(|(quota, view)| (&quota.name, view.used))
        .min_by_key(|(_, used)| *used)?;
    (taken > least).then(|| {
        let detail = format!("only {least} of the quota {quota:?} are used in its running period");
        Fault::new("/units", "below_zero", detail)
    })
}

/// 503 that says how to repeat the correction without making it twice.
fn repeat(code: &'static str, what: &str, key: &str) -> Problem {
    let detail = format!("{what}; repeat it with `idempotencyKey` {key:?}, which is safe");
    Problem::unavailable(code, detail)
}

fn used(view: &UsageView) -> u64 {
    view.decision.quotas.first().map_or(0, |quota| quota.used.get())
}

/// The id of a correction's audit entry: a UUIDv7 (RFC 9562 §5.7) whose time is the row's and whose
/// random bits are a hash of the row's identity.
fn entry_id(at: Micros, subscription: SubscriptionId, kind: RowKind, key: &str) -> Uuid {
    let mut identity = Vec::with_capacity(18 + key.len());
    identity.extend_from_slice(subscription.uuid().as_bytes());
    identity.extend_from_slice(&(kind as i16).to_be_bytes());
    identity.extend_from_slice(key.as_bytes());
    let mut bits = [0; 10];
    bits.copy_from_slice(&xxh3_128(&identity).to_be_bytes()[..10]);
    let millis = u64::try_from(at.get().div_euclid(MICROS_PER_MILLI)).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
}

#[cfg(test)]
mod tests {
    use smallvec::{SmallVec, smallvec};
    use weir_core::calendar::Zone;
    use weir_core::meter::{Command, EntryKind, Meter};
    use weir_core::terms::Terms;
    use weir_core::units::{PlanId, Seq};

    use super::*;
    use crate::catalog::plan_document;
    use crate::http::body::parse;

    fn faults(body: &str) -> Vec<String> {
        let body: Adjustment = parse(body.as_bytes()).expect(body);
        let faults = body.into_correction().err().unwrap_or_default();
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn an_adjustment_says_how_much_and_why() {
        let long = format!(r#"{{"units":1,"reason":"{}"}}"#, "x".repeat(1_001));
        let key = format!(r#"{{"units":1,"reason":"x","idempotencyKey":"{}"}}"#, "k".repeat(129));
        let stories: [(&str, &[&str]); 9] = [
            (r#"{"units":-5,"reason":"refund"}"#, &[]),
            (r#"{"units":9007199254740991,"reason":"x","idempotencyKey":"k"}"#, &[]),
            (r#"{"units":-9007199254740991,"reason":"x"}"#, &[]),
            (r#"{"units":0,"reason":"x"}"#, &["/units"]),
            (r#"{"units":9007199254740992,"reason":"x"}"#, &["/units"]),
            (r#"{"units":-9223372036854775808,"reason":" "}"#, &["/units", "/reason"]),
            (r#"{"units":1,"reason":"","idempotencyKey":""}"#, &["/reason", "/idempotencyKey"]),
            (&long, &["/reason"]),
            (&key, &["/idempotencyKey"]),
        ];
        for (body, expected) in stories {
            assert_eq!(faults(body), expected, "{body}");
        }
        for body in [
            r#"{"units":1}"#,
            r#"{"reason":"x"}"#,
            r#"{"units":1.5,"reason":"x"}"#,
            r#"{"units":"1","reason":"x"}"#,
            r#"{"units":1,"reason":"x","force":true}"#,
        ] {
            assert!(parse::<Adjustment>(body.as_bytes()).is_err(), "{body}");
        }
    }

    /// A plan's quotas as (name, meter), and what is used of each.
    fn standing(quotas: &[(&str, &str, i64)]) -> Decision {
        let list: Vec<_> = quotas
            .iter()
            .map(|(name, meter, _)| json!({"name": name, "meter": meter, "limit": 100}))
            .collect();
        let document = json!({"name": "p", "quotas": list}).to_string();
        let plan = PlanId::from_uuid(Uuid::nil());
        let plan = plan_document::parse(document.as_bytes(), plan, 1).expect("a plan");
        let now = Micros::from_seconds(1_795_514_400);
        let terms = Terms::new(Arc::new(plan), &Zone::utc(), now, None, &[]);
        let mut meter = Meter::new(Arc::new(terms), now);
        for (seq, (_, name, units)) in (1..).zip(quotas) {
            let requests = *name == REQUESTS;
            let other = (Box::from(*name), Units::clamped(units.unsigned_abs()));
            meter.apply(
                now,
                Command::Record(&weir_core::meter::Entry {
                    seq: Seq(seq),
                    kind: EntryKind::Usage,
                    at: now,
                    units: if requests { *units } else { 0 },
                    others: if requests { SmallVec::new() } else { smallvec![other] },
                    charged: true,
                    reservation: None,
                }),
            );
        }
        meter.standing_view(now)
    }

    #[test]
    fn an_adjustment_takes_no_more_than_is_used() {
        let one = standing(&[("month", "requests", 5)]);
        let tokens = standing(&[("tokens", "tokens", 3), ("month", "requests", 5)]);
        let none = standing(&[("tokens", "tokens", 3)]);
        let stories = [
            (&one, -5, true),
            (&one, -6, false),
            (&one, 6, true),
            (&one, -9_007_199_254_740_991, false),
            (&tokens, -5, true),
            (&tokens, -6, false),
            // Nothing counts requests, so nothing can fall below zero.
            (&none, -5, true),
        ];
        for (decision, units, fits) in stories {
            let fault = below_zero(units, decision);
            assert_eq!(fault.is_none(), fits, "{units}: {fault:?}");
            if let Some(fault) = fault {
                assert_eq!((&*fault.pointer, fault.code), ("/units", "below_zero"));
                assert!(fault.detail.contains("only 5 of"), "{}", fault.detail);
            }
        }
    }

    #[test]
    fn an_entry_has_the_same_id_however_often_it_is_made() {
        let at = Micros::from_micros(1_764_000_000_123_456);
        let one = SubscriptionId::from_uuid(Uuid::from_u128(1));
        let two = SubscriptionId::from_uuid(Uuid::from_u128(2));
        let id = entry_id(at, one, RowKind::Adjustment, "k");
        assert_eq!(id, entry_id(at, one, RowKind::Adjustment, "k"));
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_timestamp().unwrap().to_unix(), (1_764_000_000, 123_000_000));
        for other in [
            entry_id(at, two, RowKind::Adjustment, "k"),
            entry_id(at, one, RowKind::Reset, "k"),
            entry_id(at, one, RowKind::Adjustment, "l"),
        ] {
            assert_ne!(id, other);
        }
    }
}
