//! Plans whose quotas have other names: what was used goes on, and no way round gives it back.

use proptest::prelude::*;
use weir_core::calendar::Anchor;
use weir_core::meter::EntryKind::Usage;
use weir_core::meter::{Answer, Check, Command, Entry, Meter, MeterState};
use weir_core::plan::{Plan, Quota};
use weir_core::units::Micros;

use crate::world::{
    DAY, START, Story, after, amounts, asks, entry, plan, quota, reservation, terms,
};

/// A hard quota of requests by any name.
fn named(name: &str, limit: u64, every: &str) -> Quota {
    Quota { meter: "requests".into(), ..quota(name, limit, every) }
}

fn named_plan(names: &[&str]) -> Plan {
    plan(names.iter().map(|name| named(name, 10, "P1M")).collect())
}

fn switch(story: &mut Story, plan: &Plan) {
    story.apply(Command::Configure(terms(plan.clone())));
}

#[test]
fn switching_to_another_name_and_back_admits_no_more_than_the_limit_in_a_month() {
    let (one, two) = (named_plan(&["requests"]), named_plan(&["calls"]));
    let mut story = Story::on(one.clone());
    let mut admitted = 0;
    for _ in 0..20 {
        for plan in [&two, &one] {
            admitted += u64::from(story.passes(1));
            switch(&mut story, plan);
        }
    }
    assert_eq!(admitted, 10);
    assert_eq!(story.numbers(), (0, 10, 0), "what is held goes on as well");
    story.event(10);
    switch(&mut story, &two);
    assert_eq!(story.numbers(), (10, 0, 0));
    story.commit();
    assert_eq!(story.past, [], "nothing has ended");
    story.until(after(7 * DAY));
    assert!(story.passes(10), "a new month");
}

/// Names of the old plan's quotas with what was used under each, quotas of the new plan, and what is
/// used under each of those.
type Succession = (&'static [(&'static str, &'static str)], Vec<Quota>, &'static [u64]);

#[test]
fn counters_go_on_by_name_then_by_period_then_by_meter() {
    let moved =
        |days: i64| Quota { anchor: Anchor::At(after(-days * DAY)), ..named("x", 99, "P1M") };
    let stories: [Succession; 7] = [
        (&[("a", "P1M")], vec![named("b", 99, "P1M")], &[1]),
        (&[("a", "P1M")], vec![named("b", 99, "P1M"), named("c", 99, "P1M")], &[1, 0]),
        (&[("a", "P1M")], vec![named("b", 99, "P1M"), named("a", 99, "P1M")], &[0, 1]),
        // The day's counter keeps to days although the month's comes first.
        (
            &[("a", "P1M"), ("b", "P1D")],
            vec![named("c", 99, "P1D"), named("d", 99, "P1M")],
            &[2, 1],
        ),
        (&[("a", "P1M"), ("b", "P1D")], vec![named("c", 99, "P1D")], &[2]),
        // No period is the same: the first goes on, the other is owed.
        (&[("a", "P1M"), ("b", "P1D")], vec![named("c", 99, "PT1H")], &[1]),
        (&[("a", "P1M"), ("b", "P1D")], vec![moved(1), named("b", 99, "P1M")], &[1, 2]),
    ];
    for (old, new, expected) in stories {
        let quotas = old.iter().map(|(name, every)| named(name, 99, every)).collect();
        let mut story = Story::on(plan(quotas));
        // One unit under the first, two under the second: so that they can be told apart.
        let mut used = story.meter.checkpoint(START, true).state;
        for (counter, units) in used.counters.iter_mut().zip(1..) {
            counter.used = units;
        }
        let new = terms(plan(new));
        story.meter = Meter::restore(story.meter.terms().clone(), &used, true, &[], START);
        let away = Meter::restore(new.clone(), &used, true, &[], START);
        story.apply(Command::Configure(new));
        for meter in [&story.meter, &away] {
            let found: Vec<_> = meter.quotas().iter().map(|quota| quota.used.get()).collect();
            assert_eq!(found, expected, "{old:?}");
        }
        story.commit();
        let owed: u64 = story.past.iter().map(|past| past.units).sum();
        assert_eq!(owed + expected.iter().sum::<u64>(), (1..=old.len() as u64).sum(), "{old:?}");
    }
}

#[test]
fn another_meter_takes_nothing_over() {
    let mut story = Story::on(plan(vec![quota("requests", 10, "P1M")]));
    story.event(7);
    switch(&mut story, &plan(vec![quota("tokens", 10, "P1M")]));
    assert_eq!(story.numbers(), (0, 0, 10));
    story.commit();
    assert_eq!(story.past.iter().map(|past| past.units).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_reservation_follows_the_counter_that_holds_it() {
    let mut story = Story::on(named_plan(&["a"]));
    assert!(story.ask(&Check { reserve: Some(reservation(1)), ..asks(4) }).allowed);
    story.commit();
    let state = story.meter.checkpoint(story.now, true).state;
    let renamed = terms(named_plan(&["b"]));
    story.meter = Meter::restore(renamed, &state, true, &[], story.now);
    assert_eq!(story.pending(), 4);
    switch(&mut story, &named_plan(&["c"]));
    assert_eq!(story.pending(), 4);
    story.apply(Command::Release(reservation(1)));
    assert_eq!(story.pending(), 0);
}

#[test]
fn what_a_check_names_for_requests_counts_beside_its_cost() {
    let mut story = Story::on(named_plan(&["requests"]));
    let check = Check { others: amounts(&[("requests", 4)]), ..asks(3) };
    assert!(story.ask(&check).allowed);
    assert_eq!(story.pending(), 7);
    assert!(!story.ask(&check).allowed, "fourteen of ten");
    let only = Check { others: amounts(&[("requests", 4)]), ..asks(0) };
    assert!(!story.ask(&only).allowed, "eleven of ten");
    story.row_with(|seq, now| Entry {
        others: amounts(&[("requests", 4)]),
        ..entry(seq, Usage, now, 3)
    });
    assert_eq!(story.numbers(), (7, 0, 3));
}

/// A subscription whose node may die at any time and whose plan may change meanwhile.
struct Switched {
    meter: Meter,
    stored: (MeterState, bool),
    rows: Vec<Entry>,
    held: u64,
    admitted: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Check(u64),
    Event(u64),
    Switch(usize),
    Checkpoint,
    Crash(usize),
    Rest(usize),
}

const NOW: Micros = START;

impl Switched {
    fn on(plan: &Plan) -> Self {
        let mut meter = Meter::new(terms(plan.clone()), NOW);
        let stored = (meter.checkpoint(NOW, true).state, true);
        Self { meter, stored, rows: Vec::new(), held: 0, admitted: 0 }
    }

    fn take(&mut self, clean: bool) {
        self.stored = (self.meter.checkpoint(NOW, clean).state, clean);
        self.meter.apply(NOW, Command::Confirm);
    }

    fn again(&mut self, plan: &Plan) {
        let (state, clean) = &self.stored;
        let tail = &self.rows[usize::try_from(state.last_seq.0).expect("small")..];
        self.meter = Meter::restore(terms(plan.clone()), state, *clean, tail, NOW);
    }

    fn step(&mut self, plans: &[Plan], step: &Step) {
        match *step {
            Step::Check(cost) => {
                let check = asks(cost);
                let mut outcome = self.meter.apply(NOW, Command::Check(&check));
                if matches!(outcome.answer, Answer::Waits) {
                    self.take(false);
                    outcome = self.meter.apply(NOW, Command::Check(&check));
                }
                if matches!(outcome.answer, Answer::Decided(decision) if decision.allowed) {
                    self.admitted += cost;
                    self.held += cost;
                }
            }
            Step::Event(most) => {
                let units = most.min(self.held);
                self.held -= units;
                let seq = self.rows.len() as u64 + 1;
                let units = i64::try_from(units).expect("small");
                self.rows.push(entry(seq, Usage, NOW, units));
                self.meter.apply(NOW, Command::Record(&self.rows[self.rows.len() - 1]));
            }
            Step::Switch(to) => {
                self.meter.apply(NOW, Command::Configure(terms(plans[to].clone())));
            }
            Step::Checkpoint => self.take(false),
            Step::Crash(to) => self.again(&plans[to]),
            Step::Rest(to) => {
                self.take(true);
                self.again(&plans[to]);
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u64..4).prop_map(Step::Check),
        3 => (1u64..4).prop_map(Step::Event),
        4 => (0usize..5).prop_map(Step::Switch),
        1 => Just(Step::Checkpoint),
        1 => (0usize..5).prop_map(Step::Crash),
        1 => (0usize..5).prop_map(Step::Rest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn no_row_of_switches_and_crashes_passes_a_hard_limit(
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let names: [&[&str]; 5] = [&["a", "b"], &["b", "a"], &["c", "d"], &["b", "c"], &["d", "e"]];
        let plans = names.map(named_plan);
        let mut switched = Switched::on(&plans[0]);
        for step in &steps {
            switched.step(&plans, step);
            prop_assert!(switched.admitted <= 10, "{} admitted of 10", switched.admitted);
        }
    }
}
