//! Any node bills for all of them, and however many try at once, each charge is written once.

use futures::future::join_all;
use harness::{Cluster, event};
use serde_json::{Value, json};

/// A soft plan of 100 requests a month, two cents each beyond.
fn soft() -> Value {
    let quota = json!({"limit": 100, "every": "P1M", "enforcement": "soft"});
    json!({"quota": quota, "overage": {"model": "per_unit", "unitPrice": "0.02"}})
}

async fn run(cluster: &Cluster, index: usize, job: &str) -> Value {
    let path = format!("/api/v1/jobs/{job}/run");
    cluster.via(index).admin.post(&path, &json!({})).await.expect(200)
}

async fn amounts(cluster: &Cluster, index: usize, subscription: &str) -> Vec<String> {
    let path = format!("/api/v1/charges?subscriptionId={subscription}");
    let page = cluster.via(index).admin.get(&path).await.expect(200);
    let data = page["data"].as_array().expect("a page has data").iter();
    data.map(|charge| charge["amount"].as_str().expect("an amount").to_owned()).collect()
}

#[tokio::test]
async fn three_nodes_that_bill_at_once_charge_once() {
    let cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(soft()).await;
    let mut all = Vec::new();
    for turn in 0..9 {
        let via = cluster.via(turn % 3);
        let subscription = via.subscribe(&plan).await;
        let mut used = event(&subscription.key);
        used["units"] = json!(150);
        via.record(&used).await;
        all.push(subscription);
    }
    let runs = (0..6).map(|turn| run(&cluster, turn % 3, "overage"));
    let reports = join_all(runs).await;
    let written: u64 = reports.iter().filter_map(|report| report["charges"].as_u64()).sum();
    assert_eq!(written, 9, "{reports:?}");
    // More use, told to other nodes; the runs of two kinds at once.
    for (turn, subscription) in all.iter().enumerate() {
        let mut used = event(&subscription.key);
        used["units"] = json!(5);
        cluster.via((turn + 1) % 3).record(&used).await;
    }
    let jobs = ["overage", "rollover", "overage"];
    join_all(jobs.iter().enumerate().map(|(index, job)| run(&cluster, index, job))).await;
    for (turn, subscription) in all.iter().enumerate() {
        assert_eq!(amounts(&cluster, turn % 3, &subscription.id).await, ["0.10", "1.00"]);
    }
}

#[tokio::test]
async fn a_change_told_by_another_node_prices_what_came_before_it_as_before() {
    let mut cluster = Cluster::start(3).await;
    let plan = cluster.via(0).plan(soft()).await;
    let subscription = cluster.subscribe_at(0, &plan).await;
    let mut used = event(&subscription.key);
    used["units"] = json!(150);
    cluster.via(1).record(&used).await;
    harness::eventually("the first checkpoint", std::time::Duration::from_secs(20), || async {
        let rows = cluster.figure(0, "weir_checkpoint_rows_total").await;
        if rows > 0.0 { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;
    let mut dearer = soft();
    dearer["name"] = json!("test");
    dearer["quota"]["limit"] = json!(200);
    dearer["overage"]["unitPrice"] = json!("1");
    let path = format!("/api/v1/plans/{plan}");
    cluster.via(2).admin.json(http::Method::PUT, &path, &dearer).await.expect(200);
    // The owner dies, and whoever takes over knows no more than what is stored.
    cluster.kill9(0);
    super::taken_over(&cluster, 0).await;
    let mut used = event(&subscription.key);
    used["units"] = json!(101);
    cluster.via(1).record(&used).await;
    let report = run(&cluster, 2, "overage").await;
    // Fifty over at the old price; a hundred more were free under the new limit, one was not.
    assert_eq!(report["charged"], json!({"USD": "2.00"}), "{report}");
}
