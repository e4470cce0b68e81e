//! The outbox as an operator sees it, and that nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use harness::{Receiver, Reply, Store, World, event, eventually, on_both_stores};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{PATIENCE, await_status, notifications, quick, spend, warned, world};

on_both_stores!(
    lists_are_filtered_paged_and_limited_to_a_tokens_reach,
    only_what_is_finished_is_sent_again_and_that_is_audited,
    a_node_that_delivers_nothing_records_and_the_next_one_delivers,
    figures_tell_what_waits_what_left_and_what_was_given_up,
    a_charge_goes_to_the_payment_webhook_when_there_is_one,
);

const LIST: &str = "/api/v1/notifications";

fn ids(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().expect("a list has data");
    data.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

async fn lists_are_filtered_paged_and_limited_to_a_tokens_reach(store: Store) {
    let world = world(store, &[]).await;
    let gone = Receiver::answering(|_| Reply::Status(410)).await;
    let blue = warned(&world, &[80, 90, 100], json!({"tenant": "blue"})).await;
    let red = warned(&world, &[80], json!({"tenant": "red", "webhookUrl": gone.url()})).await;
    spend(&world, &blue, 100).await;
    await_status(&world, &blue, 3, "delivered").await;
    spend(&world, &red, 80).await;
    let dead = ids(&json!({"data": await_status(&world, &red, 1, "dead").await}));
    let delivered = ids(&json!({"data": notifications(&world, &blue).await}));

    let admin = world.admin();
    let all = [dead.clone(), delivered.clone()].concat();
    let stories = [
        (String::new(), all.clone()),
        ("?status=dead".to_owned(), dead.clone()),
        ("?status=delivered".to_owned(), delivered.clone()),
        ("?status=pending".to_owned(), vec![]),
        ("?type=quota_warning".to_owned(), all.clone()),
        ("?type=overage_charge".to_owned(), vec![]),
        (format!("?subscriptionId={}&status=delivered", red.id), vec![]),
        (format!("?subscriptionId={}&type=quota_warning", red.id), dead.clone()),
    ];
    for (query, expected) in stories {
        let page = admin.get(&format!("{LIST}{query}")).await.expect(200);
        assert_eq!(ids(&page), expected, "{query}");
        assert_eq!(page["nextCursor"], Value::Null);
    }
    let mut paged = Vec::new();
    let mut cursor = String::new();
    for _ in 0..all.len() {
        let page = admin.get(&format!("{LIST}?limit=1{cursor}")).await.expect(200);
        paged.extend(ids(&page));
        cursor = format!("&cursor={}", page["nextCursor"].as_str().unwrap_or_default());
    }
    assert_eq!(paged, all, "page by page it is the same list");
    for bad in ["?status=lost", "?type=x", "?subscriptionId=x", "?limit=0", "?cursor=00", "?x=1"] {
        admin.get(&format!("{LIST}{bad}")).await.expect(400);
    }

    // Who is limited to a tenant sees its messages, and cannot tell the others from none.
    let token = world.token(&json!({"name": "blue", "scope": "admin", "tenant": "blue"})).await;
    let blue_admin = world.node.anonymous().with_token(&token);
    assert_eq!(ids(&blue_admin.get(LIST).await.expect(200)), delivered);
    let path = format!("{LIST}/{}/redeliver", dead[0]);
    blue_admin.post(&path, &json!({})).await.expect_problem(404, "not_found");
    for client in [world.gateway(), world.dashboard()] {
        client.get(LIST).await.expect_problem(403, "wrong_scope");
        client.post(&path, &json!({})).await.expect_problem(403, "wrong_scope");
    }
}

async fn only_what_is_finished_is_sent_again_and_that_is_audited(store: Store) {
    let world = world(store, &[("WEIR_DELIVERY__TIMEOUT", "60s")]).await;
    let receiver = Receiver::answering(|number| match number {
        0 => Reply::Status(200),
        _ => Reply::Silence,
    })
    .await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    let told = &await_status(&world, &subscription, 1, "delivered").await[0];
    let id = told["id"].as_str().expect("an id");
    let path = format!("{LIST}/{id}/redeliver");
    let admin = world.admin();
    admin.post(&path, &json!({})).await.expect(200);
    admin.post(&path, &json!({})).await.expect_problem(409, "notification_pending");
    // While it is being sent, too.
    assert_eq!(receiver.wait_for(2).await[1].id(), id);
    admin.post(&path, &json!({})).await.expect_problem(409, "notification_pending");
    let nothing = format!("{LIST}/{}/redeliver", uuid::Uuid::now_v7());
    admin.post(&nothing, &json!({})).await.expect_problem(404, "not_found");

    let page = admin.get("/api/v1/audit?limit=1000").await.expect(200);
    let entries = page["data"].as_array().expect("a list has data");
    let entries: Vec<_> =
        entries.iter().filter(|one| one["action"] == "notification.redeliver").collect();
    assert_eq!(entries.len(), 1, "what was refused changed nothing");
    let entry = entries[0];
    assert_eq!((&entry["targetKind"], &entry["targetId"]), (&json!("notification"), &json!(id)));
    assert_eq!((&entry["actor"], &entry["tenant"]), (&json!("bootstrap"), &json!("default")));
    assert_eq!(entry["before"]["status"], "delivered");
    assert_eq!(entry["after"]["status"], "pending");
}

async fn a_node_that_delivers_nothing_records_and_the_next_one_delivers(store: Store) {
    let mut world = world(store, &[("WEIR_DELIVERY__ENABLED", "false")]).await;
    let receiver = Receiver::start().await;
    let subscription = warned(&world, &[80, 90], json!({"webhookUrl": receiver.url()})).await;
    for used in 1..=95 {
        spend(&world, &subscription, 1).await;
        assert_eq!(world.check(&subscription.key).await["allowed"], true, "after {used}");
    }
    world.await_used(&subscription.key, 95).await;
    let waiting = await_status(&world, &subscription, 2, "pending").await;
    assert!(waiting.iter().all(|one| one["attempts"] == 0 && one["deliveries"] == json!([])));
    assert!(receiver.received().is_empty());

    world.node.terminate().await;
    let mut options = world.node.options();
    options.environment.retain(|(name, _)| name != "WEIR_DELIVERY__ENABLED");
    world.node = harness::Node::start(options).await;
    let arrived = receiver.wait_for(2).await;
    assert_eq!(super::thresholds(&arrived), [80, 90]);
    await_status(&world, &subscription, 2, "delivered").await;
}

/// The sum of a figure over its labels.
async fn figure(world: &World, name: &str) -> f64 {
    let text = world.node.anonymous().get("/metrics").await.text();
    let of_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
    text.lines().filter(of_name).filter_map(value).sum()
}

/// A whole number, as a float carries it.
fn is(wanted: f64) -> impl Fn(f64) -> bool {
    move |found| (found - wanted).abs() < 0.5
}

async fn await_figure(world: &World, name: &str, wanted: impl Fn(f64) -> bool) {
    eventually(name, PATIENCE, || async {
        let found = figure(world, name).await;
        if wanted(found) { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

async fn figures_tell_what_waits_what_left_and_what_was_given_up(store: Store) {
    let world = world(store, &[("WEIR_DELIVERY__TIMEOUT", "60s")]).await;
    let good = Receiver::start().await;
    let gone =
        Receiver::answering(|number| Reply::Status(if number == 0 { 500 } else { 410 })).await;
    let slow = Receiver::answering(|_| Reply::Silence).await;
    for receiver in [&good, &gone, &slow] {
        let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
        spend(&world, &subscription, 80).await;
    }
    await_figure(&world, "weir_outbox_delivered_total", is(1.0)).await;
    await_figure(&world, "weir_outbox_dead_total", is(1.0)).await;
    await_figure(&world, "weir_outbox_failed_total", is(2.0)).await;
    await_figure(&world, "weir_outbox_depth", is(1.0)).await;
    await_figure(&world, "weir_outbox_in_flight", is(1.0)).await;
    await_figure(&world, "weir_outbox_oldest_age_seconds", |found| found > 0.0).await;
}

async fn a_charge_goes_to_the_payment_webhook_when_there_is_one(store: Store) {
    let payments = Receiver::start().await;
    let customers = Receiver::start().await;
    let url = payments.url();
    let mut world = world(store, &[("WEIR_DELIVERY__PAYMENT_URL", &url)]).await;
    let fields = json!({"webhookUrl": customers.url()});
    let subscription = warned(&world, &[80], fields).await;
    let data = json!({"subscriptionId": subscription.id, "amount": "1.50", "currency": "EUR"});
    world.enqueue("overage_charge", &subscription.id, &data).await;
    let webhook = &payments.wait_for(1).await[0];
    assert!(webhook.is_signed_with(super::SECRET));
    assert_eq!(webhook.json()["type"], "overage_charge");
    assert_eq!(webhook.json()["data"], data);
    let told = &await_status(&world, &subscription, 1, "delivered").await[0];
    assert_eq!(told["deliveries"][0]["channel"], "payment");
    assert!(customers.received().is_empty(), "it is told once");

    // Without one it is the subscription's own webhook that hears of it.
    world.node.terminate().await;
    let mut options = world.node.options();
    options.environment.retain(|(name, _)| name != "WEIR_DELIVERY__PAYMENT_URL");
    world.node = harness::Node::start(options).await;
    world.enqueue("overage_charge", &subscription.id, &data).await;
    assert_eq!(customers.wait_for(1).await[0].json()["data"], data);
    assert_eq!(payments.received().len(), 1);
}

#[tokio::test]
async fn what_arrived_while_the_queue_was_away_is_noted_later_and_not_sent_again() {
    // The claim lasts four times as long, which is longer than the queue is away.
    let environment = quick(&[("WEIR_DELIVERY__TIMEOUT", "10s")]);
    let world = World::start_with(Store::Postgres, &environment).await;
    let permits = Arc::new(Semaphore::new(0));
    let held = permits.clone();
    let receiver = Receiver::answering(move |_| Reply::Held(held.clone())).await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    receiver.wait_for(1).await;
    let tables = world.hold_tables("event_queue, event_deliveries").await;
    permits.add_permits(1);
    // Whoever writes now waits, gives up and keeps what it knows.
    await_figure(&world, "weir_outbox_store_errors_total", |found| found >= 2.0).await;
    drop(tables);
    let told = await_status(&world, &subscription, 1, "delivered").await;
    assert_eq!(told[0]["attempts"], 1, "{told:?}");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn usage_is_recorded_while_the_queue_cannot_be_touched() {
    let world = World::start_with(Store::Postgres, &quick(&[])).await;
    let receiver = Receiver::start().await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    let quiet = warned(&world, &[], json!({})).await;
    // As a migration, a stuck session or a vacuum by hand may: nobody reads or writes these tables.
    let held = world.hold_tables("event_queue, event_deliveries").await;
    for round in 0..20 {
        let events: Vec<_> =
            (0..4).flat_map(|_| [event(&subscription.key), event(&quiet.key)]).collect();
        let answer = world.record(&json!({"events": events})).await;
        assert_eq!(answer["accepted"], 8, "round {round}: {answer}");
        assert_eq!(world.check(&quiet.key).await["allowed"], true);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.await_used(&subscription.key, 80).await;
    world.await_used(&quiet.key, 80).await;
    assert!(receiver.received().is_empty(), "the warning cannot have been enqueued");
    drop(held);
    assert_eq!(receiver.wait_for(1).await[0].threshold(), 80);
    await_status(&world, &subscription, 1, "delivered").await;
    assert_eq!(world.records(&quiet.id, "").await.len(), 80);
}
