//! What one end of a link knows: what waits, what is under way, what was dealt with.
//!
//! Role: pure bookkeeping under the link's lock, held for a few operations at a time. The windows
//! are kept by whoever sends: a request has its place until its answer comes or the link ends (a
//! caller that no longer waits does not free it, since the peer is still at work), a tell until the
//! peer has dealt with it, an answer until the peer has taken it. The last two travel as running
//! counts in every frame, which works because a link delivers in order; a count that does not add up
//! ends the link.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use weir_config::limits::{
    PEER_BATCH_BYTES_MAX, PEER_BATCH_MESSAGES_MAX, PEER_BODY_BYTES_MAX, PEER_WINDOW_BYTES,
    PEER_WINDOW_MESSAGES,
};

use super::PeerError;
use crate::codec::frames::{Frame, PeerMessage};
use crate::metrics::PeerRefusal;

/// What a caller waits for.
pub(super) type Outcome = Result<Vec<u8>, PeerError>;

/// The peer counts something that never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfStep;

/// Dealt with and not said yet: after so much it is said at once, before the peer's window is full.
const SAY_MESSAGES: u64 = PEER_WINDOW_MESSAGES as u64 / 4;
const SAY_BYTES: usize = PEER_WINDOW_BYTES / 4;

/// One end of a link.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    closed: bool,
    /// Pings and pongs: outside every window, so that a full link is not taken for a dead one.
    urgent: Vec<PeerMessage>,
    queue: VecDeque<PeerMessage>,
    requests: HashMap<u64, Asked>,
    last_request: u64,
    /// Bytes of tells that the peer has not dealt with, oldest first.
    tells: VecDeque<usize>,
    /// Bytes of answers that the peer has not taken, oldest first.
    answers: VecDeque<usize>,
    /// Bytes of requests and tells under way.
    bytes: usize,
    /// What the peer said last.
    peer: Counts,
    /// What is true of this end, and what of it was said.
    own: Counts,
    said: Counts,
    unsaid_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    told: u64,
    answered: u64,
}

#[derive(Debug)]
struct Asked {
    bytes: usize,
    caller: oneshot::Sender<Outcome>,
}

impl Outbox {
    /// Queues a request; its outcome comes through the receiver.
    pub(super) fn request(
        &mut self,
        body: Vec<u8>,
    ) -> Result<oneshot::Receiver<Outcome>, PeerRefusal> {
        let bytes = self.admit(&body)?;
        let (caller, outcome) = oneshot::channel();
        self.last_request += 1;
        self.requests.insert(self.last_request, Asked { bytes, caller });
        self.queue.push_back(PeerMessage::Request(self.last_request, body));
        Ok(outcome)
    }

    /// Queues a message without an answer.
    pub(super) fn tell(&mut self, body: Vec<u8>) -> Result<(), PeerRefusal> {
        let bytes = self.admit(&body)?;
        self.tells.push_back(bytes);
        self.queue.push_back(PeerMessage::Tell(body));
        Ok(())
    }

    fn admit(&mut self, body: &[u8]) -> Result<usize, PeerRefusal> {
        if self.closed {
            return Err(PeerRefusal::NoLink);
        }
        if body.len() > PEER_BODY_BYTES_MAX {
            return Err(PeerRefusal::TooLarge);
        }
        let full =
            self.under_way() >= PEER_WINDOW_MESSAGES || self.bytes + body.len() > PEER_WINDOW_BYTES;
        if full {
            return Err(PeerRefusal::WindowFull);
        }
        self.bytes += body.len();
        Ok(body.len())
    }

    /// Whether one request is all that is under way.
    pub(super) fn is_alone(&self) -> bool {
        self.under_way() == 1 && self.urgent.is_empty()
    }

    fn under_way(&self) -> usize {
        self.requests.len() + self.tells.len()
    }

    /// Queues an answer, for which the link made room; `None` says that there is none.
    pub(super) fn answer(&mut self, id: u64, body: Option<Vec<u8>>) {
        if self.closed {
            return;
        }
        self.answers.push_back(body.as_ref().map_or(0, Vec::len));
        self.queue.push_back(match body {
            Some(body) => PeerMessage::Answer(id, body),
            None => PeerMessage::NoAnswer(id),
        });
    }

    /// Queues a ping or a pong.
    pub(super) fn urge(&mut self, message: PeerMessage) {
        // A peer that pings faster than frames leave is answered once a frame.
        if !self.closed && self.urgent.len() < PEER_BATCH_MESSAGES_MAX {
            self.urgent.push(message);
        }
    }

    /// A tell was dealt with; true when the peer should hear of it at once.
    pub(super) fn dealt_with_tell(&mut self, bytes: usize) -> bool {
        self.own.told += 1;
        self.unsaid_bytes += bytes;
        self.must_say()
    }

    /// What the peer says it has dealt with: frees its places, and returns the bytes of the answers
    /// that it took.
    pub(super) fn heard(&mut self, told: u64, answered: u64) -> Result<usize, OutOfStep> {
        let tells = told.checked_sub(self.peer.told).ok_or(OutOfStep)?;
        let answers = answered.checked_sub(self.peer.answered).ok_or(OutOfStep)?;
        self.bytes -= take(&mut self.tells, tells)?;
        let freed = take(&mut self.answers, answers)?;
        self.peer = Counts { told, answered };
        Ok(freed)
    }

    /// An answer came, or word that there is none.
    pub(super) fn answered(&mut self, id: u64, body: Option<Vec<u8>>) -> Result<(), OutOfStep> {
        let Asked { bytes, caller } = self.requests.remove(&id).ok_or(OutOfStep)?;
        self.bytes -= bytes;
        self.own.answered += 1;
        self.unsaid_bytes += body.as_ref().map_or(0, Vec::len);
        // Whoever asked may have gone.
        let _ = caller.send(body.ok_or(PeerError::Unknown));
        Ok(())
    }

    /// True when the peer should hear of what was dealt with although nothing else is to be sent.
    pub(super) fn must_say(&self) -> bool {
        let unsaid = self.own.told - self.said.told + self.own.answered - self.said.answered;
        unsaid >= SAY_MESSAGES || self.unsaid_bytes >= SAY_BYTES
    }

    /// The next frame, if there is reason for one.
    pub(super) fn next_frame(&mut self, link: u64) -> Option<Frame> {
        if self.closed || (self.urgent.is_empty() && self.queue.is_empty() && !self.must_say()) {
            return None;
        }
        let mut messages = std::mem::take(&mut self.urgent);
        let mut bytes = 0;
        let mut gathered = 0;
        while let Some(next) = self.queue.front() {
            bytes += body_bytes(next);
            // One message is sent whatever its size; more only within the batch.
            let full = gathered >= PEER_BATCH_MESSAGES_MAX
                || (gathered > 0 && bytes > PEER_BATCH_BYTES_MAX);
            if full {
                break;
            }
            gathered += 1;
            messages.extend(self.queue.pop_front());
        }
        self.said = self.own;
        self.unsaid_bytes = 0;
        Some(Frame { link, told: self.own.told, answered: self.own.answered, messages })
    }

    /// The link ended: what still waits here was certainly not sent.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.urgent.clear();
        for message in self.queue.drain(..) {
            if let PeerMessage::Request(id, _) = message
                && let Some(asked) = self.requests.remove(&id)
            {
                let _ = asked.caller.send(Err(PeerError::NotSent));
            }
        }
        for (_, asked) in self.requests.drain() {
            let _ = asked.caller.send(Err(PeerError::Unknown));
        }
    }
}

/// Removes the oldest `count` and returns their sum.
fn take(waiting: &mut VecDeque<usize>, count: u64) -> Result<usize, OutOfStep> {
    let count = usize::try_from(count).ok().filter(|&count| count <= waiting.len());
    Ok(waiting.drain(..count.ok_or(OutOfStep)?).sum())
}

fn body_bytes(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Request(_, body) | PeerMessage::Answer(_, body) | PeerMessage::Tell(body) => {
            body.len()
        }
        PeerMessage::Ping(_) | PeerMessage::Pong(_) | PeerMessage::NoAnswer(_) => 0,
    }
}

#[cfg(test)]
mod tests;
