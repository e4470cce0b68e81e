//! Rating: from metered units to money. The same rows and plan versions give the same amounts,
//! whenever and however often recomputed (INV-9).
//!
//! Role: pure functions from totals to amounts; nothing here is remembered. Whoever bills keeps
//! what was counted and what was charged, asks for the amount as it stands now, and charges the
//! difference. So a job that ran twice, crashed half-way or came late ends at the same sum.
//! Callers: the billing job, the plan preview, tests. Uses [`crate::price`], [`crate::plan`] and
//! [`crate::calendar`], and no meter: a meter counts, rating prices what was counted.
//!
//! ```text
//!   counted ──▶ segments ──▶ overage units ──▶ model's lines ──▶ cap ──▶ rounded once ─┐
//!   (by plan version)                          (exact)                                 ├─▶ Bill
//!   base fees ──▶ by time ──▶ rounded so that they add up ─────────────────────────────┘
//!
//!   amount now ─ amount charged = growth ──▶ charge            (while open or in grace)
//!   amount now ─ amount booked  = correction ──▶ a line on the open period    (once closed)
//! ```
//!
//! # Rounding
//! Sums are exact, to twelve decimal places, until an amount is due; it is then rounded once, half
//! away from zero, to the currency's smallest unit. What an amount consists of is cut out of it:
//! each part is the rounded sum up to it less the rounded sum before it, so parts add up always.

mod bill;
mod charge;
mod exact;
mod model;
mod money;
mod overage;
mod proration;
mod stage;

pub use bill::{Bill, QuotaBill, fee_of, preview};
pub use charge::{Booked, Charge, Charged, Correction, correction};
pub use model::{Line, LinePrice};
pub use money::{Amount, Currency};
pub(crate) use overage::overage_units_of;
pub use overage::{Rated, Segment, rate};
pub use proration::{FeeSpan, prorate};
pub use stage::Stage;
