//! Loading actors' state, many in one query.
//!
//! An actor asks for itself while it starts; requests that come while a query is under way gather for
//! the next one. So a burst of cold subscriptions costs a few queries, not one each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use weir_core::meter::{Command, Entry, Meter};
use weir_core::terms::Terms;
use weir_core::units::{Micros, Seq, ShardId, SubscriptionId};
use weir_store::{Error, Loaded, Store};

use super::Deps;
use crate::catalog::definition::Definition;
use crate::catalog::{Catalog, PlanLookupError};
use crate::codec::{CodecError, decode_snapshot};
use crate::recorder::entry_of;

/// Requests that may wait: beyond it activations are refused rather than queued for seconds.
const QUEUE_MAX: usize = 16_384;
/// Ids in one query: amortises the round trip, keeps one answer small.
const BATCH_MAX: usize = 256;
/// How long a load waits for a dead actor's last batch: as long as a healthy commit may take.
const SETTLE_WAIT: Duration = Duration::from_secs(2);
/// Queries at once: one being answered, one being asked.
const WORKERS: usize = 2;

/// Why an actor could not be loaded. A value that reaches whoever asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// There is no such subscription.
    #[error("no such subscription")]
    NotFound,
    /// The store is known to be away: waiting for it would only cost the caller's patience.
    #[error("the store is away")]
    StoreAway,
    /// The store did not answer.
    #[error("the store could not be read")]
    Store(#[source] Arc<Error>),
    /// Its plan could not be had.
    #[error("the plan could not be read")]
    Plan(#[source] Arc<PlanLookupError>),
    /// Its snapshot could not be read.
    #[error("the snapshot could not be read")]
    Snapshot(#[source] Arc<CodecError>),
    /// Too many are being loaded.
    #[error("too many subscriptions are being loaded")]
    Busy,
}

struct Request {
    subscription: SubscriptionId,
    shard: ShardId,
    reply: oneshot::Sender<Result<Loaded, LoadError>>,
}

/// Door to the loader.
#[derive(Clone)]
pub(super) struct Loader {
    requests: mpsc::Sender<Request>,
}

/// What an actor starts from.
pub(super) struct Start {
    pub(super) meter: Meter,
    pub(super) definition: Definition,
    /// Something is not persisted yet, or an escrow was withheld.
    pub(super) unclean: bool,
    /// Nothing is persisted yet, not even the terms that it begins under.
    pub(super) newborn: bool,
    /// Version of the last checkpoint.
    pub(super) version: i64,
}

impl Loader {
    pub(super) fn start(store: Arc<dyn Store>, deps: &Arc<Deps>) -> Self {
        let (requests, inbox) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(gather(store, deps.clone(), inbox));
        Self { requests }
    }

    /// A subscription's state as of now.
    pub(super) async fn load(
        &self,
        deps: &Deps,
        subscription: SubscriptionId,
        shard: ShardId,
    ) -> Result<Start, LoadError> {
        if !deps.health.is_up() {
            return Err(LoadError::StoreAway);
        }
        let settled = deps.checkpointer.settled(subscription);
        if tokio::time::timeout(SETTLE_WAIT, settled).await.is_err() {
            return Err(LoadError::StoreAway);
        }
        let (reply, answer) = oneshot::channel();
        let request = Request { subscription, shard, reply };
        self.requests.try_send(request).map_err(|_| LoadError::Busy)?;
        let loaded = answer.await.map_err(|_| LoadError::Busy)??;
        start_from(deps, loaded).await
    }
}

async fn gather(store: Arc<dyn Store>, deps: Arc<Deps>, mut inbox: mpsc::Receiver<Request>) {
    let slots = Arc::new(Semaphore::new(WORKERS));
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while inbox.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // The semaphore is never closed; while we wait here the next batch gathers.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (store, deps, batch) = (store.clone(), deps.clone(), std::mem::take(&mut batch));
        tokio::spawn(async move {
            answer_batch(&*store, &deps, batch).await;
            drop(slot);
        });
    }
}

async fn answer_batch(store: &dyn Store, deps: &Deps, batch: Vec<Request>) {
    let ids: Vec<(SubscriptionId, ShardId, Seq)> = batch
        .iter()
        .map(|request| (request.subscription, request.shard, deps.ownership.counted(request.shard)))
        .collect();
    match store.load(&ids).await {
        Ok(loaded) => {
            let mut by_id: HashMap<SubscriptionId, Loaded> =
                loaded.into_iter().map(|loaded| (loaded.subscription.id, loaded)).collect();
            for request in batch {
                let found = by_id.remove(&request.subscription).ok_or(LoadError::NotFound);
                // A caller that gave up does not need the answer.
                let _ = request.reply.send(found);
            }
        }
        Err(error) => {
            if error.is_away() {
                deps.health.set_up(false);
            }
            let error = LoadError::Store(Arc::new(error));
            for request in batch {
                let _ = request.reply.send(Err(error.clone()));
            }
        }
    }
}

/// A subscription's state machine as its owner would have it, and what it was made from.
pub struct Restored {
    /// Every row that was loaded is counted, and time has passed until now.
    pub meter: Meter,
    /// As of now.
    pub definition: Definition,
    /// Whether the terms that waited came into force on the way.
    pub switched: bool,
}

/// Makes a subscription's state from what was loaded. Billing reckons by the same: what is charged is
/// what a check would be told.
pub async fn restore(
    catalog: &Catalog,
    now: Micros,
    loaded: &Loaded,
) -> Result<Restored, LoadError> {
    let snapshot = match &loaded.checkpoint {
        Some(row) => {
            let state = decode_snapshot(&row.snapshot)
                .map_err(|error| LoadError::Snapshot(Arc::new(error)))?;
            Some((state, row.clean))
        }
        None => None,
    };
    let running = snapshot.as_ref().map(|(state, _)| state.plan_version);
    let newest = u32::try_from(loaded.plan_version).unwrap_or_default();
    let mut definition = catalog
        .define(&loaded.subscription, newest, running)
        .await
        .map_err(|error| LoadError::Plan(Arc::new(error)))?;
    let tail: Vec<Entry> = loaded.tail.iter().map(entry_of).collect();
    let (terms, next) = (definition.terms.clone(), definition.next.clone());
    let mut meter = match &snapshot {
        Some((state, clean)) => Meter::restore_awaiting(terms, next, state, *clean, &tail, now),
        None => begin(terms, next, &tail, now),
    };
    meter.apply(now, Command::Suspend(definition.suspended));
    // The billing period may have ended while nobody was resident.
    let switched = !Arc::ptr_eq(meter.terms(), &definition.terms);
    if switched {
        definition.terms = meter.terms().clone();
        definition.next = None;
    }
    Ok(Restored { meter, definition, switched })
}

async fn start_from(deps: &Deps, loaded: Loaded) -> Result<Start, LoadError> {
    let restored = restore(&deps.catalog, deps.clock.now(), &loaded).await?;
    let Restored { meter, definition, switched } = restored;
    let newborn = loaded.checkpoint.is_none();
    let is_clean = loaded.checkpoint.as_ref().is_none_or(|checkpoint| checkpoint.clean);
    Ok(Start {
        meter,
        definition,
        unclean: switched || !loaded.tail.is_empty() || !is_clean,
        newborn,
        version: loaded.checkpoint.map_or(0, |row| row.version),
    })
}

/// A subscription that was never checkpointed.
fn begin(terms: Arc<Terms>, next: Option<Arc<Terms>>, tail: &[Entry], now: Micros) -> Meter {
    let mut meter = Meter::new(terms, now);
    for entry in tail {
        meter.apply(now, Command::Record(entry));
    }
    if let Some(next) = next {
        meter.apply(now, Command::ConfigureNext(next));
    }
    meter
}
