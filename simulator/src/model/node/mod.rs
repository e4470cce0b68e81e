//! The shell of one simulated node: as thin as the real one, and with the same duties.
//!
//! It drives an [`ownership::Node`](Machine) and real meters; it decides nothing about ownership and
//! counts nothing itself. What it owes them is in their documents: persist, then answer; one
//! checkpoint of a meter under way; an unknown outcome is settled before anything else is written.
//!
//! ```text
//!   mod: messages, clock ─▶ machine ─▶ effects        requests: route, decide, answer
//!   moves: freeze, flush, hand over                   lane: events into the ledger
//!   checkpoints: load and persist meters              operations: queries and their deadlines
//! ```

mod checkpoints;
mod lane;
mod moves;
mod operations;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use weir_core::ownership::{Effect, Input, Node as Machine, Owner, Renewal, Slot};
use weir_core::units::{Epoch, Micros, Seq, ShardId};

use super::Break;
use super::cast::{Cast, GRACE, SHARDS, millis, settings};
use super::message::{Ask, End, Fence, Message, Pid, Query, Reply};
use checkpoints::Checkpoints;
use lane::Lane;
use operations::{Operations, Outcome, Purpose};

pub(super) use checkpoints::begin;
pub(super) use requests::WAITING_MAX;

/// A node that is to go gives away what it has; after this it goes all the same.
const DRAIN_MAX: weir_core::units::Span = millis(8_000);

/// What a step asks of the world.
#[derive(Debug)]
pub(super) enum Out {
    Send(End, Message),
    /// A meter's state is about to be written: what it counts up to which row.
    Counted {
        subscription: usize,
        last: Seq,
        used: u64,
    },
    /// For people who read along.
    Note(String),
    /// The process ends.
    Exit,
}

/// What a step is given: its clocks, and where what follows goes.
pub(super) struct Context<'a> {
    pub(super) now: Micros,
    pub(super) wall: Micros,
    pub(super) out: &'a mut Vec<Out>,
    /// Whether anyone reads along.
    pub(super) traced: bool,
}

/// One node.
#[derive(Debug)]
pub(super) struct Shell {
    pid: Pid,
    name: String,
    cast: Arc<Cast>,
    breaks: Option<Break>,
    /// `None` until it has joined.
    machine: Option<Machine>,
    /// When it asked to join: its lease counts from there.
    asked_at: Micros,
    /// Epochs that its writes carry.
    epochs: BTreeMap<ShardId, Epoch>,
    operations: Operations,
    waiting: BTreeMap<ShardId, Vec<Ask>>,
    checkpoints: Checkpoints,
    lane: Lane,
    /// Shards that are being emptied, and since when.
    freezes: BTreeMap<ShardId, Micros>,
    leaves_by: Option<Micros>,
    /// The store has it as draining.
    is_known_to_leave: bool,
}

impl Shell {
    pub(super) fn new(pid: Pid, name: String, cast: Arc<Cast>, breaks: Option<Break>) -> Self {
        Self {
            pid,
            name,
            cast,
            breaks,
            machine: None,
            asked_at: Micros::EPOCH,
            epochs: BTreeMap::new(),
            operations: Operations::default(),
            waiting: BTreeMap::new(),
            checkpoints: Checkpoints::default(),
            lane: Lane::default(),
            freezes: BTreeMap::new(),
            leaves_by: None,
            is_known_to_leave: false,
        }
    }

    /// What it has to do with a shard; `None` before it joined.
    pub(super) fn slot(&self, shard: ShardId) -> Option<Slot> {
        self.machine.as_ref().map(|machine| machine.slot(shard))
    }

    /// Whether its lease holds by its own clock.
    pub(super) fn is_trusted(&self, now: Micros) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.is_trusted(now))
    }

    /// Sizes of what can grow, by name.
    pub(super) fn sizes(&self) -> [(&'static str, usize, usize); 4] {
        let waiting = self.waiting.values().map(Vec::len).max().unwrap_or_default();
        let moving = (0..SHARDS).filter(|&shard| self.is_moving(ShardId(shard))).count();
        [
            ("requests that wait for a shard", waiting, WAITING_MAX),
            ("events that wait for the ledger", self.lane.len(), lane::QUEUE_MAX),
            ("queries under way", self.operations.len(), operations::UNDER_WAY_MAX),
            ("shards that move", moving, settings().moves_max),
        ]
    }

    /// It begins.
    pub(super) fn boot(&mut self, cx: &mut Context<'_>) {
        self.join(cx);
    }

    /// It was asked to go.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        self.leaves_by = Some(cx.now.plus(DRAIN_MAX));
        self.step(cx, Input::Drain);
    }

    /// Time passed.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        for purpose in self.operations.expire(cx.now) {
            self.came(cx, purpose, Outcome::Unknown);
        }
        if self.machine.is_some() {
            self.step(cx, Input::Tick);
            self.checkpoint_tick(cx);
            self.settle_tick(cx);
            self.leave(cx);
        } else if !self.operations.is_under_way(&Purpose::Join) {
            self.join(cx);
        }
        self.advance_freezes(cx);
    }

    /// Something arrived.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, from: End, message: Message) {
        match message {
            Message::Ask(ask) => self.ask(cx, ask),
            Message::Answer(ask, told) => requests::pass_back(cx, ask, told),
            Message::Owners(owners) => self.step(cx, Input::Told(owners)),
            Message::Reply(number, reply) => {
                // An answer after its deadline is not waited for any more.
                if let Some(purpose) = self.operations.take(number) {
                    let outcome =
                        if matches!(reply, Reply::Away) { Outcome::Away } else { reply.into() };
                    self.came(cx, purpose, outcome);
                }
            }
            Message::Query(..) => {
                debug_assert!(false, "only the store is queried, not by {from:?}");
            }
        }
        self.advance_freezes(cx);
    }

    fn me(&self) -> Uuid {
        self.pid.incarnation()
    }

    /// Whether it may decide: a successor reckons with a zombie's decisions for this long.
    fn may_decide(&self, now: Micros) -> bool {
        let is_zombie = !self.is_trusted(now.minus(GRACE));
        !is_zombie || self.breaks == Some(Break::Zombie)
    }

    fn join(&mut self, cx: &mut Context<'_>) {
        self.asked_at = cx.now;
        let query = Query::Join { name: self.name.clone(), incarnation: self.me() };
        self.query(cx, Purpose::Join, query);
    }

    fn joined(&mut self, cx: &mut Context<'_>, outcome: &Outcome) {
        match outcome {
            Outcome::Said(Reply::Done) => {
                let machine = Machine::joined(self.me(), SHARDS, settings(), self.asked_at);
                self.machine = Some(machine);
                self.step(cx, Input::Tick);
            }
            // A join is asked once. The first of two could come much later, after another boot has
            // taken the name, and bring back one that was pushed out and whose shards are others'.
            Outcome::Said(_) | Outcome::Unknown => cx.out.push(Out::Exit),
            // With the next tick it asks again.
            Outcome::Away => {}
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, input: Input) {
        let Some(machine) = &mut self.machine else { return };
        let effects = machine.step(cx.now, input);
        for effect in effects {
            if cx.traced && !matches!(effect, Effect::Renew | Effect::Look) {
                cx.out.push(Out::Note(format!("{effect:?}")));
            }
            self.run(cx, effect);
        }
    }

    fn run(&mut self, cx: &mut Context<'_>, effect: Effect) {
        let me = self.me();
        match effect {
            Effect::Renew => self.query(cx, Purpose::Renew, Query::Renew(me)),
            Effect::Look => self.query(cx, Purpose::Look, Query::Look),
            // The claim that comes next must not overtake it.
            Effect::Bury => self.query(cx, Purpose::Bury(Vec::new()), Query::Bury),
            Effect::Claim(wanted) => self.claim(cx, wanted),
            Effect::Serve(shard, epoch) | Effect::Thaw(shard, epoch) => {
                self.hold(shard, epoch);
                self.freezes.remove(&shard);
                self.ask_again(cx, shard);
            }
            Effect::Freeze(shard) => self.freeze(cx, shard),
            Effect::HandOver(to, shards) => {
                let offered = shards.iter().map(|(shard, _)| *shard).collect();
                let query = Query::HandOver { from: me, to, shards };
                self.query(cx, Purpose::HandOver(offered), query);
            }
            Effect::Release(shard) => {
                self.freezes.remove(&shard);
                self.epochs.remove(&shard);
                self.ask_again(cx, shard);
            }
            Effect::Tell(owners) => self.tell(cx, &owners),
            Effect::Lost => cx.out.push(Out::Exit),
        }
    }

    fn claim(&mut self, cx: &mut Context<'_>, wanted: Vec<ShardId>) {
        if let Some(claims) = self.operations.burial() {
            claims.extend(wanted);
            return;
        }
        let settles = |shard: &ShardId| matches!(self.slot(*shard), Some(Slot::Settling(_)));
        if self.breaks == Some(Break::SelfBump) && wanted.iter().all(settles) {
            // The drill: it goes on as if the epoch had been raised.
            let got = wanted.iter().map(|shard| (*shard, self.epoch(*shard))).collect();
            self.step(cx, Input::Claimed { wanted, got });
            return;
        }
        let query = Query::Claim { incarnation: self.me(), wanted: wanted.clone() };
        self.query(cx, Purpose::Claim(wanted), query);
    }

    fn tell(&self, cx: &mut Context<'_>, owners: &[(ShardId, Owner)]) {
        let Some(machine) = &self.machine else { return };
        let peers = machine.members().filter_map(|member| Pid::of(member.incarnation));
        for peer in peers.filter(|peer| *peer != self.pid) {
            cx.out.push(Out::Send(End::Node(peer), Message::Owners(owners.to_vec())));
        }
    }

    /// An operation ended.
    fn came(&mut self, cx: &mut Context<'_>, purpose: Purpose, outcome: Outcome) {
        match purpose {
            Purpose::Join => self.joined(cx, &outcome),
            Purpose::Renew => {
                let renewal = match outcome {
                    Outcome::Said(Reply::Done) => Renewal::Held,
                    Outcome::Said(_) => Renewal::Gone,
                    Outcome::Away | Outcome::Unknown => Renewal::Away,
                };
                self.step(cx, Input::Renewed(renewal));
            }
            Purpose::Look => {
                let view = match outcome {
                    Outcome::Said(Reply::Looked(view)) => Some(view),
                    _ => None,
                };
                self.step(cx, Input::Looked(view));
            }
            Purpose::Bury(claims) if claims.is_empty() => {}
            Purpose::Bury(claims) => self.claim(cx, claims),
            Purpose::Claim(wanted) => self.claimed(cx, wanted, &outcome),
            Purpose::HandOver(offered) => {
                let taken = match outcome {
                    Outcome::Said(Reply::Taken(taken)) => Some(taken),
                    // Certainly nothing was done.
                    Outcome::Away => Some(Vec::new()),
                    _ => None,
                };
                self.step(cx, Input::HandedOver { offered, taken });
            }
            Purpose::Drain => self.is_known_to_leave |= matches!(outcome, Outcome::Said(_)),
            Purpose::LastLook => self.looked_last(cx, &outcome),
            Purpose::Leave => cx.out.push(Out::Exit),
            Purpose::Append => self.appended(cx, &outcome),
            Purpose::SettleRenew | Purpose::SettleClaim | Purpose::SettleRead => {
                self.settled(cx, &purpose, &outcome);
            }
            Purpose::Checkpoint => self.checkpointed(cx, &outcome),
            Purpose::StillOurs(fence) => self.still_ours(cx, &fence, &outcome),
            Purpose::Load(subscription) => self.loaded(cx, subscription, outcome),
        }
    }

    fn claimed(&mut self, cx: &mut Context<'_>, wanted: Vec<ShardId>, outcome: &Outcome) {
        let mut got = Vec::new();
        if let Outcome::Said(Reply::Claimed(claimed)) = outcome {
            for &(shard, epoch, last) in claimed {
                self.lane.found(shard, last);
                got.push((shard, epoch));
            }
        }
        self.step(cx, Input::Claimed { wanted, got });
    }

    /// Says that it is to go, and goes when it has nothing left.
    fn leave(&mut self, cx: &mut Context<'_>) {
        let Some(by) = self.leaves_by else { return };
        if !self.is_known_to_leave && !self.operations.is_under_way(&Purpose::Drain) {
            self.query(cx, Purpose::Drain, Query::Drain(self.me()));
        }
        let is_empty = self.machine.as_ref().is_none_or(Machine::is_empty);
        let is_going = [Purpose::LastLook, Purpose::Leave]
            .iter()
            .any(|purpose| self.operations.is_under_way(purpose));
        if cx.now >= by {
            cx.out.push(Out::Exit);
        } else if is_empty && self.is_known_to_leave && !is_going {
            self.query(cx, Purpose::LastLook, Query::Look);
        }
    }

    /// Since the store has it as draining nobody can give it anything; what was given just before
    /// shows now, and would be nobody's if it left.
    fn looked_last(&mut self, cx: &mut Context<'_>, outcome: &Outcome) {
        let Outcome::Said(Reply::Looked(view)) = outcome else { return };
        let me = Some(self.me());
        let owns_nothing = view.owners.iter().all(|owner| owner.incarnation != me);
        if owns_nothing && self.machine.as_ref().is_none_or(Machine::is_empty) {
            self.query(cx, Purpose::Leave, Query::Leave(self.me()));
        }
    }

    fn query(&mut self, cx: &mut Context<'_>, purpose: Purpose, query: Query) {
        let number = self.operations.begin(cx.now, purpose);
        cx.out.push(Out::Send(End::Store, Message::Query(number, Arc::new(query))));
    }

    /// An epoch of ours is never forgotten for an older one.
    fn hold(&mut self, shard: ShardId, epoch: Epoch) {
        let held = self.epochs.entry(shard).or_default();
        *held = epoch.max(*held);
    }

    fn epoch(&self, shard: ShardId) -> Epoch {
        self.epochs.get(&shard).copied().unwrap_or_default()
    }

    fn fence(&self, shards: impl IntoIterator<Item = ShardId>) -> Fence {
        let mut shards: Vec<ShardId> = shards.into_iter().collect();
        shards.sort_unstable();
        shards.dedup();
        let shards = shards.into_iter().map(|shard| (shard, self.epoch(shard))).collect();
        Fence { incarnation: self.me(), shards }
    }
}
