//! Price models of overage, valid by construction.
//!
//! Role: what a plan may charge beyond its included units. Shapes follow the four models that
//! billing platforms agree on (per unit, graduated, volume, package). Money is decimal, never a float.
//! Rating (units → lines → amount) reads these.

use rust_decimal::Decimal;

use crate::units::Units;

/// A tier of a graduated or volume price: overage units up to and including `up_to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Last overage unit of the tier, counted from 1; `None` = all further ones.
    pub up_to: Option<Units>,
    /// Price of one unit.
    pub unit_price: Decimal,
    /// Charged once when the tier is entered.
    pub flat_fee: Decimal,
}

/// How overage units become money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// Every unit costs the same.
    PerUnit {
        /// Price of one unit.
        unit_price: Decimal,
    },
    /// Each unit costs the price of the tier that it falls in.
    Graduated(Vec<Tier>),
    /// All units cost the price of the tier that the total falls in.
    Volume(Vec<Tier>),
    /// Sold in packages, a started one counts whole.
    Package {
        /// Units a package.
        size: Units,
        /// Price of a package.
        price: Decimal,
    },
}

/// Overage of one quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overage {
    /// The price model.
    pub model: Model,
    /// Units that cost nothing; `None` = the quota's limit.
    pub included: Option<Units>,
    /// Most that a period's overage may cost.
    pub cap: Option<Decimal>,
}

/// Why a list of tiers is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierFault {
    /// No tier at all.
    #[error("at least one tier is needed")]
    Empty,
    /// `up_to` does not grow.
    #[error("each tier's upTo must be greater than the one before")]
    NotAscending,
    /// An open tier before the last one, or none at the end.
    #[error("only the last tier, and it, leaves upTo out")]
    OpenTier,
}

/// Checks that tiers cover every unit from 1 without overlap.
pub fn check_tiers(tiers: &[Tier]) -> Result<(), TierFault> {
    let Some((last, bounded)) = tiers.split_last() else {
        return Err(TierFault::Empty);
    };
    if last.up_to.is_some() {
        return Err(TierFault::OpenTier);
    }
    let mut before = Units::ZERO;
    for tier in bounded {
        match tier.up_to {
            None => return Err(TierFault::OpenTier),
            Some(up_to) if up_to <= before => return Err(TierFault::NotAscending),
            Some(up_to) => before = up_to,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(up_to: Option<u64>) -> Tier {
        Tier { up_to: up_to.map(Units::clamped), unit_price: Decimal::ONE, flat_fee: Decimal::ZERO }
    }

    #[test]
    fn tiers_cover_every_unit_once_or_are_refused() {
        /// Where tiers end, and whether that is a list of tiers.
        type Story = (&'static [Option<u64>], Result<(), TierFault>);
        let stories: [Story; 6] = [
            (&[None], Ok(())),
            (&[Some(1000), Some(10_000), None], Ok(())),
            (&[], Err(TierFault::Empty)),
            (&[Some(10)], Err(TierFault::OpenTier)),
            (&[None, Some(10)], Err(TierFault::OpenTier)),
            (&[Some(10), Some(10), None], Err(TierFault::NotAscending)),
        ];
        for (bounds, expected) in stories {
            let tiers: Vec<Tier> = bounds.iter().map(|&b| tier(b)).collect();
            assert_eq!(check_tiers(&tiers), expected, "{bounds:?}");
        }
    }
}
