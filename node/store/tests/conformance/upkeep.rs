//! Upkeep: room is made ahead; identities and reservations older than the accept window are
//! forgotten.

use weir_core::units::{Seq, ShardId};
use weir_store::rows::{CheckpointBatch, LedgerRow, ReservationRow};

use crate::fixture::{DAY, Fixture, NOON, at, batch, record, reservation, subscription_id};

crate::on_both_engines!(
    identities_of_old_are_forgotten_and_their_rows_stay,
    reservations_whose_holds_returned_long_ago_are_forgotten,
    upkeep_may_run_at_any_time,
);

async fn identities_of_old_are_forgotten_and_their_rows_stay(fixture: Fixture) {
    let store = &fixture.store;
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let recorded = |seq: u64| LedgerRow {
        recorded_at: at(NOON + i64::try_from(seq).expect("small")),
        ..record(subscription, 0, seq)
    };
    let rows: Vec<_> = (1..=10).map(recorded).collect();
    store.append(&owner.fence, &rows).await.expect("append");
    assert_eq!(store.maintain(at(NOON), 2, at(NOON + 4)).await.expect("maintain"), 3);
    assert_eq!(store.maintain(at(NOON), 2, at(NOON + 4)).await.expect("maintain"), 0);
    assert_eq!(store.ledger_after(&[(ShardId(0), Seq(0))], 99).await.expect("ledger"), rows);
    let again: Vec<_> =
        (1..=10).map(|seq| LedgerRow { seq: Seq(seq + 10), ..recorded(seq) }).collect();
    let new = store.append(&owner.fence, &again).await.expect("append").new;
    assert_eq!(new.iter().filter(|new| **new).count(), 3, "only the forgotten are new again");
}

async fn reservations_whose_holds_returned_long_ago_are_forgotten(fixture: Fixture) {
    let store = &fixture.store;
    let owner = fixture.owner("a", &[0]).await;
    // More than one transaction takes, and those on the edge.
    let expires = (0..10_500).map(|_| NOON).chain([NOON + 3, NOON + 4, NOON + 5]);
    let subscription = subscription_id();
    let rows: Vec<_> = expires
        .map(|time| ReservationRow { expires_at: at(time), ..reservation(subscription) })
        .collect();
    let batch = CheckpointBatch { reservations: rows.clone(), ..batch(1, vec![]) };
    store.checkpoint(&owner.fence, &batch).await.expect("checkpoint");
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    assert_eq!(store.find_reservations(&ids).await.expect("find").len(), rows.len());
    for _ in 0..2 {
        let identities = store.maintain(at(NOON), 2, at(NOON + 4)).await.expect("maintain");
        assert_eq!(identities, 0);
        let mut left = store.find_reservations(&ids).await.expect("find");
        left.sort_unstable_by_key(|row| row.expires_at);
        assert_eq!(left, rows[rows.len() - 2..]);
    }
}

async fn upkeep_may_run_at_any_time(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let upkeep = (0..4).map(|turn| {
        let store = std::sync::Arc::clone(&fixture.store);
        tokio::spawn(async move { store.maintain(at(NOON + turn * DAY), 5, at(0)).await })
    });
    let upkeep: Vec<_> = upkeep.collect();
    for day in 0..8 {
        let time = at(NOON + day * DAY);
        let row =
            LedgerRow { event_time: time, ..record(subscription_id(), 0, 1 + day.unsigned_abs()) };
        fixture.store.append(&owner.fence, &[row]).await.expect("append");
    }
    for turn in upkeep {
        turn.await.expect("a task").expect("maintain");
    }
}
