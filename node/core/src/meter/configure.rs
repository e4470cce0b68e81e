//! Changing terms in the middle: what was used stays used.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Meter, Outcome, Wants, add_past};
use crate::quota::Counter;
use crate::rate::RateState;
use crate::terms::Terms;
use crate::units::Micros;

impl Meter {
    pub(super) fn configure(&mut self, now: Micros, terms: Arc<Terms>) -> Outcome {
        // A change that waits for the period's end is overtaken by a move to another plan, and by a
        // newer version of the plan it waits for; a new version of today's plan leaves it waiting.
        if terms.plan.id != self.terms.plan.id
            || self.next_terms.as_ref().is_some_and(|next| next.plan.id == terms.plan.id)
        {
            self.next_terms = None;
        }
        self.adopt(now, terms);
        self.billing = self.terms.billing.period_at(now);
        Outcome::done(Wants::Checkpoint)
    }

    /// Takes over terms: counters follow their quota's name, rate limits theirs.
    pub(super) fn adopt(&mut self, now: Micros, terms: Arc<Terms>) {
        let old = std::mem::replace(&mut self.terms, terms);
        self.adopt_quotas(now, &old);
        let rates = std::mem::take(&mut self.rates);
        for limit in &self.terms.plan.rates {
            let before =
                old.plan.rates.iter().position(|r| r.name == limit.name && r.meter == limit.meter);
            self.rates.push(before.map_or_else(
                || RateState::new(&limit.spec),
                |position| {
                    let mut state = rates[position];
                    state.adapt(&old.plan.rates[position].spec, &limit.spec, now);
                    state
                },
            ));
        }
    }

    fn adopt_quotas(&mut self, now: Micros, old: &Terms) {
        let mut before: SmallVec<[Option<Counter>; 2]> =
            std::mem::take(&mut self.counters).into_iter().map(Some).collect();
        let mut from = SmallVec::<[Option<usize>; 2]>::new();
        for (quota, terms) in self.terms.plan.quotas.iter().zip(self.terms.quotas()) {
            let position =
                old.plan.quotas.iter().position(|q| q.name == quota.name && q.meter == quota.meter);
            let counter = position.and_then(|position| before[position].take());
            self.counters.push(match counter {
                Some(mut counter) => {
                    counter.adapt(terms, now);
                    counter
                }
                None => Counter::new(terms, now),
            });
            from.push(position);
        }
        self.named.rearrange(&from);
        // What a quota counted before it left the plan is still owed.
        for (quota, counter) in old.plan.quotas.iter().zip(before) {
            let Some(counter) = counter else { continue };
            let limit = counter.limit;
            for other in counter.totals() {
                add_past(&mut self.past, &quota.name, &quota.meter, other, limit);
            }
        }
    }
}
