//! Periods told as stories: month ends, leap days, summer time and the oddest zones there are.

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use weir_core::calendar::{Anchor, Every, Period, Schedule, Zone};
use weir_core::units::Micros;

fn every(text: &str) -> Every {
    Every::parse(text).expect("test durations are valid")
}

fn zone(name: &str) -> Zone {
    Zone::parse(name).expect("test zones exist")
}

fn at(text: &str) -> Micros {
    let at: Timestamp = text.parse().expect("test timestamps are valid");
    Micros::from_micros(at.as_microsecond())
}

fn schedule(length: &str, anchor: &str, zone_name: &str) -> Schedule {
    let anchor = Anchor::parse(anchor).expect("test anchors are valid");
    Schedule::new(every(length), anchor, zone(zone_name), at("2020-05-17T10:20:30.123456Z"))
}

/// What the clocks of the zone show, with their offset.
fn local(at: Micros, zone_name: &str) -> String {
    let zone = TimeZoneDatabase::bundled().get(zone_name).expect("test zones exist");
    let at = Timestamp::from_microsecond(at.get()).expect("test moments have four-digit years");
    at.to_zoned_datetime(zone).strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string()
}

/// The boundaries from the period that holds `from` on.
fn check(length: &str, anchor: &str, zone_name: &str, from: &str, boundaries: &[&str]) {
    let schedule = schedule(length, anchor, zone_name);
    let periods: Vec<Period> = schedule.periods_from(at(from)).take(boundaries.len()).collect();
    let found: Vec<String> = periods.iter().map(|period| local(period.start, zone_name)).collect();
    assert_eq!(found, boundaries, "{length} from {anchor} in {zone_name}");
    assert!(periods[0].contains(at(from)), "{length} from {anchor} in {zone_name}");
    for pair in periods.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "{length} from {anchor} in {zone_name}");
        assert_eq!(schedule.previous(&pair[1]), Some(pair[0]));
    }
}

#[test]
fn a_month_from_the_31st_ends_where_the_month_does_and_comes_back() {
    check(
        "P1M",
        "2024-01-31T00:00:00Z",
        "UTC",
        "2024-02-10T00:00:00Z",
        &[
            "2024-01-31T00:00:00+00:00",
            "2024-02-29T00:00:00+00:00",
            "2024-03-31T00:00:00+00:00",
            "2024-04-30T00:00:00+00:00",
            "2024-05-31T00:00:00+00:00",
        ],
    );
    check(
        "P1M",
        "2024-01-31T00:00:00Z",
        "UTC",
        "2025-02-28T00:00:00Z",
        &["2025-02-28T00:00:00+00:00", "2025-03-31T00:00:00+00:00"],
    );
}

#[test]
fn before_the_anchor_the_same_boundaries_have_negative_indexes() {
    check(
        "P1M",
        "2026-01-31T00:00:00Z",
        "UTC",
        "2025-11-30T00:00:00Z",
        &[
            "2025-11-30T00:00:00+00:00",
            "2025-12-31T00:00:00+00:00",
            "2026-01-31T00:00:00+00:00",
            "2026-02-28T00:00:00+00:00",
        ],
    );
    let schedule = schedule("P1M", "2026-01-31T00:00:00Z", "UTC");
    let indexes = ["2025-11-30T00:00:00Z", "2026-01-30T23:59:59.999999Z", "2026-01-31T00:00:00Z"]
        .map(|moment| schedule.period_at(at(moment)).index);
    assert_eq!(indexes, [-2, -1, 0]);
}

#[test]
fn a_year_from_the_leap_day_keeps_the_leap_day() {
    check(
        "P1Y",
        "2024-02-29T12:00:00Z",
        "UTC",
        "2024-02-29T12:00:00Z",
        &[
            "2024-02-29T12:00:00+00:00",
            "2025-02-28T12:00:00+00:00",
            "2026-02-28T12:00:00+00:00",
            "2027-02-28T12:00:00+00:00",
            "2028-02-29T12:00:00+00:00",
        ],
    );
    // 2100 is no leap year.
    check(
        "P4Y",
        "2024-02-29T12:00:00Z",
        "UTC",
        "2096-03-01T00:00:00Z",
        &["2096-02-29T12:00:00+00:00", "2100-02-28T12:00:00+00:00", "2104-02-29T12:00:00+00:00"],
    );
}

#[test]
fn calendar_periods_begin_where_the_calendar_does() {
    let now = "2026-11-24T10:00:00Z";
    let table: [(&str, [&str; 2]); 9] = [
        ("P1M", ["2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"]),
        ("P3M", ["2026-10-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"]),
        ("P1Y", ["2026-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"]),
        ("P1D", ["2026-11-24T00:00:00+00:00", "2026-11-25T00:00:00+00:00"]),
        ("P1W", ["2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00"]),
        ("P7D", ["2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00"]),
        ("PT6H", ["2026-11-24T06:00:00+00:00", "2026-11-24T12:00:00+00:00"]),
        ("PT15M", ["2026-11-24T10:00:00+00:00", "2026-11-24T10:15:00+00:00"]),
        ("PT1S", ["2026-11-24T10:00:00+00:00", "2026-11-24T10:00:01+00:00"]),
    ];
    for (length, boundaries) in table {
        check(length, "calendar", "UTC", now, &boundaries);
    }
    assert_eq!(schedule("P1M", "calendar", "UTC").period_at(Micros::EPOCH).index, 0);
    assert_eq!(schedule("P1W", "calendar", "UTC").period_at(at("1970-01-05T00:00:00Z")).index, 0);
}

#[test]
fn a_subscription_is_its_own_anchor_to_the_microsecond() {
    check(
        "P1M",
        "subscription",
        "Europe/Berlin",
        "2026-11-24T00:00:00Z",
        &["2026-11-17T12:20:30.123456+01:00", "2026-12-17T12:20:30.123456+01:00"],
    );
    check(
        "PT1H",
        "subscription",
        "Europe/Berlin",
        "2026-11-24T00:00:00Z",
        &["2026-11-24T00:20:30.123456+01:00", "2026-11-24T01:20:30.123456+01:00"],
    );
}

#[test]
fn months_and_days_follow_summer_time_in_berlin() {
    check(
        "P1M",
        "calendar",
        "Europe/Berlin",
        "2026-03-05T00:00:00Z",
        &["2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"],
    );
    check(
        "P1D",
        "calendar",
        "Europe/Berlin",
        "2026-03-28T12:00:00Z",
        &["2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"],
    );
    let days = schedule("P1D", "calendar", "Europe/Berlin");
    let hours = ["2026-03-29T12:00:00Z", "2026-06-01T12:00:00Z", "2026-10-25T12:00:00Z"]
        .map(|moment| days.period_at(at(moment)).length().seconds_ceil() / 3_600);
    assert_eq!(hours, [23, 24, 25]);
}

#[test]
fn a_time_that_the_clocks_skip_becomes_the_end_of_the_gap_and_one_shown_twice_the_earlier() {
    check(
        "P1D",
        "2026-01-01T01:30:00Z",
        "Europe/Berlin",
        "2026-03-28T12:00:00Z",
        &["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"],
    );
    check(
        "P1D",
        "2026-01-01T01:30:00Z",
        "Europe/Berlin",
        "2026-10-24T12:00:00Z",
        &["2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
    );
}

#[test]
fn an_anchor_in_the_second_pass_of_a_repeated_hour_stays_where_it_is() {
    check(
        "P1D",
        "2026-10-25T01:30:00Z",
        "Europe/Berlin",
        "2026-10-25T01:29:59Z",
        &["2026-10-24T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
    );
}

#[test]
fn a_midnight_that_does_not_exist_starts_the_day_when_the_day_starts() {
    let table = [
        (
            "America/Sao_Paulo",
            "2018-11-03T12:00:00Z",
            ["2018-11-03T00:00:00-03:00", "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"],
        ),
        // The other way round the 17th has 25 hours, its last one twice.
        (
            "America/Sao_Paulo",
            "2018-02-17T12:00:00Z",
            ["2018-02-17T00:00:00-02:00", "2018-02-18T00:00:00-03:00", "2018-02-19T00:00:00-03:00"],
        ),
        (
            "America/Havana",
            "2026-03-07T12:00:00Z",
            ["2026-03-07T00:00:00-05:00", "2026-03-08T01:00:00-04:00", "2026-03-09T00:00:00-04:00"],
        ),
        // Midnight comes twice; the day begins with the first.
        (
            "America/Havana",
            "2015-10-31T12:00:00Z",
            ["2015-10-31T00:00:00-04:00", "2015-11-01T00:00:00-04:00", "2015-11-02T00:00:00-05:00"],
        ),
        (
            "Asia/Beirut",
            "2026-03-28T12:00:00Z",
            ["2026-03-28T00:00:00+02:00", "2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"],
        ),
    ];
    for (zone_name, from, boundaries) in table {
        check("P1D", "calendar", zone_name, from, &boundaries);
    }
    check(
        "P1M",
        "calendar",
        "America/Havana",
        "2015-10-31T12:00:00Z",
        &["2015-10-01T00:00:00-04:00", "2015-11-01T00:00:00-04:00", "2015-12-01T00:00:00-05:00"],
    );
}

#[test]
fn half_an_hour_of_summer_time_on_lord_howe_makes_days_of_half_hours() {
    check(
        "P1D",
        "2026-01-01T15:15:00Z",
        "Australia/Lord_Howe",
        "2026-10-02T20:00:00Z",
        &["2026-10-03T02:15:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"],
    );
    let days = schedule("P1D", "calendar", "Australia/Lord_Howe");
    let minutes = ["2026-04-05T00:00:00Z", "2026-10-03T20:00:00Z"]
        .map(|moment| days.period_at(at(moment)).length().seconds_ceil() / 60);
    assert_eq!(minutes, [24 * 60 + 30, 24 * 60 - 30]);
}

#[test]
fn apia_had_no_30_december_2011_and_so_has_no_period_for_it() {
    check(
        "P1D",
        "calendar",
        "Pacific/Apia",
        "2011-12-30T09:59:59Z",
        &["2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"],
    );
    let days = schedule("P1D", "calendar", "Pacific/Apia");
    let last = days.period_at(at("2011-12-30T09:59:59Z"));
    let next = days.next(&last).expect("time goes on");
    assert_eq!(next.index, last.index + 2);
    assert_eq!(days.period_by_index(last.index + 1), next);
    assert_eq!(days.previous(&next), Some(last));
}

#[test]
fn hours_are_elapsed_time_and_begin_with_the_hours_of_local_clocks() {
    check(
        "PT1H",
        "calendar",
        "Asia/Kathmandu",
        "2026-11-24T10:00:00Z",
        &["2026-11-24T15:00:00+05:45", "2026-11-24T16:00:00+05:45"],
    );
    check(
        "PT15M",
        "calendar",
        "Asia/Kathmandu",
        "2026-11-24T10:00:00Z",
        &["2026-11-24T15:45:00+05:45", "2026-11-24T16:00:00+05:45"],
    );
    check(
        "PT1H",
        "calendar",
        "Europe/Berlin",
        "2026-10-24T23:30:00Z",
        &["2026-10-25T01:00:00+02:00", "2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"],
    );
    // Six elapsed hours: the wall clock of the boundaries moves with summer time.
    check(
        "PT6H",
        "calendar",
        "Europe/Berlin",
        "2026-03-28T20:00:00Z",
        &["2026-03-28T18:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-29T07:00:00+02:00"],
    );
    check(
        "PT24H",
        "2026-03-28T11:00:00Z",
        "Europe/Berlin",
        "2026-03-28T11:00:00Z",
        &["2026-03-28T12:00:00+01:00", "2026-03-29T13:00:00+02:00"],
    );
}

#[test]
fn mixed_lengths_count_civil_days_first_and_then_elapsed_hours() {
    check(
        "P1DT12H",
        "2026-03-27T23:00:00Z",
        "Europe/Berlin",
        "2026-03-27T23:00:00Z",
        &[
            "2026-03-28T00:00:00+01:00",
            // 29 March 00:00 and 12 hours, of which the clocks skip one.
            "2026-03-29T13:00:00+02:00",
            "2026-03-31T00:00:00+02:00",
            "2026-04-01T12:00:00+02:00",
        ],
    );
    check(
        "P1M1D",
        "2026-01-31T00:00:00Z",
        "UTC",
        "2026-01-31T00:00:00Z",
        &["2026-01-31T00:00:00+00:00", "2026-03-01T00:00:00+00:00", "2026-04-02T00:00:00+00:00"],
    );
}

#[test]
fn the_billionth_second_is_found_without_counting() {
    let seconds = schedule("PT1S", "1970-01-01T00:00:00.5Z", "Europe/Berlin");
    let period = seconds.period_at(at("2199-12-31T23:59:59.75Z"));
    assert_eq!((period.index, period.start), (7_258_118_399, at("2199-12-31T23:59:59.5Z")));
    assert_eq!(seconds.period_by_index(7_258_118_399), period);
}

#[test]
fn the_first_and_the_last_period_reach_to_the_ends_of_time() {
    let beginning = Micros::from_micros(i64::MIN);
    for length in ["PT1S", "P1D", "P1M", "P1DT23H", "P99Y"] {
        for (anchor, started) in [
            ("calendar", 0),
            ("subscription", i64::MIN),
            ("subscription", 0),
            ("subscription", i64::MAX),
        ] {
            let anchor = Anchor::parse(anchor).expect("a word");
            let started = Micros::from_micros(started);
            let schedule = Schedule::new(every(length), anchor, zone("Asia/Kathmandu"), started);
            let (first, last) = (schedule.period_at(beginning), schedule.period_at(Micros::MAX));
            assert_eq!((first.start, last.end), (beginning, Micros::MAX), "{length}");
            assert!(last.contains(Micros::MAX), "{length}");
            assert_eq!((schedule.previous(&first), schedule.next(&last)), (None, None), "{length}");
            assert_eq!(schedule.period_by_index(i64::MIN), first, "{length}");
            assert_eq!(schedule.period_by_index(i64::MAX), last, "{length}");
            assert_eq!(schedule.periods_from(last.start).count(), 1, "{length}");
        }
    }
}
