//! Open reservations: holds that are settled by name.
//!
//! A list, searched by id: a thousand at most, and commits are rarer than checks. What every command
//! asks, whether one is due, is answered without a search.

use smallvec::SmallVec;

use super::state::NamedState;
use crate::terms::Terms;
use crate::units::{Micros, ReservationId, Units};

/// Reservations that may be open in one subscription: each is an entry in every checkpoint.
pub const NAMED_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) id: ReservationId,
    pub(super) expires_at: Micros,
    /// Per quota of the plan; zero once the quota's period is over.
    pub(super) amounts: SmallVec<[Units; 2]>,
}

#[derive(Clone, Debug)]
pub(super) struct Reservations {
    open: Vec<Named>,
    /// No reservation expires before this.
    due: Micros,
}

impl Default for Reservations {
    fn default() -> Self {
        Self { open: Vec::new(), due: Micros::MAX }
    }
}

impl Reservations {
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= NAMED_MAX
    }

    pub(super) fn open(&mut self, named: Named) {
        self.due = self.due.min(named.expires_at);
        self.open.push(named);
    }

    pub(super) fn find(&self, id: ReservationId) -> Option<&Named> {
        self.open.iter().find(|named| named.id == id)
    }

    pub(super) fn close(&mut self, id: ReservationId) -> Option<Named> {
        let position = self.open.iter().position(|named| named.id == id)?;
        Some(self.open.swap_remove(position))
    }

    /// Takes out one that expired; call until `None`.
    pub(super) fn close_due(&mut self, now: Micros) -> Option<Named> {
        if now < self.due {
            return None;
        }
        let due = self.open.iter().position(|named| named.expires_at <= now);
        if due.is_none() {
            let times = self.open.iter().map(|named| named.expires_at);
            self.due = times.min().unwrap_or(Micros::MAX);
        }
        due.map(|position| self.open.swap_remove(position))
    }

    /// The period of one quota is over, and a hold belongs to the period it was made in.
    pub(super) fn period_over(&mut self, quota: usize) {
        for named in &mut self.open {
            named.amounts[quota] = Units::ZERO;
        }
    }

    /// Quotas stand elsewhere in the plan now: where each was before, if it was.
    pub(super) fn rearrange(&mut self, from: &[Option<usize>]) {
        for named in &mut self.open {
            let before = &named.amounts;
            let moved =
                from.iter().map(|from| from.map_or(Units::ZERO, |position| before[position]));
            named.amounts = moved.collect();
        }
    }

    pub(super) fn states(&self, terms: &Terms) -> Vec<NamedState> {
        let state = |named: &Named| {
            let quotas = terms.plan.quotas.iter().zip(&named.amounts);
            NamedState {
                id: named.id,
                expires_at: named.expires_at,
                amounts: quotas
                    .map(|(quota, amount)| (quota.name.to_string(), amount.get()))
                    .collect(),
            }
        };
        self.open.iter().map(state).collect()
    }
}
