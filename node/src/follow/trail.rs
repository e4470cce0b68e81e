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
    /// When it was last read whole.
    read_at: Micros,
    /// Entries behind that, followed already.
    seen: HashSet<Uuid>,
}

/// Follows what is found, until `stop`.
pub async fn keep(follow: Follow, clock: Arc<Clock>, stop: CancellationToken) {
    // Nothing is remembered from before.
    let mut trail =
        Trail { store: follow.store.clone(), read_at: clock.now(), seen: HashSet::new() };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        match trail.news(clock.now()).await {
            Ok(entries) => {
                for entry in entries {
                    follow.noticed(&entry).await;
                }
            }
            Err(error) => tracing::debug!(error = %chain(&error), "the audit log is not read"),
        }
    }
}

impl Trail {
    /// Entries that were not seen yet, oldest first.
    async fn news(&mut self, now: Micros) -> Result<Vec<AuditRow>, Error> {
        let from = first_id(self.read_at.minus(LOOK_BACK));
        let mut news = Vec::new();
        let mut after = from;
        loop {
            let page = self.store.changes_after(after, ACTIONS, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            after = page.last().map_or(after, |entry| entry.id);
            news.extend(page.into_iter().filter(|entry| !self.seen.contains(&entry.id)));
            if is_last {
                break;
            }
        }
        self.read_at = now;
        let kept = first_id(now.minus(LOOK_BACK));
        self.seen.extend(news.iter().map(|entry| entry.id));
        self.seen.retain(|id| *id >= kept);
        Ok(news)
    }
}

/// What every UUIDv7 of this moment or later is not below.
fn first_id(at: Micros) -> Uuid {
    let millis = u64::try_from(at.get() / 1_000).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

impl Follow {
    async fn noticed(&self, entry: &AuditRow) {
        let Ok(target) = Uuid::from_str(&entry.target_id) else { return };
        match entry.target_kind.as_str() {
            "plan" => self.noticed_plan(PlanId::from_uuid(target)).await,
            "subscription" => {
                let id = SubscriptionId::from_uuid(target);
                if entry.action != "subscription.update" {
                    self.catalog.forget_keys_of(id);
                }
                self.catalog.forget_subscription(id);
                self.redefine(&[id]).await;
            }
            "token" => self.catalog.forget_token_named(&entry.target_id),
            _ => {}
        }
    }

    /// A plan may have a hundred thousand residents, nearly all of which have followed already.
    async fn noticed_plan(&self, plan: PlanId) {
        self.catalog.forget_plan(plan);
        let newest = self.catalog.newest_plan(plan).await.map(|plan| plan.version);
        let behind = self.shards.on_plan_behind(plan, newest.unwrap_or(u32::MAX));
        self.redefine(&behind).await;
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
    }
}
