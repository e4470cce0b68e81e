//! Emptying a shard that is to be another's.
//!
//! A frozen shard takes no requests; events on their way are written, every meter leaves with a clean
//! checkpoint, and when nothing of it is in memory the machine is told.

use weir_core::ownership::{Input, Slot};
use weir_core::units::{ShardId, Span};

use super::{Context, Shell};
use crate::model::cast::millis;

/// A shard that is not empty by then is served on.
const FREEZE_MAX: Span = millis(1_000);

impl Shell {
    pub(super) fn freeze(&mut self, cx: &mut Context<'_>, shard: ShardId) {
        self.freezes.insert(shard, cx.now);
        for subscription in self.checkpoints.of_shard(&self.cast, shard) {
            for ask in self.take_waiting(subscription) {
                self.wait(cx, shard, ask);
            }
        }
    }

    /// Whether its meters are to leave.
    pub(super) fn is_frozen(&self, shard: ShardId) -> bool {
        self.freezes.contains_key(&shard) && matches!(self.slot(shard), Some(Slot::Freezing(..)))
    }

    pub(super) fn is_moving(&self, shard: ShardId) -> bool {
        let slot = self.slot(shard).unwrap_or_default();
        matches!(
            slot,
            Slot::Freezing(..) | Slot::Handing(..) | Slot::Asking(..) | Slot::Settling(_)
        )
    }

    /// Looks at every frozen shard after whatever happened.
    pub(super) fn advance_freezes(&mut self, cx: &mut Context<'_>) {
        let frozen: Vec<ShardId> =
            self.freezes.keys().copied().filter(|shard| self.is_frozen(*shard)).collect();
        let (mut flushed, mut late) = (Vec::new(), Vec::new());
        for shard in frozen {
            let residents = self.checkpoints.of_shard(&self.cast, shard);
            let is_empty = residents.is_empty()
                && !self.writes(shard)
                && !self.checkpoints.loads(&self.cast, shard);
            let since = self.freezes.get(&shard).copied().unwrap_or(cx.now);
            if is_empty {
                flushed.push(shard);
            } else if cx.now.since(since) >= FREEZE_MAX {
                late.push(shard);
            } else if !self.writes(shard) {
                self.checkpoints.retire(&residents);
            }
        }
        if !flushed.is_empty() {
            self.step(cx, Input::Flushed(flushed));
        }
        if !late.is_empty() {
            self.step(cx, Input::NotFlushed(late));
        }
        self.checkpoint_now(cx);
    }
}
