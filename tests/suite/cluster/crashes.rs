//! Nodes that are killed or paused in the middle of their work.

use std::time::Duration;

use harness::{Cluster, History, LEASE, Load, eventually};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{RECOVERY_MAX, hard, metered, taken_over};

/// Each takes a lease and a start.
const CRASHES: usize = 20;

#[tokio::test]
async fn a_node_killed_under_load_loses_nothing_and_lets_nothing_over() {
    let number: u64 = rand::rng().random();
    println!("seed {number}");
    let mut random = StdRng::seed_from_u64(number);
    let mut cluster = Cluster::start(3).await;
    let mut history = History::default();
    for crash in 0..CRASHES {
        if crash % 2 == 0 {
            // The other half comes while shards are on their way back.
            cluster.settled().await;
        }
        // New ones each time, so that the crash comes while their limits are being used up.
        let metered = metered(&cluster, 80).await;
        let mut load = Load::begin(&cluster, metered.clone());
        load.rounds(2).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        let victim = random.random_range(0..3);
        load.fault();
        cluster.kill9(victim);
        taken_over(&cluster, victim).await;
        for one in &metered {
            for index in cluster.running() {
                eventually("every key answers again", RECOVERY_MAX, || async {
                    let answer =
                        cluster.via(index).try_check(&one.subscription.key, "cost=0").await;
                    if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
                })
                .await;
            }
        }
        cluster.restart(victim).await;
        load.rounds(2).await;
        history.join(load.end().await);
    }
    cluster.settled().await;
    history.audit("kill -9 under load", &cluster).await;
}

#[tokio::test]
async fn a_node_that_was_paused_for_three_leases_writes_nothing_more() {
    let mut cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(hard(40)).await;
    let zombie = 2;
    let one = cluster.subscribe_at(zombie, &plan).await;
    let mut load = Load::begin(&cluster, metered(&cluster, 60).await);
    load.rounds(3).await;
    let mut passed = 0;
    let count = |decision: &serde_json::Value| u64::from(decision["allowed"] == true);
    for _ in 0..5 {
        passed += count(&cluster.via(zombie).check(&one.key).await);
    }
    assert_eq!(passed, 5);
    load.fault();
    cluster.nodes[zombie].signal("STOP");
    cluster.take_out(zombie);
    tokio::time::sleep(3 * LEASE).await;
    taken_over(&cluster, zombie).await;
    load.rounds(2).await;
    cluster.nodes[zombie].signal("CONT");
    // What it still answers is within what its successor accounts for.
    let resumed = cluster.via(zombie);
    for _ in 0..60 {
        let request = resumed.gateway.request(http::Method::GET, "/api/v1/quota/check");
        let request = request.header("x-subscription-key", &one.key);
        let Ok(answer) = resumed.gateway.try_send(request, "").await else { break };
        if answer.status == 200 {
            passed += count(&answer.json());
        }
    }
    for turn in 0..60 {
        passed += count(&cluster.via(turn % 2).check(&one.key).await);
    }
    assert!(passed <= 40, "{passed} of 40 passed");
    let code = cluster.nodes[zombie].wait().await;
    assert_eq!(code, Some(1), "it ends by itself: {}", cluster.nodes[zombie].log());
    cluster.restart(zombie).await;
    cluster.settled().await;
    load.rounds(2).await;
    load.end().await.audit("SIGSTOP for three leases", &cluster).await;
}
