//! One load run from the first connection to the verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::Uri;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::churn::{self, ChurnCounts};
use super::crew::Crew;
use super::escort::Escort;
use super::options::{Options, Rate};
use super::outcome::{Baseline, Configuration, LoadReport};
use super::scenario::{ROUTES, Workload};
use super::schedule::{Arrivals, Pacer, Schedule};
use super::setup::{self, Maker, Plans};
use super::table::Table;
use super::worker::{Shared, Source, Yield};
use crate::Error;
use crate::api::{Api, Range};
use crate::clock;
use crate::ledger::{self, Expectation, Verdict};
use crate::measure::Recorder;
use crate::numbers::{index, per_second};
use crate::outbox::EventTally;
use crate::progress::Progress;
use crate::report::Traffic;

/// Between the decision to begin and the first request: time for every worker to be ready.
const START_IN: Duration = Duration::from_millis(50);
/// How long after the load's end waiting requests are still sent.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the progress looks at the counters.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs a load and audits it. Blocks until done.
pub fn run(options: &Options, stop: &Arc<AtomicBool>) -> Result<LoadReport, Error> {
    play_and_audit(options, stop, None)
}

/// The same while somebody makes targets come and go.
pub fn run_escorted(
    options: &Options,
    stop: &Arc<AtomicBool>,
    escort: &Escort,
) -> Result<LoadReport, Error> {
    play_and_audit(options, stop, Some(escort))
}

fn play_and_audit(
    options: &Options,
    stop: &Arc<AtomicBool>,
    escort: Option<&Escort>,
) -> Result<LoadReport, Error> {
    options.check()?;
    let runtime = runtime()?;
    runtime.block_on(reach(options))?;
    let run = format!("load-{}", Uuid::now_v7().simple());
    let crew = Crew::hire(options, escort)?;
    let baseline = crew.baseline(options);
    let tight_limit =
        setup::tight_limit(options, baseline.map(|baseline| baseline.requests_per_second));
    let mut apis = Api::several(&options.access.targets, &options.access.admin);
    let (plans, table) = runtime.block_on(prepare(options, &run, tight_limit, &mut apis))?;
    let workload = Workload::new(options.scenario);
    let shared = Arc::new(share(options, &run, workload, table, stop, escort.is_some()));
    let started_ms = clock::wall().as_millisecond();
    if let Some(escort) = escort {
        // Nobody listens any more: then nobody has to know.
        let _ = escort.began.try_send(shared.start);
    }
    let (mut harvest, churn) = play(options, &runtime, &shared, &plans, crew, escort)?;

    let expectations = expectations(&shared, &harvest);
    let range = Range::around(started_ms, clock::wall().as_millisecond());
    let audited = ledger::audit(&mut apis, &expectations, range, options.settle, options.quiet);
    let (mut verdict, _readings) = runtime.block_on(audited)?;
    judge_events(&mut verdict, &harvest.events);
    judge_churn(&mut verdict, churn.as_ref());

    let elapsed = harvest.finished_at - shared.start;
    let checks_per_second = harvest.recorder.decided_per_second(elapsed);
    let is_closed = options.rate == Rate::Max;
    Ok(LoadReport {
        kind: "load",
        version: 1,
        started_at: clock::rfc3339(started_ms),
        configuration: Configuration::of(options, workload, tight_limit),
        traffic: Traffic::of(&harvest.recorder, &harvest.events, harvest.overflow, elapsed),
        baseline: baseline.map(|baseline| Baseline {
            ratio: is_closed.then(|| checks_per_second / baseline.requests_per_second.max(1.0)),
            ..baseline
        }),
        churn,
        ledger: verdict,
        run,
        failed_at: {
            harvest.recorder.failed_at.sort_unstable();
            harvest.recorder.failed_at
        },
    })
}

pub(crate) fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { what: "a runtime", source })
}

/// Fails early, and with the right words, when the targets or the tokens are wrong.
async fn reach(options: &Options) -> Result<(), Error> {
    let access = &options.access;
    let mut gateway = Api::new(Arc::clone(&access.targets), 0, access.gateway.clone());
    gateway.reach(access.targets.len()).await?;
    gateway.peek("weir-sim-is-this-token-good").await.map(drop)
}

async fn prepare(
    options: &Options,
    run: &str,
    tight_limit: u64,
    apis: &mut [Api],
) -> Result<(Plans, Table), Error> {
    let plans = match apis.first_mut() {
        Some(api) => setup::make_plans(api, run, options, tight_limit).await?,
        None => return Err(Error::usage("--target names no address")),
    };
    let maker = Maker { run, options, plans: &plans };
    let subscriptions = maker.make_all(apis).await?;
    let churn_per_second = u64::from(Workload::new(options.scenario).churn_per_second());
    let spare = churn_per_second * (options.duration.as_secs() + 1);
    Ok((plans, Table::new(subscriptions, index(spare))))
}

fn share(
    options: &Options,
    run: &str,
    workload: Workload,
    table: Table,
    stop: &Arc<AtomicBool>,
    fails_over: bool,
) -> Shared {
    let start = clock::now() + START_IN;
    Shared {
        run: run.to_owned(),
        table,
        workload,
        source: match options.rate {
            Rate::Max => Source::Closed(workload.wave()),
            Rate::PerSecond(_) => Source::Open(Arc::new(Arrivals::new(options.backlog_max))),
        },
        check_uris: check_uris(workload),
        seed: options.seed,
        connections: options.connections,
        start,
        duration: options.duration,
        drain_until: start + options.duration + DRAIN,
        flush: options.events.then_some(options.flush),
        gateway: options.access.gateway.clone(),
        finished: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        stop: Arc::clone(stop),
        fails_over,
    }
}

fn check_uris(workload: Workload) -> Vec<Uri> {
    const PATH: &str = "/api/v1/quota/check";
    ROUTES
        .iter()
        .map(|route| {
            let text = if workload.names_paths() {
                let path = route.path.replace('/', "%2F");
                format!("{PATH}?cost={}&method={}&path={path}", route.cost, route.method)
            } else {
                PATH.to_owned()
            };
            text.parse().expect("the table of routes holds plain paths")
        })
        .collect()
}

/// What all workers brought home together.
struct Harvest {
    recorder: Recorder,
    events: EventTally,
    admitted_units: Vec<u64>,
    finished_at: Instant,
    overflow: u64,
}

fn play(
    options: &Options,
    runtime: &Runtime,
    shared: &Arc<Shared>,
    plans: &Plans,
    crew: Crew,
    escort: Option<&Escort>,
) -> Result<(Harvest, Option<ChurnCounts>), Error> {
    for order in &crew.orders {
        // A worker that is gone has panicked; joining it below says so.
        let _ = order.send(Arc::clone(shared));
    }
    let churn_per_second = shared.workload.churn_per_second();
    let (yields, churn) = std::thread::scope(|scope| {
        let pacer = pacer(options, shared)
            .map(|(pacer, arrivals)| scope.spawn(move || pacer.run(&arrivals)));
        let churn = (churn_per_second > 0).then(|| {
            let targets = Arc::clone(&options.access.targets);
            let api = Api::new(targets, 0, options.access.admin.clone());
            let maker = Maker { run: &shared.run, options, plans };
            scope.spawn(move || runtime.block_on(churn::run(api, maker, shared, churn_per_second)))
        });
        watch(options, shared, &crew.workers, escort);
        let yields: Vec<_> = crew.workers.into_iter().map(JoinHandle::join).collect();
        let churn = churn.map(|churn| churn.join().map_err(|_| Error::Panicked("churn")));
        if let Some(pacer) = pacer {
            pacer.join().map_err(|_| Error::Panicked("pacer"))?;
        }
        Ok::<_, Error>((yields, churn.transpose()?))
    })?;
    Ok((harvest(options, shared, yields)?, churn))
}

fn pacer<'a>(options: &Options, shared: &'a Arc<Shared>) -> Option<(Pacer<'a>, Arc<Arrivals>)> {
    let (Rate::PerSecond(rate), Source::Open(arrivals)) = (options.rate, &shared.source) else {
        return None;
    };
    let pacer = Pacer {
        schedule: Schedule::new(rate, shared.workload.wave()),
        workload: shared.workload,
        random: ChaCha8Rng::seed_from_u64(shared.seed),
        start: shared.start,
        duration: shared.duration,
        table: &shared.table,
        stop: &shared.stop,
    };
    Some((pacer, Arc::clone(arrivals)))
}

/// Shows the progress until every worker has ended.
fn watch(
    options: &Options,
    shared: &Shared,
    workers: &[JoinHandle<Option<Yield>>],
    escort: Option<&Escort>,
) {
    let total = u64::try_from(options.duration.as_millis()).unwrap_or(u64::MAX);
    let mut progress = Progress::begin("load", total, options.quiet);
    let finished = || shared.finished.load(Ordering::Relaxed);
    let (mut last_at, mut last_finished, mut rate) = (shared.start, 0, 0.0);
    while !workers.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(LOOK_EVERY);
        for line in escort.map(|escort| escort.notes.take()).unwrap_or_default() {
            if !options.quiet {
                progress.note(&line);
            }
        }
        let now = clock::now();
        let elapsed = now.saturating_duration_since(shared.start);
        let since_last = now.saturating_duration_since(last_at);
        if since_last >= Duration::from_secs(1) {
            rate = per_second(finished() - last_finished, since_last);
            (last_at, last_finished) = (now, finished());
        }
        let position = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).min(total);
        let failed = shared.failed.load(Ordering::Relaxed);
        progress.at(position, || {
            let part = crate::numbers::float(position) / 1_000.0;
            format!("ms ({part:.0} s): {rate:.0} checks/s, {} done, {failed} failed", finished())
        });
    }
    let seconds = options.duration.as_secs_f64();
    progress.end(&format!("{} checks sent in {seconds} s, events flushed", finished()));
}

fn harvest(
    options: &Options,
    shared: &Shared,
    yields: Vec<std::thread::Result<Option<Yield>>>,
) -> Result<Harvest, Error> {
    let capacity = shared.table.capacity();
    let mut all = Harvest {
        recorder: Recorder::new(options.duration),
        events: EventTally::new(capacity),
        admitted_units: vec![0; capacity],
        finished_at: shared.start,
        overflow: 0,
    };
    for one in yields {
        let Ok(Some(one)) = one else { return Err(Error::Panicked("worker")) };
        all.recorder.merge(one.recorder);
        all.events.merge(one.events);
        for (total, more) in all.admitted_units.iter_mut().zip(one.admitted_units) {
            *total += more;
        }
        all.finished_at = all.finished_at.max(one.finished_at);
    }
    if let Source::Open(arrivals) = &shared.source {
        arrivals.abandon();
        all.overflow = arrivals.overflow();
    }
    Ok(all)
}

fn expectations(shared: &Shared, harvest: &Harvest) -> Vec<Expectation> {
    (0..shared.table.live())
        .filter_map(|place| {
            let subscription = shared.table.get(place)?;
            let events = harvest.events.per_subscription.get(place).copied().unwrap_or_default();
            Some(Expectation {
                id: subscription.id.clone(),
                label: subscription.external_id.clone(),
                limit: Some(subscription.limit),
                admitted_units: harvest.admitted_units[place],
                acked: events.acked,
                acked_units: events.acked_units,
                unknown: events.unknown,
                unknown_units: events.unknown_units,
                units_are_known: true,
            })
        })
        .collect()
}

/// Every event of a run is valid, so a rejected one is a failure of the ledger.
pub(crate) fn judge_events(verdict: &mut Verdict, events: &EventTally) {
    let rejected = events.rejected_total();
    if rejected + events.refused > 0 {
        let example = events.rejections.first().map_or("", String::as_str);
        verdict.fail(format!(
            "{rejected} events rejected and {} in refused batches, e.g. {example}",
            events.refused
        ));
    }
    if events.inconsistent_answers > 0 {
        verdict.fail(format!(
            "{} answers to event batches whose numbers do not add up to the batch",
            events.inconsistent_answers
        ));
    }
    let known = events.acked + rejected + events.refused + events.unknown;
    if known != events.sent {
        verdict.fail(format!("{} events sent, but {known} accounted for", events.sent));
    }
}

fn judge_churn(verdict: &mut Verdict, churn: Option<&ChurnCounts>) {
    if let Some(churn) = churn
        && churn.revoked_still_allowed > 0
    {
        let number = churn.revoked_still_allowed;
        verdict.fail(format!("{number} revoked keys were still allowed after their time"));
    }
}
