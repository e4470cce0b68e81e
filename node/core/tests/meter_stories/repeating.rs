//! The same request again: the same verdict, nothing charged.

use weir_core::meter::{Check, RECENT_MAX, Reason};
use weir_core::rate::Algorithm;
use weir_core::units::Span;

use crate::world::{Story, asks, rate, requests};

fn with_id(id: u128, check: Check) -> Check {
    Check { request_id: Some(id), ..check }
}

#[test]
fn a_repeat_within_ten_seconds_gets_the_verdict_and_charges_nothing() {
    let mut limited = requests(10);
    limited.rates.push(rate("hour", Algorithm::FixedWindow, 8, 3_600));
    let mut story = Story::on(limited);
    let (yes, no) = (with_id(1, asks(6)), with_id(2, asks(3)));
    let story_start = story.now;
    for micros in [0, 1, 5_000_000, 9_999_999] {
        story.until(story_start.plus(Span::from_micros(micros)));
        let decision = story.ask(&yes);
        assert!(decision.allowed, "after {micros} µs");
        assert_eq!(decision.rates[0].remaining.get(), 2);
        let refused = story.ask(&no);
        assert_eq!((refused.allowed, refused.reason), (false, Reason::RateLimited));
        assert_eq!(story.pending(), 6);
    }
    story.until(story_start.plus(Span::from_micros(10_000_000)));
    assert!(!story.ask(&yes).allowed, "a new decision, and six are too many now");
}

#[test]
fn a_repeat_keeps_its_verdict_whatever_happened_since() {
    let mut story = Story::on(requests(10));
    assert!(story.ask(&with_id(1, asks(2))).allowed);
    assert!(!story.ask(&with_id(2, asks(9))).allowed);
    assert!(story.passes(8));
    let again = story.ask(&with_id(1, asks(2)));
    assert!(again.allowed);
    assert_eq!(again.quotas[0].remaining().unwrap().get(), 0, "beside the numbers of now");
    story.later(9);
    story.apply(weir_core::meter::Command::Configure(crate::world::terms(requests(1_000))));
    assert_eq!(story.ask(&with_id(2, asks(9))).reason, Reason::QuotaExceeded);
}

#[test]
fn a_look_is_not_remembered_for_the_check_that_follows_it() {
    let mut story = Story::on(requests(10));
    assert!(story.ask(&with_id(1, asks(0))).allowed);
    assert!(story.ask(&with_id(1, asks(3))).allowed);
    assert_eq!(story.pending(), 3);
}

#[test]
fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
    let mut story = Story::on(requests(None));
    let most = RECENT_MAX as u128;
    for id in 0..most + 10 {
        story.ask(&with_id(id, asks(1)));
    }
    let charged = story.pending();
    story.ask(&with_id(10, asks(1)));
    story.ask(&with_id(most + 9, asks(1)));
    assert_eq!(story.pending(), charged, "both are remembered");
    story.ask(&with_id(9, asks(1)));
    assert_eq!(story.pending(), charged + 1, "the oldest are forgotten");
}
