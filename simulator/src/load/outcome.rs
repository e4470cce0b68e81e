//! What a load run tells: the struct behind the table, the JSON and the page.

use std::time::Duration;

use serde::Serialize;

use super::churn::ChurnCounts;
use super::options::{Options, Rate};
use super::scenario::{PlanKind, Scenario, Workload};
use crate::ledger::Verdict;
use crate::measure::Percentiles;
use crate::report::Traffic;

/// The outcome of a load run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Always `load`.
    pub kind: &'static str,
    /// Version of this document's keys.
    pub version: u32,
    /// Unique name of the run; external ids and event ids begin with it.
    pub run: String,
    /// When the load began, RFC 3339.
    pub started_at: String,
    /// What was asked for.
    pub configuration: Configuration,
    /// What happened.
    pub traffic: Traffic,
    /// `/livez` before the load.
    pub baseline: Option<Baseline>,
    /// What churn did, in scenarios that have it.
    pub churn: Option<ChurnCounts>,
    /// The verdict.
    pub ledger: Verdict,
    /// When checks failed, since the first one, in order; the timeline has their numbers.
    #[serde(skip)]
    pub failed_at: Vec<Duration>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// The targets.
    pub targets: Vec<String>,
    /// The scenario.
    pub scenario: Scenario,
    /// Subscriptions made before the load.
    pub subscriptions: usize,
    /// `max` or arrivals a second.
    pub rate: Rate,
    /// Length of the load.
    pub duration_seconds: f64,
    /// What the traffic was drawn from.
    pub seed: u64,
    /// Connections for checks.
    pub connections: usize,
    /// Connections for events.
    pub event_connections: usize,
    /// Client threads.
    pub threads: usize,
    /// Whether events were sent.
    pub events: bool,
    /// Events in a batch at most.
    pub flush_events: usize,
    /// Longest wait of an event for its batch.
    pub flush_millis: u64,
    /// Whether subscriptions were touched before measuring.
    pub warm: bool,
    /// The hard limit of small plans, when the scenario has them.
    pub tight_limit: Option<u64>,
    /// Tenant of the subscriptions.
    pub tenant: String,
}

/// `/livez`, measured before the load over the same connections.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// How long it was measured.
    pub seconds: f64,
    /// Answers a second.
    pub requests_per_second: f64,
    /// Latency in microseconds.
    pub latency_micros: Percentiles,
    /// Checks a second ÷ `/livez` answers a second; closed loop only.
    pub ratio: Option<f64>,
}

impl Configuration {
    /// What `options` asks for; `tight_limit` is shown when the scenario has small plans.
    pub(super) fn of(options: &Options, workload: Workload, tight_limit: u64) -> Self {
        let has_tight =
            (0..options.subscriptions).any(|place| workload.plan_of(place) == PlanKind::Tight);
        Self {
            targets: options.access.targets.iter().map(|to| to.authority().to_owned()).collect(),
            scenario: options.scenario,
            subscriptions: options.subscriptions,
            rate: options.rate,
            duration_seconds: options.duration.as_secs_f64(),
            seed: options.seed,
            connections: options.connections,
            event_connections: options.event_connections,
            threads: options.workers,
            events: options.events,
            flush_events: options.flush.batch_events_max,
            flush_millis: u64::try_from(options.flush.interval.as_millis()).unwrap_or(u64::MAX),
            warm: options.warm,
            tight_limit: has_tight.then_some(tight_limit),
            tenant: options.tenant.clone(),
        }
    }
}
