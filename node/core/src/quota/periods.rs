//! A counter over time: periods that end, terms that change, owners that died.

use std::cmp::Ordering;

use super::escrow::Inherited;
use super::{Counted, Counter, Holds, OtherPeriod, PricedBy};
use crate::calendar::{Period, Schedule};
use crate::terms::QuotaTerms;
use crate::thresholds::Fired;
use crate::units::{Micros, Span, Units};

/// Part of a hold's time to live for which an owner may go on after its successor began (a zombie).
/// The successor withholds the zombie's share for that much longer than one time to live, so that
/// even the zombie's last hold has returned before its units pass again. A lease must be shorter.
pub const ZOMBIE_PART_OF_TTL: i64 = 8;

/// When everything that the owner before us let through has settled or returned, if we begin now.
/// Lengths of time only: the two clocks may differ.
pub fn withheld_until(now: Micros, ttl: Span) -> Micros {
    let zombie = Span::from_micros(ttl.get() / ZOMBIE_PART_OF_TTL);
    now.plus(zombie).plus(ttl).plus(Holds::bucket(ttl))
}

impl Counter {
    /// Counts for a period that has not begun.
    pub fn charge_early(&mut self, period: Period, units: Units) {
        debug_assert!(period.start >= self.period.end, "{period:?} is not early");
        self.add_early(OtherPeriod { start: period.start, end: period.end, units: units.get() });
    }

    /// One entry a period: as many as there are periods in the time that events may be ahead.
    fn add_early(&mut self, other: OtherPeriod) {
        match self.early.iter_mut().find(|entry| entry.start == other.start) {
            Some(entry) => entry.units = entry.units.saturating_add(other.units),
            None if other.units > 0 => self.early.push(other),
            None => {}
        }
    }

    /// Enters the period that `now` lies in. Returns the totals of periods that ended: the old one,
    /// and any in between that events had reached ahead of the clock.
    pub fn roll(&mut self, schedule: &Schedule, now: Micros) -> Vec<Counted> {
        let mut ended = Vec::new();
        if now < self.period.end {
            return ended;
        }
        let next = schedule.period_at(now);
        let ended_at = self.period.end;
        let follows = next.start == ended_at;
        ended.extend(self.end(now));
        self.used = Units::ZERO;
        for entry in std::mem::take(&mut self.early) {
            match entry.start.cmp(&next.start) {
                Ordering::Less => ended.push(entry.into()),
                Ordering::Equal => self.used = Units::clamped(entry.units),
                Ordering::Greater => self.early.push(entry),
            }
        }
        self.period = next;
        self.holds = Holds::default();
        self.named = Units::ZERO;
        self.fired = Fired::default();
        // Whoever was there before us entered this period too, if it still went on at its start.
        let inherited = self.escrow.inherited().filter(|i| follows && ended_at < i.until);
        self.escrow.roll(follows);
        if let Some(Inherited { units, until, kept }) = inherited {
            let units = Units::clamped(units).saturating_sub(self.used);
            self.holds.add_until(if kept { next.end } else { until }, units);
            self.holds.expire(now);
        }
        ended
    }

    /// What the running period counted, by terms; nothing when that is nothing.
    fn end(&mut self, now: Micros) -> Vec<Counted> {
        let Period { start, end, .. } = self.period;
        self.cuts.end(OtherPeriod { start, end, units: self.used.get() }, now)
    }

    /// Everything counted, for a quota that is no longer in the plan.
    pub fn totals(mut self) -> impl Iterator<Item = Counted> {
        let ended = self.end(Micros::MAX);
        ended.into_iter().chain(self.early.into_iter().map(Counted::from))
    }

    /// The terms in force, described by `by`, go at `until`. What was counted ahead of the clock for a
    /// period that begins with the new terms is theirs.
    pub fn cut(&mut self, until: Micros, by: PricedBy) {
        let used = if until <= self.period.start { Units::ZERO } else { self.used };
        self.cuts.add(until, by, used);
    }

    /// Takes over new terms. `used` stays. A period that starts elsewhere than the old one is
    /// entered with what was used so far, so that a change of plan never gives a quota back.
    pub fn adapt(&mut self, terms: &QuotaTerms, now: Micros) {
        let period = terms.schedule.period_at(now);
        if (period.start, period.end) != (self.period.start, self.period.end) {
            self.escrow.roll(false);
            self.enter(terms, period);
        }
        self.adapt_limit(terms);
    }

    /// Goes on in a period of another schedule.
    fn enter(&mut self, terms: &QuotaTerms, period: Period) {
        self.period = period;
        self.fired = Fired::default();
        for entry in std::mem::take(&mut self.early) {
            if entry.start < period.end {
                self.used = self.used.saturating_add(Units::clamped(entry.units));
            } else {
                let Period { start, end, .. } = terms.schedule.period_at(entry.start);
                self.add_early(OtherPeriod { start, end, units: entry.units });
            }
        }
    }

    /// Takes over a limit: notices are told anew under it. The escrow stays as it is persisted, even
    /// beyond a limit that came down: that is how far someone may have gone.
    fn adapt_limit(&mut self, terms: &QuotaTerms) {
        if terms.limit != self.limit {
            self.limit = terms.limit;
            self.limit_version = self.limit_version.saturating_add(1);
            self.fired = Fired::default();
        }
        self.overage_from = terms.overage_from;
    }

    /// Takes over terms that are not those it was persisted under. Returns what was counted in a
    /// period that ended by `now`. Unlike a resident's, its bounds go on as they were: they tell what
    /// its last owner may have let through.
    pub fn resume(&mut self, terms: &QuotaTerms, at: Micros, now: Micros) -> Vec<Counted> {
        let mut ended = Vec::new();
        let period = terms.schedule.period_at(self.period.start);
        if (period.start, period.end) == (self.period.start, self.period.end) {
            self.period = period;
        } else {
            if self.period.end <= now {
                ended = self.end(now);
                self.used = Units::ZERO;
            }
            self.enter(terms, terms.schedule.period_at(at));
        }
        self.adapt_limit(terms);
        ended
    }

    /// After a crash: whatever the last owner may hold beyond what is known is held for it, so that
    /// it and its successor together never pass the cap (INV-3). Called again after each row that
    /// the last owner counted: each may have let it go on.
    pub fn withhold(&mut self, until: Micros, kept: bool) {
        let known = self.taken().get();
        let unknown = Units::clamped(self.escrow.hi().saturating_sub(known));
        self.holds.add_until(if kept { self.period.end } else { until }, unknown);
    }

    /// The next period's bound may be used up by the last owner.
    pub fn inherit(&mut self, units: u64, until: Micros, kept: bool) {
        self.escrow.inherit(Inherited { units, until, kept });
    }
}
