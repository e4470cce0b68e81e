//! Administration during the load: subscriptions are made, keys rotated and revoked.
//!
//! A rotation makes a new key, lets the load use it, then revokes the key before it; a revoked key
//! must stop working within a bounded time, which is looked at with peeks (cost 0).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::setup::Maker;
use super::worker::Shared;
use crate::Error;
use crate::api::Api;
use crate::clock;

/// Keys are rotated among this many subscriptions, so that most of them see a second rotation, and
/// with it a revocation, even in a short run.
const ROTATED_SUBSCRIPTIONS_MAX: usize = 16;
/// Of the operations, the share that makes a subscription.
const CREATE_SHARE: f64 = 0.3;
/// A revoked key must be refused by every node within this time.
const REVOCATION_MAX: Duration = Duration::from_secs(5);
/// Wait between two looks at a revoked key.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Churn's stream of the seed; connections count up from 1 and never get there.
const STREAM: u64 = u64::MAX;

/// What churn did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChurnCounts {
    /// Subscriptions made during the load.
    pub created: u64,
    /// Keys made during the load.
    pub rotated: u64,
    /// Keys revoked during the load.
    pub revoked: u64,
    /// Revoked keys that still worked when their time was up.
    pub revoked_still_allowed: u64,
    /// Operations that Weir refused or that failed.
    pub failed: u64,
    /// The last of those failures.
    pub last_failure: Option<String>,
}

struct Key {
    id: String,
    secret: String,
}

/// Performs `per_second` operations a second until the load is over.
pub(super) async fn run(
    mut api: Api,
    maker: Maker<'_>,
    shared: &Shared,
    per_second: u32,
) -> ChurnCounts {
    let mut random = ChaCha8Rng::seed_from_u64(shared.seed);
    random.set_stream(STREAM);
    let mut counts = ChurnCounts::default();
    let mut keys: HashMap<usize, Key> = HashMap::new();
    let mut every =
        tokio::time::interval_at(shared.start.into(), Duration::from_secs(1) / per_second.max(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = shared.start + shared.duration;
    loop {
        every.tick().await;
        if clock::now() >= end || shared.stop.load(Ordering::Relaxed) {
            return counts;
        }
        let has_room = shared.table.live() < shared.table.capacity();
        let done = if random.random_bool(CREATE_SHARE) && has_room {
            create(&mut api, &maker, shared, &mut counts).await
        } else {
            let index = random.random_range(0..shared.table.live().min(ROTATED_SUBSCRIPTIONS_MAX));
            rotate(&mut api, shared, index, &mut keys, &mut counts).await
        };
        if let Err(error) = done {
            counts.failed += 1;
            counts.last_failure = Some(error.chain());
        }
    }
}

async fn create(
    api: &mut Api,
    maker: &Maker<'_>,
    shared: &Shared,
    counts: &mut ChurnCounts,
) -> Result<(), Error> {
    let (subscription, _key) = maker.make(api, shared.table.live()).await?;
    counts.created += u64::from(shared.table.add(subscription));
    Ok(())
}

async fn rotate(
    api: &mut Api,
    shared: &Shared,
    index: usize,
    keys: &mut HashMap<usize, Key>,
    counts: &mut ChurnCounts,
) -> Result<(), Error> {
    let Some(subscription) = shared.table.get(index) else { return Ok(()) };
    let created = api.create_key(&subscription.id).await?;
    let Some(secret) = created.key else { return Ok(()) };
    subscription.set_key(&secret)?;
    counts.rotated += 1;
    let Some(old) = keys.insert(index, Key { id: created.id, secret }) else { return Ok(()) };
    api.revoke_key(&subscription.id, &old.id).await?;
    counts.revoked += 1;
    let is_refused = refused_by(api, &old.secret, clock::now() + REVOCATION_MAX).await?;
    counts.revoked_still_allowed += u64::from(!is_refused);
    Ok(())
}

async fn refused_by(api: &mut Api, key: &str, deadline: Instant) -> Result<bool, Error> {
    loop {
        if !api.peek(key).await?.allowed {
            return Ok(true);
        }
        if clock::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
