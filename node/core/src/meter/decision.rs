//! What a check asks and what it is told.
//!
//! Role: plain values that cross the actor's mailbox. Counts and times only; names are looked up in
//! the [`Plan`] that the decision was made under.

use std::ops::Deref;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::plan::Plan;
use crate::terms::Terms;
use crate::units::{Micros, ReservationId, Span, Units};

/// A question: may this pass?
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Units on the meter `requests`; `None` = the plan's cost for method and path.
    pub cost: Option<Units>,
    /// Amounts on other meters.
    pub others: SmallVec<[(Box<str>, Units); 1]>,
    /// HTTP method, when known.
    pub method: Option<Box<str>>,
    /// Path, when known.
    pub path: Option<Box<str>>,
    /// Makes a repeat safe: the same id within ten seconds gets the same decision.
    pub request_id: Option<u128>,
    /// Hold by name: settled or released by this id.
    pub reserve: Option<ReservationId>,
    /// Admit past the escrow, and say so: the store is away and the plan fails open.
    pub degraded: bool,
}

impl Check {
    /// Whether it says itself that it only looks, whatever the plan.
    pub fn asks_for_nothing(&self) -> bool {
        self.cost.is_some_and(Units::is_zero)
            && self.others.iter().all(|(_, amount)| amount.is_zero())
    }
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It passes.
    Ok,
    /// A quota is used up.
    QuotaExceeded,
    /// A rate limit is.
    RateLimited,
    /// Nobody has this key.
    UnknownKey,
    /// The key was taken back.
    KeyRevoked,
    /// Suspended by an operator.
    Suspended,
    /// Begins later.
    NotStarted,
    /// Is over.
    Ended,
    /// Too many reservations are open.
    TooManyReservations,
}

impl Reason {
    /// The contract's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimited => "rate_limited",
            Self::UnknownKey => "unknown_key",
            Self::KeyRevoked => "key_revoked",
            Self::Suspended => "subscription_suspended",
            Self::NotStarted => "subscription_not_started",
            Self::Ended => "subscription_ended",
            Self::TooManyReservations => "too_many_reservations",
        }
    }
}

/// How firmly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As the plan says.
    Enforced,
    /// The plan only watches.
    Shadow,
    /// The store is away; the plan's fail policy decided.
    Degraded,
}

impl Mode {
    /// The contract's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Shadow => "shadow",
            Self::Degraded => "degraded",
        }
    }
}

/// A quota as a decision leaves it, in the order of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaView {
    /// Limit; `None` = unlimited.
    pub limit: Option<Units>,
    /// Charged.
    pub used: Units,
    /// Held.
    pub pending: Units,
    /// Start of the period.
    pub period_start: Micros,
    /// Its end.
    pub reset_at: Micros,
    /// Where overage starts; `None` = nowhere. After a change of terms what was over under the earlier
    /// ones stays over, so this may be less than those in force say.
    pub overage_from: Option<Units>,
    /// Up to here nothing is overage, wherever it starts by the terms in force: it was used freely
    /// before the start came down to below it.
    pub overage_floor: Units,
}

impl QuotaView {
    /// Units beyond what is included, as rating counts them.
    pub fn overage_units(&self) -> Units {
        let beyond = |from: Units| self.used.saturating_sub(from.max(self.overage_floor));
        self.overage_from.map_or(Units::ZERO, beyond)
    }

    /// `max(0, limit - used - pending)`; `None` = unlimited.
    pub fn remaining(&self) -> Option<Units> {
        self.limit.map(|limit| limit.saturating_sub(self.used).saturating_sub(self.pending))
    }
}

/// A rate limit as a decision leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateView {
    /// Which of the plan's rate limits.
    pub index: u16,
    /// What is left in the window.
    pub remaining: Units,
    /// When it is whole again.
    pub reset_at: Micros,
}

/// Which quotas and rate limits refused: one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Violated {
    /// By position in the plan's quotas.
    pub quotas: u16,
    /// By position in the plan's rate limits.
    pub rates: u32,
}

impl Violated {
    /// Whether none did.
    pub const fn is_empty(self) -> bool {
        self.quotas == 0 && self.rates == 0
    }
}

/// The answer to a [`Check`]. A refusal is a value, never an error.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether the request may pass.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// How firmly.
    pub mode: Mode,
    /// Whether it is charged beyond the limit.
    pub overage: bool,
    /// What refused.
    pub violated: Violated,
    /// How long to wait before it could pass; zero when it did.
    pub retry_after: Span,
    /// The name of its hold.
    pub reservation: Option<ReservationId>,
    /// Every quota.
    pub quotas: SmallVec<[QuotaView; 2]>,
    /// Every rate limit that the request matches.
    pub rates: SmallVec<[RateView; 2]>,
    /// The plan it was made under, for the names of what it counts.
    pub plan: PlanOf,
}

/// The plan that a decision was made under.
///
/// A meter gives its own terms: a thousand subscriptions share one plan, and a count of references that
/// all of them share would bounce between cores at every check.
#[derive(Clone, Debug)]
pub enum PlanOf {
    /// That of the subscription's terms.
    Terms(Arc<Terms>),
    /// Looked up, for a decision that another node made.
    Plan(Arc<Plan>),
}

impl Deref for PlanOf {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        match self {
            Self::Terms(terms) => &terms.plan,
            Self::Plan(plan) => plan,
        }
    }
}
