//! Group commit: one lane writes the ledger rows of its shards, one transaction at a time.
//!
//! While a transaction is under way the next group gathers, so an idle lane commits at once and a
//! busy one commits large groups; nobody waits for a timer.
//!
//! What if it is killed between commit and apply: the rows are in the tail of the next activation.
//! What if the commit's answer is lost: the gateway gets 503, the lane claims its shards anew (after
//! which nothing older can commit) and reads what did commit from the ledger before it goes on. What
//! if a batch runs twice: its ids are known and change nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use weir_core::meter::Entry;
use weir_core::units::{Seq, ShardId, SubscriptionId};
use weir_store::rows::{LedgerRow, RowKind};
use weir_store::{Error, Store};

use super::{Health, SharedApply, entry_of};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::outcome::{RecordError, Recorded};
use crate::ownership::{Ownership, PendingRows};

/// Groups between commit and apply: one being applied, one ready, so that a commit overlaps an apply
/// and no more than that is in memory.
const APPLY_QUEUE_GROUPS: usize = 2;
/// Rows read at once while settling.
const SETTLE_PAGE_ROWS: u32 = 5_000;
/// Pause between attempts to reach a store that is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Sizes of the recorder.
#[derive(Clone, Copy, Debug)]
pub struct RecorderLimits {
    /// Writers.
    pub lanes: usize,
    /// Rows after which a group takes no further submission.
    pub append_rows_max: usize,
    /// Rows that may wait before one lane.
    pub queue_rows_max: usize,
    /// Length of this node's lease in milliseconds.
    pub lease_ms: u32,
}

type Answer = Result<Vec<Recorded>, RecordError>;

struct Submission {
    rows: Vec<LedgerRow>,
    reply: Reply,
}

/// Where the answer goes. Until then the rows count as pending, also when the caller gives up.
struct Reply {
    to: oneshot::Sender<Answer>,
    _pending: PendingRows,
}

impl Reply {
    fn send(self, answer: Answer) {
        // A caller that gave up does not need the answer.
        let _ = self.to.send(answer);
    }
}

#[derive(Debug)]
struct LaneHandle {
    submissions: mpsc::Sender<Submission>,
    queued_rows: Arc<AtomicUsize>,
}

/// Door to the lanes.
#[derive(Debug)]
pub struct Recorder {
    lanes: Vec<LaneHandle>,
    ownership: Arc<Ownership>,
    queue_rows_max: usize,
}

/// What every lane works with.
#[derive(Clone)]
struct Shared {
    store: Arc<dyn Store>,
    ownership: Arc<Ownership>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    lease_ms: u32,
    /// Cancelled when this node finds that it no longer owns its shards.
    lost: CancellationToken,
}

impl Recorder {
    /// Starts the lanes. They end when the recorder is dropped and what it took is written.
    pub fn start(
        store: Arc<dyn Store>,
        ownership: Arc<Ownership>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        apply: &SharedApply,
        limits: RecorderLimits,
        lost: CancellationToken,
    ) -> Self {
        let lease_ms = limits.lease_ms;
        let owned = ownership.clone();
        let shared = Shared { store, ownership, health, metrics, lease_ms, lost };
        let lanes = (0..limits.lanes)
            .map(|index| {
                // Submissions are counted in rows below; the channel only has to hold as many.
                let (submissions, inbox) = mpsc::channel(limits.queue_rows_max);
                let (groups, applied) = mpsc::channel(APPLY_QUEUE_GROUPS);
                let queued_rows = Arc::new(AtomicUsize::new(0));
                let lane = Lane {
                    shared: shared.clone(),
                    inbox,
                    queued_rows: queued_rows.clone(),
                    groups,
                    append_rows_max: limits.append_rows_max,
                    sent: initial_positions(&shared.ownership, limits.lanes, index),
                };
                tokio::spawn(lane.run());
                tokio::spawn(apply_groups(shared.clone(), apply.clone(), applied));
                LaneHandle { submissions, queued_rows }
            })
            .collect();
        Self { lanes, ownership: owned, queue_rows_max: limits.queue_rows_max }
    }

    /// Makes rows durable and counts them; their `seq` is assigned here. Answers per row, in order.
    /// On an error some of them may be durable all the same: a retry with the same ids is safe.
    pub async fn record(&self, rows: Vec<LedgerRow>) -> Answer {
        let total = rows.len();
        let mut parts: Vec<(Vec<usize>, Vec<LedgerRow>)> =
            vec![Default::default(); self.lanes.len()];
        for (position, row) in rows.into_iter().enumerate() {
            let part = &mut parts[usize::from(row.shard.0) % self.lanes.len()];
            part.0.push(position);
            part.1.push(row);
        }
        // All or none: rows that one lane took while another's shard has just left would be told as
        // duplicates when the whole is tried again.
        let taken: Result<Vec<PendingRows>, ShardId> = parts
            .iter()
            .map(|(_, rows)| self.ownership.take_in(rows.iter().map(|row| row.shard)))
            .collect();
        let Ok(taken) = taken else { return Err(RecordError::NotHere) };
        let mut answers = Vec::with_capacity(self.lanes.len());
        for ((lane, (positions, rows)), pending) in self.lanes.iter().zip(parts).zip(taken) {
            if !rows.is_empty() {
                answers.push((positions, self.submit(lane, rows, pending)));
            }
        }
        let mut recorded = vec![Recorded::Duplicate; total];
        let mut failure = None;
        for (positions, answer) in answers {
            let answer = match answer {
                Ok(answer) => answer.await.unwrap_or(Err(RecordError::Away)),
                Err(busy) => Err(busy),
            };
            match answer {
                Ok(outcomes) => {
                    for (position, outcome) in positions.into_iter().zip(outcomes) {
                        recorded[position] = outcome;
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(recorded), Err)
    }

    fn submit(
        &self,
        lane: &LaneHandle,
        rows: Vec<LedgerRow>,
        pending: PendingRows,
    ) -> Result<oneshot::Receiver<Answer>, RecordError> {
        let count = rows.len();
        let before = lane.queued_rows.fetch_add(count, Ordering::AcqRel);
        // A single submission larger than the queue passes when the queue is empty.
        if before > 0 && before + count > self.queue_rows_max {
            lane.queued_rows.fetch_sub(count, Ordering::AcqRel);
            return Err(RecordError::Busy);
        }
        let (to, answer) = oneshot::channel();
        let reply = Reply { to, _pending: pending };
        lane.submissions.try_send(Submission { rows, reply }).map_err(|_| {
            lane.queued_rows.fetch_sub(count, Ordering::AcqRel);
            RecordError::Busy
        })?;
        Ok(answer)
    }

    /// Rows waiting to be written.
    pub fn queued_rows(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queued_rows.load(Ordering::Relaxed)).sum()
    }
}

fn initial_positions(ownership: &Ownership, lanes: usize, lane: usize) -> HashMap<ShardId, Seq> {
    ownership
        .shards()
        .filter(|shard| usize::from(shard.0) % lanes == lane)
        .map(|shard| (shard, ownership.applied(shard)))
        .collect()
}

struct Lane {
    shared: Shared,
    inbox: mpsc::Receiver<Submission>,
    queued_rows: Arc<AtomicUsize>,
    groups: mpsc::Sender<Group>,
    append_rows_max: usize,
    /// Per shard the last position given out or found in the ledger.
    sent: HashMap<ShardId, Seq>,
}

/// Committed rows on their way to the actors, then the answers.
struct Group {
    rows: Vec<LedgerRow>,
    replies: Vec<(Reply, Vec<Recorded>)>,
    /// Of rows that nobody waits for any more.
    _held: Option<PendingRows>,
}

impl Lane {
    async fn run(mut self) {
        while let Some(first) = self.inbox.recv().await {
            let mut rows = first.rows.len();
            let mut group = vec![first];
            while rows < self.append_rows_max {
                let Ok(next) = self.inbox.try_recv() else { break };
                rows += next.rows.len();
                group.push(next);
            }
            self.queued_rows.fetch_sub(rows, Ordering::AcqRel);
            if self.shared.lost.is_cancelled() {
                let refused = group.into_iter().map(|submission| submission.reply);
                refused.for_each(|reply| reply.send(Err(RecordError::Fenced)));
                continue;
            }
            self.commit(group).await;
        }
    }

    async fn commit(&mut self, submissions: Vec<Submission>) {
        let (mut batch, plan) = self.arrange(submissions);
        let stopwatch = Clock::stopwatch();
        let fence = self.shared.ownership.fence(batch.iter().map(|row| row.shard));
        match self.shared.store.append(&fence, &batch).await {
            Ok(appended) => {
                self.shared.health.set_up(true);
                self.shared.metrics.appended(batch.len(), stopwatch.elapsed());
                let replies = plan.answers(&appended.new);
                let mut new = appended.new.iter();
                batch.retain(|_| new.next().copied().unwrap_or(false));
                // The apply stage only ends after this lane has; a closed channel means shutdown.
                let _ = self.groups.send(Group { rows: batch, replies, _held: None }).await;
            }
            Err(error) => {
                // Answered now, but not over: what did commit is still to be counted.
                let held = self.shared.ownership.hold(batch.iter().map(|row| row.shard));
                plan.refuse(refusal(&error));
                self.failed(&error, batch).await;
                drop(held);
            }
        }
    }

    /// Flattens submissions, drops repeats within the group, assigns positions.
    fn arrange(&mut self, submissions: Vec<Submission>) -> (Vec<LedgerRow>, GroupPlan) {
        let mut batch: Vec<LedgerRow> = Vec::new();
        let mut first: HashMap<(SubscriptionId, RowKind, String), usize> = HashMap::new();
        let mut plan = GroupPlan { replies: Vec::with_capacity(submissions.len()) };
        for submission in submissions {
            let mut sources = Vec::with_capacity(submission.rows.len());
            for mut row in submission.rows {
                match first.entry((row.subscription, row.kind, row.event_id.clone())) {
                    MapEntry::Occupied(_) => sources.push(None),
                    MapEntry::Vacant(vacant) => {
                        vacant.insert(batch.len());
                        sources.push(Some(batch.len()));
                        let last = self.sent.entry(row.shard).or_default();
                        // Another node may have written since this one owned the shard before.
                        *last = (*last).max(self.shared.ownership.applied(row.shard)).next();
                        row.seq = *last;
                        batch.push(row);
                    }
                }
            }
            plan.replies.push((submission.reply, sources));
        }
        (batch, plan)
    }

    async fn failed(&mut self, error: &Error, batch: Vec<LedgerRow>) {
        let (chain, rows) = (crate::metrics::chain(error), batch.len());
        tracing::warn!(error = %chain, rows, "rows were not acknowledged");
        match error {
            Error::Fenced { shards, .. } => {
                self.shared.metrics.fenced(shards.len());
                self.shared.lost.cancel();
            }
            Error::Unavailable { .. } => self.shared.health.set_up(false),
            Error::Unknown { .. } => {
                self.shared.health.set_up(false);
                self.settle(batch.iter().map(|row| row.shard).collect()).await;
            }
            _ => {}
        }
    }

    /// After an unknown outcome: claims the shards, which waits for whatever is still under way and
    /// bars it for ever if it has not begun; then counts what did commit.
    async fn settle(&mut self, mut shards: Vec<ShardId>) {
        shards.sort_unstable();
        shards.dedup();
        let before: Vec<(ShardId, Seq)> =
            shards.iter().map(|&shard| (shard, self.shared.ownership.applied(shard))).collect();
        loop {
            match self.try_settle(&shards, &before).await {
                Ok(()) => return self.shared.health.set_up(true),
                Err(Error::Fenced { .. }) => return self.shared.lost.cancel(),
                Err(error) => {
                    tracing::debug!(error = %crate::metrics::chain(&error), "not settled yet");
                    self.refuse_for(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn try_settle(
        &mut self,
        shards: &[ShardId],
        before: &[(ShardId, Seq)],
    ) -> Result<(), Error> {
        let store = self.shared.store.clone();
        let incarnation = self.shared.ownership.incarnation();
        // An outage longer than the lease ends with a lease that has run out, which a claim would
        // take for this node's death.
        if !store.renew(incarnation, self.shared.lease_ms).await? {
            return Err(Error::Fenced { operation: "settle an append", shards: shards.to_vec() });
        }
        let claimed = store.claim(incarnation, shards).await?;
        if claimed.len() < shards.len() {
            return Err(Error::Fenced { operation: "settle an append", shards: shards.to_vec() });
        }
        self.shared.ownership.reclaimed(&claimed);
        let mut after = before.to_vec();
        loop {
            let rows = store.ledger_after(&after, SETTLE_PAGE_ROWS).await?;
            let full = rows.len() == SETTLE_PAGE_ROWS as usize;
            for row in &rows {
                let last = self.sent.entry(row.shard).or_default();
                *last = (*last).max(row.seq);
                if let Some(position) = after.iter_mut().find(|(shard, _)| *shard == row.shard) {
                    position.1 = position.1.max(row.seq);
                }
            }
            if !rows.is_empty() {
                let held = self.shared.ownership.hold(rows.iter().map(|row| row.shard));
                let group = Group { rows, replies: Vec::new(), _held: Some(held) };
                let _ = self.groups.send(group).await;
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Answers whoever comes meanwhile.
    async fn refuse_for(&mut self, pause: Duration) {
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                submission = self.inbox.recv() => {
                    let Some(submission) = submission else { return until.await };
                    self.queued_rows.fetch_sub(submission.rows.len(), Ordering::AcqRel);
                    submission.reply.send(Err(RecordError::Away));
                }
            }
        }
    }
}

/// Which row of the batch answers which row of a submission; `None` = a repeat within the group.
struct GroupPlan {
    replies: Vec<(Reply, Vec<Option<usize>>)>,
}

impl GroupPlan {
    fn answers(self, new: &[bool]) -> Vec<(Reply, Vec<Recorded>)> {
        let outcome = |source: Option<usize>| match source {
            Some(index) if new.get(index).copied().unwrap_or(false) => Recorded::New,
            _ => Recorded::Duplicate,
        };
        self.replies
            .into_iter()
            .map(|(reply, sources)| (reply, sources.into_iter().map(outcome).collect()))
            .collect()
    }

    fn refuse(self, error: RecordError) {
        for (reply, _) in self.replies {
            reply.send(Err(error));
        }
    }
}

fn refusal(error: &Error) -> RecordError {
    match error {
        Error::Fenced { .. } => RecordError::Fenced,
        _ => RecordError::Away,
    }
}

/// Gives committed groups to the actors in order, then answers. One task a lane: two groups of one
/// subscription must not overtake each other.
async fn apply_groups(shared: Shared, apply: SharedApply, mut groups: mpsc::Receiver<Group>) {
    while let Some(group) = groups.recv().await {
        let mut by_subscription: HashMap<SubscriptionId, (ShardId, Vec<Entry>)> = HashMap::new();
        let mut last: HashMap<ShardId, Seq> = HashMap::new();
        for row in &group.rows {
            let entries =
                by_subscription.entry(row.subscription).or_insert((row.shard, Vec::new()));
            entries.1.push(entry_of(row));
            let seq = last.entry(row.shard).or_default();
            *seq = (*seq).max(row.seq);
        }
        let born = shared.ownership.births();
        let applying = by_subscription.into_iter().map(|(subscription, (shard, entries))| {
            let apply = apply.clone();
            async move { (subscription, shard, apply.apply(subscription, shard, entries).await) }
        });
        for (subscription, shard, outcome) in join_all(applying).await {
            if outcome.is_err() {
                // Before the cursor moves, or a checkpoint could pass over these rows.
                shared.ownership.open_hole(subscription, shard, born);
            }
        }
        for (shard, seq) in last {
            shared.ownership.advance_applied(shard, seq);
        }
        for (reply, recorded) in group.replies {
            let new = recorded.iter().filter(|&&outcome| outcome == Recorded::New).count();
            shared.metrics.recorded(new, recorded.len() - new);
            reply.send(Ok(recorded));
        }
    }
}
