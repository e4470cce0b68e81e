//! The scenarios: whom requests are for, what they cost, in which waves they come.
//!
//! A [`Workload`] is the scenario made concrete for one run. All randomness comes from the caller's
//! generator, so a seed and an order of draws give the same traffic again.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::schedule::Wave;

/// Share of requests on the one key of `hot-key`.
const HOT_SHARE: f64 = 0.90;
/// Share of requests on the hot key in `mixed`.
const MIXED_HOT_SHARE: f64 = 0.15;
/// In `mixed`, one subscription in this many has a small quota.
const MIXED_TIGHT_EVERY: usize = 10;
/// In `mixed`, the share of expensive requests.
const MIXED_COSTLY_SHARE: f64 = 0.10;
/// Admin operations a second in `churn`; `mixed` has a fifth of it.
const CHURN_PER_SECOND: u32 = 20;

/// The kinds of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Uniform keys at an even rate
    Steady,
    /// One second at twice the rate, one second of silence
    Burst,
    /// Small hard quotas that most subscriptions cross during the run
    NearLimit,
    /// 90 % of the requests on one key
    HotKey,
    /// Subscriptions made, keys rotated and revoked during the run
    Churn,
    /// All of the above, weighted, with waves and requests of different cost
    Mixed,
}

impl fmt::Display for Scenario {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Steady => "steady",
            Self::Burst => "burst",
            Self::NearLimit => "near-limit",
            Self::HotKey => "hot-key",
            Self::Churn => "churn",
            Self::Mixed => "mixed",
        })
    }
}

/// Which of the run's plans a subscription follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlanKind {
    /// A hard quota that the run cannot reach.
    Roomy,
    /// A small hard quota that the run is meant to cross.
    Tight,
}

/// A kind of request the imaginary API serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    /// HTTP method.
    pub(super) method: &'static str,
    /// Path.
    pub(super) path: &'static str,
    /// Units it costs.
    pub(super) cost: u64,
}

/// The imaginary API. The last one is the expensive one.
pub(super) const ROUTES: [Route; 6] = [
    Route { method: "GET", path: "/v1/search", cost: 1 },
    Route { method: "GET", path: "/v1/items", cost: 1 },
    Route { method: "GET", path: "/v1/items/42", cost: 1 },
    Route { method: "POST", path: "/v1/items", cost: 1 },
    Route { method: "DELETE", path: "/v1/items/42", cost: 1 },
    Route { method: "POST", path: "/v1/generate", cost: 5 },
];
const COSTLY: usize = ROUTES.len() - 1;

/// One request to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw {
    /// Number of the subscription in the run's table.
    pub(super) subscription: usize,
    /// Number of the route in [`ROUTES`].
    pub(super) route: usize,
    /// What the imaginary API answered.
    pub(super) status: u16,
    /// How much it answered.
    pub(super) response_bytes: u32,
    /// How long that took.
    pub(super) response_micros: u32,
}

/// A scenario for a run of a known size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    scenario: Scenario,
}

impl Workload {
    /// The workload of `scenario`.
    pub(super) fn new(scenario: Scenario) -> Self {
        Self { scenario }
    }

    /// The plan of subscription number `index`.
    pub(super) fn plan_of(self, index: usize) -> PlanKind {
        match self.scenario {
            Scenario::NearLimit => PlanKind::Tight,
            Scenario::Mixed if index % MIXED_TIGHT_EVERY == MIXED_TIGHT_EVERY - 1 => {
                PlanKind::Tight
            }
            _ => PlanKind::Roomy,
        }
    }

    /// How arrivals are spread over time.
    pub(super) fn wave(self) -> Wave {
        let period = Duration::from_secs(2);
        match self.scenario {
            Scenario::Burst => Wave { period, on_time: 0.5, on_share: 1.0 },
            Scenario::Mixed => Wave { period, on_time: 0.5, on_share: 0.75 },
            _ => Wave::FLAT,
        }
    }

    /// Admin operations a second during the run.
    pub(super) fn churn_per_second(self) -> u32 {
        match self.scenario {
            Scenario::Churn => CHURN_PER_SECOND,
            Scenario::Mixed => CHURN_PER_SECOND / 5,
            _ => 0,
        }
    }

    /// Whether checks name method and path, as a gateway with per-path costs does.
    pub(super) fn names_paths(self) -> bool {
        self.scenario == Scenario::Mixed
    }

    /// Draws the next request among the first `live` subscriptions.
    pub(super) fn draw(self, random: &mut ChaCha8Rng, live: usize) -> Draw {
        let hot_share = match self.scenario {
            Scenario::HotKey => HOT_SHARE,
            Scenario::Mixed => MIXED_HOT_SHARE,
            _ => 0.0,
        };
        let is_hot = hot_share > 0.0 && random.random_bool(hot_share);
        let subscription = if is_hot { 0 } else { random.random_range(0..live.max(1)) };
        let is_costly = self.scenario == Scenario::Mixed && random.random_bool(MIXED_COSTLY_SHARE);
        let route = if is_costly { COSTLY } else { random.random_range(0..COSTLY) };
        let status = match random.random_range(0..100_u32) {
            0 => 500,
            1..=3 => 404,
            4..=5 => 400,
            _ => 200,
        };
        Draw {
            subscription,
            route,
            status,
            response_bytes: random.random_range(64..16_384),
            response_micros: random.random_range(300..60_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn draws(scenario: Scenario, seed: u64) -> Vec<Draw> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let workload = Workload::new(scenario);
        (0..10_000).map(|_| workload.draw(&mut random, 100)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        for scenario in Scenario::value_variants() {
            assert_eq!(draws(*scenario, 7), draws(*scenario, 7), "{scenario}");
            assert_ne!(draws(*scenario, 7), draws(*scenario, 8), "{scenario}");
        }
    }

    #[test]
    fn the_hot_key_gets_nine_of_ten_requests_and_the_others_share_the_rest() {
        let draws = draws(Scenario::HotKey, 1);
        let hot = draws.iter().filter(|draw| draw.subscription == 0).count();
        assert!((8_800..9_200).contains(&hot), "{hot}");
        assert!(draws.iter().any(|draw| draw.subscription == 99));
    }

    #[test]
    fn only_mixed_has_expensive_requests_and_both_plans() {
        for scenario in Scenario::value_variants() {
            let costly = draws(*scenario, 1).iter().filter(|draw| draw.route == COSTLY).count();
            let workload = Workload::new(*scenario);
            let tight =
                (0..100).filter(|&index| workload.plan_of(index) == PlanKind::Tight).count();
            match scenario {
                Scenario::Mixed => assert!((800..1_200).contains(&costly) && tight == 10),
                Scenario::NearLimit => assert!(costly == 0 && tight == 100),
                _ => assert!(costly == 0 && tight == 0, "{scenario}"),
            }
        }
    }
}
