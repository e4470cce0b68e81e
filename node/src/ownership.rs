//! The shards this node owns: epochs, cursors, and what must not be forgotten yet.
//!
//! Role: the shared, lock-free view of `shards` that every fenced write is built from. Per shard three
//! cursors into its ledger move up, never down:
//!
//! ```text
//!   rolled <= last        what analytics have summed up
//!   counted <= applied    what is in committed checkpoints / what actors have counted
//! ```
//! Beside them stands the [`Service`]: what this node does for a shard now, looked at by every request.
//!
//! A subscription that could not count a committed row (its actor died, or could not be loaded) is a
//! *hole*: `counted` stays below it until it is counted again, so that a later activation finds the
//! row in its tail (INV-2).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;
use weir_core::quota::ZOMBIE_PART_OF_TTL;
use weir_core::units::{Epoch, Micros, Seq, ShardId, Span, SubscriptionId};
use weir_store::{Error, Fence, ShardState, Store};

use crate::clock::Clock;

/// Rows read at once at the start: a page of a few megabytes; the last second of a busy node has
/// some tens of thousands.
const UNCOUNTED_PAGE_ROWS: u32 = 5_000;

/// How long a request waits for a shard that moves. More: the request's own time runs out. Less: a move
/// that a slow commit holds up fails requests.
pub const MOVE_PATIENCE: Duration = Duration::from_millis(1_500);
/// How often a waiting request looks who owns the shard by now.
const MOVE_LOOK: Duration = Duration::from_millis(20);

/// What this node does for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Service {
    /// Nothing: it is another's, or nobody's.
    Absent = 0,
    /// Everything.
    Full = 1,
    /// It ends what it has taken in; new requests wait.
    Ending = 2,
    /// Nothing of it is in memory and nothing may be loaded; new requests wait.
    Closed = 3,
}

impl Service {
    const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Full,
            2 => Self::Ending,
            3 => Self::Closed,
            _ => Self::Absent,
        }
    }
}

#[derive(Debug, Default)]
struct Cell {
    service: AtomicU8,
    /// Ledger rows that were taken in and are not counted or refused yet.
    pending_rows: AtomicU32,
    epoch: AtomicU64,
    applied: AtomicU64,
    counted: AtomicU64,
    rolled: AtomicU64,
}

/// Shards of this boot.
#[derive(Debug)]
pub struct Ownership {
    incarnation: Uuid,
    cells: Vec<Cell>,
    holes: Mutex<BTreeMap<SubscriptionId, Hole>>,
    births: AtomicU64,
    /// Until when nobody can have taken the shards, in microseconds.
    trusted_until: AtomicI64,
    /// Told whenever a service changes.
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Hole {
    shard: ShardId,
    first: Seq,
    /// Actors born up to here may not have seen the rows.
    born: u64,
}

impl Ownership {
    /// Ownership of the shards as they were claimed, in order of their numbers from 0; all of them are
    /// served.
    pub fn new(incarnation: Uuid, shards: &[ShardState]) -> Self {
        let owned = Self::none(incarnation, shards.len());
        owned.took(shards);
        for shard in shards {
            owned.set_service(shard.shard, Service::Full);
        }
        owned
    }

    /// Ownership of none of `count` shards.
    pub fn none(incarnation: Uuid, count: usize) -> Self {
        Self {
            incarnation,
            cells: (0..count).map(|_| Cell::default()).collect(),
            holes: Mutex::default(),
            births: AtomicU64::new(0),
            trusted_until: AtomicI64::new(i64::MAX),
            changed: Notify::new(),
        }
    }

    /// Shards were claimed and are not served yet: where their ledgers stand.
    pub fn took(&self, shards: &[ShardState]) {
        self.reclaimed(shards);
        for shard in shards {
            self.advance_applied(shard.shard, shard.last);
            self.advance_counted(shard.shard, shard.counted);
            self.advance_rolled(shard.shard, shard.rolled);
        }
    }

    /// Until when nobody can have taken this node's shards; `None`: somebody may have. A node that
    /// shares its database with nobody is never told.
    pub fn trust(&self, until: Option<Micros>) {
        let until = until.map_or(i64::MIN, Micros::get);
        self.trusted_until.store(until, Ordering::Release);
    }

    /// Whether decisions may still be made that are returned after `hold_ttl` if nobody settles them.
    ///
    /// Once the lease has run out, another node may own the shard. It reckons with everything that this
    /// one may let through by its escrow, and gives that back after the plan's `holdTtl`; so this one
    /// stops well before that (INV-3).
    pub fn may_decide(&self, now: Micros, hold_ttl: Span) -> bool {
        let until = self.trusted_until.load(Ordering::Acquire);
        let grace = hold_ttl.get() / ZOMBIE_PART_OF_TTL;
        now.get() < until.saturating_add(grace)
    }

    /// What this node does for a shard.
    pub fn service(&self, shard: ShardId) -> Service {
        Service::from_u8(self.cell(shard).service.load(Ordering::SeqCst))
    }

    /// Whether requests for it are answered here.
    pub fn serves(&self, shard: ShardId) -> bool {
        self.service(shard) == Service::Full
    }

    /// Whether its subscriptions may be in memory.
    pub fn may_load(&self, shard: ShardId) -> bool {
        matches!(self.service(shard), Service::Full | Service::Ending)
    }

    /// From now on this node does so much for a shard. What was missed in one that is given away is
    /// for its next owner to find.
    pub fn set_service(&self, shard: ShardId, service: Service) {
        self.cell(shard).service.store(service as u8, Ordering::SeqCst);
        if service == Service::Absent {
            self.locked_holes().retain(|_, hole| hole.shard != shard);
        }
        self.changed.notify_waiters();
    }

    /// Waits until the service of any shard changes, at most for `patience`.
    pub async fn change(&self, seen: Service, shard: ShardId, patience: Duration) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        // Listening before looking, so that a change between the two is not missed.
        changed.as_mut().enable();
        if self.service(shard) == seen {
            let _ = tokio::time::timeout(patience, changed).await;
        }
    }

    /// Waits while a shard is on its way here or away, at most for [`MOVE_PATIENCE`]; whether it is
    /// served here then. `owner` is who owns it by now.
    pub async fn awaited(&self, shard: ShardId, owner: impl Fn() -> Option<Uuid>) -> bool {
        let stopwatch = Clock::stopwatch();
        loop {
            let service = self.service(shard);
            if service == Service::Full {
                return true;
            }
            let is_coming = owner() == Some(self.incarnation);
            let left = MOVE_PATIENCE.saturating_sub(stopwatch.elapsed());
            if left.is_zero() || (service == Service::Absent && !is_coming) {
                return false;
            }
            // Who owns it may change without a change of what is served.
            self.change(service, shard, left.min(MOVE_LOOK)).await;
        }
    }

    /// Takes in rows of these shards, unless one of them is not served: then that one is named. They
    /// count as pending until the answer is dropped.
    pub fn take_in(
        self: &Arc<Self>,
        rows: impl Iterator<Item = ShardId>,
    ) -> Result<PendingRows, ShardId> {
        let pending = self.hold(rows);
        // Counted before looked at: whoever ends the service looks after it has ended it.
        match pending.shards.keys().find(|&&shard| !self.serves(shard)) {
            Some(&shard) => Err(shard),
            None => Ok(pending),
        }
    }

    /// Counts rows as pending, whatever is served: they were taken in before.
    pub fn hold(self: &Arc<Self>, rows: impl Iterator<Item = ShardId>) -> PendingRows {
        let mut pending = PendingRows { ownership: self.clone(), shards: BTreeMap::new() };
        for shard in rows {
            *pending.shards.entry(shard).or_default() += 1;
            self.cell(shard).pending_rows.fetch_add(1, Ordering::SeqCst);
        }
        pending
    }

    /// Rows of a shard that were taken in and are not counted or refused yet.
    pub fn pending_rows(&self, shard: ShardId) -> u32 {
        self.cell(shard).pending_rows.load(Ordering::SeqCst)
    }

    /// Rows that the last owner committed and did not checkpoint are in nobody's memory yet: each of
    /// their subscriptions is a hole until it was loaded and checkpointed. Before the first
    /// checkpoint of this boot, which would otherwise move the bounds over those rows.
    pub async fn find_uncounted(
        &self,
        store: &dyn Store,
        shards: impl IntoIterator<Item = ShardId>,
    ) -> Result<(), Error> {
        let behind = |&shard: &ShardId| self.counted(shard) < self.applied(shard);
        let shards = shards.into_iter().filter(behind);
        let mut after: Vec<(ShardId, Seq)> =
            shards.map(|shard| (shard, self.counted(shard))).collect();
        while !after.is_empty() {
            let rows = store.ledger_after(&after, UNCOUNTED_PAGE_ROWS).await?;
            for row in &rows {
                self.open_hole(row.subscription, row.shard, 0);
                if let Some(position) = after.iter_mut().find(|(shard, _)| *shard == row.shard) {
                    position.1 = position.1.max(row.seq);
                }
            }
            if rows.len() < UNCOUNTED_PAGE_ROWS as usize {
                break;
            }
        }
        Ok(())
    }

    /// This boot.
    pub const fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// How many shards there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Every shard.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..u16::try_from(self.cells.len()).unwrap_or(u16::MAX)).map(ShardId)
    }

    /// Epoch held.
    pub fn epoch(&self, shard: ShardId) -> Epoch {
        Epoch(self.cell(shard).epoch.load(Ordering::Acquire))
    }

    /// Shards were claimed again.
    pub fn reclaimed(&self, shards: &[ShardState]) {
        for shard in shards {
            self.cell(shard.shard).epoch.fetch_max(shard.epoch.0, Ordering::AcqRel);
        }
    }

    /// After a write was fenced: whether the store still names this boot as the owner of every shard
    /// in it. Then a claim of our own raised the epoch and its answer was lost; the epochs are read
    /// anew and the write may be repeated.
    pub async fn still_ours(&self, store: &dyn Store, fence: &Fence) -> Result<bool, Error> {
        let states = store.shards().await?;
        let named =
            |shard: ShardId| fence.shards.binary_search_by_key(&shard, |held| held.0).is_ok();
        let fenced: Vec<ShardState> =
            states.into_iter().filter(|state| named(state.shard)).collect();
        let ours = fenced.iter().all(|state| state.owner == Some(self.incarnation));
        if ours {
            self.reclaimed(&fenced);
        }
        Ok(ours && fenced.len() == fence.shards.len())
    }

    /// Proof for a write that touches these shards.
    pub fn fence(&self, shards: impl IntoIterator<Item = ShardId>) -> Fence {
        let mut shards: Vec<ShardId> = shards.into_iter().collect();
        shards.sort_unstable();
        shards.dedup();
        let shards = shards.into_iter().map(|shard| (shard, self.epoch(shard))).collect();
        Fence { incarnation: self.incarnation, shards }
    }

    /// Every row up to here was given to its actor.
    pub fn applied(&self, shard: ShardId) -> Seq {
        Seq(self.cell(shard).applied.load(Ordering::Acquire))
    }

    /// Rows up to here were given to their actors, or their subscriptions are holes.
    pub fn advance_applied(&self, shard: ShardId, to: Seq) {
        self.cell(shard).applied.fetch_max(to.0, Ordering::AcqRel);
    }

    /// Every row up to here is in committed checkpoints: the lower bound of a tail.
    pub fn counted(&self, shard: ShardId) -> Seq {
        Seq(self.cell(shard).counted.load(Ordering::Acquire))
    }

    /// A checkpoint that carried this bound is committed.
    pub fn advance_counted(&self, shard: ShardId, to: Seq) {
        self.cell(shard).counted.fetch_max(to.0, Ordering::AcqRel);
    }

    /// Every row up to here is in the analytics.
    pub fn rolled(&self, shard: ShardId) -> Seq {
        Seq(self.cell(shard).rolled.load(Ordering::Acquire))
    }

    /// The analytics moved on.
    pub fn advance_rolled(&self, shard: ShardId, to: Seq) {
        self.cell(shard).rolled.fetch_max(to.0, Ordering::AcqRel);
    }

    /// Bounds that a checkpoint of everything dirty may carry: per shard whose bound would move, the
    /// last row below every hole. Read it *before* asking actors for their state.
    pub fn countable(&self) -> Vec<(ShardId, Seq)> {
        let mut bounds: BTreeMap<ShardId, Seq> = self
            .shards()
            .filter(|&shard| self.may_load(shard))
            .map(|shard| (shard, self.applied(shard)))
            .filter(|&(shard, applied)| applied > self.counted(shard))
            .collect();
        for hole in self.locked_holes().values() {
            if let Some(bound) = bounds.get_mut(&hole.shard) {
                *bound = (*bound).min(Seq(hole.first.0.saturating_sub(1)));
            }
        }
        bounds.retain(|&shard, bound| *bound > self.counted(shard));
        bounds.into_iter().collect()
    }

    /// Up to where every row of a shard with nothing in memory is in checkpoints.
    pub fn settled(&self, shard: ShardId) -> Seq {
        let has_hole = self.locked_holes().values().any(|hole| hole.shard == shard);
        if has_hole { self.counted(shard) } else { self.applied(shard) }
    }

    /// Rows of this subscription after `counted` may not have been counted by anyone.
    ///
    /// `born` is the last birth that may have come before the rows were committed: whoever is born
    /// later read them. It is the dead actor's own, or [`Ownership::births`] as it was before the
    /// rows were handed out, never as it is when the loss is noticed: a successor may be there already.
    pub fn open_hole(&self, subscription: SubscriptionId, shard: ShardId, born: u64) {
        let first = self.counted(shard).next();
        let mut holes = self.locked_holes();
        let hole = holes.entry(subscription).or_insert(Hole { shard, first, born });
        hole.born = hole.born.max(born);
    }

    /// Whether rows of this subscription may be in nobody's checkpoint.
    pub fn is_hole(&self, subscription: SubscriptionId) -> bool {
        self.locked_holes().contains_key(&subscription)
    }

    /// Actors loaded so far.
    pub fn births(&self) -> u64 {
        self.births.load(Ordering::Acquire)
    }

    /// State of an actor born at `born` is in a committed checkpoint. Only one that was loaded after
    /// the hole opened has seen the rows that it stands for.
    pub fn close_hole(&self, subscription: SubscriptionId, born: u64) {
        let mut holes = self.locked_holes();
        if holes.get(&subscription).is_some_and(|hole| born > hole.born) {
            holes.remove(&subscription);
        }
    }

    /// An actor is about to be loaded.
    pub fn birth(&self) -> u64 {
        self.births.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Subscriptions to be loaded anew.
    pub fn holes(&self) -> Vec<(SubscriptionId, ShardId)> {
        self.locked_holes().iter().map(|(&id, hole)| (id, hole.shard)).collect()
    }

    fn locked_holes(&self) -> std::sync::MutexGuard<'_, BTreeMap<SubscriptionId, Hole>> {
        // No code panics while it holds this lock; a poisoned map is still whole.
        self.holes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn cell(&self, shard: ShardId) -> &Cell {
        &self.cells[usize::from(shard.0)]
    }
}

/// Rows that were taken in; see [`Ownership::take_in`].
#[derive(Debug)]
pub struct PendingRows {
    ownership: Arc<Ownership>,
    shards: BTreeMap<ShardId, u32>,
}

impl Drop for PendingRows {
    fn drop(&mut self) {
        for (&shard, &rows) in &self.shards {
            self.ownership.cell(shard).pending_rows.fetch_sub(rows, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ownership(lasts: &[u64]) -> Ownership {
        let shards: Vec<ShardState> = lasts
            .iter()
            .enumerate()
            .map(|(index, &last)| ShardState {
                shard: ShardId(u16::try_from(index).unwrap_or_default()),
                epoch: Epoch(1),
                owner: None,
                counted: Seq(0),
                rolled: Seq(0),
                last: Seq(last),
            })
            .collect();
        Ownership::new(Uuid::nil(), &shards)
    }

    #[test]
    fn a_hole_holds_the_bound_of_its_shard_and_no_other() {
        let owned = ownership(&[10, 20]);
        let lost = SubscriptionId::from_uuid(Uuid::from_u128(7));
        owned.advance_counted(ShardId(0), Seq(4));
        let before = owned.birth();
        owned.open_hole(lost, ShardId(0), owned.births());
        assert_eq!(owned.countable(), [(ShardId(1), Seq(20))]);
        owned.close_hole(lost, before);
        assert_eq!(owned.countable(), [(ShardId(1), Seq(20))], "born before the hole");
        owned.close_hole(lost, owned.birth());
        assert_eq!(owned.countable(), [(ShardId(0), Seq(10)), (ShardId(1), Seq(20))]);
    }

    #[test]
    fn cursors_never_move_down() {
        let owned = ownership(&[10]);
        owned.advance_applied(ShardId(0), Seq(5));
        assert_eq!(owned.applied(ShardId(0)), Seq(10));
        owned.advance_counted(ShardId(0), Seq(8));
        owned.advance_counted(ShardId(0), Seq(3));
        assert_eq!(owned.counted(ShardId(0)), Seq(8));
    }

    #[test]
    fn a_fence_names_each_shard_once_in_order() {
        let owned = ownership(&[0, 0, 0]);
        let fence = owned.fence([ShardId(2), ShardId(0), ShardId(2)]);
        assert_eq!(fence.shards, [(ShardId(0), Epoch(1)), (ShardId(2), Epoch(1))]);
    }
}
