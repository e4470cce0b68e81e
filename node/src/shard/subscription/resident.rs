//! State of a resident subscription, and its steps.
//!
//! What waits is bounded in number and in time: after `commit_wait` a check gets what the plan's fail
//! policy says; while the store is at work and a commit can still be expected, after `commit_wait_max`.
//! A deleted subscription still counts rows that were taken in before, and decides nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::oneshot;
use weir_core::meter::{Answer, Check, Command, Decision, Entry, Meter, Wants};
use weir_core::plan::FailPolicy;
use weir_core::terms::Terms;
use weir_core::units::{Micros, PlanId, ReservationId, ShardId, Span};
use weir_store::rows::ReservationRow;

use super::persist;
use super::resting::Resting;
use crate::catalog::definition::Definition;
use crate::outcome::Undecided;
use crate::shard::Deps;
use crate::shard::handle::SubscriptionHandle;
use crate::shard::loader::Start;
use crate::shard::message::{CheckReply, Message, UsageView};

/// Time between two looks at those who have waited for long. More: they learn late that the store has
/// stopped. Less: a slow store gets busy actors as well.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What became of a check.
#[allow(clippy::large_enum_variant, reason = "on the stack, and nearly always the large one")]
pub(in crate::shard) enum Checked {
    /// It is answered.
    Now(Result<Decision, Undecided>),
    /// It waits for a commit; a dropped sender means that the actor died.
    Later(oneshot::Receiver<Result<Decision, Undecided>>),
}

/// What one look at a check came to.
enum Step {
    Answer(Result<Decision, Undecided>),
    /// The decision holds when the checkpoint of this version is committed.
    Park(i64, Decision),
    /// Without room in the escrow there is no decision yet.
    Wait,
}

/// A check that waits for escrow.
struct Waiter {
    check: Check,
    reply: CheckReply,
    since: Micros,
}

/// A named hold that waits for its commit.
struct Parked {
    decision: Box<Decision>,
    reply: CheckReply,
    /// Checkpoint version that makes it durable.
    version: i64,
    since: Micros,
}

/// Which of the checkpointer's queues it stands in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queued {
    pub(super) soon: bool,
    pub(super) now: bool,
}

/// State of a resident subscription.
pub(in crate::shard) struct Resident {
    pub(super) deps: Arc<Deps>,
    pub(super) meter: Meter,
    pub(super) definition: Definition,
    /// Its own door, for the checkpointer's queues.
    door: Weak<SubscriptionHandle>,
    pub(super) shard: ShardId,
    pub(super) version: i64,
    pub(super) queued: Queued,
    waiters: VecDeque<Waiter>,
    parked: Vec<Parked>,
    pub(super) reservations: Vec<ReservationRow>,
    pub(super) resting: Resting,
    alarm_set: bool,
    /// The plan changed by itself; what others remember of it goes once that is committed.
    pub(super) switched: bool,
}

impl Resident {
    pub(super) fn new(
        deps: Arc<Deps>,
        shard: ShardId,
        start: Start,
        door: Weak<SubscriptionHandle>,
    ) -> Self {
        Self {
            deps,
            meter: start.meter,
            definition: start.definition,
            door,
            shard,
            version: start.version,
            queued: Queued::default(),
            waiters: VecDeque::new(),
            parked: Vec::new(),
            reservations: Vec::new(),
            resting: Resting::No,
            alarm_set: false,
            switched: false,
        }
    }

    /// Whether it should have heard of this version of a plan, and has not.
    pub(in crate::shard) fn is_behind(&self, plan: PlanId, version: u32) -> bool {
        let terms = [Some(&self.definition.terms), self.definition.next.as_ref()];
        terms
            .into_iter()
            .flatten()
            .any(|terms| terms.plan.id == plan && terms.plan.version < version)
    }

    // ---- checks ----

    pub(in crate::shard) fn check(&mut self, now: Micros, check: &Check) -> Checked {
        // In the order they came: one that asks for less must not take what those before it wait for.
        let others_wait = !self.waiters.is_empty() && self.deps.health.is_prompt(now);
        let queues = others_wait && !check.asks_for_nothing();
        match if queues { Step::Wait } else { self.step(now, check) } {
            Step::Answer(answer) => Checked::Now(answer),
            Step::Park(version, decision) => {
                let (reply, answer) = oneshot::channel();
                self.park(now, version, decision, reply);
                Checked::Later(answer)
            }
            Step::Wait if self.is_full() => Checked::Now(Err(Undecided::Busy)),
            Step::Wait => {
                let (reply, answer) = oneshot::channel();
                self.waiters.push_back(Waiter { check: check.clone(), reply, since: now });
                Checked::Later(answer)
            }
        }
    }

    fn step(&mut self, now: Micros, check: &Check) -> Step {
        if self.definition.deleted {
            return Step::Answer(Err(Undecided::NotFound));
        }
        let hold_ttl = self.definition.terms.plan.hold_ttl;
        // Where nothing is bounded, two owners can do no harm.
        if !self.deps.ownership.may_decide(now, hold_ttl)
            && !check.asks_for_nothing()
            && self.meter.is_bounded()
        {
            return Step::Answer(self.decide_without_store(now, check));
        }
        if check.reserve.is_some() {
            // A named hold must be durable before it is told; asking a store that is away would only
            // pile up holds that nobody will learn of.
            if !self.deps.health.is_prompt(now) {
                return Step::Answer(Err(Undecided::StoreAway));
            }
            if self.is_full() {
                return Step::Answer(Err(Undecided::Busy));
            }
        }
        let outcome = self.meter.apply(now, Command::Check(check));
        let step = match outcome.answer {
            Answer::Decided(decision) => match decision.reservation {
                Some(id) if check.reserve == Some(id) => {
                    self.reserve(now, id, &decision);
                    Step::Park(self.version + 1, decision)
                }
                // A repeat of a check whose hold is not durable yet waits for the same commit.
                Some(id) if let Some(version) = self.parked_version(id) => {
                    Step::Park(version, decision)
                }
                _ => Step::Answer(Ok(decision)),
            },
            _ if self.deps.health.is_prompt(now) => Step::Wait,
            _ => Step::Answer(self.decide_without_store(now, check)),
        };
        self.follow(outcome.wants);
        step
    }

    /// Whether as many wait as may.
    fn is_full(&self) -> bool {
        self.waiters.len() + self.parked.len() >= self.deps.limits.mailbox_messages_max as usize
    }

    /// The row by which any node finds the subscription of a named hold.
    fn reserve(&mut self, now: Micros, id: ReservationId, decision: &Decision) {
        let expires_at = self
            .meter
            .reservation_expires_at(id)
            .unwrap_or_else(|| now.plus(decision.plan.hold_ttl));
        let owner = self.definition.id;
        self.reservations.push(persist::reservation_row(&self.meter, id, owner, now, expires_at));
    }

    fn parked_version(&self, id: ReservationId) -> Option<i64> {
        let parked = self.parked.iter().find(|parked| parked.decision.reservation == Some(id));
        parked.map(|parked| parked.version)
    }

    /// A named hold is answered when it is durable, so that its id can always be settled.
    fn park(&mut self, now: Micros, version: i64, decision: Decision, reply: CheckReply) {
        self.parked.push(Parked { decision: Box::new(decision), reply, version, since: now });
    }

    fn decide_without_store(&mut self, now: Micros, check: &Check) -> Result<Decision, Undecided> {
        let open = self.meter.terms().plan.fail_policy == FailPolicy::Open;
        // A named hold must be durable before it is told; without a store there is none.
        if !open || check.reserve.is_some() {
            return Err(Undecided::StoreAway);
        }
        let check = Check { degraded: true, ..check.clone() };
        let outcome = self.meter.apply(now, Command::Check(&check));
        self.follow(outcome.wants);
        match outcome.answer {
            Answer::Decided(decision) => Ok(decision),
            _ => Err(Undecided::StoreAway),
        }
    }

    // ---- those who wait ----

    /// Answers whose checkpoint is committed, and looks at the others again.
    pub(super) fn wake(&mut self, now: Micros) {
        let (durable, waiting) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked| parked.version <= self.version);
        self.parked = waiting;
        for Parked { decision, reply, .. } in durable {
            let _ = reply.send(Ok(*decision));
        }
        while let Some(waiter) = self.waiters.pop_front() {
            match self.step(now, &waiter.check) {
                Step::Answer(answer) => drop(waiter.reply.send(answer)),
                Step::Park(version, decision) => self.park(now, version, decision, waiter.reply),
                // It keeps its place, and the time it has already waited.
                Step::Wait => return self.waiters.push_front(waiter),
            }
        }
        self.clear_room();
    }

    /// Nearly every subscription waits for its first escrow once, and most of them never again.
    fn clear_room(&mut self) {
        if self.waiters.is_empty() {
            self.waiters = VecDeque::new();
        }
    }

    /// The actor is gone: whoever waits asks a new one.
    pub(in crate::shard) fn abandon(&mut self) {
        self.waiters.clear();
        self.parked.clear();
    }

    pub(super) fn nobody_waits(&self) -> bool {
        self.waiters.is_empty() && self.parked.is_empty()
    }

    /// Asks to be woken when the first of those who wait has waited long enough.
    pub(in crate::shard) fn set_alarm(&mut self, actor: &ActorRef<Message>) {
        self.set_alarm_in(self.deps.limits.commit_wait, actor);
    }

    fn set_alarm_in(&mut self, time: Duration, actor: &ActorRef<Message>) {
        if !self.alarm_set && !self.nobody_waits() {
            self.alarm_set = true;
            // Ends with the actor; its result does not matter.
            drop(actor.send_after(time, || Message::Overdue));
        }
    }

    pub(super) fn overdue(&mut self, now: Micros, actor: &ActorRef<Message>) {
        self.alarm_set = false;
        let since = now.minus(self.patience(now));
        while self.waiters.front().is_some_and(|waiter| waiter.since <= since) {
            if let Some(Waiter { check, reply, .. }) = self.waiters.pop_front() {
                let _ = reply.send(self.decide_without_store(now, &check));
            }
        }
        self.clear_room();
        while let Some(overdue) = self.parked.iter().find(|parked| parked.since <= since) {
            let Some(id) = overdue.decision.reservation else { break };
            self.forget(now, id);
        }
        self.set_alarm_in(LOOK_AGAIN, actor);
    }

    /// How long those who wait may have waited by now. A store that is at work gets more time: its
    /// commit will come, and a check that fails for want of a little patience is a failed request.
    fn patience(&self, now: Micros) -> Span {
        let limits = &self.deps.limits;
        let prompt = self.deps.health.is_prompt(now);
        Span::from(if prompt { limits.commit_wait_max } else { limits.commit_wait })
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

    // ---- the rest ----

    pub(super) fn record(&mut self, now: Micros, entries: &[Entry]) {
        for entry in entries {
            let outcome = self.meter.apply(now, Command::Record(entry));
            self.follow(outcome.wants);
        }
    }

    pub(super) fn usage(&mut self, now: Micros) -> UsageView {
        let outcome = self.meter.apply(now, Command::Tick);
        self.persist(outcome.wants);
        UsageView { decision: self.meter.standing_view(now), at: now }
    }

    /// The terms in force.
    pub(super) fn terms(&mut self, now: Micros) -> Arc<Terms> {
        let outcome = self.meter.apply(now, Command::Tick);
        self.persist(outcome.wants);
        self.meter.terms().clone()
    }

    pub(super) fn define(&mut self, now: Micros, definition: Definition) {
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
        self.definition = definition;
        if self.definition.deleted {
            for waiter in std::mem::take(&mut self.waiters) {
                let _ = waiter.reply.send(Err(Undecided::NotFound));
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
    pub(super) fn follow(&mut self, wants: Wants) {
        self.resting = Resting::No;
        self.persist(wants);
    }

    pub(super) fn persist(&mut self, wants: Wants) {
        // Without a door there is no actor any more, and nobody to take the state from.
        match wants {
            Wants::Checkpoint if !self.queued.soon => {
                let Some(door) = self.door.upgrade() else { return };
                self.queued.soon = true;
                self.deps.checkpointer.soon(door);
            }
            Wants::CheckpointNow if !self.queued.now => {
                let Some(door) = self.door.upgrade() else { return };
                self.queued.now = true;
                self.deps.checkpointer.now(door);
            }
            _ => {}
        }
    }
}
