//! Any node answers for any subscription, as its owner would.

use std::collections::BTreeSet;

use futures::future::join_all;
use harness::{Cluster, event, event_of};
use serde_json::{Value, json};

use super::hard;

#[tokio::test]
async fn a_limit_holds_wherever_requests_land() {
    let cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(hard(3)).await;
    for first in 0..3 {
        let subscription = cluster.via(first).subscribe(&plan).await;
        for turn in 0..3 {
            let decision = cluster.via((first + turn) % 3).check(&subscription.key).await;
            assert_eq!(decision["allowed"], true, "{decision}");
            assert_eq!(decision["remaining"], 2 - turn, "{decision}");
        }
        for index in 0..3 {
            let decision = cluster.via(index).check(&subscription.key).await;
            assert_eq!(decision["allowed"], false, "{decision}");
            assert_eq!(decision["reason"], "quota_exceeded", "{decision}");
        }
    }

    // Two thousand at once over three nodes.
    let plan = cluster.via(0).plan(hard(100)).await;
    let subscription = cluster.via(0).subscribe(&plan).await;
    let callers = [cluster.via(0), cluster.via(1), cluster.via(2)];
    let asking = (0..2_000).map(|turn| {
        let (caller, key) = (&callers[turn % 3], &subscription.key);
        async move { caller.check(key).await["allowed"] == true }
    });
    let passed = join_all(asking).await.into_iter().filter(|passed| *passed).count();
    assert_eq!(passed, 100);
}

#[tokio::test]
async fn every_node_says_who_owns_a_subscription() {
    let cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(json!({})).await;
    let mut owners = BTreeSet::new();
    for _ in 0..12 {
        let subscription = cluster.via(0).subscribe(&plan).await;
        let owner = cluster.owner_of(&subscription).await;
        let name = format!("node-{}", owner + 1);
        let path = format!("/api/v1/cluster/route?subscriptionId={}", subscription.id);
        for index in 0..3 {
            let answer = cluster.via(index).try_check(&subscription.key, "").await;
            answer.expect(200);
            assert_eq!(answer.header("x-weir-owner"), name);
            let hops = if index == owner { "0" } else { "1" };
            assert_eq!(answer.header("x-weir-hops"), hops, "{name} by {index}");
            let route = cluster.via(index).gateway.get(&path).await.expect(200);
            assert_eq!(route["owner"], name.as_str(), "{route}");
            let http = cluster.nodes[owner].address().to_string();
            assert_eq!(route["http"], http.as_str(), "{route}");
        }
        owners.insert(owner);
    }
    assert!(owners.len() > 1, "a dozen subscriptions have one owner: {owners:?}");
}

#[tokio::test]
async fn a_batch_of_checks_is_answered_in_order_by_several_owners() {
    let cluster = Cluster::start(3).await;
    let mut checks = Vec::new();
    let mut expected = Vec::new();
    for limit in 1..=12 {
        let plan = cluster.via(0).plan(hard(limit)).await;
        let subscription = cluster.via(0).subscribe(&plan).await;
        checks.push(json!({"subscriptionKey": subscription.key}));
        expected.push((json!(subscription.id), limit));
        checks.push(json!({"subscriptionKey": format!("nobody-{limit}")}));
    }
    for turn in 0..3_u64 {
        let via = cluster.via(usize::try_from(turn).expect("small"));
        let answer = via.gateway.post("/api/v1/quota/check", &json!({"checks": checks})).await;
        let results = answer.expect(200)["results"].as_array().expect("results").clone();
        assert_eq!(results.len(), checks.len());
        for (pair, (id, limit)) in results.chunks(2).zip(&expected) {
            assert_eq!(pair[0]["subscriptionId"], *id, "{pair:?}");
            assert_eq!(pair[0]["allowed"], turn < *limit, "{pair:?}");
            assert_eq!(pair[0]["limit"], *limit, "{pair:?}");
            assert_eq!(pair[1]["reason"], "unknown_key", "{pair:?}");
        }
    }
}

#[tokio::test]
async fn an_event_counts_once_whatever_nodes_it_is_sent_to() {
    let cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(json!({"quota": {"limit": null}})).await;
    let mut subscriptions = Vec::new();
    for _ in 0..9 {
        subscriptions.push(cluster.via(1).subscribe(&plan).await);
    }
    let events: Vec<Value> =
        subscriptions.iter().map(|one| event_of(&one.key, "the one")).collect();
    let first = cluster.via(0).record(&json!(events)).await;
    assert_eq!(first, json!({"accepted": 9, "duplicates": 0, "rejected": []}));
    for index in 0..3 {
        let again = cluster.via(index).record(&json!(events)).await;
        assert_eq!(again, json!({"accepted": 0, "duplicates": 9, "rejected": []}));
    }
    for index in 0..3 {
        let fresh: Vec<Value> = subscriptions.iter().map(|one| event(&one.key)).collect();
        cluster.via(index).record(&json!(fresh)).await;
    }
    for one in &subscriptions {
        for index in 0..3 {
            let via = cluster.via(index);
            via.await_used(&one.key, 4).await;
            assert_eq!(via.records(&one.id, "").await.len(), 4);
            let path = format!("/api/v1/subscriptions/{}/usage", one.id);
            let usage = via.dashboard.get(&path).await.expect(200);
            assert_eq!(usage["used"], 4, "{usage}");
        }
    }
}

#[tokio::test]
async fn a_change_through_one_node_holds_at_every_other_at_once() {
    let cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(hard(1)).await;
    let everywhere = |key: String, expected: (bool, &'static str)| {
        let cluster = &cluster;
        async move {
            for index in 0..3 {
                let decision = cluster.via(index).peek(&key).await;
                let seen = (decision["allowed"] == true, decision["reason"].as_str());
                assert_eq!(seen, (expected.0, Some(expected.1)), "node {index}: {decision}");
            }
        }
    };
    // Whoever owns it, the change goes through each node once.
    for index in 0..3 {
        let via = cluster.via(index);
        let one = via.subscribe(&plan).await;
        let path = format!("/api/v1/subscriptions/{}", one.id);
        everywhere(one.key.clone(), (true, "ok")).await;

        let units = json!({"units": 1, "reason": "test", "idempotencyKey": "once"});
        via.admin.post(&format!("{path}/adjustments"), &units).await.expect(200);
        for other in 0..3 {
            let decision = cluster.via(other).check(&one.key).await;
            assert_eq!(decision["allowed"], false, "adjusted: {decision}");
        }
        via.admin.post(&format!("{path}/reset"), &json!({"reason": "test"})).await.expect(200);
        let seen = cluster.via((index + 1) % 3).peek(&one.key).await;
        assert_eq!(seen["used"], 0, "reset: {seen}");

        via.admin
            .json(http::Method::PATCH, &path, &json!({"status": "suspended"}))
            .await
            .expect(200);
        everywhere(one.key.clone(), (false, "subscription_suspended")).await;
        via.admin.json(http::Method::PATCH, &path, &json!({"status": "active"})).await.expect(200);
        everywhere(one.key.clone(), (true, "ok")).await;

        let second = via.admin.post(&format!("{path}/keys"), &json!({})).await.expect(201);
        let key = second["key"].as_str().expect("its making shows it").to_owned();
        everywhere(key.clone(), (true, "ok")).await;
        let id = second["id"].as_str().expect("an id");
        let gone = via.admin.delete(&format!("{path}/keys/{id}")).await;
        assert!(gone.status < 300, "{}", gone.text());
        everywhere(key, (false, "key_revoked")).await;
        everywhere(one.key, (true, "ok")).await;
    }
    // A new limit is followed by every resident, wherever it is.
    let mut subscriptions = Vec::new();
    for _ in 0..6 {
        let one = cluster.via(0).subscribe(&plan).await;
        assert_eq!(cluster.via(1).check(&one.key).await["allowed"], true);
        assert_eq!(cluster.via(2).check(&one.key).await["allowed"], false);
        subscriptions.push(one);
    }
    let mut raised = json!({"name": "test"});
    for (field, value) in hard(3).as_object().expect("an object") {
        raised[field] = value.clone();
    }
    let path = format!("/api/v1/plans/{plan}");
    cluster.via(1).admin.json(http::Method::PUT, &path, &raised).await.expect(200);
    for one in subscriptions {
        let mut passed = Vec::new();
        for index in 0..3 {
            passed.push(cluster.via(index).check(&one.key).await["allowed"] == true);
        }
        assert_eq!(passed, [true, true, false], "1 of 3 was used");
    }
}
