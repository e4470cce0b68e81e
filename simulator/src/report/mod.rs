//! What a run tells: a table for people, JSON for machines, a page to keep.

pub mod cluster;
pub mod html;
pub mod json;
mod page;
mod svg;
pub mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::measure::{CurvePoint, Percentiles, Recorder, Step, sorted};
use crate::numbers::per_second;
use crate::outbox::EventTally;

/// What the traffic of a run did, the same for load and replay.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// From the first request to the last answer.
    pub elapsed_seconds: f64,
    /// Decisions a second.
    pub checks_per_second: f64,
    /// Acknowledged events a second.
    pub events_per_second: f64,
    /// Checks.
    pub checks: Checks,
    /// Usage events.
    pub events: Events,
    /// Latencies in microseconds.
    pub latency_micros: Latencies,
    /// Distribution of the check latency from the intended start.
    pub latency_curve: Vec<CurvePoint>,
    /// Length of a step of the timeline in seconds.
    pub timeline_step_seconds: u64,
    /// The timeline.
    pub timeline: Vec<Step>,
}

/// Checks by outcome.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// Sent.
    pub sent: u64,
    /// Allowed.
    pub allowed: u64,
    /// Units of the allowed ones.
    pub allowed_units: u64,
    /// Denied, all reasons.
    pub denied: u64,
    /// Denied, by reason.
    pub denied_by_reason: BTreeMap<String, u64>,
    /// Without a decision, all causes.
    pub failed: u64,
    /// Without a decision, by cause.
    pub failed_by_cause: BTreeMap<String, u64>,
    /// Sent later than intended (open loop).
    pub late: u64,
    /// Due but never sent, for want of a free connection (open loop).
    pub overflow: u64,
    /// Decided by the fail policy because the store was away.
    pub degraded: u64,
    /// Decided by another node than the one asked.
    pub proxied: u64,
    /// Sent again to another target, because the connection to the first one failed.
    pub failed_over: u64,
}

/// Usage events by outcome.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// Distinct events sent.
    pub sent: u64,
    /// Acknowledged as durable.
    pub acked: u64,
    /// Of those, known to Weir from an earlier try.
    pub duplicates: u64,
    /// Rejected one by one.
    pub rejected: u64,
    /// Rejected, by code.
    pub rejected_by_code: BTreeMap<String, u64>,
    /// In batches that were refused as a whole.
    pub refused: u64,
    /// Never acknowledged: recorded or not.
    pub unknown: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Answers whose numbers did not add up to the batch.
    pub inconsistent_answers: u64,
    /// Some rejections in words.
    pub rejections: Vec<String>,
}

/// Latency percentiles of the three things measured.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latencies {
    /// Checks from the intended start: waiting for a free connection included.
    pub check: Percentiles,
    /// Checks from the moment of sending.
    pub check_from_send: Percentiles,
    /// Event batches from the first try to the acknowledgement.
    pub flush: Percentiles,
}

impl Traffic {
    /// Sums up a run.
    pub fn of(recorder: &Recorder, events: &EventTally, overflow: u64, elapsed: Duration) -> Self {
        Self {
            elapsed_seconds: elapsed.as_secs_f64(),
            checks_per_second: recorder.decided_per_second(elapsed),
            events_per_second: per_second(events.acked, elapsed),
            checks: Checks {
                sent: recorder.decided() + recorder.failed_total(),
                allowed: recorder.allowed,
                allowed_units: recorder.allowed_units,
                denied: recorder.denied_total(),
                denied_by_reason: sorted(&recorder.denied),
                failed: recorder.failed_total(),
                failed_by_cause: sorted(&recorder.failed),
                late: recorder.late,
                overflow,
                degraded: recorder.degraded,
                proxied: recorder.proxied,
                failed_over: recorder.failed_over,
            },
            events: Events {
                sent: events.sent,
                acked: events.acked,
                duplicates: events.duplicates,
                rejected: events.rejected_total(),
                rejected_by_code: sorted(&events.rejected),
                refused: events.refused,
                unknown: events.unknown,
                batches: events.batches,
                retries: events.retries,
                inconsistent_answers: events.inconsistent_answers,
                rejections: events.rejections.clone(),
            },
            latency_micros: Latencies {
                check: recorder.from_intended.percentiles(),
                check_from_send: recorder.from_send.percentiles(),
                flush: events.flush_latency.percentiles(),
            },
            latency_curve: recorder.from_intended.curve(),
            timeline_step_seconds: recorder.step_seconds(),
            timeline: recorder.timeline(),
        }
    }
}
