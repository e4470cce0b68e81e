//! Open, grace, closed: what a period is, by the clock alone.

use weir_core::calendar::{Anchor, Every, Schedule, Zone};
use weir_core::rating::Stage;
use weir_core::units::{Micros, Span};

use crate::book::{period, seconds};

const DAY: i64 = 86_400;

#[test]
fn a_period_is_open_then_in_grace_then_closed() {
    let (day, none) = (Span::from_seconds(DAY), Span::ZERO);
    // (grace, seconds after the period's start, stage, whether late events still count)
    let stories = [
        (day, -1, Stage::Open, true),
        (day, 0, Stage::Open, true),
        (day, 10 * DAY - 1, Stage::Open, true),
        (day, 10 * DAY, Stage::Grace, true),
        (day, 11 * DAY - 1, Stage::Grace, true),
        (day, 11 * DAY, Stage::Closed, false),
        (day, 999 * DAY, Stage::Closed, false),
        (none, 10 * DAY - 1, Stage::Open, true),
        (none, 10 * DAY, Stage::Closed, false),
    ];
    for (grace, now, stage, counts) in stories {
        let found = Stage::of(&period(0, 10 * DAY), grace, seconds(now));
        assert_eq!((found, found.counts()), (stage, counts), "{grace:?} {now}");
    }
}

#[test]
fn exactly_one_period_is_open_at_any_moment_from_the_first_on() {
    // Months of Berlin, over both changes of the clocks and the end of a short month.
    let every = Every::parse("P1M").expect("a month");
    let zone = Zone::parse("Europe/Berlin").expect("a zone");
    let anchor = Anchor::parse("2025-12-31T00:00:00+01:00").expect("an anchor");
    let schedule = Schedule::new(every, anchor, zone, Micros::EPOCH);
    let first = schedule.period_by_index(0);
    let periods: Vec<_> = schedule.periods_from(first.start).take(14).collect();
    let grace = Span::from_seconds(DAY);
    let instant = Span::from_micros(1);
    for pair in periods.windows(2) {
        for (now, expected) in [
            (pair[0].end.minus(instant), [Stage::Open, Stage::Open]),
            (pair[0].end, [Stage::Grace, Stage::Open]),
            (pair[0].end.plus(grace), [Stage::Closed, Stage::Open]),
        ] {
            assert_eq!([0, 1].map(|n| Stage::of(&pair[n], grace, now)), expected, "{pair:?}");
            let holding = periods.iter().filter(|period| period.contains(now)).count();
            assert_eq!(holding, 1, "an event at {now:?} lies in one period");
        }
    }
}

#[test]
fn a_period_without_an_end_stays_open() {
    let endless = weir_core::calendar::Period { end: Micros::MAX, ..period(0, 1) };
    for grace in [Span::ZERO, Span::from_seconds(DAY)] {
        assert_eq!(Stage::of(&endless, grace, Micros::MAX), Stage::Open);
    }
    // Grace that reaches beyond the end of time does not wrap.
    let late =
        weir_core::calendar::Period { end: Micros::from_micros(i64::MAX - 1), ..period(0, 1) };
    assert_eq!(Stage::of(&late, Span::from_seconds(DAY), late.end), Stage::Grace);
}
