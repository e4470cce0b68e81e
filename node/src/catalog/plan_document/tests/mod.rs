//! Stories of plan documents: what is read, what is refused and where, what is written back.

mod faults;
mod round_trip;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use utoipa::PartialSchema;
use uuid::Uuid;
use weir_core::calendar::{Anchor, Every};
use weir_core::plan::{Bill, ChargeOn, Enforcement, FailPolicy, Plan};
use weir_core::price::Model;
use weir_core::rate::Algorithm;
use weir_core::units::{PlanId, Span, Units};

use super::{
    AlgorithmWord, CostDocument, Effective, LimitsDocument, OverageDocument, PeriodDocument,
    PlanDocument, PlanError, PlanUpdate, QuotaDocument, RateLimitDocument, TierDocument, parse,
    read, render,
};

/// The plan of the contract's *Manage* section.
const PRO: &str = r#"{"name":"pro","currency":"USD","baseFee":"30.00",
 "quota":{"limit":10000,"every":"P1M","anchor":"calendar","enforcement":"hard"},
 "rateLimits":[{"name":"per-second","limit":50,"window":"PT1S","algorithm":"token_bucket","burst":100},
               {"name":"search","limit":600,"window":"PT1M","algorithm":"sliding_window","method":"GET","path":"/v1/search*"}],
 "costs":[{"method":"POST","path":"/v1/generate*","units":5}],
 "overage":{"model":"graduated","tiers":[{"upTo":1000,"unitPrice":"0"},{"upTo":10000,"unitPrice":"0.01"},{"unitPrice":"0.005"}],"cap":"50.00"},
 "warnAt":[80,90,100],"bill":"all","chargeOn":"event","holdTtl":"60s","failPolicy":"open","shadow":false}"#;

fn id() -> PlanId {
    PlanId::from_uuid(Uuid::from_u128(7))
}

fn plan_of(document: &Value) -> Result<Plan, PlanError> {
    parse(document.to_string().as_bytes(), id(), 1)
}

fn valid(document: &Value) -> Plan {
    plan_of(document).unwrap_or_else(|error| panic!("{document}: {error:?}"))
}

fn units(count: u64) -> Units {
    Units::new(count).expect("small")
}

#[test]
fn the_contracts_example_is_read_field_by_field() {
    let plan = parse(PRO.as_bytes(), id(), 3).expect("valid");
    assert_eq!((plan.id, plan.version), (id(), 3));
    assert_eq!((plan.name.as_str(), plan.currency.as_str()), ("pro", "USD"));
    assert_eq!(plan.base_fee, Decimal::new(3000, 2));
    let [quota] = &plan.quotas[..] else { panic!("one quota: {:?}", plan.quotas) };
    assert_eq!((&*quota.name, &*quota.meter), ("requests", "requests"));
    assert_eq!((quota.limit, quota.enforcement), (Some(units(10_000)), Enforcement::Hard));
    assert_eq!(quota.warn_at, [80, 90, 100]);
    let overage = quota.overage.as_ref().expect("what stands beside the quota is the quota's");
    let Model::Graduated(tiers) = &overage.model else { panic!("{overage:?}") };
    let bounds: Vec<_> = tiers.iter().map(|tier| tier.up_to).collect();
    assert_eq!(bounds, [Some(units(1_000)), Some(units(10_000)), None]);
    assert_eq!((overage.included, overage.cap), (None, Some(Decimal::new(5000, 2))));
    assert_eq!(plan.rates.len(), 2);
    assert_eq!(plan.rates[0].spec.burst(), units(100));
    assert_eq!(plan.rates[1].spec.algorithm(), Algorithm::SlidingWindow);
    assert_eq!(plan.rates[1].spec.window(), Span::from_seconds(60));
    assert_eq!(plan.cost(Some("POST"), Some("/v1/generate/image")), units(5));
    assert_eq!((plan.every, plan.anchor), (Every::new(1, 0, 0).expect("P1M"), Anchor::Calendar));
}

#[test]
fn what_is_left_out_has_its_default() {
    let plan = valid(&json!({"name": "bare"}));
    assert_eq!((plan.currency.as_str(), plan.base_fee), ("USD", Decimal::ZERO));
    assert!(plan.quotas.is_empty() && plan.rates.is_empty() && plan.costs.is_empty());
    assert_eq!((plan.every.to_string().as_str(), plan.anchor), ("P1M", Anchor::Calendar));
    let modes = (plan.bill, plan.charge_on, plan.fail_policy, plan.shadow);
    assert_eq!(modes, (Bill::All, ChargeOn::Event, FailPolicy::Open, false));
    assert_eq!(plan.hold_ttl, Span::from_seconds(60));

    let plan = valid(&json!({"name": "x", "quota": {"limit": null},
        "rateLimits": [{"limit": 5, "window": "1s"}]}));
    let quota = &plan.quotas[0];
    assert_eq!((quota.limit, quota.enforcement), (None, Enforcement::Hard));
    assert_eq!((quota.every.to_string().as_str(), quota.anchor), ("P1M", Anchor::Calendar));
    assert_eq!(quota.warn_at, [80, 90, 100]);
    assert_eq!(&*plan.rates[0].name, "PT1S");
    assert_eq!(plan.rates[0].spec.algorithm(), Algorithm::TokenBucket);
    assert_eq!(plan.rates[0].spec.burst(), units(5));
}

#[test]
fn null_means_left_out_except_for_a_limit() {
    let plan = valid(&json!({"name": "x", "currency": null, "baseFee": null, "period": null,
        "quotas": null, "rateLimits": null, "costs": null, "overage": null, "warnAt": null,
        "bill": null, "chargeOn": null, "holdTtl": null, "failPolicy": null, "shadow": null,
        "quota": {"limit": null, "every": null, "anchor": null, "enforcement": null,
                  "hardCap": null, "overage": null, "warnAt": null, "name": null, "meter": null}}));
    assert_eq!(plan, valid(&json!({"name": "x", "quota": {"limit": null}})));
}

#[test]
fn several_meters_keep_their_own_terms() {
    let plan = valid(&json!({"name": "ai", "quotas": [
        {"name": "requests", "limit": 10000, "every": "P1D"},
        {"meter": "tokens", "limit": 5_000_000, "enforcement": "soft", "hardCap": 6_000_000,
         "overage": {"model": "per_unit", "unitPrice": "0.000002", "included": 0}, "warnAt": [90]},
    ], "rateLimits": [{"limit": 10, "window": "PT1S", "meter": "tokens"}]}));
    assert_eq!(&*plan.quotas[1].name, "tokens");
    assert_eq!(plan.quotas[0].warn_at, [80, 90, 100]);
    assert_eq!(plan.quotas[1].warn_at, [90]);
    let soft = Enforcement::Soft { hard_cap: Some(units(6_000_000)) };
    assert_eq!(plan.quotas[1].enforcement, soft);
    let overage = plan.quotas[1].overage.as_ref().expect("given");
    assert_eq!(overage.model, Model::PerUnit { unit_price: Decimal::new(2, 6) });
    assert_eq!(overage.included, Some(Units::ZERO));
    assert_eq!(&*plan.rates[0].meter, "tokens");
    assert_eq!(plan.every.to_string(), "P1D", "the first quota's period is the billing period");
}

#[test]
fn the_billing_period_is_the_documents_own_when_it_has_one() {
    let stories = [
        (json!({"every": "P1Y", "anchor": "subscription"}), "P1Y", Anchor::Subscription),
        (json!({"every": "P7D"}), "P7D", Anchor::Calendar),
        (json!({}), "P1M", Anchor::Calendar),
    ];
    for (period, every, anchor) in stories {
        let plan = valid(&json!({"name": "x", "period": period,
            "quota": {"limit": 1, "every": "PT1H", "anchor": "2026-01-31T00:00:00Z"}}));
        assert_eq!((plan.every.to_string().as_str(), plan.anchor), (every, anchor), "{period}");
    }
}

#[test]
fn both_forms_of_a_quota_may_be_given_when_they_agree() {
    let short = json!({"limit": 10, "every": "P1D"});
    let overage = json!({"model": "per_unit", "unitPrice": "1"});
    let expected = valid(&json!({"name": "x", "quota": short, "overage": overage, "warnAt": [50]}));
    let mut full = short.clone();
    full["overage"] = overage.clone();
    full["warnAt"] = json!([50]);
    let same = [
        json!({"name": "x", "quotas": [full]}),
        json!({"name": "x", "quota": full}),
        json!({"name": "x", "quota": full, "overage": overage, "warnAt": [50]}),
        json!({"name": "x", "quota": full, "quotas": [full], "overage": overage, "warnAt": [50]}),
        json!({"name": "x", "quotas": [short], "overage": overage, "warnAt": [50]}),
    ];
    for document in same {
        assert_eq!(valid(&document), expected, "{document}");
    }
}

#[test]
fn money_is_exact_whether_text_or_integer() {
    let stories = [
        (json!("0.005"), "0.005"),
        (json!("30.00"), "30.00"),
        (json!(30), "30"),
        (json!("0"), "0"),
        (json!("-0.00"), "0.00"),
        (json!("0.000000000001"), "0.000000000001"),
        (json!(1_000_000_000_000_u64), "1000000000000"),
        (json!("007"), "7"),
    ];
    for (given, expected) in stories {
        let plan = valid(&json!({"name": "x", "baseFee": given}));
        assert_eq!(plan.base_fee.to_string(), expected, "{given}");
    }
}

#[test]
fn an_answer_shows_the_plan_in_both_quota_forms() {
    let plan = parse(PRO.as_bytes(), id(), 1).expect("valid");
    let shown = serde_json::to_value(render(&plan)).expect("a document is JSON");
    let given: Value = serde_json::from_str(PRO).expect("JSON");
    for field in [
        "name",
        "currency",
        "baseFee",
        "costs",
        "warnAt",
        "bill",
        "chargeOn",
        "holdTtl",
        "failPolicy",
        "shadow",
        "overage",
    ] {
        assert_eq!(shown[field], given[field], "{field}");
    }
    assert_eq!(shown["quota"], shown["quotas"][0]);
    assert_eq!(
        shown["quota"],
        json!({"name": "requests", "meter": "requests", "limit": 10000,
        "every": "P1M", "anchor": "calendar", "enforcement": "hard", "overage": given["overage"],
        "warnAt": [80, 90, 100]})
    );
    assert_eq!(
        shown["rateLimits"][0],
        json!({"name": "per-second", "meter": "requests",
        "limit": 50, "window": "PT1S", "algorithm": "token_bucket", "burst": 100})
    );
    assert_eq!(shown["rateLimits"][1]["window"], "PT1M");
    assert_eq!(shown["period"], json!({"every": "P1M", "anchor": "calendar"}));

    let bare = serde_json::to_value(render(&valid(&json!({"name": "bare"})))).expect("JSON");
    assert_eq!(bare["quotas"], json!([]));
    assert_eq!(bare.get("quota"), None);
}

#[test]
fn an_unlimited_quota_is_written_as_null() {
    let plan = valid(&json!({"name": "x", "quota": {"limit": null}}));
    let shown = serde_json::to_value(render(&plan)).expect("JSON");
    assert_eq!(shown["quota"].get("limit"), Some(&Value::Null));
}

#[test]
fn an_update_says_from_when_it_holds() {
    let stories = [
        (json!({"name": "x"}), Effective::Now),
        (json!({"name": "x", "effective": "now"}), Effective::Now),
        (json!({"effective": "period_end", "name": "x"}), Effective::PeriodEnd),
        (json!({"name": "x", "effective": null}), Effective::Now),
        // As it was read.
        (
            json!({"id": "i", "version": 3, "createdAt": "t", "name": "x", "effective": "now"}),
            Effective::Now,
        ),
    ];
    for (body, expected) in stories {
        let update: PlanUpdate = read(body.to_string().as_bytes()).expect("valid");
        assert_eq!((update.effective, update.plan.name.as_str()), (expected, "x"), "{body}");
        let again = serde_json::to_vec(&update).expect("JSON");
        assert_eq!(read::<PlanUpdate>(&again), Ok(update), "{body}");
    }
}

#[test]
fn limits_of_a_subscription_are_read_and_written() {
    let body = json!({"requests": 5000, "tokens": null});
    let document: LimitsDocument = read(body.to_string().as_bytes()).expect("an object");
    let overrides = document.into_overrides("/limits").expect("valid");
    let short: Vec<_> =
        overrides.iter().map(|o| (o.quota.as_str(), o.limit.map(Units::get))).collect();
    assert_eq!(short, [("requests", Some(5000)), ("tokens", None)]);
    let shown = serde_json::to_value(LimitsDocument::render(&overrides)).expect("JSON");
    assert_eq!(shown, body);
}

#[test]
fn the_published_schema_names_every_field_that_is_written() {
    let plan = valid(&json!({"name": "x",
        "quotas": [{"limit": 5, "enforcement": "soft", "hardCap": 9, "overage": {"model": "volume",
            "tiers": [{"upTo": 5, "unitPrice": "1", "flatFee": "1"}, {"unitPrice": "1"}],
            "included": 1, "cap": "5"}}],
        "rateLimits": [{"limit": 1, "window": "1s", "method": "GET", "path": "/"}],
        "costs": [{"units": 1, "method": "GET", "path": "/"}]}));
    let shown = serde_json::to_value(render(&plan)).expect("JSON");
    let quota = &shown["quota"];
    let schema = |schema| serde_json::to_value(schema).expect("a schema is JSON");
    let stories = [
        (&shown, schema(PlanDocument::schema())),
        (&shown["period"], schema(PeriodDocument::schema())),
        (quota, schema(QuotaDocument::schema())),
        (&shown["rateLimits"][0], schema(RateLimitDocument::schema())),
        (&shown["costs"][0], schema(CostDocument::schema())),
        (&quota["overage"], schema(OverageDocument::schema())),
        (&quota["overage"]["tiers"][0], schema(TierDocument::schema())),
    ];
    for (shown, schema) in stories {
        for field in shown.as_object().expect("an object").keys() {
            assert!(schema["properties"][field].is_object(), "{field} in {schema}");
        }
        assert_eq!(schema["additionalProperties"], json!(false), "{schema}");
    }
    let quota = schema(QuotaDocument::schema());
    assert_eq!(quota["required"], json!(["limit"]), "{quota}");
    assert_eq!(quota["properties"]["limit"]["type"], json!(["integer", "null"]), "{quota}");
    let word = schema(AlgorithmWord::schema());
    assert_eq!(word["enum"], json!(["token_bucket", "sliding_window", "fixed_window"]));
}
