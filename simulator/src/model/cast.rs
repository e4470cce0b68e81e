//! Who plays: the shards, the subscriptions and their plans, and the times that all agree on.
//!
//! A lease here is shorter than in production, so that a run of a minute meets many of them; what the
//! lengths owe each other is asserted below and is the same.

use std::sync::Arc;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rust_decimal::Decimal;
use uuid::Uuid;
use weir_core::calendar::{Anchor, Every, Zone};
use weir_core::ownership::Settings;
use weir_core::plan::{Bill, ChargeOn, Enforcement, FailPolicy, Plan, Quota, REQUESTS};
use weir_core::quota::ZOMBIE_PART_OF_TTL;
use weir_core::terms::Terms;
use weir_core::units::{Micros, PlanId, ShardId, Span, Units};

use super::proposal;

/// Shards of the cluster: enough that every node has some, few enough that each meets faults often.
pub(super) const SHARDS: u16 = 8;
/// Places where a node can run.
pub(super) const HOSTS: usize = 4;
/// Length of a lease.
pub(super) const LEASE: Span = Span::from_seconds(2);
/// How long an unsettled hold stands.
pub(super) const HOLD_TTL: Span = Span::from_seconds(20);
/// How long a node goes on after its lease ran out by its own clock: what the core allows a zombie.
pub(super) const GRACE: Span = Span::from_micros(HOLD_TTL.get() / ZOMBIE_PART_OF_TTL);
/// Furthest that a node's wall clock is off.
pub(super) const OFFSET_MAX: Span = millis(100);
/// Furthest that a clock runs too fast or too slow.
pub(super) const DRIFT_PPM_MAX: i64 = 5_000;
/// Until then an admission surely still holds its units, whatever the clocks that it met.
pub(super) const SURELY_HELD: Span = Span::from_seconds(19);
/// An event that is committed by then settles a hold that no owner has returned yet: it takes at most
/// a lease and the grace until an owner that does not know of the commit stops deciding.
pub(super) const SURELY_SETTLED: Span = Span::from_seconds(12);
/// Wall time at which a run begins: the middle of a month, so that its period lasts the whole run.
pub(super) const WALL_START: Micros = Micros::from_seconds(1_795_514_400);
/// Within this time after the last fault everything answers again (INV-8): two leases until a node that
/// lost touch may bury the last dead owner, three seconds until a place starts a node anew, and two
/// leases once more if that one pushes out another; the rest is for moves and time-outs.
pub(super) const RECOVERY: Span = Span::from_seconds(12);

const _: () = assert!(GRACE.get() > LEASE.get(), "a zombie outlives its lease");
const _: () = assert!(
    SURELY_HELD.get() + 2 * OFFSET_MAX.get() + HOLD_TTL.get() * DRIFT_PPM_MAX / 1_000_000
        < HOLD_TTL.get()
);
const _: () = assert!(SURELY_SETTLED.get() + LEASE.get() + GRACE.get() < SURELY_HELD.get());

/// A span of milliseconds.
pub(super) const fn millis(count: i64) -> Span {
    Span::from_micros(count * 1_000)
}

/// What the machine of every node is set to.
pub(super) fn settings() -> Settings {
    Settings {
        lease: LEASE,
        renew_every: millis(400),
        look_every: millis(400),
        settle: millis(800),
        moves_max: 2,
        propose: proposal::remembered,
    }
}

/// What a plan holds a subscription to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Events charge; nothing passes beyond the limit.
    Hard,
    /// Checks charge; nothing passes beyond the limit.
    HardByCheck,
    /// Events charge; everything passes.
    Soft,
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) shard: ShardId,
    pub(super) kind: Kind,
    /// Units that may pass; only hard plans are held to it.
    pub(super) limit: u64,
    pub(super) terms: Arc<Terms>,
}

/// All of them; the position is their id.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) subscriptions: Vec<Subscription>,
}

impl Cast {
    /// Draws `count` subscriptions.
    pub(super) fn draw(random: &mut ChaCha8Rng, count: usize) -> Self {
        let subscriptions = (0..count).map(|index| {
            let kind = match index % 5 {
                0 | 1 | 3 => Kind::Hard,
                2 => Kind::Soft,
                _ => Kind::HardByCheck,
            };
            let limit = random.random_range(20..=120);
            let shard = u16::try_from(index).unwrap_or_default() % SHARDS;
            let terms = terms(kind, limit);
            Subscription { shard: ShardId(shard), kind, limit, terms: Arc::new(terms) }
        });
        Self { subscriptions: subscriptions.collect() }
    }

    /// The shard that a subscription lives in.
    pub(super) fn shard(&self, subscription: usize) -> ShardId {
        self.subscriptions[subscription].shard
    }
}

fn terms(kind: Kind, limit: u64) -> Terms {
    let month = Every::new(1, 0, 0).expect("a month is a period");
    let quota = Quota {
        name: REQUESTS.into(),
        meter: REQUESTS.into(),
        limit: Some(Units::clamped(limit)),
        every: month,
        anchor: Anchor::Calendar,
        enforcement: match kind {
            Kind::Hard | Kind::HardByCheck => Enforcement::Hard,
            Kind::Soft => Enforcement::Soft { hard_cap: None },
        },
        overage: None,
        warn_at: Vec::new(),
    };
    let plan = Plan {
        id: PlanId::from_uuid(Uuid::nil()),
        version: 1,
        name: "model".to_owned(),
        currency: "USD".to_owned(),
        base_fee: Decimal::ZERO,
        quotas: vec![quota],
        rates: Vec::new(),
        costs: Vec::new(),
        every: month,
        anchor: Anchor::Calendar,
        bill: Bill::All,
        charge_on: match kind {
            Kind::HardByCheck => ChargeOn::Check,
            Kind::Hard | Kind::Soft => ChargeOn::Event,
        },
        hold_ttl: HOLD_TTL,
        fail_policy: FailPolicy::Closed,
        shadow: false,
    };
    let start = WALL_START.minus(Span::from_seconds(3_600));
    Terms::new(Arc::new(plan), &Zone::utc(), start, None, &[])
}
