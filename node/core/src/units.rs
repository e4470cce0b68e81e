//! The nouns everything else is counted in: units, time, ids, shards, epochs.
//!
//! Role: newtypes with their unit in the name, so that a shard is never passed for an epoch and
//! microseconds never for seconds. Valid by construction where a range exists. Anyone may use them.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Largest count the JSON edge carries without loss in a double: 2^53 - 1.
pub const UNITS_MAX: u64 = (1 << 53) - 1;

/// A count of metered units, `0 ..= 2^53 - 1`.
///
/// The upper bound is the contract's: JSON numbers above it lose precision in JavaScript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(u64);

impl Units {
    /// No units.
    pub const ZERO: Self = Self(0);
    /// One unit, the default cost of a check.
    pub const ONE: Self = Self(1);

    /// `None` when `count` is above [`UNITS_MAX`].
    pub const fn new(count: u64) -> Option<Self> {
        if count > UNITS_MAX { None } else { Some(Self(count)) }
    }

    /// The largest count not above [`UNITS_MAX`].
    pub const fn clamped(count: u64) -> Self {
        if count > UNITS_MAX { Self(UNITS_MAX) } else { Self(count) }
    }

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether there are none.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Sum, held at [`UNITS_MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self::clamped(self.0.saturating_add(other.0))
    }

    /// Difference, held at zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment: microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(i64);

/// Microseconds in one second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

impl Micros {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// A moment after every other.
    pub const MAX: Self = Self(i64::MAX);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds since the Unix epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since the Unix epoch.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Later by `span`, held at the end of time.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// Earlier by `span`, held at the beginning of time.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later, so that a clock that steps
    /// back gives nothing away.
    pub const fn since(self, earlier: Self) -> Span {
        let span = self.0.saturating_sub(earlier.0);
        if span < 0 { Span(0) } else { Span(span) }
    }
}

/// A length of time in microseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// From microseconds; negative becomes zero.
    pub const fn from_micros(micros: i64) -> Self {
        if micros < 0 { Self(0) } else { Self(micros) }
    }

    /// From whole seconds; negative becomes zero.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self::from_micros(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded up, as `Retry-After` wants them.
    pub const fn seconds_ceil(self) -> u64 {
        self.0.unsigned_abs().div_ceil(MICROS_PER_SECOND.unsigned_abs())
    }
}

impl From<std::time::Duration> for Span {
    /// One that is too long for it is as long as it can be.
    fn from(duration: std::time::Duration) -> Self {
        Self(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Identity of a subscription: a UUIDv7, made outside the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(Uuid);

/// Identity of a plan, over all its versions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId(Uuid);

/// Identity of a named reservation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(Uuid);

macro_rules! uuid_newtype {
    ($name:ident) => {
        impl $name {
            /// Wraps a UUID made elsewhere.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.as_hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_newtype!(SubscriptionId);
uuid_newtype!(PlanId);
uuid_newtype!(ReservationId);

/// Number of a shard, `0 .. shard count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Fencing token of a shard: grows by one at each change of owner, and whenever an owner must
/// make sure that nothing older of its own can still commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Position of a row in its shard's ledger, from 1, without gaps in what is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
