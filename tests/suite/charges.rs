//! Overage that is charged, periods that close, and what comes after.

use futures::future::join_all;
use harness::{Store, Subscription, World, event, event_at, on_both_stores, rfc3339};
use http::Method;
use serde_json::{Value, json};

on_both_stores!(
    overage_is_charged_at_the_plans_rate_and_once,
    a_charge_tells_what_it_is_for,
    each_run_charges_what_grew_since_the_last_one,
    a_lower_volume_price_gives_back_what_is_too_much,
    a_limit_raised_within_a_period_takes_no_overage_back,
    a_limit_lowered_within_a_period_makes_no_overage,
    each_unit_costs_what_it_did_when_it_was_used,
    a_plan_left_and_deleted_is_still_priced,
    a_late_event_rates_its_period_anew_until_it_closes,
    an_event_after_the_close_is_a_correction_on_the_open_period,
    an_event_told_twice_over_a_boundary_counts_once_in_its_own_period,
    a_closed_period_prorates_the_fees_of_its_plans,
    what_checks_charge_is_charged_too,
    a_node_that_dies_between_charges_nothing_twice,
    runs_at_the_same_time_charge_once,
    periods_are_listed_page_by_page_latest_first,
    charges_are_shown_within_a_tokens_reach,
    a_currency_never_changes,
    a_timer_runs_both_jobs,
    jobs_are_for_admins_and_each_run_is_noted,
);

const DAY: i64 = 86_400;

/// A plan of 100 requests a calendar month, or another period, with this price.
fn plan(every: &str, enforcement: &str, overage: &Value) -> Value {
    let quota =
        json!({"limit": 100, "every": every, "anchor": "calendar", "enforcement": enforcement});
    json!({"name": "p", "currency": "USD", "quota": quota, "overage": overage})
}

fn per_unit(price: &str) -> Value {
    json!({"model": "per_unit", "unitPrice": price})
}

/// A subscription that began long ago, so that late events lie in it.
async fn subscribe(world: &World, plan: Value) -> Subscription {
    let plan = world.plan(plan).await;
    let began = rfc3339(-20 * DAY);
    let fields = json!({"startedAt": began, "userEmail": "ada@example.com", "apiId": "search"});
    world.subscribe_with(&plan, fields).await
}

/// Reports so many units in one event.
async fn use_units(world: &World, subscription: &Subscription, units: u64) {
    let mut event = event(&subscription.key);
    event["units"] = json!(units);
    world.record(&event).await;
}

/// The same so many seconds ago.
async fn use_earlier(world: &World, subscription: &Subscription, ago: i64, units: u64) {
    let mut event = event_at(&subscription.key, &rfc3339(-ago));
    event["units"] = json!(units);
    world.record(&event).await;
}

/// Waits until the store has the terms that the first units were used under.
async fn first_checkpoint(world: &World) {
    harness::eventually("the first checkpoint", std::time::Duration::from_secs(20), || async {
        let text = world.admin().get("/metrics").await.text();
        let rows = text.lines().find_map(|line| line.strip_prefix("weir_checkpoint_rows_total "));
        if rows.is_some_and(|rows| rows != "0") { Ok(()) } else { Err(text) }
    })
    .await;
}

async fn run(world: &World, job: &str) -> Value {
    world.admin().post(&format!("/api/v1/jobs/{job}/run"), &json!({})).await.expect(200)
}

/// Charges of a subscription, oldest first.
async fn charges(world: &World, subscription: &Subscription) -> Vec<Value> {
    let path = format!("/api/v1/charges?subscriptionId={}", subscription.id);
    let page = world.admin().get(&path).await.expect(200);
    let mut all = page["data"].as_array().expect("a page has data").clone();
    all.reverse();
    all
}

fn amounts(charges: &[Value]) -> Vec<&str> {
    charges.iter().map(|charge| charge["amount"].as_str().expect("an amount")).collect()
}

async fn periods(world: &World, subscription: &Subscription) -> Vec<Value> {
    let path = format!("/api/v1/subscriptions/{}/periods", subscription.id);
    let page = world.dashboard().get(&path).await.expect(200);
    page["data"].as_array().expect("a page has data").clone()
}

async fn with_status(world: &World, subscription: &Subscription, status: &str) -> Value {
    let all = periods(world, subscription).await;
    let found: Vec<&Value> = all.iter().filter(|period| period["status"] == status).collect();
    assert_eq!(found.len(), 1, "{status}: {all:?}");
    found[0].clone()
}

async fn overage_is_charged_at_the_plans_rate_and_once(store: Store) {
    let world = World::start(store).await;
    let price = per_unit("0.02");
    let capped = json!({"model": "per_unit", "unitPrice": "0.02", "cap": "5.00"});
    // (enforcement, hard cap, price, used, charges)
    let stories: [(&str, Value, &Value, u64, &[&str]); 10] = [
        ("soft", json!(null), &price, 99, &[]),
        ("soft", json!(null), &price, 100, &[]),
        ("soft", json!(null), &price, 110, &["0.20"]),
        ("soft", json!(null), &price, 150, &["1.00"]),
        ("soft", json!(null), &price, 1_100, &["20.00"]),
        ("soft", json!(null), &capped, 350, &["5.00"]),
        ("soft", json!(null), &capped, 1_100, &["5.00"]),
        // Checks would have stopped at 120; what is recorded all the same costs like the rest.
        ("soft", json!(120), &price, 150, &["1.00"]),
        ("hard", json!(null), &price, 100, &[]),
        ("hard", json!(null), &price, 150, &[]),
    ];
    let mut made = Vec::new();
    for (enforcement, hard_cap, price, used, expected) in &stories {
        let mut plan = plan("P1M", enforcement, price);
        if !hard_cap.is_null() {
            plan["quota"]["hardCap"] = hard_cap.clone();
        }
        let subscription = subscribe(&world, plan).await;
        use_units(&world, &subscription, *used).await;
        made.push((subscription, *expected, format!("{used} {enforcement} {price}")));
    }
    let report = run(&world, "overage").await;
    assert_eq!((&report["job"], &report["status"]), (&json!("overage"), &json!("done")));
    let told = (&report["charges"], &report["subscriptions"], &report["failed"]);
    assert_eq!(told, (&json!(6), &json!(10), &json!(0)), "{report}");
    assert_eq!(report["charged"], json!({"USD": "32.20"}), "{report}");
    let again = run(&world, "overage").await;
    assert_eq!((&again["charges"], &again["charged"]), (&json!(0), &json!({})), "{again}");
    for (subscription, expected, story) in &made {
        let charges = charges(&world, subscription).await;
        assert_eq!(amounts(&charges), *expected, "{story}");
        let live = format!("/api/v1/subscriptions/{}/usage", subscription.id);
        let live = world.dashboard().get(&live).await.expect(200);
        let open = with_status(&world, subscription, "open").await;
        assert_eq!(open["overageUnits"], live["overageUnits"], "{story}: {open} {live}");
        let amount = expected.first().copied().unwrap_or("0.00");
        assert_eq!((&open["amount"], &open["used"]), (&json!(amount), &live["used"]), "{story}");
    }
}

async fn a_charge_tells_what_it_is_for(store: Store) {
    let world = World::start(store).await;
    let subscription = subscribe(&world, plan("P1M", "soft", &per_unit("0.02"))).await;
    use_units(&world, &subscription, 150).await;
    run(&world, "overage").await;
    let open = with_status(&world, &subscription, "open").await;
    let charge = charges(&world, &subscription).await.remove(0);
    let text = |field: &str| charge[field].as_str().unwrap_or_default().to_owned();
    assert_eq!(charge["period"], json!({"start": open["start"], "end": open["end"]}), "{charge}");
    let told = (&charge["kind"], &charge["number"], &charge["units"], &charge["corrects"]);
    assert_eq!(told, (&json!("overage"), &json!(1), &json!(50), &json!(null)), "{charge}");
    assert_eq!((text("currency"), text("quota")), ("USD".to_owned(), "requests".to_owned()));
    let start = open["id"].as_str().expect("an id").split_once('.').expect("a start").0.to_owned();
    let key = format!("overage/{}/requests/{start}/1", subscription.id);
    assert_eq!(text("idempotencyKey"), key);
    assert!(text("description").contains("requests"), "{charge}");
    let line = json!([{"tier": 1, "units": 50, "unitPrice": "0.02", "amount": "1.00",
        "planId": open["planId"], "planVersion": 1}]);
    assert_eq!(open["lines"], line, "{open}");
}

async fn each_run_charges_what_grew_since_the_last_one(store: Store) {
    let world = World::start(store).await;
    let subscription = subscribe(&world, plan("P1M", "soft", &per_unit("0.013"))).await;
    // (units more, what the run charges)
    for (more, expected) in [(80, None), (21, Some("0.01")), (49, Some("0.64")), (0, None)] {
        if more > 0 {
            use_units(&world, &subscription, more).await;
        }
        let report = run(&world, "overage").await;
        let expected = expected.map_or(json!({}), |amount| json!({"USD": amount}));
        assert_eq!(report["charged"], expected, "{more} more: {report}");
    }
    let all = charges(&world, &subscription).await;
    let numbers: Vec<_> = all.iter().map(|charge| charge["number"].clone()).collect();
    assert_eq!(numbers, [1, 2]);
}

async fn a_lower_volume_price_gives_back_what_is_too_much(store: Store) {
    let world = World::start(store).await;
    let tiers = json!([{"upTo": 10, "unitPrice": "1"}, {"unitPrice": "0.10"}]);
    let price = json!({"model": "volume", "tiers": tiers});
    let subscription = subscribe(&world, plan("P1M", "soft", &price)).await;
    for (more, expected) in [(110, "10.00"), (1, "-8.90"), (89, "8.90")] {
        use_units(&world, &subscription, more).await;
        let report = run(&world, "overage").await;
        assert_eq!(report["charged"], json!({"USD": expected}), "{report}");
    }
    // What is taken back by hand is given back.
    let path = format!("/api/v1/subscriptions/{}/adjustments", subscription.id);
    let body = json!({"units": -90, "reason": "a mistake", "idempotencyKey": "m"});
    world.admin().post(&path, &body).await.expect(200);
    let report = run(&world, "overage").await;
    // Ten are over again, at a dollar each, as much as a hundred cost in bulk.
    assert_eq!(report["charges"], 0, "{report}");
    let open = with_status(&world, &subscription, "open").await;
    assert_eq!((&open["used"], &open["amount"]), (&json!(110), &json!("10.00")), "{open}");
}

async fn put(world: &World, plan: &str, body: &Value) {
    let path = format!("/api/v1/plans/{plan}");
    world.admin().json(Method::PUT, &path, body).await.expect(200);
}

async fn a_limit_raised_within_a_period_takes_no_overage_back(store: Store) {
    let world = World::start(store).await;
    let id = world.plan(plan("P1M", "soft", &per_unit("0.02"))).await;
    let subscription = world.subscribe(&id).await;
    use_units(&world, &subscription, 150).await;
    first_checkpoint(&world).await;
    let mut raised = plan("P1M", "soft", &per_unit("0.02"));
    raised["quota"]["limit"] = json!(200);
    put(&world, &id, &raised).await;
    let check = async |used: u64, overage: u64, amount: &str| {
        let open = with_status(&world, &subscription, "open").await;
        let live = format!("/api/v1/subscriptions/{}/usage", subscription.id);
        let live = world.dashboard().get(&live).await.expect(200);
        let told = (&open["used"], &open["overageUnits"], &live["overageUnits"], &open["amount"]);
        let expected = (&json!(used), &json!(overage), &json!(overage), &json!(amount));
        assert_eq!(told, expected, "{open} {live}");
    };
    check(150, 50, "1.00").await;
    // 100 were free under the old limit, 100 more are under the new one.
    use_units(&world, &subscription, 100).await;
    check(250, 50, "1.00").await;
    use_units(&world, &subscription, 7).await;
    check(257, 57, "1.14").await;
    let report = run(&world, "overage").await;
    assert_eq!(report["charged"], json!({"USD": "1.14"}), "{report}");
}

async fn a_limit_lowered_within_a_period_makes_no_overage(store: Store) {
    let world = World::start(store).await;
    let subscription = subscribe(&world, plan("P1M", "soft", &per_unit("0.02"))).await;
    use_units(&world, &subscription, 90).await;
    first_checkpoint(&world).await;
    let path = format!("/api/v1/subscriptions/{}", subscription.id);
    let lowered = json!({"limits": {"requests": 50}});
    world.admin().json(Method::PATCH, &path, &lowered).await.expect(200);
    let report = run(&world, "overage").await;
    assert_eq!(report["charges"], 0, "{report}");
    use_units(&world, &subscription, 5).await;
    let report = run(&world, "overage").await;
    assert_eq!(report["charged"], json!({"USD": "0.10"}), "five more: {report}");
}

async fn each_unit_costs_what_it_did_when_it_was_used(store: Store) {
    let world = World::start(store).await;
    let id = world.plan(plan("P1M", "soft", &per_unit("0.02"))).await;
    let subscription = world.subscribe(&id).await;
    use_units(&world, &subscription, 150).await;
    first_checkpoint(&world).await;
    put(&world, &id, &plan("P1M", "soft", &per_unit("0.10"))).await;
    use_units(&world, &subscription, 10).await;
    let open = with_status(&world, &subscription, "open").await;
    assert_eq!(open["amount"], "2.00", "{open}");
    let lines = open["lines"].as_array().expect("lines").iter();
    let lines: Vec<_> =
        lines.map(|line| (line["planVersion"].clone(), line["amount"].clone())).collect();
    assert_eq!(lines, [(json!(1), json!("1.00")), (json!(2), json!("1.00"))], "{open}");
    let report = run(&world, "overage").await;
    assert_eq!(report["charged"], json!({"USD": "2.00"}), "{report}");
}

async fn a_plan_left_and_deleted_is_still_priced(store: Store) {
    let mut world = World::start(store).await;
    let old = world.plan(plan("P1M", "soft", &per_unit("0.02"))).await;
    let new = world.plan(plan("P1M", "soft", &per_unit("0.10"))).await;
    let subscription = world.subscribe(&old).await;
    use_units(&world, &subscription, 150).await;
    first_checkpoint(&world).await;
    let path = format!("/api/v1/subscriptions/{}", subscription.id);
    let moved = json!({"planId": new, "effective": "now"});
    world.admin().json(Method::PATCH, &path, &moved).await.expect(200);
    use_units(&world, &subscription, 10).await;
    let gone = world.admin().delete(&format!("/api/v1/plans/{old}")).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    world.node.kill9();
    world.node.restart().await;
    let report = run(&world, "overage").await;
    assert_eq!(report["charged"], json!({"USD": "2.00"}), "{report}");
    assert_eq!(report["failed"], 0, "{report}");
}

async fn a_late_event_rates_its_period_anew_until_it_closes(store: Store) {
    let world = World::start_with(store, &[("WEIR_BILLING__GRACE", "26h")]).await;
    let subscription = subscribe(&world, plan("P1D", "soft", &per_unit("0.02"))).await;
    use_earlier(&world, &subscription, DAY, 150).await;
    assert_eq!(run(&world, "overage").await["charged"], json!({"USD": "1.00"}));
    let report = run(&world, "rollover").await;
    assert_eq!((&report["closed"], &report["charges"]), (&json!(0), &json!(0)), "{report}");
    use_earlier(&world, &subscription, DAY, 5).await;
    let period = with_status(&world, &subscription, "grace").await;
    let told = (&period["used"], &period["amount"], &period["usageSnapshot"]);
    assert_eq!(told, (&json!(155), &json!("1.10"), &json!(null)), "{period}");
    assert_eq!(run(&world, "overage").await["charged"], json!({"USD": "0.10"}));
    let path = period["id"].as_str().expect("an id");
    let path = format!("/api/v1/subscriptions/{}/periods/{path}", subscription.id);
    assert_eq!(world.admin().get(&path).await.expect(200), period);
    let none = format!("/api/v1/subscriptions/{}/periods/1.requests", subscription.id);
    world.admin().get(&none).await.expect_problem(404, "not_found");
}

async fn an_event_after_the_close_is_a_correction_on_the_open_period(store: Store) {
    let world = World::start(store).await;
    let subscription = subscribe(&world, plan("P1D", "soft", &per_unit("0.02"))).await;
    use_earlier(&world, &subscription, 3 * DAY, 150).await;
    // Never charged before: the close charges the whole.
    let report = run(&world, "rollover").await;
    let told = (&report["closed"], &report["charges"], &report["charged"]);
    assert_eq!(told, (&json!(1), &json!(1), &json!({"USD": "1.00"})), "{report}");
    let closed = with_status(&world, &subscription, "closed").await;
    let snapshot = &closed["usageSnapshot"];
    let told = (&snapshot["used"], &snapshot["overageUnits"], &snapshot["amount"]);
    assert_eq!(told, (&json!(150), &json!(50), &json!("1.00")), "{closed}");
    let again = run(&world, "rollover").await;
    assert_eq!((&again["closed"], &again["charges"]), (&json!(0), &json!(0)), "once: {again}");

    use_earlier(&world, &subscription, 3 * DAY, 10).await;
    let report = run(&world, "overage").await;
    assert_eq!(report["charges"], 0, "what is closed is not charged: {report}");
    let report = run(&world, "rollover").await;
    let told = (&report["corrections"], &report["charged"]);
    assert_eq!(told, (&json!(1), &json!({"USD": "0.20"})), "{report}");
    assert_eq!(run(&world, "rollover").await["charges"], 0, "once");
    let correction = charges(&world, &subscription).await.pop().expect("two charges");
    let bounds = |period: &Value| json!({"start": period["start"], "end": period["end"]});
    let open = with_status(&world, &subscription, "open").await;
    let told = (&correction["kind"], &correction["units"], &correction["period"]);
    assert_eq!(told, (&json!("correction"), &json!(10), &bounds(&open)), "{correction}");
    assert_eq!(correction["corrects"], bounds(&closed), "{correction}");
    let after = with_status(&world, &subscription, "closed").await;
    let told = (&after["used"], &after["amount"], &after["usageSnapshot"]);
    assert_eq!(told, (&json!(150), &json!("1.00"), snapshot), "its amount stands: {after}");
    for period in [&open, &after] {
        assert_eq!(period["adjustments"], json!([correction]), "{period}");
    }
}

async fn an_event_told_twice_over_a_boundary_counts_once_in_its_own_period(store: Store) {
    let world = World::start(store).await;
    let subscription = subscribe(&world, plan("P1D", "soft", &per_unit("1"))).await;
    let mut event = event_at(&subscription.key, &rfc3339(-3 * DAY));
    event["units"] = json!(101);
    world.record(&event).await;
    run(&world, "rollover").await;
    // The same again after its period is closed, and as if it were of today.
    let answer = world.record(&event).await;
    assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(0), &json!(1)), "{answer}");
    event["timestamp"] = json!(rfc3339(0));
    world.record(&event).await;
    run(&world, "overage").await;
    run(&world, "rollover").await;
    assert_eq!(amounts(&charges(&world, &subscription).await), ["1.00"]);
    assert_eq!(with_status(&world, &subscription, "open").await["used"], 0);
}

async fn a_closed_period_prorates_the_fees_of_its_plans(store: Store) {
    let world = World::start(store).await;
    let mut fields = plan("P1D", "soft", &per_unit("0.02"));
    fields["baseFee"] = json!("10.00");
    let subscription = subscribe(&world, fields).await;
    use_earlier(&world, &subscription, 3 * DAY, 150).await;
    run(&world, "rollover").await;
    let closed = with_status(&world, &subscription, "closed").await;
    let snapshot = &closed["usageSnapshot"];
    let told = (&snapshot["baseFee"], &snapshot["total"]);
    assert_eq!(told, (&json!("10.00"), &json!("11.00")), "{closed}");
    assert_eq!(snapshot["baseFees"].as_array().map(Vec::len), Some(1), "{closed}");
}

async fn what_checks_charge_is_charged_too(store: Store) {
    let world = World::start(store).await;
    let mut fields = plan("P1M", "soft", &per_unit("0.02"));
    fields["chargeOn"] = json!("check");
    let subscription = subscribe(&world, fields).await;
    let decision = world.check_with(&subscription.key, "cost=150").await;
    assert_eq!((&decision["allowed"], &decision["overage"]), (&json!(true), &json!(true)));
    let path = "/api/v1/jobs/overage/run";
    harness::eventually("the checkpoint", std::time::Duration::from_secs(20), || async {
        let report = world.admin().post(path, &json!({})).await.expect(200);
        let charges = charges(&world, &subscription).await;
        if charges.is_empty() { Err(report.to_string()) } else { Ok(()) }
    })
    .await;
    assert_eq!(amounts(&charges(&world, &subscription).await), ["1.00"]);
}

async fn a_node_that_dies_between_charges_nothing_twice(store: Store) {
    let mut world = World::start(store).await;
    let subscription = subscribe(&world, plan("P1M", "soft", &per_unit("0.02"))).await;
    let late = subscribe(&world, plan("P1D", "soft", &per_unit("0.02"))).await;
    use_units(&world, &subscription, 150).await;
    use_earlier(&world, &late, 3 * DAY, 150).await;
    for _ in 0..2 {
        world.node.kill9();
        world.node.restart().await;
        run(&world, "overage").await;
        world.node.kill9();
        world.node.restart().await;
        run(&world, "rollover").await;
    }
    for subscription in [&subscription, &late] {
        assert_eq!(amounts(&charges(&world, subscription).await), ["1.00"]);
    }
    assert_eq!(with_status(&world, &late, "closed").await["usageSnapshot"]["used"], 150);
    assert_eq!(with_status(&world, &subscription, "open").await["used"], 150);
}

async fn runs_at_the_same_time_charge_once(store: Store) {
    let world = World::start(store).await;
    let mut all = Vec::new();
    let id = world.plan(plan("P1M", "soft", &per_unit("0.02"))).await;
    for _ in 0..8 {
        let subscription = world.subscribe(&id).await;
        use_units(&world, &subscription, 150).await;
        all.push(subscription);
    }
    let reports = join_all((0..6).map(|turn| {
        let job = if turn % 2 == 0 { "overage" } else { "rollover" };
        run(&world, job)
    }))
    .await;
    let written: u64 = reports.iter().filter_map(|report| report["charges"].as_u64()).sum();
    assert_eq!(written, 8, "{reports:?}");
    for subscription in &all {
        assert_eq!(amounts(&charges(&world, subscription).await), ["1.00"]);
    }
}

async fn periods_are_listed_page_by_page_latest_first(store: Store) {
    let world = World::start(store).await;
    let subscription = subscribe(&world, plan("P1D", "soft", &per_unit("0.02"))).await;
    for days in [0, 3, 5, 4] {
        use_earlier(&world, &subscription, days * DAY, 101).await;
    }
    run(&world, "rollover").await;
    use_earlier(&world, &subscription, 6 * DAY, 1).await;
    let whole = periods(&world, &subscription).await;
    let told = |period: &Value| (period["status"].clone(), period["used"].clone());
    let states: Vec<_> = whole.iter().map(told).collect();
    let expected = [("open", 101), ("closed", 101), ("closed", 101), ("closed", 101), ("grace", 1)];
    assert_eq!(states, expected.map(|(status, used)| (json!(status), json!(used))), "{whole:?}");
    let starts: Vec<_> = whole.iter().map(|period| period["start"].to_string()).collect();
    assert!(starts.is_sorted_by(|a, b| a > b), "{starts:?}");
    for limit in [1, 2, 3, 5] {
        let mut paged = Vec::new();
        let mut cursor = String::new();
        for _ in 0..10 {
            let path =
                format!("/api/v1/subscriptions/{}/periods?limit={limit}{cursor}", subscription.id);
            let page = world.admin().get(&path).await.expect(200);
            paged.extend(page["data"].as_array().expect("data").iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(paged, whole, "by {limit}");
    }
}

async fn charges_are_shown_within_a_tokens_reach(store: Store) {
    let world = World::start(store).await;
    let id = world.plan(plan("P1M", "soft", &per_unit("0.02"))).await;
    let blue = world.subscribe_with(&id, json!({"tenant": "blue"})).await;
    let red = world.subscribe_with(&id, json!({"tenant": "red"})).await;
    for subscription in [&blue, &red] {
        use_units(&world, subscription, 150).await;
    }
    run(&world, "overage").await;
    let token = world.token(&json!({"name": "t", "scope": "admin", "tenant": "blue"})).await;
    let limited = world.admin().with_token(&token);
    let owners = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().expect("data").iter();
        data.map(|charge| charge["subscriptionId"].as_str().unwrap_or("?").to_owned()).collect()
    };
    let all = world.admin().get("/api/v1/charges").await.expect(200);
    assert_eq!(owners(&all).len(), 2, "{all}");
    let own = limited.get("/api/v1/charges").await.expect(200);
    assert_eq!(owners(&own), std::slice::from_ref(&blue.id), "{own}");
    let other = format!("/api/v1/charges?subscriptionId={}", red.id);
    assert_eq!(owners(&limited.get(&other).await.expect(200)), [] as [String; 0]);
    let path = format!("/api/v1/subscriptions/{}/periods", red.id);
    limited.get(&path).await.expect_problem(404, "not_found");
    let first = world.admin().get("/api/v1/charges?limit=1").await.expect(200);
    let cursor = first["nextCursor"].as_str().expect("one more");
    let second = world.admin().get(&format!("/api/v1/charges?cursor={cursor}")).await.expect(200);
    assert_eq!([owners(&first), owners(&second)].concat(), owners(&all));
    let none = world.admin().get("/api/v1/charges?kind=correction").await.expect(200);
    assert_eq!(owners(&none), [] as [String; 0]);
    for query in ["kind=fee", "subscriptionId=x", "limit=0", "colour=red"] {
        let answer = world.admin().get(&format!("/api/v1/charges?{query}")).await;
        answer.expect_problem(400, "invalid_parameter");
    }
    world.gateway().get("/api/v1/charges").await.expect_problem(403, "wrong_scope");
}

async fn a_currency_never_changes(store: Store) {
    let world = World::start(store).await;
    let in_euro = |mut plan: Value| {
        plan["currency"] = json!("EUR");
        plan
    };
    let dollars = plan("P1M", "soft", &per_unit("0.02"));
    let id = world.plan(dollars.clone()).await;
    let path = format!("/api/v1/plans/{id}");
    let answer = world.admin().json(Method::PUT, &path, &in_euro(dollars.clone())).await;
    let problem = answer.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["code"], "immutable", "{problem}");
    let other = world.plan(in_euro(dollars)).await;
    let subscription = world.subscribe(&id).await;
    let path = format!("/api/v1/subscriptions/{}", subscription.id);
    for effective in ["now", "period_end"] {
        let moved = json!({"planId": other, "effective": effective});
        let answer = world.admin().json(Method::PATCH, &path, &moved).await;
        let problem = answer.expect_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "currency_mismatch", "{problem}");
    }
}

async fn a_timer_runs_both_jobs(store: Store) {
    let environment =
        [("WEIR_BILLING__OVERAGE_EVERY", "1s"), ("WEIR_BILLING__ROLLOVER_EVERY", "1s")];
    let world = World::start_with(store, &environment).await;
    let subscription = subscribe(&world, plan("P1D", "soft", &per_unit("0.02"))).await;
    use_units(&world, &subscription, 150).await;
    use_earlier(&world, &subscription, 3 * DAY, 110).await;
    harness::eventually("the timers", std::time::Duration::from_secs(30), || async {
        let states: Vec<_> = periods(&world, &subscription)
            .await
            .iter()
            .map(|period| period["status"].clone())
            .collect();
        let charges = charges(&world, &subscription).await;
        if states == ["open", "closed"] && charges.len() == 2 {
            Ok(())
        } else {
            Err(format!("{states:?} {charges:?}"))
        }
    })
    .await;
}

async fn jobs_are_for_admins_and_each_run_is_noted(store: Store) {
    let world = World::start(store).await;
    let token = world.token(&json!({"name": "t", "scope": "admin", "tenant": "blue"})).await;
    let limited = world.admin().with_token(&token);
    for job in ["overage", "rollover", "retention"] {
        let path = format!("/api/v1/jobs/{job}/run");
        world.gateway().post(&path, &json!({})).await.expect_problem(403, "wrong_scope");
        limited.post(&path, &json!({})).await.expect_problem(403, "tenant_limited");
        world.node.anonymous().post(&path, &json!({})).await.expect_problem(401, "unauthorized");
        let report = run(&world, job).await;
        assert_eq!((&report["job"], &report["status"]), (&json!(job), &json!("done")), "{report}");
    }
    world.admin().post("/api/v1/jobs/x/run", &json!({})).await.expect_problem(404, "not_found");
    let audit = world.admin().get("/api/v1/audit?limit=3").await.expect(200);
    let noted: Vec<_> = audit["data"]
        .as_array()
        .expect("data")
        .iter()
        .rev()
        .map(|entry| (entry["action"].clone(), entry["targetId"].clone()))
        .collect();
    let expected = ["overage", "rollover", "retention"].map(|job| (json!("job.run"), json!(job)));
    assert_eq!(noted, expected, "{audit}");
}
