//! What a subscription actor is told, and what it answers. Checks do not come this way, see `handle`.

use std::sync::Arc;

use tokio::sync::oneshot;
use weir_core::meter::{Decision, Entry};
use weir_core::terms::Terms;
use weir_core::units::Micros;

use super::handle::Permit;
use crate::catalog::definition::Definition;
use crate::outcome::Undecided;
use crate::recorder::Taken;

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
#[derive(Debug, ractor_cluster::RactorMessage)]
pub(super) enum Message {
    /// Rows are durable.
    Record(Vec<Entry>, oneshot::Sender<()>, Permit),
    /// Where does everything stand?
    Usage(oneshot::Sender<UsageView>, Permit),
    /// By which terms does it decide now?
    Terms(oneshot::Sender<Arc<Terms>>, Permit),
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
    /// The same, with the next batch of checkpoints: another node waits for the shard.
    RetireNow,
}
