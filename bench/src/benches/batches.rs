//! Events in batches of a thousand: as a gateway posts them, and as rows of the tables.
//!
//! Both are made before the clock runs, so that neither side is charged for inventing its data.

use std::fmt::Write as _;
use std::num::NonZeroU16;

use bytes::Bytes;
use uuid::Uuid;
use weir_config::limits::SHARD_COUNT_DEFAULT;
use weir_core::units::Micros;
use weir_node::clock::rfc3339;

use super::fixture::Made;

/// Events in a batch.
pub(super) const BATCH: usize = 1_000;
/// Paths that the events are for.
const PATHS: usize = 20;
pub(super) const METHOD: &str = "GET";
pub(super) const STATUS: i16 = 200;
pub(super) const RESPONSE_MICROS: i64 = 12_500;
pub(super) const REQUEST_SIZE: i64 = 0;
pub(super) const RESPONSE_SIZE: i64 = 5_120;
pub(super) const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
pub(super) const IP_ADDRESS: &str = "203.0.113.9";
pub(super) const COUNTRY: &str = "DE";

/// The columns of a batch that differ from row to row.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) at: i64,
    pub(super) subscriptions: Vec<Uuid>,
    pub(super) shards: Vec<i32>,
    pub(super) positions: Vec<i64>,
    pub(super) event_ids: Vec<String>,
    pub(super) keys: Vec<Uuid>,
    pub(super) paths: Vec<String>,
}

/// A body of `POST /api/v1/usage/events`: one event for each of a thousand subscriptions in turn.
pub(super) fn body(subscriptions: &[Made], now: Micros) -> Bytes {
    let at = rfc3339(now);
    let mut text = String::with_capacity(BATCH * 450);
    text.push('[');
    for (place, made) in subscriptions.iter().cycle().take(BATCH).enumerate() {
        let separator = if place == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            r#"{separator}{{"id":"{}","subscription_key":"{}","api_path":"{}","method":"{METHOD}","status_code":{STATUS},"success":true,"response_time_ms":12.5,"timestamp":"{at}","request_size":{REQUEST_SIZE},"response_size":{RESPONSE_SIZE},"user_agent":"{USER_AGENT}","ip_address":"{IP_ADDRESS}","country":"{COUNTRY}"}}"#,
            Uuid::now_v7(),
            made.key,
            path(place),
        );
    }
    text.push(']');
    text.into()
}

/// The same as rows, ordered as the store orders identities, so that the bare client gains from it, too.
/// `position` is the place in the ledger of the row before.
pub(super) fn columns(subscriptions: &[Made], now: Micros, position: &mut i64) -> Columns {
    let shard_count = NonZeroU16::new(SHARD_COUNT_DEFAULT).unwrap_or(NonZeroU16::MIN);
    let mut batch: Vec<_> =
        subscriptions.iter().cycle().take(BATCH).map(|made| (made, Uuid::now_v7())).collect();
    batch.sort_unstable_by_key(|(made, event)| (made.id, *event));
    let mut columns = Columns { at: now.get(), ..Columns::default() };
    for (place, (made, event)) in batch.into_iter().enumerate() {
        *position += 1;
        let id = made.id.uuid();
        columns.shards.push(i32::from(weir_config::shard_of(*id.as_bytes(), shard_count)));
        columns.subscriptions.push(id);
        columns.positions.push(*position);
        columns.event_ids.push(event.to_string());
        columns.keys.push(made.key_id);
        columns.paths.push(path(place));
    }
    columns
}

fn path(place: usize) -> String {
    format!("/v1/search/{}", place % PATHS)
}

#[cfg(test)]
mod tests {
    use weir_core::units::SubscriptionId;

    use super::*;

    fn subscriptions(count: usize) -> Vec<Made> {
        let made = |_| Made {
            id: SubscriptionId::from_uuid(Uuid::now_v7()),
            key_id: Uuid::now_v7(),
            key: "key".to_owned(),
        };
        (0..count).map(made).collect()
    }

    #[test]
    fn a_body_is_an_array_of_a_thousand_distinct_events() {
        let body = body(&subscriptions(7), Micros::from_seconds(1_795_000_000));
        let events: Vec<serde_json::Value> = serde_json::from_slice(&body).expect("JSON");
        let ids: std::collections::HashSet<_> =
            events.iter().map(|event| event["id"].to_string()).collect();
        assert_eq!((events.len(), ids.len()), (BATCH, BATCH));
        assert_eq!(events[0]["timestamp"], "2026-11-18T11:06:40.000Z");
    }

    #[test]
    fn positions_go_on_from_batch_to_batch() {
        let (subscriptions, now, mut position) = (subscriptions(3), Micros::EPOCH, 0);
        let first = columns(&subscriptions, now, &mut position);
        let second = columns(&subscriptions, now, &mut position);
        assert_eq!(first.positions.last().map(|last| last + 1), second.positions.first().copied());
        assert!(first.subscriptions.is_sorted());
        assert_eq!(position, 2_000);
    }
}
