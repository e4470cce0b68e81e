//! INV-1 and INV-2: what is appended is there once, whole, and comes back in order.

use std::sync::Arc;

use weir_core::units::{Seq, ShardId};
use weir_store::rows::{LedgerRow, RowKind};
use weir_store::{Fence, Store};

use crate::fixture::{DAY, Fixture, NOON, at, full_record, record, subscription_id};

crate::on_both_engines!(
    every_column_comes_back_as_it_was_written,
    a_known_identity_is_dropped_in_every_later_batch,
    the_kind_is_part_of_the_identity,
    batches_of_every_size_are_whole,
    the_same_events_at_the_same_time_are_counted_once,
    a_shard_is_read_after_a_position_in_order,
    days_long_gone_are_accepted,
    an_empty_batch_is_nothing,
);

async fn append(store: &Arc<dyn Store>, fence: &Fence, rows: &[LedgerRow]) -> Vec<bool> {
    store.append(fence, rows).await.expect("append").new
}

async fn ledger_of(store: &Arc<dyn Store>, shard: u16) -> Vec<LedgerRow> {
    store.ledger_after(&[(ShardId(shard), Seq(0))], 10_000).await.expect("ledger")
}

async fn every_column_comes_back_as_it_was_written(fixture: Fixture) {
    let owner = fixture.owner("a", &[3]).await;
    let subscription = subscription_id();
    let rows = [full_record(subscription, 3, 1), record(subscription, 3, 2)];
    assert_eq!(append(&fixture.store, &owner.fence, &rows).await, [true, true]);
    assert_eq!(ledger_of(&fixture.store, 3).await, rows);
    for row in &rows {
        let found = fixture.store.find_record(subscription, row.kind, &row.event_id).await;
        assert_eq!(found.expect("find").as_ref(), Some(row));
    }
    let none = fixture.store.find_record(subscription, RowKind::Reset, "event-2").await;
    assert_eq!(none.expect("find"), None);
}

async fn a_known_identity_is_dropped_in_every_later_batch(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let first = [record(subscription, 0, 1), record(subscription, 0, 2)];
    append(&fixture.store, &owner.fence, &first).await;
    let mut again = [record(subscription, 0, 2), record(subscription, 0, 3)];
    again[0].seq = Seq(9);
    assert_eq!(append(&fixture.store, &owner.fence, &again).await, [false, true]);
    // The very same batch, as after an outcome that nobody knew.
    assert_eq!(append(&fixture.store, &owner.fence, &first).await, [false, false]);
    let seqs: Vec<_> = ledger_of(&fixture.store, 0).await.iter().map(|row| row.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3], "the seq of a dropped row stays unused");
}

async fn the_kind_is_part_of_the_identity(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let kinds = [RowKind::Usage, RowKind::Adjustment, RowKind::Reset, RowKind::Commit];
    let rows: Vec<_> = (1..)
        .zip(kinds)
        .map(|(seq, kind)| LedgerRow {
            kind,
            event_id: "one".to_owned(),
            ..record(subscription, 0, seq)
        })
        .collect();
    assert_eq!(append(&fixture.store, &owner.fence, &rows).await, [true; 4]);
}

async fn batches_of_every_size_are_whole(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1]).await;
    let mut seq = 0;
    for size in [1, 2, 15, 16, 17, 127, 128, 129, 1_000] {
        let subscription = subscription_id();
        let rows: Vec<_> = (0..size)
            .map(|index| {
                seq += 1;
                record(subscription, u16::try_from(index % 2).expect("small"), seq)
            })
            .collect();
        let new = append(&fixture.store, &owner.fence, &rows).await;
        assert!(new.len() == size && new.iter().all(|new| *new), "{size} rows");
        // Every third is known already: which ones must come back exactly.
        let mixed: Vec<_> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| {
                seq += 1;
                let event_id =
                    if index % 3 == 0 { row.event_id.clone() } else { format!("new-{seq}") };
                LedgerRow { seq: Seq(seq), event_id, ..row.clone() }
            })
            .collect();
        let expected: Vec<_> = (0..size).map(|index| index % 3 != 0).collect();
        assert_eq!(append(&fixture.store, &owner.fence, &mixed).await, expected, "{size} rows");
    }
}

async fn the_same_events_at_the_same_time_are_counted_once(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let writers = (0..4_u64).map(|writer| {
        let (store, fence) = (Arc::clone(&fixture.store), owner.fence.clone());
        tokio::spawn(async move {
            let mut rows: Vec<_> = (0..50)
                .map(|event| LedgerRow {
                    event_id: format!("event-{event}"),
                    ..record(subscription, 0, 1 + writer * 50 + event)
                })
                .collect();
            // Each in an order of its own: none may wait for another that waits for it.
            rows.rotate_left(usize::try_from(writer * 13).expect("small"));
            append(&store, &fence, &rows).await.iter().filter(|new| **new).count()
        })
    });
    let mut new = 0;
    for writer in writers.collect::<Vec<_>>() {
        new += writer.await.expect("a writer");
    }
    assert_eq!(new, 50);
    assert_eq!(ledger_of(&fixture.store, 0).await.len(), 50);
}

async fn a_shard_is_read_after_a_position_in_order(fixture: Fixture) {
    let owner = fixture.owner("a", &[1, 2, 5]).await;
    // Later positions lie on earlier days, so that order by time would be the wrong one.
    let rows: Vec<_> = [1, 2, 5]
        .into_iter()
        .flat_map(|shard| (1..=20).map(move |seq| (shard, seq)))
        .map(|(shard, seq)| LedgerRow {
            event_time: at(NOON - i64::try_from(seq).expect("small") * DAY),
            ..record(subscription_id(), shard, seq)
        })
        .collect();
    append(&fixture.store, &owner.fence, &rows).await;
    let wanted = [(ShardId(5), Seq(18)), (ShardId(1), Seq(10)), (ShardId(3), Seq(0))];
    for (limit, expected) in [
        (100, vec![(1, 11, 20), (5, 19, 20)]),
        (11, vec![(1, 11, 20), (5, 19, 19)]),
        (3, vec![(1, 11, 13)]),
    ] {
        let found = fixture.store.ledger_after(&wanted, limit).await.expect("ledger");
        let places: Vec<_> = found.iter().map(|row| (row.shard.0, row.seq.0)).collect();
        let expected: Vec<_> = expected
            .into_iter()
            .flat_map(|(shard, from, to)| (from..=to).map(move |seq| (shard, seq)))
            .collect();
        assert_eq!(places, expected, "limit {limit}");
    }
}

async fn days_long_gone_are_accepted(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = subscription_id();
    let days = [0, -DAY, 10_000 * DAY, NOON + 4_000 * DAY, 1, DAY - 1];
    let rows: Vec<_> = (1..)
        .zip(days)
        .map(|(seq, time)| LedgerRow { event_time: at(time), ..record(subscription, 0, seq) })
        .collect();
    assert_eq!(append(&fixture.store, &owner.fence, &rows).await, [true; 6]);
    assert_eq!(ledger_of(&fixture.store, 0).await, rows);
}

async fn an_empty_batch_is_nothing(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    assert!(append(&fixture.store, &owner.fence, &[]).await.is_empty());
}
