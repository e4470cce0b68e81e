//! One link: an [`Outbox`] under a lock, the pump that empties it, and the hands that work off what
//! the peer sends.
//!
//! ```text
//!   request, tell, answers ─▶ outbox ─▶ pump ─▶ carrier ─▶ peer
//!   answers ◀─ callers ◀───── accept ◀── frame ◀────────── peer
//!                               ├─▶ one task a request ─▶ handler ─▶ outbox
//!                               └─▶ one worker for tells, in order
//! ```
//! Batches make themselves: the pump is woken by the first message, lets whatever else is ready to
//! run add its own, and sends what is there, so an idle link waits for nothing. The road not taken
//! is a timer of 200 µs: the runtime's timers tick at 1 ms, and under load a pass of the run queue is
//! shorter than either. A message that is alone, as nearly all are on a quiet link, does not even wait
//! for the pump: whoever brings it sends it, and a lone request is begun where it arrives. Each of these
//! steps through another task costs some ten microseconds of a check's way.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_config::limits::{
    PEER_BODY_BYTES_MAX, PEER_CUT_AFTER, PEER_PING_EVERY, PEER_SUSPECT_AFTER, PEER_WINDOW_BYTES,
    PEER_WINDOW_MESSAGES,
};

use super::carrier::Remote;
use super::outbox::{OutOfStep, Outbox, Outcome};
use super::{LinkView, PeerHandler};
use crate::clock::{Clock, Stopwatch};
use crate::codec::frames::{Frame, PeerMessage, encode_frame};
use crate::metrics::{Metrics, PeerRefusal};

/// A larger request is not begun where its frame is read: all peers' frames are read by one actor, and a
/// thousand rows take a millisecond to decode.
const BEGUN_HERE_BYTES_MAX: usize = 4 * 1_024;

/// One link to one peer.
pub(super) struct Link {
    /// The peer's boot.
    pub(super) peer: Uuid,
    /// In every frame of the link; only its two ends know it.
    pub(super) number: u64,
    /// Ends it: the socket closes, and everything else follows.
    pub(super) cut: CancellationToken,
    outbox: Mutex<Outbox>,
    wake: Notify,
    since: Stopwatch,
    up: AtomicBool,
    /// Microseconds after `since` at the last pong.
    ponged_micros: AtomicU64,
    /// Of the last pong, plus one; 0 before the first.
    round_trip_micros: AtomicU64,
    /// Where frames go while the link is up. Held from taking a frame until it is handed over: the peer
    /// must get frames in the order of their counts.
    remote: Mutex<Option<Remote>>,
    /// Requests of the peer that are being worked on.
    handling: AtomicUsize,
    tells: mpsc::Sender<Vec<u8>>,
    /// Bytes of answers that the peer may still be sent before it takes some.
    answer_room: Semaphore,
    handler: Arc<dyn PeerHandler>,
    metrics: Arc<Metrics>,
}

impl Link {
    /// A link that is not up yet: frames that arrive are worked off, none leaves.
    pub(super) fn new(
        peer: Uuid,
        number: u64,
        cut: CancellationToken,
        handler: Arc<dyn PeerHandler>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (tells, told) = mpsc::channel(PEER_WINDOW_MESSAGES);
        let link = Arc::new(Self {
            peer,
            number,
            cut,
            outbox: Mutex::default(),
            wake: Notify::new(),
            since: Clock::stopwatch(),
            up: AtomicBool::new(false),
            ponged_micros: AtomicU64::new(0),
            round_trip_micros: AtomicU64::new(0),
            remote: Mutex::default(),
            handling: AtomicUsize::new(0),
            tells,
            answer_room: Semaphore::new(PEER_WINDOW_BYTES),
            handler,
            metrics,
        });
        tokio::spawn(Arc::clone(&link).work_off_tells(told));
        link
    }

    /// How long it exists.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// As it stands.
    pub(super) fn view(&self) -> LinkView {
        let connected = self.up.load(Ordering::Acquire) && !self.cut.is_cancelled();
        let round_trip = self.round_trip_micros.load(Ordering::Relaxed);
        LinkView {
            incarnation: self.peer,
            connected,
            suspect: connected && self.silence() > PEER_SUSPECT_AFTER,
            round_trip: round_trip.checked_sub(1).map(Duration::from_micros),
        }
    }

    fn silence(&self) -> Duration {
        let ponged = Duration::from_micros(self.ponged_micros.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(ponged)
    }

    /// Queues a request.
    pub(super) fn request(&self, body: Vec<u8>) -> Result<oneshot::Receiver<Outcome>, PeerRefusal> {
        let mut outbox = self.outbox();
        let outcome = outbox.request(body)?;
        let is_alone = outbox.is_alone();
        drop(outbox);
        self.leave(is_alone);
        Ok(outcome)
    }

    /// Queues a message without an answer.
    pub(super) fn tell(&self, body: Vec<u8>) -> Result<(), PeerRefusal> {
        self.outbox().tell(body)?;
        self.wake.notify_one();
        Ok(())
    }

    /// The lock is held for bookkeeping alone; should that panic, the link is not usable any more
    /// but others must still be able to close it.
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends until the link is cut or the carrier lost the peer; then whoever waits is told.
    pub(super) async fn pump(&self, remote: &Remote) {
        *self.remote() = Some(remote.clone());
        self.up.store(true, Ordering::Release);
        let started = self.micros();
        self.ponged_micros.store(started, Ordering::Relaxed);
        self.metrics.peers().linked();
        let mut pings = tokio::time::interval(PEER_PING_EVERY);
        pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.cut.cancelled() => break,
                () = remote.gone() => break,
                () = self.wake.notified() => tokio::task::yield_now().await,
                _ = pings.tick() => {
                    if self.silence() > PEER_CUT_AFTER {
                        tracing::warn!(peer = %self.peer, "peer is silent, the link is cut");
                        break;
                    }
                    self.outbox().urge(PeerMessage::Ping(self.micros()));
                }
            }
            if !self.remote().as_ref().is_some_and(|remote| self.send_all(remote)) {
                break;
            }
        }
        *self.remote() = None;
        self.up.store(false, Ordering::Release);
        self.metrics.peers().unlinked();
    }

    /// Ends the link for good. Idempotent.
    pub(super) fn close(&self) {
        self.cut.cancel();
        self.answer_room.close();
        self.outbox().close();
    }

    /// What was queued goes: at once when it is alone, else with what is queued by the time that the pump
    /// comes to it.
    fn leave(&self, is_alone: bool) {
        if is_alone
            && let Ok(remote) = self.remote.try_lock()
            && let Some(remote) = &*remote
        {
            if !self.send_all(remote) {
                self.cut.cancel();
            }
            return;
        }
        self.wake.notify_one();
    }

    fn remote(&self) -> MutexGuard<'_, Option<Remote>> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_all(&self, remote: &Remote) -> bool {
        loop {
            let Some(frame) = self.outbox().next_frame(self.number) else { return true };
            let bytes = encode_frame(&frame);
            self.metrics.peers().sent(frame.messages.len(), bytes.len());
            if !remote.send(bytes) {
                return false;
            }
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Works off a frame of the peer. Does not wait.
    pub(super) fn accept(self: &Arc<Self>, frame: Frame) {
        if self.take_in(frame).is_err() {
            self.metrics.peers().refused(PeerRefusal::BadFrame);
            tracing::warn!(peer = %self.peer, "peer is out of step, the link is cut");
            self.cut.cancel();
        }
    }

    fn take_in(self: &Arc<Self>, frame: Frame) -> Result<(), OutOfStep> {
        let mut wake = false;
        let is_alone = frame.messages.len() == 1;
        let mut begun = None;
        let mut outbox = self.outbox();
        let freed = outbox.heard(frame.told, frame.answered)?;
        self.answer_room.add_permits(freed);
        for message in frame.messages {
            match message {
                PeerMessage::Answer(id, body) => outbox.answered(id, Some(body))?,
                PeerMessage::NoAnswer(id) => outbox.answered(id, None)?,
                PeerMessage::Ping(number) => {
                    outbox.urge(PeerMessage::Pong(number));
                    wake = true;
                }
                PeerMessage::Pong(sent) => self.ponged(sent),
                PeerMessage::Request(id, body) => {
                    if self.handling.load(Ordering::Relaxed) >= PEER_WINDOW_MESSAGES {
                        self.metrics.peers().refused(PeerRefusal::BeyondWindow);
                        return Err(OutOfStep);
                    }
                    let before = self.handling.fetch_add(1, Ordering::Relaxed);
                    let is_small = body.len() <= BEGUN_HERE_BYTES_MAX;
                    let work = Arc::clone(self).handle(id, body);
                    if is_alone && is_small && before == 0 {
                        begun = Some(work);
                    } else {
                        tokio::spawn(work);
                    }
                }
                PeerMessage::Tell(body) => {
                    if self.tells.try_send(body).is_err() {
                        self.metrics.peers().refused(PeerRefusal::BeyondWindow);
                        return Err(OutOfStep);
                    }
                }
            }
        }
        if wake || outbox.must_say() {
            self.wake.notify_one();
        }
        drop(outbox);
        if let Some(work) = begun {
            begin_here(work);
        }
        Ok(())
    }

    fn ponged(&self, sent_micros: u64) {
        let now = self.micros();
        // A number that we never sent proves nothing.
        let Some(round_trip) = now.checked_sub(sent_micros) else { return };
        self.ponged_micros.store(now, Ordering::Relaxed);
        self.round_trip_micros.store(round_trip + 1, Ordering::Relaxed);
        self.metrics.peers().ponged(Duration::from_micros(round_trip));
    }

    async fn handle(self: Arc<Self>, id: u64, body: Vec<u8>) {
        // Answers that there is none when the handler panics.
        let mut answer = Answering { link: &self, id, body: None };
        let body = self.handler.handle(self.peer, body).await;
        if body.len() > PEER_BODY_BYTES_MAX {
            self.metrics.peers().refused(PeerRefusal::TooLarge);
            return;
        }
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        // Closed with the link; then nobody waits for the answer.
        if let Ok(room) = self.answer_room.acquire_many(bytes).await {
            room.forget();
            answer.body = Some(body);
        }
    }

    async fn work_off_tells(self: Arc<Self>, mut told: mpsc::Receiver<Vec<u8>>) {
        loop {
            let body = tokio::select! {
                body = told.recv() => body,
                // The sender is in the link itself, so its end must be heard of in this way.
                () = self.cut.cancelled() => None,
            };
            let Some(body) = body else { return };
            let bytes = body.len();
            let handler = Arc::clone(&self.handler);
            let peer = self.peer;
            // In a task of its own, so that a panic costs this tell and no other.
            let work = tokio::spawn(async move { handler.told(peer, body).await });
            if work.await.is_err() {
                tracing::error!(peer = %self.peer, "a message of the peer was not dealt with");
            }
            if self.outbox().dealt_with_tell(bytes) {
                self.wake.notify_one();
            }
        }
    }
}

/// Sends the answer, or that there is none, however its task ends.
struct Answering<'a> {
    link: &'a Link,
    id: u64,
    body: Option<Vec<u8>>,
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        // Before the answer, which lets the peer send its next request.
        let is_alone = self.link.handling.fetch_sub(1, Ordering::Relaxed) == 1;
        self.link.outbox().answer(self.id, self.body.take());
        self.link.leave(is_alone);
    }
}

/// Runs it here as far as it goes without waiting, and the rest in a task of its own. A panic ends the
/// work and nobody else's.
fn begin_here(work: impl Future<Output = ()> + Send + 'static) {
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    // Whatever it waits for asks for a waker again when the task polls it.
    let mut nobody = Context::from_waker(Waker::noop());
    if work.as_mut().poll(&mut nobody).is_pending() {
        tokio::spawn(work);
    }
}
