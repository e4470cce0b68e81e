//! All nodes of a run, and what they say of themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use serde::Deserialize;
use tokio::runtime::Runtime;

use super::launch::Launch;
use super::node::Node;
use super::options::Options;
use crate::Error;
use crate::client::{Endpoint, Lane, Prepared, bearer, parse_targets};
use crate::clock;
use crate::load::runtime;
use crate::progress::Progress;

/// A node that does not listen by then will not: tables are made and peers are met in seconds.
const START_MAX: Duration = Duration::from_mins(1);
/// Longest wait for all shards at the start, and for the cluster to be whole after a fault.
pub(super) const WHOLE_MAX: Duration = Duration::from_mins(1);
/// A node that ends in order has 25 s by default to give away and to write.
pub(super) const STOP_MAX: Duration = Duration::from_secs(40);
/// A node that is asked how the cluster is answers in milliseconds, or is the one that sleeps.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two looks at the cluster.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// `GET /api/v1/cluster`, as far as it is looked at.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ClusterState {
    nodes: Vec<NodeState>,
    shards: usize,
    unowned: usize,
}

#[derive(Debug, Clone, Deserialize)]
struct NodeState {
    id: String,
    cluster: String,
    status: String,
    shards: usize,
}

impl ClusterState {
    /// Whether the life that had this cluster address owns nothing any more, and nothing is without
    /// a living owner.
    pub(super) fn is_taken_over(&self, former: &str) -> bool {
        self.unowned == 0
            && self.nodes.iter().all(|node| node.cluster != former || node.shards == 0)
    }

    /// Whether each of these (name, cluster address) is up and owns about its share of the shards,
    /// and together all.
    fn is_whole(&self, lives: &[(&str, &str)]) -> bool {
        let owned = lives.iter().map(|(name, cluster)| {
            self.nodes
                .iter()
                .find(|node| node.id == *name && node.cluster == *cluster && node.status == "up")
                .map_or(0, |node| node.shards)
        });
        let owned: Vec<usize> = owned.collect();
        // Moves go on for some seconds after a node came up; the next fault is to meet a node that
        // carries its part. Plans are even within a few per cent, moves under way are not.
        let least = self.shards * 3 / (4 * lives.len().max(1));
        self.unowned == 0
            && owned.iter().all(|&shards| shards >= least)
            && owned.iter().sum::<usize>() == self.shards
    }
}

/// The nodes.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) nodes: Vec<Node>,
    runtime: Runtime,
    authorization: HeaderValue,
}

impl Fleet {
    /// Starts all nodes and waits until they own all shards; none when stopped meanwhile.
    pub(super) fn start(options: &Options, stop: &AtomicBool) -> Result<Option<Self>, Error> {
        options.check()?;
        let launch = Arc::new(Launch::prepare(options)?);
        let places = 0..u16::try_from(options.nodes).unwrap_or(u16::MAX);
        let nodes = places.map(|place| Node::new(place, Arc::clone(&launch))).collect();
        let authorization = bearer(&options.admin_token)?;
        let mut fleet = Self { nodes, runtime: runtime()?, authorization };
        let total = crate::numbers::count(options.nodes) + 1;
        let mut progress = Progress::begin("nodes", total, options.quiet);
        for node in &mut fleet.nodes {
            node.spawn()?;
        }
        let give_up_at = clock::now() + START_MAX;
        let mut listening = 0;
        while listening < options.nodes {
            listening = 0;
            for node in &mut fleet.nodes {
                listening += usize::from(node.is_listening()?);
            }
            progress.at(crate::numbers::count(listening), || format!("{listening} listen"));
            if !pause(give_up_at, stop, "the nodes did not all start to listen")? {
                return Ok(None);
            }
        }
        let give_up_at = clock::now() + WHOLE_MAX;
        while !fleet.is_whole() {
            progress.at(total - 1, || "waiting until every node owns its share".to_owned());
            if !pause(give_up_at, stop, "the nodes did not come to own their shares")? {
                return Ok(None);
            }
        }
        progress.end(&format!("{} nodes up, each owns its share of the shards", options.nodes));
        Ok(Some(fleet))
    }

    /// Where gateways send their requests.
    pub(super) fn targets(&self) -> Result<Arc<[Endpoint]>, Error> {
        let urls = self.nodes.iter().filter_map(|node| node.http);
        parse_targets(&urls.map(|http| format!("http://{http}")).collect::<Vec<_>>())
    }

    /// What the first node that answers says; none when nobody does.
    pub(super) fn state(&self) -> Option<ClusterState> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        let request = Prepared::get(Uri::from_static("/api/v1/cluster"), headers);
        // Only nodes that said that they listen: the address of one that is down may be refused at
        // once, but one that sleeps would cost the whole time-out.
        self.nodes.iter().filter(|node| node.cluster.is_some() && node.pid().is_some()).find_map(
            |node| {
                let endpoint = Endpoint::parse(&format!("http://{}", node.http?)).ok()?;
                let mut lane = Lane::new(Arc::from([endpoint]), 0, ASK_TIMEOUT);
                let answer = self.runtime.block_on(lane.call(&request)).ok()?;
                serde_json::from_slice(&answer.body).ok()
            },
        )
    }

    /// Whether every node is up and owns about its share of the shards, and together all of them.
    pub(super) fn is_whole(&self) -> bool {
        let lives: Vec<(&str, &str)> = self
            .nodes
            .iter()
            .filter(|node| node.pid().is_some())
            .filter_map(|node| Some((node.name.as_str(), node.cluster.as_deref()?)))
            .collect();
        lives.len() == self.nodes.len() && self.state().is_some_and(|state| state.is_whole(&lives))
    }

    /// Ends all nodes in order, one after another; what was not in order.
    pub(super) fn end(mut self, quiet: bool) -> Vec<String> {
        let mut progress = Progress::begin("nodes", crate::numbers::count(self.nodes.len()), quiet);
        let mut problems = Vec::new();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            progress.at(crate::numbers::count(number), || format!("{} ends", node.name));
            problems.extend(end_in_order(node));
        }
        progress.end("all ended");
        problems
    }
}

/// SIGTERM and its outcome: a node gives its shards away, writes, and exits 0.
pub(super) fn end_in_order(node: &mut Node) -> Option<String> {
    // One that is down has nothing to end.
    node.pid()?;
    if let Err(error) = node.signal("TERM") {
        return Some(error.chain());
    }
    match node.wait(STOP_MAX) {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{} was told to end and ended with {status}", node.name)),
        None => {
            node.kill();
            let seconds = STOP_MAX.as_secs();
            Some(format!("{} was told to end, had not after {seconds} s and was killed", node.name))
        }
    }
}

/// Waits a little; false when stopped, an error when it has been long enough.
fn pause(give_up_at: Instant, stop: &AtomicBool, what: &'static str) -> Result<bool, Error> {
    if stop.load(Ordering::Relaxed) {
        return Ok(false);
    }
    if clock::now() >= give_up_at {
        return Err(Error::NotWhole(what));
    }
    std::thread::sleep(LOOK_EVERY);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(nodes: &[(&str, &str, &str, usize)], unowned: usize) -> ClusterState {
        let nodes = nodes.iter().map(|&(id, cluster, status, shards)| NodeState {
            id: id.to_owned(),
            cluster: cluster.to_owned(),
            status: status.to_owned(),
            shards,
        });
        ClusterState { nodes: nodes.collect(), shards: 256, unowned }
    }

    #[test]
    fn a_cluster_is_whole_when_the_present_lives_own_everything() {
        let lives = [("node-1", "a:1"), ("node-2", "a:2")];
        let stories = [
            (state(&[("node-1", "a:1", "up", 130), ("node-2", "a:2", "up", 126)], 0), true),
            (state(&[("node-1", "a:1", "up", 256), ("node-2", "a:2", "up", 0)], 0), false),
            (state(&[("node-1", "a:1", "up", 161), ("node-2", "a:2", "up", 95)], 0), false),
            (state(&[("node-1", "a:1", "up", 130), ("node-2", "a:2", "joining", 126)], 0), false),
            (state(&[("node-1", "a:1", "up", 130), ("node-2", "a:9", "up", 126)], 0), false),
            (state(&[("node-1", "a:1", "up", 130), ("node-2", "a:2", "up", 100)], 26), false),
        ];
        for (story, expected) in stories {
            assert_eq!(story.is_whole(&lives), expected, "{story:?}");
        }
    }

    #[test]
    fn a_former_life_is_taken_over_when_it_owns_nothing() {
        let rows = [("node-1", "a:1", "up", 256), ("node-2", "a:2", "dead", 0)];
        assert!(state(&rows, 0).is_taken_over("a:2"));
        assert!(!state(&rows, 3).is_taken_over("a:2"));
        assert!(!state(&rows, 0).is_taken_over("a:1"));
    }
}
