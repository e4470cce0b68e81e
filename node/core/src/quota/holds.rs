//! Holds of checks, kept as a few time buckets: constant memory however many checks are open.
//!
//! A hold returns by itself not before its time and at most one bucket's width (an eighth of the
//! time to live) after it. The road not taken, one entry a check, would let a client decide how much
//! memory a subscription takes.

use std::cmp::Reverse;

use crate::units::{Micros, Span, Units};

/// Buckets that one time to live is cut into.
const BUCKETS_PER_TTL: i64 = 8;
/// Most buckets alive at once: those of one time to live, one on either side, and as many again
/// after a plan changed its time to live.
pub const HOLDS_MAX: usize = 24;

/// Units that return together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When they return.
    pub expires_at: Micros,
    /// How many.
    pub units: Units,
}

/// All anonymous holds of one quota, earliest return first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    buckets: Vec<Hold>,
    total: Units,
}

impl Holds {
    /// From exported buckets, in any order and number.
    pub fn from_buckets(mut buckets: Vec<Hold>) -> Self {
        // Latest first: where there are too many (a damaged snapshot), the rest joins a later one.
        buckets.sort_by_key(|hold| Reverse(hold.expires_at));
        let mut holds = Self::default();
        for hold in buckets {
            holds.add_until(hold.expires_at, hold.units);
        }
        holds
    }

    /// The buckets.
    pub fn buckets(&self) -> &[Hold] {
        &self.buckets
    }

    /// Held in all.
    pub const fn total(&self) -> Units {
        self.total
    }

    /// Width of a bucket: how much later than its time a hold may return.
    pub fn bucket(ttl: Span) -> Span {
        Span::from_micros((ttl.get() / BUCKETS_PER_TTL).max(1))
    }

    /// When a hold of `ttl` taken now returns: rounded up to the end of a bucket.
    pub fn due(now: Micros, ttl: Span) -> Micros {
        let width = Self::bucket(ttl).get();
        let due = now.plus(ttl).get();
        Micros::from_micros(due.saturating_add(width - 1).div_euclid(width) * width)
    }

    /// Holds `units` until `ttl` from now.
    pub fn add(&mut self, now: Micros, units: Units, ttl: Span) {
        self.add_until(Self::due(now, ttl), units);
    }

    /// Holds `units` until exactly then.
    pub fn add_until(&mut self, expires_at: Micros, units: Units) {
        if units.is_zero() {
            return;
        }
        self.total = self.total.saturating_add(units);
        let position = self.buckets.partition_point(|hold| hold.expires_at < expires_at);
        let full = self.buckets.len() >= HOLDS_MAX;
        match self.buckets.get_mut(position) {
            Some(hold) if hold.expires_at == expires_at => {
                hold.units = hold.units.saturating_add(units);
            }
            // Only a plan that changes its time to live again and again fills the list. Joining the
            // next later bucket keeps the hold longer, never shorter.
            Some(later) if full => later.units = later.units.saturating_add(units),
            None if full => self.stretch_last(expires_at, units),
            _ => self.buckets.insert(position, Hold { expires_at, units }),
        }
        debug_assert!(self.buckets.len() <= HOLDS_MAX, "INV-6: {} buckets", self.buckets.len());
    }

    fn stretch_last(&mut self, expires_at: Micros, units: Units) {
        if let Some(last) = self.buckets.last_mut() {
            last.units = last.units.saturating_add(units);
            last.expires_at = expires_at;
        }
    }

    /// Returns what is due. True when something was.
    pub fn expire(&mut self, now: Micros) -> bool {
        if self.buckets.first().is_none_or(|hold| now < hold.expires_at) {
            return false;
        }
        let due = self.buckets.partition_point(|hold| hold.expires_at <= now);
        for hold in self.buckets.drain(..due) {
            self.total = self.total.saturating_sub(hold.units);
        }
        true
    }

    /// Settles up to `units`, oldest first.
    pub fn release(&mut self, units: Units) {
        let mut left = units;
        let mut emptied = 0;
        for hold in &mut self.buckets {
            if left.is_zero() {
                break;
            }
            let part = hold.units.min(left);
            hold.units = hold.units.saturating_sub(part);
            left = left.saturating_sub(part);
            self.total = self.total.saturating_sub(part);
            if hold.units.is_zero() {
                emptied += 1;
            }
        }
        self.buckets.drain(..emptied);
    }
}
