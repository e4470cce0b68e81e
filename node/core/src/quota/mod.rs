//! One quota's counter: what is used, what is held, how far it may admit.
//!
//! ```text
//!   0 ──── used ──── used + pending ──── escrow hi ──── cap
//!          events      holds of checks    persisted      limit or hard cap
//! ```
//! Invariants: `used + pending <= hi <= cap` for every admission (INV-3), `used` falls only by an
//! adjustment or a reset (INV-5), constant memory whatever the limit (INV-6). Callers: [`crate::meter`]
//! only, which looks at every quota before it charges any.

mod cuts;
mod escrow;
mod holds;
mod periods;

pub use cuts::{CUTS_MAX, Counted, Cut, Cuts, PricedBy};
pub use escrow::{BlockSize, Escrow};
pub use holds::{HOLDS_MAX, Hold, Holds};
pub use periods::{ZOMBIE_PART_OF_TTL, withheld_until};

use crate::calendar::Period;
use crate::holds;
use crate::invariants::Invariant;
use crate::terms::QuotaTerms;
use crate::thresholds::Fired;
use crate::units::{Micros, Span, Units};

/// Units counted for a period that is not the running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherPeriod {
    /// Start of that period.
    pub start: Micros,
    /// Its end.
    pub end: Micros,
    /// Units to add to it.
    pub units: u64,
}

/// State of one quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The running period.
    pub period: Period,
    /// Charged in the running period.
    pub used: Units,
    /// What checks hold until events settle it.
    pub holds: Holds,
    /// What named reservations hold.
    pub named: Units,
    /// How far it may admit.
    pub escrow: Escrow,
    /// Notices told in this period under this limit.
    pub fired: Fired,
    /// The limit that `fired` speaks of.
    pub limit: Option<Units>,
    /// Grows whenever the limit changes.
    pub limit_version: u32,
    /// Where overage starts.
    pub overage_from: Option<Units>,
    /// Earlier terms of the period, and what was counted under them.
    pub cuts: Cuts,
    /// Charged already for periods to come (events may lie a little ahead of the clock).
    pub early: Vec<OtherPeriod>,
}

/// Why an amount does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It passes.
    Fits,
    /// It would cross the cap.
    Full,
    /// It fits, but not within what is persisted.
    BeyondEscrow,
}

impl Counter {
    /// A counter that begins at `now`.
    pub fn new(terms: &QuotaTerms, now: Micros) -> Self {
        Self {
            period: terms.schedule.period_at(now),
            used: Units::ZERO,
            holds: Holds::default(),
            named: Units::ZERO,
            escrow: Escrow::default(),
            fired: Fired::default(),
            limit: terms.limit,
            limit_version: 1,
            overage_from: terms.overage_from,
            cuts: Cuts::default(),
            early: Vec::new(),
        }
    }

    /// Held and not yet settled.
    pub fn pending(&self) -> Units {
        self.holds.total().saturating_add(self.named)
    }

    /// Used and held.
    pub fn taken(&self) -> Units {
        self.used.saturating_add(self.pending())
    }

    /// `max(0, limit - used - pending)`; `None` = unlimited.
    pub fn remaining(&self, terms: &QuotaTerms) -> Option<Units> {
        terms.limit.map(|limit| limit.saturating_sub(self.taken()))
    }

    /// Whether `amount` passes. A request that does not say how much it will use of this meter
    /// (`unsaid`, the amount being zero) is refused when nothing is left; one that says zero is not.
    pub fn room(&self, terms: &QuotaTerms, amount: Units, unsaid: bool) -> Room {
        let Some(cap) = terms.cap else {
            return Room::Fits;
        };
        let taken = self.taken();
        if amount.is_zero() {
            return if unsaid && taken >= cap { Room::Full } else { Room::Fits };
        }
        // Both are below 2^53: no overflow.
        let after = taken.get() + amount.get();
        if after > cap.get() {
            Room::Full
        } else if after > self.escrow.hi() {
            Room::BeyondEscrow
        } else {
            Room::Fits
        }
    }

    /// Takes a hold that returns after `ttl`.
    pub fn hold(&mut self, terms: &QuotaTerms, now: Micros, amount: Units, ttl: Span) {
        self.holds.add(now, amount, ttl);
        self.admitted(terms, amount);
    }

    /// Takes a hold that a reservation answers for.
    pub fn hold_named(&mut self, terms: &QuotaTerms, amount: Units) {
        self.named = self.named.saturating_add(amount);
        self.admitted(terms, amount);
    }

    /// Charges at once, for plans whose check is the charge.
    pub fn charge_check(&mut self, terms: &QuotaTerms, amount: Units) {
        self.used = self.used.saturating_add(amount);
        self.admitted(terms, amount);
    }

    fn admitted(&mut self, terms: &QuotaTerms, amount: Units) {
        if terms.cap.is_some() {
            self.escrow.admitted(amount);
        }
    }

    /// Whether the escrow should be extended before it runs out.
    pub fn wants_escrow(&self, terms: &QuotaTerms) -> bool {
        terms.cap.is_some_and(|cap| self.escrow.is_low(self.taken(), cap))
    }

    /// Counts an event of the running period and releases what its check held.
    pub fn settle(&mut self, at: Micros, held: Units, charged: Units) {
        let before = self.used;
        self.cuts.count(at, charged);
        self.holds.release(held);
        self.used = self.used.saturating_add(charged);
        holds!(
            Invariant::Monotone,
            self.used >= before,
            "used fell from {before} to {}",
            self.used
        );
    }

    /// What a named reservation held is no longer held by it.
    pub fn unname(&mut self, amount: Units, committed: bool) {
        self.named = self.named.saturating_sub(amount);
        if !committed {
            self.escrow.free(amount);
        }
    }

    /// Corrects the counter; it never goes below zero.
    pub fn adjust(&mut self, units: i64) {
        let magnitude = Units::clamped(units.unsigned_abs());
        self.used = if units < 0 {
            self.used.saturating_sub(magnitude)
        } else {
            self.used.saturating_add(magnitude)
        };
        self.cuts.hold_at(self.used);
    }

    /// Starts counting anew; what is held stays held.
    pub fn reset(&mut self) {
        self.used = Units::ZERO;
        self.cuts.hold_at(Units::ZERO);
    }
}

#[cfg(test)]
mod tests;
