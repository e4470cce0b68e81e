//! The facts every node of a Weir cluster must agree on.
//!
//! Role: what a node is told ([`config`]), what no node may exceed ([`limits`]), where a
//! subscription lives ([`shard`]) and which node should own it ([`placement`]). Pure but for one
//! function, [`read_text`], which reads one bounded file; no socket, no clock, no task. Everything
//! above may use it; it uses nothing of ours.
//!
//! ```text
//!   defaults < config file < environment < flags        layers.rs   text with its origin
//!                        │
//!                        ▼
//!                    reader.rs                           each setting read once, all faults kept
//!                        │
//!                        ▼
//!                    Config                              typed, cross-checked, never re-read
//! ```

pub mod config;
pub mod limits;
pub mod placement;
pub mod shard;

mod checks;
mod delivery;
mod error;
mod layers;
mod reader;
mod secret;
mod sections;
mod show;
mod value;

pub use config::{Config, Overrides, Sources, read_text};
pub use delivery::{Delivery, Networks, SigningKey, Smtp, SmtpTls};
pub use error::{ConfigError, Origin, Problem};
pub use secret::Secret;
pub use sections::{Actors, Billing, Checkpoint, Cluster, Ingest, Recorder, Server, Store};
pub use shard::shard_of;
pub use value::{DatabaseUrl, HostPort, LogFormat, NodeId};
