//! The worker threads of a run: hired with their connections, measured against `/livez`, then sent
//! into the load.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::escort::Escort;
use super::options::Options;
use super::outcome::Baseline;
use super::run::runtime;
use super::worker::{self, Lanes, Shared, Yield};
use crate::Error;
use crate::client::Lane;
use crate::measure::Latency;
use crate::numbers::per_second;
use crate::progress::Progress;

/// The worker threads, each waiting for its orders.
pub(super) struct Crew {
    pub(super) workers: Vec<JoinHandle<Option<Yield>>>,
    baselines: mpsc::Receiver<(u64, Latency)>,
    pub(super) orders: Vec<mpsc::SyncSender<Arc<Shared>>>,
}

impl Crew {
    pub(super) fn hire(options: &Options, escort: Option<&Escort>) -> Result<Self, Error> {
        let workers_count = options.workers.min(options.connections);
        let (baseline_sender, baselines) = mpsc::sync_channel(workers_count);
        let (mut workers, mut orders) = (Vec::new(), Vec::new());
        let event_lanes =
            worker::split(options.event_connections.max(workers_count), workers_count);
        let check_lanes = worker::split(options.connections, workers_count);
        for (number, (checks, events)) in check_lanes.into_iter().zip(event_lanes).enumerate() {
            let lanes = Lanes {
                checks: lanes(options, escort, checks),
                events: lanes(options, escort, events),
                first: checks.1,
                worker: number,
            };
            let (order_sender, order) = mpsc::sync_channel(1);
            let (duration, baseline) = (options.baseline, baseline_sender.clone());
            let runtime = runtime()?;
            let handle = std::thread::Builder::new()
                .name(format!("weir-sim-{number}"))
                .spawn(move || work(&runtime, lanes, duration, &baseline, &order))
                .map_err(|source| Error::Start { what: "a worker thread", source })?;
            workers.push(handle);
            orders.push(order_sender);
        }
        Ok(Self { workers, baselines, orders })
    }

    /// Collects what `/livez` did; none when it was skipped.
    pub(super) fn baseline(&self, options: &Options) -> Option<Baseline> {
        if options.baseline.is_zero() {
            return None;
        }
        let progress = Progress::begin("baseline", 1, options.quiet);
        let (mut answers, mut latency) = (0, Latency::new());
        for (number, more) in self.baselines.iter().take(self.workers.len()) {
            answers += number;
            latency.merge(&more);
        }
        let rate = per_second(answers, options.baseline);
        progress.end(&format!("/livez answers {rate:.0} requests/s"));
        Some(Baseline {
            seconds: options.baseline.as_secs_f64(),
            requests_per_second: rate,
            latency_micros: latency.percentiles(),
            ratio: None,
        })
    }
}

fn lanes(options: &Options, escort: Option<&Escort>, (number, first): (usize, usize)) -> Vec<Lane> {
    let targets = &options.access.targets;
    (first..first + number)
        .map(|place| {
            let lane = Lane::new(Arc::clone(targets), place, options.request_timeout);
            match escort {
                Some(escort) => lane.homing(escort.healed.clone()),
                None => lane,
            }
        })
        .collect()
}

/// The life of a worker thread. It ends early when the main thread gives up and drops its order.
fn work(
    runtime: &Runtime,
    mut lanes: Lanes,
    baseline: Duration,
    baselines: &mpsc::SyncSender<(u64, Latency)>,
    order: &mpsc::Receiver<Arc<Shared>>,
) -> Option<Yield> {
    if !baseline.is_zero() {
        let measured = runtime.block_on(worker::baseline(&mut lanes, baseline));
        baselines.send(measured).ok()?;
    }
    let shared = order.recv().ok()?;
    runtime.block_on(async {
        worker::connect(&mut lanes).await;
        Some(worker::load(lanes, shared).await)
    })
}
