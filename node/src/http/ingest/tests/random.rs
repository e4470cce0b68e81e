//! Whatever bytes come: no panic, and good events are found among any rubbish.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Limits, parse_body};
use super::{FULL, event_with};

const TYPES: [Option<&str>; 4] = [
    None,
    Some("application/x-ndjson"),
    Some("application/cloudevents+json"),
    Some("application/cloudevents-batch+json"),
];

/// Any JSON value; keys are often those of an event, so that fields get values of every type.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let key = prop_oneof![
        any::<String>(),
        prop::sample::select(vec![
            "id",
            "subscription_key",
            "subscription_id",
            "timestamp",
            "api_path",
            "method",
            "status_code",
            "success",
            "response_time_ms",
            "request_size",
            "response_size",
            "user_agent",
            "ip_address",
            "country",
            "units",
            "quantities",
            "outcome",
            "reservation_id",
            "events",
            "specversion",
            "data",
            "time",
            "subject",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Good events and anything else, in any order.
fn elements() -> impl Strategy<Value = Vec<(bool, Value)>> {
    let good = "[ -~é]{1,40}".prop_map(|id| (true, event_with(&json!({"id": id}))));
    // The id is taken away: what is left cannot be good by chance.
    let rubbish = value().prop_map(|mut value| {
        if let Some(members) = value.as_object_mut() {
            members.remove("id");
        }
        (false, value)
    });
    vec(prop_oneof![good, rubbish], 0..20)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), kind in 0..TYPES.len()) {
        // Read or refused: both are answers.
        let events = parse_body(TYPES[kind], &bytes, Limits::default()).map_or(0, |b| b.items.len());
        prop_assert!(events <= bytes.len());
    }

    #[test]
    fn a_damaged_event_never_panics(at in 0..FULL.len(), byte in any::<u8>(), kind in 0..TYPES.len()) {
        let mut bytes = FULL.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(batch) = parse_body(TYPES[kind], &bytes, Limits::default()) {
            prop_assert!(!batch.items.is_empty());
        }
    }

    #[test]
    fn good_events_survive_among_rubbish_in_every_form(elements in elements()) {
        let texts: Vec<String> = elements.iter().map(|(_, value)| value.to_string()).collect();
        let array = format!("[{}]", texts.join(","));
        let bodies = [
            (None, array.clone()),
            (None, format!("{{\"events\":{array}}}")),
            (Some("application/x-ndjson"), texts.join("\n")),
        ];
        for (content_type, body) in bodies {
            if body.is_empty() {
                continue;
            }
            let batch = parse_body(content_type, body.as_bytes(), Limits::default());
            let batch = batch.map_err(|error| TestCaseError::fail(format!("{body}: {error}")))?;
            prop_assert_eq!(batch.items.len(), elements.len());
            for (index, (item, (is_good, value))) in batch.items.iter().zip(&elements).enumerate() {
                match item {
                    Ok(event) => prop_assert!(*is_good && value["id"] == *event.id, "{}", value),
                    Err(rejected) => {
                        prop_assert!(!is_good, "{}: {}", value, rejected);
                        prop_assert_eq!(rejected.index, index);
                    }
                }
            }
        }
    }
}
