//! What the last look asks of a node: shards to claim, moves to begin, outcomes that it settles.

use uuid::Uuid;

use super::super::view::{Member, MemberState, Owner};
use super::{Effect, Node, Slot};
use crate::units::{Micros, ShardId};

impl Node {
    /// Those that may be given shards; with a time, only those that have been seen for long enough.
    pub(super) fn eligible(&self, settled_by: Option<Micros>) -> Vec<&Member> {
        let settled = |first_seen: Micros| {
            settled_by.is_none_or(|now| now.since(first_seen) >= self.settings.settle)
        };
        self.known
            .members
            .iter()
            .filter(|(member, first_seen)| {
                let is_me = member.incarnation == self.me;
                member.state == MemberState::Up
                    && !member.expired
                    && !(is_me && self.draining)
                    && (is_me || settled(*first_seen))
            })
            .map(|(member, _)| member)
            .collect()
    }

    /// What the view asks of this node.
    pub(super) fn plan(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        // An operator may have asked for it.
        let own = self.known.member(self.me);
        self.draining |= own.is_some_and(|member| member.state == MemberState::Draining);
        self.follow_epochs();
        self.settle_unknown(effects);
        if let Some(shard) = self.usurped() {
            debug_assert!(self.owner(shard).incarnation != Some(self.me));
            self.lost = true;
            return;
        }
        let wishes = self.proposals(now);
        let may_bury = self.lease.may_bury(now);
        let (mut claims, mut bury) = (Vec::new(), false);
        for (index, wish) in wishes.into_iter().enumerate() {
            let Ok(number) = u16::try_from(index) else { break };
            let shard = ShardId(number);
            let owner = self.owner(shard);
            let standing = self.standing(owner);
            let is_left = self.is_left(index, matches!(standing, Standing::Alive), now);
            // Given to us by its last owner, proposed to us, or left by everybody.
            let is_given = owner.incarnation == Some(self.me);
            let is_wanted = wish == Some(self.me) || (is_left && !self.draining);
            if self.slot(shard) != Slot::Absent || !(is_given || is_wanted) {
                continue;
            }
            match standing {
                _ if is_given => claims.push(shard),
                Standing::Gone => claims.push(shard),
                Standing::Expired if may_bury => {
                    bury = true;
                    claims.push(shard);
                }
                Standing::Expired | Standing::Alive => {}
            }
        }
        if bury {
            effects.push(Effect::Bury);
        }
        if !claims.is_empty() && self.lease.is_trusted(now) {
            for &shard in &claims {
                self.set(shard, Slot::Claiming);
            }
            effects.push(Effect::Claim(claims));
        }
        self.start_moves(now, effects);
    }

    /// Whether looks have shown no living owner for two leases. Nodes with different links propose
    /// different heirs, and each may wait for another; by then whoever sees it takes it.
    fn is_left(&mut self, index: usize, has_owner: bool, now: Micros) -> bool {
        let Some(orphan) = self.orphans.get_mut(index) else { return false };
        if has_owner {
            *orphan = None;
            return false;
        }
        let since = *orphan.get_or_insert(now);
        now.since(since).get() >= self.settings.lease.get().saturating_mul(2)
    }

    /// Freezes shards that should be another's, as many as may move at once.
    pub(super) fn start_moves(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        // Never without the database's fresh word: a move that cannot be finished only costs.
        if !self.lease.is_trusted(now) {
            return;
        }
        let moving = self.slots.iter().filter(|slot| is_moving(slot)).count();
        let mut free = self.settings.moves_max.saturating_sub(moving);
        for (index, wish) in self.proposals(now).into_iter().enumerate() {
            if free == 0 {
                return;
            }
            let Ok(number) = u16::try_from(index) else { return };
            let shard = ShardId(number);
            if let (Slot::Held(epoch), Some(to)) = (self.slot(shard), wish)
                && to != self.me
            {
                self.set(shard, Slot::Freezing(epoch, to));
                effects.push(Effect::Freeze(shard));
                free -= 1;
            }
        }
    }

    /// The boot that should own each shard.
    fn proposals(&self, now: Micros) -> Vec<Option<Uuid>> {
        let eligible = self.eligible(Some(now));
        let names: Vec<&str> = eligible.iter().map(|member| &*member.name).collect();
        let index_of = |boot: Uuid| eligible.iter().position(|member| member.incarnation == boot);
        let current: Vec<Option<usize>> =
            self.known.owners.iter().map(|owner| owner.incarnation.and_then(index_of)).collect();
        (self.settings.propose)(&names, &current)
            .into_iter()
            .map(|wish| wish.map(|index| eligible[index].incarnation))
            .collect()
    }

    /// A writer that had to settle an unknown outcome has raised epochs of ours.
    fn follow_epochs(&mut self) {
        for (slot, owner) in self.slots.iter_mut().zip(&self.known.owners) {
            if let Slot::Held(epoch) | Slot::Freezing(epoch, _) = slot
                && owner.incarnation == Some(self.me)
            {
                *epoch = owner.epoch.max(*epoch);
            }
        }
    }

    /// A shard that we serve and the database knows as another's: others think that we are dead.
    pub(super) fn usurped(&self) -> Option<ShardId> {
        self.slots.iter().enumerate().find_map(|(index, slot)| {
            let shard = ShardId(u16::try_from(index).ok()?);
            let owner = self.owner(shard);
            match *slot {
                Slot::Held(epoch) | Slot::Freezing(epoch, _) => {
                    (owner.epoch > epoch && owner.incarnation != Some(self.me)).then_some(shard)
                }
                _ => None,
            }
        })
    }

    /// Shards whose hand-over nobody knows the outcome of: the look tells.
    fn settle_unknown(&mut self, effects: &mut Vec<Effect>) {
        let mut ours = Vec::new();
        for index in 0..self.slots.len() {
            let Ok(number) = u16::try_from(index) else { break };
            let shard = ShardId(number);
            let Slot::Asking(epoch, to) = self.slot(shard) else { continue };
            let owner = self.owner(shard);
            // Another boot is news whatever the epoch: the heir may have told of itself while ours was
            // being raised, and what is asked since then is asked at its epoch.
            let is_gone = match owner.incarnation {
                Some(boot) => boot != self.me,
                None => owner.epoch > epoch,
            };
            if is_gone {
                self.set(shard, Slot::Absent);
                effects.push(Effect::Release(shard));
            } else {
                self.set(shard, Slot::Settling(to));
                ours.push(shard);
            }
        }
        if !ours.is_empty() {
            effects.push(Effect::Claim(ours));
        }
    }

    fn standing(&self, owner: Owner) -> Standing {
        let Some(incarnation) = owner.incarnation else { return Standing::Gone };
        match self.known.member(incarnation) {
            // Its row was taken over by a later boot of the same name.
            None => Standing::Gone,
            Some(member) if member.state == MemberState::Gone => Standing::Gone,
            Some(member) if member.expired => Standing::Expired,
            Some(_) => Standing::Alive,
        }
    }
}

/// How an owner stands by the last look.
enum Standing {
    Alive,
    Expired,
    Gone,
}

const fn is_moving(slot: &Slot) -> bool {
    matches!(slot, Slot::Freezing(..) | Slot::Handing(..) | Slot::Asking(..) | Slot::Settling(_))
}
