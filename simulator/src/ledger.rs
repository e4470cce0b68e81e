//! The audit at the end of a run: what the client knows against what Weir recorded and charged.
//!
//! For each subscription three things must hold:
//!
//! * nothing lost, nothing double: `acknowledged ≤ requests recorded ≤ acknowledged + unknown`;
//! * charged right: the same with units, against the owner's `used`;
//! * never over: on a hard plan, units admitted by checks ≤ limit, and `used` ≤ limit.
//!
//! *Unknown* are events whose acknowledgement never came. Reads are repeated until they agree or
//! stop moving, because analytics follow the ledger by up to a checkpoint; then everything is read
//! once more, so that a double that arrives late is seen, too.

use std::time::Duration;

use serde::Serialize;

use crate::Error;
use crate::api::{self, Api, Range, Stats, Usage};
use crate::clock;
use crate::numbers::count;
use crate::progress::Progress;

/// Wait between two reads of the subscriptions that do not agree yet.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// Reads in a row without any movement before numbers count as final: more than two checkpoints.
const STILL_READS: u32 = 6;
/// Subscriptions listed one by one in a report.
const FINDINGS_MAX: usize = 1_000;

/// What the client knows about one subscription.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// Its id.
    pub id: String,
    /// Its name in the run (external id).
    pub label: String,
    /// The hard limit, if it has one.
    pub limit: Option<u64>,
    /// Units of its allowed checks.
    pub admitted_units: u64,
    /// Events acknowledged.
    pub acked: u64,
    /// Units of those.
    pub acked_units: u64,
    /// Events with unknown outcome.
    pub unknown: u64,
    /// Units of those.
    pub unknown_units: u64,
    /// False when the plan's own costs decide, which the client does not know: then `used` is shown
    /// but not compared.
    pub units_are_known: bool,
}

/// What Weir answers about one subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// From the analytics.
    pub stats: Stats,
    /// From the owner actor.
    pub usage: Usage,
}

/// One subscription whose numbers do not add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Subscription id.
    pub subscription_id: String,
    /// Its external id.
    pub external_id: String,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// Events acknowledged to the client.
    pub acked: u64,
    /// Events with unknown outcome.
    pub unknown: u64,
    /// Requests that Weir recorded.
    pub recorded: u64,
    /// Units acknowledged to the client.
    pub acked_units: u64,
    /// Units that Weir charged.
    pub used: u64,
    /// Units admitted by checks.
    pub admitted: u64,
    /// The hard limit.
    pub limit: Option<u64>,
}

/// The verdict.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// True when every subscription adds up and no event was rejected.
    pub passed: bool,
    /// Subscriptions looked at.
    pub subscriptions: u64,
    /// Subscriptions that do not add up.
    pub failed_subscriptions: u64,
    /// Events acknowledged.
    pub acked: u64,
    /// Events with unknown outcome, counted between the bounds.
    pub unknown: u64,
    /// Requests that Weir recorded.
    pub recorded: u64,
    /// Units acknowledged.
    pub acked_units: u64,
    /// Units with unknown outcome.
    pub unknown_units: u64,
    /// Units that Weir charged.
    pub used: u64,
    /// Events acknowledged and not recorded.
    pub lost: u64,
    /// Requests recorded beyond what was sent.
    pub double: u64,
    /// Units acknowledged and not charged.
    pub lost_units: u64,
    /// Units charged beyond what was sent.
    pub double_units: u64,
    /// Units admitted beyond hard limits.
    pub over_admitted: u64,
    /// Subscriptions with a hard limit.
    pub hard_limited: u64,
    /// Of those, the ones whose limit was reached.
    pub at_limit: u64,
    /// Seconds until the numbers stood still.
    pub settled_after_seconds: f64,
    /// Failures that are not about one subscription.
    pub general_problems: Vec<String>,
    /// The subscriptions that do not add up, at most 1,000.
    pub findings: Vec<Finding>,
}

/// Reads Weir until it agrees or stands still, and judges.
pub async fn audit(
    apis: &mut [Api],
    expectations: &[Expectation],
    range: Range,
    settle: Duration,
    quiet: bool,
) -> Result<(Verdict, Vec<Reading>), Error> {
    let started = clock::now();
    let readings = settle_down(apis, expectations, range, settle, quiet).await?;
    let mut verdict = judge(expectations, &readings);
    verdict.settled_after_seconds = (clock::now() - started).as_secs_f64();
    Ok((verdict, readings))
}

async fn settle_down(
    apis: &mut [Api],
    expectations: &[Expectation],
    range: Range,
    settle: Duration,
    quiet: bool,
) -> Result<Vec<Reading>, Error> {
    let give_up_at = clock::now() + settle;
    let mut progress = Progress::begin("ledger", count(expectations.len()), quiet);
    let everyone: Vec<usize> = (0..expectations.len()).collect();
    let mut readings = read(apis, expectations, &everyone, range).await?;
    let mut still = 0;
    loop {
        let open: Vec<usize> = (0..expectations.len())
            .filter(|&index| !problems(&expectations[index], &readings[index]).is_empty())
            .collect();
        let agreed = count(expectations.len() - open.len());
        progress.at(agreed, || format!("subscriptions agree, {} do not yet", open.len()));
        if open.is_empty() || still >= STILL_READS || clock::now() >= give_up_at {
            break;
        }
        tokio::time::sleep(POLL_EVERY).await;
        let again = read(apis, expectations, &open, range).await?;
        let mut moved = false;
        for (&index, reading) in open.iter().zip(again) {
            moved |= readings[index] != reading;
            readings[index] = reading;
        }
        still = if moved { 0 } else { still + 1 };
    }
    tokio::time::sleep(POLL_EVERY).await;
    readings = read(apis, expectations, &everyone, range).await?;
    progress.end(&format!("read {} subscriptions", expectations.len()));
    Ok(readings)
}

async fn read(
    apis: &mut [Api],
    expectations: &[Expectation],
    which: &[usize],
    range: Range,
) -> Result<Vec<Reading>, Error> {
    api::for_each(apis, which.len(), async |api, place| {
        let id = &expectations[which[place]].id;
        Ok(Reading { stats: api.stats(id, &range).await?, usage: api.usage(id).await? })
    })
    .await
}

/// Compares all subscriptions; pure, so that tests can show that it fails when it must.
pub fn judge(expectations: &[Expectation], readings: &[Reading]) -> Verdict {
    let mut verdict = Verdict { subscriptions: count(expectations.len()), ..Verdict::default() };
    for (expected, reading) in expectations.iter().zip(readings) {
        add_up(&mut verdict, expected, reading);
        let problems = problems(expected, reading);
        if problems.is_empty() {
            continue;
        }
        verdict.failed_subscriptions += 1;
        if verdict.findings.len() < FINDINGS_MAX {
            verdict.findings.push(Finding {
                subscription_id: expected.id.clone(),
                external_id: expected.label.clone(),
                problems,
                acked: expected.acked,
                unknown: expected.unknown,
                recorded: reading.stats.requests,
                acked_units: expected.acked_units,
                used: reading.usage.used,
                admitted: expected.admitted_units,
                limit: expected.limit,
            });
        }
    }
    verdict.passed = verdict.failed_subscriptions == 0;
    verdict
}

impl Verdict {
    /// Adds a failure that is not about one subscription.
    pub fn fail(&mut self, problem: String) {
        self.passed = false;
        self.general_problems.push(problem);
    }
}

fn add_up(verdict: &mut Verdict, expected: &Expectation, reading: &Reading) {
    let gap = Gap::between(expected, reading);
    verdict.acked += expected.acked;
    verdict.unknown += expected.unknown;
    verdict.acked_units += expected.acked_units;
    verdict.unknown_units += expected.unknown_units;
    verdict.recorded += reading.stats.requests;
    verdict.used += reading.usage.used;
    verdict.lost += gap.lost;
    verdict.double += gap.double;
    verdict.lost_units += gap.lost_units;
    verdict.double_units += gap.double_units;
    verdict.over_admitted += gap.over_admitted;
    if let Some(limit) = expected.limit {
        verdict.hard_limited += 1;
        verdict.at_limit += u64::from(expected.admitted_units >= limit);
    }
}

struct Gap {
    lost: u64,
    double: u64,
    lost_units: u64,
    double_units: u64,
    over_admitted: u64,
    over_used: u64,
}

impl Gap {
    fn between(expected: &Expectation, reading: &Reading) -> Self {
        let (recorded, used) = (reading.stats.requests, reading.usage.used);
        let if_known = |units: u64| if expected.units_are_known { units } else { 0 };
        let beyond = |value: u64| expected.limit.map_or(0, |limit| value.saturating_sub(limit));
        Self {
            lost: expected.acked.saturating_sub(recorded),
            double: recorded.saturating_sub(expected.acked + expected.unknown),
            lost_units: if_known(expected.acked_units.saturating_sub(used)),
            double_units: if_known(
                used.saturating_sub(expected.acked_units + expected.unknown_units),
            ),
            over_admitted: beyond(expected.admitted_units),
            over_used: beyond(used),
        }
    }
}

fn problems(expected: &Expectation, reading: &Reading) -> Vec<String> {
    let gap = Gap::between(expected, reading);
    [
        (gap.lost, "events acknowledged but not recorded"),
        (gap.double, "requests recorded more often than sent"),
        (gap.lost_units, "units acknowledged but not charged"),
        (gap.double_units, "units charged more often than sent"),
        (gap.over_admitted, "units admitted beyond the hard limit"),
        (gap.over_used, "units charged beyond the hard limit"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, words)| format!("{number} {words}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// acked, unknown, admitted, limit | recorded, used | lost, double, over | passed
    type Story = (&'static str, [u64; 3], Option<u64>, [u64; 2], [u64; 3], bool);

    #[test]
    fn each_way_to_be_wrong_is_told_apart() {
        let stories: &[Story] = &[
            ("all is well", [10, 0, 10], None, [10, 10], [0, 0, 0], true),
            ("an acknowledged event is gone", [10, 0, 10], None, [9, 10], [1, 0, 0], false),
            ("a unit was not charged", [10, 0, 10], None, [10, 9], [0, 0, 0], false),
            ("a retry was counted twice", [10, 0, 10], None, [11, 11], [0, 1, 0], false),
            ("unknown events were recorded", [10, 2, 12], None, [12, 12], [0, 0, 0], true),
            ("unknown events were not recorded", [10, 2, 12], None, [10, 10], [0, 0, 0], true),
            ("more than the unknown ones", [10, 2, 12], None, [13, 12], [0, 1, 0], false),
            ("exactly at the limit", [5, 0, 5], Some(5), [5, 5], [0, 0, 0], true),
            ("one let through too many", [5, 0, 6], Some(5), [5, 5], [0, 0, 1], false),
            ("charged beyond the limit", [6, 0, 5], Some(5), [6, 6], [0, 0, 0], false),
        ];
        for (story, [acked, unknown, admitted], limit, [recorded, used], gaps, passed) in stories {
            let expectation = Expectation {
                limit: *limit,
                admitted_units: *admitted,
                acked: *acked,
                acked_units: *acked,
                unknown: *unknown,
                unknown_units: *unknown,
                units_are_known: true,
                ..Expectation::default()
            };
            let reading = Reading {
                stats: Stats { requests: *recorded, ..Stats::default() },
                usage: Usage { used: *used, ..Usage::default() },
            };
            let verdict = judge(&[expectation], &[reading]);
            let told = [verdict.lost, verdict.double, verdict.over_admitted];
            assert_eq!((told, verdict.passed), (*gaps, *passed), "{story}");
            assert_eq!(verdict.findings.is_empty(), *passed, "{story}");
        }
    }

    #[test]
    fn a_gain_in_one_subscription_does_not_hide_a_loss_in_another() {
        let expectation = Expectation { acked: 5, acked_units: 5, ..Expectation::default() };
        let reading = |requests| Reading {
            stats: Stats { requests, ..Stats::default() },
            usage: Usage { used: 5, ..Usage::default() },
        };
        let verdict = judge(&[expectation.clone(), expectation], &[reading(4), reading(6)]);
        assert_eq!((verdict.lost, verdict.double, verdict.failed_subscriptions), (1, 1, 2));
    }
}
