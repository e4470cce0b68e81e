//! Notices: in order, once per period and version of the limit.

use weir_core::meter::Command;
use weir_core::plan::Quota;

use crate::world::{DAY, Story, after, entry, plan, quota, requests, terms};
use weir_core::meter::EntryKind::{Adjustment, Reset, Usage};

enum Step {
    Event(i64),
    Adjust(i64),
    Reset,
    Limit(u64),
    NextMonth,
}
use Step::{Adjust, Event, Limit, NextMonth};

/// Each story on a limit of 100: steps, each with the percentages that it tells.
#[test]
fn thresholds_are_told_in_order_once_a_period_and_limit_version() {
    let stories: [&[(Step, &[u16])]; 6] = [
        &[
            (Event(79), &[]),
            (Event(1), &[80]),
            (Event(9), &[]),
            (Event(11), &[90, 100]),
            (Event(9), &[]),
        ],
        &[(Event(79), &[]), (Event(22), &[80, 90, 100])],
        &[
            (Event(85), &[80]),
            (Limit(90), &[]),
            (Event(0), &[80, 90]),
            (Limit(90), &[]),
            (Event(0), &[]),
        ],
        &[
            (Event(85), &[80]),
            (Limit(200), &[]),
            (Event(75), &[80]),
            (Limit(100), &[]),
            (Event(0), &[80, 90, 100]),
        ],
        &[(Event(100), &[80, 90, 100]), (NextMonth, &[]), (Event(80), &[80])],
        &[
            (Event(85), &[80]),
            (Adjust(-50), &[]),
            (Event(50), &[]),
            (Adjust(10), &[90]),
            (Step::Reset, &[]),
            (Event(95), &[]),
        ],
    ];
    for (number, steps) in stories.into_iter().enumerate() {
        let mut story = Story::on(requests(100));
        for (position, (step, told)) in steps.iter().enumerate() {
            match *step {
                Event(units) => story.event(units),
                Adjust(units) => assert!(story.row(Adjustment, units)),
                Step::Reset => assert!(story.row(Reset, 0)),
                Limit(limit) => drop(story.apply(Command::Configure(terms(requests(limit))))),
                NextMonth => story.until(after(7 * DAY)),
            }
            story.commit();
            let notices = std::mem::take(&mut story.notices);
            let percents: Vec<_> = notices.iter().map(|notice| notice.percent).collect();
            assert_eq!(percents, *told, "story {number}, step {position}");
        }
    }
}

#[test]
fn a_notice_carries_the_numbers_of_the_step_that_caused_it() {
    let mut story = Story::on(requests(100));
    story.event(79);
    story.event(22);
    story.commit();
    let numbers: Vec<_> =
        story.notices.iter().map(|n| (n.used.get(), n.limit.get(), n.limit_version)).collect();
    assert_eq!(numbers, [(101, 100, 1); 3]);
    assert!(story.notices.iter().all(|n| n.period.contains(story.now) && n.at == story.now));
}

#[test]
fn a_check_that_charges_tells_in_the_same_step() {
    let mut by_check = requests(10);
    by_check.charge_on = weir_core::plan::ChargeOn::Check;
    let mut story = Story::on(by_check);
    assert!(story.passes(9));
    story.commit();
    assert_eq!(story.notices.iter().map(|n| n.percent).collect::<Vec<_>>(), [80, 90]);
}

#[test]
fn events_ahead_of_the_clock_tell_when_their_period_begins() {
    let mut story = Story::on(requests(100));
    story.until(after(6 * DAY + 50_200));
    story.row_with(|seq, _| entry(seq, Usage, after(6 * DAY + 50_400), 85));
    story.commit();
    assert_eq!(story.notices, []);
    story.until(after(6 * DAY + 50_400));
    story.commit();
    assert_eq!(
        story.notices.iter().map(|n| (n.percent, n.period.start)).collect::<Vec<_>>(),
        [(80, after(6 * DAY + 50_400))]
    );
}

#[test]
fn each_quota_has_its_own_thresholds() {
    let daily = Quota { meter: "requests".into(), warn_at: vec![50], ..quota("daily", 10, "P1D") };
    let mut story = Story::on(plan(vec![quota("requests", 10, "P1M"), daily]));
    story.event(8);
    story.commit();
    let told: Vec<_> = story.notices.iter().map(|n| (&*n.quota, n.percent)).collect();
    assert_eq!(told, [("requests", 80), ("daily", 50)]);
}
