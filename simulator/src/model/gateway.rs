//! The gateways: ask before a request passes, say afterwards what it used, ask again when unanswered.
//!
//! A check has a deadline; after it nobody knows whether it holds something. An event has none: it is
//! sent until it is acknowledged, sometimes twice at once, always under the same id.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use weir_core::units::{Micros, Span};

use super::audit::Auditor;
use super::cast::{Cast, Kind, millis};
use super::message::{Ask, Pid, Told, Want};
use super::store::Store;

/// A check that nobody answered by then is given up.
const CHECK_DEADLINE: Span = millis(4_000);
/// An answer is waited for this long before the same is asked of another node.
const ATTEMPT: Span = millis(700);
/// Subscriptions that are asked about at one time.
const BUSY: usize = 10;
/// How often some of them are exchanged for others, in seconds: soon, because by then most hard plans
/// are used up; or late, so that what was let through and never used is asked for again.
const SHIFT_SECONDS: [i64; 3] = [3, 6, 60];

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(super) struct Request {
    ask: Ask,
    asked_at: Micros,
    /// It must be answered by this node: a probe.
    only: Option<Pid>,
}

/// What the gateways want next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this, and look again after so long.
    Send { ask: Ask, only: Option<Pid>, again_after: Span },
    /// Look again at this attempt.
    Again { id: u64, want: Want, attempt: u32, after: Span },
    /// After so long, say what was used.
    Use { ask: Ask, after: Span },
}

/// All gateways.
#[derive(Debug)]
pub(super) struct Gateway {
    asked: u64,
    open: BTreeMap<(u64, Want), Request>,
    /// Of a hundred requests so many never say what they used.
    silent_percent: u32,
    units_max: u64,
    shift: Span,
}

impl Gateway {
    pub(super) fn draw(random: &mut ChaCha8Rng) -> Self {
        Self {
            asked: 0,
            open: BTreeMap::new(),
            silent_percent: random.random_range(5..70),
            units_max: random.random_range(2..10),
            shift: Span::from_seconds(SHIFT_SECONDS[random.random_range(0..SHIFT_SECONDS.len())]),
        }
    }

    /// A request comes in.
    pub(super) fn check(&mut self, now: Micros, cast: &Cast, random: &mut ChaCha8Rng) -> Next {
        let shifted = usize::try_from(now.get() / self.shift.get()).unwrap_or_default() * 3;
        let subscription = (shifted + random.random_range(0..BUSY)) % cast.subscriptions.len();
        let units = random.random_range(1..=self.units_max);
        self.open(now, Want::Check, subscription, units, None)
    }

    /// One unit of this subscription is asked of this node.
    pub(super) fn probe(&mut self, now: Micros, subscription: usize, node: Pid) -> Next {
        self.open(now, Want::Check, subscription, 1, Some(node))
    }

    /// What was let through was used.
    pub(super) fn used(&mut self, now: Micros, ask: Ask) -> Next {
        let request = Request { ask: ask.clone(), asked_at: now, only: None };
        self.open.insert((ask.id, Want::Event), request);
        Next::Send { ask, only: None, again_after: ATTEMPT }
    }

    /// Nobody may have answered.
    pub(super) fn again(
        &mut self,
        now: Micros,
        key: (u64, Want),
        attempt: u32,
        auditor: &mut Auditor,
    ) -> Option<Next> {
        let request = self.open.get_mut(&key)?;
        if request.ask.attempt != attempt {
            return None;
        }
        let may_end = key.1 == Want::Check && request.only.is_none();
        if may_end && now >= request.asked_at.plus(CHECK_DEADLINE) {
            self.open.remove(&key);
            auditor.figures.unknown += 1;
            return None;
        }
        request.ask.attempt += 1;
        let (ask, only) = (request.ask.clone(), request.only);
        Some(Next::Send { ask, only, again_after: ATTEMPT })
    }

    /// An answer came.
    pub(super) fn told(
        &mut self,
        ask: &Ask,
        told: Told,
        cast: &Cast,
        store: &Store,
        auditor: &mut Auditor,
        random: &mut ChaCha8Rng,
    ) -> Option<Next> {
        let key = (ask.id, ask.want);
        let request = self.open.get(&key)?;
        if told == Told::Unavailable {
            let attempt = request.ask.attempt;
            let after = millis(random.random_range(20..200));
            let is_last = attempt == ask.attempt;
            return is_last.then_some(Next::Again { id: ask.id, want: ask.want, attempt, after });
        }
        let request = self.open.remove(&key)?;
        match told {
            Told::Allowed => {
                let Ask { id, subscription, units, .. } = request.ask;
                auditor.admitted(cast, subscription, id, units, request.asked_at);
                return self.follow(&request, cast, random);
            }
            Told::Refused => auditor.figures.refused += 1,
            Told::Recorded => auditor.acknowledged(store, ask.subscription, ask.id),
            Told::Unavailable => {}
        }
        None
    }

    /// Requests that are not answered.
    pub(super) fn open_requests(&self) -> impl Iterator<Item = (u64, Want, Option<Pid>)> {
        self.open.iter().map(|((id, want), request)| (*id, *want, request.only))
    }

    fn open(
        &mut self,
        now: Micros,
        want: Want,
        subscription: usize,
        units: u64,
        only: Option<Pid>,
    ) -> Next {
        self.asked += 1;
        let id = self.asked;
        let ask = Ask { id, attempt: 1, want, subscription, units, path: Vec::new() };
        self.open.insert((id, want), Request { ask: ask.clone(), asked_at: now, only });
        Next::Send { ask, only, again_after: ATTEMPT }
    }

    /// The request is served; most say afterwards what it used.
    fn follow(&self, request: &Request, cast: &Cast, random: &mut ChaCha8Rng) -> Option<Next> {
        let charges_by_check =
            cast.subscriptions[request.ask.subscription].kind == Kind::HardByCheck;
        let is_silent = random.random_ratio(self.silent_percent, 100);
        if charges_by_check || is_silent || request.only.is_some() {
            return None;
        }
        let ask = Ask { attempt: 1, want: Want::Event, path: Vec::new(), ..request.ask.clone() };
        Some(Next::Use { ask, after: millis(random.random_range(0..3_000)) })
    }
}
