//! The worker: one loop that claims and writes, and as many tasks as there are attempts under way.
//!
//! Role: the loop alone talks to the store, one call at a time, so that the outbox never takes more
//! than one of its connections. While the store is away nothing is claimed; what was sent meanwhile
//! stays in hand until its end is written, and fills the room of new attempts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use uuid::Uuid;
use weir_core::units::{Micros, Span};
use weir_store::outbox::{Addressed, ClaimedDelivery, DeliveryClaim, Ending, FinishedDelivery};
use weir_store::{Error, Result};

use super::Parts;
use super::attempt::Failed;
use super::backoff::Backoff;
use super::channels::Channels;
use super::sender::Sender;
use crate::metrics::{Ended, chain};

/// Messages addressed in one transaction. More: other writers wait for it (SQLite has one).
/// Fewer: a burst takes many round trips.
const ADDRESSED_MAX: u32 = 200;
/// Claims in one turn; after it what has ended meanwhile is written first.
const CLAIMS_MAX: usize = 16;
/// How many times as long as an attempt a claim lasts, which leaves time to write its end. Longer: the
/// deliveries of a killed node wait longer. Shorter: a store that is away for a moment makes another
/// worker send again.
const CLAIM_ATTEMPTS: u32 = 4;
/// How long it lasts at least: nodes' clocks differ, and the store may be slow.
const CLAIM_MIN: Duration = Duration::from_secs(4);
/// What attempts under way are given when the node ends.
const GRACE: Duration = Duration::from_secs(3);
/// Receivers remembered to have failed last time. More are forgotten all at once, which costs a few
/// attempts and no correctness.
const WARY_MAX: usize = 4_096;

/// Sends what waits in the outbox.
pub(super) struct Worker {
    parts: Parts,
    sender: Arc<Sender>,
    channels: Channels,
    backoff: Backoff,
    attempts_max: u32,
    concurrency: usize,
    endpoint_concurrency: usize,
    poll_interval: Duration,
    claim_span: Span,
    running: JoinSet<std::result::Result<(), Failed>>,
    held: HashMap<Id, Held>,
    unwritten: Vec<FinishedDelivery>,
    /// A claim whose answer was lost: asked for again before any other.
    doubtful: Option<Uuid>,
    /// Endpoints whose last attempt failed: one at a time is enough to find out that they are back,
    /// and a hundred dead ones leave room for all others.
    wary: HashSet<String>,
}

/// An attempt under way.
struct Held {
    claim: Uuid,
    delivery: ClaimedDelivery,
}

impl Worker {
    pub(super) fn new(settings: &weir_config::Delivery, sender: Sender, parts: Parts) -> Self {
        let claim = (settings.timeout * CLAIM_ATTEMPTS).max(CLAIM_MIN);
        Self {
            channels: sender.channels(),
            sender: Arc::new(sender),
            parts,
            backoff: Backoff { first: settings.backoff_first, max: settings.backoff_max },
            attempts_max: settings.attempts_max,
            concurrency: settings.concurrency,
            endpoint_concurrency: settings.endpoint_concurrency,
            poll_interval: settings.poll_interval,
            claim_span: Span::from(claim),
            running: JoinSet::new(),
            held: HashMap::new(),
            unwritten: Vec::new(),
            doubtful: None,
            wary: HashSet::new(),
        }
    }

    /// Works until it is stopped.
    pub(super) async fn run(mut self) {
        let stop = self.parts.stop.clone();
        while !stop.is_cancelled() {
            let pause = match self.turn().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => self.poll_interval,
                Err(error) => {
                    self.parts.metrics.outbox().store_failed();
                    tracing::debug!(error = %chain(&error), "the outbox waits for the store");
                    self.poll_interval
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
            while let Some(ended) = self.running.try_join_next_with_id() {
                self.ended(ended);
            }
        }
        self.finish().await;
    }

    /// Writes, addresses, claims. Whether there is more to do at once.
    async fn turn(&mut self) -> Result<bool> {
        self.write().await?;
        // One that fails, because of one message or one table, does not keep the other from going on.
        let (addressed, claimed) = (self.address().await, self.claim().await);
        self.parts.metrics.outbox().in_flight(self.held.len());
        let (more_messages, more_deliveries) = (addressed?, claimed?);
        // What was released in this turn is written in the next.
        Ok(more_messages || more_deliveries || !self.unwritten.is_empty())
    }

    async fn address(&self) -> Result<bool> {
        let found = self.parts.store.unaddressed(ADDRESSED_MAX).await?;
        if found.is_empty() {
            return Ok(false);
        }
        let addressed: Vec<Addressed> = found
            .iter()
            .map(|one| Addressed { id: one.id, destinations: self.channels.destinations(one) })
            .collect();
        self.parts.store.address(&addressed, self.parts.clock.now()).await?;
        Ok(found.len() == ADDRESSED_MAX as usize)
    }

    /// Begins what is due and has room. Whether room was left and more may be due.
    async fn claim(&mut self) -> Result<bool> {
        for _ in 0..CLAIMS_MAX {
            let free = self.concurrency.saturating_sub(self.held.len() + self.unwritten.len());
            if free == 0 {
                return Ok(false);
            }
            // Small, because all of it may be for one receiver.
            let limit = free.min(self.endpoint_concurrency);
            let now = self.parts.clock.now();
            let claim = DeliveryClaim {
                id: self.doubtful.take().unwrap_or_else(Uuid::now_v7),
                now,
                until: now.plus(self.claim_span),
                busy: self.busy(),
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
            };
            let taken = match self.parts.store.claim_deliveries(&claim).await {
                Ok(taken) => taken,
                Err(error) => {
                    // What failed for certain took nothing.
                    self.doubtful = matches!(error, Error::Unknown { .. }).then_some(claim.id);
                    return Err(error);
                }
            };
            let count = taken.len();
            for delivery in taken {
                self.begin(claim.id, delivery, now);
            }
            if count < limit {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Endpoints that have all they may have.
    fn busy(&self) -> Vec<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for held in self.held.values() {
            *counts.entry(&held.delivery.endpoint).or_default() += 1;
        }
        let full = |(endpoint, count): (&str, usize)| {
            (count >= self.most_for(endpoint)).then(|| endpoint.to_owned())
        };
        counts.into_iter().filter_map(full).collect()
    }

    fn most_for(&self, endpoint: &str) -> usize {
        if self.wary.contains(endpoint) { 1 } else { self.endpoint_concurrency }
    }

    fn begin(&mut self, claim: Uuid, delivery: ClaimedDelivery, now: Micros) {
        let with = self.held.values().filter(|held| held.delivery.endpoint == delivery.endpoint);
        if with.count() >= self.most_for(&delivery.endpoint) {
            self.unwritten.push(finished(claim, delivery, Ending::Released, None, now));
            return;
        }
        if delivery.attempts > self.attempts_max {
            // Its last attempt was under way when its node was gone.
            let reason = "the last attempt was cut off with its node".to_owned();
            self.parts.metrics.outbox().ended(&delivery.channel, Ended::Dead);
            self.unwritten.push(finished(claim, delivery, Ending::Dead, Some(reason), now));
            return;
        }
        let (sender, attempt) = (self.sender.clone(), delivery.clone());
        let task = self.running.spawn(async move { sender.attempt(&attempt, now).await });
        self.held.insert(task.id(), Held { claim, delivery });
    }

    fn ended(
        &mut self,
        ended: std::result::Result<(Id, std::result::Result<(), Failed>), JoinError>,
    ) {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            // The panic itself was logged by its hook.
            Err(error) => (error.id(), Err(Failed::for_now("the attempt panicked"))),
        };
        let Some(Held { claim, delivery }) = self.held.remove(&id) else { return };
        let now = self.parts.clock.now();
        let metrics = self.parts.metrics.outbox();
        let (channel, attempts) = (delivery.channel.clone(), delivery.attempts);
        match outcome {
            Ok(()) => {
                self.wary.remove(&delivery.endpoint);
                metrics.ended(&channel, Ended::Delivered);
                self.unwritten.push(finished(claim, delivery, Ending::Delivered, None, now));
            }
            Err(failed) => {
                let is_dead = failed.is_final || attempts >= self.attempts_max;
                metrics.ended(&channel, if is_dead { Ended::Dead } else { Ended::Failed });
                let ending = if is_dead {
                    let (id, reason) = (delivery.message, &failed.reason);
                    tracing::warn!(notification = %id, channel, attempts, reason, "given up");
                    Ending::Dead
                } else {
                    let random = rand::random();
                    let pause = self.backoff.pause(attempts, random, failed.retry_after);
                    Ending::Retry(now.plus(Span::from(pause)))
                };
                if self.wary.len() >= WARY_MAX {
                    self.wary.clear();
                }
                self.wary.insert(delivery.endpoint.clone());
                self.unwritten.push(finished(claim, delivery, ending, Some(failed.reason), now));
            }
        }
    }

    /// Writes how attempts ended; what cannot be written now is kept.
    async fn write(&mut self) -> Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        match self.parts.store.finish_deliveries(&self.unwritten).await {
            Ok(held) => {
                let late = held.iter().filter(|held| !**held).count();
                if late > 0 {
                    tracing::debug!(late, "claims ran out before their end was written");
                }
                self.unwritten.clear();
                Ok(())
            }
            Err(error) => {
                if !error.is_away() {
                    // Not to be tried for ever: the claims run out and the deliveries come back.
                    tracing::error!(error = %chain(&error), "ends of deliveries were not written");
                    self.unwritten.clear();
                }
                Err(error)
            }
        }
    }

    /// Gives what is under way a moment, and the rest back.
    async fn finish(mut self) {
        let lost = self.parts.lost.clone();
        let waiting = async {
            while let Some(ended) = self.running.join_next_with_id().await {
                self.ended(ended);
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(GRACE, waiting) => {}
            () = lost.cancelled() => return,
        }
        self.running.abort_all();
        let now = self.parts.clock.now();
        for (_, Held { claim, delivery }) in self.held.drain() {
            // It may have arrived: then it arrives twice, under the same id.
            self.unwritten.push(finished(claim, delivery, Ending::Released, None, now));
        }
        if let Err(error) = self.write().await {
            log_left(&error);
        }
    }
}

fn log_left(error: &Error) {
    tracing::warn!(error = %chain(error), "deliveries under way are sent again by another node");
}

fn finished(
    claim: Uuid,
    delivery: ClaimedDelivery,
    ending: Ending,
    error: Option<String>,
    at: Micros,
) -> FinishedDelivery {
    let (message, channel) = (delivery.message, delivery.channel);
    FinishedDelivery { claim, message, channel, ending, error, at }
}
