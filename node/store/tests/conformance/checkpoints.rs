//! Checkpoints: repeated safely, never set back, and with the ledger after them enough to start
//! from.

use uuid::Uuid;
use weir_core::units::{Epoch, Micros, PlanId, Seq, ShardId};
use weir_store::rows::{
    CheckpointBatch, CheckpointRow, OutboxRow, PeriodDelta, ReservationRow, SubscriptionStatus,
};
use weir_store::{Error, Loaded};

use crate::fixture::{
    DAY, Fixture, NOON, Owner, at, audit, batch, checkpoint, plan, record, reservation,
    subscription_id,
};

crate::on_both_engines!(
    what_is_written_is_what_is_loaded,
    the_same_batch_again_changes_nothing,
    a_batch_out_of_turn_is_refused,
    lanes_count_apart,
    an_older_version_never_replaces_a_newer_one,
    an_actor_starts_from_its_checkpoint_and_the_tail,
    many_are_loaded_at_once_and_the_unknown_are_absent,
    a_reservation_is_written_once_and_found_among_others,
    a_plan_switch_happens_once_and_never_over_a_later_choice,
    counted_only_grows,
    a_large_batch_is_whole,
);

async fn load(fixture: &Fixture, id: weir_core::units::SubscriptionId, shard: u16) -> Loaded {
    let loaded = fixture.store.load(&[(id, ShardId(shard), Seq(0))]).await.expect("load");
    loaded.into_iter().next().expect("the subscription exists")
}

fn delta(
    subscription: weir_core::units::SubscriptionId,
    start: i64,
    used_delta: i64,
) -> PeriodDelta {
    PeriodDelta {
        subscription,
        quota: "monthly".to_owned(),
        meter: "requests".to_owned(),
        start: at(start),
        end: at(start + 30 * DAY),
        used_delta,
        quota_limit: None,
        until: Micros::MAX,
        plan: PlanId::from_uuid(Uuid::now_v7()),
        plan_version: 1,
        priced_as: "monthly".to_owned(),
        overage_from: None,
    }
}

fn message(subscription: weir_core::units::SubscriptionId, key: &str) -> OutboxRow {
    OutboxRow {
        id: Uuid::now_v7(),
        subscription,
        kind: "quota_warning".to_owned(),
        priority: 5,
        idempotency_key: key.to_owned(),
        payload: "{}".to_owned(),
        created_at: at(NOON),
    }
}

async fn what_is_written_is_what_is_loaded(fixture: Fixture) {
    let owner = fixture.owner("a", &[2]).await;
    let subscription = fixture.subscription("default").await;
    let written = CheckpointRow {
        quota_limit: None,
        clean: true,
        snapshot: (0..=255).cycle().take(5_000).collect(),
        ..checkpoint(&owner, subscription.id, 2, 1, 7)
    };
    fixture.store.checkpoint(&owner.fence, &batch(1, vec![written.clone()])).await.expect("write");
    let loaded = load(&fixture, subscription.id, 2).await;
    assert_eq!(loaded.checkpoint, Some(written));
    assert_eq!(loaded.plan_version, 1);
    assert_eq!(loaded.subscription.requests_used, 7, "the catalogue shows what is used");
    assert_eq!(loaded.subscription.revision, subscription.revision, "which is no change of it");
}

async fn the_same_batch_again_changes_nothing(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = fixture.subscription("default").await;
    let whole = CheckpointBatch {
        periods: vec![delta(subscription.id, NOON, 5), delta(subscription.id, NOON, 2)],
        outbox: vec![message(subscription.id, "k1"), message(subscription.id, "k1")],
        reservations: vec![reservation(subscription.id)],
        counted: vec![(ShardId(0), Seq(3))],
        ..batch(1, vec![checkpoint(&owner, subscription.id, 0, 1, 3)])
    };
    for _ in 0..3 {
        fixture.store.checkpoint(&owner.fence, &whole).await.expect("the same again");
    }
    // The next batch adds to the period: were the repeats counted, the sum would be another.
    let next =
        CheckpointBatch { periods: vec![delta(subscription.id, NOON, 1)], ..batch(2, vec![]) };
    fixture.store.checkpoint(&owner.fence, &next).await.expect("next");
    let used = "SELECT CAST(sum(used) AS BIGINT) FROM billing_periods";
    assert_eq!(fixture.number(used).await, 5 + 2 + 1);
    assert_eq!(fixture.number("SELECT count(*) FROM event_queue").await, 1);
    // Even after the shard was lost: what stands is what was asked for.
    Owner::claim(&fixture.store, owner.incarnation, &[0]).await;
    fixture.store.checkpoint(&owner.fence, &next).await.expect("it stands");
    assert_eq!(fixture.number(used).await, 5 + 2 + 1);
}

async fn a_batch_out_of_turn_is_refused(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let write = async |number| fixture.store.checkpoint(&owner.fence, &batch(number, vec![])).await;
    assert!(matches!(write(2).await, Err(Error::Conflict { with: "batch number", .. })));
    write(1).await.expect("the first");
    write(2).await.expect("the second");
    for number in [0, 1, 4] {
        assert!(
            matches!(write(number).await, Err(Error::Conflict { .. })),
            "batch {number} after batch 2"
        );
    }
    write(3).await.expect("the third");
}

async fn lanes_count_apart(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    for (lane, number) in [(0, 1), (1, 1), (0, 2), (7, 1), (1, 2)] {
        let batch = CheckpointBatch { lane, ..batch(number, vec![]) };
        fixture.store.checkpoint(&owner.fence, &batch).await.expect("its lane's turn");
    }
}

async fn an_older_version_never_replaces_a_newer_one(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let subscription = fixture.subscription("default").await;
    let newer = checkpoint(&owner, subscription.id, 0, 5, 9);
    fixture.store.checkpoint(&owner.fence, &batch(1, vec![newer.clone()])).await.expect("newer");
    let stale = [
        checkpoint(&owner, subscription.id, 0, 4, 8),
        checkpoint(&owner, subscription.id, 0, 5, 8),
        CheckpointRow {
            epoch: Epoch(owner.epoch(0).0 - 1),
            ..checkpoint(&owner, subscription.id, 0, 6, 8)
        },
    ];
    for (number, row) in (2..).zip(stale) {
        fixture.store.checkpoint(&owner.fence, &batch(number, vec![row])).await.expect("ignored");
        let loaded = load(&fixture, subscription.id, 0).await;
        assert_eq!(loaded.checkpoint.as_ref(), Some(&newer));
        assert_eq!(loaded.subscription.requests_used, 9, "nor does the catalogue go back");
    }
    // A new epoch counts its versions from the start.
    let owner = Owner::claim(&fixture.store, owner.incarnation, &[0]).await;
    let first = checkpoint(&owner, subscription.id, 0, 1, 10);
    fixture.store.checkpoint(&owner.fence, &batch(5, vec![first.clone()])).await.expect("newer");
    assert_eq!(load(&fixture, subscription.id, 0).await.checkpoint, Some(first));
}

async fn an_actor_starts_from_its_checkpoint_and_the_tail(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1]).await;
    let subscription = fixture.subscription("default").await;
    let other = fixture.subscription("default").await;
    let rows: Vec<_> = (1..=10)
        .map(|seq| {
            // The neighbour in the shard has every third row; events arrive out of order.
            let id = if seq % 3 == 0 { other.id } else { subscription.id };
            let time = at(NOON - i64::try_from(seq).expect("small") * DAY);
            weir_store::rows::LedgerRow { event_time: time, ..record(id, 0, seq) }
        })
        .collect();
    fixture.store.append(&owner.fence, &rows).await.expect("append");
    let loaded = load(&fixture, subscription.id, 0).await;
    let seqs: Vec<_> = loaded.tail.iter().map(|row| row.seq.0).collect();
    assert_eq!(seqs, [1, 2, 4, 5, 7, 8, 10], "without a checkpoint, everything");
    let state = checkpoint(&owner, subscription.id, 0, 1, 5);
    fixture.store.checkpoint(&owner.fence, &batch(1, vec![state])).await.expect("checkpoint");
    for counted in [0, 3, 5] {
        let wanted = [(subscription.id, ShardId(0), Seq(counted))];
        let loaded = fixture.store.load(&wanted).await.expect("load");
        let seqs: Vec<_> = loaded[0].tail.iter().map(|row| row.seq.0).collect();
        assert_eq!(seqs, [7, 8, 10], "counted up to {counted}");
        assert_eq!(loaded[0].tail[0], rows[6], "rows come whole");
    }
}

async fn many_are_loaded_at_once_and_the_unknown_are_absent(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1, 2]).await;
    let mut wanted = Vec::new();
    for number in 0..30 {
        let subscription = fixture.subscription("default").await;
        let shard = number % 3;
        let row = record(subscription.id, shard, 1 + u64::from(number));
        fixture.store.append(&owner.fence, &[row]).await.expect("append");
        wanted.push((subscription.id, ShardId(shard), Seq(0)));
    }
    wanted.push((subscription_id(), ShardId(0), Seq(0)));
    let deleted = fixture.subscription("default").await;
    let gone = weir_store::rows::SubscriptionRow {
        status: SubscriptionStatus::Deleted,
        ..deleted.clone()
    };
    fixture.store.update_subscription(&gone, &audit()).await.expect("delete");
    wanted.push((deleted.id, ShardId(0), Seq(0)));
    let loaded = fixture.store.load(&wanted).await.expect("load");
    assert_eq!(loaded.len(), 31, "the unknown one is absent, the deleted one is not");
    let tails = loaded.iter().filter(|loaded| {
        loaded.tail.len() == 1 && loaded.tail[0].subscription == loaded.subscription.id
    });
    assert_eq!(tails.count(), 30, "each has its own row");
    assert!(fixture.store.load(&[]).await.expect("nothing").is_empty());
}

async fn a_reservation_is_written_once_and_found_among_others(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let made = reservation(subscription_id());
    let write = async |number, rows: Vec<_>| {
        let batch = CheckpointBatch { reservations: rows, ..batch(number, vec![]) };
        fixture.store.checkpoint(&owner.fence, &batch).await.expect("checkpoint");
        fixture.store.find_reservation(made.id).await.expect("find")
    };
    assert_eq!(fixture.store.find_reservation(made.id).await.expect("find"), None);
    assert_eq!(write(1, vec![made.clone()]).await, Some(made.clone()));
    let other = ReservationRow { expires_at: at(NOON + 5), ..made.clone() };
    assert_eq!(write(2, vec![other.clone()]).await, Some(made.clone()), "it stays as it was");
    let more: Vec<_> = (0..300).map(|_| reservation(made.subscription)).collect();
    // Twice in one batch, as after a batch that was taken and never written.
    let repeated = more.iter().chain(&more).cloned().collect();
    write(3, repeated).await;
    let unknown = reservation(made.subscription).id;
    let wanted: Vec<_> = more.iter().map(|row| row.id).chain([unknown, made.id]).collect();
    let mut found = fixture.store.find_reservations(&wanted).await.expect("find");
    found.sort_unstable_by_key(|row| row.id.uuid());
    let mut expected: Vec<_> = more.into_iter().chain([made]).collect();
    expected.sort_unstable_by_key(|row| row.id.uuid());
    assert_eq!(found, expected);
    assert!(fixture.store.find_reservations(&[]).await.expect("nothing").is_empty());
}

async fn a_plan_switch_happens_once_and_never_over_a_later_choice(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let (second, third) = (plan(), plan());
    for plan in [&second, &third] {
        fixture.store.insert_plan(plan, &audit()).await.expect("plan");
    }
    let subscription = fixture.subscription("default").await;
    let waiting =
        weir_store::rows::SubscriptionRow { next_plan: Some(second.id), ..subscription.clone() };
    fixture.store.update_subscription(&waiting, &audit()).await.expect("wait");
    let switch = async |number, plan| {
        let batch = CheckpointBatch {
            plan_switches: vec![(subscription.id, plan)],
            ..batch(number, vec![])
        };
        fixture.store.checkpoint(&owner.fence, &batch).await.expect("checkpoint");
        fixture.seen(subscription.id).await
    };
    let unmoved = switch(1, third.id).await;
    assert_eq!((unmoved.plan, unmoved.next_plan), (subscription.plan, Some(second.id)));
    let moved = switch(2, second.id).await;
    assert_eq!((moved.plan, moved.next_plan, moved.revision), (second.id, None, 3));
    let again = switch(3, second.id).await;
    assert_eq!(again, moved, "nothing waits any more");
}

async fn counted_only_grows(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1]).await;
    for (number, counted, expected) in [(1, 5, 5), (2, 3, 5), (3, 8, 8)] {
        let counted =
            vec![(ShardId(1), Seq(counted)), (ShardId(0), Seq(1)), (ShardId(1), Seq(counted))];
        let batch = CheckpointBatch { counted, ..batch(number, vec![]) };
        fixture.store.checkpoint(&owner.fence, &batch).await.expect("checkpoint");
        let shards = fixture.store.shards().await.expect("shards");
        assert_eq!((shards[1].counted, shards[0].counted), (Seq(expected), Seq(1)));
    }
}

async fn a_large_batch_is_whole(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let rows: Vec<_> = (0..5_000).map(|_| checkpoint(&owner, subscription_id(), 0, 1, 4)).collect();
    fixture.store.checkpoint(&owner.fence, &batch(1, rows)).await.expect("first");
    let subscription = fixture.subscription("default").await;
    let rows = vec![checkpoint(&owner, subscription.id, 0, 1, 4)];
    fixture.store.checkpoint(&owner.fence, &batch(2, rows)).await.expect("second");
    // Only what the catalogue knows is within anyone's reach.
    let seen =
        fixture.store.fullest(&crate::fixture::everything(), at(NOON), 10).await.expect("fullest");
    assert_eq!(seen.iter().map(|row| row.subscription).collect::<Vec<_>>(), [subscription.id]);
}
