//! A cluster of owners round one store, in one thread.
//!
//! The last owner is the live one, all before it are zombies: they answer checks on what they know,
//! and nothing they write is accepted. A zombie goes on for at most the part of a hold's time that
//! the core allows for. Clocks differ between owners and each runs evenly.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_core::meter::EntryKind::{self, Adjustment, Commit, Usage};
use weir_core::meter::{Answer, Check, Checkpoint, Command, Entry, Meter, MeterState};
use weir_core::plan::{ChargeOn, Plan};
use weir_core::quota::{Holds, ZOMBIE_PART_OF_TTL};
use weir_core::terms::Terms;
use weir_core::units::{Micros, ReservationId, Span};

use crate::world::{START, asks, entry, plan, quota, reservation, terms};

const SECOND: i64 = 1_000_000;
const PERIOD: i64 = 300 * SECOND;
const TTL: Span = Span::from_seconds(60);
/// Largest difference of a clock from true time.
const SKEW_MAX: i64 = 2 * SECOND;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Somebody asks an owner, the live one or a zombie.
    Check {
        owner: u8,
        cost: u64,
    },
    /// A reservation; answered only if its checkpoint commits.
    Reserve {
        cost: u64,
        durable: bool,
    },
    /// What became of an admitted request is recorded, through the live owner.
    Event {
        pick: u16,
        whole: bool,
        charged: bool,
    },
    Release {
        pick: u16,
    },
    Adjust(i64),
    Take {
        clean: bool,
    },
    Commit,
    Confirm,
    Crash {
        zombie: bool,
        skew: i64,
    },
    Passivate {
        skew: i64,
    },
    Wait {
        millis: i64,
    },
    /// To the end of the period, and this much further.
    ToBoundary {
        millis: i64,
    },
    Limit(u64),
}

/// Which rule is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Admits where the meter says wait.
    IgnoreWaits,
    CallEveryCheckpointClean,
    ConfirmBeforeCommit,
    CountRowsTwice,
    ForgetTheTail,
}

pub(super) struct Owner {
    pub(super) meter: Meter,
    pub(super) skew: i64,
    pub(super) limit: u64,
    /// A zombie's end.
    pub(super) until: Micros,
}

/// A request that was let through.
pub(super) struct Admission {
    pub(super) period: i64,
    pub(super) at: Micros,
    pub(super) units: u64,
    /// True time at which nobody counts on it any more.
    pub(super) expires: Micros,
    pub(super) reservation: Option<ReservationId>,
    /// What its event charged, once there is one.
    pub(super) charged: Option<u64>,
    pub(super) released: bool,
}

pub(super) struct UnderWay {
    pub(super) checkpoint: Checkpoint,
    pub(super) clean: bool,
    pub(super) committed: bool,
}

pub(super) struct Store {
    pub(super) state: MeterState,
    pub(super) clean: bool,
    pub(super) rows: Vec<Entry>,
    pub(super) past: BTreeMap<i64, i128>,
}

/// Everything.
pub(super) struct Cluster {
    pub(super) fault: Fault,
    pub(super) charge_on: ChargeOn,
    pub(super) now: Micros,
    pub(super) owners: Vec<Owner>,
    pub(super) store: Store,
    pub(super) under_way: Option<UnderWay>,
    pub(super) admissions: Vec<Admission>,
    /// The ledger summed by period, the slow and obvious way.
    pub(super) used: BTreeMap<i64, i128>,
    pub(super) taken_back: BTreeMap<i64, u64>,
    pub(super) reservations: u128,
    pub(super) limit: u64,
}

fn terms_with(limit: u64, charge_on: ChargeOn) -> Arc<Terms> {
    terms(Plan { charge_on, hold_ttl: TTL, ..plan(vec![quota("requests", limit, "PT5M")]) })
}

pub(super) fn period_of(at: Micros) -> i64 {
    at.get().div_euclid(PERIOD)
}

pub(super) fn moved(at: Micros, micros: i64) -> Micros {
    Micros::from_micros(at.get() + micros)
}

impl Cluster {
    pub(super) fn new(charge_on: ChargeOn, fault: Fault) -> Self {
        let limit = 100;
        let mut meter = Meter::new(terms_with(limit, charge_on), START);
        let state = meter.checkpoint(START, true).state;
        let (rows, past) = (Vec::new(), BTreeMap::new());
        Self {
            fault,
            charge_on,
            now: START,
            owners: vec![Owner { meter, skew: 0, limit, until: Micros::MAX }],
            store: Store { state, clean: true, rows, past },
            under_way: None,
            admissions: Vec::new(),
            used: BTreeMap::new(),
            taken_back: BTreeMap::new(),
            reservations: 0,
            limit,
        }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Check { owner, cost } => {
                self.check(usize::from(owner) % self.owners.len(), cost)?;
            }
            Step::Reserve { cost, durable } => self.reserve(cost, durable)?,
            Step::Event { pick, whole, charged } => self.event(pick, whole, charged),
            Step::Release { pick } => self.release(pick),
            Step::Adjust(units) => self.adjust(units),
            Step::Take { clean } => self.take(clean),
            Step::Commit => self.commit(),
            Step::Confirm => self.confirm(),
            Step::Crash { zombie, skew } => self.succeed(zombie, skew),
            Step::Passivate { skew } => {
                self.settle_under_way();
                self.take(true);
                self.commit();
                self.succeed(true, skew);
            }
            Step::Wait { millis } => self.wait(millis * 1_000),
            Step::ToBoundary { millis } => {
                let end = (period_of(self.now) + 1) * PERIOD;
                self.wait((end - self.now.get() + millis * 1_000).max(0));
            }
            Step::Limit(limit) => {
                self.limit = limit;
                let terms = terms_with(limit, self.charge_on);
                self.apply(Command::Configure(terms));
                self.live().limit = limit;
            }
        }
        self.audit()
    }

    /// Faults are over: everything held returns, and exactly the remainder passes. Units admitted.
    pub(super) fn heal(&mut self) -> Result<u64, String> {
        self.wait(2 * TTL.get());
        self.settle_under_way();
        let quota = self.live().meter.quotas()[0];
        if self.charge_on == ChargeOn::Event && !quota.pending.is_zero() {
            return Err(format!("INV-8: {} still held", quota.pending));
        }
        let admitted = self.admissions.iter().map(|a| a.units).sum();
        let left = quota.remaining().map_or(0, weir_core::units::Units::get);
        for (cost, expected) in [(left + 1, false), (left, true)] {
            if self.passes(cost)? != expected {
                return Err(format!("INV-8: {left} are left, asked for {cost}, not {expected}"));
            }
        }
        Ok(admitted)
    }

    /// Asks the live owner, with a commit in between where it waits for one.
    fn passes(&mut self, cost: u64) -> Result<bool, String> {
        let before = self.admissions.len();
        for _ in 0..2 {
            self.check(self.owners.len() - 1, cost)?;
            if self.admissions.len() > before || cost == 0 {
                return Ok(true);
            }
            self.take(false);
            self.settle_under_way();
        }
        Ok(false)
    }

    fn live(&mut self) -> &mut Owner {
        self.owners.last_mut().expect("there is always a live owner")
    }

    pub(super) fn live_ref(&self) -> &Owner {
        self.owners.last().expect("there is always a live owner")
    }

    /// A meter's time never steps back behind what an owner before it saw.
    fn time_of_live(&self) -> Micros {
        let live = self.live_ref();
        moved(self.now, live.skew).max(live.meter.quotas()[0].period_start)
    }

    fn apply(&mut self, command: Command<'_>) -> weir_core::meter::Outcome {
        let now = self.now;
        let live = self.live();
        live.meter.apply(moved(now, live.skew), command)
    }

    fn wait(&mut self, micros: i64) {
        self.now = moved(self.now, micros);
        let now = self.now;
        self.owners.retain(|owner| now < owner.until);
        self.apply(Command::Tick);
    }

    fn check(&mut self, owner: usize, cost: u64) -> Result<(), String> {
        let check = Check { degraded: self.fault == Fault::IgnoreWaits, ..asks(cost) };
        let asked = &mut self.owners[owner];
        let now = moved(self.now, asked.skew);
        let outcome = asked.meter.apply(now, Command::Check(&check));
        let Answer::Decided(decision) = outcome.answer else { return Ok(()) };
        if decision.allowed && cost > 0 {
            let due = Holds::due(now, TTL);
            let expires = moved(due, -asked.skew);
            let kept = self.charge_on == ChargeOn::Check;
            self.admit(owner, cost, if kept { Micros::MAX } else { expires }, None)?;
        }
        Ok(())
    }

    fn admit(
        &mut self,
        owner: usize,
        units: u64,
        expires: Micros,
        reservation: Option<ReservationId>,
    ) -> Result<(), String> {
        let asked = &self.owners[owner];
        // The meter's own time never steps back, so the period it says is the one it charged.
        let start = asked.meter.quotas()[0].period_start;
        let at = moved(self.now, asked.skew).max(start);
        let period = period_of(start);
        let (charged, released) = (None, false);
        self.admissions.push(Admission {
            period,
            at,
            units,
            expires,
            reservation,
            charged,
            released,
        });
        let limit = asked.limit.max(self.limit);
        let live = owner + 1 == self.owners.len();
        self.never_over(period, limit, live)
    }

    fn reserve(&mut self, cost: u64, durable: bool) -> Result<(), String> {
        self.settle_under_way();
        self.reservations += 1;
        let id = reservation(self.reservations);
        let check = Check { reserve: Some(id), ..asks(cost) };
        let Answer::Decided(decision) = self.apply(Command::Check(&check)).answer else {
            return Ok(());
        };
        if !decision.allowed {
            return Ok(());
        }
        if durable {
            self.take(false);
            self.commit();
            self.confirm();
            // Whoever takes it over may have the faster clock.
            let expires = moved(self.now.plus(TTL), self.live_ref().skew - SKEW_MAX);
            self.admit(self.owners.len() - 1, cost, expires, Some(id))?;
        } else {
            self.apply(Command::Forget(id));
        }
        Ok(())
    }

    fn pick(&self, pick: u16, fits: impl Fn(&Admission) -> bool) -> Option<usize> {
        let open: Vec<usize> = (0..self.admissions.len())
            .filter(|&n| self.admissions[n].is_open(self.now) && fits(&self.admissions[n]))
            .collect();
        (!open.is_empty()).then(|| open[usize::from(pick) % open.len()])
    }

    fn event(&mut self, pick: u16, whole: bool, charged: bool) {
        let by_check = self.charge_on == ChargeOn::Check;
        let Some(picked) = self.pick(pick, |a| !by_check || a.reservation.is_some()) else {
            return;
        };
        let admission = &mut self.admissions[picked];
        let units = if whole { admission.units } else { admission.units.div_ceil(2) };
        let counts = charged || admission.reservation.is_some();
        admission.charged = Some(if counts { units } else { 0 });
        let reservation = admission.reservation;
        let (kind, at) = match reservation {
            Some(_) => (Commit, self.time_of_live()),
            None => (Usage, admission.at),
        };
        if counts {
            *self.used.entry(period_of(at)).or_default() += i128::from(units);
        }
        let units = i64::try_from(units).expect("small");
        self.row(kind, at, units, |row| Entry { charged: counts, reservation, ..row });
    }

    fn release(&mut self, pick: u16) {
        let Some(picked) = self.pick(pick, |a| a.reservation.is_some()) else { return };
        self.admissions[picked].released = true;
        let id = self.admissions[picked].reservation.expect("picked for it");
        self.apply(Command::Release(id));
    }

    fn adjust(&mut self, units: i64) {
        self.apply(Command::Tick);
        let at = self.time_of_live();
        let used = self.used.entry(period_of(at)).or_default();
        *used = (*used + i128::from(units)).max(0);
        *self.taken_back.entry(period_of(at)).or_default() += units.min(0).unsigned_abs();
        self.row(Adjustment, at, units, |row| row);
    }

    fn row(&mut self, kind: EntryKind, at: Micros, units: i64, with: impl Fn(Entry) -> Entry) {
        let seq = self.store.rows.len() as u64 + 1;
        let row = with(entry(seq, kind, at, units));
        self.store.rows.push(row.clone());
        self.apply(Command::Record(&row));
        if self.fault == Fault::CountRowsTwice {
            self.apply(Command::Record(&Entry { seq: row.seq.next(), ..row }));
        }
    }

    fn take(&mut self, clean: bool) {
        if self.under_way.is_some() {
            return;
        }
        let now = self.now;
        let live = self.live();
        let checkpoint = live.meter.checkpoint(moved(now, live.skew), clean);
        self.under_way = Some(UnderWay { checkpoint, clean, committed: false });
        if self.fault == Fault::ConfirmBeforeCommit {
            self.apply(Command::Confirm);
        }
    }

    fn commit(&mut self) {
        let Some(UnderWay { checkpoint, clean, committed: committed @ false }) =
            &mut self.under_way
        else {
            return;
        };
        *committed = true;
        self.store.state = checkpoint.state.clone();
        self.store.clean = *clean || self.fault == Fault::CallEveryCheckpointClean;
        for past in &checkpoint.past {
            *self.store.past.entry(period_of(past.start)).or_default() += i128::from(past.units);
        }
    }

    fn confirm(&mut self) {
        if self.under_way.as_ref().is_some_and(|under_way| under_way.committed) {
            self.under_way = None;
            self.apply(Command::Confirm);
        }
    }

    /// Whatever is under way ends well.
    fn settle_under_way(&mut self) {
        self.commit();
        self.confirm();
    }

    /// Another owner begins. What the one before had under way is refused from here on.
    fn succeed(&mut self, zombie: bool, skew: i64) {
        self.under_way = None;
        let skew = skew * SECOND;
        let last = self.store.state.last_seq.0;
        let from = usize::try_from(last).expect("small").min(self.store.rows.len());
        let tail = if self.fault == Fault::ForgetTheTail { &[] } else { &self.store.rows[from..] };
        let meter = Meter::restore(
            terms_with(self.limit, self.charge_on),
            &self.store.state,
            self.store.clean,
            tail,
            moved(self.now, skew),
        );
        let part = if zombie { TTL.get() / ZOMBIE_PART_OF_TTL } else { 0 };
        let until = moved(self.now, part);
        self.live().until = until;
        self.owners.push(Owner { meter, skew, limit: self.limit, until: Micros::MAX });
        self.wait(0);
    }
}

impl Admission {
    pub(super) fn is_open(&self, now: Micros) -> bool {
        self.charged.is_none() && !self.released && now < self.expires
    }
}
