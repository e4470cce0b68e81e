//! Whatever plan there is, its document gives the same plan again; whatever bytes, no panic.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use rust_decimal::Decimal;
use weir_core::calendar::{Anchor, Every};
use weir_core::plan::{
    Bill, ChargeOn, CostRule, Enforcement, FailPolicy, Pattern, Plan, Quota, RateLimit,
};
use weir_core::price::{Model, Overage, Tier};
use weir_core::rate::{Algorithm, RateSpec};
use weir_core::units::{Micros, Span, UNITS_MAX, Units};

use super::super::{PlanDocument, parse, render};
use super::id;

fn units(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Units> {
    range.prop_map(|count| Units::new(count).expect("in range"))
}

fn money() -> impl Strategy<Value = Decimal> {
    (0..1_000_000_000_000_i64, 0..=12_u32).prop_map(|(digits, places)| Decimal::new(digits, places))
}

fn every() -> impl Strategy<Value = Every> {
    (0..600_u32, 0..9000_u32, 1..90_000_u32)
        .prop_map(|(months, days, seconds)| Every::new(months, days, seconds).expect("in range"))
}

fn anchor() -> impl Strategy<Value = Anchor> {
    prop_oneof![
        Just(Anchor::Calendar),
        Just(Anchor::Subscription),
        // The years 1 to 9998.
        (-62_135_596_800_000_000..253_370_764_800_000_000_i64)
            .prop_map(|micros| Anchor::At(Micros::from_micros(micros))),
    ]
}

fn tiers() -> impl Strategy<Value = Vec<Tier>> {
    (btree_set(1..UNITS_MAX, 0..4), vec((money(), money()), 5)).prop_map(|(bounds, prices)| {
        let bounds = bounds.into_iter().map(Units::new).chain([None]);
        let tier = |(up_to, (unit_price, flat_fee))| Tier { up_to, unit_price, flat_fee };
        bounds.zip(prices).map(tier).collect()
    })
}

fn overage() -> impl Strategy<Value = Overage> {
    let model = prop_oneof![
        money().prop_map(|unit_price| Model::PerUnit { unit_price }),
        tiers().prop_map(Model::Graduated),
        tiers().prop_map(Model::Volume),
        (units(1..=UNITS_MAX), money()).prop_map(|(size, price)| Model::Package { size, price }),
    ];
    (model, option::of(units(0..=UNITS_MAX)), option::of(money()))
        .prop_map(|(model, included, cap)| Overage { model, included, cap })
}

prop_compose! {
    fn quota()(
        meter in "[a-z][a-z0-9_.-]{0,20}",
        limit in option::of(units(0..=1_000_000)),
        every in every(),
        anchor in anchor(),
        enforcement in prop_oneof![
            Just(Enforcement::Hard),
            option::of(units(1_000_000..=UNITS_MAX))
                .prop_map(|hard_cap| Enforcement::Soft { hard_cap }),
        ],
        overage in option::of(overage()),
        warn_at in btree_set(1..=1000_u16, 0..5),
    ) -> Quota {
        let warn_at = warn_at.into_iter().collect();
        Quota { name: "".into(), meter: meter.into(), limit, every, anchor, enforcement, overage, warn_at }
    }
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (option::of("[A-Z-]{1,17}"), option::of("(/[a-zA-Z0-9é.%{}_-]{0,9}){1,4}[*]?")).prop_map(
        |(method, path)| Pattern { method: method.map(Into::into), path: path.map(Into::into) },
    )
}

prop_compose! {
    fn rate()(
        algorithm in prop_oneof![
            Just(Algorithm::TokenBucket), Just(Algorithm::SlidingWindow), Just(Algorithm::FixedWindow),
        ],
        limit in units(1..=UNITS_MAX),
        burst in units(1..=UNITS_MAX),
        window in 1_000..=31_622_400_000_000_i64,
        pattern in pattern(),
    ) -> RateLimit {
        let burst = (algorithm == Algorithm::TokenBucket).then_some(burst);
        let spec = RateSpec::new(algorithm, limit, Span::from_micros(window), burst);
        RateLimit { name: "".into(), meter: "requests".into(), spec: spec.expect("in range"), pattern }
    }
}

fn modes() -> impl Strategy<Value = (Bill, ChargeOn, FailPolicy, bool)> {
    (
        prop_oneof![Just(Bill::All), Just(Bill::Success), Just(Bill::Non5xx)],
        prop_oneof![Just(ChargeOn::Event), Just(ChargeOn::Check)],
        prop_oneof![Just(FailPolicy::Open), Just(FailPolicy::Closed)],
        any::<bool>(),
    )
}

prop_compose! {
    fn plan()(
        name in "[^\\p{Cc}]{1,50}",
        currency in "[A-Z]{3}",
        base_fee in money(),
        mut quotas in vec(quota(), 0..4),
        mut rates in vec(rate(), 0..4),
        costs in vec(
            (pattern(), units(0..=UNITS_MAX)).prop_map(|(pattern, units)| CostRule { pattern, units }),
            0..4,
        ),
        every in every(),
        anchor in anchor(),
        (bill, charge_on, fail_policy, shadow) in modes(),
        hold_ttl in 1_000_000..=86_400_000_000_i64,
        version in 1..=u32::MAX,
    ) -> Plan {
        for (index, quota) in quotas.iter_mut().enumerate() {
            quota.name = format!("quota-{index}").into();
        }
        for (index, rate) in rates.iter_mut().enumerate() {
            rate.name = format!("rate_{index}").into();
        }
        let hold_ttl = Span::from_micros(hold_ttl);
        let plan = Plan {
            id: id(), version, name, currency, base_fee, quotas, rates, costs, every, anchor, bill,
            charge_on, hold_ttl, fail_policy, shadow,
        };
        Plan::new(plan).expect("made valid")
    }
}

proptest! {
    #[test]
    fn the_document_of_a_plan_is_that_plan(plan in plan()) {
        let bytes = serde_json::to_vec(&render(&plan)).expect("a document is JSON");
        let again = parse(&bytes, plan.id, plan.version);
        prop_assert_eq!(again.as_ref(), Ok(&plan), "{}", String::from_utf8_lossy(&bytes));
        let rendered = again.map(|plan| render(&plan));
        prop_assert_eq!(rendered, Ok(render(&plan)), "the canonical form is stable");
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(parse(&bytes, id(), 1).is_err());
    }

    /// One byte of a good document changed, removed or doubled: read or refused, and what is read
    /// survives being written.
    #[test]
    fn a_damaged_document_never_panics(at in 0..super::PRO.len(), byte in any::<u8>(), how in 0..3) {
        let mut bytes = super::PRO.as_bytes().to_vec();
        match how {
            0 => bytes[at] = byte,
            1 => { bytes.remove(at); }
            _ => bytes.insert(at, bytes[at]),
        }
        if let Ok(plan) = parse(&bytes, id(), 1) {
            prop_assert_eq!(PlanDocument::from(&plan).into_plan(id(), 1), Ok(plan));
        }
    }
}
