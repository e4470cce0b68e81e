//! The outbox as its readers and its workers see it.
//!
//! Role: a message is written by whoever causes it ([`OutboxRow`](crate::rows::OutboxRow), in the
//! transaction of the cause). Afterwards it is *addressed*: it gets one delivery for each channel
//! that wants it. Deliveries are *claimed*, sent by whoever holds the claim, and *finished*; what
//! became of a message follows from its deliveries.
//!
//! ```text
//!              address          claim (attempts + 1)       finish: delivered, dead
//!  unaddressed ───────▶ pending ──────────────────▶ claimed ───────▶ finished
//!       ▲                  ▲                           │ finish: retry │
//!       │                  └───────────────────────────┴ claim expires │
//!       └───────────────────────── redeliver ──────────────────────────┘
//! ```
//! Of a *lane* (subscription and channel) only the first that is pending can be claimed: the
//! messages of a subscription arrive in their order, whichever nodes send them.

use uuid::Uuid;
use weir_core::units::{Micros, SubscriptionId};

use crate::Reach;

/// Deliveries of one lane that may be pending. Larger: a receiver that is gone for good, of a
/// subscription with very short periods, fills the queue. Smaller: a long outage of a receiver
/// loses notices that it would still have wanted.
pub const LANE_DELIVERIES_MAX: u32 = 1_000;

/// What became of a message, or of one delivery. The numbers are stored; never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum DeliveryStatus {
    /// Will be sent, or sent again.
    Pending = 0,
    /// It arrived; a message, on every channel that wanted it.
    Delivered = 1,
    /// Given up; a message, on at least one channel.
    Dead = 2,
}

impl DeliveryStatus {
    /// From the stored number.
    pub const fn from_i16(number: i16) -> Option<Self> {
        match number {
            0 => Some(Self::Pending),
            1 => Some(Self::Delivered),
            2 => Some(Self::Dead),
            _ => None,
        }
    }
}

/// A message that has no deliveries yet, and what its subscription says of where to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unaddressed {
    /// The message.
    pub id: Uuid,
    /// `quota_warning`, …
    pub kind: String,
    /// Where the subscription's webhooks go.
    pub webhook_url: Option<String>,
    /// Where its notices go.
    pub user_email: Option<String>,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// The message.
    pub id: Uuid,
    /// One delivery for each, at most one a channel; none when nobody wants it, which makes it
    /// delivered.
    pub destinations: Vec<Destination>,
}

/// A way out for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// `webhook`, `email`, …
    pub channel: String,
    /// What it shares with all that go to the same server.
    pub endpoint: String,
}

/// What [`Store::claim_deliveries`](crate::Store::claim_deliveries) may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryClaim {
    /// New for each claim; the same again finds what the first call took.
    pub id: Uuid,
    /// What is due is due now.
    pub now: Micros,
    /// From then on anybody may claim what was not finished.
    pub until: Micros,
    /// Endpoints that are busy: nothing for these.
    pub busy: Vec<String>,
    /// At most this many.
    pub limit: u32,
}

/// A delivery in the hands of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedDelivery {
    /// The message; also its `webhook-id`.
    pub message: Uuid,
    /// Which way it goes.
    pub channel: String,
    /// What it shares with all that go to the same server.
    pub endpoint: String,
    /// Attempts with this one.
    pub attempts: u32,
    /// Whose message.
    pub subscription: SubscriptionId,
    /// `quota_warning`, …
    pub kind: String,
    /// JSON.
    pub payload: String,
    /// When the message came to be.
    pub created_at: Micros,
    /// Where the subscription's webhooks go by now.
    pub webhook_url: Option<String>,
    /// Where its notices go by now.
    pub user_email: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It arrived.
    Delivered,
    /// It did not; again, not before then.
    Retry(Micros),
    /// It did not, and that was the last attempt.
    Dead,
    /// It was not tried: the next may do so at once, and the attempt does not count.
    Released,
}

/// The end of a claim on one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedDelivery {
    /// The claim that took it.
    pub claim: Uuid,
    /// Of which message.
    pub message: Uuid,
    /// On which channel.
    pub channel: String,
    /// How it ended.
    pub ending: Ending,
    /// What went wrong, for people.
    pub error: Option<String>,
    /// When.
    pub at: Micros,
}

/// Filter of [`Store::list_notifications`](crate::Store::list_notifications): newest first by id.
#[derive(Clone, Debug, Default)]
pub struct NotificationFilter {
    /// What the caller may see.
    pub reach: Reach,
    /// Only of this type.
    pub kind: Option<String>,
    /// Only these.
    pub status: Option<DeliveryStatus>,
    /// Only of this subscription.
    pub subscription: Option<SubscriptionId>,
    /// Only ids before this one.
    pub before: Option<Uuid>,
    /// At most this many.
    pub limit: u32,
}

/// A message with its deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationRow {
    /// The message; also its `webhook-id`.
    pub id: Uuid,
    /// Whose message.
    pub subscription: SubscriptionId,
    /// The tenant that the subscription belongs to.
    pub tenant: String,
    /// `quota_warning`, …
    pub kind: String,
    /// JSON.
    pub payload: String,
    /// When it came to be.
    pub created_at: Micros,
    /// What became of it.
    pub status: DeliveryStatus,
    /// The most attempts on one of its channels.
    pub attempts: u32,
    /// What went wrong last on a channel on which it has not arrived.
    pub last_error: Option<String>,
    /// When it was delivered or given up.
    pub finished_at: Option<Micros>,
    /// Its ways out, by name of the channel; none before it is addressed.
    pub deliveries: Vec<DeliveryRow>,
}

/// One way out of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// `webhook`, `email`, …
    pub channel: String,
    /// What it shares with all that go to the same server.
    pub endpoint: String,
    /// What became of it.
    pub status: DeliveryStatus,
    /// Attempts begun.
    pub attempts: u32,
    /// Not before then; while it is being sent, when the claim on it ends.
    pub next_attempt_at: Micros,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When it was delivered or given up.
    pub finished_at: Option<Micros>,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxDepth {
    /// Messages that are neither delivered nor dead.
    pub pending: u64,
    /// When the oldest of them came to be.
    pub oldest: Option<Micros>,
}
