//! What operators see of the inside: Prometheus names, base units, no per-key labels.
//!
//! Role: every figure is registered once here and kept as a handle, so that the hot path pays one
//! atomic addition. `/metrics` renders them.

mod outbox;
mod peers;

use std::error::Error;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use weir_core::meter::{Decision, Mode, Reason};

pub use outbox::{Ended, OutboxMetrics};
pub use peers::{PeerMetrics, PeerRefusal};

/// Upper bounds of duration buckets, in seconds: from an actor's answer to a store's time-out.
const SECONDS: [f64; 14] =
    [1e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.25, 1.0, 5.0];

const REASONS: [Reason; 9] = [
    Reason::Ok,
    Reason::QuotaExceeded,
    Reason::RateLimited,
    Reason::UnknownKey,
    Reason::KeyRevoked,
    Reason::Suspended,
    Reason::NotStarted,
    Reason::Ended,
    Reason::TooManyReservations,
];
const MODES: [Mode; 3] = [Mode::Enforced, Mode::Shadow, Mode::Degraded];

/// Handles of everything counted.
pub struct Metrics {
    render: PrometheusHandle,
    checks: Vec<Counter>,
    check_failures: Counter,
    check_seconds: Histogram,
    accepted: Counter,
    duplicates: Counter,
    rejected: Counter,
    unknown_fields: Counter,
    dropped_fields: Counter,
    append_seconds: Histogram,
    append_rows: Counter,
    checkpoint_seconds: Histogram,
    checkpoint_rows: Counter,
    fenced: Counter,
    checkpoint_refused: Counter,
    activations: Counter,
    activation_failures: Counter,
    passivations: Counter,
    restarts: Counter,
    auth_failures: Counter,
    job_runs: Counter,
    job_subscriptions: Counter,
    job_failures: Counter,
    job_progress: Gauge,
    charges: Counter,
    periods_closed: Counter,
    peers: PeerMetrics,
    outbox: OutboxMetrics,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers everything with a recorder of its own.
    pub fn new() -> Self {
        // The only error is an empty list of buckets, and it is not empty.
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let render = recorder.handle();
        metrics::with_local_recorder(&recorder, || Self::register(render))
    }

    fn register(render: PrometheusHandle) -> Self {
        let checks = MODES
            .iter()
            .flat_map(|mode| {
                REASONS.iter().map(|reason| {
                    counter!("weir_checks_total", "reason" => reason.as_str(), "mode" => mode.as_str())
                })
            })
            .collect();
        gauge!("weir_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self {
            render,
            checks,
            check_failures: counter!("weir_check_failures_total"),
            check_seconds: histogram!("weir_check_duration_seconds"),
            accepted: counter!("weir_usage_events_total", "result" => "accepted"),
            duplicates: counter!("weir_usage_events_total", "result" => "duplicate"),
            rejected: counter!("weir_usage_events_total", "result" => "rejected"),
            unknown_fields: counter!("weir_usage_event_fields_total", "what" => "unknown"),
            dropped_fields: counter!("weir_usage_event_fields_total", "what" => "invalid"),
            append_seconds: histogram!("weir_append_duration_seconds"),
            append_rows: counter!("weir_append_rows_total"),
            checkpoint_seconds: histogram!("weir_checkpoint_duration_seconds"),
            checkpoint_rows: counter!("weir_checkpoint_rows_total"),
            fenced: counter!("weir_fenced_writes_total"),
            checkpoint_refused: counter!("weir_checkpoint_refused_total"),
            activations: counter!("weir_activations_total", "result" => "ok"),
            activation_failures: counter!("weir_activations_total", "result" => "failed"),
            passivations: counter!("weir_passivations_total"),
            restarts: counter!("weir_actor_restarts_total"),
            auth_failures: counter!("weir_auth_failures_total"),
            job_runs: counter!("weir_billing_runs_total"),
            job_subscriptions: counter!("weir_billing_subscriptions_total"),
            job_failures: counter!("weir_billing_failures_total"),
            job_progress: gauge!("weir_billing_run_subscriptions"),
            charges: counter!("weir_charges_total"),
            periods_closed: counter!("weir_billing_periods_closed_total"),
            peers: PeerMetrics::register(),
            outbox: OutboxMetrics::register(),
        }
    }

    /// The text of `/metrics`, with gauges that are read rather than kept.
    pub fn render(&self, gauges: &[(&str, f64)]) -> String {
        use std::fmt::Write as _;
        let mut text = self.render.render();
        for (name, value) in gauges {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
        }
        text
    }

    /// Folds what histograms gathered; without it they would grow until someone asks.
    pub fn upkeep(&self) {
        self.render.run_upkeep();
    }

    /// Figures of the links to peers.
    pub fn peers(&self) -> &PeerMetrics {
        &self.peers
    }

    /// Figures of messages on their way out.
    pub fn outbox(&self) -> &OutboxMetrics {
        &self.outbox
    }

    /// A decision was made.
    pub fn decided(&self, decision: &Decision) {
        let violated = decision.violated;
        let reason = match decision.mode {
            // What a plan that only watches would have refused.
            Mode::Shadow if violated.quotas != 0 => Reason::QuotaExceeded,
            Mode::Shadow if violated.rates != 0 => Reason::RateLimited,
            _ if decision.allowed => Reason::Ok,
            _ => decision.reason,
        };
        self.decided_as(decision.mode, reason);
    }

    /// A decision was made without a subscription.
    pub fn decided_as(&self, mode: Mode, reason: Reason) {
        let mode = MODES.iter().position(|&m| m == mode).unwrap_or_default();
        let reason = REASONS.iter().position(|&r| r == reason).unwrap_or_default();
        self.checks[mode * REASONS.len() + reason].increment(1);
    }

    /// No decision could be made.
    pub fn check_failed(&self) {
        self.check_failures.increment(1);
    }

    /// How long a check took inside.
    pub fn check_took(&self, duration: Duration) {
        self.check_seconds.record(duration);
    }

    /// Rows were answered: how many were new, how many were there already.
    pub fn recorded(&self, new: usize, duplicates: usize) {
        self.accepted.increment(new as u64);
        self.duplicates.increment(duplicates as u64);
    }

    /// Events were not taken, and fields of others were left out: unknown ones, and addresses and
    /// countries that were none.
    pub fn left_out(&self, events: usize, unknown_fields: u64, invalid_fields: u64) {
        self.rejected.increment(events as u64);
        self.unknown_fields.increment(unknown_fields);
        self.dropped_fields.increment(invalid_fields);
    }

    /// An append committed.
    pub fn appended(&self, rows: usize, duration: Duration) {
        self.append_rows.increment(rows as u64);
        self.append_seconds.record(duration);
    }

    /// A checkpoint committed.
    pub fn checkpointed(&self, rows: usize, duration: Duration) {
        self.checkpoint_rows.increment(rows as u64);
        self.checkpoint_seconds.record(duration);
    }

    /// A write bounced off a fence.
    pub fn fenced(&self, shards: usize) {
        self.fenced.increment(shards as u64);
    }

    /// A subscription's state was refused by the store.
    pub fn checkpoint_refused(&self) {
        self.checkpoint_refused.increment(1);
    }

    /// An actor was loaded, or could not be.
    pub fn activated(&self, ok: bool) {
        if ok { &self.activations } else { &self.activation_failures }.increment(1);
    }

    /// An actor went to rest.
    pub fn passivated(&self) {
        self.passivations.increment(1);
    }

    /// An actor died and will be loaded anew.
    pub fn restarted(&self) {
        self.restarts.increment(1);
    }

    /// A billing run began.
    pub fn billing_began(&self) {
        self.job_runs.increment(1);
        self.job_progress.set(0.0);
    }

    /// A billing run looked at one more subscription; `done` is how many it has looked at.
    pub fn billed(&self, done: u64, charges: u64, closed: u64) {
        self.job_subscriptions.increment(1);
        // A count that a gauge shows: beyond 2^53 it would be off by one.
        #[expect(clippy::cast_precision_loss, reason = "for people to see that it goes on")]
        self.job_progress.set(done as f64);
        self.charges.increment(charges);
        self.periods_closed.increment(closed);
    }

    /// A subscription could not be billed.
    pub fn billing_failed(&self) {
        self.job_failures.increment(1);
    }

    /// A request came without a good token.
    pub fn auth_failed(&self) {
        self.auth_failures.increment(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// An error and its sources in one line; logged once, at the edge.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
