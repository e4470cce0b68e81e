//! What people write for a duration, an anchor and a zone, and what is refused by name.

use weir_core::calendar::{Anchor, AnchorError, DurationError, Every, Zone, parse_span};
use weir_core::units::{Micros, Span};

fn every(text: &str) -> Every {
    Every::parse(text).expect("test durations are valid")
}

#[test]
fn durations_have_one_canonical_spelling() {
    let table = [
        ("PT1S", "PT1S"),
        ("P1M", "P1M"),
        ("P1Y", "P1Y"),
        ("P7D", "P7D"),
        ("PT1H30M", "PT1H30M"),
        ("P1DT12H", "P1DT12H"),
        ("P1W", "P7D"),
        ("P12M", "P1Y"),
        ("P1Y6M", "P1Y6M"),
        ("P1Y2M3W4DT5H6M7S", "P1Y2M25DT5H6M7S"),
        ("PT90M", "PT1H30M"),
        ("PT24H", "PT24H"),
        ("PT3600S", "PT1H"),
        ("PT1.0S", "PT1S"),
        ("PT0H0M1S", "PT1S"),
        ("P0DT1S", "PT1S"),
        ("P100Y", "P100Y"),
        ("1h30m", "PT1H30M"),
        ("1h 30m", "PT1H30M"),
        ("30d", "P30D"),
        ("1mo", "P1M"),
        ("1y", "P1Y"),
        ("2w", "P14D"),
        ("1000ms", "PT1S"),
    ];
    for (text, canonical) in table {
        let parsed = every(text);
        assert_eq!(parsed.to_string(), canonical, "{text}");
        assert_eq!(every(canonical), parsed, "{text}");
    }
    assert_ne!(every("P1D"), every("PT24H"));
}

#[test]
fn lengths_that_no_period_can_have_are_refused_by_name() {
    let table = [
        ("PT0S", DurationError::Zero),
        ("P0D", DurationError::Zero),
        ("0s", DurationError::Zero),
        ("PT0.5S", DurationError::TooShort),
        ("999ms", DurationError::TooShort),
        ("PT1.5S", DurationError::Fractional),
        ("1500ms", DurationError::Fractional),
        ("P1.5D", DurationError::Fractional),
        ("PT0.5H", DurationError::Fractional),
        ("P0,5M", DurationError::Fractional),
        ("-P1D", DurationError::Negative),
        ("P-1D", DurationError::Negative),
        ("-1s", DurationError::Negative),
        ("P101Y", DurationError::TooLong),
        ("P100YT1S", DurationError::TooLong),
        ("PT99999999999999999999S", DurationError::TooLong),
        ("PT18446744073709551615H", DurationError::TooLong),
        ("", DurationError::Malformed),
        ("P", DurationError::Malformed),
        ("PT", DurationError::Malformed),
        ("P1DT", DurationError::Malformed),
        ("P1", DurationError::Malformed),
        ("PD", DurationError::Malformed),
        ("P1H", DurationError::Malformed),
        ("PT1D", DurationError::Malformed),
        ("PT1HT1M", DurationError::Malformed),
        ("P1D1M", DurationError::Malformed),
        ("P1D1D", DurationError::Malformed),
        ("p1d", DurationError::Malformed),
        (" P1D", DurationError::Malformed),
        ("P1D ", DurationError::Malformed),
        ("60", DurationError::Malformed),
        ("1M", DurationError::Malformed),
        ("1s1h", DurationError::Malformed),
        ("1h ", DurationError::Malformed),
        ("1 h", DurationError::Malformed),
        ("PT1.S", DurationError::Malformed),
        ("PT.5S", DurationError::Malformed),
        ("+1s", DurationError::Malformed),
        ("1٣s", DurationError::Malformed),
        ("monthly", DurationError::Malformed),
    ];
    for (text, error) in table {
        assert_eq!(Every::parse(text), Err(error), "{text:?}");
    }
    assert_eq!(Every::new(0, 0, 0), Err(DurationError::Zero));
    assert_eq!(Every::new(u32::MAX, u32::MAX, u32::MAX), Err(DurationError::TooLong));
}

#[test]
fn spans_are_elapsed_time_down_to_the_microsecond() {
    let table = [
        ("60s", Ok(60_000_000)),
        ("PT1S", Ok(1_000_000)),
        ("1h30m", Ok(5_400_000_000)),
        ("500ms", Ok(500_000)),
        ("PT0.5S", Ok(500_000)),
        ("PT0,000001S", Ok(1)),
        ("1.25s", Ok(1_250_000)),
        ("1s 500ms", Ok(1_500_000)),
        ("250us", Ok(250)),
        ("2d", Ok(172_800_000_000)),
        ("P1W", Ok(604_800_000_000)),
        ("0s", Ok(0)),
        ("PT0.0000001S", Err(DurationError::Fractional)),
        ("0.5h", Err(DurationError::Fractional)),
        ("0.5ms", Err(DurationError::Fractional)),
        ("P1M", Err(DurationError::CalendarUnit)),
        ("1y", Err(DurationError::CalendarUnit)),
        ("-5s", Err(DurationError::Negative)),
        ("36525d", Err(DurationError::TooLong)),
        ("18446744073709551615us", Err(DurationError::TooLong)),
        ("5", Err(DurationError::Malformed)),
        ("5 seconds", Err(DurationError::Malformed)),
    ];
    for (text, expected) in table {
        assert_eq!(parse_span(text), expected.map(Span::from_micros), "{text:?}");
    }
}

#[test]
fn anchors_are_a_word_or_a_moment() {
    let table = [
        ("calendar", Ok(Anchor::Calendar), "calendar"),
        ("subscription", Ok(Anchor::Subscription), "subscription"),
        (
            "2026-01-31T01:00:00+01:00",
            Ok(Anchor::At(Micros::from_seconds(1_769_817_600))),
            "2026-01-31T00:00:00Z",
        ),
        (
            "1969-12-31T23:59:59.9999999Z",
            Ok(Anchor::At(Micros::from_micros(-1))),
            "1969-12-31T23:59:59.999999Z",
        ),
        ("Calendar", Err(AnchorError::Malformed), ""),
        ("2026-01-31", Err(AnchorError::Malformed), ""),
        ("", Err(AnchorError::Malformed), ""),
        ("9999-06-01T00:00:00Z", Err(AnchorError::OutOfRange), ""),
        ("-000001-06-01T00:00:00Z", Err(AnchorError::OutOfRange), ""),
    ];
    for (text, expected, display) in table {
        let parsed = Anchor::parse(text);
        assert_eq!(parsed, expected, "{text:?}");
        if let Ok(anchor) = parsed {
            assert_eq!(anchor.to_string(), display);
        }
    }
}

#[test]
fn zones_are_those_of_the_iana_database() {
    let table = [
        ("UTC", Some("UTC")),
        ("utc", Some("UTC")),
        ("europe/BERLIN", Some("Europe/Berlin")),
        ("Asia/Calcutta", Some("Asia/Calcutta")),
        ("Etc/Unknown", None),
        ("Europe/Bielefeld", None),
        ("+02:00", None),
        ("CET-1CEST", None),
        ("", None),
        ("../etc/passwd", None),
    ];
    for (text, name) in table {
        let parsed = Zone::parse(text).ok();
        assert_eq!(parsed.as_ref().map(Zone::name), name, "{text:?}");
    }
    assert_eq!(Zone::parse("UTC"), Ok(Zone::utc()));
}
