//! A plan that changes within a period: each unit costs what it did when it was used.

use weir_core::price::Overage;
use weir_core::rating::{Segment, rate};

use crate::book::{
    capped, cents, dollars, graduated, package, per_unit, rated, segment, units, usd, volume,
};

/// Per segment: where overage starts, and what is used at its end.
type Limits<'a> = &'a [(u64, u64)];

#[test]
fn moving_the_limit_makes_no_overage_of_what_was_used_and_takes_none_back() {
    // (segments, overage units of the period)
    let stories: [(Limits<'_>, u64); 9] = [
        (&[(100, 150)], 50),
        // Lowered below what is used: what was within the limit stays free.
        (&[(100, 90), (50, 90)], 0),
        (&[(100, 90), (50, 95)], 5),
        (&[(100, 150), (80, 150)], 50),
        (&[(100, 150), (80, 170)], 70),
        // Raised: what was over stays over, and does not use up what is included now.
        (&[(100, 150), (200, 150)], 50),
        (&[(100, 150), (200, 250)], 50),
        (&[(100, 150), (200, 251)], 51),
        // Down and up again.
        (&[(100, 60), (50, 70), (100, 120)], 20),
    ];
    let price = per_unit("1");
    for (limits, overage) in stories {
        let segments: Vec<Segment<'_>> =
            limits.iter().map(|&(from, used)| segment(&price, from, used)).collect();
        assert_eq!(rate(usd(), &segments).overage_units, units(overage), "{limits:?}");
    }
}

#[test]
fn a_unit_is_priced_by_the_plan_that_it_was_used_under() {
    let (cheap, dear) = (per_unit("0.10"), per_unit("2"));
    let rated = rate(usd(), &[segment(&cheap, 100, 150), segment(&dear, 100, 153)]);
    assert_eq!(rated.amount, dollars("5.00") + dollars("6.00"));
    let lines: Vec<_> = rated.lines.iter().map(|line| (line.segment, line.amount)).collect();
    assert_eq!(lines, [(0, dollars("5.00")), (1, dollars("6.00"))]);
}

#[test]
fn tiers_go_on_where_the_plan_before_left_off() {
    let first = graduated(&[(10, "1", "4"), (0, "0.5", "0")]);
    let second = graduated(&[(12, "3", "9"), (0, "2", "5")]);
    // Overage units 1 to 8 by the first list; 9 to 12 at 3, then 13 and 14 at 2 with the fee of the
    // tier that they enter. The second list's first tier was not entered under it.
    let rated = rate(usd(), &[segment(&first, 0, 8), segment(&second, 0, 14)]);
    assert_eq!(
        rated.amount,
        dollars("8.00") + dollars("4.00") + dollars("12.00") + dollars("4.00") + dollars("5.00")
    );
    // A package that is open is used up before another one is bought, at the price of that day.
    let (small, large) = (package(100, "10"), package(100, "30"));
    let packages = |used| rate(usd(), &[segment(&small, 0, 150), segment(&large, 0, used)]).amount;
    assert_eq!([packages(200), packages(201)], [dollars("20.00"), dollars("50.00")]);
    // The tier of a volume price is that of the whole period.
    let (bulk, retail) = (volume(&[(100, "1", "0"), (0, "0.1", "0")]), per_unit("1"));
    let volume = |used| rate(usd(), &[segment(&bulk, 0, 60), segment(&retail, 0, used)]).amount;
    assert_eq!([volume(100), volume(110)], [dollars("100.00"), dollars("6.00") + dollars("50.00")]);
}

#[test]
fn a_package_covers_as_many_units_as_it_holds_and_no_others() {
    let amount = |segments: &[Segment<'_>]| rate(usd(), segments).amount;
    let (single, hundred, fifty, thirty) =
        (per_unit("1"), package(100, "30"), package(50, "10"), package(30, "5"));
    // 150 units one by one, then packages: units 151 to 200 open one.
    let stories = [
        (&single, 150, &hundred, 150, "150.00"),
        (&single, 150, &hundred, 151, "180.00"),
        (&single, 150, &hundred, 250, "180.00"),
        (&single, 150, &hundred, 251, "210.00"),
        // Three packages cover 150; the fourth is a large one, to 250.
        (&fifty, 101, &hundred, 150, "30.00"),
        (&fifty, 101, &hundred, 151, "60.00"),
        (&fifty, 101, &hundred, 250, "60.00"),
        (&fifty, 101, &hundred, 251, "90.00"),
        // Two large ones cover 200; a small one is opened by the next unit only.
        (&hundred, 150, &thirty, 200, "60.00"),
        (&hundred, 150, &thirty, 201, "65.00"),
        (&hundred, 150, &thirty, 231, "70.00"),
    ];
    for (first, before, second, used, expected) in stories {
        let found = amount(&[segment(first, 0, before), segment(second, 0, used)]);
        assert_eq!(found, dollars(expected), "{before} of {first:?}, then to {used} of {second:?}");
    }
    // What was free in between opens nothing and uses nothing up.
    let free = Segment { price: None, overage_from: Some(units(0)), used_at_end: units(150) };
    let found = amount(&[segment(&hundred, 0, 50), free, segment(&hundred, 0, 200)]);
    assert_eq!(found, dollars("60.00"));
}

#[test]
fn the_fee_of_a_volume_price_stays_when_the_price_changes() {
    let (bulk, unit) = (volume(&[(0, "0", "100")]), per_unit("0.01"));
    let free = Segment { price: None, overage_from: Some(units(0)), used_at_end: units(70) };
    let amount = |segments: &[Segment<'_>]| rate(usd(), segments).amount;
    assert_eq!(amount(&[segment(&bulk, 0, 60)]), dollars("100.00"));
    assert_eq!(amount(&[segment(&bulk, 0, 60), segment(&unit, 0, 61)]), dollars("100.01"));
    assert_eq!(amount(&[segment(&bulk, 0, 60), free]), dollars("100.00"));
    let twice = [segment(&bulk, 0, 60), segment(&unit, 0, 61), segment(&bulk, 0, 62)];
    assert_eq!(amount(&twice), dollars("100.01"), "once");
    let unused = [segment(&bulk, 0, 60), segment(&bulk, 0, 60)];
    assert_eq!(amount(&unused), dollars("100.00"), "nothing was used under the second");
}

#[test]
fn a_cap_holds_what_is_added_under_it() {
    let (low, high) = (capped("5.00", per_unit("1")), capped("8.00", per_unit("1")));
    let amount = |first: &Overage, second: &Overage, used| {
        rate(usd(), &[segment(first, 0, 6), segment(second, 0, used)]).amount
    };
    assert_eq!(amount(&low, &high, 7), dollars("6.00"), "what the low cap cut off stays free");
    assert_eq!(amount(&low, &high, 20), dollars("8.00"));
    assert_eq!(amount(&high, &low, 20), dollars("6.00"), "what was reached before stays");
}

#[test]
fn a_counter_that_comes_down_takes_back_the_latest_units() {
    let (first, second) = (per_unit("1"), per_unit("10"));
    let amount = |before, now| {
        rate(usd(), &[segment(&first, 100, before), segment(&second, 100, now)]).amount
    };
    assert_eq!(amount(150, 155), dollars("50.00") + dollars("50.00"));
    assert_eq!(amount(150, 140), dollars("40.00"), "ten of the first plan's units are gone");
    assert_eq!(amount(150, 0), cents(0));
}

#[test]
fn cutting_a_period_where_nothing_changes_changes_nothing() {
    let price = graduated(&[(10, "0.333", "1"), (0, "0.007", "2")]);
    let whole = rated(usd(), &price, 5, 47);
    for cut in 0..=47 {
        let cut = rate(usd(), &[segment(&price, 5, cut), segment(&price, 5, 47)]);
        assert_eq!((cut.overage_units, cut.amount), (whole.overage_units, whole.amount));
    }
}
