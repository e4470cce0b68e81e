//! Cuts between a node and Postgres, between a node and its peers, and a Postgres that goes away.

use std::time::Duration;

use harness::postgres::{Postgres, Stop};
use harness::{Cluster, Gate, History, LEASE, Load, Proxy, Wires, event_of, eventually};
use http::Method;
use serde_json::{Value, json};

use super::{RECOVERY_MAX, metered, taken_over};

/// The node that is cut off: the last to start, which all others dial.
const CUT: usize = 2;

async fn wired() -> (Postgres, Cluster) {
    let server = Postgres::start_own().await.expect("a server can be started");
    let cluster = Cluster::start_wired(3, &server).await;
    (server, cluster)
}

/// A node that was declared dead finds it out once it reaches Postgres again, and ends by itself; then
/// it is started anew.
async fn made_whole(cluster: &mut Cluster) {
    let code = cluster.nodes[CUT].wait().await;
    assert_eq!(code, Some(1), "{}", cluster.nodes[CUT].log());
    cluster.take_out(CUT);
    cluster.restart(CUT).await;
    cluster.settled().await;
}

/// Cuts a node off, waits until others have its shards, and mends the wires.
async fn check_cut(story: &str, cuts: &[fn(&Wires)]) {
    let (_server, mut cluster) = wired().await;
    let mut history = History::default();
    for cut in cuts {
        let mut load = Load::begin(&cluster, metered(&cluster, 100).await);
        load.rounds(3).await;
        load.fault();
        cut(&cluster.wires[CUT]);
        taken_over(&cluster, CUT).await;
        load.rounds(2).await;
        cluster.wires[CUT].store.mend();
        cluster.wires[CUT].peers.mend();
        made_whole(&mut cluster).await;
        load.rounds(2).await;
        history.join(load.end().await);
    }
    history.audit(story, &cluster).await;
}

#[tokio::test]
async fn a_node_without_postgres_is_replaced_and_comes_back() {
    let reset = |wires: &Wires| wires.store.cut();
    let silent = |wires: &Wires| wires.store.hold();
    // What it commits is committed, and it never hears of it.
    let answers_lost = |wires: &Wires| wires.store.gates(Gate::Open, Gate::Held);
    check_cut("one node cut from Postgres", &[reset, silent, answers_lost]).await;
}

/// How many shards each node owns.
async fn shares(cluster: &Cluster) -> Vec<Value> {
    let view = cluster.view_of(0).await;
    let nodes = view["nodes"].as_array().expect("nodes");
    nodes.iter().map(|node| node["shards"].clone()).collect()
}

#[tokio::test]
async fn one_link_between_two_nodes_is_gone_round_by_way_of_the_third() {
    let (_server, cluster) = wired().await;
    let before_all = shares(&cluster).await;
    let plan = cluster.via(0).plan(json!({"quota": {"limit": 10, "every": "P1D"}})).await;
    // The first dials the second, whose wire nobody else uses: the third was started after it.
    let (asked, owner, between) = (0, 1, 2);
    let one = cluster.subscribe_at(owner, &plan).await;
    let load = Load::begin(&cluster, metered(&cluster, 100).await);
    load.rounds(2).await;
    for cut in [Proxy::cut as fn(&Proxy), Proxy::hold] {
        let before = cluster.figure(asked, "weir_peer_detours_total").await;
        cut(&cluster.wires[owner].peers);
        eventually("the third passes on", RECOVERY_MAX, || async {
            let answer = cluster.via(asked).try_check(&one.key, "cost=0").await;
            let round = cluster.figure(asked, "weir_peer_detours_total").await;
            if answer.status == 200 && round > before { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        // All that goes the other way, and changes, too.
        let answer = cluster.via(asked).check(&one.key).await;
        assert_eq!(answer["allowed"], true);
        let id = format!("by-a-detour-{before}");
        let recorded = cluster.via(asked).record(&event_of(&one.key, &id)).await;
        assert_eq!(recorded["accepted"], 1, "{recorded}");
        let path = format!("/api/v1/subscriptions/{}", one.id);
        for (status, reason) in [("suspended", "subscription_suspended"), ("active", "ok")] {
            let change = json!({"status": status});
            cluster.via(owner).admin.json(Method::PATCH, &path, &change).await.expect(200);
            for index in [asked, owner, between] {
                let answer = cluster.via(index).try_check(&one.key, "cost=0").await.expect(200);
                assert_eq!(answer["reason"], reason, "via {index}");
            }
        }
        load.rounds(2).await;
        cluster.wires[owner].peers.mend();
        load.rounds(2).await;
    }
    assert_eq!(shares(&cluster).await, before_all, "nobody took anything over");
    load.end().await.audit("one link cut between two nodes", &cluster).await;
}

#[tokio::test]
async fn a_change_that_nobody_could_be_told_of_is_followed_all_the_same() {
    let (_server, cluster) = wired().await;
    let plan = cluster.via(0).plan(json!({"quota": {"limit": 2, "every": "P1D"}})).await;
    let (owner, other) = (0, 1);
    let one = cluster.subscribe_at(owner, &plan).await;
    let revoked = cluster.subscribe_at(owner, &plan).await;
    for index in [owner, other] {
        for one in [&one, &revoked] {
            assert_eq!(cluster.via(index).check(&one.key).await["allowed"], true);
        }
    }
    assert_eq!(cluster.via(other).check(&one.key).await["allowed"], false);
    // Nobody hears of it from the node that makes the changes, now or later.
    cluster.wires[CUT].peers.cut();
    let admin = cluster.via(CUT).admin;
    let raised = json!({"name": "p", "quota": {"limit": 5, "every": "P1D"}});
    admin.json(Method::PUT, &format!("/api/v1/plans/{plan}"), &raised).await.expect(200);
    let keys = format!("/api/v1/subscriptions/{}/keys", revoked.id);
    let key = admin.get(&keys).await.expect(200)["data"][0]["id"].clone();
    let key = format!("{keys}/{}", key.as_str().expect("an id"));
    assert_eq!(admin.delete(&key).await.status, 204);
    for index in [owner, other] {
        eventually("a raised limit is followed", RECOVERY_MAX, || async {
            let answer = cluster.via(index).try_check(&one.key, "cost=0").await.json();
            if answer["limit"] == 5 { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
        eventually("a revoked key is refused", RECOVERY_MAX, || async {
            let answer = cluster.via(index).try_check(&revoked.key, "cost=0").await.json();
            if answer["reason"] == "key_revoked" { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
    assert_eq!(cluster.via(other).check(&one.key).await["allowed"], true);
}

#[tokio::test]
async fn a_node_without_peers_keeps_its_shards() {
    let (_server, cluster) = wired().await;
    let mut load = Load::begin(&cluster, metered(&cluster, 100).await);
    load.rounds(3).await;
    load.fault();
    cluster.wires[CUT].peers.cut();
    tokio::time::sleep(2 * LEASE).await;
    cluster.settled().await;
    cluster.wires[CUT].peers.mend();
    load.rounds(2).await;
    // One way only: what it is asked arrives, what it answers does not.
    load.fault();
    cluster.wires[CUT].peers.gates(Gate::Open, Gate::Held);
    tokio::time::sleep(2 * LEASE).await;
    cluster.wires[CUT].peers.mend();
    load.rounds(2).await;
    cluster.settled().await;
    load.end().await.audit("one node cut from its peers", &cluster).await;
}

#[tokio::test]
async fn a_node_without_postgres_and_peers_is_replaced_and_comes_back() {
    // Silent, as a network is that drops everything: no end is told.
    let silent = |wires: &Wires| {
        wires.store.hold();
        wires.peers.hold();
    };
    check_cut("one node cut from both", &[silent]).await;
}

#[tokio::test]
async fn while_postgres_is_away_nobody_is_declared_dead() {
    let (server, mut cluster) = wired().await;
    let metered = metered(&cluster, 100).await;
    let free = metered.iter().find(|one| one.limit.is_none()).expect("some have no limit");
    let free = free.subscription.clone();
    // Holds that return soon: an owner that may have been buried decides by them no longer than half a
    // second.
    let short =
        |policy: &str| json!({"quota": {"limit": 50}, "holdTtl": "4s", "failPolicy": policy});
    let via = cluster.via(0);
    let open = via.subscribe(&via.plan(short("open")).await).await;
    let closed = via.subscribe(&via.plan(short("closed")).await).await;
    for index in 0..3 {
        // So that every node knows their keys.
        for one in [&open, &closed] {
            assert_eq!(cluster.via(index).check(&one.key).await["allowed"], true);
        }
    }
    let load = Load::begin(&cluster, metered);
    load.rounds(3).await;
    for restarted in [false, true] {
        if restarted {
            server.stop(Stop::Immediate).expect("the server can be stopped");
        } else {
            server.pause().expect("the server can be frozen");
        }
        // Every lease would have run out.
        let away = tokio::time::sleep(2 * LEASE);
        let asked = async {
            for index in 0..3 {
                let decision = cluster.via(index).check(&free.key).await;
                assert_eq!(decision["allowed"], true, "{decision}");
                let id = format!("while-away-{restarted}-{index}");
                let one = event_of(&free.key, &id);
                let answer = cluster.via(index).gateway.post("/api/v1/usage/events", &one).await;
                assert_eq!(answer.status, 503, "{}", answer.text());
                assert!(!answer.header("retry-after").is_empty(), "{}", answer.text());
            }
        };
        tokio::join!(away, asked);
        // By now each of them may have been buried, for all it knows.
        let late = cluster.via(0).check(&free.key).await;
        assert_eq!((&late["allowed"], &late["mode"]), (&json!(true), &json!("enforced")), "{late}");
        let late = cluster.via(1).check(&open.key).await;
        assert_eq!((&late["allowed"], &late["mode"]), (&json!(true), &json!("degraded")), "{late}");
        let late = cluster.via(2).try_check(&closed.key, "").await;
        late.expect_problem(503, "store_unavailable");
        if restarted {
            server.restart().await.expect("the server starts again");
        } else {
            server.resume().expect("the server can go on");
        }
        cluster.settled().await;
        load.rounds(2).await;
    }
    for node in &mut cluster.nodes {
        assert!(node.is_running(), "a node ended: {}", node.log());
    }
    let mut history = load.end().await;
    let unbounded = history.subscriptions.iter().filter(|(one, _)| one.limit.is_none());
    let failed: u64 = unbounded.map(|(_, fate)| fate.failed + fate.unsecured).sum();
    // The six events of the story itself: refused, and yet perhaps durable.
    let (_, fate) = history
        .subscriptions
        .iter_mut()
        .find(|(one, _)| one.subscription.id == free.id)
        .expect("it is under load");
    for restarted in [false, true] {
        fate.unknown.extend((0..3).map(|index| format!("while-away-{restarted}-{index}")));
    }
    history.audit("Postgres frozen and restarted", &cluster).await;
    assert_eq!(failed, 0, "checks go on");
}

#[tokio::test]
async fn a_slow_postgres_and_slow_peers_only_take_longer() {
    let (_server, mut cluster) = wired().await;
    let load = Load::begin(&cluster, metered(&cluster, 100).await);
    load.rounds(2).await;
    let slow = Gate::Late(Duration::from_millis(20));
    for wires in &cluster.wires {
        wires.store.gates(slow, Gate::Open);
        wires.peers.gates(slow, Gate::Open);
    }
    load.rounds(3).await;
    cluster.settled().await;
    for wires in &cluster.wires {
        wires.store.mend();
        wires.peers.mend();
    }
    for node in &mut cluster.nodes {
        assert!(node.is_running(), "a node ended: {}", node.log());
    }
    let audit = load.end().await.audit("slow wires", &cluster).await;
    assert_eq!((audit.failed_checks, audit.unknown), (0, 0), "{audit}");
}
