//! Mutual TLS with an authority made here.

use super::authority::Authority;
use super::child::Described;
use super::node::{Node, described, link};

const REFUSED: &str = "weir_peer_refused_total{reason=\"handshake\"}";

#[tokio::test]
async fn nodes_are_linked_by_certificates_for_their_names_or_their_host() {
    let authority = Authority::new();
    for (a_name, b_name) in [("a", "b"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "b")] {
        let a = authority.node(described("a", 1), &authority, a_name);
        let b = authority.node(described("b", 2), &authority, b_name);
        let (mut a, mut b) = link(a, b).await;
        assert_eq!(a.asks(&Node::ask(b.id(), 1_000, 256)).await.answered, 1_000);
        assert_eq!(b.asks(&Node::ask(a.id(), 1_000, 256)).await.answered, 1_000);
    }
}

/// Two nodes that must not be linked; one of them refuses, as `refuses` says.
async fn check_refused(a: Described, b: Described) {
    let (mut a, mut b) = tokio::join!(Node::start(a), Node::start(b));
    a.name_peers(&[&b]).await;
    b.name_peers(&[&a]).await;
    // Whichever end refuses, the one who was dialled sees its handshakes fail.
    b.until_metric_above(REFUSED, 2.0).await;
    assert!(a.links().await.iter().chain(&b.links().await).all(|link| !link.connected));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_whoever_dials() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for numbers in [[1, 2], [2, 1]] {
        let [a, b] = numbers;
        let good = ours.node(described("a", a), &ours, "a");
        // It trusts our authority, and has a certificate of its own.
        let bad = ours.node(described("b", b), &theirs, "b");
        if a < b { check_refused(good, bad).await } else { check_refused(bad, good).await }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_whoever_dials() {
    let authority = Authority::new();
    for numbers in [[1, 2], [2, 1]] {
        let [a, b] = numbers;
        let good = authority.node(described("a", a), &authority, "a");
        let bad = authority.node(described("b", b), &authority, "c");
        if a < b { check_refused(good, bad).await } else { check_refused(bad, good).await }
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_refused_by_one_with_it() {
    let authority = Authority::new();
    let with = authority.node(described("b", 2), &authority, "b");
    check_refused(described("a", 1), with).await;
}
