//! The catalogue: what collides is refused whole, and each change leaves one audit entry.

use uuid::Uuid;
use weir_core::units::PlanId;
use weir_store::rows::{AuditRow, KeyRow, PlanRow, SubscriptionRow, SubscriptionStatus, TokenRow};
use weir_store::{Error, SubscriptionFilter};

use crate::fixture::{
    Fixture, NOON, at, audit, everything, key, plan, subscription, subscription_id, token,
};

crate::on_both_engines!(
    plans_have_versions_in_turn,
    a_plan_in_use_is_not_deleted,
    a_subscription_comes_with_its_plan_and_key_or_not_at_all,
    an_update_names_the_revision_it_saw,
    a_deleted_subscription_is_gone_and_its_name_is_free,
    keys_are_found_by_hash_and_revoked_once,
    tokens_are_found_by_hash_and_revoked_once,
    lists_come_in_pages,
    every_change_leaves_one_audit_entry,
    a_refused_change_leaves_none,
    changes_are_found_after_an_id_oldest_first,
);

fn conflict(refused: Result<impl std::fmt::Debug, Error>) -> &'static str {
    match refused {
        Err(Error::Conflict { with, .. }) => with,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

fn missing(refused: Result<impl std::fmt::Debug, Error>) -> &'static str {
    match refused {
        Err(Error::NotFound { what }) => what,
        other => panic!("expected it not to be found, got {other:?}"),
    }
}

async fn audits(fixture: &Fixture) -> usize {
    fixture.store.list_audit(None, None, 1_000).await.expect("audit").data.len()
}

async fn plans_have_versions_in_turn(fixture: Fixture) {
    let store = &fixture.store;
    let first = plan();
    store.insert_plan(&first, &audit()).await.expect("plan");
    assert_eq!(conflict(store.insert_plan(&first, &audit()).await), "id");
    let second = PlanRow {
        version: 2,
        config: r#"{"quotas":[1]}"#.to_owned(),
        at_period_end: true,
        ..first.clone()
    };
    store.insert_plan_version(&second, &audit()).await.expect("version");
    assert_eq!(conflict(store.insert_plan_version(&second, &audit()).await), "version");
    let unknown = PlanRow { version: 2, ..plan() };
    assert_eq!(missing(store.insert_plan_version(&unknown, &audit()).await), "plan");
    for (version, expected) in
        [(None, Some(&second)), (Some(1), Some(&first)), (Some(2), Some(&second)), (Some(3), None)]
    {
        let found = store.find_plan(first.id, version).await.expect("find");
        assert_eq!(found.as_ref(), expected, "version {version:?}");
    }
    assert_eq!(store.list_plans(None, 10).await.expect("list").data, [second]);
}

async fn a_plan_in_use_is_not_deleted(fixture: Fixture) {
    let store = &fixture.store;
    let row = fixture.subscription("default").await;
    assert_eq!(conflict(store.delete_plan(row.plan, &audit()).await), "subscriptions");
    let waited_for = plan();
    store.insert_plan(&waited_for, &audit()).await.expect("plan");
    let waiting = SubscriptionRow { next_plan: Some(waited_for.id), ..row.clone() };
    store.update_subscription(&waiting, &audit()).await.expect("wait");
    assert_eq!(conflict(store.delete_plan(waited_for.id, &audit()).await), "subscriptions");
    let deleted = SubscriptionRow { status: SubscriptionStatus::Deleted, revision: 2, ..waiting };
    store.update_subscription(&deleted, &audit()).await.expect("delete");
    for plan in [row.plan, waited_for.id] {
        store.delete_plan(plan, &audit()).await.expect("nobody uses it");
        assert_eq!(store.find_plan(plan, None).await.expect("find"), None);
        assert_eq!(missing(store.delete_plan(plan, &audit()).await), "plan");
    }
}

async fn a_subscription_comes_with_its_plan_and_key_or_not_at_all(fixture: Fixture) {
    let store = &fixture.store;
    let first = fixture.subscription("default").await;
    assert_eq!(fixture.seen(first.id).await, first, "every column comes back");
    let second = subscription(first.plan);
    let unknown = SubscriptionRow { plan: PlanId::from_uuid(Uuid::now_v7()), ..second.clone() };
    let refused = store.insert_subscription(&unknown, &key(unknown.id), &audit()).await;
    assert_eq!(missing(refused), "plan");
    let unknown = SubscriptionRow { next_plan: Some(unknown.plan), ..second.clone() };
    let refused = store.insert_subscription(&unknown, &key(unknown.id), &audit()).await;
    assert_eq!(missing(refused), "plan");
    let namesake = SubscriptionRow { external_id: first.external_id.clone(), ..second.clone() };
    let refused = store.insert_subscription(&namesake, &key(namesake.id), &audit()).await;
    assert_eq!(conflict(refused), "external_id");
    let taken =
        KeyRow { hash: store.list_keys(first.id).await.expect("keys")[0].hash, ..key(second.id) };
    assert_eq!(conflict(store.insert_subscription(&second, &taken, &audit()).await), "key");
    assert_eq!(store.find_subscription(second.id, &everything()).await.expect("find"), None);
    // The same name under another tenant is another name; no name collides with none.
    let elsewhere = SubscriptionRow { tenant: "other".to_owned(), ..namesake };
    store
        .insert_subscription(&elsewhere, &key(elsewhere.id), &audit())
        .await
        .expect("other tenant");
    for _ in 0..2 {
        let nameless = SubscriptionRow { external_id: None, ..subscription(first.plan) };
        store.insert_subscription(&nameless, &key(nameless.id), &audit()).await.expect("nameless");
    }
}

async fn an_update_names_the_revision_it_saw(fixture: Fixture) {
    let store = &fixture.store;
    let row = fixture.subscription("default").await;
    let other = fixture.subscription("default").await;
    let changed = SubscriptionRow {
        plan: other.plan,
        external_id: Some("renamed".to_owned()),
        status: SubscriptionStatus::Suspended,
        ends_at: None,
        webhook_url: None,
        limits: "{}".to_owned(),
        updated_at: at(NOON + 1),
        requests_used: 99,
        ..row.clone()
    };
    store.update_subscription(&changed, &audit()).await.expect("update");
    let expected = SubscriptionRow { revision: 2, requests_used: 0, ..changed.clone() };
    assert_eq!(fixture.seen(row.id).await, expected, "all but requests_used");
    assert_eq!(conflict(store.update_subscription(&changed, &audit()).await), "revision");
    let namesake = SubscriptionRow { external_id: other.external_id, ..expected.clone() };
    assert_eq!(conflict(store.update_subscription(&namesake, &audit()).await), "external_id");
    let planless = SubscriptionRow { plan: PlanId::from_uuid(Uuid::now_v7()), ..expected.clone() };
    assert_eq!(missing(store.update_subscription(&planless, &audit()).await), "plan");
    let unknown = SubscriptionRow { id: subscription_id(), ..expected.clone() };
    assert_eq!(missing(store.update_subscription(&unknown, &audit()).await), "subscription");
    assert_eq!(fixture.seen(row.id).await, expected, "what was refused changed nothing");
}

async fn a_deleted_subscription_is_gone_and_its_name_is_free(fixture: Fixture) {
    let store = &fixture.store;
    let row = fixture.subscription("default").await;
    let deleted = SubscriptionRow { status: SubscriptionStatus::Deleted, ..row.clone() };
    store.update_subscription(&deleted, &audit()).await.expect("delete");
    assert_eq!(store.find_subscription(row.id, &everything()).await.expect("find"), None);
    assert_eq!(store.count_subscriptions(&everything()).await.expect("count"), 0);
    let filter = SubscriptionFilter { limit: 10, ..SubscriptionFilter::default() };
    assert!(store.list_subscriptions(&filter).await.expect("list").data.is_empty());
    let again = SubscriptionRow { revision: 2, ..deleted };
    assert_eq!(missing(store.update_subscription(&again, &audit()).await), "subscription");
    let hash = store.list_keys(row.id).await.expect("keys")[0].hash;
    let (_, found) = store.find_key(&hash).await.expect("find").expect("the key still leads there");
    assert_eq!(found.status, SubscriptionStatus::Deleted);
    let heir = SubscriptionRow { id: subscription_id(), ..row };
    store.insert_subscription(&heir, &key(heir.id), &audit()).await.expect("the name is free");
}

async fn keys_are_found_by_hash_and_revoked_once(fixture: Fixture) {
    let store = &fixture.store;
    let row = fixture.subscription("default").await;
    let second = KeyRow { created_at: at(NOON + 1), ..key(row.id) };
    store.insert_key(&second, &audit()).await.expect("key");
    assert_eq!(conflict(store.insert_key(&second, &audit()).await), "key");
    let orphan = key(subscription_id());
    assert_eq!(missing(store.insert_key(&orphan, &audit()).await), "subscription");
    let keys = store.list_keys(row.id).await.expect("keys");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[1], second, "oldest first");
    let found = store.find_key(&second.hash).await.expect("find");
    assert_eq!(found, Some((second.clone(), row.clone())));
    assert_eq!(store.find_key(&orphan.hash).await.expect("find"), None);
    let revoke = async |subscription, key, time| {
        store.revoke_key(subscription, key, at(time), &audit()).await.expect("revoke")
    };
    assert!(!revoke(subscription_id(), second.id, NOON + 5).await, "another's key");
    assert!(!revoke(row.id, Uuid::now_v7(), NOON + 5).await, "no key");
    assert!(revoke(row.id, second.id, NOON + 5).await);
    assert!(revoke(row.id, second.id, NOON + 9).await, "again");
    let (found, _) = store.find_key(&second.hash).await.expect("find").expect("still known");
    assert_eq!(found.revoked_at, Some(at(NOON + 5)), "the first time counts");
}

async fn tokens_are_found_by_hash_and_revoked_once(fixture: Fixture) {
    let store = &fixture.store;
    let limited = TokenRow {
        tenant: Some("acme".to_owned()),
        subscriptions: Some(vec![subscription_id(), subscription_id()]),
        expires_at: Some(at(NOON + 1)),
        ..token()
    };
    let to_none = TokenRow { subscriptions: Some(Vec::new()), ..token() };
    for token in [&limited, &to_none] {
        store.insert_token(token, &audit()).await.expect("token");
        assert_eq!(store.find_token(&token.hash).await.expect("find").as_ref(), Some(token));
    }
    assert_eq!(conflict(store.insert_token(&limited, &audit()).await), "token");
    assert_eq!(store.find_token(&[0; 32]).await.expect("find"), None);
    let revoked = TokenRow { revoked_at: Some(at(NOON + 5)), ..limited.clone() };
    for time in [NOON + 5, NOON + 9] {
        let row = store.revoke_token(limited.id, at(time), &audit()).await.expect("revoke");
        assert_eq!(row.as_ref(), Some(&revoked));
    }
    let none = store.revoke_token(Uuid::now_v7(), at(NOON), &audit()).await.expect("revoke");
    assert_eq!(none, None);
    assert_eq!(store.list_tokens(None, 10).await.expect("list").data, [to_none]);
    assert_eq!(store.find_token(&limited.hash).await.expect("find"), Some(revoked));
}

async fn lists_come_in_pages(fixture: Fixture) {
    let store = &fixture.store;
    let mut subscriptions = Vec::new();
    for _ in 0..5 {
        subscriptions.push(fixture.subscription("default").await);
        store.insert_token(&token(), &audit()).await.expect("token");
    }
    let ids: Vec<_> = subscriptions.iter().map(|row| row.id).collect();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let filter = SubscriptionFilter { after, limit: 2, ..SubscriptionFilter::default() };
        let page = store.list_subscriptions(&filter).await.expect("list");
        seen.extend(page.data.iter().map(|row| row.id));
        after = seen.last().copied();
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, ids);
    let exact = SubscriptionFilter { limit: 5, ..SubscriptionFilter::default() };
    assert!(
        !store.list_subscriptions(&exact).await.expect("list").more,
        "a full page may be the last"
    );
    let plans = store.list_plans(None, 3).await.expect("plans");
    assert!(plans.more && plans.data.len() == 3);
    let rest = store.list_plans(plans.data.last().map(|plan| plan.id), 3).await.expect("plans");
    assert!(!rest.more && rest.data.len() == 2);
    let tokens = store.list_tokens(None, 4).await.expect("tokens");
    assert!(tokens.more);
    let rest =
        store.list_tokens(tokens.data.last().map(|token| token.id), 4).await.expect("tokens");
    assert_eq!(rest.data.len(), 1);
    let by_plan = SubscriptionFilter {
        plan: Some(subscriptions[2].plan),
        limit: 9,
        ..SubscriptionFilter::default()
    };
    assert_eq!(store.list_subscriptions(&by_plan).await.expect("list").data, subscriptions[2..3]);
    let by_name = SubscriptionFilter {
        external_id: subscriptions[3].external_id.clone(),
        limit: 9,
        ..SubscriptionFilter::default()
    };
    assert_eq!(store.list_subscriptions(&by_name).await.expect("list").data, subscriptions[3..4]);
}

async fn every_change_leaves_one_audit_entry(fixture: Fixture) {
    let store = &fixture.store;
    let row = fixture.subscription("default").await;
    assert_eq!(audits(&fixture).await, 2, "plan and subscription");
    let further = key(row.id);
    store.insert_key(&further, &audit()).await.expect("key");
    store.revoke_key(row.id, further.id, at(NOON), &audit()).await.expect("revoke");
    store.revoke_key(row.id, further.id, at(NOON), &audit()).await.expect("unchanged");
    store.update_subscription(&row, &audit()).await.expect("update");
    let token = token();
    store.insert_token(&token, &audit()).await.expect("token");
    store.revoke_token(token.id, at(NOON), &audit()).await.expect("revoke");
    store.revoke_token(token.id, at(NOON), &audit()).await.expect("unchanged");
    assert_eq!(audits(&fixture).await, 7);
    let entry = AuditRow {
        tenant: Some("acme".to_owned()),
        before: Some("1".to_owned()),
        after: None,
        reason: Some("asked for".to_owned()),
        ..audit()
    };
    store.insert_audit(&entry).await.expect("entry");
    let page = store.list_audit(None, None, 3).await.expect("audit");
    assert!(page.more);
    assert_eq!(page.data[0], entry, "newest first, every column back");
    let rest = store.list_audit(None, Some(page.data[2].id), 9).await.expect("audit");
    assert_eq!(rest.data.len(), 5);
    let acme = store.list_audit(Some("acme"), None, 9).await.expect("audit");
    assert_eq!(acme.data, [entry]);
}

async fn a_refused_change_leaves_none(fixture: Fixture) {
    let store = &fixture.store;
    let row = fixture.subscription("default").await;
    let before = audits(&fixture).await;
    let stale = SubscriptionRow { revision: 9, ..row.clone() };
    store.update_subscription(&stale, &audit()).await.expect_err("stale");
    store.delete_plan(row.plan, &audit()).await.expect_err("in use");
    store.insert_key(&key(subscription_id()), &audit()).await.expect_err("no subscription");
    let twin = SubscriptionRow { id: subscription_id(), ..row };
    store.insert_subscription(&twin, &key(twin.id), &audit()).await.expect_err("name taken");
    assert_eq!(audits(&fixture).await, before);
}

async fn changes_are_found_after_an_id_oldest_first(fixture: Fixture) {
    let store = &fixture.store;
    let entry = |action: &str| AuditRow { action: action.to_owned(), ..audit() };
    let entries = ["plan.update", "other", "token.revoke", "plan.update"].map(entry);
    // Written out of order, as transactions of several nodes are.
    for index in [2, 0, 3, 1] {
        store.insert_audit(&entries[index]).await.expect("entry");
    }
    let wanted = ["plan.update", "token.revoke"];
    let ids = |rows: Vec<AuditRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let [first, _, third, fourth] = &entries;
    let all = store.changes_after(Uuid::nil(), &wanted, 10).await.expect("changes");
    assert_eq!(ids(all), [first.id, third.id, fourth.id]);
    let page = store.changes_after(first.id, &wanted, 1).await.expect("changes");
    assert_eq!(ids(page), [third.id]);
    let none = store.changes_after(fourth.id, &wanted, 10).await.expect("changes");
    assert_eq!(ids(none), [] as [Uuid; 0]);
}
