//! Charging what grew, once; correcting what is closed, by name.
//!
//! Role: the arithmetic of the overage job. It never asks what happened since the last run, only what
//! the amount is now and what was charged: so it may run at any time, twice, or on two nodes. Each
//! charge has a number, and its key is made of that number and not of the amount: of two runs that
//! read the same charges only one can write the next, whatever each of them saw.

use super::money::Amount;
use crate::calendar::Period;
use crate::units::{SubscriptionId, Units};

/// What has been charged for one period of one quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// Number of charges.
    pub count: u32,
    /// Their sum.
    pub amount: Amount,
}

/// The next charge of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Which one of its period it is, from 1.
    pub number: u32,
    /// What it adds; negative when a lower price holds for all units now (volume), or units were
    /// taken back. Never zero.
    pub amount: Amount,
}

impl Charged {
    /// What is to be charged for the amount to be `now`; `None` when it is that already.
    pub fn next(self, now: Amount) -> Option<Charge> {
        let amount = now - self.amount;
        (!amount.is_zero()).then(|| Charge { number: self.count.saturating_add(1), amount })
    }

    /// With this charge written.
    #[must_use]
    pub fn with(self, charge: Charge) -> Self {
        debug_assert_eq!(charge.number, self.count.saturating_add(1), "a charge was left out");
        Self { count: charge.number, amount: self.amount + charge.amount }
    }
}

impl Charge {
    /// Names this charge wherever it is computed; writing it a second time must be refused.
    pub fn key(&self, subscription: SubscriptionId, quota: &str, period: &Period) -> String {
        let (start, number) = (period.start.get(), self.number);
        format!("overage/{subscription}/{quota}/{start}/{number}")
    }
}

/// What a closed period stands at: its snapshot and all corrections since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// Units counted.
    pub used: Units,
    /// What they cost.
    pub amount: Amount,
}

/// A line on the open period for something that belongs to a closed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The period it corrects.
    pub corrects: Period,
    /// Units more, or fewer, than were booked.
    pub units: i64,
    /// What that changes; zero when those units cost nothing.
    pub amount: Amount,
}

/// What brings a closed period from what is `booked` to what it is `now`; `None` when it is that.
pub fn correction(corrects: Period, booked: Booked, now: Booked) -> Option<Correction> {
    if booked == now {
        return None;
    }
    let signed = |units: Units| i64::try_from(units.get()).unwrap_or(i64::MAX);
    let units = signed(now.used) - signed(booked.used);
    Some(Correction { corrects, units, amount: now.amount - booked.amount })
}
