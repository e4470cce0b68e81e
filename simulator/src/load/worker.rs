//! One thread of the client: its connections, its events, its measurements.
//!
//! A worker is a single-threaded runtime, so nothing on its hot path is locked or sent to another
//! thread. It first measures `/livez` over its connections, then waits for the run's plan, then
//! plays its part of the load over the same connections.
//!
//! ```text
//! connect ─► baseline ─► (set-up elsewhere) ─► load ─► drain ─► flush events ─► yield
//! ```

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::task::LocalSet;

use super::scenario::{Draw, ROUTES, Workload};
use super::schedule::{Arrivals, Wave};
use super::table::Table;
use crate::check;
use crate::client::{Lane, Prepared};
use crate::clock::{self, WallAnchor};
use crate::measure::{Latency, Outcome, Recorder};
use crate::numbers::{count, float, index};
use crate::outbox::{self, EventTally, FlushOptions, Outbox, OutgoingEvent};
use crate::usage_event::UsageEvent;

/// A request that leaves later than this after it was due counts as late: twice the timer's width.
const LATE_AFTER: Duration = Duration::from_millis(1);

/// A repeat with the same one, through any node, gets the same decision and charges nothing more.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where a worker's requests come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The pacer's queue.
    Open(Arc<Arrivals>),
    /// Each connection draws for itself, in waves.
    Closed(Wave),
}

/// All that the workers of a run share. Read-only but for the counters.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) run: String,
    pub(super) table: Table,
    pub(super) workload: Workload,
    pub(super) source: Source,
    pub(super) check_uris: Vec<Uri>,
    pub(super) seed: u64,
    pub(super) connections: usize,
    pub(super) start: Instant,
    pub(super) duration: Duration,
    /// After this, requests that still wait are given up.
    pub(super) drain_until: Instant,
    pub(super) flush: Option<FlushOptions>,
    pub(super) gateway: HeaderValue,
    pub(super) finished: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) stop: Arc<AtomicBool>,
    /// Whether a check whose connection fails goes to the next target.
    pub(super) fails_over: bool,
}

impl Shared {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.start + self.duration || self.stop.load(Ordering::Relaxed)
    }
}

/// What a worker brings home.
#[derive(Debug)]
pub(super) struct Yield {
    pub(super) recorder: Recorder,
    pub(super) events: EventTally,
    pub(super) admitted_units: Vec<u64>,
    pub(super) finished_at: Instant,
}

/// The lanes of one worker.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) checks: Vec<Lane>,
    pub(super) events: Vec<Lane>,
    /// Number of the first check lane among all of the run.
    pub(super) first: usize,
    /// Number of the worker.
    pub(super) worker: usize,
}

/// Asks `/livez` as fast as it answers, over all check lanes, for `duration`.
pub(super) async fn baseline(lanes: &mut Lanes, duration: Duration) -> (u64, Latency) {
    let end = clock::now() + duration;
    let request = Prepared::get(Uri::from_static("/livez"), HeaderMap::new());
    let runners = lanes.checks.iter_mut().map(|lane| {
        let request = &request;
        async move {
            let mut latency = Latency::new();
            loop {
                let sent = clock::now();
                if sent >= end {
                    return latency;
                }
                if lane.call(request).await.is_ok_and(|answer| answer.status.is_success()) {
                    latency.record(clock::now() - sent);
                }
            }
        }
    });
    let mut all = Latency::new();
    for latency in futures::future::join_all(runners).await {
        all.merge(&latency);
    }
    (all.len(), all)
}

/// Opens every check connection (again), so that the load does not begin with handshakes.
pub(super) async fn connect(lanes: &mut Lanes) {
    let request = Prepared::get(Uri::from_static("/livez"), HeaderMap::new());
    let calls = lanes.checks.iter_mut().map(|lane| lane.call(&request));
    // A lane that fails here connects again with its first check, where failures are counted.
    futures::future::join_all(calls).await;
}

/// Plays this worker's part of the load.
pub(super) async fn load(lanes: Lanes, shared: Arc<Shared>) -> Yield {
    LocalSet::new().run_until(play(lanes, shared)).await
}

async fn play(lanes: Lanes, shared: Arc<Shared>) -> Yield {
    let outbox = shared.flush.map(|options| Outbox::new(options, shared.table.capacity()));
    let senders: Vec<_> = match &outbox {
        Some(outbox) => lanes
            .events
            .into_iter()
            .map(|lane| {
                let sending = outbox::run_lane(Rc::clone(outbox), lane, shared.gateway.clone());
                tokio::task::spawn_local(sending)
            })
            .collect(),
        None => Vec::new(),
    };
    let context = Rc::new(Context {
        recorder: RefCell::new(Recorder::new(shared.duration)),
        admitted_units: RefCell::new(vec![0; shared.table.capacity()]),
        sequence: Cell::new(0),
        checks: Cell::new(0),
        worker: lanes.worker,
        anchor: WallAnchor::take(),
        outbox,
        shared,
    });
    tokio::time::sleep_until(context.shared.start.into()).await;
    let connections: Vec<_> = lanes
        .checks
        .into_iter()
        .enumerate()
        .map(|(place, lane)| {
            let number = lanes.first + place;
            tokio::task::spawn_local(Rc::clone(&context).connection(lane, number))
        })
        .collect();
    wait_for(connections).await;
    let finished_at = clock::now();
    if let Some(outbox) = &context.outbox {
        outbox.close();
    }
    wait_for(senders).await;
    Yield {
        recorder: context.recorder.replace(Recorder::new(Duration::ZERO)),
        events: context
            .outbox
            .as_ref()
            .map_or_else(EventTally::default, |outbox| Rc::clone(outbox).into_tally()),
        admitted_units: context.admitted_units.take(),
        finished_at,
    }
}

/// A task that panicked takes the worker with it: its numbers would be wrong.
async fn wait_for(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        if let Err(failed) = task.await
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}

struct Context {
    shared: Arc<Shared>,
    outbox: Option<Rc<Outbox<LoadEvent>>>,
    recorder: RefCell<Recorder>,
    admitted_units: RefCell<Vec<u64>>,
    sequence: Cell<u64>,
    checks: Cell<u64>,
    worker: usize,
    anchor: WallAnchor,
}

impl Context {
    async fn connection(self: Rc<Self>, mut lane: Lane, number: usize) {
        let mut random = ChaCha8Rng::seed_from_u64(self.shared.seed);
        // Stream 0 is the pacer's.
        random.set_stream(count(number) + 1);
        while self.has_room().await {
            let Some((due_at, draw)) = self.next(number, &mut random).await else { break };
            self.check(&mut lane, due_at, draw).await;
        }
    }

    /// Waits until the outbox takes events; false when it does not until the end.
    async fn has_room(&self) -> bool {
        match &self.outbox {
            Some(outbox) if outbox.is_full() => {
                let end = self.shared.drain_until.into();
                tokio::time::timeout_at(end, outbox.has_room()).await.is_ok()
            }
            _ => true,
        }
    }

    /// The next request and when it was due; in a closed loop that is now.
    async fn next(&self, number: usize, random: &mut ChaCha8Rng) -> Option<(Instant, Draw)> {
        match &self.shared.source {
            Source::Open(arrivals) => {
                if clock::now() >= self.shared.drain_until {
                    arrivals.abandon();
                }
                arrivals.next().await.map(|arrival| (arrival.due_at, arrival.draw))
            }
            Source::Closed(wave) => loop {
                let now = clock::now();
                if self.shared.is_over(now) {
                    return None;
                }
                let pause = wave.pause(now - self.shared.start, number, self.shared.connections);
                if pause.is_zero() {
                    let draw = self.shared.workload.draw(random, self.shared.table.live());
                    return Some((now, draw));
                }
                let end = self.shared.start + self.shared.duration;
                tokio::time::sleep_until((now + pause).min(end).into()).await;
            },
        }
    }

    async fn check(&self, lane: &mut Lane, due_at: Instant, draw: Draw) {
        let Some(subscription) = self.shared.table.get(draw.subscription) else { return };
        let uri = self.shared.check_uris[draw.route].clone();
        let mut request = Prepared::get(uri, subscription.headers());
        let sent_at = clock::now();
        let (outcome, again) = if self.shared.fails_over {
            request.headers.insert(IDEMPOTENCY_KEY, self.request_id());
            lane.call_any(&request).await
        } else {
            (lane.call(&request).await, 0)
        };
        let done_at = clock::now();
        self.shared.finished.fetch_add(1, Ordering::Relaxed);

        let mut recorder = self.recorder.borrow_mut();
        if sent_at - due_at > LATE_AFTER {
            recorder.late += 1;
        }
        recorder.failed_over += u64::from(again > 0);
        let decision = check::decision(&outcome);
        let noted = match &decision {
            Ok(decision) if decision.allowed => Outcome::Allowed,
            Ok(decision) => Outcome::Denied(&decision.reason),
            Err(cause) => Outcome::Failed(cause),
        };
        let since_start = done_at - self.shared.start;
        recorder.check(since_start, noted, done_at - due_at, done_at - sent_at);
        match (&decision, &outcome) {
            (Ok(decision), Ok(answer)) => {
                recorder.degraded += u64::from(decision.is_degraded());
                recorder.proxied += u64::from(check::is_proxied(answer));
            }
            _ => {
                self.shared.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        if decision.is_ok_and(|decision| decision.allowed) {
            recorder.allowed_units += ROUTES[draw.route].cost;
            self.allowed(draw, done_at);
        }
    }

    /// Unique among the checks of the run.
    fn request_id(&self) -> HeaderValue {
        let number = self.checks.get();
        self.checks.set(number + 1);
        HeaderValue::from_str(&format!("{}-{:x}-{number:x}", self.shared.run, self.worker))
            .expect("the run's name and hexadecimal digits are plain text")
    }

    fn allowed(&self, draw: Draw, at: Instant) {
        self.admitted_units.borrow_mut()[draw.subscription] += ROUTES[draw.route].cost;
        if let Some(outbox) = &self.outbox {
            let sequence = self.sequence.get();
            self.sequence.set(sequence + 1);
            outbox.push(LoadEvent {
                shared: Arc::clone(&self.shared),
                worker: self.worker,
                sequence,
                draw,
                at_ms: self.anchor.millis_at(at),
            });
        }
    }
}

/// An allowed request that was served by the imaginary API.
struct LoadEvent {
    shared: Arc<Shared>,
    worker: usize,
    sequence: u64,
    draw: Draw,
    at_ms: i64,
}

impl OutgoingEvent for LoadEvent {
    fn subscription(&self) -> usize {
        self.draw.subscription
    }

    fn units(&self) -> u64 {
        ROUTES[self.draw.route].cost
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let Some(subscription) = self.shared.table.get(self.draw.subscription) else { return };
        let route = ROUTES[self.draw.route];
        UsageEvent {
            id: &format!("{}-{:x}-{:x}", self.shared.run, self.worker, self.sequence),
            subscription_id: &subscription.id,
            api_path: Some(route.path),
            method: Some(route.method),
            status_code: self.draw.status,
            success: self.draw.status < 400,
            response_time_ms: Some(float(u64::from(self.draw.response_micros)) / 1_000.0),
            timestamp: &clock::rfc3339(self.at_ms),
            request_size: 0,
            response_size: u64::from(self.draw.response_bytes),
            user_agent: Some("weir-sim"),
            ip_address: Some("192.0.2.1"),
            units: Some(route.cost),
        }
        .append_to(out);
    }
}

/// Splits `total` lanes over `workers`: the number and the first index of each.
pub(super) fn split(total: usize, workers: usize) -> Vec<(usize, usize)> {
    (0..workers)
        .map(|worker| {
            let first = index(count(total) * count(worker) / count(workers));
            let next = index(count(total) * count(worker + 1) / count(workers));
            (next - first, first)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_one_worker() {
        for (total, workers) in [(64, 1), (10, 3), (2, 4), (7, 7)] {
            let parts = split(total, workers);
            let mut next = 0;
            for (size, first) in &parts {
                assert_eq!(*first, next);
                next += size;
            }
            assert_eq!((next, parts.len()), (total, workers));
        }
    }
}
