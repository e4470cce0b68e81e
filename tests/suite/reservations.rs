//! Named holds: what commit, release and time make of them, a crash in between included.

use std::time::Duration;

use harness::{Answer, Store, Subscription, World, event, eventually, on_both_stores};
use serde_json::{Value, json};

on_both_stores!(
    a_commit_charges_what_was_used_once,
    a_release_gives_everything_back_once,
    a_commit_after_expiry_still_charges_and_says_that_it_is_late,
    a_reservation_survives_a_crash,
    unknown_reservations_are_not_found,
    a_commit_and_a_release_that_race_have_one_winner,
    an_event_and_a_commit_charge_once_in_either_order,
    a_released_reservation_is_not_charged_by_a_later_event,
    an_event_after_expiry_charges_once,
    an_event_that_the_plan_does_not_bill_settles_its_reservation_for_nothing,
    an_event_with_a_reservation_that_is_not_its_own_is_charged_and_settles_nothing,
    units_over_time_agree_with_what_is_used,
);

async fn reserve(world: &World, key: &str, cost: u64) -> String {
    let decision = world.check_with(key, &format!("cost={cost}&reserve=true")).await;
    assert_eq!(decision["allowed"], true, "{decision}");
    decision["reservationId"].as_str().expect("a hold by name was asked for").to_owned()
}

async fn settle(world: &World, id: &str, how: &str, body: Value) -> Answer {
    world.gateway().post(&format!("/api/v1/quota/reservations/{id}/{how}"), &body).await
}

/// A served request that used what a reservation held for it.
fn event_for(key: &str, reservation: &str, units: u64) -> Value {
    let mut event = event(key);
    event["reservation_id"] = json!(reservation);
    event["units"] = json!(units);
    event
}

async fn record(world: &World, events: &Value, accepted: u64, duplicates: u64) {
    let answer = world.record(events).await;
    let counts = (&answer["accepted"], &answer["duplicates"]);
    assert_eq!(counts, (&json!(accepted), &json!(duplicates)), "{answer}");
}

async fn stats(world: &World, subscription: &Subscription) -> Value {
    let range = "from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z";
    let path = format!("/api/v1/usage/stats?subscriptionId={}&{range}", subscription.id);
    world.dashboard().get(&path).await.expect(200)
}

async fn check_standing(world: &World, key: &str, used: u64, pending: u64) {
    let seen = world.peek(key).await;
    let said = (&seen["used"], &seen["pending"]);
    assert_eq!(said, (&json!(used), &json!(pending)), "{seen}");
}

async fn a_commit_charges_what_was_used_once(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(1_000).await.key;
    let (less, more) = (reserve(&world, &key, 100).await, reserve(&world, &key, 10).await);
    check_standing(&world, &key, 0, 110).await;
    let settled = settle(&world, &less, "commit", json!({"units": 43})).await.expect(200);
    assert_eq!((&settled["units"], &settled["late"]), (&json!(43), &json!(false)), "{settled}");
    check_standing(&world, &key, 43, 10).await;
    settle(&world, &more, "commit", json!({"units": 25})).await.expect(200);
    check_standing(&world, &key, 68, 0).await;
    // Again, with whatever number: what was said first holds.
    for units in [43, 500] {
        let again = settle(&world, &less, "commit", json!({"units": units})).await.expect(200);
        assert_eq!((&again["units"], &again["duplicate"]), (&json!(43), &json!(true)), "{again}");
    }
    check_standing(&world, &key, 68, 0).await;
    settle(&world, &less, "release", json!({})).await.expect_problem(409, "reservation_committed");
    check_standing(&world, &key, 68, 0).await;
}

async fn a_release_gives_everything_back_once(store: Store) {
    let world = World::start(store).await;
    let key = world.subscribe_hard(100).await.key;
    let id = reserve(&world, &key, 100).await;
    assert_eq!(world.check(&key).await["reason"], "quota_exceeded");
    for duplicate in [false, true] {
        let released = settle(&world, &id, "release", json!({})).await.expect(200);
        assert_eq!(released["duplicate"], duplicate, "{released}");
        check_standing(&world, &key, 0, 0).await;
    }
    let commit = settle(&world, &id, "commit", json!({"units": 5})).await;
    commit.expect_problem(409, "reservation_released");
    check_standing(&world, &key, 0, 0).await;
}

async fn a_commit_after_expiry_still_charges_and_says_that_it_is_late(store: Store) {
    let world = World::start(store).await;
    let quota = json!({"limit": 100, "anchor": "subscription"});
    let plan = world.plan(json!({"quota": quota, "holdTtl": "1s"})).await;
    let key = world.subscribe(&plan).await.key;
    let id = reserve(&world, &key, 60).await;
    eventually("the hold returns by itself", Duration::from_secs(10), || async {
        let seen = world.peek(&key).await;
        if seen["pending"] == 0 { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    let settled = settle(&world, &id, "commit", json!({"units": 70})).await.expect(200);
    assert_eq!((&settled["units"], &settled["late"]), (&json!(70), &json!(true)), "{settled}");
    check_standing(&world, &key, 70, 0).await;
}

async fn a_reservation_survives_a_crash(store: Store) {
    let mut world = World::start(store).await;
    let key = world.subscribe_hard(1_000).await.key;
    let (committed, kept, released) = (
        reserve(&world, &key, 100).await,
        reserve(&world, &key, 200).await,
        reserve(&world, &key, 300).await,
    );
    settle(&world, &committed, "commit", json!({"units": 70})).await.expect(200);
    settle(&world, &released, "release", json!({})).await.expect(200);
    world.node.kill9();
    world.node.restart().await;
    let again = settle(&world, &committed, "commit", json!({"units": 70})).await.expect(200);
    assert_eq!(again["duplicate"], true, "{again}");
    settle(&world, &released, "commit", json!({}))
        .await
        .expect_problem(409, "reservation_released");
    let seen = world.peek(&key).await;
    assert_eq!(seen["used"], 70, "{seen}");
    // What the crashed node may have let through beyond what was persisted is held as well.
    assert!(seen["pending"].as_u64() >= Some(200), "the kept hold is still there: {seen}");
    let settled = settle(&world, &kept, "commit", json!({"units": 150})).await.expect(200);
    assert_eq!(settled["duplicate"], false, "{settled}");
    assert_eq!(world.peek(&key).await["used"], 220);
}

async fn unknown_reservations_are_not_found(store: Store) {
    let world = World::start(store).await;
    for id in ["0192f0c1-2345-7abc-8def-0123456789ab", "not-an-id"] {
        for how in ["commit", "release"] {
            settle(&world, id, how, json!({})).await.expect_problem(404, "not_found");
        }
    }
}

async fn a_commit_and_a_release_that_race_have_one_winner(store: Store) {
    let world = World::start(store).await;
    let subscription = world.subscribe_hard(10_000).await;
    let (mut used, mut commits) = (0, 0);
    for round in 0..25 {
        let id = reserve(&world, &subscription.key, 10).await;
        // Whoever is asked first has no advantage over all rounds.
        let commit = settle(&world, &id, "commit", json!({"units": 7}));
        let release = settle(&world, &id, "release", json!({}));
        let (commit, release) = if round % 2 == 0 {
            tokio::join!(commit, release)
        } else {
            let (release, commit) = tokio::join!(release, commit);
            (commit, release)
        };
        if commit.status == 200 {
            release.expect_problem(409, "reservation_committed");
            (used, commits) = (used + 7, commits + 1);
        } else {
            commit.expect_problem(409, "reservation_released");
            release.expect(200);
        }
        check_standing(&world, &subscription.key, used, 0).await;
        // What is said of it from now on is what happened.
        let (again, status) =
            if commit.status == 200 { ("commit", "committed") } else { ("release", "released") };
        let said = settle(&world, &id, again, json!({})).await.expect(200);
        assert_eq!((&said["status"], &said["duplicate"]), (&json!(status), &json!(true)), "{said}");
    }
    check_standing(&world, &subscription.key, used, 0).await;
    let records = world.records(&subscription.id, "").await;
    assert_eq!(records.len(), commits, "a release is no request");
    assert_eq!(stats(&world, &subscription).await["units"], used);
}

async fn an_event_and_a_commit_charge_once_in_either_order(store: Store) {
    let world = World::start(store).await;
    let subscription = world.subscribe_hard(1_000).await;
    let key = &subscription.key;
    // The event first: its units count, whatever is committed.
    let id = reserve(&world, key, 100).await;
    let events = event_for(key, &id, 40);
    for (accepted, duplicates) in [(1, 0), (0, 1)] {
        record(&world, &events, accepted, duplicates).await;
        check_standing(&world, key, 40, 0).await;
        let settled = settle(&world, &id, "commit", json!({"units": 90})).await.expect(200);
        let said = (&settled["units"], &settled["duplicate"]);
        assert_eq!(said, (&json!(40), &json!(true)), "{settled}");
        check_standing(&world, key, 40, 0).await;
    }
    settle(&world, &id, "release", json!({})).await.expect_problem(409, "reservation_committed");
    // The commit first: the event is recorded and charges nothing more, nor do others.
    let id = reserve(&world, key, 100).await;
    settle(&world, &id, "commit", json!({"units": 5})).await.expect(200);
    let events = json!([event_for(key, &id, 40), event_for(key, &id, 50)]);
    for (accepted, duplicates) in [(2, 0), (0, 2)] {
        record(&world, &events, accepted, duplicates).await;
        check_standing(&world, key, 45, 0).await;
    }
    // Two events in one batch: the first one settles.
    let id = reserve(&world, key, 100).await;
    record(&world, &json!([event_for(key, &id, 3), event_for(key, &id, 4)]), 2, 0).await;
    check_standing(&world, key, 48, 0).await;
    let stats = stats(&world, &subscription).await;
    assert_eq!((&stats["units"], &stats["requests"]), (&json!(48), &json!(5)), "{stats}");
    let endpoints = stats["endpoints"].as_array().expect("a list");
    let requests: Vec<_> = endpoints.iter().map(|one| (&one["path"], &one["requests"])).collect();
    assert_eq!(requests, [(&json!("/v1/search"), &json!(5))], "a commit names no endpoint");
}

async fn a_released_reservation_is_not_charged_by_a_later_event(store: Store) {
    let world = World::start(store).await;
    let subscription = world.subscribe_hard(1_000).await;
    let key = &subscription.key;
    let id = reserve(&world, key, 100).await;
    settle(&world, &id, "release", json!({})).await.expect(200);
    record(&world, &event_for(key, &id, 40), 1, 0).await;
    check_standing(&world, key, 0, 0).await;
    let records = world.records(&subscription.id, "").await;
    let said: Vec<_> = records.iter().map(|row| (&row["kind"], &row["charged"])).collect();
    assert_eq!(said, [(&json!("usage"), &json!(false))]);
    assert_eq!(records[0]["reservationId"], id);
    let again = settle(&world, &id, "release", json!({})).await.expect(200);
    assert_eq!(again["duplicate"], true, "{again}");
}

async fn an_event_after_expiry_charges_once(store: Store) {
    let world = World::start(store).await;
    let quota = json!({"limit": 100, "anchor": "subscription"});
    let plan = world.plan(json!({"quota": quota, "holdTtl": "1s"})).await;
    let subscription = world.subscribe(&plan).await;
    let key = &subscription.key;
    let id = reserve(&world, key, 60).await;
    eventually("the hold returns by itself", Duration::from_secs(10), || async {
        let seen = world.peek(key).await;
        if seen["pending"] == 0 { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    let events = event_for(key, &id, 30);
    for (accepted, duplicates) in [(1, 0), (0, 1)] {
        record(&world, &events, accepted, duplicates).await;
    }
    let settled = settle(&world, &id, "commit", json!({"units": 70})).await.expect(200);
    let said = (&settled["units"], &settled["late"], &settled["duplicate"]);
    assert_eq!(said, (&json!(30), &json!(true), &json!(true)), "{settled}");
    check_standing(&world, key, 30, 0).await;
    assert_eq!(stats(&world, &subscription).await["units"], 30);
}

async fn an_event_that_the_plan_does_not_bill_settles_its_reservation_for_nothing(store: Store) {
    let world = World::start(store).await;
    let plan = world.plan(json!({"quota": {"limit": 100}, "bill": "success"})).await;
    let subscription = world.subscribe(&plan).await;
    let key = &subscription.key;
    let id = reserve(&world, key, 60).await;
    // A refusal says nothing about what the reservation is for.
    let mut denied = event_for(key, &id, 60);
    denied["outcome"] = json!("denied");
    record(&world, &denied, 1, 0).await;
    check_standing(&world, key, 0, 60).await;
    let mut failed = event_for(key, &id, 60);
    failed["status_code"] = json!(500);
    record(&world, &failed, 1, 0).await;
    check_standing(&world, key, 0, 0).await;
    let settled = settle(&world, &id, "commit", json!({"units": 70})).await.expect(200);
    let said = (&settled["units"], &settled["duplicate"]);
    assert_eq!(said, (&json!(0), &json!(true)), "{settled}");
    check_standing(&world, key, 0, 0).await;
    assert_eq!(stats(&world, &subscription).await["units"], 0);
}

async fn an_event_with_a_reservation_that_is_not_its_own_is_charged_and_settles_nothing(
    store: Store,
) {
    let world = World::start(store).await;
    let (own, other) = (world.subscribe_hard(100).await, world.subscribe_hard(100).await);
    let theirs = reserve(&world, &other.key, 60).await;
    let unknown = "0192f0c1-2345-7abc-8def-0123456789ab";
    let events = json!([event_for(&own.key, &theirs, 5), event_for(&own.key, unknown, 6)]);
    for (accepted, duplicates) in [(2, 0), (0, 2)] {
        record(&world, &events, accepted, duplicates).await;
        check_standing(&world, &own.key, 11, 0).await;
        check_standing(&world, &other.key, 0, 60).await;
    }
    assert_eq!(stats(&world, &own).await["units"], 11);
    let settled = settle(&world, &theirs, "commit", json!({})).await.expect(200);
    assert_eq!((&settled["units"], &settled["duplicate"]), (&json!(60), &json!(false)));
}

async fn units_over_time_agree_with_what_is_used(store: Store) {
    let mut world = World::start(store).await;
    let subscription = world.subscribe_hard(10_000).await;
    let key = &subscription.key;
    for round in 1..=12_u64 {
        let id = reserve(&world, key, 20).await;
        match round % 4 {
            0 => settle(&world, &id, "commit", json!({"units": round})).await.expect(200),
            1 => settle(&world, &id, "release", json!({})).await.expect(200),
            2 => world.record(&json!([event_for(key, &id, round), event(key)])).await,
            _ => {
                settle(&world, &id, "commit", json!({})).await.expect(200);
                world.record(&event_for(key, &id, round)).await
            }
        };
    }
    // Commits of 4, 8, 12 and three of 20; events of 2, 6, 10 and three of one unit.
    let used = 4 + 8 + 12 + 3 * 20 + 2 + 6 + 10 + 3;
    check_standing(&world, key, used, 0).await;
    assert_eq!(stats(&world, &subscription).await["units"], used);
    world.node.kill9();
    world.node.restart().await;
    assert_eq!(world.peek(key).await["used"], used, "counted again from the ledger");
    assert_eq!(stats(&world, &subscription).await["units"], used);
}
