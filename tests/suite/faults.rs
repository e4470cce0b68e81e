//! The store goes away under load and comes back: checks go on, events wait, nothing is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::postgres::{Postgres, Stop};
use harness::{World, event, eventually};
use serde_json::{Value, json};

/// Between two checks of one subscription: with three of them about 200 a second.
const CHECK_PAUSE: Duration = Duration::from_millis(15);
const EVENTS_PAUSE: Duration = Duration::from_millis(40);
const EVENTS_A_BATCH: usize = 5;
/// The node's own bound on a request, and some room for a loaded machine.
const ANSWER_MAX: Duration = Duration::from_secs(22);

/// How the server is taken away and brought back.
#[derive(Clone, Copy, Debug)]
enum Outage {
    Frozen,
    Crashed,
}

async fn begin(server: &Postgres, outage: Outage) {
    match outage {
        Outage::Frozen => server.pause().expect("the server can be frozen"),
        Outage::Crashed => server.stop(Stop::Immediate).expect("the server can be stopped"),
    }
    tokio::task::yield_now().await;
}

async fn end(server: &Postgres, outage: Outage) {
    match outage {
        Outage::Frozen => server.resume().expect("the server can go on"),
        Outage::Crashed => server.restart().await.expect("the server starts again"),
    }
}

/// Waits until `/readyz` says so; it answers 200 all the time.
async fn await_degraded(world: &World, degraded: bool) {
    let anonymous = world.node.anonymous();
    eventually("readyz", Duration::from_secs(30), || async {
        let ready = anonymous.get("/readyz").await.expect(200);
        if ready["degraded"] == degraded { Ok(()) } else { Err(ready.to_string()) }
    })
    .await;
}

/// Checks one subscription until `done`; every check must pass. Returns how long each took.
async fn keep_checking(world: &World, key: &str, done: &AtomicBool) -> Vec<(Instant, Duration)> {
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let started = Instant::now();
        let decision = world.check(key).await;
        times.push((started, started.elapsed()));
        assert_eq!(decision["allowed"], true, "{decision}");
        tokio::time::sleep(CHECK_PAUSE).await;
    }
    times
}

/// Sends events until `done`, each batch until it is taken, as a gateway does. Returns how many
/// events there were.
async fn keep_recording(world: &World, key: &str, done: &AtomicBool) -> usize {
    let gateway = world.gateway();
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        let batch: Vec<Value> = (0..EVENTS_A_BATCH).map(|_| event(key)).collect();
        sent += batch.len();
        let batch = json!(batch);
        eventually("a batch is taken", Duration::from_mins(1), || async {
            let started = Instant::now();
            let answer = gateway.post("/api/v1/usage/events", &batch).await;
            assert!(started.elapsed() < ANSWER_MAX, "{:?}", started.elapsed());
            if answer.status == 200 {
                return Ok(());
            }
            answer.expect_problem(503, answer.json()["code"].as_str().expect("a code"));
            assert!(!answer.header("retry-after").is_empty(), "{}", answer.text());
            Err(answer.text())
        })
        .await;
        tokio::time::sleep(EVENTS_PAUSE).await;
    }
    sent
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}

async fn check_outage(outage: Outage) {
    let server = Postgres::start_own().await.expect("a server can be started");
    let world = World::start_on(&server, &[]).await;
    let plan = |enforcement: &str, limit: Value| {
        let quota = json!({"limit": limit, "enforcement": enforcement, "anchor": "subscription"});
        json!({"quota": quota, "failPolicy": "open"})
    };
    let mut keys = Vec::new();
    for fields in
        [plan("hard", Value::Null), plan("soft", json!(10)), plan("hard", json!(1_000_000))]
    {
        let key = world.subscribe(&world.plan(fields).await).await.key;
        world.check(&key).await;
        keys.push(key);
    }
    let done = AtomicBool::new(false);
    let course = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        begin(&server, outage).await;
        await_degraded(&world, true).await;
        // Long enough that every pool, queue and time-out comes into play.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let live = world.node.anonymous().get("/livez").await;
        assert_eq!(live.status, 200, "{}", live.text());
        let refused = world.gateway().post("/api/v1/usage/events", &event(&keys[0])).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        let ended = Instant::now();
        end(&server, outage).await;
        await_degraded(&world, false).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        done.store(true, Ordering::Relaxed);
        (begun, ended)
    };
    let ((begun, ended), unlimited, soft, hard, sent) = tokio::join!(
        course,
        keep_checking(&world, &keys[0], &done),
        keep_checking(&world, &keys[1], &done),
        keep_checking(&world, &keys[2], &done),
        keep_recording(&world, &keys[2], &done),
    );
    let during = |&(at, _): &&(Instant, Duration)| (begun..ended).contains(at);
    let all = || unlimited.iter().chain(&soft).chain(&hard);
    let took = |&(_, took): &(Instant, Duration)| took;
    let (before, under): (Vec<Duration>, Vec<Duration>) = (
        all().filter(|time| time.0 < begun).map(took).collect(),
        all().filter(during).map(took).collect(),
    );
    let counts = (before.len(), under.len());
    println!(
        "{outage:?}: checks {counts:?}, p99 {:?} before, {:?} during",
        p99(before),
        p99(under)
    );
    assert!(counts.1 > 100, "the load went on during the outage: {counts:?}");
    world.await_used(&keys[2], u64::try_from(sent).expect("small")).await;
    let id = world.peek(&keys[2]).await["subscriptionId"].as_str().expect("an id").to_owned();
    assert_eq!(world.records(&id, "").await.len(), sent, "each is in the ledger once");
    let decision = world.check(&keys[2]).await;
    assert_eq!(decision["mode"], "enforced", "back to normal: {decision}");
}

#[tokio::test]
async fn checks_go_on_and_events_wait_while_the_store_is_frozen() {
    Box::pin(check_outage(Outage::Frozen)).await;
}

#[tokio::test]
async fn checks_go_on_and_events_wait_while_the_store_is_down() {
    Box::pin(check_outage(Outage::Crashed)).await;
}

#[tokio::test]
async fn beyond_its_escrow_a_hard_plan_follows_its_fail_policy() {
    const LIMIT: usize = 1_000;
    let server = Postgres::start_own().await.expect("a server can be started");
    let world = World::start_on(&server, &[]).await;
    let quota = json!({"limit": LIMIT, "anchor": "subscription"});
    let subscribe = |policy: &'static str| {
        let plan = json!({"quota": quota, "failPolicy": policy, "holdTtl": "1h"});
        let world = &world;
        async move { world.subscribe(&world.plan(plan).await).await.key }
    };
    let (open, closed) = (subscribe("open").await, subscribe("closed").await);
    for key in [&open, &closed] {
        assert_eq!(world.check(key).await["mode"], "enforced");
    }
    server.stop(Stop::Immediate).expect("the server can be stopped");

    let mut passed = 1;
    let refused = loop {
        let answer = world.try_check(&closed, "").await;
        if answer.status != 200 {
            break answer;
        }
        assert_eq!(answer.json()["allowed"], true, "{}", answer.text());
        passed += 1;
        assert!(passed <= LIMIT, "the escrow has an end");
    };
    refused.expect_problem(503, "store_unavailable");
    assert!(!refused.header("retry-after").is_empty());
    println!("{passed} passed from the escrow");

    let degraded = loop {
        let decision = world.check(&open).await;
        assert_eq!(decision["allowed"], true, "{decision}");
        if decision["mode"] != "enforced" {
            break decision;
        }
    };
    assert_eq!(degraded["mode"], "degraded", "{degraded}");
    assert_eq!(world.peek(&closed).await["pending"], passed, "a look needs no escrow");

    server.restart().await.expect("the server starts again");
    for key in [&open, &closed] {
        eventually("back to normal", Duration::from_secs(30), || async {
            let answer = world.try_check(key, "").await;
            let normal = answer.status == 200 && answer.json()["mode"] == "enforced";
            if normal { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }
    let seen = world.peek(&closed).await;
    assert!(seen["pending"].as_u64().is_some_and(|held| held >= passed as u64), "{seen}");
}

#[tokio::test]
async fn sessions_that_are_cut_are_replaced() {
    let server = Postgres::start_own().await.expect("a server can be started");
    let world = World::start_on(&server, &[]).await;
    let key = world.subscribe_hard(1_000).await.key;
    for round in 1..=3_u64 {
        world.cut_sessions().await;
        let batch = json!([event(&key), event(&key)]);
        eventually("events are taken again", Duration::from_secs(20), || async {
            let answer = world.gateway().post("/api/v1/usage/events", &batch).await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        world.await_used(&key, 2 * round).await;
        assert_eq!(world.check(&key).await["allowed"], true);
    }
}
