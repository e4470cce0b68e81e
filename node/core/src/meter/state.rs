//! Taking state out to be persisted, and starting from what was.
//!
//! Role: plain values for a codec elsewhere. A checkpoint is taken, committed, confirmed; until it is
//! confirmed the escrow it offers is not used. `clean` marks the last checkpoint of an orderly end:
//! nothing was admitted after it, so its holds are exact. Any other checkpoint may be older than what
//! its owner let through, up to the escrow (see [`crate::quota::Counter::withhold`]).
//!
//! What the driver owes: at most one checkpoint of a meter is under way; one whose commit failed or
//! is unknown is repeated as it is until it is known to be committed, or the meter is dropped and
//! restored; a checkpoint can only become the stored one before every later one.

use std::sync::Arc;

use super::recent::Remembered;
use super::{Entry, Meter, Notice, Past};
use crate::quota::{BlockSize, Cut, Hold, OtherPeriod};
use crate::rate::RateParts;
use crate::terms::Terms;
use crate::units::{Micros, PlanId, ReservationId, Seq, Units};

/// A quota's counter, by name so that it survives a change of plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterState {
    /// Name of the quota.
    pub quota: String,
    /// Its meter: the counter goes on only under a quota that counts the same.
    pub meter: String,
    /// Start of the running period.
    pub period_start: Micros,
    /// Its end.
    pub period_end: Micros,
    /// Charged in it.
    pub used: u64,
    /// The persisted bound.
    pub escrow_hi: u64,
    /// The same for the next period.
    pub escrow_next: u64,
    /// Holds of checks.
    pub holds: Vec<Hold>,
    /// The highest percentage of the limit that was told.
    pub fired: u16,
    /// The limit it speaks of.
    pub limit: Option<u64>,
    /// Its version.
    pub limit_version: u32,
    /// Where overage starts.
    pub overage_from: Option<u64>,
    /// Earlier terms, and what was counted under them.
    pub cuts: Vec<Cut>,
    /// Charged for periods to come.
    pub early: Vec<OtherPeriod>,
}

/// An open reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedState {
    /// Its id.
    pub id: ReservationId,
    /// When it returns by itself.
    pub expires_at: Micros,
    /// Units held, by name of the quota.
    pub amounts: Vec<(String, u64)>,
}

/// Everything a successor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterState {
    /// The plan it ran under; nil where that was not persisted.
    pub plan: PlanId,
    /// Its version.
    pub plan_version: u32,
    /// Last ledger row counted.
    pub last_seq: Seq,
    /// Latest time seen.
    pub at: Micros,
    /// Quotas.
    pub counters: Vec<CounterState>,
    /// Rate limits, by name.
    pub rates: Vec<(String, RateParts)>,
    /// Open reservations.
    pub named: Vec<NamedState>,
    /// Decisions that a repeat gets; only in a clean checkpoint. After any other end the last ones
    /// would be missing all the same, and these are the ones that are repeated.
    pub recent: Vec<Remembered>,
}

/// What goes into one checkpoint transaction.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The state.
    pub state: MeterState,
    /// Additions to past periods.
    pub past: Vec<Past>,
    /// Notices to send.
    pub notices: Vec<Notice>,
    /// The subscription moved to the plan that waited for its period's end.
    pub switched: bool,
}

impl Meter {
    /// Takes a checkpoint. Additions and notices are handed over once: the caller keeps the batch
    /// until it is committed. `clean` gives all escrow back: checks on capped quotas wait from here on
    /// until a further checkpoint, not a clean one, is confirmed.
    pub fn checkpoint(&mut self, now: Micros, clean: bool) -> Checkpoint {
        let now = self.advance(now);
        self.pass_time(now);
        self.recent.forget(now);
        let counters = (0..self.counters.len()).map(|index| self.counter_state(now, index, clean));
        let counters = counters.collect();
        let rates = self.terms.plan.rates.iter().zip(&self.rates);
        let state = MeterState {
            plan: self.terms.plan.id,
            plan_version: self.terms.plan.version,
            last_seq: self.last_seq,
            at: now,
            counters,
            rates: rates.map(|(limit, state)| (limit.name.to_string(), state.to_parts())).collect(),
            named: self.named.states(&self.terms),
            recent: if clean { self.recent.remembered() } else { Vec::new() },
        };
        Checkpoint {
            state,
            past: std::mem::take(&mut self.past).into_values().collect(),
            notices: std::mem::take(&mut self.notices),
            switched: std::mem::take(&mut self.switched),
        }
    }

    fn counter_state(&mut self, now: Micros, index: usize, clean: bool) -> CounterState {
        let quota = &self.terms.plan.quotas[index];
        let size = BlockSize::of(self.terms.plan.charge_on);
        let counter = &mut self.counters[index];
        let taken = counter.taken();
        let (hi, next) = match self.terms.quotas()[index].cap {
            Some(cap) if !clean => counter.escrow.offer(now, taken, cap, size),
            // Who finds a clean checkpoint takes its holds to be all there is, so the bound is
            // where they end.
            Some(_) => (taken.get(), counter.escrow.close(now)),
            // A bound from when there was a cap must not be used again if a cap comes back.
            None => (0, counter.escrow.close(now)),
        };
        CounterState {
            quota: quota.name.to_string(),
            meter: quota.meter.to_string(),
            period_start: counter.period.start,
            period_end: counter.period.end,
            used: counter.used.get(),
            escrow_hi: hi,
            escrow_next: next,
            holds: counter.holds.buckets().to_vec(),
            fired: counter.fired.told(),
            limit: counter.limit.map(Units::get),
            limit_version: counter.limit_version,
            overage_from: counter.overage_from.map(Units::get),
            cuts: counter.cuts.list().to_vec(),
            early: counter.early.clone(),
        }
    }

    /// Starts from a checkpoint and the ledger rows after it (ascending). `clean` as the checkpoint
    /// was marked. Checks on capped quotas wait until a first checkpoint is confirmed: take one soon.
    pub fn restore(
        terms: Arc<Terms>,
        state: &MeterState,
        clean: bool,
        tail: &[Entry],
        now: Micros,
    ) -> Self {
        Self::restore_awaiting(terms, None, state, clean, tail, now)
    }

    /// Like [`Meter::restore`] for a subscription whose `next` terms wait for its billing period's
    /// end: that may have passed while it was away, and then they are in force when this returns,
    /// unless they say that they wait for a later one.
    pub fn restore_awaiting(
        terms: Arc<Terms>,
        next: Option<Arc<Terms>>,
        state: &MeterState,
        clean: bool,
        tail: &[Entry],
        now: Micros,
    ) -> Self {
        super::restore::restore(terms, next, state, clean, tail, now)
    }
}
