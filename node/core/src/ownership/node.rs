//! One node's part in the ownership of shards: what comes in, and what each slot makes of it. What a look
//! asks of this node is in `plan`.

mod plan;

use uuid::Uuid;

use super::lease::{Lease, Renewal};
use super::view::{Known, Member, MemberState, Owner, View};
use crate::units::{Epoch, Micros, ShardId, Span};

/// Proposes an owner for every shard, by index into the names.
pub type Propose = fn(&[&str], &[Option<usize>]) -> Vec<Option<usize>>;

/// Looks out of turn in the time of one in turn. More: a database in trouble is asked more. Fewer:
/// requests wait longer for a shard whose hand-over nobody knows the outcome of.
const HURRIES_PER_LOOK: i64 = 10;

/// Times and sizes, and the proposal.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Length of the lease.
    pub lease: Span,
    /// From one renewal to the next.
    pub renew_every: Span,
    /// From one look at the database to the next.
    pub look_every: Span,
    /// How long a node must have been seen before it is given shards of others: one that comes and
    /// goes at once moves nothing.
    pub settle: Span,
    /// Shards on their way to others at once.
    pub moves_max: usize,
    /// The hash that proposes.
    pub propose: Propose,
}

/// What this node has to do with a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// Nothing.
    #[default]
    Absent,
    /// A claim is under way.
    Claiming,
    /// It serves it.
    Held(Epoch),
    /// New requests wait; what is in memory is being written.
    Freezing(Epoch, Uuid),
    /// The compare-and-set in favour of another is under way.
    Handing(Epoch, Uuid),
    /// Nobody knows whether it was handed over.
    Asking(Epoch, Uuid),
    /// It is still ours, and the epoch is being raised so that the lost hand-over stays lost.
    Settling(Uuid),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// Answer to [`Effect::Renew`].
    Renewed(Renewal),
    /// Answer to [`Effect::Look`]; `None` when the database did not answer.
    Looked(Option<View>),
    /// Answer to [`Effect::Claim`]: those that were taken.
    Claimed {
        /// What was asked for.
        wanted: Vec<ShardId>,
        /// What was got, with the new epochs; nothing when the database did not answer.
        got: Vec<(ShardId, Epoch)>,
    },
    /// Nothing of these frozen shards is in memory any more.
    Flushed(Vec<ShardId>),
    /// These could not be emptied in time.
    NotFlushed(Vec<ShardId>),
    /// Answer to [`Effect::HandOver`].
    HandedOver {
        /// What was offered.
        offered: Vec<ShardId>,
        /// What was taken, with the new epochs; `None` when nobody knows.
        taken: Option<Vec<(ShardId, Epoch)>>,
    },
    /// A peer says who owns these.
    Told(Vec<(ShardId, Owner)>),
    /// This node is to give everything away.
    Drain,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Prolong the lease.
    Renew,
    /// Read nodes and shards.
    Look,
    /// Declare nodes dead whose leases have run out.
    Bury,
    /// Take these, if nobody alive owns them or we do.
    Claim(Vec<ShardId>),
    /// Serve it from now on.
    Serve(ShardId, Epoch),
    /// Let new requests wait and write what is in memory.
    Freeze(ShardId),
    /// Let the waiting requests in again.
    Thaw(ShardId, Epoch),
    /// Give these to another boot, each only at its epoch.
    HandOver(Uuid, Vec<(ShardId, Epoch)>),
    /// It is another's: send the waiting requests there.
    Release(ShardId),
    /// Tell every peer who owns these.
    Tell(Vec<(ShardId, Owner)>),
    /// This boot is dead: drop everything.
    Lost,
}

/// One node's view and part.
#[derive(Debug)]
pub struct Node {
    me: Uuid,
    settings: Settings,
    lease: Lease,
    known: Known,
    slots: Vec<Slot>,
    /// Since when looks show that nobody who lives owns a shard.
    orphans: Vec<Option<Micros>>,
    look_asked: bool,
    next_look: Micros,
    /// From then on it may look out of turn.
    next_hurried: Micros,
    draining: bool,
    lost: bool,
}

impl Node {
    /// A boot that has just joined.
    pub fn joined(me: Uuid, shards: u16, settings: Settings, now: Micros) -> Self {
        Self {
            me,
            lease: Lease::taken(settings.lease, settings.renew_every, now),
            settings,
            known: Known::default(),
            slots: vec![Slot::Absent; usize::from(shards)],
            orphans: vec![None; usize::from(shards)],
            look_asked: false,
            next_look: now,
            next_hurried: now,
            draining: false,
            lost: false,
        }
    }

    /// What this node has to do with a shard.
    pub fn slot(&self, shard: ShardId) -> Slot {
        self.slots.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// The owner of a shard, as far as is known.
    pub fn owner(&self, shard: ShardId) -> Owner {
        self.known.owners.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// Every node that is not gone.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let members = self.known.members.iter().map(|(member, _)| member);
        members.filter(|member| member.state != MemberState::Gone)
    }

    /// Whether nobody can have declared this boot dead.
    pub fn is_trusted(&self, now: Micros) -> bool {
        !self.lost && self.lease.is_trusted(now)
    }

    /// Until when that holds; `None` when it does not.
    pub fn trusted_until(&self) -> Option<Micros> {
        self.lease.trusted_until().filter(|_| !self.lost)
    }

    /// Whether nothing is left to give away.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| *slot == Slot::Absent)
    }

    /// Whether somebody could take what this node gives away.
    pub fn has_heirs(&self) -> bool {
        self.eligible(None).iter().any(|member| member.incarnation != self.me)
    }

    /// One step.
    pub fn step(&mut self, now: Micros, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.lost {
            return effects;
        }
        match input {
            Input::Tick => {}
            Input::Renewed(renewal) => {
                self.lease.answered(now, renewal);
                self.lost = renewal == Renewal::Gone;
            }
            Input::Looked(view) => {
                self.look_asked = false;
                if let Some(view) = view {
                    self.known.update(view, now);
                    self.plan(now, &mut effects);
                }
            }
            Input::Claimed { wanted, got } => self.claimed(&wanted, &got, &mut effects),
            Input::Flushed(shards) => {
                for shard in shards {
                    if let Slot::Freezing(epoch, to) = self.slot(shard) {
                        self.set(shard, Slot::Handing(epoch, to));
                        effects.push(Effect::HandOver(to, vec![(shard, epoch)]));
                    }
                }
            }
            Input::NotFlushed(shards) => {
                for shard in shards {
                    if let Slot::Freezing(epoch, _) = self.slot(shard) {
                        self.set(shard, Slot::Held(epoch));
                        effects.push(Effect::Thaw(shard, epoch));
                    }
                }
            }
            Input::HandedOver { offered, taken } => {
                let went_well = taken.as_ref().is_some_and(|taken| !taken.is_empty());
                self.handed(&offered, taken.as_deref(), &mut effects);
                if went_well {
                    self.start_moves(now, &mut effects);
                }
            }
            Input::Told(owners) => self.told(owners, now, &mut effects),
            Input::Drain => {
                self.draining = true;
                self.plan(now, &mut effects);
            }
        }
        if self.lost {
            return vec![Effect::Lost];
        }
        self.ask(now, &mut effects);
        merge_hand_overs(&mut effects);
        effects
    }

    /// Renewals and looks that are due.
    fn ask(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if self.lease.is_due(now) {
            effects.push(Effect::Renew);
        }
        let unknown = self.slots.iter().any(|slot| matches!(slot, Slot::Asking(..)));
        // Out of turn, but with a pause: a database that refuses at once must not be asked in a loop.
        let hurried = unknown && now >= self.next_hurried;
        if !self.look_asked && (now >= self.next_look || hurried) {
            self.look_asked = true;
            self.next_look = now.plus(self.settings.look_every);
            if hurried {
                let pause = self.settings.look_every.get() / HURRIES_PER_LOOK;
                self.next_hurried = now.plus(Span::from_micros(pause));
            }
            effects.push(Effect::Look);
        }
    }

    fn claimed(&mut self, wanted: &[ShardId], got: &[(ShardId, Epoch)], effects: &mut Vec<Effect>) {
        let mut served = Vec::new();
        for &shard in wanted {
            let epoch = got.iter().find(|(taken, _)| *taken == shard).map(|(_, epoch)| *epoch);
            match (self.slot(shard), epoch) {
                (Slot::Claiming, Some(epoch)) => {
                    self.set(shard, Slot::Held(epoch));
                    effects.push(Effect::Serve(shard, epoch));
                    served.push((shard, epoch));
                }
                (Slot::Claiming, None) => self.set(shard, Slot::Absent),
                (Slot::Settling(_), Some(epoch)) => {
                    self.set(shard, Slot::Held(epoch));
                    effects.push(Effect::Thaw(shard, epoch));
                    served.push((shard, epoch));
                }
                // The look before it was too early, or the database is away: look again.
                (Slot::Settling(to), None) => {
                    let epoch = self.owner(shard).epoch;
                    self.set(shard, Slot::Asking(epoch, to));
                }
                _ => {}
            }
        }
        let owners: Vec<(ShardId, Owner)> = served
            .into_iter()
            .map(|(shard, epoch)| (shard, Owner { incarnation: Some(self.me), epoch }))
            .collect();
        self.learn(&owners);
        if !owners.is_empty() {
            effects.push(Effect::Tell(owners));
        }
    }

    fn handed(
        &mut self,
        offered: &[ShardId],
        taken: Option<&[(ShardId, Epoch)]>,
        effects: &mut Vec<Effect>,
    ) {
        let mut given = Vec::new();
        for &shard in offered {
            let Slot::Handing(epoch, to) = self.slot(shard) else { continue };
            let Some(taken) = taken else {
                self.set(shard, Slot::Asking(epoch, to));
                continue;
            };
            if let Some(&(_, epoch)) = taken.iter().find(|(done, _)| *done == shard) {
                self.set(shard, Slot::Absent);
                given.push((shard, Owner { incarnation: Some(to), epoch }));
            } else {
                // Refused, as when the heir is gone: certainly still ours.
                self.set(shard, Slot::Held(epoch));
                effects.push(Effect::Thaw(shard, epoch));
            }
        }
        self.learn(&given);
        if !given.is_empty() {
            // The heir hears of it before the requests that waited here reach it.
            effects.push(Effect::Tell(given.clone()));
            effects.extend(given.into_iter().map(|(shard, _)| Effect::Release(shard)));
        }
    }

    fn told(&mut self, owners: Vec<(ShardId, Owner)>, now: Micros, effects: &mut Vec<Effect>) {
        self.learn(&owners);
        // One that is cut from the database hears it here first.
        if self.usurped().is_some() {
            self.lost = true;
            return;
        }
        let mut claims = Vec::new();
        for (shard, _) in owners {
            let ours = self.owner(shard).incarnation == Some(self.me);
            if ours && self.slot(shard) == Slot::Absent && self.lease.is_trusted(now) {
                self.set(shard, Slot::Claiming);
                claims.push(shard);
            }
        }
        if !claims.is_empty() {
            effects.push(Effect::Claim(claims));
        }
    }

    fn learn(&mut self, owners: &[(ShardId, Owner)]) {
        for &(shard, owner) in owners {
            if let Some(known) = self.known.owners.get_mut(usize::from(shard.0)) {
                known.accept(owner);
            }
        }
    }

    fn set(&mut self, shard: ShardId, slot: Slot) {
        if let Some(place) = self.slots.get_mut(usize::from(shard.0)) {
            *place = slot;
        }
    }
}

/// Hand-overs of one step to one heir travel in one transaction.
fn merge_hand_overs(effects: &mut Vec<Effect>) {
    let mut merged: Vec<Effect> = Vec::with_capacity(effects.len());
    for effect in effects.drain(..) {
        if let Effect::HandOver(to, more) = &effect
            && let Some(Effect::HandOver(_, shards)) = merged
                .iter_mut()
                .find(|earlier| matches!(earlier, Effect::HandOver(heir, _) if heir == to))
        {
            shards.extend(more);
            continue;
        }
        merged.push(effect);
    }
    *effects = merged;
}
