//! A node under test: starts this program again, speaks to it by lines, and ends it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;
use uuid::Uuid;

use super::child::{Asked, Command, Described, How, IS_NODE, Linked, MARK};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A node in a process of its own; it ends with the test.
pub(crate) struct Node {
    pub(crate) described: Described,
    pub(crate) address: String,
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

/// A node with this name and number: loopback, plaintext, the secret of every test.
pub(crate) fn described(node_id: &str, number: u128) -> Described {
    Described {
        node_id: node_id.to_owned(),
        incarnation: Uuid::from_u128(number),
        listen: "127.0.0.1:0".to_owned(),
        secret: "a secret of twenty-two".to_owned(),
        tls: None,
        insecure: false,
    }
}

impl Node {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(described: Described) -> Self {
        Self::try_start(described).await.expect("the node starts")
    }

    /// As [`Self::start`], with the node's own error.
    pub(crate) async fn try_start(described: Described) -> Result<Self, String> {
        let mut process = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["node::a_node_ends_with_its_input", "--exact", "--nocapture"])
            .env(IS_NODE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut node = Self { described, address: String::new(), process, input, output };
        let line = serde_json::to_string(&node.described).unwrap();
        node.write(&line).await;
        let started: Result<String, String> = node.read().await;
        node.address = started?;
        Ok(node)
    }

    pub(crate) fn id(&self) -> Uuid {
        self.described.incarnation
    }

    async fn write(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Tells it something, without waiting for its answer.
    pub(crate) async fn command(&mut self, command: &Command) {
        self.write(&serde_json::to_string(command).unwrap()).await;
    }

    /// Its next answer.
    pub(crate) async fn read<T: DeserializeOwned>(&mut self) -> T {
        let reading = async {
            loop {
                let line = self.output.next_line().await.unwrap().expect("the node lives");
                if let Some(answer) = line.strip_prefix(MARK) {
                    return serde_json::from_str(answer).unwrap();
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the node answers")
    }

    pub(crate) async fn obey<T: DeserializeOwned>(&mut self, command: &Command) -> T {
        self.command(command).await;
        self.read().await
    }

    /// Who it should be linked to, where they are.
    pub(crate) async fn name_peers(&mut self, peers: &[&Node]) {
        let peer = |node: &&Node| (node.id(), node.described.node_id.clone(), node.address.clone());
        let () = self.obey(&Command::Peers(peers.iter().map(peer).collect())).await;
    }

    pub(crate) async fn links(&mut self) -> Vec<Linked> {
        self.obey(&Command::Links).await
    }

    /// Waits until its link to `peer` is as wanted, and returns it.
    pub(crate) async fn until(&mut self, peer: Uuid, wanted: fn(&Linked) -> bool) -> Linked {
        let started = Instant::now();
        loop {
            let links = self.links().await;
            if let Some(link) = links.iter().find(|link| link.peer == peer && wanted(link)) {
                return *link;
            }
            assert!(started.elapsed() < PATIENCE, "the links are {links:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// So many small requests to `to`.
    pub(crate) fn ask(to: Uuid, count: u64, at_once: usize) -> Command {
        Command::Ask { to, count, at_once, bytes: 64, deadline_ms: 30_000, how: How::Echo }
    }

    pub(crate) async fn asks(&mut self, command: &Command) -> Asked {
        self.obey(command).await
    }

    pub(crate) async fn metric(&mut self, line: &str) -> f64 {
        self.obey(&Command::Metric(format!("{line} "))).await
    }

    /// Waits until a line of its metrics is above `value`.
    pub(crate) async fn until_metric_above(&mut self, line: &str, value: f64) {
        let started = Instant::now();
        while self.metric(line).await <= value {
            assert!(started.elapsed() < PATIENCE, "{line} stays at {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends it a signal by name: `KILL`, `STOP`, `CONT`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.process.id().expect("it runs").to_string();
        let sent = tokio::process::Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Lets it end by itself: its input is closed.
    pub(crate) async fn end(mut self) -> std::process::ExitStatus {
        drop(self.input.take());
        timeout(PATIENCE, self.process.wait()).await.expect("it ends").unwrap()
    }
}

/// Two nodes that are linked; the second has the larger number, so the first dials.
pub(crate) async fn pair() -> (Node, Node) {
    link(described("a", 1), described("b", 2)).await
}

/// Starts two nodes and waits until they are linked.
pub(crate) async fn link(a: Described, b: Described) -> (Node, Node) {
    let (mut a, mut b) = tokio::join!(Node::start(a), Node::start(b));
    a.name_peers(&[&b]).await;
    b.name_peers(&[&a]).await;
    a.until(b.id(), |link| link.connected).await;
    b.until(a.id(), |link| link.connected).await;
    (a, b)
}

/// Every other test starts this one as its nodes.
#[tokio::test]
async fn a_node_ends_with_its_input() {
    if std::env::var_os(IS_NODE).is_some() {
        return tokio::task::spawn_blocking(|| {
            std::thread::spawn(crate::child::play).join().unwrap();
        })
        .await
        .unwrap();
    }
    let (a, b) = pair().await;
    assert!(a.end().await.success());
    assert!(b.end().await.success());
}
