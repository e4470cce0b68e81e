//! One event: what each field may say, and what it means.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::{Value, json};
use weir_core::units::{Micros, Units};

use super::super::{Outcome, SubscriptionRef};
use super::{FULL, FULL_MICROS, event_with, one, read};

/// The detail of the refusal that these fields bring, and the id it names.
fn refusal(event: &str) -> (Option<String>, String) {
    let batch = read(event.as_bytes()).expect(event);
    match one(&batch) {
        Err(rejected) => (rejected.id.clone(), rejected.detail.clone()),
        Ok(event) => panic!("taken: {event:?}"),
    }
}

#[test]
fn the_contracts_example_is_read_field_by_field() {
    let batch = read(FULL.as_bytes()).expect("JSON");
    assert_eq!((batch.unknown_fields, batch.dropped_fields), (0, 0));
    let event = one(&batch).as_ref().expect("valid");
    assert_eq!(event.id, "e-1");
    assert_eq!(event.subscription, SubscriptionRef::Key("wk_1".into()));
    assert_eq!(event.timestamp, Micros::from_micros(FULL_MICROS));
    assert_eq!(event.api_path.as_deref(), Some("/v1/search"));
    assert_eq!(event.method.as_deref(), Some("GET"));
    assert_eq!((event.status_code, event.success), (Some(200), Some(true)));
    assert_eq!(event.response_time_micros, Some(12_500));
    assert_eq!((event.request_size, event.response_size), (Some(0), Some(5120)));
    assert_eq!(event.user_agent.as_deref(), Some("curl/8.5"));
    assert_eq!(event.ip_address, Some(IpAddr::from([203, 0, 113, 9])));
    assert_eq!(event.country.as_deref(), Some("DE"));
    assert_eq!((event.units, event.outcome), (Some(Units::ONE), Outcome::Served));
    assert!(event.quantities.is_empty() && event.reservation_id.is_none());
    assert!(matches!(event.id, Cow::Borrowed(_)), "the body is not copied");
    assert_eq!(event.clone().into_owned(), *event);
}

#[test]
fn camel_case_aliases_say_the_same() {
    let mut camel = FULL.to_owned();
    for (snake, alias) in [
        ("subscription_key", "subscriptionKey"),
        ("api_path", "apiPath"),
        ("status_code", "statusCode"),
        ("response_time_ms", "responseTimeMs"),
        ("request_size", "requestSize"),
        ("response_size", "responseSize"),
        ("user_agent", "userAgent"),
        ("ip_address", "ipAddress"),
        ("reservation_id", "reservationId"),
    ] {
        assert!(camel.contains(snake), "{snake}");
        camel = camel.replace(snake, alias);
    }
    assert_eq!(read(camel.as_bytes()), read(FULL.as_bytes()));
    let by_id = json!({"id": "a", "subscriptionId": "0192f0c4-5a77-7bb2-8e4b-000000000001",
        "timestamp": "2026-11-24T10:00:00Z"});
    let by_id = by_id.to_string();
    let batch = read(by_id.as_bytes()).expect("JSON");
    let event = one(&batch).as_ref().expect("valid");
    assert!(matches!(event.subscription, SubscriptionRef::Id(_)));
}

#[test]
fn the_least_an_event_needs_is_enough() {
    let text = event_with(&json!({})).to_string();
    let batch = read(text.as_bytes()).expect("JSON");
    let event = one(&batch).as_ref().expect("valid");
    assert_eq!((event.units, event.outcome, event.status_code), (None, Outcome::Served, None));
}

#[test]
fn null_and_empty_text_are_absent_where_a_field_is_optional() {
    let nulls = json!({"api_path": null, "method": null, "status_code": null, "success": null,
        "response_time_ms": null, "request_size": null, "response_size": null,
        "user_agent": null, "ip_address": null, "country": null, "units": null,
        "quantities": null, "outcome": null, "reservation_id": null, "subscription_id": null});
    let blanks = json!({"api_path": "", "method": "", "user_agent": "", "ip_address": "",
        "country": "", "reservation_id": "", "quantities": {"tokens": null}, "status_code": 0});
    let expected = event_with(&json!({})).to_string();
    for changes in [nulls, blanks] {
        let text = event_with(&changes).to_string();
        assert_eq!(read(text.as_bytes()), read(expected.as_bytes()), "{changes}");
    }
}

#[test]
fn a_bad_field_is_named_with_what_is_expected() {
    let long = "x".repeat(129);
    let long_key = "x".repeat(513);
    let stories: Vec<(Value, &str)> = vec![
        (json!({"id": null}), "id: required, a text of 1 to 128 characters without NUL"),
        (json!({"id": ""}), "id: a text of 1 to 128 characters without NUL"),
        (json!({"id": 5}), "id: a text of 1 to 128 characters without NUL"),
        (json!({"id": long}), "id: a text of 1 to 128 characters without NUL"),
        (json!({"id": "a\u{0}"}), "id: a text of 1 to 128 characters without NUL"),
        (json!({"id": ["a"]}), "id: a text of 1 to 128 characters without NUL"),
        (
            json!({"subscription_key": null}),
            "subscription_key: required, or subscription_id in its place",
        ),
        (json!({"subscription_key": ""}), "subscription_key: a text of 1 to 512 bytes without NUL"),
        (
            json!({"subscription_key": long_key}),
            "subscription_key: a text of 1 to 512 bytes without NUL",
        ),
        (
            json!({"subscription_id": "0192f0c4-5a77-7bb2-8e4b-000000000001"}),
            "subscription_id: either this or subscription_key, not both",
        ),
        (json!({"subscription_key": null, "subscription_id": "5"}), "subscription_id: a UUID"),
        (
            json!({"timestamp": null}),
            "timestamp: required, an RFC 3339 timestamp such as 2026-11-24T10:00:00.123Z",
        ),
        (
            json!({"timestamp": 1_795_514_400}),
            "timestamp: an RFC 3339 timestamp such as 2026-11-24T10:00:00.123Z",
        ),
        (json!({"status_code": 99}), "status_code: an HTTP status from 100 to 599"),
        (json!({"status_code": 600}), "status_code: an HTTP status from 100 to 599"),
        (json!({"status_code": 65_736}), "status_code: an HTTP status from 100 to 599"),
        (json!({"status_code": -200}), "status_code: an HTTP status from 100 to 599"),
        (json!({"status_code": "200"}), "status_code: an HTTP status from 100 to 599"),
        (json!({"status_code": 200.0}), "status_code: an HTTP status from 100 to 599"),
        (json!({"success": 1}), "success: true or false"),
        (json!({"response_time_ms": -0.5}), "response_time_ms: milliseconds, a number from 0"),
        (json!({"response_time_ms": "12"}), "response_time_ms: milliseconds, a number from 0"),
        (json!({"response_time_ms": 1e300}), "response_time_ms: milliseconds, a number from 0"),
        (json!({"response_time_ms": u64::MAX}), "response_time_ms: milliseconds, a number from 0"),
        (json!({"request_size": -1}), "request_size: an integer from 0 to 9007199254740991"),
        (json!({"response_size": 1.5}), "response_size: an integer from 0 to 9007199254740991"),
        (json!({"user_agent": {}}), "user_agent: a text"),
        (json!({"ip_address": 7}), "ip_address: a text"),
        (json!({"country": ["DE"]}), "country: a text"),
        (json!({"method": true}), "method: a text"),
        (json!({"units": -1}), "units: an integer from 0 to 9007199254740991"),
        (json!({"units": 1.0}), "units: an integer from 0 to 9007199254740991"),
        (json!({"units": "1"}), "units: an integer from 0 to 9007199254740991"),
        (
            json!({"units": 9_007_199_254_740_992_u64}),
            "units: an integer from 0 to 9007199254740991",
        ),
        (json!({"units": u64::MAX}), "units: an integer from 0 to 9007199254740991"),
        (json!({"quantities": []}), "quantities: an object of meters and units"),
        (json!({"quantities": 5}), "quantities: an object of meters and units"),
        (
            json!({"quantities": {"tokens": -1}}),
            "quantities: each an integer from 0 to 9007199254740991",
        ),
        (
            json!({"quantities": {"tokens": {}}}),
            "quantities: each an integer from 0 to 9007199254740991",
        ),
        (
            json!({"quantities": {"a b": 1}}),
            "quantities: meters of 1 to 64 letters, digits, '-', '_' or '.'",
        ),
        (
            json!({"units": 1, "quantities": {"requests": 1}}),
            "units: either this or quantities.requests, not both",
        ),
        (json!({"outcome": "SERVED"}), "outcome: served, denied or aborted"),
        (json!({"outcome": 1}), "outcome: served, denied or aborted"),
        (json!({"reservation_id": "r-1"}), "reservation_id: a UUID"),
    ];
    for (changes, expected) in stories {
        let (id, detail) = refusal(&event_with(&changes).to_string());
        assert_eq!(detail, expected, "{changes}");
        let is_named = changes.get("id").is_none();
        assert_eq!(id.is_some(), is_named, "a refusal names the event if it can: {changes}");
    }
}

#[test]
fn numbers_that_no_machine_integer_holds_are_refused_alone() {
    let numbers = ["18446744073709551616", "1e3", "1e400", "-0", "-1e-400", "00000.0e0"];
    for number in numbers {
        let text = event_with(&json!({"units": "@"})).to_string().replace("\"@\"", number);
        let body = format!("[{text},{}]", event_with(&json!({"id": "good"})));
        match read(body.as_bytes()) {
            Ok(batch) => {
                assert!(batch.items[0].is_err(), "{number}");
                assert_eq!(batch.items[1].as_ref().map(|event| &*event.id), Ok("good"), "{number}");
            }
            // Leading zeros are not JSON.
            Err(error) => assert!(number.starts_with("00"), "{number}: {error}"),
        }
    }
}

#[test]
fn half_a_surrogate_pair_is_one_events_fault() {
    let bad = r#"{"id":"bad","user_agent":"\ud800","subscription_key":"k","timestamp":"2026-11-24T10:00:00Z"}"#;
    let body = format!("[{bad},{FULL}]");
    let batch = read(body.as_bytes()).expect("the grammar of JSON allows it");
    let rejected = batch.items[0].as_ref().expect_err("not text");
    assert_eq!(rejected.id.as_deref(), Some("bad"));
    assert!(rejected.detail.starts_with("not readable: "), "{}", rejected.detail);
    assert!(batch.items[1].is_ok());
}

#[test]
fn a_field_given_twice_is_refused_under_either_name() {
    let stories = [
        (r#""id":"b""#, "id: given twice"),
        (r#""subscriptionKey":"k""#, "subscription_key: given twice"),
        (r#""units":1,"units":1"#, "units: given twice"),
        (r#""units":null,"units":1"#, "units: given twice"),
        (r#""quantities":{},"quantities":{"a":1}"#, "quantities: given twice"),
        (r#""quantities":{"a":1,"a":1}"#, "quantities: each meter once"),
    ];
    let event = event_with(&json!({})).to_string();
    for (more, expected) in stories {
        let text = event.replacen('{', &format!("{{{more},"), 1);
        assert_eq!(refusal(&text).1, expected, "{text}");
    }
}

#[test]
fn moments_are_rfc_3339_in_any_offset() {
    let stories: [(&str, Option<i64>); 24] = [
        ("2026-11-24T10:00:00.123Z", Some(FULL_MICROS)),
        ("2026-11-24T11:00:00.123+01:00", Some(FULL_MICROS)),
        ("2026-11-24T04:30:00.123-05:30", Some(FULL_MICROS)),
        ("2026-11-24t10:00:00.123z", Some(FULL_MICROS)),
        ("2026-11-24 10:00:00.123Z", Some(FULL_MICROS)),
        ("2026-11-24T10:00:00.123456789Z", Some(FULL_MICROS + 456)),
        ("2026-11-24T10:00:00.123000000000000001+00:00", Some(FULL_MICROS)),
        ("2026-11-24T10:00:00Z", Some(FULL_MICROS - 123_000)),
        ("2026-11-24T10:00:00-00:00", Some(FULL_MICROS - 123_000)),
        ("1969-12-31T23:59:59.9999999Z", Some(-1)),
        ("2016-12-31T23:59:60Z", Some(1_483_228_799_000_000)),
        ("0001-01-01T00:00:00Z", Some(-62_135_596_800_000_000)),
        ("2026-11-24T10:00:00", None),
        ("2026-11-24T10:00Z", None),
        ("2026-11-24T10:00:00.Z", None),
        ("2026-11-24T10:00:00+01", None),
        ("2026-11-24T10:00:00+0100", None),
        ("2026-11-24T10:00:00Z[Europe/Berlin]", None),
        ("2026-11-24", None),
        ("2026-02-30T10:00:00Z", None),
        ("2026-11-24T24:00:00Z", None),
        ("20261124T100000Z", None),
        ("2026-11-24T10:00:00.1é", None),
        ("", None),
    ];
    for (text, expected) in stories {
        let event = event_with(&json!({"timestamp": text})).to_string();
        let batch = read(event.as_bytes()).expect("JSON");
        let moment = one(&batch).as_ref().ok().map(|event| event.timestamp.get());
        assert_eq!(moment, expected, "{text}");
    }
}

#[test]
fn what_describes_is_tidied_and_never_refused() {
    let path = |given: &str| {
        let text = event_with(&json!({"api_path": given})).to_string();
        let batch = read(text.as_bytes()).expect("JSON");
        one(&batch).as_ref().expect(given).api_path.as_deref().map(str::to_owned)
    };
    assert_eq!(path("/a?token=secret#x").as_deref(), Some("/a"));
    assert_eq!(path("/a#x?y").as_deref(), Some("/a"));
    assert_eq!(path("/quo\"ted?x").as_deref(), Some("/quo\"ted"));
    assert_eq!(path("/nul\u{0}").as_deref(), Some("/nul\u{FFFD}"));
    assert_eq!(path(&"/é".repeat(1000)).map(|path| path.len()), Some(2047));
    assert_eq!(path(&format!("/{}", "\u{0}".repeat(2047))).map(|path| path.len()), Some(2047));

    let text = event_with(&json!({"method": "get", "user_agent": "é".repeat(300),
        "country": "de"}))
    .to_string();
    let batch = read(text.as_bytes()).expect("JSON");
    let event = one(&batch).as_ref().expect("valid");
    assert_eq!(event.method.as_deref(), Some("GET"));
    assert_eq!(event.user_agent.as_deref().map(str::len), Some(512));
    assert_eq!(event.country.as_deref(), Some("DE"));

    let text = event_with(&json!({"method": "M".repeat(4000)})).to_string();
    let batch = read(text.as_bytes()).expect("JSON");
    assert_eq!(one(&batch).as_ref().expect("valid").method.as_deref().map(str::len), Some(17));
}

#[test]
fn addresses_and_countries_are_kept_when_they_are_some_and_counted_when_not() {
    let stories: [(&str, Option<&str>); 9] = [
        ("203.0.113.9", Some("203.0.113.9")),
        ("203.0.113.9:443", Some("203.0.113.9")),
        ("2001:db8::1", Some("2001:db8::1")),
        ("[2001:db8::1]", Some("2001:db8::1")),
        ("[2001:db8::1]:443", Some("2001:db8::1")),
        ("fe80::1%eth0", Some("fe80::1")),
        ("::ffff:203.0.113.9", Some("::ffff:203.0.113.9")),
        ("unknown", None),
        ("999.1.1.1", None),
    ];
    for (given, expected) in stories {
        let text = event_with(&json!({"ip_address": given})).to_string();
        let batch = read(text.as_bytes()).expect("JSON");
        let event = one(&batch).as_ref().expect("an address decides nothing");
        assert_eq!(event.ip_address, expected.and_then(|text| text.parse().ok()), "{given}");
        assert_eq!(batch.dropped_fields, u64::from(expected.is_none()), "{given}");
    }
    for given in ["Germany", "T1", "D", "é"] {
        let text = event_with(&json!({"country": given})).to_string();
        let batch = read(text.as_bytes()).expect("JSON");
        assert_eq!(one(&batch).as_ref().expect("valid").country, None, "{given}");
        assert_eq!(batch.dropped_fields, 1, "{given}");
    }
}

#[test]
fn quantities_name_meters_and_requests_are_units() {
    let text = event_with(&json!({"quantities": {"tokens": 743, "requests": 2, "bytes.out": 0}}))
        .to_string();
    let batch = read(text.as_bytes()).expect("JSON");
    let event = one(&batch).as_ref().expect("valid");
    assert_eq!(event.units, Units::new(2));
    let mut quantities: Vec<_> = event.quantities.iter().map(|(m, u)| (&**m, u.get())).collect();
    quantities.sort_unstable();
    assert_eq!(quantities, [("bytes.out", 0), ("tokens", 743)]);

    let many = |count: usize| {
        let meters: Value = (0..count).map(|n| (format!("m{n}"), json!(1))).collect();
        event_with(&json!({"quantities": meters})).to_string()
    };
    assert!(one(&read(many(32).as_bytes()).expect("JSON")).is_ok());
    assert_eq!(refusal(&many(33)).1, "quantities: at most 32 meters");
}

#[test]
fn unknown_fields_are_kept_out_and_counted() {
    let text = event_with(&json!({"colour": "red", "Units": 5, "deep": {"a": [1, {"b": 2}]}}));
    let text = text.to_string();
    let batch = read(text.as_bytes()).expect("JSON");
    assert_eq!(batch.unknown_fields, 3);
    let least = event_with(&json!({})).to_string();
    assert_eq!(batch.items, read(least.as_bytes()).expect("JSON").items);
}

#[test]
fn the_first_fault_is_told_and_the_id_found_wherever_it_stands() {
    let text = r#"{"units":-1,"status_code":7,"x":[],"id":"late"}"#;
    let (id, detail) = refusal(text);
    assert_eq!(id.as_deref(), Some("late"));
    assert_eq!(detail, "units: an integer from 0 to 9007199254740991");
}
