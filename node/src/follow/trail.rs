//! Changes that nobody told of, found in the audit log.
//!
//! Role: the second way to hear of a change, which needs no peer and no luck. Whoever makes one tells every
//! linked node before it answers; but its answer from the store may be lost, its link may be down, it may
//! be killed in between. Every change leaves an entry in the audit log, in its own transaction, so a node
//! that reads the log once a second has missed nothing for longer than that (or than the store is away).
//! An entry is followed once more than needed rather than once too few: following is idempotent.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_core::units::{Micros, PlanId, Span, SubscriptionId};
use weir_store::rows::AuditRow;
use weir_store::{Error, Store};

use super::Follow;
use crate::clock::Clock;
use crate::metrics::chain;

/// How often the log is read. More: a change that was not told is followed later. Less: idle nodes work.
const EVERY: Duration = Duration::from_secs(1);
/// How far back. Ids are made before their transaction, by clocks that differ: more than the longest
/// transaction and the clocks' difference together.
const LOOK_BACK: Span = Span::from_seconds(15);
/// Entries of one read.
const PAGE: u32 = 1_000;
/// Changes of what a node remembers. What is new is remembered by nobody yet.
const ACTIONS: &[&str] = &[
    "plan.update",
    "plan.delete",
    "subscription.update",
    "subscription.delete",
    "subscription.key.create",
    "subscription.key.revoke",
    "token.revoke",
];

/// How far the log was read.
struct Trail {
    store: Arc<dyn Store>,
    /// Everything from before that was followed, or is older than anything remembered here.
    followed_to: Micros,
    /// Entries behind that, followed already.
    seen: HashSet<Uuid>,
}

/// Follows what is found, until `stop`. `since`: nothing is remembered from before.
pub async fn keep(follow: Follow, clock: Arc<Clock>, since: Micros, stop: CancellationToken) {
    let mut trail = Trail { store: follow.store.clone(), followed_to: since, seen: HashSet::new() };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        // Ids are made by the wall clock, which the node's own may be ahead of for a while.
        let now = clock.now().min(made_at(Uuid::now_v7()));
        if let Err(error) = trail.catch_up(&follow, now).await {
            // What was not followed is found again.
            tracing::debug!(error = %chain(&error), "the audit log is not followed yet");
        }
    }
}

impl Trail {
    async fn catch_up(&mut self, follow: &Follow, now: Micros) -> Result<(), Error> {
        let news = self.news().await?;
        // What costs nothing and cannot fail comes first, for all of them.
        follow.forget_noticed(&news);
        for entry in &news {
            match follow.noticed(entry).await {
                Ok(()) => {}
                Err(error) if error.is_away() => return Err(error),
                // Another try would end the same.
                Err(error) => {
                    tracing::error!(error = %chain(&error), entry = %entry.id, "a change is not followed");
                }
            }
            self.seen.insert(entry.id);
        }
        self.followed_to = now;
        let kept = first_id(now.minus(LOOK_BACK));
        self.seen.retain(|id| *id >= kept);
        Ok(())
    }

    /// Entries that were not followed yet, oldest first.
    async fn news(&self) -> Result<Vec<AuditRow>, Error> {
        let mut news = Vec::new();
        let mut after = first_id(self.followed_to.minus(LOOK_BACK));
        loop {
            let page = self.store.changes_after(after, ACTIONS, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            after = page.last().map_or(after, |entry| entry.id);
            news.extend(page.into_iter().filter(|entry| !self.seen.contains(&entry.id)));
            if is_last {
                return Ok(news);
            }
        }
    }
}

/// What every UUIDv7 of this moment or later is not below.
fn first_id(at: Micros) -> Uuid {
    let millis = u64::try_from(at.get() / 1_000).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

/// When a UUIDv7 was made.
fn made_at(id: Uuid) -> Micros {
    let (seconds, nanos) =
        id.get_timestamp().unwrap_or(uuid::Timestamp::from_unix_time(0, 0, 0, 0)).to_unix();
    Micros::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
        .plus(Span::from_micros(i64::from(nanos / 1_000)))
}

impl Follow {
    fn forget_noticed(&self, entries: &[AuditRow]) {
        let mut keyless = HashSet::new();
        for entry in entries {
            let Ok(target) = Uuid::from_str(&entry.target_id) else { continue };
            match entry.target_kind.as_str() {
                "plan" => self.catalog.forget_plan(PlanId::from_uuid(target)),
                "subscription" => {
                    let id = SubscriptionId::from_uuid(target);
                    self.catalog.forget_subscription(id);
                    match entry.action.as_str() {
                        "subscription.key.create" => self.catalog.doubt_unknown_keys(),
                        "subscription.update" => {}
                        _ => drop(keyless.insert(id)),
                    }
                }
                "token" => self.catalog.forget_token_named(&entry.target_id),
                _ => {}
            }
        }
        if !keyless.is_empty() {
            self.catalog.forget_keys_of(&keyless);
        }
    }

    /// Lets residents follow.
    async fn noticed(&self, entry: &AuditRow) -> Result<(), Error> {
        let Ok(target) = Uuid::from_str(&entry.target_id) else { return Ok(()) };
        let ids = match entry.target_kind.as_str() {
            "plan" => self.behind(PlanId::from_uuid(target)).await,
            "subscription" => vec![SubscriptionId::from_uuid(target)],
            _ => return Ok(()),
        };
        self.redefine(&ids).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_moment_is_below_every_id_of_it_and_above_those_before() {
        let at = Micros::from_micros(1_764_000_000_123_000);
        let made = |millis: u64, rest: u8| {
            uuid::Builder::from_unix_timestamp_millis(millis, &[rest; 10]).into_uuid()
        };
        assert!(first_id(at) <= made(1_764_000_000_123, 0));
        assert!(first_id(at) < made(1_764_000_000_123, 255));
        assert!(first_id(at) > made(1_764_000_000_122, 255));
        assert_eq!(first_id(Micros::from_micros(-1)), made(0, 0));
        assert_eq!(made_at(made(1_764_000_000_123, 7)), at);
    }
}
