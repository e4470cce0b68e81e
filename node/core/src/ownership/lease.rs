//! The lease of this boot, as far as its holder may trust it.
//!
//! Only the database's clock says when a lease ends. The holder counts from before it asked, on its own
//! monotonic clock, and stops a margin earlier.

use crate::units::{Micros, Span};

/// What the database said to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It holds.
    Held,
    /// This boot was declared dead, or replaced.
    Gone,
    /// The database did not answer.
    Away,
}

/// Trust in the lease.
#[derive(Clone, Debug)]
pub struct Lease {
    length: Span,
    margin: Span,
    every: Span,
    asked_at: Option<Micros>,
    next_at: Micros,
    trusted_until: Option<Micros>,
    /// Since when every renewal came in time.
    unbroken_since: Option<Micros>,
}

impl Lease {
    /// A lease that was just taken by joining.
    pub fn taken(length: Span, every: Span, now: Micros) -> Self {
        // A tenth of the lease for what the two clocks may drift and for the way of the answer.
        let margin = Span::from_micros(length.get() / 10);
        Self {
            length,
            margin,
            every,
            asked_at: None,
            next_at: now,
            trusted_until: Some(now.plus(length).minus(margin)),
            unbroken_since: Some(now),
        }
    }

    /// Whether to ask now; then it counts as asked.
    pub fn is_due(&mut self, now: Micros) -> bool {
        let due = self.asked_at.is_none() && now >= self.next_at;
        if due {
            self.asked_at = Some(now);
            self.next_at = now.plus(self.every);
        }
        due
    }

    /// The answer to the renewal that was asked for.
    pub fn answered(&mut self, now: Micros, renewal: Renewal) {
        let asked_at = self.asked_at.take();
        match (renewal, asked_at) {
            (Renewal::Held, Some(asked_at)) => {
                if !self.is_trusted(now) {
                    self.unbroken_since = None;
                }
                self.trusted_until = Some(asked_at.plus(self.length).minus(self.margin));
                self.unbroken_since.get_or_insert(now);
            }
            (Renewal::Gone, _) => self.trusted_until = None,
            _ => {}
        }
    }

    /// Whether nobody can have declared this boot dead yet.
    pub fn is_trusted(&self, now: Micros) -> bool {
        self.trusted_until.is_some_and(|until| now < until)
    }

    /// Until when nobody can have declared this boot dead.
    pub const fn trusted_until(&self) -> Option<Micros> {
        self.trusted_until
    }

    /// Whether this node has been in touch with the database for a whole lease. Before that, others
    /// whose leases ran out may only have met the same outage, and will renew in a moment.
    pub fn may_bury(&self, now: Micros) -> bool {
        self.is_trusted(now)
            && self.unbroken_since.is_some_and(|since| now.since(since) >= self.length)
    }
}
