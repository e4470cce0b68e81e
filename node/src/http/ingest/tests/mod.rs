//! Stories of usage bodies: each form, each field, each way to be wrong.

mod fields;
mod forms;
mod random;

use serde_json::{Value, json};

use super::{Batch, BodyError, INVALID_EVENT, Limits, Rejected, UsageEvent, parse_body};

/// The event of the contract's *Record* section, with an id and a key.
const FULL: &str = r#"{"id":"e-1","subscription_key":"wk_1","api_path":"/v1/search","method":"GET","status_code":200,"success":true,"response_time_ms":12.5,
 "timestamp":"2026-11-24T10:00:00.123Z","request_size":0,"response_size":5120,"user_agent":"curl/8.5","ip_address":"203.0.113.9","country":"DE",
 "units":1,"quantities":{},"outcome":"served","reservation_id":null}"#;
/// 2026-11-24T10:00:00.123Z.
const FULL_MICROS: i64 = 1_795_514_400_123_000;

fn read(body: &[u8]) -> Result<Batch<'_>, BodyError> {
    parse_body(Some("application/json"), body, Limits::default())
}

/// The least that is an event, with these fields over it; `Value::Null` takes one away.
fn event_with(changes: &Value) -> Value {
    let mut event =
        json!({"id": "e-1", "subscription_key": "k", "timestamp": "2026-11-24T10:00:00Z"});
    for (key, value) in changes.as_object().expect("an object") {
        event[key] = value.clone();
    }
    event
}

fn one<'a>(batch: &'a Batch<'_>) -> &'a Result<UsageEvent<'a>, Rejected> {
    assert_eq!(batch.items.len(), 1, "{batch:?}");
    &batch.items[0]
}

/// The ids of good events, and `!` with the field's name for bad ones.
fn summary(batch: &Batch<'_>) -> Vec<String> {
    let text = |(position, item): (usize, &Result<UsageEvent<'_>, Rejected>)| match item {
        Ok(event) => event.id.to_string(),
        Err(rejected) => {
            assert_eq!((rejected.index, rejected.code), (position, INVALID_EVENT));
            format!("!{}", rejected.detail.split(':').next().unwrap_or_default())
        }
    };
    batch.items.iter().enumerate().map(text).collect()
}
