//! Which quota of new terms goes on with which counter of the old ones.
//!
//! Role: one rule for a resident that changes its terms and for a successor that finds a snapshot of
//! other terms, so that both count the same. A counter follows its quota's name; one whose name is
//! gone goes on under another quota of its meter, so that neither a move to another plan nor a new
//! name gives back what was used. Each counter goes on once: units are moved, never copied.

use smallvec::SmallVec;

use crate::plan::Quota;
use crate::terms::{QuotaTerms, Terms};
use crate::units::Micros;

/// A counter as it stands before the change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Predecessor<'a> {
    /// Name of its quota.
    pub(super) quota: &'a str,
    /// What it counts.
    pub(super) meter: &'a str,
    /// Start of its running period.
    pub(super) start: Micros,
    /// End of it.
    pub(super) end: Micros,
}

/// Whether a counter may go on under a quota.
type Round = fn(&Predecessor<'_>, &Quota, &QuotaTerms) -> bool;

/// Each after the one before has placed all it could.
const ROUNDS: [Round; 3] = [has_name_of, keeps_period_under, counts_for];

fn has_name_of(old: &Predecessor<'_>, quota: &Quota, terms: &QuotaTerms) -> bool {
    *quota.name == *old.quota && counts_for(old, quota, terms)
}

/// Whether the quota's periods are the counter's own. A snapshot knows bounds and no length, so the
/// bounds stand for `every` and `anchor`.
fn keeps_period_under(old: &Predecessor<'_>, quota: &Quota, terms: &QuotaTerms) -> bool {
    let period = terms.schedule.period_at(old.start);
    (period.start, period.end) == (old.start, old.end) && counts_for(old, quota, terms)
}

fn counts_for(old: &Predecessor<'_>, quota: &Quota, _: &QuotaTerms) -> bool {
    *quota.meter == *old.meter
}

/// Per quota of the new terms, the position of the counter that it goes on with; `None` = it begins.
///
/// By name first, then by meter and period, then by meter alone; in each round the first counter in
/// the old order takes the first quota in the new one that is still free.
pub(super) fn predecessors(old: &[Predecessor<'_>], terms: &Terms) -> SmallVec<[Option<usize>; 2]> {
    let quotas = &terms.plan.quotas;
    let mut from: SmallVec<[Option<usize>; 2]> = SmallVec::from_elem(None, quotas.len());
    for fits in ROUNDS {
        for (position, old) in old.iter().enumerate() {
            if from.contains(&Some(position)) {
                continue;
            }
            let mut free = (0..quotas.len()).filter(|&new| from[new].is_none());
            if let Some(new) = free.find(|&new| fits(old, &quotas[new], &terms.quotas()[new])) {
                from[new] = Some(position);
            }
        }
    }
    from
}
