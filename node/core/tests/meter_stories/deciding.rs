//! One quota: what passes, what does not, and that a refusal changes nothing.

use weir_core::meter::{Mode, Reason};
use weir_core::rate::Algorithm;

use crate::world::{Story, asks, asks_also, plan, quota, rate, requests, soft, units};

/// Each story: the limit, and then (cost, allowed, remaining afterwards).
#[test]
fn exactly_the_remainder_passes_and_an_over_ask_changes_nothing() {
    type Step = (u64, bool, u64);
    let stories: [(u64, &[Step]); 6] = [
        (10, &[(7, true, 3), (3, true, 0), (1, false, 0)]),
        (10, &[(11, false, 10), (10, true, 0), (1, false, 0)]),
        (10, &[(7, true, 3), (4, false, 3), (3, true, 0)]),
        (1, &[(1, true, 0), (1, false, 0)]),
        (0, &[(1, false, 0), (0, true, 0)]),
        (
            1_000_000,
            &[(1_000_001, false, 1_000_000), (999_999, true, 1), (2, false, 1), (1, true, 0)],
        ),
    ];
    for (limit, steps) in stories {
        let mut story = Story::on(requests(limit));
        for &(cost, allowed, remaining) in steps {
            let decision = story.ask(&asks(cost));
            let reason = if allowed { Reason::Ok } else { Reason::QuotaExceeded };
            assert_eq!((decision.allowed, decision.reason), (allowed, reason), "{cost} of {limit}");
            assert_eq!(decision.violated.quotas, u16::from(!allowed));
            assert_eq!(decision.quotas[0].remaining(), Some(units(remaining)), "{cost} of {limit}");
            assert_eq!(story.numbers().2, remaining);
        }
    }
}

#[test]
fn a_refusal_says_when_the_period_ends() {
    let mut story = Story::on(requests(1));
    assert!(story.passes(1));
    let refused = story.ask(&asks(1));
    assert_eq!(refused.retry_after, refused.quotas[0].reset_at.since(story.now));
}

#[test]
fn cost_zero_looks_and_moves_nothing() {
    let mut with_rate = requests(5);
    with_rate.rates.push(rate("minute", Algorithm::FixedWindow, 2, 60));
    let mut story = Story::on(with_rate);
    assert!(story.passes(2));
    let before = format!("{:?}", story.meter.quotas());
    for _ in 0..10 {
        let peek = story.ask(&asks(0));
        assert!(peek.allowed, "a look fits even where nothing is left");
        assert_eq!(peek.rate_left(), 0);
        assert_eq!(peek.quotas[0].remaining(), Some(units(3)));
    }
    assert_eq!(format!("{:?}", story.meter.quotas()), before);
}

#[test]
fn quota_and_rate_are_decided_together_and_neither_is_charged_alone() {
    // The quota would pass, the rate refuses.
    let mut tight_rate = requests(100);
    tight_rate.rates.push(rate("second", Algorithm::TokenBucket, 2, 1));
    let mut story = Story::on(tight_rate);
    assert!(story.passes(2));
    for _ in 0..5 {
        let refused = story.ask(&asks(1));
        assert_eq!(refused.reason, Reason::RateLimited);
        assert_eq!((refused.violated.quotas, refused.violated.rates), (0, 1));
        assert!(refused.retry_after.seconds_ceil() == 1);
    }
    assert_eq!(story.numbers(), (0, 2, 98));

    // The rate would pass, the quota refuses.
    let mut tight_quota = requests(2);
    tight_quota.rates.push(rate("hour", Algorithm::FixedWindow, 10, 3_600));
    tight_quota.rates.push(rate("minute", Algorithm::SlidingWindow, 10, 60));
    let mut story = Story::on(tight_quota);
    assert!(story.passes(2));
    for _ in 0..5 {
        let refused = story.ask(&asks(1));
        assert_eq!(refused.reason, Reason::QuotaExceeded);
        assert_eq!((refused.violated.quotas, refused.violated.rates), (1, 0));
        assert_eq!(refused.rates.iter().map(|r| r.remaining.get()).collect::<Vec<_>>(), [8, 8]);
    }

    // Both refuse: both are named, and the quota is the reason.
    let mut both = requests(1);
    both.rates.push(rate("hour", Algorithm::FixedWindow, 1, 3_600));
    let mut story = Story::on(both);
    assert!(story.passes(1));
    let refused = story.ask(&asks(1));
    assert_eq!(refused.reason, Reason::QuotaExceeded);
    assert_eq!((refused.violated.quotas, refused.violated.rates), (1, 1));
}

#[test]
fn a_cost_that_waits_for_escrow_is_not_charged_to_its_rate_limit() {
    let mut limited = requests(100);
    limited.rates.push(rate("hour", Algorithm::FixedWindow, 10, 3_600));
    let mut story = Story::on(limited);
    // The first check waits for a commit and is asked again.
    assert_eq!(story.ask(&asks(1)).rates[0].remaining, units(9));
}

#[test]
fn soft_quotas_pass_the_limit_up_to_their_hard_cap() {
    let mut story = Story::on(plan(vec![soft(15, quota("requests", 10, "P1M"))]));
    for (cost, allowed, overage) in
        [(10, true, false), (1, true, true), (5, false, false), (4, true, true), (1, false, false)]
    {
        let decision = story.ask(&asks(cost));
        assert_eq!((decision.allowed, decision.overage), (allowed, overage), "cost {cost}");
    }
    let mut unbounded = Story::on(plan(vec![soft(None, quota("requests", 10, "P1M"))]));
    assert!(unbounded.passes(1_000));
    assert_eq!(unbounded.numbers(), (0, 1_000, 0));
    let mut unlimited = Story::on(requests(None));
    assert!(unlimited.passes(1_000_000));
    assert_eq!(unlimited.quota(0).remaining(), None);
}

#[test]
fn shadow_lets_everything_pass_and_says_what_it_would_have_refused() {
    let mut watched = requests(3);
    watched.shadow = true;
    watched.rates.push(rate("hour", Algorithm::FixedWindow, 2, 3_600));
    let mut story = Story::on(watched);
    for (cost, quotas, rates) in [(2, 0, 0), (1, 0, 1), (1, 1, 1), (100, 1, 1)] {
        let decision = story.ask(&asks(cost));
        assert!(decision.allowed);
        assert_eq!((decision.mode, decision.reason), (Mode::Shadow, Reason::Ok));
        assert_eq!((decision.violated.quotas, decision.violated.rates), (quotas, rates));
    }
    assert_eq!(story.pending(), 104);
}

#[test]
fn degraded_passes_the_escrow_and_never_the_limit() {
    let mut story = Story::on(requests(1_000));
    assert!(story.passes(1));
    // The store is away: no checkpoint is confirmed any more.
    let mut allowed = 1;
    let mut modes = Vec::new();
    for _ in 0..2_000 {
        let check = weir_core::meter::Check { degraded: true, ..asks(1) };
        let decision = story.ask(&check);
        allowed += u64::from(decision.allowed);
        modes.push(decision.mode);
    }
    assert_eq!(allowed, 1_000);
    assert_eq!(modes[0], Mode::Degraded, "within the escrow, too: another may own it by now");
    assert_eq!(modes[998], Mode::Degraded);
    assert_eq!(modes[1_999], Mode::Enforced, "a refusal at the limit is a firm one");
}

#[test]
fn a_meter_that_the_plan_does_not_name_limits_nothing() {
    let mut story = Story::on(requests(3));
    assert!(story.ask(&asks_also(1, &[("tokens", 1_000_000)])).allowed);
    assert_eq!(story.numbers(), (0, 1, 2));
}

trait RateLeft {
    fn rate_left(&self) -> u64;
}

impl RateLeft for weir_core::meter::Decision {
    fn rate_left(&self) -> u64 {
        self.rates[0].remaining.get()
    }
}
