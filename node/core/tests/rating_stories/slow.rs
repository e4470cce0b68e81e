//! The obvious way to price overage: one unit after the other, in integers of `10^-12`.

use rust_decimal::Decimal;
use weir_core::price::{Model, Overage, Tier};

/// `10^-12` of the currency, the smallest part that a price may have.
fn parts(price: Decimal) -> u128 {
    let price = price * Decimal::from(1_000_000_000_000_u64);
    price.to_string().split('.').next().expect("text").parse().expect("small and positive")
}

/// The tier of the overage unit `number`, counted from 1.
fn tier_of(tiers: &[Tier], number: u64) -> usize {
    let holds = |tier: &Tier| tier.up_to.is_none_or(|up_to| number <= up_to.get());
    tiers.iter().position(holds).expect("the last tier is open")
}

fn exact(model: &Model, overage: u64) -> u128 {
    match model {
        Model::PerUnit { unit_price } => (0..overage).map(|_| parts(*unit_price)).sum(),
        Model::Graduated(tiers) => {
            let (mut sum, mut entered) = (0, None);
            for number in 1..=overage {
                let tier = tier_of(tiers, number);
                if entered != Some(tier) {
                    entered = Some(tier);
                    sum += parts(tiers[tier].flat_fee);
                }
                sum += parts(tiers[tier].unit_price);
            }
            sum
        }
        Model::Volume(_) if overage == 0 => 0,
        Model::Volume(tiers) => {
            let tier = &tiers[tier_of(tiers, overage)];
            parts(tier.flat_fee) + (0..overage).map(|_| parts(tier.unit_price)).sum::<u128>()
        }
        Model::Package { size, price } => {
            let mut sum = 0;
            for number in 1..=overage {
                if (number - 1) % size.get() == 0 {
                    sum += parts(*price);
                }
            }
            sum
        }
    }
}

/// Smallest units of a currency with so many places.
pub fn amount(price: &Overage, from: u64, used: u64, places: u32) -> i128 {
    let mut overage = 0;
    for unit in 1..=used {
        if unit > from {
            overage += 1;
        }
    }
    let mut sum = exact(&price.model, overage);
    let smallest = 10_u128.pow(12 - places);
    if let Some(cap) = price.cap {
        sum = sum.min(parts(cap));
    }
    let rest = sum % smallest;
    let up = u128::from(rest * 2 >= smallest && rest > 0);
    i128::try_from(sum / smallest + up).expect("small")
}
