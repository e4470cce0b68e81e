//! The decisions of the last ten seconds, by request id.
//!
//! Role: makes a retry or a hedge of a check safe: it gets the same verdict and charges nothing.
//! Entries are small and numbers in the repeated answer are those of now; the verdict is the old one.
//! Bounded by count and age (INV-6): when a subscription asks with more distinct ids in ten seconds
//! than fit, the oldest are forgotten.

use std::collections::{BTreeMap, VecDeque};

use super::decision::{Mode, Reason, Violated};
use crate::units::{Micros, ReservationId, Span};

/// How long a repeat is recognised.
pub const REPEAT_WINDOW: Span = Span::from_seconds(10);
/// Ids remembered a subscription. Smaller, and a hot one's retry would be charged twice: this is
/// 1,638 checks a second that all carry an id. Larger, and one client could take more than the 2 MiB
/// that this may come to.
pub const RECENT_MAX: usize = 16_384;

/// A remembered verdict; the fields are those of a [`super::Decision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented there")]
pub struct Verdict {
    pub allowed: bool,
    pub reason: Reason,
    pub mode: Mode,
    pub overage: bool,
    pub violated: Violated,
    pub retry_after: Span,
    pub reservation: Option<ReservationId>,
}

/// A decision that a repeat gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Id of the request.
    pub id: u128,
    /// Until when.
    pub until: Micros,
    /// What it was told.
    pub verdict: Verdict,
}

const _: () = assert!(size_of::<Remembered>() <= 96, "RECENT_MAX of them are 1.5 MiB");

/// The ring, and where in it an id is.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    ring: VecDeque<Remembered>,
    /// Position of an id, counted from the first ever remembered. A sorted tree: hashing needs
    /// randomness to be safe, and the core has none.
    places: BTreeMap<u128, u64>,
    /// How many were forgotten: the place of the ring's front.
    forgotten: u64,
}

impl Recent {
    pub(super) fn find(&mut self, now: Micros, id: u128) -> Option<Verdict> {
        self.forget(now);
        let place = self.places.get(&id)?;
        let entry = self.ring.get(usize::try_from(place - self.forgotten).ok()?)?;
        Some(entry.verdict)
    }

    pub(super) fn remember(&mut self, now: Micros, id: u128, verdict: Verdict) {
        self.push(Remembered { id, until: now.plus(REPEAT_WINDOW), verdict });
    }

    fn push(&mut self, entry: Remembered) {
        if self.ring.len() == RECENT_MAX {
            self.pop();
        }
        self.places.insert(entry.id, self.forgotten + self.ring.len() as u64);
        self.ring.push_back(entry);
    }

    fn pop(&mut self) {
        if let Some(entry) = self.ring.pop_front() {
            // An id that was remembered anew since has a later place.
            if self.places.get(&entry.id) == Some(&self.forgotten) {
                self.places.remove(&entry.id);
            }
            self.forgotten += 1;
        }
    }

    /// A reservation whose hold could not be made durable: its verdict must not be repeated.
    pub(super) fn forget_reservation(&mut self, id: ReservationId) {
        for entry in self.ring.iter().filter(|entry| entry.verdict.reservation == Some(id)) {
            self.places.remove(&entry.id);
        }
    }

    /// What a successor should remember, oldest first.
    pub(super) fn remembered(&self) -> Vec<Remembered> {
        let places = self.forgotten..;
        let entries = places.zip(&self.ring);
        let known = entries.filter(|(place, entry)| self.places.get(&entry.id) == Some(place));
        known.map(|(_, entry)| *entry).collect()
    }

    pub(super) fn resume(&mut self, now: Micros, remembered: &[Remembered]) {
        for entry in remembered.iter().filter(|entry| now < entry.until) {
            self.push(*entry);
        }
    }

    pub(super) fn forget(&mut self, now: Micros) {
        if self.ring.front().is_none_or(|entry| now < entry.until) {
            return;
        }
        while self.ring.front().is_some_and(|entry| entry.until <= now) {
            self.pop();
        }
        if self.ring.is_empty() {
            // A burst of ids must not cost memory for ever.
            self.ring = VecDeque::new();
        }
    }
}
