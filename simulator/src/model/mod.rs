//! A cluster that exists only in memory: the pure machines under everything that can go wrong.
//!
//! Role: `weir-sim model`. Nodes drive the real [`weir_core::ownership::Node`] and real meters through
//! a thin shell; network, processes, clocks and the database are simulated. A run is a function of its
//! seed: the same seed gives the same run on every machine, so a red seed is a bug that can be read
//! ([`run_traced`]), mended and kept. Safety is checked all through, under faults; then the faults
//! stop and the cluster has a stated time to answer everywhere again.
//!
//! ```text
//!   seeds ─▶ world ─┬─ agenda (what is next)      ┌─ faults (what breaks)
//!                   ├─ network ─ process ─ node ──┤
//!                   ├─ gateway (who asks)         └─ store (the SQL, as a model)
//!                   └─ auditor (the invariants)
//! ```
//! An oracle that cannot turn red proves nothing: a [`Break`] takes one defence away, and a test
//! asserts that each is noticed.

mod agenda;
mod audit;
mod cast;
pub mod command;
mod events;
mod faults;
mod gateway;
mod message;
mod network;
mod node;
mod process;
mod proposal;
mod seeds;
mod store;
mod world;

use std::io::Write;

use weir_core::units::Span;

pub use audit::{Figures, Promise, Violation};
pub use seeds::{Batch, run_many};

/// A defence that is taken away, as a drill: the oracles must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Break {
    /// The store accepts writes of whoever held the shard once.
    Fence,
    /// After an unknown hand-over the owner goes on without raising its epoch.
    SelfBump,
    /// A successor does not withhold what its predecessor may have let through.
    Escrow,
    /// An event is recorded as often as it is sent.
    Dedupe,
    /// A node decides however long ago its lease ran out; only runs of some ten thousand steps last
    /// long enough for it to matter.
    Zombie,
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What everything is drawn from.
    pub seed: u64,
    /// Events after which the faults stop.
    pub steps: u64,
    /// The defence that is missing.
    pub breaks: Option<Break>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Events that happened, those of the recovery included.
    pub steps: u64,
    /// Simulated time.
    pub lasted: Span,
    /// What happened.
    pub figures: Figures,
    /// The first promise that was broken; with it the run ends.
    pub violation: Option<Violation>,
}

/// Plays one run.
pub fn run(options: Options) -> Report {
    world::World::new(options, None).run()
}

/// Plays one run and writes a line for whatever happens in it. Errors of the writer are ignored.
pub fn run_traced(options: Options, trace: &mut dyn Write) -> Report {
    world::World::new(options, Some(trace)).run()
}
