//! What a subscription actor is told, and what it answers. Checks do not come this way, see `handle`.

use tokio::sync::oneshot;
use weir_core::meter::{Decision, Entry};
use weir_core::units::Micros;

use super::handle::Permit;
use crate::catalog::definition::Definition;
use crate::recorder::Taken;

/// No decision could be made. The gateway applies its fail policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// More requests wait for this subscription than may.
    #[error("too many requests are waiting for this subscription")]
    Busy,
    /// The decision needs the store, and the plan fails closed.
    #[error("the store is away and the plan fails closed")]
    StoreAway,
    /// There is no such subscription.
    #[error("no such subscription")]
    NotFound,
    /// The subscription could not be loaded.
    #[error("the subscription could not be loaded")]
    NotLoaded,
    /// It died again and again while it decided.
    #[error("the subscription could not decide")]
    Failed,
}

/// Answer to a check.
pub(super) type CheckReply = oneshot::Sender<Result<Decision, Undecided>>;

/// Live state of a subscription.
#[derive(Clone, Debug)]
pub struct UsageView {
    /// A decision that asks for nothing: every number as it stands.
    pub decision: Decision,
    /// When it was read.
    pub at: Micros,
}

/// Messages. Requests carry the permit that admitted them.
#[derive(Debug)]
pub(super) enum Message {
    /// Rows are durable.
    Record(Vec<Entry>, oneshot::Sender<()>, Permit),
    /// Where does everything stand?
    Usage(oneshot::Sender<UsageView>, Permit),
    /// The subscription or its plan changed.
    Define(Box<Definition>, oneshot::Sender<()>, Permit),
    /// Give state for a checkpoint.
    Take(oneshot::Sender<Taken>),
    /// That checkpoint is committed.
    Confirm,
    /// That checkpoint cannot be committed.
    Discard,
    /// Some have waited long enough.
    Overdue,
    /// Rest, if nothing is going on.
    Retire,
}
