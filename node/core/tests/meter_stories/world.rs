//! Plans in a line, and a subscription whose store always commits at once.

use std::sync::Arc;

use rust_decimal::Decimal;
use smallvec::SmallVec;
use uuid::Uuid;
use weir_core::calendar::{Anchor, Every, Zone};
use weir_core::meter::{
    Answer, Check, Command, Decision, Entry, EntryKind, Meter, Notice, Outcome, Past, QuotaView,
    Wants,
};
use weir_core::plan::{Bill, ChargeOn, Enforcement, FailPolicy, Pattern, Plan, Quota, RateLimit};
use weir_core::rate::{Algorithm, RateSpec};
use weir_core::terms::Terms;
use weir_core::units::{Micros, PlanId, ReservationId, Seq, Span, Units};

/// 2026-11-24T10:00:00Z, a Tuesday.
pub const START: Micros = Micros::from_seconds(1_795_514_400);
pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 86_400;

pub fn units(count: u64) -> Units {
    Units::new(count).expect("tests count below 2^53")
}

pub fn after(seconds: i64) -> Micros {
    Micros::from_micros(START.get() + seconds * 1_000_000)
}

pub fn every(text: &str) -> Every {
    Every::parse(text).expect("tests write durations well")
}

/// A hard quota on the meter of the same name.
pub fn quota(name: &str, limit: impl Into<Option<u64>>, period: &str) -> Quota {
    Quota {
        name: name.into(),
        meter: name.into(),
        limit: limit.into().map(units),
        every: every(period),
        anchor: Anchor::Calendar,
        enforcement: Enforcement::Hard,
        overage: None,
        warn_at: vec![80, 90, 100],
    }
}

pub fn soft(hard_cap: impl Into<Option<u64>>, quota: Quota) -> Quota {
    Quota { enforcement: Enforcement::Soft { hard_cap: hard_cap.into().map(units) }, ..quota }
}

pub fn rate(name: &str, algorithm: Algorithm, limit: u64, seconds: i64) -> RateLimit {
    RateLimit {
        name: name.into(),
        meter: "requests".into(),
        spec: RateSpec::new(algorithm, units(limit), Span::from_seconds(seconds), None)
            .expect("tests write rates well"),
        pattern: Pattern::default(),
    }
}

pub fn plan(quotas: Vec<Quota>) -> Plan {
    let plan = Plan {
        id: PlanId::from_uuid(Uuid::from_u128(1)),
        version: 1,
        name: "pro".into(),
        currency: "USD".into(),
        base_fee: Decimal::ZERO,
        quotas,
        rates: Vec::new(),
        costs: Vec::new(),
        every: every("P1M"),
        anchor: Anchor::Calendar,
        bill: Bill::All,
        charge_on: ChargeOn::Event,
        hold_ttl: Span::from_seconds(60),
        fail_policy: FailPolicy::Open,
        shadow: false,
    };
    Plan::new(plan).expect("tests write plans well")
}

/// One hard quota of requests a month.
pub fn requests(limit: impl Into<Option<u64>>) -> Plan {
    plan(vec![quota("requests", limit, "P1M")])
}

pub fn terms(plan: Plan) -> Arc<Terms> {
    Arc::new(Terms::new(Arc::new(plan), &Zone::utc(), after(-400 * DAY), None, &[]))
}

pub fn asks(cost: u64) -> Check {
    Check { cost: Some(units(cost)), ..Check::default() }
}

pub fn asks_also(cost: u64, others: &[(&str, u64)]) -> Check {
    Check { others: amounts(others), ..asks(cost) }
}

pub fn amounts(others: &[(&str, u64)]) -> SmallVec<[(Box<str>, Units); 1]> {
    others.iter().map(|&(meter, amount)| (meter.into(), units(amount))).collect()
}

pub fn reservation(number: u128) -> ReservationId {
    ReservationId::from_uuid(Uuid::from_u128(number))
}

pub fn entry(seq: u64, kind: EntryKind, at: Micros, units: i64) -> Entry {
    Entry {
        seq: Seq(seq),
        kind,
        at,
        units,
        others: SmallVec::new(),
        charged: true,
        reservation: None,
    }
}

/// A subscription on a node whose store commits every checkpoint at once.
#[derive(Clone)]
pub struct Story {
    pub meter: Meter,
    pub now: Micros,
    pub seq: u64,
    pub past: Vec<Past>,
    pub notices: Vec<Notice>,
    pub switched: bool,
}

impl Story {
    pub fn on(plan: Plan) -> Self {
        Self::under(terms(plan))
    }

    pub fn under(terms: Arc<Terms>) -> Self {
        let meter = Meter::new(terms, START);
        let (past, notices) = (Vec::new(), Vec::new());
        Self { meter, now: START, seq: 0, past, notices, switched: false }
    }

    pub fn later(&mut self, seconds: i64) {
        self.until(self.now.plus(Span::from_seconds(seconds)));
    }

    pub fn until(&mut self, now: Micros) {
        self.now = now;
        self.apply(Command::Tick);
    }

    pub fn apply(&mut self, command: Command<'_>) -> Outcome {
        self.meter.apply(self.now, command)
    }

    /// Takes a checkpoint that is committed at once.
    pub fn commit(&mut self) {
        let checkpoint = self.meter.checkpoint(self.now, false);
        self.past.extend(checkpoint.past);
        self.notices.extend(checkpoint.notices);
        self.switched |= checkpoint.switched;
        self.apply(Command::Confirm);
    }

    /// Asks, and commits when the meter says that it must.
    pub fn ask(&mut self, check: &Check) -> Decision {
        for _ in 0..2 {
            let outcome = self.apply(Command::Check(check));
            match outcome.answer {
                Answer::Decided(decision) => return decision,
                Answer::Waits => {
                    assert_eq!(outcome.wants, Wants::CheckpointNow, "who waits must be served");
                    self.commit();
                }
                other => panic!("a check was answered {other:?}"),
            }
        }
        panic!("{check:?} waits although its checkpoint is confirmed");
    }

    /// Whether a check of this cost passes.
    pub fn passes(&mut self, cost: u64) -> bool {
        self.ask(&asks(cost)).allowed
    }

    /// A durable row; whether it was new.
    pub fn row(&mut self, kind: EntryKind, units: i64) -> bool {
        self.row_with(|seq, now| entry(seq, kind, now, units))
    }

    pub fn row_with(&mut self, row: impl FnOnce(u64, Micros) -> Entry) -> bool {
        self.seq += 1;
        let row = row(self.seq, self.now);
        match self.apply(Command::Record(&row)).answer {
            Answer::Recorded(new) => new,
            other => panic!("a row was answered {other:?}"),
        }
    }

    /// A charged event of now.
    pub fn event(&mut self, units: i64) {
        assert!(self.row(EntryKind::Usage, units));
    }

    pub fn quota(&self, index: usize) -> QuotaView {
        self.meter.quotas()[index]
    }

    /// Used, pending and remaining of the first quota.
    pub fn numbers(&self) -> (u64, u64, u64) {
        let quota = self.quota(0);
        let remaining = quota.remaining().map_or(u64::MAX, Units::get);
        (quota.used.get(), quota.pending.get(), remaining)
    }

    pub fn used(&self) -> u64 {
        self.quota(0).used.get()
    }

    pub fn pending(&self) -> u64 {
        self.quota(0).pending.get()
    }
}
