//! From a document to a plan, with every fault on the way.
//!
//! Role: defaults, and the rules that one scalar alone cannot break; the rules of the plan itself
//! are [`Plan::new`]'s. A bad value is replaced by a harmless one and reading goes on, so that one
//! answer lists all that is wrong; with a fault noted no plan ever leaves here.

use std::sync::Arc;

use weir_config::limits::{METHOD_BYTES_MAX, PATH_BYTES_MAX};
use weir_core::calendar::{Anchor, Every};
use weir_core::plan::{
    Bill, COSTS_MAX, ChargeOn, CostRule, Enforcement, FailPolicy, Fault, Pattern, Plan, QUOTAS_MAX,
    Quota, RATES_MAX, REQUESTS, RateLimit,
};
use weir_core::rate::{Algorithm, RateSpec, RateSpecError};
use weir_core::units::{PlanId, Span, Units};

use super::document::{
    CostDocument, EnforcementWord, OverageDocument, PeriodDocument, PlanDocument, QuotaDocument,
    RateLimitDocument,
};
use super::leaf::{Given, Percent, span_text};
use super::overage::read_overage;

/// Faults in one answer.
/// More: a large broken body makes a larger answer. Fewer: a plan with many rules is repaired in
/// several rounds.
pub const FAULTS_MAX: usize = 100;
/// Bytes of a name that appears in decisions, headers and metrics: quota, rate limit, meter. The
/// core holds quotas and rate limits to the same.
pub const NAME_BYTES_MAX: usize = 64;

const WARN_AT_DEFAULT: [u16; 3] = [80, 90, 100];
const HOLD_TTL_DEFAULT: Span = Span::from_seconds(60);
const CURRENCY_DEFAULT: &str = "USD";
const WINDOW_PLACEHOLDER: Span = Span::from_seconds(1);

/// Whether `name` may name a meter, quota or rate limit: 1 to 64 letters, digits, `-`, `_`, `.`.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, pointer: String, code: &'static str, detail: impl Into<String>) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(Fault { pointer, code, detail: detail.into() });
        }
    }

    /// The value, or a fault at `pointer`.
    pub(super) fn take<T>(&mut self, pointer: String, given: Given<T>) -> Option<T> {
        match given {
            Given::Valid(value) => Some(value),
            Given::Invalid(_, flaw) => {
                self.add(pointer, flaw.code, flaw.detail);
                None
            }
        }
    }

    /// As [`Self::take`], for a field that may be absent.
    pub(super) fn take_optional<T>(
        &mut self,
        pointer: String,
        given: Option<Given<T>>,
    ) -> Option<T> {
        given.and_then(|given| self.take(pointer, given))
    }

    /// `items`, cut to `max`; more of them are a fault and would cost time to look at.
    pub(super) fn bounded<T>(
        &mut self,
        pointer: &str,
        items: Option<Vec<T>>,
        max: usize,
    ) -> Vec<T> {
        let mut items = items.unwrap_or_default();
        if items.len() > max {
            self.add(pointer.to_owned(), "too_many", format!("at most {max}"));
            items.truncate(max);
        }
        items
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_list(self) -> Vec<Fault> {
        self.0
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

impl PlanDocument {
    /// The plan this document describes, or all that is wrong with it.
    pub fn into_plan(self, id: PlanId, version: u32) -> Result<Plan, Vec<Fault>> {
        let mut faults = Faults::default();
        if self.name.chars().any(char::is_control) {
            faults.add("/name".into(), "invalid_name", "no control characters");
        }
        let places = Places {
            is_short: self.quota.is_some() && self.quotas.is_none(),
            warns_beside: self.warn_at.is_some(),
        };
        let quotas = read_quotas(&mut faults, self.quota, self.quotas, self.overage, self.warn_at);
        let (every, anchor) = read_period(&mut faults, self.period, quotas.first());
        let rates = faults.bounded("/rateLimits", self.rate_limits, RATES_MAX);
        let costs = faults.bounded("/costs", self.costs, COSTS_MAX);
        let plan = Plan {
            id,
            version,
            name: self.name,
            currency: self.currency.unwrap_or_else(|| CURRENCY_DEFAULT.to_owned()),
            base_fee: faults.take_optional("/baseFee".into(), self.base_fee).unwrap_or_default(),
            quotas,
            rates: read_each(&mut faults, "/rateLimits", rates, read_rate),
            costs: read_each(&mut faults, "/costs", costs, read_cost),
            every,
            anchor,
            bill: faults.take_optional("/bill".into(), self.bill).map_or(Bill::All, Into::into),
            charge_on: faults
                .take_optional("/chargeOn".into(), self.charge_on)
                .map_or(ChargeOn::Event, Into::into),
            hold_ttl: faults
                .take_optional("/holdTtl".into(), self.hold_ttl)
                .map_or(HOLD_TTL_DEFAULT, |ttl| ttl.0),
            fail_policy: faults
                .take_optional("/failPolicy".into(), self.fail_policy)
                .map_or(FailPolicy::Open, Into::into),
            shadow: self.shadow.unwrap_or_default(),
        };
        match Plan::new(plan) {
            Ok(plan) => faults.into_result(plan),
            Err(found) => {
                for fault in found {
                    let pointer = places.as_written(fault.pointer);
                    // A replaced value may break a rule in its turn: told once is enough.
                    if faults.0.iter().all(|known| known.pointer != pointer) {
                        faults.add(pointer, fault.code, fault.detail);
                    }
                }
                Err(faults.0)
            }
        }
    }
}

/// Where the first quota's fields stand in the document, if not under `/quotas/0`.
struct Places {
    is_short: bool,
    warns_beside: bool,
}

impl Places {
    fn as_written(&self, pointer: String) -> String {
        match pointer.strip_prefix("/quotas/0/") {
            Some("warnAt") if self.warns_beside => "/warnAt".to_owned(),
            Some(field) if self.is_short => format!("/quota/{field}"),
            _ => pointer,
        }
    }
}

pub(super) fn read_each<D, T>(
    faults: &mut Faults,
    list: &str,
    documents: Vec<D>,
    read: fn(&mut Faults, &str, D) -> T,
) -> Vec<T> {
    let read = |(index, document)| read(faults, &format!("{list}/{index}"), document);
    documents.into_iter().enumerate().map(read).collect()
}

/// The list, whichever form it was given in, with what stands beside `quota` in its first entry.
fn read_quotas(
    faults: &mut Faults,
    short: Option<QuotaDocument>,
    list: Option<Vec<QuotaDocument>>,
    overage: Option<OverageDocument>,
    warn_at: Option<Vec<Given<Percent>>>,
) -> Vec<Quota> {
    let faults_before = faults.0.len();
    let is_listed = list.is_some();
    let list = faults.bounded("/quotas", list, QUOTAS_MAX);
    let first_document = if is_listed { list.first() } else { short.as_ref() };
    let first_warns = first_document.is_some_and(|document| document.warn_at.is_some());

    let mut quotas = read_each(faults, "/quotas", list, read_quota);
    let short = short.map(|document| read_quota(faults, "/quota", document));
    let overage = overage.and_then(|document| read_overage(faults, "/overage", document));
    let warn_at = warn_at.map(|list| read_thresholds(faults, "/warnAt", list));
    // What replaced a bad value says nothing about whether two forms agree.
    let is_sound = faults.0.len() == faults_before;
    let mut conflict = |is_conflict: bool, pointer: &str, detail: &str| {
        if is_sound && is_conflict {
            faults.add(pointer.to_owned(), "conflict", detail);
        }
    };
    match short {
        Some(quota) if is_listed => {
            let detail = "short for the first of `quotas`: leave one of the two out, or let them \
                          say the same";
            conflict(quotas.first() != Some(&quota), "/quota", detail);
        }
        Some(quota) => quotas.push(quota),
        None => {}
    }
    let Some(first) = quotas.first_mut() else {
        if overage.is_some() {
            faults.add("/overage".into(), "not_applicable", "there is no quota to exceed");
        }
        return quotas;
    };
    if let Some(warn_at) = warn_at {
        let detail = "the first quota has other thresholds of its own";
        conflict(first_warns && first.warn_at != warn_at, "/warnAt", detail);
        first.warn_at = warn_at;
    }
    if let Some(overage) = overage {
        let detail = "the first quota has another `overage` of its own";
        conflict(first.overage.as_ref().is_some_and(|mine| *mine != overage), "/overage", detail);
        first.overage = Some(overage);
    }
    quotas
}

fn read_quota(faults: &mut Faults, at: &str, document: QuotaDocument) -> Quota {
    let meter = read_meter(faults, at, document.meter);
    let enforcement = faults
        .take_optional(format!("{at}/enforcement"), document.enforcement)
        .unwrap_or(EnforcementWord::Hard);
    let has_hard_cap = document.hard_cap.is_some();
    let hard_cap = faults.take_optional(format!("{at}/hardCap"), document.hard_cap);
    if has_hard_cap && enforcement == EnforcementWord::Hard {
        let detail = "a hard quota ends at its limit: only a soft one has a cap beyond it";
        faults.add(format!("{at}/hardCap"), "not_applicable", detail);
    }
    Quota {
        name: document.name.map_or_else(|| Arc::clone(&meter), Arc::from),
        meter,
        limit: faults.take(format!("{at}/limit"), document.limit).flatten(),
        every: faults.take_optional(format!("{at}/every"), document.every).unwrap_or(month()),
        anchor: faults
            .take_optional(format!("{at}/anchor"), document.anchor)
            .unwrap_or(Anchor::Calendar),
        enforcement: match enforcement {
            EnforcementWord::Hard => Enforcement::Hard,
            EnforcementWord::Soft => Enforcement::Soft { hard_cap },
        },
        overage: document
            .overage
            .and_then(|overage| read_overage(faults, &format!("{at}/overage"), overage)),
        warn_at: document.warn_at.map_or(WARN_AT_DEFAULT.to_vec(), |list| {
            read_thresholds(faults, &format!("{at}/warnAt"), list)
        }),
    }
}

fn read_period(
    faults: &mut Faults,
    document: Option<PeriodDocument>,
    first: Option<&Quota>,
) -> (Every, Anchor) {
    let Some(document) = document else {
        return first.map_or((month(), Anchor::Calendar), |quota| (quota.every, quota.anchor));
    };
    let every = faults.take_optional("/period/every".into(), document.every);
    let anchor = faults.take_optional("/period/anchor".into(), document.anchor);
    (every.unwrap_or(month()), anchor.unwrap_or(Anchor::Calendar))
}

fn month() -> Every {
    Every::new(1, 0, 0).expect("one month is between a second and a hundred years")
}

/// The elements that are percentages; that they ascend is the plan's rule.
fn read_thresholds(faults: &mut Faults, at: &str, list: Vec<Given<Percent>>) -> Vec<u16> {
    let read = |(index, given)| faults.take(format!("{at}/{index}"), given).map(|p: Percent| p.0);
    list.into_iter().enumerate().filter_map(read).collect()
}

fn read_meter(faults: &mut Faults, at: &str, meter: Option<String>) -> Arc<str> {
    let meter = meter.map_or_else(|| Arc::from(REQUESTS), Arc::<str>::from);
    if !is_plain_name(&meter) {
        let detail = "1 to 64 letters, digits, '-', '_' or '.'";
        faults.add(format!("{at}/meter"), "invalid_name", detail);
    }
    meter
}

fn read_rate(faults: &mut Faults, at: &str, document: RateLimitDocument) -> RateLimit {
    let limit = faults.take(format!("{at}/limit"), document.limit);
    let window = faults.take(format!("{at}/window"), document.window);
    let algorithm = faults
        .take_optional(format!("{at}/algorithm"), document.algorithm)
        .map_or(Algorithm::TokenBucket, Into::into);
    let burst = faults.take_optional(format!("{at}/burst"), document.burst);
    let (limit, window) = (limit.unwrap_or(Units::ONE), window.unwrap_or(WINDOW_PLACEHOLDER));
    let spec = RateSpec::new(algorithm, limit, window, burst).unwrap_or_else(|error| {
        let (field, code) = match error {
            RateSpecError::LimitZero => ("limit", "out_of_range"),
            RateSpecError::WindowOutOfRange => ("window", "out_of_range"),
            RateSpecError::BurstZero => ("burst", "out_of_range"),
            RateSpecError::BurstNotAllowed => ("burst", "not_applicable"),
        };
        faults.add(format!("{at}/{field}"), code, error.to_string());
        placeholder_rate()
    });
    RateLimit {
        name: document.name.map_or_else(|| span_text(window).into(), Arc::from),
        meter: read_meter(faults, at, document.meter),
        spec,
        pattern: read_pattern(faults, at, document.method, document.path),
    }
}

fn placeholder_rate() -> RateSpec {
    RateSpec::new(Algorithm::TokenBucket, Units::ONE, WINDOW_PLACEHOLDER, None)
        .expect("one unit a second is a rate")
}

fn read_cost(faults: &mut Faults, at: &str, document: CostDocument) -> CostRule {
    CostRule {
        units: faults.take(format!("{at}/units"), document.units).unwrap_or_default(),
        pattern: read_pattern(faults, at, document.method, document.path),
    }
}

fn read_pattern(
    faults: &mut Faults,
    at: &str,
    method: Option<String>,
    path: Option<String>,
) -> Pattern {
    if method.as_deref().is_some_and(|method| !is_method(method)) {
        let detail = format!("an HTTP method such as GET, up to {METHOD_BYTES_MAX} characters");
        faults.add(format!("{at}/method"), "invalid_method", detail);
    }
    if path.as_deref().is_some_and(|path| !is_path_pattern(path)) {
        let detail = format!(
            "a path that begins with / and may end with one *, no query, up to {PATH_BYTES_MAX} \
             bytes"
        );
        faults.add(format!("{at}/path"), "invalid_path", detail);
    }
    Pattern {
        method: method.map(|method| method.to_ascii_uppercase().into()),
        path: path.map(Into::into),
    }
}

/// A token (RFC 9110 §5.6.2).
fn is_method(method: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=METHOD_BYTES_MAX).contains(&method.len()) && method.bytes().all(token) && method != "*"
}

fn is_path_pattern(path: &str) -> bool {
    let exact = path.strip_suffix('*').unwrap_or(path);
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '*' | '?' | '#');
    let begins = exact.starts_with('/') || path == "*";
    begins && path.len() <= PATH_BYTES_MAX && exact.chars().all(plain)
}
