//! One shard's supervisor: makes its actors, notices when one dies.
//!
//! Spawning waits for the store, so it happens in tasks; whoever asks for the same subscription
//! meanwhile waits for the same actor. A load error is a value for all of them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::oneshot;
use weir_config::limits;
use weir_core::units::{ShardId, SubscriptionId};

use super::Deps;
use super::handle::SubscriptionHandle;
use super::loader::{LoadError, Loader};
use super::message::Message;
use super::registry::{ActivateError, Residents};
use super::subscription::{Arguments, SubscriptionActor};
use crate::metrics::chain;
use crate::recorder::Dirty;

type Activated = Result<Arc<SubscriptionHandle>, ActivateError>;

/// What a supervisor is told.
#[derive(Debug, ractor_cluster::RactorMessage)]
pub(super) enum ShardMessage {
    /// Find or make the actor.
    Activate(SubscriptionId, oneshot::Sender<Activated>),
    /// Find the actor if there is one, or will be one when a load that is under way ends.
    Await(SubscriptionId, oneshot::Sender<Activated>),
    /// Who is being loaded?
    Starting(oneshot::Sender<Vec<SubscriptionId>>),
    /// Is anybody there, or on the way? If so, and with `true`, they are to rest, with the next batch of
    /// checkpoints.
    Stir(bool, oneshot::Sender<bool>),
    /// A spawn ended.
    Started(SubscriptionId, Activated),
}

pub(super) struct Supervisor;

pub(super) struct SupervisorArguments {
    pub(super) shard: ShardId,
    pub(super) deps: Arc<Deps>,
    pub(super) loader: Loader,
    pub(super) residents: Residents,
}

pub(super) struct Shard {
    arguments: SupervisorArguments,
    starting: HashMap<SubscriptionId, Vec<oneshot::Sender<Activated>>>,
    /// Whose actor is whose, and its birth, to find the subscription of one that ended.
    actors: HashMap<ActorId, (SubscriptionId, u64)>,
}

impl Actor for Supervisor {
    type Msg = ShardMessage;
    type State = Shard;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        _: ActorRef<ShardMessage>,
        arguments: SupervisorArguments,
    ) -> Result<Shard, ActorProcessingErr> {
        Ok(Shard { arguments, starting: HashMap::new(), actors: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardMessage>,
        message: ShardMessage,
        state: &mut Shard,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMessage::Activate(id, reply) => state.activate(&myself, id, reply),
            ShardMessage::Await(id, reply) => state.wait_for(id, reply),
            ShardMessage::Starting(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(state.starting.keys().copied().collect());
            }
            ShardMessage::Stir(tells, reply) => {
                let _ = reply.send(state.stir(tells));
            }
            ShardMessage::Started(id, activated) => state.started(id, &activated),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ShardMessage>,
        event: SupervisionEvent,
        state: &mut Shard,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, failure) = match event {
            SupervisionEvent::ActorFailed(actor, failure) => (actor, Some(failure)),
            SupervisionEvent::ActorTerminated(actor, ..) => (actor, None),
            _ => return Ok(()),
        };
        let gone = actor.get_id();
        let owner = state.actors.remove(&gone);
        if let Some(failure) = failure {
            state.arguments.deps.metrics.restarted();
            tracing::error!(error = %chain(&*failure), "a subscription's actor died and will be loaded anew");
            if let Some((id, born)) = owner {
                // What it counted and did not write is in nobody's memory. Said before it is forgotten:
                // the shard may be about to move, and its heir must read those rows.
                state.arguments.deps.ownership.open_hole(id, state.arguments.shard, born);
            }
        }
        if let Some((id, _)) = owner {
            state.arguments.residents.remove_if(&id, |_, handle| handle.actor_id() == gone);
        }
        Ok(())
    }
}

impl Shard {
    fn activate(
        &mut self,
        myself: &ActorRef<ShardMessage>,
        id: SubscriptionId,
        reply: oneshot::Sender<Activated>,
    ) {
        if let Some(handle) = self.arguments.residents.get(&id) {
            let _ = reply.send(Ok(handle.clone()));
            return;
        }
        if let Some(waiting) = self.starting.get_mut(&id) {
            waiting.push(reply);
            return;
        }
        if !self.arguments.deps.ownership.may_load(self.arguments.shard) {
            let _ = reply.send(Err(ActivateError::NotHere));
            return;
        }
        if self.starting.len() >= limits::ACTIVATIONS_PER_SHARD_MAX {
            let _ = reply.send(Err(ActivateError::Load(LoadError::Busy)));
            return;
        }
        self.starting.insert(id, vec![reply]);
        let slot: Arc<OnceLock<Arc<SubscriptionHandle>>> = Arc::default();
        let arguments = Arguments {
            subscription: id,
            shard: self.arguments.shard,
            deps: self.arguments.deps.clone(),
            loader: self.arguments.loader.clone(),
            slot: slot.clone(),
            residents: self.arguments.residents.clone(),
        };
        let supervisor = myself.clone();
        tokio::spawn(async move {
            let spawned =
                Actor::spawn_linked(None, SubscriptionActor, arguments, supervisor.get_cell())
                    .await;
            let activated = match spawned {
                Ok(_) => slot.get().cloned().ok_or(ActivateError::ShardGone),
                Err(error) => Err(load_error(error)),
            };
            // A supervisor that is gone takes all of its shard with it.
            let _ = supervisor.send_message(ShardMessage::Started(id, activated));
        });
    }

    fn stir(&self, tells: bool) -> bool {
        let mut is_there = !self.starting.is_empty();
        for (id, _) in self.actors.values() {
            if let Some(handle) = self.arguments.residents.get(id) {
                if tells {
                    handle.send(Message::RetireNow);
                }
                is_there = true;
            }
        }
        is_there
    }

    fn wait_for(&mut self, id: SubscriptionId, reply: oneshot::Sender<Activated>) {
        if let Some(waiting) = self.starting.get_mut(&id) {
            waiting.push(reply);
            return;
        }
        let resident = self.arguments.residents.get(&id).map(|handle| handle.clone());
        let _ = reply.send(resident.ok_or(ActivateError::Load(LoadError::NotFound)));
    }

    fn started(&mut self, id: SubscriptionId, activated: &Activated) {
        self.arguments.deps.metrics.activated(activated.is_ok());
        if let Ok(handle) = activated {
            self.actors.insert(handle.actor_id(), (id, handle.born()));
            self.arguments.residents.insert(id, handle.clone());
        }
        for reply in self.starting.remove(&id).unwrap_or_default() {
            let _ = reply.send(activated.clone());
        }
    }
}

fn load_error(error: SpawnErr) -> ActivateError {
    match error {
        SpawnErr::StartupFailed(cause) => match cause.downcast::<LoadError>() {
            Ok(error) => ActivateError::Load(*error),
            Err(cause) => {
                tracing::error!(error = %chain(&*cause), "an actor failed while it started");
                ActivateError::ShardGone
            }
        },
        _ => ActivateError::ShardGone,
    }
}
