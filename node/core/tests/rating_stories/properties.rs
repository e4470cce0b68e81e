//! What holds of any price and any use, and that it is what the slow model says.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use proptest::prelude::*;
use rust_decimal::{Decimal, RoundingStrategy};
use weir_core::price::{Model, Overage, Tier};
use weir_core::rating::{Amount, Charged, Currency, FeeSpan, Segment, prorate, rate};
use weir_core::units::{Micros, Units};

use crate::book::{cents, period, rated, units};
use crate::slow;

fn prices() -> impl Strategy<Value = Decimal> {
    prop_oneof![
        1 => Just(Decimal::ZERO),
        4 => (0_i64..5_000, 0_u32..=5).prop_map(|(number, places)| Decimal::new(number, places)),
        1 => (0_i64..1_000_000, 6_u32..=12)
            .prop_map(|(number, places)| Decimal::new(number, places)),
    ]
}

fn tiers() -> impl Strategy<Value = Vec<Tier>> {
    (prop::collection::vec((1_u64..60, prices(), prices()), 0..4), prices(), prices()).prop_map(
        |(bounded, unit_price, flat_fee)| {
            let mut up_to = 0;
            let mut tiers: Vec<Tier> = Vec::new();
            for (length, unit_price, flat_fee) in bounded {
                up_to += length;
                tiers.push(Tier { up_to: Some(units(up_to)), unit_price, flat_fee });
            }
            tiers.push(Tier { up_to: None, unit_price, flat_fee });
            tiers
        },
    )
}

/// Models under which one unit more never costs less.
fn monotone_models() -> impl Strategy<Value = Model> {
    prop_oneof![
        prices().prop_map(|unit_price| Model::PerUnit { unit_price }),
        tiers().prop_map(Model::Graduated),
        (1_u64..50, prices()).prop_map(|(size, price)| Model::Package { size: units(size), price }),
    ]
}

fn models() -> impl Strategy<Value = Model> {
    prop_oneof![3 => monotone_models(), 1 => tiers().prop_map(Model::Volume)]
}

fn priced(models: impl Strategy<Value = Model>) -> impl Strategy<Value = Overage> {
    (models, prop::option::of(prices())).prop_map(|(model, cap)| Overage {
        model,
        included: None,
        cap,
    })
}

fn currencies() -> impl Strategy<Value = Currency> {
    prop::sample::select(&["USD", "JPY", "KWD", "CLF"][..]).prop_map(Currency::of)
}

/// Whether an amount is at most a decimal, without rounding either.
fn is_at_most(amount: Amount, currency: Currency, cap: Decimal) -> bool {
    let payable = RoundingStrategy::MidpointAwayFromZero;
    Decimal::from_i128_with_scale(amount.minor(), currency.places())
        <= cap.round_dp_with_strategy(currency.places(), payable)
}

/// Terms of a period's segments: price, start of overage, growth of the counter.
fn changes() -> impl Strategy<Value = Vec<(Overage, Option<u64>, u64)>> {
    prop::collection::vec((priced(models()), prop::option::of(0_u64..100), 0_u64..80), 1..5)
}

fn segments(changes: &[(Overage, Option<u64>, u64)]) -> Vec<Segment<'_>> {
    let mut used = 0;
    let mut segments = Vec::new();
    for (price, from, growth) in changes {
        used += growth;
        segments.push(Segment {
            price: Some(price),
            overage_from: from.map(units),
            used_at_end: units(used),
        });
    }
    segments
}

proptest! {
    #[test]
    fn an_amount_is_what_pricing_unit_by_unit_comes_to(
        price in priced(models()), currency in currencies(), from in 0_u64..120, used in 0_u64..300,
    ) {
        let rated = rated(currency, &price, from, used);
        let expected = slow::amount(&price, from, used, currency.places());
        prop_assert_eq!(rated.amount.minor(), expected);
        prop_assert_eq!(rated.overage_units.get(), used.saturating_sub(from));
    }

    #[test]
    fn lines_add_up_are_never_negative_and_count_every_unit(
        changes in changes(), currency in currencies(),
    ) {
        let segments = segments(&changes);
        let rated = rate(currency, &segments);
        prop_assert_eq!(rated.lines.iter().map(|line| line.amount).sum::<Amount>(), rated.amount);
        prop_assert!(rated.lines.iter().all(|line| line.amount >= Amount::ZERO));
        let counted: u64 = rated.lines.iter().map(|line| line.units.get()).sum();
        prop_assert_eq!(counted, rated.overage_units.get());
    }

    #[test]
    fn no_cap_is_ever_passed(
        price in priced(models()), cap in prices(), currency in currencies(),
        from in 0_u64..50, used in 0_u64..500,
    ) {
        let rated = rated(currency, &Overage { cap: Some(cap), ..price }, from, used);
        prop_assert!(is_at_most(rated.amount, currency, cap), "{rated:?}");
    }

    #[test]
    fn over_changes_of_plan_the_highest_cap_is_not_passed(
        mut changes in changes(), caps in prop::collection::vec(prices(), 5), currency in currencies(),
    ) {
        for (change, cap) in changes.iter_mut().zip(&caps) {
            change.0.cap = Some(*cap);
        }
        let amount = rate(currency, &segments(&changes)).amount;
        let highest = caps.into_iter().max().expect("five of them");
        prop_assert!(is_at_most(amount, currency, highest));
    }

    #[test]
    fn more_use_never_costs_less_where_the_price_does_not_fall(
        price in priced(monotone_models()), currency in currencies(), from in 0_u64..50,
        used in 0_u64..300, more in 0_u64..50,
    ) {
        let amount = |used| rated(currency, &price, from, used).amount;
        prop_assert!(amount(used) <= amount(used + more));
    }

    #[test]
    fn a_period_cut_anywhere_costs_what_it_does_whole(
        price in priced(models()), currency in currencies(), from in 0_u64..100,
        mut cuts in prop::collection::vec(0_u64..300, 1..6),
    ) {
        cuts.sort_unstable();
        let segment = |&used: &u64| Segment {
            price: Some(&price), overage_from: Some(units(from)), used_at_end: units(used),
        };
        let pieces: Vec<Segment<'_>> = cuts.iter().map(segment).collect();
        let cut = rate(currency, &pieces);
        let whole = rated(currency, &price, from, *cuts.last().expect("one at least"));
        prop_assert_eq!(cut.amount, whole.amount);
        prop_assert_eq!(cut.overage_units, whole.overage_units);
    }

    /// Free units are as many as the most generous terms include, never more; lowering a start adds
    /// no overage to what is used.
    #[test]
    fn a_changed_start_makes_overage_of_later_units_only(changes in changes(), lowered in 0_u64..100) {
        let segments = segments(&changes);
        let before = rate(Currency::of("USD"), &segments).overage_units;
        let used = segments.last().expect("one at least").used_at_end;
        let price = &changes[0].0;
        let mut after = segments.clone();
        after.push(Segment {
            price: Some(price), overage_from: Some(units(lowered)), used_at_end: used,
        });
        prop_assert_eq!(rate(Currency::of("USD"), &after).overage_units, before);
        let starts: Option<u64> = segments.iter().map(|s| s.overage_from.map(Units::get)).max()
            .flatten();
        if segments.iter().all(|segment| segment.overage_from.is_some()) {
            let most = starts.expect("all have one");
            prop_assert!(before.get() >= used.get().saturating_sub(most));
        }
    }

    /// Runs that see any use, in any order (a counter may come down), some with an old view of what is
    /// charged: only the writes count, and their sum is what the slow model says.
    #[test]
    fn charges_at_any_moments_come_to_the_closed_amount(
        price in priced(models()), currency in currencies(), from in 0_u64..50,
        runs in prop::collection::vec((0_u64..400, any::<prop::sample::Index>()), 1..12),
        closed_at in 0_u64..400,
    ) {
        let mut written: BTreeMap<u32, Amount> = BTreeMap::new();
        let mut views = vec![Charged::default()];
        let mut write = |view: Charged, used: u64, views: &mut Vec<Charged>| {
            let Some(charge) = view.next(rated(currency, &price, from, used).amount) else { return };
            if let Entry::Vacant(free) = written.entry(charge.number) {
                free.insert(charge.amount);
                views.push(view.with(charge));
            }
        };
        for (used, view) in &runs {
            let view = views[view.index(views.len())];
            write(view, *used, &mut views);
        }
        let newest = views[views.len() - 1];
        write(newest, closed_at, &mut views);
        let sum: i128 = written.values().map(|amount| amount.minor()).sum();
        prop_assert_eq!(sum, slow::amount(&price, from, closed_at, currency.places()));
        prop_assert!(written.keys().copied().eq(1..=u32::try_from(written.len()).expect("few")));
    }

    #[test]
    fn a_fee_that_stays_the_same_is_paid_once_however_often_the_plan_changes(
        fee in 0_i128..1_000_000_000_000, length in 1_i64..40_000_000,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let span = usize::try_from(length).expect("small");
        let mut at: Vec<i64> =
            cuts.iter().map(|cut| i64::try_from(cut.index(span)).expect("small")).collect();
        at.extend([0, length]);
        at.sort_unstable();
        let moment = Micros::from_seconds;
        let spans: Vec<FeeSpan> = at.windows(2)
            .map(|pair| FeeSpan { from: moment(pair[0]), until: moment(pair[1]), fee: cents(fee) })
            .collect();
        let parts = prorate(&period(0, length), &spans);
        prop_assert_eq!(parts.iter().copied().sum::<Amount>(), cents(fee));
    }

    #[test]
    fn different_fees_add_up_to_their_exact_sum_rounded_once(
        fees in prop::collection::vec((0_i128..10_000_000, 0_i64..3_000_000), 1..8),
    ) {
        let length: i64 = fees.iter().map(|(_, seconds)| seconds).sum::<i64>().max(1);
        let mut from = 0;
        let mut spans = Vec::new();
        for &(fee, lasts) in &fees {
            let until = from + lasts;
            let (from_moment, until_moment) = (Micros::from_seconds(from), Micros::from_seconds(until));
            spans.push(FeeSpan { from: from_moment, until: until_moment, fee: cents(fee) });
            from = until;
        }
        let parts = prorate(&period(0, length), &spans);
        let exact: i128 = fees.iter().map(|&(fee, lasts)| fee * i128::from(lasts)).sum();
        let length = i128::from(length);
        // Twice the sum plus the divisor, over twice the divisor: half goes up.
        let expected = (exact * 2 + length) / (length * 2);
        prop_assert_eq!(parts.iter().copied().sum::<Amount>().minor(), expected);
        prop_assert!(parts.iter().all(|part| *part >= Amount::ZERO));
    }
}
