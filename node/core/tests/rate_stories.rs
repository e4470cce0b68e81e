//! Rate limits told step by step: what passes, what is left, how long the rest has to wait.

use weir_core::rate::{Algorithm, RateParts, RateSpec, RateSpecError, RateState};
use weir_core::units::{Micros, Span, UNITS_MAX, Units};

const SECOND: i64 = 1_000_000;

fn units(count: u64) -> Units {
    Units::new(count).expect("test counts are in range")
}

fn spec(algorithm: Algorithm, limit: u64, window_micros: i64, burst: Option<u64>) -> RateSpec {
    RateSpec::new(algorithm, units(limit), Span::from_micros(window_micros), burst.map(units))
        .expect("test specs are valid")
}

/// Looks, charges what fits, and says what happened: `ok <left>`, `wait <micros>`, `never`.
fn take(state: &mut RateState, spec: &RateSpec, at: i64, cost: u64) -> String {
    let (now, cost) = (Micros::from_micros(at), units(cost));
    let before = *state;
    let look = state.look(spec, now, cost);
    assert_eq!(*state, before, "looking changed something");
    match look.retry_after {
        _ if look.fits => {
            state.charge(spec, now, cost);
            format!("ok {}", state.look(spec, now, Units::ZERO).remaining)
        }
        Some(wait) => format!("wait {}", wait.get()),
        None => "never".to_owned(),
    }
}

/// Each step: microsecond, cost, what happens.
fn check(spec: &RateSpec, steps: &[(i64, u64, &str)]) {
    let mut state = RateState::new(spec);
    for (step, &(at, cost, expected)) in steps.iter().enumerate() {
        assert_eq!(take(&mut state, spec, at, cost), expected, "step {step} of {spec:?}");
    }
}

#[test]
fn a_token_bucket_gives_its_burst_at_once_and_then_its_rate() {
    check(
        &spec(Algorithm::TokenBucket, 50, SECOND, Some(100)),
        &[
            (0, 60, "ok 40"),
            (0, 40, "ok 0"),
            (0, 1, "wait 20000"),
            (19_999, 1, "wait 1"),
            (20_000, 1, "ok 0"),
            (SECOND, 49, "ok 0"),
            (10 * SECOND, 0, "ok 100"),
        ],
    );
}

#[test]
fn a_rate_that_divides_into_nothing_even_is_never_rounded() {
    // Three in seven seconds: one unit each 2.333… seconds, so the third lands on the dot.
    check(
        &spec(Algorithm::TokenBucket, 3, 7 * SECOND, None),
        &[
            (0, 3, "ok 0"),
            (0, 1, "wait 2333334"),
            (2_333_333, 1, "wait 1"),
            (2_333_334, 1, "ok 0"),
            (4_666_667, 1, "ok 0"),
            (6_999_999, 1, "wait 1"),
            (7_000_000, 1, "ok 0"),
        ],
    );
}

#[test]
fn a_million_a_second_is_one_every_microsecond() {
    check(
        &spec(Algorithm::TokenBucket, 1_000_000, SECOND, Some(1)),
        &[(0, 1, "ok 0"), (0, 1, "wait 1"), (1, 1, "ok 0"), (2, 1, "ok 0"), (2, 1, "wait 1")],
    );
}

#[test]
fn the_largest_and_the_slowest_limits_stay_exact() {
    let year = 366 * 86_400 * SECOND;
    check(
        &spec(Algorithm::TokenBucket, UNITS_MAX, 1_000, None),
        &[(0, UNITS_MAX, "ok 0"), (1, 9_007_199_254_740, "ok 0"), (1, 1, "wait 1")],
    );
    check(
        &spec(Algorithm::TokenBucket, 1, year, Some(UNITS_MAX)),
        &[(0, UNITS_MAX, "ok 0"), (1, 1, "wait 31622399999999"), (year, 1, "ok 0")],
    );
    check(
        &spec(Algorithm::SlidingWindow, UNITS_MAX, year, None),
        &[
            (0, UNITS_MAX, "ok 0"),
            (year, 1, "wait 1"),
            // 2^53 − 1 units over 366 days fade by 284.8 in a microsecond.
            (year + 1, 285, "wait 1"),
            (year + 1, 284, "ok 0"),
        ],
    );
    check(
        &spec(Algorithm::FixedWindow, UNITS_MAX, year, None),
        &[(0, UNITS_MAX, "ok 0"), (1, 1, "wait 31622399999999"), (year, 1, "ok 9007199254740990")],
    );
}

#[test]
fn a_sliding_window_frees_units_as_the_window_before_fades() {
    check(
        &spec(Algorithm::SlidingWindow, 10, SECOND, None),
        &[
            (900_000, 10, "ok 0"),
            // The whole window has to pass before a tenth of it fades.
            (900_000, 1, "wait 200000"),
            (SECOND, 1, "wait 100000"),
            (1_100_000, 1, "ok 0"),
            (1_500_000, 4, "ok 0"),
            (1_550_000, 1, "wait 50000"),
            // 5 of this window are there to stay; all 10 fit when they too have faded.
            (1_999_999, 10, "wait 1000001"),
            (3 * SECOND, 10, "ok 0"),
        ],
    );
}

#[test]
fn a_fixed_window_starts_afresh_at_multiples_of_its_length() {
    check(
        &spec(Algorithm::FixedWindow, 10, SECOND, None),
        &[
            (999_999, 10, "ok 0"),
            (999_999, 1, "wait 1"),
            (SECOND, 10, "ok 0"),
            (SECOND, 1, "wait 1000000"),
            (-1, 1, "wait 2000001"),
        ],
    );
    check(
        &spec(Algorithm::FixedWindow, 10, SECOND, None),
        &[(-1, 10, "ok 0"), (-1, 1, "wait 1"), (0, 10, "ok 0")],
    );
}

#[test]
fn a_cost_above_the_limit_is_refused_and_poisons_nothing() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        check(
            &spec(algorithm, 10, SECOND, None),
            &[(0, 11, "never"), (0, UNITS_MAX, "never"), (0, 10, "ok 0"), (0, 0, "ok 0")],
        );
    }
    check(
        &spec(Algorithm::TokenBucket, 10, SECOND, Some(4)),
        &[(0, 5, "never"), (0, 4, "ok 0"), (100_000, 1, "ok 0")],
    );
}

#[test]
fn a_clock_that_steps_back_gives_nothing_away() {
    check(
        &spec(Algorithm::TokenBucket, 10, SECOND, None),
        &[
            (5 * SECOND, 10, "ok 0"),
            (2 * SECOND, 1, "wait 3100000"),
            (i64::MIN, 1, "wait 9223372036854775807"),
            (5_100_000, 1, "ok 0"),
        ],
    );
    check(
        &spec(Algorithm::SlidingWindow, 10, SECOND, None),
        &[(5 * SECOND, 10, "ok 0"), (2 * SECOND, 1, "wait 4100000"), (6_100_000, 1, "ok 0")],
    );
    check(
        &spec(Algorithm::FixedWindow, 10, SECOND, None),
        &[(5 * SECOND, 10, "ok 0"), (2 * SECOND, 1, "wait 4000000"), (6 * SECOND, 1, "ok 9")],
    );
}

#[test]
fn the_reset_is_when_all_of_it_is_available_again() {
    let resets = |algorithm, burst, charged_at, asked_at| {
        let spec = spec(algorithm, 10, SECOND, burst);
        let mut state = RateState::new(&spec);
        let idle = state.look(&spec, Micros::from_micros(asked_at), Units::ZERO).reset_at;
        state.charge(&spec, Micros::from_micros(charged_at), units(5));
        let used = state.look(&spec, Micros::from_micros(asked_at), Units::ZERO).reset_at;
        (idle.get(), used.get())
    };
    let table = [
        (Algorithm::TokenBucket, Some(20), 250_000, 300_000, (300_000, 750_000)),
        (Algorithm::TokenBucket, None, 250_000, 9_900_000, (9_900_000, 9_900_000)),
        (Algorithm::SlidingWindow, None, 250_000, 300_000, (300_000, 2_000_000)),
        (Algorithm::SlidingWindow, None, 250_000, 1_300_000, (1_300_000, 2_000_000)),
        (Algorithm::FixedWindow, None, 250_000, 300_000, (1_000_000, 1_000_000)),
    ];
    for (algorithm, burst, charged_at, asked_at, expected) in table {
        assert_eq!(resets(algorithm, burst, charged_at, asked_at), expected, "{algorithm:?}");
    }
}

#[test]
fn only_sensible_specs_can_be_made() {
    let ms = |count: i64| Span::from_micros(count * 1_000);
    let year = Span::from_seconds(366 * 86_400);
    let table = [
        (Algorithm::FixedWindow, 0, ms(1_000), None, Some(RateSpecError::LimitZero)),
        (
            Algorithm::FixedWindow,
            1,
            Span::from_micros(999),
            None,
            Some(RateSpecError::WindowOutOfRange),
        ),
        (Algorithm::FixedWindow, 1, ms(1), None, None),
        (Algorithm::FixedWindow, 1, year, None, None),
        (
            Algorithm::FixedWindow,
            1,
            Span::from_micros(year.get() + 1),
            None,
            Some(RateSpecError::WindowOutOfRange),
        ),
        (Algorithm::FixedWindow, 1, ms(1), Some(1), Some(RateSpecError::BurstNotAllowed)),
        (Algorithm::SlidingWindow, 1, ms(1), Some(1), Some(RateSpecError::BurstNotAllowed)),
        (Algorithm::TokenBucket, 1, ms(1), Some(0), Some(RateSpecError::BurstZero)),
        (Algorithm::TokenBucket, 1, ms(1), Some(UNITS_MAX), None),
    ];
    for (algorithm, limit, window, burst, expected) in table {
        let made = RateSpec::new(algorithm, units(limit), window, burst.map(units));
        assert_eq!(made.err(), expected, "{algorithm:?} {limit} {window:?} {burst:?}");
    }
    assert_eq!(spec(Algorithm::TokenBucket, 7, SECOND, None).burst(), units(7));
}

/// The worst case of the module's table, played out: `admits_max` is reached, not just not passed.
#[test]
fn each_stated_bound_is_reached() {
    let reached = |spec: &RateSpec, charges: &[(i64, u64)]| {
        let mut state = RateState::new(spec);
        for &(at, cost) in charges {
            let outcome = take(&mut state, spec, at, cost);
            assert!(outcome.starts_with("ok"), "{cost} at {at} of {spec:?}: {outcome}");
            assert!(at - charges[0].0 < spec.window().get());
        }
        let admitted: u64 = charges.iter().map(|(_, cost)| cost).sum();
        assert_eq!(admitted, spec.admits_max(), "{spec:?}");
    };
    let last = SECOND - 1;
    reached(&spec(Algorithm::TokenBucket, 50, SECOND, Some(100)), &[(0, 100), (last, 49)]);
    // A burst smaller than the refill has to be emptied again and again.
    let drained: Vec<_> = (0..1_000).map(|at| (at, if at == 0 { 100 } else { 3 })).collect();
    reached(&spec(Algorithm::TokenBucket, 3_000, 1_000, Some(100)), &drained);
    reached(&spec(Algorithm::SlidingWindow, 100, SECOND, None), &[(last, 100), (2 * last, 99)]);
    reached(&spec(Algorithm::SlidingWindow, 5_000, 1_000, None), &[(999, 5_000), (1_998, 4_990)]);
    reached(&spec(Algorithm::FixedWindow, 100, SECOND, None), &[(last, 100), (SECOND, 100)]);
}

#[test]
fn a_changed_limit_keeps_what_was_consumed() {
    // (old, charged at 0.5 s, new, adapted at, left then)
    let bucket = |limit, burst| spec(Algorithm::TokenBucket, limit, SECOND, Some(burst));
    let sliding = |limit| spec(Algorithm::SlidingWindow, limit, SECOND, None);
    let fixed = |limit| spec(Algorithm::FixedWindow, limit, SECOND, None);
    let minute = |algorithm, limit| spec(algorithm, limit, 60 * SECOND, None);
    let half = SECOND / 2;
    let table = [
        // A higher limit frees units at once, a lower one is used up and not in debt.
        (bucket(10, 10), 8, bucket(20, 20), half, 12),
        (bucket(10, 10), 8, bucket(5, 5), half, 0),
        (bucket(10, 10), 8, bucket(100, 10), half + 100_000, 3),
        (sliding(10), 8, sliding(20), half, 12),
        (sliding(10), 8, sliding(5), half, 0),
        (fixed(10), 8, fixed(20), half, 12),
        (fixed(10), 8, fixed(5), half, 0),
        // Another window or algorithm: what is not available counts as charged now.
        (bucket(10, 10), 8, minute(Algorithm::TokenBucket, 100), half + 50_000, 92),
        (sliding(10), 8, minute(Algorithm::SlidingWindow, 100), SECOND + half, 96),
        (fixed(10), 8, minute(Algorithm::FixedWindow, 100), half, 92),
        (fixed(10), 8, minute(Algorithm::FixedWindow, 100), SECOND, 100),
        (bucket(10, 50), 40, fixed(30), half, 0),
        (fixed(10), 8, bucket(10, 20), half, 12),
        (sliding(10), 8, fixed(10), half, 2),
    ];
    for (old, charged, new, at, left) in table {
        let mut state = RateState::new(&old);
        state.charge(&old, Micros::from_micros(half), units(charged));
        state.adapt(&old, &new, Micros::from_micros(at));
        let look = state.look(&new, Micros::from_micros(at), Units::ZERO);
        assert_eq!(look.remaining, left, "{old:?} to {new:?}");
    }
}

#[test]
fn lowering_a_window_and_raising_it_again_gives_nothing_away() {
    for algorithm in [Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let (high, low) = (spec(algorithm, 100, SECOND, None), spec(algorithm, 10, SECOND, None));
        let mut state = RateState::new(&high);
        state.charge(&high, Micros::EPOCH, units(90));
        state.adapt(&high, &low, Micros::EPOCH);
        assert_eq!(state.look(&low, Micros::EPOCH, Units::ONE).remaining, 0);
        state.adapt(&low, &high, Micros::EPOCH);
        assert_eq!(state.look(&high, Micros::EPOCH, Units::ONE).remaining, 10);
    }
}

#[test]
fn a_bucket_emptied_by_a_lower_limit_refills_at_the_lower_rate() {
    let (high, low) = (
        spec(Algorithm::TokenBucket, 1_000_000, SECOND, None),
        spec(Algorithm::TokenBucket, 10, SECOND, None),
    );
    let mut state = RateState::new(&high);
    state.charge(&high, Micros::EPOCH, units(1_000_000));
    state.adapt(&high, &low, Micros::EPOCH);
    let look = state.look(&low, Micros::EPOCH, Units::ONE);
    assert_eq!(look.retry_after, Some(Span::from_micros(100_000)));
}

#[test]
fn parts_of_another_algorithm_are_not_taken() {
    let bucket = spec(Algorithm::TokenBucket, 10, SECOND, None);
    let fixed = RateParts::FixedWindow { seen_micros: 0, used: 3 };
    assert_eq!(RateState::from_parts(&bucket, fixed), None);
    let damaged = RateParts::TokenBucket { seen_micros: 0, missing: u64::MAX, fraction: u64::MAX };
    let state = RateState::from_parts(&bucket, damaged).expect("same algorithm");
    let look = state.look(&bucket, Micros::EPOCH, units(10));
    assert_eq!((look.remaining, look.retry_after), (0, Some(Span::from_seconds(1))));
}
