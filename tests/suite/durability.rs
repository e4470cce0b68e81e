//! Crashes, restarts and rest: nothing acknowledged is lost, nothing counts twice, nothing passes
//! beyond the limit.

use std::time::{Duration, Instant};

use futures::future::join_all;
use harness::{
    Http, Node, NodeOptions, Store, Subscription, World, event, event_of, eventually,
    on_both_stores,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

on_both_stores!(
    twenty_crashes_lose_nothing_and_double_nothing,
    a_crash_lets_nothing_pass_beyond_a_hard_limit,
    an_orderly_restart_keeps_everything_exactly,
    rest_and_a_bound_on_residents_keep_everything,
    a_second_node_on_the_same_database_is_refused,
);

/// Events of one round.
const EVENTS: usize = 1_000;
const ROUNDS: usize = 20;

/// Sends all events in small batches, several at once. Returns the ids that were acknowledged.
async fn send(gateway: &Http, key: &str, ids: &[String]) -> Vec<String> {
    const LANES: usize = 4;
    const BATCH: usize = 10;
    let lane = |first: usize| async move {
        let mut acknowledged = Vec::new();
        for batch in ids.chunks(BATCH).skip(first).step_by(LANES) {
            let events: Vec<Value> = batch.iter().map(|id| event_of(key, id)).collect();
            let request = gateway.request(http::Method::POST, "/api/v1/usage/events");
            let request = request.header("content-type", "application/json");
            match gateway.try_send(request, json!(events).to_string()).await {
                Ok(answer) if answer.status == 200 => acknowledged.extend_from_slice(batch),
                // Refused while it starts, or not answered: it is unknown, and sent again later.
                Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                Err(_) => break,
            }
        }
        acknowledged
    };
    join_all((0..LANES).map(lane)).await.concat()
}

async fn twenty_crashes_lose_nothing_and_double_nothing(store: Store) {
    let number: u64 = rand::rng().random();
    println!("seed {number}");
    let mut random = StdRng::seed_from_u64(number);
    let mut world = World::start(store).await;
    let plan = world.plan(json!({"quota": {"limit": null}})).await;
    // What a whole round takes here, to crash somewhere within it.
    let mut round_time = Duration::from_millis(300);
    for round in 0..ROUNDS {
        let subscription = world.subscribe(&plan).await;
        let ids: Vec<String> = (0..EVENTS).map(|event| format!("{round}-{event}")).collect();
        let gateway = world.gateway();
        let sending = send(&gateway, &subscription.key, &ids);
        let crash_after = round_time.mul_f64(random.random_range(0.05..0.95));
        let crash = async {
            tokio::time::sleep(crash_after).await;
            world.node.kill9();
        };
        let (acknowledged, ()) = futures::future::join(sending, crash).await;
        world.node.restart().await;
        let recorded = |rows: &[Value]| -> Vec<String> {
            rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
        };
        let kept = recorded(&world.records(&subscription.id, "").await);
        let lost: Vec<_> = acknowledged.iter().filter(|id| !kept.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");

        let started = Instant::now();
        let again = send(&world.gateway(), &subscription.key, &ids).await;
        round_time = started.elapsed().min(Duration::from_secs(2));
        assert_eq!(again.len(), EVENTS, "round {round}: all are acknowledged in the end");
        let mut rows = recorded(&world.records(&subscription.id, "").await);
        assert_eq!(rows.len(), EVENTS, "round {round}: each is in the ledger once");
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), EVENTS, "round {round}: each id is there");
        let seen = world.peek(&subscription.key).await;
        assert_eq!(seen["used"], EVENTS, "round {round}, {} before: {seen}", acknowledged.len());
    }
}

/// Asks until nothing passes any more, or until the node is gone. Returns how many passed.
async fn exhaust(world: &World, key: &str, most: usize) -> usize {
    let client = world.gateway();
    let ask = || async {
        let request = client.request(http::Method::GET, "/api/v1/quota/check");
        let answer = client.try_send(request.header("x-subscription-key", key), "").await.ok()?;
        (answer.status == 200).then(|| answer.json()["allowed"] == true)
    };
    let mut passed = 0;
    for _ in 0..most.div_ceil(10) {
        let answers = join_all((0..10).map(|_| ask())).await;
        passed += answers.iter().filter(|answer| **answer == Some(true)).count();
        if answers.iter().any(|answer| *answer != Some(true)) {
            break;
        }
    }
    passed
}

async fn a_crash_lets_nothing_pass_beyond_a_hard_limit(store: Store) {
    const LIMIT: usize = 300;
    let number: u64 = rand::rng().random();
    println!("seed {number}");
    let mut random = StdRng::seed_from_u64(number);
    let mut world = World::start(store).await;
    let quota = json!({"limit": LIMIT, "anchor": "subscription"});
    // The check charges, so that what passed stays charged whatever the node remembers of it.
    let charging = world.plan(json!({"quota": quota, "chargeOn": "check"})).await;
    let charging = world.subscribe(&charging).await;
    let holding = world.plan(json!({"quota": quota, "holdTtl": "2s"})).await;
    let holding = world.subscribe(&holding).await;
    let mut passed = 0;
    for _ in 0..4 {
        passed += exhaust(&world, &charging.key, random.random_range(1..60)).await;
        world.node.kill9();
        world.node.restart().await;
    }
    passed += exhaust(&world, &charging.key, 2 * LIMIT).await;
    assert!(passed <= LIMIT, "{passed} passed");

    let before = exhaust(&world, &holding.key, random.random_range(20..100)).await;
    world.node.kill9();
    world.node.restart().await;
    let after = exhaust(&world, &holding.key, 2 * LIMIT).await;
    assert!(before + after <= LIMIT, "{before} passed before the crash, {after} after it");
    // Nothing was used: once the holds are over, all of it is there again.
    eventually("unspent escrow returns", Duration::from_secs(15), || async {
        let seen = world.peek(&holding.key).await;
        if seen["remaining"] == LIMIT { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
}

async fn an_orderly_restart_keeps_everything_exactly(store: Store) {
    let mut world = World::start(store).await;
    let rate = json!([
        {"name": "fixed", "limit": 100, "window": "PT1H", "algorithm": "fixed_window"},
        {"name": "sliding", "limit": 100, "window": "P1D", "algorithm": "sliding_window"},
        {"name": "bucket", "limit": 100, "window": "P30D", "algorithm": "token_bucket"},
    ]);
    let quota = json!({"limit": 1_000, "anchor": "subscription"});
    let plan = json!({"quota": quota, "rateLimits": rate, "holdTtl": "1h"});
    let subscription = world.subscribe(&world.plan(plan).await).await;
    for _ in 0..7 {
        assert_eq!(world.check(&subscription.key).await["allowed"], true);
    }
    let hold = world.check_with(&subscription.key, "cost=5&reserve=true").await;
    assert_eq!(hold["allowed"], true, "{hold}");
    world.record(&json!([event(&subscription.key), event(&subscription.key)])).await;
    let standing = |seen: &Value| {
        let rates: Vec<_> = (0..3).map(|at| seen["rate"][at]["remaining"].clone()).collect();
        let numbers = ["used", "pending", "remaining", "periodStart", "resetAt"];
        (numbers.map(|name| seen[name].clone()), rates)
    };
    let before = standing(&world.peek(&subscription.key).await);
    assert_eq!(before.0[..3], [json!(2), json!(10), json!(988)]);
    // Twice: what was restored is written again.
    for _ in 0..2 {
        world.node.terminate().await;
        world.node.restart().await;
        assert_eq!(standing(&world.peek(&subscription.key).await), before);
    }
    let id = hold["reservationId"].as_str().expect("a hold by name was asked for");
    let path = format!("/api/v1/quota/reservations/{id}/commit");
    world.gateway().post(&path, &json!({"units": 3})).await.expect(200);
    let seen = world.peek(&subscription.key).await;
    assert_eq!((&seen["used"], &seen["pending"]), (&json!(5), &json!(5)), "{seen}");
}

async fn rest_and_a_bound_on_residents_keep_everything(store: Store) {
    const SUBSCRIPTIONS: usize = 12;
    const RESIDENT_MAX: u32 = 4;
    let environment = [
        ("WEIR_ACTORS__PASSIVATE_AFTER", "1s"),
        ("WEIR_ACTORS__RESIDENT_MAX", "4"),
        ("WEIR_CHECKPOINT__INTERVAL", "100ms"),
    ];
    let world = World::start_with(store, &environment).await;
    let quota = json!({"limit": 100, "anchor": "subscription"});
    let plan = world.plan(json!({"quota": quota, "holdTtl": "1h"})).await;
    let mut subscriptions: Vec<Subscription> = Vec::new();
    for _ in 0..SUBSCRIPTIONS {
        subscriptions.push(world.subscribe(&plan).await);
    }
    let resident = || async {
        let figures = world.admin().get("/metrics").await.text();
        let line = figures.lines().find_map(|l| l.strip_prefix("weir_resident_subscriptions "));
        line.and_then(|number| number.trim().parse::<f64>().ok()).expect("the figure is there")
    };
    for round in 1..=3_u64 {
        for subscription in &subscriptions {
            let decision = world.check_with(&subscription.key, "cost=2").await;
            assert_eq!(decision["allowed"], true, "{decision}");
            world.record(&event(&subscription.key)).await;
            let seen = world.peek(&subscription.key).await;
            let said = (&seen["used"], &seen["pending"]);
            assert_eq!(said, (&json!(round), &json!(round)), "round {round}: {seen}");
        }
        // Not all of them stay, and in the end none does.
        let bound = if round == 3 { 0.0 } else { f64::from(RESIDENT_MAX) };
        eventually("they go to rest", Duration::from_secs(10), || async {
            let now = resident().await;
            if now <= bound { Ok(()) } else { Err(format!("{now} in memory")) }
        })
        .await;
    }
    for subscription in &subscriptions {
        let seen = world.peek(&subscription.key).await;
        assert_eq!((&seen["used"], &seen["pending"]), (&json!(3), &json!(3)), "{seen}");
    }
}

async fn a_second_node_on_the_same_database_is_refused(store: Store) {
    let mut world = World::start_with(store, &[("WEIR_CLUSTER__LEASE", "3s")]).await;
    let key = world.subscribe_hard(10).await.key;
    let mut options: NodeOptions = world.node.options();
    options.environment.push(("WEIR_NODE_ID".to_owned(), "node-2".to_owned()));
    let Err((code, complaint)) = Node::try_start(options).await else {
        panic!("two nodes serve one database");
    };
    assert_eq!(code, Some(1), "{complaint}");
    let reason = complaint.lines().rfind(|line| line.starts_with("weir: "));
    let reason = reason.unwrap_or_else(|| panic!("no reason is given: {complaint}"));
    assert!(
        ["in use", "locked", "another", "alive"].iter().any(|word| reason.contains(word)),
        "{reason}"
    );
    assert!(world.node.is_running(), "the first node goes on");
    assert_eq!(world.check(&key).await["allowed"], true);
}
