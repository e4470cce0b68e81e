//! What a run measures: counts by outcome, latency histograms and a timeline.
//!
//! Each worker owns one [`Recorder`] and writes to it without locks; they are merged at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::numbers::{count, micros, per_second};

/// Latencies above this are recorded as this: the longest any request may take is far below.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Three significant digits: the error of a percentile stays below 0.1 %.
const DIGITS: u8 = 3;
/// Two digits in the timeline, where there is one histogram per step.
const TIMELINE_DIGITS: u8 = 2;
/// Moments of failure that a recorder keeps: enough to see every outage, few enough to hold.
const FAILED_AT_MAX: usize = 100_000;
/// Steps in a timeline. More would cost memory and no reader could tell them apart on a plot.
const TIMELINE_STEPS_MAX: u64 = 600;

/// A latency histogram in microseconds that cannot fail to record.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// An empty histogram with three digits.
    pub fn new() -> Self {
        Self::with_digits(DIGITS)
    }

    fn with_digits(digits: u8) -> Self {
        let mut histogram =
            Histogram::new(digits).expect("1 to 5 digits are what the histogram takes");
        histogram.auto(true);
        Self(histogram)
    }

    /// Records one latency.
    ///
    /// # Panics
    /// Never: the histogram grows to its bound, and the latency is cut to it.
    #[inline]
    pub fn record(&mut self, latency: Duration) {
        // Not `saturating_record`: that one saturates at the present size instead of growing.
        self.0
            .record(micros(latency).min(LATENCY_US_MAX))
            .expect("an auto-resizing histogram takes every value up to its bound");
    }

    /// Adds all of `other`.
    ///
    /// # Panics
    /// Never: the histogram grows to what the other holds.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("an auto-resizing histogram takes every value of another");
    }

    /// Latencies recorded.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency in microseconds that a share `quantile` of all stayed at or below.
    pub fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The percentiles a report prints.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.len(),
            mean: crate::numbers::whole(self.0.mean().max(0.0)),
            p50: self.at(0.50),
            p90: self.at(0.90),
            p99: self.at(0.99),
            p999: self.at(0.999),
            max: self.0.max(),
        }
    }

    /// Points of the distribution curve: share of requests and latency at it, denser at the tail.
    pub fn curve(&self) -> Vec<CurvePoint> {
        if self.is_empty() {
            return Vec::new();
        }
        self.0
            .iter_quantiles(6)
            .map(|step| CurvePoint {
                quantile: step.quantile_iterated_to(),
                micros: step.value_iterated_to().min(self.0.max()),
            })
            .collect()
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

/// Latency percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Latencies recorded.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: u64,
    /// Half stayed at or below.
    pub p50: u64,
    /// 90 % stayed at or below.
    pub p90: u64,
    /// 99 % stayed at or below.
    pub p99: u64,
    /// 99.9 % stayed at or below.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// One point of a distribution curve.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CurvePoint {
    /// Share of requests, 0 to 1.
    pub quantile: f64,
    /// Latency in microseconds.
    pub micros: u64,
}

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Allowed.
    Allowed,
    /// Refused, with the decision's reason.
    Denied(&'a str),
    /// No decision, with a short name of why.
    Failed(&'a str),
}

/// One step of the timeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Start of the step in seconds since the load began.
    pub second: u64,
    /// Checks allowed.
    pub allowed: u64,
    /// Checks denied.
    pub denied: u64,
    /// Checks without a decision.
    pub failed: u64,
    /// Median latency in microseconds, of decided checks.
    pub p50: u64,
    /// 90th percentile in microseconds.
    pub p90: u64,
    /// 99th percentile in microseconds.
    pub p99: u64,
    /// The longest in microseconds.
    pub max: u64,
}

#[derive(Debug, Default)]
struct StepCounts {
    allowed: u64,
    denied: u64,
    failed: u64,
    latency: Option<Latency>,
}

/// Everything one worker measures about checks.
#[derive(Debug)]
pub struct Recorder {
    step: Duration,
    steps: Vec<StepCounts>,
    steps_max: usize,
    /// From the intended start: what a client sees, waiting included.
    pub from_intended: Latency,
    /// From the moment of sending: what the server took.
    pub from_send: Latency,
    /// Checks allowed.
    pub allowed: u64,
    /// Units of the allowed checks.
    pub allowed_units: u64,
    /// Checks denied, by reason.
    pub denied: Vec<(String, u64)>,
    /// Checks without a decision, by cause.
    pub failed: Vec<(String, u64)>,
    /// Decisions in mode `degraded` (fail policy, store away).
    pub degraded: u64,
    /// Decisions that another node made (`X-Weir-Hops: 1`).
    pub proxied: u64,
    /// Checks sent later than intended (open loop).
    pub late: u64,
    /// Checks sent again to another target, because the connection to the first one failed.
    pub failed_over: u64,
    /// When checks failed, since the start; at most 100,000 of them.
    pub failed_at: Vec<Duration>,
}

impl Recorder {
    /// A recorder for a run of about this length.
    pub fn new(duration: Duration) -> Self {
        let seconds = duration.as_secs().max(1);
        let step = Duration::from_secs(seconds.div_ceil(TIMELINE_STEPS_MAX));
        // Twice the length leaves room for the answers that come after the load's end.
        let steps_max = crate::numbers::index(seconds.div_ceil(step.as_secs()) * 2 + 2);
        Self {
            step,
            steps: Vec::new(),
            steps_max,
            from_intended: Latency::new(),
            from_send: Latency::new(),
            allowed: 0,
            allowed_units: 0,
            denied: Vec::new(),
            failed: Vec::new(),
            degraded: 0,
            proxied: 0,
            late: 0,
            failed_over: 0,
            failed_at: Vec::new(),
        }
    }

    /// Notes one finished check. `since_start` is when it finished.
    pub fn check(
        &mut self,
        since_start: Duration,
        outcome: Outcome<'_>,
        from_intended: Duration,
        from_send: Duration,
    ) {
        let decided = !matches!(outcome, Outcome::Failed(_));
        let step = self.step_at(since_start);
        match outcome {
            Outcome::Allowed => step.allowed += 1,
            Outcome::Denied(_) => step.denied += 1,
            Outcome::Failed(_) => step.failed += 1,
        }
        if decided {
            step.latency
                .get_or_insert_with(|| Latency::with_digits(TIMELINE_DIGITS))
                .record(from_intended);
            self.from_intended.record(from_intended);
            self.from_send.record(from_send);
        }
        match outcome {
            Outcome::Allowed => self.allowed += 1,
            Outcome::Denied(reason) => add_to(&mut self.denied, reason, 1),
            Outcome::Failed(cause) => {
                add_to(&mut self.failed, cause, 1);
                if self.failed_at.len() < FAILED_AT_MAX {
                    self.failed_at.push(since_start);
                }
            }
        }
    }

    fn step_at(&mut self, since_start: Duration) -> &mut StepCounts {
        let number = since_start.as_secs() / self.step.as_secs();
        let number = crate::numbers::index(number).min(self.steps_max - 1);
        if self.steps.len() <= number {
            self.steps.resize_with(number + 1, StepCounts::default);
        }
        &mut self.steps[number]
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Self) {
        if self.steps.len() < other.steps.len() {
            self.steps.resize_with(other.steps.len(), StepCounts::default);
        }
        for (mine, theirs) in self.steps.iter_mut().zip(other.steps) {
            mine.allowed += theirs.allowed;
            mine.denied += theirs.denied;
            mine.failed += theirs.failed;
            match (&mut mine.latency, theirs.latency) {
                (Some(latency), Some(more)) => latency.merge(&more),
                (empty @ None, more) => *empty = more,
                (Some(_), None) => {}
            }
        }
        self.from_intended.merge(&other.from_intended);
        self.from_send.merge(&other.from_send);
        self.allowed += other.allowed;
        self.allowed_units += other.allowed_units;
        self.degraded += other.degraded;
        self.proxied += other.proxied;
        self.late += other.late;
        self.failed_over += other.failed_over;
        self.failed_at.extend(other.failed_at);
        for (reason, number) in other.denied {
            add_to(&mut self.denied, &reason, number);
        }
        for (cause, number) in other.failed {
            add_to(&mut self.failed, &cause, number);
        }
    }

    /// The timeline, one entry a step, empty steps included.
    pub fn timeline(&self) -> Vec<Step> {
        self.steps
            .iter()
            .enumerate()
            .map(|(number, step)| {
                let latency = step.latency.as_ref();
                let at = |quantile| latency.map_or(0, |latency| latency.at(quantile));
                Step {
                    second: count(number) * self.step.as_secs(),
                    allowed: step.allowed,
                    denied: step.denied,
                    failed: step.failed,
                    p50: at(0.50),
                    p90: at(0.90),
                    p99: at(0.99),
                    max: at(1.0),
                }
            })
            .collect()
    }

    /// The length of one step of the timeline.
    pub fn step_seconds(&self) -> u64 {
        self.step.as_secs()
    }

    /// Checks denied for any reason.
    pub fn denied_total(&self) -> u64 {
        self.denied.iter().map(|(_, number)| number).sum()
    }

    /// Checks without a decision.
    pub fn failed_total(&self) -> u64 {
        self.failed.iter().map(|(_, number)| number).sum()
    }

    /// Checks that were answered with a decision.
    pub fn decided(&self) -> u64 {
        self.allowed + self.denied_total()
    }

    /// Decisions a second over `elapsed`.
    pub fn decided_per_second(&self, elapsed: Duration) -> f64 {
        per_second(self.decided(), elapsed)
    }
}

/// Adds to a short list of named counts; there are a handful of names, so a scan beats a map.
pub(crate) fn add_to(counts: &mut Vec<(String, u64)>, name: &str, number: u64) {
    match counts.iter_mut().find(|(known, _)| known == name) {
        Some((_, total)) => *total += number,
        None => counts.push((name.to_owned(), number)),
    }
}

/// The same as a sorted map, for output.
pub(crate) fn sorted(counts: &[(String, u64)]) -> BTreeMap<String, u64> {
    counts.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_failed_check_is_counted_but_has_no_latency() {
        let mut recorder = Recorder::new(Duration::from_secs(2));
        recorder.check(MS, Outcome::Allowed, 3 * MS, 2 * MS);
        recorder.check(MS, Outcome::Denied("rate_limited"), 3 * MS, 2 * MS);
        recorder.check(MS, Outcome::Failed("timeout"), 900 * MS, 900 * MS);
        assert_eq!(recorder.decided(), 2);
        assert_eq!(recorder.failed_total(), 1);
        assert_eq!(recorder.from_send.len(), 2);
        assert_eq!(recorder.from_intended.percentiles().max / 100, 30, "3 ms within three digits");
    }

    #[test]
    fn merging_two_workers_adds_step_by_step() {
        let second = Duration::from_secs(1);
        let mut one = Recorder::new(3 * second);
        let mut two = Recorder::new(3 * second);
        one.check(second / 2, Outcome::Allowed, MS, MS);
        two.check(second / 2, Outcome::Denied("quota_exceeded"), MS, MS);
        two.check(2 * second, Outcome::Allowed, MS, MS);
        one.merge(two);
        let steps = one.timeline();
        let counts: Vec<_> =
            steps.iter().map(|step| (step.second, step.allowed, step.denied)).collect();
        assert_eq!(counts, [(0, 1, 1), (1, 0, 0), (2, 1, 0)]);
        assert_eq!(sorted(&one.denied)["quota_exceeded"], 1);
    }

    #[test]
    fn a_long_run_has_longer_steps_and_a_bounded_timeline() {
        let mut recorder = Recorder::new(Duration::from_hours(24));
        recorder.check(Duration::from_hours(250), Outcome::Allowed, MS, MS);
        assert_eq!(recorder.step_seconds(), 144);
        assert!(recorder.timeline().len() <= 2 * 600 + 2);
    }
}
