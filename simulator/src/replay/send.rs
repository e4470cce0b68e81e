//! The second pass: every line becomes a check and, when it is let through, a usage event.
//!
//! A reader thread keeps the log's pace and hands lines to connections, all lines of one client to
//! the same one, so that a client's requests stay in order. A check without a decision is repeated
//! with the same idempotency key; when none comes the line counts as failed and its event is sent
//! all the same, as a gateway with an open fail policy does: the request *was* served.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Uri;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::clients::{Clients, drawn_duration, header_of};
use super::lines::{Lines, unreadable};
use super::options::{Options, Speed};
use super::scan::FileSums;
use super::sums::Sums;
use crate::Error;
use crate::check;
use crate::client::{Answer, Failure, Lane, Prepared};
use crate::clock;
use crate::log_format::LogLine;
use crate::measure::{Outcome, Recorder};
use crate::numbers::{float, whole};
use crate::outbox::{self, EventTally, Outbox, OutgoingEvent};
use crate::usage_event::UsageEvent;

/// Lines that wait for one connection: enough to keep it busy, few enough to stop the reader soon.
const WAITING_LINES_MAX: usize = 64;
/// Tries of one check. Their waits add up to less than the 10 s in which a repeat is free.
const TRIES_MAX: u32 = 6;
/// First wait between two tries; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Pace is kept in sleeps of at most this length, to notice a stop.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What the second pass did.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) recorder: Recorder,
    pub(super) events: EventTally,
    /// Over the lines whose event was sent, in the time they were sent with.
    pub(super) sums: Sums,
    pub(super) admitted: Vec<u64>,
    pub(super) elapsed: Duration,
}

/// What the tasks of a replay share.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) run: String,
    pub(super) clients: Clients,
    pub(super) digest: u64,
    pub(super) shift_ms: i64,
    pub(super) seed: u64,
    /// One unit a line; none when a given plan's costs decide.
    pub(super) units: Option<u64>,
    pub(super) done: AtomicU64,
}

struct Job {
    line: LogLine,
    number: u64,
    client: usize,
    due_at: Option<Instant>,
}

/// Replays the whole file. Blocks until its events are flushed.
pub(super) async fn send(
    options: &Options,
    file: &FileSums,
    course: Arc<Course>,
    stop: &Arc<AtomicBool>,
) -> Result<Sent, Error> {
    let start = clock::now();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..options.connections).map(|_| mpsc::channel(WAITING_LINES_MAX)).unzip();
    let reader = Reader {
        lines: file.lines,
        first_ms: file.first_ms,
        start,
        course: Arc::clone(&course),
        senders,
        stop: Arc::clone(stop),
    };
    let (path, format, speed) = (options.file.clone(), options.format, options.speed);
    let reading = std::thread::Builder::new()
        .name("weir-sim-reader".to_owned())
        .spawn(move || reader.run(&path, format, speed))
        .map_err(|source| Error::Start { what: "the reader thread", source })?;
    let playing = play(options, file, &course, receivers, start, stop);
    let sent = LocalSet::new().run_until(playing).await;
    reading.join().map_err(|_| Error::Panicked("reader"))??;
    Ok(sent)
}

struct Reader {
    lines: u64,
    first_ms: i64,
    start: Instant,
    course: Arc<Course>,
    senders: Vec<mpsc::Sender<Job>>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(
        self,
        path: &Path,
        format: crate::log_format::Format,
        speed: Speed,
    ) -> Result<(), Error> {
        let mut lines = Lines::open(path)?;
        // Lines are written when a request ends but carry the time it began, so they are not quite
        // in order: the pace never goes back.
        let mut latest_ms = self.first_ms;
        while let Some((number, line)) = lines.next().map_err(|why| unreadable(path, why))? {
            // What is appended meanwhile is not part of the sums.
            if number > self.lines || self.stop.load(Ordering::Relaxed) {
                break;
            }
            let Ok(line) = format.parse(line) else { continue };
            let Some(&client) = self.course.clients.by_address.get(&line.client) else { continue };
            latest_ms = latest_ms.max(line.at_ms);
            let due_at = self.due_at(latest_ms, speed);
            if let Some(due_at) = due_at {
                self.sleep_until(due_at);
            }
            let connection = client % self.senders.len();
            if self.senders[connection].blocking_send(Job { line, number, client, due_at }).is_err()
            {
                break;
            }
        }
        Ok(())
    }

    fn due_at(&self, at_ms: i64, speed: Speed) -> Option<Instant> {
        let Speed::Times(times) = speed else { return None };
        let since_first = u64::try_from(at_ms - self.first_ms).unwrap_or(0);
        Some(self.start + Duration::from_secs_f64(float(since_first) / 1_000.0 / times))
    }

    fn sleep_until(&self, due_at: Instant) {
        loop {
            let wait = due_at.saturating_duration_since(clock::now());
            if wait.is_zero() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(wait.min(SLEEP_MAX));
        }
    }
}

async fn play(
    options: &Options,
    file: &FileSums,
    course: &Arc<Course>,
    receivers: Vec<mpsc::Receiver<Job>>,
    start: Instant,
    stop: &Arc<AtomicBool>,
) -> Sent {
    let outbox = Outbox::new(options.flush, course.clients.all.len());
    let targets = &options.access.targets;
    let lane = |place| Lane::new(Arc::clone(targets), place, options.request_timeout);
    let flushers: Vec<_> = (0..options.event_connections)
        .map(|place| {
            let gateway = options.access.gateway.clone();
            tokio::task::spawn_local(outbox::run_lane(Rc::clone(&outbox), lane(place), gateway))
        })
        .collect();
    let player = Rc::new(Player {
        course: Arc::clone(course),
        outbox: Rc::clone(&outbox),
        start,
        patience: options.flush.settle,
        stop: Arc::clone(stop),
        recorder: RefCell::new(Recorder::new(expected_length(options.speed, file))),
        sums: RefCell::default(),
        admitted: RefCell::new(vec![0; course.clients.all.len()]),
    });
    let connections: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(place, jobs)| {
            tokio::task::spawn_local(Rc::clone(&player).connection(lane(place), jobs))
        })
        .collect();
    wait_for(connections).await;
    let elapsed = clock::now() - start;
    outbox.close();
    wait_for(flushers).await;
    Sent {
        recorder: player.recorder.replace(Recorder::new(Duration::ZERO)),
        events: outbox.into_tally(),
        sums: player.sums.take(),
        admitted: player.admitted.take(),
        elapsed,
    }
}

/// A task that panicked takes the replay with it: its numbers would be wrong.
async fn wait_for(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        if let Err(failed) = task.await
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}

/// For the timeline's steps; at full speed a slow server is assumed.
fn expected_length(speed: Speed, file: &FileSums) -> Duration {
    match speed {
        Speed::Times(times) => {
            let span = u64::try_from(file.last_ms - file.first_ms).unwrap_or(0);
            Duration::from_secs(whole(float(span) / 1_000.0 / times))
        }
        Speed::Max => Duration::from_secs((file.lines / 500).max(60)),
    }
}

struct Player {
    course: Arc<Course>,
    outbox: Rc<Outbox<ReplayEvent>>,
    start: Instant,
    patience: Duration,
    stop: Arc<AtomicBool>,
    recorder: RefCell<Recorder>,
    sums: RefCell<Sums>,
    admitted: RefCell<Vec<u64>>,
}

impl Player {
    async fn connection(self: Rc<Self>, mut lane: Lane, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            // Events that do not leave for this long never will: the reader stops, and the verdict
            // says how many lines were not replayed.
            if tokio::time::timeout(self.patience, self.outbox.has_room()).await.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.line(&mut lane, job).await;
            self.course.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn line(&self, lane: &mut Lane, job: Job) {
        let id = format!("{}-{:016x}-{}", self.course.run, self.course.digest, job.number);
        let mut headers = self.course.clients.all[job.client].headers.clone();
        headers.insert("idempotency-key", header_of(&id));
        let request = Prepared::get(check_uri(&job.line), headers);
        let sent_at = clock::now();
        let outcome = decide(lane, &request).await;
        let done_at = clock::now();
        let due_at = job.due_at.unwrap_or(sent_at);
        let is_served = self.note(&outcome, due_at, sent_at, done_at);
        if is_served {
            self.admitted.borrow_mut()[job.client] += 1;
            self.sums.borrow_mut().add(&job.line, self.course.shift_ms);
            self.outbox.push(ReplayEvent { course: Arc::clone(&self.course), id, job });
        }
    }

    /// Records the outcome; true when the line's request counts as served.
    fn note(
        &self,
        outcome: &Result<Answer, Failure>,
        due_at: Instant,
        sent_at: Instant,
        done_at: Instant,
    ) -> bool {
        let mut recorder = self.recorder.borrow_mut();
        let decision = check::decision(outcome);
        let noted = match &decision {
            Ok(decision) if decision.allowed => Outcome::Allowed,
            Ok(decision) => Outcome::Denied(&decision.reason),
            Err(cause) => Outcome::Failed(cause),
        };
        recorder.late += u64::from(sent_at.saturating_duration_since(due_at).as_millis() >= 1);
        let since_due = done_at.saturating_duration_since(due_at);
        recorder.check(done_at - self.start, noted, since_due, done_at - sent_at);
        if let Ok(answer) = outcome {
            recorder.proxied += u64::from(check::is_proxied(answer));
        }
        recorder.degraded += u64::from(decision.as_ref().is_ok_and(check::Decision::is_degraded));
        let is_denied = matches!(noted, Outcome::Denied(_));
        recorder.allowed_units += u64::from(noted == Outcome::Allowed);
        !is_denied
    }
}

/// Asks until there is a decision, or gives back the last failure.
async fn decide(lane: &mut Lane, request: &Prepared) -> Result<Answer, Failure> {
    let mut wait = RETRY_MIN;
    for _ in 1..TRIES_MAX {
        let outcome = lane.call(request).await;
        let is_worth_a_retry = match &outcome {
            Ok(answer) => answer.status.is_server_error(),
            Err(_) => true,
        };
        if !is_worth_a_retry {
            return outcome;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    lane.call(request).await
}

/// The check of a line: method and path as the gateway would name them.
fn check_uri(line: &LogLine) -> Uri {
    const CHECK: &str = "/api/v1/quota/check";
    let (Some(method), Some(path)) = (&line.method, &line.path) else {
        return Uri::from_static(CHECK);
    };
    let mut text = format!("{CHECK}?method={method}&path=");
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
    // A path longer than a URI may be asks without it; its cost is then the default.
    text.parse().unwrap_or(Uri::from_static(CHECK))
}

struct ReplayEvent {
    course: Arc<Course>,
    id: String,
    job: Job,
}

impl OutgoingEvent for ReplayEvent {
    fn subscription(&self) -> usize {
        self.job.client
    }

    fn units(&self) -> u64 {
        1
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let line = &self.job.line;
        let drawn = || drawn_duration(self.course.seed, self.job.number).as_secs_f64() * 1_000.0;
        UsageEvent {
            id: &self.id,
            subscription_id: &self.course.clients.all[self.job.client].subscription,
            api_path: line.path.as_deref(),
            method: line.method.as_deref(),
            status_code: line.status,
            success: line.status < 400,
            response_time_ms: Some(line.duration_ms.unwrap_or_else(drawn)),
            timestamp: &clock::rfc3339(line.at_ms + self.course.shift_ms),
            request_size: line.request_bytes,
            response_size: line.bytes,
            user_agent: line.user_agent.as_deref(),
            ip_address: line.ip().map(|_| line.client.as_str()),
            units: self.course.units,
        }
        .append_to(out);
    }
}

/// Lines done so far, of `total`.
pub(super) fn position(course: &Course, total: u64) -> u64 {
    course.done.load(Ordering::Relaxed).min(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_can_be_asked_for() {
        let mut line = LogLine {
            client: "::1".into(),
            at_ms: 0,
            method: Some("GET".into()),
            path: Some("/a b/é&x=1".into()),
            status: 200,
            bytes: 0,
            request_bytes: 0,
            duration_ms: None,
            user_agent: None,
        };
        let asked = "/api/v1/quota/check?method=GET&path=/a%20b/%C3%A9%26x%3D1";
        assert_eq!(check_uri(&line), asked);
        line.path = Some("/x".repeat(100_000));
        assert_eq!(check_uri(&line), "/api/v1/quota/check");
    }
}
