//! A Weir node.
//!
//! Role: the rooms between the socket and the store. Data flows one way:
//!
//! ```text
//!   http ─▶ router ─▶ shard ─▶ recorder ─▶ store
//!     │        │ ▲      │         ▲
//!     │        │ └───── cluster ──┤ ◀─▶ other nodes
//!     │        └─ catalog ────────┼──▶ store        analytics ─▶ store
//!     └────────── analytics ──────┘                          store ─▶ delivery ─▶ webhooks, mail
//! ```
//! [`app`] alone wires them. What decides and counts is in `weir-core`, what knows SQL in
//! `weir-store`; here live the mailboxes, the group commit and the edges.

pub mod analytics;
pub mod app;
pub mod billing;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod codec;
pub mod delivery;
pub mod dev;
pub mod follow;
pub mod http;
pub mod metrics;
pub mod outcome;
pub mod ownership;
pub mod recorder;
pub mod retention;
pub mod router;
pub mod shard;
