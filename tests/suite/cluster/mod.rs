//! Nodes that share a database: any of them answers, none is special, nothing is lost.
//!
//! Stories that break something run a load meanwhile and hold its history against the ledger; each
//! prints its figures. None asserts a time but the one that the design states.

mod answers;
mod billing;
mod crashes;
mod operators;
mod restarts;
mod stores;
mod wires;

use std::time::Duration;

use harness::{Cluster, LEASE, Metered, eventually};
use serde_json::{Value, json};

/// Longest time after a crash until every subscription is decided about: the lease and two seconds, as
/// the design states, and room for a machine that builds and tests other things meanwhile.
const RECOVERY_MAX: Duration = Duration::from_secs((LEASE.as_secs() + 2) * 3);

/// A hard plan whose holds outlast every story, so that what passed and what is left add up, and that
/// lets nothing pass on trust.
fn hard(limit: u64) -> Value {
    let quota = json!({"limit": limit, "anchor": "subscription"});
    json!({"quota": quota, "holdTtl": "1h", "failPolicy": "closed"})
}

/// Subscriptions of a load: some that it exhausts, with events and without, and some without an end.
async fn metered(cluster: &Cluster, limit: u64) -> Vec<Metered> {
    let via = cluster.via(0);
    let bounded = via.plan(hard(limit)).await;
    let free = via.plan(json!({"quota": {"limit": null}})).await;
    let kinds =
        [(&bounded, Some(limit), true), (&bounded, Some(limit), false), (&free, None, true)];
    let mut metered = Vec::new();
    for (plan, limit, reports) in kinds {
        for _ in 0..4 {
            metered.push(Metered { subscription: via.subscribe(plan).await, limit, reports });
        }
    }
    metered
}

/// Waits until a node that is gone owns nothing, and others everything.
async fn taken_over(cluster: &Cluster, gone: usize) {
    let viewer = cluster.running().into_iter().find(|&index| index != gone);
    let viewer = viewer.expect("another node runs");
    eventually("the others take over", RECOVERY_MAX, || async {
        let node = cluster.seen_by(viewer, gone).await;
        let view = cluster.view_of(viewer).await;
        if view["unowned"] == 0 && node["shards"] == 0 { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
}
