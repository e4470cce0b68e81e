//! Making things durable: events by group commit, counters by checkpoint.
//!
//! ```text
//!   http ── record(rows) ─▶ lane ── gather ─▶ append (fence, dedupe, insert, commit)
//!                                      │            └─▶ apply stage ─▶ actors ─▶ answer
//!   actors ── soon / now ─▶ checkpointer ── take ─▶ checkpoint (fence, upsert) ─▶ confirm ─▶ actors
//! ```
//! Invariants: a row is answered only after its commit (INV-1); rows reach an actor in the order of
//! their `seq`; every queue has a bound (INV-6). Callers: `http` and `router` through [`Recorder`],
//! the actors through [`Checkpointer`]. This room knows actors only by the traits [`Apply`] and
//! [`Dirty`], which the shard room implements.

mod checkpoint;
mod entry;
mod health;
mod lane;

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::meter::Entry;
use weir_core::units::{ShardId, SubscriptionId};

pub use checkpoint::{Checkpointer, CheckpointerParts, Dirty, Take, Taken};
pub use entry::{entry_of, quantities_json};
pub use health::Health;
pub use lane::{Recorder, RecorderLimits};

/// Whoever counts committed rows.
#[async_trait]
pub trait Apply: Send + Sync + 'static {
    /// Counts rows of one subscription, ascending by `seq`. Rows already counted are skipped. An
    /// error means that the subscription could not be loaded; its next activation finds the rows.
    async fn apply(
        &self,
        subscription: SubscriptionId,
        shard: ShardId,
        entries: Vec<Entry>,
    ) -> Result<(), NotApplied>;
}

/// The subscription could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the subscription's actor could not be reached")]
pub struct NotApplied;

/// Shared by every part of this room.
pub type SharedApply = Arc<dyn Apply>;
