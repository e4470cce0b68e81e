//! What operators do to a cluster, and what strangers try.

use std::time::Duration;

use harness::{Cluster, Load, Node, raw_exchange};
use serde_json::json;

use super::metered;

#[tokio::test]
async fn an_operator_drains_a_node_and_sees_it() {
    let cluster = Cluster::start(3).await;
    let load = Load::begin(&cluster, metered(&cluster, 60).await);
    let status = cluster.command(&["status"]).await.expect(0);
    for node in ["node-1", "node-2", "node-3"] {
        let line = status.lines().find(|line| line.starts_with(node));
        assert!(line.is_some_and(|line| line.contains(" up ")), "{status}");
    }
    assert!(status.contains("32 shards, 0 without a living owner"), "{status}");
    let told = cluster.command(&["drain", "node-2"]).await.expect(0);
    assert_eq!(told, "node-2 owns no shards and can be stopped\n");
    cluster.settled_on(&[0, 2]).await;
    let drained = cluster.seen_by(0, 1).await;
    assert_eq!((&drained["status"], &drained["shards"]), (&json!("draining"), &json!(0)));
    // It still answers for the others.
    load.rounds(3).await;
    let nobody = cluster.command(&["drain", "node-9"]).await;
    assert_eq!(nobody.code, Some(1), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("no node named `node-9` is alive"), "{}", nobody.stderr);
    let audit = load.end().await.audit("weir cluster drain", &cluster).await;
    assert_eq!((audit.failed_checks, audit.unknown, audit.withheld), (0, 0, 0), "{audit}");
}

#[tokio::test]
async fn garbage_on_the_peers_port_harms_nobody() {
    let cluster = Cluster::start(3).await;
    let load = Load::begin(&cluster, metered(&cluster, 60).await);
    let patience = Duration::from_millis(500);
    for node in &cluster.nodes {
        let word =
            node.first_line().split_whitespace().find_map(|word| word.strip_prefix("cluster="));
        let address = word.expect("it says where").parse().expect("an address");
        let (zeroes, flood) = (vec![0; 4096], vec![0xff; 20_000]);
        let hello = [b"weirpeer\x01".as_slice(), &[0xff; 4096]].concat();
        let http = b"GET / HTTP/1.1\r\nhost: weir\r\n\r\n";
        for garbage in [&zeroes[..], &hello, http, b"", &flood] {
            raw_exchange(address, &[garbage], patience).await;
        }
    }
    load.rounds(3).await;
    cluster.settled().await;
    let audit = load.end().await.audit("garbage on the peers' port", &cluster).await;
    assert_eq!((audit.failed_checks, audit.unknown, audit.withheld), (0, 0, 0), "{audit}");
}

#[tokio::test]
async fn a_node_with_another_secret_is_refused_and_harms_nobody() {
    let cluster = Cluster::start(3).await;
    let metered = metered(&cluster, 60).await;
    let load = Load::begin(&cluster, metered);
    load.rounds(2).await;
    let mut options = cluster.options_of_another(3);
    options.environment.push(("WEIR_CLUSTER_SECRET".to_owned(), "quite-another-secret".to_owned()));
    let (code, log) = Node::try_start(options).await.expect_err("it is not one of them");
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("another `cluster_secret`"), "{log}");
    for index in 0..3 {
        assert_eq!(cluster.figure(index, "weir_peer_links").await.to_string(), "2", "{index}");
    }
    cluster.settled_on(&[0, 1, 2]).await;
    load.rounds(2).await;
    let audit = load.end().await.audit("a node with another secret", &cluster).await;
    assert_eq!((audit.failed_checks, audit.unknown, audit.withheld), (0, 0, 0), "{audit}");
}
