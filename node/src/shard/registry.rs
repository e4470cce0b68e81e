//! Finding the actor of a subscription, or making one.

use std::sync::Arc;

use async_trait::async_trait;
use dashmap::DashMap;
use futures::future::join_all;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;
use weir_core::meter::{Check, Decision, Entry};
use weir_core::terms::Terms;
use weir_core::units::{PlanId, ShardId, SubscriptionId};
use weir_store::Store;

use super::Deps;
use super::handle::{NotAdmitted, Permit, SubscriptionHandle};
use super::loader::{LoadError, Loader};
use super::message::{Message, UsageView};
use super::subscription::Checked;
use super::supervisor::{ShardMessage, Supervisor, SupervisorArguments};
use crate::catalog::definition::Definition;
use crate::outcome::Undecided;
use crate::ownership::Service;
use crate::recorder::{Apply, Dirty as _, NotApplied};

/// How often a request is given to a new actor when the one it was sent to went away.
const ATTEMPTS: usize = 3;
/// How often a shard that is to move is looked at: a commit takes a few milliseconds.
const EMPTY_LOOK: std::time::Duration = std::time::Duration::from_millis(1);
/// Looks for one message to rest: who was busy with something else needs another. Fewer: mailboxes fill
/// with them. More: a shard with a busy subscription takes longer to move.
const LOOKS_PER_STIR: usize = 10;
/// How often an ending node looks whether all have gone to rest.
const REST_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// Why a subscription has no actor.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ActivateError {
    /// It could not be loaded.
    #[error("the subscription could not be loaded")]
    Load(#[from] LoadError),
    /// The shard is going down.
    #[error("the shard is not there")]
    ShardGone,
    /// Another node has the shard, or will in a moment.
    #[error("another node owns the shard")]
    NotHere,
}

impl ActivateError {
    /// Whether there is no such subscription.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Load(LoadError::NotFound))
    }
}

impl From<ActivateError> for Undecided {
    fn from(error: ActivateError) -> Self {
        match error {
            ActivateError::Load(LoadError::NotFound) => Self::NotFound,
            ActivateError::NotHere => Self::NotHere,
            ActivateError::Load(_) | ActivateError::ShardGone => Self::NotLoaded,
        }
    }
}

pub(super) type Residents = Arc<DashMap<SubscriptionId, Arc<SubscriptionHandle>>>;

/// Every shard of this node.
#[derive(Clone)]
pub struct Shards {
    residents: Residents,
    supervisors: Arc<Vec<ActorRef<ShardMessage>>>,
    deps: Arc<Deps>,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shards").field("resident", &self.residents.len()).finish_non_exhaustive()
    }
}

impl Shards {
    /// Starts a supervisor for every shard, and the sweeper.
    pub async fn start(store: Arc<dyn Store>, deps: Deps) -> Result<Self, ractor::SpawnErr> {
        let residents: Residents = Arc::default();
        let deps = Arc::new(deps);
        let loader = Loader::start(store, &deps);
        let mut supervisors = Vec::with_capacity(deps.ownership.len());
        for shard in deps.ownership.shards() {
            let arguments = SupervisorArguments {
                shard,
                deps: deps.clone(),
                loader: loader.clone(),
                residents: residents.clone(),
            };
            let (actor, _) = Actor::spawn(None, Supervisor, arguments).await?;
            supervisors.push(actor);
        }
        let shards = Self { residents, supervisors: Arc::new(supervisors), deps };
        super::sweeper::start(shards.clone());
        Ok(shards)
    }

    /// Subscriptions in memory.
    pub fn resident(&self) -> usize {
        self.residents.len()
    }

    /// Who they are.
    pub fn resident_ids(&self) -> Vec<SubscriptionId> {
        self.residents.iter().map(|entry| *entry.key()).collect()
    }

    pub(super) fn deps(&self) -> &Deps {
        &self.deps
    }

    pub(super) fn residents(&self) -> &Residents {
        &self.residents
    }

    /// May this pass?
    pub async fn check(
        &self,
        id: SubscriptionId,
        shard: ShardId,
        check: &Check,
    ) -> Result<Decision, Undecided> {
        for _ in 0..ATTEMPTS {
            let handle = self.find(id, shard).await?;
            let Some(checked) = handle.check(self.deps.clock.now(), check) else {
                self.forget(&handle, id);
                continue;
            };
            // Kept while it waits, it would keep a dead actor's state.
            drop(handle);
            match checked {
                Checked::Now(decided) => return decided,
                Checked::Later(answer) => {
                    if let Ok(decided) = answer.await {
                        return decided;
                    }
                }
            }
        }
        Err(Undecided::Failed)
    }

    /// Where everything stands.
    pub async fn usage(&self, id: SubscriptionId, shard: ShardId) -> Result<UsageView, Undecided> {
        self.request(id, shard, Message::Usage).await
    }

    /// A subscription or its plan changed: the resident actor follows at once. One that is not
    /// resident reads the change when it is loaded.
    pub async fn define(&self, id: SubscriptionId, definition: Definition) {
        let Some(handle) = self.residents.get(&id).map(|entry| entry.clone()) else {
            return;
        };
        let Ok(permit) = handle.admit(u32::MAX >> 2) else { return };
        let (reply, done) = oneshot::channel();
        if handle.send(Message::Define(Box::new(definition), reply, permit)) {
            // An actor that dies now reads the change when it is loaded.
            let _ = done.await;
        }
    }

    /// Terms in force of a subscription that is in memory, or on its way there; `None` when it is
    /// neither.
    pub async fn resident_terms(&self, id: SubscriptionId, shard: ShardId) -> Option<Arc<Terms>> {
        let resident = self.residents.get(&id).map(|entry| entry.clone());
        let handle = match resident {
            Some(handle) => handle,
            None => self.awaited(id, shard).await?,
        };
        // Not refused when the mailbox is full: a change must reach a busy subscription too.
        let permit = handle.admit(u32::MAX >> 2).ok()?;
        let (reply, answer) = oneshot::channel();
        handle.send(Message::Terms(reply, permit));
        answer.await.ok()
    }

    /// Subscriptions that are being loaded.
    pub async fn starting(&self) -> Vec<SubscriptionId> {
        let asked = self.supervisors.iter().filter_map(|supervisor| {
            let (reply, answer) = oneshot::channel();
            supervisor.send_message(ShardMessage::Starting(reply)).ok().map(|()| answer)
        });
        join_all(asked).await.into_iter().flatten().flatten().collect()
    }

    /// The actor of a subscription that is being loaded.
    async fn awaited(&self, id: SubscriptionId, shard: ShardId) -> Option<Arc<SubscriptionHandle>> {
        let supervisor = self.supervisors.get(usize::from(shard.0))?;
        let (reply, answer) = oneshot::channel();
        supervisor.send_message(ShardMessage::Await(id, reply)).ok()?;
        answer.await.ok()?.ok()
    }

    /// Residents on an older version of a plan, or about to move to it.
    pub fn on_plan_behind(&self, plan: PlanId, version: u32) -> Vec<SubscriptionId> {
        let behind = self.residents.iter().filter(|entry| entry.is_behind(plan, version));
        behind.map(|entry| *entry.key()).collect()
    }

    /// Makes sure that the subscription is in memory.
    pub async fn activate(&self, id: SubscriptionId, shard: ShardId) -> Result<(), ActivateError> {
        self.find(id, shard).await.map(|_| ())
    }

    /// Empties a shard whose service is ending: everybody rests after a clean checkpoint. True when
    /// nothing of it is in memory, nor on its way there, and it is closed; false when `patience` ran out.
    pub async fn empty(&self, shard: ShardId, patience: std::time::Duration) -> bool {
        let emptying = async {
            loop {
                self.deps.ownership.set_service(shard, Service::Ending);
                for look in 0_usize.. {
                    if !self.stir(shard, look.is_multiple_of(LOOKS_PER_STIR)).await {
                        break;
                    }
                    tokio::time::sleep(EMPTY_LOOK).await;
                }
                // Closed first, then looked at once more: a row may have loaded somebody in between.
                self.deps.ownership.set_service(shard, Service::Closed);
                // Somebody who died may still be in a batch: at the next epoch it would be fenced, and this
                // node would take itself for dead.
                if !self.stir(shard, true).await && !self.is_being_written(shard) {
                    return;
                }
                tokio::time::sleep(EMPTY_LOOK).await;
            }
        };
        tokio::time::timeout(patience, emptying).await.is_ok()
    }

    fn is_being_written(&self, shard: ShardId) -> bool {
        self.deps.checkpointer.is_writing(|id| self.deps.catalog.shard_of(id) == shard)
    }

    /// Whether anybody is there or awaited; whoever is there is sent to rest if it `tells`.
    async fn stir(&self, shard: ShardId, tells: bool) -> bool {
        let pending = self.deps.ownership.pending_rows(shard) > 0;
        let Some(supervisor) = self.supervisors.get(usize::from(shard.0)) else { return pending };
        let (reply, answer) = oneshot::channel();
        let asked = supervisor.send_message(ShardMessage::Stir(tells, reply)).is_ok();
        // A supervisor that is gone took everybody with it.
        pending || (asked && answer.await.is_ok_and(|is_there| is_there))
    }

    /// Sends every subscription to rest, with a clean checkpoint each, and waits for all of them.
    pub async fn rest(&self) {
        for look in 0_usize.. {
            if self.residents.is_empty() {
                return;
            }
            if look.is_multiple_of(LOOKS_PER_STIR) {
                for entry in self.residents.iter() {
                    entry.send(Message::Retire);
                }
            }
            tokio::time::sleep(REST_LOOK).await;
        }
    }

    async fn request<T>(
        &self,
        id: SubscriptionId,
        shard: ShardId,
        message: impl Fn(oneshot::Sender<T>, Permit) -> Message,
    ) -> Result<T, Undecided> {
        for _ in 0..ATTEMPTS {
            let (handle, permit) = self.admit(id, shard).await?;
            let (reply, answer) = oneshot::channel();
            if !handle.send(message(reply, permit)) {
                self.forget(&handle, id);
                continue;
            }
            if let Ok(answer) = answer.await {
                return Ok(answer);
            }
        }
        Err(Undecided::Failed)
    }

    async fn admit(
        &self,
        id: SubscriptionId,
        shard: ShardId,
    ) -> Result<(Arc<SubscriptionHandle>, Permit), Undecided> {
        for _ in 0..ATTEMPTS {
            let handle = self.find(id, shard).await?;
            match handle.admit(self.deps.limits.mailbox_messages_max) {
                Ok(permit) => return Ok((handle, permit)),
                Err(NotAdmitted::Full) => return Err(Undecided::Busy),
                Err(NotAdmitted::Gone) => self.forget(&handle, id),
            }
        }
        Err(Undecided::Failed)
    }

    async fn find(
        &self,
        id: SubscriptionId,
        shard: ShardId,
    ) -> Result<Arc<SubscriptionHandle>, ActivateError> {
        if let Some(handle) = self.residents.get(&id) {
            return Ok(handle.clone());
        }
        let supervisor =
            self.supervisors.get(usize::from(shard.0)).ok_or(ActivateError::ShardGone)?;
        let (reply, answer) = oneshot::channel();
        supervisor
            .send_message(ShardMessage::Activate(id, reply))
            .map_err(|_| ActivateError::ShardGone)?;
        answer.await.unwrap_or(Err(ActivateError::ShardGone))
    }

    fn forget(&self, handle: &SubscriptionHandle, id: SubscriptionId) {
        let gone = handle.actor_id();
        if handle.is_broken() {
            // What it counted and did not write is in nobody's memory from here on. Its supervisor will say
            // so too, perhaps after it was asked whether anybody is here.
            self.deps.ownership.open_hole(id, handle.shard(), handle.born());
        }
        self.residents.remove_if(&id, |_, resident| resident.actor_id() == gone);
    }
}

#[async_trait]
impl Apply for Shards {
    async fn apply(
        &self,
        subscription: SubscriptionId,
        shard: ShardId,
        entries: Vec<Entry>,
    ) -> Result<(), NotApplied> {
        for _ in 0..ATTEMPTS {
            let handle = match self.find(subscription, shard).await {
                Ok(handle) => handle,
                // Deleted meanwhile: its rows stay in the ledger, and nobody counts any more.
                Err(error) if error.is_not_found() => return Ok(()),
                Err(_) => return Err(NotApplied),
            };
            // Rows are bounded by the recorder's queue already and must not be refused.
            let Ok(permit) = handle.admit(u32::MAX >> 2) else {
                self.forget(&handle, subscription);
                continue;
            };
            let (reply, done) = oneshot::channel();
            if !handle.send(Message::Record(entries.clone(), reply, permit)) {
                self.forget(&handle, subscription);
                continue;
            }
            if done.await.is_ok() {
                return Ok(());
            }
            self.forget(&handle, subscription);
        }
        Err(NotApplied)
    }
}
