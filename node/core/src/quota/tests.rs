//! What a counter, its holds and its escrow do on their own.

use std::sync::Arc;

use proptest::prelude::*;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::*;
use crate::calendar::{Anchor, Every, Zone};
use crate::plan::{Bill, ChargeOn, Enforcement, FailPolicy, Plan, Quota};
use crate::terms::{LimitOverride, Terms};
use crate::units::PlanId;

const NOW: Micros = Micros::from_seconds(1_795_514_400);
const TTL: Span = Span::from_seconds(60);

fn units(count: u64) -> Units {
    Units::new(count).expect("tests count below 2^53")
}

fn terms(limit: Option<u64>, enforcement: Enforcement) -> Terms {
    let every = Every::parse("PT1H").expect("a duration");
    let quota = Quota {
        name: "requests".into(),
        meter: "requests".into(),
        limit: limit.map(units),
        every,
        anchor: Anchor::Calendar,
        enforcement,
        overage: None,
        warn_at: Vec::new(),
    };
    let plan = Plan {
        id: PlanId::from_uuid(Uuid::nil()),
        version: 1,
        name: "plan".into(),
        currency: "USD".into(),
        base_fee: Decimal::ZERO,
        quotas: vec![quota],
        rates: Vec::new(),
        costs: Vec::new(),
        every,
        anchor: Anchor::Calendar,
        bill: Bill::All,
        charge_on: ChargeOn::Event,
        hold_ttl: TTL,
        fail_policy: FailPolicy::Open,
        shadow: false,
    };
    Terms::new(Arc::new(plan), &Zone::utc(), NOW, None, &[])
}

fn hard(limit: u64) -> QuotaTerms {
    terms(Some(limit), Enforcement::Hard).quotas()[0].clone()
}

/// A counter that may admit up to its cap.
fn open(terms: &QuotaTerms) -> Counter {
    let mut counter = Counter::new(terms, NOW);
    let cap = terms.cap.map_or(0, Units::get);
    counter.escrow = Escrow::persisted(cap, cap);
    counter
}

#[test]
fn room_is_told_at_every_edge() {
    let stories = [
        // limit, used, hi, amount, unsaid, expected
        (10, 0, 10, 10, false, Room::Fits),
        (10, 0, 10, 11, false, Room::Full),
        (10, 9, 10, 1, false, Room::Fits),
        (10, 10, 10, 1, false, Room::Full),
        (10, 10, 10, 0, false, Room::Fits),
        (10, 10, 10, 0, true, Room::Full),
        (10, 9, 10, 0, true, Room::Fits),
        (10, 0, 5, 5, false, Room::Fits),
        (10, 0, 5, 6, false, Room::BeyondEscrow),
        (10, 0, 5, 11, false, Room::Full),
        (0, 0, 0, 0, false, Room::Fits),
        (0, 0, 0, 1, false, Room::Full),
        (crate::units::UNITS_MAX, crate::units::UNITS_MAX, u64::MAX, 1, false, Room::Full),
        (crate::units::UNITS_MAX, 0, u64::MAX, crate::units::UNITS_MAX, false, Room::Fits),
    ];
    for (limit, used, hi, amount, unsaid, expected) in stories {
        let terms = hard(limit);
        let mut counter = Counter::new(&terms, NOW);
        counter.used = units(used);
        counter.escrow = Escrow::persisted(hi, 0);
        let room = counter.room(&terms, units(amount), unsaid);
        assert_eq!(room, expected, "{used} of {limit}, hi {hi}, {amount}, unsaid {unsaid}");
    }
}

#[test]
fn the_cap_is_the_limit_of_a_hard_quota_and_the_hard_cap_of_a_soft_one() {
    let soft = |cap: Option<u64>| Enforcement::Soft { hard_cap: cap.map(units) };
    let stories = [
        (Some(10), Enforcement::Hard, Some(10)),
        (None, Enforcement::Hard, None),
        (Some(10), soft(None), None),
        (Some(10), soft(Some(15)), Some(15)),
        (None, soft(Some(15)), Some(15)),
    ];
    for (limit, enforcement, cap) in stories {
        let terms = terms(limit, enforcement);
        assert_eq!(terms.quotas()[0].cap, cap.map(units), "{limit:?} {enforcement:?}");
    }
    let base = terms(Some(10), soft(Some(15)));
    let own = LimitOverride { quota: "requests".into(), limit: Some(units(20)) };
    let raised = Terms::new(base.plan, &Zone::utc(), NOW, None, &[own]);
    let quota = &raised.quotas()[0];
    assert_eq!(
        (quota.limit, quota.cap),
        (Some(units(20)), Some(units(20))),
        "never below the limit"
    );
}

#[test]
fn memory_does_not_grow_with_limits_or_holds() {
    assert!(size_of::<Counter>() <= 384, "a counter is {} bytes", size_of::<Counter>());
    let terms = hard(crate::units::UNITS_MAX);
    let mut counter = open(&terms);
    let mut random = 7_u64;
    let mut now = NOW;
    for _ in 0..1_000_000 {
        // A linear congruence (Knuth, MMIX): any spread of steps will do.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        now = now.plus(Span::from_micros((random >> 44).cast_signed()));
        // Times to live that change all the time are the worst case.
        let ttl = Span::from_seconds(1 + (random >> 33).cast_signed() % 86_400);
        counter.holds.expire(now);
        counter.hold(&terms, now, units(random >> 60), ttl);
        assert!(counter.holds.buckets().len() <= HOLDS_MAX);
    }
    assert!(counter.holds.buckets().len() > 2, "the walk did hold something");
}

#[test]
fn one_time_to_live_needs_few_buckets() {
    let mut holds = Holds::default();
    for step in 0..100_000 {
        let now = NOW.plus(Span::from_micros(step * 12_345));
        holds.expire(now);
        holds.add(now, Units::ONE, TTL);
        assert!(holds.buckets().len() <= 10, "{} buckets", holds.buckets().len());
    }
}

#[test]
fn holds_of_a_damaged_snapshot_are_kept_in_bounds_and_lose_nothing() {
    let many =
        (0..100).map(|n| Hold { expires_at: Micros::from_seconds(100 - n), units: units(2) });
    let holds = Holds::from_buckets(many.collect());
    assert_eq!(holds.total(), units(200));
    assert!(holds.buckets().len() <= HOLDS_MAX);
    assert!(holds.buckets().is_sorted_by_key(|hold| hold.expires_at));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn holds_are_what_a_list_of_every_hold_would_be(
        steps in prop::collection::vec((0i64..20_000_000, 0u64..9, 0u64..9), 1..200),
    ) {
        let (mut holds, mut list, mut now) = (Holds::default(), Vec::<(Micros, u64)>::new(), NOW);
        for (wait, held, settled) in steps {
            now = now.plus(Span::from_micros(wait));
            holds.expire(now);
            list.retain(|hold| now < hold.0);
            holds.add(now, units(held), TTL);
            list.push((Holds::due(now, TTL), held));
            let due = Holds::due(now, TTL);
            prop_assert!(due >= now.plus(TTL) && due <= now.plus(TTL).plus(Holds::bucket(TTL)));
            holds.release(units(settled));
            let mut left = settled;
            for hold in &mut list {
                let part = hold.1.min(left);
                hold.1 -= part;
                left -= part;
            }
            prop_assert_eq!(holds.total().get(), list.iter().map(|hold| hold.1).sum::<u64>());
            let sum: u64 = holds.buckets().iter().map(|hold| hold.units.get()).sum();
            prop_assert_eq!(sum, holds.total().get());
            let next = list.iter().find(|hold| hold.1 > 0).map(|hold| hold.0);
            prop_assert_eq!(holds.buckets().first().map(|hold| hold.expires_at), next);
        }
    }
}

#[test]
fn an_offer_is_used_only_once_it_is_confirmed() {
    let mut escrow = Escrow::default();
    assert_eq!(escrow.hi(), 0);
    let (hi, _) = escrow.offer(NOW, Units::ZERO, units(1_000), BlockSize::HOLDS);
    assert_eq!((hi, escrow.hi()), (BlockSize::HOLDS.units_min, 0));
    escrow.confirm(Units::ZERO);
    assert_eq!(escrow.hi(), BlockSize::HOLDS.units_min);
    escrow.confirm(Units::ZERO);
    assert_eq!(escrow.hi(), BlockSize::HOLDS.units_min, "nothing was offered since");
}

#[test]
fn of_several_offers_the_lowest_holds_until_the_newest_is_confirmed() {
    let mut escrow = Escrow::persisted(100, 100);
    let (low, _) = escrow.offer(NOW, Units::ZERO, units(1_000), BlockSize::HOLDS);
    escrow.want(units(400));
    let (high, next) = escrow.offer(NOW, Units::ZERO, units(1_000), BlockSize::HOLDS);
    assert_eq!((low, high), (32, 400));
    assert_eq!(escrow.hi(), 32, "either may be what a successor finds");
    let mut rolled = escrow;
    rolled.roll(true);
    assert_eq!(rolled.hi(), next.min(32));
    rolled.confirm(Units::ZERO);
    assert_eq!(rolled.hi(), next.min(32), "that checkpoint spoke of the period before");
    escrow.confirm(Units::ZERO);
    assert_eq!(escrow.hi(), 400);
}

#[test]
fn blocks_follow_the_rate_and_shrink_towards_the_limit() {
    let cap = units(100_000);
    let mut escrow = Escrow::default();
    let mut offered = Vec::new();
    for second in 0..4 {
        for _ in 0..200 {
            escrow.admitted(units(1));
        }
        let (hi, _) =
            escrow.offer(NOW.plus(Span::from_seconds(second)), Units::ZERO, cap, BlockSize::HOLDS);
        escrow.confirm(Units::ZERO);
        offered.push(hi);
    }
    assert!(
        offered.is_sorted() && offered[3] > 4_000,
        "thirty seconds of 200 a second: {offered:?}"
    );
    let last = NOW.plus(Span::from_seconds(3));
    for (taken, most) in [(90_000, 2_500), (99_000, 250), (99_990, 10), (100_000, 0), (100_500, 0)]
    {
        let (hi, _) = escrow.offer(last, units(taken), cap, BlockSize::HOLDS);
        assert!(hi - taken <= most, "{} of {taken}", hi - taken);
        assert!(taken > 100_000 || hi > taken || taken == 100_000, "progress at {taken}");
    }
}

#[test]
fn whoever_waits_gets_room_and_many_who_wait_get_a_share() {
    let cap = units(10_000);
    let mut escrow = Escrow::default();
    escrow.want(units(9_000));
    assert_eq!(escrow.offer(NOW, Units::ZERO, cap, BlockSize::HOLDS).0, 9_000);
    let mut escrow = Escrow::default();
    for _ in 0..1_000_000 {
        escrow.want(units(1));
    }
    assert_eq!(
        escrow.offer(NOW, Units::ZERO, cap, BlockSize::HOLDS).0,
        2_500,
        "a quarter of the room"
    );
    let mut escrow = Escrow::default();
    escrow.want(units(50));
    assert_eq!(
        escrow.offer(NOW, units(9_980), cap, BlockSize::HOLDS).0,
        10_000,
        "more than there is"
    );
}

#[test]
fn a_burst_asks_for_one_checkpoint_and_a_full_escrow_for_none() {
    let terms = hard(100);
    let mut counter = open(&terms);
    counter.escrow = Escrow::persisted(32, 0);
    counter.hold(&terms, NOW, units(32), TTL);
    assert!(counter.wants_escrow(&terms));
    counter.escrow.offer(NOW, counter.taken(), units(100), BlockSize::HOLDS);
    for _ in 0..100 {
        counter.escrow.want(units(1));
        assert!(!counter.wants_escrow(&terms), "one is under way");
    }
    counter.escrow.confirm(counter.taken());
    assert!(counter.wants_escrow(&terms), "someone still waits");
    let mut full = open(&terms);
    full.hold(&terms, NOW, units(100), TTL);
    assert!(!full.wants_escrow(&terms), "it reaches the cap already");
}

#[test]
fn an_offer_is_never_below_what_is_taken() {
    let mut escrow = Escrow::persisted(100, 0);
    assert_eq!(
        escrow.offer(NOW, units(50), units(10), BlockSize::HOLDS).0,
        50,
        "the limit came down below it"
    );
    escrow.confirm(units(50));
    assert_eq!(escrow.hi(), 50);
}

#[test]
fn what_a_reservation_gave_back_waits_for_a_confirmed_checkpoint() {
    let mut escrow = Escrow::persisted(100, 0);
    escrow.free(units(30));
    assert_eq!(escrow.hi(), 70);
    escrow.offer(NOW, units(50), units(1_000), BlockSize::HOLDS);
    escrow.free(units(5));
    escrow.confirm(units(50));
    assert_eq!(
        escrow.hi(),
        50 + 32.max(BlockSize::HOLDS.units_min) - 5,
        "five were freed after the offer"
    );
}

#[test]
fn the_next_period_is_entered_with_its_own_bound_if_it_follows() {
    let terms = hard(1_000);
    for (hours, hi) in [(1, BlockSize::HOLDS.units_min), (2, 0)] {
        let mut counter = Counter::new(&terms, NOW);
        counter.escrow.offer(NOW, Units::ZERO, units(1_000), BlockSize::HOLDS);
        counter.escrow.confirm(Units::ZERO);
        counter.roll(&terms.schedule, NOW.plus(Span::from_seconds(hours * 3_600)));
        assert_eq!(counter.escrow.hi(), hi, "{hours} hours on");
        assert_eq!(counter.escrow.next(), 0);
    }
}
