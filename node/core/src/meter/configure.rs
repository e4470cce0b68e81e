//! Changing terms in the middle: what was used stays used.

use std::sync::Arc;

use smallvec::SmallVec;

use super::succession::{Predecessor, predecessors};
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
        let since = terms.since.unwrap_or(now);
        self.adopt(now, since, terms);
        self.billing = self.terms.billing.period_at(now);
        Outcome::done(Wants::Checkpoint)
    }

    pub(super) fn configure_next(&mut self, now: Micros, terms: Arc<Terms>) -> Outcome {
        if terms.waits_until.is_none_or(|end| now < end) {
            self.next_terms = Some(terms);
            return Outcome::done(Wants::Nothing);
        }
        self.next_terms = None;
        self.adopt(now, terms.waits_until.unwrap_or(now), terms);
        self.billing = self.terms.billing.period_at(now);
        self.switched = true;
        Outcome::done(Wants::Checkpoint)
    }

    /// Takes over terms that hold since a certain moment: counters go on as [`predecessors`] says, rate
    /// limits follow their name.
    pub(super) fn adopt(&mut self, now: Micros, since: Micros, terms: Arc<Terms>) {
        let old = std::mem::replace(&mut self.terms, terms);
        self.adopt_quotas(now, since, &old);
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

    fn adopt_quotas(&mut self, now: Micros, since: Micros, old: &Terms) {
        let before = std::mem::take(&mut self.counters);
        let from = predecessors(&counted(old, &before), &self.terms);
        let mut before: SmallVec<[Option<Counter>; 2]> = before.into_iter().map(Some).collect();
        for (index, (position, terms)) in from.iter().zip(self.terms.quotas()).enumerate() {
            let counter = position.and_then(|position| Some((position, before[position].take()?)));
            self.counters.push(match counter {
                Some((position, mut counter)) => {
                    if !old.prices_like(position, &self.terms, index) {
                        counter.cut(since, old.priced_by(position));
                    }
                    counter.adapt(terms, now);
                    counter
                }
                None => Counter::new(terms, now),
            });
        }
        self.named.rearrange(&from);
        // What no quota goes on with is still owed.
        for (position, (quota, counter)) in old.plan.quotas.iter().zip(before).enumerate() {
            let Some(counter) = counter else { continue };
            let limit = counter.limit;
            for ended in counter.totals() {
                let by = || old.priced_by(position);
                add_past(&mut self.past, &quota.meter, ended, limit, &quota.name, by);
            }
        }
    }
}

/// The counters of a resident, as succession sees them.
fn counted<'a>(terms: &'a Terms, counters: &[Counter]) -> SmallVec<[Predecessor<'a>; 2]> {
    let quotas = terms.plan.quotas.iter().zip(counters);
    quotas
        .map(|(quota, counter)| Predecessor {
            quota: &quota.name,
            meter: &quota.meter,
            start: counter.period.start,
            end: counter.period.end,
        })
        .collect()
}
