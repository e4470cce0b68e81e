//! Prices in a line, amounts as people write them.

use rust_decimal::Decimal;
use weir_core::calendar::Period;
use weir_core::price::{Model, Overage, Tier};
use weir_core::rating::{Amount, Currency, Rated, Segment, rate};
use weir_core::units::{Micros, Units};

pub fn money(text: &str) -> Decimal {
    text.parse().expect("tests write money well")
}

pub fn units(count: u64) -> Units {
    Units::new(count).expect("tests count below 2^53")
}

pub fn usd() -> Currency {
    Currency::of("USD")
}

pub fn cents(minor: i128) -> Amount {
    Amount::from_minor(minor)
}

/// Of a currency with two places, both written.
pub fn dollars(text: &str) -> Amount {
    assert!(text.rsplit_once('.').is_some_and(|(_, places)| places.len() == 2), "{text}");
    cents(text.replace('.', "").parse().expect("tests write money well"))
}

/// (last unit of the tier or 0 for the open one, price, flat fee)
pub type TierText<'a> = (u64, &'a str, &'a str);

pub fn tiers(list: &[TierText<'_>]) -> Vec<Tier> {
    let tier = |&(up_to, price, fee): &TierText<'_>| Tier {
        up_to: (up_to > 0).then(|| units(up_to)),
        unit_price: money(price),
        flat_fee: money(fee),
    };
    list.iter().map(tier).collect()
}

pub fn per_unit(price: &str) -> Overage {
    price_of(Model::PerUnit { unit_price: money(price) })
}

pub fn graduated(list: &[TierText<'_>]) -> Overage {
    price_of(Model::Graduated(tiers(list)))
}

pub fn volume(list: &[TierText<'_>]) -> Overage {
    price_of(Model::Volume(tiers(list)))
}

pub fn package(size: u64, price: &str) -> Overage {
    price_of(Model::Package { size: units(size), price: money(price) })
}

pub fn capped(cap: &str, overage: Overage) -> Overage {
    Overage { cap: Some(money(cap)), ..overage }
}

fn price_of(model: Model) -> Overage {
    Overage { model, included: None, cap: None }
}

/// The price list of the contract's example.
pub fn example() -> Overage {
    graduated(&[(1_000, "0", "0"), (10_000, "0.01", "0"), (0, "0.005", "0")])
}

pub fn segment(price: &Overage, overage_from: u64, used_at_end: u64) -> Segment<'_> {
    Segment {
        price: Some(price),
        overage_from: Some(units(overage_from)),
        used_at_end: units(used_at_end),
    }
}

/// A period under one price.
pub fn rated(currency: Currency, price: &Overage, overage_from: u64, used: u64) -> Rated {
    rate(currency, &[segment(price, overage_from, used)])
}

pub fn seconds(seconds: i64) -> Micros {
    Micros::from_seconds(seconds)
}

pub fn period(start: i64, end: i64) -> Period {
    Period { index: 0, start: seconds(start), end: seconds(end) }
}
