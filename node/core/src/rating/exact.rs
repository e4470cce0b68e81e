//! Exact sums of money, before they are rounded.
//!
//! Role: a price has up to twelve decimal places and up to twelve digits before them, a count up to
//! sixteen: their product has forty digits, more than the decimal type or 128 bits hold. So the
//! part before the point and the part after it are kept apart, and nothing is ever rounded on the
//! way. Never negative: prices are not.

use rust_decimal::{Decimal, RoundingStrategy};

use super::money::{Amount, Currency};

/// Decimal places that are kept; a price in a plan has no more.
const PLACES: u32 = 12;
const PARTS: u128 = 10_u128.pow(PLACES);

/// A sum of money with twelve exact places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exact {
    /// Before the decimal point. First, so that the derived order is that of the sums.
    whole: u128,
    /// After it, in `10^-12`, below [`PARTS`].
    parts: u128,
}

impl Exact {
    /// Nothing.
    pub(super) const ZERO: Self = Self { whole: 0, parts: 0 };

    /// A price. Places beyond the twelfth are rounded and a negative price is none: a plan document
    /// has neither, a plan made by hand might.
    pub(super) fn of(price: Decimal) -> Self {
        debug_assert!(!price.is_sign_negative() || price.is_zero(), "{price} is negative");
        let price = price
            .max(Decimal::ZERO)
            .round_dp_with_strategy(PLACES, RoundingStrategy::MidpointAwayFromZero);
        let fraction = price.fract();
        let parts = fraction.mantissa().unsigned_abs() * 10_u128.pow(PLACES - fraction.scale());
        debug_assert!(parts < PARTS, "the fraction of {price} is below one");
        Self { whole: price.trunc().mantissa().unsigned_abs(), parts }
    }

    /// So many times this. Held at the end of 128 bits, which takes a price far beyond a plan's.
    pub(super) fn times(self, count: u64) -> Self {
        let count = u128::from(count);
        // Below 10^12 · 2^64: no overflow.
        let parts = self.parts * count;
        let whole = self.whole.saturating_mul(count).saturating_add(parts / PARTS);
        Self { whole, parts: parts % PARTS }
    }

    /// Sum, held like [`Self::times`].
    pub(super) fn plus(self, other: Self) -> Self {
        let parts = self.parts + other.parts;
        let whole = self.whole.saturating_add(other.whole).saturating_add(parts / PARTS);
        Self { whole, parts: parts % PARTS }
    }

    /// The nearest amount that can be paid; half a smallest unit goes away from zero.
    pub(super) fn rounded(self, currency: Currency) -> Amount {
        let step = Self::step(currency);
        self.amount(currency, (self.parts + step / 2) / step)
    }

    /// A smallest unit in `10^-12`.
    const fn step(currency: Currency) -> u128 {
        10_u128.pow(PLACES - currency.places())
    }

    fn amount(self, currency: Currency, minor: u128) -> Amount {
        let unit = 10_u128.pow(currency.places());
        let minor = self.whole.saturating_mul(unit).saturating_add(minor);
        Amount::from_minor(i128::try_from(minor).unwrap_or(i128::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        Exact::of(text.parse().expect("tests write decimals well"))
    }

    #[test]
    fn a_sum_is_rounded_half_away_from_zero_at_the_currencys_places() {
        let stories = [
            ("90.005", "USD", "90.01"),
            ("90.004999999999", "USD", "90.00"),
            ("0.995", "USD", "1.00"),
            ("0.5", "JPY", "1"),
            ("0.499999999999", "JPY", "0"),
            ("2.5", "JPY", "3"),
            ("0.0005", "KWD", "0.001"),
            ("0.0015", "KWD", "0.002"),
            ("1000000000000", "USD", "1000000000000.00"),
        ];
        for (sum, code, expected) in stories {
            let currency = Currency::of(code);
            assert_eq!(currency.text(exact(sum).rounded(currency)), expected, "{sum} {code}");
        }
    }

    #[test]
    fn the_largest_price_times_the_largest_count_is_exact() {
        let largest = exact("999999999999.999999999999").times((1 << 53) - 1);
        // (10^24 - 1) · (2^53 - 1) / 10^12.
        let currency = Currency::of("USD");
        assert_eq!(currency.text(largest.rounded(currency)), "9007199254740990999999990992.80");
        let tiny = exact("0.000000000001");
        assert_eq!(tiny.times(1_000_000_000_000), exact("1"));
        assert_eq!(exact("0.999999999999").plus(tiny), exact("1"));
    }
}
