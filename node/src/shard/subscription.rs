//! One subscription's actor: receive, apply, run what follows. No arithmetic here.
//!
//! ```text
//!   check ──▶ apply ─┬─ decided ──────────────────────────────▶ answer
//!                    ├─ decided, reserved ─▶ checkpoint now ─▶ (confirm) ─▶ answer
//!                    └─ waits ─▶ checkpoint now ─▶ (confirm) ─▶ apply again
//!   Retire ─▶ clean checkpoint ─▶ (confirm, nothing happened since) ─▶ close the door ─▶ stop
//! ```
//! The state is [`Resident`], behind the lock of its handle; a check comes straight to it, the rest by
//! message. If a step panics the lock stays poisoned, the actor ends, its supervisor forgets it and the
//! next request loads it from its last checkpoint and the ledger rows after it.

use std::future::ready;
use std::sync::{Arc, MutexGuard, OnceLock};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use weir_core::meter::Wants;
use weir_core::units::{ShardId, SubscriptionId};

use super::Deps;
use super::handle::{Identity, SubscriptionHandle};
use super::loader::Loader;
use super::message::Message;
use super::registry::Residents;
use crate::recorder::Dirty;

mod persist;
mod resident;
mod resting;

pub(super) use resident::{Checked, Resident};

/// Rows counted before those who check get a turn: some 10 µs.
const RECORD_AT_ONCE: usize = 64;

/// The behaviour; state is in [`Resident`].
pub(super) struct SubscriptionActor;

/// What it starts from.
pub(super) struct Arguments {
    pub(super) subscription: SubscriptionId,
    pub(super) shard: ShardId,
    pub(super) deps: Arc<Deps>,
    pub(super) loader: Loader,
    /// Where the handle is put once there is one.
    pub(super) slot: Arc<OnceLock<Arc<SubscriptionHandle>>>,
    /// Where it takes itself out when it leaves in order.
    pub(super) residents: Residents,
}

/// What the actor owns: the door. It is shut however the actor ends.
pub(super) struct Home {
    door: Arc<SubscriptionHandle>,
    deps: Arc<Deps>,
    residents: Residents,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.door.shut();
    }
}

/// A step panicked half way.
#[derive(Debug, thiserror::Error)]
#[error("a step panicked; the state is not whole")]
struct Broken;

/// What it holds is not what the store will have; it starts anew from what is there.
#[derive(Debug, thiserror::Error)]
#[error("its state was refused by the store")]
struct Discarded;

impl Home {
    fn state(&self) -> Result<MutexGuard<'_, Resident>, Broken> {
        self.door.state().ok_or(Broken)
    }

    fn leave(&self) {
        let own = self.door.actor_id();
        let id = self.door.subscription();
        self.residents.remove_if(&id, |_, handle| handle.actor_id() == own);
        self.deps.metrics.passivated();
    }

    fn receive(
        &self,
        myself: &ActorRef<Message>,
        message: Message,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.deps.clock.now();
        match message {
            Message::Record(entries, reply, permit) => {
                for entries in entries.chunks(RECORD_AT_ONCE) {
                    self.state()?.record(now, entries);
                }
                drop(permit);
                // Whoever waited may have gone; the rows are counted all the same.
                let _ = reply.send(());
            }
            Message::Usage(reply, permit) => {
                let view = self.state()?.usage(now);
                drop(permit);
                let _ = reply.send(view);
            }
            Message::Terms(reply, permit) => {
                let terms = self.state()?.terms(now);
                drop(permit);
                let _ = reply.send(terms);
            }
            Message::Define(definition, reply, permit) => {
                self.state()?.define(now, *definition);
                drop(permit);
                let _ = reply.send(());
            }
            Message::Take(reply) => {
                let taken = self.state()?.take(now);
                let _ = reply.send(taken);
            }
            Message::Confirm => {
                let mut state = self.state()?;
                state.confirm(now);
                let rests = state.rest(&self.door);
                state.set_alarm(myself);
                drop(state);
                if rests {
                    self.leave();
                    myself.stop(None);
                }
            }
            Message::Discard => return Err(Discarded.into()),
            Message::Overdue => self.state()?.overdue(now, myself),
            Message::Retire => self.state()?.retire(Wants::Checkpoint),
            Message::RetireNow => self.state()?.retire(Wants::CheckpointNow),
        }
        Ok(())
    }
}

impl Actor for SubscriptionActor {
    type Msg = Message;
    type State = Home;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        args: Arguments,
    ) -> Result<Home, ActorProcessingErr> {
        let Arguments { subscription, shard, deps, loader, slot, residents } = args;
        // Before the read: see `Ownership::birth`.
        let born = deps.ownership.birth();
        let start = loader.load(&deps, subscription, shard).await?;
        // A hole is only closed by a checkpoint, even where there is nothing new to write.
        let newborn = start.newborn;
        let unclean = start.unclean || deps.ownership.is_hole(subscription);
        let identity = Identity { subscription, shard, born, actor: myself };
        let door = SubscriptionHandle::new(identity, deps.clock.now(), |door| {
            Resident::new(deps.clone(), shard, start, door)
        });
        let home = Home { door, deps, residents };
        // Of one that was never persisted the store shall know which terms its first units lie under.
        if newborn || unclean {
            home.state()?.persist(Wants::Checkpoint);
        }
        slot.get_or_init(|| home.door.clone());
        Ok(home)
    }

    // Nothing here waits, and a future that is ready is a quarter of a kilobyte less in every actor's
    // task than one that holds the message.
    fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        home: &mut Home,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        ready(home.receive(&myself, message))
    }
}
