//! What a load run is asked to do, already checked.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::{Serialize, Serializer};

use super::scenario::Scenario;
use crate::Error;
use crate::client::Endpoint;
use crate::outbox::FlushOptions;

/// Subscriptions at most: each costs a slot in every worker and two reads in the ledger check.
pub const SUBSCRIPTIONS_MAX: usize = 1_000_000;
/// Connections at most: loopback has about 28,000 ports for them.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Arrivals a second at most, far above what one machine answers.
const RATE_MAX: f64 = 5_000_000.0;
/// Longest run: a day.
pub const DURATION_MAX: Duration = Duration::from_hours(24);

/// How fast requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Closed loop: each connection sends the next request when the last was answered.
    Max,
    /// Open loop: this many arrivals a second, on schedule whatever the server does.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(Self::PerSecond(rate)),
            _ => Err(format!("`{text}` is neither `max` nor a number of requests a second")),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Max => serializer.serialize_str("max"),
            Self::PerSecond(rate) => serializer.serialize_f64(*rate),
        }
    }
}

/// Where Weir is and who we are to it; shared by all commands.
#[derive(Debug, Clone)]
pub struct Access {
    /// The targets, in the order given.
    pub targets: Arc<[Endpoint]>,
    /// `Authorization` of checks and events.
    pub gateway: HeaderValue,
    /// `Authorization` of set-up and of the ledger check.
    pub admin: HeaderValue,
}

/// A load run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to and as whom.
    pub access: Access,
    /// What kind of traffic.
    pub scenario: Scenario,
    /// Subscriptions made for the run.
    pub subscriptions: usize,
    /// How fast.
    pub rate: Rate,
    /// How long.
    pub duration: Duration,
    /// What the traffic is drawn from.
    pub seed: u64,
    /// Connections for checks.
    pub connections: usize,
    /// Connections for events, beside those.
    pub event_connections: usize,
    /// Threads of this client.
    pub workers: usize,
    /// Arrivals that may wait for a free connection (open loop).
    pub backlog_max: usize,
    /// A check fails after this long.
    pub request_timeout: Duration,
    /// Send a usage event for every allowed check.
    pub events: bool,
    /// How events are gathered.
    pub flush: FlushOptions,
    /// How long `/livez` is measured before the load; zero skips it.
    pub baseline: Duration,
    /// Touch every subscription once before measuring.
    pub warm: bool,
    /// The hard limit of the near-limit subscriptions; worked out from rate and duration otherwise.
    pub limit: Option<u64>,
    /// Tenant of the subscriptions.
    pub tenant: String,
    /// How long the ledger check waits for the numbers to agree.
    pub settle: Duration,
    /// No progress on stderr.
    pub quiet: bool,
}

impl Options {
    /// Says what does not fit together.
    pub fn check(&self) -> Result<(), Error> {
        let bounds = [
            ("--subscriptions", self.subscriptions, SUBSCRIPTIONS_MAX),
            ("--connections", self.connections, CONNECTIONS_MAX),
            ("--event-connections", self.event_connections, CONNECTIONS_MAX),
            ("--threads", self.workers, 256),
            ("--flush-events", self.flush.batch_events_max, 10_000),
            ("--backlog", self.backlog_max, 10_000_000),
        ];
        for (flag, value, max) in bounds {
            if value == 0 || value > max {
                return Err(Error::usage(format!("{flag} must be between 1 and {max}")));
            }
        }
        if self.duration < Duration::from_millis(100) || self.duration > DURATION_MAX {
            return Err(Error::usage("--duration must be between 100ms and 24h"));
        }
        if self.limit == Some(0) {
            return Err(Error::usage("--limit must be at least 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_max_or_a_positive_number() {
        for (text, rate) in [
            ("max", Ok(Rate::Max)),
            ("1000", Ok(Rate::PerSecond(1000.0))),
            ("0.5", Ok(Rate::PerSecond(0.5))),
        ] {
            assert_eq!(text.parse::<Rate>(), rate, "{text}");
        }
        for text in ["", "0", "-1", "fast", "inf", "NaN"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
