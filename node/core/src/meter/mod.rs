//! One subscription's state machine: checks, events, periods, plan changes, all in one history.
//!
//! How to drive it: make one with [`Meter::new`] or [`Meter::restore`]; give it commands with
//! [`Meter::apply`] and the time; when an outcome `wants` a checkpoint, take one with
//! [`Meter::checkpoint`], commit it, and say so with [`Command::Confirm`]. It never refuses to be
//! driven: a clock that steps back is held at the latest time seen, a row seen twice is skipped.
//!
//! ```text
//!            Check ─▶ look at every quota and rate ─┬─ any refuses ─▶ Decided(refused), nothing moved
//!                                                   ├─ beyond escrow ─▶ Waits, wants a checkpoint now
//!                                                   └─ all fit ─▶ charge all ─▶ Decided(allowed)
//!   ledger ─ Record ─▶ roll ─▶ settle holds, add to the period that the event lies in ─▶ notices
//! ```
//! Invariants asserted here: INV-3, INV-5. Caller: the subscription actor, the simulator, tests.

mod check;
mod configure;
mod decision;
mod ledger;
mod named;
mod recent;
mod restore;
mod state;
mod succession;
mod time;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

pub use decision::{Check, Decision, Mode, PlanOf, QuotaView, RateView, Reason, Violated};
pub use named::NAMED_MAX;
pub use recent::{RECENT_MAX, REPEAT_WINDOW, Remembered, Verdict};
pub use state::{Checkpoint, CounterState, MeterState, NamedState};

use crate::calendar::Period;
use crate::quota::{Counted, Counter, OtherPeriod, PricedBy};
use crate::rate::RateState;
use crate::terms::Terms;
use crate::units::{Micros, ReservationId, Seq, Units};
use named::Reservations;
use recent::Recent;

/// Periods and notices that may wait for a checkpoint before one is asked for at once: it keeps a
/// flood of late events from growing a checkpoint beyond what one transaction should carry.
pub const WAITING_MAX: usize = 1_024;

/// A durable ledger row, as far as counters care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the shard's ledger.
    pub seq: Seq,
    /// What it means.
    pub kind: EntryKind,
    /// When it happened; decides the period.
    pub at: Micros,
    /// Units on the meter `requests`; negative only for an adjustment.
    pub units: i64,
    /// Amounts on other meters.
    pub others: SmallVec<[(Box<str>, Units); 1]>,
    /// Whether it counts against quotas.
    pub charged: bool,
    /// The reservation it settles.
    pub reservation: Option<ReservationId>,
}

/// Meaning of an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A request that was served or aborted: settles what its check held.
    Usage,
    /// A request that the gateway refused: no check held anything for it.
    Denied,
    /// An audited correction of the running period.
    Adjustment,
    /// Sets the running periods to zero.
    Reset,
    /// A reservation was committed.
    Commit,
}

/// What can happen to a subscription.
#[derive(Debug)]
pub enum Command<'a> {
    /// A question.
    Check(&'a Check),
    /// A row became durable.
    Record(&'a Entry),
    /// A reservation is given back.
    Release(ReservationId),
    /// A reservation could not be made durable: as if it had never been asked for.
    Forget(ReservationId),
    /// New terms, from now on.
    Configure(Arc<Terms>),
    /// New terms, from the next billing period on; at once when the period that they waited for is
    /// over.
    ConfigureNext(Arc<Terms>),
    /// Suspended or active again.
    Suspend(bool),
    /// Only time passed.
    Tick,
    /// The last checkpoint taken is committed.
    Confirm,
}

/// What a command led to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "checks are nearly all answers; a box costs each one"
)]
pub enum Answer {
    /// To a check.
    Decided(Decision),
    /// To a check that fits but not within the escrow: ask again after the next confirm.
    Waits,
    /// To a record: whether it was new.
    Recorded(bool),
    /// To a release: whether the reservation was open.
    Released(bool),
    /// To anything else.
    Done,
}

/// Whether state should be persisted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// Nothing durable changed.
    #[default]
    Nothing,
    /// With the next regular checkpoint.
    Checkpoint,
    /// At once: someone waits, or the escrow runs low.
    CheckpointNow,
}

/// Answer and follow-up of one step.
#[derive(Debug)]
pub struct Outcome {
    /// For the caller.
    pub answer: Answer,
    /// For the shell.
    pub wants: Wants,
}

/// A threshold was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Name of the quota.
    pub quota: Arc<str>,
    /// Percentage of the limit.
    pub percent: u16,
    /// Used when it was passed.
    pub used: Units,
    /// The limit.
    pub limit: Units,
    /// Which version of the limit.
    pub limit_version: u32,
    /// The period.
    pub period: Period,
    /// When.
    pub at: Micros,
}

/// Growth of a past period's counter, to be added to what is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Name of the quota.
    pub quota: Arc<str>,
    /// Its meter.
    pub meter: Arc<str>,
    /// Start of the period.
    pub start: Micros,
    /// Its end.
    pub end: Micros,
    /// When the terms that these units lie under went; [`Micros::MAX`] = not before the period's end.
    pub until: Micros,
    /// What they are priced by.
    pub by: PricedBy,
    /// Units to add.
    pub units: u64,
    /// The limit when it was told.
    pub limit: Option<Units>,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Meter {
    terms: Arc<Terms>,
    next_terms: Option<Arc<Terms>>,
    billing: Period,
    suspended: bool,
    last_now: Micros,
    last_seq: Seq,
    counters: SmallVec<[Counter; 1]>,
    rates: SmallVec<[RateState; 2]>,
    named: Reservations,
    recent: Recent,
    past: Pasts,
    notices: Vec<Notice>,
    switched: bool,
}

impl Meter {
    /// A subscription that nothing is known of yet.
    pub fn new(terms: Arc<Terms>, now: Micros) -> Self {
        let now = time::in_range(now);
        let counters = terms.quotas().iter().map(|quota| Counter::new(quota, now)).collect();
        let rates = terms.plan.rates.iter().map(|rate| RateState::new(&rate.spec)).collect();
        let billing = terms.billing.period_at(now);
        Self {
            terms,
            next_terms: None,
            billing,
            suspended: false,
            last_now: now,
            last_seq: Seq::default(),
            counters,
            rates,
            named: Reservations::default(),
            recent: Recent::default(),
            past: BTreeMap::new(),
            notices: Vec::new(),
            switched: false,
        }
    }

    /// One step.
    pub fn apply(&mut self, now: Micros, command: Command<'_>) -> Outcome {
        let before = self.last_now;
        let now = self.advance(now);
        let rolled = self.pass_time(now);
        debug_assert!(before <= now && now < self.billing.end, "time stands at {now:?}");
        let mut outcome = self.step(now, command);
        if rolled {
            outcome.wants = outcome.wants.max(Wants::Checkpoint);
        }
        outcome
    }

    /// Apart from `apply`, so that an outcome is written where the caller wants it.
    fn step(&mut self, now: Micros, command: Command<'_>) -> Outcome {
        match command {
            Command::Check(check) => self.check(now, check),
            Command::Record(entry) => self.record(now, entry),
            Command::Release(id) => self.release(id),
            Command::Forget(id) => {
                self.recent.forget_reservation(id);
                self.release(id)
            }
            Command::Configure(terms) => self.configure(now, terms),
            Command::ConfigureNext(terms) => self.configure_next(now, terms),
            Command::Suspend(suspended) => {
                self.suspended = suspended;
                Outcome::done(Wants::Nothing)
            }
            Command::Tick => Outcome::done(Wants::Nothing),
            Command::Confirm => {
                for counter in &mut self.counters {
                    let taken = counter.taken();
                    counter.escrow.confirm(taken);
                }
                Outcome::done(Wants::Nothing)
            }
        }
    }

    /// Terms in force.
    pub const fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// When an open reservation returns; `None` when it is not open (any more): a commit is then
    /// late.
    pub fn reservation_expires_at(&self, id: ReservationId) -> Option<Micros> {
        self.named.find(id).map(|named| named.expires_at)
    }

    /// State of every quota.
    #[inline]
    pub fn quotas(&self) -> SmallVec<[QuotaView; 2]> {
        let mut views = SmallVec::new();
        for (counter, terms) in self.counters.iter().zip(self.terms.quotas()) {
            views.push(QuotaView {
                limit: counter.limit,
                used: counter.used,
                pending: counter.pending(),
                period_start: counter.period.start,
                reset_at: counter.period.end,
                overage_from: terms.overage_from,
                overage_floor: Units::ZERO,
            });
            if !counter.cuts.list().is_empty()
                && let Some(view) = views.last_mut()
            {
                show_cuts(view, counter);
            }
        }
        views
    }
}

/// What is free and what is over when earlier terms of the period count too.
#[cold]
fn show_cuts(view: &mut QuotaView, counter: &Counter) {
    let over = counter.cuts.overage(counter.used, view.overage_from);
    let free = counter.used.saturating_sub(over);
    view.overage_from = match view.overage_from {
        Some(from) => Some(from.min(free)),
        None => (!over.is_zero()).then_some(free),
    };
    view.overage_floor = free;
}

/// Growth of past periods that waits for a checkpoint, by start, quota and when its terms went.
type Pasts = BTreeMap<(Micros, Arc<str>, Micros), Past>;

/// Growth of one period under the same terms is one addition, so that a flood of late events stays
/// small (INV-6). `now` describes the terms in force.
fn add_past(
    all: &mut Pasts,
    meter: &Arc<str>,
    counted: Counted,
    limit: Option<Units>,
    quota: &Arc<str>,
    now: impl FnOnce() -> PricedBy,
) {
    let Counted { other: OtherPeriod { start, end, units }, until, by } = counted;
    let past = all.entry((start, quota.clone(), until)).or_insert_with(|| Past {
        quota: quota.clone(),
        meter: meter.clone(),
        start,
        end,
        until,
        by: by.unwrap_or_else(now),
        units: 0,
        limit,
    });
    past.units = past.units.saturating_add(units);
}

impl Outcome {
    const fn done(wants: Wants) -> Self {
        Self { answer: Answer::Done, wants }
    }
}
