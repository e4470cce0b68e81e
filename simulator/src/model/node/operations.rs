//! Queries under way, each with a deadline after which nobody knows what became of it.

use std::collections::BTreeMap;

use weir_core::units::{Micros, ShardId, Span};

use crate::model::cast::millis;
use crate::model::message::{Fence, Reply};

/// How long an answer is waited for.
const DEADLINE: Span = millis(500);
/// Queries of one node at once: a load for each subscription, and one each of the others.
pub(super) const UNDER_WAY_MAX: usize = 64;

/// What an answer is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Join,
    Renew,
    Look,
    /// And claim these afterwards.
    Bury(Vec<ShardId>),
    Claim(Vec<ShardId>),
    HandOver(Vec<ShardId>),
    Drain,
    /// Whether anything is still ours, before leaving.
    LastLook,
    Leave,
    Append,
    SettleRenew,
    SettleClaim,
    SettleRead,
    Checkpoint,
    /// Whether the store still names us as the owner of what this fence names.
    StillOurs(Fence),
    Load(usize),
}

/// What became of a query.
#[derive(Debug)]
pub(super) enum Outcome {
    Said(Reply),
    /// Nothing was done.
    Away,
    /// It was done, or will be, or will never be.
    Unknown,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Said(reply)
    }
}

/// All of one node.
#[derive(Debug, Default)]
pub(super) struct Operations {
    begun: u64,
    under_way: BTreeMap<u64, (Purpose, Micros)>,
}

impl Operations {
    pub(super) fn begin(&mut self, now: Micros, purpose: Purpose) -> u64 {
        self.begun += 1;
        self.under_way.insert(self.begun, (purpose, now.plus(DEADLINE)));
        self.begun
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Purpose> {
        self.under_way.remove(&number).map(|(purpose, _)| purpose)
    }

    /// Those that are waited for no longer.
    pub(super) fn expire(&mut self, now: Micros) -> Vec<Purpose> {
        let due = self.under_way.iter().filter(|(_, (_, deadline))| now >= *deadline);
        let due: Vec<u64> = due.map(|(number, _)| *number).collect();
        due.into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// What is to be claimed after the burial under way.
    pub(super) fn burial(&mut self) -> Option<&mut Vec<ShardId>> {
        self.under_way.values_mut().find_map(|(purpose, _)| match purpose {
            Purpose::Bury(claims) => Some(claims),
            _ => None,
        })
    }

    pub(super) fn is_under_way(&self, purpose: &Purpose) -> bool {
        let kind = std::mem::discriminant(purpose);
        self.under_way.values().any(|(other, _)| std::mem::discriminant(other) == kind)
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}
