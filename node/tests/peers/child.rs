//! The other side of the wire: a process with one transport that does what its input says.
//!
//! The carrier's registries belong to the process, so every node of a test is a process of its own:
//! this test program again, told by an environment variable what to be. The first line of its input
//! is the node as JSON, every further line a command, and each is answered by one line.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weir_config::Secret;
use weir_node::cluster::transport::{
    self, PeerAddress, PeerError, PeerHandler, PeerTransport, TlsOptions, TransportOptions,
};
use weir_node::metrics::Metrics;

/// Set when this process is a node.
pub(crate) const IS_NODE: &str = "WEIR_PEER_TEST_NODE";

/// A node as a test describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Described {
    pub(crate) node_id: String,
    pub(crate) incarnation: Uuid,
    pub(crate) listen: String,
    pub(crate) secret: String,
    pub(crate) tls: Option<[String; 3]>,
    pub(crate) insecure: bool,
}

/// A peer as a test describes it: boot, name, address.
pub(crate) type DescribedPeer = (Uuid, String, String);

/// What a node is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Who should be linked.
    Peers(Vec<DescribedPeer>),
    /// So many requests, so many of them at once.
    Ask { to: Uuid, count: u64, at_once: usize, bytes: usize, deadline_ms: u64, how: How },
    /// So many messages without an answer.
    Tell { to: Uuid, count: u64, bytes: usize },
    /// What was told so far.
    Heard,
    /// Links as they stand.
    Links,
    /// Resident memory in KiB.
    Memory,
    /// Processor time of this process so far, in clock ticks.
    Ticks,
    /// The value of one line of the metrics.
    Metric(String),
}

/// How the handler treats a request: the first byte of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// It comes back.
    Echo,
    /// It never does.
    Hang,
    /// The handler panics.
    Panic,
    /// The answer is larger than may be.
    TooLarge,
}

const HOWS: [How; 4] = [How::Echo, How::Hang, How::Panic, How::TooLarge];

/// What came of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Answered, with the body that was sent.
    pub(crate) answered: u64,
    /// Answered with something else.
    pub(crate) wrong: u64,
    pub(crate) not_sent: u64,
    pub(crate) unknown: u64,
    pub(crate) micros: u64,
    pub(crate) p50_micros: u64,
    pub(crate) p99_micros: u64,
}

/// What was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) count: u64,
    /// Of those, how many did not follow the one before.
    pub(crate) out_of_order: u64,
}

/// A link as a test sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Linked {
    pub(crate) peer: Uuid,
    pub(crate) connected: bool,
    pub(crate) suspect: bool,
    pub(crate) round_trip_micros: Option<u64>,
}

#[derive(Default)]
struct Handler {
    heard: Mutex<HashMap<Uuid, (u64, Heard)>>,
}

#[async_trait]
impl PeerHandler for Handler {
    async fn handle(&self, _: Uuid, body: Vec<u8>) -> Vec<u8> {
        match HOWS[usize::from(body[0])] {
            How::Echo => body,
            How::Hang => std::future::pending().await,
            How::Panic => panic!("as the test wants it"),
            How::TooLarge => vec![0; weir_config::limits::PEER_BODY_BYTES_MAX + 1],
        }
    }

    async fn told(&self, from: Uuid, body: Vec<u8>) {
        let number = u64::from_le_bytes(body[..8].try_into().unwrap());
        // Later messages would overtake this one if the transport let them.
        tokio::task::yield_now().await;
        let mut heard = self.heard.lock().unwrap();
        let (next, heard) = heard.entry(from).or_default();
        heard.count += 1;
        heard.out_of_order += u64::from(number != *next);
        *next = number + 1;
    }
}

struct Child {
    transport: Arc<dyn PeerTransport>,
    handler: Arc<Handler>,
    metrics: Arc<Metrics>,
    told: AtomicU64,
}

/// Is a node until its input ends.
pub(crate) fn play() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    let described = lines.next().expect("the node's description");
    match runtime.block_on(start(serde_json::from_str(&described).unwrap())) {
        Ok((child, bound)) => {
            reply(&Ok::<_, String>(bound));
            for line in lines {
                runtime.block_on(child.obey(serde_json::from_str(&line).unwrap()));
            }
        }
        Err(error) => reply(&Err::<String, _>(error)),
    }
}

async fn start(described: Described) -> Result<(Child, String), String> {
    let metrics = Arc::new(Metrics::new());
    let handler = Arc::new(Handler::default());
    let tls = described.tls.map(|[authority, certificate, key]| TlsOptions {
        authority_pem: authority.into(),
        certificate_pem: certificate.into(),
        key_pem: key.into(),
    });
    let options = TransportOptions {
        node_id: described.node_id,
        incarnation: described.incarnation,
        listen: described.listen.parse().unwrap(),
        secret: Secret::new(described.secret).unwrap(),
        tls,
        insecure_plaintext: described.insecure,
        metrics: Arc::clone(&metrics),
    };
    let started = transport::start(options, Arc::clone(&handler) as _).await;
    let (transport, bound) = started.map_err(|error| error.to_string())?;
    Ok((Child { transport, handler, metrics, told: AtomicU64::new(0) }, bound.to_string()))
}

/// Answers are marked, since the test program prints lines of its own.
pub(crate) const MARK: &str = "@@";

fn reply<T: Serialize>(answer: &T) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{}", serde_json::to_string(answer).unwrap()).unwrap();
    out.flush().unwrap();
}

impl Child {
    async fn obey(&self, command: Command) {
        match command {
            Command::Peers(peers) => {
                let address =
                    |(incarnation, node_id, cluster)| PeerAddress { node_id, incarnation, cluster };
                self.transport.set_peers(peers.into_iter().map(address).collect());
                reply(&());
            }
            Command::Ask { to, count, at_once, bytes, deadline_ms, how } => {
                let deadline = Duration::from_millis(deadline_ms);
                reply(&self.ask(to, count, at_once, bytes, deadline, how).await);
            }
            Command::Tell { to, count, bytes } => {
                let tell = |_| {
                    let mut body = vec![0; bytes.max(8)];
                    body[..8].copy_from_slice(&self.told.load(Ordering::Relaxed).to_le_bytes());
                    let sent = self.transport.tell(to, body);
                    self.told.fetch_add(u64::from(sent), Ordering::Relaxed);
                    sent
                };
                reply(&(0..count).map(tell).filter(|&sent| sent).count());
            }
            Command::Heard => {
                let heard = self.handler.heard.lock().unwrap();
                reply(&heard.values().map(|(_, heard)| *heard).next().unwrap_or_default());
            }
            Command::Links => {
                let links = self.transport.links();
                let linked = links.iter().map(|link| Linked {
                    peer: link.incarnation,
                    connected: link.connected,
                    suspect: link.suspect,
                    round_trip_micros: link.round_trip.map(micros),
                });
                reply(&linked.collect::<Vec<_>>());
            }
            Command::Memory => {
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
                reply(&line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
            }
            Command::Ticks => {
                let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
                let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
                reply(&fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>());
            }
            Command::Metric(name) => {
                let text = self.metrics.render(&[]);
                let value = text.lines().find_map(|line| line.strip_prefix(&name));
                reply(&value.map_or(0.0, |value| value.trim().parse::<f64>().unwrap()));
            }
        }
    }

    async fn ask(
        &self,
        to: Uuid,
        count: u64,
        at_once: usize,
        bytes: usize,
        deadline: Duration,
        how: How,
    ) -> Asked {
        let kind = u8::try_from(HOWS.iter().position(|&one| one == how).unwrap()).unwrap();
        let started = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let asking = (0..at_once).map(|_| {
            let (transport, next) = (Arc::clone(&self.transport), Arc::clone(&next));
            tokio::spawn(async move {
                let mut results = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return results;
                    }
                    let mut body = vec![0; bytes.max(9)];
                    body[0] = kind;
                    body[1..9].copy_from_slice(&number.to_le_bytes());
                    let asked = Instant::now();
                    let outcome = transport.request(to, body.clone(), deadline).await;
                    results.push((outcome.map(|answer| answer == body), asked.elapsed()));
                }
            })
        });
        let asking: futures::stream::FuturesUnordered<_> = asking.collect();
        let results: Vec<_> = asking.map(Result::unwrap).collect::<Vec<_>>().await.concat();
        let number = |which| results.iter().filter(|(outcome, _)| *outcome == which).count() as u64;
        let mut took: Vec<_> = results.iter().map(|(_, took)| micros(*took)).collect();
        took.sort_unstable();
        let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
        Asked {
            answered: number(Ok(true)),
            wrong: number(Ok(false)),
            not_sent: number(Err(PeerError::NotSent)),
            unknown: number(Err(PeerError::Unknown)),
            micros: micros(started.elapsed()),
            p50_micros: at(50),
            p99_micros: at(99),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
