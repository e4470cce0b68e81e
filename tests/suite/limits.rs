//! Quotas: what passes, what does not, and what a refusal leaves untouched.

use futures::future::join_all;
use harness::{Store, World, event, on_both_stores, rfc3339};
use serde_json::{Value, json};

on_both_stores!(
    of_two_thousand_checks_at_once_exactly_the_limit_passes,
    exactly_the_remainder_passes_and_more_changes_nothing,
    a_first_request_beyond_the_limit_poisons_nothing,
    quota_and_rate_are_charged_together_or_not_at_all,
    a_refusal_names_the_quota_that_refused_and_charges_none,
    quotas_of_different_periods_reset_at_their_own_times,
    a_changed_limit_holds_at_once_and_keeps_what_was_used,
    a_repeated_request_is_told_the_same_and_charges_nothing,
    a_shadow_plan_lets_everything_pass,
    each_reason_why_a_key_is_no_good_is_named,
    a_batch_is_answered_in_order_and_one_bad_item_harms_no_other,
    a_batch_for_one_key_is_decided_in_its_order,
    a_repeat_is_known_after_an_orderly_restart,
    sums_beyond_what_json_carries_fail_nobodys_read,
    a_check_charges_by_itself_where_the_plan_says_so,
    costs_follow_method_and_path,
    a_request_id_used_for_another_question_gets_a_decision_of_its_own,
    a_cost_is_spelled_one_way_and_given_once,
    changing_plans_back_and_forth_gives_no_quota_back,
    a_revoked_key_of_another_tenant_is_nobodys,
);

fn hard(limit: u64) -> Value {
    json!({"limit": limit, "every": "P1M", "anchor": "subscription", "enforcement": "hard"})
}

async fn of_two_thousand_checks_at_once_exactly_the_limit_passes(store: Store) {
    let world = World::start(store).await;
    let subscription = world.subscribe_hard(100).await;
    let answers = join_all((0..2_000).map(|_| world.try_check(&subscription.key, ""))).await;
    let mut allowed = 0;
    for answer in &answers {
        let decision = answer.expect(200);
        let passes = decision["allowed"] == true;
        assert_eq!(decision["reason"], if passes { "ok" } else { "quota_exceeded" }, "{decision}");
        allowed += u32::from(passes);
    }
    assert_eq!(allowed, 100);
    let seen = world.peek(&subscription.key).await;
    let expected = (&json!(0), &json!(100), &json!(0));
    assert_eq!((&seen["used"], &seen["pending"], &seen["remaining"]), expected, "{seen}");
}

async fn exactly_the_remainder_passes_and_more_changes_nothing(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(10).await.key;
    // (cost, whether it passes, what remains)
    for (cost, allowed, remaining) in [
        (0, true, 10),
        (4, true, 6),
        (7, false, 6),
        (0, true, 6),
        (6, true, 0),
        (1, false, 0),
        (0, true, 0),
    ] {
        let decision = world.check_with(&key, &format!("cost={cost}")).await;
        let said = (&decision["allowed"], &decision["remaining"]);
        assert_eq!(said, (&json!(allowed), &json!(remaining)), "cost {cost}: {decision}");
    }
    let refused = world.try_check(&key, "").await;
    assert_eq!(refused.header("cache-control"), "no-store");
    assert!(!refused.header("x-weir-owner").is_empty());
    assert_eq!(refused.header("x-weir-hops"), "0");
    let refused = refused.expect(200);
    assert_eq!(refused["violated"], json!(["requests"]), "{refused}");
    assert!(refused["retryAfter"].as_u64().is_some_and(|seconds| seconds > 0), "{refused}");
}

async fn a_first_request_beyond_the_limit_poisons_nothing(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(10).await.key;
    let refused = world.check_with(&key, "cost=11").await;
    assert_eq!(refused["reason"], "quota_exceeded", "{refused}");
    let refused = world.check_with(&key, "cost=9007199254740991").await;
    assert_eq!(refused["reason"], "quota_exceeded", "{refused}");
    let passed = world.check_with(&key, "cost=10").await;
    assert_eq!((&passed["allowed"], &passed["remaining"]), (&json!(true), &json!(0)), "{passed}");
}

async fn quota_and_rate_are_charged_together_or_not_at_all(store: Store) {
    let world = World::start(store).await;
    let rate = json!([{"name": "slow", "limit": 5, "window": "PT1H", "algorithm": "fixed_window"}]);
    let by_rate = world.plan(json!({"quota": hard(100), "rateLimits": rate})).await;
    let key = world.subscribe(&by_rate).await.key;
    assert_eq!(world.check_with(&key, "cost=3").await["allowed"], true);
    let refused = world.check_with(&key, "cost=3").await;
    assert_eq!(refused["reason"], "rate_limited", "{refused}");
    assert_eq!(refused["violated"], json!(["slow"]), "{refused}");
    let seen = world.peek(&key).await;
    assert_eq!(seen["pending"], 3, "the quota was not charged: {seen}");
    assert_eq!(seen["rate"][0]["remaining"], 2, "nor the rate: {seen}");

    let rate =
        json!([{"name": "fast", "limit": 50, "window": "PT1H", "algorithm": "fixed_window"}]);
    let by_quota = world.plan(json!({"quota": hard(5), "rateLimits": rate})).await;
    let key = world.subscribe(&by_quota).await.key;
    assert_eq!(world.check_with(&key, "cost=3").await["allowed"], true);
    let refused = world.check_with(&key, "cost=3").await;
    assert_eq!(refused["reason"], "quota_exceeded", "{refused}");
    let seen = world.peek(&key).await;
    assert_eq!(seen["rate"][0]["remaining"], 47, "the rate was not charged: {seen}");
    assert_eq!(seen["remaining"], 2, "nor the quota: {seen}");
}

async fn a_refusal_names_the_quota_that_refused_and_charges_none(store: Store) {
    let world = World::start(store).await;
    let quotas = json!([
        {"name": "requests", "meter": "requests", "limit": 10, "anchor": "subscription"},
        {"name": "tokens", "meter": "tokens", "limit": 50, "anchor": "subscription",
         "enforcement": "soft", "hardCap": 100},
    ]);
    let key = world.subscribe(&world.plan(json!({"quotas": quotas})).await).await.key;
    let standing = |decision: &Value| {
        let pending = |at: usize| decision["quotas"][at]["pending"].clone();
        (decision["allowed"].clone(), decision["overage"].clone(), pending(0), pending(1))
    };
    // (query, allowed, overage, requests held, tokens held, violated)
    for (query, allowed, overage, requests, tokens, violated) in [
        ("cost=2&cost.tokens=40", true, false, 2, 40, json!([])),
        ("cost=1&cost.tokens=20", true, true, 3, 60, json!([])),
        ("cost=1&cost.tokens=41", false, false, 3, 60, json!(["tokens"])),
        ("cost=8&cost.tokens=1", false, false, 3, 60, json!(["requests"])),
        ("cost=8&cost.tokens=41", false, false, 3, 60, json!(["requests", "tokens"])),
        ("cost=7&cost.tokens=40", true, true, 10, 100, json!([])),
    ] {
        let decision = world.check_with(&key, query).await;
        let expected = (json!(allowed), json!(overage), json!(requests), json!(tokens));
        assert_eq!(standing(&decision), expected, "{query}: {decision}");
        assert_eq!(decision["violated"], violated, "{query}: {decision}");
    }
}

async fn quotas_of_different_periods_reset_at_their_own_times(store: Store) {
    let world = World::start(store).await;
    let quotas = json!([
        {"name": "monthly", "meter": "requests", "limit": 100, "every": "P1M",
         "anchor": "subscription"},
        {"name": "daily", "meter": "requests", "limit": 3, "every": "P1D",
         "anchor": "subscription"},
    ]);
    let plan = world.plan(json!({"quotas": quotas})).await;
    let started_at = "2024-01-31T12:00:00.000Z";
    let key = world.subscribe_with(&plan, json!({"startedAt": started_at})).await.key;
    let passed = world.check_with(&key, "cost=3").await;
    assert_eq!(passed["quotas"][0]["remaining"], 97, "{passed}");
    assert_eq!(passed["quotas"][1]["remaining"], 0, "{passed}");
    let refused = world.check(&key).await;
    assert_eq!(refused["violated"], json!(["daily"]), "{refused}");
    let moment = |at: usize| -> jiff::Timestamp {
        let text = refused["quotas"][at]["resetAt"].as_str().expect("a quota has an end");
        text.parse().expect("moments are RFC 3339")
    };
    let (month, day) = (moment(0), moment(1));
    let now = jiff::Timestamp::now();
    for (reset_at, days_max) in [(month, 31), (day, 1)] {
        assert!(reset_at > now, "{refused}");
        assert!(reset_at.duration_since(now).as_hours() <= days_max * 24, "{refused}");
        assert_eq!(reset_at.strftime("%H:%M:%S").to_string(), "12:00:00", "{refused}");
    }
    let wait = i64::try_from(refused["retryAfter"].as_u64().expect("a number")).expect("small");
    let until_day = day.duration_since(now).as_secs();
    assert!((until_day - 5..=until_day + 5).contains(&wait), "{wait} is not {until_day}");
}

async fn a_changed_limit_holds_at_once_and_keeps_what_was_used(store: Store) {
    let world = World::start(store).await;
    let plan = world.plan(json!({"quota": hard(100)})).await;
    let subscription = world.subscribe(&plan).await;
    let events: Vec<_> = (0..50).map(|_| event(&subscription.key)).collect();
    world.record(&json!(events)).await;
    world.await_used(&subscription.key, 50).await;
    let put = |limit: u64| {
        let body = json!({"name": "test", "quota": hard(limit)});
        let path = format!("/api/v1/plans/{plan}");
        let admin = world.admin();
        async move { admin.json(http::Method::PUT, &path, &body).await.expect(200) }
    };
    // (limit, remaining, whether a check passes)
    for (limit, remaining, allowed) in
        [(10, 0, false), (100, 50, true), (100, 50, true), (50, 0, false), (51, 1, true)]
    {
        put(limit).await;
        let seen = world.peek(&subscription.key).await;
        let said = (&seen["limit"], &seen["used"], &seen["remaining"]);
        assert_eq!(said, (&json!(limit), &json!(50), &json!(remaining)), "{seen}");
        let decision = world.check_with(&subscription.key, "reserve=true").await;
        assert_eq!(decision["allowed"], allowed, "{decision}");
        if let Some(id) = decision["reservationId"].as_str() {
            let path = format!("/api/v1/quota/reservations/{id}/release");
            world.gateway().post(&path, &json!({})).await.expect(200);
        }
    }
}

async fn a_repeated_request_is_told_the_same_and_charges_nothing(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(10).await.key;
    let gateway = world.gateway();
    let ask = |id: &str, query: &str| {
        let request = gateway.request(http::Method::GET, &format!("/api/v1/quota/check?{query}"));
        let request = request.header("x-subscription-key", &key).header("idempotency-key", id);
        let gateway = gateway.clone();
        async move { gateway.send(request, "").await.expect(200) }
    };
    let first = ask("a", "cost=4&reserve=true").await;
    let again = ask("a", "cost=4&reserve=true").await;
    assert_eq!((&first["allowed"], &first["pending"]), (&json!(true), &json!(4)), "{first}");
    assert_eq!((&again["allowed"], &again["pending"]), (&json!(true), &json!(4)), "{again}");
    assert_eq!(first["reservationId"], again["reservationId"], "the same hold");
    // As many at once, of which one is the first.
    let hedged = join_all((0..20).map(|_| ask("b", "cost=5"))).await;
    assert!(hedged.iter().all(|decision| decision["allowed"] == true), "{hedged:?}");
    assert_eq!(world.peek(&key).await["pending"], 9);
    let by_query = world.check_with(&key, "cost=5&requestId=b").await;
    assert_eq!((&by_query["allowed"], &by_query["pending"]), (&json!(true), &json!(9)));
    // A refusal is repeated too.
    assert_eq!(ask("c", "cost=2").await["allowed"], false);
    assert_eq!(ask("c", "cost=2").await["allowed"], false);
    assert_eq!(ask("d", "cost=1").await["allowed"], true);
}

async fn a_shadow_plan_lets_everything_pass(store: Store) {
    let world = World::start(store).await;
    let plan = world.plan(json!({"quota": hard(2), "shadow": true})).await;
    let key = world.subscribe(&plan).await.key;
    let decisions = [world.check(&key).await, world.check_with(&key, "cost=5").await];
    for decision in &decisions {
        assert_eq!(decision["allowed"], true, "{decision}");
        assert_eq!(decision["mode"], "shadow", "{decision}");
    }
    assert_eq!(decisions[0]["violated"], json!([]), "{}", decisions[0]);
    assert_eq!(decisions[1]["violated"], json!(["requests"]), "{}", decisions[1]);
}

async fn each_reason_why_a_key_is_no_good_is_named(store: Store) {
    let world = World::start(store).await;
    let plan = world.plan(json!({"quota": hard(10)})).await;
    let admin = world.admin();
    let suspended = world.subscribe(&plan).await;
    assert_eq!(world.check(&suspended.key).await["reason"], "ok");
    let path = format!("/api/v1/subscriptions/{}", suspended.id);
    admin.json(http::Method::PATCH, &path, &json!({"status": "suspended"})).await.expect(200);

    let future = json!({"startedAt": rfc3339(3_600)});
    let future = world.subscribe_with(&plan, future).await;
    let past = json!({"startedAt": rfc3339(-7_200), "endsAt": rfc3339(-3_600)});
    let past = world.subscribe_with(&plan, past).await;
    let two_keys = world.subscribe(&plan).await;
    let keys = format!("/api/v1/subscriptions/{}/keys", two_keys.id);
    let second = admin.post(&keys, &json!({})).await.expect(201);
    let text = |name: &str| second[name].as_str().expect("a key has it").to_owned();
    let (second_id, second_key) = (text("id"), text("key"));
    assert_eq!(world.check(&second_key).await["reason"], "ok", "a second key is as good");
    admin.delete(&format!("{keys}/{second_id}")).await.expect(204);

    for (key, reason) in [
        (suspended.key.as_str(), "subscription_suspended"),
        (&future.key, "subscription_not_started"),
        (&past.key, "subscription_ended"),
        (&second_key, "key_revoked"),
        ("a-key-that-nobody-ever-had", "unknown_key"),
        (&two_keys.key, "ok"),
    ] {
        let decision = world.check(key).await;
        assert_eq!(decision["reason"], reason, "{decision}");
        assert_eq!(decision["allowed"], reason == "ok", "{decision}");
    }
    admin.json(http::Method::PATCH, &path, &json!({"status": "active"})).await.expect(200);
    assert_eq!(world.check(&suspended.key).await["reason"], "ok", "active again");
}

async fn a_batch_is_answered_in_order_and_one_bad_item_harms_no_other(store: Store) {
    let world = World::start(store).await;
    let (one, two) = (world.subscribe_hard(5).await.key, world.subscribe_hard(5).await.key);
    let checks = json!({"checks": [
        {"subscriptionKey": one, "cost": 5},
        {"subscriptionKey": two, "cost": -1},
        {"subscriptionKey": one, "cost": 1},
        {"cost": 1},
        "no check at all",
        {"subscriptionKey": "a-key-that-nobody-ever-had"},
        {"subscriptionKey": two, "cost": 2, "unknown": true},
        {"subscriptionKey": two, "cost": 2},
    ]});
    let answer = world.gateway().post("/api/v1/quota/check", &checks).await.expect(200);
    let results = answer["results"].as_array().expect("results are a list");
    let told: Vec<&str> = results
        .iter()
        .map(|result| {
            result["reason"].as_str().unwrap_or_else(|| {
                assert!(result["error"]["code"].is_string(), "{result}");
                "error"
            })
        })
        .collect();
    let expected =
        ["ok", "error", "quota_exceeded", "error", "error", "unknown_key", "error", "ok"];
    assert_eq!(told, expected, "{answer}");
    assert_eq!(world.peek(&two).await["pending"], 2);

    let many = |count: usize| json!({"checks": vec![json!({"subscriptionKey": two}); count]});
    let answer = world.gateway().post("/api/v1/quota/check", &many(1_000)).await.expect(200);
    let results = answer["results"].as_array().expect("results are a list");
    let passed = results.iter().filter(|result| result["allowed"] == true).count();
    assert_eq!((results.len(), passed), (1_000, 3));
    let refused = world.gateway().post("/api/v1/quota/check", &many(1_001)).await;
    refused.expect_problem(422, "batch_too_large");
}

async fn a_batch_for_one_key_is_decided_in_its_order(store: Store) {
    let world = World::start(store).await;
    // Nobody has asked for it yet: the first of them brings it into memory.
    let key = world.subscribe_hard(500).await.key;
    let checks = json!({"checks": vec![json!({"subscriptionKey": key}); 1_000]});
    let answer = world.gateway().post("/api/v1/quota/check", &checks).await.expect(200);
    let results = answer["results"].as_array().expect("results are a list");
    let passed: Vec<bool> = results.iter().map(|result| result["allowed"] == true).collect();
    let first_refusal = passed.iter().position(|passed| !passed);
    assert_eq!(first_refusal, Some(500));
    assert!(!passed[500..].contains(&true), "none passes after one that did not");
}

async fn a_repeat_is_known_after_an_orderly_restart(store: Store) {
    let mut world = World::start(store).await;
    let plan = world.plan(json!({"quota": hard(100), "chargeOn": "check"})).await;
    let key = world.subscribe(&plan).await.key;
    let first = world.check_with(&key, "cost=5&requestId=once").await;
    assert_eq!((&first["allowed"], &first["used"]), (&json!(true), &json!(5)), "{first}");
    let named = world.check_with(&key, "cost=7&reserve=true&requestId=held").await;
    world.node.terminate().await;
    world.node.restart().await;
    let again = world.check_with(&key, "cost=5&requestId=once").await;
    assert_eq!((&again["allowed"], &again["used"]), (&json!(true), &json!(5)), "{again}");
    let held = world.check_with(&key, "cost=7&reserve=true&requestId=held").await;
    assert_eq!(held["reservationId"], named["reservationId"], "the same hold: {held}");
    assert_eq!(held["pending"], named["pending"], "{held}");
}

async fn sums_beyond_what_json_carries_fail_nobodys_read(store: Store) {
    const MOST: u64 = 9_007_199_254_740_991;
    let world = World::start(store).await;
    let plan = world.plan(json!({})).await;
    let subscription = world.subscribe(&plan).await;
    let huge = |_| {
        let mut event = event(&subscription.key);
        event["units"] = json!(MOST);
        event["response_size"] = json!(MOST);
        event
    };
    let events: Vec<Value> = (0..1_100).map(huge).collect();
    assert_eq!(world.record(&json!(events)).await["accepted"], 1_100);
    for _ in 0..3 {
        let summary = world.dashboard().get("/api/v1/usage/summary").await.expect(200);
        assert_eq!(summary["totals"]["units"], json!(MOST), "{summary}");
        let path = format!("/api/v1/usage/stats?subscriptionId={}", subscription.id);
        let stats = world.dashboard().get(&path).await.expect(200);
        assert_eq!((&stats["units"], &stats["requests"]), (&json!(MOST), &json!(1_100)), "{stats}");
        // Some of it is rolled up meanwhile.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
}

async fn a_check_charges_by_itself_where_the_plan_says_so(store: Store) {
    let world = World::start(store).await;
    let plan = world.plan(json!({"quota": hard(10), "chargeOn": "check"})).await;
    let key = world.subscribe(&plan).await.key;
    let decision = world.check_with(&key, "cost=4").await;
    assert_eq!((&decision["used"], &decision["pending"]), (&json!(4), &json!(0)), "{decision}");
    let recorded = world.record(&event(&key)).await;
    assert_eq!(recorded["accepted"], 1, "{recorded}");
    let seen = world.peek(&key).await;
    assert_eq!(seen["used"], 4, "an event is recorded and charges nothing more: {seen}");
}

async fn costs_follow_method_and_path(store: Store) {
    let world = World::start(store).await;
    let costs = json!([{"method": "POST", "path": "/v1/generate*", "units": 5}]);
    let plan = world.plan(json!({"quota": hard(100), "costs": costs})).await;
    let key = world.subscribe(&plan).await.key;
    let mut pending = 0;
    for (query, cost) in [
        ("method=POST&path=/v1/generate/image", 5),
        ("method=GET&path=/v1/generate/image", 1),
        ("method=POST&path=/v1/search", 1),
        ("method=POST&path=/v1/generate&cost=2", 2),
        ("", 1),
    ] {
        pending += cost;
        let decision = world.check_with(&key, query).await;
        assert_eq!(decision["pending"], pending, "{query}: {decision}");
    }
}

async fn a_request_id_used_for_another_question_gets_a_decision_of_its_own(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(100).await.key;
    // (query, whether it passes, what is held after it)
    for (query, allowed, pending) in [
        ("cost=1&requestId=q", true, 1),
        ("cost=1&requestId=q", true, 1),
        ("cost=1000&requestId=q", false, 1),
        ("cost=2&requestId=q", true, 3),
        ("cost=1&requestId=q", true, 3),
    ] {
        let decision = world.check_with(&key, query).await;
        let said = (&decision["allowed"], &decision["pending"]);
        assert_eq!(said, (&json!(allowed), &json!(pending)), "{query}: {decision}");
    }
    let held = world.check_with(&key, "cost=1&reserve=true&requestId=q").await;
    assert!(held["reservationId"].is_string(), "{held}");
    let again = world.check_with(&key, "cost=1&reserve=true&requestId=q").await;
    assert_eq!(again["reservationId"], held["reservationId"], "{again}");
}

async fn a_cost_is_spelled_one_way_and_given_once(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(100).await.key;
    for query in ["cost.requests=50", "cost=1&cost=0", "cost.tokens=1&cost.tokens=2", "cost.=1"]
        .into_iter()
        .chain(["path=/a&path=/b", "method=GET&method=PUT", "reserve=true&reserve=false"])
    {
        world.try_check(&key, query).await.expect_problem(400, "invalid_parameter");
    }
    assert_eq!(world.peek(&key).await["pending"], 0);
}

async fn changing_plans_back_and_forth_gives_no_quota_back(store: Store) {
    let world = World::start(store).await;
    let quota = |name: &str| json!({"name": name, "meter": "requests", "limit": 10});
    let first = world.plan(json!({"quotas": [quota("x")]})).await;
    let second = world.plan(json!({"quotas": [quota("y")]})).await;
    let subscription = world.subscribe(&first).await;
    let mut allowed = 0;
    for plan in [&first, &second, &first, &second] {
        let path = format!("/api/v1/subscriptions/{}", subscription.id);
        let change = json!({"planId": plan, "effective": "now"});
        world.admin().json(http::Method::PATCH, &path, &change).await.expect(200);
        for _ in 0..12 {
            let decision = world.check(&subscription.key).await;
            allowed += u32::from(decision["allowed"] == true);
        }
    }
    assert_eq!(allowed, 10);
}

async fn a_revoked_key_of_another_tenant_is_nobodys(store: Store) {
    let world = World::start(store).await;
    let plan = world.plan(json!({"quotas": []})).await;
    let red = world.subscribe_with(&plan, json!({"tenant": "red"})).await;
    let keys = format!("/api/v1/subscriptions/{}/keys", red.id);
    let extra = world.admin().post(&keys, &json!({})).await.expect(201);
    let id = extra["id"].as_str().expect("an id").to_owned();
    world.admin().delete(&format!("{keys}/{id}")).await.expect(204);
    let blue = world.token(&json!({"name": "t", "scope": "gateway", "tenant": "blue"})).await;
    let key = extra["key"].as_str().expect("a key").to_owned();
    let (blue, own) = (world.gateway().with_token(&blue), world.gateway());
    for (client, reason) in [(own, "key_revoked"), (blue, "unknown_key")] {
        let request = client.request(http::Method::GET, "/api/v1/quota/check");
        let decision =
            client.send(request.header("x-subscription-key", &key), "").await.expect(200);
        assert_eq!(decision["reason"], reason, "{decision}");
    }
}
