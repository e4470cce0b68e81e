//! What goes wrong, and how often: drawn for each run, so that runs differ in kind.
//!
//! A run in which everything breaks all the time rarely gets far enough for a deep fault; one run
//! therefore has its own few kinds of faults and its own pace.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use weir_core::units::Span;

use super::cast::millis;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9.
    Crash,
    /// SIGSTOP, and SIGCONT after so long.
    Pause(Span),
    /// The same, and the place starts another boot of the same name meanwhile.
    Replace(Span),
    /// SIGTERM.
    Drain,
    /// A connection breaks.
    BreakOff,
    /// One direction between two nodes is dead.
    HalfOpen(Span),
    /// Two nodes do not reach each other.
    CutPeers(Span),
    /// A node does not reach the store, or does not hear it.
    CutStore(Span),
    /// A node reaches nobody but the gateway.
    Isolate(Span),
    /// A node cannot be reached by the gateway, or its answers are not heard.
    CutGateway(Span),
    /// The store does nothing; of a thousand queries it refuses so many and ignores the others.
    StoreAway(Span, u32),
    /// So many of a thousand queries take up to so much longer, as behind a lock.
    StoreSlow(Span, Span, u32),
    /// Queries that change owners take up to so much longer: somebody has locked the shards.
    StoreLocked(Span, Span),
    /// Answers are lost after the work is done, so many of a thousand.
    StoreMute(Span, u32),
    /// Another store takes over and has everything that was committed.
    FailOver(Span),
}

const KINDS: usize = 15;

/// Faults of one run.
#[derive(Debug)]
pub(super) struct Faults {
    weights: [u32; KINDS],
    pause: i64,
}

impl Faults {
    pub(super) fn draw(random: &mut ChaCha8Rng) -> Self {
        let mut weights = [0; KINDS];
        for weight in &mut weights {
            *weight = if random.random_bool(0.5) { random.random_range(1..10) } else { 0 };
        }
        Self { weights, pause: random.random_range(300..4_000) }
    }

    /// How long until the next.
    pub(super) fn pause(&self, random: &mut ChaCha8Rng) -> Span {
        millis(random.random_range(0..=2 * self.pause))
    }

    /// The next; `None` in a run without any.
    pub(super) fn next(&self, random: &mut ChaCha8Rng) -> Option<Fault> {
        let all: u32 = self.weights.iter().sum();
        if all == 0 {
            return None;
        }
        let mut drawn = random.random_range(0..all);
        let kind = self.weights.iter().position(|&weight| {
            let is_it = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_it
        });
        let is_long = random.random_ratio(1, 4);
        let mut last = |from, to| millis(random.random_range(from..to));
        Some(match kind? {
            0 => Fault::Crash,
            1 => Fault::Pause(last(100, 8_000)),
            2 => Fault::Replace(last(500, 8_000)),
            3 => Fault::Drain,
            4 => Fault::BreakOff,
            5 => Fault::HalfOpen(last(200, 6_000)),
            6 => Fault::CutPeers(last(200, 6_000)),
            // Now and then so long that a successor has returned all that it withheld.
            7 if is_long => Fault::CutStore(last(30_000, 60_000)),
            7 => Fault::CutStore(last(200, 6_000)),
            8 => Fault::Isolate(last(200, 6_000)),
            9 => Fault::CutGateway(last(200, 4_000)),
            10 => Fault::StoreAway(last(100, 6_000), random.random_range(0..3) * 500),
            11 => {
                let (length, up_to) = (last(500, 8_000), last(500, 4_000));
                let all = random.random_bool(0.3);
                let part = if all { 1_000 } else { random.random_range(20..400) };
                Fault::StoreSlow(length, up_to, part)
            }
            12 => Fault::StoreMute(last(500, 6_000), random.random_range(50..700)),
            13 => Fault::StoreLocked(last(500, 8_000), last(500, 4_000)),
            _ => Fault::FailOver(last(200, 3_000)),
        })
    }
}
