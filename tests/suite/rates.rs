//! Rate limits as a gateway sees them: what a burst gets, and how room comes back.

use std::time::{Duration, Instant};

use futures::future::{join, join_all, join3};
use harness::{Store, World, eventually};
use serde_json::{Value, json};

/// Units a window of every limit here.
const LIMIT: u64 = 10;
/// Long enough that a burst of a few checks lies within a small part of it.
const WINDOW_SECONDS: u64 = 3;

/// A subscription that is limited by this algorithm alone.
async fn limited(world: &World, algorithm: &str, burst: Option<u64>) -> String {
    let mut limit = json!({
        "name": "limit", "limit": LIMIT, "window": format!("PT{WINDOW_SECONDS}S"),
        "algorithm": algorithm,
    });
    if let Some(burst) = burst {
        limit["burst"] = json!(burst);
    }
    let plan = json!({"quota": {"limit": null}, "rateLimits": [limit]});
    world.subscribe(&world.plan(plan).await).await.key
}

fn remaining(decision: &Value) -> u64 {
    decision["rate"][0]["remaining"].as_u64().expect("the limit is shown")
}

/// Sends more checks at once than a full limit lets through and asserts that it lets through what it
/// holds, and no more than can have come back meanwhile.
async fn check_burst(world: &World, key: &str, algorithm: &str, full: u64) {
    let started = Instant::now();
    let decisions = join_all((0..full + 20).map(|_| world.check(key))).await;
    let allowed = decisions.iter().filter(|decision| decision["allowed"] == true).count() as u64;
    let elapsed = started.elapsed();
    let window = u128::from(WINDOW_SECONDS) * 1_000;
    // A fixed window gives all at once at its end.
    let came_back = match algorithm {
        "fixed_window" => u128::from(LIMIT) * (1 + elapsed.as_millis() / window),
        _ => (u128::from(LIMIT) * (1 + elapsed.as_millis())).div_ceil(window),
    };
    let came_back = u64::try_from(came_back).expect("a burst is short");
    let most = full + came_back;
    assert!((full..=most).contains(&allowed), "{algorithm}: {allowed} of {full} to {most}");
    for refused in decisions.iter().filter(|decision| decision["allowed"] == false) {
        assert_eq!(refused["reason"], "rate_limited", "{refused}");
        assert_eq!(refused["violated"], json!(["limit"]), "{refused}");
        let wait = refused["retryAfter"].as_u64().expect("a number");
        assert!((1..=2 * WINDOW_SECONDS).contains(&wait), "{refused}");
    }
}

/// Looks until the limit is full again; returns what was seen on the way.
async fn recovery(world: &World, key: &str, full: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    let patience = Duration::from_secs(5 * WINDOW_SECONDS);
    let started = Instant::now();
    while started.elapsed() < patience {
        let now = remaining(&world.peek(key).await);
        seen.push(now);
        if now == full {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not full again after {patience:?}: {seen:?}");
}

#[tokio::test]
async fn a_burst_gets_what_its_algorithm_holds_and_room_comes_back_in_its_way() {
    let world = World::start(Store::Sqlite).await;
    let story = |algorithm: &'static str, burst: Option<u64>, is_gradual: bool| {
        let world = &world;
        async move {
            let full = burst.unwrap_or(LIMIT);
            let key = limited(world, algorithm, burst).await;
            check_burst(world, &key, algorithm, full).await;
            let seen = recovery(world, &key, full).await;
            let between = seen.iter().filter(|&&now| now > 0 && now < full).count();
            // At a boundary a fixed window lets a whole new burst through; the others never do.
            assert_eq!(between > 0, is_gradual, "{algorithm}: {seen:?}");
            check_burst(world, &key, algorithm, full).await;
        }
    };
    join3(
        story("fixed_window", None, false),
        story("sliding_window", None, true),
        join(story("token_bucket", None, true), story("token_bucket", Some(2 * LIMIT), true)),
    )
    .await;
}

#[tokio::test]
async fn a_limit_on_a_path_counts_the_requests_that_match() {
    let world = World::start(Store::Sqlite).await;
    let limits = json!([
        {"name": "all", "limit": 5, "window": "PT1H", "algorithm": "sliding_window"},
        {"name": "search", "limit": 2, "window": "PT1H", "algorithm": "sliding_window",
         "method": "GET", "path": "/v1/search*"},
    ]);
    let plan = json!({"quota": {"limit": null}, "rateLimits": limits});
    let key = world.subscribe(&world.plan(plan).await).await.key;
    for (query, violated) in [
        ("method=GET&path=/v1/search/a", json!([])),
        ("method=GET&path=/v1/search/b", json!([])),
        ("method=GET&path=/v1/search/c", json!(["search"])),
        ("method=POST&path=/v1/search/c", json!([])),
        ("method=GET&path=/v1/other", json!([])),
        ("", json!([])),
        ("", json!(["all"])),
        ("method=GET&path=/v1/search/c", json!(["all", "search"])),
    ] {
        let decision = world.check_with(&key, query).await;
        assert_eq!(decision["violated"], violated, "{query}: {decision}");
        assert_eq!(decision["limit"], Value::Null, "an unlimited plan: {decision}");
        assert_eq!(decision["remaining"], Value::Null, "an unlimited plan: {decision}");
    }
}

#[tokio::test]
async fn a_short_quota_period_gives_its_units_anew() {
    let world = World::start(Store::Sqlite).await;
    let quota = json!({"limit": 2, "every": "PT2S", "anchor": "calendar", "enforcement": "hard"});
    let key = world.subscribe(&world.plan(json!({"quota": quota})).await).await.key;
    let period = |decision: &Value| decision["periodStart"].clone();
    let refused =
        eventually("both units of one period are spent", Duration::from_secs(10), || async {
            let decision = world.check(&key).await;
            if decision["allowed"] == false { Ok(decision) } else { Err(decision.to_string()) }
        });
    let refused = refused.await;
    let passed = eventually("the next period begins", Duration::from_secs(10), || async {
        let decision = world.check(&key).await;
        if decision["allowed"] == true { Ok(decision) } else { Err(decision.to_string()) }
    });
    let passed = passed.await;
    assert!(period(&passed).as_str() > period(&refused).as_str(), "{refused} {passed}");
    assert!(refused["resetAt"].as_str() <= passed["periodStart"].as_str(), "{refused} {passed}");
}
