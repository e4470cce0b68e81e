//! Holds: taken by checks, settled by events, returned by time.

use weir_core::meter::EntryKind::{Denied, Usage};
use weir_core::plan::Bill;
use weir_core::units::Span;

use crate::world::{HOUR, MINUTE, Story, after, entry, plan, quota, requests};

#[test]
fn a_hold_returns_not_before_its_time_and_at_most_an_eighth_of_it_late() {
    for offset in 0..120 {
        let mut story = Story::on(requests(10));
        story.until(after(0).plus(Span::from_micros(offset * 123_457)));
        assert!(story.passes(4));
        let taken_at = story.now;
        story.until(taken_at.plus(Span::from_micros(59_999_999)));
        assert_eq!(story.pending(), 4, "offset {offset}: returned early");
        story.until(taken_at.plus(Span::from_micros(67_500_000)));
        assert_eq!(story.pending(), 0, "offset {offset}: not returned");
        assert!(story.passes(10));
    }
}

#[test]
fn events_settle_the_oldest_hold_and_charge_once() {
    let mut story = Story::on(requests(10));
    assert!(story.passes(4));
    story.later(30);
    assert!(story.passes(3));
    story.event(4);
    assert_eq!(story.numbers(), (4, 3, 3), "the older hold is settled");
    story.later(35);
    assert_eq!(story.numbers(), (4, 3, 3), "nothing of the younger one has returned");
    story.later(35);
    assert_eq!(story.numbers(), (4, 0, 6));
}

/// Each story: what the event is, and (used, pending) after a check of 3 and it.
#[test]
fn every_served_or_aborted_event_settles_and_a_denied_one_does_not() {
    let charged = |status| Bill::Success.charges(Some(status));
    let stories = [
        (Usage, charged(200), 3, (3, 0)),
        (Usage, charged(500), 3, (0, 0)),
        (Usage, false, 1, (0, 2)),
        (Usage, true, 1, (1, 2)),
        (Usage, true, 5, (5, 0)),
        (Denied, true, 3, (0, 3)),
    ];
    for (kind, charged, units, expected) in stories {
        let mut story = Story::on(requests(10));
        assert!(story.passes(3));
        story.row_with(|seq, now| {
            let mut row = entry(seq, kind, now, units);
            row.charged = charged;
            row
        });
        assert_eq!((story.used(), story.pending()), expected, "{kind:?} {charged} {units}");
    }
}

#[test]
fn a_hold_belongs_to_the_period_it_was_made_in() {
    let mut story = Story::on(plan(vec![quota("requests", 10, "PT1H")]));
    story.until(after(HOUR - 1));
    assert!(story.passes(10));
    assert!(!story.passes(1));
    story.until(after(HOUR));
    assert_eq!(story.numbers(), (0, 0, 10));
    assert!(story.passes(6));
    // Its event lies in the hour before and settles nothing of this one.
    story.row_with(|seq, _| entry(seq, Usage, after(HOUR - 1), 10));
    assert_eq!(story.numbers(), (0, 6, 4));
}

#[test]
fn an_event_without_a_check_is_charged_and_never_refused() {
    let mut story = Story::on(requests(10));
    story.event(12);
    assert_eq!(story.numbers(), (12, 0, 0));
    assert!(!story.passes(1));
}

#[test]
fn on_a_plan_that_charges_by_check_the_event_changes_nothing() {
    let mut by_check = requests(10);
    by_check.charge_on = weir_core::plan::ChargeOn::Check;
    let mut story = Story::on(by_check);
    assert!(story.passes(4));
    assert_eq!(story.numbers(), (4, 0, 6));
    story.event(4);
    assert_eq!(story.numbers(), (4, 0, 6));
    story.later(10 * MINUTE);
    assert_eq!(story.numbers(), (4, 0, 6), "a charge does not return");
    assert!(!story.passes(7));
    assert!(story.passes(6));
}
