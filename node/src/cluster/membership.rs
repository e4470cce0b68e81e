//! The shell round the ownership machine: runs what it asks for, and feeds back what came of it.
//!
//! ```text
//!   ticks, peers' news ─▶ machine (core::ownership) ─▶ effects ─▶ store · shards · peers
//!                              ▲                                        │
//!                              └────────────── outcomes ────────────────┘
//! ```
//! Role: the one task of a node that decides about shards. Every effect that waits runs beside it, so a
//! database that hangs stops no renewal. What the machine knows is published to the [`Table`] after each
//! step, before the effects of that step are begun.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_core::ownership::{
    Effect, Input, Member, MemberState, Node, Owner, Renewal, Settings, View,
};
use weir_core::units::{Epoch, Micros, ShardId};
use weir_store::rows::MemberRow;
use weir_store::{Error, HandOver, ShardState, Store};

use super::table::{Peer, Table};
use super::transport::{PeerAddress, PeerTransport};
use crate::clock::Clock;
use crate::codec::peers::{Tell, encode_tell};
use crate::metrics::chain;
use crate::ownership::{Ownership, Service};
use crate::recorder::Health;
use crate::shard::Shards;

/// Time between two steps without a reason. An idle node wakes up for it.
const TICK: Duration = Duration::from_millis(100);
/// Outcomes and news that wait for a step. More only wait longer.
const INBOX: usize = 1_024;
/// How long a shard that is to move may take to end what it has begun. More: requests that came
/// meanwhile run into their time-outs. Fewer: a busy shard never moves.
const FREEZE_MAX: Duration = Duration::from_secs(1);

/// What membership works with.
pub struct Parts {
    /// Rows of nodes and shards.
    pub store: Arc<dyn Store>,
    /// What this node does for each shard.
    pub ownership: Arc<Ownership>,
    /// Its actors.
    pub shards: Shards,
    /// The way to peers.
    pub transport: Arc<dyn PeerTransport>,
    /// What is known, for everybody.
    pub table: Arc<Table>,
    /// Time.
    pub clock: Arc<Clock>,
    /// Whether the store answers.
    pub health: Arc<Health>,
    /// Length of the lease in milliseconds.
    pub lease_ms: u32,
    /// Times and sizes of the machine.
    pub settings: Settings,
    /// Cancelled when this boot is dead.
    pub lost: CancellationToken,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every shard has an owner that serves it, or is on its way to one.
    pub settled: bool,
    /// Nothing is left to give away.
    pub empty: bool,
    /// Somebody could take it.
    pub heirs: bool,
    /// Looks at the database that were answered.
    pub looks: u64,
}

/// Door to the running membership.
#[derive(Clone, Debug)]
pub struct Membership {
    inbox: mpsc::Sender<Event>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug)]
enum Event {
    Machine(Input),
    Seen(Vec<MemberRow>, View),
}

impl Membership {
    /// Starts it for a boot that has just joined; `asked_at` is when it asked to. Ends with `stop`.
    pub fn start(parts: Parts, asked_at: Micros, stop: CancellationToken) -> Self {
        let shards = u16::try_from(parts.ownership.len()).unwrap_or(u16::MAX);
        let me = parts.ownership.incarnation();
        let machine = Node::joined(me, shards, parts.settings, asked_at);
        let (inbox, events) = mpsc::channel(INBOX);
        let (progress, watched) = watch::channel(Progress::default());
        let shell =
            Shell { parts: Arc::new(parts), machine, inbox: inbox.clone(), progress, looks: 0 };
        tokio::spawn(shell.run(events, stop));
        Self { inbox, progress: watched }
    }

    /// A peer says who owns these.
    pub async fn told(&self, owners: Vec<(ShardId, Owner)>) {
        self.input(Input::Told(owners)).await;
    }

    /// Gives everything away from now on.
    pub async fn drain(&self) {
        self.input(Input::Drain).await;
    }

    /// Waits until `enough`, at most for `patience`; whether it came.
    pub async fn wait(&self, patience: Duration, enough: impl Fn(&Progress) -> bool) -> bool {
        let mut progress = self.progress.clone();
        tokio::time::timeout(patience, progress.wait_for(enough))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// How many looks at the database were answered so far.
    pub fn looks(&self) -> u64 {
        self.progress.borrow().looks
    }

    async fn input(&self, input: Input) {
        // Its task ends with the node; then nobody decides any more.
        let _ = self.inbox.send(Event::Machine(input)).await;
    }
}

struct Shell {
    parts: Arc<Parts>,
    machine: Node,
    inbox: mpsc::Sender<Event>,
    progress: watch::Sender<Progress>,
    looks: u64,
}

impl Shell {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                () = self.parts.lost.cancelled() => return self.drop_everything(),
                Some(event) = events.recv() => event,
                _ = ticks.tick() => Event::Machine(Input::Tick),
            };
            let input = match event {
                Event::Machine(input) => input,
                Event::Seen(rows, view) => {
                    self.meet(&rows);
                    self.looks += 1;
                    Input::Looked(Some(view))
                }
            };
            let effects = self.machine.step(self.parts.clock.now(), input);
            self.publish();
            self.perform(effects);
        }
    }

    /// What everybody may know after a step.
    fn publish(&self) {
        let parts = &self.parts;
        parts.table.set_owners(parts.ownership.shards().map(|shard| self.machine.owner(shard)));
        parts.ownership.trust(self.machine.trusted_until());
        let served = |shard: ShardId| match self.machine.owner(shard).incarnation {
            Some(boot) if boot == self.parts.table.me() => self.parts.ownership.serves(shard),
            owner => owner.is_some(),
        };
        let progress = Progress {
            settled: parts.ownership.shards().all(served),
            empty: self.machine.is_empty(),
            heirs: self.machine.has_heirs(),
            looks: self.looks,
        };
        self.progress.send_if_modified(|known| std::mem::replace(known, progress) != progress);
    }

    /// Whoever is not gone is a peer.
    fn meet(&self, rows: &[MemberRow]) {
        let me = self.parts.table.me();
        let others = rows.iter().filter(|row| row.node.incarnation != me);
        let alive: Vec<&MemberRow> =
            others.filter(|row| state_of(row) != MemberState::Gone).collect();
        let name = |row: &MemberRow| {
            HeaderValue::from_str(&row.node.id).unwrap_or(HeaderValue::from_static("node"))
        };
        let peers = alive.iter().map(|row| Peer { boot: row.node.incarnation, name: name(row) });
        self.parts.table.set_peers(peers.collect());
        let dialled = alive.iter().filter(|row| !row.node.cluster.is_empty());
        let addresses = dialled.map(|row| PeerAddress {
            node_id: row.node.id.clone(),
            incarnation: row.node.incarnation,
            cluster: row.node.cluster.clone(),
        });
        self.parts.transport.set_peers(addresses.collect());
    }

    fn perform(&self, effects: Vec<Effect>) {
        let mut bury = false;
        for effect in effects {
            let parts = self.parts.clone();
            match effect {
                Effect::Renew => self.spawn(async move { parts.renew().await }),
                Effect::Look => self.spawn(async move { parts.look().await }),
                // Before the claims of the same step, which count on it.
                Effect::Bury => bury = true,
                Effect::Claim(wanted) => {
                    let bury = std::mem::take(&mut bury);
                    self.spawn(async move { parts.claim(wanted, bury).await });
                }
                Effect::Serve(shard, _) | Effect::Thaw(shard, _) => {
                    parts.ownership.set_service(shard, Service::Full);
                }
                Effect::Freeze(shard) => self.spawn(async move { parts.freeze(shard).await }),
                Effect::HandOver(heir, shards) => {
                    self.spawn(async move { parts.hand_over(heir, &shards).await });
                }
                Effect::Release(shard) => parts.ownership.set_service(shard, Service::Absent),
                Effect::Tell(owners) => parts.tell(owners),
                Effect::Lost => {
                    tracing::error!("this node was declared dead, or replaced by another");
                    parts.lost.cancel();
                }
            }
        }
        // What was served anew is part of the progress.
        self.publish();
    }

    fn spawn(&self, work: impl Future<Output = Event> + Send + 'static) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let _ = inbox.send(work.await).await;
        });
    }

    fn drop_everything(&self) {
        let ownership = &self.parts.ownership;
        ownership.trust(None);
        ownership.shards().for_each(|shard| ownership.set_service(shard, Service::Absent));
    }
}

impl Parts {
    async fn renew(&self) -> Event {
        let me = self.table.me();
        let renewal = match self.store.renew(me, self.lease_ms).await {
            Ok(true) => {
                self.health.set_up(true);
                Renewal::Held
            }
            Ok(false) => Renewal::Gone,
            Err(error @ Error::Rewound { .. }) => {
                tracing::error!(error = %chain(&error), "this node ends rather than write to it");
                Renewal::Gone
            }
            Err(error) => {
                self.health.set_up(!error.is_away());
                tracing::debug!(error = %chain(&error), "the lease was not renewed");
                Renewal::Away
            }
        };
        Event::Machine(Input::Renewed(renewal))
    }

    async fn look(&self) -> Event {
        match self.try_look().await {
            Ok((rows, view)) => Event::Seen(rows, view),
            Err(error) => {
                tracing::debug!(error = %chain(&error), "nodes and shards could not be read");
                Event::Machine(Input::Looked(None))
            }
        }
    }

    async fn try_look(&self) -> Result<(Vec<MemberRow>, View), Error> {
        // Shards first: whoever owns one has a row by then, so no living owner looks like one that is gone.
        let states = self.store.shards().await?;
        let rows = self.store.members().await?;
        let members = rows.iter().map(|row| Member {
            name: row.node.id.clone(),
            incarnation: row.node.incarnation,
            state: self.state_by_link(row),
            expired: row.lease_left_ms <= 0,
        });
        let mut owners = vec![Owner::default(); self.ownership.len()];
        for state in states {
            if let Some(owner) = owners.get_mut(usize::from(state.shard.0)) {
                *owner = Owner { incarnation: state.owner, epoch: state.epoch };
            }
        }
        let view = View { members: members.collect(), owners };
        Ok((rows, view))
    }

    /// Who is up and not linked is given nothing: it has just died and its lease still runs, or it has
    /// another secret, and what it owned nobody else could ask for. It keeps what it has.
    fn state_by_link(&self, row: &MemberRow) -> MemberState {
        let boot = row.node.incarnation;
        match state_of(row) {
            MemberState::Up if boot != self.table.me() && !self.is_linked(boot) => {
                MemberState::Draining
            }
            state => state,
        }
    }

    fn is_linked(&self, boot: Uuid) -> bool {
        self.transport.links().iter().any(|link| link.incarnation == boot && link.connected)
    }

    async fn claim(&self, wanted: Vec<ShardId>, bury: bool) -> Event {
        let got = match self.try_claim(&wanted, bury).await {
            Ok(states) => states.iter().map(|state| (state.shard, state.epoch)).collect(),
            Err(error) => {
                tracing::warn!(error = %chain(&error), shards = wanted.len(), "shards were not taken");
                Vec::new()
            }
        };
        Event::Machine(Input::Claimed { wanted, got })
    }

    async fn try_claim(&self, wanted: &[ShardId], bury: bool) -> Result<Vec<ShardState>, Error> {
        if bury {
            self.store.bury_expired().await?;
        }
        let states = self.store.claim(self.table.me(), wanted).await?;
        self.ownership.took(&states);
        // Ours in the database whatever comes now; a shard that is not served yet is claimed again.
        self.ownership.find_uncounted(&*self.store, states.iter().map(|state| state.shard)).await?;
        Ok(states)
    }

    async fn freeze(&self, shard: ShardId) -> Event {
        let stopwatch = Clock::stopwatch();
        let empty = self.shards.empty(shard, FREEZE_MAX).await;
        tracing::debug!(shard = shard.0, empty, took = ?stopwatch.elapsed(), "a shard was frozen");
        Event::Machine(if empty {
            Input::Flushed(vec![shard])
        } else {
            Input::NotFlushed(vec![shard])
        })
    }

    async fn hand_over(&self, heir: Uuid, shards: &[(ShardId, Epoch)]) -> Event {
        let offered: Vec<ShardId> = shards.iter().map(|(shard, _)| *shard).collect();
        if !self.is_linked(heir) {
            // Its link broke since the plan was made: nothing was offered, so all is still ours.
            return Event::Machine(Input::HandedOver { offered, taken: Some(Vec::new()) });
        }
        let hand_overs: Vec<HandOver> = offered
            .iter()
            .map(|&shard| HandOver {
                shard,
                // A lane that settled an unknown outcome has raised it since.
                epoch: self.ownership.epoch(shard),
                counted: self.ownership.settled(shard),
            })
            .collect();
        let taken = match self.store.hand_over(self.table.me(), heir, &hand_overs).await {
            Ok(taken) => Some(taken),
            Err(error) => {
                tracing::warn!(error = %chain(&error), shards = offered.len(), "shards were not handed over");
                // Anything but an unknown outcome was rolled back.
                (!matches!(error, Error::Unknown { .. })).then(Vec::new)
            }
        };
        Event::Machine(Input::HandedOver { offered, taken })
    }

    fn tell(&self, owners: Vec<(ShardId, Owner)>) {
        let body = encode_tell(&Tell::Owners(owners));
        for peer in self.table.peers().iter() {
            // One that is not linked finds out at its next look.
            self.transport.tell(peer.boot, body.clone());
        }
    }
}

fn state_of(row: &MemberRow) -> MemberState {
    match row.state.as_str() {
        "joining" | "up" => MemberState::Up,
        "draining" => MemberState::Draining,
        _ => MemberState::Gone,
    }
}
