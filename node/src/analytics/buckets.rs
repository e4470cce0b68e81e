//! The buckets of a trend: calendar minutes, hours, days or months of a time zone.
//!
//! Role: cuts a range into calendar buckets and finds a moment's. The first and the last may reach
//! beyond the range; what is counted in them is clipped to it by whoever reads.

use weir_config::limits::BUCKETS_MAX;
use weir_core::calendar::{Anchor, Every, Period, Schedule, Zone};
use weir_core::units::Micros;

/// Neighbouring buckets, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Vec<Period>);

/// The range has more buckets than one answer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range has more than {BUCKETS_MAX} buckets: shorten it or take a coarser granularity")]
pub struct TooManyBuckets;

impl Buckets {
    /// The buckets that touch `[from, to)`.
    pub fn new(every: Every, zone: Zone, from: Micros, to: Micros) -> Result<Self, TooManyBuckets> {
        let schedule = Schedule::new(every, Anchor::Calendar, zone, Micros::EPOCH);
        let buckets: Vec<Period> = schedule
            .periods_from(from)
            .take_while(|bucket| bucket.start < to)
            .take(BUCKETS_MAX + 1)
            .collect();
        if buckets.len() > BUCKETS_MAX { Err(TooManyBuckets) } else { Ok(Self(buckets)) }
    }

    /// In order.
    pub fn as_slice(&self) -> &[Period] {
        &self.0
    }

    /// Which one holds `at`, if one does.
    pub fn position(&self, at: Micros) -> Option<usize> {
        let after = self.0.partition_point(|bucket| bucket.start <= at);
        let position = after.checked_sub(1)?;
        self.0[position].contains(at).then_some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        let timestamp: jiff::Timestamp = text.parse().unwrap();
        Micros::from_micros(timestamp.as_microsecond())
    }

    fn buckets(every: &str, zone: &str, from: &str, to: &str) -> Buckets {
        let (every, zone) = (Every::parse(every).unwrap(), Zone::parse(zone).unwrap());
        Buckets::new(every, zone, at(from), at(to)).unwrap()
    }

    #[test]
    fn buckets_begin_where_the_clocks_and_calendars_of_the_zone_say() {
        for (every, zone, from, to, starts) in [
            (
                "PT1M",
                "UTC",
                "2026-11-24T10:00:30Z",
                "2026-11-24T10:02:00Z",
                &["2026-11-24T10:00:00Z", "2026-11-24T10:01:00Z"][..],
            ),
            (
                "PT1H",
                "Asia/Kathmandu",
                "2026-11-24T10:00:00Z",
                "2026-11-24T11:30:00Z",
                &["2026-11-24T09:15:00Z", "2026-11-24T10:15:00Z", "2026-11-24T11:15:00Z"],
            ),
            // The clocks go forward on the 29th: that day is 23 hours long.
            (
                "P1D",
                "Europe/Berlin",
                "2026-03-28T00:00:00Z",
                "2026-03-30T22:00:00Z",
                &["2026-03-27T23:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"],
            ),
            // They go back on the 25th: 25 hours.
            (
                "P1D",
                "Europe/Berlin",
                "2026-10-24T22:00:00Z",
                "2026-10-26T00:00:00Z",
                &["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"],
            ),
            (
                "P1M",
                "America/New_York",
                "2026-02-28T12:00:00Z",
                "2026-04-01T04:00:00Z",
                &["2026-02-01T05:00:00Z", "2026-03-01T05:00:00Z"],
            ),
        ] {
            let buckets = buckets(every, zone, from, to);
            let found: Vec<Micros> = buckets.as_slice().iter().map(|bucket| bucket.start).collect();
            let expected: Vec<Micros> = starts.iter().map(|start| at(start)).collect();
            assert_eq!(found, expected, "{every} {zone} [{from}, {to})");
            for pair in buckets.as_slice().windows(2) {
                assert_eq!(pair[0].end, pair[1].start, "{every} {zone}: neighbours touch");
            }
        }
    }

    #[test]
    fn a_repeated_hour_has_two_buckets() {
        let hours =
            buckets("PT1H", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        assert_eq!(hours.as_slice().len(), 25);
    }

    #[test]
    fn every_moment_of_the_range_is_in_the_bucket_that_holds_it() {
        let days = buckets("P1D", "Europe/Berlin", "2026-03-28T10:00:00Z", "2026-04-02T10:00:00Z");
        for (position, day) in days.as_slice().iter().enumerate() {
            assert_eq!(days.position(day.start), Some(position));
            let last = Micros::from_micros(day.end.get() - 1);
            assert_eq!(days.position(last), Some(position));
        }
        let (first, last) = (days.as_slice()[0], days.as_slice()[days.as_slice().len() - 1]);
        assert_eq!(days.position(Micros::from_micros(first.start.get() - 1)), None);
        assert_eq!(days.position(last.end), None);
    }

    #[test]
    fn the_number_of_buckets_is_bounded_however_long_the_range() {
        let minute = Every::parse("PT1M").unwrap();
        let of = |minutes: i64| {
            let end = Micros::from_seconds(60 * minutes);
            Buckets::new(minute, Zone::utc(), Micros::EPOCH, end).map(|all| all.as_slice().len())
        };
        assert_eq!(of(11_000), Ok(BUCKETS_MAX));
        assert_eq!(of(11_001), Err(TooManyBuckets));
        let ages = Buckets::new(minute, Zone::utc(), Micros::from_micros(i64::MIN), Micros::MAX);
        assert_eq!(ages, Err(TooManyBuckets));
    }
}
