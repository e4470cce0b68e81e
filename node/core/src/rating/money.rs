//! Amounts of money that can be paid: whole smallest units of a currency.
//!
//! Role: an amount is an integer (cents, yen, fils), so adding and splitting lose nothing. How many
//! decimal places that is belongs to the currency, which stands beside it and not in it.

use std::iter::Sum;
use std::ops::{Add, Neg, Sub};

/// Currencies without a smaller unit (ISO 4217, minor unit 0).
const WITHOUT_PLACES: [&str; 17] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND",
    "VUV", "XAF", "XOF", "XPF",
];
/// Currencies with thousandths (ISO 4217, minor unit 3).
const WITH_THREE_PLACES: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];
/// Units of account with four places (ISO 4217, minor unit 4).
const WITH_FOUR_PLACES: [&str; 2] = ["CLF", "UYW"];
/// What all others have, and what a code that is not listed is taken to have.
const PLACES_USUAL: u8 = 2;

/// What of a currency matters to arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Currency {
    places: u8,
}

impl Currency {
    /// The currency with this ISO 4217 code.
    pub fn of(code: &str) -> Self {
        let places = if WITHOUT_PLACES.contains(&code) {
            0
        } else if WITH_THREE_PLACES.contains(&code) {
            3
        } else if WITH_FOUR_PLACES.contains(&code) {
            4
        } else {
            PLACES_USUAL
        };
        Self { places }
    }

    /// Decimal places of its smallest unit, 0 to 4.
    pub const fn places(self) -> u32 {
        self.places as u32
    }

    /// The amount as people and JSON write it, with all of the currency's places: `12.50`, `-0.05`.
    pub fn text(self, amount: Amount) -> String {
        let sign = if amount.minor() < 0 { "-" } else { "" };
        let magnitude = amount.minor().unsigned_abs();
        if self.places == 0 {
            return format!("{sign}{magnitude}");
        }
        let unit = 10_u128.pow(self.places());
        let width = usize::from(self.places);
        format!("{sign}{}.{:0width$}", magnitude / unit, magnitude % unit)
    }
}

/// An amount of money in smallest units of some currency; negative when it is given back.
///
/// Sums are held at the ends of 128 bits, far beyond any price a plan may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From smallest units (cents, yen, fils).
    pub const fn from_minor(minor: i128) -> Self {
        Self(minor)
    }

    /// Smallest units.
    pub const fn minor(self) -> i128 {
        self.0
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_written_with_the_places_of_its_currency() {
        let stories = [
            ("USD", 0, "0.00"),
            ("USD", 5, "0.05"),
            ("USD", -5, "-0.05"),
            ("USD", 9_001, "90.01"),
            ("JPY", 9_001, "9001"),
            ("JPY", -1, "-1"),
            ("KWD", 9_001, "9.001"),
            ("CLF", 9_001, "0.9001"),
            ("UYI", 7, "7"),
            // Not a currency, but a code that a plan may have.
            ("ABC", 100, "1.00"),
            ("KWD", i128::MAX, "170141183460469231731687303715884105.727"),
        ];
        for (code, minor, expected) in stories {
            let text = Currency::of(code).text(Amount::from_minor(minor));
            assert_eq!(text, expected, "{minor} of {code}");
        }
    }
}
