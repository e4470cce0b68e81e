//! Events into the ledger: gather, write in one fenced transaction, count, then answer.
//!
//! After an unknown outcome the shards are claimed anew, which bars whatever has not happened by then,
//! and what did happen is read from the ledger; only then is anything else written.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use smallvec::SmallVec;
use weir_core::meter::{Entry, EntryKind};
use weir_core::ownership::{Input, Owner};
use weir_core::units::{Micros, Seq, ShardId};

use super::operations::{Outcome, Purpose};
use super::requests::answer;
use super::{Context, Out, Shell};
use crate::model::cast::millis;
use crate::model::message::{Ask, Query, Reply, Row, Told};

/// Events that may wait: a second of traffic, many times over.
pub(super) const QUEUE_MAX: usize = 128;
/// Events of one transaction.
const GROUP_MAX: usize = 16;
/// Pause before a store that is away is asked again.
const RETRY_PAUSE: weir_core::units::Span = millis(100);

/// The writer.
#[derive(Debug, Default)]
pub(super) struct Lane {
    queue: Vec<Ask>,
    state: State,
    /// Last position given out or found.
    sent: BTreeMap<ShardId, Seq>,
    /// Rows up to here are counted.
    applied: BTreeMap<ShardId, Seq>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Writes(Group),
    Settles(Vec<ShardId>),
    /// Until then it waits before it tries to settle again.
    Rests(Vec<ShardId>, Micros),
}

/// Rows under way and who waits for them; several may wait for one.
#[derive(Debug, Default)]
struct Group {
    rows: Vec<Row>,
    asks: Vec<Ask>,
}

impl Lane {
    pub(super) const fn len(&self) -> usize {
        self.queue.len()
    }

    /// A shard's ledger is known to reach this far. Whoever loads a meter reads up to here.
    pub(super) fn found(&mut self, shard: ShardId, last: Seq) {
        for position in [&mut self.sent, &mut self.applied] {
            let position = position.entry(shard).or_default();
            *position = last.max(*position);
        }
    }

    fn is_busy_with(&self, shard: ShardId, of: impl Fn(&Ask) -> ShardId) -> bool {
        let writes = match &self.state {
            State::Idle => false,
            State::Writes(group) => group.rows.iter().any(|row| row.shard == shard),
            State::Settles(shards) | State::Rests(shards, _) => shards.contains(&shard),
        };
        writes || self.queue.iter().any(|ask| of(ask) == shard)
    }
}

impl Shell {
    /// Whether events of a shard are on their way.
    pub(super) fn writes(&self, shard: ShardId) -> bool {
        self.lane.is_busy_with(shard, |ask| self.cast.shard(ask.subscription))
    }

    /// An event of a shard that is ours.
    pub(super) fn record(&mut self, cx: &mut Context<'_>, ask: Ask) {
        if self.lane.queue.len() >= QUEUE_MAX {
            return answer(cx, ask, Told::Unavailable);
        }
        self.lane.queue.push(ask);
        self.write(cx);
    }

    fn write(&mut self, cx: &mut Context<'_>) {
        if self.lane.queue.is_empty() || !matches!(self.lane.state, State::Idle) {
            return;
        }
        let count = self.lane.queue.len().min(GROUP_MAX);
        let asks: Vec<Ask> = self.lane.queue.drain(..count).collect();
        let mut rows: Vec<Row> = Vec::with_capacity(asks.len());
        for ask in &asks {
            let is_it = |row: &Row| row.subscription == ask.subscription && row.event == ask.id;
            if !rows.iter().any(is_it) {
                rows.push(self.row(cx.wall, ask));
            }
        }
        let fence = self.fence(rows.iter().map(|row| row.shard));
        self.lane.state = State::Writes(Group { rows: rows.clone(), asks });
        self.query(cx, Purpose::Append, Query::Append { fence, rows });
    }

    fn row(&mut self, at: Micros, ask: &Ask) -> Row {
        let shard = self.cast.shard(ask.subscription);
        let last = self.lane.sent.entry(shard).or_default();
        *last = last.next();
        let entry = Entry {
            seq: *last,
            kind: EntryKind::Usage,
            at,
            units: i64::try_from(ask.units).unwrap_or(i64::MAX),
            others: SmallVec::new(),
            charged: true,
            reservation: None,
        };
        Row { subscription: ask.subscription, shard, event: ask.id, entry }
    }

    /// The transaction ended.
    pub(super) fn appended(&mut self, cx: &mut Context<'_>, outcome: &Outcome) {
        let State::Writes(group) = mem::take(&mut self.lane.state) else { return };
        let told = match outcome {
            Outcome::Said(Reply::Appended(new)) => {
                let rows = group.rows.iter().zip(new).filter(|(_, new)| **new);
                let rows: Vec<Row> = rows.map(|(row, _)| row.clone()).collect();
                self.count(cx, &rows);
                Told::Recorded
            }
            Outcome::Away => Told::Unavailable,
            // Refused by the fence: perhaps a late claim of our own raised an epoch.
            _ => {
                let mut shards: Vec<ShardId> = group.rows.iter().map(|row| row.shard).collect();
                shards.sort_unstable();
                shards.dedup();
                self.lane.state = State::Settles(shards);
                self.query(cx, Purpose::SettleRenew, Query::Renew(self.me()));
                Told::Unavailable
            }
        };
        for ask in group.asks {
            answer(cx, ask, told);
        }
        self.write(cx);
    }

    /// A step of settling ended.
    pub(super) fn settled(&mut self, cx: &mut Context<'_>, purpose: &Purpose, outcome: &Outcome) {
        let State::Settles(shards) = mem::take(&mut self.lane.state) else { return };
        match (purpose, outcome) {
            (_, Outcome::Away | Outcome::Unknown) => {
                self.lane.state = State::Rests(shards, cx.now.plus(RETRY_PAUSE));
            }
            (Purpose::SettleRenew, Outcome::Said(Reply::Done)) => {
                let query = Query::Claim { incarnation: self.me(), wanted: shards.clone() };
                self.lane.state = State::Settles(shards);
                self.query(cx, Purpose::SettleClaim, query);
            }
            (Purpose::SettleClaim, Outcome::Said(Reply::Claimed(claimed)))
                if claimed.len() == shards.len() =>
            {
                let me = Some(self.me());
                let mut owners = Vec::new();
                let mut positions = Vec::new();
                for &(shard, epoch, last) in claimed {
                    self.hold(shard, epoch);
                    let sent = self.lane.sent.entry(shard).or_default();
                    *sent = last.max(*sent);
                    owners.push((shard, Owner { incarnation: me, epoch }));
                    let applied = self.lane.applied.get(&shard).copied().unwrap_or_default();
                    positions.push((shard, applied));
                }
                self.lane.state = State::Settles(shards);
                self.query(cx, Purpose::SettleRead, Query::After(positions));
                self.step(cx, Input::Told(owners));
            }
            (Purpose::SettleRead, Outcome::Said(Reply::Rows(rows))) => {
                self.count(cx, rows);
                self.write(cx);
            }
            // Somebody else owns them, or this boot is dead.
            _ => cx.out.push(Out::Exit),
        }
    }

    /// Tries again when it has rested.
    pub(super) fn settle_tick(&mut self, cx: &mut Context<'_>) {
        if let State::Rests(shards, until) = &mut self.lane.state
            && cx.now >= *until
        {
            let shards = mem::take(shards);
            self.lane.state = State::Settles(shards);
            self.query(cx, Purpose::SettleRenew, Query::Renew(self.me()));
        }
    }

    /// Durable rows move the meters that are here; the others find them when they are loaded.
    fn count(&mut self, cx: &mut Context<'_>, rows: &[Row]) {
        let mut last: HashMap<ShardId, Seq> = HashMap::new();
        for row in rows {
            self.checkpoints.count(cx.wall, row);
            let seq = last.entry(row.shard).or_default();
            *seq = row.entry.seq.max(*seq);
        }
        for (shard, seq) in last {
            let applied = self.lane.applied.entry(shard).or_default();
            *applied = seq.max(*applied);
        }
    }
}
