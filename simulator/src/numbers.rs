//! Number conversions in one place, each saying why it may lose what it loses.

use std::time::Duration;

/// Whole microseconds of a duration; a run is far shorter than the 584,000 years that would not fit.
#[inline]
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whole milliseconds of a duration; see [`micros`].
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads `30s`, `2m 30s`, `200ms`, `PT30S`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is not a time such as 30s, 2m or 200ms"))?;
    Duration::try_from(signed).map_err(|_| format!("`{text}` is negative"))
}

/// A count as a float, for ratios, rates and plots. Exact below 2^53, and nothing here counts further.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// A length as a float; see [`float`].
pub(crate) fn float_len(len: usize) -> f64 {
    float(count(len))
}

/// A length as a count.
#[inline]
pub(crate) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A non-negative float cut to a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and callers pass numbers that are not negative"
)]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// A count as an index. Indexes come from lengths, so they fit.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// `part ÷ seconds`, zero when no time has passed.
pub(crate) fn per_second(part: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { float(part) / seconds } else { 0.0 }
}

/// `1234567` as `1,234,567`, for people.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds as `87 µs`, `1.24 ms` or `2.05 s`, for people.
pub(crate) fn humane_micros(us: u64) -> String {
    if us < 1_000 {
        format!("{us} µs")
    } else if us < 1_000_000 {
        format!("{:.2} ms", float(us) / 1_000.0)
    } else {
        format!("{:.2} s", float(us) / 1_000_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_from_the_right() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn latencies_choose_their_unit() {
        for (us, text) in [(87, "87 µs"), (1_240, "1.24 ms"), (2_050_000, "2.05 s")] {
            assert_eq!(humane_micros(us), text);
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, ms) in
            [("30s", 30_000), ("2m30s", 150_000), ("200ms", 200), ("PT5S", 5_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "-5s", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
