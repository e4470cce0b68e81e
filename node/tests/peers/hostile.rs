//! What reaches the port that is no peer.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::node::{Node, PATIENCE, described, pair};

const REFUSED: &str = "weir_peer_refused_total{reason=\"handshake\"}";

#[tokio::test]
async fn a_node_with_another_secret_gets_no_further() {
    let mut stranger = described("b", 2);
    stranger.secret = "another one entirely".to_owned();
    let (mut a, mut b) = tokio::join!(Node::start(described("a", 1)), Node::start(stranger));
    a.name_peers(&[&b]).await;
    b.name_peers(&[&a]).await;
    // The one who was dialled refuses, again and again.
    b.until_metric_above(REFUSED, 2.0).await;
    assert!(a.links().await.iter().chain(&b.links().await).all(|link| !link.connected));
    assert_eq!(a.asks(&Node::ask(b.id(), 3, 1)).await.not_sent, 3);
}

#[tokio::test]
async fn garbage_on_the_port_is_closed_and_harms_no_link() {
    let (mut a, mut b) = pair().await;
    let before = b.metric(REFUSED).await;
    let huge = vec![0xff; 4 << 20];
    // No magic; the carrier's own frame of 16 EiB; a hello cut off by its end; four megabytes.
    let garbage: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 32], b"weirpeer\x01abc", &huge];
    for bytes in garbage {
        let mut stream = TcpStream::connect(&b.address).await.unwrap();
        // The node may close before it took everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(read.is_err() || rest.is_empty(), "the node said {rest:?}");
    }
    b.until_metric_above(REFUSED, before + 3.5).await;
    assert_eq!(a.asks(&Node::ask(b.id(), 10, 10)).await.answered, 10);
}

#[tokio::test]
async fn connections_that_say_nothing_are_limited_and_dropped_in_time() {
    let (mut a, mut b) = pair().await;
    let max = weir_config::limits::PEER_HANDSHAKES_MAX;
    let mut silent = Vec::new();
    for _ in 0..max + 20 {
        silent.push(TcpStream::connect(&b.address).await.unwrap());
    }
    b.until_metric_above("weir_peer_refused_total{reason=\"handshakes_full\"}", 0.0).await;
    assert_eq!(a.asks(&Node::ask(b.id(), 10, 10)).await.answered, 10, "the link goes on");
    for mut stream in silent {
        let end = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    // And there is room again.
    let mut c = Node::start(described("c", 0)).await;
    c.name_peers(&[&b]).await;
    c.until(b.id(), |link| link.connected).await;
}

#[tokio::test]
async fn without_tls_nobody_is_served_beyond_this_machine_unless_it_is_said() {
    let mut open = described("a", 1);
    open.listen = "0.0.0.0:0".to_owned();
    let refused = Node::try_start(open.clone()).await.err().expect("it does not start");
    assert!(refused.contains("no loopback"), "{refused}");
    open.insecure = true;
    let node = Node::start(open).await;
    let port = node.address.rsplit_once(':').unwrap().1;
    let reached = timeout(Duration::from_secs(5), TcpStream::connect(format!("127.0.0.1:{port}")));
    assert!(reached.await.unwrap().is_ok());
}
