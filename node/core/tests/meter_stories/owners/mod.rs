//! Owners that crash, zombies that go on, commits that are lost: never over, counted once.
//!
//! `cluster` is the world, `oracles` judges it, this file throws random histories at it. Each history is a
//! list of steps, so a failing one is printed whole and shrinks. The last test switches a rule off
//! and expects the oracles to notice: a suite that cannot fail proves nothing.

mod cluster;
mod oracles;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use weir_core::plan::ChargeOn;

use cluster::{Cluster, Fault, Step};

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<u8>(), prop_oneof![4 => 1u64..4, 1 => 1u64..50])
            .prop_map(|(owner, cost)| Step::Check { owner, cost }),
        2 => (1u64..30, any::<bool>()).prop_map(|(cost, durable)| Step::Reserve { cost, durable }),
        6 => (any::<u16>(), any::<bool>(), any::<bool>())
            .prop_map(|(pick, whole, charged)| Step::Event { pick, whole, charged }),
        1 => any::<u16>().prop_map(|pick| Step::Release { pick }),
        1 => (-20i64..20).prop_map(Step::Adjust),
        4 => prop::bool::weighted(0.1).prop_map(|clean| Step::Take { clean }),
        5 => Just(Step::Commit),
        4 => Just(Step::Confirm),
        2 => (any::<bool>(), -2i64..=2).prop_map(|(zombie, skew)| Step::Crash { zombie, skew }),
        1 => (-2i64..=2).prop_map(|skew| Step::Passivate { skew }),
        4 => (1i64..8_000).prop_map(|millis| Step::Wait { millis }),
        1 => (10_000i64..90_000).prop_map(|millis| Step::Wait { millis }),
        1 => (-3_000i64..3_000).prop_map(|millis| Step::ToBoundary { millis }),
        1 => prop::sample::select(vec![10, 40, 100]).prop_map(Step::Limit),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..120)
}

fn run(charge_on: ChargeOn, fault: Fault, steps: &[Step]) -> Result<u64, String> {
    let mut cluster = Cluster::new(charge_on, fault);
    for (position, step) in steps.iter().enumerate() {
        cluster.step(step).map_err(|broken| format!("step {position}, {step:?}: {broken}"))?;
    }
    cluster.heal()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000, failure_persistence: None, max_shrink_iters: 50_000, ..ProptestConfig::default()
    })]

    #[test]
    fn two_owners_and_any_crash_never_pass_the_limit_and_count_every_row_once(steps in history()) {
        run(ChargeOn::Event, Fault::None, &steps).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn plans_that_charge_by_check_never_pass_the_limit_after_a_crash(steps in history()) {
        run(ChargeOn::Check, Fault::None, &steps).map_err(TestCaseError::fail)?;
    }
}

/// Plays the same random histories whatever the fault; the first breach, or what was admitted.
fn play(fault: Fault) -> Result<u64, String> {
    let mut runner = TestRunner::deterministic();
    let mut admitted = 0;
    for _ in 0..3_000 {
        let steps = history().new_tree(&mut runner).expect("steps are always to be had").current();
        admitted += run(ChargeOn::Event, fault, &steps)?;
    }
    Ok(admitted)
}

#[test]
fn the_oracles_see_each_rule_that_is_switched_off() {
    let admitted = play(Fault::None).expect("nothing breaks while every rule holds");
    assert!(admitted > 30_000, "only {admitted} units admitted: the histories do too little");
    for (fault, invariant) in [
        (Fault::IgnoreWaits, "INV-3"),
        (Fault::CallEveryCheckpointClean, "INV-3"),
        (Fault::ConfirmBeforeCommit, "INV-3"),
        (Fault::CountRowsTwice, "INV-2"),
        (Fault::ForgetTheTail, "INV-2"),
    ] {
        let broken = play(fault).expect_err("a rule is off and nobody noticed");
        assert!(broken.contains(invariant), "{fault:?} was noticed as: {broken}");
    }
}
