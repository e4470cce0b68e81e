//! Rate limits: three algorithms, constant memory, exact integer arithmetic.
//!
//! Role: decides whether `cost` units pass now, in two phases so that several limits are decided
//! together: [`RateState::look`] at all of them, and only when all fit [`RateState::charge`] each.
//! Pure; callers: [`crate::plan`] holds a [`RateSpec`], [`crate::meter`] a [`RateState`] per limit.
//!
//! ```text
//!            look                  every limit fits
//!   check ─────────▶ all limits ────────────────────▶ charge all
//!                        │ one does not
//!                        └──────────────────────────▶ refuse, nothing has changed
//! ```
//!
//! # What each algorithm admits
//! No counter of constant size can hold every window of real time to `limit`. The table says what
//! is admitted at worst in *any* half-open stretch of real time as long as the window, `L` being
//! the limit, `B` the burst and `W` the window in microseconds, time's grain. Each bound is exact:
//! [`RateSpec::admits_max`] computes it, and a test reaches it.
//!
//! | algorithm | at worst | when |
//! |---|---|---|
//! | token bucket | `B + ⌊L·(W−1)/W⌋`, under `B + L` | a full bucket is emptied, then drained as it refills |
//! | sliding window | `L + ⌊L·(W−2)/W⌋`, under `2·L` | all of a window in its last microsecond, then as fast as its weight fades |
//! | fixed window | `2·L` | one window at its end, the next at its start |
//!
//! The sliding window is a two-window weighted counter, not a log: it takes the units of the window
//! before as evenly spread. For even traffic it is exact, for a hostile one nearly as loose as the
//! fixed window; what it does prevent is getting those `2·L` again in every window. A limit that
//! must hold in every stretch of real time is a token bucket with `L + B` chosen to add up to it.
//!
//! # Time
//! Windows are aligned to the Unix epoch. A clock that steps back gives nothing: a state works with
//! the latest time it was charged at. A limit of one unit in 366 days and one of 2^53 − 1 units a
//! millisecond are equally exact, because nothing is ever stored as a rounded rate.

mod fixed_window;
mod sliding_window;
mod token_bucket;

use thiserror::Error;

use crate::units::{Micros, Span, Units};
use fixed_window::FixedWindow;
use sliding_window::SlidingWindow;
use token_bucket::TokenBucket;

/// Shortest window, 1 ms. Shorter ones would measure the network's jitter, not the client.
pub const WINDOW_MIN: Span = Span::from_micros(1_000);
/// Longest window, 366 days. Longer ones are quotas, which survive a node; and units times
/// microseconds stay below 2^98, so that no sum here can leave a `u128`.
pub const WINDOW_MAX: Span = Span::from_seconds(366 * 86_400);

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `burst` units at once, refilled evenly with `limit` per window (GCRA).
    TokenBucket,
    /// The units of this window plus those of the one before, weighted by how much of it is still
    /// within reach.
    SlidingWindow,
    /// The units of this window.
    FixedWindow,
}

/// Why a rate limit is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RateSpecError {
    /// A limit of zero would be a way to switch a plan off.
    #[error("a rate limit lets at least one unit pass")]
    LimitZero,
    /// Nothing could ever pass.
    #[error("a burst is at least one unit")]
    BurstZero,
    /// Windows know no burst.
    #[error("only a token bucket has a burst")]
    BurstNotAllowed,
    /// Below [`WINDOW_MIN`] or above [`WINDOW_MAX`].
    #[error("a window lasts from one millisecond to 366 days")]
    WindowOutOfRange,
}

/// A rate limit, valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateSpec {
    algorithm: Algorithm,
    limit: Units,
    window: Span,
    burst: Units,
}

impl RateSpec {
    /// `burst` is for the token bucket alone and defaults to `limit` there.
    pub fn new(
        algorithm: Algorithm,
        limit: Units,
        window: Span,
        burst: Option<Units>,
    ) -> Result<Self, RateSpecError> {
        if limit.is_zero() {
            return Err(RateSpecError::LimitZero);
        }
        if window < WINDOW_MIN || window > WINDOW_MAX {
            return Err(RateSpecError::WindowOutOfRange);
        }
        match burst {
            Some(_) if algorithm != Algorithm::TokenBucket => Err(RateSpecError::BurstNotAllowed),
            Some(burst) if burst.is_zero() => Err(RateSpecError::BurstZero),
            _ => Ok(Self { algorithm, limit, window, burst: burst.unwrap_or(limit) }),
        }
    }

    /// How it counts.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Units per window.
    pub const fn limit(&self) -> Units {
        self.limit
    }

    /// Length of the window.
    pub const fn window(&self) -> Span {
        self.window
    }

    /// The most that can pass at one moment: the bucket's burst, or the limit of a window. A cost
    /// above it never fits.
    pub const fn burst(&self) -> Units {
        self.burst
    }

    /// The most that any half-open stretch of real time as long as the window can see admitted.
    pub fn admits_max(&self) -> u64 {
        let share = |micros: u64| {
            let units = u128::from(self.limit.get()) * u128::from(micros)
                / u128::from(self.window_micros());
            u64::try_from(units).unwrap_or(u64::MAX)
        };
        match self.algorithm {
            Algorithm::TokenBucket => self.burst.get() + share(self.window_micros() - 1),
            Algorithm::SlidingWindow => self.limit.get() + share(self.window_micros() - 2),
            Algorithm::FixedWindow => 2 * self.limit.get(),
        }
    }

    const fn window_micros(&self) -> u64 {
        self.window.get().unsigned_abs()
    }
}

/// What one limit says to one cost. Everything is as it stands *before* the cost is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether the cost may be charged now.
    pub fits: bool,
    /// Units that could pass now; never above the burst (the limit, for windows).
    pub remaining: u64,
    /// How long until the same cost fits if nothing else is charged, to the microsecond: zero when
    /// it fits now, `None` when it never will.
    pub retry_after: Option<Span>,
    /// Token bucket, sliding window: when all of it is available again, now if it already is.
    /// Fixed window: the end of the window.
    pub reset_at: Micros,
}

/// What one limit remembers: 32 bytes, whatever the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateState(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TokenBucket(TokenBucket),
    SlidingWindow(SlidingWindow),
    FixedWindow(FixedWindow),
}

const _: () = assert!(size_of::<RateState>() <= 32, "one per limit of every resident subscription");

/// A [`RateState`] as plain numbers, for a codec elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateParts {
    /// At `seen_micros`, `missing` units and `fraction` / window of a unit were missing from full.
    TokenBucket {
        /// Latest charge, microseconds since the epoch.
        seen_micros: i64,
        /// Whole units missing.
        missing: u64,
        /// Further missing, in units divided by the window's microseconds.
        fraction: u64,
    },
    /// Units of the window that `seen_micros` lies in, and of the one before.
    SlidingWindow {
        /// Latest charge, microseconds since the epoch.
        seen_micros: i64,
        /// Units in the window before.
        previous: u64,
        /// Units in the window.
        current: u64,
    },
    /// Units of the window that `seen_micros` lies in.
    FixedWindow {
        /// Latest charge, microseconds since the epoch.
        seen_micros: i64,
        /// Units in the window.
        used: u64,
    },
}

impl RateState {
    /// Nothing used yet.
    pub const fn new(spec: &RateSpec) -> Self {
        Self::with_consumed(spec, Micros::from_micros(i64::MIN), 0)
    }

    /// Whether `cost` fits at `now`. Changes nothing; a cost of zero always fits.
    pub fn look(&self, spec: &RateSpec, now: Micros, cost: Units) -> Look {
        let (remaining, reset_at) = match &self.0 {
            Kind::TokenBucket(bucket) => bucket.standing(spec, now),
            Kind::SlidingWindow(window) => window.standing(spec, now),
            Kind::FixedWindow(window) => window.standing(spec, now),
        };
        let fits = cost.get() <= remaining;
        let retry_after = if fits {
            Some(Span::ZERO)
        } else if cost > spec.burst {
            None
        } else {
            let fits_at = match &self.0 {
                Kind::TokenBucket(bucket) => bucket.fits_at(spec, now, cost.get()),
                Kind::SlidingWindow(window) => window.fits_at(spec, now, cost.get()),
                Kind::FixedWindow(window) => window.ends_at(spec, now),
            };
            Some(fits_at.since(now))
        };
        debug_assert!(remaining <= spec.burst.get(), "{remaining} remaining of {spec:?}");
        Look { fits, remaining, retry_after, reset_at }
    }

    /// Takes `cost` units that [`look`](Self::look) found to fit at this same `now`.
    pub fn charge(&mut self, spec: &RateSpec, now: Micros, cost: Units) {
        debug_assert!(self.look(spec, now, cost).fits, "{cost} charged without fitting {spec:?}");
        if cost.is_zero() {
            return;
        }
        match &mut self.0 {
            Kind::TokenBucket(bucket) => bucket.charge(spec, now, cost.get()),
            Kind::SlidingWindow(window) => window.charge(spec, now, cost.get()),
            Kind::FixedWindow(window) => window.charge(spec, now, cost.get()),
        }
    }

    /// Goes on under `new` with what was consumed under `old`.
    ///
    /// - Same algorithm and window: the counters stay as they are, so a higher limit frees units at
    ///   once and taking it back takes them back. A bucket whose burst fell below what is missing
    ///   is empty, not in debt, or it could be closed for days.
    /// - Otherwise the units that are not available at `now`, rounded up and at most all of the new
    ///   burst, count as charged at `now`.
    ///
    /// Either way no more is available afterwards than `new` minus what was consumed.
    pub fn adapt(&mut self, old: &RateSpec, new: &RateSpec, now: Micros) {
        if old.algorithm == new.algorithm && old.window == new.window {
            if let Kind::TokenBucket(bucket) = &mut self.0 {
                bucket.adapt(old, new, now);
            }
            return;
        }
        let consumed = match &self.0 {
            Kind::TokenBucket(bucket) => bucket.consumed(old, now),
            Kind::SlidingWindow(window) => window.consumed(old, now),
            Kind::FixedWindow(window) => window.consumed(old, now),
        };
        let now = now.max(self.seen());
        *self = Self::with_consumed(new, now, consumed.min(new.burst.get()));
    }

    /// The plain numbers.
    pub const fn to_parts(&self) -> RateParts {
        match self.0 {
            Kind::TokenBucket(TokenBucket { seen, missing, fraction }) => {
                RateParts::TokenBucket { seen_micros: seen.get(), missing, fraction }
            }
            Kind::SlidingWindow(SlidingWindow { seen, previous, current }) => {
                RateParts::SlidingWindow { seen_micros: seen.get(), previous, current }
            }
            Kind::FixedWindow(FixedWindow { seen, used }) => {
                RateParts::FixedWindow { seen_micros: seen.get(), used }
            }
        }
    }

    /// Back from plain numbers, under the spec they were taken under. `None` when they are of
    /// another algorithm. Numbers out of range (a damaged snapshot) never give more than they
    /// should and never panic: a bucket is empty at worst, a window used up.
    pub fn from_parts(spec: &RateSpec, parts: RateParts) -> Option<Self> {
        match (spec.algorithm, parts) {
            (Algorithm::TokenBucket, RateParts::TokenBucket { seen_micros, missing, fraction }) => {
                let seen = Micros::from_micros(seen_micros);
                Some(Self(Kind::TokenBucket(TokenBucket::clamped(spec, seen, missing, fraction))))
            }
            (
                Algorithm::SlidingWindow,
                RateParts::SlidingWindow { seen_micros, previous, current },
            ) => {
                let seen = Micros::from_micros(seen_micros);
                Some(Self(Kind::SlidingWindow(SlidingWindow { seen, previous, current })))
            }
            (Algorithm::FixedWindow, RateParts::FixedWindow { seen_micros, used }) => {
                let seen = Micros::from_micros(seen_micros);
                Some(Self(Kind::FixedWindow(FixedWindow { seen, used })))
            }
            _ => None,
        }
    }

    const fn with_consumed(spec: &RateSpec, seen: Micros, consumed: u64) -> Self {
        Self(match spec.algorithm {
            Algorithm::TokenBucket => {
                Kind::TokenBucket(TokenBucket { seen, missing: consumed, fraction: 0 })
            }
            Algorithm::SlidingWindow => {
                Kind::SlidingWindow(SlidingWindow { seen, previous: 0, current: consumed })
            }
            Algorithm::FixedWindow => Kind::FixedWindow(FixedWindow { seen, used: consumed }),
        })
    }

    const fn seen(&self) -> Micros {
        match &self.0 {
            Kind::TokenBucket(bucket) => bucket.seen,
            Kind::SlidingWindow(window) => window.seen,
            Kind::FixedWindow(window) => window.seen,
        }
    }
}

/// `⌈dividend / divisor⌉`. Sums nearly always fit 64 bits, and dividing those costs far less.
fn div_ceil(dividend: u128, divisor: u64) -> u128 {
    match u64::try_from(dividend) {
        Ok(dividend) => u128::from(dividend.div_ceil(divisor)),
        Err(_) => dividend.div_ceil(u128::from(divisor)),
    }
}

/// `start + micros`, held at the end of time: a limit may take longer to refill than time lasts.
fn later(start: i128, micros: u128) -> Micros {
    let at = start.saturating_add(i128::try_from(micros).unwrap_or(i128::MAX));
    Micros::from_micros(i64::try_from(at).unwrap_or(if at < 0 { i64::MIN } else { i64::MAX }))
}
