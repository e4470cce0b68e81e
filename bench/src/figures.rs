//! Small sums over measured numbers, and how they are written.

use std::time::Duration;

/// A count as a figure. Exact up to 2^53, far above anything counted here.
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
pub const fn float(count: u64) -> f64 {
    count as f64
}

/// A length as a figure.
pub fn length(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}

/// How many a second.
pub fn per_second(count: u64, time: Duration) -> f64 {
    float(count) / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Several measurements of the same thing.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Sums up; not a number when there is nothing to sum up.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self { median, min: at(0), max: at(sorted.len().wrapping_sub(1)) }
    }
}

/// A whole number with a comma between thousands.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        let left = digits.len() - place;
        if place > 0 && left.is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (value, text) in [
            (0.0, "0"),
            (999.4, "999"),
            (1_000.0, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1e3, "-1,000"),
        ] {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        for (values, spread) in [
            (&[3.0, 1.0, 2.0][..], "1 2 3"),
            (&[4.0, 1.0, 2.0, 3.0], "1 2.5 4"),
            (&[7.0], "7 7 7"),
            (&[], "NaN NaN NaN"),
        ] {
            let Spread { median, min, max } = Spread::of(values);
            assert_eq!(format!("{min} {median} {max}"), spread, "{values:?}");
        }
    }
}
