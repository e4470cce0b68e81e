//! When a delivery that failed is tried again: exponential, with jitter, within bounds. Pure.

use std::time::Duration;

/// Each pause is this many times the one before: with the defaults 10 s, 1 min, 6 min, 36 min, which
/// outlasts a restart, a deployment and a short outage of the receiver within five attempts.
const GROWTH: u32 = 6;
/// A pause is at most a quarter longer or shorter than computed: what failed together does not come
/// back together.
const JITTER_DIVISOR: u32 = 4;

/// Bounds of the pauses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// After the first failure.
    pub(super) first: Duration,
    /// However many failed; the jitter comes on top.
    pub(super) max: Duration,
}

impl Backoff {
    /// The pause after this many attempts, one of them at least. `random` is any number, evenly
    /// spread; `asked` is what the receiver asked for (`Retry-After`), which is kept up to the
    /// longest pause.
    pub(super) fn pause(self, attempts: u32, random: u32, asked: Option<Duration>) -> Duration {
        let growth = GROWTH.saturating_pow(attempts.saturating_sub(1));
        let plain = self.first.saturating_mul(growth).min(self.max);
        let jitter = plain / JITTER_DIVISOR;
        let least = plain.saturating_sub(jitter);
        let spread = 2 * jitter;
        // In microseconds the product stays within 128 bits.
        let part = spread.as_micros() * u128::from(random) / u128::from(u32::MAX);
        let jittered = least + Duration::from_micros(u64::try_from(part).unwrap_or(u64::MAX));
        jittered.max(asked.unwrap_or_default().min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Backoff =
        Backoff { first: Duration::from_secs(10), max: Duration::from_hours(1) };
    const MIDDLE: u32 = u32::MAX / 2 + 1;

    #[test]
    fn pauses_grow_sixfold_up_to_the_longest() {
        for (attempts, seconds) in
            [(1, 10), (2, 60), (3, 360), (4, 2_160), (5, 3_600), (40, 3_600), (u32::MAX, 3_600)]
        {
            let pause = DEFAULT.pause(attempts, MIDDLE, None);
            assert_eq!(pause.as_secs(), seconds, "after {attempts} attempts");
        }
    }

    #[test]
    fn jitter_is_a_quarter_either_way() {
        for (random, millis) in [(0, 45_000), (u32::MAX, 75_000)] {
            assert_eq!(DEFAULT.pause(2, random, None), Duration::from_millis(millis));
        }
    }

    #[test]
    fn what_the_receiver_asks_for_is_kept_within_reason() {
        // Asked for, in seconds; pause.
        for (asked, seconds) in [(0, 10), (9, 10), (120, 120), (86_400, 3_600)] {
            let pause = DEFAULT.pause(1, MIDDLE, Some(Duration::from_secs(asked)));
            assert_eq!(pause.as_secs(), seconds, "{asked} asked for");
        }
    }

    proptest! {
        #[test]
        fn every_pause_is_within_its_bounds(
            first in 1..3_600_000_u64, more in 0..86_400_000_u64,
            attempts in any::<u32>(), random in any::<u32>(),
        ) {
            let first = Duration::from_millis(first);
            let backoff = Backoff { first, max: first + Duration::from_millis(more) };
            let pause = backoff.pause(attempts, random, None);
            prop_assert!(pause >= first.saturating_sub(first / 4));
            prop_assert!(pause <= backoff.max + backoff.max / 4);
        }
    }
}
