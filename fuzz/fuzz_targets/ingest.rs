//! Any bytes as a body of usage events: refused or read, never a panic; and a good event beside them
//! is always found.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_node::http::ingest::{Batch, Limits, parse_body};

const TYPES: [Option<&str>; 4] = [
    None,
    Some("application/x-ndjson"),
    Some("application/cloudevents+json"),
    Some("application/cloudevents-batch+json"),
];
const GOOD: &[u8] =
    br#"{"id":"good","subscription_key":"k","timestamp":"2026-11-24T10:00:00Z","specversion":"1.0"}"#;

fuzz_target!(|bytes: &[u8]| {
    for content_type in TYPES {
        let limits = Limits { events_max: 100 };
        if let Ok(batch) = parse_body(content_type, bytes, limits) {
            assert!(batch.items.len() <= limits.events_max);
            check(&batch);
        }
    }
    // Nothing put before `,GOOD]` can hide it and still be JSON.
    let array = [b"[", bytes, b",", GOOD, b"]"].concat();
    if let Ok(batch) = parse_body(None, &array, Limits::default()) {
        check_last(&batch);
    }
    let lines = [bytes, b"\n", GOOD].concat();
    let batch = parse_body(Some("application/x-ndjson"), &lines, Limits::default());
    if let Ok(batch) = batch {
        check_last(&batch);
    }
});

fn check(batch: &Batch<'_>) {
    for (position, item) in batch.items.iter().enumerate() {
        match item {
            Ok(event) => {
                assert!(!event.id.is_empty() && event.id.chars().count() <= 128);
                assert!(event.api_path.as_ref().is_none_or(|path| !path.contains(['?', '\0'])));
                assert_eq!(event.clone().into_owned(), *event);
            }
            Err(rejected) => {
                assert_eq!(rejected.index, position);
                assert!(!rejected.detail.is_empty());
            }
        }
    }
}

fn check_last(batch: &Batch<'_>) {
    check(batch);
    let last = batch.items.last().expect("at least the good one");
    assert_eq!(last.as_ref().map(|event| &*event.id), Ok("good"));
}
