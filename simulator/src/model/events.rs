//! What befalls processes and wires, how it is mended, and the judgement at the end.

use rand::Rng as _;
use rand::seq::IteratorRandom as _;
use weir_core::invariants::Invariant;
use weir_core::ownership::Slot;
use weir_core::units::{Micros, Seq, ShardId, Span};

use super::audit::Promise;
use super::cast::{HOSTS, RECOVERY, SHARDS, millis};
use super::faults::Fault;
use super::message::{End, Message, Pid, Want};
use super::process::{Process, State};
use super::world::{Event, PROBES, World};

impl World<'_> {
    pub(super) fn boot(&mut self, host: usize, replaces: bool) {
        let mut here = self.processes.iter().filter(|one| one.host == host && one.lives());
        let is_taken =
            if replaces { here.any(|one| one.state == State::Runs) } else { here.next().is_some() };
        if is_taken {
            return;
        }
        let pid = Pid(self.processes.len());
        let breaks = self.options.breaks;
        let process = Process::start(pid, host, &self.cast, breaks, &mut self.random);
        self.processes.push(process);
        self.auditor.figures.boots += 1;
        self.write(|| format!("* boot {} starts on host {host}", pid.0 + 1));
        self.step(pid, |process, cx| process.shell.boot(cx));
        self.tick_later(pid);
    }

    /// A process ends; its place starts another after a while.
    pub(super) fn end(&mut self, pid: Pid) {
        let process = &mut self.processes[pid.0];
        if process.state == State::Ended {
            return;
        }
        process.state = State::Ended;
        let host = process.host;
        self.write(|| format!("* boot {} ends", pid.0 + 1));
        let wait = millis(self.random.random_range(100..3_000));
        self.agenda.after(wait, Event::Boot { host, replaces: false });
    }

    pub(super) fn resume(&mut self, pid: Pid) {
        let process = &mut self.processes[pid.0];
        if process.state != State::Paused {
            return;
        }
        process.state = State::Runs;
        let unread: Vec<(End, Message)> = process.take_unread();
        self.write(|| format!("* boot {} goes on", pid.0 + 1));
        // What is due by the clock and what came meanwhile: either may be first.
        let ticks_first = self.random.random_bool(0.5);
        if ticks_first {
            self.tick_now(pid);
        }
        for (from, message) in unread {
            if self.processes[pid.0].state == State::Runs {
                self.step(pid, |process, cx| process.shell.receive(cx, from, message));
            }
        }
        if !ticks_first {
            self.tick_now(pid);
        }
        self.tick_later(pid);
    }

    fn tick_now(&mut self, pid: Pid) {
        if self.processes[pid.0].state == State::Runs {
            self.step(pid, |process, cx| process.shell.tick(cx));
        }
    }

    pub(super) fn fault(&mut self) {
        let pause = self.faults.pause(&mut self.random);
        self.agenda.after(pause, Event::Fault);
        let Some(fault) = self.faults.next(&mut self.random) else { return };
        let runs = self.processes.iter().filter(|process| process.state == State::Runs);
        let Some(pid) = runs.map(|process| process.pid).choose(&mut self.random) else { return };
        let others = self.processes.iter().filter(|one| one.lives() && one.pid != pid);
        let other = others.map(|process| process.pid).choose(&mut self.random);
        self.auditor.figures.faults += 1;
        self.write(|| format!("* {fault:?} meets boot {}", pid.0 + 1));
        self.befall(fault, pid, other);
    }

    fn befall(&mut self, fault: Fault, pid: Pid, other: Option<Pid>) {
        let now = self.agenda.now();
        let me = End::Node(pid);
        match fault {
            Fault::Crash => self.end(pid),
            Fault::Pause(length) => self.pause(pid, length),
            Fault::Replace(length) => {
                self.pause(pid, length);
                let host = self.processes[pid.0].host;
                let wait = millis(self.random.random_range(100..1_500));
                self.agenda.after(wait, Event::Boot { host, replaces: true });
            }
            Fault::Drain => self.step(pid, |process, cx| process.shell.drain(cx)),
            Fault::BreakOff => {
                let peer = other.map_or(End::Gateway, End::Node);
                self.network.break_off(me, peer);
            }
            Fault::HalfOpen(length) => {
                let peer = other.map_or(End::Gateway, End::Node);
                self.network.silence(me, peer, now.plus(length));
            }
            Fault::CutPeers(length) => {
                if let Some(other) = other {
                    self.cut(me, End::Node(other), length);
                }
            }
            Fault::CutStore(length) => match self.random.random_range(0..3) {
                0 => self.cut(me, End::Store, length),
                1 => self.network.silence(me, End::Store, now.plus(length)),
                _ => self.network.silence(End::Store, me, now.plus(length)),
            },
            Fault::Isolate(length) => {
                self.cut(me, End::Store, length);
                for peer in (0..self.processes.len()).map(Pid).filter(|peer| *peer != pid) {
                    self.cut(me, End::Node(peer), length);
                }
            }
            Fault::CutGateway(length) => match self.random.random_range(0..2) {
                0 => self.network.silence(me, End::Gateway, now.plus(length)),
                _ => self.network.silence(End::Gateway, me, now.plus(length)),
            },
            Fault::StoreAway(length, refuses) => {
                self.network.store_away(now.plus(length), refuses);
            }
            Fault::StoreSlow(length, up_to, part) => {
                self.network.store_slow(now.plus(length), up_to, part);
            }
            Fault::StoreLocked(length, up_to) => {
                self.network.store_locked(now.plus(length), up_to);
            }
            Fault::StoreMute(length, lost) => self.network.store_mute(now.plus(length), lost),
            Fault::FailOver(length) => {
                for peer in (0..self.processes.len()).map(Pid) {
                    self.network.break_off(End::Node(peer), End::Store);
                }
                self.network.store_away(now.plus(length), 1_000);
            }
        }
    }

    fn cut(&mut self, one: End, other: End, length: Span) {
        let until = self.agenda.now().plus(length);
        self.network.silence(one, other, until);
        self.network.silence(other, one, until);
    }

    fn pause(&mut self, pid: Pid, length: Span) {
        self.processes[pid.0].state = State::Paused;
        self.agenda.after(length, Event::Resume(pid));
    }

    /// Faults are over: from here on it is counted how long it takes.
    pub(super) fn heal(&mut self) {
        self.write(|| "* everything heals".to_owned());
        self.healed_at = Some(self.agenda.now());
        self.network.heal();
        let paused = self.processes.iter().filter(|one| one.state == State::Paused);
        let paused: Vec<Pid> = paused.map(|process| process.pid).collect();
        for pid in paused {
            self.agenda.after(Span::ZERO, Event::Resume(pid));
        }
        self.agenda.after(Span::from_micros(RECOVERY.get() - PROBES.get()), Event::Probes);
    }

    /// What must be true at the end.
    pub(super) fn judge(&mut self) {
        for host in 0..HOSTS {
            let living = self.processes.iter().filter(|one| one.host == host && one.lives());
            let living = living.count();
            self.recovered(living == 1, || format!("host {host} runs {living} nodes"));
        }
        for shard in (0..SHARDS).map(ShardId) {
            let serves = |one: &&Process| {
                one.lives() && matches!(one.shell.slot(shard), Some(Slot::Held(_)))
            };
            let serving: Vec<Pid> =
                self.processes.iter().filter(serves).map(|process| process.pid).collect();
            let owner = self.store.owner(shard).incarnation.and_then(Pid::of);
            let is_right = serving.len() == 1 && serving.first().copied() == owner;
            self.recovered(is_right, || {
                format!("{shard:?} is served by {serving:?}, its owner is {owner:?}")
            });
        }
        let open: Vec<_> = self.gateway.open_requests().collect();
        for (id, want, node) in open {
            self.recovered(want == Want::Check && node.is_none(), || {
                format!("{want:?} {id} has no answer; asked of {node:?}")
            });
        }
        self.recount();
    }

    /// Every subscription as its next owner would find it.
    fn recount(&mut self) {
        let now = Micros::from_micros(super::cast::WALL_START.get() + self.agenda.now().get());
        for subscription in 0..self.cast.subscriptions.len() {
            let used = self.store.used(&self.cast, subscription, now);
            let last = Seq(u64::MAX);
            self.auditor.counted(&self.store, &self.cast, subscription, last, used);
        }
    }

    fn recovered(&mut self, is_true: bool, detail: impl FnOnce() -> String) {
        if !is_true {
            self.auditor.broken(Promise::Invariant(Invariant::Recovers), detail);
        }
    }
}
