//! `weir-sim cluster`: nodes of one's own on this machine, and faults among them under load.
//!
//! ```text
//!   fleet (one `weir serve` a node) ──► load (crate::load, all nodes as targets) ──► ledger
//!     ▲                                   │ began, notes, healed
//!     └── injector: schedule ─► kill | stop | pause ─► wait until whole ─► next
//! ```
//!
//! * [`schedule`](Schedule) says from a seed which node meets which fault when; pure;
//! * `node` is one process, `fleet` all of them and what they say of themselves;
//! * `injector` makes the faults and measures how long the cluster needed;
//! * `guard` ends the nodes when this process cannot.
//!
//! One fault at a time: the next one waits until every node is up and owns its share again.

mod fleet;
mod guard;
mod injector;
mod launch;
mod node;
mod options;
mod outcome;
mod run;
mod schedule;

pub mod command;

pub use options::{NODES_MAX, Options};
pub use outcome::{ClusterReport, FaultReport, Figures, KindSummary};
pub use run::{idle, run};
pub use schedule::{Fault, Kind, Restart, Schedule};
