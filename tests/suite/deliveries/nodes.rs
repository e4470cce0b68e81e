//! Nodes that die while they deliver, and nodes that deliver together.

use std::collections::BTreeMap;

use harness::{Cluster, Receiver, Reply, Store, event, eventually, on_both_stores};
use serde_json::{Value, json};

use super::{PATIENCE, SECRET, await_status, quick, spend, thresholds, warned, world};

on_both_stores!(
    a_node_killed_between_sending_and_writing_sends_again_under_the_same_id,
    a_node_that_ends_in_order_gives_back_what_it_could_not_finish,
);

async fn a_node_killed_between_sending_and_writing_sends_again_under_the_same_id(store: Store) {
    // Short, because the claim of the killed node lasts four times as long.
    let mut world = world(store, &[("WEIR_DELIVERY__TIMEOUT", "1s")]).await;
    // The first is received and not answered: the sender cannot have written anything.
    let receiver = Receiver::answering(|number| match number {
        0 => Reply::Silence,
        _ => Reply::Status(200),
    })
    .await;
    let subscription = warned(&world, &[80, 90], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 95).await;
    receiver.wait_for(1).await;
    world.node.kill9();
    world.node.restart().await;
    let arrived = receiver.wait_for(3).await;
    assert_eq!(thresholds(&arrived), [80, 80, 90], "at least once, and still in order");
    assert_eq!(arrived[0].id(), arrived[1].id());
    assert_eq!(arrived[0].body, arrived[1].body);
    assert!(arrived.iter().all(|webhook| webhook.is_signed_with(SECRET)));
    let told = await_status(&world, &subscription, 2, "delivered").await;
    assert_eq!(told[1]["attempts"], 2, "the one that was cut off was one: {told:?}");
    assert_eq!(receiver.received().len(), 3);
}

async fn a_node_that_ends_in_order_gives_back_what_it_could_not_finish(store: Store) {
    // Its claim would last for minutes.
    let mut world = world(store, &[("WEIR_DELIVERY__TIMEOUT", "60s")]).await;
    let receiver = Receiver::answering(|number| match number {
        0 => Reply::Silence,
        _ => Reply::Status(200),
    })
    .await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    receiver.wait_for(1).await;
    world.node.terminate().await;
    world.node.restart().await;
    let arrived = receiver.wait_for(2).await;
    assert_eq!(arrived[0].id(), arrived[1].id());
    let told = await_status(&world, &subscription, 1, "delivered").await;
    assert_eq!(told[0]["attempts"], 1, "giving back costs none: {told:?}");
}

#[tokio::test]
async fn three_nodes_deliver_each_notice_once_and_in_order() {
    const SUBSCRIPTIONS: usize = 24;
    let cluster = Cluster::start_with(3, &quick(&[])).await;
    let receiver = Receiver::start().await;
    let via = cluster.via(0);
    let quota = json!({"limit": 100, "every": "P1M", "enforcement": "soft"});
    let plan = via.plan(json!({"quota": quota, "warnAt": [80, 90, 100]})).await;
    let mut subscriptions = Vec::new();
    for _ in 0..SUBSCRIPTIONS {
        let fields = json!({"webhookUrl": receiver.url()});
        subscriptions.push(via.subscribe_with(&plan, fields).await);
    }
    for (index, subscription) in subscriptions.iter().enumerate() {
        let mut event = event(&subscription.key);
        event["units"] = json!(101);
        let answer = cluster.via(index % 3).record(&event).await;
        assert_eq!(answer["accepted"], 1, "{answer}");
    }
    receiver.wait_for(3 * SUBSCRIPTIONS).await;
    eventually("all are finished", PATIENCE, || async {
        let page = via.admin.get("/api/v1/notifications?status=pending").await.expect(200);
        if page["data"] == json!([]) { Ok(()) } else { Err(page.to_string()) }
    })
    .await;
    let arrived = receiver.received();
    assert_eq!(arrived.len(), 3 * SUBSCRIPTIONS, "none twice");
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for webhook in &arrived {
        let body: Value = webhook.json();
        let of = body["data"]["subscriptionId"].as_str().expect("whose it is").to_owned();
        told.entry(of).or_default().push(webhook.threshold());
    }
    assert_eq!(told.len(), SUBSCRIPTIONS);
    for (subscription, thresholds) in told {
        assert_eq!(thresholds, [80, 90, 100], "{subscription}");
    }
    let mut delivered = Vec::new();
    for index in 0..3 {
        let text = cluster.nodes[index].anonymous().get("/metrics").await.text();
        let of_webhooks = |line: &&str| {
            line.starts_with("weir_outbox_delivered_total") && line.contains("webhook")
        };
        let line = text.lines().find(of_webhooks).expect("the figure is there");
        delivered.push(line.rsplit(' ').next().expect("a value").to_owned());
    }
    let sum: usize = delivered.iter().map(|value| value.parse::<usize>().expect("a count")).sum();
    assert_eq!(sum, 3 * SUBSCRIPTIONS, "{delivered:?}");
}
