//! Periods: late and early events, what ends, what begins.

use weir_core::meter::EntryKind::{Adjustment, Reset, Usage};
use weir_core::meter::{Command, WAITING_MAX, Wants};

use crate::world::{DAY, HOUR, MINUTE, Story, after, entry, plan, quota, requests};

fn hourly() -> Story {
    Story::on(plan(vec![quota("requests", 100, "PT1H")]))
}

fn past(story: &mut Story) -> Vec<(i64, u64)> {
    story.commit();
    let start = crate::world::START;
    let hour = |at: weir_core::units::Micros| (at.get() - start.get()).div_euclid(HOUR * 1_000_000);
    story.past.drain(..).map(|past| (hour(past.start), past.units)).collect()
}

#[test]
fn a_late_event_goes_to_its_own_period_once() {
    let mut story = hourly();
    story.event(5);
    story.until(after(2 * HOUR));
    story.event(7);
    for (at, units) in [(-MINUTE, 1), (0, 2), (HOUR - 1, 3), (HOUR, 4)] {
        story.row_with(|seq, _| entry(seq, Usage, after(at), units));
    }
    assert_eq!(story.used(), 7);
    assert_eq!(past(&mut story), [(-1, 1), (0, 10), (1, 4)]);
    assert_eq!(past(&mut story), [], "handed over once");
    story.row_with(|seq, _| entry(seq, Usage, after(0), 6));
    assert_eq!(past(&mut story), [(0, 6)], "later ones are additions");
}

#[test]
fn an_early_event_counts_when_its_period_begins() {
    let mut story = hourly();
    story.until(after(HOUR - 2 * MINUTE));
    story.event(5);
    for (at, units) in [(HOUR - 1, 1), (HOUR, 2), (HOUR + MINUTE, 3), (2 * HOUR, 4)] {
        story.row_with(|seq, _| entry(seq, Usage, after(at), units));
    }
    assert_eq!(story.used(), 6);
    story.until(after(HOUR));
    assert_eq!(story.used(), 5);
    assert_eq!(past(&mut story), [(0, 6)]);
    story.until(after(5 * HOUR));
    assert_eq!(story.used(), 0);
    assert_eq!(past(&mut story), [(1, 5), (2, 4)], "one skipped over is owed as well");
}

#[test]
fn a_period_in_which_nothing_was_used_adds_nothing() {
    let mut story = hourly();
    story.until(after(30 * DAY));
    assert_eq!(past(&mut story), []);
}

#[test]
fn the_roll_happens_with_the_first_command_after_the_end() {
    let mut story = hourly();
    story.event(100);
    story.now = after(HOUR).minus(weir_core::units::Span::from_micros(1));
    assert!(!story.passes(1));
    story.now = after(HOUR);
    assert!(story.passes(100));
}

#[test]
fn a_new_period_begins_with_what_was_persisted_for_it() {
    let mut story = hourly();
    assert!(story.passes(1));
    story.now = after(HOUR);
    let outcome = story.apply(Command::Check(&crate::world::asks(1)));
    assert!(
        matches!(outcome.answer, weir_core::meter::Answer::Decided(d) if d.allowed),
        "the first check of a period does not wait for a commit"
    );
    // Two periods on, nothing was persisted.
    story.now = after(3 * HOUR);
    let outcome = story.apply(Command::Check(&crate::world::asks(1)));
    assert!(matches!(outcome.answer, weir_core::meter::Answer::Waits));
}

#[test]
fn adjustments_and_resets_move_the_running_period_alone() {
    let mut story = hourly();
    story.event(50);
    story.until(after(HOUR));
    story.event(10);
    for (kind, units, used) in [
        (Adjustment, 5, 15),
        (Adjustment, -7, 8),
        (Adjustment, -100, 0),
        (Adjustment, 3, 3),
        (Reset, 0, 0),
    ] {
        assert!(story.row(kind, units));
        assert_eq!(story.used(), used, "{kind:?} {units}");
    }
    assert_eq!(past(&mut story), [(0, 50)]);
}

#[test]
fn a_reset_keeps_what_is_held() {
    let mut story = Story::on(requests(10));
    story.event(6);
    assert!(story.passes(4));
    assert!(story.row(Reset, 0));
    assert_eq!(story.numbers(), (0, 4, 6));
}

#[test]
fn a_row_seen_twice_is_skipped() {
    let mut story = hourly();
    for seq in [1, 2, 2, 1, 5, 4, 6] {
        let row = entry(seq, Usage, story.now, 1);
        story.apply(Command::Record(&row));
    }
    assert_eq!(story.used(), 4, "1, 2, 5 and 6");
    assert_eq!(story.meter.checkpoint(story.now, false).state.last_seq.0, 6);
}

#[test]
fn a_flood_of_late_events_asks_for_a_checkpoint_before_it_grows_large() {
    let mut story = hourly();
    for (hour, seq) in (0..).zip(1..=WAITING_MAX as u64) {
        let row = entry(seq, Usage, after(-hour * HOUR - 1), 1);
        let wants = story.apply(Command::Record(&row)).wants;
        let full = seq == WAITING_MAX as u64;
        assert_eq!(wants, if full { Wants::CheckpointNow } else { Wants::Checkpoint });
    }
    story.seq = WAITING_MAX as u64;
    assert_eq!(past(&mut story).len(), WAITING_MAX);
    // The same hour again and again is one addition.
    for _ in 0..5_000 {
        story.row_with(|seq, _| entry(seq, Usage, after(-1), 1));
    }
    assert_eq!(past(&mut story), [(-1, 5_000)]);
}
