//! Base fees for parts of a period.

use weir_core::rating::{FeeSpan, prorate};
use weir_core::units::Micros;

use crate::book::{cents, dollars, period, seconds, usd};

const DAY: i64 = 86_400;

/// A fee, and the days from which to which it held.
type Span<'a> = (&'a str, i64, i64);

fn check(days: i64, spans: &[Span<'_>], expected: &[&str]) {
    let span = |&(fee, from, until): &Span<'_>| FeeSpan {
        from: seconds(from * DAY),
        until: seconds(until * DAY),
        fee: dollars(fee),
    };
    let spans: Vec<FeeSpan> = spans.iter().map(span).collect();
    let parts = prorate(&period(0, days * DAY), &spans);
    let parts: Vec<String> = parts.into_iter().map(|part| usd().text(part)).collect();
    assert_eq!(parts, expected, "{spans:?}");
}

#[test]
fn each_fee_is_due_for_its_time_and_the_parts_add_up() {
    // A plan that did not change.
    check(30, &[("30.00", 0, 30)], &["30.00"]);
    // Up half-way; down after ten days.
    check(30, &[("30.00", 0, 15), ("60.00", 15, 30)], &["15.00", "30.00"]);
    check(30, &[("60.00", 0, 10), ("30.00", 10, 30)], &["20.00", "20.00"]);
    // A third of ten dollars, three times: the rest is not lost.
    check(30, &[("10.00", 0, 10), ("10.00", 10, 20), ("10.00", 20, 30)], &["3.33", "3.34", "3.33"]);
    // 31 days.
    check(31, &[("29.99", 0, 11), ("99.99", 11, 31)], &["10.64", "64.51"]);
    // To a plan without a fee.
    check(30, &[("30.00", 0, 1), ("0.00", 1, 30)], &["1.00", "0.00"]);
}

#[test]
fn only_time_within_the_period_and_the_subscription_costs() {
    // In force since long before and until long after.
    check(30, &[("30.00", -300, 300)], &["30.00"]);
    // Began on the tenth day; ended on the twentieth.
    check(30, &[("30.00", 10, 30)], &["20.00"]);
    check(30, &[("30.00", 0, 20)], &["20.00"]);
    // Altogether in another period.
    check(30, &[("30.00", 40, 50), ("30.00", -9, -1)], &["0.00", "0.00"]);
    // Named twice: the time is paid once.
    check(30, &[("30.00", 0, 20), ("60.00", 10, 30)], &["20.00", "20.00"]);
    check(30, &[], &[]);
}

#[test]
fn half_a_cent_goes_away_from_zero() {
    check(2, &[("0.01", 0, 1), ("0.01", 1, 2)], &["0.01", "0.00"]);
    check(2, &[("0.01", 0, 1), ("0.00", 1, 2)], &["0.01", "0.00"]);
    check(3, &[("0.01", 0, 1), ("0.00", 1, 3)], &["0.00", "0.00"]);
}

#[test]
fn the_largest_fee_over_the_longest_time_is_exact() {
    let fee = cents(10_000_000_000_000_000);
    let whole = weir_core::calendar::Period { index: 0, start: Micros::EPOCH, end: Micros::MAX };
    let middle = Micros::from_micros(i64::MAX / 2);
    let spans = [
        FeeSpan { from: Micros::EPOCH, until: middle, fee },
        FeeSpan { from: middle, until: Micros::MAX, fee },
    ];
    let parts = prorate(&whole, &spans);
    assert_eq!(parts, [cents(5_000_000_000_000_000), cents(5_000_000_000_000_000)]);
}
