//! Reservations: holds that are settled by name.

use weir_core::meter::EntryKind::{Commit, Usage};
use weir_core::meter::{Answer, Check, Command, Entry, NAMED_MAX, Reason, Wants};
use weir_core::plan::ChargeOn;

use crate::world::{HOUR, Story, after, asks, entry, plan, quota, requests, reservation};

fn reserve(story: &mut Story, number: u128, cost: u64) -> bool {
    let check = Check { reserve: Some(reservation(number)), ..asks(cost) };
    let decision = story.ask(&check);
    assert_eq!(decision.reservation, decision.allowed.then_some(reservation(number)));
    decision.allowed
}

fn commit(number: u128, units: i64) -> impl FnOnce(u64, weir_core::units::Micros) -> Entry {
    move |seq, now| Entry {
        reservation: Some(reservation(number)),
        ..entry(seq, Commit, now, units)
    }
}

/// Each story: what happens to a reservation of 6 out of 10, and (used, pending) afterwards.
#[test]
fn a_reservation_is_committed_for_less_or_more_released_or_expires() {
    enum Then {
        Commit(i64),
        Event(i64),
        Release,
        Expire,
        ExpireThenCommit(i64),
        ReleaseThenCommit(i64),
        CommitThenRelease(i64),
    }
    let stories = [
        (Then::Commit(4), (4, 0)),
        (Then::Commit(6), (6, 0)),
        (Then::Commit(9), (9, 0)),
        (Then::Commit(0), (0, 0)),
        (Then::Event(5), (5, 0)),
        (Then::Release, (0, 0)),
        (Then::Expire, (0, 0)),
        (Then::ExpireThenCommit(6), (6, 0)),
        (Then::ReleaseThenCommit(6), (6, 0)),
        (Then::CommitThenRelease(4), (4, 0)),
    ];
    for charge_on in [ChargeOn::Event, ChargeOn::Check] {
        for (then, expected) in &stories {
            let mut by = requests(10);
            by.charge_on = charge_on;
            let mut story = Story::on(by);
            assert!(reserve(&mut story, 1, 6));
            assert!(!story.passes(5), "reserved units are held");
            assert_eq!((story.used(), story.pending()), (0, 6));
            let release = |story: &mut Story| story.apply(Command::Release(reservation(1))).answer;
            match *then {
                Then::Commit(units) => assert!(story.row_with(commit(1, units))),
                Then::Event(units) => {
                    let row = commit(1, units);
                    story.row_with(|seq, now| Entry { kind: Usage, ..row(seq, now) });
                }
                Then::Release => {
                    assert!(matches!(release(&mut story), Answer::Released(true)));
                    assert!(matches!(release(&mut story), Answer::Released(false)));
                }
                Then::Expire => story.later(60),
                Then::ExpireThenCommit(units) => {
                    story.later(60);
                    assert_eq!(story.meter.reservation_expires_at(reservation(1)), None);
                    story.row_with(commit(1, units));
                }
                Then::ReleaseThenCommit(units) => {
                    release(&mut story);
                    story.row_with(commit(1, units));
                }
                Then::CommitThenRelease(units) => {
                    story.row_with(commit(1, units));
                    assert!(matches!(release(&mut story), Answer::Released(false)));
                }
            }
            assert_eq!((story.used(), story.pending()), *expected);
        }
    }
}

#[test]
fn a_commit_is_one_ledger_row_and_its_repeat_is_skipped() {
    let mut story = Story::on(requests(10));
    assert!(reserve(&mut story, 1, 6));
    let row = Entry { reservation: Some(reservation(1)), ..entry(1, Commit, story.now, 4) };
    for (new, used) in [(true, 4), (false, 4), (false, 4)] {
        let answer = story.apply(Command::Record(&row)).answer;
        assert!(matches!(answer, Answer::Recorded(n) if n == new));
        assert_eq!(story.used(), used);
    }
}

#[test]
fn events_settle_checks_and_never_somebody_elses_reservation() {
    let mut story = Story::on(requests(10));
    assert!(reserve(&mut story, 1, 4));
    assert!(story.passes(2));
    story.event(3);
    assert_eq!((story.used(), story.pending()), (3, 4));
}

#[test]
fn a_reservation_is_durable_before_it_is_answered_and_forgotten_when_that_fails() {
    let mut story = Story::on(requests(10));
    story.commit();
    let check = Check { reserve: Some(reservation(1)), request_id: Some(7), ..asks(6) };
    let outcome = story.apply(Command::Check(&check));
    assert_eq!(outcome.wants, Wants::CheckpointNow);
    assert!(matches!(outcome.answer, Answer::Decided(d) if d.allowed));
    story.apply(Command::Forget(reservation(1)));
    assert_eq!(story.pending(), 0);
    // The same request again is a new decision: the old one never reached anybody.
    assert!(story.ask(&check).allowed);
    assert_eq!(story.pending(), 6);
}

#[test]
fn a_released_reservation_passes_again_once_its_release_is_durable() {
    let mut story = Story::on(requests(10));
    story.commit();
    assert!(reserve(&mut story, 1, 10));
    story.commit();
    assert_eq!(story.apply(Command::Release(reservation(1))).wants, Wants::CheckpointNow);
    assert_eq!(story.numbers(), (0, 0, 10));
    let before = story.apply(Command::Check(&asks(1)));
    assert!(matches!(before.answer, Answer::Waits), "a successor would still find it");
    assert!(story.passes(10));
}

#[test]
fn reservations_are_bounded_and_a_full_list_refuses_only_reservations() {
    let mut story = Story::on(requests(10_000));
    for number in 0..NAMED_MAX as u128 {
        assert!(reserve(&mut story, number, 1));
    }
    let check = Check { reserve: Some(reservation(u128::MAX)), ..asks(1) };
    assert_eq!(story.ask(&check).reason, Reason::TooManyReservations);
    assert!(story.passes(1));
    story.later(68);
    assert_eq!(story.pending(), 0);
    assert!(reserve(&mut story, 1, 1));
}

#[test]
fn a_reservation_holds_nothing_of_the_next_period() {
    let mut story = Story::on(plan(vec![quota("requests", 10, "PT1H")]));
    story.until(after(HOUR - 1));
    assert!(reserve(&mut story, 1, 10));
    story.until(after(HOUR));
    assert_eq!(story.numbers(), (0, 0, 10));
    story.row_with(commit(1, 7));
    assert_eq!(story.numbers(), (7, 0, 3), "it is charged when it is committed");
}
