//! Whether the store was away when it was last asked, and whose turn it is to ask again.

use std::sync::atomic::{AtomicI64, Ordering};

use weir_core::units::{Micros, Span};

/// Time between two tries while the store is away. More: changes are seen later once it is back. Less:
/// more requests wait for a store that does not answer.
const TRY_AGAIN: Span = Span::from_seconds(1);
const CALM: i64 = i64::MIN;

/// Until when nobody asks.
#[derive(Debug)]
pub(super) struct Trouble(AtomicI64);

impl Default for Trouble {
    fn default() -> Self {
        Self(AtomicI64::new(CALM))
    }
}

impl Trouble {
    /// The store answered, or was away.
    pub(super) fn note(&self, now: Micros, is_away: bool) {
        let until = if is_away { now.plus(TRY_AGAIN).get() } else { CALM };
        if self.0.load(Ordering::Relaxed) != until {
            self.0.store(until, Ordering::Relaxed);
        }
    }

    /// Whether the store is better left alone. When it is time to try again, one caller is told no.
    pub(super) fn lasts(&self, now: Micros) -> bool {
        let until = self.0.load(Ordering::Relaxed);
        if until == CALM {
            return false;
        }
        let next = now.plus(TRY_AGAIN).get();
        let is_mine = now.get() >= until
            && self.0.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        !is_mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Micros {
        Micros::from_micros(millis * 1_000)
    }

    #[test]
    fn while_the_store_is_away_one_in_a_while_tries_and_the_others_go_on() {
        let trouble = Trouble::default();
        assert!(!trouble.lasts(at(0)), "it was never away");
        trouble.note(at(0), true);
        assert!(trouble.lasts(at(999)));
        assert!(!trouble.lasts(at(1_000)), "the first tries");
        assert!(trouble.lasts(at(1_000)), "the second does not wait for it");
        trouble.note(at(1_500), true);
        assert!(trouble.lasts(at(2_400)));
        trouble.note(at(2_400), false);
        assert!(!trouble.lasts(at(2_400)));
    }
}
