//! Every event lies in exactly one period: the schedules that bills are made by, walked through.

use jiff::Timestamp;
use weir_core::calendar::{Anchor, Every, Period, Schedule, Zone};
use weir_core::units::{Micros, Span};

fn at(text: &str) -> Micros {
    let at: Timestamp = text.parse().expect("test timestamps are valid");
    Micros::from_micros(at.as_microsecond())
}

fn schedule(every: &str, anchor: &str, zone: &str) -> Schedule {
    let every = Every::parse(every).expect("test durations are valid");
    let anchor = Anchor::parse(anchor).expect("test anchors are valid");
    let zone = Zone::parse(zone).expect("test zones exist");
    Schedule::new(every, anchor, zone, at("2024-02-29T23:59:59.999999Z"))
}

/// Length, anchor, zone; from when, until when; how many periods that touches.
type Story<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, usize);

const STORIES: [Story<'_>; 16] = [
    // Months from their last days, over a leap year and the year after it.
    ("P1M", "2024-01-29T00:00:00Z", "UTC", "2024-01-29T00:00:00Z", "2026-01-29T00:00:00Z", 25),
    ("P1M", "2024-01-30T00:00:00Z", "UTC", "2024-01-30T00:00:00Z", "2026-01-30T00:00:00Z", 25),
    ("P1M", "2024-01-31T00:00:00Z", "UTC", "2024-01-31T00:00:00Z", "2026-01-31T00:00:00Z", 25),
    ("P1M", "2024-01-31T00:00:00Z", "UTC", "2022-01-31T00:00:00Z", "2024-01-31T00:00:00Z", 25),
    ("P3M", "2023-11-30T12:00:00Z", "UTC", "2023-11-30T12:00:00Z", "2025-11-30T12:00:00Z", 9),
    (
        "P1M",
        "subscription",
        "Asia/Tokyo",
        "2024-02-29T23:59:59.999999Z",
        "2025-03-01T00:00:00Z",
        13,
    ),
    // The last day in Auckland is the day before in UTC.
    (
        "P1M",
        "2024-01-31T00:00:00+13:00",
        "Pacific/Auckland",
        "2024-01-30T11:00:00Z",
        "2025-01-30T11:00:00Z",
        13,
    ),
    // Years from the leap day.
    ("P1Y", "2024-02-29T00:00:00Z", "UTC", "2019-03-01T00:00:00Z", "2032-03-01T00:00:00Z", 14),
    // Summer time, in the northern and in the southern half of the year.
    ("P1M", "calendar", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z", 12),
    ("P1D", "calendar", "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-10-26T00:00:00Z", 212),
    ("P1D", "calendar", "Australia/Lord_Howe", "2026-03-30T13:00:00Z", "2026-10-10T00:00:00Z", 194),
    // Midnights that do not exist, and a day that does not.
    ("P1D", "calendar", "America/Havana", "2026-03-01T05:00:00Z", "2026-03-20T00:00:00Z", 19),
    ("P1D", "calendar", "America/Sao_Paulo", "2018-10-25T03:00:00Z", "2018-11-15T00:00:00Z", 21),
    ("P1D", "calendar", "Pacific/Apia", "2011-12-25T10:00:00Z", "2012-01-05T00:00:00Z", 11),
    // Quarters of an hour from UTC, without and with summer time.
    ("P1M", "calendar", "Asia/Kathmandu", "2025-12-31T18:15:00Z", "2026-12-31T00:00:00Z", 12),
    ("PT1H", "calendar", "Pacific/Chatham", "2026-04-04T10:15:00Z", "2026-04-06T10:15:00Z", 49),
];

#[test]
fn every_event_lies_in_exactly_one_period() {
    for story @ (every, anchor, zone, from, until, expected) in STORIES {
        let schedule = schedule(every, anchor, zone);
        let (from, until) = (at(from), at(until));
        let periods: Vec<Period> =
            schedule.periods_from(from).take_while(|period| period.start <= until).collect();
        assert_eq!(periods.len(), expected, "{story:?}");
        assert!(periods[0].start <= from && until < periods[periods.len() - 1].end, "{story:?}");

        // At odd distances, and at the very bounds and beside them.
        let step = Span::from_seconds(6_151);
        let mut events: Vec<Micros> =
            std::iter::successors(Some(from), |event| Some(event.plus(step)))
                .take_while(|event| *event <= until)
                .collect();
        let instant = Span::from_micros(1);
        let starts = periods.iter().skip(1).map(|period| period.start);
        events.extend(starts.flat_map(|at| [at.minus(instant), at, at.plus(instant)]));

        let mut counted = vec![0_usize; periods.len()];
        for &event in &events {
            let holds = |period: &Period| period.contains(event);
            assert_eq!(periods.iter().filter(|p| holds(p)).count(), 1, "{event:?} of {story:?}");
            let place = periods.iter().position(holds).expect("one holds it");
            assert_eq!(schedule.period_at(event), periods[place], "{event:?} of {story:?}");
            counted[place] += 1;
        }
        assert_eq!(counted.iter().sum::<usize>(), events.len(), "{story:?}");
        assert!(counted.iter().all(|&count| count > 0), "{story:?}");
    }
}

#[test]
fn hours_on_chatham_begin_at_full_hours_of_clocks_that_stand_three_quarters_off() {
    // +13:45 until 3:45 on 5 April 2026, +12:45 from then on.
    let hours = schedule("PT1H", "calendar", "Pacific/Chatham");
    for (event, start) in [
        ("2026-04-04T10:20:00Z", "2026-04-04T10:15:00Z"),
        ("2026-04-04T13:59:59Z", "2026-04-04T13:15:00Z"),
        ("2026-04-04T14:15:00Z", "2026-04-04T14:15:00Z"),
    ] {
        let period = hours.period_at(at(event));
        let expected = (at(start), at(start).plus(Span::from_seconds(3_600)));
        assert_eq!((period.start, period.end), expected, "{event}");
    }
    let days = schedule("P1D", "calendar", "Pacific/Chatham");
    let lengths = ["2026-04-04T00:00:00Z", "2026-04-05T00:00:00Z", "2026-09-26T20:00:00Z"]
        .map(|moment| days.period_at(at(moment)).length().seconds_ceil() / 3_600);
    assert_eq!(lengths, [24, 25, 23]);
}
