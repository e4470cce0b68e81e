//! Usage events: counted once, whatever form they come in and however often.

use std::time::Duration;

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use harness::{Store, World, event, event_at, event_of, eventually, on_both_stores, rfc3339};
use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

const EVENTS: &str = "/api/v1/usage/events";

on_both_stores!(
    an_id_counts_once_within_a_batch_and_ever_after,
    ids_are_remembered_across_a_restart_and_a_crash,
    one_bad_event_harms_no_other,
    every_form_of_body_is_understood,
    what_is_charged_follows_outcome_and_plan,
    a_late_event_counts_in_its_own_period,
    quantities_count_on_their_meters,
    an_event_settles_the_hold_of_its_check,
    reads_agree_with_what_was_sent,
);

fn counts(answer: &Value) -> (u64, u64, usize) {
    let count = |name: &str| answer[name].as_u64().expect("a count");
    let rejected = answer["rejected"].as_array().expect("a list");
    (count("accepted"), count("duplicates"), rejected.len())
}

async fn an_id_counts_once_within_a_batch_and_ever_after(store: Store) {
    let world = World::start(store).await;
    let subscription = world.subscribe_hard(100).await;
    let batch = json!([
        event_of(&subscription.key, "e1"),
        event_of(&subscription.key, "e1"),
        event_of(&subscription.key, "e2"),
    ]);
    assert_eq!(counts(&world.record(&batch).await), (2, 1, 0));
    assert_eq!(counts(&world.record(&batch).await), (0, 3, 0));
    assert_eq!(world.peek(&subscription.key).await["used"], 2);
    assert_eq!(world.records(&subscription.id, "").await.len(), 2);
    // The same id of another subscription is another event.
    let other = world.subscribe_hard(100).await;
    assert_eq!(counts(&world.record(&event_of(&other.key, "e1")).await), (1, 0, 0));
}

async fn ids_are_remembered_across_a_restart_and_a_crash(store: Store) {
    let mut world = World::start(store).await;
    let subscription = world.subscribe_hard(100).await;
    let batch = json!([event_of(&subscription.key, "e1"), event_of(&subscription.key, "e2")]);
    assert_eq!(counts(&world.record(&batch).await), (2, 0, 0));
    world.node.terminate().await;
    world.node.restart().await;
    assert_eq!(counts(&world.record(&batch).await), (0, 2, 0));
    let more = json!([event_of(&subscription.key, "e2"), event_of(&subscription.key, "e3")]);
    assert_eq!(counts(&world.record(&more).await), (1, 1, 0));
    world.node.kill9();
    world.node.restart().await;
    assert_eq!(counts(&world.record(&more).await), (0, 2, 0));
    assert_eq!(world.peek(&subscription.key).await["used"], 3);
}

async fn one_bad_event_harms_no_other(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(100).await.key;
    let without = |field: &str| {
        let mut event = event(&key);
        event.as_object_mut().expect("an event is an object").remove(field);
        event
    };
    let with = |field: &str, value: Value| {
        let mut event = event(&key);
        event[field] = value;
        event
    };
    let batch = json!([
        event(&key),
        without("id"),
        without("subscription_key"),
        without("timestamp"),
        with("units", json!(-1)),
        with("units", json!(9_007_199_254_740_992_u64)),
        with("id", json!("x".repeat(129))),
        with("timestamp", json!("yesterday")),
        with("outcome", json!("perhaps")),
        "no event",
        event("a-key-that-nobody-ever-had"),
        event_at(&key, &rfc3339(6 * 60)),
        event_at(&key, &rfc3339(-36 * 24 * 3_600)),
        event_at(&key, &rfc3339(4 * 60)),
        event_at(&key, &rfc3339(-60)),
        with("a_field_of_tomorrow", json!({"deep": [1, 2]})),
    ]);
    let answer = world.record(&batch).await;
    assert_eq!(counts(&answer), (4, 0, 12), "{answer}");
    let told: Vec<(u64, &str)> = answer["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            assert!(one["detail"].as_str().is_some_and(|text| !text.is_empty()), "{one}");
            (one["index"].as_u64().expect("a place"), one["code"].as_str().expect("a code"))
        })
        .collect();
    let mut expected: Vec<(u64, &str)> = (1..=9).map(|index| (index, "invalid_event")).collect();
    expected.extend([
        (10, "unknown_subscription"),
        (11, "timestamp_in_future"),
        (12, "timestamp_too_old"),
    ]);
    assert_eq!(told, expected);
    assert_eq!(answer["rejected"][10 - 1]["id"], batch[10]["id"], "its own id where it has one");
    assert_eq!(world.peek(&key).await["used"], 4);
}

async fn every_form_of_body_is_understood(store: Store) {
    let world = World::start(store).await;
    let subscription = world.subscribe_hard(100).await;
    let key = &subscription.key;
    let gateway = world.gateway();
    let lines = format!("{}\n{}\n", event(key), event(key));
    let cloud = |data: Value| {
        json!({"specversion": "1.0", "type": "api.request", "source": "gateway",
               "id": data["id"], "time": data["timestamp"], "subject": key, "data": data})
    };
    let camel_case = json!({
        "id": "camel", "subscriptionKey": key, "timestamp": rfc3339(0), "apiPath": "/v1/search",
        "statusCode": 200, "responseTimeMs": 3, "userAgent": "curl", "ipAddress": "203.0.113.9",
    });
    let by_id = json!({"id": "by-id", "subscription_id": subscription.id, "timestamp": rfc3339(0)});
    let mut used = 0;
    for (form, content_type, body, count) in [
        ("one", "application/json", event(key).to_string(), 1),
        ("camelCase", "application/json", camel_case.to_string(), 1),
        ("by id", "application/json", by_id.to_string(), 1),
        ("array", "application/json", json!([event(key), event(key)]).to_string(), 2),
        ("events", "application/json", json!({"events": [event(key)]}).to_string(), 1),
        ("lines", "application/x-ndjson", lines, 2),
        (
            "CloudEvents",
            "application/cloudevents-batch+json",
            json!([cloud(event(key)), cloud(event(key))]).to_string(),
            2,
        ),
        ("empty array", "application/json", "[]".to_owned(), 0),
    ] {
        let answer = gateway.post_bytes(Method::POST, EVENTS, content_type, body).await.expect(200);
        assert_eq!(counts(&answer), (count, 0, 0), "{form}: {answer}");
        used += count;
        assert_eq!(world.peek(key).await["used"], used, "{form}");
    }

    let plain = json!([event(key), event(key)]).to_string();
    let mut gzip = GzipEncoder::new(Vec::new());
    let mut zstd = ZstdEncoder::new(Vec::new());
    for writer in [&mut gzip as &mut (dyn tokio::io::AsyncWrite + Unpin), &mut zstd] {
        writer.write_all(plain.as_bytes()).await.expect("memory takes everything");
        writer.shutdown().await.expect("memory takes everything");
    }
    let forms = [("gzip", gzip.into_inner(), (2, 0, 0)), ("zstd", zstd.into_inner(), (0, 2, 0))];
    for (encoding, body, expected) in forms {
        let request = gateway.request(Method::POST, EVENTS);
        let request = request.header("content-type", "application/json");
        let answer = gateway.send(request.header("content-encoding", encoding), body).await;
        assert_eq!(counts(&answer.expect(200)), expected, "{encoding}");
    }
    let request = gateway.request(Method::POST, EVENTS).header("content-encoding", "br");
    gateway.send(request, "x").await.expect_problem(415, "unsupported_encoding");
}

async fn what_is_charged_follows_outcome_and_plan(store: Store) {
    let world = World::start(store).await;
    let quota = json!({"limit": 100, "anchor": "subscription"});
    let subscribe = |bill: &'static str| {
        let plan = json!({"quota": quota, "bill": bill});
        let world = &world;
        async move { world.subscribe(&world.plan(plan).await).await }
    };
    let all = [("all", 5), ("success", 2), ("non_5xx", 4)];
    for (bill, used) in all {
        let subscription = subscribe(bill).await;
        let of = |status: u16, outcome: &str| {
            let mut event = event(&subscription.key);
            event["status_code"] = json!(status);
            event["outcome"] = json!(outcome);
            event
        };
        let batch = json!([
            of(200, "served"),
            of(304, "served"),
            of(404, "served"),
            of(499, "aborted"),
            of(503, "served"),
            of(429, "denied"),
        ]);
        assert_eq!(counts(&world.record(&batch).await), (6, 0, 0));
        assert_eq!(world.peek(&subscription.key).await["used"], used, "{bill}");
        let rows = world.records(&subscription.id, "").await;
        assert_eq!(rows.len(), 6, "all of them are recorded");
        let denied: Vec<_> = rows.iter().filter(|row| row["outcome"] == "denied").collect();
        assert!(denied.len() == 1 && denied[0]["charged"] == false, "{denied:?}");
    }
}

async fn a_late_event_counts_in_its_own_period(store: Store) {
    let world = World::start(store).await;
    let quota = json!({"limit": 100, "every": "P1M", "anchor": "subscription"});
    let plan = world.plan(json!({"quota": quota})).await;
    // The running period began minutes ago, the one before it lies within the grace.
    let started_at = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC);
    let started_at = started_at.checked_sub(jiff::ToSpan::months(2)).expect("not so long ago");
    let started_at = started_at.checked_sub(jiff::ToSpan::minutes(20)).expect("not so long ago");
    let started_at = started_at.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let subscription = world.subscribe_with(&plan, json!({"startedAt": started_at})).await;
    let seen = world.peek(&subscription.key).await;
    let period_start: jiff::Timestamp =
        seen["periodStart"].as_str().expect("a period").parse().expect("RFC 3339");
    let late = period_start - jiff::SignedDuration::from_secs(60);
    let late = late.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let batch = json!([
        event_at(&subscription.key, &late),
        event_at(&subscription.key, &late),
        event(&subscription.key),
    ]);
    assert_eq!(counts(&world.record(&batch).await), (3, 0, 0));
    let seen = world.peek(&subscription.key).await;
    assert_eq!(seen["used"], 1, "{seen}");
    assert_eq!(world.records(&subscription.id, "").await.len(), 3);
}

async fn quantities_count_on_their_meters(store: Store) {
    let world = World::start(store).await;
    let quotas = json!([
        {"name": "requests", "limit": 100, "anchor": "subscription"},
        {"name": "tokens", "meter": "tokens", "limit": 1_000, "anchor": "subscription"},
    ]);
    let subscription = world.subscribe(&world.plan(json!({"quotas": quotas})).await).await;
    let mut sent = event(&subscription.key);
    sent["units"] = json!(3);
    sent["quantities"] = json!({"tokens": 743, "nobody-asked": 9});
    world.record(&sent).await;
    let seen = world.peek(&subscription.key).await;
    let used = (&seen["quotas"][0]["used"], &seen["quotas"][1]["used"]);
    assert_eq!(used, (&json!(3), &json!(743)), "{seen}");
    let rows = world.records(&subscription.id, "").await;
    assert_eq!(rows[0]["quantities"], json!({"tokens": 743, "nobody-asked": 9}), "{rows:?}");
    let refused = world.check_with(&subscription.key, "cost.tokens=258").await;
    assert_eq!(refused["violated"], json!(["tokens"]), "{refused}");
}

async fn an_event_settles_the_hold_of_its_check(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(10).await.key;
    for _ in 0..4 {
        world.check(&key).await;
    }
    assert_eq!(world.peek(&key).await["pending"], 4);
    world.record(&json!([event(&key), event(&key), event(&key)])).await;
    let seen = world.peek(&key).await;
    let said = (&seen["used"], &seen["pending"], &seen["remaining"]);
    assert_eq!(said, (&json!(3), &json!(1), &json!(6)), "{seen}");
}

async fn reads_agree_with_what_was_sent(store: Store) {
    let world = World::start(store).await;
    let subscription = world.subscribe_hard(1_000).await;
    let mut sent = Vec::new();
    for index in 0..60_u64 {
        let mut event = event_at(&subscription.key, &rfc3339(-90));
        let status = [200, 200, 404, 500][usize::try_from(index % 4).expect("small")];
        event["status_code"] = json!(status);
        event["country"] = json!(if index % 3 == 0 { "DE" } else { "FR" });
        event["api_path"] = json!(if index % 2 == 0 { "/v1/search" } else { "/v1/items" });
        event["response_time_ms"] = json!(index + 1);
        event["response_size"] = json!(1_000);
        event["units"] = json!(2);
        sent.push(event);
    }
    let mut denied = event_at(&subscription.key, &rfc3339(-90));
    denied["outcome"] = json!("denied");
    denied["status_code"] = json!(429);
    sent.push(denied);
    assert_eq!(counts(&world.record(&json!(sent)).await), (61, 0, 0));

    let dashboard = world.dashboard();
    let query =
        format!("subscriptionId={}&from={}&to={}", subscription.id, rfc3339(-3_600), rfc3339(60));
    let stats = eventually("stats", Duration::from_secs(15), || async {
        let stats = dashboard.get(&format!("/api/v1/usage/stats?{query}")).await.expect(200);
        if stats["requests"] == 61 { Ok(stats) } else { Err(stats.to_string()) }
    })
    .await;
    let expected =
        [("units", 120), ("denied", 1), ("errors", 30), ("bytesIn", 6_100), ("bytesOut", 65_120)];
    for (name, value) in expected {
        assert_eq!(stats[name], value, "{name}: {stats}");
    }
    let codes = json!({"200": 30, "404": 15, "500": 15, "429": 1});
    assert_eq!(stats["statusCodes"], codes, "{stats}");
    assert_eq!(stats["countries"], json!({"DE": 21, "FR": 40}), "{stats}");
    let close = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap_or(f64::NAN);
        (value - expected).abs() <= expected * 0.03 + 1.0
    };
    assert!(close(&stats["latency"]["p50"], 30.0), "{stats}");
    assert!(close(&stats["latency"]["p99"], 60.0), "{stats}");
    assert_eq!(stats["latency"]["max"], 60.0, "{stats}");
    let endpoints = stats["endpoints"].as_array().expect("a list");
    assert_eq!(endpoints.len(), 2, "{stats}");

    let trends = dashboard.get(&format!("/api/v1/usage/trends?{query}&granularity=PT1M")).await;
    let trends = trends.expect(200);
    let buckets = trends["data"].as_array().expect("a list");
    let sum = |name: &str| buckets.iter().filter_map(|one| one[name].as_u64()).sum::<u64>();
    assert!(buckets.len() >= 61, "empty buckets are included: {}", buckets.len());
    assert_eq!((sum("requests"), sum("units"), sum("errors"), sum("denied")), (61, 120, 30, 1));

    assert_eq!(world.records(&subscription.id, "").await.len(), 61);
    assert_eq!(world.records(&subscription.id, "&status=404").await.len(), 15);
    assert_eq!(world.records(&subscription.id, "&path=/v1/items").await.len(), 30);

    let summary = dashboard.get("/api/v1/usage/summary").await.expect(200);
    assert_eq!(summary["totals"]["requests"], 61, "{summary}");
    assert_eq!(summary["top"][0]["subscriptionId"], subscription.id.as_str(), "{summary}");
}
