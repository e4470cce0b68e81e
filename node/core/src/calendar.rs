//! Periods: which `[start, end)` a moment belongs to, and when the next one begins.
//!
//! Role: turns "every month, from the 31st, in Berlin" into boundaries. Pure: the time zone rules
//! are compiled in, so two nodes of one build never disagree about a boundary, and `now` is an
//! argument. Callers: [`crate::plan`] holds an [`Every`] and an [`Anchor`], [`crate::meter`] a
//! [`Schedule`], the HTTP layer previews periods.
//!
//! ```text
//!        period -1            period 0              period 1
//!  ──┼────────────────────┼────────────────────┼────────────────────┼──▶
//!  b(-1)              b(0) = anchor           b(1)                 b(2)
//! ```
//!
//! # Where the boundaries are
//! `b(n) = anchor + n · every`, always from the anchor and never from the boundary before it, so
//! nothing drifts: 31 January, 28 February, 31 March. An [`Every`] has three parts, each counted in
//! its own way, in this order:
//!
//! 1. **Months and years** are civil. A day that the month does not have becomes its last day.
//! 2. **Days and weeks** are civil too: the same time on the clocks of the zone, so a `P1D` can be
//!    23, 24 or 25 hours long.
//! 3. **Hours, minutes and seconds** are elapsed time, added to the instant that 1 and 2 lead to.
//!    `PT24H` is therefore not `P1D`.
//!
//! A civil time names the *first instant at which the clocks of the zone show it or later*: the
//! earlier one when they show it twice, the end of the gap when they never show it (a midnight
//! skipped by summer time). That rule is monotone, hence so are the boundaries.
//!
//! # Where the anchor is
//! - `subscription` and a timestamp: that very instant is `b(0)`.
//! - `calendar`: a fixed local midnight of the zone, which depends on what `every` is made of:
//!
//! | `every` | counted from | so that |
//! |---|---|---|
//! | whole weeks (`P1W`, `P14D`) | Monday 1970-01-05 | weeks begin on Monday (ISO 8601) |
//! | anything else with days, months or years | 1970-01-01 | months begin on the 1st, `P3M` are quarters, years begin on 1 January |
//! | only hours, minutes, seconds | 2024-01-01 | `PT1H` begins when local clocks show a full hour, also in Kathmandu (UTC+05:45) |
//!
//! The last row is a *recent* date because offsets change: Kathmandu was at +05:30 in 1970, and
//! hours counted from there would begin at a quarter past. It is a *past* date because no later
//! release of the time zone rules will move it. From then on the steps are elapsed time: `PT6H` in
//! Berlin begins at 00, 06, 12 and 18 o'clock in winter, at 01, 07, 13 and 19 o'clock in summer.
//! (Aligning to the wall clock instead would make a `PT1M` of the repeated hour last 61 minutes.)
//!
//! # What always holds
//! - Every instant is in exactly one period; neighbours touch; no period is empty.
//! - A civil day that a zone skipped altogether (Apia, 30 December 2011) has no period: its index
//!   is left out, and asking for it gives the period that begins where it would have begun.
//! - Boundaries exist from the year 1 to the end of the year 9998. The first period reaches back to
//!   the beginning of time, the last one has no end; nothing panics on any `i64`.

mod duration;
mod preview;
mod schedule;
mod zone;

pub use duration::{DurationError, Every, parse_span};
pub use preview::Preview;
pub use schedule::{Anchor, AnchorError, Period, Periods, Schedule};
pub use zone::{Zone, ZoneError};
