//! What may still happen to a period: a pure function of times, so every node says the same.
//!
//! ```text
//!   start ──── open ──── end ──── grace ──── end + grace ──── closed ────▶
//!   counts, charges grow     late events re-rate it      they become corrections
//! ```

use crate::calendar::Period;
use crate::units::{Micros, Span};

/// Where a period is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has not ended.
    Open,
    /// It ended; events that lie in it still count in it and re-rate it.
    Grace,
    /// Its amount stands; what changes it from now on is a correction on the open period.
    Closed,
}

impl Stage {
    /// The stage of `period` at `now`. A period that has no end stays open.
    pub fn of(period: &Period, grace: Span, now: Micros) -> Self {
        if now < period.end || period.end == Micros::MAX {
            Self::Open
        } else if now < period.end.plus(grace) {
            Self::Grace
        } else {
            Self::Closed
        }
    }

    /// Whether an event that lies in the period is counted and priced in it.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Open | Self::Grace)
    }
}
