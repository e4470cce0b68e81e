//! Peers that die, stop, come back or are put out.

use super::child::Command;
use super::node::{Node, described, link, pair};

#[tokio::test]
async fn requests_to_a_peer_that_is_killed_are_unknown_at_once_and_then_not_sent() {
    let (mut a, b) = pair().await;
    let hang = Command::Ask {
        to: b.id(),
        count: 100,
        at_once: 100,
        bytes: 9,
        // Beyond what the test waits: only the link's end can answer these.
        deadline_ms: 3_600_000,
        how: super::child::How::Hang,
    };
    let mut c = Node::start(described("c", 3)).await;
    a.name_peers(&[&b, &c]).await;
    c.name_peers(&[&a]).await;
    a.until(c.id(), |link| link.connected).await;
    a.command(&hang).await;
    // They are with the peer when it has received as many messages.
    let mut b = b;
    b.until_metric_above("weir_peer_messages_total{direction=\"received\"}", 99.0).await;
    b.signal("KILL").await;
    let asked: super::child::Asked = a.read().await;
    assert_eq!((asked.unknown, asked.not_sent), (100, 0), "{asked:?}");
    a.until(b.id(), |link| !link.connected).await;
    assert_eq!(a.asks(&Node::ask(b.id(), 10, 1)).await.not_sent, 10);
    assert_eq!(a.asks(&Node::ask(c.id(), 10, 1)).await.answered, 10, "others are left alone");
}

#[tokio::test]
async fn a_peer_that_is_started_anew_is_linked_by_its_new_boot() {
    // The one that comes back dials the first time, and is dialled the second, and the third.
    let (mut a, b) = link(described("a", 5), described("b", 2)).await;
    b.signal("KILL").await;
    drop(b);
    for boot in [7, 8, 3, 9] {
        let mut b = Node::start(described("b", boot)).await;
        a.name_peers(&[&b]).await;
        b.name_peers(&[&a]).await;
        a.until(b.id(), |link| link.connected).await;
        b.until(a.id(), |link| link.connected).await;
        assert_eq!(a.asks(&Node::ask(b.id(), 10, 10)).await.answered, 10);
        assert_eq!(a.links().await.len(), 1, "the boot before is forgotten");
        b.signal("KILL").await;
    }
}

#[tokio::test]
async fn a_peer_that_stops_is_suspected_then_cut_and_costs_no_memory_and_comes_back() {
    let (mut a, mut b) = pair().await;
    let before: u64 = a.obey(&Command::Memory).await;
    b.signal("STOP").await;
    let mut accepted = 0;
    let bytes = 4_096;
    // About 400 MiB, of which the window takes 4.
    for _ in 0..100 {
        let sent: u64 = a.obey(&Command::Tell { to: b.id(), count: 1_000, bytes }).await;
        accepted += sent;
    }
    assert!(accepted <= (weir_config::limits::PEER_WINDOW_BYTES / bytes) as u64, "{accepted}");
    let link = a.until(b.id(), |link| link.suspect).await;
    assert!(link.connected);
    a.until(b.id(), |link| !link.connected).await;
    assert_eq!(a.asks(&Node::ask(b.id(), 10, 1)).await.not_sent, 10);
    let after: u64 = a.obey(&Command::Memory).await;
    assert!(after < before + 64 * 1024, "{before} KiB grew to {after} KiB");
    b.signal("CONT").await;
    a.until(b.id(), |link| link.connected).await;
    b.until(a.id(), |link| link.connected).await;
    assert_eq!(a.asks(&Node::ask(b.id(), 10, 10)).await.answered, 10);
    assert_eq!(b.asks(&Node::ask(a.id(), 10, 10)).await.answered, 10);
}

#[tokio::test]
async fn a_dialler_that_stops_finds_its_way_back_too() {
    let (mut a, mut b) = pair().await;
    a.signal("STOP").await;
    b.until(a.id(), |link| !link.connected).await;
    a.signal("CONT").await;
    b.until(a.id(), |link| link.connected).await;
    a.until(b.id(), |link| link.connected).await;
    assert_eq!(b.asks(&Node::ask(a.id(), 10, 10)).await.answered, 10);
}

#[tokio::test]
async fn whoever_is_put_out_is_cut_and_not_let_in_again_until_named() {
    let (mut a, mut b) = pair().await;
    b.name_peers(&[]).await;
    a.until(b.id(), |link| !link.connected).await;
    // The first keeps dialling, and is refused each time.
    let refused = "weir_peer_refused_total{reason=\"handshake\"}";
    b.until_metric_above(refused, 2.0).await;
    assert_eq!(b.links().await, []);
    b.name_peers(&[&a]).await;
    a.until(b.id(), |link| link.connected).await;
    assert_eq!(a.asks(&Node::ask(b.id(), 10, 10)).await.answered, 10);
}

#[tokio::test]
async fn a_peer_that_names_us_first_is_let_in() {
    let (mut a, mut b) =
        tokio::join!(Node::start(described("a", 1)), Node::start(described("b", 2)));
    a.name_peers(&[&b]).await;
    a.until(b.id(), |link| link.connected).await;
    b.until(a.id(), |link| link.connected).await;
    assert_eq!(b.asks(&Node::ask(a.id(), 10, 10)).await.answered, 10);
}
