//! Two nodes at the same moment: whatever the order, a claim ends everything older.

use std::sync::Arc;

use weir_core::units::{Seq, ShardId};
use weir_store::rows::{LedgerRow, NodeRow, SEAL};
use weir_store::{Error, HandOver, Store};

use crate::fixture::{Fixture, LEASE_MS, Owner, batch, checkpoint, node, record, subscription_id};

crate::on_both_engines!(
    an_append_is_before_the_claim_or_refused,
    a_checkpoint_is_before_the_claim_or_refused,
    of_two_claims_of_a_free_shard_one_succeeds,
    of_two_nodes_with_other_secrets_one_is_let_in,
    a_renewal_or_a_death_and_never_both,
    a_hand_over_or_the_owners_own_claim,
    an_append_is_before_the_hand_over_or_refused,
    a_checkpoint_is_before_the_hand_over_or_refused,
    nothing_is_handed_to_a_node_that_dies_meanwhile,
    nothing_is_handed_to_a_node_once_it_drains,
    a_caller_that_goes_away_leaves_nothing_half_done,
    many_days_at_once_make_their_room_together,
);

const ROUNDS: u64 = 20;

/// Owner of shard 0, and a later boot of the same node that is about to take it over.
async fn rivals(fixture: &Fixture) -> (Owner, uuid::Uuid) {
    let old = fixture.owner("a", &[0, 1, 2]).await;
    let heir = node("a");
    fixture.store.join(&heir, LEASE_MS).await.expect("join");
    (old, heir.incarnation)
}

async fn an_append_is_before_the_claim_or_refused(fixture: Fixture) {
    for round in 0..ROUNDS {
        let (old, heir) = rivals(&fixture).await;
        let first = 1 + round * 100;
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let (store, fence) = (Arc::clone(&fixture.store), old.fence.clone());
                let row = record(subscription_id(), 0, first + writer);
                tokio::spawn(async move { store.append(&fence, &[row]).await })
            })
            .collect();
        let new = Owner::claim(&fixture.store, heir, &[0, 1, 2]).await;
        // What the claim saw is all there will ever be.
        let after = [(ShardId(0), Seq(first - 1))];
        let seen = fixture.store.ledger_after(&after, 100).await.expect("ledger");
        let mut accepted = 0;
        for writer in writers {
            match writer.await.expect("a writer") {
                Ok(appended) => accepted += appended.new.len(),
                Err(Error::Fenced { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(seen.len(), accepted, "round {round}");
        fixture.store.leave(new.incarnation).await.expect("leave");
    }
}

async fn a_checkpoint_is_before_the_claim_or_refused(fixture: Fixture) {
    let subscription = fixture.subscription("default").await;
    for round in 0..ROUNDS {
        let (old, heir) = rivals(&fixture).await;
        let state = checkpoint(&old, subscription.id, 0, 1, round + 1);
        let (store, fence) = (Arc::clone(&fixture.store), old.fence.clone());
        let written = batch(1, vec![state.clone()]);
        let writer = tokio::spawn(async move { store.checkpoint(&fence, &written).await });
        Owner::claim(&fixture.store, heir, &[0, 1, 2]).await;
        let wanted = [(subscription.id, ShardId(0), Seq(0))];
        let loaded = fixture.store.load(&wanted).await.expect("load")[0].checkpoint.clone();
        match writer.await.expect("a writer") {
            Ok(()) => assert_eq!(loaded, Some(state), "round {round}"),
            Err(Error::Fenced { .. }) => assert_ne!(loaded, Some(state), "round {round}"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn of_two_claims_of_a_free_shard_one_succeeds(fixture: Fixture) {
    for round in 0..ROUNDS {
        let (a, b) = (node("a"), node("b"));
        for node in [&a, &b] {
            fixture.store.join(node, LEASE_MS).await.expect("join");
        }
        let claim = |incarnation| {
            let store: Arc<dyn Store> = Arc::clone(&fixture.store);
            tokio::spawn(async move {
                let wanted = [ShardId(3), ShardId(4), ShardId(5)];
                store.claim(incarnation, &wanted).await.expect("claim")
            })
        };
        let (of_a, of_b) = (claim(a.incarnation), claim(b.incarnation));
        let (of_a, of_b) = (of_a.await.expect("a"), of_b.await.expect("b"));
        assert_eq!(of_a.len() + of_b.len(), 3, "round {round}");
        for state in of_a.iter().chain(&of_b) {
            let now = &fixture.store.shards().await.expect("shards")[usize::from(state.shard.0)];
            assert_eq!((now.owner, now.epoch), (state.owner, state.epoch), "round {round}");
        }
        for node in [a, b] {
            fixture.store.leave(node.incarnation).await.expect("leave");
        }
    }
}

async fn of_two_nodes_with_other_secrets_one_is_let_in(fixture: Fixture) {
    for round in 0..ROUNDS {
        let join = |name: &str, seal: &str| {
            let store: Arc<dyn Store> = Arc::clone(&fixture.store);
            let stranger = NodeRow { seal: seal.to_owned(), ..node(name) };
            tokio::spawn(async move {
                match store.join(&stranger, LEASE_MS).await {
                    Ok(()) => Some(stranger.incarnation),
                    Err(Error::Conflict { with: SEAL, .. }) => None,
                    Err(other) => panic!("{other:?}"),
                }
            })
        };
        let (a, b) = (join("a", "one"), join("b", "another"));
        let let_in = [a.await.expect("a"), b.await.expect("b")];
        assert_eq!(let_in.iter().flatten().count(), 1, "round {round}");
        for incarnation in let_in.into_iter().flatten() {
            fixture.store.leave(incarnation).await.expect("leave");
        }
    }
}

async fn a_renewal_or_a_death_and_never_both(fixture: Fixture) {
    for round in 0..ROUNDS {
        let claimant = fixture.owner("claimant", &[]).await;
        let owner = fixture.owner("a", &[6]).await;
        // A lease that ends about when it is renewed and its end looked for.
        assert!(fixture.store.renew(owner.incarnation, 1).await.expect("renew"));
        let (store, incarnation) = (Arc::clone(&fixture.store), owner.incarnation);
        let renewal = tokio::spawn(async move { store.renew(incarnation, LEASE_MS).await });
        fixture.store.bury_expired().await.expect("bury");
        let taken = fixture.store.claim(claimant.incarnation, &[ShardId(6)]).await.expect("claim");
        let renewed = renewal.await.expect("a task").expect("renew");
        assert_eq!(renewed, taken.is_empty(), "round {round}");
        for node in [claimant, owner] {
            fixture.store.leave(node.incarnation).await.expect("leave");
        }
    }
}

/// A shard that is offered as its owner holds it.
fn offered(owner: &Owner) -> Vec<HandOver> {
    let held = owner.fence.shards.iter();
    held.map(|&(shard, epoch)| HandOver { shard, epoch, counted: Seq(0) }).collect()
}

async fn a_hand_over_or_the_owners_own_claim(fixture: Fixture) {
    for round in 0..ROUNDS {
        let (owner, heir) = (fixture.owner("a", &[7]).await, fixture.owner("b", &[]).await);
        let (store, from, to) = (fixture.store.clone(), owner.incarnation, heir.incarnation);
        let shards = offered(&owner);
        let giving = tokio::spawn(async move { store.hand_over(from, to, &shards).await });
        let claimed = fixture.store.claim(owner.incarnation, &[ShardId(7)]).await.expect("claim");
        let given = giving.await.expect("a task").expect("hand over");
        // The owner raises the epoch because it does not know: one of the two happened, not both.
        assert_eq!(claimed.len() + given.len(), 1, "round {round}: {claimed:?} {given:?}");
        let now = &fixture.store.shards().await.expect("shards")[7];
        let expected = if given.is_empty() { owner.incarnation } else { heir.incarnation };
        assert_eq!(now.owner, Some(expected), "round {round}");
        for node in [owner, heir] {
            fixture.store.leave(node.incarnation).await.expect("leave");
        }
    }
}

async fn an_append_is_before_the_hand_over_or_refused(fixture: Fixture) {
    for round in 0..ROUNDS {
        let (owner, heir) = (fixture.owner("a", &[4]).await, fixture.owner("b", &[]).await);
        let first = 1 + round * 100;
        let (store, fence) = (fixture.store.clone(), owner.fence.clone());
        let row = record(subscription_id(), 4, first);
        let writing = tokio::spawn(async move { store.append(&fence, &[row]).await });
        let shards = offered(&owner);
        let given = fixture.store.hand_over(owner.incarnation, heir.incarnation, &shards);
        assert_eq!(given.await.expect("hand over").len(), 1, "round {round}");
        // What the heir finds is all that will ever be there.
        let seen = fixture.store.ledger_after(&[(ShardId(4), Seq(first - 1))], 10).await;
        let accepted = match writing.await.expect("a writer") {
            Ok(appended) => appended.new.len(),
            Err(Error::Fenced { .. }) => 0,
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(seen.expect("ledger").len(), accepted, "round {round}");
        for node in [owner, heir] {
            fixture.store.leave(node.incarnation).await.expect("leave");
        }
    }
}

async fn a_checkpoint_is_before_the_hand_over_or_refused(fixture: Fixture) {
    let subscription = fixture.subscription("default").await;
    for round in 0..ROUNDS {
        let (owner, heir) = (fixture.owner("a", &[4]).await, fixture.owner("b", &[]).await);
        let state = checkpoint(&owner, subscription.id, 4, 1, round + 1);
        let (store, fence) = (fixture.store.clone(), owner.fence.clone());
        let written = batch(1, vec![state.clone()]);
        let writing = tokio::spawn(async move { store.checkpoint(&fence, &written).await });
        let shards = offered(&owner);
        let given = fixture.store.hand_over(owner.incarnation, heir.incarnation, &shards);
        assert_eq!(given.await.expect("hand over").len(), 1, "round {round}");
        // What the heir starts from is what nobody can change any more.
        let wanted = [(subscription.id, ShardId(4), Seq(0))];
        let loaded = fixture.store.load(&wanted).await.expect("load")[0].checkpoint.clone();
        match writing.await.expect("a writer") {
            Ok(()) => assert_eq!(loaded, Some(state), "round {round}"),
            Err(Error::Fenced { .. }) => assert_ne!(loaded, Some(state), "round {round}"),
            Err(other) => panic!("{other:?}"),
        }
        for node in [owner, heir] {
            fixture.store.leave(node.incarnation).await.expect("leave");
        }
    }
}

async fn nothing_is_handed_to_a_node_once_it_drains(fixture: Fixture) {
    for round in 0..ROUNDS {
        let (owner, heir) = (fixture.owner("a", &[5, 6]).await, fixture.owner("b", &[]).await);
        let (store, boot) = (fixture.store.clone(), heir.incarnation);
        let draining = tokio::spawn(async move { store.drain_boot(boot).await });
        let [first, second] = <[HandOver; 2]>::try_from(offered(&owner)).expect("two shards");
        let (from, to) = (owner.incarnation, heir.incarnation);
        let given = fixture.store.hand_over(from, to, &[first]).await.expect("hand over");
        assert!(draining.await.expect("a task").expect("drain"), "round {round}");
        let late = fixture.store.hand_over(from, to, &[second]).await.expect("hand over");
        assert_eq!(late, [], "round {round}");
        let states = fixture.store.shards().await.expect("shards");
        let expected = if given.is_empty() { from } else { to };
        assert_eq!((states[5].owner, states[6].owner), (Some(expected), Some(from)), "{round}");
        for node in [owner, heir] {
            fixture.store.leave(node.incarnation).await.expect("leave");
        }
    }
}

async fn nothing_is_handed_to_a_node_that_dies_meanwhile(fixture: Fixture) {
    for round in 0..ROUNDS {
        let (owner, heir) = (fixture.owner("a", &[5]).await, fixture.owner("b", &[]).await);
        let (store, gone) = (fixture.store.clone(), heir.incarnation);
        let leaving = tokio::spawn(async move { store.leave(gone).await });
        let shards = offered(&owner);
        let given = fixture.store.hand_over(owner.incarnation, heir.incarnation, &shards);
        let given = given.await.expect("hand over");
        leaving.await.expect("a task").expect("leave");
        // Given before it left, and given up with it, or never given.
        let now = &fixture.store.shards().await.expect("shards")[5];
        let expected = given.is_empty().then_some(owner.incarnation);
        assert_eq!(now.owner, expected, "round {round}");
        fixture.store.leave(owner.incarnation).await.expect("leave");
    }
}

async fn a_caller_that_goes_away_leaves_nothing_half_done(fixture: Fixture) {
    let owner = fixture.owner("a", &[0]).await;
    let mut seq = 0;
    for patience_us in (0..6_000).step_by(150) {
        let subscription = subscription_id();
        let rows: Vec<_> = (0..40)
            .map(|_| {
                seq += 1;
                record(subscription, 0, seq)
            })
            .collect();
        let patience = std::time::Duration::from_micros(patience_us);
        // The caller's future is dropped wherever it stands.
        let answer =
            tokio::time::timeout(patience, fixture.store.append(&owner.fence, &rows)).await;
        let after = [(ShardId(0), Seq(seq - 40))];
        let again = fixture.store.append(&owner.fence, &rows).await.expect("the next call works");
        let first = fixture.store.ledger_after(&after, 100).await.expect("ledger");
        assert_eq!(first, rows, "given up after {patience_us} us: whole, and once");
        let repeated = again.new.iter().all(|new| !new);
        assert!(repeated || again.new.iter().all(|new| *new), "all or none were there before");
        assert!(answer.is_err() || repeated, "what was answered was there");
    }
}

async fn many_days_at_once_make_their_room_together(fixture: Fixture) {
    let owner = fixture.owner("a", &[0, 1, 2, 3]).await;
    let writers: Vec<_> = (0..4_u16)
        .map(|shard| {
            let (store, fence) = (Arc::clone(&fixture.store), owner.fence.clone());
            tokio::spawn(async move {
                // All of them need the same new days, each in another order.
                for step in 0..12 {
                    let day = (step * (2 * i64::from(shard) + 1)) % 12;
                    let row = LedgerRow {
                        event_time: crate::fixture::at(day * 37 * crate::fixture::DAY),
                        ..record(subscription_id(), shard, 1 + step.unsigned_abs())
                    };
                    store.append(&fence, &[row]).await.expect("append");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
}
