//! The scalars of a document: read leniently, judged later, so that one bad value hides no other.
//!
//! Role: [`Given`] is what a field holds after reading, a value or the flaw in it; [`Leaf`] says how
//! each kind of scalar is written in JSON. No derive can do this: serde stops at the first error.

use std::borrow::Cow;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use weir_core::calendar::{Anchor, Every, parse_span};
use weir_core::units::{MICROS_PER_SECOND, Span, UNITS_MAX, Units};

/// Decimal places of money in a plan.
/// More: price times units no longer fits the 28 digits of a decimal. Fewer: prices per token or
/// byte (`0.0000025`) cannot be written.
pub const MONEY_PLACES_MAX: usize = 12;
/// Most that a price, fee or cap may be; above it sums over a period could overflow.
const MONEY_MAX: u64 = 1_000_000_000_000;

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Stable `snake_case` code.
    pub code: &'static str,
    /// What is expected.
    pub detail: Cow<'static, str>,
}

impl Flaw {
    pub(super) fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// A field as it was given: usable, or not and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given<T> {
    /// What the field means.
    Valid(T),
    /// What it says instead.
    Invalid(Value, Flaw),
}

/// A scalar with one way of being written.
pub trait Leaf: Sized {
    /// From JSON.
    fn read(value: &Value) -> Result<Self, Flaw>;
    /// To JSON, so that `read(write(x)) == x`.
    fn write(&self) -> Value;
}

impl<T> From<T> for Given<T> {
    fn from(value: T) -> Self {
        Self::Valid(value)
    }
}

impl<'de, T: Leaf> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(match T::read(&value) {
            Ok(valid) => Self::Valid(valid),
            Err(flaw) => Self::Invalid(value, flaw),
        })
    }
}

impl<T: Leaf> Serialize for Given<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Valid(value) => value.write().serialize(serializer),
            Self::Invalid(value, _) => value.serialize(serializer),
        }
    }
}

/// A percentage of a limit, 1 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u16);

/// How long an unsettled hold stands. Apart from [`Span`] because it is written in seconds (`60s`),
/// as the contract shows it, and windows are written in ISO 8601.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTtl(pub Span);

impl Leaf for Units {
    fn read(value: &Value) -> Result<Self, Flaw> {
        let detail = || format!("an integer from 0 to {UNITS_MAX}");
        match value {
            Value::Number(number) => number
                .as_u64()
                .and_then(Self::new)
                .ok_or_else(|| Flaw::new("out_of_range", detail())),
            _ => Err(Flaw::new("invalid_type", detail())),
        }
    }

    fn write(&self) -> Value {
        self.get().into()
    }
}

/// A limit: `null` is unlimited.
impl Leaf for Option<Units> {
    fn read(value: &Value) -> Result<Self, Flaw> {
        if value.is_null() {
            return Ok(None);
        }
        let flaw = |flaw: Flaw| Flaw::new(flaw.code, format!("{}, or null", flaw.detail));
        Units::read(value).map(Some).map_err(flaw)
    }

    fn write(&self) -> Value {
        self.map_or(Value::Null, |units| units.write())
    }
}

impl Leaf for Percent {
    fn read(value: &Value) -> Result<Self, Flaw> {
        let code = if value.is_number() { "out_of_range" } else { "invalid_type" };
        value
            .as_u64()
            .and_then(|percent| u16::try_from(percent).ok())
            .filter(|percent| (1..=1000).contains(percent))
            .map(Self)
            .ok_or(Flaw::new(code, "an integer from 1 to 1000"))
    }

    fn write(&self) -> Value {
        self.0.into()
    }
}

/// Money, never negative.
impl Leaf for Decimal {
    fn read(value: &Value) -> Result<Self, Flaw> {
        let range = || Flaw::new("out_of_range", format!("an amount from 0 to {MONEY_MAX}"));
        let amount = match value {
            Value::String(text) => read_money(text)?,
            Value::Number(number) if number.is_u64() => {
                number.as_u64().map(Self::from).ok_or_else(range)?
            }
            Value::Number(number) if number.is_i64() => return Err(range()),
            Value::Number(_) => {
                let detail = "a decimal string such as \"0.01\": a JSON fraction loses digits";
                return Err(Flaw::new("invalid_money", detail));
            }
            _ => return Err(Flaw::new("invalid_type", "a decimal string such as \"0.01\"")),
        };
        let in_range = amount.is_zero() || !amount.is_sign_negative();
        if in_range && amount <= Self::from(MONEY_MAX) { Ok(amount) } else { Err(range()) }
    }

    fn write(&self) -> Value {
        self.to_string().into()
    }
}

/// Narrower than the decimal library, which also takes `1_000`, `.5` and `+1`.
fn read_money(text: &str) -> Result<Decimal, Flaw> {
    let malformed = || Flaw::new("invalid_money", "a decimal string such as \"0.01\"");
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, places) = unsigned.split_once('.').map_or((unsigned, None), |(w, p)| (w, Some(p)));
    if !digits(whole) || !places.is_none_or(digits) {
        return Err(malformed());
    }
    if places.is_some_and(|places| places.len() > MONEY_PLACES_MAX) {
        let detail = format!("at most {MONEY_PLACES_MAX} decimal places");
        return Err(Flaw::new("invalid_money", detail));
    }
    let out_of_range = |_| Flaw::new("out_of_range", format!("an amount from 0 to {MONEY_MAX}"));
    Decimal::from_str_exact(text).map_err(out_of_range)
}

fn text_of<'a>(value: &'a Value, detail: &'static str) -> Result<&'a str, Flaw> {
    value.as_str().ok_or_else(|| Flaw::new("invalid_type", detail))
}

const DURATION: &str = "a duration such as \"P1M\", \"PT1S\" or \"60s\"";

impl Leaf for Every {
    fn read(value: &Value) -> Result<Self, Flaw> {
        let text = text_of(value, DURATION)?;
        Self::parse(text).map_err(|error| Flaw::new("invalid_duration", error.to_string()))
    }

    fn write(&self) -> Value {
        self.to_string().into()
    }
}

impl Leaf for Span {
    fn read(value: &Value) -> Result<Self, Flaw> {
        let text = text_of(value, DURATION)?;
        parse_span(text).map_err(|error| Flaw::new("invalid_duration", error.to_string()))
    }

    fn write(&self) -> Value {
        span_text(*self).into()
    }
}

impl Leaf for HoldTtl {
    fn read(value: &Value) -> Result<Self, Flaw> {
        Span::read(value).map(Self)
    }

    fn write(&self) -> Value {
        format!("{}s", seconds_text(self.0.get())).into()
    }
}

impl Leaf for Anchor {
    fn read(value: &Value) -> Result<Self, Flaw> {
        let text = text_of(value, "\"calendar\", \"subscription\" or an RFC 3339 timestamp")?;
        Self::parse(text).map_err(|error| Flaw::new("invalid_anchor", error.to_string()))
    }

    fn write(&self) -> Value {
        self.to_string().into()
    }
}

/// A span in ISO 8601, in hours at the most: a day has no fixed length there.
pub(super) fn span_text(span: Span) -> String {
    let (hour, minute) = (3600 * MICROS_PER_SECOND, 60 * MICROS_PER_SECOND);
    let (hours, rest) = (span.get() / hour, span.get() % hour);
    let (minutes, rest) = (rest / minute, rest % minute);
    let part = |count: i64, unit: char| match count {
        0 => String::new(),
        _ => format!("{count}{unit}"),
    };
    let seconds = match rest {
        0 if hours > 0 || minutes > 0 => String::new(),
        _ => format!("{}S", seconds_text(rest)),
    };
    format!("PT{}{}{seconds}", part(hours, 'H'), part(minutes, 'M'))
}

fn seconds_text(micros: i64) -> String {
    let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    match fraction {
        0 => seconds.to_string(),
        _ => format!("{seconds}.{fraction:06}").trim_end_matches('0').to_owned(),
    }
}
