//! Overage of one period of one quota: which units are beyond what is included, and what they cost.
//!
//! Role: [`rate`] is the whole rule. A period is given as [`Segment`]s, one for each version of the
//! terms that was in force in it, so that a unit is priced by the terms under which it was used:
//!
//! ```text
//!   used    0 ──────────── 90 ──────────── 150 ───────────── 260
//!             included 100  │  included 50  │   included 200
//!             90 free       │  60 overage   │   110 free: 90 + 110 = 200
//! ```
//! Free units add up over the segments, and a segment's first units are free while they are fewer
//! than it includes. Hence a start of overage that comes down never makes overage of what was used
//! before, and one that goes up neither gives back what was charged nor counts it as used up.

use super::exact::Exact;
use super::model::{Line, LinePrice, Stretch, parts};
use super::money::{Amount, Currency};
use crate::price::{Model, Overage};
use crate::units::Units;

/// The part of a period in which the same terms were in force.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Price of overage; none = free.
    pub price: Option<&'a Overage>,
    /// Where overage starts, as [`crate::plan::Quota::overage_from`] says; `None` = nowhere.
    pub overage_from: Option<Units>,
    /// What the period's counter stood at when these terms went, in the last segment stands at.
    pub used_at_end: Units,
}

/// What a period costs beyond what is included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rated {
    /// Units beyond what is included, priced or not.
    pub overage_units: Units,
    /// What `amount` consists of, in the order of the segments and of their tiers.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub amount: Amount,
    /// Whether a cap kept it from being more.
    pub is_capped: bool,
}

/// Prices a period. The segments follow each other in time.
///
/// The amount is the exact sum of the models' lines, held at the cap, rounded once; so a cap of more
/// places than the currency has is itself rounded where it holds. When terms change, what was reached
/// under earlier ones stays: a cap holds what is added under it.
///
/// A counter that came down (an adjustment, a reset) takes back the latest units first.
pub fn rate(currency: Currency, segments: &[Segment<'_>]) -> Rated {
    let ends: Vec<_> = segments.iter().map(|s| (s.overage_from, s.used_at_end)).collect();
    let overage = overage_units_of(&ends);
    let total: u64 = overage.iter().sum();
    let mut rated = Rated { overage_units: Units::clamped(total), ..Rated::default() };
    let is_volume = |segment: &Segment<'_>| {
        segment.price.is_some_and(|price| matches!(price.model, Model::Volume(_)))
    };
    let pairs = || segments.iter().zip(&overage);
    let last_volume = pairs().rposition(|(segment, units)| *units > 0 && is_volume(segment));
    let (mut before, mut covered, mut reached) = (0, 0, Exact::ZERO);
    for (index, (segment, units)) in pairs().enumerate() {
        let is_last_volume = last_volume == Some(index);
        let stretch = Stretch { before, after: before + units, total, covered, is_last_volume };
        before = stretch.after;
        let Some(price) = segment.price else { continue };
        let cap = price.cap.map(|cap| Exact::of(cap).max(reached));
        for part in parts(&price.model, stretch) {
            if let LinePrice::Package { packages, size, .. } = part.price
                && !packages.is_zero()
            {
                let room = packages.get().saturating_mul(size.get());
                covered = covered.max(stretch.before).saturating_add(room);
            }
            let sum = reached.plus(part.exact);
            let held = cap.map_or(sum, |cap| sum.min(cap));
            rated.is_capped |= held < sum;
            rated.lines.push(Line {
                segment: index,
                tier: part.tier,
                units: Units::clamped(part.units),
                price: part.price,
                amount: held.rounded(currency) - reached.rounded(currency),
            });
            reached = held;
        }
    }
    rated.amount = reached.rounded(currency);
    debug_assert_eq!(rated.amount, rated.lines.iter().map(|line| line.amount).sum());
    rated
}

/// Overage units of each segment, given where overage starts in it and where it ends: what is free is
/// used up first. Live figures and rating count by this one rule.
pub(crate) fn overage_units_of(segments: &[(Option<Units>, Units)]) -> Vec<u64> {
    let mut ends: Vec<u64> = segments.iter().map(|(_, used_at_end)| used_at_end.get()).collect();
    let mut lowest = u64::MAX;
    for end in ends.iter_mut().rev() {
        lowest = lowest.min(*end);
        *end = lowest;
    }
    let (mut begins, mut free) = (0, 0);
    let mut overage = Vec::with_capacity(segments.len());
    for ((overage_from, _), end) in segments.iter().zip(ends) {
        let units = end - begins;
        let room = overage_from.map_or(u64::MAX, |from| from.get().saturating_sub(free));
        let freed = units.min(room);
        free += freed;
        begins = end;
        overage.push(units - freed);
    }
    overage
}
