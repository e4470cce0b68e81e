//! Starting again: from a checkpoint and the rows after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use weir_core::meter::EntryKind::{self, Adjustment, Denied, Reset, Usage};
use weir_core::meter::{Answer, Check, Command, Entry, Meter, MeterState, Past};
use weir_core::plan::{ChargeOn, Plan, Quota};
use weir_core::rate::Algorithm;
use weir_core::terms::Terms;
use weir_core::units::{Micros, Span};

use crate::world::{
    DAY, HOUR, MINUTE, START, Story, after, asks, entry, plan, quota, rate, requests, reservation,
    soft, terms, units,
};

fn restored(story: &Story, state: &MeterState, clean: bool, tail: &[Entry]) -> Story {
    let meter = Meter::restore(story.meter.terms().clone(), state, clean, tail, story.now);
    Story { meter, ..story.clone() }
}

#[test]
fn a_clean_end_loses_nothing_and_waits_for_one_commit() {
    let mut limited = requests(100);
    limited.rates.push(rate("hour", Algorithm::FixedWindow, 50, 3_600));
    let mut story = Story::on(limited);
    assert!(story.passes(10));
    story.event(3);
    assert!(story.ask(&Check { reserve: Some(reservation(1)), ..asks(5) }).allowed);
    story.later(7);
    let state = story.meter.checkpoint(story.now, true).state;
    assert!(
        matches!(story.apply(Command::Check(&asks(1))).answer, Answer::Waits),
        "who has ended in order lets nothing more through"
    );
    story.later(20);
    let mut again = restored(&story, &state, true, &[]);
    assert_eq!(again.numbers(), (3, 12, 85));
    assert!(matches!(again.apply(Command::Check(&asks(1))).answer, Answer::Waits));
    assert_eq!(again.ask(&asks(1)).rates[0].remaining, units(50 - 16));
    assert_eq!(again.meter.reservation_expires_at(reservation(1)), Some(after(60)));
    again.until(after(68));
    assert_eq!(again.numbers(), (3, 1, 96), "holds return when they would have");
}

#[test]
fn after_a_crash_what_may_have_passed_is_withheld_for_one_hold_time() {
    let mut story = Story::on(requests(1_000));
    assert!(story.passes(10));
    story.commit();
    story.event(4);
    let state = story.meter.checkpoint(story.now, false).state;
    let again = restored(&story, &state, false, &[]);
    assert_eq!((again.used(), again.pending()), (4, state.escrow(0) - 4));
    let mut early = again.clone();
    early.until(after(59));
    assert_eq!(early.pending(), state.escrow(0) - 4);
    let mut late = again.clone();
    late.until(after(75));
    assert_eq!(late.numbers(), (4, 0, 996), "a hold time and a quarter");
}

#[test]
fn each_row_of_the_tail_may_have_let_the_last_owner_go_on() {
    let mut story = Story::on(requests(1_000));
    assert!(story.passes(20));
    story.commit();
    let state = story.meter.checkpoint(story.now, false).state;
    // The abort made room for ten more, the correction came after they were let through.
    let aborted = Entry { charged: false, ..entry(1, Usage, story.now, 10) };
    let tail = [aborted, entry(2, Adjustment, story.now, 10)];
    let again = restored(&story, &state, false, &tail);
    assert_eq!((again.used(), again.pending()), (10, state.escrow(0)));
}

#[test]
fn after_a_crash_checks_that_charged_are_held_until_the_period_ends() {
    let mut by_check = plan(vec![quota("requests", 1_000, "PT1H")]);
    by_check.charge_on = ChargeOn::Check;
    let mut story = Story::on(by_check);
    assert!(story.passes(10));
    let state = story.meter.checkpoint(story.now, false).state;
    let mut again = restored(&story, &state, false, &[]);
    for seconds in [0, MINUTE, HOUR - 1] {
        again.until(after(seconds));
        assert_eq!((again.used(), again.used() + again.pending()), (10, state.escrow(0)));
    }
    again.until(after(HOUR));
    assert_eq!(again.numbers(), (0, 0, 1_000));
}

#[test]
fn what_a_crash_withholds_of_checks_that_charge_is_a_few_seconds_of_traffic() {
    // Checks a second, and the most that a crash may withhold.
    for (rate, most) in [(0, 8), (1, 8), (100, 301)] {
        let mut by_check = plan(vec![quota("requests", 1_000_000, "P1M")]);
        by_check.charge_on = ChargeOn::Check;
        let mut story = Story::on(by_check);
        assert!(story.passes(1));
        for _ in 0..30 {
            story.later(1);
            for _ in 0..rate {
                assert!(story.passes(1));
            }
        }
        story.later(1);
        let state = story.meter.checkpoint(story.now, false).state;
        let again = restored(&story, &state, false, &[]);
        let withheld = again.pending();
        assert!(withheld <= most && withheld > 0, "{rate} a second: {withheld} withheld");
        assert_eq!(again.used(), 1 + 30 * rate, "what is withheld is not used");
        // An adjustment gives back as much room; the hold itself stays until the period ends.
        let mut given_back = again.clone();
        let back = withheld.min(again.used());
        assert!(given_back.row(Adjustment, -back.cast_signed()));
        assert_eq!(given_back.numbers().2, again.numbers().2 + back);
        assert_eq!(given_back.pending(), withheld);
    }
}

#[test]
fn a_second_crash_before_the_first_commit_withholds_no_more() {
    let mut story = Story::on(requests(1_000));
    assert!(story.passes(10));
    let state = story.meter.checkpoint(story.now, false).state;
    let first = restored(&story, &state, false, &[]);
    let second = restored(&first, &state, false, &[]);
    assert_eq!(first.numbers(), second.numbers());
    let mut second = second;
    let state = second.meter.checkpoint(second.now, false).state;
    let third = restored(&second, &state, false, &[]);
    assert!(third.numbers().1 >= second.numbers().1);
}

#[test]
fn without_a_limit_nothing_is_withheld() {
    for uncapped in [requests(None), plan(vec![soft(None, quota("requests", 10, "P1M"))])] {
        let mut story = Story::on(uncapped);
        assert!(story.passes(7));
        let state = story.meter.checkpoint(story.now, false).state;
        let again = restored(&story, &state, false, &[]);
        assert_eq!(again.pending(), 7, "the last known holds are the best guess");
    }
}

#[test]
fn rows_of_the_tail_tell_their_notices_even_when_their_period_is_over() {
    let mut story = Story::on(plan(vec![quota("requests", 100, "PT1H")]));
    story.event(70);
    story.commit();
    let state = story.meter.checkpoint(story.now, false).state;
    let tail = [entry(2, Usage, after(9), 20), entry(3, Usage, after(10), 15)];
    story.until(after(2 * HOUR));
    let mut again = restored(&story, &state, false, &tail);
    again.notices.clear();
    again.past.clear();
    again.commit();
    assert_eq!(again.notices.iter().map(|n| n.percent).collect::<Vec<_>>(), [80, 90, 100]);
    assert_eq!(again.past.iter().map(|p| p.units).collect::<Vec<_>>(), [105]);
}

/// Plan while away, what is running after 30 minutes (used, remaining), and what is owed.
type Changed = (&'static str, Plan, (u64, u64), &'static [u64]);

#[test]
fn a_plan_that_changed_while_nobody_was_there() {
    let hourly = || quota("requests", 100, "PT1H");
    let tokens = Quota { meter: "tokens".into(), ..hourly() };
    let renamed = Quota { name: "calls".into(), ..hourly() };
    let stories: [Changed; 6] = [
        ("the same", plan(vec![hourly()]), (40, 60), &[]),
        ("a lower limit", plan(vec![quota("requests", 10, "PT1H")]), (40, 0), &[]),
        ("another period", plan(vec![quota("requests", 100, "P1D")]), (40, 60), &[]),
        ("another name", plan(vec![renamed]), (40, 60), &[]),
        ("another meter", plan(vec![tokens]), (0, 100), &[40]),
        ("another quota", plan(vec![quota("bytes", 100, "PT1H")]), (0, 100), &[40]),
    ];
    for (name, changed, expected, owed) in stories {
        let mut story = Story::on(plan(vec![hourly()]));
        story.event(40);
        let state = story.meter.checkpoint(story.now, true).state;
        story.later(30 * MINUTE);
        story.meter = Meter::restore(terms(changed), &state, true, &[], story.now);
        let (used, _, remaining) = story.numbers();
        assert_eq!((used, remaining), expected, "{name}");
        story.commit();
        assert_eq!(story.past.iter().map(|p| p.units).collect::<Vec<_>>(), owed, "{name}");
    }
}

#[test]
fn a_period_that_ended_while_nobody_was_there_is_owed_under_its_old_bounds() {
    let mut story = Story::on(plan(vec![quota("requests", 100, "PT1H")]));
    story.event(40);
    let state = story.meter.checkpoint(story.now, true).state;
    story.later(90 * MINUTE);
    let changed = terms(plan(vec![quota("requests", 500, "P1D")]));
    story.meter = Meter::restore(changed, &state, true, &[], story.now);
    assert_eq!(story.numbers(), (0, 0, 500));
    story.commit();
    let owed: Vec<_> = story.past.iter().map(|p| (p.start, p.end, p.units, p.limit)).collect();
    assert_eq!(owed, [(START, after(HOUR), 40, Some(units(100)))]);
}

#[test]
fn a_change_that_waited_takes_over_where_the_billing_period_ended() {
    let mut story = Story::on(requests(100));
    story.event(40);
    let state = story.meter.checkpoint(story.now, true).state;
    for (days, limit, used, switched) in [(6, 100, 40, false), (8, 7, 0, true)] {
        let (now, next) = (after(days * DAY), Some(terms(requests(7))));
        let old = terms(requests(100));
        let mut meter = Meter::restore_awaiting(old, next, &state, true, &[], now);
        let quota = meter.quotas()[0];
        assert_eq!((quota.limit, quota.used), (Some(units(limit)), units(used)), "{days} days");
        assert_eq!(meter.checkpoint(now, false).switched, switched);
    }
}

/// A version made on 5 December waits for the end of December, whoever was away since November.
#[test]
fn terms_that_wait_for_a_later_period_are_not_taken_over_at_an_earlier_one() {
    let mut story = Story::on(requests(100));
    story.event(40);
    let state = story.meter.checkpoint(story.now, true).state;
    let end = terms(requests(1)).billing.period_at(after(12 * DAY)).end;
    let next = Arc::new(Terms::clone(&terms(requests(7))).waiting_until(end));
    let at = |day: i64| after(day * DAY);
    for (loaded, looked_at, limit) in [(13, 13, 100), (13, 37, 100), (13, 38, 7), (39, 39, 7)] {
        let (now, old) = (at(loaded), terms(requests(100)));
        let mut meters = [
            Meter::restore_awaiting(old.clone(), Some(next.clone()), &state, true, &[], now),
            Meter::new(old, now),
        ];
        meters[1].apply(now, Command::ConfigureNext(next.clone()));
        for meter in &mut meters {
            meter.apply(at(looked_at), Command::Tick);
            let found = meter.quotas()[0].limit;
            assert_eq!(found, Some(units(limit)), "loaded on day {loaded}, seen on {looked_at}");
            assert_eq!(meter.checkpoint(at(looked_at), false).switched, limit == 7);
        }
    }
}

#[test]
fn a_zombie_that_enters_the_next_period_is_accounted_for_in_it() {
    let mut story = Story::on(plan(vec![quota("requests", 100, "PT1H")]));
    assert!(story.passes(1));
    story.until(after(HOUR - 5));
    story.commit();
    let state = story.meter.checkpoint(story.now, false).state;
    let next = state.counters[0].escrow_next;
    assert!(next > 0);
    let mut again = restored(&story, &state, false, &[]);
    again.until(after(HOUR));
    assert_eq!(again.numbers(), (0, next, 100 - next));
    again.until(after(HOUR + 75));
    assert_eq!(again.numbers(), (0, 0, 100));
}

trait EscrowOf {
    fn escrow(&self, quota: usize) -> u64;
}

impl EscrowOf for MeterState {
    fn escrow(&self, quota: usize) -> u64 {
        self.counters[quota].escrow_hi
    }
}

#[derive(Clone, Debug)]
struct Row {
    kind: EntryKind,
    units: i64,
    ahead: i64,
    charged: bool,
    wait: i64,
}

fn any_row() -> impl Strategy<Value = Row> {
    let kind = prop_oneof![
        8 => Just(Usage),
        1 => Just(Denied),
        1 => Just(EntryKind::Commit),
        1 => Just(Adjustment),
        1 => Just(Reset),
    ];
    let ahead = prop_oneof![4 => -600i64..=0, 1 => -7_200i64..=0, 1 => 0i64..=300];
    let wait = prop_oneof![4 => 0i64..60, 1 => 0i64..5_000];
    (kind, -20i64..40, ahead, any::<bool>(), wait).prop_map(
        |(kind, units, ahead, charged, wait)| {
            // Corrections speak of the moment they are made at.
            let corrects = matches!(kind, Adjustment | Reset);
            Row { kind, units, ahead: if corrects { 0 } else { ahead }, charged, wait }
        },
    )
}

/// Units by quota and period: those handed over, and those still in the meter.
fn sums(meter: &Meter, now: Micros, past: &[Past]) -> BTreeMap<(String, Micros), u64> {
    let checkpoint = meter.clone().checkpoint(now, false);
    let mut sums = BTreeMap::new();
    for past in past.iter().chain(&checkpoint.past) {
        *sums.entry((past.quota.to_string(), past.start)).or_default() += past.units;
    }
    for counter in &checkpoint.state.counters {
        *sums.entry((counter.quota.clone(), counter.period_start)).or_default() += counter.used;
        for early in &counter.early {
            *sums.entry((counter.quota.clone(), early.start)).or_default() += early.units;
        }
    }
    sums.retain(|_, units| *units > 0);
    sums
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn a_checkpoint_and_its_tail_count_what_was_never_interrupted(
        rows in prop::collection::vec(any_row(), 1..40),
        overlap in 0usize..5,
    ) {
        let daily = Quota { meter: "requests".into(), ..quota("daily", 500, "P1D") };
        let mut story = Story::on(plan(vec![quota("requests", 100, "PT1H"), daily]));
        let mut ledger = Vec::new();
        let mut cuts = Vec::new();
        for row in &rows {
            story.later(row.wait);
            story.row_with(|seq, now| {
                let at = Micros::from_micros(now.get() + row.ahead * 1_000_000);
                let mut durable = entry(seq, row.kind, at, row.units);
                durable.charged = row.charged;
                ledger.push(durable.clone());
                durable
            });
            let checkpoint = story.meter.checkpoint(story.now, false);
            story.past.extend(checkpoint.past);
            cuts.push((checkpoint.state, story.past.clone()));
        }
        story.until(story.now.plus(Span::from_seconds(10)));
        let expected = sums(&story.meter, story.now, &story.past);
        for (position, (state, past)) in cuts.iter().enumerate() {
            // Rows from before the cut are skipped, however many of them come again.
            let tail = &ledger[(position + 1).saturating_sub(overlap)..];
            for clean in [false, true] {
                let again = restored(&story, state, clean, tail);
                prop_assert_eq!(&sums(&again.meter, story.now, past), &expected, "cut {}", position);
                let counted = |story: &Story| story.meter.clone().checkpoint(story.now, false).state.last_seq;
                prop_assert_eq!(counted(&again), counted(&story));
            }
        }
    }
}
