//! From rows to money: however the same use arrives, each period closes at the same amount.
//!
//! Drives a meter as a node does: rows become durable once per event id, are counted in order, a
//! checkpoint is committed now and then, a node dies and its successor starts from the last one
//! committed and the rows after it. What the checkpoints say of past periods is what gets billed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use smallvec::SmallVec;
use uuid::Uuid;
use weir_core::calendar::{Anchor, Every, Zone};
use weir_core::meter::{Command, Entry, EntryKind, Meter, MeterState};
use weir_core::plan::{Bill, ChargeOn, Enforcement, FailPolicy, Plan, Quota};
use weir_core::price::Overage;
use weir_core::rating::{Charged, Currency};
use weir_core::terms::Terms;
use weir_core::units::{Micros, PlanId, Seq, Span, Units};

use crate::book::{graduated, package, per_unit, rated, units, volume};
use crate::slow;

/// 2026-03-24T10:00:00Z: the clocks of Berlin and the month change within days.
const START: Micros = Micros::from_seconds(1_774_346_400);
const HOUR: i64 = 3_600;
const INCLUDED: u64 = 20;

/// A use, known by its place in the list: when it happened, in hours after the start, and its units.
type Use = (i64, u64);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The gateway sends an event, perhaps not for the first time.
    Send(prop::sample::Index),
    /// Time passes.
    Hours(i64),
    Checkpoint,
    /// The node dies; another one goes on.
    Crash,
}

fn moment(hours: i64) -> Micros {
    Micros::from_micros(START.get() + hours * HOUR * 1_000_000)
}

fn terms(every: &str, zone: &str, price: &Overage) -> Arc<Terms> {
    let every = Every::parse(every).expect("listed durations are valid");
    let quota = Quota {
        name: "requests".into(),
        meter: "requests".into(),
        limit: Some(units(INCLUDED)),
        every,
        anchor: Anchor::Calendar,
        enforcement: Enforcement::Soft { hard_cap: None },
        overage: Some(price.clone()),
        warn_at: Vec::new(),
    };
    let plan = Plan {
        id: PlanId::from_uuid(Uuid::from_u128(1)),
        version: 1,
        name: "pro".into(),
        currency: "USD".into(),
        base_fee: rust_decimal::Decimal::ZERO,
        quotas: vec![quota],
        rates: Vec::new(),
        costs: Vec::new(),
        every,
        anchor: Anchor::Calendar,
        bill: Bill::All,
        charge_on: ChargeOn::Event,
        hold_ttl: Span::from_seconds(60),
        fail_policy: FailPolicy::Open,
        shadow: false,
    };
    let plan = Arc::new(Plan::new(plan).expect("a valid plan"));
    let zone = Zone::parse(zone).expect("listed zones exist");
    Arc::new(Terms::new(plan, &zone, moment(-10_000), None, &[]))
}

/// A ledger, the node that counts it, and what its checkpoints told.
struct Cluster {
    meter: Meter,
    now: Micros,
    known: BTreeSet<usize>,
    rows: Vec<Entry>,
    stored: Option<MeterState>,
    past: BTreeMap<Micros, u64>,
    terms: Arc<Terms>,
}

impl Cluster {
    fn new(terms: Arc<Terms>) -> Self {
        let meter = Meter::new(terms.clone(), START);
        let (known, rows, past) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        Self { meter, now: START, known, rows, stored: None, past, terms }
    }

    fn send(&mut self, id: usize, (hours, count): Use) {
        if !self.known.insert(id) {
            return;
        }
        let row = Entry {
            seq: Seq(self.rows.len() as u64 + 1),
            kind: EntryKind::Usage,
            at: moment(hours),
            units: i64::try_from(count).expect("small"),
            others: SmallVec::new(),
            charged: true,
            reservation: None,
        };
        self.rows.push(row.clone());
        self.meter.apply(self.now, Command::Record(&row));
    }

    fn checkpoint(&mut self) {
        let checkpoint = self.meter.checkpoint(self.now, false);
        for past in checkpoint.past {
            *self.past.entry(past.start).or_default() += past.units;
        }
        self.stored = Some(checkpoint.state);
        self.meter.apply(self.now, Command::Confirm);
    }

    fn crash(&mut self) {
        // Without a checkpoint the first node begins anew, from the time it first did.
        let fresh = || Meter::new(self.terms.clone(), START).checkpoint(START, false).state;
        let state = self.stored.clone().unwrap_or_else(fresh);
        let tail: Vec<Entry> =
            self.rows.iter().filter(|row| row.seq > state.last_seq).cloned().collect();
        self.meter = Meter::restore(self.terms.clone(), &state, false, &tail, self.now);
    }

    fn step(&mut self, uses: &[Use], step: Step) {
        match step {
            Step::Send(which) => {
                let id = which.index(uses.len());
                self.send(id, uses[id]);
            }
            Step::Hours(hours) => {
                self.now = self.now.plus(Span::from_seconds(hours * HOUR));
                self.meter.apply(self.now, Command::Tick);
            }
            Step::Checkpoint => self.checkpoint(),
            Step::Crash => self.crash(),
        }
    }

    /// Sends what was never sent, and lets every period end.
    fn close(mut self, uses: &[Use]) -> BTreeMap<Micros, u64> {
        for (id, &one) in uses.iter().enumerate() {
            self.send(id, one);
        }
        self.step(uses, Step::Hours(24 * 800));
        self.checkpoint();
        self.past
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<prop::sample::Index>().prop_map(Step::Send),
        2 => (0_i64..60).prop_map(Step::Hours),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..80)
}

fn prices() -> impl Strategy<Value = Overage> {
    prop::sample::select(vec![
        per_unit("0.0125"),
        graduated(&[(10, "0.335", "1"), (0, "0.005", "0.50")]),
        volume(&[(10, "1", "0"), (30, "0.125", "2"), (0, "0.01", "0")]),
        package(7, "1.005"),
        Overage { cap: Some(crate::book::money("1.23")), ..per_unit("0.0333") },
    ])
}

/// What each period comes to, unit by unit, from the list of uses.
fn expected(terms: &Terms, price: &Overage, uses: &[Use]) -> BTreeMap<Micros, (u64, i128)> {
    let mut counted: BTreeMap<Micros, u64> = BTreeMap::new();
    for &(hours, count) in uses {
        let period = terms.quotas()[0].schedule.period_at(moment(hours));
        *counted.entry(period.start).or_default() += count;
    }
    counted
        .into_iter()
        .filter(|(_, used)| *used > 0)
        .map(|(start, used)| (start, (used, slow::amount(price, INCLUDED, used, 2))))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_split_of_the_same_use_closes_at_the_same_amounts(
        uses in prop::collection::vec((-24_i64 * 40..24 * 40, 0_u64..40), 1..40),
        steps in steps(), price in prices(),
        every in prop::sample::select(&["P1M", "P1W", "P1D", "PT7H"][..]),
        zone in prop::sample::select(&["UTC", "Europe/Berlin", "Asia/Kathmandu"][..]),
    ) {
        let terms = terms(every, zone, &price);
        let mut cluster = Cluster::new(terms.clone());
        for step in steps {
            cluster.step(&uses, step);
        }
        let currency = Currency::of("USD");
        let closed: BTreeMap<Micros, (u64, i128)> = cluster
            .close(&uses)
            .into_iter()
            .map(|(start, used)| (start, (used, rated(currency, &price, INCLUDED, used).amount.minor())))
            .collect();
        prop_assert_eq!(closed, expected(&terms, &price, &uses));
    }

    /// The job runs after any step, on what the node says just then; periods are charged to the end.
    #[test]
    fn charging_the_growth_on_the_way_comes_to_the_closed_amount(
        uses in prop::collection::vec((0_i64..24, 0_u64..40), 1..30),
        steps in steps(), price in prices(),
    ) {
        let terms = terms("P1Y", "UTC", &price);
        let currency = Currency::of("USD");
        let amount = |used: Units| rated(currency, &price, INCLUDED, used.get()).amount;
        let mut cluster = Cluster::new(terms.clone());
        let mut charged = Charged::default();
        for step in steps {
            cluster.step(&uses, step);
            let due = charged.next(amount(cluster.meter.quotas()[0].used));
            charged = due.map_or(charged, |charge| charged.with(charge));
        }
        for (_, used) in cluster.close(&uses) {
            let due = charged.next(amount(units(used)));
            charged = due.map_or(charged, |charge| charged.with(charge));
        }
        let sum: i128 = expected(&terms, &price, &uses).values().map(|(_, cents)| cents).sum();
        prop_assert_eq!(charged.amount.minor(), sum);
    }
}

#[test]
fn an_event_sent_twice_over_a_periods_end_counts_once_and_where_it_lies() {
    let price = per_unit("1");
    let terms = terms("P1D", "Europe/Berlin", &price);
    // 30 units at 22:00 in Berlin, sent again after midnight through another node.
    let uses = [(11, 30), (13, 25)];
    let send = |which: usize, cluster: &mut Cluster| cluster.send(which, uses[which]);
    let mut cluster = Cluster::new(terms.clone());
    cluster.step(&uses, Step::Hours(12));
    send(0, &mut cluster);
    cluster.checkpoint();
    cluster.step(&uses, Step::Hours(2));
    cluster.crash();
    send(0, &mut cluster);
    send(1, &mut cluster);
    let closed: Vec<u64> = cluster.close(&uses).into_values().collect();
    assert_eq!(closed, [30, 25]);
}
