//! From an anchor, a length and a zone to periods, in closed form.
//!
//! Role: [`Schedule`] answers "which period is this moment in" without walking there: it divides by
//! the mean length, which is right to within a few periods, and corrects. Rules: the module above.

use std::fmt;

use jiff::civil::{Date, DateTime, date};
use jiff::{Span as CivilSpan, Timestamp};
use thiserror::Error;

use super::{Every, Zone};
use crate::units::{MICROS_PER_SECOND, Micros, Span};

/// Before every other moment: where the first period begins.
const BEGINNING: Micros = Micros::from_micros(i64::MIN);
/// 0001-01-01T00:00Z and 9999-01-01T00:00Z. Boundaries are made only between them: the civil
/// calendar that computes them has four-digit years, and RFC 3339 could not print others.
const HORIZON_MIN: Micros = Micros::from_seconds(-62_135_596_800);
const HORIZON_MAX: Micros = Micros::from_seconds(253_370_764_800);

/// Reference of calendar periods in whole weeks: a Monday.
const WEEKS_FROM: Date = date(1970, 1, 5);
/// Reference of other civil calendar periods.
const DATES_FROM: Date = date(1970, 1, 1);
/// Reference of calendar periods in elapsed time; why it is recent is told in the module above.
const CLOCK_FROM: Date = date(2024, 1, 1);

/// Where periods are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anchor {
    /// A fixed local midnight, so that months begin on the 1st and weeks on Monday.
    Calendar,
    /// The start of the subscription.
    Subscription,
    /// This moment.
    At(Micros),
}

/// The text names no anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnchorError {
    /// Neither a word nor a timestamp.
    #[error("an anchor is \"calendar\", \"subscription\" or an RFC 3339 timestamp")]
    Malformed,
    /// A timestamp outside the years 1 to 9998.
    #[error("an anchor lies between the years 1 and 9998")]
    OutOfRange,
}

impl Anchor {
    /// Reads `calendar`, `subscription`, or an RFC 3339 timestamp (cut to the microsecond).
    pub fn parse(text: &str) -> Result<Self, AnchorError> {
        match text {
            "calendar" => Ok(Self::Calendar),
            "subscription" => Ok(Self::Subscription),
            _ => {
                let at: Timestamp = text.parse().map_err(|_| AnchorError::Malformed)?;
                let at = micros_of(at);
                let in_range = HORIZON_MIN <= at && at < HORIZON_MAX;
                if in_range { Ok(Self::At(at)) } else { Err(AnchorError::OutOfRange) }
            }
        }
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calendar => f.write_str("calendar"),
            Self::Subscription => f.write_str("subscription"),
            Self::At(at) => timestamp_of(*at).fmt(f),
        }
    }
}

/// One period, `[start, end)`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    /// How many steps after the anchor it begins; negative before the anchor.
    pub index: i64,
    /// The first moment in it.
    pub start: Micros,
    /// The first moment after it; [`Micros::MAX`] in the last period, which has no end.
    pub end: Micros,
}

impl Period {
    /// Whether `at` lies in it.
    pub fn contains(&self, at: Micros) -> bool {
        self.start <= at && (at < self.end || self.end == Micros::MAX)
    }

    /// From start to end.
    pub const fn length(&self) -> Span {
        self.end.since(self.start)
    }
}

/// All the periods of one quota of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    every: Every,
    zone: Zone,
    /// The boundary with index 0.
    origin: Micros,
    /// What local clocks show then, kept because a repeated hour cannot be told from it.
    origin_local: DateTime,
}

impl Schedule {
    /// Never fails: an anchor outside the years 1 to 9998 is moved to the nearer end of them.
    pub fn new(every: Every, anchor: Anchor, zone: Zone, subscription_started_at: Micros) -> Self {
        let at = |at: Micros| {
            let origin = at.clamp(HORIZON_MIN, HORIZON_MAX);
            (origin, zone.local(timestamp_of(origin)))
        };
        let (origin, origin_local) = match anchor {
            Anchor::Calendar => {
                let local = calendar_reference(every).at(0, 0, 0, 0);
                // Infallible for these dates; the epoch would merely be off by the zone's offset.
                (zone.first_instant(local).map_or(Micros::EPOCH, micros_of), local)
            }
            Anchor::Subscription => at(subscription_started_at),
            Anchor::At(moment) => at(moment),
        };
        Self { every, zone, origin, origin_local }
    }

    /// The length it repeats with.
    pub const fn every(&self) -> Every {
        self.every
    }

    /// The zone whose civil days it counts.
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The period that holds `at`.
    ///
    /// Cost: a division and a handful of boundaries, however far `at` is from the anchor. The guess
    /// is off by less than four days (month lengths over the 400-year cycle, the zone's offset), a
    /// civil step lasts a day or more, and elapsed steps are guessed exactly.
    pub fn period_at(&self, at: Micros) -> Period {
        // The very last microsecond belongs to the period that has no end.
        let at = at.min(Micros::from_micros(i64::MAX - 1));
        let mut index = self.guess(at);
        let mut start = self.boundary(index);
        while start > at {
            index -= 1;
            start = self.boundary(index);
        }
        // The largest index that begins at or before `at`: so a skipped day never answers.
        let mut end = self.boundary(index + 1);
        while end <= at {
            index += 1;
            start = end;
            end = self.boundary(index + 1);
        }
        let period = Period { index, start, end };
        debug_assert!(start < end && period.contains(at), "{at:?} outside {period:?}");
        period
    }

    /// The period that begins at the boundary `index`.
    ///
    /// Where local time skipped that whole period, the one that begins in its place (its index is
    /// larger); beyond the first or last period, that one.
    pub fn period_by_index(&self, index: i64) -> Period {
        let start = self.boundary(index);
        let end = self.boundary(index.saturating_add(1));
        if start < end { Period { index, start, end } } else { self.period_at(start) }
    }

    /// The period that begins where `period` ends; none after the last.
    pub fn next(&self, period: &Period) -> Option<Period> {
        (period.end < Micros::MAX).then(|| self.period_by_index(period.index + 1))
    }

    /// The period that ends where `period` begins; none before the first.
    pub fn previous(&self, period: &Period) -> Option<Period> {
        (period.start > BEGINNING).then(|| self.period_at(period.start.minus(Span::from_micros(1))))
    }

    /// The period that holds `at` and all after it, for previews.
    pub fn periods_from(&self, at: Micros) -> Periods<'_> {
        Periods { schedule: self, next: Some(self.period_at(at)) }
    }

    /// `anchor + index · every`; strictly increasing in `index` wherever local time is not skipped,
    /// never decreasing anywhere.
    fn boundary(&self, index: i64) -> Micros {
        let beyond = if index < 0 { BEGINNING } else { Micros::MAX };
        let Some(base) = self.civil_boundary(index) else { return beyond };
        let elapsed =
            i128::from(index) * i128::from(self.every.seconds()) * i128::from(MICROS_PER_SECOND);
        let at = i128::from(base.get()) + elapsed;
        if at < i128::from(HORIZON_MIN.get()) {
            BEGINNING
        } else if at > i128::from(HORIZON_MAX.get()) {
            Micros::MAX
        } else {
            i64::try_from(at).map_or(beyond, Micros::from_micros)
        }
    }

    /// The civil part of a boundary; none where the civil calendar ends.
    fn civil_boundary(&self, index: i64) -> Option<Micros> {
        if index == 0 || self.every.is_exact() {
            return Some(self.origin);
        }
        let months = index.checked_mul(i64::from(self.every.months()))?;
        let days = index.checked_mul(i64::from(self.every.days()))?;
        // Months are added first and the day of the month clamped, then days.
        let step = CivilSpan::new().try_months(months).and_then(|step| step.try_days(days)).ok()?;
        let day = self.origin_local.date().checked_add(step).ok()?;
        self.zone.first_instant(day.to_datetime(self.origin_local.time())).ok().map(micros_of)
    }

    /// An index near the period that holds `at`.
    fn guess(&self, at: Micros) -> i64 {
        let at = at.clamp(HORIZON_MIN, HORIZON_MAX);
        let mean = i128::from(self.every.seconds_mean()) * i128::from(MICROS_PER_SECOND);
        let steps = (i128::from(at.get()) - i128::from(self.origin.get())).div_euclid(mean);
        i64::try_from(steps).unwrap_or(0)
    }
}

/// The iterator of [`Schedule::periods_from`]. Each touches the one before it.
#[derive(Clone, Debug)]
pub struct Periods<'a> {
    schedule: &'a Schedule,
    next: Option<Period>,
}

impl Iterator for Periods<'_> {
    type Item = Period;

    fn next(&mut self) -> Option<Period> {
        let period = self.next?;
        self.next = self.schedule.next(&period);
        Some(period)
    }
}

fn calendar_reference(every: Every) -> Date {
    if every.is_exact() {
        CLOCK_FROM
    } else if every.months() == 0 && every.seconds() == 0 && every.days().is_multiple_of(7) {
        WEEKS_FROM
    } else {
        DATES_FROM
    }
}

/// Rounds down, also before 1970.
fn micros_of(at: Timestamp) -> Micros {
    let micros = at.as_nanosecond().div_euclid(1_000);
    i64::try_from(micros).map_or(Micros::MAX, Micros::from_micros)
}

/// Moments outside the years that the civil calendar counts come out as its nearer end.
fn timestamp_of(at: Micros) -> Timestamp {
    Timestamp::from_microsecond(at.get()).unwrap_or(if at < Micros::EPOCH {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}
