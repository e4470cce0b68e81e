//! Door to one resident subscription: its state, under a lock, and its actor's mailbox.
//!
//! A check that needs nothing but memory is decided by whoever asks, under the lock; everything else
//! is a message, and the actor works on the same state under the same lock. So there is one serial
//! history, and the most frequent step costs no wake-up of another task (ARCHITECTURE.md, *Decisions*).
//!
//! ractor's mailboxes are unbounded: every request takes a permit that rides in its message and is
//! given back when the message has been dealt with; above the limit the caller is refused at once.
//! The same count lets an actor end without losing a request: it closes only when no permit is out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ractor::ActorRef;
use tokio::sync::oneshot;
use weir_core::meter::Check;
use weir_core::units::{Micros, PlanId, ShardId, SubscriptionId};

use super::message::Message;
use super::subscription::{Checked, Resident};
use crate::recorder::{Dirty, Take};

const CLOSED: u32 = 1 << 31;

/// A resident subscription.
pub struct SubscriptionHandle {
    subscription: SubscriptionId,
    shard: ShardId,
    born: u64,
    actor: ActorRef<Message>,
    /// Permits that are out, and [`CLOSED`].
    permits: AtomicU32,
    ended: AtomicBool,
    last_used: AtomicI64,
    resident: Mutex<Resident>,
}

impl std::fmt::Debug for SubscriptionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = &self.subscription;
        f.debug_struct("SubscriptionHandle").field("subscription", id).finish_non_exhaustive()
    }
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

/// Who a handle leads to.
pub(super) struct Identity {
    pub(super) subscription: SubscriptionId,
    pub(super) shard: ShardId,
    /// When it was loaded, see [`Ownership::birth`](crate::ownership::Ownership::birth).
    pub(super) born: u64,
    pub(super) actor: ActorRef<Message>,
}

impl SubscriptionHandle {
    /// `resident` is given the way back to its own door.
    pub(super) fn new(
        identity: Identity,
        now: Micros,
        resident: impl FnOnce(Weak<Self>) -> Resident,
    ) -> Arc<Self> {
        let Identity { subscription, shard, born, actor } = identity;
        Arc::new_cyclic(|door| Self {
            subscription,
            shard,
            born,
            actor,
            permits: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            last_used: AtomicI64::new(now.get()),
            resident: Mutex::new(resident(door.clone())),
        })
    }

    /// The actor's id, to tell a successor from its predecessor.
    pub(super) fn actor_id(&self) -> ractor::ActorId {
        self.actor.get_id()
    }

    /// The state; `None` when a step broke it, and what is left of the actor must go.
    pub(super) fn state(&self) -> Option<MutexGuard<'_, Resident>> {
        self.resident.lock().ok()
    }

    /// Whether a step broke its state.
    pub(super) fn is_broken(&self) -> bool {
        self.resident.is_poisoned()
    }

    /// Decides, or begins to wait for a commit. `None` when the actor is gone or going.
    pub(super) fn check(&self, now: Micros, check: &Check) -> Option<Checked> {
        // A defect costs this one subscription its state in memory, and the caller another attempt.
        let step = catch_unwind(AssertUnwindSafe(|| self.check_under_lock(now, check)));
        let checked = step.ok().flatten();
        if checked.is_none() {
            // Any message makes an actor with a broken state find out.
            self.send(Message::Overdue);
        }
        checked
    }

    fn check_under_lock(&self, now: Micros, check: &Check) -> Option<Checked> {
        let mut resident = self.state()?;
        // Looked at under the lock, under which the door is closed.
        if self.permits.load(Ordering::Acquire) & CLOSED != 0 {
            return None;
        }
        self.last_used.store(now.get(), Ordering::Relaxed);
        let checked = resident.check(now, check);
        if let Checked::Later(_) = checked {
            resident.set_alarm(&self.actor);
        }
        Some(checked)
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

    /// Closes the door if nobody is inside, after which every request asks for a new actor. Called
    /// under the lock of the state.
    pub(super) fn close(&self) -> bool {
        let closed = self.permits.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire);
        if closed.is_ok() {
            self.ended.store(true, Ordering::Release);
        }
        closed.is_ok()
    }

    /// Closes the door whoever is inside: the actor is gone.
    pub(super) fn shut(&self) {
        self.permits.fetch_or(CLOSED, Ordering::AcqRel);
        // After this nobody begins to wait, and of a broken state nothing else is used.
        self.resident.lock().unwrap_or_else(PoisonError::into_inner).abandon();
    }

    pub(super) fn last_used(&self) -> Micros {
        Micros::from_micros(self.last_used.load(Ordering::Relaxed))
    }

    /// Whether it should have heard of this version of a plan. One that broke is loaded anew.
    pub(super) fn is_behind(&self, plan: PlanId, version: u32) -> bool {
        self.state().is_some_and(|resident| resident.is_behind(plan, version))
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

    fn discard(&self) {
        let _ = self.send(Message::Discard);
    }
}
