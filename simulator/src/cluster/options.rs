//! What a run with nodes of its own is asked to do, and what does not fit together.

use std::path::PathBuf;
use std::time::Duration;

use super::schedule::Kind;
use crate::Error;

/// Nodes at most: each is a process with some fifty connections to Postgres, which has a hundred or
/// two.
pub const NODES_MAX: usize = 10;
/// Shortest lease that a node accepts.
const LEASE_MIN: Duration = Duration::from_millis(500);
/// Longest lease: every fail-over waits for it.
const LEASE_MAX: Duration = Duration::from_mins(1);
/// Shortest interval of faults: below it nothing but starting nodes would happen.
const FAULT_EVERY_MIN: Duration = Duration::from_millis(500);

/// The nodes and the faults among them.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// The Postgres they share.
    pub database_url: String,
    /// The `weir` program.
    pub weir: PathBuf,
    /// Token of the administrator, for the nodes and for us.
    pub admin_token: String,
    /// Port of the first node, the others follow; none: free ones.
    pub http_port: Option<u16>,
    /// Whether nodes seed the demo plan, keys and tokens.
    pub dev: bool,
    /// How long a node's lease lasts.
    pub lease: Duration,
    /// Which faults come how often.
    pub intervals: Vec<(Kind, Duration)>,
    /// What faults are drawn from.
    pub seed: u64,
    /// No progress on stderr.
    pub quiet: bool,
}

impl Options {
    /// Says what does not fit together.
    pub fn check(&self) -> Result<(), Error> {
        if self.nodes == 0 || self.nodes > NODES_MAX {
            return Err(Error::usage(format!("--nodes must be between 1 and {NODES_MAX}")));
        }
        let too_high = |first: u16| usize::from(first) + self.nodes > usize::from(u16::MAX);
        if self.http_port.is_some_and(|first| first == 0 || too_high(first)) {
            return Err(Error::usage("--http-port leaves no room for a port a node"));
        }
        let is_postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| self.database_url.starts_with(scheme));
        if !is_postgres {
            return Err(Error::usage("--database-url must begin with postgres://: nodes share it"));
        }
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) {
            return Err(Error::usage("--lease must be between 500ms and 1m"));
        }
        if self.intervals.iter().any(|(_, every)| *every < FAULT_EVERY_MIN) {
            return Err(Error::usage("faults must be at least 500ms apart"));
        }
        if !self.intervals.is_empty() && self.nodes == 1 {
            return Err(Error::usage("faults need --nodes 2 or more: somebody must take over"));
        }
        if !self.weir.is_file() {
            let path = self.weir.display();
            return Err(Error::usage(format!(
                "there is no {path}: name the `weir` program with --weir (cargo build -p weir-node)"
            )));
        }
        Ok(())
    }

    /// How long a paused node sleeps: past its lease, and past a renewal that was under way.
    pub(super) fn pause(&self) -> Duration {
        self.lease + self.lease / 2
    }
}
