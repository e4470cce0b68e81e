//! Price models at work: which overage unit costs what.
//!
//! Role: the lines of a stretch of overage units, exact. A period is priced stretch by stretch when
//! its plan changed on the way, and positions go on over the change, so that cutting a period
//! anywhere changes nothing while the price stays the same:
//!
//! ```text
//!   overage units of the period   1 ─────────── before │ ────── after │ ─────── total
//!                                  earlier terms       │  this stretch│  later terms
//! ```
//! - per unit: each unit its price;
//! - graduated: each unit the price of the tier its position is in; a flat fee by the stretch that
//!   enters the tier;
//! - volume: each unit the price of the tier that the *total* is in; its flat fee once, by the last
//!   stretch that is priced by volume;
//! - package: as many packages as this stretch has to open once those bought before are used up.

use rust_decimal::Decimal;

use super::exact::Exact;
use super::money::Amount;
use crate::price::{Model, Tier, check_tiers};
use crate::units::Units;

/// What a line multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinePrice {
    /// Units by their price.
    Unit {
        /// Price of one unit.
        unit_price: Decimal,
        /// Added once for the tier; zero where it was charged before.
        flat_fee: Decimal,
    },
    /// Packages by theirs.
    Package {
        /// Packages opened for these units; none while an earlier one has room.
        packages: Units,
        /// Units a package.
        size: Units,
        /// Price of a package.
        price: Decimal,
    },
}

/// Overage units of one tier, and what they cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which of the segments that were rated, from 0: it tells the plan version.
    pub segment: usize,
    /// Number of the tier, from 1; models without tiers have one.
    pub tier: usize,
    /// Overage units.
    pub units: Units,
    /// How they are priced.
    pub price: LinePrice,
    /// What the line adds to the period's overage, rounded so that all lines add up to it.
    pub amount: Amount,
}

/// A stretch of overage units, `before + 1 ..= after`, in a period that has `total` of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) total: u64,
    /// Up to where packages that are bought already reach.
    pub(super) covered: u64,
    /// Whether no later stretch is priced by volume.
    pub(super) is_last_volume: bool,
}

/// A line that is not rounded yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) tier: usize,
    pub(super) units: u64,
    pub(super) price: LinePrice,
    pub(super) exact: Exact,
}

/// The lines of a stretch, in order of their tiers; none when it is empty.
pub(super) fn parts(model: &Model, stretch: Stretch) -> Vec<Part> {
    let Stretch { before, after, total, .. } = stretch;
    debug_assert!(before <= after && after <= total, "{stretch:?} is not one");
    if before == after {
        return Vec::new();
    }
    match model {
        Model::PerUnit { unit_price } => {
            vec![by_unit(0, after - before, *unit_price, Decimal::ZERO)]
        }
        Model::Graduated(tiers) => graduated(tiers, before, after),
        Model::Volume(tiers) => volume(tiers, stretch),
        Model::Package { size, price } => vec![by_package(*size, *price, stretch)],
    }
}

fn graduated(tiers: &[Tier], before: u64, after: u64) -> Vec<Part> {
    debug_assert_eq!(check_tiers(tiers), Ok(()));
    let mut parts = Vec::new();
    let mut begins = 0;
    for (index, tier) in tiers.iter().enumerate() {
        let ends = tier.up_to.map_or(u64::MAX, Units::get);
        let units = after.min(ends).saturating_sub(before.max(begins));
        if units > 0 {
            let enters = before <= begins;
            let flat_fee = if enters { tier.flat_fee } else { Decimal::ZERO };
            parts.push(by_unit(index, units, tier.unit_price, flat_fee));
        }
        begins = ends;
    }
    parts
}

fn volume(tiers: &[Tier], stretch: Stretch) -> Vec<Part> {
    debug_assert_eq!(check_tiers(tiers), Ok(()));
    let Stretch { before, after, total, is_last_volume, .. } = stretch;
    let holds = |tier: &Tier| tier.up_to.is_none_or(|up_to| total <= up_to.get());
    let Some(index) = tiers.iter().position(holds) else { return Vec::new() };
    let tier = &tiers[index];
    let flat_fee = if is_last_volume { tier.flat_fee } else { Decimal::ZERO };
    vec![by_unit(index, after - before, tier.unit_price, flat_fee)]
}

fn by_unit(tier: usize, units: u64, unit_price: Decimal, flat_fee: Decimal) -> Part {
    let exact = Exact::of(unit_price).times(units).plus(Exact::of(flat_fee));
    Part { tier: tier + 1, units, price: LinePrice::Unit { unit_price, flat_fee }, exact }
}

fn by_package(size: Units, price: Decimal, stretch: Stretch) -> Part {
    let Stretch { before, after, covered, .. } = stretch;
    debug_assert!(!size.is_zero(), "a package holds at least one unit");
    let each = size.get().max(1);
    let packages = after.saturating_sub(before.max(covered)).div_ceil(each);
    let line = LinePrice::Package { packages: Units::clamped(packages), size, price };
    Part { tier: 1, units: after - before, price: line, exact: Exact::of(price).times(packages) }
}
