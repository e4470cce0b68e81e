//! What lies between two ends: time, order, and everything that can go wrong on the way.
//!
//! A connection between nodes, or to the gateway, keeps its order. It can break (what is under way is
//! gone and both ends begin anew), or one direction can go dead while the other works: the peer then
//! accepts and never answers, and only a deadline tells. A node has many connections to the store, so
//! those keep no order. The store can be slow, away, answer without being heard, or fail over.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use weir_core::units::{Micros, Span};

use super::message::End;

/// Usual time of a message, in microseconds.
const LATENCY: std::ops::Range<i64> = 100..2_000;
/// One message in so many takes much longer.
const STRAGGLER_ONE_IN: u32 = 50;

/// State of the wires.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// Dead directions, and until when.
    dead: BTreeMap<(End, End), Micros>,
    /// Times that a connection broke.
    breaks: BTreeMap<(End, End), u32>,
    /// When the last message of a direction arrives.
    last: BTreeMap<(End, End), Micros>,
    store_away_until: Micros,
    /// Of a thousand queries that come then so many are refused, the others are not answered.
    store_refuses: u32,
    store_slow_until: Micros,
    store_slow: Span,
    /// Of a thousand queries so many are slow; the others overtake them.
    store_slow_part: u32,
    store_locked_until: Micros,
    store_locked: Span,
    /// Of a thousand answers of the store so many are lost.
    store_mute: u32,
    store_mute_until: Micros,
}

/// A message's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) arrives: Micros,
    /// See [`Network::is_whole`].
    pub(super) connection: u32,
}

impl Network {
    /// When a message arrives; `None` = never.
    pub(super) fn send(
        &mut self,
        now: Micros,
        from: End,
        to: End,
        changes_owners: bool,
        random: &mut ChaCha8Rng,
    ) -> Option<Passage> {
        let mut pause = random.random_range(LATENCY);
        if random.random_ratio(1, STRAGGLER_ONE_IN) {
            pause *= 20;
        }
        if self.dead.get(&(from, to)).is_some_and(|until| now < *until) {
            return None;
        }
        let connection = self.breaks.get(&pair(from, to)).copied().unwrap_or_default();
        let is_slow = to == End::Store
            && now < self.store_slow_until
            && random.random_ratio(self.store_slow_part, 1_000);
        if is_slow {
            pause += random.random_range(0..=self.store_slow.get());
        }
        if changes_owners && now < self.store_locked_until {
            pause += random.random_range(0..=self.store_locked.get());
        }
        if from == End::Store && now < self.store_mute_until {
            let is_lost = random.random_ratio(self.store_mute, 1_000);
            if is_lost {
                return None;
            }
        }
        let mut arrives = now.plus(Span::from_micros(pause));
        if from != End::Store && to != End::Store {
            let last = self.last.entry((from, to)).or_default();
            arrives = arrives.max(*last);
            *last = arrives;
        }
        Some(Passage { arrives, connection })
    }

    /// Whether a message that left on this connection can still arrive.
    pub(super) fn is_whole(&self, from: End, to: End, connection: u32) -> bool {
        self.breaks.get(&pair(from, to)).copied().unwrap_or_default() == connection
    }

    /// Breaks a connection.
    pub(super) fn break_off(&mut self, one: End, other: End) {
        *self.breaks.entry(pair(one, other)).or_default() += 1;
        self.last.remove(&(one, other));
        self.last.remove(&(other, one));
    }

    /// Nothing gets through in this direction until then.
    pub(super) fn silence(&mut self, from: End, to: End, until: Micros) {
        self.dead.insert((from, to), until);
    }

    /// The store does nothing until then, and refuses so many of a thousand queries.
    pub(super) fn store_away(&mut self, until: Micros, refuses: u32) {
        (self.store_away_until, self.store_refuses) = (until, refuses.min(1_000));
    }

    /// How many of a thousand queries the store refuses; `None` when it is there.
    pub(super) fn store_refuses(&self, now: Micros) -> Option<u32> {
        (now < self.store_away_until).then_some(self.store_refuses)
    }

    /// So many of a thousand queries take up to this much longer until then.
    pub(super) fn store_slow(&mut self, until: Micros, up_to: Span, per_thousand: u32) {
        self.store_slow_until = until;
        self.store_slow = up_to;
        self.store_slow_part = per_thousand.min(1_000);
    }

    /// Queries that change owners take up to this much longer until then; all others do not.
    pub(super) fn store_locked(&mut self, until: Micros, up_to: Span) {
        (self.store_locked_until, self.store_locked) = (until, up_to);
    }

    /// So many of a thousand answers are lost until then, after what was asked is done.
    pub(super) fn store_mute(&mut self, until: Micros, per_thousand: u32) {
        (self.store_mute_until, self.store_mute) = (until, per_thousand.min(1_000));
    }

    /// Everything works again.
    pub(super) fn heal(&mut self) {
        self.dead.clear();
        self.store_away_until = Micros::EPOCH;
        self.store_slow_until = Micros::EPOCH;
        self.store_locked_until = Micros::EPOCH;
        self.store_mute_until = Micros::EPOCH;
    }
}

fn pair(one: End, other: End) -> (End, End) {
    (one.min(other), one.max(other))
}
