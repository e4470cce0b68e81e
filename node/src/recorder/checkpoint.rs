//! Checkpoints: the state of dirty subscriptions, in fenced batches, one at a time.
//!
//! Two queues: *now* for those that someone waits for (escrow, reservations), *soon* for all others,
//! emptied every interval in chunks so that a large round never keeps a waiting check longer than one
//! chunk. While a batch is under way those who ask gather for the next one.
//!
//! A batch has a number and is repeated until the store takes it; a repeat of a number changes
//! nothing, so additions in it are made once (INV-2). What if it is killed here: the next boot starts
//! from the last committed batch and the ledger rows after it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use weir_core::units::{PlanId, Seq, ShardId, SubscriptionId};
use weir_store::rows::{CheckpointBatch, CheckpointRow, OutboxRow, PeriodDelta, ReservationRow};
use weir_store::{Error, Store};

use super::Health;
use crate::clock::Clock;
use crate::metrics::{Metrics, chain};
use crate::ownership::Ownership;

/// The only lane so far; the store counts batches of each lane separately.
const LANE: i16 = 0;
/// First pause before a repeat; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// States of one batch that the store may refuse for good while the node goes on. More: what is broken
/// is the store, and every actor would be loaded anew every second. Fewer: a handful of damaged
/// subscriptions ends a node that serves all others.
const REFUSED_MAX: usize = 8;
/// Longest pause before a repeat: how late a store that came back is noticed.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A subscription whose state should be persisted.
pub trait Dirty: Send + Sync + 'static {
    /// Whose.
    fn subscription(&self) -> SubscriptionId;
    /// Its shard.
    fn shard(&self) -> ShardId;
    /// When it was loaded, see [`Ownership::birth`].
    fn born(&self) -> u64;
    /// Asks for its state.
    fn take(&self) -> Take;
    /// What was taken last is committed.
    fn confirm(&self);
    /// What was taken last can never be committed: it starts anew from what was.
    fn discard(&self);
}

/// Answer of [`Dirty::take`].
#[derive(Debug)]
pub enum Take {
    /// It will come; a dropped sender means that the actor died.
    Asked(oneshot::Receiver<Taken>),
    /// It ended in order, after a checkpoint.
    Ended,
    /// It died.
    Died,
}

/// What one subscription contributes to a batch. The epoch is filled in when it is written.
#[derive(Debug)]
pub struct Taken {
    /// State.
    pub row: CheckpointRow,
    /// Additions to past periods.
    pub periods: Vec<PeriodDelta>,
    /// Messages.
    pub outbox: Vec<OutboxRow>,
    /// Reservations made or released.
    pub reservations: Vec<ReservationRow>,
    /// The plan it moved to at its period's end.
    pub switched_to: Option<PlanId>,
}

type Queue = Mutex<Vec<Arc<dyn Dirty>>>;

/// Door to the checkpoints.
pub struct Checkpointer {
    now: Queue,
    soon: Queue,
    wake: Notify,
    draining: AtomicBool,
    /// Whose state is in a batch that is not committed yet.
    under_way: Mutex<HashSet<SubscriptionId>>,
    settled: Notify,
}

impl std::fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpointer").finish_non_exhaustive()
    }
}

/// What the task works with.
pub struct CheckpointerParts {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// What may be written.
    pub ownership: Arc<Ownership>,
    /// Whether the store answers.
    pub health: Arc<Health>,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<Clock>,
    /// How often everything dirty is written.
    pub interval: Duration,
    /// Rows of one batch.
    pub chunk_rows_max: usize,
    /// Cancelled when this node finds that it no longer owns its shards.
    pub lost: CancellationToken,
}

impl Checkpointer {
    /// A door with nothing behind it yet; actors may queue already.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            now: Queue::default(),
            soon: Queue::default(),
            wake: Notify::new(),
            draining: AtomicBool::new(false),
            under_way: Mutex::default(),
            settled: Notify::new(),
        })
    }

    /// Starts the task. It ends after [`Checkpointer::drain`], when everything is written.
    pub fn start(self: &Arc<Self>, parts: CheckpointerParts) -> tokio::task::JoinHandle<()> {
        let writer = Writer { door: self.clone(), parts, number: 0, round_due: false };
        tokio::spawn(writer.run())
    }

    /// To be written with the next round. Callers queue themselves once until they are asked.
    pub fn soon(&self, dirty: Arc<dyn Dirty>) {
        locked(&self.soon).push(dirty);
    }

    /// To be written with the next batch.
    pub fn now(&self, dirty: Arc<dyn Dirty>) {
        locked(&self.now).push(dirty);
        self.wake.notify_one();
    }

    /// Waits until no batch with this subscription's state is under way. Whoever loads a subscription
    /// whose actor died asks first: reading before the dead actor's last batch commits would start
    /// from the state before it, and make its additions to past periods a second time.
    pub async fn settled(&self, subscription: SubscriptionId) {
        loop {
            let changed = self.settled.notified();
            tokio::pin!(changed);
            // Listening before looking, so that an end between the two is not missed.
            changed.as_mut().enable();
            if !self.locked_under_way().contains(&subscription) {
                return;
            }
            changed.await;
        }
    }

    /// Whether a batch with the state of such a subscription is under way.
    pub fn is_writing(&self, is_such: impl Fn(SubscriptionId) -> bool) -> bool {
        self.locked_under_way().iter().any(|&subscription| is_such(subscription))
    }

    fn locked_under_way(&self) -> std::sync::MutexGuard<'_, HashSet<SubscriptionId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is queued and ends.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Subscriptions waiting to be written.
    pub fn queued(&self) -> usize {
        locked(&self.soon).len() + locked(&self.now).len()
    }
}

fn locked(queue: &Queue) -> std::sync::MutexGuard<'_, Vec<Arc<dyn Dirty>>> {
    // Nothing panics under this lock; a poisoned list is still whole.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a batch ended.
enum Written {
    Committed,
    /// The store will not have it, now or later. Nothing of it was written.
    Refused,
    /// This node may not write any more.
    Lost,
}

struct Writer {
    door: Arc<Checkpointer>,
    parts: CheckpointerParts,
    number: i64,
    round_due: bool,
}

impl Writer {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.parts.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.round_due = true,
                () = self.door.wake.notified() => {}
                () = self.parts.lost.cancelled() => return,
            }
            self.write_waiting().await;
            let draining = self.door.draining.load(Ordering::Acquire);
            if std::mem::take(&mut self.round_due) || draining {
                self.write_round().await;
            }
            if draining && self.door.queued() == 0 {
                return;
            }
        }
    }

    /// Those that someone waits for, one chunk: more of them may come during each commit, and the
    /// round must have its turn too.
    async fn write_waiting(&mut self) {
        let batch = {
            let mut queue = locked(&self.door.now);
            let count = queue.len().min(self.parts.chunk_rows_max);
            queue.drain(..count).collect::<Vec<_>>()
        };
        if batch.is_empty() || self.parts.lost.is_cancelled() {
            return;
        }
        self.write(batch, Vec::new()).await;
        if !locked(&self.door.now).is_empty() {
            self.door.wake.notify_one();
        }
    }

    /// Everything dirty, and the bounds that this makes true.
    async fn write_round(&mut self) {
        // Read before the queue: a row counted after this only makes a checkpoint newer.
        let counted = self.parts.ownership.countable();
        let round = std::mem::take(&mut *locked(&self.door.soon));
        if round.is_empty() && counted.is_empty() {
            return;
        }
        let mut chunks = round.chunks(self.parts.chunk_rows_max).peekable();
        if chunks.peek().is_none() {
            return self.write(Vec::new(), counted).await;
        }
        while let Some(chunk) = chunks.next() {
            let bounds = if chunks.peek().is_none() { counted.clone() } else { Vec::new() };
            self.write(chunk.to_vec(), bounds).await;
            self.write_waiting().await;
        }
    }

    async fn write(&mut self, dirty: Vec<Arc<dyn Dirty>>, counted: Vec<(ShardId, Seq)>) {
        // Before any of them is asked, until the batch is committed.
        let asked = dirty.iter().map(|subscription| subscription.subscription());
        self.door.locked_under_way().extend(asked);
        let taken = self.write_taken(dirty, counted).await;
        self.door.locked_under_way().clear();
        self.door.settled.notify_waiters();
        for dirty in taken {
            self.parts.ownership.close_hole(dirty.subscription(), dirty.born());
            dirty.confirm();
        }
    }

    /// Returns whose state is committed.
    async fn write_taken(
        &mut self,
        dirty: Vec<Arc<dyn Dirty>>,
        counted: Vec<(ShardId, Seq)>,
    ) -> Vec<Arc<dyn Dirty>> {
        let (mut batch, mut taken) = self.gather(dirty).await;
        batch.lane = LANE;
        batch.counted = counted;
        let mut refused = 0;
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            self.hold_bounds(&mut part);
            if part.subscriptions.is_empty() && part.counted.is_empty() {
                continue;
            }
            // Without gaps: a batch that was refused leaves its number to the next.
            part.number = self.number + 1;
            match self.write_until_taken(&mut part).await {
                Written::Committed => {
                    self.number = part.number;
                    for &(shard, seq) in &part.counted {
                        self.parts.ownership.advance_counted(shard, seq);
                    }
                }
                // One state that the store will not have must not keep back the others (INV-7), nor
                // the bounds of their shards.
                Written::Refused if part.subscriptions.len() > 1 => parts.extend(part.split()),
                Written::Refused if !part.subscriptions.is_empty() && refused < REFUSED_MAX => {
                    refused += 1;
                    let is_refused = |dirty: &Arc<dyn Dirty>| {
                        part.subscriptions
                            .iter()
                            .any(|row| row.subscription == dirty.subscription())
                    };
                    taken
                        .extract_if(.., |dirty| is_refused(dirty))
                        .for_each(|dirty| self.set_aside(&*dirty));
                    parts.push(part.bounds());
                }
                Written::Refused => {
                    self.parts.lost.cancel();
                    return Vec::new();
                }
                Written::Lost => return Vec::new(),
            }
        }
        taken
    }

    /// Holes that opened since the bounds were read hold those of their shards.
    fn hold_bounds(&self, part: &mut CheckpointBatch) {
        if part.counted.is_empty() {
            return;
        }
        let still: HashMap<ShardId, Seq> = self.parts.ownership.countable().into_iter().collect();
        let counted = std::mem::take(&mut part.counted).into_iter();
        let held = counted.filter_map(|(shard, seq)| Some((shard, seq.min(*still.get(&shard)?))));
        part.counted = held.collect();
    }

    fn set_aside(&self, dirty: &dyn Dirty) {
        tracing::error!(subscription = %dirty.subscription(), "its state cannot be written");
        self.parts.metrics.checkpoint_refused();
        self.died(dirty);
        dirty.discard();
    }

    /// Asks all of them at once; those that died become holes.
    async fn gather(&self, dirty: Vec<Arc<dyn Dirty>>) -> (CheckpointBatch, Vec<Arc<dyn Dirty>>) {
        let mut asked: HashMap<SubscriptionId, (Arc<dyn Dirty>, oneshot::Receiver<Taken>)> =
            HashMap::with_capacity(dirty.len());
        for subscription in dirty {
            // One row each: a second request in the same batch is met by the first.
            if asked.contains_key(&subscription.subscription()) {
                continue;
            }
            match subscription.take() {
                Take::Asked(answer) => {
                    asked.insert(subscription.subscription(), (subscription, answer));
                }
                Take::Ended => {}
                Take::Died => self.died(&*subscription),
            }
        }
        // Whoever ended was written when it did: nobody need wait for this batch on its account.
        self.door.locked_under_way().retain(|subscription| asked.contains_key(subscription));
        let mut batch = CheckpointBatch::default();
        let mut taken = Vec::with_capacity(asked.len());
        for (subscription, answer) in asked.into_values() {
            let Ok(part) = answer.await else {
                self.died(&*subscription);
                continue;
            };
            batch.plan_switches.extend(part.switched_to.map(|plan| (part.row.subscription, plan)));
            batch.subscriptions.push(part.row);
            batch.periods.extend(part.periods);
            batch.outbox.extend(part.outbox);
            batch.reservations.extend(part.reservations);
            taken.push(subscription);
        }
        (batch, taken)
    }

    fn died(&self, subscription: &dyn Dirty) {
        let ownership = &self.parts.ownership;
        if !ownership.may_load(subscription.shard()) {
            // Given away: its rows are its new owner's to count, and nobody would ever close the hole.
            return;
        }
        ownership.open_hole(subscription.subscription(), subscription.shard(), subscription.born());
    }

    fn drop_given_away(&self, batch: &mut CheckpointBatch) -> bool {
        let before = batch.counted.len();
        batch.counted.retain(|&(shard, _)| self.parts.ownership.may_load(shard));
        batch.counted.len() < before
    }

    async fn write_until_taken(&self, batch: &mut CheckpointBatch) -> Written {
        let mut pause = PAUSE_MIN;
        loop {
            for row in &mut batch.subscriptions {
                row.epoch = self.parts.ownership.epoch(row.shard);
            }
            let shards = batch.subscriptions.iter().map(|row| row.shard);
            let fence = self
                .parts
                .ownership
                .fence(shards.chain(batch.counted.iter().map(|&(shard, _)| shard)));
            self.parts.health.begin_write(self.parts.clock.now());
            let stopwatch = Clock::stopwatch();
            let outcome = self.parts.store.checkpoint(&fence, batch).await;
            self.parts.health.end_write();
            match outcome {
                Ok(()) => {
                    self.parts.health.set_up(true);
                    self.parts.metrics.checkpointed(batch.subscriptions.len(), stopwatch.elapsed());
                    return Written::Committed;
                }
                Err(error) if error.is_away() => {
                    self.parts.health.set_up(false);
                    tracing::debug!(error = %chain(&error), "checkpoint to be repeated");
                }
                // Bounds of shards that were given away meanwhile are their new owners'.
                Err(Error::Fenced { .. }) if self.drop_given_away(batch) => continue,
                Err(Error::Fenced { shards, .. }) => {
                    let asked = self.parts.ownership.still_ours(&*self.parts.store, &fence).await;
                    // When the store cannot say, the write is repeated and asks again.
                    if let Ok(false) = asked {
                        self.parts.metrics.fenced(shards.len());
                        tracing::error!(shards = shards.len(), "this node lost its shards");
                        self.parts.lost.cancel();
                        return Written::Lost;
                    }
                }
                Err(error) => {
                    let states = batch.subscriptions.len();
                    tracing::error!(error = %chain(&error), states, "a checkpoint was refused");
                    return Written::Refused;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.parts.lost.cancelled() => return Written::Lost,
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
