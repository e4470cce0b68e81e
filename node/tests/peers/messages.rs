//! What passes between two nodes that are well.

use super::child::{Command, Heard, How};
use super::node::{Node, described, pair};

#[tokio::test]
async fn requests_are_answered_both_ways() {
    let (mut a, mut b) = pair().await;
    let asked = a.asks(&Node::ask(b.id(), 10, 1)).await;
    assert_eq!((asked.answered, asked.wrong), (10, 0));
    let asked = b.asks(&Node::ask(a.id(), 10, 1)).await;
    assert_eq!((asked.answered, asked.wrong), (10, 0));
}

#[tokio::test]
async fn ten_thousand_requests_at_once_share_frames_and_get_their_own_answers() {
    let (mut a, mut b) = pair().await;
    let before = a.metric("weir_peer_frames_total{direction=\"sent\"}").await;
    // More than the window at once would be refused; all callers together stay within it.
    let (there, back) = (Node::ask(b.id(), 10_000, 4_000), Node::ask(a.id(), 10_000, 4_000));
    let (a_asked, b_asked) = tokio::join!(a.asks(&there), b.asks(&back));
    assert_eq!((a_asked.answered, b_asked.answered), (10_000, 10_000), "{a_asked:?} {b_asked:?}");
    let frames = a.metric("weir_peer_frames_total{direction=\"sent\"}").await - before;
    // It sent 10,000 requests and 10,000 answers.
    assert!(frames < 10_000.0, "{frames} frames for 20,000 messages");
}

#[tokio::test]
async fn bodies_up_to_the_cap_pass_and_larger_ones_are_not_sent() {
    let (mut a, b) = pair().await;
    let max = weir_config::limits::PEER_BODY_BYTES_MAX;
    for (bytes, answered, not_sent) in [(9, 3, 0), (65_536, 3, 0), (max, 3, 0), (max + 1, 0, 3)] {
        let ask = Command::Ask {
            to: b.id(),
            count: 3,
            at_once: 1,
            bytes,
            deadline_ms: 30_000,
            how: How::Echo,
        };
        let asked = a.asks(&ask).await;
        assert_eq!((asked.answered, asked.not_sent), (answered, not_sent), "{bytes}: {asked:?}");
    }
}

#[tokio::test]
async fn large_answers_wait_for_room_and_all_arrive() {
    let (mut a, b) = pair().await;
    // 16 at once of 200 KiB are within the requests' window; their answers go through theirs.
    let ask = Command::Ask {
        to: b.id(),
        count: 200,
        at_once: 16,
        bytes: 200 * 1024,
        deadline_ms: 30_000,
        how: How::Echo,
    };
    let asked = a.asks(&ask).await;
    assert_eq!(asked.answered, 200, "{asked:?}");
}

#[tokio::test]
async fn what_is_told_arrives_once_and_in_order() {
    let (mut a, mut b) = pair().await;
    let mut sent = 0;
    // Far more than the window altogether; what does not fit is refused and tried again.
    for _ in 0..200 {
        let accepted: u64 = a.obey(&Command::Tell { to: b.id(), count: 200, bytes: 64 }).await;
        sent += accepted;
    }
    assert!(sent > 4_096, "the window opens again: {sent}");
    let mut heard = Heard::default();
    while heard.count < sent {
        heard = b.obey(&Command::Heard).await;
    }
    assert_eq!(heard, Heard { count: sent, out_of_order: 0 });
}

#[tokio::test]
async fn a_request_without_an_answer_in_time_is_unknown_and_the_link_goes_on() {
    let (mut a, b) = pair().await;
    let hang = Command::Ask {
        to: b.id(),
        count: 5,
        at_once: 5,
        bytes: 9,
        deadline_ms: 50,
        how: How::Hang,
    };
    let asked = a.asks(&hang).await;
    assert_eq!((asked.unknown, asked.answered), (5, 0), "{asked:?}");
    assert_eq!(a.asks(&Node::ask(b.id(), 5, 5)).await.answered, 5);
}

#[tokio::test]
async fn a_handler_that_panics_or_answers_too_much_is_unknown_at_once() {
    let (mut a, b) = pair().await;
    for how in [How::Panic, How::TooLarge] {
        // The deadline is far beyond what the test waits.
        let ask = Command::Ask {
            to: b.id(),
            count: 5,
            at_once: 5,
            bytes: 9,
            deadline_ms: 3_600_000,
            how,
        };
        assert_eq!(a.asks(&ask).await.unknown, 5, "{how:?}");
    }
    assert_eq!(a.asks(&Node::ask(b.id(), 5, 5)).await.answered, 5);
}

#[tokio::test]
async fn a_full_window_refuses_at_once_and_leaves_the_other_peers_alone() {
    let (mut a, b) = pair().await;
    let mut c = Node::start(described("c", 3)).await;
    a.name_peers(&[&b, &c]).await;
    c.name_peers(&[&a]).await;
    a.until(c.id(), |link| link.connected).await;
    let window = weir_config::limits::PEER_WINDOW_MESSAGES;
    let hang = Command::Ask {
        to: b.id(),
        count: window as u64 + 100,
        at_once: window + 100,
        bytes: 9,
        deadline_ms: 500,
        how: How::Hang,
    };
    let asked = a.asks(&hang).await;
    assert_eq!((asked.unknown, asked.not_sent), (window as u64, 100), "{asked:?}");
    assert_eq!(a.asks(&Node::ask(b.id(), 1, 1)).await.not_sent, 1, "the peer is still at work");
    assert_eq!(a.asks(&Node::ask(c.id(), 5, 5)).await.answered, 5);
    let refused = a.metric("weir_peer_refused_total{reason=\"window_full\"}").await;
    assert!((refused - 101.0).abs() < 0.5, "{refused}");
    // Pings are outside the window, so the link is well.
    let link = a.until(b.id(), |link| link.round_trip_micros.is_some()).await;
    assert!(link.connected && !link.suspect);
}

#[tokio::test]
async fn nobody_is_reached_who_is_not_linked() {
    let mut a = Node::start(described("a", 1)).await;
    let asked = a.asks(&Node::ask(uuid::Uuid::from_u128(9), 3, 1)).await;
    assert_eq!(asked.not_sent, 3);
    let id = a.id();
    assert_eq!(a.asks(&Node::ask(id, 3, 1)).await.not_sent, 3, "nor itself");
    let told: u64 = a.obey(&Command::Tell { to: id, count: 3, bytes: 8 }).await;
    assert_eq!(told, 0);
}
