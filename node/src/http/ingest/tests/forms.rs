//! Bodies: each form they come in, and what fails whole or alone.

use serde_json::{Value, json};

use super::super::{Batch, BodyError, Limits, SubscriptionRef, parse_body};
use super::{FULL, event_with, one, read, summary};

const NDJSON: &str = "application/x-ndjson";
const CLOUD: &str = "application/cloudevents+json";
const CLOUD_BATCH: &str = "application/cloudevents-batch+json; charset=UTF-8";

fn read_as<'a>(content_type: &str, body: &'a [u8]) -> Result<Batch<'a>, BodyError> {
    parse_body(Some(content_type), body, Limits::default())
}

fn event(id: &str) -> String {
    event_with(&json!({"id": id})).to_string()
}

#[test]
fn one_event_an_array_an_envelope_and_lines_hold_the_same_events() {
    let (a, b) = (event("a"), event("b"));
    let pretty = serde_json::to_string_pretty(&event_with(&json!({"id": "a"}))).expect("JSON");
    let stories: [(String, &[&str]); 13] = [
        (a.clone(), &["a"]),
        (pretty, &["a"]),
        (format!("[{a},{b}]"), &["a", "b"]),
        (format!(" \r\n\t[ {a} ,\n{b} ]\n"), &["a", "b"]),
        (format!("{{\"events\":[{a},{b}]}}"), &["a", "b"]),
        (format!("\n{{ \"events\" : [ {a} , {b} ] }} "), &["a", "b"]),
        (format!("{a}\n{b}\n"), &["a", "b"]),
        (format!("{a}\r\n\r\n  \n{b}"), &["a", "b"]),
        (format!("\u{FEFF}[{a}]"), &["a"]),
        ("[]".to_owned(), &[]),
        ("{\"events\":[]}".to_owned(), &[]),
        ("{}".to_owned(), &["!subscription_key"]),
        ("[{},{}]".to_owned(), &["!subscription_key", "!subscription_key"]),
    ];
    for (body, expected) in stories {
        for content_type in [
            None,
            Some("application/json; charset=utf-8"),
            Some("application/x-www-form-urlencoded"),
        ] {
            let batch = parse_body(content_type, body.as_bytes(), Limits::default());
            assert_eq!(
                batch.map(|batch| summary(&batch)),
                Ok(expected.iter().map(|&s| s.to_owned()).collect()),
                "{body}"
            );
        }
    }
}

#[test]
fn lines_fail_alone() {
    let (a, b) = (event("a"), event("b"));
    let cut = &a[..a.len() - 5];
    let stories: Vec<(Vec<u8>, &[&str])> = vec![
        (format!("{a}\n{cut}\n{b}\n").into(), &["a", "!not readable", "b"]),
        (format!("{a}\n{b}\n{cut}").into(), &["a", "b", "!not readable"]),
        (format!("{cut}\n{b}").into(), &["!not readable", "b"]),
        (format!("{a} {b}\n{b}").into(), &["!not readable", "b"]),
        (format!("{a}\nrubbish\n{b}").into(), &["a", "!an event is a JSON object", "b"]),
        (format!("{a}\n[{b}]\n{b}").into(), &["a", "!an event is a JSON object", "b"]),
        (
            format!("{a}\n5\nnull\n{b}").into(),
            &["a", "!an event is a JSON object", "!an event is a JSON object", "b"],
        ),
        (
            [a.as_bytes(), b"\n{\"id\":\"\xff\"}\n", b.as_bytes()].concat(),
            &["a", "!not UTF-8", "b"],
        ),
    ];
    for (body, expected) in stories {
        let shown = String::from_utf8_lossy(&body);
        for content_type in [NDJSON, "Application/JSONL", "application/json"] {
            let batch =
                read_as(content_type, &body).unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(summary(&batch), expected, "{shown}");
        }
    }
    assert_eq!(
        read_as(NDJSON, cut.as_bytes()).map(|batch| summary(&batch)),
        Ok(vec!["!not readable".to_owned()])
    );
}

#[test]
fn a_bad_element_never_fails_its_neighbours() {
    let good = event("good");
    let bad = [
        "1",
        "-1.5e3",
        "1e999",
        "true",
        "null",
        "\"text\"",
        "\"\\ud800\"",
        "[]",
        "[[1]]",
        "{}",
        r#"{"id":7}"#,
        r#"{"units":1e999}"#,
        r#"{"x":"\udfff"}"#,
        r#"{"\ud800":1}"#,
    ];
    for element in bad {
        let body = format!("[{good},{element},{good}]");
        let batch = read(body.as_bytes()).unwrap_or_else(|error| panic!("{element}: {error}"));
        let told: Vec<bool> = batch.items.iter().map(Result::is_ok).collect();
        assert_eq!(told, [true, false, true], "{element}");
        assert_eq!(batch.items[1].as_ref().expect_err("bad").index, 1);
    }
}

#[test]
fn what_holds_no_events_fails_whole() {
    let good = event("a");
    let stories: Vec<(Vec<u8>, &str, u16)> = vec![
        (b"".into(), "malformed_body", 400),
        (b" \n\t".into(), "malformed_body", 400),
        (b"rubbish".into(), "malformed_body", 400),
        (b"{".into(), "malformed_body", 400),
        (b"[".into(), "malformed_body", 400),
        (b"[,]".into(), "malformed_body", 400),
        (b"[NaN]".into(), "malformed_body", 400),
        (format!("[{good},]").into(), "malformed_body", 400),
        (format!("[{good}").into(), "malformed_body", 400),
        (format!("[{good}] x").into(), "malformed_body", 400),
        (format!("{good}{good}").into(), "malformed_body", 400),
        (format!("{{\"events\":[{good}").into(), "malformed_body", 400),
        ([b"[", good.as_bytes(), b",\"\xff\"]"].concat(), "malformed_body", 400),
        (b"true".into(), "invalid_body", 422),
        (b"5".into(), "invalid_body", 422),
        (b"\"text\"".into(), "invalid_body", 422),
        (b"null".into(), "invalid_body", 422),
        (b"{\"events\":5}".into(), "invalid_body", 422),
        (b"{\"events\":null}".into(), "invalid_body", 422),
        (b"{\"events\":{}}".into(), "invalid_body", 422),
        (b"{\"events\":[],\"events\":[]}".into(), "invalid_body", 422),
        (b"{\"events\":[],\"source\":1}".into(), "invalid_body", 422),
        (b"{\"source\":1,\"events\":[]}".into(), "invalid_body", 422),
    ];
    for (body, code, status) in stories {
        let shown = String::from_utf8_lossy(&body);
        match read(&body) {
            Err(error) => {
                assert_eq!((error.code(), error.status()), (code, status), "{shown}: {error}");
            }
            Ok(batch) => panic!("{shown}: {batch:?}"),
        }
    }
}

#[test]
fn a_syntax_error_is_told_with_its_place() {
    let place = |body: &[u8]| match read(body) {
        Err(BodyError::Malformed { line, column, .. }) => (line, column),
        other => panic!("{other:?}"),
    };
    assert_eq!(place(b"\n[\n  {,}]"), (3, 4));
    assert_eq!(place(b"[1]\n  x"), (2, 3));
    assert_eq!(place(b"\n[\"a\xff\"]"), (2, 4));
}

#[test]
fn more_events_than_allowed_fail_whole_in_every_list() {
    let limits = Limits { events_max: 2 };
    let bodies = |count: usize| {
        let events = vec!["{}"; count];
        let array = format!("[{}]", events.join(","));
        [format!("{{\"events\":{array}}}"), events.join("\n"), array]
    };
    for body in bodies(2) {
        assert_eq!(
            parse_body(None, body.as_bytes(), limits).map(|b| b.items.len()),
            Ok(2),
            "{body}"
        );
    }
    for body in bodies(3) {
        let error = parse_body(None, body.as_bytes(), limits).expect_err(&body);
        assert_eq!(error, BodyError::TooManyEvents { events_max: 2 }, "{body}");
        assert_eq!((error.code(), error.status()), ("batch_too_large", 422));
    }
    let [_, _, array] = bodies(10_001);
    assert_eq!(read(array.as_bytes()).expect_err("one too many").code(), "batch_too_large");
    let [_, _, array] = bodies(10_000);
    assert_eq!(read(array.as_bytes()).map(|batch| batch.items.len()), Ok(10_000));
}

#[test]
fn deep_nesting_is_skipped_without_a_deep_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let good = event("good");
    for nested in [&deep, &objects] {
        for field in ["x", "id", "units", "quantities", "user_agent"] {
            let body = format!("[{{\"{field}\":{nested}}},{nested},{good}]");
            let batch = read(body.as_bytes()).expect("grammatical");
            let told: Vec<bool> = batch.items.iter().map(Result::is_ok).collect();
            assert_eq!(told, [false, false, true], "{field}");
        }
    }
    assert_eq!(read(deep.as_bytes()).map(|batch| batch.items.len()), Ok(1));
    assert!(read("[".repeat(100_000).as_bytes()).is_err());
    assert!(read(objects.as_bytes()).is_ok());
}

fn cloud(changes: &Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "c-1", "source": "/gateway/1",
        "type": "usage", "subject": "wk_1", "time": "2026-11-24T10:00:00Z",
        "datacontenttype": "application/json", "data": {"units": 3, "api_path": "/v1"}});
    for (key, value) in changes.as_object().expect("an object") {
        if value == "@absent" {
            event.as_object_mut().expect("an object").remove(key);
        } else {
            event[key] = value.clone();
        }
    }
    event
}

#[test]
fn a_cloud_event_means_what_its_attributes_and_data_say() {
    let plain = json!({"id": "c-1", "subscription_key": "wk_1", "units": 3, "api_path": "/v1",
        "timestamp": "2026-11-24T10:00:00Z"});
    let same = [
        cloud(&json!({})),
        cloud(&json!({"source": "@absent", "type": "@absent", "datacontenttype": "@absent"})),
        cloud(&json!({"data": {"units": 3, "api_path": "/v1", "id": "inner",
            "timestamp": "2020-01-01T00:00:00Z", "subscriptionKey": "inner"}})),
        cloud(&json!({"id": "@absent", "time": null, "subject": "@absent", "data": plain})),
    ];
    let expected = read_as("application/json", plain.to_string().leak().as_bytes()).expect("JSON");
    for event in same {
        for body in [event.to_string(), format!("[{event}]")] {
            for content_type in [CLOUD, CLOUD_BATCH] {
                let batch = read_as(content_type, body.as_bytes());
                assert_eq!(batch.as_ref(), Ok(&expected), "{body}");
            }
        }
    }
    let body = format!("[{}]", cloud(&json!({"traceparent": "00-1", "data": {"colour": 1}})));
    let batch = read_as(CLOUD_BATCH, body.as_bytes()).expect("JSON");
    assert_eq!(batch.unknown_fields, 2);
    let event = one(&batch).as_ref().expect("valid");
    assert_eq!(event.subscription, SubscriptionRef::Key("wk_1".into()));
}

#[test]
fn a_bad_cloud_event_fails_alone_and_names_its_field() {
    let stories = [
        (json!({"specversion": "@absent"}), "specversion: required, 1.0"),
        (json!({"specversion": "0.3"}), "specversion: required, 1.0"),
        (json!({"id": "@absent"}), "id: required, a text of 1 to 128 characters without NUL"),
        (json!({"id": 5}), "id: a text of 1 to 128 characters without NUL"),
        (json!({"subject": null}), "subscription_key: required, or subscription_id in its place"),
        (
            json!({"time": "@absent"}),
            "timestamp: required, an RFC 3339 timestamp such as 2026-11-24T10:00:00.123Z",
        ),
        (json!({"data": "text"}), "data: an object with the fields of the event"),
        (json!({"data": []}), "data: an object with the fields of the event"),
        (json!({"data": {"units": -1}}), "units: an integer from 0 to 9007199254740991"),
        (json!({"data_base64": "e30="}), "data_base64: give the fields as `data`"),
        (
            json!({"data": {"subscription_id": "0192f0c4-5a77-7bb2-8e4b-000000000001"}}),
            "subscription_id: either this or subscription_key, not both",
        ),
    ];
    for (changes, expected) in stories {
        let body = format!("[{},5,{}]", cloud(&changes), cloud(&json!({})));
        let batch = read_as(CLOUD_BATCH, body.as_bytes()).expect("JSON");
        let details: Vec<_> = batch
            .items
            .iter()
            .map(|item| item.as_ref().map_err(|r| r.detail.as_str()).map(|e| &*e.id))
            .collect();
        assert_eq!(
            details,
            [Err(expected), Err("an event is a JSON object"), Ok("c-1")],
            "{changes}"
        );
    }
    let twice = cloud(&json!({})).to_string().replacen('{', "{\"id\":\"x\",", 1);
    let batch = read_as(CLOUD, twice.as_bytes()).expect("JSON");
    assert_eq!(summary(&batch), ["!id"]);
    let twice = cloud(&json!({})).to_string().replacen('{', "{\"data\":{},", 1);
    let batch = read_as(CLOUD, twice.as_bytes()).expect("JSON");
    assert_eq!(summary(&batch), ["!data"]);
}

#[test]
fn faults_and_counts_add_up_over_a_batch() {
    let body = format!(
        "[{FULL},{},{}]",
        event_with(&json!({"x": 1, "country": "??"})),
        event_with(&json!({"y": 1, "z": 2, "units": -1}))
    );
    let batch = read(body.as_bytes()).expect("JSON");
    assert_eq!(summary(&batch), ["e-1", "e-1", "!units"]);
    assert_eq!((batch.unknown_fields, batch.dropped_fields), (3, 1));
}
