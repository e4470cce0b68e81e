//! Terms that change in the middle of a period.

use rust_decimal::Decimal;
use uuid::Uuid;
use weir_core::calendar::Anchor;
use weir_core::meter::Command;
use weir_core::plan::{Plan, Quota};
use weir_core::price::{Model, Overage};
use weir_core::rate::Algorithm;
use weir_core::units::PlanId;

use crate::world::{
    DAY, HOUR, Story, after, entry, plan, quota, rate, requests, soft, terms, units,
};
use weir_core::meter::EntryKind::Usage;

fn change(story: &mut Story, plan: Plan) {
    story.apply(Command::Configure(terms(plan)));
}

fn other(id: u128, plan: Plan) -> Plan {
    Plan { id: PlanId::from_uuid(Uuid::from_u128(id)), ..plan }
}

#[test]
fn used_is_kept_lowering_leaves_nothing_and_raising_unblocks_at_once() {
    let mut story = Story::on(requests(100));
    story.event(50);
    for (limit, expected) in
        [(10, (50, 0, 0)), (100, (50, 0, 50)), (50, (50, 0, 0)), (51, (50, 0, 1))]
    {
        change(&mut story, requests(limit));
        assert_eq!(story.numbers(), expected, "limit {limit}");
        assert_eq!(story.clone().passes(1), expected.2 > 0, "limit {limit}");
    }
    change(&mut story, requests(None));
    assert!(story.passes(1_000));
}

#[test]
fn raising_a_limit_unblocks_without_waiting_for_the_next_period() {
    let mut story = Story::on(requests(3));
    assert!(story.passes(3));
    assert!(!story.passes(1));
    change(&mut story, requests(5));
    assert!(story.passes(2));
    assert!(!story.passes(1));
}

#[test]
fn loading_the_same_plan_again_keeps_every_counter() {
    let mut busy = requests(100);
    busy.rates.push(rate("hour", Algorithm::SlidingWindow, 50, 3_600));
    let mut story = Story::on(busy.clone());
    story.event(85);
    assert!(story.passes(7));
    story.commit();
    let before = format!("{:?}", story.meter);
    let notices = story.notices.len();
    for version in 2..5 {
        change(&mut story, Plan { version, ..busy.clone() });
        story.event(0);
        story.commit();
    }
    assert_eq!(story.numbers(), (85, 7, 8));
    assert_eq!(story.notices.len(), notices, "nothing is told twice");
    assert_eq!(story.ask(&crate::world::asks(0)).rates[0].remaining, units(43));
    assert!(before.contains("used: Units(85)"));
}

#[test]
fn a_waiting_change_takes_over_at_the_end_of_the_billing_period() {
    let mut story = Story::on(requests(100));
    story.event(50);
    story.apply(Command::ConfigureNext(terms(other(2, requests(10)))));
    story.until(after(6 * DAY));
    assert_eq!(story.numbers(), (50, 0, 50), "30 November: the old plan");
    story.until(after(7 * DAY));
    assert_eq!(story.numbers(), (0, 0, 10), "1 December: the new one");
    story.commit();
    assert!(story.switched);
    assert_eq!(story.past.iter().map(|p| p.units).collect::<Vec<_>>(), [50]);
    assert_eq!(story.past[0].limit, Some(units(100)), "it ended under the old limit");
}

/// Each story: what is configured at once while plan 2 waits, and whether plan 2 still comes.
#[test]
fn a_new_version_of_todays_plan_leaves_a_waiting_change_waiting() {
    let stories = [
        (other(1, requests(200)), true),
        (other(3, requests(200)), false),
        (other(2, requests(200)), false),
    ];
    for (now, waits) in stories {
        let mut story = Story::on(other(1, requests(100)));
        story.apply(Command::ConfigureNext(terms(other(2, requests(10)))));
        change(&mut story, now.clone());
        story.until(after(7 * DAY));
        let expected = if waits { 10 } else { 200 };
        assert_eq!(story.quota(0).limit, Some(units(expected)), "{:?}", now.id);
    }
    // A newer version of today's plan that waits is overtaken by one that does not.
    let mut story = Story::on(other(1, requests(100)));
    story.apply(Command::ConfigureNext(terms(other(1, requests(10)))));
    change(&mut story, other(1, requests(300)));
    story.until(after(7 * DAY));
    assert_eq!(story.quota(0).limit, Some(units(300)));
}

#[test]
fn another_period_length_is_entered_with_what_was_used() {
    let mut story = Story::on(requests(100));
    story.event(50);
    // Five minutes ahead of midnight an event of tomorrow is counted early.
    story.until(after(14 * HOUR - 300));
    story.row_with(|seq, _| entry(seq, Usage, after(14 * HOUR), 3));
    assert_eq!(story.used(), 53);
    change(&mut story, plan(vec![quota("requests", 60, "P1D")]));
    assert_eq!(story.numbers(), (53, 0, 7));
    story.row_with(|seq, _| entry(seq, Usage, after(14 * HOUR + 1), 4));
    assert_eq!(story.numbers(), (53, 0, 7), "tomorrow's");
    // Back to months: what was early for tomorrow is this month's now.
    change(&mut story, requests(100));
    assert_eq!(story.numbers(), (57, 0, 43));
}

#[test]
fn what_a_quota_counted_before_it_left_the_plan_is_still_owed() {
    let tokens = quota("tokens", 1_000, "P1M");
    let mut story = Story::on(plan(vec![quota("requests", 100, "P1M"), tokens.clone()]));
    story.row_with(|seq, now| {
        let mut row = entry(seq, Usage, now, 2);
        row.others = crate::world::amounts(&[("tokens", 70)]);
        row
    });
    change(&mut story, requests(100));
    story.commit();
    let owed: Vec<_> = story.past.iter().map(|p| (&*p.quota, &*p.meter, p.units)).collect();
    assert_eq!(owed, [("tokens", "tokens", 70)]);
    // The same name on another meter is another quota.
    let renamed = Quota { meter: "tokens".into(), ..quota("requests", 100, "P1M") };
    change(&mut story, plan(vec![renamed]));
    assert_eq!(story.used(), 0);
    story.commit();
    assert_eq!(story.past.iter().map(|p| p.units).sum::<u64>(), 72);
}

#[test]
fn holds_and_reservations_follow_their_quota_to_its_new_place() {
    let (a, b) = (quota("requests", 100, "P1M"), quota("tokens", 100, "P1M"));
    let mut story = Story::on(plan(vec![a.clone(), b.clone()]));
    let mut check = crate::world::asks_also(5, &[("tokens", 7)]);
    assert!(story.ask(&check).allowed);
    check.reserve = Some(crate::world::reservation(1));
    assert!(story.ask(&check).allowed);
    change(&mut story, plan(vec![b, quota("bytes", 9, "P1M"), a]));
    let pending =
        |story: &Story| story.meter.quotas().iter().map(|q| q.pending.get()).collect::<Vec<_>>();
    assert_eq!(pending(&story), [14, 0, 10]);
    story.apply(Command::Release(crate::world::reservation(1)));
    assert_eq!(pending(&story), [7, 0, 5]);
}

/// Each story: where overage started, used, where it starts then, what of it is overage before and
/// after, and how many units are free in all (the larger of the two: where it starts, and what was used
/// freely before).
#[test]
fn a_limit_that_moves_makes_no_overage_of_what_was_used_and_takes_none_back() {
    let stories = [
        (Some(100), 50, Some(10), 0, 50),
        (Some(100), 120, Some(10), 20, 100),
        (Some(100), 5, Some(10), 0, 10),
        (Some(10), 50, Some(100), 40, 100),
        (Some(100), 150, Some(200), 50, 200),
        (None, 50, Some(10), 0, 50),
    ];
    for (before, used, after, kept, never) in stories {
        let limited = |limit: Option<u64>| plan(vec![soft(None, quota("requests", limit, "P1M"))]);
        let mut story = Story::on(limited(before));
        story.event(used);
        change(&mut story, limited(after));
        let quota = story.quota(0);
        assert_eq!(quota.overage_units().get(), kept, "{before:?} {used} {after:?}");
        story.event(40);
        let freed: u64 = story.quota(0).used.get() - 40 - kept;
        let expected = kept + 40_u64.saturating_sub(u64::saturating_sub(never, freed));
        assert_eq!(story.quota(0).overage_units().get(), expected, "{before:?} {used} {after:?}");
        story.until(crate::world::after(7 * DAY));
        assert_eq!(story.quota(0).overage_units(), units(0), "a new period starts afresh");
    }
}

#[test]
fn what_the_price_includes_is_where_overage_starts() {
    let included = |included: u64| {
        let model = Model::PerUnit { unit_price: Decimal::ONE };
        let overage = Overage { model, included: Some(units(included)), cap: None };
        plan(vec![Quota { overage: Some(overage), ..soft(None, quota("requests", 1_000, "P1M")) }])
    };
    let mut story = Story::on(included(100));
    story.event(80);
    change(&mut story, included(20));
    assert_eq!(story.quota(0).overage_units(), units(0));
    story.event(5);
    change(&mut story, included(10));
    assert_eq!(story.quota(0).overage_units(), units(5), "five were overage and stay so");
}

#[test]
fn a_cap_that_goes_and_comes_back_begins_with_nothing_persisted() {
    let mut story = Story::on(requests(100));
    assert!(story.passes(10));
    change(&mut story, requests(None));
    story.commit();
    change(&mut story, requests(100));
    let outcome = story.apply(Command::Check(&crate::world::asks(1)));
    assert!(matches!(outcome.answer, weir_core::meter::Answer::Waits));
    assert!(story.passes(90));
    assert!(!story.passes(1));
}

#[test]
fn an_anchor_that_moves_never_gives_a_quota_back() {
    let mut story = Story::on(requests(10));
    story.event(10);
    let mut moved = quota("requests", 10, "P1M");
    for days in [0, 1, 5] {
        moved.anchor = Anchor::At(after(-days * DAY));
        change(&mut story, plan(vec![moved.clone()]));
        assert_eq!(story.numbers(), (10, 0, 0), "anchored {days} days ago");
    }
}
