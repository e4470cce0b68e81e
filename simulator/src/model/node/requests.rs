//! Requests: to the owner, from it, and the decisions in between.

use std::mem;

use weir_core::meter::{Answer, Check, Command, Wants};
use weir_core::ownership::Slot;
use weir_core::units::{ShardId, Units};

use super::{Context, Out, Shell};
use crate::model::message::{Ask, End, Message, Pid, Told, Want};

/// Requests that wait for one shard. More wait longer than their gateways do.
pub(in crate::model) const WAITING_MAX: usize = 64;
/// Nodes that may pass a request on: the one it came to, and an owner that has just given it away.
const HOPS_MAX: usize = 2;

/// Answers on the way that the request came.
pub(super) fn answer(cx: &mut Context<'_>, ask: Ask, told: Told) {
    let to = ask.path.last().map_or(End::Gateway, |peer| End::Node(*peer));
    cx.out.push(Out::Send(to, Message::Answer(ask, told)));
}

/// Another node's answer, on its way to where the request came from.
pub(super) fn pass_back(cx: &mut Context<'_>, mut ask: Ask, told: Told) {
    ask.path.pop();
    answer(cx, ask, told);
}

impl Shell {
    /// A request came, or may have its turn again.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>, ask: Ask) {
        let shard = self.cast.shard(ask.subscription);
        let Some(machine) = &self.machine else {
            return answer(cx, ask, Told::Unavailable);
        };
        let owner = machine.owner(shard).incarnation.and_then(Pid::of);
        match (machine.slot(shard), owner) {
            (Slot::Held(_), _) => match ask.want {
                Want::Check => self.check(cx, ask),
                Want::Event => self.record(cx, ask),
            },
            (Slot::Absent, Some(owner)) if owner != self.pid && ask.path.len() < HOPS_MAX => {
                let mut ask = ask;
                ask.path.push(self.pid);
                cx.out.push(Out::Send(End::Node(owner), Message::Ask(ask)));
            }
            (Slot::Absent, owner) if owner != Some(self.pid) => {
                answer(cx, ask, Told::Unavailable);
            }
            _ => self.wait(cx, shard, ask),
        }
    }

    /// Those that waited for a shard have their turn.
    pub(super) fn ask_again(&mut self, cx: &mut Context<'_>, shard: ShardId) {
        for ask in self.waiting.remove(&shard).unwrap_or_default() {
            self.ask(cx, ask);
        }
    }

    pub(super) fn wait(&mut self, cx: &mut Context<'_>, shard: ShardId, ask: Ask) {
        let waiting = self.waiting.entry(shard).or_default();
        if waiting.len() < WAITING_MAX {
            waiting.push(ask);
        } else {
            answer(cx, ask, Told::Unavailable);
        }
    }

    fn check(&mut self, cx: &mut Context<'_>, ask: Ask) {
        if !self.may_decide(cx.now) {
            return answer(cx, ask, Told::Unavailable);
        }
        let Some(resident) = self.checkpoints.residents.get_mut(&ask.subscription) else {
            return self.load_for(cx, ask);
        };
        let check = Check {
            cost: Some(Units::clamped(ask.units)),
            request_id: Some(u128::from(ask.id)),
            ..Check::default()
        };
        let outcome = resident.meter.apply(cx.wall, Command::Check(&check));
        resident.want(outcome.wants);
        match outcome.answer {
            Answer::Decided(decision) => {
                let told = if decision.allowed { Told::Allowed } else { Told::Refused };
                answer(cx, ask, told);
            }
            _ if resident.waiting.len() < WAITING_MAX => resident.waiting.push(ask),
            _ => answer(cx, ask, Told::Unavailable),
        }
        if outcome.wants == Wants::CheckpointNow {
            self.checkpoint_now(cx);
        }
    }

    /// Those who waited for escrow of a subscription.
    pub(super) fn take_waiting(&mut self, subscription: usize) -> Vec<Ask> {
        let resident = self.checkpoints.residents.get_mut(&subscription);
        resident.map(|resident| mem::take(&mut resident.waiting)).unwrap_or_default()
    }
}
