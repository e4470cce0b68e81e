//! Counting: durable rows move the counters, each once, in the period that it lies in.

use super::check::amount_for;
use super::{Answer, Entry, EntryKind, Meter, Notice, Outcome, WAITING_MAX, Wants, add_past, time};
use crate::plan::{ChargeOn, REQUESTS};
use crate::quota::OtherPeriod;
use crate::units::{Micros, ReservationId, Units};

impl Meter {
    pub(super) fn record(&mut self, now: Micros, entry: &Entry) -> Outcome {
        if entry.seq <= self.last_seq {
            return Outcome { answer: Answer::Recorded(false), wants: Wants::Nothing };
        }
        self.last_seq = entry.seq;
        match entry.kind {
            EntryKind::Usage => self.count(entry, true),
            EntryKind::Denied => {}
            EntryKind::Commit => self.count(entry, false),
            EntryKind::Adjustment => {
                for (index, counter) in self.counters.iter_mut().enumerate() {
                    if *self.terms.plan.quotas[index].meter == *REQUESTS {
                        counter.adjust(entry.units);
                    }
                }
            }
            EntryKind::Reset => {
                for counter in &mut self.counters {
                    counter.reset();
                }
            }
        }
        self.warn(now);
        let waiting = self.past.len().max(self.notices.len());
        let wants = if waiting < WAITING_MAX { Wants::Checkpoint } else { Wants::CheckpointNow };
        Outcome { answer: Answer::Recorded(true), wants }
    }

    /// Adds an event to the period that it lies in and settles what its check held there.
    fn count(&mut self, entry: &Entry, by_event: bool) {
        if let Some(named) = entry.reservation.and_then(|id| self.named.close(id)) {
            self.give_back(&named, true);
        }
        // A reservation's check held and did not charge, whatever the plan charges on; a check that
        // charged did not hold. So an event either settles the oldest holds or finds nothing to settle.
        let settles = by_event && entry.reservation.is_none();
        let charged_by_check = settles && self.terms.plan.charge_on == ChargeOn::Check;
        let at = time::in_range(entry.at);
        let requests = Units::clamped(u64::try_from(entry.units).unwrap_or(0));
        for (index, counter) in self.counters.iter_mut().enumerate() {
            let quota = &self.terms.plan.quotas[index];
            let amount = amount_for(&quota.meter, requests, &entry.others).unwrap_or_default();
            if amount.is_zero() || charged_by_check {
                continue;
            }
            let charged = if entry.charged { amount } else { Units::ZERO };
            if counter.period.contains(at) {
                counter.settle(at, if settles { amount } else { Units::ZERO }, charged);
                continue;
            }
            let period = self.terms.quotas()[index].schedule.period_at(at);
            if at >= counter.period.end {
                counter.charge_early(period, charged);
            } else if !charged.is_zero() {
                let late =
                    OtherPeriod { start: period.start, end: period.end, units: charged.get() };
                let late = counter.cuts.part_at(at, late);
                let (limit, now) = (counter.limit, || self.terms.priced_by(index));
                add_past(&mut self.past, &quota.meter, late, limit, &quota.name, now);
            }
        }
    }

    pub(super) fn warn(&mut self, now: Micros) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            let quota = &self.terms.plan.quotas[index];
            let Some(limit) = counter.limit else { continue };
            for percent in counter.fired.pass(&quota.warn_at, counter.used, limit) {
                self.notices.push(Notice {
                    quota: quota.name.clone(),
                    percent,
                    used: counter.used,
                    limit,
                    limit_version: counter.limit_version,
                    period: counter.period,
                    at: now,
                });
            }
        }
    }

    pub(super) fn release(&mut self, id: ReservationId) -> Outcome {
        let Some(named) = self.named.close(id) else {
            return Outcome { answer: Answer::Released(false), wants: Wants::Nothing };
        };
        self.give_back(&named, false);
        Outcome { answer: Answer::Released(true), wants: Wants::CheckpointNow }
    }
}
