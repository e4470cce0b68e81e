//! Looking without asking: where everything stands.

use smallvec::SmallVec;

use super::Meter;
use super::decision::{Decision, Mode, PlanOf, RateView, Reason, Violated};
use crate::units::{Micros, ReservationId, Span, Units};

impl Meter {
    /// Every quota and every rate limit as it stands, in the shape of a decision that asks for
    /// nothing. Apply a [`super::Command::Tick`] first, or a period that has ended still shows.
    pub fn standing_view(&self, now: Micros) -> Decision {
        let reason = self.standing(now);
        let rates: SmallVec<[RateView; 2]> = self
            .terms
            .plan
            .rates
            .iter()
            .enumerate()
            .map(|(index, rate)| {
                let look = self.rates[index].look(&rate.spec, now, Units::ZERO);
                RateView {
                    index: u16::try_from(index).unwrap_or(u16::MAX),
                    remaining: Units::clamped(look.remaining),
                    reset_at: look.reset_at,
                }
            })
            .collect();
        Decision {
            allowed: reason.is_none(),
            reason: reason.unwrap_or(Reason::Ok),
            mode: if self.terms.plan.shadow { Mode::Shadow } else { Mode::Enforced },
            overage: self.quotas().iter().any(|q| q.limit.is_some_and(|limit| q.used > limit)),
            violated: Violated::default(),
            retry_after: Span::ZERO,
            reservation: None,
            quotas: self.quotas(),
            rates,
            plan: PlanOf::Terms(self.terms.clone()),
        }
    }

    /// What an open reservation holds, by name of the quota.
    pub fn reservation(&self, id: ReservationId) -> Option<impl Iterator<Item = (&str, Units)>> {
        let named = self.named.find(id)?;
        let quotas = self.terms.plan.quotas.iter().zip(&named.amounts);
        Some(quotas.map(|(quota, amount)| (&*quota.name, *amount)))
    }
}
