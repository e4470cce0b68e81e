//! Billing at the edge: what a plan would cost, and where its periods begin and end.

use std::process::Command;

use harness::{Store, World, on_both_stores, run, weir};
use http::Method;
use serde_json::{Value, json};

on_both_stores!(
    a_preview_is_priced_to_the_cent,
    overage_is_priced_beyond_the_limit,
    a_price_model_shows_its_lines_and_they_add_up,
    every_meter_of_a_plan_is_priced_by_its_own_quota,
    a_plan_that_was_read_can_be_previewed_and_nothing_is_made,
    a_bad_preview_is_told_with_the_places_of_all_faults,
    periods_are_previewed_as_the_command_prints_them,
    a_period_is_found_by_a_moment_in_it,
    a_bad_question_about_periods_is_told_with_the_places_of_all_faults,
    only_admins_see_previews,
    the_document_describes_both_previews_as_they_answer,
);

const PLANS: &str = "/api/v1/plans/preview";
const PERIODS: &str = "/api/v1/periods/preview";

/// The price list of the contract.
fn example_tiers() -> Value {
    json!([
        {"upTo": 1000, "unitPrice": "0"}, {"upTo": 10000, "unitPrice": "0.01"},
        {"unitPrice": "0.005"},
    ])
}

/// A monthly plan of 100 requests with this overage.
fn plan(enforcement: &str, overage: &Value) -> Value {
    let quota = json!({"limit": 100, "every": "P1M", "enforcement": enforcement});
    json!({"name": "p", "currency": "USD", "quota": quota, "overage": overage})
}

async fn preview(world: &World, plan: &Value, units: u64) -> Value {
    world.admin().post(PLANS, &json!({"plan": plan, "units": units})).await.expect(200)
}

/// An amount of two places in cents.
fn cents(amount: &Value) -> i64 {
    let text = amount.as_str().unwrap_or_else(|| panic!("{amount} is not a string"));
    assert!(text.rsplit_once('.').is_some_and(|(_, places)| places.len() == 2), "{text}");
    text.replace('.', "").parse().expect("digits")
}

async fn a_preview_is_priced_to_the_cent(store: Store) {
    let world = World::start(store).await;
    let plan = |included: Value, cap: Value, currency: &str| {
        json!({
            "name": "pro", "currency": currency, "baseFee": "30.00",
            "quota": {"limit": 10000, "every": "P1M", "anchor": "calendar", "enforcement": "hard"},
            "overage": {"model": "graduated", "tiers": example_tiers(), "included": included,
                        "cap": cap},
        })
    };
    // (plan, units, overage units, overage, total)
    let stories = [
        (plan(json!(0), json!(null), "USD"), 10_001, 10_001, "90.01", "120.01"),
        (plan(json!(0), json!("50.00"), "USD"), 10_001, 10_001, "50.00", "80.00"),
        (plan(json!(0), json!(null), "USD"), 1_000, 1_000, "0.00", "30.00"),
        (plan(json!(0), json!(null), "USD"), 0, 0, "0.00", "30.00"),
        (plan(json!(10_000), json!(null), "USD"), 12_000, 2_000, "10.00", "40.00"),
        (plan(json!(0), json!(null), "JPY"), 10_001, 10_001, "90", "120"),
        (plan(json!(0), json!(null), "KWD"), 10_001, 10_001, "90.005", "120.005"),
        (
            plan(json!(0), json!(null), "USD"),
            9_007_199_254_740_991_u64,
            9_007_199_254_740_991_u64,
            "45035996273744.96",
            "45035996273774.96",
        ),
    ];
    for (plan, units, overage_units, overage, total) in stories {
        let answer = preview(&world, &plan, units).await;
        let found = (&answer["overageUnits"], &answer["overage"], &answer["total"]);
        let expected = (&json!(overage_units), &json!(overage), &json!(total));
        assert_eq!(found, expected, "{units} on {plan}: {answer}");
    }
}

async fn overage_is_priced_beyond_the_limit(store: Store) {
    let world = World::start(store).await;
    let price = json!({"model": "per_unit", "unitPrice": "0.02"});
    let capped = json!({"model": "per_unit", "unitPrice": "0.02", "cap": "5.00"});
    // (enforcement, overage, used, overage units, what that costs, whether a cap held it)
    let stories = [
        ("soft", &price, 99, 0, "0.00", false),
        ("soft", &price, 100, 0, "0.00", false),
        ("soft", &price, 110, 10, "0.20", false),
        ("soft", &price, 150, 50, "1.00", false),
        ("soft", &price, 1_100, 1_000, "20.00", false),
        ("soft", &capped, 350, 250, "5.00", false),
        ("soft", &capped, 1_100, 1_000, "5.00", true),
        ("hard", &price, 100, 0, "0.00", false),
        ("hard", &price, 150, 50, "1.00", false),
    ];
    for (enforcement, overage, used, units, amount, capped) in stories {
        let answer = preview(&world, &plan(enforcement, overage), used).await;
        let quota = &answer["quotas"][0];
        let found = (&answer["overageUnits"], &answer["overage"], &quota["capped"]);
        let expected = (&json!(units), &json!(amount), &json!(capped));
        assert_eq!(found, expected, "{used} on a {enforcement} plan: {answer}");
    }
}

async fn a_price_model_shows_its_lines_and_they_add_up(store: Store) {
    let world = World::start(store).await;
    let tiers = json!([{"upTo": 10, "unitPrice": "1", "flatFee": "2"}, {"unitPrice": "0.125"}]);
    let line = |tier: u64, units: u64, price: &str, amount: &str| {
        json!({"quota": "requests", "tier": tier, "units": units, "unitPrice": price,
               "amount": amount})
    };
    let with_fee = |mut line: Value| {
        line["flatFee"] = json!("2");
        line
    };
    // Overage, use, lines.
    let stories = [
        (
            json!({"model": "per_unit", "unitPrice": "0.005"}),
            103,
            json!([line(1, 3, "0.005", "0.02")]),
        ),
        (
            json!({"model": "graduated", "tiers": tiers}),
            113,
            json!([with_fee(line(1, 10, "1", "12.00")), line(2, 3, "0.125", "0.38")]),
        ),
        (
            json!({"model": "graduated", "tiers": tiers, "cap": "12.10"}),
            113,
            json!([with_fee(line(1, 10, "1", "12.00")), line(2, 3, "0.125", "0.10")]),
        ),
        (
            json!({"model": "volume", "tiers": tiers}),
            110,
            json!([with_fee(line(1, 10, "1", "12.00"))]),
        ),
        (json!({"model": "volume", "tiers": tiers}), 113, json!([line(2, 13, "0.125", "1.63")])),
        (
            json!({"model": "package", "size": 50, "price": "5.00"}),
            151,
            json!([{"quota": "requests", "tier": 1, "units": 51, "packages": 2,
                    "packageSize": 50, "packagePrice": "5.00", "amount": "10.00"}]),
        ),
        (json!({"model": "per_unit", "unitPrice": "1"}), 100, json!([])),
    ];
    for (overage, used, lines) in stories {
        let answer = preview(&world, &plan("soft", &overage), used).await;
        assert_eq!(answer["lines"], lines, "{used} on {overage}: {answer}");
        let sum: i64 =
            lines.as_array().into_iter().flatten().map(|line| cents(&line["amount"])).sum();
        assert_eq!(cents(&answer["overage"]), sum, "{answer}");
    }
}

async fn every_meter_of_a_plan_is_priced_by_its_own_quota(store: Store) {
    let world = World::start(store).await;
    let plan = json!({"name": "p", "baseFee": "9.995", "quotas": [
        {"name": "requests", "limit": 100, "enforcement": "soft",
         "overage": {"model": "per_unit", "unitPrice": "0.10"}},
        {"name": "tokens", "meter": "tokens", "limit": 1000, "enforcement": "soft",
         "overage": {"model": "package", "size": 1000, "price": "2"}},
        {"name": "free", "meter": "bytes", "limit": 5, "enforcement": "soft"},
        {"name": "endless", "meter": "rows", "limit": null, "enforcement": "soft",
         "overage": {"model": "per_unit", "unitPrice": "1"}},
    ]});
    let quantities = json!({"tokens": 2500, "bytes": 7, "rows": 1_000_000, "nobody-asks": 3});
    let question = json!({"plan": plan, "units": 150, "quantities": quantities});
    let answer = world.admin().post(PLANS, &question).await.expect(200);
    let quota =
        |name: &str, meter: &str, used: u64, included: Option<u64>, over: u64, cost: &str| {
            json!({"name": name, "meter": meter, "used": used, "included": included,
               "overageUnits": over, "overage": cost, "capped": false})
        };
    let expected = json!([
        quota("requests", "requests", 150, Some(100), 50, "5.00"),
        quota("tokens", "tokens", 2500, Some(1000), 1500, "4.00"),
        quota("free", "bytes", 7, Some(5), 2, "0.00"),
        quota("endless", "rows", 1_000_000, None, 0, "0.00"),
    ]);
    assert_eq!(answer["quotas"], expected, "{answer}");
    let sums = (&answer["overage"], &answer["baseFee"], &answer["total"], &answer["currency"]);
    let expected = (&json!("9.00"), &json!("10.00"), &json!("19.00"), &json!("USD"));
    assert_eq!(sums, expected, "{answer}");
    assert_eq!(answer["overageUnits"], 50, "the first quota's: {answer}");
    // `quantities.requests` says the same as `units`.
    let question = json!({"plan": plan, "quantities": {"requests": 150}});
    let answer = world.admin().post(PLANS, &question).await.expect(200);
    assert_eq!(answer["overage"], "5.00", "{answer}");
}

async fn a_plan_that_was_read_can_be_previewed_and_nothing_is_made(store: Store) {
    let world = World::start(store).await;
    let id = world.plan(plan("soft", &json!({"model": "per_unit", "unitPrice": "1"}))).await;
    let audit = async || world.admin().get("/api/v1/audit").await.expect(200);
    let before = audit().await;
    let read = world.admin().get(&format!("/api/v1/plans/{id}")).await.expect(200);
    let answer = preview(&world, &read, 101).await;
    assert_eq!(answer["overage"], "1.00", "{answer}");
    let plans = world.admin().get("/api/v1/plans").await.expect(200);
    assert_eq!(plans["data"].as_array().map(Vec::len), Some(1), "{plans}");
    assert_eq!(plans["data"][0]["version"], 1, "{plans}");
    assert_eq!(audit().await, before, "nothing was done");
}

/// Where a problem says that a body is wrong, in order of the places.
fn places(problem: &Value) -> Vec<(String, String)> {
    let text = |error: &Value, field: &str| error[field].as_str().unwrap_or_default().to_owned();
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    let mut places: Vec<_> =
        errors.iter().map(|error| (text(error, "pointer"), text(error, "code"))).collect();
    places.sort();
    places
}

async fn check_refused(world: &World, path: &str, body: &Value, expected: &[(&str, &str)]) {
    let answer = world.admin().post(path, body).await;
    let problem = answer.expect_problem(422, "validation_failed");
    let expected: Vec<_> =
        expected.iter().map(|&(at, code)| (at.to_owned(), code.to_owned())).collect();
    assert_eq!(places(&problem), expected, "{body}: {problem}");
}

async fn a_bad_preview_is_told_with_the_places_of_all_faults(store: Store) {
    let world = World::start(store).await;
    let good = json!({"name": "p"});
    let stories = [
        (json!({"units": 1}), &[("/plan", "missing_field")][..]),
        (json!({"plan": good, "unit": 1}), &[("/unit", "unknown_field")]),
        (
            json!({"plan": {"name": "p", "qouta": {}}, "units": 1}),
            &[("/plan/qouta", "unknown_field")],
        ),
        (json!({"plan": good}), &[("/units", "missing_field")]),
        (json!({"plan": good, "quantities": {}}), &[("/units", "missing_field")]),
        (json!({"plan": good, "units": -1}), &[("/units", "out_of_range")]),
        (json!({"plan": good, "units": 1.5}), &[("/units", "out_of_range")]),
        (json!({"plan": good, "units": "1"}), &[("/units", "invalid_type")]),
        (json!({"plan": good, "units": 9_007_199_254_740_992_u64}), &[("/units", "out_of_range")]),
        (
            json!({"plan": good, "units": 1, "quantities": {"requests": 1}}),
            &[("/units", "conflict")],
        ),
        (
            json!({"plan": {"name": "p", "currency": "usd", "baseFee": 0.1, "quota": {"limit": -1}},
                   "units": -1, "quantities": {"a/b": 1, "tokens": null}}),
            &[
                ("/plan/baseFee", "invalid_money"),
                ("/plan/currency", "invalid_currency"),
                ("/plan/quota/limit", "out_of_range"),
                ("/quantities/a~1b", "invalid_name"),
                ("/quantities/tokens", "invalid_type"),
                ("/units", "out_of_range"),
            ],
        ),
    ];
    for (body, expected) in &stories {
        check_refused(&world, PLANS, body, expected).await;
    }
    // Nobody's megabytes are sent back.
    let long = json!({"plan": good, "quantities": {"m".repeat(100_000): 1}});
    check_refused(&world, PLANS, &long, &[("/quantities", "invalid_name")]).await;
    let zone = json!({"every": "P1M", "anchor": "calendar", "timeZone": "\u{7f}".repeat(100_000)});
    let answer = world.admin().post(PERIODS, &zone).await;
    let problem = answer.expect_problem(422, "validation_failed");
    assert!(problem.to_string().len() < 4_096, "{problem}");
    let many: Value = (0..33).map(|n| (format!("meter-{n}"), json!(1))).collect();
    let body = json!({"plan": good, "quantities": many});
    check_refused(&world, PLANS, &body, &[("/quantities", "too_many")]).await;
    let broken = world.admin().post_bytes(Method::POST, PLANS, "application/json", "{").await;
    broken.expect_problem(400, "malformed_json");
}

/// `start end` a line, as the command prints them.
fn lines_of(answer: &Value) -> String {
    let data = answer["data"].as_array().unwrap_or_else(|| panic!("a list: {answer}"));
    let bound = |period: &Value, name: &str| period[name].as_str().unwrap_or("?").to_owned();
    let mut text = String::new();
    for period in data {
        text.extend([bound(period, "start"), " ".into(), bound(period, "end"), "\n".into()]);
    }
    text
}

async fn periods_are_previewed_as_the_command_prints_them(store: Store) {
    let world = World::start(store).await;
    // (anchor, every, zone, at, count); what is empty is left out.
    let stories = [
        // Month ends, and a leap day.
        ("2026-01-31T00:00:00Z", "P1M", "Z", "", "14"),
        ("2024-01-30T00:00:00Z", "P1M", "UTC", "", "14"),
        ("2024-02-29T12:00:00Z", "P1Y", "", "", "9"),
        // Clocks that go forward and back, and not at midnight or at midnight.
        ("2026-03-28T00:00:00+01:00", "P1D", "Europe/Berlin", "", "3"),
        ("calendar", "P1M", "Europe/Berlin", "2026-03-05T00:00:00Z", "9"),
        ("calendar", "P1D", "America/Havana", "2026-03-07T12:00:00Z", "3"),
        ("calendar", "P1D", "Asia/Beirut", "2026-03-28T12:00:00Z", "3"),
        // A quarter of an hour.
        ("calendar", "PT1H", "Asia/Kathmandu", "2026-11-24T10:00:00Z", "3"),
        ("calendar", "PT1S", "Asia/Kathmandu", "2026-11-24T10:00:00.5Z", "2"),
        // Defaults: twelve from the anchor, or one that holds `at`.
        ("2026-01-31T00:00:00Z", "P1M", "", "", ""),
        ("calendar", "P1W", "", "2026-11-24T10:00:00Z", ""),
        ("calendar", "P1Y", "", "", "2"),
    ];
    for (anchor, every, zone, at, count) in stories {
        let mut question = json!({"anchor": anchor, "every": every});
        let mut command = Command::new(weir());
        command.args(["period", "--anchor", anchor, "--every", every]);
        for (field, flag, value) in
            [("timeZone", "--time-zone", zone), ("at", "--at", at), ("count", "--count", count)]
        {
            if value.is_empty() {
                continue;
            }
            command.args([flag, value]);
            question[field] = value.parse::<u64>().map_or(json!(value), |number| json!(number));
        }
        let printed = run(command).await.expect(0);
        let answer = world.admin().post(PERIODS, &question).await.expect(200);
        assert_eq!(lines_of(&answer), printed, "{question}");
        let data = answer["data"].as_array().expect("a list");
        let expected = match (count.parse(), at) {
            (Ok(count), _) => count,
            (Err(_), "") => 12,
            (Err(_), _) => 1,
        };
        assert_eq!(data.len(), expected, "{question}");
        for pair in data.windows(2) {
            assert_eq!(pair[0]["end"], pair[1]["start"], "no gap, no overlap: {question}");
        }
        assert!(data.iter().all(|p| p["start"].as_str() < p["end"].as_str()), "{question}");
    }
    let months = json!({"anchor": "2026-01-31T00:00:00Z", "every": "P1M", "count": 3});
    let answer = world.admin().post(PERIODS, &months).await.expect(200);
    let expected = "2026-01-31T00:00:00.000Z 2026-02-28T00:00:00.000Z\n\
                    2026-02-28T00:00:00.000Z 2026-03-31T00:00:00.000Z\n\
                    2026-03-31T00:00:00.000Z 2026-04-30T00:00:00.000Z\n";
    assert_eq!(lines_of(&answer), expected);
}

async fn a_period_is_found_by_a_moment_in_it(store: Store) {
    let world = World::start(store).await;
    let day = |at: &str| json!({"anchor": "calendar", "every": "P1D", "timeZone": "Europe/Berlin", "at": at});
    // The last moment of one day and the first of the next, which has 23 hours.
    let (before, after) = ("2026-03-28T22:59:59.999Z", "2026-03-28T23:00:00Z");
    let (saturday, sunday) = (
        "2026-03-27T23:00:00.000Z 2026-03-28T23:00:00.000Z\n",
        "2026-03-28T23:00:00.000Z 2026-03-29T22:00:00.000Z\n",
    );
    for (at, expected) in
        [(before, saturday), (after, sunday), ("2026-03-29T23:59:59+02:00", sunday)]
    {
        let answer = world.admin().post(PERIODS, &day(at)).await.expect(200);
        assert_eq!(lines_of(&answer), expected, "{at}");
    }
    // Before the anchor the same boundaries go on.
    let question =
        json!({"anchor": "2026-03-31T00:00:00Z", "every": "P1M", "at": "2026-02-28T00:00:00Z"});
    let answer = world.admin().post(PERIODS, &question).await.expect(200);
    assert_eq!(lines_of(&answer), "2026-02-28T00:00:00.000Z 2026-03-31T00:00:00.000Z\n");
}

async fn a_bad_question_about_periods_is_told_with_the_places_of_all_faults(store: Store) {
    let world = World::start(store).await;
    let with = |field: &str, value: Value| {
        let mut question = json!({"anchor": "calendar", "every": "P1M"});
        question[field] = value;
        question
    };
    let stories = [
        (json!({"every": "P1M"}), &[("/anchor", "missing_field")][..]),
        (json!({"anchor": "calendar"}), &[("/every", "missing_field")]),
        (with("zone", json!("UTC")), &[("/zone", "unknown_field")]),
        (with("every", json!("P0D")), &[("/every", "invalid_duration")]),
        (with("every", json!("PT0.5S")), &[("/every", "invalid_duration")]),
        (with("every", json!(5)), &[("/every", "invalid_type")]),
        (with("timeZone", json!("Mars/Olympus")), &[("/timeZone", "unknown_time_zone")]),
        (with("count", json!(0)), &[("/count", "out_of_range")]),
        (with("count", json!(1_001)), &[("/count", "out_of_range")]),
        (with("count", json!(-1)), &[("/count", "out_of_range")]),
        (
            json!({"anchor": "never", "every": "monthly", "timeZone": "", "at": "noon",
                   "count": "ten"}),
            &[
                ("/anchor", "invalid_anchor"),
                ("/at", "invalid_timestamp"),
                ("/count", "invalid_type"),
                ("/every", "invalid_duration"),
                ("/timeZone", "unknown_time_zone"),
            ],
        ),
    ];
    for (body, expected) in &stories {
        check_refused(&world, PERIODS, body, expected).await;
    }
    let most = world.admin().post(PERIODS, &with("count", json!(1_000))).await.expect(200);
    assert_eq!(most["data"].as_array().map(Vec::len), Some(1_000));
}

async fn only_admins_see_previews(store: Store) {
    let world = World::start(store).await;
    let limited = world.token(&json!({"name": "t", "scope": "admin", "tenant": "blue"})).await;
    let limited = world.admin().with_token(&limited);
    let questions = [
        (PLANS, json!({"plan": {"name": "p"}, "units": 1})),
        (PERIODS, json!({"anchor": "calendar", "every": "P1M", "count": 1})),
    ];
    for (path, question) in &questions {
        limited.post(path, question).await.expect(200);
        world.gateway().post(path, question).await.expect_problem(403, "wrong_scope");
        world.dashboard().post(path, question).await.expect_problem(403, "wrong_scope");
        let nobody = world.node.anonymous().post(path, question).await;
        nobody.expect_problem(401, "unauthorized");
    }
}

/// The schema that a document's value points to, or is.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let Some(reference) = schema["$ref"].as_str() else { return schema };
    document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// That an answer has all that the schema requires and nothing that it does not know.
fn check_described(document: &Value, schema: &Value, answer: &Value) {
    let schema = resolve(document, schema);
    match answer {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{schema}"));
            for (name, value) in fields {
                let known = properties.get(name);
                let known = known.unwrap_or_else(|| panic!("{name} is not described: {schema}"));
                check_described(document, known, value);
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                assert!(fields.contains_key(name), "{name} is required, not in {answer}");
            }
        }
        Value::Array(items) => {
            for item in items {
                check_described(document, &schema["items"], item);
            }
        }
        scalar => {
            let word = match scalar {
                Value::String(_) => "string",
                Value::Bool(_) => "boolean",
                Value::Null => "null",
                _ => "integer",
            };
            let described = &schema["type"];
            let words = described.as_array().cloned().unwrap_or_else(|| vec![described.clone()]);
            assert!(words.contains(&json!(word)), "{scalar} is no {described}");
        }
    }
}

async fn the_document_describes_both_previews_as_they_answer(store: Store) {
    let world = World::start(store).await;
    let document = world.node.anonymous().get("/openapi.json").await.expect(200);
    let tiers = json!([{"upTo": 10, "unitPrice": "1", "flatFee": "2"}, {"unitPrice": "0.125"}]);
    let package = json!({"model": "package", "size": 50, "price": "5.00"});
    let graduated = json!({"model": "graduated", "tiers": tiers});
    let questions = [
        (PLANS, json!({"plan": plan("soft", &graduated), "units": 150})),
        (PLANS, json!({"plan": plan("soft", &package), "quantities": {"requests": 150}})),
        (PERIODS, json!({"anchor": "calendar", "every": "P1M", "timeZone": "UTC", "count": 2})),
        (PERIODS, json!({"anchor": "calendar", "every": "P1M", "at": "2026-11-24T10:00:00Z"})),
    ];
    for (path, question) in questions {
        let operation = &document["paths"][path]["post"];
        let json_of = |part: &Value| part["content"]["application/json"]["schema"].clone();
        let asked = json_of(&operation["requestBody"]);
        let asked = resolve(&document, &asked);
        for name in question.as_object().expect("an object").keys() {
            assert!(asked["properties"][name].is_object(), "{name} is not described: {asked}");
        }
        let answer = world.admin().post(path, &question).await.expect(200);
        check_described(&document, &json_of(&operation["responses"]["200"]), &answer);
        for status in ["400", "401", "403", "413", "422", "503"] {
            assert!(operation["responses"][status].is_object(), "{path} can answer {status}");
        }
    }
}
