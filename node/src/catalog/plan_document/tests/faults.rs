//! Bad documents: each fault has its place and its code, and none hides another.

use serde_json::{Value, json};

use super::super::{FAULTS_MAX, LimitsDocument, PlanDocument, PlanError, PlanUpdate, parse, read};
use super::{id, plan_of};

/// Where and how each document is wrong.
fn places(error: PlanError) -> Vec<(String, &'static str)> {
    match error {
        PlanError::Invalid(faults) => {
            faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
        }
        PlanError::Malformed { .. } => panic!("{error}"),
    }
}

fn check(stories: &[(Value, &str, &str)]) {
    for (document, pointer, code) in stories {
        let faults = places(plan_of(document).expect_err(&document.to_string()));
        assert_eq!(faults, [((*pointer).to_owned(), *code)], "{document}");
    }
}

/// A plan with this quota.
fn quota(quota: &Value) -> Value {
    json!({"name": "x", "quota": quota})
}

/// A plan with this overage.
fn overage(overage: &Value) -> Value {
    json!({"name": "x", "quota": {"limit": 1}, "overage": overage})
}

#[test]
fn another_shape_is_told_with_its_place() {
    check(&[
        (json!({"name": "x", "colour": 1}), "/colour", "unknown_field"),
        (json!({"name": "x", "a/b~c": 1}), "/a~1b~0c", "unknown_field"),
        (json!({}), "/name", "missing_field"),
        (json!({"name": 5}), "/name", "invalid_type"),
        (json!([]), "", "invalid_type"),
        (json!("plan"), "", "invalid_type"),
        (json!({"name": "x", "quotas": {}}), "/quotas", "invalid_type"),
        (json!({"name": "x", "quotas": [{"limit": 1}, 7]}), "/quotas/1", "invalid_type"),
        (quota(&json!({})), "/quota/limit", "missing_field"),
        (quota(&json!({"limit": 1, "Every": "P1M"})), "/quota/Every", "unknown_field"),
        (
            json!({"name": "x", "rateLimits": [{"limit": 1}]}),
            "/rateLimits/0/window",
            "missing_field",
        ),
        (overage(&json!({"tiers": []})), "/overage/model", "missing_field"),
        (
            overage(&json!({"model": "volume", "tiers": [{"upto": 1}]})),
            "/overage/tiers/0/upto",
            "unknown_field",
        ),
        (json!({"name": "x", "effective": "now"}), "/effective", "unknown_field"),
    ]);
    let twice = parse(br#"{"name":"x","name":"y"}"#, id(), 1).expect_err("doubled");
    assert_eq!(places(twice), [("/name".to_owned(), "duplicate_field")]);
}

#[test]
fn numbers_outside_their_range_are_faults_and_never_panics() {
    let numbers =
        ["-1", "9007199254740992", "18446744073709551616", "1.5", "1.0", "1e3", "-0", "1e300"];
    for number in numbers {
        for (body, pointer) in [
            (format!(r#"{{"name":"x","quota":{{"limit":{number}}}}}"#), "/quota/limit"),
            (format!(r#"{{"name":"x","costs":[{{"units":{number}}}]}}"#), "/costs/0/units"),
            (format!(r#"{{"name":"x","quota":{{"limit":1}},"warnAt":[{number}]}}"#), "/warnAt/0"),
        ] {
            let error = parse(body.as_bytes(), id(), 1).expect_err(&body);
            assert_eq!(places(error), [(pointer.to_owned(), "out_of_range")], "{body}");
        }
    }
    check(&[
        (quota(&json!({"limit": "5"})), "/quota/limit", "invalid_type"),
        (quota(&json!({"limit": true})), "/quota/limit", "invalid_type"),
        (quota(&json!({"limit": [[[1]]]})), "/quota/limit", "invalid_type"),
        (quota(&json!({"limit": 1, "warnAt": [0]})), "/quota/warnAt/0", "out_of_range"),
        (quota(&json!({"limit": 1, "warnAt": [1001]})), "/quota/warnAt/0", "out_of_range"),
        (quota(&json!({"limit": 1, "warnAt": ["80"]})), "/quota/warnAt/0", "invalid_type"),
    ]);
}

#[test]
fn money_that_cannot_be_exact_is_refused() {
    let fee = |fee: Value| json!({"name": "x", "baseFee": fee});
    check(&[
        (fee(json!(0.01)), "/baseFee", "invalid_money"),
        (fee(json!("1e3")), "/baseFee", "invalid_money"),
        (fee(json!("")), "/baseFee", "invalid_money"),
        (fee(json!(".5")), "/baseFee", "invalid_money"),
        (fee(json!("5.")), "/baseFee", "invalid_money"),
        (fee(json!("+5")), "/baseFee", "invalid_money"),
        (fee(json!("1_000")), "/baseFee", "invalid_money"),
        (fee(json!("$5")), "/baseFee", "invalid_money"),
        (fee(json!("NaN")), "/baseFee", "invalid_money"),
        (fee(json!("0.0000000000001")), "/baseFee", "invalid_money"),
        (fee(json!("-0.01")), "/baseFee", "out_of_range"),
        (fee(json!(-1)), "/baseFee", "out_of_range"),
        (fee(json!("1000000000000.01")), "/baseFee", "out_of_range"),
        (fee(json!("9".repeat(40))), "/baseFee", "out_of_range"),
        (fee(json!(u64::MAX)), "/baseFee", "out_of_range"),
        (fee(json!(true)), "/baseFee", "invalid_type"),
    ]);
}

#[test]
fn words_durations_and_anchors_are_checked() {
    check(&[
        (quota(&json!({"limit": 1, "every": "P0D"})), "/quota/every", "invalid_duration"),
        (quota(&json!({"limit": 1, "every": "PT0.5S"})), "/quota/every", "invalid_duration"),
        (quota(&json!({"limit": 1, "every": "-P1M"})), "/quota/every", "invalid_duration"),
        (quota(&json!({"limit": 1, "every": 60})), "/quota/every", "invalid_type"),
        (quota(&json!({"limit": 1, "anchor": "monday"})), "/quota/anchor", "invalid_anchor"),
        (quota(&json!({"limit": 1, "enforcement": "firm"})), "/quota/enforcement", "invalid_value"),
        (json!({"name": "x", "bill": "non5xx"}), "/bill", "invalid_value"),
        (json!({"name": "x", "chargeOn": "Event"}), "/chargeOn", "invalid_value"),
        (json!({"name": "x", "failPolicy": false}), "/failPolicy", "invalid_type"),
        (json!({"name": "x", "holdTtl": "1mo"}), "/holdTtl", "invalid_duration"),
        (json!({"name": "x", "holdTtl": "0s"}), "/holdTtl", "out_of_range"),
        (json!({"name": "x", "holdTtl": "25h"}), "/holdTtl", "out_of_range"),
        (json!({"name": "x", "currency": "dollars"}), "/currency", "invalid_currency"),
        (json!({"name": "", }), "/name", "invalid_length"),
        (json!({"name": "a\u{0}b", }), "/name", "invalid_name"),
    ]);
}

#[test]
fn rules_between_fields_are_told_where_they_were_written() {
    check(&[
        (quota(&json!({"limit": 1, "hardCap": 2})), "/quota/hardCap", "not_applicable"),
        (
            quota(&json!({"limit": 5, "enforcement": "soft", "hardCap": 4})),
            "/quota/hardCap",
            "out_of_range",
        ),
        (quota(&json!({"limit": 1, "name": "a b"})), "/quota/name", "invalid_name"),
        (quota(&json!({"limit": 1, "warnAt": [90, 80]})), "/quota/warnAt", "invalid_thresholds"),
        (
            json!({"name": "x", "quota": {"limit": 1}, "warnAt": [90, 90]}),
            "/warnAt",
            "invalid_thresholds",
        ),
        (
            json!({"name": "x", "quotas": [{"limit": 1}, {"limit": 2}]}),
            "/quotas/1/name",
            "duplicate_name",
        ),
        (
            json!({"name": "x", "quotas": [{"limit": 1, "meter": "", "name": "a"}]}),
            "/quotas/0/meter",
            "invalid_name",
        ),
        (
            json!({"name": "x", "overage": {"model": "per_unit", "unitPrice": "1"}}),
            "/overage",
            "not_applicable",
        ),
        (
            json!({"name": "x", "quota": {"limit": 1}, "quotas": [{"limit": 2}]}),
            "/quota",
            "conflict",
        ),
        (json!({"name": "x", "quota": {"limit": 1}, "quotas": []}), "/quota", "conflict"),
        (
            json!({"name": "x", "quotas": [{"limit": 1, "warnAt": [50]}], "warnAt": [60]}),
            "/warnAt",
            "conflict",
        ),
    ]);
}

#[test]
fn rate_limits_and_costs_are_checked() {
    let rate = |changes: Value| {
        let mut rate = json!({"name": "r", "limit": 5, "window": "1s"});
        for (key, value) in changes.as_object().expect("an object") {
            rate[key] = value.clone();
        }
        json!({"name": "x", "rateLimits": [rate]})
    };
    let cost = |method: &str, path: &str| json!({"name": "x", "costs": [{"method": method, "path": path, "units": 1}]});
    check(&[
        (rate(json!({"limit": 0})), "/rateLimits/0/limit", "out_of_range"),
        (rate(json!({"burst": 0})), "/rateLimits/0/burst", "out_of_range"),
        (rate(json!({"window": "0s"})), "/rateLimits/0/window", "out_of_range"),
        (rate(json!({"window": "367d"})), "/rateLimits/0/window", "out_of_range"),
        (rate(json!({"window": "P1M"})), "/rateLimits/0/window", "invalid_duration"),
        (
            rate(json!({"algorithm": "fixed_window", "burst": 9})),
            "/rateLimits/0/burst",
            "not_applicable",
        ),
        (rate(json!({"algorithm": "leaky"})), "/rateLimits/0/algorithm", "invalid_value"),
        (cost("G E T", "/x"), "/costs/0/method", "invalid_method"),
        (cost("", "/x"), "/costs/0/method", "invalid_method"),
        (cost("GET", "x"), "/costs/0/path", "invalid_path"),
        (cost("GET", ""), "/costs/0/path", "invalid_path"),
        (cost("GET", "/a*b"), "/costs/0/path", "invalid_path"),
        (cost("GET", "/a**"), "/costs/0/path", "invalid_path"),
        (cost("GET", "/a?b=c"), "/costs/0/path", "invalid_path"),
        (cost("GET", &format!("/{}", "a".repeat(2048))), "/costs/0/path", "invalid_path"),
    ]);
}

#[test]
fn price_models_have_their_own_fields_and_no_others() {
    let tiers = json!([{"unitPrice": "1"}]);
    check(&[
        (overage(&json!({"model": "free"})), "/overage/model", "invalid_value"),
        (overage(&json!({"model": "per_unit"})), "/overage/unitPrice", "missing_field"),
        (overage(&json!({"model": "graduated"})), "/overage/tiers", "missing_field"),
        (
            overage(&json!({"model": "per_unit", "unitPrice": "1", "tiers": tiers})),
            "/overage/tiers",
            "not_applicable",
        ),
        (
            overage(&json!({"model": "package", "size": 0, "price": "1"})),
            "/overage/size",
            "out_of_range",
        ),
        (overage(&json!({"model": "volume", "tiers": []})), "/overage/tiers", "invalid_tiers"),
        (
            overage(&json!({"model": "volume", "tiers": [{"upTo": 5, "unitPrice": "1"}]})),
            "/overage/tiers",
            "invalid_tiers",
        ),
        (
            overage(&json!({"model": "volume", "tiers": [{}]})),
            "/overage/tiers/0/unitPrice",
            "missing_field",
        ),
    ]);
    let many: Vec<Value> = (0..=100).map(|_| json!({"unitPrice": "1"})).collect();
    check(&[(overage(&json!({"model": "volume", "tiers": many})), "/overage/tiers", "too_many")]);
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_reading() {
    let error = plan_of(&json!({"name": "", "currency": "usd", "baseFee": "free",
        "quotas": [{"limit": -1, "every": "soon"}, {"meter": "tokens", "limit": 1,
            "overage": {"model": "package", "size": -2}}],
        "rateLimits": [{"limit": 0, "window": "1s"}], "costs": [{"units": 0.5, "path": "x"}],
        "bill": "nothing", "holdTtl": "0s"}))
    .expect_err("everything is wrong");
    let expected = [
        ("/quotas/0/limit", "out_of_range"),
        ("/quotas/0/every", "invalid_duration"),
        ("/quotas/1/overage/size", "out_of_range"),
        ("/quotas/1/overage/price", "missing_field"),
        ("/baseFee", "invalid_money"),
        ("/rateLimits/0/limit", "out_of_range"),
        ("/costs/0/units", "out_of_range"),
        ("/costs/0/path", "invalid_path"),
        ("/bill", "invalid_value"),
        ("/name", "invalid_length"),
        ("/currency", "invalid_currency"),
        ("/holdTtl", "out_of_range"),
    ];
    let expected: Vec<_> = expected.map(|(pointer, code)| (pointer.to_owned(), code)).into();
    assert_eq!(places(error), expected);
}

#[test]
fn a_flood_of_entries_or_faults_is_cut_short() {
    let quotas: Vec<Value> =
        (0..50_000).map(|n| json!({"name": n.to_string(), "limit": 1})).collect();
    check(&[(json!({"name": "x", "quotas": quotas}), "/quotas", "too_many")]);
    let warn_at = vec![json!(-1); 50_000];
    let error = plan_of(&json!({"name": "x", "quota": {"limit": 1}, "warnAt": warn_at}));
    assert_eq!(places(error.expect_err("all negative")).len(), FAULTS_MAX);
}

#[test]
fn what_is_not_json_is_told_with_line_and_column() {
    let deep = "[".repeat(100_000);
    let stories: [(&[u8], usize, usize); 8] = [
        (b"", 1, 0),
        (b"{\n  \"name\": ,\n}", 2, 11),
        (b"{\"name\":\"x\"} {}", 1, 14),
        (b"{\"name\":\"x\"", 1, 11),
        (b"{\"name\":\"\xff\"}", 1, 10),
        (b"{\"name\":\"x\",\"baseFee\":NaN}", 1, 23),
        (b"{\"name\":\"x\",\"quota\":{\"limit\":1e999}}", 1, 34),
        (deep.as_bytes(), 1, 0),
    ];
    for (body, line, column) in stories {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        match (parse(body, id(), 1), column) {
            (Err(PlanError::Malformed { line: l, column: c, detail }), _) => {
                assert_eq!((l, c), (line, column), "{shown}: {detail}");
                assert!(!detail.contains(" at line "), "{detail}");
            }
            // A list is no plan: the rest of it is never read, however deep.
            (Err(PlanError::Invalid(faults)), 0) if body.len() > 60 => {
                assert_eq!(faults[0].code, "invalid_type");
            }
            (other, _) => panic!("{shown}: {other:?}"),
        }
    }
    let nested = format!(r#"{{"name":"x","quota":{{"limit":{deep}"#);
    let error = read::<PlanDocument>(nested.as_bytes()).expect_err("too deep");
    assert!(matches!(error, PlanError::Malformed { .. }), "{error:?}");
}

#[test]
fn an_update_is_held_to_the_same_rules() {
    let stories = [
        (r#"{"name":"x","effective":"later"}"#, "/effective", "invalid_type"),
        (r#"{"name":"x","effective":"now","effective":"now"}"#, "/effective", "duplicate_field"),
        (r#"{"name":"x","colour":1}"#, "/colour", "unknown_field"),
        (r#"{"effective":"now"}"#, "/name", "missing_field"),
        (r#"{"name":"x","quota":{"limit":1,"a":2}}"#, "/quota/a", "unknown_field"),
        ("[]", "", "invalid_type"),
    ];
    for (body, pointer, code) in stories {
        let faults = places(read::<PlanUpdate>(body.as_bytes()).expect_err(body));
        assert_eq!(faults, [(pointer.to_owned(), code)], "{body}");
    }
}

#[test]
fn limits_of_a_subscription_are_checked_by_name() {
    let many: serde_json::Map<_, _> = (0..17).map(|n| (format!("q{n}"), json!(1))).collect();
    let stories = [
        (json!({"requests": -1}), "/limits/requests", "out_of_range"),
        (json!({"requests": "5"}), "/limits/requests", "invalid_type"),
        (json!({"a/b": 5}), "/limits/a~1b", "invalid_name"),
        (Value::Object(many), "/limits", "too_many"),
    ];
    for (body, pointer, code) in stories {
        let document: LimitsDocument = read(body.to_string().as_bytes()).expect("an object");
        let faults = document.into_overrides("/limits").expect_err(&body.to_string());
        let faults: Vec<_> = faults.into_iter().map(|f| (f.pointer, f.code)).collect();
        assert_eq!(faults, [(pointer.to_owned(), code)], "{body}");
    }
}
