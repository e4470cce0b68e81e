//! Base fees of a billing period in which the plan changed: each for the time it was in force.
//!
//! Role: [`prorate`] splits to the microsecond and adds up to the smallest unit: a fee that stays the
//! same over any number of changes comes out whole, and the parts of different ones add up to their
//! exact sum, rounded once.

use super::money::Amount;
use crate::calendar::Period;
use crate::units::Micros;

/// A base fee, and when it was in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeSpan {
    /// From this moment on.
    pub from: Micros,
    /// Up to this one, which is not in it.
    pub until: Micros,
    /// The fee of a whole billing period.
    pub fee: Amount,
}

/// What of each fee is due for `period`, in the same order.
///
/// Time outside the period costs nothing here, nor does time in no span (before a subscription
/// began, after it ended). Spans follow each other; what one shares with an earlier one is the
/// earlier one's.
pub fn prorate(period: &Period, spans: &[FeeSpan]) -> Vec<Amount> {
    let length = i128::from(period.length().get()).max(1);
    let mut begins = period.start;
    let (mut sum, mut due) = (0_i128, 0_i128);
    let mut parts = Vec::with_capacity(spans.len());
    for span in spans {
        let from = span.from.max(begins);
        let until = span.until.min(period.end);
        // The sum of all fee · time is below the largest fee times the period.
        sum = sum.saturating_add(span.fee.minor().saturating_mul(until.since(from).get().into()));
        begins = begins.max(until);
        let rounded = divide_rounded(sum, length);
        parts.push(Amount::from_minor(rounded - due));
        due = rounded;
    }
    parts
}

/// Half goes away from zero.
fn divide_rounded(sum: i128, by: i128) -> i128 {
    let (quotient, rest) = (sum / by, sum % by);
    // Doubling could overflow where comparing with the rest of the divisor cannot.
    let is_half_or_more = rest.abs() >= by - rest.abs();
    if is_half_or_more { quotient + sum.signum() } else { quotient }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotient_is_rounded_half_away_from_zero() {
        let stories =
            [(0, 2, 0), (1, 2, 1), (-1, 2, -1), (1, 3, 0), (2, 3, 1), (5, 3, 2), (-5, 3, -2)];
        for (sum, by, expected) in stories {
            assert_eq!(divide_rounded(sum, by), expected, "{sum} / {by}");
        }
        assert_eq!(divide_rounded(i128::MAX, i128::MAX), 1);
    }
}
