//! What is counted under which terms: by the time of an event, however and whenever it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rust_decimal::Decimal;
use weir_core::calendar::Zone;
use weir_core::meter::{Checkpoint, Command, Entry, EntryKind, Meter, MeterState, Past};
use weir_core::plan::Plan;
use weir_core::price::{Model, Overage, Tier};
use weir_core::quota::CUTS_MAX;
use weir_core::rating::{Amount, Currency, Segment, rate};
use weir_core::terms::Terms;
use weir_core::units::{Micros, Span, Units};

use crate::world::{DAY, START, after, entry, plan, quota, soft, units};

/// Seconds into the hour at which the second and the third version come.
const CHANGES: [i64; 2] = [1_200, 2_400];
const HOUR: i64 = 3_600;

fn tiers(first: i64, rest: i64) -> Overage {
    let tier = |up_to: Option<u64>, price: i64, fee: i64| Tier {
        up_to: up_to.map(units),
        unit_price: Decimal::new(price, 3),
        flat_fee: Decimal::new(fee, 2),
    };
    let model = Model::Graduated(vec![tier(Some(20), first, 1), tier(None, rest, 50)]);
    Overage { model, included: None, cap: None }
}

/// A version of an hourly plan: its limit and its price.
fn version(number: u32) -> Plan {
    let (limit, price) = match number {
        1 => (40, tiers(333, 7)),
        2 => (20, tiers(1_005, 15)),
        _ => (60, tiers(499, 1)),
    };
    let quota = soft(None, quota("requests", limit, "PT1H"));
    let quota = weir_core::plan::Quota { overage: Some(price), ..quota };
    Plan { version: number, ..plan(vec![quota]) }
}

fn terms(number: u32) -> Arc<Terms> {
    let terms = Terms::new(Arc::new(version(number)), &Zone::utc(), after(-400 * DAY), None, &[]);
    Arc::new(match number {
        1 => terms.holding_since(after(-DAY)),
        number => terms.holding_since(after(CHANGES[number as usize - 2])),
    })
}

/// A subscription whose owner dies now and then.
struct Owner {
    meter: Meter,
    version: u32,
    /// What is durable: a checkpoint, the periods told up to it, and all rows.
    saved: MeterState,
    told: Vec<Past>,
    rows: Vec<Entry>,
}

impl Owner {
    fn new() -> Self {
        let mut meter = Meter::new(terms(1), START);
        let Checkpoint { state, .. } = meter.checkpoint(START, false);
        Self { meter, version: 1, saved: state, told: Vec::new(), rows: Vec::new() }
    }

    fn commit(&mut self, now: Micros) {
        let checkpoint = self.meter.checkpoint(now, false);
        self.told.extend(checkpoint.past);
        self.saved = checkpoint.state;
        self.meter.apply(now, Command::Confirm);
    }

    fn die(&mut self, now: Micros) {
        let last = self.saved.last_seq;
        let tail: Vec<Entry> = self.rows.iter().filter(|row| row.seq > last).cloned().collect();
        self.meter = Meter::restore(terms(self.version), &self.saved, false, &tail, now);
    }

    /// Time passes; versions that came meanwhile are adopted. The one before is in a checkpoint by
    /// then: a change asks for one, which comes within a second.
    fn pass(&mut self, now: Micros) {
        for (number, change) in (2..).zip(CHANGES) {
            if self.version < number && after(change) <= now {
                self.commit(after(change));
                self.meter.apply(after(change), Command::Configure(terms(number)));
                self.version = number;
            }
        }
        self.meter.apply(now, Command::Tick);
    }

    fn record(&mut self, now: Micros, at: Micros, units: u64) {
        let seq = self.rows.len() as u64 + 1;
        let row = entry(seq, EntryKind::Usage, at, i64::try_from(units).expect("small"));
        self.meter.apply(now, Command::Record(&row));
        self.rows.push(row);
    }

    /// Units of the first hour by version, once all is told.
    fn counted(mut self, now: Micros) -> BTreeMap<u32, u64> {
        self.pass(now);
        self.commit(now);
        let mut counted = BTreeMap::new();
        for past in self.told.iter().filter(|past| past.start == START && past.units > 0) {
            *counted.entry(past.by.version).or_default() += past.units;
        }
        counted
    }
}

fn amount(counted: &BTreeMap<u32, u64>) -> Amount {
    let plans: Vec<Plan> = counted.keys().map(|&number| version(number)).collect();
    let mut used = 0;
    let segments: Vec<Segment<'_>> = plans
        .iter()
        .zip(counted.values())
        .map(|(plan, more)| {
            used += more;
            let quota = &plan.quotas[0];
            let overage_from = quota.overage_from(quota.limit);
            Segment { price: quota.overage.as_ref(), overage_from, used_at_end: units(used) }
        })
        .collect();
    rate(Currency::of("USD"), &segments).amount
}

/// One use: when, how late it is told, units, into how many events it is split, and whether a
/// checkpoint or a crash follows.
type Use = (i64, i64, u64, u64, u8);

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let late = prop_oneof![3 => Just(0_i64), 2 => 0_i64..600, 1 => 0_i64..9_000];
    prop::collection::vec((0_i64..HOUR, late, 1_u64..30, 1_u64..4, 0_u8..4), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// The money property: the same use comes to the same amount however it is split over events,
    /// told late, checkpointed, and counted again after a crash.
    #[test]
    fn the_same_use_costs_the_same_however_it_is_told(mut uses in uses()) {
        // By the time of the event alone: what the versions' own times say.
        let mut expected: BTreeMap<u32, u64> = BTreeMap::new();
        for &(at, _, used, ..) in &uses {
            let version = 1 + CHANGES.iter().filter(|change| at >= **change).count();
            *expected.entry(u32::try_from(version).expect("small")).or_default() += used;
        }
        uses.sort_by_key(|&(at, late, ..)| at + late);
        let mut owner = Owner::new();
        for &(at, late, used, pieces, then) in &uses {
            let now = after(at + late);
            owner.pass(now);
            for piece in 0..pieces {
                let (from, until) = (used * piece / pieces, used * (piece + 1) / pieces);
                if until > from {
                    owner.record(now, after(at), until - from);
                }
            }
            match then {
                0 => owner.commit(now),
                1 => owner.die(now),
                _ => {}
            }
        }
        let counted = owner.counted(after(5 * HOUR));
        prop_assert_eq!(amount(&counted), amount(&expected));
        prop_assert_eq!(counted, expected);
    }
}

#[test]
fn a_plan_changed_all_day_keeps_a_bounded_number_of_cuts_and_every_unit() {
    let mut meter = Meter::new(terms(1), START);
    let changes = CUTS_MAX as u64 * 3;
    for number in 0..changes {
        let now = after(i64::try_from(number).expect("small") * 10);
        let row = entry(number + 1, EntryKind::Usage, now, 7);
        meter.apply(now, Command::Record(&row));
        let mut next = version(1);
        next.version = 2 + u32::try_from(number).expect("small");
        next.quotas[0].limit = Some(units(40 + number));
        let next = Terms::new(Arc::new(next), &Zone::utc(), after(-400 * DAY), None, &[]);
        meter.apply(now.plus(Span::from_seconds(1)), Command::Configure(Arc::new(next)));
    }
    let state = meter.checkpoint(after(1_000), false).state;
    let cuts = &state.counters[0].cuts;
    assert_eq!(cuts.len(), CUTS_MAX);
    assert_eq!(cuts.last().map(|cut| cut.used_at_end), Some(units(changes * 7)));
    assert!(cuts.is_sorted_by_key(|cut| (cut.until, cut.used_at_end)));
    // The period ends and is told whole; cuts are kept for late events, and not for ever.
    let past = meter.checkpoint(after(2 * HOUR), false).past;
    let told: u64 = past.iter().filter(|past| past.start == START).map(|past| past.units).sum();
    assert_eq!(told, changes * 7);
    let late = meter.checkpoint(after(60 * DAY), false).state;
    assert!(late.counters[0].cuts.is_empty(), "{:?}", late.counters[0].cuts);
}

#[test]
fn what_is_taken_back_or_reset_is_no_overage_of_any_terms() {
    let told = |steps: &[(EntryKind, i64)]| {
        let mut meter = Meter::new(terms(1), START);
        meter.apply(after(1), Command::Record(&entry(1, EntryKind::Usage, after(1), 150)));
        meter.apply(after(1_200), Command::Configure(terms(2)));
        for (seq, &(kind, units)) in (2..).zip(steps) {
            meter.apply(after(1_300), Command::Record(&entry(seq, kind, after(1_300), units)));
        }
        let past = meter.checkpoint(after(2 * HOUR), false).past;
        past.iter().map(|past| (past.by.version, past.units)).collect::<Vec<_>>()
    };
    let (usage, adjust) = (EntryKind::Usage, EntryKind::Adjustment);
    assert_eq!(told(&[(usage, 5)]), [(1, 150), (2, 5)]);
    assert_eq!(told(&[(usage, 5), (adjust, -3)]), [(1, 150), (2, 2)]);
    // The latest go first, and what comes then is used under the terms of then.
    assert_eq!(told(&[(usage, 5), (adjust, -25), (usage, 4)]), [(1, 130), (2, 4)]);
    assert_eq!(told(&[(EntryKind::Reset, 0), (usage, 4)]), [(1, 0), (2, 4)]);
}

#[test]
fn terms_that_cost_the_same_leave_no_cut() {
    let mut meter = Meter::new(terms(1), START);
    let mut same = version(1);
    same.version = 9;
    same.quotas[0].warn_at = vec![50];
    let same = Terms::new(Arc::new(same), &Zone::utc(), after(-400 * DAY), None, &[]);
    meter.apply(after(5), Command::Configure(Arc::new(same)));
    assert!(meter.checkpoint(after(6), false).state.counters[0].cuts.is_empty());
    assert_eq!(meter.quotas()[0].overage_units(), Units::ZERO);
}
