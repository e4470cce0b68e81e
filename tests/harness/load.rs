//! A closed loop of checks and events against a cluster, as gateways behind a balancer make it.
//!
//! Every round of a worker checks each subscription once and then sends one event for each check that
//! passed, all in one batch. An id is made before the first try and kept for every other. What nobody
//! answered is unknown, and the audit reckons with either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::audit::History;
use crate::caller::Subscription;
use crate::client::{Answer, Http};
use crate::cluster::{Cluster, Rotation};
use crate::{event_of, eventually};

/// Enough that a node always has several requests at once.
const WORKERS: usize = 4;
/// After a round; with it two processors are not the limit.
const ROUND_PAUSE: Duration = Duration::from_millis(20);
/// Before the next try of a batch.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Times that a batch is sent; what is not answered then stays unknown.
const BATCH_TRIES: usize = 40;
/// A gateway's patience: longer than a node's own for a peer.
const REQUEST_PATIENCE: Duration = Duration::from_secs(4);
/// No story goes on for longer.
const LOAD_MAX: Duration = Duration::from_mins(3);
/// Failures that are told, the first.
pub(crate) const FAILURES_TOLD: usize = 3;

/// A subscription under load.
#[derive(Clone, Debug)]
pub struct Metered {
    /// Which.
    pub subscription: Subscription,
    /// Most units of its hard plan; `None` when nothing bounds it.
    pub limit: Option<u64>,
    /// Whether events follow its checks. Without them every check that passed stays a hold, which only
    /// the owner's memory and its escrow know of.
    pub reports: bool,
}

/// What happened to one subscription.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// When the load began and ended.
    pub time: Option<(Instant, Instant)>,
    /// When something was broken.
    pub faults: Vec<Instant>,
    /// Checks that passed.
    pub allowed: u64,
    /// Checks that were refused by a decision.
    pub refused: u64,
    /// Checks without a decision: they may have held a unit.
    pub failed: u64,
    /// Checks that a closed plan refused because its escrow was not extended in time: Postgres is away,
    /// or the machine too busy for a commit within a third of a second. Not counted as failed.
    pub unsecured: u64,
    /// Ids of events that were answered 200.
    pub acknowledged: BTreeSet<String>,
    /// Ids that were sent and never answered so.
    pub unknown: BTreeSet<String>,
    /// When decisions came.
    pub decided_at: Vec<Instant>,
    /// How long each of them took.
    pub took: Vec<Duration>,
}

impl Fate {
    pub(crate) fn merge(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.refused += other.refused;
        self.failed += other.failed;
        self.unsecured += other.unsecured;
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.decided_at.extend(other.decided_at);
        self.took.extend(other.took);
    }
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    metered: Arc<Vec<Metered>>,
    begun: Instant,
    faults: Vec<Instant>,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    workers: Vec<JoinHandle<(Vec<Fate>, Vec<String>)>>,
}

struct Worker {
    number: usize,
    rotation: Rotation,
    metered: Arc<Vec<Metered>>,
    turns: usize,
    fates: Vec<Fate>,
    failures: Vec<String>,
}

enum Checked {
    Allowed,
    Refused,
    Unsecured,
    Failed(String),
}

impl Load {
    /// Begins; runs until [`Load::end`].
    pub fn begin(cluster: &Cluster, metered: Vec<Metered>) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let metered = Arc::new(metered);
        let workers = (0..WORKERS).map(|number| {
            let mut worker = Worker {
                number,
                rotation: cluster.rotation(),
                metered: metered.clone(),
                turns: number,
                fates: vec![Fate::default(); metered.len()],
                failures: Vec::new(),
            };
            let (stop, rounds) = (stop.clone(), rounds.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                while !stop.load(Ordering::Relaxed) && begun.elapsed() < LOAD_MAX {
                    let number = rounds.fetch_add(1, Ordering::Relaxed);
                    worker.round(number).await;
                    tokio::time::sleep(ROUND_PAUSE).await;
                }
                (worker.fates, worker.failures)
            })
        });
        let workers = workers.collect();
        Self { metered, begun: Instant::now(), faults: Vec::new(), stop, rounds, workers }
    }

    /// Something was broken now.
    pub fn fault(&mut self) {
        self.faults.push(Instant::now());
    }

    /// Waits until every worker has had its turn so many times more.
    pub async fn rounds(&self, more: u64) {
        let until = self.rounds.load(Ordering::Relaxed) + more * WORKERS as u64;
        eventually("the load goes on", LOAD_MAX, || async {
            let now = self.rounds.load(Ordering::Relaxed);
            if now >= until { Ok(()) } else { Err(format!("{now} of {until} rounds")) }
        })
        .await;
    }

    /// Ends it when every request is answered or given up.
    pub async fn end(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let mut fates = vec![Fate::default(); self.metered.len()];
        let mut failures = Vec::new();
        for worker in self.workers {
            let (of_worker, told) = worker.await.expect("a worker does not panic");
            fates.iter_mut().zip(of_worker).for_each(|(fate, more)| fate.merge(more));
            failures.extend(told);
        }
        failures.truncate(FAILURES_TOLD);
        for fate in &mut fates {
            fate.time = Some((self.begun, Instant::now()));
            fate.faults.clone_from(&self.faults);
        }
        let metered = self.metered.iter().cloned();
        History { subscriptions: metered.zip(fates).collect(), failures }
    }
}

impl Worker {
    async fn round(&mut self, round: u64) {
        let metered = self.metered.clone();
        let mut batch = BTreeMap::new();
        for (place, one) in metered.iter().enumerate() {
            let asked_at = Instant::now();
            let checked = self.check(&one.subscription.key).await;
            let fate = &mut self.fates[place];
            match checked {
                Checked::Failed(why) => {
                    fate.failed += 1;
                    self.failed(why);
                    continue;
                }
                Checked::Unsecured => {
                    fate.unsecured += 1;
                    continue;
                }
                Checked::Allowed => {
                    fate.allowed += 1;
                    if one.reports {
                        batch.insert(format!("{}-{round}-{place}", self.number), place);
                    }
                }
                Checked::Refused => fate.refused += 1,
            }
            fate.decided_at.push(Instant::now());
            fate.took.push(asked_at.elapsed());
        }
        if !batch.is_empty() {
            self.record(&batch).await;
        }
    }

    async fn check(&mut self, key: &str) -> Checked {
        let asked = self.ask(|node| {
            let request = node.request(Method::GET, "/api/v1/quota/check");
            (request.header("x-subscription-key", key), String::new())
        });
        match asked.await {
            Ok(answer) if answer.status == 200 => {
                if answer.json()["allowed"] == true {
                    Checked::Allowed
                } else {
                    Checked::Refused
                }
            }
            Ok(answer) if answer.status == 503 && answer.json()["code"] == "store_unavailable" => {
                Checked::Unsecured
            }
            Ok(answer) => Checked::Failed(format!("{} {}", answer.status, answer.text())),
            Err(error) => Checked::Failed(format!("{error:#}")),
        }
    }

    /// Sends a batch until it is taken, each time to the next node.
    async fn record(&mut self, batch: &BTreeMap<String, usize>) {
        let event =
            |(id, &place): (&String, &usize)| event_of(&self.metered[place].subscription.key, id);
        let body = json!(batch.iter().map(event).collect::<Vec<Value>>()).to_string();
        let mut taken = false;
        for _ in 0..BATCH_TRIES {
            let asked = self.ask(|node| {
                let request = node.request(Method::POST, "/api/v1/usage/events");
                (request.header("content-type", "application/json"), body.clone())
            });
            if let Ok(answer) = asked.await
                && answer.status == 200
            {
                let rejected = answer.json()["rejected"].clone();
                assert_eq!(rejected, json!([]), "{}", answer.text());
                taken = true;
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        for (id, &place) in batch {
            let fate = &mut self.fates[place];
            let ids = if taken { &mut fate.acknowledged } else { &mut fate.unknown };
            ids.insert(id.clone());
        }
    }

    /// Asks the node whose turn it is, or the next one when it takes no connection.
    async fn ask(
        &mut self,
        request: impl Fn(&Http) -> (http::request::Builder, String),
    ) -> Result<Answer> {
        let mut refused = None;
        for _ in 0..3 {
            self.turns += 1;
            let Some(node) = self.rotation.turn(self.turns) else { break };
            let (head, body) = request(&node);
            let answer = tokio::time::timeout(REQUEST_PATIENCE, node.try_send(head, body)).await;
            match answer? {
                // Nothing was sent: any balancer goes on to the next.
                Err(error) if is_connect(&error) => refused = Some(error),
                answer => return answer,
            }
        }
        Err(refused.unwrap_or_else(|| anyhow::anyhow!("no node is in rotation")))
    }

    fn failed(&mut self, why: String) {
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(why);
        }
    }
}

fn is_connect(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<hyper_util::client::legacy::Error>();
    error.is_some_and(hyper_util::client::legacy::Error::is_connect)
}
