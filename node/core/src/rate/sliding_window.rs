//! Sliding window as a counter of two aligned windows, the older one weighted.
//!
//! At `pos` microseconds into a window, `current + previous · (window − pos) / window` units count
//! as used. The quotient is never rounded before it is compared. Where one window ends and the next
//! begins the estimate does not jump: it is `current` on both sides. Only the parent module may use
//! it; what it admits at worst is told there.

use super::{RateSpec, div_ceil, later};
use crate::units::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlidingWindow {
    pub(super) seen: Micros,
    /// Units of the window before the one that holds `seen`.
    pub(super) previous: u64,
    /// Units of the window that holds `seen`.
    pub(super) current: u64,
}

/// The counters moved on to some moment.
struct Rolled {
    /// Where the window begins.
    start: i128,
    /// What is left of the window, from one microsecond to all of it.
    left: u64,
    previous: u64,
    current: u64,
}

impl SlidingWindow {
    pub(super) fn standing(&self, spec: &RateSpec, now: Micros) -> (u64, Micros) {
        let rolled = self.rolled(spec, now);
        let remaining = spec.limit.get().saturating_sub(rolled.used(spec));
        let window = u128::from(spec.window_micros());
        let reset_at = match (rolled.previous, rolled.current) {
            (0, 0) => now.max(self.seen),
            (_, 0) => later(rolled.start, window),
            _ => later(rolled.start, 2 * window),
        };
        (remaining, reset_at)
    }

    pub(super) fn consumed(&self, spec: &RateSpec, now: Micros) -> u64 {
        self.rolled(spec, now).used(spec)
    }

    /// `cost` is at most the limit and does not fit now.
    pub(super) fn fits_at(&self, spec: &RateSpec, now: Micros, cost: u64) -> Micros {
        let Rolled { start, previous, current, .. } = self.rolled(spec, now);
        let window = spec.window_micros();
        let room = spec.limit.get() - cost;
        // Fading is what makes room: in this window `previous` fades; if what `current` leaves is
        // not enough even then, `current` fades in the next one.
        let (fading, room, windows) = match room.checked_sub(current) {
            Some(room) => (previous, room, 1),
            None => (current, room, 2),
        };
        // It fits once `fading · left / window ≤ room`.
        let left = (u128::from(room) * u128::from(window))
            .checked_div(u128::from(fading))
            .unwrap_or(u128::from(window))
            .min(u128::from(window));
        later(start, windows * u128::from(window) - left)
    }

    pub(super) fn charge(&mut self, spec: &RateSpec, now: Micros, cost: u64) {
        let Rolled { previous, current, .. } = self.rolled(spec, now);
        *self = Self { seen: self.seen.max(now), previous, current: current.saturating_add(cost) };
    }

    fn rolled(&self, spec: &RateSpec, now: Micros) -> Rolled {
        let window = spec.window.get();
        let now = now.max(self.seen).get();
        let index = now.div_euclid(window);
        let left = (window - now.rem_euclid(window)).unsigned_abs();
        let start = i128::from(index) * i128::from(window);
        let (previous, current) = match index - self.seen.get().div_euclid(window) {
            0 => (self.previous, self.current),
            1 => (self.current, 0),
            _ => (0, 0),
        };
        Rolled { start, left, previous, current }
    }
}

impl Rolled {
    /// Rounded up: a unit of which any part counts is not available.
    fn used(&self, spec: &RateSpec) -> u64 {
        let weighted = u128::from(self.previous) * u128::from(self.left);
        let faded = div_ceil(weighted, spec.window_micros());
        self.current.saturating_add(u64::try_from(faded).unwrap_or(u64::MAX))
    }
}
