//! A plan as it applies to one subscription: its limits, its zone, its start.
//!
//! Role: what a [`crate::meter::Meter`] decides by. One per resident subscription, shared with the
//! decisions it gives out (an answer names quotas by looking here); a meter never changes it, only
//! replaces it.

use std::sync::Arc;

use crate::calendar::{Schedule, Zone};
use crate::plan::{Enforcement, Plan};
use crate::quota::PricedBy;
use crate::units::{Micros, Units};

/// A subscription's own terms.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The plan they come from.
    pub plan: Arc<Plan>,
    /// From when the subscription may be used.
    pub started_at: Micros,
    /// Until when.
    pub ends_at: Option<Micros>,
    /// Billing periods.
    pub billing: Schedule,
    /// Since when they hold, as the rows say that they were made from: the same on every node, whenever
    /// it hears of them. `None` = since it does.
    pub since: Option<Micros>,
    /// The end of the billing period that they wait for, where it is known; else they wait for the
    /// end of whichever runs.
    pub waits_until: Option<Micros>,
    quotas: Vec<QuotaTerms>,
}

/// What one counter is held to.
#[derive(Clone, Debug)]
pub struct QuotaTerms {
    /// Limit in force; `None` = unlimited.
    pub limit: Option<Units>,
    /// Beyond this nothing passes: the limit of a hard quota, the hard cap of a soft one.
    pub cap: Option<Units>,
    /// Where overage starts, see [`crate::plan::Quota::overage_from`]. `None` = nowhere.
    pub overage_from: Option<Units>,
    /// The quota's periods.
    pub schedule: Schedule,
}

/// A limit that differs from the plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitOverride {
    /// Name of the quota.
    pub quota: String,
    /// `None` = unlimited.
    pub limit: Option<Units>,
}

impl Terms {
    /// Terms of a subscription. Overrides for quotas that the plan does not have are ignored: the
    /// plan may have changed since they were written.
    pub fn new(
        plan: Arc<Plan>,
        zone: &Zone,
        started_at: Micros,
        ends_at: Option<Micros>,
        overrides: &[LimitOverride],
    ) -> Self {
        let quotas = plan
            .quotas
            .iter()
            .map(|quota| {
                let limit = overrides
                    .iter()
                    .find(|o| o.quota == *quota.name)
                    .map_or(quota.limit, |o| o.limit);
                let cap = match quota.enforcement {
                    Enforcement::Hard => limit,
                    Enforcement::Soft { hard_cap } => {
                        hard_cap.map(|cap| limit.map_or(cap, |l| l.max(cap)))
                    }
                };
                let schedule = Schedule::new(quota.every, quota.anchor, zone.clone(), started_at);
                QuotaTerms { limit, cap, overage_from: quota.overage_from(limit), schedule }
            })
            .collect();
        let billing = Schedule::new(plan.every, plan.anchor, zone.clone(), started_at);
        Self { plan, started_at, ends_at, billing, since: None, waits_until: None, quotas }
    }

    /// The same, holding since a certain moment.
    #[must_use]
    pub fn holding_since(self, since: Micros) -> Self {
        Self { since: Some(since), ..self }
    }

    /// What a unit of the quota at `index` is priced by.
    pub fn priced_by(&self, index: usize) -> PricedBy {
        PricedBy {
            plan: self.plan.id,
            version: self.plan.version,
            quota: self.plan.quotas[index].name.clone(),
            overage_from: self.quotas[index].overage_from,
        }
    }

    /// Whether a unit costs the same under a quota of these terms and under one of others. The base fee
    /// is looked at too: it is prorated by the same cuts.
    pub fn prices_like(&self, index: usize, other: &Self, other_index: usize) -> bool {
        let (own, others) = (&self.plan.quotas[index], &other.plan.quotas[other_index]);
        let is_soft = |enforcement| matches!(enforcement, Enforcement::Soft { .. });
        self.quotas[index].overage_from == other.quotas[other_index].overage_from
            && own.overage == others.overage
            && is_soft(own.enforcement) == is_soft(others.enforcement)
            && self.plan.base_fee == other.plan.base_fee
            && self.plan.currency == other.plan.currency
    }

    /// The same, in force from the end of a certain billing period on: whoever hears of them late
    /// must not take that for the end of another one.
    #[must_use]
    pub fn waiting_until(self, end: Micros) -> Self {
        Self { waits_until: Some(end), ..self }
    }

    /// Whether terms that wait for a period's end still do so after one that ended by `now`.
    pub fn wait_on(&self, now: Micros) -> bool {
        self.waits_until.is_some_and(|end| now < end)
    }

    /// Per quota of the plan, in its order.
    pub fn quotas(&self) -> &[QuotaTerms] {
        &self.quotas
    }
}
