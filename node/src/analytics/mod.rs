//! Sums over time: what was used, how fast it was answered, from where, by endpoint and by bucket.
//!
//! ```text
//!   ledger ── roll (every few seconds) ─▶ minutes ─┐
//!      └───── rows not rolled up yet ──────────────┴─▶ read ─▶ stats, trends
//! ```
//! [`roll`] sums ledger rows up into one row a minute and endpoint; a cursor per shard says how far,
//! and moves in the transaction that writes the sums, so a crash at any point loses and doubles
//! nothing. [`read`] takes whole minutes from those sums and the rest from the ledger itself, so an
//! answer is exact at any moment, however far behind the roller is.
//!
//! The road not taken: actors that keep open buckets and flush them with their checkpoints. It would
//! put a sketch per endpoint into every resident subscription, and a late or re-counted event would
//! have to find its closed bucket again; here the ledger is the only source.
//!
//! What a row counts as is written once, in [`tally`]. Callers: `app` starts the roller, `http` reads.

mod buckets;
mod deltas;
mod endpoints;
mod read;
mod roll;
mod sketch;
mod tally;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_store::Store;

use crate::clock::Clock;
use crate::ownership::Ownership;

pub use buckets::{Buckets, TooManyBuckets};
pub use deltas::minute_of;
pub use read::{Endpoint, Stats, StatsFilter};
pub use roll::{Roller, Round};
pub use sketch::Latency;
pub use tally::{Measure, Tally};

/// Path and method under which endpoints beyond a limit are summed up.
pub const OTHER: &str = "*";

/// Reads of usage. Cheap to clone.
#[derive(Clone)]
pub struct Analytics {
    store: Arc<dyn Store>,
    ownership: Arc<Ownership>,
    clock: Arc<Clock>,
}

impl std::fmt::Debug for Analytics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Analytics").field("store", &self.store.engine()).finish_non_exhaustive()
    }
}

impl Analytics {
    /// Starts rolling up the shards that are owned here, until `stop` is cancelled, and reads from this
    /// store; the reads work on after that.
    pub fn start(
        store: Arc<dyn Store>,
        ownership: Arc<Ownership>,
        clock: Arc<Clock>,
        stop: CancellationToken,
    ) -> Self {
        // Nobody waits for its end: whatever it leaves undone is done after the next start.
        drop(Roller::new(Arc::clone(&store), Arc::clone(&ownership)).start(stop));
        Self { store, ownership, clock }
    }

    /// Ledger positions that are counted and not rolled up yet; a figure for operators. Reads stay
    /// exact whatever it is, but cost more the larger it is.
    pub fn rows_behind(&self) -> u64 {
        roll::rows_behind(&self.ownership)
    }
}

#[cfg(test)]
mod tests;
