//! How many endpoints a subscription may have in a minute.
//!
//! Role: keeps a client that puts ids into its paths from filling the table with one row a request
//! (INV-6). The first [`ENDPOINTS_PER_MINUTE_MAX`] endpoints of a minute have rows of their own, the
//! rest share one. What was seen is remembered in bounded memory, oldest minutes forgotten first; of
//! a forgotten minute further endpoints may come in, one batch of late events at a time.

use std::collections::{BTreeMap, HashSet};

use weir_config::limits::ENDPOINTS_PER_MINUTE_MAX;
use weir_core::units::{Micros, SubscriptionId};
use xxhash_rust::xxh3::Xxh3;

/// Endpoints remembered in all. More: memory (about 16 bytes each) for minutes that are over. Fewer:
/// the minute of a busy node, a few endpoints for each of its active subscriptions, does not fit.
const REMEMBERED_MAX: usize = 500_000;

/// Endpoints seen in recent minutes.
#[derive(Debug)]
pub(super) struct SeenEndpoints {
    minutes: BTreeMap<(Micros, SubscriptionId), HashSet<u64>>,
    remembered: usize,
    remembered_max: usize,
}

impl Default for SeenEndpoints {
    fn default() -> Self {
        Self { minutes: BTreeMap::new(), remembered: 0, remembered_max: REMEMBERED_MAX }
    }
}

impl SeenEndpoints {
    /// Whether this endpoint has a row of its own in this minute.
    pub(super) fn admit(
        &mut self,
        subscription: SubscriptionId,
        minute: Micros,
        path: &str,
        method: &str,
    ) -> bool {
        let seen = self.minutes.entry((minute, subscription)).or_default();
        let endpoint = hash(path, method);
        if seen.contains(&endpoint) {
            return true;
        }
        if seen.len() >= ENDPOINTS_PER_MINUTE_MAX {
            return false;
        }
        seen.insert(endpoint);
        self.remembered += 1;
        true
    }

    /// Forgets the oldest minutes beyond the bound.
    pub(super) fn trim(&mut self) {
        while self.remembered > self.remembered_max {
            let Some((_, seen)) = self.minutes.pop_first() else { return };
            self.remembered -= seen.len();
        }
    }
}

/// Two endpoints with one hash count as one towards the limit, which does no harm.
fn hash(path: &str, method: &str) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(method.as_bytes());
    hasher.update(b"\0");
    hasher.update(path.as_bytes());
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MINUTE: Micros = Micros::from_seconds(60);

    fn subscription(number: u128) -> SubscriptionId {
        SubscriptionId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn the_first_endpoints_of_a_minute_keep_their_place_and_later_ones_get_none() {
        let mut seen = SeenEndpoints::default();
        for _ in 0..2 {
            for number in 0..ENDPOINTS_PER_MINUTE_MAX + 50 {
                let path = format!("/{number}");
                let expected = number < ENDPOINTS_PER_MINUTE_MAX;
                assert_eq!(seen.admit(subscription(1), MINUTE, &path, "GET"), expected, "{path}");
            }
        }
        assert!(!seen.admit(subscription(1), MINUTE, "/0", "POST"), "another method is another");
        assert!(seen.admit(subscription(2), MINUTE, "/new", "GET"));
        assert!(seen.admit(subscription(1), Micros::from_seconds(120), "/new", "GET"));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_minutes_stay() {
        let mut seen = SeenEndpoints { remembered_max: 10, ..SeenEndpoints::default() };
        for minute in 0..100 {
            for path in ["/a", "/b", "/c"] {
                seen.admit(subscription(1), Micros::from_seconds(60 * minute), path, "GET");
            }
            seen.trim();
            assert!(seen.remembered <= 10);
            assert_eq!(seen.remembered, seen.minutes.values().map(HashSet::len).sum::<usize>());
        }
        assert!(seen.minutes.contains_key(&(Micros::from_seconds(60 * 99), subscription(1))));
    }
}
