//! Which node meets which fault when: drawn from a seed, the same on every machine.
//!
//! The times are the earliest ones. A fault whose predecessor has not healed yet waits for that, so
//! the order of faults depends on the seed and the intervals alone.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// The schedule's stream of the seed, apart from those of the load.
const STREAM: u64 = u64::MAX - 1;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `kill -9`: nothing is written or told.
    Kill,
    /// SIGTERM: it gives its shards away and ends.
    Stop,
    /// SIGSTOP for longer than its lease, then SIGCONT: it wakes up as a zombie and must end.
    Pause,
}

/// When a killed node is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Restart {
    /// As a supervisor does, while its old lease still runs.
    AtOnce,
    /// As after the loss of a machine: the others have its shards by then.
    AfterTakeover,
}

/// One fault to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Not before this, from the load's start.
    pub due: Duration,
    /// What happens.
    pub kind: Kind,
    /// To which node, counted from 0.
    pub node: usize,
    /// When the node comes back; only a killed one may come back before the others noticed.
    pub restart: Restart,
}

/// All faults to come, without end; none when no interval is given.
#[derive(Debug, Clone)]
pub struct Schedule {
    random: ChaCha8Rng,
    nodes: usize,
    rounds: Vec<Round>,
}

#[derive(Debug, Clone)]
struct Round {
    kind: Kind,
    every: Duration,
    next: Duration,
}

impl Schedule {
    /// A schedule for `nodes` nodes; each kind comes once in its interval.
    pub fn new(seed: u64, nodes: usize, intervals: &[(Kind, Duration)]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(STREAM);
        let round = |&(kind, every): &(Kind, Duration)| Round { kind, every, next: every };
        Self { random, nodes, rounds: intervals.iter().map(round).collect() }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let round = self.rounds.iter_mut().min_by_key(|round| (round.next, round.kind))?;
        let due = round.next;
        round.next = due + round.every;
        let kind = round.kind;
        // Both are drawn for every kind, so that adding an interval does not shift the others' draws
        // by more than the faults it adds.
        let node = self.random.random_range(0..self.nodes.max(1));
        let is_at_once = self.random.random_bool(0.5);
        let restart = match kind {
            Kind::Kill if !is_at_once => Restart::AfterTakeover,
            _ => Restart::AtOnce,
        };
        Some(Fault { due, kind, node, restart })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn first(seed: u64, intervals: &[(Kind, Duration)]) -> Vec<Fault> {
        Schedule::new(seed, 3, intervals).take(60).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let intervals = [(Kind::Kill, 5 * SECOND), (Kind::Pause, 7 * SECOND)];
        assert_eq!(first(7, &intervals), first(7, &intervals));
        assert_ne!(first(7, &intervals), first(8, &intervals));
    }

    #[test]
    fn each_kind_keeps_its_own_interval_and_ties_have_an_order() {
        let intervals = [(Kind::Stop, 4 * SECOND), (Kind::Kill, 2 * SECOND)];
        let told: Vec<_> = first(1, &intervals)
            .iter()
            .map(|fault| (fault.due.as_secs(), fault.kind))
            .take(6)
            .collect();
        let expected =
            [(2, Kind::Kill), (4, Kind::Kill), (4, Kind::Stop), (6, Kind::Kill), (8, Kind::Kill)];
        assert_eq!(told[..5], expected);
        assert_eq!(told[5], (8, Kind::Stop));
    }

    #[test]
    fn every_node_is_met_and_a_killed_one_comes_back_either_way() {
        let faults = first(3, &[(Kind::Kill, SECOND)]);
        for node in 0..3 {
            assert!(faults.iter().any(|fault| fault.node == node), "node {node}");
        }
        for restart in [Restart::AtOnce, Restart::AfterTakeover] {
            assert!(faults.iter().any(|fault| fault.restart == restart), "{restart:?}");
        }
        let paused = first(3, &[(Kind::Pause, SECOND)]);
        assert!(paused.iter().all(|fault| fault.restart == Restart::AtOnce));
    }

    #[test]
    fn without_an_interval_nothing_happens() {
        assert_eq!(Schedule::new(1, 3, &[]).next(), None);
    }
}
