//! Messages that leave: webhooks and mail, signed, in order, at least once, and never in anybody's way.
//!
//! Pauses and time-outs are set short, so that five attempts are made within a story; no story asserts
//! how long anything took.

mod mail;
mod nodes;
mod outbox;
mod webhooks;

use std::time::Duration;

use harness::{Received, Store, Subscription, World, event, eventually};
use serde_json::{Value, json};

/// What the node signs with.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// What it signed with before.
const OLD_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// Longest wait for what a worker does within some pauses.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node that delivers to loopback and does not wait long for anything.
const QUICK: [(&str, &str); 7] = [
    ("WEIR_CHECKPOINT__INTERVAL", "100ms"),
    ("WEIR_DELIVERY__ALLOW", "127.0.0.0/8, ::1"),
    ("WEIR_DELIVERY__BACKOFF_FIRST", "20ms"),
    ("WEIR_DELIVERY__BACKOFF_MAX", "100ms"),
    ("WEIR_DELIVERY__POLL_INTERVAL", "50ms"),
    ("WEIR_DELIVERY__TIMEOUT", "2s"),
    ("WEIR_DELIVERY__WEBHOOK_SECRET", SECRET),
];

/// [`QUICK`] with other or more variables.
fn quick<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = QUICK.into_iter().filter(|(name, _)| more.iter().all(|(other, _)| name != other));
    kept.chain(more.iter().copied()).collect()
}

async fn world(store: Store, more: &[(&str, &str)]) -> World {
    World::start_with(store, &quick(more)).await
}

/// A subscription of 100 units that is warned at these percentages and goes on beyond them.
async fn warned(world: &World, at: &[u64], fields: Value) -> Subscription {
    let quota = json!({"limit": 100, "every": "P1M", "enforcement": "soft"});
    let plan = world.plan(json!({"quota": quota, "warnAt": at})).await;
    world.subscribe_with(&plan, fields).await
}

/// Uses so many units in one event.
async fn spend(world: &World, subscription: &Subscription, units: u64) {
    let mut event = event(&subscription.key);
    event["units"] = json!(units);
    let answer = world.record(&event).await;
    assert_eq!(answer["accepted"], 1, "{answer}");
}

/// The messages of a subscription, newest first.
async fn notifications(world: &World, subscription: &Subscription) -> Vec<Value> {
    let path = format!("/api/v1/notifications?subscriptionId={}", subscription.id);
    let page = world.admin().get(&path).await.expect(200);
    page["data"].as_array().expect("a list has data").clone()
}

/// Waits until every message of a subscription, so many of them, has this status.
async fn await_status(
    world: &World,
    subscription: &Subscription,
    count: usize,
    status: &str,
) -> Vec<Value> {
    eventually(status, PATIENCE, || async {
        let found = notifications(world, subscription).await;
        let done = found.iter().filter(|one| one["status"] == status).count();
        if done == count && found.len() == count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

fn thresholds(received: &[Received]) -> Vec<u64> {
    received.iter().map(Received::threshold).collect()
}
