//! The range of time that a question is about.

use weir_core::units::{Micros, Span};

use super::super::moment::moment_parameter;
use super::super::problem::Problem;
use super::invalid;
use crate::analytics::minute_of;

/// How far back a question goes that does not say.
const DEFAULT: Span = Span::from_seconds(24 * 3_600);

const MINUTE: Span = Span::from_seconds(60);

/// `[from, to)`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Micros,
    pub(super) to: Micros,
}

impl Range {
    /// `to` is now and `from` a day before it where they are not given.
    pub(super) fn parse(
        from: Option<&str>,
        to: Option<&str>,
        now: Micros,
    ) -> Result<Self, Problem> {
        let to = to.map(|to| moment_parameter("to", to)).transpose()?.unwrap_or(now);
        let from = from.map(|from| moment_parameter("from", from)).transpose()?;
        Self::new(from.unwrap_or(to.minus(DEFAULT)), to)
    }

    /// Refuses what holds no moment.
    pub(super) fn new(from: Micros, to: Micros) -> Result<Self, Problem> {
        if from < to { Ok(Self { from, to }) } else { Err(invalid("`from` must be before `to`")) }
    }

    /// The same range and as little more as makes whole minutes.
    pub(super) fn whole_minutes(self) -> Self {
        let last = Micros::from_micros(self.to.get().saturating_add(MINUTE.get() - 1));
        Self { from: minute_of(self.from), to: minute_of(last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = Micros::from_seconds(1_800_000_000);

    #[test]
    fn a_range_is_the_last_day_unless_it_is_said() {
        let day = NOW.minus(DEFAULT);
        let epoch = "1970-01-01T00:00:00Z";
        let day_two = "1970-01-02T00:00:00Z";
        for (from, to, expected) in [
            (None, None, Some((day, NOW))),
            (Some(epoch), None, Some((Micros::EPOCH, NOW))),
            (None, Some(day_two), Some((Micros::EPOCH, Micros::from_seconds(86_400)))),
            (
                Some("1970-01-01T01:00:00+01:00"),
                Some(day_two),
                Some((Micros::EPOCH, Micros::from_seconds(86_400))),
            ),
            (Some(day_two), Some(epoch), None),
            (Some(epoch), Some(epoch), None),
            (Some("yesterday"), None, None),
            (None, Some("1700000000"), None),
            (Some("2100-01-01T00:00:00Z"), None, None),
        ] {
            let found = Range::parse(from, to, NOW).ok().map(|range| (range.from, range.to));
            assert_eq!(found, expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn whole_minutes_hold_the_range_and_no_minute_more() {
        for ((from, to), expected) in
            [((0, 60), (0, 60)), ((1, 59), (0, 60)), ((59, 61), (0, 120)), ((60, 61), (60, 120))]
        {
            let range = Range { from: Micros::from_seconds(from), to: Micros::from_seconds(to) };
            let whole = range.whole_minutes();
            let found = (whole.from.get() / 1_000_000, whole.to.get() / 1_000_000);
            assert_eq!(found, expected, "[{from}, {to})");
        }
    }
}
