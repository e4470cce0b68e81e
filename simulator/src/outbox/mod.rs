//! Usage events on their way to Weir, sent as a gateway sends them.
//!
//! Events wait until a batch is full or the flush interval has passed. A batch is encoded once and
//! sent again, byte for byte and with the same ids, until Weir acknowledges it or the run gives up;
//! what is still unacknowledged then has an *unknown* outcome, which the ledger check counts between
//! its bounds.
//!
//! ```text
//! push ─► waiting ──full or old──► a batch ──200──► acknowledged (accepted, duplicate, rejected)
//!                                    │ ▲──503, 5xx, 429, time-out, broken: back off, same bytes
//!                                    ├──other 4xx──► refused (certainly not recorded)
//!                                    └──given up───► unknown
//! ```
//!
//! Single-threaded on purpose: an outbox belongs to one worker and its lanes.

mod tally;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::sync::Notify;

use crate::client::{Answer, Lane, Prepared};
use crate::clock;
use crate::numbers::count;

pub use tally::{EventCounts, EventTally};
use tally::{REJECTIONS_SHOWN_MAX, Receipt};

/// First wait before a batch is sent again.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a batch is sent again: a healed store is used within this time.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// One event that waits to be sent.
pub trait OutgoingEvent {
    /// Which subscription of the run's table it is charged to.
    fn subscription(&self) -> usize;
    /// Units it charges.
    fn units(&self) -> u64;
    /// Appends the event as a JSON object.
    fn write_json(&self, out: &mut Vec<u8>);
}

/// How events are gathered and sent.
#[derive(Debug, Clone, Copy)]
pub struct FlushOptions {
    /// Events in a batch at most; the contract allows 10,000.
    pub batch_events_max: usize,
    /// The oldest event waits no longer than this for company.
    pub interval: Duration,
    /// Events waiting at most, per worker; checks pause above it, so memory stays bounded.
    pub waiting_events_max: usize,
    /// How long to go on retrying after the load has ended.
    pub settle: Duration,
}

/// Events waiting, shared by the tasks of one worker.
#[derive(Debug)]
pub struct Outbox<E> {
    options: FlushOptions,
    waiting: RefCell<VecDeque<E>>,
    oldest_since: Cell<Option<Instant>>,
    closed: Cell<bool>,
    give_up_at: Cell<Option<Instant>>,
    changed: Notify,
    room: Notify,
    tally: RefCell<EventTally>,
}

impl<E: OutgoingEvent> Outbox<E> {
    /// An empty outbox for a table of `subscriptions`.
    pub fn new(options: FlushOptions, subscriptions: usize) -> Rc<Self> {
        Rc::new(Self {
            options,
            waiting: RefCell::default(),
            oldest_since: Cell::new(None),
            closed: Cell::new(false),
            give_up_at: Cell::new(None),
            changed: Notify::new(),
            room: Notify::new(),
            tally: RefCell::new(EventTally::new(subscriptions)),
        })
    }

    /// Adds an event. Never waits: see [`Self::has_room`].
    pub fn push(&self, event: E) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push_back(event);
        if waiting.len() == 1 {
            self.oldest_since.set(Some(clock::now()));
            self.changed.notify_one();
        } else if waiting.len() == self.options.batch_events_max {
            self.changed.notify_one();
        }
    }

    /// True when checks should pause until events have left.
    pub fn is_full(&self) -> bool {
        self.waiting.borrow().len() >= self.options.waiting_events_max
    }

    /// Waits while too many events are waiting. The sender calls this before its next check.
    pub async fn has_room(&self) {
        while self.is_full() {
            self.room.notified().await;
        }
    }

    /// No more events come: what waits is sent now, for at most the settle time.
    pub fn close(&self) {
        self.closed.set(true);
        self.give_up_at.set(Some(clock::now() + self.options.settle));
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Takes the tally out, once all lanes have ended.
    pub fn into_tally(self: Rc<Self>) -> EventTally {
        self.tally.take()
    }

    /// Waits for the next batch; none when closed and empty.
    async fn next_batch(&self) -> Option<Vec<E>> {
        loop {
            let waiting = self.waiting.borrow().len();
            if waiting == 0 && self.closed.get() {
                // The other lanes may be asleep with nothing left to wake them.
                self.changed.notify_waiters();
                return None;
            }
            let due_at = self.oldest_since.get().map(|since| since + self.options.interval);
            let is_due = waiting >= self.options.batch_events_max
                || self.closed.get()
                || due_at.is_some_and(|due| due <= clock::now());
            if waiting > 0 && is_due {
                return Some(self.take_batch());
            }
            match due_at {
                Some(due) if waiting > 0 => {
                    let sleep = tokio::time::sleep_until(due.into());
                    tokio::select! { () = sleep => {}, () = self.changed.notified() => {} }
                }
                _ => self.changed.notified().await,
            }
        }
    }

    fn take_batch(&self) -> Vec<E> {
        let mut waiting = self.waiting.borrow_mut();
        let size = waiting.len().min(self.options.batch_events_max);
        let batch: Vec<E> = waiting.drain(..size).collect();
        // What stays behind is younger than what left; counting its age from now delays it by at
        // most one interval and saves a time stamp per event.
        self.oldest_since.set((!waiting.is_empty()).then(clock::now));
        if waiting.len() >= self.options.batch_events_max {
            self.changed.notify_one();
        }
        self.room.notify_waiters();
        batch
    }

    fn is_given_up(&self) -> bool {
        self.give_up_at.get().is_some_and(|end| end <= clock::now())
    }
}

/// One connection that sends batches until the outbox is closed and empty.
pub async fn run_lane<E: OutgoingEvent>(
    outbox: Rc<Outbox<E>>,
    mut lane: Lane,
    authorization: HeaderValue,
) {
    while let Some(batch) = outbox.next_batch().await {
        outbox.tally.borrow_mut().sent += count(batch.len());
        let request = prepare(&batch, &authorization);
        deliver(&outbox, &mut lane, &batch, &request).await;
    }
}

fn prepare<E: OutgoingEvent>(batch: &[E], authorization: &HeaderValue) -> Prepared {
    let mut body = Vec::with_capacity(batch.len() * 384 + 16);
    body.extend_from_slice(b"{\"events\":[");
    for (place, event) in batch.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        event.write_json(&mut body);
    }
    body.extend_from_slice(b"]}");
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(AUTHORIZATION, authorization.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Prepared {
        method: Method::POST,
        uri: Uri::from_static("/api/v1/usage/events"),
        headers,
        body: Bytes::from(body),
    }
}

async fn deliver<E: OutgoingEvent>(
    outbox: &Outbox<E>,
    lane: &mut Lane,
    batch: &[E],
    request: &Prepared,
) {
    let started = clock::now();
    let mut wait = RETRY_MIN;
    loop {
        let told_to_wait = match lane.call(request).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                let mut tally = outbox.tally.borrow_mut();
                tally.flush_latency.record(clock::now() - started);
                match serde_json::from_slice::<Receipt>(&answer.body) {
                    Ok(receipt) => tally.acknowledge(batch, &receipt),
                    Err(_unreadable) => {
                        tally.inconsistent_answers += 1;
                        tally.give_up(batch);
                    }
                }
                return;
            }
            Ok(answer) if is_final(answer.status) => {
                let mut tally = outbox.tally.borrow_mut();
                tally.refused += count(batch.len());
                if tally.rejections.len() < REJECTIONS_SHOWN_MAX {
                    tally.rejections.push(whole_batch(&answer));
                }
                return;
            }
            Ok(answer) => answer.retry_after(),
            Err(_outcome_unknown) => None,
        };
        if outbox.is_given_up() {
            outbox.tally.borrow_mut().give_up(batch);
            return;
        }
        outbox.tally.borrow_mut().retries += 1;
        tokio::time::sleep(told_to_wait.unwrap_or(wait).clamp(RETRY_MIN, RETRY_MAX)).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// A 4xx other than "later" means that Weir looked at the batch and will not record it.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn whole_batch(answer: &Answer) -> String {
    let body: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
    format!("whole batch refused with {}: {body}", answer.status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Note(usize, u64);

    impl OutgoingEvent for Note {
        fn subscription(&self) -> usize {
            self.0
        }
        fn units(&self) -> u64 {
            self.1
        }
        fn write_json(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(format!("[{},{}]", self.0, self.1).as_bytes());
        }
    }

    #[test]
    fn a_batch_is_one_json_object() {
        let request = prepare(&[Note(1, 2), Note(3, 4)], &HeaderValue::from_static("x"));
        assert_eq!(request.body, r#"{"events":[[1,2],[3,4]]}"#);
    }

    #[test]
    fn only_a_4xx_that_will_never_change_is_final() {
        for (status, is_expected) in [
            (400, true),
            (401, true),
            (413, true),
            (422, true),
            (429, false),
            (408, false),
            (503, false),
            (500, false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_final(status), is_expected, "{status}");
        }
    }
}
