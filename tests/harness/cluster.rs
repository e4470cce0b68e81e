//! Several real nodes on one database, each to be killed, paused, ended, cut off and started again.
//!
//! One cluster runs at a time in a test process: a dozen nodes on two processors would lose their short
//! leases for want of time, and tell nothing about Weir.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::binary::{Finished, run, weir};
use crate::caller::{Caller, Subscription};
use crate::client::Http;
use crate::eventually;
use crate::node::{Node, NodeOptions};
use crate::postgres::{Postgres, TestDatabase};
use crate::proxy::Proxy;
use crate::world::token;

/// Length of a node's lease.
pub const LEASE: Duration = Duration::from_secs(2);
/// Longest time for a cluster to be even. A loaded machine starts processes slowly.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(40);
/// Few, so that a move of them all is quick, and not a multiple of three.
const SHARDS: usize = 32;
const SECRET: &str = "a-cluster-secret-for-tests-only";

static TURN: Semaphore = Semaphore::const_new(1);

/// Nodes that share a database and a secret.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; the first is `node-1`.
    pub nodes: Vec<Node>,
    /// The wires of each node, when the story asked for some.
    pub wires: Vec<Wires>,
    rotation: Rotation,
    gateway_token: String,
    dashboard_token: String,
    environment: Vec<(String, String)>,
    // Dropped after the nodes: fields are dropped in their order.
    database: TestDatabase,
    _turn: SemaphorePermit<'static>,
}

/// The proxies round a node.
#[derive(Debug)]
pub struct Wires {
    /// Between the node and Postgres.
    pub store: Proxy,
    /// Between the node and those that dial it: the ones that started before it.
    pub peers: Proxy,
}

/// The nodes that a balancer before the cluster sends requests to, asked as a gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rotation(Arc<Mutex<BTreeMap<usize, Http>>>);

impl Cluster {
    /// So many nodes, started at once, when their shards are even.
    pub async fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[]).await
    }

    /// With more variables.
    pub async fn start_with(nodes: usize, environment: &[(&str, &str)]) -> Self {
        Self::start_in(nodes, Postgres::shared().await, environment).await
    }

    /// On a server of the story's own.
    pub async fn start_on(nodes: usize, server: &Postgres) -> Self {
        Self::start_in(nodes, server, &[]).await
    }

    async fn start_in(nodes: usize, server: &Postgres, environment: &[(&str, &str)]) -> Self {
        let turn = TURN.acquire().await.expect("the semaphore is never closed");
        let database = server.fresh_database().await.expect("a database can be made");
        let environment = settings(environment);
        let starting = (0..nodes).map(|index| {
            Node::start(options(&environment, index, database.url.clone(), "127.0.0.1:0"))
        });
        let nodes = join_all(starting).await;
        Self::with(nodes, Vec::new(), environment, database, turn).await
    }

    /// So many nodes on a server of the story's own, one after the other, with proxies on the wires.
    pub async fn start_wired(nodes: usize, server: &Postgres) -> Self {
        let turn = TURN.acquire().await.expect("the semaphore is never closed");
        let database = server.fresh_database().await.expect("a database can be made");
        let environment = settings(&[]);
        let (mut started, mut wires) = (Vec::new(), Vec::new());
        for index in 0..nodes {
            let listen = free_address();
            let store = Proxy::start(database.address()).await;
            let peers = Proxy::start(listen.clone()).await;
            let url = database.url_by(store.address());
            let mut options = options(&environment, index, url, &listen);
            let advertised = peers.address().to_string();
            options.environment.push(("WEIR_CLUSTER_ADVERTISE".to_owned(), advertised));
            started.push(Node::start(options).await);
            wires.push(Wires { store, peers });
        }
        Self::with(started, wires, environment, database, turn).await
    }

    async fn with(
        nodes: Vec<Node>,
        wires: Vec<Wires>,
        environment: Vec<(String, String)>,
        database: TestDatabase,
        turn: SemaphorePermit<'static>,
    ) -> Self {
        let admin = nodes[0].admin();
        let of_scope = |scope: &str| json!({"name": scope, "scope": scope});
        let cluster = Self {
            gateway_token: token(&admin, &of_scope("gateway")).await,
            dashboard_token: token(&admin, &of_scope("dashboard")).await,
            nodes,
            wires,
            rotation: Rotation::default(),
            environment,
            database,
            _turn: turn,
        };
        for index in 0..cluster.nodes.len() {
            cluster.put_in(index);
        }
        cluster.settled().await;
        cluster
    }

    /// A node, asked in the words of a story.
    pub fn via(&self, index: usize) -> Caller {
        let node = &self.nodes[index];
        Caller {
            admin: node.admin(),
            gateway: node.anonymous().with_token(&self.gateway_token),
            dashboard: node.anonymous().with_token(&self.dashboard_token),
        }
    }

    /// Every node that runs.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&index| self.nodes[index].is_started()).collect()
    }

    /// A node in the middle of whatever it does is gone.
    pub fn kill9(&mut self, index: usize) {
        self.nodes[index].kill9();
        self.take_out(index);
    }

    /// A node is asked to end, and has ended. The balancer sends it nothing more once it says that it
    /// leaves.
    pub async fn terminate(&mut self, index: usize) {
        self.nodes[index].signal("TERM");
        let anonymous = self.nodes[index].anonymous();
        let request = || anonymous.request(http::Method::GET, "/readyz");
        while anonymous.try_send(request(), "").await.is_ok_and(|answer| answer.status == 200) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.take_out(index);
        let code = self.nodes[index].wait().await;
        assert_eq!(code, Some(0), "{}", self.nodes[index].log());
    }

    /// A stopped node serves again.
    pub async fn restart(&mut self, index: usize) {
        self.nodes[index].restart().await;
        self.put_in(index);
    }

    /// One more node.
    pub async fn grow(&mut self) {
        let index = self.nodes.len();
        let url = self.database.url.clone();
        let options = options(&self.environment, index, url, "127.0.0.1:0");
        self.nodes.push(Node::start(options).await);
        self.put_in(index);
    }

    /// How one more node would be started.
    pub fn options_of_another(&self, index: usize) -> NodeOptions {
        options(&self.environment, index, self.database.url.clone(), "127.0.0.1:0")
    }

    /// The balancer sends a node nothing any more.
    pub fn take_out(&self, index: usize) {
        self.rotation.lock().remove(&index);
    }

    /// The balancer sends to a node again.
    pub fn put_in(&self, index: usize) {
        self.rotation.lock().insert(index, self.via(index).gateway);
    }

    pub(crate) fn rotation(&self) -> Rotation {
        self.rotation.clone()
    }

    /// `GET /api/v1/cluster`, from a node.
    pub async fn view_of(&self, index: usize) -> Value {
        self.nodes[index].admin().get("/api/v1/cluster").await.expect(200)
    }

    /// The node's part of that, by the view of another.
    pub async fn seen_by(&self, viewer: usize, index: usize) -> Value {
        let view = self.view_of(viewer).await;
        member(&view, index).unwrap_or_else(|| panic!("no {}: {view}", name_of(index)))
    }

    /// Waits until the nodes that run, and no others, own all shards in equal parts.
    pub async fn settled(&self) {
        self.settled_on(&self.running()).await;
    }

    /// Waits until these own all shards in equal parts.
    pub async fn settled_on(&self, owners: &[usize]) {
        let viewer = owners[0];
        eventually("every shard has an owner", SETTLE_TIMEOUT, || async {
            let view = self.view_of(viewer).await;
            let even = |&index: &usize| {
                let shards = member(&view, index).filter(|node| node["status"] == "up");
                let shards = shards.and_then(|node| node["shards"].as_u64()).unwrap_or_default();
                let share = SHARDS as u64 / owners.len() as u64;
                shards == share || shards == share + 1
            };
            let whole = view["unowned"] == 0 && view["shards"] == SHARDS;
            if whole && owners.iter().all(even) { Ok(()) } else { Err(view.to_string()) }
        })
        .await;
    }

    /// The node that owns a subscription.
    pub async fn owner_of(&self, subscription: &Subscription) -> usize {
        let via = self.via(self.running()[0]);
        let path = format!("/api/v1/cluster/route?subscriptionId={}", subscription.id);
        let route = via.gateway.get(&path).await.expect(200);
        let is_owner = |&index: &usize| route["owner"] == name_of(index);
        (0..self.nodes.len()).find(is_owner).unwrap_or_else(|| panic!("no owner: {route}"))
    }

    /// A subscription of this plan that this node owns.
    pub async fn subscribe_at(&self, index: usize, plan: &str) -> Subscription {
        // By chance; a third of them hit, and one in 10^17 sequences of a hundred does not.
        for _ in 0..100 {
            let made = self.via(self.running()[0]).subscribe(plan).await;
            if self.owner_of(&made).await == index {
                return made;
            }
        }
        panic!("{} owns none of a hundred subscriptions", name_of(index));
    }

    /// What they share.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Runs `weir cluster …` on the cluster's database.
    pub async fn command(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(weir());
        command.arg("cluster").args(arguments).env("WEIR_DATABASE_URL", &self.database.url);
        run(command).await
    }

    /// A figure of a node, the sum over its labels.
    pub async fn figure(&self, index: usize, name: &str) -> f64 {
        let text = self.nodes[index].admin().get("/metrics").await.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        values.sum()
    }
}

impl Rotation {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Http>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node whose turn it is.
    pub(crate) fn turn(&self, number: usize) -> Option<Http> {
        let nodes = self.lock();
        nodes.values().nth(number % nodes.len().max(1)).cloned()
    }
}

/// `node-1` is the first.
fn name_of(index: usize) -> String {
    format!("node-{}", index + 1)
}

fn member(view: &Value, index: usize) -> Option<Value> {
    let nodes = view["nodes"].as_array()?;
    nodes.iter().find(|node| node["id"] == name_of(index)).cloned()
}

fn options(
    environment: &[(String, String)],
    index: usize,
    database_url: String,
    listen: &str,
) -> NodeOptions {
    let mut environment = environment.to_vec();
    environment.push(("WEIR_NODE_ID".to_owned(), name_of(index)));
    environment.push(("WEIR_CLUSTER_LISTEN".to_owned(), listen.to_owned()));
    NodeOptions { database_url, environment, arguments: Vec::new() }
}

fn settings(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let (lease, shards) = (format!("{}ms", LEASE.as_millis()), SHARDS.to_string());
    let common = [
        ("WEIR_CLUSTER_SECRET", SECRET),
        ("WEIR_CLUSTER__LEASE", &lease),
        ("WEIR_CLUSTER__LEASE_RENEW", "250ms"),
        ("WEIR_CLUSTER__SHARD_COUNT", &shards),
        ("WEIR_STORE__QUERY_TIMEOUT", "1500ms"),
        ("WEIR_STORE__POOL_SIZE", "8"),
    ];
    let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    common.iter().chain(more).map(pair).collect()
}

fn free_address() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").to_string()
}
