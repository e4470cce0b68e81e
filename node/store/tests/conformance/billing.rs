//! Billing in the store: one job at a time, each change whole, each charge once, whatever is repeated,
//! overtaken, or told only half.

use uuid::Uuid;
use weir_core::units::{Micros, PlanId, ShardId, SubscriptionId};
use weir_store::Error;
use weir_store::billing::{
    BillingChange, ChargeFilter, ChargeKind, ChargeRow, JobLease, PeriodFilter, PeriodRow,
    PeriodStatus,
};
use weir_store::rows::{CheckpointBatch, OutboxRow, PeriodDelta};

use crate::fixture::{
    DAY, Fixture, NOON, SECOND, at, audit, batch, checkpoint, everything, record,
};

crate::on_both_engines!(
    a_job_is_one_nodes_until_its_lease_runs_out,
    a_change_is_written_whole_and_once,
    a_change_that_fails_anywhere_leaves_nothing,
    who_was_overtaken_changes_nothing,
    two_that_read_the_same_charges_write_one,
    what_billing_reads_is_one_moment,
    settled_periods_are_read_no_more_until_they_change,
    charges_and_periods_are_listed_in_order,
    a_deleted_plan_can_still_be_priced,
);

async fn lease(fixture: &Fixture, now: i64) -> JobLease {
    let taken =
        fixture.store.take_job("billing", Uuid::now_v7(), at(now), at(now + 30 * SECOND)).await;
    taken.expect("take").expect("nobody has it")
}

fn account(subscription: SubscriptionId, charges: i32, sum: &str) -> PeriodRow {
    PeriodRow {
        subscription,
        quota: "requests".to_owned(),
        meter: "requests".to_owned(),
        start: at(NOON),
        end: at(NOON + DAY),
        used: 0,
        quota_limit: Some(100),
        plan: PlanId::from_uuid(Uuid::from_u128(2)),
        plan_version: 1,
        status: PeriodStatus::Open,
        usage_snapshot: None,
        charges,
        charged: sum.to_owned(),
        charged_units: 50,
        currency: Some("USD".to_owned()),
        booked_used: 0,
        closed_at: None,
    }
}

fn charge(subscription: SubscriptionId, number: i32) -> ChargeRow {
    ChargeRow {
        id: Uuid::now_v7(),
        subscription,
        quota: "requests".to_owned(),
        meter: "requests".to_owned(),
        start: at(NOON),
        end: at(NOON + DAY),
        number,
        kind: ChargeKind::Overage,
        amount: "170141183460469231731687303715884105727".to_owned(),
        currency: "USD".to_owned(),
        units: 50,
        description: "Overage".to_owned(),
        corrects: None,
        created_at: at(NOON),
        idempotency_key: format!("overage/{subscription}/requests/{NOON}/{number}"),
    }
}

fn message(subscription: SubscriptionId, key: &str) -> OutboxRow {
    OutboxRow {
        id: Uuid::now_v7(),
        subscription,
        kind: "overage_charge".to_owned(),
        priority: 0,
        idempotency_key: key.to_owned(),
        payload: "{}".to_owned(),
        created_at: at(NOON),
    }
}

/// One charge more, as the job writes it.
fn growth(subscription: SubscriptionId, number: i32) -> BillingChange {
    let charge = charge(subscription, number);
    BillingChange {
        lease_until: at(NOON + 60 * SECOND),
        periods: vec![account(subscription, number, "100")],
        outbox: vec![message(subscription, &charge.idempotency_key)],
        charges: vec![charge],
    }
}

async fn check_counts(fixture: &Fixture, charges: i64, messages: i64, periods: i64) {
    let found = (
        fixture.number("SELECT count(*) FROM charges").await,
        fixture.number("SELECT count(*) FROM event_queue").await,
        fixture.number("SELECT count(*) FROM billing_periods").await,
    );
    assert_eq!(found, (charges, messages, periods));
}

async fn a_job_is_one_nodes_until_its_lease_runs_out(fixture: Fixture) {
    let store = &fixture.store;
    let take = async |job: &str, now: i64| {
        store.take_job(job, Uuid::now_v7(), at(now), at(now + 10)).await.expect("take")
    };
    let first = take("billing", 100).await.expect("free");
    assert_eq!(take("billing", 109).await, None);
    assert!(take("other", 109).await.is_some(), "another job is another lease");
    assert!(store.keep_job(&first, at(200)).await.expect("keep"));
    assert_eq!(take("billing", 199).await, None, "it was prolonged");
    let second = take("billing", 200).await.expect("run out");
    assert!(second.token > first.token, "{second:?} after {first:?}");
    assert!(!store.keep_job(&first, at(900)).await.expect("keep"), "lost");
    // Given back.
    assert!(store.keep_job(&second, Micros::EPOCH).await.expect("keep"));
    assert!(take("billing", 201).await.is_some());
}

async fn a_change_is_written_whole_and_once(fixture: Fixture) {
    let subscription = fixture.subscription("default").await.id;
    let lease = lease(&fixture, NOON).await;
    let change = growth(subscription, 1);
    fixture.store.bill(&lease, &change).await.expect("bill");
    check_counts(&fixture, 1, 1, 1).await;
    // The answer was lost and the same is written again.
    let again = fixture.store.bill(&lease, &change).await;
    assert!(matches!(again, Err(Error::Conflict { with: "charges", .. })), "{again:?}");
    check_counts(&fixture, 1, 1, 1).await;
    fixture.store.bill(&lease, &growth(subscription, 2)).await.expect("the next one");
    check_counts(&fixture, 2, 2, 1).await;
    let filter = ChargeFilter { limit: 9, ..ChargeFilter::default() };
    let listed = fixture.store.list_charges(&filter).await.expect("list").data;
    assert_eq!(listed[1], change.charges[0], "every column comes back");
}

async fn a_change_that_fails_anywhere_leaves_nothing(fixture: Fixture) {
    let subscription = fixture.subscription("default").await.id;
    let lease = lease(&fixture, NOON).await;
    // Of its parts, one at a time is what the database will not have.
    let twice = BillingChange {
        charges: vec![charge(subscription, 1), charge(subscription, 1)],
        periods: vec![account(subscription, 2, "100")],
        ..growth(subscription, 1)
    };
    let gap = BillingChange {
        periods: vec![account(subscription, 1, "100"), account(subscription, 3, "100")],
        ..growth(subscription, 1)
    };
    let mut message_twice = growth(subscription, 1);
    let other = message(subscription, "another");
    message_twice.outbox = vec![
        message_twice.outbox[0].clone(),
        OutboxRow { id: message_twice.outbox[0].id, ..other },
    ];
    for change in [twice, gap, message_twice] {
        fixture.store.bill(&lease, &change).await.expect_err("a part cannot be written");
        check_counts(&fixture, 0, 0, 0).await;
    }
    fixture.store.bill(&lease, &growth(subscription, 1)).await.expect("a rerun charges");
    check_counts(&fixture, 1, 1, 1).await;
}

async fn who_was_overtaken_changes_nothing(fixture: Fixture) {
    let subscription = fixture.subscription("default").await.id;
    let old = lease(&fixture, NOON).await;
    let new = lease(&fixture, NOON + 31 * SECOND).await;
    let late = fixture.store.bill(&old, &growth(subscription, 1)).await;
    assert!(matches!(late, Err(Error::Conflict { with: "job", .. })), "{late:?}");
    check_counts(&fixture, 0, 0, 0).await;
    fixture.store.bill(&new, &growth(subscription, 1)).await.expect("bill");
    // Writing prolongs the lease.
    let taken = fixture.store.take_job("billing", Uuid::now_v7(), at(NOON + 59 * SECOND), at(0));
    assert_eq!(taken.await.expect("take"), None);
}

async fn two_that_read_the_same_charges_write_one(fixture: Fixture) {
    let subscription = fixture.subscription("default").await.id;
    let lease = lease(&fixture, NOON).await;
    let writes = (0..8).map(|turn| {
        let (store, lease) = (fixture.store.clone(), lease.clone());
        let mut change = growth(subscription, 1);
        change.charges[0].amount = turn.to_string();
        tokio::spawn(async move { store.bill(&lease, &change).await })
    });
    let mut written = 0;
    for write in writes.collect::<Vec<_>>() {
        match write.await.expect("a task") {
            Ok(()) => written += 1,
            Err(error) => assert!(matches!(error, Error::Conflict { .. }), "{error:?}"),
        }
    }
    assert_eq!(written, 1);
    check_counts(&fixture, 1, 1, 1).await;
}

fn delta(subscription: SubscriptionId, start: i64, until: Micros, used_delta: i64) -> PeriodDelta {
    PeriodDelta {
        subscription,
        quota: "requests".to_owned(),
        meter: "requests".to_owned(),
        start: at(start),
        end: at(start + DAY),
        used_delta,
        quota_limit: Some(100),
        until,
        plan: PlanId::from_uuid(Uuid::from_u128(2)),
        plan_version: 1,
        priced_as: "requests".to_owned(),
        overage_from: Some(100),
    }
}

async fn what_billing_reads_is_one_moment(fixture: Fixture) {
    let store = &fixture.store;
    let owner = fixture.owner("a", &[3]).await;
    let subscription = fixture.subscription("default").await.id;
    let rows: Vec<_> = (1..=5).map(|seq| record(subscription, 3, seq)).collect();
    store.append(&owner.fence, &rows).await.expect("append");
    let early = at(NOON + 60 * SECOND);
    let written = CheckpointBatch {
        periods: vec![
            delta(subscription, NOON - DAY, Micros::MAX, 4),
            delta(subscription, NOON - DAY, early, 3),
            delta(subscription, NOON - DAY, Micros::MAX, 2),
        ],
        counted: vec![(ShardId(3), weir_core::units::Seq(2))],
        ..batch(1, vec![checkpoint(&owner, subscription, 3, 1, 3)])
    };
    store.checkpoint(&owner.fence, &written).await.expect("checkpoint");
    let states = store.billing_states(&[(subscription, ShardId(3))], &[]).await.expect("read");
    assert_eq!(states.len(), 1);
    let state = &states[0];
    let tail: Vec<_> = state.loaded.tail.iter().map(|row| row.seq.0).collect();
    assert_eq!(tail, [4, 5], "what the checkpoint has not");
    let used: Vec<_> = state.periods.iter().map(|row| row.used).collect();
    assert_eq!(used, [9]);
    let parts: Vec<_> = state.segments.iter().map(|row| (row.until, row.used)).collect();
    assert_eq!(parts, [(early, 3), (Micros::MAX, 6)]);
    assert!(store.billing_states(&[], &[]).await.expect("read").is_empty());
}

async fn settled_periods_are_read_no_more_until_they_change(fixture: Fixture) {
    let store = &fixture.store;
    let owner = fixture.owner("a", &[3]).await;
    let subscription = fixture.subscription("default").await.id;
    let told = |number, used| CheckpointBatch {
        periods: vec![delta(subscription, NOON, Micros::MAX, used)],
        ..batch(number, vec![])
    };
    store.checkpoint(&owner.fence, &told(1, 150)).await.expect("checkpoint");
    let open = async || {
        let states = store.billing_states(&[(subscription, ShardId(3))], &[]).await.expect("read");
        states[0].periods.iter().map(|row| (row.used, row.status)).collect::<Vec<_>>()
    };
    assert_eq!(open().await, [(150, PeriodStatus::Open)]);
    let lease = lease(&fixture, NOON).await;
    let mut close = growth(subscription, 1);
    close.periods[0] = PeriodRow {
        status: PeriodStatus::Closed,
        usage_snapshot: Some("{}".to_owned()),
        booked_used: 150,
        closed_at: Some(at(NOON)),
        ..close.periods[0].clone()
    };
    store.bill(&lease, &close).await.expect("bill");
    assert_eq!(open().await, []);
    let named = [("requests".to_owned(), at(NOON)), ("requests".to_owned(), at(NOON + DAY))];
    let states = store.billing_states(&[(subscription, ShardId(3))], &named).await.expect("read");
    let (periods, parts) = (&states[0].periods, &states[0].segments);
    assert_eq!((periods.len(), parts.len()), (1, 1), "one that is settled, when asked for");
    store.checkpoint(&owner.fence, &told(2, 7)).await.expect("checkpoint");
    assert_eq!(open().await, [(157, PeriodStatus::Closed)], "changed since");
    let filter = PeriodFilter { subscription, only: None, after: None, limit: 9 };
    let listed = store.list_periods(&filter).await.expect("list").data;
    assert_eq!(listed, [PeriodRow { used: 157, ..close.periods[0].clone() }]);
}

async fn charges_and_periods_are_listed_in_order(fixture: Fixture) {
    let store = &fixture.store;
    let (one, two) = (fixture.subscription("a").await.id, fixture.subscription("b").await.id);
    let lease = lease(&fixture, NOON).await;
    for (subscription, number) in [(one, 1), (two, 1), (one, 2)] {
        store.bill(&lease, &growth(subscription, number)).await.expect("bill");
    }
    let mut filter = ChargeFilter { reach: everything(), limit: 2, ..ChargeFilter::default() };
    let page = store.list_charges(&filter).await.expect("list");
    let told = |rows: &[ChargeRow]| -> Vec<_> {
        rows.iter().map(|row| (row.subscription, row.number)).collect()
    };
    assert_eq!((told(&page.data), page.more), (vec![(one, 2), (two, 1)], true));
    filter.before = page.data.last().map(|row| row.id);
    let page = store.list_charges(&filter).await.expect("list");
    assert_eq!((told(&page.data), page.more), (vec![(one, 1)], false));
    let mut filter = ChargeFilter { limit: 9, ..ChargeFilter::default() };
    filter.reach.tenant = Some("b".to_owned());
    assert_eq!(told(&store.list_charges(&filter).await.expect("list").data), [(two, 1)]);
    let filter = ChargeFilter { subscription: Some(one), kind: Some(1), ..filter };
    assert!(store.list_charges(&filter).await.expect("list").data.is_empty());

    let mut change = BillingChange { lease_until: at(NOON + DAY), ..BillingChange::default() };
    for (start, quota) in [(NOON - DAY, "b"), (NOON - DAY, "a"), (NOON, "c")] {
        let (start, end) = (at(start), at(start + DAY));
        change.periods.push(PeriodRow {
            start,
            end,
            quota: quota.to_owned(),
            ..account(one, 0, "0")
        });
    }
    store.bill(&lease, &change).await.expect("bill");
    let mut filter = PeriodFilter { subscription: one, only: None, after: None, limit: 2 };
    let page = store.list_periods(&filter).await.expect("list");
    let told = |rows: &[PeriodRow]| -> Vec<_> {
        rows.iter().map(|row| (row.start.get() - NOON, row.quota.clone())).collect()
    };
    let (c, requests) = ((0, "c".to_owned()), (0, "requests".to_owned()));
    assert_eq!((told(&page.data), page.more), (vec![c, requests], true));
    filter.after = page.data.last().map(|row| (row.start, row.quota.clone()));
    let page = store.list_periods(&filter).await.expect("list");
    let rest = vec![(-DAY, "a".to_owned()), (-DAY, "b".to_owned())];
    assert_eq!((told(&page.data), page.more), (rest, false));
    filter.only = Some(("a".to_owned(), at(NOON - DAY)));
    filter.after = None;
    assert_eq!(store.list_periods(&filter).await.expect("list").data.len(), 1);
}

async fn a_deleted_plan_can_still_be_priced(fixture: Fixture) {
    let store = &fixture.store;
    let plan = crate::fixture::plan();
    store.insert_plan(&plan, &audit()).await.expect("plan");
    assert_eq!(store.find_retired_plan(plan.id, 1).await.expect("find"), None);
    store.delete_plan(plan.id, &audit()).await.expect("delete");
    assert_eq!(store.find_plan(plan.id, None).await.expect("find"), None);
    assert_eq!(store.find_retired_plan(plan.id, 1).await.expect("find"), Some(plan.clone()));
    assert_eq!(store.find_retired_plan(plan.id, 2).await.expect("find"), None);
}
