//! The only reader of time.
//!
//! Role: one clock for quotas, rate windows and timestamps. It runs on the monotonic clock, so that a
//! step of the wall clock moves no window; a wall clock that runs ahead is followed at once, one that
//! fell behind is approached slowly ([`Clock::follow`]), so that time never visibly stands still.

#![allow(clippy::disallowed_methods, reason = "this is the room that may read the clocks")]

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_core::units::Micros;

/// How much the clock may fall back at one correction, in microseconds: meters hold the latest time
/// they saw, so this is how long one of them may see no time pass.
const STEP_BACK_MICROS_MAX: i64 = 1_000;

/// A clock that starts at the wall clock and goes on by the monotonic one.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    base_micros: i64,
    offset_micros: AtomicI64,
}

impl Clock {
    /// Reads the wall clock once.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            base_micros: wall_micros(),
            offset_micros: AtomicI64::new(0),
        }
    }

    /// Now.
    pub fn now(&self) -> Micros {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let offset = self.offset_micros.load(Ordering::Relaxed);
        Micros::from_micros(self.base_micros.saturating_add(elapsed).saturating_add(offset))
    }

    /// Compares with the wall clock; called every second or so.
    pub fn follow(&self) {
        let behind = wall_micros() - self.now().get();
        let correction = behind.max(-STEP_BACK_MICROS_MAX);
        self.offset_micros.fetch_add(correction, Ordering::Relaxed);
    }

    /// A point to measure a duration from.
    pub fn stopwatch() -> Stopwatch {
        Stopwatch(Instant::now())
    }
}

/// Measures a duration.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Time since it was started.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// RFC 3339 in UTC with milliseconds, the contract's form of a moment.
pub fn rfc3339(at: Micros) -> String {
    String::from_utf8_lossy(&rfc3339_text(at)).into_owned()
}

/// The form of [`rfc3339`] as ASCII: written by hand because a check's answer has several moments and
/// a general formatter would cost more than the decision.
pub fn rfc3339_text(at: Micros) -> [u8; 24] {
    let millis = at.get().div_euclid(1_000).clamp(RFC3339_MILLIS_MIN, RFC3339_MILLIS_MAX);
    let (days, of_day) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let mut digits = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for index in (at..at + width).rev() {
            digits[index] = b'0' + u8::try_from(value % 10).unwrap_or_default();
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, of_day / 3_600_000);
    put(14, 2, of_day / 60_000 % 60);
    put(17, 2, of_day / 1_000 % 60);
    put(20, 3, of_day % 1_000);
    digits
}

/// Years 0 to 9999: what four digits hold.
const RFC3339_MILLIS_MIN: i64 = -62_167_219_200_000;
const RFC3339_MILLIS_MAX: i64 = 253_402_300_799_999;

/// Days since 1970-01-01 to a date of the proleptic Gregorian calendar, by counting years from March
/// so that the leap day is the last day of a year (H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn wall_micros() -> i64 {
    // A machine that believes to be before 1970 gets the epoch: every period is in the past then.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_library_writes_them() {
        let mut moments = vec![0, -1, 951_782_399_999_999, 4_102_444_800_000_000, i64::MAX];
        moments.extend((-3_000..9_000).map(|n: i64| n * 86_399_123_456));
        for micros in moments {
            let Ok(expected) = jiff::Timestamp::from_microsecond(micros.div_euclid(1000) * 1000)
            else {
                continue;
            };
            assert_eq!(rfc3339(Micros::from_micros(micros)), format!("{expected:.3}"), "{micros}");
        }
    }

    #[test]
    fn a_correction_never_steps_back_more_than_a_meter_may_stand_still() {
        let clock = Clock::start();
        clock.offset_micros.store(60_000_000, Ordering::Relaxed);
        let before = clock.now().get();
        clock.follow();
        assert!(clock.now().get() >= before - STEP_BACK_MICROS_MAX);
    }

    #[test]
    fn a_wall_clock_that_ran_ahead_is_followed_at_once() {
        let clock = Clock::start();
        clock.offset_micros.store(-60_000_000, Ordering::Relaxed);
        clock.follow();
        assert!((clock.now().get() - wall_micros()).abs() < 1_000_000);
    }
}
