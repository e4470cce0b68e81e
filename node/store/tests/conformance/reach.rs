//! Reach: what a token may not see is not there, whichever way it looks.

use weir_core::units::{Seq, ShardId, SubscriptionId};
use weir_store::rows::{RollupRow, RollupSums, SubscriptionRow};
use weir_store::{CursorMove, Reach, SubscriptionFilter};

use crate::fixture::{
    Fixture, MINUTE, NOON, at, batch, checkpoint, everything, record, subscription_id,
};

crate::on_both_engines!(every_reader_sees_exactly_what_is_within_reach);

async fn every_reader_sees_exactly_what_is_within_reach(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1]).await;
    let mut rows = Vec::new();
    for tenant in ["acme", "acme", "other"] {
        rows.push(fixture.subscription(tenant).await);
    }
    // Each has one event that is rolled (shard 0) and one that is not (shard 1).
    for (seq, row) in (1..).zip(&rows) {
        let events = [0, 1].map(|shard| weir_store::rows::LedgerRow {
            event_id: format!("{shard}"),
            ..record(row.id, shard, seq)
        });
        fixture.store.append(&owner.fence, &events).await.expect("append");
    }
    let rollups: Vec<_> = rows.iter().map(|row| rollup(row.id)).collect();
    let cursor = CursorMove { shard: ShardId(0), from: Seq(0), to: Seq(3) };
    let rolled = fixture.store.roll(&owner.fence, &[cursor], &rollups, &|a, _| a.to_vec()).await;
    rolled.expect("roll");
    let states = rows.iter().map(|row| checkpoint(&owner, row.id, 0, 1, 1)).collect();
    fixture.store.checkpoint(&owner.fence, &batch(1, states)).await.expect("checkpoint");

    let tenant = |name: &str| Reach { tenant: Some(name.to_owned()), subscriptions: None };
    let named = |ids: Vec<SubscriptionId>| Reach { tenant: None, subscriptions: Some(ids) };
    let (a, b, c) = (rows[0].id, rows[1].id, rows[2].id);
    for (reach, visible) in [
        (everything(), vec![a, b, c]),
        (tenant("acme"), vec![a, b]),
        (tenant("other"), vec![c]),
        (tenant("nobody"), vec![]),
        (named(vec![b, c, subscription_id()]), vec![b, c]),
        (named(vec![]), vec![]),
        (Reach { subscriptions: Some(vec![b, c]), ..tenant("acme") }, vec![b]),
    ] {
        assert_sees(&fixture, &rows, &reach, &visible).await;
    }
}

async fn assert_sees(
    fixture: &Fixture,
    rows: &[SubscriptionRow],
    reach: &Reach,
    visible: &[SubscriptionId],
) {
    let store = &fixture.store;
    for row in rows {
        let found = store.find_subscription(row.id, reach).await.expect("find").is_some();
        assert_eq!(found, visible.contains(&row.id), "find under {reach:?}");
    }
    let filter =
        SubscriptionFilter { reach: reach.clone(), limit: 10, ..SubscriptionFilter::default() };
    let listed = store.list_subscriptions(&filter).await.expect("list").data;
    assert_eq!(
        listed.iter().map(|row| row.id).collect::<Vec<_>>(),
        visible,
        "list under {reach:?}"
    );
    assert_eq!(store.count_subscriptions(reach).await.expect("count"), visible.len() as u64);
    let (from, to) = (at(NOON), at(NOON + MINUTE));
    let usage = store.usage_by_subscription(reach, from, to, 10).await.expect("usage");
    let mut used: Vec<_> = usage.iter().map(|usage| usage.subscription).collect();
    used.sort_unstable();
    assert_eq!(used, visible, "usage under {reach:?}");
    assert!(usage.iter().all(|usage| usage.sums.requests == 2), "rolled and not rolled");
    let totals = store.usage_totals(reach, from, to).await.expect("totals");
    assert_eq!(totals.requests, 2 * i64::try_from(visible.len()).expect("small"), "{reach:?}");
    let fullest = store.fullest(reach, at(NOON), 10).await.expect("fullest");
    let mut full: Vec<_> = fullest.iter().map(|row| row.subscription).collect();
    full.sort_unstable();
    assert_eq!(full, visible, "fullest under {reach:?}");
}

fn rollup(subscription: SubscriptionId) -> RollupRow {
    RollupRow {
        subscription,
        minute: at(NOON),
        path: "/v1/search".to_owned(),
        method: "GET".to_owned(),
        sums: RollupSums { requests: 1, ..RollupSums::default() },
        detail: Vec::new(),
    }
}
