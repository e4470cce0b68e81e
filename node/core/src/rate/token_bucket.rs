//! Token bucket, kept as what is missing from full (GCRA without a rounded rate).
//!
//! GCRA keeps a "theoretical arrival time", the moment at which the bucket will be full again
//! (ITU-T I.371, annex A). That moment is rarely a whole microsecond, so this keeps the numerator
//! instead. One unit is `window` ticks and one microsecond refills `limit` ticks: both are whole,
//! whatever the rate. Only the parent module may use it.

use super::{RateSpec, div_ceil, later};
use crate::units::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenBucket {
    pub(super) seen: Micros,
    /// Whole units missing at `seen`, at most the burst.
    pub(super) missing: u64,
    /// Ticks missing beyond those, less than a unit. (Two `u64` for a `u128`, which would align
    /// the state to 16 bytes and make it 48.)
    pub(super) fraction: u64,
}

impl TokenBucket {
    pub(super) fn clamped(spec: &RateSpec, seen: Micros, missing: u64, fraction: u64) -> Self {
        if missing >= spec.burst.get() {
            return Self { seen, missing: spec.burst.get(), fraction: 0 };
        }
        Self { seen, missing, fraction: fraction.min(spec.window_micros() - 1) }
    }

    pub(super) fn standing(&self, spec: &RateSpec, now: Micros) -> (u64, Micros) {
        let ticks = self.ticks_missing(spec, now);
        let remaining = spec.burst.get().saturating_sub(units_missing(spec, ticks));
        (remaining, self.refilled_at(spec, now, ticks))
    }

    pub(super) fn consumed(&self, spec: &RateSpec, now: Micros) -> u64 {
        units_missing(spec, self.ticks_missing(spec, now))
    }

    /// `cost` is at most the burst.
    pub(super) fn fits_at(&self, spec: &RateSpec, now: Micros, cost: u64) -> Micros {
        let may_miss = u128::from(spec.burst.get() - cost) * u128::from(spec.window_micros());
        let ticks = self.ticks_missing(spec, now).saturating_sub(may_miss);
        self.refilled_at(spec, now, ticks)
    }

    pub(super) fn charge(&mut self, spec: &RateSpec, now: Micros, cost: u64) {
        let cost = u128::from(cost) * u128::from(spec.window_micros());
        self.set(spec, now, self.ticks_missing(spec, now) + cost);
    }

    /// Same window, so the ticks keep their size.
    pub(super) fn adapt(&mut self, old: &RateSpec, new: &RateSpec, now: Micros) {
        self.set(new, now, self.ticks_missing(old, now));
    }

    fn set(&mut self, spec: &RateSpec, now: Micros, ticks: u128) {
        let window = spec.window_micros();
        let (missing, fraction) = if let Ok(ticks) = u64::try_from(ticks) {
            (ticks / window, ticks % window)
        } else {
            let window = u128::from(window);
            let missing = u64::try_from(ticks / window).unwrap_or(u64::MAX);
            (missing, u64::try_from(ticks % window).unwrap_or(0))
        };
        *self = Self::clamped(spec, self.seen.max(now), missing, fraction);
    }

    fn ticks_missing(&self, spec: &RateSpec, now: Micros) -> u128 {
        let elapsed = now.since(self.seen).get().unsigned_abs();
        let missing =
            u128::from(self.missing) * u128::from(spec.window_micros()) + u128::from(self.fraction);
        missing.saturating_sub(u128::from(elapsed) * u128::from(spec.limit.get()))
    }

    fn refilled_at(&self, spec: &RateSpec, now: Micros, ticks: u128) -> Micros {
        let start = i128::from(now.max(self.seen).get());
        later(start, div_ceil(ticks, spec.limit.get()))
    }
}

/// A unit of which anything is missing is not there.
fn units_missing(spec: &RateSpec, ticks: u128) -> u64 {
    u64::try_from(div_ceil(ticks, spec.window_micros())).unwrap_or(u64::MAX)
}
