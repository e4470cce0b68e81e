//! The roller: moves the analytics of this node's shards up to the end of their ledgers.
//!
//! ```text
//!   shards behind ─▶ read rows ─▶ steps ─▶ roll (fence, move cursors, add sums; one transaction each)
//!        ▲                                   │ ok: remember the cursor
//!        └── re-read the cursors ◀───────────┘ conflict: someone else, or our lost answer, was there
//! ```
//! What if it is killed: a step is either committed with its cursor or not at all. What if an answer is
//! lost: the step is tried again and finds its cursor moved. What if two rollers run: one of them finds
//! its cursors moved. What if it is not run at all: reads take more from the ledger and stay exact.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_core::units::{Seq, ShardId};
use weir_store::{Error, Store};

use super::deltas::{Behind, Step, steps};
use super::endpoints::SeenEndpoints;
use super::tally::merge_details;
use crate::metrics::chain;
use crate::ownership::Ownership;

/// Pause when there was nothing more to do. Longer: reads take more rows from the ledger. Shorter: the
/// same minute is rewritten more often (twelve times as it is).
const INTERVAL: Duration = Duration::from_secs(5);
/// Pause after a round that left rows behind: other tasks, and the store's other writers, go first.
const PAUSE_WHEN_BEHIND: Duration = Duration::from_millis(5);
/// First pause after a failure; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause after failures: how long the backlog grows after the store came back.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Rows read in one round. More: memory (about 600 bytes each). Fewer: round trips.
const ROUND_ROWS_MAX: u32 = 10_000;
/// Rollups of one transaction. More: it holds the store's writer (SQLite has one) or the cursors that
/// checkpoints move as well (Postgres) longer than a waiting check should notice. Fewer: the cost of
/// fence and commit is paid more often.
const STEP_ROLLUPS_MAX: usize = 1_000;

/// Sizes of a round.
#[derive(Clone, Copy, Debug)]
struct RoundLimits {
    rows_max: u32,
    step_rollups_max: usize,
}

/// Rolls the ledger up into minutes.
pub struct Roller {
    store: Arc<dyn Store>,
    ownership: Arc<Ownership>,
    seen: SeenEndpoints,
    limits: RoundLimits,
    /// Where the next round begins, so that a shard with a long backlog does not keep others waiting.
    next: ShardId,
}

impl std::fmt::Debug for Roller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roller").field("next", &self.next).finish_non_exhaustive()
    }
}

/// How a round left things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Everything that was there when it began is rolled up.
    CaughtUp,
    /// There is more.
    Behind,
}

/// Ledger positions that actors have counted and analytics have not.
pub(super) fn rows_behind(ownership: &Ownership) -> u64 {
    behind(ownership).map(|shard| shard.applied.0.saturating_sub(shard.rolled.0)).sum()
}

fn behind(ownership: &Ownership) -> impl Iterator<Item = Behind> + '_ {
    ownership
        .shards()
        .filter(|&shard| ownership.may_load(shard))
        .map(|shard| Behind {
            shard,
            rolled: ownership.rolled(shard),
            applied: ownership.applied(shard),
        })
        .filter(|shard| shard.applied > shard.rolled)
}

impl Roller {
    /// A roller of the shards that are owned here.
    pub fn new(store: Arc<dyn Store>, ownership: Arc<Ownership>) -> Self {
        Self {
            store,
            ownership,
            seen: SeenEndpoints::default(),
            limits: RoundLimits { rows_max: ROUND_ROWS_MAX, step_rollups_max: STEP_ROLLUPS_MAX },
            next: ShardId(0),
        }
    }

    /// One with small pages, so that a story need not have ten thousand rows.
    #[cfg(test)]
    pub(super) fn with_limits(
        store: Arc<dyn Store>,
        ownership: Arc<Ownership>,
        rows_max: u32,
        step_rollups_max: usize,
    ) -> Self {
        let limits = RoundLimits { rows_max, step_rollups_max };
        Self { limits, ..Self::new(store, ownership) }
    }

    /// Runs until `stop` is cancelled. A round that has begun is ended; what is left is for the next
    /// start.
    pub fn start(self, stop: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(self.run(stop))
    }

    async fn run(mut self, stop: CancellationToken) {
        let mut pause = INTERVAL;
        let mut retry_pause = RETRY_PAUSE_MIN;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match self.round().await {
                Ok(round) => {
                    pause = if round == Round::Behind { PAUSE_WHEN_BEHIND } else { INTERVAL };
                    retry_pause = RETRY_PAUSE_MIN;
                }
                Err(error) => {
                    report(&error);
                    pause = retry_pause;
                    retry_pause = (retry_pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        }
    }

    /// Rolls up what a page of the ledger holds.
    pub async fn round(&mut self) -> Result<Round, Error> {
        let (turn, others_wait) = self.turn();
        if turn.is_empty() {
            return Ok(Round::CaughtUp);
        }
        let positions: Vec<(ShardId, Seq)> =
            turn.iter().map(|shard| (shard.shard, shard.rolled)).collect();
        let rows = self.store.ledger_after(&positions, self.limits.rows_max).await?;
        let rows_limit = usize::try_from(self.limits.rows_max).unwrap_or(usize::MAX);
        let RoundLimits { step_rollups_max, .. } = self.limits;
        for step in steps(&rows, &turn, rows_limit, step_rollups_max, &mut self.seen) {
            match self.commit(&step).await {
                Ok(()) => {}
                Err(Error::Conflict { .. }) => {
                    self.reread_cursors().await?;
                    return Ok(Round::Behind);
                }
                Err(error) => return Err(error),
            }
        }
        let more = others_wait || rows.len() >= rows_limit;
        Ok(if more { Round::Behind } else { Round::CaughtUp })
    }

    /// The shards of this round: from where the last one ended, as many as fill a page. Also whether
    /// others wait.
    fn turn(&mut self) -> (Vec<Behind>, bool) {
        let waiting: BTreeMap<ShardId, Behind> =
            behind(&self.ownership).map(|shard| (shard.shard, shard)).collect();
        if waiting.range(self.next..).next().is_none() {
            self.next = ShardId(0);
        }
        let mut room = u64::from(self.limits.rows_max);
        let mut turn = Vec::new();
        for (_, shard) in waiting.range(self.next..) {
            if room == 0 {
                break;
            }
            room = room.saturating_sub(shard.applied.0 - shard.rolled.0);
            turn.push(*shard);
        }
        let last = turn.last().map_or(0, |shard: &Behind| shard.shard.0);
        self.next = ShardId(last.saturating_add(1));
        let others_wait = turn.len() < waiting.len();
        (turn, others_wait)
    }

    async fn commit(&self, step: &Step) -> Result<(), Error> {
        let fence = self.ownership.fence(step.cursors.iter().map(|cursor| cursor.shard));
        self.store.roll(&fence, &step.cursors, &step.deltas, &merge_details).await?;
        for cursor in &step.cursors {
            self.ownership.advance_rolled(cursor.shard, cursor.to);
        }
        Ok(())
    }

    async fn reread_cursors(&self) -> Result<(), Error> {
        for shard in self.store.shards().await? {
            if usize::from(shard.shard.0) < self.ownership.len() {
                self.ownership.advance_rolled(shard.shard, shard.rolled);
            }
        }
        Ok(())
    }
}

fn report(error: &Error) {
    match error {
        // A shard that is lost, or was claimed again meanwhile: whoever writes events finds out.
        Error::Unavailable { .. } | Error::Unknown { .. } | Error::Fenced { .. } => {
            tracing::debug!(error = %chain(error), "rolling up to be repeated");
        }
        _ => tracing::error!(error = %chain(error), "rolling up failed"),
    }
}
