//! Named holds: what commit, release and time make of them, a crash in between included.

use std::time::Duration;

use harness::{Answer, Store, World, eventually, on_both_stores};
use serde_json::{Value, json};

on_both_stores!(
    a_commit_charges_what_was_used_once,
    a_release_gives_everything_back_once,
    a_commit_after_expiry_still_charges_and_says_that_it_is_late,
    a_reservation_survives_a_crash,
    unknown_reservations_are_not_found,
);

async fn reserve(world: &World, key: &str, cost: u64) -> String {
    let decision = world.check_with(key, &format!("cost={cost}&reserve=true")).await;
    assert_eq!(decision["allowed"], true, "{decision}");
    decision["reservationId"].as_str().expect("a hold by name was asked for").to_owned()
}

async fn settle(world: &World, id: &str, how: &str, body: Value) -> Answer {
    world.gateway().post(&format!("/api/v1/quota/reservations/{id}/{how}"), &body).await
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
