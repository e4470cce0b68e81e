//! Several quotas in one plan: decided together, each with its own period.

use weir_core::meter::EntryKind::Usage;
use weir_core::meter::{Check, Reason};
use weir_core::plan::Quota;

use crate::world::{
    DAY, HOUR, Story, after, amounts, asks, asks_also, entry, plan, quota, soft, units,
};

fn daily_and_monthly() -> Story {
    let daily = Quota { meter: "requests".into(), ..quota("daily", 10, "P1D") };
    Story::on(plan(vec![quota("requests", 25, "P1M"), daily]))
}

#[test]
fn a_daily_and_a_monthly_quota_each_keep_their_own_period() {
    let mut story = daily_and_monthly();
    let mut refused_by = Vec::new();
    for day in 0..4 {
        story.until(after(day * DAY));
        for _ in 0..12 {
            let decision = story.ask(&asks(1));
            if decision.allowed {
                story.event(1);
            } else {
                refused_by.push((day, decision.violated.quotas));
            }
        }
    }
    let by_day = |day| refused_by.iter().filter(|r| r.0 == day).map(|r| r.1).collect::<Vec<_>>();
    assert_eq!(by_day(0), [0b10, 0b10], "the day is full, the month is not");
    assert_eq!(by_day(1), [0b10, 0b10]);
    assert_eq!(by_day(2), [0b01; 7], "five are left of the month");
    assert_eq!(by_day(3), [0b01; 12]);
    assert_eq!(story.quota(0).used, units(25));
    assert_eq!(story.quota(1).used, units(0));
    story.commit();
    let ended: Vec<_> = story.past.iter().map(|p| (&*p.quota, p.start, p.units)).collect();
    let day = |n: i64| after(n * DAY - 10 * HOUR);
    assert_eq!(ended, [("daily", day(0), 10), ("daily", day(1), 10), ("daily", day(2), 5)]);
}

#[test]
fn one_that_refuses_keeps_the_other_uncharged() {
    let stories: [(u64, u64, u16); 4] =
        [(5, 50, 0), (11, 50, 0b01), (5, 101, 0b10), (11, 101, 0b11)];
    for (cost, tokens, violated) in stories {
        let mut story =
            Story::on(plan(vec![quota("requests", 10, "P1M"), quota("tokens", 100, "P1D")]));
        let decision = story.ask(&asks_also(cost, &[("tokens", tokens)]));
        assert_eq!(decision.violated.quotas, violated, "{cost} and {tokens}");
        assert_eq!(decision.allowed, violated == 0);
        let expected = if violated == 0 { (cost, tokens) } else { (0, 0) };
        let held = (story.quota(0).pending.get(), story.quota(1).pending.get());
        assert_eq!(held, expected, "{cost} and {tokens}");
    }
}

#[test]
fn hard_requests_and_soft_tokens_are_settled_meter_by_meter() {
    let tokens = soft(None, quota("tokens", 100, "P1M"));
    let mut story = Story::on(plan(vec![quota("requests", 3, "P1M"), tokens]));
    for spent in [60, 60] {
        let decision = story.ask(&asks_also(1, &[("tokens", 60)]));
        assert!(decision.allowed);
        story.row_with(|seq, now| {
            let mut row = entry(seq, Usage, now, 1);
            row.others = amounts(&[("tokens", spent)]);
            row
        });
    }
    assert_eq!((story.quota(0).used, story.quota(1).used), (units(2), units(120)));
    assert!(story.ask(&asks_also(1, &[("tokens", 1)])).overage, "tokens are beyond their limit");
    assert_eq!(story.ask(&asks(1)).violated.quotas, 0b01, "requests are used up, tokens are soft");
}

#[test]
fn a_request_that_keeps_silent_about_a_used_up_meter_is_refused() {
    let mut story = Story::on(plan(vec![quota("requests", 10, "P1M"), quota("tokens", 5, "P1M")]));
    assert!(story.ask(&asks_also(1, &[("tokens", 5)])).allowed);
    let stories: [(Check, bool); 4] = [
        (asks(1), false),
        (asks_also(1, &[("tokens", 0)]), true),
        (asks(0), true),
        (asks_also(1, &[("tokens", 1)]), false),
    ];
    for (check, allowed) in stories {
        let decision = story.ask(&check);
        assert_eq!(decision.allowed, allowed, "{check:?}");
        if !allowed {
            assert_eq!((decision.reason, decision.violated.quotas), (Reason::QuotaExceeded, 0b10));
        }
    }
}

#[test]
fn sixteen_quotas_and_thirty_two_rates_each_have_a_bit() {
    use weir_core::rate::Algorithm::FixedWindow;
    let mut crowded = plan(
        (0..16)
            .map(|n| Quota { meter: "requests".into(), ..quota(&format!("q{n}"), 1, "P1M") })
            .collect(),
    );
    crowded.rates =
        (0..32).map(|n| crate::world::rate(&format!("r{n}"), FixedWindow, 1, 60)).collect();
    let mut story = Story::on(crowded);
    assert!(story.passes(1));
    let refused = story.ask(&asks(1));
    assert_eq!((refused.violated.quotas, refused.violated.rates), (u16::MAX, u32::MAX));
}

#[test]
fn a_check_that_waits_for_one_quota_does_not_wait_for_the_others_afterwards() {
    let mut story =
        Story::on(plan(vec![quota("requests", 1_000, "P1M"), quota("tokens", 1_000, "P1D")]));
    for _ in 0..5 {
        // `ask` allows one commit, and one is enough although both are large.
        assert!(story.ask(&asks_also(90, &[("tokens", 70)])).allowed);
    }
}
