//! What each period of a subscription counts, by the terms its units were used under.
//!
//! Role: puts together the three places where units are: periods that checkpoints have told, what the
//! restored meter would tell with its next checkpoint, and its running counters. All are of one snapshot
//! of the database, so each unit is there once (INV-2).

use std::collections::BTreeMap;

use weir_core::quota::PricedBy;
use weir_core::units::{Micros, PlanId, Units};
use weir_store::billing::{BillingState, PeriodRow, PeriodStatus, SegmentRow};

use crate::shard::Restored;

/// Units of a period that were used under the same terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// When the terms went; [`Micros::MAX`] = not before the period's end.
    pub until: Micros,
    /// What they were.
    pub by: PricedBy,
    /// Units.
    pub used: u64,
}

/// One period of one quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// As it is stored; as it would be first stored, where it is not.
    pub row: PeriodRow,
    /// Units counted.
    pub used: u64,
    /// The same by terms, in order of time.
    pub parts: Vec<Part>,
    /// Whether the meter counts in it now.
    pub runs: bool,
    /// Whether `row` was read.
    pub stored: bool,
}

/// Key of a period: it is found under it wherever it comes from.
type Key = (String, Micros);

/// The periods of a subscription that are not settled, by quota and start.
pub(super) fn of(state: &BillingState, restored: &mut Restored, now: Micros) -> Vec<Account> {
    let mut all: BTreeMap<Key, Account> = BTreeMap::new();
    for row in &state.periods {
        let used = u64::try_from(row.used).unwrap_or_default();
        let account =
            Account { row: row.clone(), used, parts: Vec::new(), runs: false, stored: true };
        all.insert((row.quota.clone(), row.start), account);
    }
    for segment in &state.segments {
        if let Some(account) = all.get_mut(&(segment.quota.clone(), segment.start)) {
            add(&mut account.parts, part_of(segment));
        }
    }
    let terms = restored.meter.terms().clone();
    let in_force = terms.plan.id;
    let checkpoint = restored.meter.checkpoint(now, true);
    for past in checkpoint.past {
        let fresh = fresh(state, &past.quota, &past.meter, (past.start, past.end), &past.by);
        let account = all.entry((past.quota.to_string(), past.start)).or_insert(fresh);
        account.row.quota_limit = account.row.quota_limit.or(past.limit.map(signed));
        account.used = account.used.saturating_add(past.units);
        add(&mut account.parts, Part { until: past.until, by: past.by, used: past.units });
    }
    for (index, counter) in checkpoint.state.counters.iter().enumerate() {
        let by = terms.priced_by(index);
        let bounds = (counter.period_start, counter.period_end);
        let fresh = fresh(state, &counter.quota, &counter.meter, bounds, &by);
        let account = all.entry((counter.quota.clone(), counter.period_start)).or_insert(fresh);
        account.runs = true;
        account.row.quota_limit = counter.limit.and_then(|limit| i64::try_from(limit).ok());
        (account.row.plan, account.row.plan_version) = (by.plan, version(&by));
        account.used = account.used.saturating_add(counter.used);
        let mut begins = 0;
        for cut in &counter.cuts {
            let ends = cut.used_at_end.get();
            let (used, within) = (ends.saturating_sub(begins), cut.until > counter.period_start);
            begins = begins.max(ends);
            if used > 0 || within {
                add(&mut account.parts, Part { until: cut.until, by: cut.by.clone(), used });
            }
        }
        let used = counter.used.saturating_sub(begins);
        add(&mut account.parts, Part { until: Micros::MAX, by, used });
    }
    let mut accounts: Vec<Account> = all.into_values().collect();
    for account in &mut accounts {
        for part in &mut account.parts {
            if part.by.plan.uuid().is_nil() {
                part.by.plan = in_force;
            }
        }
        account.parts.sort_by_key(|part| part.until);
    }
    accounts
}

/// A period that is not stored yet.
fn fresh(
    state: &BillingState,
    quota: &str,
    meter: &str,
    (start, end): (Micros, Micros),
    by: &PricedBy,
) -> Account {
    let row = PeriodRow {
        subscription: state.loaded.subscription.id,
        quota: quota.to_owned(),
        meter: meter.to_owned(),
        start,
        end,
        used: 0,
        quota_limit: None,
        plan: by.plan,
        plan_version: version(by),
        status: PeriodStatus::Open,
        usage_snapshot: None,
        charges: 0,
        charged: "0".to_owned(),
        charged_units: 0,
        currency: None,
        booked_used: 0,
        closed_at: None,
    };
    Account { row, used: 0, parts: Vec::new(), runs: false, stored: false }
}

/// Adds to the part under the same terms, if there is one.
fn add(parts: &mut Vec<Part>, part: Part) {
    match parts.iter_mut().find(|known| known.until == part.until && known.by == part.by) {
        Some(known) => known.used = known.used.saturating_add(part.used),
        None => parts.push(part),
    }
}

fn part_of(row: &SegmentRow) -> Part {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    Part {
        until: row.until,
        by: PricedBy {
            plan: row.plan,
            version: u32::try_from(row.plan_version).unwrap_or_default(),
            quota: row.priced_as.as_str().into(),
            overage_from: row.overage_from.map(|from| Units::clamped(unsigned(from))),
        },
        used: unsigned(row.used),
    }
}

fn version(by: &PricedBy) -> i32 {
    i32::try_from(by.version).unwrap_or(i32::MAX)
}

fn signed(units: Units) -> i64 {
    // Units never exceed 2^53 - 1.
    i64::try_from(units.get()).unwrap_or(i64::MAX)
}

/// The plan that a period stands under at its end.
impl Account {
    /// Plan and version of its last terms.
    pub fn last_terms(&self) -> (PlanId, u32) {
        let stored = (self.row.plan, u32::try_from(self.row.plan_version).unwrap_or_default());
        self.parts.last().map_or(stored, |part| (part.by.plan, part.by.version))
    }
}
