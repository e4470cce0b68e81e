//! What a period costs: each part by the plan that it was used under.
//!
//! A hard quota never charges overage, whatever its ledger says: its units beyond the limit were let
//! through by us (the store was away) or became too many when the limit came down.

use std::sync::Arc;

use weir_core::calendar::Period;
use weir_core::plan::{Enforcement, Plan};
use weir_core::rating::{
    Amount, Charged, Currency, FeeSpan, Rated, Segment, fee_of, prorate, rate,
};
use weir_core::units::{Micros, PlanId, Units};

use super::ReckonError;
use super::account::Account;
use crate::catalog::Catalog;
use crate::catalog::definition::Definition;

/// The base fee of one stretch of a billing period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fee {
    /// Whose fee.
    pub plan: PlanId,
    /// Of which version.
    pub version: u32,
    /// In force from here on.
    pub from: Micros,
    /// Up to here.
    pub until: Micros,
    /// What is due.
    pub amount: Amount,
}

/// A period with its price.
#[derive(Clone, Debug)]
pub struct Priced {
    /// What it counts.
    pub account: Account,
    /// What its overage costs.
    pub rated: Rated,
    /// ISO 4217.
    pub currency: String,
    /// What was charged for it.
    pub charged: Charged,
    /// Base fees, prorated; none when it is not a billing period.
    pub fees: Vec<Fee>,
}

impl Priced {
    /// Its bounds.
    pub fn period(&self) -> Period {
        Period { index: 0, start: self.account.row.start, end: self.account.row.end }
    }

    /// An amount of its currency as people write it.
    pub fn text(&self, amount: Amount) -> String {
        Currency::of(&self.currency).text(amount)
    }
}

/// Prices a period. Plans never change once made, so this says the same whenever it is asked.
pub(super) async fn of(
    catalog: &Catalog,
    definition: &Definition,
    account: Account,
) -> Result<Priced, ReckonError> {
    let mut plans: Vec<Arc<Plan>> = Vec::with_capacity(account.parts.len());
    for part in &account.parts {
        plans.push(catalog.plan(part.by.plan, part.by.version).await?);
    }
    let currency = match (&account.row.currency, plans.last()) {
        (Some(currency), _) => currency.clone(),
        (None, Some(plan)) => plan.currency.clone(),
        (None, None) => {
            let (plan, version) = account.last_terms();
            catalog.plan(plan, version).await?.currency.clone()
        }
    };
    let charged = charged(&account)?;
    let rated = rate(Currency::of(&currency), &segments(&account, &plans));
    let fees = fees(definition, &account, &plans);
    Ok(Priced { account, rated, currency, charged, fees })
}

fn segments<'a>(account: &Account, plans: &'a [Arc<Plan>]) -> Vec<Segment<'a>> {
    let mut used = 0_u64;
    let parts = account.parts.iter().zip(plans);
    let segments = parts.map(|(part, plan)| {
        used = used.saturating_add(part.used);
        let quota = plan.quotas.iter().find(|quota| quota.name == part.by.quota);
        let soft = quota.filter(|quota| matches!(quota.enforcement, Enforcement::Soft { .. }));
        Segment {
            price: soft.and_then(|quota| quota.overage.as_ref()),
            overage_from: part.by.overage_from,
            used_at_end: Units::clamped(used),
        }
    });
    segments.collect()
}

fn charged(account: &Account) -> Result<Charged, ReckonError> {
    let damaged = || ReckonError::Damaged(format!("charged {}", account.row.charged));
    let minor: i128 = account.row.charged.parse().map_err(|_| damaged())?;
    let count = u32::try_from(account.row.charges).map_err(|_| damaged())?;
    Ok(Charged { count, amount: Amount::from_minor(minor) })
}

/// The base fees of a period that is the plan's billing period: each for the time it was in force,
/// within the subscription's own.
fn fees(definition: &Definition, account: &Account, plans: &[Arc<Plan>]) -> Vec<Fee> {
    let row = &account.row;
    let is_billing = plans.last().is_some_and(|plan| {
        plan.quotas.first().is_some_and(|quota| {
            let named = account.parts.last().is_some_and(|part| part.by.quota == quota.name);
            named && (quota.every, quota.anchor) == (plan.every, plan.anchor)
        })
    });
    if !is_billing {
        return Vec::new();
    }
    let terms = &definition.terms;
    let ends = terms.ends_at.unwrap_or(Micros::MAX).min(row.end);
    let mut from = row.start.max(terms.started_at);
    let mut spans = Vec::with_capacity(plans.len());
    for (part, plan) in account.parts.iter().zip(plans) {
        let until = part.until.min(ends).max(from);
        spans.push(FeeSpan { from, until, fee: fee_of(plan) });
        from = until;
    }
    let period = Period { index: 0, start: row.start, end: row.end };
    let due = prorate(&period, &spans);
    let parts = account.parts.iter().zip(spans.iter().zip(due));
    parts
        .filter(|(_, (span, _))| span.from < span.until)
        .map(|(part, (span, amount))| Fee {
            plan: part.by.plan,
            version: part.by.version,
            from: span.from,
            until: span.until,
            amount,
        })
        .collect()
}
