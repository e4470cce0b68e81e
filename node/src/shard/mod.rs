//! Subscriptions in memory: one actor each, supervised by one actor a shard.
//!
//! ```text
//!   router ─▶ Shards ── resident? ── yes ─▶ handle ─┬─ check ──────▶ meter, under the lock
//!                           │                        └─ the rest ─▶ subscription actor ─▶ the same
//!                           └── no ─▶ shard actor ─▶ spawn ─▶ loader (batched) ─▶ store
//! ```
//! Invariants: at most one actor a subscription; a mailbox never holds more than its admission limit
//! (INV-6); an actor that dies is loaded anew and no other notices (INV-7). Callers: `router`, and the
//! recorder through the traits it defines. Actors are anonymous and their messages stay on this node.

mod handle;
mod loader;
mod message;
mod registry;
mod subscription;
mod supervisor;
mod sweeper;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use handle::SubscriptionHandle;
pub use loader::{LoadError, Restored, restore};
pub use message::UsageView;
pub use registry::{ActivateError, Shards};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::ownership::Ownership;
use crate::recorder::{Checkpointer, Health};

/// What every actor works with: one for all of them.
pub struct Deps {
    /// Time.
    pub clock: Arc<Clock>,
    /// Terms.
    pub catalog: Arc<Catalog>,
    /// Where state is persisted.
    pub checkpointer: Arc<Checkpointer>,
    /// Shards held.
    pub ownership: Arc<Ownership>,
    /// Whether the store answers.
    pub health: Arc<Health>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Sizes and times.
    pub limits: ActorLimits,
}

/// Sizes and times of this room.
#[derive(Clone, Copy, Debug)]
pub struct ActorLimits {
    /// Requests that may wait in one mailbox, and checks that may wait for one commit.
    pub mailbox_messages_max: u32,
    /// How long a check may wait for escrow, and a reservation for its commit.
    pub commit_wait: Duration,
    /// The same while the store is at work.
    pub commit_wait_max: Duration,
    /// Idle time after which an actor rests.
    pub passivate_after: Duration,
    /// Actors that may be in memory.
    pub resident_max: usize,
}
