//! Durations as people write them: ISO 8601 (`P1M`, `PT1H30M`) or humane (`1h30m`, `500ms`).
//!
//! Role: one grammar, two results. [`Every`] is the length of a period, calendar units included;
//! [`parse_span`] gives elapsed time. Both are exact: what cannot be represented is refused.
//!
//! ```text
//! iso     = "P" [n"Y"] [n"M"] [n"W"] [n"D"] ["T" [n"H"] [n"M"] [n"S"]]       at least one part
//! humane  = part { [" "] part }     part = n ("y"|"mo"|"w"|"d"|"h"|"m"|"s"|"ms"|"us")
//! ```
//! Units go from large to small, none twice. Only seconds may carry a fraction (`PT0.5S`, `1.5s`),
//! down to the microsecond.

use std::fmt;

use thiserror::Error;

use crate::units::{MICROS_PER_SECOND, Span};

const SECONDS_PER_MINUTE: u64 = 60;
const SECONDS_PER_HOUR: u64 = 3_600;
const SECONDS_PER_DAY: u64 = 86_400;
/// A 4,800th of the 146,097 days of the Gregorian cycle; a whole number of seconds by luck.
const SECONDS_PER_MONTH_MEAN: u64 = 2_629_746;
/// One hundred years. Longer is a typing error, and the bound keeps all arithmetic here in `u64`.
const SECONDS_MAX: u64 = 1_200 * SECONDS_PER_MONTH_MEAN;
const MICROS: u64 = MICROS_PER_SECOND.unsigned_abs();

/// Why a text is not the duration asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Neither grammar matches.
    #[error("not a duration: write ISO 8601 such as PT1H30M, or 1h30m, largest unit first")]
    Malformed,
    /// A sign; time only goes forward here.
    #[error("a duration cannot be negative")]
    Negative,
    /// A fraction where only whole numbers are exact.
    #[error("a fraction is not allowed here: use a smaller unit")]
    Fractional,
    /// A period of no length.
    #[error("a period cannot be empty")]
    Zero,
    /// A period under a second.
    #[error("a period lasts at least one second")]
    TooShort,
    /// More than a hundred years.
    #[error("a duration lasts at most one hundred years")]
    TooLong,
    /// Months or years where elapsed time is wanted.
    #[error("months and years have no fixed length: use days, or a smaller unit")]
    CalendarUnit,
}

/// The length of a period: one second to one hundred years, in months, days and seconds.
///
/// Values that mean the same are equal (`P1Y` and `P12M`, `P1W` and `P7D`, `PT60M` and `PT1H`);
/// `P1D` and `PT24H` do not mean the same. [`Display`](fmt::Display) writes the canonical ISO form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Every {
    months: u32,
    days: u32,
    seconds: u32,
}

impl Every {
    /// Valid when the whole is from one second to one hundred (mean Gregorian) years.
    pub fn new(months: u32, days: u32, seconds: u32) -> Result<Self, DurationError> {
        let every = Self { months, days, seconds };
        match every.seconds_mean() {
            0 => Err(DurationError::Zero),
            mean if mean > SECONDS_MAX => Err(DurationError::TooLong),
            _ => Ok(every),
        }
    }

    /// Reads ISO 8601 or the humane form: `P1M`, `P1DT12H`, `30d`, `1h30m`.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let parts = Parts::parse(text)?;
        if !parts.micros.is_multiple_of(MICROS) {
            let tiny = parts.months == 0 && parts.days == 0 && parts.micros < MICROS;
            return Err(if tiny { DurationError::TooShort } else { DurationError::Fractional });
        }
        let narrow = |count: u64| u32::try_from(count).map_err(|_| DurationError::TooLong);
        Self::new(narrow(parts.months)?, narrow(parts.days)?, narrow(parts.micros / MICROS)?)
    }

    /// Civil months, years included.
    pub const fn months(self) -> u32 {
        self.months
    }

    /// Civil days, weeks included.
    pub const fn days(self) -> u32 {
        self.days
    }

    /// Elapsed seconds, minutes and hours included.
    pub const fn seconds(self) -> u32 {
        self.seconds
    }

    /// Whether it is elapsed time alone, the same length in every zone.
    pub const fn is_exact(self) -> bool {
        self.months == 0 && self.days == 0
    }

    /// Length over the long run: a month counts as a 4,800th of the 400-year cycle.
    pub(super) fn seconds_mean(self) -> u64 {
        u64::from(self.months) * SECONDS_PER_MONTH_MEAN
            + u64::from(self.days) * SECONDS_PER_DAY
            + u64::from(self.seconds)
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |f: &mut fmt::Formatter<'_>, count: u64, unit: char| match count {
            0 => Ok(()),
            _ => write!(f, "{count}{unit}"),
        };
        let seconds = u64::from(self.seconds);
        f.write_str("P")?;
        part(f, u64::from(self.months / 12), 'Y')?;
        part(f, u64::from(self.months % 12), 'M')?;
        part(f, u64::from(self.days), 'D')?;
        if seconds > 0 {
            f.write_str("T")?;
            part(f, seconds / SECONDS_PER_HOUR, 'H')?;
            part(f, seconds % SECONDS_PER_HOUR / SECONDS_PER_MINUTE, 'M')?;
            part(f, seconds % SECONDS_PER_MINUTE, 'S')?;
        }
        Ok(())
    }
}

/// Reads elapsed time in either form: `60s`, `PT1S`, `1h30m`, `500ms`, `2d`.
///
/// A day is 24 hours and a week seven of them; months and years are refused. Zero is a span.
pub fn parse_span(text: &str) -> Result<Span, DurationError> {
    let parts = Parts::parse(text)?;
    if parts.months > 0 {
        return Err(DurationError::CalendarUnit);
    }
    let micros = parts
        .days
        .checked_mul(SECONDS_PER_DAY * MICROS)
        .and_then(|days| days.checked_add(parts.micros))
        .filter(|&micros| micros <= SECONDS_MAX * MICROS)
        .and_then(|micros| i64::try_from(micros).ok())
        .ok_or(DurationError::TooLong)?;
    Ok(Span::from_micros(micros))
}

/// From large to small: a duration names them in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
}

impl Unit {
    fn of_iso_date(designator: char) -> Option<Self> {
        match designator {
            'Y' => Some(Self::Year),
            'M' => Some(Self::Month),
            'W' => Some(Self::Week),
            'D' => Some(Self::Day),
            _ => None,
        }
    }

    fn of_iso_time(designator: char) -> Option<Self> {
        match designator {
            'H' => Some(Self::Hour),
            'M' => Some(Self::Minute),
            'S' => Some(Self::Second),
            _ => None,
        }
    }

    fn of_humane(name: &str) -> Option<Self> {
        match name {
            "y" => Some(Self::Year),
            "mo" => Some(Self::Month),
            "w" => Some(Self::Week),
            "d" => Some(Self::Day),
            "h" => Some(Self::Hour),
            "m" => Some(Self::Minute),
            "s" => Some(Self::Second),
            "ms" => Some(Self::Millisecond),
            "us" => Some(Self::Microsecond),
            _ => None,
        }
    }
}

/// What was read, not yet judged.
#[derive(Default)]
struct Parts {
    months: u64,
    days: u64,
    micros: u64,
    smallest: Option<Unit>,
}

impl Parts {
    fn parse(text: &str) -> Result<Self, DurationError> {
        if text.contains('-') {
            return Err(DurationError::Negative);
        }
        let mut parts = Self::default();
        match text.strip_prefix('P') {
            Some(iso) => parts.read_iso(iso)?,
            None => parts.read_humane(text)?,
        }
        // Neither "" nor "P" names a unit.
        if parts.smallest.is_some() { Ok(parts) } else { Err(DurationError::Malformed) }
    }

    fn read_iso(&mut self, text: &str) -> Result<(), DurationError> {
        let (date, time) = match text.split_once('T') {
            Some((_, "")) => return Err(DurationError::Malformed),
            Some((date, time)) => (date, time),
            None => (text, ""),
        };
        for (mut rest, unit_of) in
            [(date, Unit::of_iso_date as fn(char) -> Option<Unit>), (time, Unit::of_iso_time)]
        {
            while !rest.is_empty() {
                let (number, after) = Number::split(rest)?;
                let mut letters = after.chars();
                let unit = letters.next().and_then(unit_of).ok_or(DurationError::Malformed)?;
                self.add(number, unit)?;
                rest = letters.as_str();
            }
        }
        Ok(())
    }

    fn read_humane(&mut self, text: &str) -> Result<(), DurationError> {
        let mut rest = text;
        while !rest.is_empty() {
            let (number, after) = Number::split(rest)?;
            let letters =
                after.len() - after.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
            let (name, after) = after.split_at(letters);
            self.add(number, Unit::of_humane(name).ok_or(DurationError::Malformed)?)?;
            rest = match after.strip_prefix(' ') {
                Some("") => return Err(DurationError::Malformed),
                Some(next) => next,
                None => after,
            };
        }
        Ok(())
    }

    fn add(&mut self, number: Number, unit: Unit) -> Result<(), DurationError> {
        if self.smallest.is_some_and(|smallest| unit <= smallest) {
            return Err(DurationError::Malformed);
        }
        self.smallest = Some(unit);
        if number.has_fraction && unit != Unit::Second {
            return Err(DurationError::Fractional);
        }
        let (total, each) = match unit {
            Unit::Year => (&mut self.months, 12),
            Unit::Month => (&mut self.months, 1),
            Unit::Week => (&mut self.days, 7),
            Unit::Day => (&mut self.days, 1),
            Unit::Hour => (&mut self.micros, SECONDS_PER_HOUR * MICROS),
            Unit::Minute => (&mut self.micros, SECONDS_PER_MINUTE * MICROS),
            Unit::Second => (&mut self.micros, MICROS),
            Unit::Millisecond => (&mut self.micros, MICROS / 1_000),
            Unit::Microsecond => (&mut self.micros, 1),
        };
        *total = number
            .whole
            .checked_mul(each)
            .and_then(|whole| whole.checked_add(number.millionths))
            .and_then(|added| total.checked_add(added))
            .ok_or(DurationError::TooLong)?;
        Ok(())
    }
}

/// An unsigned decimal with at most six places.
#[derive(Clone, Copy)]
struct Number {
    whole: u64,
    millionths: u64,
    has_fraction: bool,
}

impl Number {
    /// Takes the number at the front of `text`.
    fn split(text: &str) -> Result<(Self, &str), DurationError> {
        let (whole, after) = split_digits(text);
        if whole.is_empty() {
            return Err(DurationError::Malformed);
        }
        let whole = whole.parse().map_err(|_| DurationError::TooLong)?;
        let Some(after_point) = after.strip_prefix(['.', ',']) else {
            return Ok((Self { whole, millionths: 0, has_fraction: false }, after));
        };
        let (places, after) = split_digits(after_point);
        if places.is_empty() {
            return Err(DurationError::Malformed);
        }
        if places.len() > 6 {
            return Err(DurationError::Fractional);
        }
        let scale = (places.len()..6).fold(1, |scale, _| scale * 10);
        let fraction: u64 = places.parse().map_err(|_| DurationError::Malformed)?;
        Ok((Self { whole, millionths: fraction * scale, has_fraction: true }, after))
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len())
}
