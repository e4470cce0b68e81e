//! Periods to look at before anything depends on them.
//!
//! Role: the one rule for `weir period` and `POST /api/v1/periods/preview`, which must agree.

use super::{Anchor, Every, Period, Schedule, Zone};
use crate::units::Micros;

/// Periods shown when neither a moment nor a count is asked for: a year of months.
const COUNT_DEFAULT: usize = 12;

/// Which periods are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Their length.
    pub every: Every,
    /// What they are counted from. No subscription is there to begin: one that would begins now.
    pub anchor: Anchor,
    /// Whose days and months they are made of.
    pub zone: Zone,
    /// The first one shown holds this moment; by default the anchor if that is a moment, else now.
    pub at: Option<Micros>,
    /// How many; by default one when `at` is given, else twelve.
    pub count: Option<usize>,
}

impl Preview {
    /// The periods, in order. Fewer than asked for where time ends.
    pub fn periods(&self, now: Micros) -> Vec<Period> {
        let (from, count) = match (self.at, self.anchor) {
            (Some(at), _) => (at, 1),
            (None, Anchor::At(anchor)) => (anchor, COUNT_DEFAULT),
            (None, Anchor::Calendar | Anchor::Subscription) => (now, COUNT_DEFAULT),
        };
        let schedule = Schedule::new(self.every, self.anchor, self.zone.clone(), now);
        schedule.periods_from(from).take(self.count.unwrap_or(count)).collect()
    }
}
