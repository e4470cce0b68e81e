//! Requests between two nodes of one machine, each a process: how many a second, and how long.
//!
//! `cargo bench -p weir-node --bench peers` prints one line for each number of requests in flight:
//! 64 bytes there and back, plaintext and TLS, and what two linked nodes cost that do nothing. It
//! asserts no time.

#![allow(clippy::unwrap_used, reason = "a figure that cannot be taken is no figure")]
#![allow(dead_code, reason = "tests and bench share the nodes, and each uses a part of them")]

#[path = "../tests/peers/authority.rs"]
mod authority;
#[path = "../tests/peers/child.rs"]
mod child;
#[path = "../tests/peers/node.rs"]
mod node;

use authority::Authority;
use child::Command;
use node::{Node, described, link};

fn main() {
    if std::env::var_os(child::IS_NODE).is_some() {
        return child::play();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        say("| link | in flight | requests/s | p50 | p99 | server CPU a request | messages a frame |");
        say("|---|---|---|---|---|---|---|");
        measure("plaintext", link(described("a", 1), described("b", 2)).await).await;
        let authority = Authority::new();
        let secure = |name: &str, number| {
            authority.node(described(name, number), &authority, name)
        };
        measure("TLS", link(secure("a", 1), secure("b", 2)).await).await;
        idle(link(described("a", 1), described("b", 2)).await).await;
    });
}

async fn measure(what: &str, (mut a, mut b): (Node, Node)) {
    for (in_flight, count) in [(1, 20_000), (64, 300_000), (256, 600_000), (1_024, 600_000)] {
        // Once to warm up.
        a.asks(&Node::ask(b.id(), count / 10, in_flight)).await;
        let frames = "weir_peer_frames_total{direction=\"received\"}";
        let before = b.metric(frames).await;
        let ticks: u64 = b.obey(&Command::Ticks).await;
        let asked = a.asks(&Node::ask(b.id(), count, in_flight)).await;
        let ticks = b.obey::<u64>(&Command::Ticks).await - ticks;
        let frames = b.metric(frames).await - before;
        assert_eq!(asked.answered, count, "{asked:?}");
        #[allow(clippy::cast_precision_loss, reason = "figures for people")]
        let [count, micros, ticks] = [count, asked.micros, ticks].map(|number| number as f64);
        say(&format!(
            "| {what} | {in_flight} | {:.0} | {} µs | {} µs | {:.1} µs | {:.1} |",
            count * 1e6 / micros,
            asked.p50_micros,
            asked.p99_micros,
            // A tick is 10 ms.
            ticks * 1e4 / count,
            count / frames,
        ));
    }
}

async fn idle((mut a, b): (Node, Node)) {
    let before: u64 = a.obey(&Command::Ticks).await;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let ticks = a.obey::<u64>(&Command::Ticks).await - before;
    drop(b);
    say(&format!("One linked peer and nothing to do: {ticks} ticks of 10 ms in 10 s."));
}

fn say(line: &str) {
    println!("{line}");
}
