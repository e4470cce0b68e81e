//! What a period costs under one plan.

use weir_core::plan::{Enforcement, Quota};
use weir_core::price::Overage;
use weir_core::rating::{Currency, LinePrice, Segment, rate};
use weir_core::units::Units;

use crate::book::{
    TierText, capped, cents, dollars, example, graduated, money, package, per_unit, rated, units,
    usd, volume,
};

/// Units used of 100 included, overage units, and what they cost.
type Story<'a> = (u64, u64, &'a str);

fn check(code: &str, price: &Overage, stories: &[Story<'_>]) {
    let currency = Currency::of(code);
    for &(used, overage, amount) in stories {
        let rated = rated(currency, price, 100, used);
        assert_eq!(rated.overage_units, units(overage), "{used} used: {price:?}");
        assert_eq!(currency.text(rated.amount), amount, "{used} used: {price:?}");
    }
}

#[test]
fn what_is_beyond_the_limit_is_charged_at_the_plans_rate() {
    let stories = [
        (0, 0, "0.00"),
        (99, 0, "0.00"),
        (100, 0, "0.00"),
        (101, 1, "0.02"),
        (110, 10, "0.20"),
        (150, 50, "1.00"),
        (1_100, 1_000, "20.00"),
    ];
    check("USD", &per_unit("0.02"), &stories);
}

#[test]
fn graduated_units_cost_what_their_own_tier_does() {
    let price = graduated(&[(10, "1", "0"), (20, "0.5", "3"), (0, "0.1", "7.77")]);
    let stories = [
        (100, 0, "0.00"),
        (110, 10, "10.00"),
        // The second tier is entered with its first unit, and its fee is due.
        (111, 11, "13.50"),
        (120, 20, "18.00"),
        (121, 21, "25.87"),
        (220, 120, "35.77"),
    ];
    check("USD", &price, &stories);
}

#[test]
fn volume_units_all_cost_what_the_tier_of_the_total_does() {
    let price = volume(&[(10, "1", "2"), (20, "0.5", "3"), (0, "0.1", "0")]);
    let stories = [
        (100, 0, "0.00"),
        (101, 1, "3.00"),
        (110, 10, "12.00"),
        // One unit more makes all of them cheaper.
        (111, 11, "8.50"),
        (120, 20, "13.00"),
        (121, 21, "2.10"),
    ];
    check("USD", &price, &stories);
}

#[test]
fn a_package_that_is_begun_is_paid_whole() {
    let stories = [
        (100, 0, "0.00"),
        (101, 1, "5.00"),
        (149, 49, "5.00"),
        (150, 50, "5.00"),
        (151, 51, "10.00"),
        (1_100, 1_000, "100.00"),
    ];
    check("USD", &package(50, "5"), &stories);
}

#[test]
fn an_amount_has_the_places_of_its_currency_and_half_goes_up() {
    check("JPY", &per_unit("0.5"), &[(101, 1, "1"), (102, 2, "1"), (103, 3, "2")]);
    check("USD", &per_unit("0.005"), &[(101, 1, "0.01"), (102, 2, "0.01"), (103, 3, "0.02")]);
    check("KWD", &per_unit("0.0005"), &[(101, 1, "0.001"), (102, 2, "0.001"), (103, 3, "0.002")]);
    // A million tokens at 2.5 cents: no single one of them could be rounded.
    check("USD", &per_unit("0.000000025"), &[(1_000_100, 1_000_000, "0.03")]);
}

#[test]
fn a_cap_holds_what_a_period_costs_and_never_by_less() {
    let stories =
        [(150, 50, "1.00"), (225, 125, "2.50"), (226, 126, "2.50"), (9_999, 9_899, "2.50")];
    check("USD", &capped("2.50", per_unit("0.02")), &stories);
    check("USD", &capped("0", per_unit("0.02")), &[(100, 0, "0.00"), (150, 50, "0.00")]);
    // The sum is held at the cap exactly and then rounded, once.
    check("JPY", &capped("1.5", per_unit("1")), &[(101, 1, "1"), (102, 2, "2"), (109, 9, "2")]);
    check("USD", &capped("5.009", per_unit("5.005")), &[(101, 1, "5.01"), (102, 2, "5.01")]);
    let price = capped("2.50", per_unit("0.02"));
    let is_capped = |used| rated(usd(), &price, 100, used).is_capped;
    assert_eq!([is_capped(225), is_capped(226)], [false, true]);
}

#[test]
fn the_example_of_the_contract_comes_out_to_the_cent() {
    let rated = rated(usd(), &example(), 0, 10_001);
    assert_eq!(usd().text(rated.amount), "90.01");
    let lines: Vec<_> = rated.lines.iter().map(|l| (l.tier, l.units.get(), l.amount)).collect();
    let expected = [(1, 1_000, cents(0)), (2, 9_000, dollars("90.00")), (3, 1, cents(1))];
    assert_eq!(lines, expected);
}

#[test]
fn lines_are_cut_out_of_the_amount_so_that_they_add_up() {
    // Thirds of a cent in each tier: rounded on their own they would come to 0.00.
    let price = graduated(&[(1, "0.004", "0"), (2, "0.004", "0"), (0, "0.004", "0")]);
    let rated = rated(usd(), &price, 0, 3);
    let amounts: Vec<_> = rated.lines.iter().map(|line| line.amount.minor()).collect();
    assert_eq!((rated.amount, amounts), (cents(1), vec![0, 1, 0]));

    let price = capped("10.00", graduated(&[(10, "0.9", "0"), (20, "0.9", "0"), (0, "1", "0")]));
    let rated = self::rated(usd(), &price, 0, 25);
    let amounts: Vec<_> = rated.lines.iter().map(|line| line.amount.minor()).collect();
    assert_eq!((rated.amount, amounts), (dollars("10.00"), vec![900, 100, 0]));
}

#[test]
fn a_line_says_what_it_multiplied() {
    let list: [TierText<'_>; 2] = [(10, "1", "0.25"), (0, "0.5", "3")];
    let line = |price: &Overage| rated(usd(), price, 0, 11).lines.pop().expect("11 units cost");
    let unit = |price, fee| LinePrice::Unit { unit_price: money(price), flat_fee: money(fee) };
    assert_eq!(line(&per_unit("0.02")).price, unit("0.02", "0"));
    assert_eq!(line(&graduated(&list)).price, unit("0.5", "3"));
    assert_eq!(line(&volume(&list)).price, unit("0.5", "3"));
    let packages = LinePrice::Package { packages: units(3), size: units(5), price: money("2") };
    assert_eq!(line(&package(5, "2")).price, packages);
}

#[test]
fn overage_starts_where_the_price_says_else_at_the_limit() {
    let soft = Enforcement::Soft { hard_cap: None };
    let quota = |enforcement, limit: Option<u64>, included: Option<u64>| Quota {
        name: "requests".into(),
        meter: "requests".into(),
        limit: limit.map(units),
        every: weir_core::calendar::Every::parse("P1M").expect("a month"),
        anchor: weir_core::calendar::Anchor::Calendar,
        enforcement,
        overage: Some(Overage { included: included.map(units), ..per_unit("1") }),
        warn_at: Vec::new(),
    };
    // (enforcement, limit, included, used, what that costs)
    let stories = [
        (Enforcement::Hard, Some(100), None, 100, 0),
        (Enforcement::Hard, Some(100), None, 150, 50),
        (Enforcement::Hard, None, None, 150, 0),
        // Priced by the unit up to a hard limit.
        (Enforcement::Hard, Some(100), Some(0), 60, 60),
        (Enforcement::Hard, Some(100), Some(40), 60, 20),
        (soft, Some(100), None, 100, 0),
        (soft, Some(100), None, 150, 50),
        (soft, Some(100), Some(120), 150, 30),
        (soft, None, None, 150, 0),
        (soft, None, Some(120), 150, 30),
    ];
    for (enforcement, limit, included, used, whole) in stories {
        let quota = quota(enforcement, limit, included);
        let segment = Segment {
            price: quota.overage.as_ref(),
            overage_from: quota.overage_from(quota.limit),
            used_at_end: units(used),
        };
        let amount = rate(usd(), &[segment]).amount;
        assert_eq!(amount, cents(whole * 100), "{used} used: {quota:?}");
    }
}

#[test]
fn overage_without_a_price_is_counted_and_free() {
    let segment = Segment { price: None, overage_from: Some(units(100)), used_at_end: units(150) };
    let rated = rate(usd(), &[segment]);
    assert_eq!((rated.overage_units, rated.amount), (units(50), cents(0)));
    assert!(rated.lines.is_empty() && !rated.is_capped);
    assert_eq!(rate(usd(), &[]).overage_units, Units::ZERO);
}
