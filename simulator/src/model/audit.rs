//! The oracles: they see everything, and nothing that runs sees them.
//!
//! Each promise is checked at the moment at which it would be broken, so that a red run stops there.
//! They judge by true time and err to one side only: what they call broken is broken, whatever the
//! clocks of the nodes say.

use std::collections::{BTreeMap, HashMap};

use weir_core::invariants::Invariant;
use weir_core::ownership::{Owner, Slot};
use weir_core::units::{Epoch, MICROS_PER_SECOND, Micros, Seq, ShardId};

use super::cast::{Cast, Kind, SHARDS, SURELY_HELD, SURELY_SETTLED};
use super::message::Pid;
use super::node::Shell;
use super::process::Process;
use super::store::{Fact, Store};

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// One of the named invariants.
    Invariant(Invariant),
    /// Nobody takes a shard from a node that is alive and has not given it.
    Consent,
}

impl std::fmt::Display for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invariant(invariant) => invariant.fmt(f),
            Self::Consent => f.write_str("no shard is taken from a living node"),
        }
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// When, in microseconds of true time since the run began.
    pub at: Micros,
    /// What happened.
    pub detail: String,
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Checks that passed.
    pub allowed: u64,
    /// Checks that were refused.
    pub refused: u64,
    /// Checks that nobody answered in time: they may or may not hold something.
    pub unknown: u64,
    /// Events in the ledger.
    pub events: u64,
    /// Shards taken from dead nodes, or from nobody.
    pub takeovers: u64,
    /// Shards given away in order.
    pub hand_overs: u64,
    /// Writes that the fence refused.
    pub fenced: u64,
    /// Boots that were declared dead.
    pub buried: u64,
    /// Boots that began.
    pub boots: u64,
    /// Faults.
    pub faults: u64,
}

impl Figures {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.events += other.events;
        self.takeovers += other.takeovers;
        self.hand_overs += other.hand_overs;
        self.fenced += other.fenced;
        self.buried += other.buried;
        self.boots += other.boots;
        self.faults += other.faults;
    }
}

/// What a gateway let through.
#[derive(Debug)]
struct Admission {
    units: u64,
    /// When it first asked: its hold began later.
    asked_at: Micros,
    settled: bool,
}

/// The judge.
#[derive(Debug, Default)]
pub(super) struct Auditor {
    pub(super) figures: Figures,
    pub(super) violation: Option<Violation>,
    now: Micros,
    admitted: HashMap<usize, BTreeMap<u64, Admission>>,
    newest: HashMap<ShardId, Epoch>,
    /// Queries about owners of a boot in the second that runs.
    queries: HashMap<Pid, (i64, u32)>,
}

/// Queries about nodes and owners of one boot in one second: some ten are usual, as many again while
/// an outcome is unknown, and a few for each shard that moves. More is a loop that asks as fast as it
/// is answered. What gateways ask for is not counted: they bring it about themselves.
const QUERIES_PER_SECOND_MAX: u32 = 100;

impl Auditor {
    /// The time of what is judged next.
    pub(super) const fn at(&mut self, now: Micros) {
        self.now = now;
    }

    /// Notes a broken promise; the first stands.
    pub(super) fn broken(&mut self, promise: Promise, detail: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { promise, at: self.now, detail: detail() });
        }
    }

    fn holds(&mut self, invariant: Invariant, holds: bool, detail: impl FnOnce() -> String) {
        if !holds {
            self.broken(Promise::Invariant(invariant), detail);
        }
    }

    /// A gateway let a request through that it first asked about at `asked_at`.
    pub(super) fn admitted(
        &mut self,
        cast: &Cast,
        subscription: usize,
        request: u64,
        units: u64,
        asked_at: Micros,
    ) {
        self.figures.allowed += 1;
        let who = &cast.subscriptions[subscription];
        if who.kind == Kind::Soft {
            return;
        }
        let now = self.now;
        let admitted = self.admitted.entry(subscription).or_default();
        admitted.insert(request, Admission { units, asked_at, settled: false });
        let stays = |one: &Admission| {
            one.settled || who.kind == Kind::HardByCheck || now < one.asked_at.plus(SURELY_HELD)
        };
        admitted.retain(|_, admission| stays(admission));
        let taken: u64 = admitted.values().map(|admission| admission.units).sum();
        self.holds(Invariant::NeverOver, taken <= who.limit, || {
            format!("subscription {subscription}: {taken} units let through of {}", who.limit)
        });
    }

    /// A gateway was told that its event is recorded.
    pub(super) fn acknowledged(&mut self, store: &Store, subscription: usize, event: u64) {
        let rows = store.rows_of(subscription, event);
        self.holds(Invariant::LostNothing, rows == 1, || {
            format!("event {event} of subscription {subscription} was acknowledged; rows: {rows}")
        });
    }

    /// A meter that counted every row up to `last` says that this much was used.
    pub(super) fn counted(
        &mut self,
        store: &Store,
        cast: &Cast,
        subscription: usize,
        last: Seq,
        used: u64,
    ) {
        if cast.subscriptions[subscription].kind != Kind::HardByCheck {
            let sum = store.sum(subscription, last);
            self.holds(Invariant::CountedOnce, used == sum, || {
                format!("subscription {subscription} counts {used}; up to {last:?} it is {sum}")
            });
        }
    }

    /// What can grow has not.
    pub(super) fn bounded(&mut self, pid: Pid, shell: &Shell) {
        for (what, size, most) in shell.sizes() {
            self.holds(Invariant::Bounded, size <= most, || {
                format!("boot {}: {size} {what}; {most} are the most", pid.0 + 1)
            });
        }
    }

    /// A boot asks the store about nodes and owners.
    pub(super) fn asks(&mut self, pid: Pid) {
        let second = self.now.get() / MICROS_PER_SECOND;
        let (running, count) = self.queries.entry(pid).or_default();
        if *running != second {
            (*running, *count) = (second, 0);
        }
        *count += 1;
        let count = *count;
        self.holds(Invariant::Bounded, count <= QUERIES_PER_SECOND_MAX, || {
            format!("boot {} asks the store {count} times in a second", pid.0 + 1)
        });
    }

    /// Who trusts its lease and serves a shard is the one that the store names. A later boot of its
    /// name may have pushed it out meanwhile: that is its end, and only the fence and the escrow are
    /// between it and its successors.
    pub(super) fn owns_what_it_serves(&mut self, process: &Process, store: &Store) {
        let boot = process.pid.incarnation();
        if !process.trusts_its_lease(self.now) || !store.is_registered(boot) {
            return;
        }
        for shard in (0..SHARDS).map(ShardId) {
            let is_served = matches!(process.shell.slot(shard), Some(Slot::Held(_)));
            let owner = store.owner(shard).incarnation;
            if is_served && owner != Some(boot) {
                self.broken(Promise::Consent, || {
                    format!("boot {} serves {shard:?}, which is {owner:?}'s", process.pid.0 + 1)
                });
            }
        }
    }

    /// What a transaction did.
    pub(super) fn committed(&mut self, fact: &Fact, store: &Store, processes: &[Process]) {
        match *fact {
            Fact::Wrote { shard, by, stands } => self.wrote(shard, by, stands),
            Fact::Fenced => self.figures.fenced += 1,
            Fact::Appended { subscription, event, units } => {
                self.appended(store, subscription, event, units);
            }
            Fact::Checkpointed { subscription, before, after } => {
                self.holds(Invariant::Monotone, after >= before, || {
                    format!("subscription {subscription}: used fell from {before} to {after}")
                });
            }
            Fact::Buried(boot) => {
                self.figures.buried += 1;
                let buried = find(processes, boot);
                let trusts = buried.is_some_and(|process| process.trusts_its_lease(self.now));
                if trusts {
                    self.broken(Promise::Consent, || {
                        format!("{boot} was declared dead and its lease still holds for it")
                    });
                }
            }
            Fact::Claimed { shard, from, by } => {
                self.figures.takeovers += u64::from(from != Some(by));
                self.newest(shard, store.owner(shard).epoch);
            }
            Fact::HandedOver { shard, from } => {
                self.figures.hand_overs += 1;
                self.newest(shard, store.owner(shard).epoch);
                let giver = find(processes, from).filter(|process| process.lives());
                let serves = giver.and_then(|process| process.shell.slot(shard));
                if matches!(serves, Some(Slot::Held(_) | Slot::Freezing(..))) {
                    self.broken(Promise::Consent, || {
                        format!("{shard:?} was given away while {from} serves it: {serves:?}")
                    });
                }
            }
        }
    }

    fn wrote(&mut self, shard: ShardId, by: Owner, stands: Owner) {
        let newest = self.newest.get(&shard).copied().unwrap_or_default();
        let is_newest = by.epoch >= newest && by == stands;
        self.holds(Invariant::OneWriter, is_newest, || {
            format!("{shard:?} was written as {by:?}; it stands at {stands:?}")
        });
        self.newest(shard, by.epoch);
    }

    fn newest(&mut self, shard: ShardId, epoch: Epoch) {
        let newest = self.newest.entry(shard).or_default();
        *newest = epoch.max(*newest);
    }

    fn appended(&mut self, store: &Store, subscription: usize, event: u64, units: u64) {
        self.figures.events += 1;
        let rows = store.rows_of(subscription, event);
        self.holds(Invariant::LostNothing, rows == 1, || {
            format!("event {event} of subscription {subscription} is in the ledger {rows} times")
        });
        let admitted = self.admitted.get_mut(&subscription);
        if let Some(admission) = admitted.and_then(|admitted| admitted.get_mut(&event)) {
            debug_assert_eq!(admission.units, units, "an event says what its check asked");
            admission.settled |= self.now <= admission.asked_at.plus(SURELY_SETTLED);
        }
    }
}

fn find(processes: &[Process], boot: uuid::Uuid) -> Option<&Process> {
    Pid::of(boot).and_then(|pid| processes.get(pid.0))
}
