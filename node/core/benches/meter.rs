//! What one step of the meter costs.
//!
//! DESIGN.md §8: `apply` for a check must stay below 250 ns and aims at 100 ns. The store commits at
//! once here, so that no check waits.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rust_decimal::Decimal;
use smallvec::SmallVec;
use uuid::Uuid;
use weir_core::calendar::{Anchor, Every, Zone};
use weir_core::meter::{Check, Command, Entry, EntryKind, Meter, Wants};
use weir_core::plan::{Bill, ChargeOn, Enforcement, FailPolicy, Pattern, Plan, Quota, RateLimit};
use weir_core::rate::{Algorithm, RateSpec};
use weir_core::terms::Terms;
use weir_core::units::{Micros, PlanId, Seq, Span, Units};

const START: Micros = Micros::from_seconds(1_795_514_400);
/// A check every ten microseconds: a hot subscription.
const STEP: Span = Span::from_micros(10);

fn units(count: u64) -> Units {
    Units::clamped(count)
}

fn quota(name: &str, limit: Option<u64>, every: &str) -> Quota {
    Quota {
        name: name.into(),
        meter: name.into(),
        limit: limit.map(units),
        every: Every::parse(every).expect("a duration"),
        anchor: Anchor::Calendar,
        enforcement: Enforcement::Hard,
        overage: None,
        warn_at: vec![80, 90, 100],
    }
}

fn rate(name: &str, algorithm: Algorithm, seconds: i64) -> RateLimit {
    let window = Span::from_seconds(seconds);
    RateLimit {
        name: name.into(),
        meter: "requests".into(),
        spec: RateSpec::new(algorithm, units(1 << 40), window, None).expect("a rate"),
        pattern: Pattern::default(),
    }
}

fn meter(quotas: Vec<Quota>, rates: Vec<RateLimit>) -> Meter {
    let plan = Plan::new(Plan {
        id: PlanId::from_uuid(Uuid::nil()),
        version: 1,
        name: "bench".into(),
        currency: "USD".into(),
        base_fee: Decimal::ZERO,
        quotas,
        rates,
        costs: Vec::new(),
        every: Every::parse("P1M").expect("a duration"),
        anchor: Anchor::Calendar,
        bill: Bill::All,
        charge_on: ChargeOn::Event,
        hold_ttl: Span::from_seconds(60),
        fail_policy: FailPolicy::Open,
        shadow: false,
    })
    .expect("a plan");
    Meter::new(Arc::new(Terms::new(Arc::new(plan), &Zone::utc(), START, None, &[])), START)
}

/// A meter whose checkpoints are committed at once.
struct Driven {
    meter: Meter,
    now: Micros,
    seq: u64,
}

impl Driven {
    fn new(quotas: Vec<Quota>, rates: Vec<RateLimit>) -> Self {
        Self { meter: meter(quotas, rates), now: START, seq: 0 }
    }

    /// Looks at the outcome where it lies: moving it out would cost as much as a part of the check.
    fn check(&mut self, check: &Check) {
        self.now = self.now.plus(STEP);
        let outcome = self.meter.apply(self.now, Command::Check(check));
        if black_box(&outcome).wants == Wants::CheckpointNow {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.meter.checkpoint(self.now, false);
        self.meter.apply(self.now, Command::Confirm);
    }

    fn entry(&mut self) -> Entry {
        self.seq += 1;
        Entry {
            seq: Seq(self.seq),
            kind: EntryKind::Usage,
            at: self.now,
            units: 1,
            others: SmallVec::new(),
            charged: true,
            reservation: None,
        }
    }
}

fn checks(c: &mut Criterion) {
    let one = || vec![quota("requests", Some(units_max()), "P1M")];
    let two_rates = || {
        vec![
            rate("second", Algorithm::TokenBucket, 1),
            rate("minute", Algorithm::SlidingWindow, 60),
        ]
    };
    let check = Check::default();
    let with_id = Check { request_id: Some(0), ..Check::default() };
    let stories = [
        ("check, one hard quota", one(), vec![]),
        ("check, one hard quota and two rates", one(), two_rates()),
        (
            "check, two hard quotas",
            vec![quota("requests", Some(units_max()), "P1M"), quota("tokens", Some(100), "P1D")],
            vec![],
        ),
        ("check, unlimited", vec![quota("requests", None, "P1M")], vec![]),
    ];
    for (name, quotas, rates) in stories {
        let mut driven = Driven::new(quotas, rates);
        driven.check(&check);
        c.bench_function(name, |b| b.iter(|| driven.check(black_box(&check))));
    }
    let mut full = Driven::new(vec![quota("requests", Some(1), "P1M")], two_rates());
    full.check(&check);
    full.check(&check);
    c.bench_function("check, refused", |b| b.iter(|| full.check(black_box(&check))));
    let mut driven = Driven::new(one(), vec![]);
    let mut asked = with_id;
    c.bench_function("check with a request id", |b| {
        b.iter(|| {
            asked.request_id = asked.request_id.map(|id| id.wrapping_add(0x9e37_79b9_7f4a_7c15));
            driven.check(black_box(&asked));
        });
    });
}

fn ledger(c: &mut Criterion) {
    let mut driven = Driven::new(vec![quota("requests", Some(units_max()), "P1M")], vec![]);
    let check = Check::default();
    c.bench_function("check, then its event", |b| {
        b.iter(|| {
            driven.check(&check);
            let entry = driven.entry();
            black_box(driven.meter.apply(driven.now, Command::Record(black_box(&entry))))
        });
    });
    let mut driven = Driven::new(vec![quota("requests", Some(units_max()), "P1M")], vec![]);
    c.bench_function("record", |b| {
        b.iter(|| {
            let entry = driven.entry();
            black_box(driven.meter.apply(driven.now, Command::Record(black_box(&entry))))
        });
    });
}

fn persistence(c: &mut Criterion) {
    let rates = vec![rate("second", Algorithm::TokenBucket, 1)];
    let mut driven = Driven::new(vec![quota("requests", Some(units_max()), "P1M")], rates);
    for _ in 0..1_000 {
        driven.check(&Check::default());
        driven.now = driven.now.plus(Span::from_seconds(1));
    }
    c.bench_function("checkpoint and confirm", |b| {
        b.iter(|| {
            let checkpoint = driven.meter.checkpoint(driven.now, false);
            driven.meter.apply(driven.now, Command::Confirm);
            black_box(checkpoint)
        });
    });
    let state = driven.meter.checkpoint(driven.now, false).state;
    let terms = driven.meter.terms().clone();
    let now = driven.now;
    c.bench_function("restore, no tail", |b| {
        b.iter(|| black_box(Meter::restore(terms.clone(), &state, false, &[], now)));
    });
    let tail: Vec<Entry> = (0..100).map(|_| driven.entry()).collect();
    c.bench_function("restore, a tail of 100", |b| {
        b.iter_batched(
            || terms.clone(),
            |terms| black_box(Meter::restore(terms, &state, false, &tail, now)),
            BatchSize::SmallInput,
        );
    });
}

const fn units_max() -> u64 {
    (1 << 53) - 1
}

criterion_group!(benches, checks, ledger, persistence);
criterion_main!(benches);
