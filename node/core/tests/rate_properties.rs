//! Rate limits against slow, obvious models that keep every charge, and against their own claims.

use proptest::prelude::*;
use weir_core::rate::{Algorithm, RateParts, RateSpec, RateState};
use weir_core::units::{Micros, Span, UNITS_MAX, Units};

/// Everything that was ever charged: microsecond and units.
type Log = Vec<(i64, u64)>;

fn wide(count: u64) -> i128 {
    i128::from(count)
}

/// Whether `cost` passes at `at` by the definition of each algorithm, from the whole history.
fn fits_by_definition(spec: &RateSpec, log: &Log, at: i64, cost: u64) -> bool {
    let (limit, burst) = (wide(spec.limit().get()), wide(spec.burst().get()));
    let window = i128::from(spec.window().get());
    let sum = |from: i64| -> i128 {
        log.iter().filter(|(charged, _)| *charged >= from).map(|(_, units)| wide(*units)).sum()
    };
    match spec.algorithm() {
        // The arrival curve: no stretch of time, up to and with this moment, may hold more than
        // the burst plus what its length refills.
        Algorithm::TokenBucket => log.iter().map(|(from, _)| *from).chain([at]).all(|from| {
            (sum(from) + wide(cost)) * window <= burst * window + limit * i128::from(at - from)
        }),
        Algorithm::SlidingWindow => {
            let start = at.div_euclid(spec.window().get()) * spec.window().get();
            let current = sum(start);
            let previous = sum(start - spec.window().get()) - current;
            let left = window - i128::from(at - start);
            (current + wide(cost)) * window + previous * left <= limit * window
        }
        Algorithm::FixedWindow => {
            let start = at.div_euclid(spec.window().get()) * spec.window().get();
            sum(start) + wide(cost) <= limit
        }
    }
}

/// The most units in any half-open stretch as long as the window.
fn busiest_window(spec: &RateSpec, log: &Log) -> u64 {
    let within = |from: i64| {
        log.iter()
            .filter(|(at, _)| *at >= from && *at - from < spec.window().get())
            .map(|(_, units)| *units)
            .sum()
    };
    log.iter().map(|(from, _)| within(*from)).max().unwrap_or(0)
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::TokenBucket),
        Just(Algorithm::SlidingWindow),
        Just(Algorithm::FixedWindow),
    ]
}

/// Small limits collide with their windows; the others probe the size of the numbers.
fn specs() -> impl Strategy<Value = RateSpec> {
    let limits = prop_oneof![4 => 1_u64..=12, 2 => 1_u64..=5_000, 1 => 1_u64..=UNITS_MAX];
    let windows = prop_oneof![
        4 => 1_000_i64..=1_100,
        2 => 1_000_i64..=10_000_000,
        1 => 1_000_i64..=366 * 86_400 * 1_000_000,
    ];
    let bursts = prop_oneof![
        2 => Just(None),
        2 => (1_u64..=20).prop_map(Some),
        1 => (1..=UNITS_MAX).prop_map(Some),
    ];
    (algorithms(), limits, windows, bursts).prop_map(|(algorithm, limit, window, burst)| {
        let burst = burst.filter(|_| algorithm == Algorithm::TokenBucket).map(Units::clamped);
        RateSpec::new(algorithm, Units::clamped(limit), Span::from_micros(window), burst)
            .expect("drawn from the valid range")
    })
}

/// A step in hundredths of a window, and a cost in hundredths of the burst. Mostly small, so that
/// limits are met from below; sometimes just off a boundary.
fn steps(count: usize) -> impl Strategy<Value = Vec<(u32, i64, u32)>> {
    let waits = prop_oneof![6 => 0_u32..=30, 2 => 90_u32..=110, 1 => 0_u32..=300];
    let costs = prop_oneof![6 => 0_u32..=30, 1 => 0_u32..=110];
    prop::collection::vec((waits, -1_i64..=1, costs), 1..count)
}

fn cost_of(spec: &RateSpec, hundredths: u32) -> u64 {
    let cost = u128::from(spec.burst().get()) * u128::from(hundredths) / 100;
    // At least one for a small limit, whose hundredths are nothing.
    u64::try_from(cost).map_or(UNITS_MAX, |cost| cost.max(u64::from(hundredths > 0)).min(UNITS_MAX))
}

fn wait_of(spec: &RateSpec, hundredths: u32, nudge: i64) -> i64 {
    let wait = i128::from(spec.window().get()) * i128::from(hundredths) / 100;
    i64::try_from(wait).map_or(0, |wait| (wait + nudge).max(0))
}

proptest! {
    #[test]
    fn each_decision_is_the_one_that_the_whole_history_gives(
        spec in specs(), start in -5_000_000_i64..5_000_000, steps in steps(60),
    ) {
        let (mut state, mut log, mut at) = (RateState::new(&spec), Log::new(), start);
        for (wait, nudge, cost) in steps {
            at += wait_of(&spec, wait, nudge);
            let (now, cost) = (Micros::from_micros(at), cost_of(&spec, cost));
            let look = state.look(&spec, now, Units::clamped(cost));
            prop_assert_eq!(look.fits, fits_by_definition(&spec, &log, at, cost));
            prop_assert!(fits_by_definition(&spec, &log, at, look.remaining));
            prop_assert!(!fits_by_definition(&spec, &log, at, look.remaining + 1));
            if look.fits && cost > 0 {
                state.charge(&spec, now, Units::clamped(cost));
                log.push((at, cost));
            }
        }
        prop_assert!(busiest_window(&spec, &log) <= spec.admits_max());
    }

    #[test]
    fn waiting_as_told_is_enough_and_a_microsecond_less_is_not(
        spec in specs(), start in -5_000_000_i64..5_000_000, steps in steps(60),
        back in 0_i64..3_000_000,
    ) {
        let (mut state, mut at) = (RateState::new(&spec), start);
        for (wait, nudge, cost) in steps {
            at += wait_of(&spec, wait, nudge);
            let cost = Units::clamped(cost_of(&spec, cost));
            // Asked on a clock that may have stepped back: the wait grows by as much.
            for now in [at, at - back].map(Micros::from_micros) {
                let look = state.look(&spec, now, cost);
                match look.retry_after {
                    Some(Span::ZERO) => prop_assert!(look.fits),
                    // In 146,000 years the end of time is near, and the answer is held there.
                    Some(wait) if wait.get() > i64::MAX / 2 => prop_assert!(!look.fits),
                    Some(wait) => {
                        let early = now.plus(Span::from_micros(wait.get() - 1));
                        prop_assert!(!look.fits);
                        prop_assert!(!state.look(&spec, early, cost).fits);
                        prop_assert!(state.look(&spec, now.plus(wait), cost).fits);
                    }
                    None => prop_assert!(cost > spec.burst() && !look.fits),
                }
                let whole = state.look(&spec, look.reset_at, Units::ZERO).remaining;
                let never = look.reset_at == Micros::MAX;
                // A fixed window resets to all of it; the others say when all of it is there.
                prop_assert!(never || whole == spec.burst().get());
            }
            let now = Micros::from_micros(at);
            if state.look(&spec, now, cost).fits {
                state.charge(&spec, now, cost);
            }
        }
    }

    /// Windows that straddle, greedily filled: the adversary of the module's table.
    #[test]
    fn no_greedy_client_gets_past_the_stated_bound(
        algorithm in algorithms(), limit in 1_u64..=40, window in 1_000_i64..=1_010,
        waits in prop::collection::vec(prop_oneof![0_i64..=5, 0_i64..=1_010], 1..80),
    ) {
        let spec = RateSpec::new(algorithm, Units::clamped(limit), Span::from_micros(window), None)
            .expect("drawn from the valid range");
        let (mut state, mut log, mut at) = (RateState::new(&spec), Log::new(), 0);
        for wait in waits {
            at += wait;
            let now = Micros::from_micros(at);
            let all = state.look(&spec, now, Units::ZERO).remaining;
            state.charge(&spec, now, Units::clamped(all));
            log.push((at, all));
        }
        prop_assert!(busiest_window(&spec, &log) <= spec.admits_max());
    }

    #[test]
    fn a_clock_that_jumps_anywhere_never_frees_units_by_going_back(
        spec in specs(), jumps in prop::collection::vec((-3_000_i64..3_000, 0_u32..=60), 1..60),
    ) {
        let (mut state, mut log) = (RateState::new(&spec), Log::new());
        let (mut at, mut latest) = (0_i64, i64::MIN);
        for (jump, cost) in jumps {
            at += jump;
            let (now, cost) = (Micros::from_micros(at), Units::clamped(cost_of(&spec, cost)));
            let look = state.look(&spec, now, cost);
            // What it decides is what it would have decided at the latest charge.
            let clamped = at.max(latest);
            let forward = state.look(&spec, Micros::from_micros(clamped), cost);
            prop_assert_eq!((look.fits, look.remaining), (forward.fits, forward.remaining));
            if look.fits && !cost.is_zero() {
                state.charge(&spec, now, cost);
                latest = clamped;
                log.push((clamped, cost.get()));
            }
        }
        prop_assert!(busiest_window(&spec, &log) <= spec.admits_max());
    }

    #[test]
    fn an_adapted_state_has_no_more_than_the_new_limit_minus_what_was_consumed(
        old in specs(), new in specs(), steps in steps(20), later in 0_u32..=250,
    ) {
        let (mut state, mut at) = (RateState::new(&old), 0);
        for (wait, nudge, cost) in steps {
            at += wait_of(&old, wait, nudge);
            let (now, cost) = (Micros::from_micros(at), Units::clamped(cost_of(&old, cost)));
            if state.look(&old, now, cost).fits {
                state.charge(&old, now, cost);
            }
        }
        let now = Micros::from_micros(at + wait_of(&old, later, 0));
        let consumed = old.burst().get() - state.look(&old, now, Units::ZERO).remaining;
        state.adapt(&old, &new, now);
        let left = state.look(&new, now, Units::ZERO).remaining;
        prop_assert_eq!(left, new.burst().get().saturating_sub(consumed));
        let restored = RateState::from_parts(&new, state.to_parts());
        prop_assert_eq!(restored, Some(state));
    }

    #[test]
    fn no_moment_and_no_restored_number_makes_it_panic_or_overdraw(
        spec in specs(), other in specs(), seen in any::<i64>(), now in any::<i64>(),
        counts in (any::<u64>(), any::<u64>()), cost in 0..=UNITS_MAX,
    ) {
        let (first, second) = counts;
        let parts = match spec.algorithm() {
            Algorithm::TokenBucket => {
                RateParts::TokenBucket { seen_micros: seen, missing: first, fraction: second }
            }
            Algorithm::SlidingWindow => {
                RateParts::SlidingWindow { seen_micros: seen, previous: first, current: second }
            }
            Algorithm::FixedWindow => RateParts::FixedWindow { seen_micros: seen, used: first },
        };
        let mut state = RateState::from_parts(&spec, parts).expect("same algorithm");
        let (now, cost) = (Micros::from_micros(now), Units::clamped(cost));
        for now in [now, Micros::MAX, Micros::from_micros(i64::MIN)] {
            let look = state.look(&spec, now, cost);
            prop_assert!(look.remaining <= spec.burst().get());
            prop_assert_eq!(look.fits, cost.get() <= look.remaining);
            prop_assert_eq!(look.retry_after.is_none(), cost > spec.burst());
            if look.fits {
                state.charge(&spec, now, cost);
                let after = state.look(&spec, now, Units::ZERO).remaining;
                prop_assert_eq!(after, look.remaining - cost.get());
            }
        }
        state.adapt(&spec, &other, now);
        prop_assert!(state.look(&other, now, cost).remaining <= other.burst().get());
    }
}
