//! `weir-sim load`: traffic made from a seed, then the ledger check.
//!
//! ```text
//! reach ─► baseline (/livez) ─► set-up ─► load (+ churn) ─► flush ─► audit ─► report
//! ```
//!
//! [`run`] blocks; it owns a small runtime for administration and one thread per worker.

mod churn;
mod crew;
mod escort;
mod options;
mod outcome;
mod run;
mod scenario;
mod schedule;
mod setup;
mod table;
mod worker;

pub use churn::ChurnCounts;
pub use escort::{Escort, Notes};
pub use options::{Access, CONNECTIONS_MAX, DURATION_MAX, Options, Rate, SUBSCRIPTIONS_MAX};
pub use outcome::{Baseline, Configuration, LoadReport};
pub(crate) use run::{judge_events, runtime};
pub use run::{run, run_escorted};
pub use scenario::Scenario;
