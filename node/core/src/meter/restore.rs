//! Starting where another owner ended.
//!
//! The rows after the checkpoint are counted with the clock that it was taken at, not with today's:
//! rows of the period that ran then are counted in it and tell its notices, and only afterwards does
//! time pass. Rows that speak of "the running period" move that clock to their own time.

use std::sync::Arc;

use smallvec::SmallVec;

use super::named::Named;
use super::state::{CounterState, MeterState};
use super::succession::{Predecessor, predecessors};
use super::{Command, Entry, EntryKind, Meter, add_past};
use crate::calendar::Period;
use crate::plan::ChargeOn;
use crate::quota::{Counted, Counter, Cuts, Escrow, Holds, PricedBy, withheld_until};
use crate::rate::RateState;
use crate::terms::Terms;
use crate::thresholds::Fired;
use crate::units::{Micros, Units};

/// How the last owner's unknown holds are withheld; `None` after a clean checkpoint.
#[derive(Clone, Copy)]
struct Withheld {
    until: Micros,
    /// Its checks charged: what it let through never returns.
    kept: bool,
}

pub(super) fn restore(
    terms: Arc<Terms>,
    next: Option<Arc<Terms>>,
    state: &MeterState,
    clean: bool,
    tail: &[Entry],
    now: Micros,
) -> Meter {
    let mut meter = Meter::new(terms, state.at);
    let now = now.max(meter.last_now);
    meter.next_terms = next;
    meter.last_seq = state.last_seq;
    let withheld = Withheld {
        until: withheld_until(now, meter.terms.plan.hold_ttl),
        kept: meter.terms.plan.charge_on == ChargeOn::Check,
    };
    meter.take_over(state, clean, withheld, now);
    meter.recent.resume(now, &state.recent);
    let withheld = (!clean).then_some(withheld);
    meter.withhold(withheld);
    for entry in tail {
        if matches!(entry.kind, EntryKind::Adjustment | EntryKind::Reset) {
            meter.apply(entry.at, Command::Tick);
            meter.withhold(withheld);
        }
        let at = meter.last_now;
        meter.apply(at, Command::Record(entry));
        meter.withhold(withheld);
    }
    meter.apply(now, Command::Tick);
    meter.withhold(withheld);
    meter
}

impl Meter {
    fn withhold(&mut self, withheld: Option<Withheld>) {
        let Some(Withheld { until, kept }) = withheld else { return };
        for counter in &mut self.counters {
            counter.withhold(until, kept);
        }
    }

    fn take_over(&mut self, state: &MeterState, clean: bool, withheld: Withheld, now: Micros) {
        let terms = self.terms.clone();
        // The plan may have changed while nobody was resident: same rules as for a resident one.
        let from = predecessors(&counted(state), &terms);
        for (position, old) in state.counters.iter().enumerate() {
            let counter = counter_from(old, clean, withheld);
            let limit = counter.limit;
            let by = priced_by(state, old, &terms);
            let ended: Vec<Counted> = match from.iter().position(|&p| p == Some(position)) {
                Some(index) => {
                    let mut counter = counter;
                    if by != terms.priced_by(index) {
                        counter.cut(terms.since.unwrap_or(state.at), by.clone());
                    }
                    self.counters[index] = counter;
                    self.counters[index].resume(&terms.quotas()[index], self.last_now, now)
                }
                None => counter.totals().collect(),
            };
            let (name, meter) = (Arc::from(&*old.quota), Arc::from(&*old.meter));
            for ended in ended {
                add_past(&mut self.past, &meter, ended, limit, &name, || by.clone());
            }
        }
        for (index, limit) in terms.plan.rates.iter().enumerate() {
            let parts = state.rates.iter().find(|(name, _)| *name == *limit.name);
            // Another algorithm than the one it was counted with: begin afresh.
            if let Some(rate) =
                parts.and_then(|(_, parts)| RateState::from_parts(&limit.spec, *parts))
            {
                self.rates[index] = rate;
            }
        }
        for old in &state.named {
            let held = from.iter().map(|position| {
                let quota = position.map(|position| &state.counters[position].quota);
                let held = old.amounts.iter().find(|(name, _)| Some(name) == quota);
                Units::clamped(held.map_or(0, |(_, amount)| *amount))
            });
            let amounts: SmallVec<[Units; 2]> = held.collect();
            for (counter, amount) in self.counters.iter_mut().zip(&amounts) {
                counter.named = counter.named.saturating_add(*amount);
            }
            self.named.open(Named { id: old.id, expires_at: old.expires_at, amounts });
        }
    }
}

/// What the units of a snapshot's counter are priced by.
fn priced_by(state: &MeterState, old: &CounterState, terms: &Terms) -> PricedBy {
    PricedBy {
        plan: if state.plan.uuid().is_nil() { terms.plan.id } else { state.plan },
        version: state.plan_version,
        quota: Arc::from(&*old.quota),
        overage_from: old.overage_from.map(Units::clamped),
    }
}

/// The counters of a snapshot, as succession sees them.
fn counted(state: &MeterState) -> SmallVec<[Predecessor<'_>; 2]> {
    let counters = state.counters.iter();
    counters
        .map(|counter| Predecessor {
            quota: &counter.quota,
            meter: &counter.meter,
            start: counter.period_start,
            end: counter.period_end,
        })
        .collect()
}

fn counter_from(old: &CounterState, clean: bool, withheld: Withheld) -> Counter {
    // Without a bound nothing is withheld, and the last known holds are the best guess.
    let exact = clean || old.escrow_hi == 0;
    // After a clean checkpoint nothing may pass before a further one is committed: who finds the
    // clean one again after a crash takes its holds to be all there is.
    let escrow = if clean { (0, 0) } else { (old.escrow_hi, old.escrow_next) };
    let mut counter = Counter {
        period: Period { index: 0, start: old.period_start, end: old.period_end },
        used: Units::clamped(old.used),
        holds: Holds::from_buckets(if exact { old.holds.clone() } else { Vec::new() }),
        named: Units::ZERO,
        escrow: Escrow::persisted(escrow.0, escrow.1),
        fired: Fired::from_told(old.fired),
        limit: old.limit.map(Units::clamped),
        limit_version: old.limit_version,
        overage_from: old.overage_from.map(Units::clamped),
        cuts: Cuts::from_list(old.cuts.clone()),
        early: old.early.clone(),
    };
    if old.escrow_next > 0 {
        counter.inherit(old.escrow_next, withheld.until, withheld.kept);
    }
    counter
}
