//! What becomes of a webhook at receivers of every kind.

use harness::{Receiver, Reply, Store, on_both_stores};
use http::Method;
use serde_json::{Value, json};

use super::{OLD_SECRET, SECRET, await_status, notifications, spend, thresholds, warned, world};

on_both_stores!(
    one_batch_over_three_thresholds_is_told_in_order_signed_and_in_the_agreed_form,
    a_receiver_that_fails_four_times_has_it_at_the_fifth,
    a_receiver_that_is_down_ends_in_a_dead_letter_that_can_be_sent_again,
    a_redirect_is_not_followed,
    a_receiver_that_is_gone_for_good_is_asked_once,
    a_private_address_is_never_called,
    while_a_secret_is_replaced_receivers_with_either_believe,
    without_a_secret_nothing_is_sent_and_it_says_why,
    a_slow_receiver_holds_up_nobody_else,
    a_failed_warning_keeps_its_place_before_the_next,
);

async fn one_batch_over_three_thresholds_is_told_in_order_signed_and_in_the_agreed_form(
    store: Store,
) {
    let world = world(store, &[]).await;
    let receiver = Receiver::start().await;
    let fields = json!({"webhookUrl": receiver.url(), "userEmail": "ada@example.com",
                        "apiId": "search"});
    let subscription = warned(&world, &[80, 90, 100], fields).await;
    spend(&world, &subscription, 79).await;
    world.await_used(&subscription.key, 79).await;
    spend(&world, &subscription, 22).await;
    let arrived = receiver.wait_for(3).await;
    assert_eq!(thresholds(&arrived), [80, 90, 100], "79 % told nobody, and then in order");
    for webhook in &arrived {
        assert_eq!(webhook.path, "/hook?customer=7");
        assert_eq!(webhook.header("content-type"), "application/json");
        assert!(webhook.is_signed_with(SECRET), "{webhook:?}");
        assert!(!webhook.is_signed_with(OLD_SECRET));
        let body = webhook.json();
        let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["data", "timestamp", "type"]);
        assert_eq!(body["type"], "quota_warning");
        assert!(body["timestamp"].as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')));
        let data = &body["data"];
        assert_eq!(data["subscriptionId"], subscription.id.as_str());
        assert_eq!(data["userEmail"], "ada@example.com");
        assert_eq!(data["apiId"], "search");
        assert_eq!((&data["used"], &data["limit"]), (&json!(101), &json!(100)));
        assert_eq!((&data["remaining"], &data["usagePercentage"]), (&json!(0), &json!(101.0)));
        assert!(data["periodStart"].is_string() && data["resetAt"].is_string(), "{data}");
    }
    let told = await_status(&world, &subscription, 3, "delivered").await;
    let ids: Vec<_> = told.iter().rev().map(|one| one["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, arrived.iter().map(harness::Received::id).collect::<Vec<_>>());
    assert!(told.iter().all(|one| one["attempts"] == 1), "{told:?}");
    assert_eq!(receiver.received().len(), 3, "each once");
}

async fn a_receiver_that_fails_four_times_has_it_at_the_fifth(store: Store) {
    let world = world(store, &[]).await;
    let receiver =
        Receiver::answering(|number| Reply::Status(if number < 4 { 500 } else { 200 })).await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    let told = await_status(&world, &subscription, 1, "delivered").await;
    assert_eq!(told[0]["attempts"], 5);
    let arrived = receiver.received();
    assert_eq!(arrived.len(), 5);
    for webhook in &arrived {
        assert_eq!(Some(webhook.id()), told[0]["id"].as_str(), "every attempt has the same id");
        assert_eq!(webhook.body, arrived[0].body, "and the same body");
        assert!(webhook.is_signed_with(SECRET));
    }
}

/// A port that nobody listens at: one that was free a moment ago.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

async fn a_receiver_that_is_down_ends_in_a_dead_letter_that_can_be_sent_again(store: Store) {
    let world = world(store, &[]).await;
    let url = format!("http://127.0.0.1:{}/hook", closed_port());
    let subscription = warned(&world, &[80], json!({"webhookUrl": url})).await;
    spend(&world, &subscription, 80).await;
    let dead = &await_status(&world, &subscription, 1, "dead").await[0];
    assert_eq!(dead["attempts"], 5, "{dead}");
    assert_eq!(dead["deliveries"][0]["channel"], "webhook");
    let error = dead["lastError"].as_str().expect("it says why");
    assert!(error.contains("connect"), "{error}");

    // The receiver is elsewhere by now: what is sent again goes there.
    let receiver = Receiver::start().await;
    let path = format!("/api/v1/subscriptions/{}", subscription.id);
    let change = json!({"webhookUrl": receiver.url()});
    world.admin().json(Method::PATCH, &path, &change).await.expect(200);
    let id = dead["id"].as_str().expect("an id");
    let path = format!("/api/v1/notifications/{id}/redeliver");
    let again = world.admin().post(&path, &json!({})).await.expect(200);
    assert_eq!((&again["status"], &again["attempts"]), (&json!("pending"), &json!(0)));
    let arrived = receiver.wait_for(1).await;
    assert_eq!(arrived[0].id(), id);
    let told = &await_status(&world, &subscription, 1, "delivered").await[0];
    assert_eq!((&told["attempts"], &told["lastError"]), (&json!(1), &Value::Null), "{told}");
}

async fn a_redirect_is_not_followed(store: Store) {
    let world = world(store, &[("WEIR_DELIVERY__ATTEMPTS_MAX", "2")]).await;
    let elsewhere = Receiver::start().await;
    let url = elsewhere.url();
    let receiver = Receiver::answering(move |_| Reply::Redirect(url.clone())).await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    let dead = &await_status(&world, &subscription, 1, "dead").await[0];
    assert_eq!(dead["attempts"], 2);
    let error = dead["lastError"].as_str().expect("it says why");
    assert!(error.contains("302") && error.contains("redirect"), "{error}");
    assert_eq!((receiver.received().len(), elsewhere.received().len()), (2, 0));
}

async fn a_receiver_that_is_gone_for_good_is_asked_once(store: Store) {
    let world = world(store, &[]).await;
    let receiver = Receiver::answering(|_| Reply::Status(410)).await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    let dead = &await_status(&world, &subscription, 1, "dead").await[0];
    assert_eq!(dead["attempts"], 1);
    assert!(dead["lastError"].as_str().is_some_and(|error| error.contains("410")), "{dead}");
    assert_eq!(receiver.received().len(), 1);
}

async fn a_private_address_is_never_called(store: Store) {
    // Another network is allowed, so the list is looked at.
    let world = world(store, &[("WEIR_DELIVERY__ALLOW", "10.9.8.0/24")]).await;
    let receiver = Receiver::start().await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let url = format!("http://{host}:{}/hook", receiver.port());
        let subscription = warned(&world, &[80], json!({"webhookUrl": url})).await;
        spend(&world, &subscription, 80).await;
        let dead = &await_status(&world, &subscription, 1, "dead").await[0];
        assert_eq!(dead["attempts"], 1, "{host} does not become public: {dead}");
        let error = dead["lastError"].as_str().expect("it says why");
        assert!(error.contains("not public"), "{host}: {error}");
    }
    assert!(receiver.received().is_empty());
}

async fn while_a_secret_is_replaced_receivers_with_either_believe(store: Store) {
    let world = world(store, &[("WEIR_DELIVERY__WEBHOOK_SECRET_OLD", OLD_SECRET)]).await;
    let receiver = Receiver::start().await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    let webhook = &receiver.wait_for(1).await[0];
    assert!(webhook.is_signed_with(SECRET) && webhook.is_signed_with(OLD_SECRET));
    let signatures: Vec<_> = webhook.header("webhook-signature").split(' ').collect();
    assert_eq!(signatures.len(), 2);
    assert!(signatures.iter().all(|one| one.starts_with("v1,")), "{signatures:?}");
    assert!(!webhook.is_signed_with("whsec_UMDwgFsnkYvOQVEqzSKrSHsTBr0BBvxXWJmxXbPOYYk="));
}

async fn without_a_secret_nothing_is_sent_and_it_says_why(store: Store) {
    let world = harness::World::start_with(
        store,
        &super::QUICK.into_iter().filter(|(name, _)| !name.contains("SECRET")).collect::<Vec<_>>(),
    )
    .await;
    let receiver = Receiver::start().await;
    let subscription = warned(&world, &[80], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    let dead = &await_status(&world, &subscription, 1, "dead").await[0];
    let error = dead["lastError"].as_str().expect("it says why");
    assert!(error.contains("delivery.webhook_secret"), "{error}");
    assert!(receiver.received().is_empty());
}

async fn a_slow_receiver_holds_up_nobody_else(store: Store) {
    // It is silent for longer than the story lasts, and as many as there is room for wait for it.
    let environment = [("WEIR_DELIVERY__TIMEOUT", "60s"), ("WEIR_DELIVERY__CONCURRENCY", "10")];
    let world = world(store, &environment).await;
    let slow = Receiver::answering(|_| Reply::Silence).await;
    let quota = json!({"limit": 100, "every": "P1M", "enforcement": "soft"});
    let plan = world.plan(json!({"quota": quota, "warnAt": [80]})).await;
    for _ in 0..12 {
        let subscription = world.subscribe_with(&plan, json!({"webhookUrl": slow.url()})).await;
        spend(&world, &subscription, 80).await;
    }
    slow.wait_for(4).await;
    let receiver = Receiver::start().await;
    let subscription = world.subscribe_with(&plan, json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 80).await;
    receiver.wait_for(1).await;
    await_status(&world, &subscription, 1, "delivered").await;
    // Four by default, out of the ten that there is room for.
    assert_eq!(slow.received().len(), 4, "one receiver may not have all the room");
}

async fn a_failed_warning_keeps_its_place_before_the_next(store: Store) {
    let world = world(store, &[]).await;
    let receiver =
        Receiver::answering(|number| Reply::Status(if number < 2 { 503 } else { 204 })).await;
    let subscription = warned(&world, &[80, 90, 100], json!({"webhookUrl": receiver.url()})).await;
    spend(&world, &subscription, 101).await;
    await_status(&world, &subscription, 3, "delivered").await;
    assert_eq!(thresholds(&receiver.received()), [80, 80, 80, 90, 100]);
    assert_eq!(notifications(&world, &subscription).await.len(), 3);
}
