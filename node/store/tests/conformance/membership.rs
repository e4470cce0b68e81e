//! Nodes and shards: who is alive, and what may be taken from whom.

use weir_core::units::{Epoch, Seq, ShardId};
use weir_store::rows::{NodeRow, SEAL};
use weir_store::{Error, HandOver, ShardState};

use crate::fixture::{Fixture, LEASE_MS, SHARDS, batch, node, record, subscription_id};

crate::on_both_engines!(
    the_shard_count_is_fixed_once,
    a_lease_is_renewed_until_its_node_is_replaced,
    only_others_whose_lease_runs_are_alive,
    shards_of_the_living_stay_theirs,
    shards_of_the_dead_are_taken_at_the_next_epoch,
    a_dead_node_stays_dead,
    a_node_with_another_seal_waits_for_the_last_of_the_others,
    a_node_without_a_lease_takes_nothing,
    who_leaves_gives_its_shards_up,
    a_claim_tells_where_the_ledger_stands,
    unknown_shards_are_not_taken,
    a_shard_is_handed_over_once_and_at_its_epoch,
    nothing_is_handed_to_a_node_that_is_not_up,
    a_boot_that_drains_itself_does_not_drain_its_successor,
    members_are_listed_with_state_and_lease,
);

fn shards(numbers: &[u16]) -> Vec<ShardId> {
    numbers.iter().copied().map(ShardId).collect()
}

fn numbers(states: &[ShardState]) -> Vec<u16> {
    states.iter().map(|state| state.shard.0).collect()
}

/// Waits until the lease of this node has run out by the store's clock.
async fn lease_to_end(fixture: &Fixture, node: &NodeRow) {
    let observer = uuid::Uuid::now_v7();
    let alive = async || {
        let others = fixture.store.others_alive(observer).await.expect("others");
        others.iter().any(|other| other.incarnation == node.incarnation)
    };
    while alive().await {
        tokio::task::yield_now().await;
    }
}

async fn the_shard_count_is_fixed_once(fixture: Fixture) {
    for wanted in [1, SHARDS, 1_024] {
        assert_eq!(fixture.store.init_shards(wanted).await.expect("init"), SHARDS);
    }
    let all = fixture.store.shards().await.expect("shards");
    assert_eq!(numbers(&all), (0..SHARDS).collect::<Vec<_>>());
    let fresh = |state: &ShardState| {
        state.owner.is_none()
            && state.epoch == Epoch(0)
            && [state.counted, state.rolled, state.last] == [Seq(0); 3]
    };
    assert!(all.iter().all(fresh));
}

async fn a_lease_is_renewed_until_its_node_is_replaced(fixture: Fixture) {
    let store = &fixture.store;
    let first = node("a");
    assert!(!store.renew(first.incarnation, LEASE_MS).await.expect("renew"), "not joined");
    store.join(&first, LEASE_MS).await.expect("join");
    store.join(&first, LEASE_MS).await.expect("once more, after an outcome nobody knew");
    assert!(store.renew(first.incarnation, LEASE_MS).await.expect("renew"));
    let second = node("a");
    store.join(&second, LEASE_MS).await.expect("join");
    assert!(!store.renew(first.incarnation, LEASE_MS).await.expect("renew"), "replaced");
    assert!(store.renew(second.incarnation, LEASE_MS).await.expect("renew"));
}

async fn only_others_whose_lease_runs_are_alive(fixture: Fixture) {
    let store = &fixture.store;
    let (a, b, c, d) = (node("a"), node("b"), node("c"), node("d"));
    for (node, lease_ms) in [(&a, LEASE_MS), (&b, LEASE_MS), (&c, 1), (&d, LEASE_MS)] {
        store.join(node, lease_ms).await.expect("join");
    }
    store.leave(d.incarnation).await.expect("leave");
    lease_to_end(&fixture, &c).await;
    assert_eq!(store.others_alive(a.incarnation).await.expect("others"), std::slice::from_ref(&b));
    assert_eq!(store.others_alive(b.incarnation).await.expect("others"), [a]);
    // Late, but nobody has declared it dead.
    assert!(store.renew(c.incarnation, LEASE_MS).await.expect("renew"));
    assert_eq!(store.others_alive(b.incarnation).await.expect("others").len(), 2);
}

async fn shards_of_the_living_stay_theirs(fixture: Fixture) {
    let a = fixture.owner("a", &[0, 1]).await;
    let b = fixture.owner("b", &[]).await;
    let taken = fixture.store.claim(b.incarnation, &shards(&[0, 1, 2])).await.expect("claim");
    assert_eq!(numbers(&taken), [2]);
    let all = fixture.store.shards().await.expect("shards");
    assert_eq!((all[0].owner, all[0].epoch), (Some(a.incarnation), a.epoch(0)));
    assert_eq!(all[2].owner, Some(b.incarnation));
}

async fn shards_of_the_dead_are_taken_at_the_next_epoch(fixture: Fixture) {
    let store = &fixture.store;
    let a = node("a");
    store.join(&a, 1_500).await.expect("join");
    let held = store.claim(a.incarnation, &shards(&[0, 1])).await.expect("claim");
    lease_to_end(&fixture, &a).await;
    let early = fixture.owner("early", &[]).await.incarnation;
    assert!(store.claim(early, &shards(&[0])).await.expect("claim").is_empty(), "not buried yet");
    store.bury_expired().await.expect("bury");
    let b = fixture.owner("b", &[0, 1, 2]).await;
    assert_eq!(b.epoch(0), Epoch(held[0].epoch.0 + 1));
    assert_eq!(b.epoch(2), Epoch(1));
    assert!(!store.renew(a.incarnation, LEASE_MS).await.expect("renew"), "declared dead");
}

async fn a_dead_node_stays_dead(fixture: Fixture) {
    let store = &fixture.store;
    let a = node("a");
    store.join(&a, 1).await.expect("join");
    lease_to_end(&fixture, &a).await;
    store.bury_expired().await.expect("bury");
    assert!(matches!(store.join(&a, LEASE_MS).await, Err(Error::Conflict { .. })));
    assert!(!store.renew(a.incarnation, LEASE_MS).await.expect("renew"));
    let reborn = node("a");
    store.join(&reborn, LEASE_MS).await.expect("a new incarnation may");
}

async fn a_node_with_another_seal_waits_for_the_last_of_the_others(fixture: Fixture) {
    let store = &fixture.store;
    let (a, b) = (node("a"), node("b"));
    store.join(&a, LEASE_MS).await.expect("join");
    store.join(&b, 1).await.expect("the same seal");
    let stranger = NodeRow { seal: "another".to_owned(), ..node("c") };
    let refused = store.join(&stranger, LEASE_MS).await;
    assert!(matches!(refused, Err(Error::Conflict { with: SEAL, .. })), "{refused:?}");
    assert_eq!(store.members().await.expect("members").len(), 2, "nothing was written");
    let unsealed = NodeRow { seal: String::new(), ..node("d") };
    store.join(&unsealed, 1).await.expect("one that needs no secret");
    store.leave(a.incarnation).await.expect("leave");
    for node in [&b, &unsealed] {
        lease_to_end(&fixture, node).await;
    }
    store.join(&stranger, LEASE_MS).await.expect("nobody who lives knows another");
    assert!(matches!(store.join(&node("a"), LEASE_MS).await, Err(Error::Conflict { .. })));
}

async fn a_node_without_a_lease_takes_nothing(fixture: Fixture) {
    let store = &fixture.store;
    let a = node("a");
    let refused = store.claim(a.incarnation, &shards(&[0, 1])).await;
    assert!(matches!(refused, Err(Error::Fenced { shards, .. }) if shards.len() == 2));
    store.join(&a, 1).await.expect("join");
    lease_to_end(&fixture, &a).await;
    assert!(matches!(store.claim(a.incarnation, &shards(&[0])).await, Err(Error::Fenced { .. })));
    assert!(store.shards().await.expect("shards").iter().all(|state| state.owner.is_none()));
}

async fn who_leaves_gives_its_shards_up(fixture: Fixture) {
    let store = &fixture.store;
    let a = fixture.owner("a", &[0, 1]).await;
    store.leave(a.incarnation).await.expect("leave");
    store.leave(a.incarnation).await.expect("again changes nothing");
    assert!(!store.renew(a.incarnation, LEASE_MS).await.expect("renew"));
    let late = store.append(&a.fence, &[record(subscription_id(), 0, 1)]).await;
    assert!(matches!(late, Err(Error::Fenced { .. })));
    let b = fixture.owner("b", &[0, 1]).await;
    assert_eq!(b.epoch(0), Epoch(2));
}

async fn a_claim_tells_where_the_ledger_stands(fixture: Fixture) {
    let store = &fixture.store;
    let a = fixture.owner("a", &[0, 1]).await;
    let rows: Vec<_> = (1..=5).map(|seq| record(subscription_id(), 0, seq)).collect();
    store.append(&a.fence, &rows).await.expect("append");
    let counted = weir_store::rows::CheckpointBatch {
        counted: vec![(ShardId(0), Seq(3)), (ShardId(1), Seq(9))],
        ..batch(1, vec![])
    };
    store.checkpoint(&a.fence, &counted).await.expect("checkpoint");
    let cursor = weir_store::CursorMove { shard: ShardId(0), from: Seq(0), to: Seq(2) };
    store.roll(&a.fence, &[cursor], &[], &|a, _| a.to_vec()).await.expect("roll");
    let states = store.claim(a.incarnation, &shards(&[1, 0])).await.expect("claim");
    let places: Vec<_> =
        states.iter().map(|state| (state.counted.0, state.rolled.0, state.last.0)).collect();
    // What was counted was there: rows that are archived since cannot say so any more.
    assert_eq!(places, [(3, 2, 5), (9, 0, 9)]);
}

async fn unknown_shards_are_not_taken(fixture: Fixture) {
    let a = fixture.owner("a", &[]).await;
    let taken = fixture.store.claim(a.incarnation, &shards(&[7, 8, 60_000])).await.expect("claim");
    assert_eq!(numbers(&taken), [7]);
    assert!(fixture.store.claim(a.incarnation, &[]).await.expect("claim").is_empty());
}

fn offer(owner: &crate::fixture::Owner, shard: u16, counted: u64) -> HandOver {
    HandOver { shard: ShardId(shard), epoch: owner.epoch(shard), counted: Seq(counted) }
}

async fn a_shard_is_handed_over_once_and_at_its_epoch(fixture: Fixture) {
    let store = &fixture.store;
    let a = fixture.owner("a", &[0, 1, 2]).await;
    let b = fixture.owner("b", &[]).await;
    let stale = HandOver { epoch: Epoch(a.epoch(1).0 + 1), ..offer(&a, 1, 0) };
    let offers = [offer(&a, 0, 7), stale];
    let given = store.hand_over(a.incarnation, b.incarnation, &offers).await.expect("given");
    assert_eq!(given, [(ShardId(0), Epoch(a.epoch(0).0 + 1))]);
    let again = store.hand_over(a.incarnation, b.incarnation, &offers).await.expect("refused");
    assert_eq!(again, [], "the epoch has moved on");
    let all = store.shards().await.expect("shards");
    assert_eq!((all[0].owner, all[0].counted), (Some(b.incarnation), Seq(7)));
    assert_eq!((all[1].owner, all[1].epoch), (Some(a.incarnation), a.epoch(1)));
    let late = store.append(&a.fence, &[record(subscription_id(), 0, 1)]).await;
    assert!(matches!(late, Err(Error::Fenced { shards, .. }) if shards == [ShardId(0)]));
    // What was told to have been counted stays so, also where the giver knew less.
    let b = crate::fixture::Owner::claim(store, b.incarnation, &[0]).await;
    let given = store.hand_over(b.incarnation, a.incarnation, &[offer(&b, 0, 3)]).await;
    assert_eq!(given.expect("given").len(), 1);
    assert_eq!(store.shards().await.expect("shards")[0].counted, Seq(7));
}

async fn nothing_is_handed_to_a_node_that_is_not_up(fixture: Fixture) {
    let store = &fixture.store;
    let a = fixture.owner("a", &[0]).await;
    let (left, draining, unknown) = (node("left"), node("draining"), uuid::Uuid::now_v7());
    for node in [&left, &draining] {
        store.join(node, LEASE_MS).await.expect("join");
    }
    store.leave(left.incarnation).await.expect("leave");
    assert!(store.drain("draining").await.expect("drain"));
    assert!(!store.drain("left").await.expect("drain"), "it is not there any more");
    let expired = node("expired");
    store.join(&expired, 1).await.expect("join");
    lease_to_end(&fixture, &expired).await;
    for heir in [left.incarnation, draining.incarnation, expired.incarnation, unknown] {
        let given = store.hand_over(a.incarnation, heir, &[offer(&a, 0, 0)]).await;
        assert_eq!(given.expect("refused"), []);
    }
    assert!(store.renew(draining.incarnation, LEASE_MS).await.expect("it lives on"));
    assert_eq!(store.shards().await.expect("shards")[0].owner, Some(a.incarnation));
}

async fn a_boot_that_drains_itself_does_not_drain_its_successor(fixture: Fixture) {
    let store = &fixture.store;
    let (old, new) = (node("a"), node("a"));
    store.join(&old, LEASE_MS).await.expect("join");
    store.join(&new, LEASE_MS).await.expect("join");
    assert!(!store.drain_boot(old.incarnation).await.expect("drain"), "it was replaced");
    assert_eq!(store.members().await.expect("members")[0].state, "up");
    assert!(store.drain_boot(new.incarnation).await.expect("drain"));
    assert_eq!(store.members().await.expect("members")[0].state, "draining");
}

async fn members_are_listed_with_state_and_lease(fixture: Fixture) {
    let store = &fixture.store;
    let (a, b) = (node("a"), node("b"));
    store.join(&a, LEASE_MS).await.expect("join");
    store.join(&b, LEASE_MS).await.expect("join");
    store.leave(b.incarnation).await.expect("leave");
    let members = store.members().await.expect("members");
    assert_eq!([&members[0].node, &members[1].node], [&a, &b]);
    assert_eq!([&*members[0].state, &*members[1].state], ["up", "left"]);
    assert!((1..=i64::from(LEASE_MS)).contains(&members[0].lease_left_ms));
    assert!(members[1].lease_left_ms <= 0);
}
