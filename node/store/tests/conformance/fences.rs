//! INV-4: a writer that lost a shard writes nothing, not even to the shards that it kept.

use weir_core::units::{Epoch, Seq, ShardId};
use weir_store::rows::{CheckpointBatch, RollupRow, RollupSums};
use weir_store::{CursorMove, Error, Fence};

use crate::fixture::{Fixture, NOON, Owner, at, batch, checkpoint, record, subscription_id};

crate::on_both_engines!(
    nothing_is_written_after_a_successor_claimed,
    one_lost_shard_refuses_the_whole_write_and_is_named,
    an_owner_that_claims_again_shuts_out_its_own_older_writes,
    another_boot_with_the_right_epoch_is_refused,
);

fn lost(refused: Result<impl std::fmt::Debug, Error>) -> Vec<u16> {
    match refused {
        Err(Error::Fenced { shards, .. }) => shards.iter().map(|shard| shard.0).collect(),
        other => panic!("expected the fence to refuse, got {other:?}"),
    }
}

fn rollup(subscription: weir_core::units::SubscriptionId) -> RollupRow {
    RollupRow {
        subscription,
        minute: at(NOON),
        path: String::new(),
        method: String::new(),
        sums: RollupSums { requests: 1, ..RollupSums::default() },
        detail: Vec::new(),
    }
}

/// Tries every fenced call under the fence; returns what each says is lost.
async fn try_all(fixture: &Fixture, owner: &Owner, shard: u16) -> [Vec<u16>; 3] {
    let subscription = subscription_id();
    let store = &fixture.store;
    let cursor = CursorMove { shard: ShardId(shard), from: Seq(0), to: Seq(1) };
    [
        lost(store.append(&owner.fence, &[record(subscription, shard, 1)]).await),
        lost(
            store
                .checkpoint(
                    &owner.fence,
                    &batch(1, vec![checkpoint(owner, subscription, shard, 1, 1)]),
                )
                .await,
        ),
        lost(
            store.roll(&owner.fence, &[cursor], &[rollup(subscription)], &|a, _| a.to_vec()).await,
        ),
    ]
}

/// Nothing of the refused calls is in the store.
async fn assert_untouched(fixture: &Fixture, shard: u16) {
    let ledger = fixture.store.ledger_after(&[(ShardId(shard), Seq(0))], 10).await;
    assert_eq!(ledger.expect("ledger"), []);
    let state = fixture.store.shards().await.expect("shards")[usize::from(shard)].clone();
    assert_eq!((state.counted, state.rolled), (Seq(0), Seq(0)));
    let sums = fixture.store.usage_totals(&crate::fixture::everything(), at(0), at(2 * NOON)).await;
    assert_eq!(sums.expect("totals"), RollupSums::default());
    assert!(
        fixture
            .store
            .fullest(&crate::fixture::everything(), at(NOON), 9)
            .await
            .expect("fullest")
            .is_empty()
    );
}

async fn nothing_is_written_after_a_successor_claimed(fixture: Fixture) {
    let old = fixture.owner("a", &[0, 1]).await;
    // The same node boots again: its earlier incarnation is thereby dead.
    let new = fixture.owner("a", &[0, 1]).await;
    assert_eq!(new.epoch(0), Epoch(old.epoch(0).0 + 1));
    assert_eq!(try_all(&fixture, &old, 0).await, [vec![0, 1], vec![0, 1], vec![0, 1]]);
    assert_untouched(&fixture, 0).await;
    let written = fixture.store.append(&new.fence, &[record(subscription_id(), 0, 1)]).await;
    assert_eq!(written.expect("the owner writes").new, [true]);
}

async fn one_lost_shard_refuses_the_whole_write_and_is_named(fixture: Fixture) {
    let mut owner = fixture.owner("a", &[0, 1, 2]).await;
    owner.fence.shards[1].1 = Epoch(owner.epoch(1).0 - 1);
    assert_eq!(try_all(&fixture, &owner, 0).await, [vec![1], vec![1], vec![1]]);
    assert_untouched(&fixture, 0).await;
}

async fn an_owner_that_claims_again_shuts_out_its_own_older_writes(fixture: Fixture) {
    let before = fixture.owner("a", &[0]).await;
    let after = Owner::claim(&fixture.store, before.incarnation, &[0]).await;
    assert_eq!(try_all(&fixture, &before, 0).await, [vec![0], vec![0], vec![0]]);
    assert_untouched(&fixture, 0).await;
    fixture
        .store
        .checkpoint(&after.fence, &CheckpointBatch { number: 1, ..Default::default() })
        .await
        .expect("the refused batch did not use its number up");
}

async fn another_boot_with_the_right_epoch_is_refused(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let stranger = Owner {
        incarnation: uuid::Uuid::now_v7(),
        fence: Fence { incarnation: uuid::Uuid::now_v7(), shards: owner.fence.shards.clone() },
    };
    assert_eq!(try_all(&fixture, &stranger, 0).await, [vec![0], vec![0], vec![0]]);
    assert_untouched(&fixture, 0).await;
}
