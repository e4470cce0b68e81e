//! Meters in memory: loaded on first use, persisted in numbered batches, gone with a clean state.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use weir_core::meter::{Command, Entry, Meter, Wants};
use weir_core::terms::Terms;
use weir_core::units::{Micros, ShardId, Span};

use super::operations::{Outcome, Purpose};
use super::requests::answer;
use super::{Context, Out, Shell};
use crate::model::Break;
use crate::model::cast::{Cast, Kind, millis};
use crate::model::message::{Ask, Fence, Query, Reply, Row, Stored, Told};

/// How often everything dirty is written.
const ROUND: Span = millis(200);
/// States of one batch.
const BATCH_MAX: usize = 8;
/// Pause before a batch is repeated.
const RETRY_PAUSE: Span = millis(50);

/// A meter in memory.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) meter: Meter,
    version: u64,
    wants: Wants,
    /// Checks that wait for escrow.
    pub(super) waiting: Vec<Ask>,
}

impl Resident {
    pub(super) fn want(&mut self, wants: Wants) {
        self.wants = wants.max(self.wants);
    }
}

/// A meter on its way into memory.
#[derive(Debug, Default)]
struct Loading {
    asks: Vec<Ask>,
    /// Rows were committed after it was read: it is read again.
    is_stale: bool,
}

/// All of one node, and the batch under way.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) residents: BTreeMap<usize, Resident>,
    loading: BTreeMap<usize, Loading>,
    /// Number of the last batch that was taken.
    number: u64,
    batch: Option<Vec<Stored>>,
    /// When the batch is to be tried again.
    retry_at: Option<Micros>,
    round_at: Micros,
}

impl Checkpoints {
    pub(super) fn of_shard(&self, cast: &Arc<Cast>, shard: ShardId) -> Vec<usize> {
        self.residents.keys().copied().filter(|id| cast.shard(*id) == shard).collect()
    }

    pub(super) fn loads(&self, cast: &Arc<Cast>, shard: ShardId) -> bool {
        self.loading.keys().any(|id| cast.shard(*id) == shard)
    }

    /// These are to be written at once.
    pub(super) fn retire(&mut self, subscriptions: &[usize]) {
        for id in subscriptions {
            let is_under_way = self.is_under_way(*id);
            if let Some(resident) = self.residents.get_mut(id).filter(|_| !is_under_way) {
                resident.wants = Wants::CheckpointNow;
            }
        }
    }

    /// A row became durable.
    pub(super) fn count(&mut self, now: Micros, row: &Row) {
        if let Some(resident) = self.residents.get_mut(&row.subscription) {
            let outcome = resident.meter.apply(now, Command::Record(&row.entry));
            resident.want(outcome.wants);
        } else if let Some(loading) = self.loading.get_mut(&row.subscription) {
            loading.is_stale = true;
        }
    }

    fn is_under_way(&self, subscription: usize) -> bool {
        self.batch.iter().flatten().any(|row| row.subscription == subscription)
    }
}

/// A meter from what is stored and the rows after it; `forgets` takes any state for a clean one.
pub(in crate::model) fn begin(
    terms: Arc<Terms>,
    stored: Option<&Stored>,
    forgets: bool,
    tail: &[Entry],
    now: Micros,
) -> Meter {
    if let Some(Stored { state, clean, .. }) = stored {
        return Meter::restore(terms, state, *clean || forgets, tail, now);
    }
    let mut meter = Meter::new(terms, now);
    for entry in tail {
        meter.apply(now, Command::Record(entry));
    }
    meter
}

impl Shell {
    /// A check of a subscription that is not in memory.
    pub(super) fn load_for(&mut self, cx: &mut Context<'_>, ask: Ask) {
        let subscription = ask.subscription;
        let begins = !self.checkpoints.loading.contains_key(&subscription);
        let loading = self.checkpoints.loading.entry(subscription).or_default();
        if loading.asks.len() >= super::WAITING_MAX {
            return answer(cx, ask, Told::Unavailable);
        }
        loading.asks.push(ask);
        if begins {
            self.query(cx, Purpose::Load(subscription), Query::Load(subscription));
        }
    }

    pub(super) fn loaded(&mut self, cx: &mut Context<'_>, subscription: usize, outcome: Outcome) {
        let Some(loading) = self.checkpoints.loading.remove(&subscription) else { return };
        match outcome {
            Outcome::Said(Reply::Loaded(loaded)) if !loading.is_stale => {
                let resident = self.start(cx.wall, subscription, loaded.0.as_ref(), &loaded.1);
                self.checkpoints.residents.insert(subscription, resident);
                for ask in loading.asks {
                    self.ask(cx, ask);
                }
            }
            Outcome::Said(Reply::Loaded(_)) => {
                for ask in loading.asks {
                    self.ask(cx, ask);
                }
            }
            _ => {
                for ask in loading.asks {
                    answer(cx, ask, Told::Unavailable);
                }
            }
        }
    }

    /// From what is stored and the rows after it.
    fn start(&self, now: Micros, id: usize, stored: Option<&Stored>, tail: &[Entry]) -> Resident {
        let terms = self.cast.subscriptions[id].terms.clone();
        // The drill: what the last owner may have let through is not withheld.
        let forgets = self.breaks == Some(Break::Escrow);
        let meter = begin(terms, stored, forgets, tail, now);
        let unclean = !tail.is_empty() || stored.is_some_and(|stored| !stored.clean);
        Resident {
            meter,
            version: stored.map_or(0, |stored| stored.version),
            wants: if unclean { Wants::Checkpoint } else { Wants::Nothing },
            waiting: Vec::new(),
        }
    }

    /// The round, and a batch that is to be repeated.
    pub(super) fn checkpoint_tick(&mut self, cx: &mut Context<'_>) {
        if self.checkpoints.retry_at.is_some_and(|at| cx.now >= at) {
            self.checkpoints.retry_at = None;
            self.send_batch(cx);
        }
        if cx.now >= self.checkpoints.round_at {
            self.checkpoints.round_at = cx.now.plus(ROUND);
            self.write_those(cx, Wants::Checkpoint);
        }
        self.checkpoint_now(cx);
    }

    /// Those that someone waits for.
    pub(super) fn checkpoint_now(&mut self, cx: &mut Context<'_>) {
        self.write_those(cx, Wants::CheckpointNow);
    }

    fn write_those(&mut self, cx: &mut Context<'_>, at_least: Wants) {
        if self.checkpoints.batch.is_some() {
            return;
        }
        let due = self.checkpoints.residents.iter().filter(|(_, one)| one.wants >= at_least);
        let due: Vec<usize> = due.map(|(id, _)| *id).take(BATCH_MAX).collect();
        let rows: Vec<Stored> = due.into_iter().filter_map(|id| self.state(cx, id)).collect();
        if !rows.is_empty() {
            self.checkpoints.batch = Some(rows);
            self.send_batch(cx);
        }
    }

    fn state(&mut self, cx: &mut Context<'_>, subscription: usize) -> Option<Stored> {
        let shard = self.cast.shard(subscription);
        let clean = self.is_frozen(shard);
        let epoch = self.epoch(shard);
        let resident = self.checkpoints.residents.get_mut(&subscription)?;
        resident.wants = Wants::Nothing;
        resident.version += 1;
        let (version, state) = (resident.version, resident.meter.checkpoint(cx.wall, clean).state);
        if self.cast.subscriptions[subscription].kind != Kind::HardByCheck {
            let used = state.counters.iter().map(|counter| counter.used).sum();
            cx.out.push(Out::Counted { subscription, last: state.last_seq, used });
        }
        Some(Stored { subscription, shard, epoch, version, clean, state })
    }

    /// The same rows as often as it takes, each time at the epochs that hold then.
    fn send_batch(&mut self, cx: &mut Context<'_>) {
        let Some(mut rows) = self.checkpoints.batch.clone() else { return };
        for row in &mut rows {
            row.epoch = self.epoch(row.shard);
        }
        let fence = self.fence(rows.iter().map(|row| row.shard));
        let number = self.checkpoints.number + 1;
        self.query(cx, Purpose::Checkpoint, Query::Checkpoint { fence, number, rows });
    }

    pub(super) fn checkpointed(&mut self, cx: &mut Context<'_>, outcome: &Outcome) {
        match outcome {
            Outcome::Said(Reply::Done) => self.taken(cx),
            Outcome::Said(Reply::Fenced) => {
                let shards = self.checkpoints.batch.iter().flatten().map(|row| row.shard);
                let fence = self.fence(shards);
                self.query(cx, Purpose::StillOurs(fence), Query::Look);
            }
            Outcome::Away | Outcome::Unknown => {
                self.checkpoints.retry_at = Some(cx.now.plus(RETRY_PAUSE));
            }
            // Another boot has taken this one's name.
            Outcome::Said(_) => cx.out.push(Out::Exit),
        }
    }

    /// A batch is committed: its meters may use the escrow that it names, or leave.
    fn taken(&mut self, cx: &mut Context<'_>) {
        self.checkpoints.number += 1;
        let rows = self.checkpoints.batch.take().unwrap_or_default();
        let mut asks = Vec::new();
        for row in &rows {
            let frozen = self.is_frozen(row.shard);
            let Some(resident) = self.checkpoints.residents.get_mut(&row.subscription) else {
                continue;
            };
            if row.clean && frozen && resident.wants == Wants::Nothing {
                self.checkpoints.residents.remove(&row.subscription);
                continue;
            }
            resident.meter.apply(cx.wall, Command::Confirm);
            asks.append(&mut resident.waiting);
        }
        for ask in asks {
            self.ask(cx, ask);
        }
        self.checkpoint_now(cx);
    }

    /// A late claim of our own may have raised an epoch; else this node has lost its shards.
    pub(super) fn still_ours(&mut self, cx: &mut Context<'_>, fence: &Fence, outcome: &Outcome) {
        if let Outcome::Said(Reply::Looked(view)) = outcome {
            let mut named = HashSet::new();
            for (shard, owner) in (0..).map(ShardId).zip(&view.owners) {
                if owner.incarnation == Some(self.me()) {
                    named.insert(shard);
                    if fence.shards.iter().any(|held| held.0 == shard) {
                        self.hold(shard, owner.epoch);
                    }
                }
            }
            if !fence.shards.iter().all(|(shard, _)| named.contains(shard)) {
                return cx.out.push(Out::Exit);
            }
        }
        self.checkpoints.retry_at = Some(cx.now.plus(RETRY_PAUSE));
    }
}
