//! `weir-sim replay`: a real access log through check and usage event, then file against Weir.
//!
//! ```text
//! scan the file ─► a subscription per client ─► each line: check ─► event ─► audit ─► compare
//! ```

mod clients;
mod compare;
mod lines;
mod options;
mod run;
mod scan;
mod send;
mod sums;

pub use compare::Row;
pub use options::{ExpectedTotal, Options, Speed};
pub use run::{Configuration, ReplayReport, run};
pub use scan::FileSums;
pub use sums::{ClientSums, Sums};
