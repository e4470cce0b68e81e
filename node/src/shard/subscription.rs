//! One subscription's actor: receive, apply, run what follows. No arithmetic here.
//!
//! ```text
//!   Check ─▶ apply ─┬─ decided ──────────────────────────────▶ reply
//!                   ├─ decided, reserved ─▶ checkpoint now ─▶ (confirm) ─▶ reply
//!                   └─ waits ─▶ checkpoint now ─▶ (confirm) ─▶ apply again
//!   Retire ─▶ clean checkpoint ─▶ (confirm, nothing happened since) ─▶ close the door ─▶ stop
//! ```
//! What waits is bounded by the mailbox's permits and by time: after `commit_wait` a check gets what
//! the plan's fail policy says. A deleted subscription still counts rows that were taken in before,
//! and decides nothing. If this actor panics, its supervisor forgets it and the next request
//! loads it from its last checkpoint and the ledger rows after it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use weir_core::meter::{Answer, Check, Command, Decision, Meter, Wants};
use weir_core::plan::FailPolicy;
use weir_core::units::{Micros, ReservationId, ShardId, Span, SubscriptionId};
use weir_store::rows::ReservationRow;

use super::Deps;
use super::handle::{Permit, SubscriptionHandle};
use super::loader::Loader;
use super::message::{CheckReply, Message, Undecided, UsageView};
use super::registry::Residents;
use crate::catalog::definition::Definition;
use crate::recorder::Taken;

mod persist;

/// The behaviour; state is in [`Resident`].
pub(super) struct SubscriptionActor;

/// What it starts from.
pub(super) struct Arguments {
    pub(super) subscription: SubscriptionId,
    pub(super) shard: ShardId,
    pub(super) deps: Deps,
    pub(super) loader: Loader,
    /// Where the handle is put once there is one.
    pub(super) slot: Arc<OnceLock<Arc<SubscriptionHandle>>>,
    /// Where it takes itself out when it leaves in order.
    pub(super) residents: Residents,
}

/// A check that waits for escrow.
struct Waiter {
    check: Check,
    reply: CheckReply,
    permit: Permit,
    until: Micros,
}

/// A named hold that waits for its commit.
struct Parked {
    decision: Box<Decision>,
    reply: CheckReply,
    /// Checkpoint version that makes it durable.
    version: i64,
    until: Micros,
    /// Given back with the reply.
    _permit: Permit,
}

/// Where an orderly end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resting {
    No,
    /// The next checkpoint is to be a clean one.
    Asked,
    /// It was taken; nothing happened since.
    Taken,
}

/// Which of the checkpointer's queues it stands in.
#[derive(Clone, Copy, Debug, Default)]
struct Queued {
    soon: bool,
    now: bool,
}

/// State of a resident subscription.
pub(super) struct Resident {
    deps: Deps,
    meter: Meter,
    definition: Definition,
    handle: Arc<SubscriptionHandle>,
    residents: Residents,
    shard: ShardId,
    version: i64,
    queued: Queued,
    waiters: VecDeque<Waiter>,
    parked: Vec<Parked>,
    reservations: Vec<ReservationRow>,
    resting: Resting,
    alarm_set: bool,
    /// The plan changed by itself; what others remember of it goes once that is committed.
    switched: bool,
}

impl Actor for SubscriptionActor {
    type Msg = Message;
    type State = Resident;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        args: Arguments,
    ) -> Result<Resident, ActorProcessingErr> {
        // Before the read: see `Ownership::birth`.
        let born = args.deps.ownership.birth();
        let start = args.loader.load(&args.deps, args.subscription, args.shard).await?;
        let plans = (start.definition.plan(), start.definition.next_plan());
        let now = args.deps.clock.now();
        let handle =
            SubscriptionHandle::new(args.subscription, args.shard, born, myself, now, plans);
        let handle = args.slot.get_or_init(|| Arc::new(handle)).clone();
        let mut resident = Resident {
            deps: args.deps,
            meter: start.meter,
            definition: start.definition,
            handle,
            residents: args.residents,
            shard: args.shard,
            version: start.version,
            queued: Queued::default(),
            waiters: VecDeque::new(),
            parked: Vec::new(),
            reservations: Vec::new(),
            resting: Resting::No,
            alarm_set: false,
            switched: false,
        };
        // A hole is only closed by a checkpoint, even where there is nothing new to write.
        if start.unclean || resident.deps.ownership.is_hole(args.subscription) {
            resident.persist(Wants::Checkpoint);
        }
        Ok(resident)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut Resident,
    ) -> Result<(), ActorProcessingErr> {
        let now = state.deps.clock.now();
        match message {
            Message::Check(check, reply, permit) => {
                state.check(now, check, reply, permit);
                state.set_alarm(&myself);
            }
            Message::Record(entries, reply, permit) => {
                for entry in &entries {
                    let outcome = state.meter.apply(now, Command::Record(entry));
                    state.follow(outcome.wants);
                }
                drop(permit);
                // Whoever waited may have gone; the rows are counted all the same.
                let _ = reply.send(());
            }
            Message::Usage(reply, permit) => {
                let view = state.usage(now);
                drop(permit);
                let _ = reply.send(view);
            }
            Message::Define(definition, reply, permit) => {
                state.define(now, *definition);
                drop(permit);
                let _ = reply.send(());
            }
            Message::Take(reply) => {
                let taken = state.take(now);
                let _ = reply.send(taken);
            }
            Message::Confirm => {
                if state.confirm(now) {
                    state.leave();
                    myself.stop(None);
                }
                state.set_alarm(&myself);
            }
            Message::Overdue => {
                state.alarm_set = false;
                state.give_up_waiting(now);
                state.set_alarm(&myself);
            }
            Message::Retire => state.retire(),
        }
        Ok(())
    }
}

impl Resident {
    fn check(&mut self, now: Micros, check: Check, reply: CheckReply, permit: Permit) {
        if self.definition.deleted {
            drop(permit);
            let _ = reply.send(Err(Undecided::NotFound));
            return;
        }
        // A named hold must be durable before it is told; asking a store that is away would only
        // pile up holds that nobody will learn of.
        if check.reserve.is_some() && !self.deps.health.is_prompt(now) {
            drop(permit);
            let _ = reply.send(Err(Undecided::StoreAway));
            return;
        }
        let outcome = self.meter.apply(now, Command::Check(&check));
        match outcome.answer {
            Answer::Decided(decision) => match decision.reservation {
                Some(id) if check.reserve == Some(id) => {
                    self.reserve(now, id, &decision);
                    self.park(now, self.version + 1, decision, reply, permit);
                }
                // A repeat of a check whose hold is not durable yet waits for the same commit.
                Some(id) if let Some(version) = self.parked_version(id) => {
                    self.park(now, version, decision, reply, permit);
                }
                _ => {
                    drop(permit);
                    let _ = reply.send(Ok(decision));
                }
            },
            _ if self.deps.health.is_prompt(now) => {
                let until = now.plus(self.commit_wait());
                self.waiters.push_back(Waiter { check, reply, permit, until });
            }
            _ => self.decide_without_store(now, check, reply, permit),
        }
        self.follow(outcome.wants);
    }

    /// The row by which any node finds the subscription of a named hold.
    fn reserve(&mut self, now: Micros, id: ReservationId, decision: &Decision) {
        let expires_at = self
            .meter
            .reservation_expires_at(id)
            .unwrap_or_else(|| now.plus(decision.terms.plan.hold_ttl));
        let owner = self.definition.id;
        self.reservations.push(persist::reservation_row(&self.meter, id, owner, now, expires_at));
    }

    fn parked_version(&self, id: ReservationId) -> Option<i64> {
        let parked = self.parked.iter().find(|parked| parked.decision.reservation == Some(id));
        parked.map(|parked| parked.version)
    }

    /// A named hold is answered when it is durable, so that its id can always be settled.
    fn park(
        &mut self,
        now: Micros,
        version: i64,
        decision: Decision,
        reply: CheckReply,
        permit: Permit,
    ) {
        let until = now.plus(self.commit_wait());
        let decision = Box::new(decision);
        self.parked.push(Parked { decision, reply, version, until, _permit: permit });
    }

    fn decide_without_store(
        &mut self,
        now: Micros,
        mut check: Check,
        reply: CheckReply,
        permit: Permit,
    ) {
        let open = self.meter.terms().plan.fail_policy == FailPolicy::Open;
        // A named hold must be durable before it is told; without a store there is none.
        if !open || check.reserve.is_some() {
            drop(permit);
            let _ = reply.send(Err(Undecided::StoreAway));
            return;
        }
        check.degraded = true;
        let outcome = self.meter.apply(now, Command::Check(&check));
        drop(permit);
        let _ = reply.send(match outcome.answer {
            Answer::Decided(decision) => Ok(decision),
            _ => Err(Undecided::StoreAway),
        });
        self.follow(outcome.wants);
    }

    fn usage(&mut self, now: Micros) -> UsageView {
        let outcome = self.meter.apply(now, Command::Tick);
        self.persist(outcome.wants);
        UsageView { decision: self.meter.standing_view(now), at: now }
    }

    fn define(&mut self, now: Micros, definition: Definition) {
        if !self.is_newer(&definition) {
            return;
        }
        let suspend = self.meter.apply(now, Command::Suspend(definition.suspended));
        self.follow(suspend.wants);
        let outcome = self.meter.apply(now, Command::Configure(definition.terms.clone()));
        self.follow(outcome.wants);
        // A change that no longer waits is overwritten with the terms in force: moving to those at the
        // period's end changes nothing.
        let called_off = self.definition.next.is_some().then_some(&definition.terms);
        if let Some(next) = definition.next.as_ref().or(called_off) {
            let outcome = self.meter.apply(now, Command::ConfigureNext(next.clone()));
            self.follow(outcome.wants);
        }
        self.handle.set_plans((definition.plan(), definition.next_plan()));
        self.definition = definition;
        if self.definition.deleted {
            for Waiter { reply, permit, .. } in std::mem::take(&mut self.waiters) {
                drop(permit);
                let _ = reply.send(Err(Undecided::NotFound));
            }
        }
    }

    /// Whether a definition says more than what is known. Versions compare only within one plan. When
    /// the meter has moved to its next terms by itself and the row does not say so yet, a row of the
    /// same revision was read before that and would undo the move.
    fn is_newer(&self, definition: &Definition) -> bool {
        let own = &self.definition;
        if definition.revision != own.revision {
            return definition.revision > own.revision;
        }
        let moved = !Arc::ptr_eq(self.meter.terms(), &own.terms);
        let (new, old) = (&definition.terms.plan, &own.terms.plan);
        !moved && (new.id != old.id || new.version >= old.version)
    }

    /// Something happened: it is not the time to rest, and what is to be persisted will be.
    fn follow(&mut self, wants: Wants) {
        self.resting = Resting::No;
        self.persist(wants);
    }

    fn persist(&mut self, wants: Wants) {
        match wants {
            Wants::Nothing => {}
            Wants::Checkpoint => {
                if !self.queued.soon {
                    self.queued.soon = true;
                    self.deps.checkpointer.soon(self.handle.clone());
                }
            }
            Wants::CheckpointNow => {
                if !self.queued.now {
                    self.queued.now = true;
                    self.deps.checkpointer.now(self.handle.clone());
                }
            }
        }
    }

    /// Asks to be woken when the first of those who wait has waited long enough.
    fn set_alarm(&mut self, myself: &ActorRef<Message>) {
        if !self.alarm_set && (!self.waiters.is_empty() || !self.parked.is_empty()) {
            self.alarm_set = true;
            // Ends with the actor; its result does not matter.
            drop(myself.send_after(self.deps.limits.commit_wait, || Message::Overdue));
        }
    }

    fn give_up_waiting(&mut self, now: Micros) {
        while self.waiters.front().is_some_and(|waiter| waiter.until <= now) {
            if let Some(Waiter { check, reply, permit, .. }) = self.waiters.pop_front() {
                self.decide_without_store(now, check, reply, permit);
            }
        }
        while let Some(overdue) = self.parked.iter().find(|parked| parked.until <= now) {
            let Some(id) = overdue.decision.reservation else { return };
            self.forget(now, id);
        }
    }

    /// As if the hold had never been asked for; its repeats learn the same.
    fn forget(&mut self, now: Micros, id: ReservationId) {
        let outcome = self.meter.apply(now, Command::Forget(id));
        self.follow(outcome.wants);
        self.reservations.retain(|row| row.id != id);
        let (forgotten, waiting) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked| parked.decision.reservation == Some(id));
        self.parked = waiting;
        for Parked { reply, .. } in forgotten {
            let _ = reply.send(Err(Undecided::StoreAway));
        }
    }

    fn commit_wait(&self) -> Span {
        let micros = self.deps.limits.commit_wait.as_micros();
        Span::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    // ---- checkpoints ----

    fn leave(&self) {
        let own = self.handle.actor_id();
        self.residents.remove_if(&self.definition.id, |_, handle| handle.actor_id() == own);
        self.deps.metrics.passivated();
    }

    fn retire(&mut self) {
        if self.waiters.is_empty() && self.parked.is_empty() && self.resting == Resting::No {
            self.resting = Resting::Asked;
            // Nobody waits for it: those that someone waits for go first.
            self.persist(Wants::Checkpoint);
        }
    }

    fn take(&mut self, now: Micros) -> Taken {
        self.queued.soon = false;
        self.queued.now = false;
        self.version += 1;
        let clean = self.resting == Resting::Asked;
        if clean {
            self.resting = Resting::Taken;
        }
        let checkpoint = self.meter.checkpoint(now, clean);
        let switched_to = checkpoint.switched.then(|| self.meter.terms().plan.id);
        if switched_to.is_some() {
            let plan = self.meter.terms().plan.id;
            self.handle.set_plans((plan, None));
            // The store raises the revision when it moves the row to another plan.
            self.definition.revision += i64::from(plan != self.definition.terms.plan.id);
            self.definition.terms = self.meter.terms().clone();
            self.definition.next = None;
            self.switched = true;
        }
        persist::taken(
            &self.meter,
            &self.definition,
            checkpoint,
            persist::Stamp { shard: self.shard, version: self.version, clean, now },
            std::mem::take(&mut self.reservations),
            switched_to,
        )
    }

    /// True when the actor is to end.
    fn confirm(&mut self, now: Micros) -> bool {
        let outcome = self.meter.apply(now, Command::Confirm);
        self.persist(outcome.wants);
        if std::mem::take(&mut self.switched) {
            self.deps.catalog.forget_subscription(self.definition.id);
        }
        let (durable, waiting) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked| parked.version <= self.version);
        self.parked = waiting;
        for Parked { decision, reply, .. } in durable {
            let _ = reply.send(Ok(*decision));
        }
        for Waiter { check, reply, permit, until } in std::mem::take(&mut self.waiters) {
            self.check_again(now, check, reply, permit, until);
        }
        // A period that ended meanwhile left something to persist.
        let persisted = !self.queued.soon && !self.queued.now;
        match self.resting {
            Resting::Taken if persisted && self.handle.close() => true,
            Resting::Taken => {
                self.resting = Resting::No;
                false
            }
            Resting::Asked | Resting::No => false,
        }
    }

    /// Like a new check, but it keeps the time it has already waited.
    fn check_again(
        &mut self,
        now: Micros,
        check: Check,
        reply: CheckReply,
        permit: Permit,
        until: Micros,
    ) {
        let before = self.waiters.len();
        self.check(now, check, reply, permit);
        if self.waiters.len() > before
            && let Some(waiter) = self.waiters.back_mut()
        {
            waiter.until = until;
        }
    }
}
