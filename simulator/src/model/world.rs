//! One run: everything that happens, in order, until nothing is left to break or to heal.
//!
//! ```text
//!   agenda ─▶ deliver ─┬─▶ store   ─▶ facts ─▶ auditor
//!      ▲      tick     ├─▶ node    ─▶ messages ─┐
//!      │      fault    └─▶ gateway ─▶ requests ─┤
//!      └──────────────── network ◀──────────────┘
//! ```

use std::io::Write;
use std::sync::Arc;

use rand::seq::IteratorRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use weir_core::units::{Micros, Span};

use super::agenda::Agenda;
use super::audit::Auditor;
use super::cast::{Cast, HOSTS, RECOVERY, millis};
use super::faults::Faults;
use super::gateway::{Gateway, Next};
use super::message::{Ask, End, Message, Pid, Query, Reply, Want};
use super::network::Network;
use super::node::{Context, Out};
use super::process::{Process, State};
use super::store::Store;
use super::{Options, Report};

/// Subscriptions of a run.
const SUBSCRIPTIONS: usize = 40;
/// Mean time between two requests.
const REQUEST_EVERY: i64 = 40_000;
/// Time between two ticks of a node, in microseconds; timers of a busy machine are late.
const TICK: std::ops::Range<i64> = 40_000..70_000;
/// Before the end of the recovery no further request comes; what is open has this long to end.
const LAST_REQUESTS: Span = millis(7_000);
/// And this long before, every node is asked about every subscription.
pub(super) const PROBES: Span = millis(5_000);
/// Most that can be planned: requests and ticks are few, so more means that something multiplies.
const PLANNED_MAX: usize = 100_000;

/// What can happen.
#[derive(Debug)]
pub(super) enum Event {
    Deliver {
        from: End,
        to: End,
        connection: u32,
        message: Message,
    },
    Tick(Pid),
    /// A node starts here; unless one runs here already and that is not to be replaced.
    Boot {
        host: usize,
        replaces: bool,
    },
    Resume(Pid),
    Fault,
    Request,
    Again {
        id: u64,
        want: Want,
        attempt: u32,
    },
    Use(Ask),
    Probes,
}

/// Everything there is.
pub(super) struct World<'a> {
    pub(super) agenda: Agenda<Event>,
    pub(super) random: ChaCha8Rng,
    pub(super) network: Network,
    pub(super) processes: Vec<Process>,
    pub(super) faults: Faults,
    pub(super) auditor: Auditor,
    pub(super) healed_at: Option<Micros>,
    pub(super) store: Store,
    pub(super) gateway: Gateway,
    pub(super) cast: Arc<Cast>,
    pub(super) options: Options,
    trace: Option<&'a mut dyn Write>,
}

impl<'a> World<'a> {
    pub(super) fn new(options: Options, trace: Option<&'a mut dyn Write>) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let cast = Arc::new(Cast::draw(&mut random, SUBSCRIPTIONS));
        let faults = Faults::draw(&mut random);
        let gateway = Gateway::draw(&mut random);
        let mut world = Self {
            agenda: Agenda::new(),
            network: Network::default(),
            processes: Vec::new(),
            faults,
            auditor: Auditor::default(),
            healed_at: None,
            store: Store::new(options.breaks),
            gateway,
            cast,
            random,
            options,
            trace,
        };
        for host in 0..HOSTS {
            // The last place is used later: its node joins a cluster at work.
            let wait = if host + 1 < HOSTS { 0..500 } else { 3_000..15_000 };
            let wait = millis(world.random.random_range(wait));
            world.agenda.after(wait, Event::Boot { host, replaces: false });
        }
        world.agenda.after(millis(1_000), Event::Request);
        world.agenda.after(millis(3_000), Event::Fault);
        world
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Report {
        let mut steps = 0;
        while self.auditor.violation.is_none() {
            let Some(event) = self.agenda.next() else { break };
            steps += 1;
            self.auditor.at(self.agenda.now());
            if steps == self.options.steps {
                self.heal();
            }
            if self.healed_at.is_some_and(|at| self.agenda.now() >= at.plus(RECOVERY)) {
                self.judge();
                break;
            }
            self.happen(event);
            debug_assert!(self.agenda.len() < PLANNED_MAX, "{} are planned", self.agenda.len());
        }
        Report {
            seed: self.options.seed,
            steps,
            lasted: self.agenda.now().since(Micros::EPOCH),
            figures: self.auditor.figures,
            violation: self.auditor.violation,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, connection, message } => {
                if self.network.is_whole(from, to, connection) {
                    self.deliver(from, to, message);
                }
            }
            Event::Tick(pid) => {
                if self.processes[pid.0].state == State::Runs {
                    self.step(pid, |process, cx| process.shell.tick(cx));
                    self.tick_later(pid);
                }
            }
            Event::Boot { host, replaces } => self.boot(host, replaces),
            Event::Resume(pid) => self.resume(pid),
            Event::Fault if self.healed_at.is_none() => self.fault(),
            Event::Request if self.requests_go_on() => {
                let (now, cast) = (self.agenda.now(), self.cast.clone());
                let next = self.gateway.check(now, &cast, &mut self.random);
                self.follow(next);
                let wait = self.random.random_range(0..2 * REQUEST_EVERY);
                self.agenda.after(Span::from_micros(wait), Event::Request);
            }
            Event::Fault | Event::Request => {}
            Event::Again { id, want, attempt } => {
                let now = self.agenda.now();
                let next = self.gateway.again(now, (id, want), attempt, &mut self.auditor);
                if let Some(next) = next {
                    self.follow(next);
                }
            }
            Event::Use(ask) => {
                // A gateway may also send the same twice at once.
                let twice = self.random.random_ratio(1, 10).then(|| ask.clone());
                let next = self.gateway.used(self.agenda.now(), ask);
                self.follow(next);
                if let Some(ask) = twice {
                    self.send_to_any(ask, None);
                }
            }
            Event::Probes => self.probe(),
        }
    }

    fn requests_go_on(&self) -> bool {
        let end = self.healed_at.map(|at| at.plus(RECOVERY).minus(LAST_REQUESTS));
        end.is_none_or(|end| self.agenda.now() < end)
    }

    fn deliver(&mut self, from: End, to: End, message: Message) {
        self.note(|| format!("{} → {}: {message:?}", named(from), named(to)), &message);
        match (to, message) {
            (End::Node(pid), message) => match self.processes[pid.0].state {
                State::Runs => {
                    self.step(pid, |process, cx| process.shell.receive(cx, from, message));
                }
                State::Paused => self.processes[pid.0].keep(from, message),
                State::Ended => {}
            },
            (End::Store, Message::Query(number, query)) => self.query(from, number, &query),
            (End::Gateway, Message::Answer(ask, told)) => {
                let cast = self.cast.clone();
                let next = self.gateway.told(
                    &ask,
                    told,
                    &cast,
                    &self.store,
                    &mut self.auditor,
                    &mut self.random,
                );
                if let Some(next) = next {
                    self.follow(next);
                }
            }
            (to, message) => debug_assert!(false, "{message:?} is nothing for {to:?}"),
        }
    }

    fn query(&mut self, from: End, number: u64, query: &Query) {
        let now = self.agenda.now();
        if let Some(refused) = self.network.store_refuses(now) {
            // Those that are not refused are never heard of again.
            if self.random.random_ratio(refused, 1_000) {
                self.send(End::Store, from, Message::Reply(number, Reply::Away));
            }
            return;
        }
        let mut facts = Vec::new();
        let reply = self.store.run(now, query, &mut facts);
        for fact in &facts {
            self.auditor.committed(fact, &self.store, &self.processes);
        }
        self.send(End::Store, from, Message::Reply(number, reply));
    }

    /// Gives a process its turn and does what it asks for.
    pub(super) fn step(&mut self, pid: Pid, act: impl FnOnce(&mut Process, &mut Context<'_>)) {
        let now = self.agenda.now();
        let process = &mut self.processes[pid.0];
        let mut out = Vec::new();
        let mut cx = Context {
            now: process.monotonic(now),
            wall: process.wall(now),
            out: &mut out,
            traced: self.trace.is_some(),
        };
        act(process, &mut cx);
        self.auditor.bounded(pid, &process.shell);
        // A process that is about to end serves nothing any more.
        if !out.iter().any(|out| matches!(out, Out::Exit)) {
            self.auditor.owns_what_it_serves(process, &self.store);
        }
        for out in out {
            match out {
                Out::Send(to, message) => self.send(End::Node(pid), to, message),
                Out::Counted { subscription, last, used } => {
                    self.auditor.counted(&self.store, &self.cast, subscription, last, used);
                }
                Out::Note(text) => self.write(|| format!("  {} {text}", named(End::Node(pid)))),
                Out::Exit => self.end(pid),
            }
        }
    }

    pub(super) fn send(&mut self, from: End, to: End, message: Message) {
        let now = self.agenda.now();
        let (mut is_about_owners, mut changes_owners) = (false, false);
        if let Message::Query(_, query) = &message {
            changes_owners = matches!(**query, Query::Claim { .. } | Query::HandOver { .. });
            is_about_owners = changes_owners
                || matches!(**query, Query::Look | Query::Renew(_) | Query::Bury | Query::Leave(_));
        }
        if let (End::Node(pid), true) = (from, is_about_owners) {
            self.auditor.asks(pid);
        }
        let passage = self.network.send(now, from, to, changes_owners, &mut self.random);
        if let Some(passage) = passage {
            let connection = passage.connection;
            let event = Event::Deliver { from, to, connection, message };
            self.agenda.at(passage.arrives, event);
        }
    }

    fn follow(&mut self, next: Next) {
        match next {
            Next::Send { ask, only, again_after } => {
                let Ask { id, want, attempt, .. } = ask;
                self.agenda.after(again_after, Event::Again { id, want, attempt });
                self.send_to_any(ask, only);
            }
            Next::Again { id, want, attempt, after } => {
                self.agenda.after(after, Event::Again { id, want, attempt });
            }
            Next::Use { ask, after } => self.agenda.after(after, Event::Use(ask)),
        }
    }

    /// A gateway knows every node that there is, zombies too.
    fn send_to_any(&mut self, ask: Ask, only: Option<Pid>) {
        let living = self.processes.iter().filter(|process| process.lives());
        let living = living.map(|process| process.pid);
        if let Some(pid) = only.or_else(|| living.choose(&mut self.random)) {
            self.send(End::Gateway, End::Node(pid), Message::Ask(ask));
        }
    }

    fn probe(&mut self) {
        let now = self.agenda.now();
        let living = self.processes.iter().filter(|process| process.lives());
        let living: Vec<Pid> = living.map(|process| process.pid).collect();
        for pid in living {
            for subscription in 0..self.cast.subscriptions.len() {
                let next = self.gateway.probe(now, subscription, pid);
                self.follow(next);
            }
        }
    }

    pub(super) fn tick_later(&mut self, pid: Pid) {
        let pause = Span::from_micros(self.random.random_range(TICK));
        self.agenda.after(pause, Event::Tick(pid));
    }

    /// A line for people: ordinary queries of the store would drown the rest.
    fn note(&mut self, line: impl FnOnce() -> String, message: &Message) {
        let is_ordinary = match message {
            Message::Query(_, query) => matches!(**query, Query::Renew(_) | Query::Look),
            Message::Reply(_, reply) => {
                matches!(reply, Reply::Done | Reply::Looked(_) | Reply::Loaded(_))
            }
            _ => false,
        };
        if !is_ordinary {
            self.write(line);
        }
    }

    pub(super) fn write(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let micros = self.agenda.now().get();
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            // Whoever read along has gone; the run is judged all the same.
            let _ = writeln!(trace, "{seconds:>5}.{rest:06} {}", line());
        }
    }
}

fn named(end: End) -> String {
    match end {
        End::Gateway => "gateway".to_owned(),
        End::Store => "store".to_owned(),
        End::Node(pid) => format!("boot {}", pid.0 + 1),
    }
}
