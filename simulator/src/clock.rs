//! The only reader of time in this crate, so that what a run depends on is easy to see.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The monotonic clock: latencies, schedules and deadlines.
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock: event time stamps and the range asked of the ledger.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// A wall-clock reading that costs no system call per event: one reading of both clocks, then
/// monotonic time added to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallAnchor {
    at: Instant,
    wall_ms: i64,
}

impl WallAnchor {
    pub(crate) fn take() -> Self {
        Self { at: now(), wall_ms: wall().as_millisecond() }
    }

    /// The wall time of `instant` in Unix milliseconds.
    pub(crate) fn millis_at(&self, instant: Instant) -> i64 {
        let ahead = instant.saturating_duration_since(self.at);
        let behind = self.at.saturating_duration_since(instant);
        self.wall_ms + signed_millis(ahead) - signed_millis(behind)
    }
}

fn signed_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// An RFC 3339 time in UTC with milliseconds, the contract's form.
pub(crate) fn rfc3339(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_decimals_and_a_z() {
        assert_eq!(rfc3339(1_431_857_103_000), "2015-05-17T10:05:03.000Z");
        assert_eq!(rfc3339(1_431_857_103_007), "2015-05-17T10:05:03.007Z");
    }

    #[test]
    fn an_anchor_counts_both_ways_from_where_it_was_taken() {
        let anchor = WallAnchor::take();
        let later = anchor.at + Duration::from_millis(250);
        assert_eq!(anchor.millis_at(later) - anchor.millis_at(anchor.at), 250);
    }
}
