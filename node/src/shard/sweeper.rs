//! Upkeep of the residents: rest for idle ones, a bound on their number, new life for lost ones.

use std::time::Duration;

use futures::future::join_all;
use weir_core::units::{Micros, Span, SubscriptionId};

use super::message::Message;
use super::registry::Shards;

/// How often residents are looked through.
const EVERY: Duration = Duration::from_secs(1);
/// Actors loaded at once: what one query of the loader takes.
const REVIVE_AT_ONCE: usize = 256;
/// Actors sent to rest in one look, so that their checkpoints do not crowd out those that matter.
const RETIRE_MAX: usize = 5_000;

pub(super) fn start(shards: Shards) {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            revive(&shards).await;
            // Without a store nothing can rest in order.
            if shards.deps().health.is_up() {
                retire(&shards);
            }
        }
    });
}

/// Loads subscriptions that missed a row, so that their shard's bound can move on.
async fn revive(shards: &Shards) {
    for chunk in shards.deps().ownership.holes().chunks(REVIVE_AT_ONCE) {
        let reviving = chunk.iter().map(|&(subscription, shard)| async move {
            (subscription, shards.activate(subscription, shard).await)
        });
        for (subscription, outcome) in join_all(reviving).await {
            match outcome {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {
                    shards.deps().ownership.close_hole(subscription, u64::MAX);
                }
                Err(error) => {
                    let error = crate::metrics::chain(&error);
                    tracing::debug!(%subscription, %error, "not revived yet");
                }
            }
        }
        if !shards.deps().health.is_up() {
            return;
        }
    }
}

fn retire(shards: &Shards) {
    let now = shards.deps().clock.now();
    let limits = shards.deps().limits;
    let idle = Span::from(limits.passivate_after);
    let mut chosen: Vec<SubscriptionId> = Vec::new();
    let mut used: Vec<(Micros, SubscriptionId)> = Vec::new();
    let over = shards.resident().saturating_sub(limits.resident_max);
    for entry in shards.residents().iter() {
        if now.since(entry.last_used()) >= idle {
            chosen.push(*entry.key());
        } else if over > 0 {
            used.push((entry.last_used(), *entry.key()));
        }
    }
    let more = over.saturating_sub(chosen.len()).min(used.len());
    if more > 0 {
        used.select_nth_unstable(more - 1);
        chosen.extend(used[..more].iter().map(|&(_, id)| id));
    }
    for id in chosen.into_iter().take(RETIRE_MAX) {
        if let Some(handle) = shards.residents().get(&id) {
            handle.send(Message::Retire);
        }
    }
}
