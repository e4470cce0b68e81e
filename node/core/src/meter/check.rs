//! Deciding: look at everything, then charge everything or nothing.

use smallvec::SmallVec;

use super::decision::{Check, Decision, Mode, PlanOf, RateView, Reason, Violated};
use super::named::Named;
use super::recent::Verdict;
use super::{Answer, Meter, Outcome, Wants};
use crate::holds;
use crate::invariants::Invariant;
use crate::plan::{ChargeOn, Plan, REQUESTS};
use crate::quota::Room;
use crate::rate::Look;
use crate::units::{Micros, Span, Units};

/// What a check asks for, once the plan has had its say.
struct Asked<'a> {
    check: &'a Check,
    requests: Units,
    /// It asks for nothing and moves nothing.
    peek: bool,
}

/// Where everything stood before anything was charged.
#[derive(Default)]
struct Seen {
    violated: Violated,
    beyond_escrow: bool,
    retry_after: Span,
    rates: SmallVec<[Rate; 2]>,
}

/// One rate limit that the request matches.
struct Rate {
    index: u16,
    amount: Units,
    look: Look,
}

/// The amount that a request names for a meter: every request is one for `requests`, and what it
/// names for that meter beside its cost comes on top.
pub(super) fn amount_for(
    meter: &str,
    requests: Units,
    others: &[(Box<str>, Units)],
) -> Option<Units> {
    if meter == REQUESTS {
        let more = others.iter().filter(|(name, _)| **name == *REQUESTS);
        return Some(more.fold(requests, |sum, (_, amount)| sum.saturating_add(*amount)));
    }
    others.iter().find(|(name, _)| **name == *meter).map(|(_, amount)| *amount)
}

impl<'a> Asked<'a> {
    fn new(check: &'a Check, plan: &Plan) -> Self {
        let requests =
            check.cost.unwrap_or_else(|| plan.cost(check.method.as_deref(), check.path.as_deref()));
        let peek = requests.is_zero() && check.others.iter().all(|(_, amount)| amount.is_zero());
        Self { check, requests, peek }
    }

    fn named(&self, meter: &str) -> Option<Units> {
        amount_for(meter, self.requests, &self.check.others)
    }

    fn amount(&self, meter: &str) -> Units {
        self.named(meter).unwrap_or_default()
    }
}

impl Meter {
    pub(super) fn check(&mut self, now: Micros, check: &Check) -> Outcome {
        if let Some(id) = check.request_id
            && let Some(verdict) = self.recent.find(now, id)
        {
            // The old verdict beside the numbers of now.
            return self.told(verdict, self.rate_views(now, check), Wants::Nothing);
        }
        let asked = Asked::new(check, &self.terms.plan);
        let reserves = check.reserve.is_some() && !asked.peek;
        let too_many = (reserves && self.named.is_full()).then_some(Reason::TooManyReservations);
        if let Some(reason) = self.standing(now).or(too_many) {
            let verdict = Verdict::refused(reason);
            return self.told(verdict, self.rate_views(now, check), Wants::Nothing);
        }
        let mut seen = Seen::default();
        self.look(now, &asked, &mut seen);
        let shadow = self.terms.plan.shadow;
        if !seen.violated.is_empty() && !shadow {
            let no_quota = seen.violated.quotas == 0;
            let reason = if no_quota { Reason::RateLimited } else { Reason::QuotaExceeded };
            let (violated, retry_after) = (seen.violated, seen.retry_after);
            let verdict = Verdict { violated, retry_after, ..Verdict::refused(reason) };
            self.remember(now, &asked, verdict);
            return self.told(verdict, seen.views(), Wants::Nothing);
        }
        if seen.beyond_escrow && !shadow && !check.degraded {
            self.wait(&asked);
            return Outcome { answer: Answer::Waits, wants: Wants::CheckpointNow };
        }
        self.admit(now, &asked, &mut seen)
    }

    /// Why no check can pass at all.
    pub(super) fn standing(&self, now: Micros) -> Option<Reason> {
        if self.suspended {
            Some(Reason::Suspended)
        } else if now < self.terms.started_at {
            Some(Reason::NotStarted)
        } else if self.terms.ends_at.is_some_and(|end| now >= end) {
            Some(Reason::Ended)
        } else {
            None
        }
    }

    /// Whether anything but time bounds what passes: then two owners could let through too much.
    pub fn is_bounded(&self) -> bool {
        !self.terms.plan.shadow && self.terms.quotas().iter().any(|quota| quota.cap.is_some())
    }

    /// Looks at every quota and every matching rate limit; changes nothing.
    fn look(&self, now: Micros, asked: &Asked<'_>, seen: &mut Seen) {
        for (index, counter) in self.counters.iter().enumerate() {
            let named = asked.named(&self.terms.plan.quotas[index].meter);
            let unsaid = named.is_none() && !asked.peek;
            match counter.room(&self.terms.quotas()[index], named.unwrap_or_default(), unsaid) {
                Room::Fits => {}
                Room::BeyondEscrow => seen.beyond_escrow = true,
                Room::Full => {
                    seen.violated.quotas |= 1 << index;
                    seen.retry_after = seen.retry_after.max(counter.period.end.since(now));
                }
            }
        }
        for ((index, rate), state) in (0..).zip(&self.terms.plan.rates).zip(&self.rates) {
            let (method, path) = (asked.check.method.as_deref(), asked.check.path.as_deref());
            if !rate.pattern.matches(method, path) {
                continue;
            }
            let amount = asked.amount(&rate.meter);
            let look = state.look(&rate.spec, now, amount);
            if !look.fits {
                seen.violated.rates |= 1 << index;
                // A cost that can never fit has no time to wait for: say the end of the window.
                let wait = look.retry_after.unwrap_or_else(|| look.reset_at.since(now));
                seen.retry_after = seen.retry_after.max(wait);
            }
            seen.rates.push(Rate { index, amount, look });
        }
    }

    /// The next offer of escrow should have room for this one, in every quota: an offer may also be
    /// smaller than what was confirmed, and then the check would wait for one quota after the other.
    fn wait(&mut self, asked: &Asked<'_>) {
        for (counter, quota) in self.counters.iter_mut().zip(&self.terms.plan.quotas) {
            counter.escrow.want(asked.amount(&quota.meter));
        }
    }

    /// Charges everything, after everything was looked at.
    fn admit(&mut self, now: Micros, asked: &Asked<'_>, seen: &mut Seen) -> Outcome {
        let (mut wants, overage) = self.charge_quotas(now, asked);
        self.charge_rates(now, seen);
        if self.terms.plan.charge_on == ChargeOn::Check {
            self.warn(now);
        }
        let reservation = asked.check.reserve.filter(|_| !asked.peek);
        if let Some(id) = reservation {
            let amounts = self.terms.plan.quotas.iter().map(|quota| asked.amount(&quota.meter));
            let expires_at = now.plus(self.terms.plan.hold_ttl);
            self.named.open(Named { id, expires_at, amounts: amounts.collect() });
            wants = Wants::CheckpointNow;
        }
        let mode = if self.terms.plan.shadow {
            Mode::Shadow
        } else if seen.beyond_escrow || asked.check.degraded {
            Mode::Degraded
        } else {
            Mode::Enforced
        };
        let verdict = Verdict {
            allowed: true,
            reason: Reason::Ok,
            mode,
            overage,
            violated: seen.violated,
            retry_after: Span::ZERO,
            reservation,
        };
        self.remember(now, asked, verdict);
        self.told(verdict, seen.views(), wants)
    }

    /// What should be persisted, and whether anything lies beyond its limit.
    fn charge_quotas(&mut self, now: Micros, asked: &Asked<'_>) -> (Wants, bool) {
        let plan = &*self.terms.plan;
        let on_check = plan.charge_on == ChargeOn::Check && !asked.peek;
        let mut wants = if on_check { Wants::Checkpoint } else { Wants::Nothing };
        let mut overage = false;
        let quotas = plan.quotas.iter().zip(self.terms.quotas());
        for (counter, (quota, terms)) in self.counters.iter_mut().zip(quotas) {
            let amount = asked.amount(&quota.meter);
            if !amount.is_zero() {
                if asked.check.reserve.is_some() {
                    counter.hold_named(terms, amount);
                } else if on_check {
                    counter.charge_check(terms, amount);
                } else {
                    counter.hold(terms, now, amount, plan.hold_ttl);
                }
                holds!(
                    Invariant::NeverOver,
                    plan.shadow || terms.cap.is_none_or(|cap| counter.taken() <= cap),
                    "{} taken of {:?}",
                    counter.taken(),
                    terms.cap
                );
                if counter.wants_escrow(terms) {
                    wants = Wants::CheckpointNow;
                }
            }
            overage |= terms.limit.is_some_and(|limit| counter.taken() > limit);
        }
        (wants, overage)
    }

    fn charge_rates(&mut self, now: Micros, seen: &mut Seen) {
        for rate in &mut seen.rates {
            // In shadow a limit that refused is not charged: it would refuse for ever after.
            if !rate.amount.is_zero() && rate.look.fits {
                let spec = &self.terms.plan.rates[usize::from(rate.index)].spec;
                let state = &mut self.rates[usize::from(rate.index)];
                state.charge(spec, now, rate.amount);
                rate.look = state.look(spec, now, Units::ZERO);
            }
        }
    }

    /// So that a repeat is told the same. A peek changes nothing, hence is not remembered: the
    /// check that it was made for may carry the same id.
    fn remember(&mut self, now: Micros, asked: &Asked<'_>, verdict: Verdict) {
        if let Some(id) = asked.check.request_id
            && !asked.peek
        {
            self.recent.remember(now, id, verdict);
        }
    }

    fn rate_views(&self, now: Micros, check: &Check) -> SmallVec<[RateView; 2]> {
        let mut views = SmallVec::new();
        for ((index, rate), state) in (0..).zip(&self.terms.plan.rates).zip(&self.rates) {
            if rate.pattern.matches(check.method.as_deref(), check.path.as_deref()) {
                let look = state.look(&rate.spec, now, Units::ZERO);
                views.push(Rate { index, amount: Units::ZERO, look }.view());
            }
        }
        views
    }

    /// A verdict, and where everything stands. Inlined, so that the several hundred bytes of an
    /// outcome are written once, in their place.
    #[inline]
    fn told(&self, verdict: Verdict, rates: SmallVec<[RateView; 2]>, wants: Wants) -> Outcome {
        let decision = Decision {
            allowed: verdict.allowed,
            reason: verdict.reason,
            mode: verdict.mode,
            overage: verdict.overage,
            violated: verdict.violated,
            retry_after: verdict.retry_after,
            reservation: verdict.reservation,
            quotas: self.quotas(),
            rates,
            plan: PlanOf::Terms(self.terms.clone()),
        };
        Outcome { answer: Answer::Decided(decision), wants }
    }
}

impl Seen {
    fn views(&self) -> SmallVec<[RateView; 2]> {
        let mut views = SmallVec::new();
        for rate in &self.rates {
            views.push(rate.view());
        }
        views
    }
}

impl Rate {
    fn view(&self) -> RateView {
        RateView {
            index: self.index,
            remaining: Units::clamped(self.look.remaining),
            reset_at: self.look.reset_at,
        }
    }
}

impl Verdict {
    const fn refused(reason: Reason) -> Self {
        Self {
            allowed: false,
            reason,
            mode: Mode::Enforced,
            overage: false,
            violated: Violated { quotas: 0, rates: 0 },
            retry_after: Span::ZERO,
            reservation: None,
        }
    }
}
