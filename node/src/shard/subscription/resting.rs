//! Checkpoints of a resident, and the orderly end after a clean one.

use weir_core::meter::{Command, Wants};
use weir_core::units::Micros;

use super::persist::{self, Stamp};
use super::resident::Resident;
use crate::recorder::Taken;
use crate::shard::handle::SubscriptionHandle;

/// Where an orderly end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resting {
    No,
    /// The next checkpoint is to be a clean one.
    Asked,
    /// It was taken; nothing happened since.
    Taken,
}

impl Resident {
    /// `how` soon: nobody waits for it, and those that someone waits for go first, or another node does.
    pub(super) fn retire(&mut self, how: Wants) {
        if self.nobody_waits() && self.resting != Resting::Taken {
            self.resting = Resting::Asked;
            self.persist(how);
        }
    }

    pub(super) fn take(&mut self, now: Micros) -> Taken {
        self.queued.soon = false;
        self.queued.now = false;
        self.version += 1;
        let clean = self.resting == Resting::Asked;
        if clean {
            self.resting = Resting::Taken;
        }
        let checkpoint = self.meter.checkpoint(now, clean);
        let switched_to = checkpoint.switched.then(|| self.meter.terms().plan.id);
        if let Some(plan) = switched_to {
            // The store raises the revision when it moves the row to another plan.
            self.definition.revision += i64::from(plan != self.definition.terms.plan.id);
            self.definition.terms = self.meter.terms().clone();
            self.definition.next = None;
            self.switched = true;
        }
        persist::taken(
            &self.meter,
            &self.definition,
            checkpoint,
            Stamp { shard: self.shard, version: self.version, clean, now },
            std::mem::take(&mut self.reservations),
            switched_to,
        )
    }

    /// What was taken last is committed.
    pub(super) fn confirm(&mut self, now: Micros) {
        let outcome = self.meter.apply(now, Command::Confirm);
        self.persist(outcome.wants);
        if std::mem::take(&mut self.switched) {
            self.deps.catalog.forget_subscription(self.definition.id);
        }
        self.wake(now);
    }

    /// Closes the door when nothing happened since the clean checkpoint that was just committed; else
    /// resting is called off.
    pub(super) fn rest(&mut self, door: &SubscriptionHandle) -> bool {
        if self.resting != Resting::Taken {
            return false;
        }
        self.resting = Resting::No;
        // A period that ended meanwhile left something to persist.
        !self.queued.soon && !self.queued.now && door.close()
    }
}
