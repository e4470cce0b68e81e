//! Clocks that step back, stand still, or tell nonsense.

use proptest::prelude::*;
use weir_core::meter::EntryKind::{Adjustment, Commit, Denied, Reset, Usage};
use weir_core::meter::{Answer, Check, Command, Meter};
use weir_core::plan::Plan;
use weir_core::rate::Algorithm;
use weir_core::units::{Micros, Span};

use crate::world::{HOUR, Story, after, asks, entry, plan, quota, rate, reservation, terms};

fn busy() -> Plan {
    let mut busy = plan(vec![quota("requests", 50, "PT1H"), quota("tokens", 50, "P1M")]);
    busy.rates.push(rate("bucket", Algorithm::TokenBucket, 40, 60));
    busy.rates.push(rate("sliding", Algorithm::SlidingWindow, 40, 60));
    busy.rates.push(rate("fixed", Algorithm::FixedWindow, 40, 60));
    busy
}

#[test]
fn a_clock_that_steps_back_gives_nothing() {
    let mut story = Story::on(busy());
    story.until(after(HOUR + 30));
    assert!(story.passes(40));
    for back in [1, 31, HOUR, 1_000_000] {
        story.now = after(HOUR + 30 - back);
        let decision = story.ask(&asks(1));
        assert!(!decision.allowed, "{back} seconds back");
        assert_eq!(decision.quotas[0].pending.get(), 40);
        assert_eq!(decision.quotas[0].period_start, after(HOUR));
    }
    story.now = after(HOUR + 30 + 75);
    assert!(story.passes(1), "time goes on where it stood");
}

#[derive(Clone, Debug)]
enum Step {
    Check { cost: u64, reserve: bool, id: u128 },
    Record { kind: usize, at: i64, units: i64, named: bool },
    Release,
    Tick,
    Checkpoint { clean: bool },
    Confirm,
    Restore { clean: bool },
    Configure(u8),
}

fn any_moment() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        Just(i64::MIN),
        Just(i64::MAX),
        Just(0),
        (-1_000_000_000i64..1_000_000_000).prop_map(|micros| after(0).get() + micros),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![0u64..60, Just((1 << 53) - 1)];
    prop_oneof![
        4 => (amount, any::<bool>(), 0u128..9)
            .prop_map(|(cost, reserve, id)| Step::Check { cost, reserve, id }),
        4 => (0usize..5, any_moment(), prop_oneof![-60i64..60, any::<i64>()], any::<bool>())
            .prop_map(|(kind, at, units, named)| Step::Record { kind, at, units, named }),
        1 => Just(Step::Release),
        1 => Just(Step::Tick),
        1 => any::<bool>().prop_map(|clean| Step::Checkpoint { clean }),
        2 => Just(Step::Confirm),
        1 => any::<bool>().prop_map(|clean| Step::Restore { clean }),
        1 => (0u8..3).prop_map(Step::Configure),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_moment_and_no_amount_makes_it_panic(
        steps in prop::collection::vec((any_moment(), any_step()), 1..60),
        begin in any_moment(),
    ) {
        let plans = [
            busy(),
            crate::world::requests(None),
            Plan { hold_ttl: Span::from_seconds(1), ..plan(vec![quota("requests", 9, "PT1S")]) },
        ];
        let mut meter = Meter::new(terms(busy()), Micros::from_micros(begin));
        let mut seq = 0;
        for (now, step) in steps {
            let now = Micros::from_micros(now);
            match step {
                Step::Check { cost, reserve, id } => {
                    let reserve = reserve.then(|| reservation(id));
                    let request_id = Some(id).filter(|id| id % 2 == 0);
                    let check = Check { reserve, request_id, ..asks(cost) };
                    if let Answer::Decided(decision) = meter.apply(now, Command::Check(&check)).answer {
                        prop_assert_eq!(decision.quotas.len(), meter.quotas().len());
                    }
                }
                Step::Record { kind, at, units, named } => {
                    seq += 1;
                    let kind = [Usage, Denied, Adjustment, Reset, Commit][kind];
                    let mut row = entry(seq, kind, Micros::from_micros(at), units);
                    row.reservation = named.then(|| reservation(1));
                    meter.apply(now, Command::Record(&row));
                }
                Step::Release => drop(meter.apply(now, Command::Release(reservation(1)))),
                Step::Tick => drop(meter.apply(now, Command::Tick)),
                Step::Checkpoint { clean } => drop(meter.checkpoint(now, clean)),
                Step::Confirm => drop(meter.apply(now, Command::Confirm)),
                Step::Restore { clean } => {
                    let state = meter.checkpoint(now, clean).state;
                    meter = Meter::restore(meter.terms().clone(), &state, clean, &[], now);
                }
                Step::Configure(number) => {
                    let terms = terms(plans[usize::from(number)].clone());
                    meter.apply(now, Command::Configure(terms));
                }
            }
            prop_assert_eq!(meter.quotas().len(), meter.terms().quotas().len());
        }
    }
}
