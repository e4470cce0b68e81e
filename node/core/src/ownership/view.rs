//! Members and owners as the database last showed them.

use uuid::Uuid;

use crate::units::{Epoch, Micros};

/// State of a node's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Serves.
    Up,
    /// Serves until it has handed over what it owns.
    Draining,
    /// Declared dead, or left in order. Final for an incarnation.
    Gone,
}

/// A node's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its boot.
    pub incarnation: Uuid,
    /// State.
    pub state: MemberState,
    /// Whether its lease has run out by the database's clock.
    pub expired: bool,
}

/// A shard's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Whose; nobody's when `None`.
    pub incarnation: Option<Uuid>,
    /// Its fencing token.
    pub epoch: Epoch,
}

/// One look at the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Every node, by name.
    pub members: Vec<Member>,
    /// Every shard, by number from 0.
    pub owners: Vec<Owner>,
}

/// What is known, put together from looks and from what peers tell.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) members: Vec<(Member, Micros)>,
    pub(super) owners: Vec<Owner>,
}

impl Known {
    pub(super) fn update(&mut self, view: View, now: Micros) {
        let before = std::mem::take(&mut self.members);
        let first_seen = |incarnation: Uuid| {
            before.iter().find(|(m, _)| m.incarnation == incarnation).map_or(now, |(_, at)| *at)
        };
        self.members = view
            .members
            .into_iter()
            .map(|m| (first_seen(m.incarnation), m))
            .map(|(at, m)| (m, at))
            .collect();
        self.owners.resize(view.owners.len(), Owner::default());
        for (known, seen) in self.owners.iter_mut().zip(view.owners) {
            known.accept(seen);
        }
    }

    pub(super) fn member(&self, incarnation: Uuid) -> Option<&Member> {
        self.members.iter().map(|(member, _)| member).find(|m| m.incarnation == incarnation)
    }
}

impl Owner {
    /// Newer knowledge replaces older. A look may have begun before a change that is known already; a
    /// shard that was given up keeps its epoch.
    pub(super) fn accept(&mut self, seen: Self) {
        if seen.epoch > self.epoch || (seen.epoch == self.epoch && seen.incarnation.is_none()) {
            *self = seen;
        }
    }
}
