//! Figures of messages on their way out.

use metrics::{Counter, Gauge, counter, gauge};

/// The channels that are counted apart; any other is counted with the first.
const CHANNELS: [&str; 3] = ["webhook", "payment", "email"];

/// How an attempt ended, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It arrived.
    Delivered,
    /// It did not.
    Failed,
    /// It did not, and there will be no other attempt. Counted as failed too.
    Dead,
}

/// Handles of what is counted of the outbox.
#[derive(Debug)]
pub struct OutboxMetrics {
    depth: Gauge,
    oldest_seconds: Gauge,
    in_flight: Gauge,
    delivered: [Counter; CHANNELS.len()],
    failed: [Counter; CHANNELS.len()],
    dead: [Counter; CHANNELS.len()],
    worker_errors: Counter,
}

impl OutboxMetrics {
    pub(super) fn register() -> Self {
        let each =
            |name: &'static str| CHANNELS.map(|channel| counter!(name, "channel" => channel));
        Self {
            depth: gauge!("weir_outbox_depth"),
            oldest_seconds: gauge!("weir_outbox_oldest_age_seconds"),
            in_flight: gauge!("weir_outbox_in_flight"),
            delivered: each("weir_outbox_delivered_total"),
            failed: each("weir_outbox_failed_total"),
            dead: each("weir_outbox_dead_total"),
            worker_errors: counter!("weir_outbox_store_errors_total"),
        }
    }

    /// Messages of the whole cluster that are neither delivered nor dead, and the age of the oldest.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people, exact below 2^53")]
    pub fn measured(&self, pending: u64, oldest_seconds: f64) {
        self.depth.set(pending as f64);
        self.oldest_seconds.set(oldest_seconds);
    }

    /// Deliveries that this node is sending.
    #[expect(clippy::cast_precision_loss, reason = "at most some hundred")]
    pub fn in_flight(&self, count: usize) {
        self.in_flight.set(count as f64);
    }

    /// An attempt of this node ended.
    pub fn ended(&self, channel: &str, how: Ended) {
        let at = CHANNELS.iter().position(|one| *one == channel).unwrap_or_default();
        match how {
            Ended::Delivered => self.delivered[at].increment(1),
            Ended::Failed => self.failed[at].increment(1),
            Ended::Dead => {
                self.failed[at].increment(1);
                self.dead[at].increment(1);
            }
        }
    }

    /// The outbox could not be read or written.
    pub fn store_failed(&self) {
        self.worker_errors.increment(1);
    }
}
