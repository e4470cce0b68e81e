//! One replay from the first look at the file to the verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::clients;
use super::compare::{self, Row};
use super::options::{Options, Speed};
use super::scan::{self, FileSums};
use super::send::{self, Course, Sent};
use super::sums::{Sums, day_of};
use crate::Error;
use crate::api::{self, Api, Range};
use crate::clock;
use crate::ledger::{self, Expectation, Reading, Verdict};
use crate::load;
use crate::log_format::Format;
use crate::numbers::per_second;
use crate::progress::Progress;
use crate::report::Traffic;

/// How often the progress looks at the counters.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Names of runs begin with it.
const PREFIX: &str = "replay-";

/// The outcome of a replay.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayReport {
    /// Always `replay`.
    pub kind: &'static str,
    /// Version of this document's keys.
    pub version: u32,
    /// Unique name of the run; give it to `--run` to take the run up again.
    pub run: String,
    /// When the replay began, RFC 3339.
    pub started_at: String,
    /// What was asked for.
    pub configuration: Configuration,
    /// What is in the file.
    pub file: FileSums,
    /// What happened.
    pub traffic: Traffic,
    /// File against Weir, total by total.
    pub comparison: Vec<Row>,
    /// `totals` of `GET /api/v1/usage/summary`, all subscriptions of the cluster; not judged.
    pub summary_totals: Option<Value>,
    /// The verdict.
    pub ledger: Verdict,
}

/// What was asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// The targets.
    pub targets: Vec<String>,
    /// The log.
    pub file: String,
    /// Its format.
    pub format: Format,
    /// `max` or a factor.
    pub speed: Speed,
    /// Whether the log's own times were kept.
    pub original_time: bool,
    /// Milliseconds added to the log's times.
    pub shift_ms: i64,
    /// A given plan; none when the replay made its own, unlimited.
    pub plan_id: Option<String>,
    /// What missing response times were drawn from.
    pub seed: u64,
    /// Connections for checks.
    pub connections: usize,
    /// Tenant of the subscriptions.
    pub tenant: String,
}

/// Replays a log and audits it. Blocks until done.
pub fn run(options: &Options, stop: &Arc<AtomicBool>) -> Result<ReplayReport, Error> {
    if options.connections == 0 || options.event_connections == 0 {
        return Err(Error::usage("a replay needs at least one connection of each kind"));
    }
    let file = read_file(options)?;
    load::runtime()?.block_on(replay(options, file, stop))
}

fn read_file(options: &Options) -> Result<FileSums, Error> {
    let progress = Progress::begin("scan", 1, options.quiet);
    let file = scan::scan(&options.file, options.format, |why| progress.note(why))?;
    progress.end(&format!(
        "{} lines, {} read, {} malformed, {} clients",
        file.lines, file.parsed, file.malformed, file.clients
    ));
    Ok(file)
}

async fn replay(
    options: &Options,
    file: FileSums,
    stop: &Arc<AtomicBool>,
) -> Result<ReplayReport, Error> {
    let access = &options.access;
    let mut gateway = Api::new(Arc::clone(&access.targets), 0, access.gateway.clone());
    gateway.reach(access.targets.len()).await?;
    gateway.peek("weir-sim-is-this-token-good").await?;

    let run = options.run.clone().unwrap_or_else(|| format!("{PREFIX}{}", Uuid::now_v7().simple()));
    let started_ms = clock::wall().as_millisecond();
    let shift_ms = if options.original_time { 0 } else { born_ms(&run, started_ms) - file.last_ms };
    let mut apis = Api::several(&access.targets, &access.admin);
    let addresses = file.sums.clients.keys();
    let course = Arc::new(Course {
        clients: clients::prepare(options, &run, addresses, &mut apis).await?,
        run: run.clone(),
        digest: file.digest,
        shift_ms,
        seed: options.seed,
        units: options.plan_id.is_none().then_some(1),
        done: AtomicU64::new(0),
    });
    let sent = send_with_progress(options, &file, &course, stop).await?;

    let expectations = expectations(&course, &sent);
    let (first_ms, last_ms) = (file.first_ms + shift_ms, file.last_ms + shift_ms);
    let range = Range::around(first_ms, last_ms);
    let (mut verdict, readings) =
        ledger::audit(&mut apis, &expectations, range, options.settle, options.quiet).await?;
    load::judge_events(&mut verdict, &sent.events);
    let weir = weir_sums(&mut apis, &course, &readings, first_ms, last_ms).await?;
    let mut comparison = compare::compare(&sent.sums, &weir, sent.events.unknown);
    if course.units.is_some() {
        let units = readings.iter().map(|reading| reading.stats.units).sum();
        comparison.push(compare::units(sent.sums.requests, units, sent.events.unknown));
    }
    comparison.extend(compare::expected(&file, &options.expected));
    judge(&mut verdict, &comparison, &file, &sent);
    Ok(ReplayReport {
        kind: "replay",
        version: 1,
        started_at: clock::rfc3339(started_ms),
        configuration: configuration(options, shift_ms),
        traffic: Traffic::of(&sent.recorder, &sent.events, 0, sent.elapsed),
        comparison,
        summary_totals: gateway_summary(&mut apis).await,
        ledger: verdict,
        file,
        run,
    })
}

/// When a run was born: its name holds a UUIDv7, and so the same run taken up again moves the log to
/// the same times. A name of another make is born now.
fn born_ms(run: &str, now_ms: i64) -> i64 {
    run.strip_prefix(PREFIX)
        .and_then(|name| Uuid::parse_str(name).ok())
        .and_then(|uuid| uuid.get_timestamp())
        .map(|stamp| stamp.to_unix())
        .and_then(|(seconds, nanos)| {
            let seconds = i64::try_from(seconds).ok()?;
            seconds.checked_mul(1_000)?.checked_add(i64::from(nanos / 1_000_000))
        })
        .unwrap_or(now_ms)
}

async fn send_with_progress(
    options: &Options,
    file: &FileSums,
    course: &Arc<Course>,
    stop: &Arc<AtomicBool>,
) -> Result<Sent, Error> {
    let mut progress = Progress::begin("replay", file.parsed, options.quiet);
    let start = clock::now();
    let sending = send::send(options, file, Arc::clone(course), stop);
    tokio::pin!(sending);
    let sent = loop {
        tokio::select! {
            sent = &mut sending => break sent?,
            () = tokio::time::sleep(LOOK_EVERY) => {
                let done = send::position(course, file.parsed);
                let rate = per_second(done, clock::now() - start);
                let left = crate::numbers::float(file.parsed - done) / rate.max(0.001);
                progress.at(done, || format!("lines, {rate:.0}/s, {left:.0} s left"));
            }
        }
    };
    let rate = per_second(file.parsed, sent.elapsed);
    progress.end(&format!("{} lines, {rate:.0}/s", send::position(course, file.parsed)));
    Ok(sent)
}

fn expectations(course: &Course, sent: &Sent) -> Vec<Expectation> {
    course
        .clients
        .all
        .iter()
        .enumerate()
        .map(|(place, client)| {
            let events = sent.events.per_subscription.get(place).copied().unwrap_or_default();
            Expectation {
                id: client.subscription.clone(),
                label: client.external_id.clone(),
                limit: None,
                admitted_units: sent.admitted[place],
                acked: events.acked,
                acked_units: events.acked_units,
                unknown: events.unknown,
                unknown_units: events.unknown_units,
                // `used` is that of the open period; a log may reach back into earlier ones.
                units_are_known: false,
            }
        })
        .collect()
}

async fn weir_sums(
    apis: &mut [Api],
    course: &Course,
    readings: &[Reading],
    first_ms: i64,
    last_ms: i64,
) -> Result<Sums, Error> {
    let clients = &course.clients.all;
    let mut sums = Sums::default();
    for (client, reading) in clients.iter().zip(readings) {
        sums.add_stats(&client.address, &reading.stats);
    }
    let range = Range::days_around(first_ms, last_ms);
    let days = api::for_each(apis, clients.len(), async |api, place| {
        api.days(&clients[place].subscription, &range).await
    })
    .await?;
    for bucket in days.into_iter().flatten().filter(|bucket| bucket.requests > 0) {
        let start: Result<jiff::Timestamp, _> = bucket.start.parse();
        let day = start.map_or(bucket.start, |start| day_of(start.as_millisecond()));
        *sums.days.entry(day).or_default() += bucket.requests;
    }
    Ok(sums)
}

/// The summary covers other traffic, too, so it informs and does not judge.
async fn gateway_summary(apis: &mut [Api]) -> Option<Value> {
    let summary = apis.first_mut()?.summary().await.ok()?;
    summary.get("totals").cloned()
}

fn judge(verdict: &mut Verdict, comparison: &[Row], file: &FileSums, sent: &Sent) {
    let wrong = comparison.iter().filter(|row| !row.agrees).count();
    if wrong > 0 {
        verdict.fail(format!("{wrong} totals differ between the file and Weir"));
    }
    let accounted = sent.sums.requests + sent.recorder.denied_total();
    if accounted != file.parsed {
        verdict.fail(format!(
            "{} lines could be read, but only {accounted} were replayed",
            file.parsed
        ));
    }
}

fn configuration(options: &Options, shift_ms: i64) -> Configuration {
    Configuration {
        targets: options.access.targets.iter().map(|to| to.authority().to_owned()).collect(),
        file: options.file.display().to_string(),
        format: options.format,
        speed: options.speed,
        original_time: options.original_time,
        shift_ms,
        plan_id: options.plan_id.clone(),
        seed: options.seed,
        connections: options.connections,
        tenant: options.tenant.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_taken_up_again_is_born_when_it_was_first() {
        let born = 1_763_942_400_123_u64;
        let stamp = uuid::Timestamp::from_unix(uuid::NoContext, born / 1_000, 123_000_000);
        let run = format!("{PREFIX}{}", Uuid::new_v7(stamp).simple());
        assert_eq!(born_ms(&run, 5), 1_763_942_400_123);
        assert_eq!(born_ms("replay-mine", 5), 5);
    }
}
