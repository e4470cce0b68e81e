//! The pure domain of Weir.
//!
//! Role: every rule that decides or counts, and nothing else: no I/O, no clock, no async, no
//! randomness, no floats in decisions; `now` is an argument. One subscription is one
//! [`meter::Meter`]; `Meter::apply(now, Command) -> Outcome` is its only door. The node's actor is a
//! thin shell round it, the simulator drives it with a clock of its own.
//!
//! ```text
//!   units ── calendar ─┐
//!     │       rate ────┤
//!     │       price ───┼─ plan ─┬─ terms ── quota ── meter
//!     └── thresholds ──┘        │          (holds, escrow)
//!                               └─ rating
//! ```
//! Arrows go left to right; no module uses one to its right.

pub mod calendar;
pub mod invariants;
pub mod meter;
pub mod ownership;
pub mod plan;
pub mod price;
pub mod quota;
pub mod rate;
pub mod rating;
pub mod terms;
pub mod thresholds;
pub mod units;
