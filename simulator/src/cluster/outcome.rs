//! What a run with faults tells: each fault, how long it was felt, and the load's own report.

use std::time::Duration;

use serde::Serialize;

use super::options::Options;
use super::schedule::{Kind, Restart};
use crate::load::LoadReport;
use crate::numbers::{count, millis};

/// The outcome of a run under faults.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReport {
    /// Always `cluster`.
    pub kind: &'static str,
    /// Version of this document's keys.
    pub version: u32,
    /// True when the ledger adds up and every node did what it must.
    pub passed: bool,
    /// How many nodes.
    pub nodes: usize,
    /// How long a lease lasts.
    pub lease_millis: u64,
    /// What the faults were drawn from.
    pub seed: u64,
    /// The faults, in order.
    pub faults: Vec<FaultReport>,
    /// The same, summed up by kind.
    pub kinds: Vec<KindSummary>,
    /// Checks that failed before the first fault: none is to blame.
    pub failed_before_faults: u64,
    /// What nodes did that they must not, in words.
    pub problems: Vec<String>,
    /// The load and the ledger's verdict.
    pub load: LoadReport,
}

/// One fault and how long it was felt.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultReport {
    /// When, since the load's start.
    pub at_millis: u64,
    /// What.
    pub kind: Kind,
    /// To whom.
    pub node: String,
    /// When it was started again.
    pub restart: Restart,
    /// Until the node's former life owned no shard and all had a living owner; none when not seen.
    pub taken_over_after_millis: Option<u64>,
    /// Until every node was up and owned about its share; none when it never came to it.
    pub whole_after_millis: Option<u64>,
    /// Until the last check that failed before the next fault; 0 when none did.
    pub failing_for_millis: u64,
    /// Checks that failed between this fault and the next.
    pub failed_checks: u64,
}

/// All faults of a kind.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindSummary {
    /// Which.
    pub kind: Kind,
    /// How many.
    pub faults: u64,
    /// Checks that failed.
    pub failed_checks: u64,
    /// See [`FaultReport::taken_over_after_millis`].
    pub taken_over_millis: Figures,
    /// See [`FaultReport::whole_after_millis`].
    pub whole_millis: Figures,
    /// See [`FaultReport::failing_for_millis`].
    pub failing_millis: Figures,
}

/// The middle and the end of a list of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Half were at or below.
    pub p50: u64,
    /// The longest.
    pub max: u64,
}

impl Figures {
    fn of(times: impl Iterator<Item = u64>) -> Self {
        let mut times: Vec<u64> = times.collect();
        times.sort_unstable();
        let middle = times.get(times.len().saturating_sub(1) / 2);
        let (p50, max) = (middle.copied(), times.last().copied());
        Self { p50: p50.unwrap_or_default(), max: max.unwrap_or_default() }
    }
}

impl ClusterReport {
    /// Puts the faults beside the checks that failed.
    pub(super) fn of(
        options: &Options,
        mut faults: Vec<FaultReport>,
        mut problems: Vec<String>,
        load: LoadReport,
    ) -> Self {
        let failed_before_faults = blame(&mut faults, &load.failed_at);
        problems.extend(failed_in_order(&faults));
        Self {
            kind: "cluster",
            version: 1,
            passed: load.ledger.passed && problems.is_empty(),
            nodes: options.nodes,
            lease_millis: millis(options.lease),
            seed: options.seed,
            kinds: sum_up(&faults),
            faults,
            failed_before_faults,
            problems,
            load,
        }
    }
}

/// Gives each failed check to the last fault before it; how many come before the first.
fn blame(faults: &mut [FaultReport], failed_at: &[Duration]) -> u64 {
    let mut before = 0;
    for at in failed_at.iter().map(|at| millis(*at)) {
        let guilty = faults.partition_point(|fault| fault.at_millis <= at);
        match guilty.checked_sub(1).and_then(|place| faults.get_mut(place)) {
            Some(fault) => {
                fault.failed_checks += 1;
                fault.failing_for_millis = fault.failing_for_millis.max(at - fault.at_millis);
            }
            None => before += 1,
        }
    }
    before
}

/// Whoever ends in order gives everything away first: no check may fail.
fn failed_in_order(faults: &[FaultReport]) -> Option<String> {
    let stops = faults.iter().filter(|fault| fault.kind == Kind::Stop);
    let failed: u64 = stops.map(|fault| fault.failed_checks).sum();
    (failed > 0).then(|| format!("{failed} checks failed while nodes ended in order"))
}

fn sum_up(faults: &[FaultReport]) -> Vec<KindSummary> {
    [Kind::Kill, Kind::Stop, Kind::Pause]
        .into_iter()
        .filter_map(|kind| {
            let of: Vec<_> = faults.iter().filter(|fault| fault.kind == kind).collect();
            (!of.is_empty()).then(|| KindSummary {
                kind,
                faults: count(of.len()),
                failed_checks: of.iter().map(|fault| fault.failed_checks).sum(),
                taken_over_millis: Figures::of(
                    of.iter().filter_map(|fault| fault.taken_over_after_millis),
                ),
                whole_millis: Figures::of(of.iter().filter_map(|fault| fault.whole_after_millis)),
                failing_millis: Figures::of(of.iter().map(|fault| fault.failing_for_millis)),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: Kind, at_millis: u64, whole: u64) -> FaultReport {
        FaultReport {
            at_millis,
            kind,
            node: "node-1".to_owned(),
            restart: Restart::AtOnce,
            taken_over_after_millis: None,
            whole_after_millis: Some(whole),
            failing_for_millis: 0,
            failed_checks: 0,
        }
    }

    #[test]
    fn a_failed_check_is_the_doing_of_the_last_fault_before_it() {
        let mut faults = vec![fault(Kind::Kill, 1_000, 9), fault(Kind::Stop, 8_000, 9)];
        let failed: Vec<_> =
            [500, 1_000, 3_500, 7_999, 8_200].map(Duration::from_millis).into_iter().collect();
        assert_eq!(blame(&mut faults, &failed), 1);
        let told = faults.iter().map(|fault| (fault.failed_checks, fault.failing_for_millis));
        assert_eq!(told.collect::<Vec<_>>(), [(3, 6_999), (1, 200)]);
    }

    #[test]
    fn checks_may_fail_when_nodes_are_killed_and_not_when_they_end_in_order() {
        let mut killed = fault(Kind::Kill, 1, 9);
        killed.failed_checks = 5;
        assert_eq!(failed_in_order(&[killed.clone(), fault(Kind::Stop, 2, 9)]), None);
        let stopped = FaultReport { kind: Kind::Stop, failed_checks: 2, ..killed };
        let told = failed_in_order(&[stopped]).expect("that is a problem");
        assert!(told.starts_with("2 checks failed"), "{told}");
    }

    #[test]
    fn kinds_are_summed_up_apart() {
        let faults = [(4, 700), (5, 900), (9, 800), (12, 100)]
            .map(|(at, whole)| fault(Kind::Kill, at, whole))
            .into_iter()
            .chain([fault(Kind::Pause, 20, 50)]);
        let sums = sum_up(&faults.collect::<Vec<_>>());
        let told: Vec<_> =
            sums.iter().map(|sum| (sum.kind, sum.faults, sum.whole_millis)).collect();
        let expected = [
            (Kind::Kill, 4, Figures { p50: 700, max: 900 }),
            (Kind::Pause, 1, Figures { p50: 50, max: 50 }),
        ];
        assert_eq!(told, expected);
    }
}
