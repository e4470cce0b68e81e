//! Time passing: what is due returns, periods that have begun are entered.

use super::named::Named;
use super::{Meter, add_past};
use crate::units::Micros;

/// The last moment has no period after it, so that it may not be reached.
const LAST: Micros = Micros::from_micros(i64::MAX - 1);

/// Any moment as one that a meter can stand at.
pub(super) fn in_range(now: Micros) -> Micros {
    now.min(LAST)
}

impl Meter {
    /// Moves the clock. One that steps back gives no quota and no panic: time stands still for us.
    pub(super) fn advance(&mut self, now: Micros) -> Micros {
        self.last_now = in_range(now).max(self.last_now);
        self.last_now
    }

    /// Returns what is due and enters periods that have begun. True when a period changed.
    pub(super) fn pass_time(&mut self, now: Micros) -> bool {
        let mut rolled = false;
        for counter in &mut self.counters {
            counter.holds.expire(now);
            rolled |= now >= counter.period.end;
        }
        while let Some(due) = self.named.close_due(now) {
            self.give_back(&due, false);
        }
        let billed = now >= self.billing.end;
        if rolled {
            self.roll_quotas(now);
        }
        if billed {
            if let Some(next) = self.next_terms.take_if(|next| !next.wait_on(now)) {
                self.adopt(now, self.billing.end, next);
                self.switched = true;
            }
            self.billing = self.terms.billing.period_at(now);
        }
        rolled || billed
    }

    fn roll_quotas(&mut self, now: Micros) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if now < counter.period.end {
                continue;
            }
            let (quota, limit) = (&self.terms.plan.quotas[index], counter.limit);
            for ended in counter.roll(&self.terms.quotas()[index].schedule, now) {
                let by = || self.terms.priced_by(index);
                add_past(&mut self.past, &quota.meter, ended, limit, &quota.name, by);
            }
            self.named.period_over(index);
        }
        // Events that were ahead of the clock may have passed a threshold of the new period.
        self.warn(now);
    }

    /// The counters no longer hold what a reservation held.
    pub(super) fn give_back(&mut self, named: &Named, committed: bool) {
        for (counter, amount) in self.counters.iter_mut().zip(&named.amounts) {
            counter.unname(*amount, committed);
        }
    }
}
