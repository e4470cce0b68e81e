//! A bounded map of answers that hold for a while.
//!
//! Role: what [`Catalog`](super::Catalog) remembers. A look-up is on the path of every check, so it
//! takes a shard's lock for reading and writes nothing but a mark that the entry is in use; which
//! entries give way when it is full is decided at insertions.

use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use weir_core::units::{Micros, Span};

/// Up to so many answers, each for so long.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    entries: Cache<K, Entry<V>>,
    keep: Span,
    /// What was remembered up to then is doubted, in microseconds.
    doubted: AtomicI64,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    value: V,
    since: Micros,
}

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    /// Remembers nothing yet.
    pub(super) fn new(entries_max: usize, keep: Duration) -> Self {
        let (keep, doubted) = (Span::from(keep), AtomicI64::new(i64::MIN));
        Self { entries: Cache::new(entries_max), keep, doubted }
    }

    /// What is remembered, unless it is too old or doubted.
    pub(super) fn get(&self, now: Micros, key: &K) -> Option<V> {
        let doubted = self.doubted.load(Ordering::Relaxed);
        let is_good =
            |entry: &Entry<V>| entry.since.get() > doubted && now < entry.since.plus(self.keep);
        self.entries.get(key).filter(is_good).map(|entry| entry.value)
    }

    /// What is remembered, however old: for when it cannot be read again.
    pub(super) fn get_old(&self, key: &K) -> Option<V> {
        self.entries.get(key).map(|entry| entry.value)
    }

    pub(super) fn insert(&self, now: Micros, key: K, value: V) {
        self.entries.insert(key, Entry { value, since: now });
    }

    /// Everything is to be read again when it is next wanted.
    pub(super) fn doubt(&self, now: Micros) {
        self.doubted.fetch_max(now.get(), Ordering::Relaxed);
    }

    /// Forgets every answer of which this holds; looks at each.
    pub(super) fn forget_such(&self, is_such: impl Fn(&V) -> bool) {
        self.entries.retain(|_, entry| !is_such(&entry.value));
    }

    pub(super) fn forget(&self, key: &K) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Micros = Micros::from_micros(1_000_000_000);

    fn after(seconds: i64) -> Micros {
        NOON.plus(Span::from_micros(seconds * 1_000_000))
    }

    #[test]
    fn an_answer_holds_for_its_time_and_until_it_is_forgotten() {
        let known = Remembered::new(10, Duration::from_secs(5));
        known.insert(NOON, 1, "one");
        known.insert(NOON, 2, "two");
        assert_eq!(known.get(after(4), &1), Some("one"));
        assert_eq!(known.get(after(5), &1), None);
        known.insert(after(5), 1, "anew");
        assert_eq!(known.get(after(9), &1), Some("anew"));
        known.forget(&2);
        assert_eq!((known.get(NOON, &2), known.get_old(&2)), (None, None));
        known.doubt(after(6));
        assert_eq!((known.get(after(7), &1), known.get_old(&1)), (None, Some("anew")));
        known.insert(after(7), 1, "once more");
        known.insert(after(7), 2, "two");
        assert_eq!(known.get(after(8), &1), Some("once more"));
        known.forget_such(|value| *value == "two");
        assert_eq!((known.get_old(&1), known.get_old(&2)), (Some("once more"), None));
    }

    #[test]
    fn no_more_is_remembered_than_allowed() {
        let known = Remembered::new(100, Duration::MAX);
        for key in 0..10_000 {
            known.insert(NOON, key, ());
        }
        let kept = (0..10_000).filter(|key| known.get(NOON, key).is_some()).count();
        assert!((1..=100).contains(&kept), "{kept}");
    }
}
