//! Door to one subscription's mailbox, with a bound in front of it.
//!
//! ractor's mailboxes are unbounded. Every request takes a permit that rides in its message and is
//! given back when the message has been dealt with; above the limit the caller is refused at once.
//! The same count lets an actor end without losing a request: it closes only when no permit is out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use ractor::ActorRef;
use tokio::sync::oneshot;
use weir_core::units::{Micros, PlanId, ShardId, SubscriptionId};

use super::message::{Message, Undecided};
use crate::recorder::{Dirty, Take};

const CLOSED: u32 = 1 << 31;

/// A resident subscription.
#[derive(Debug)]
pub struct SubscriptionHandle {
    subscription: SubscriptionId,
    shard: ShardId,
    born: u64,
    actor: ActorRef<Message>,
    /// Permits that are out, and [`CLOSED`].
    permits: AtomicU32,
    ended: AtomicBool,
    last_used: AtomicI64,
    plans: std::sync::Mutex<(PlanId, Option<PlanId>)>,
}

/// Admission of one request.
#[derive(Debug)]
pub(super) struct Permit(Arc<SubscriptionHandle>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.permits.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// Too many wait.
    Full,
    /// The actor is gone or going; ask for a new one.
    Gone,
}

impl SubscriptionHandle {
    pub(super) fn new(
        subscription: SubscriptionId,
        shard: ShardId,
        born: u64,
        actor: ActorRef<Message>,
        now: Micros,
        plans: (PlanId, Option<PlanId>),
    ) -> Self {
        Self {
            subscription,
            shard,
            born,
            actor,
            permits: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            last_used: AtomicI64::new(now.get()),
            plans: std::sync::Mutex::new(plans),
        }
    }

    /// The actor's id, to tell a successor from its predecessor.
    pub(super) fn actor_id(&self) -> ractor::ActorId {
        self.actor.get_id()
    }

    /// A permit, if the mailbox has room.
    pub(super) fn admit(self: &Arc<Self>, limit: u32) -> Result<Permit, NotAdmitted> {
        let before = self.permits.fetch_add(1, Ordering::AcqRel);
        let permit = Permit(self.clone());
        if before & CLOSED != 0 {
            Err(NotAdmitted::Gone)
        } else if before >= limit {
            Err(NotAdmitted::Full)
        } else {
            Ok(permit)
        }
    }

    /// Sends; false when the actor is gone.
    pub(super) fn send(&self, message: Message) -> bool {
        self.actor.send_message(message).is_ok()
    }

    /// Closes the door if nobody is inside. After this every request asks for a new actor.
    pub(super) fn close(&self) -> bool {
        let closed = self.permits.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        if closed.is_ok() {
            self.ended.store(true, Ordering::Release);
        }
        closed.is_ok()
    }

    pub(super) fn touch(&self, now: Micros) {
        self.last_used.store(now.get(), Ordering::Relaxed);
    }

    pub(super) fn last_used(&self) -> Micros {
        Micros::from_micros(self.last_used.load(Ordering::Relaxed))
    }

    pub(super) fn set_plans(&self, plans: (PlanId, Option<PlanId>)) {
        *self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = plans;
    }

    pub(super) fn uses_plan(&self, plan: PlanId) -> bool {
        let plans = *self.plans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        plans.0 == plan || plans.1 == Some(plan)
    }
}

impl Dirty for SubscriptionHandle {
    fn subscription(&self) -> SubscriptionId {
        self.subscription
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn born(&self) -> u64 {
        self.born
    }

    fn take(&self) -> Take {
        if self.ended.load(Ordering::Acquire) {
            return Take::Ended;
        }
        let (reply, taken) = oneshot::channel();
        if self.send(Message::Take(reply)) { Take::Asked(taken) } else { Take::Died }
    }

    fn confirm(&self) {
        // An actor that died meanwhile starts from what was just committed.
        let _ = self.send(Message::Confirm);
    }
}

impl From<NotAdmitted> for Undecided {
    fn from(reason: NotAdmitted) -> Self {
        match reason {
            NotAdmitted::Full => Self::Busy,
            NotAdmitted::Gone => Self::Failed,
        }
    }
}
