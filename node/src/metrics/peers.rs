//! Figures of the links between nodes.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Why something of a peer's, or for a peer, was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRefusal {
    /// A message for a peer without a link.
    NoLink,
    /// A message for a peer whose window is full.
    WindowFull,
    /// A body, or an answer, above the cap.
    TooLarge,
    /// A frame that could not be read, or of a link that is gone.
    BadFrame,
    /// A message beyond the window that a peer must keep.
    BeyondWindow,
    /// A connection that did not prove itself: no peer, another secret, another certificate.
    Handshake,
    /// A connection while too many others were proving themselves.
    HandshakesFull,
}

const REFUSALS: [(PeerRefusal, &str); 7] = [
    (PeerRefusal::NoLink, "no_link"),
    (PeerRefusal::WindowFull, "window_full"),
    (PeerRefusal::TooLarge, "too_large"),
    (PeerRefusal::BadFrame, "bad_frame"),
    (PeerRefusal::BeyondWindow, "beyond_window"),
    (PeerRefusal::Handshake, "handshake"),
    (PeerRefusal::HandshakesFull, "handshakes_full"),
];

/// Handles of everything counted about links.
pub struct PeerMetrics {
    frames: [Counter; 2],
    messages: [Counter; 2],
    bytes: [Counter; 2],
    refused: Vec<Counter>,
    round_trip: Histogram,
    links: Gauge,
    detours: Counter,
}

impl PeerMetrics {
    pub(super) fn register() -> Self {
        let both = |name: &'static str| {
            ["sent", "received"].map(|direction| counter!(name, "direction" => direction))
        };
        let refused = |(_, reason)| counter!("weir_peer_refused_total", "reason" => reason);
        Self {
            frames: both("weir_peer_frames_total"),
            messages: both("weir_peer_messages_total"),
            bytes: both("weir_peer_bytes_total"),
            refused: REFUSALS.map(refused).into(),
            round_trip: histogram!("weir_peer_round_trip_seconds"),
            links: gauge!("weir_peer_links"),
            detours: counter!("weir_peer_detours_total"),
        }
    }

    /// A frame was handed to the carrier.
    pub fn sent(&self, messages: usize, bytes: usize) {
        self.frames[0].increment(1);
        self.messages[0].increment(messages as u64);
        self.bytes[0].increment(bytes as u64);
    }

    /// A frame arrived and could be read.
    pub fn received(&self, messages: usize, bytes: usize) {
        self.frames[1].increment(1);
        self.messages[1].increment(messages as u64);
        self.bytes[1].increment(bytes as u64);
    }

    /// Something was turned away.
    pub fn refused(&self, why: PeerRefusal) {
        let index = REFUSALS.iter().position(|(one, _)| *one == why).unwrap_or_default();
        self.refused[index].increment(1);
    }

    /// A question was answered by way of another peer.
    pub fn went_round(&self) {
        self.detours.increment(1);
    }

    /// A ping was answered.
    pub fn ponged(&self, round_trip: Duration) {
        self.round_trip.record(round_trip);
    }

    /// A link came up.
    pub fn linked(&self) {
        self.links.increment(1.0);
    }

    /// A link that was up went down.
    pub fn unlinked(&self) {
        self.links.decrement(1.0);
    }
}
