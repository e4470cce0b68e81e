//! A plan: what a subscription may use, and on which terms. Valid by construction.
//!
//! Role: immutable once made; shared by every subscription on it. [`Plan::new`] is the only way to
//! make one and reports every fault at once, each with a JSON pointer into the plan document.
//! Callers: the node's catalogue turns documents into plans, [`crate::terms`] reads them.

use std::sync::Arc;

use rust_decimal::Decimal;

use crate::calendar::{Anchor, Every};
use crate::price::Overage;
use crate::rate::RateSpec;
use crate::units::{PlanId, Span, Units};

/// Quotas a plan may have: each costs a counter, holds and escrow in every subscription.
pub const QUOTAS_MAX: usize = 16;
/// Rate limits a plan may have: every check looks at all of them.
pub const RATES_MAX: usize = 32;
/// Cost rules a plan may have: searched in order when a check names a path.
pub const COSTS_MAX: usize = 256;
/// The meter that `cost` and `units` speak of when they name none.
pub const REQUESTS: &str = "requests";

/// What happens at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Nothing passes beyond the limit.
    Hard,
    /// Beyond the limit is overage, up to the cap if there is one.
    Soft {
        /// Where even overage ends.
        hard_cap: Option<Units>,
    },
}

/// One counter's allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Name, unique in the plan.
    pub name: Arc<str>,
    /// What is counted.
    pub meter: Arc<str>,
    /// How much a period; `None` = unlimited.
    pub limit: Option<Units>,
    /// Period length.
    pub every: Every,
    /// What periods are counted from.
    pub anchor: Anchor,
    /// What happens at the limit.
    pub enforcement: Enforcement,
    /// Price beyond the included units.
    pub overage: Option<Overage>,
    /// Percentages of the limit at which a notice leaves, ascending.
    pub warn_at: Vec<u16>,
}

impl Quota {
    /// Where overage starts under `limit`: beyond what its price includes, else beyond the limit.
    /// `None` = nowhere.
    pub fn overage_from(&self, limit: Option<Units>) -> Option<Units> {
        self.overage.as_ref().and_then(|overage| overage.included).or(limit)
    }
}

/// Which requests a rule speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// HTTP method; `None` = any.
    pub method: Option<Box<str>>,
    /// Path, exact or with one `*` at the end; `None` = any.
    pub path: Option<Box<str>>,
}

impl Pattern {
    /// Whether a request matches. A request that does not say its method or path matches only a
    /// pattern that does not ask for it.
    pub fn matches(&self, method: Option<&str>, path: Option<&str>) -> bool {
        let method_fits = match (&self.method, method) {
            (None, _) => true,
            (Some(wanted), Some(given)) => wanted.eq_ignore_ascii_case(given),
            (Some(_), None) => false,
        };
        method_fits
            && match (&self.path, path) {
                (None, _) => true,
                (Some(wanted), Some(given)) => match wanted.strip_suffix('*') {
                    Some(prefix) => given.starts_with(prefix),
                    None => &**wanted == given,
                },
                (Some(_), None) => false,
            }
    }

    /// Whether it asks for anything at all.
    pub fn is_any(&self) -> bool {
        self.method.is_none() && self.path.is_none()
    }
}

/// A rate limit of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Name, unique in the plan.
    pub name: Arc<str>,
    /// What is counted.
    pub meter: Arc<str>,
    /// Limit, window and algorithm.
    pub spec: RateSpec,
    /// Which requests count.
    pub pattern: Pattern,
}

/// What a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostRule {
    /// Which requests.
    pub pattern: Pattern,
    /// Units on the meter `requests`.
    pub units: Units,
}

/// Which responses are charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bill {
    /// All.
    #[default]
    All,
    /// Status below 400.
    Success,
    /// Status below 500.
    Non5xx,
}

impl Bill {
    /// Whether a response with this status is charged; one without a status is.
    pub fn charges(self, status: Option<u16>) -> bool {
        match (self, status) {
            (Self::All, _) | (_, None) => true,
            (Self::Success, Some(status)) => status < 400,
            (Self::Non5xx, Some(status)) => status < 500,
        }
    }
}

/// What moves `used`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChargeOn {
    /// Usage events; a check only holds.
    #[default]
    Event,
    /// The check itself, for gateways that send no events.
    Check,
}

/// What a check gets when the store is away and the escrow is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailPolicy {
    /// Allowed, marked degraded.
    #[default]
    Open,
    /// No decision.
    Closed,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Identity over all versions.
    pub id: PlanId,
    /// Version, from 1.
    pub version: u32,
    /// Display name.
    pub name: String,
    /// ISO 4217.
    pub currency: String,
    /// Charged every billing period.
    pub base_fee: Decimal,
    /// Allowances, in the order that answers list them.
    pub quotas: Vec<Quota>,
    /// Rate limits, in the order that answers list them.
    pub rates: Vec<RateLimit>,
    /// Costs; the first that matches decides.
    pub costs: Vec<CostRule>,
    /// Length of the billing period.
    pub every: Every,
    /// What billing periods are counted from.
    pub anchor: Anchor,
    /// Which responses are charged.
    pub bill: Bill,
    /// What moves `used`.
    pub charge_on: ChargeOn,
    /// How long an unsettled hold stands.
    pub hold_ttl: Span,
    /// See [`FailPolicy`].
    pub fail_policy: FailPolicy,
    /// Decide and count, but refuse nothing.
    pub shadow: bool,
}

/// Something wrong with a plan document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct Fault {
    /// JSON pointer into the document.
    pub pointer: String,
    /// Stable code, in `snake_case`.
    pub code: &'static str,
    /// What is expected.
    pub detail: String,
}

impl Fault {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, detail: detail.into() }
    }
}

impl Plan {
    /// Checks the rules that span fields. The parts are already valid on their own.
    pub fn new(plan: Self) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        check_count(&mut faults, "/quotas", plan.quotas.len(), QUOTAS_MAX);
        check_count(&mut faults, "/rateLimits", plan.rates.len(), RATES_MAX);
        check_count(&mut faults, "/costs", plan.costs.len(), COSTS_MAX);
        check_names(&mut faults, "/quotas", plan.quotas.iter().map(|q| &*q.name));
        check_names(&mut faults, "/rateLimits", plan.rates.iter().map(|r| &*r.name));
        if plan.name.is_empty() || plan.name.len() > 200 {
            faults.push(Fault::new("/name", "invalid_length", "1 to 200 characters"));
        }
        if plan.currency.len() != 3 || !plan.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            faults.push(Fault::new(
                "/currency",
                "invalid_currency",
                "an ISO 4217 code such as USD",
            ));
        }
        if plan.base_fee.is_sign_negative() && !plan.base_fee.is_zero() {
            faults.push(Fault::new("/baseFee", "out_of_range", "0 or more"));
        }
        let day = Span::from_seconds(86_400);
        if plan.hold_ttl < Span::from_seconds(1) || plan.hold_ttl > day {
            faults.push(Fault::new("/holdTtl", "out_of_range", "between 1s and 24h"));
        }
        for (index, quota) in plan.quotas.iter().enumerate() {
            check_quota(&mut faults, index, quota);
        }
        if faults.is_empty() { Ok(plan) } else { Err(faults) }
    }

    /// Units that a request costs on the meter `requests`.
    pub fn cost(&self, method: Option<&str>, path: Option<&str>) -> Units {
        self.costs
            .iter()
            .find(|rule| rule.pattern.matches(method, path))
            .map_or(Units::ONE, |rule| rule.units)
    }
}

fn check_count(faults: &mut Vec<Fault>, pointer: &str, count: usize, max: usize) {
    if count > max {
        faults.push(Fault::new(pointer, "too_many", format!("at most {max}")));
    }
}

fn check_names<'a>(faults: &mut Vec<Fault>, list: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, name) in names.enumerate() {
        let pointer = format!("{list}/{index}/name");
        let plain =
            name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if name.is_empty() || name.len() > 64 || !plain {
            let detail = "1 to 64 letters, digits, '-', '_' or '.'";
            faults.push(Fault::new(pointer, "invalid_name", detail));
        } else if seen.contains(&name) {
            faults.push(Fault::new(pointer, "duplicate_name", "each name once"));
        } else {
            seen.push(name);
        }
    }
}

fn check_quota(faults: &mut Vec<Fault>, index: usize, quota: &Quota) {
    if let (Enforcement::Soft { hard_cap: Some(cap) }, Some(limit)) =
        (quota.enforcement, quota.limit)
        && cap < limit
    {
        let pointer = format!("/quotas/{index}/hardCap");
        faults.push(Fault::new(pointer, "out_of_range", "not below the limit"));
    }
    let ascending = quota.warn_at.windows(2).all(|pair| pair[0] < pair[1]);
    let in_range = quota.warn_at.iter().all(|&percent| (1..=1000).contains(&percent));
    if !ascending || !in_range || quota.warn_at.len() > crate::thresholds::THRESHOLDS_MAX {
        let detail = "up to 16 ascending percentages between 1 and 1000";
        faults.push(Fault::new(format!("/quotas/{index}/warnAt"), "invalid_thresholds", detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_exact_paths_and_prefixes() {
        let pattern = |method: Option<&str>, path: Option<&str>| Pattern {
            method: method.map(Into::into),
            path: path.map(Into::into),
        };
        let stories = [
            (pattern(None, None), Some("GET"), Some("/x"), true),
            (pattern(None, None), None, None, true),
            (pattern(Some("GET"), None), Some("get"), None, true),
            (pattern(Some("GET"), None), Some("POST"), None, false),
            (pattern(Some("GET"), None), None, None, false),
            (pattern(None, Some("/v1/search")), None, Some("/v1/search"), true),
            (pattern(None, Some("/v1/search")), None, Some("/v1/search/"), false),
            (pattern(None, Some("/v1/search*")), None, Some("/v1/search/deep"), true),
            (pattern(None, Some("/v1/search*")), None, Some("/v1/sear"), false),
            (pattern(None, Some("*")), None, Some("/anything"), true),
            (pattern(None, Some("*")), None, None, false),
        ];
        for (pattern, method, path, expected) in stories {
            assert_eq!(pattern.matches(method, path), expected, "{pattern:?} {method:?} {path:?}");
        }
    }

    #[test]
    fn what_is_billed_follows_the_status() {
        let stories = [
            (Bill::All, Some(500), true),
            (Bill::Success, Some(399), true),
            (Bill::Success, Some(400), false),
            (Bill::Non5xx, Some(499), true),
            (Bill::Non5xx, Some(500), false),
            (Bill::Success, None, true),
        ];
        for (bill, status, expected) in stories {
            assert_eq!(bill.charges(status), expected, "{bill:?} {status:?}");
        }
    }
}
