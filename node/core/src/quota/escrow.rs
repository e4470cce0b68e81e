//! Escrow: how far an owner may admit on what is already persisted.
//!
//! `hi` is an upper bound that a committed checkpoint names; the owner never admits past it, and a
//! successor after a crash treats everything up to it as let through. So two owners, one of them a
//! zombie, can never admit more than the cap together (INV-3), without comparing their clocks.
//!
//! ```text
//!   confirmed hi ──offer()──▶ offered (in a checkpoint under way) ──confirm()──▶ confirmed hi
//! ```
//! Until it is known whether an offer was committed, a successor may find it or any bound before it:
//! the smallest of them all holds. `next` is the same bound for the period to come, so that the first
//! check of a period need not wait for a commit.
//!
//! A reservation that was given back is still listed in what is persisted, and a successor would
//! count it beside the bound. So its units are not let through again before a checkpoint without it
//! is confirmed (`freed`).

use crate::plan::ChargeOn;
use crate::units::{MICROS_PER_SECOND, Micros, Units};

/// How large a block is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    /// Units in the smallest block.
    pub units_min: u64,
    /// Seconds of recent traffic that a block should last: an outage of the store shorter than this
    /// goes unnoticed by checks.
    pub seconds: u64,
}

impl BlockSize {
    /// For checks that hold: large enough that a quiet subscription rarely waits for a commit, small
    /// enough that a crash withholds little for one hold time.
    pub const HOLDS: Self = Self { units_min: 32, seconds: 30 };
    /// For checks that charge. They have no ledger row, so what a crash withholds is lost until the
    /// period ends: smaller, and a subscription waits for a commit every few checks; larger, and a
    /// crash costs a customer noticeably.
    pub const CHARGES: Self = Self { units_min: 8, seconds: 3 };

    /// The block that suits a plan.
    pub const fn of(charge_on: ChargeOn) -> Self {
        match charge_on {
            ChargeOn::Event => Self::HOLDS,
            ChargeOn::Check => Self::CHARGES,
        }
    }

    fn within(self, wish: u64, room: u64) -> u64 {
        wish.clamp(self.units_min, (room / SHARE_OF_ROOM).max(self.units_min))
    }
}

/// A block takes at most this part of what is left, so that it shrinks towards the limit.
const SHARE_OF_ROOM: u64 = 4;

/// Bounds for the running period and the one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    hi: u64,
    next: u64,
}

impl Bounds {
    /// Bounds that bind nobody.
    const OPEN: Self = Self { hi: u64::MAX, next: u64::MAX };

    fn lower(self, other: Self) -> Self {
        Self { hi: self.hi.min(other.hi), next: self.next.min(other.next) }
    }
}

/// What an owner before us may still let through when the next period begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    pub(super) units: u64,
    /// When whatever it let through has settled or returned.
    pub(super) until: Micros,
    /// It charges by checks: what it lets through never returns.
    pub(super) kept: bool,
}

/// Bounds of one quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escrow {
    confirmed: Bounds,
    /// The newest offer, if its checkpoint is not confirmed.
    offered: Option<Bounds>,
    /// Lowest of all offers whose checkpoints may or may not be committed.
    lowest: Bounds,
    /// Given back by reservations since the last confirmed checkpoint was taken.
    freed: u64,
    /// The part of `freed` that the newest offer knows of.
    freed_offered: u64,
    inherited: Option<Inherited>,
    low_at: u64,
    /// Largest amount that waits.
    wanted: u64,
    /// Sum of amounts that wait.
    waiting: u64,
    admitted: u64,
    per_second: u64,
    offered_at: Micros,
}

impl Default for Escrow {
    fn default() -> Self {
        Self::persisted(0, 0)
    }
}

impl Escrow {
    /// Bounds read from a checkpoint.
    pub const fn persisted(hi: u64, next: u64) -> Self {
        Self {
            confirmed: Bounds { hi, next },
            offered: None,
            lowest: Bounds::OPEN,
            freed: 0,
            freed_offered: 0,
            inherited: None,
            low_at: hi,
            wanted: 0,
            waiting: 0,
            admitted: 0,
            per_second: 0,
            offered_at: Micros::EPOCH,
        }
    }

    /// How far `used + pending` may go.
    pub fn hi(&self) -> u64 {
        self.confirmed.hi.min(self.lowest.hi).saturating_sub(self.freed)
    }

    /// How far it may go in the next period, when that begins.
    pub fn next(&self) -> u64 {
        self.confirmed.next.min(self.lowest.next)
    }

    /// Counts what was let through, to size the next block.
    pub const fn admitted(&mut self, amount: Units) {
        self.admitted = self.admitted.saturating_add(amount.get());
    }

    /// A reservation gave back this much.
    pub const fn free(&mut self, amount: Units) {
        self.freed = self.freed.saturating_add(amount.get());
    }

    /// Remembers that someone waits for this much.
    pub fn want(&mut self, amount: Units) {
        self.wanted = self.wanted.max(amount.get());
        self.waiting = self.waiting.saturating_add(amount.get());
    }

    /// Whether it is time to extend. Never while an offer is under way: its confirmation decides
    /// anew, so a burst of checks asks for one checkpoint, not for one each.
    pub const fn is_low(&self, taken: Units, cap: Units) -> bool {
        self.offered.is_none()
            && self.confirmed.hi < cap.get()
            && (taken.get() >= self.low_at || self.wanted > 0)
    }

    /// Puts bounds into a checkpoint: `(hi, next)` as they must be persisted. `hi` is never below
    /// what is taken, even where a limit came down below that: a successor must count it all.
    pub fn offer(&mut self, now: Micros, taken: Units, cap: Units, size: BlockSize) -> (u64, u64) {
        self.measure(now);
        let (taken, cap) = (taken.get(), cap.get());
        let room = cap.saturating_sub(taken);
        let by_rate = self.per_second.saturating_mul(size.seconds);
        let block = size.within(by_rate.max(self.waiting), room).max(self.wanted).min(room);
        let inherited = self.inherited_at(now);
        let next_room = cap.saturating_sub(inherited);
        let next_block = size.within(by_rate, next_room).min(next_room);
        let offer = Bounds { hi: taken + block, next: inherited + next_block };
        self.wanted = 0;
        self.waiting = 0;
        self.offered = Some(offer);
        self.lowest = self.lowest.lower(offer);
        self.freed_offered = self.freed;
        (offer.hi, offer.next)
    }

    fn measure(&mut self, now: Micros) {
        let elapsed = now.since(self.offered_at).get();
        // Below a tenth of a second a rate says little; the count is kept for the next time.
        if elapsed < MICROS_PER_SECOND / 10 {
            return;
        }
        let second = u128::from(MICROS_PER_SECOND.unsigned_abs());
        let recent = u128::from(self.admitted) * second / u128::from(elapsed.unsigned_abs());
        let recent = u64::try_from(recent).unwrap_or(u64::MAX);
        self.per_second = self.per_second / 2 + recent.div_ceil(2);
        self.admitted = 0;
        self.offered_at = now;
    }

    /// The checkpoint that carried the newest offer is committed, and none older can be any more.
    pub fn confirm(&mut self, taken: Units) {
        if let Some(offered) = self.offered.take() {
            self.confirmed = offered;
            self.lowest = Bounds::OPEN;
            self.freed -= self.freed_offered;
            self.freed_offered = 0;
            let block = offered.hi.saturating_sub(taken.get());
            self.low_at = offered.hi.saturating_sub(block / 2);
        }
    }

    /// Gives everything back: nothing passes before a further offer is confirmed. Returns what must
    /// be persisted as the next period's bound, which is what others may let through in it.
    pub fn close(&mut self, now: Micros) -> u64 {
        let inherited = self.inherited;
        let units = self.inherited_at(now);
        *self = Self { inherited, ..Self::default() };
        units
    }

    /// A period began: the next one if `follows`, else one that nothing was persisted for. A
    /// checkpoint still under way speaks of the period before; its confirmation changes nothing.
    pub fn roll(&mut self, follows: bool) {
        let hi = if follows { self.next() } else { 0 };
        *self = Self {
            low_at: 0,
            admitted: self.admitted,
            per_second: self.per_second,
            offered_at: self.offered_at,
            ..Self::persisted(hi, 0)
        };
    }

    pub(super) const fn inherit(&mut self, inherited: Inherited) {
        self.inherited = Some(inherited);
    }

    pub(super) const fn inherited(&self) -> Option<Inherited> {
        self.inherited
    }

    fn inherited_at(&self, now: Micros) -> u64 {
        self.inherited
            .filter(|inherited| now < inherited.until)
            .map_or(0, |inherited| inherited.units)
    }
}
