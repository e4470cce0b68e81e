//! Fixed window: the units of the window, aligned to the Unix epoch, that the moment lies in.
//!
//! The simplest and the loosest. Only the parent module may use it.

use super::{RateSpec, later};
use crate::units::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FixedWindow {
    pub(super) seen: Micros,
    /// Units of the window that holds `seen`.
    pub(super) used: u64,
}

impl FixedWindow {
    pub(super) fn standing(&self, spec: &RateSpec, now: Micros) -> (u64, Micros) {
        let remaining = spec.limit.get().saturating_sub(self.consumed(spec, now));
        (remaining, self.ends_at(spec, now))
    }

    pub(super) fn consumed(&self, spec: &RateSpec, now: Micros) -> u64 {
        let window = spec.window.get();
        let same =
            now.max(self.seen).get().div_euclid(window) == self.seen.get().div_euclid(window);
        if same { self.used } else { 0 }
    }

    /// The end of the window: the next moment at which anything changes.
    pub(super) fn ends_at(&self, spec: &RateSpec, now: Micros) -> Micros {
        let window = spec.window.get();
        let index = now.max(self.seen).get().div_euclid(window);
        later((i128::from(index) + 1) * i128::from(window), 0)
    }

    pub(super) fn charge(&mut self, spec: &RateSpec, now: Micros, cost: u64) {
        let used = self.consumed(spec, now).saturating_add(cost);
        *self = Self { seen: self.seen.max(now), used };
    }
}
