//! Whether the store answers, as the writers see it.
//!
//! Role: lets a check that would wait for the store know at once that waiting is in vain, and
//! `/readyz` say so. Set by whoever talks to the store, read on the hot path.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use weir_core::units::{Micros, Span};

/// A write that has been under way for longer than this counts as an outage for checks: two orders
/// of magnitude above a healthy commit, well below a gateway's time-out.
const SLOW: Span = Span::from_micros(250_000);
const IDLE: i64 = i64::MIN;

/// Shared by the writers and the actors.
#[derive(Debug)]
pub struct Health {
    up: AtomicBool,
    writing_since: AtomicI64,
}

impl Default for Health {
    fn default() -> Self {
        Self { up: AtomicBool::new(true), writing_since: AtomicI64::new(IDLE) }
    }
}

impl Health {
    /// Whether the last call succeeded.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint asked for now can be expected soon.
    pub fn is_prompt(&self, now: Micros) -> bool {
        let since = self.writing_since.load(Ordering::Relaxed);
        self.is_up() && (since == IDLE || now.since(Micros::from_micros(since)) < SLOW)
    }

    /// A call succeeded or failed for want of a store.
    pub fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!("the store answers again");
            } else {
                tracing::warn!("the store is away: checks go on from memory, events are refused");
            }
        }
    }

    /// A checkpoint begins.
    pub fn begin_write(&self, now: Micros) {
        self.writing_since.store(now.get(), Ordering::Relaxed);
    }

    /// It ended, one way or the other.
    pub fn end_write(&self) {
        self.writing_since.store(IDLE, Ordering::Relaxed);
    }
}
