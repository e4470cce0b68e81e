//! From a plan to its canonical document: every field written out, in both quota forms.
//!
//! Role: what answers show and the store keeps. Reading it again gives the same plan.

use weir_core::calendar::{Anchor, Every};
use weir_core::plan::{CostRule, Enforcement, Pattern, Plan, Quota, RateLimit};
use weir_core::price::{Model, Overage, Tier};
use weir_core::rate::Algorithm;

use super::document::{
    CostDocument, EnforcementWord, ModelWord, OverageDocument, PeriodDocument, PlanDocument,
    QuotaDocument, RateLimitDocument, TierDocument,
};
use super::leaf::{Given, HoldTtl, Percent};

/// The document of a plan. With any quota it also shows the first one in the short form, so that
/// whoever wrote `quota`, `overage` and `warnAt` finds them again where they were.
pub fn render(plan: &Plan) -> PlanDocument {
    let quotas: Vec<QuotaDocument> = plan.quotas.iter().map(quota_document).collect();
    let first = quotas.first().cloned();
    PlanDocument {
        name: plan.name.clone(),
        currency: Some(plan.currency.clone()),
        base_fee: given(plan.base_fee),
        period: Some(period_document(plan.every, plan.anchor)),
        overage: first.as_ref().and_then(|quota| quota.overage.clone()),
        warn_at: first.as_ref().and_then(|quota| quota.warn_at.clone()),
        quota: first,
        quotas: Some(quotas),
        rate_limits: Some(plan.rates.iter().map(rate_document).collect()),
        costs: Some(plan.costs.iter().map(cost_document).collect()),
        bill: given(plan.bill.into()),
        charge_on: given(plan.charge_on.into()),
        hold_ttl: given(HoldTtl(plan.hold_ttl)),
        fail_policy: given(plan.fail_policy.into()),
        shadow: Some(plan.shadow),
    }
}

impl From<&Plan> for PlanDocument {
    fn from(plan: &Plan) -> Self {
        render(plan)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "fields may be absent in requests, hence optional")]
fn given<T>(value: T) -> Option<Given<T>> {
    Some(Given::Valid(value))
}

fn period_document(every: Every, anchor: Anchor) -> PeriodDocument {
    PeriodDocument { every: given(every), anchor: given(anchor) }
}

fn quota_document(quota: &Quota) -> QuotaDocument {
    let (enforcement, hard_cap) = match quota.enforcement {
        Enforcement::Hard => (EnforcementWord::Hard, None),
        Enforcement::Soft { hard_cap } => (EnforcementWord::Soft, hard_cap),
    };
    QuotaDocument {
        name: Some(quota.name.to_string()),
        meter: Some(quota.meter.to_string()),
        limit: Given::Valid(quota.limit),
        every: given(quota.every),
        anchor: given(quota.anchor),
        enforcement: given(enforcement),
        hard_cap: hard_cap.map(Given::Valid),
        overage: quota.overage.as_ref().map(overage_document),
        warn_at: Some(quota.warn_at.iter().map(|&p| Given::Valid(Percent(p))).collect()),
    }
}

fn rate_document(rate: &RateLimit) -> RateLimitDocument {
    let algorithm = rate.spec.algorithm();
    let (method, path) = pattern_texts(&rate.pattern);
    RateLimitDocument {
        name: Some(rate.name.to_string()),
        meter: Some(rate.meter.to_string()),
        limit: Given::Valid(rate.spec.limit()),
        window: Given::Valid(rate.spec.window()),
        algorithm: given(algorithm.into()),
        burst: (algorithm == Algorithm::TokenBucket).then(|| Given::Valid(rate.spec.burst())),
        method,
        path,
    }
}

fn cost_document(rule: &CostRule) -> CostDocument {
    let (method, path) = pattern_texts(&rule.pattern);
    CostDocument { method, path, units: Given::Valid(rule.units) }
}

fn pattern_texts(pattern: &Pattern) -> (Option<String>, Option<String>) {
    (pattern.method.as_deref().map(str::to_owned), pattern.path.as_deref().map(str::to_owned))
}

fn overage_document(overage: &Overage) -> OverageDocument {
    let document = OverageDocument {
        model: Given::Valid(ModelWord::PerUnit),
        unit_price: None,
        tiers: None,
        size: None,
        price: None,
        included: overage.included.map(Given::Valid),
        cap: overage.cap.map(Given::Valid),
    };
    let tiered = |model, tiers: &[Tier]| {
        let tiers = Some(tiers.iter().map(tier_document).collect());
        OverageDocument { model: Given::Valid(model), tiers, ..document.clone() }
    };
    match &overage.model {
        Model::PerUnit { unit_price } => {
            OverageDocument { unit_price: given(*unit_price), ..document }
        }
        Model::Graduated(tiers) => tiered(ModelWord::Graduated, tiers),
        Model::Volume(tiers) => tiered(ModelWord::Volume, tiers),
        Model::Package { size, price } => OverageDocument {
            model: Given::Valid(ModelWord::Package),
            size: given(*size),
            price: given(*price),
            ..document
        },
    }
}

fn tier_document(tier: &Tier) -> TierDocument {
    TierDocument {
        up_to: tier.up_to.map(Given::Valid),
        unit_price: given(tier.unit_price),
        flat_fee: (!tier.flat_fee.is_zero()).then_some(Given::Valid(tier.flat_fee)),
    }
}
