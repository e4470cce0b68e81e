//! The load simulator of Weir: it plays a gateway (check, then usage event) against a running
//! cluster and then audits the ledger it left behind.
//!
//! Rooms, in the order the data flows:
//!
//! ```text
//! cli ─► load ───┐                      ┌─► ledger ─► report (table, JSON, HTML)
//!        replay ─┴─► client ─► outbox ──┘
//! ```
//!
//! * [`load`] makes traffic from a seed; [`replay`] takes it from an access log ([`log_format`]);
//! * [`client`] is the lean HTTP/1.1 connection, [`api`] the admin and read calls over it;
//! * [`outbox`] sends usage events as a gateway does: batched, retried with the same ids;
//! * [`cluster`] starts nodes of its own, makes faults among them and runs [`load`] meanwhile;
//! * [`model`] stands apart: a whole cluster in memory, from a seed, judged by the invariants;
//! * [`ledger`] asks Weir what it recorded and charged and compares it, one subscription at a time.
//!
//! Every run ends with a verdict; a run that could not be judged is an [`Error`].

pub mod api;
mod check;
pub mod cli;
pub mod client;
mod clock;
pub mod cluster;
mod error;
pub mod ledger;
pub mod load;
pub mod log_format;
pub mod measure;
pub mod model;
mod numbers;
pub mod outbox;
pub mod progress;
pub mod replay;
pub mod report;
mod signals;
mod usage_event;

pub use error::Error;
