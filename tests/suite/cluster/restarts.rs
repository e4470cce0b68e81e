//! Nodes that end in order, start again, come and go: nobody notices.

use std::time::Duration;

use harness::{Cluster, Load, event, eventually};
use serde_json::json;

use super::{hard, metered};

#[tokio::test]
async fn what_is_left_of_a_limit_survives_a_restart_of_every_node() {
    let mut cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(hard(10)).await;
    let mut subscriptions = Vec::new();
    for _ in 0..6 {
        let one = cluster.via(0).subscribe(&plan).await;
        for turn in 0..4 {
            assert_eq!(cluster.via(turn % 3).check(&one.key).await["allowed"], true);
        }
        subscriptions.push(one);
    }
    for index in 0..3 {
        cluster.terminate(index).await;
        cluster.restart(index).await;
    }
    for one in &subscriptions {
        let mut passed = 0;
        for turn in 0..9 {
            let decision = cluster.via(turn % 3).check(&one.key).await;
            passed += u32::from(decision["allowed"] == true);
        }
        assert_eq!(passed, 6);
    }
}

#[tokio::test]
async fn a_cluster_that_was_killed_as_a_whole_is_exact_again() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::begin(&cluster, metered(&cluster, 60).await);
    load.rounds(10).await;
    for index in 0..3 {
        cluster.kill9(index);
    }
    // One alone first: it has to wait until the others' leases have run out.
    for index in [1, 0, 2] {
        cluster.restart(index).await;
    }
    cluster.settled().await;
    load.rounds(5).await;
    load.end().await.audit("kill -9 of all three", &cluster).await;
}

#[tokio::test]
async fn a_rolling_restart_and_scaling_fail_no_check_and_lose_no_event() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::begin(&cluster, metered(&cluster, 100).await);
    load.rounds(3).await;
    for index in 0..3 {
        cluster.terminate(index).await;
        cluster.restart(index).await;
        load.rounds(3).await;
    }
    cluster.grow().await;
    cluster.settled().await;
    load.rounds(3).await;
    cluster.terminate(3).await;
    cluster.settled().await;
    load.rounds(3).await;
    let audit = load.end().await.audit("rolling restart, 3 -> 4 -> 3", &cluster).await;
    assert_eq!((audit.failed_checks, audit.unknown, audit.withheld), (0, 0, 0), "{audit}");
}

#[tokio::test]
async fn a_node_that_starts_again_under_its_name_serves_again() {
    let mut cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(json!({"quota": {"limit": null}})).await;
    let one = cluster.subscribe_at(1, &plan).await;
    for round in 1..=3_u64 {
        cluster.kill9(1);
        // At once, before anybody has declared the boot before it dead.
        cluster.restart(1).await;
        for index in 0..3 {
            let record = json!([event(&one.key)]);
            eventually("events are taken", Duration::from_secs(20), || async {
                let answer = cluster.via(index).gateway.post("/api/v1/usage/events", &record).await;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
        cluster.via(0).await_used(&one.key, 3 * round).await;
    }
    cluster.settled().await;
}
