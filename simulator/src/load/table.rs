//! The run's subscriptions: ids, limits and the ready-made headers of their checks.
//!
//! Written by set-up and churn, read by every worker. The lock is per subscription and is held for
//! a clone of three header values; only a key rotation ever writes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use http::HeaderMap;
use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::Error;
use crate::api::key_header;

const KEY_HEADER: &str = "x-subscription-key";

/// One subscription of the run.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Weir's id.
    pub(super) id: String,
    /// Our name for it.
    pub(super) external_id: String,
    /// Its hard limit.
    pub(super) limit: u64,
    headers: RwLock<HeaderMap>,
}

impl Subscription {
    /// A subscription with its first key.
    pub(super) fn new(
        id: String,
        external_id: String,
        limit: u64,
        key: &str,
        gateway: &HeaderValue,
    ) -> Result<Self, Error> {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(AUTHORIZATION, gateway.clone());
        headers.insert(KEY_HEADER, key_header(key)?);
        Ok(Self { id, external_id, limit, headers: RwLock::new(headers) })
    }

    /// The headers of a check with its present key.
    pub(super) fn headers(&self) -> HeaderMap {
        self.headers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on checks carry this key.
    pub(super) fn set_key(&self, key: &str) -> Result<(), Error> {
        let value = key_header(key)?;
        let mut headers = self.headers.write().unwrap_or_else(PoisonError::into_inner);
        headers.insert(KEY_HEADER, value);
        Ok(())
    }
}

/// All subscriptions, with room for those that churn adds.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<OnceLock<Subscription>>,
    live: AtomicUsize,
}

impl Table {
    /// A table with the given subscriptions and room for `spare` more.
    pub(super) fn new(subscriptions: Vec<Subscription>, spare: usize) -> Self {
        let live = AtomicUsize::new(subscriptions.len());
        let slots = subscriptions
            .into_iter()
            .map(OnceLock::from)
            .chain(std::iter::repeat_with(OnceLock::new).take(spare))
            .collect();
        Self { slots, live }
    }

    /// Subscriptions that exist.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Subscriptions that can exist.
    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Subscription number `index`, if it exists.
    pub(super) fn get(&self, index: usize) -> Option<&Subscription> {
        self.slots.get(index)?.get()
    }

    /// Adds one; false when the table is full. Only one caller adds.
    pub(super) fn add(&self, subscription: Subscription) -> bool {
        let index = self.live();
        let added = self.slots.get(index).is_some_and(|slot| slot.set(subscription).is_ok());
        if added {
            self.live.store(index + 1, Ordering::Release);
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(name: &str) -> Subscription {
        let token = HeaderValue::from_static("Bearer t");
        Subscription::new(name.into(), name.into(), 1, "key", &token).expect("valid")
    }

    #[test]
    fn a_table_grows_into_its_spare_room_and_no_further() {
        let table = Table::new(vec![subscription("a")], 1);
        assert!(table.get(1).is_none());
        assert!(table.add(subscription("b")));
        assert!(!table.add(subscription("c")));
        assert_eq!((table.live(), table.capacity()), (2, 2));
        assert_eq!(table.get(1).map(|found| found.id.as_str()), Some("b"));
    }

    #[test]
    fn a_rotated_key_is_in_the_next_check() {
        let subscription = subscription("a");
        subscription.set_key("new").expect("valid");
        assert_eq!(subscription.headers()[KEY_HEADER], "new");
    }
}
