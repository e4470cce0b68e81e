//! Upkeep: room for what comes, and an end for what is no longer needed.
//!
//! Role: makes day partitions ahead and forgets event identities and reservations that are older than
//! the accept window. Safe to run at any time and on several nodes at once. Callers: `app` (hourly),
//! `http` (by hand).

use std::sync::Arc;
use std::time::Duration;

use weir_config::limits;
use weir_core::units::{Micros, Span};
use weir_store::{Result, Store};

/// Days of partitions made ahead: a node that cannot reach its upkeep for a week still writes.
const PARTITION_DAYS_AHEAD: u16 = 7;

/// Upkeep of the store.
#[derive(Clone, Debug)]
pub struct Upkeep {
    store: Arc<dyn Store>,
    remembered: Span,
}

impl Upkeep {
    /// For a store whose events may be as old as the accept window.
    pub fn new(store: Arc<dyn Store>, accept_window: Duration) -> Self {
        Self { store, remembered: Span::from(accept_window + 2 * limits::FUTURE_SKEW) }
    }

    /// Runs once; returns how many identities were forgotten.
    pub async fn run(&self, now: Micros) -> Result<u64> {
        self.store.maintain(now, PARTITION_DAYS_AHEAD, now.minus(self.remembered)).await
    }
}
