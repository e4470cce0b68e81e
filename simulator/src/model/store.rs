//! The database, as far as ownership, ledger and checkpoints need it: a model of the SQL.
//!
//! Each query is one transaction and happens in one instant, which is what the locks in the SQL come
//! to. What the model must not do is be kinder than the statements are: it refuses where they refuse,
//! and a query that is late is carried out late. Differences that are meant: one ledger and one
//! state a subscription, no catalogue, no analytics.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;
use weir_core::meter::Entry;
use weir_core::ownership::{Member, MemberState, Owner, View};
use weir_core::units::{Epoch, Micros, Seq, ShardId};

use super::Break;
use super::cast::{Cast, LEASE, SHARDS};
use super::message::{Claimed, Fence, Query, Reply, Row, Stored};
use super::node::begin;

/// A node's row.
#[derive(Debug)]
struct Registered {
    incarnation: Uuid,
    state: MemberState,
    lease_until: Micros,
}

impl Registered {
    fn is_in(&self) -> bool {
        self.state != MemberState::Gone
    }
}

/// What a transaction changed, for the auditor.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    /// A write was accepted under this epoch while the shard stood at that one.
    Wrote { shard: ShardId, by: Owner, stands: Owner },
    /// A write was refused.
    Fenced,
    /// A row is in the ledger.
    Appended { subscription: usize, event: u64, units: u64 },
    /// A state replaced this count of used units.
    Checkpointed { subscription: usize, before: u64, after: u64 },
    /// A boot was declared dead.
    Buried(Uuid),
    /// A shard changed hands without its owner's word.
    Claimed { shard: ShardId, from: Option<Uuid>, by: Uuid },
    /// A shard was given away.
    HandedOver { shard: ShardId, from: Uuid },
}

/// All tables.
#[derive(Debug)]
pub(super) struct Store {
    breaks: Option<Break>,
    nodes: BTreeMap<String, Registered>,
    shards: Vec<Owner>,
    /// Rows by subscription, ascending by position.
    ledger: BTreeMap<usize, Vec<Row>>,
    identities: HashMap<(usize, u64), Seq>,
    states: HashMap<usize, Stored>,
    batches: HashMap<Uuid, u64>,
}

impl Store {
    pub(super) fn new(breaks: Option<Break>) -> Self {
        Self {
            breaks,
            nodes: BTreeMap::new(),
            shards: vec![Owner::default(); usize::from(SHARDS)],
            ledger: BTreeMap::new(),
            identities: HashMap::new(),
            states: HashMap::new(),
            batches: HashMap::new(),
        }
    }

    /// Carries out one transaction.
    pub(super) fn run(&mut self, now: Micros, query: &Query, facts: &mut Vec<Fact>) -> Reply {
        match query {
            Query::Join { name, incarnation } => self.join(now, name, *incarnation),
            Query::Renew(incarnation) => self.renew(now, *incarnation),
            Query::Look => Reply::Looked(self.view(now)),
            Query::Bury => self.bury(now, facts),
            Query::Claim { incarnation, wanted } => self.claim(now, *incarnation, wanted, facts),
            Query::HandOver { from, to, shards } => self.hand_over(now, *from, *to, shards, facts),
            Query::Drain(incarnation) => self.set_state(*incarnation, MemberState::Draining),
            Query::Leave(incarnation) => self.leave(*incarnation),
            Query::Append { fence, rows } => self.append(fence, rows, facts),
            Query::Checkpoint { fence, number, rows } => {
                self.checkpoint(fence, *number, rows, facts)
            }
            Query::Load(subscription) => Reply::Loaded(Box::new(self.state(*subscription))),
            Query::After(positions) => {
                let is_after = |row: &&Row| {
                    positions.iter().any(|(shard, seq)| row.shard == *shard && row.entry.seq > *seq)
                };
                let rows = self.ledger.values().flatten().filter(is_after);
                let mut rows: Vec<Row> = rows.cloned().collect();
                rows.sort_by_key(|row| (row.shard, row.entry.seq));
                Reply::Rows(rows)
            }
        }
    }

    /// The owner of a shard.
    pub(super) fn owner(&self, shard: ShardId) -> Owner {
        self.shards.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// Whether a boot has a row: not one that was never there, nor one whose name has a later boot.
    pub(super) fn is_registered(&self, incarnation: Uuid) -> bool {
        self.row(incarnation).is_some()
    }

    /// How many rows an event has in the ledger.
    pub(super) fn rows_of(&self, subscription: usize, event: u64) -> usize {
        self.rows(subscription).filter(|row| row.event == event).count()
    }

    /// Units of a subscription's rows up to a position.
    pub(super) fn sum(&self, subscription: usize, up_to: Seq) -> u64 {
        let counted = self.rows(subscription).filter(|row| row.entry.seq <= up_to);
        counted.map(|row| row.entry.units.unsigned_abs()).sum()
    }

    /// What a subscription's next owner would find used.
    pub(super) fn used(&self, cast: &Cast, subscription: usize, now: Micros) -> u64 {
        let terms = cast.subscriptions[subscription].terms.clone();
        let (stored, tail) = self.state(subscription);
        let meter = begin(terms, stored.as_ref(), false, &tail, now);
        meter.quotas().iter().map(|quota| quota.used.get()).sum()
    }

    fn rows(&self, subscription: usize) -> impl Iterator<Item = &Row> {
        self.ledger.get(&subscription).into_iter().flatten()
    }

    fn join(&mut self, now: Micros, name: &str, incarnation: Uuid) -> Reply {
        if let Some(row) = self.nodes.get(name) {
            if row.incarnation == incarnation && !row.is_in() {
                return Reply::Gone;
            }
            if row.incarnation != incarnation {
                self.batches.remove(&row.incarnation);
            }
        }
        let row = Registered { incarnation, state: MemberState::Up, lease_until: now.plus(LEASE) };
        self.nodes.insert(name.to_owned(), row);
        Reply::Done
    }

    fn renew(&mut self, now: Micros, incarnation: Uuid) -> Reply {
        match self.row_mut(incarnation) {
            Some(row) if row.is_in() => {
                row.lease_until = now.plus(LEASE);
                Reply::Done
            }
            _ => Reply::Gone,
        }
    }

    fn view(&self, now: Micros) -> View {
        let member = |(name, row): (&String, &Registered)| Member {
            name: name.clone(),
            incarnation: row.incarnation,
            state: row.state,
            expired: row.lease_until <= now,
        };
        View { members: self.nodes.iter().map(member).collect(), owners: self.shards.clone() }
    }

    fn bury(&mut self, now: Micros, facts: &mut Vec<Fact>) -> Reply {
        for row in self.nodes.values_mut() {
            if row.is_in() && row.lease_until <= now {
                row.state = MemberState::Gone;
                facts.push(Fact::Buried(row.incarnation));
            }
        }
        Reply::Done
    }

    fn claim(&mut self, now: Micros, by: Uuid, wanted: &[ShardId], facts: &mut Vec<Fact>) -> Reply {
        if !self.is_alive(now, by) {
            return Reply::Fenced;
        }
        let mut taken: Vec<Claimed> = Vec::new();
        for &shard in wanted {
            let owner = self.owner(shard);
            let is_free = owner
                .incarnation
                .is_none_or(|owner| owner == by || !self.row(owner).is_some_and(Registered::is_in));
            if is_free {
                let epoch = Epoch(owner.epoch.0 + 1);
                self.shards[usize::from(shard.0)] = Owner { incarnation: Some(by), epoch };
                facts.push(Fact::Claimed { shard, from: owner.incarnation, by });
                taken.push((shard, epoch, self.last(shard)));
            }
        }
        Reply::Claimed(taken)
    }

    fn hand_over(
        &mut self,
        now: Micros,
        from: Uuid,
        to: Uuid,
        shards: &[(ShardId, Epoch)],
        facts: &mut Vec<Fact>,
    ) -> Reply {
        let heir_is_up =
            self.is_alive(now, to) && self.row(to).is_some_and(|row| row.state == MemberState::Up);
        let mut taken = Vec::new();
        for &(shard, epoch) in shards {
            if heir_is_up && self.owner(shard) == (Owner { incarnation: Some(from), epoch }) {
                let epoch = Epoch(epoch.0 + 1);
                self.shards[usize::from(shard.0)] = Owner { incarnation: Some(to), epoch };
                facts.push(Fact::HandedOver { shard, from });
                taken.push((shard, epoch));
            }
        }
        Reply::Taken(taken)
    }

    fn set_state(&mut self, incarnation: Uuid, state: MemberState) -> Reply {
        match self.row_mut(incarnation) {
            Some(row) if row.is_in() => {
                row.state = state;
                Reply::Done
            }
            _ => Reply::Gone,
        }
    }

    fn leave(&mut self, incarnation: Uuid) -> Reply {
        self.set_state(incarnation, MemberState::Gone);
        for owner in &mut self.shards {
            if owner.incarnation == Some(incarnation) {
                owner.incarnation = None;
            }
        }
        Reply::Done
    }

    fn append(&mut self, fence: &Fence, rows: &[Row], facts: &mut Vec<Fact>) -> Reply {
        if !self.pass_fence(fence, facts) {
            return Reply::Fenced;
        }
        let mut new = Vec::with_capacity(rows.len());
        for row in rows {
            let identity = (row.subscription, row.event);
            let known = self.identities.contains_key(&identity);
            let is_new = !known || self.breaks == Some(Break::Dedupe);
            new.push(is_new);
            if is_new {
                self.identities.insert(identity, row.entry.seq);
                self.ledger.entry(row.subscription).or_default().push(row.clone());
                let units = row.entry.units.unsigned_abs();
                let (subscription, event) = identity;
                facts.push(Fact::Appended { subscription, event, units });
            }
        }
        Reply::Appended(new)
    }

    fn checkpoint(
        &mut self,
        fence: &Fence,
        number: u64,
        rows: &[Stored],
        facts: &mut Vec<Fact>,
    ) -> Reply {
        let stands = self.batches.get(&fence.incarnation).copied();
        if stands == Some(number) {
            return Reply::Done;
        }
        if number != stands.unwrap_or(0) + 1 {
            return Reply::Conflict;
        }
        if !self.pass_fence(fence, facts) {
            return Reply::Fenced;
        }
        self.batches.insert(fence.incarnation, number);
        for row in rows {
            let old = self.states.get(&row.subscription);
            if old.is_none_or(|old| (old.epoch, old.version) < (row.epoch, row.version)) {
                let used = |row: &Stored| row.state.counters.iter().map(|c| c.used).sum();
                facts.push(Fact::Checkpointed {
                    subscription: row.subscription,
                    before: old.map_or(0, used),
                    after: used(row),
                });
                self.states.insert(row.subscription, row.clone());
            }
        }
        Reply::Done
    }

    /// Whether every shard is held at its epoch; all or nothing.
    fn pass_fence(&self, fence: &Fence, facts: &mut Vec<Fact>) -> bool {
        let by = |epoch| Owner { incarnation: Some(fence.incarnation), epoch };
        let holds = fence.shards.iter().all(|&(shard, epoch)| self.owner(shard) == by(epoch));
        if !holds && self.breaks != Some(Break::Fence) {
            facts.push(Fact::Fenced);
            return false;
        }
        for &(shard, epoch) in &fence.shards {
            facts.push(Fact::Wrote { shard, by: by(epoch), stands: self.owner(shard) });
        }
        true
    }

    /// A stored state and the rows after it.
    fn state(&self, subscription: usize) -> (Option<Stored>, Vec<Entry>) {
        let stored = self.states.get(&subscription).cloned();
        let counted = stored.as_ref().map_or(Seq(0), |stored| stored.state.last_seq);
        let tail = self.rows(subscription).filter(|row| row.entry.seq > counted);
        let mut tail: Vec<Entry> = tail.map(|row| row.entry.clone()).collect();
        tail.sort_by_key(|entry| entry.seq);
        (stored, tail)
    }

    fn last(&self, shard: ShardId) -> Seq {
        let rows = self.ledger.values().flatten().filter(|row| row.shard == shard);
        rows.map(|row| row.entry.seq).max().unwrap_or_default()
    }

    fn is_alive(&self, now: Micros, incarnation: Uuid) -> bool {
        self.row(incarnation).is_some_and(|row| row.is_in() && row.lease_until > now)
    }

    fn row(&self, incarnation: Uuid) -> Option<&Registered> {
        self.nodes.values().find(|row| row.incarnation == incarnation)
    }

    fn row_mut(&mut self, incarnation: Uuid) -> Option<&mut Registered> {
        self.nodes.values_mut().find(|row| row.incarnation == incarnation)
    }
}
