//! Periods against what must always hold, and against a slow model that walks from the anchor.

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span as CivilSpan, Timestamp};
use proptest::prelude::*;
use weir_core::calendar::{Anchor, Every, Period, Schedule, Zone};
use weir_core::units::{Micros, Span};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 1970-01-01 and 2200-01-01, where time zones have their whole history and a long future.
const STUDIED: std::ops::Range<i64> = 0..7_258_118_400 * SECOND;

/// The zones with the rarest habits.
const ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "Antarctica/Troll",
    "Asia/Gaza",
];

/// What plans ask for, and mixtures that nobody should.
const LENGTHS: [&str; 22] = [
    "PT1S", "PT7S", "PT1M", "PT15M", "PT1H", "PT7H", "PT24H", "P1D", "P2D", "P7D", "P10D", "P14D",
    "P1M", "P2M", "P3M", "P5M", "P1Y", "P4Y", "P1M15D", "P1DT12H", "P1MT1S", "P1Y1DT1H",
];

fn rules(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).expect("test zones exist")
}

fn moment(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).expect("studied moments have four-digit years")
}

/// The first instant at which the clocks show `local` or later, by looking at them: every quarter
/// of an hour from long before, then every second of the quarter in which it happens.
fn first_instant(zone: &TimeZone, local: DateTime) -> i64 {
    let naive = TimeZone::UTC.to_timestamp(local).expect("studied").as_microsecond();
    let shows = |micros: i64| zone.to_datetime(moment(micros)) >= local;
    let first = |from: i64, step: i64| {
        // Four days in quarters, a quarter in seconds: clocks are never further off.
        (0..=900).map(|n| from + n * step).find(|&at| shows(at)).expect("clocks go on")
    };
    let quarter = first(naive - 2 * DAY, 900 * SECOND);
    let second = first(quarter - 900 * SECOND, SECOND);
    // Clocks jump on whole seconds, the steps keep the fraction that `local` has.
    let whole = second.div_euclid(SECOND) * SECOND;
    if shows(whole) { whole } else { second }
}

/// `anchor + index · every`, read off the definition.
fn boundary(zone: &TimeZone, anchor: i64, every: Every, index: i64) -> i64 {
    let elapsed = index * i64::from(every.seconds()) * SECOND;
    if index == 0 || every.is_exact() {
        return anchor + elapsed;
    }
    let months = CivilSpan::new().months(index * i64::from(every.months()));
    let days = CivilSpan::new().days(index * i64::from(every.days()));
    let local = zone.to_datetime(moment(anchor));
    let local = local.checked_add(months).and_then(|local| local.checked_add(days));
    first_instant(zone, local.expect("studied")) + elapsed
}

fn lengths() -> impl Strategy<Value = Every> {
    prop_oneof![
        4 => prop::sample::select(&LENGTHS[..])
            .prop_map(|text| Every::parse(text).expect("listed durations are valid")),
        1 => (0_u32..=30, 0_u32..=400, 1_u32..=200_000)
            .prop_map(|(months, days, seconds)| Every::new(months, days, seconds).expect("short")),
        1 => (0_u32..=1, 0_u32..=1, 1_u32..=3_000_000_000)
            .prop_map(|(months, days, seconds)| Every::new(months, days, seconds).expect("short")),
    ]
}

fn zones() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&ZONES[..])
}

fn anchors(moments: impl Strategy<Value = i64>) -> impl Strategy<Value = Anchor> {
    prop_oneof![Just(Anchor::Calendar), moments.prop_map(|at| Anchor::At(Micros::from_micros(at))),]
}

fn schedule(every: Every, anchor: Anchor, zone: &str) -> Schedule {
    let zone = Zone::parse(zone).expect("test zones exist");
    Schedule::new(every, anchor, zone, Micros::EPOCH)
}

/// Everything that holds of the period that is said to hold `at`.
fn check(schedule: &Schedule, at: Micros) -> Result<Period, TestCaseError> {
    let period = schedule.period_at(at);
    prop_assert!(period.start < period.end);
    prop_assert!(period.contains(at));
    prop_assert_eq!(schedule.period_by_index(period.index), period);
    prop_assert_eq!(schedule.period_at(period.start), period);
    prop_assert_eq!(schedule.period_at(period.end.minus(Span::from_micros(1))), period);
    if let Some(next) = schedule.next(&period) {
        prop_assert_eq!(next.start, period.end);
        prop_assert!(next.index > period.index);
        prop_assert_eq!(schedule.period_at(period.end), next);
        prop_assert_eq!(schedule.previous(&next), Some(period));
    } else {
        prop_assert_eq!(period.end, Micros::MAX);
    }
    if let Some(previous) = schedule.previous(&period) {
        prop_assert_eq!(previous.end, period.start);
        prop_assert!(previous.index < period.index);
        prop_assert_eq!(schedule.next(&previous), Some(period));
    } else {
        prop_assert_eq!(period.start.get(), i64::MIN);
    }
    Ok(period)
}

proptest! {
    #[test]
    fn every_moment_of_two_centuries_is_in_exactly_one_period(
        every in lengths(), anchor in anchors(STUDIED), zone in zones(), at in STUDIED,
    ) {
        check(&schedule(every, anchor, zone), Micros::from_micros(at))?;
    }

    #[test]
    fn every_moment_that_fits_in_64_bits_is_in_exactly_one_period(
        every in lengths(), anchor in anchors(any::<i64>()), zone in zones(), at in any::<i64>(),
        index in any::<i64>(),
    ) {
        let schedule = schedule(every, anchor, zone);
        for at in [at, i64::MIN, i64::MAX] {
            check(&schedule, Micros::from_micros(at))?;
        }
        let asked = schedule.period_by_index(index);
        prop_assert_eq!(schedule.period_at(asked.start), asked);
    }

    #[test]
    fn any_zone_of_the_database_will_do(
        every in lengths(), anchor in anchors(STUDIED), nth in any::<prop::sample::Index>(),
        at in -3_000_000_000 * SECOND..7_258_118_400 * SECOND,
    ) {
        let database = TimeZoneDatabase::bundled();
        let names: Vec<_> = database.available().collect();
        check(&schedule(every, anchor, nth.get(&names).as_str()), Micros::from_micros(at))?;
    }

    #[test]
    fn any_text_is_a_duration_or_an_error_and_canonical_text_is_stable(text in "\\PC{0,12}") {
        if let Ok(every) = Every::parse(&text) {
            prop_assert_eq!(Every::parse(&every.to_string()), Ok(every));
        }
    }

    #[test]
    fn every_length_survives_its_own_spelling(every in lengths()) {
        prop_assert_eq!(Every::parse(&every.to_string()), Ok(every));
    }
}

proptest! {
    // The model looks at the clocks thousands of times for one boundary.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn walking_from_the_anchor_meets_the_same_boundaries(
        every in lengths(), zone in zones(), anchor in STUDIED, steps in 1_i64..=12,
        backwards in any::<bool>(), within in 0.0_f64..1.0,
    ) {
        let rules = rules(zone);
        let schedule = schedule(every, Anchor::At(Micros::from_micros(anchor)), zone);
        let walk: Vec<i64> = (0..=steps)
            .map(|step| if backwards { step - steps } else { step })
            .map(|index| boundary(&rules, anchor, every, index))
            .collect();
        let first = if backwards { -steps } else { 0 };
        for (index, pair) in (first..).zip(walk.windows(2)) {
            if pair[0] == pair[1] {
                continue;
            }
            let expected = Period {
                index,
                start: Micros::from_micros(pair[0]),
                end: Micros::from_micros(pair[1]),
            };
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
            let at = pair[0] + ((pair[1] - pair[0] - 1) as f64 * within) as i64;
            prop_assert_eq!(schedule.period_at(Micros::from_micros(at)), expected);
            prop_assert_eq!(schedule.period_by_index(index), expected);
        }
    }

    /// Where clocks change is where boundaries go wrong, and random anchors rarely hit it.
    #[test]
    fn boundaries_beside_a_clock_change_are_those_of_the_model(
        zone in zones(), after in STUDIED, ahead in -3 * 3_600_i64..3 * 3_600, days in 1_u32..=3,
    ) {
        let rules = rules(zone);
        let Some(change) = rules.following(moment(after)).next() else { return Ok(()) };
        let change = change.timestamp().as_microsecond();
        let anchor = change - i64::from(days) * DAY + ahead * SECOND;
        let every = Every::new(0, days, 0).expect("a day or more");
        let schedule = schedule(every, Anchor::At(Micros::from_micros(anchor)), zone);
        let (start, end) = (
            boundary(&rules, anchor, every, 1),
            boundary(&rules, anchor, every, 2),
        );
        if start < end {
            let expected =
                Period { index: 1, start: Micros::from_micros(start), end: Micros::from_micros(end) };
            prop_assert_eq!(schedule.period_by_index(1), expected);
            prop_assert_eq!(schedule.period_at(Micros::from_micros(start)), expected);
        }
    }
}
