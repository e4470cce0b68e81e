//! A bill: base fees and the overage of each quota, added up.

use std::sync::Arc;

use super::exact::Exact;
use super::money::{Amount, Currency};
use super::overage::{Rated, Segment, rate};
use crate::plan::Plan;
use crate::units::Units;

/// The overage of one quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaBill {
    /// Name of the quota.
    pub quota: Arc<str>,
    /// What it counts.
    pub meter: Arc<str>,
    /// Units used.
    pub used: Units,
    /// Units that cost nothing; `None` = all.
    pub included: Option<Units>,
    /// The rest, priced.
    pub rated: Rated,
}

/// What is to be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Base fees.
    pub base_fee: Amount,
    /// One entry a quota, in the plan's order.
    pub quotas: Vec<QuotaBill>,
}

impl Bill {
    /// The overage of all quotas.
    pub fn overage(&self) -> Amount {
        self.quotas.iter().map(|quota| quota.rated.amount).sum()
    }

    /// Everything.
    pub fn total(&self) -> Amount {
        self.base_fee + self.overage()
    }
}

/// The base fee of a whole billing period.
pub fn fee_of(plan: &Plan) -> Amount {
    Exact::of(plan.base_fee).rounded(Currency::of(&plan.currency))
}

/// What a whole billing period on `plan` would cost. `used` says how much of a meter is used; every
/// quota on that meter is priced as if it were one period of it.
pub fn preview(plan: &Plan, used: impl Fn(&str) -> Units) -> Bill {
    let currency = Currency::of(&plan.currency);
    let quotas = plan.quotas.iter().map(|quota| {
        let (used, included) = (used(&quota.meter), quota.overage_from(quota.limit));
        let price = quota.overage.as_ref();
        let segment = Segment { price, overage_from: included, used_at_end: used };
        QuotaBill {
            quota: quota.name.clone(),
            meter: quota.meter.clone(),
            used,
            included,
            rated: rate(currency, &[segment]),
        }
    });
    Bill { base_fee: fee_of(plan), quotas: quotas.collect() }
}
