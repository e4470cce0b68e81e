//! The roller, killed, raced and kept in the dark.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use tokio_util::sync::CancellationToken;
use weir_store::Error;

use super::super::roll::rows_behind;
use super::super::{Roller, Round};
use super::*;

/// Rounds after which a roller that has not caught up never will.
const ROUNDS_MAX: usize = 1_000;

impl Ledger {
    /// A roller with pages so small that a few hundred rows take many rounds of several steps.
    fn roller(&self, ownership: &Arc<Ownership>) -> Roller {
        Roller::with_limits(Arc::clone(&self.store), Arc::clone(ownership), 60, 7)
    }

    async fn roll_all(&self) {
        catch_up(&mut self.roller(&self.boot().await)).await;
    }

    /// Everything in the ledger is in rollups, once.
    async fn assert_rolled_up(&self, rows: &[LedgerRow], minutes: i64) {
        let range = (BASE, Micros::from_micros(BASE.get() + minutes * 60_000_000));
        for number in 1..=SUBSCRIPTIONS {
            let window =
                self.store.usage_window(subscription(number), range.0, range.1).await.unwrap();
            assert_eq!(window.rows, [], "of {number} is left in the ledger");
            self.assert_exact(rows, number, range, None).await;
        }
    }
}

async fn catch_up(roller: &mut Roller) {
    for _ in 0..ROUNDS_MAX {
        if roller.round().await.unwrap() == Round::CaughtUp {
            return;
        }
    }
    panic!("not caught up after {ROUNDS_MAX} rounds");
}

/// Runs `work` for at most `polls` polls; `None` when it is cut off there, at whatever it waits for.
async fn cut_off<F: Future>(work: F, mut polls: usize) -> Option<F::Output> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test]
async fn every_row_of_the_ledger_is_rolled_up_once() {
    for seed in 0..4 {
        let rows = usage_rows(seed, 700, 30);
        let ledger = Ledger::with(&rows).await;
        let ownership = ledger.boot().await;
        assert!(rows_behind(&ownership) >= 700);
        catch_up(&mut ledger.roller(&ownership)).await;
        assert_eq!(rows_behind(&ownership), 0);
        ledger.assert_rolled_up(&rows, 30).await;
    }
}

#[tokio::test]
async fn late_rows_of_a_minute_are_added_to_it() {
    let rows = usage_rows(11, 900, 3);
    let ledger = Ledger::new().await;
    // In the order of each shard's ledger, a part of each shard at a time.
    let mut parts: Vec<Vec<LedgerRow>> = vec![Vec::new(); 3];
    for shard in 0..SHARDS {
        let of_shard: Vec<&LedgerRow> = rows.iter().filter(|row| row.shard.0 == shard).collect();
        for (index, row) in of_shard.iter().enumerate() {
            parts[index * 3 / of_shard.len()].push((*row).clone());
        }
    }
    for part in parts {
        ledger.append(&part).await;
        ledger.roll_all().await;
    }
    ledger.assert_rolled_up(&rows, 3).await;
}

#[tokio::test]
async fn a_roller_killed_anywhere_loses_and_doubles_nothing() {
    let rows = usage_rows(23, 400, 10);
    let ledger = Ledger::with(&rows).await;
    let mut killed = 0;
    // Each boot is killed one wait later than the one before it: between read and commit, within
    // the commit, after it.
    for polls in 0..ROUNDS_MAX {
        let mut roller = ledger.roller(&ledger.boot().await);
        let round = cut_off(roller.round(), polls).await;
        // What was under way has ended before a boot goes on: claiming waits for it.
        match round {
            None => killed += 1,
            Some(Ok(Round::CaughtUp)) => break,
            Some(round) => assert_eq!(round.unwrap(), Round::Behind),
        }
    }
    assert!(killed > 5, "only {killed} rounds were cut off");
    ledger.roll_all().await;
    ledger.assert_rolled_up(&rows, 10).await;
}

#[tokio::test]
async fn of_two_rollers_each_row_is_rolled_up_by_one() {
    let rows = usage_rows(31, 600, 10);
    let ledger = Ledger::with(&rows).await;
    let claimed = ledger.boot().await;
    // The same fence twice, each with a view of its own of the cursors.
    let states = ledger.store.shards().await.unwrap();
    let other = {
        let mut states: Vec<_> = states
            .into_iter()
            .map(|state| weir_store::ShardState { last: claimed.applied(state.shard), ..state })
            .collect();
        states.sort_unstable_by_key(|state| state.shard);
        Arc::new(Ownership::new(INCARNATION, &states))
    };
    let (mut one, mut two) = (ledger.roller(&claimed), ledger.roller(&other));
    tokio::join!(catch_up(&mut one), catch_up(&mut two));
    ledger.assert_rolled_up(&rows, 10).await;
}

#[tokio::test]
async fn a_roller_that_missed_its_own_commit_reads_the_cursors_again() {
    let rows = usage_rows(41, 300, 10);
    let ledger = Ledger::with(&rows).await;
    let ownership = ledger.boot().await;
    let unaware = {
        let states = ledger.store.shards().await.unwrap().into_iter();
        let mut states: Vec<_> = states
            .map(|state| weir_store::ShardState { last: ownership.applied(state.shard), ..state })
            .collect();
        states.sort_unstable_by_key(|state| state.shard);
        Arc::new(Ownership::new(INCARNATION, &states))
    };
    catch_up(&mut ledger.roller(&ownership)).await;
    let mut late = ledger.roller(&unaware);
    assert_eq!(late.round().await.unwrap(), Round::Behind, "its cursors had moved");
    assert_eq!(rows_behind(&unaware), 0);
    assert_eq!(late.round().await.unwrap(), Round::CaughtUp);
    ledger.assert_rolled_up(&rows, 10).await;
}

#[tokio::test]
async fn a_roller_of_an_older_epoch_changes_nothing() {
    let rows = usage_rows(43, 200, 10);
    let ledger = Ledger::with(&rows).await;
    let mut zombie = ledger.roller(&ledger.boot().await);
    let ownership = ledger.boot().await;
    assert!(matches!(zombie.round().await, Err(Error::Fenced { .. })));
    assert!(rows_behind(&ownership) > 0);
    catch_up(&mut ledger.roller(&ownership)).await;
    ledger.assert_rolled_up(&rows, 10).await;
}

#[tokio::test]
async fn a_shard_with_a_long_backlog_does_not_keep_others_waiting() {
    let mut rows: Vec<LedgerRow> = (1..=400).map(|seq| row(1, 1, seq)).collect();
    rows.extend((1..=5).map(|seq| row(3, 3, seq)));
    let ledger = Ledger::with(&rows).await;
    let ownership = ledger.boot().await;
    let mut roller = ledger.roller(&ownership);
    assert_eq!(roller.round().await.unwrap(), Round::Behind);
    assert_eq!(roller.round().await.unwrap(), Round::Behind);
    assert_eq!(ownership.rolled(ShardId(3)), Seq(5), "its turn comes after one page of the other");
    catch_up(&mut roller).await;
    assert_eq!(rows_behind(&ownership), 0);
}

#[tokio::test]
async fn a_roller_ends_when_it_is_told() {
    let ledger = Ledger::with(&usage_rows(5, 20, 1)).await;
    let stop = CancellationToken::new();
    let running = ledger.roller(&ledger.boot().await).start(stop.clone());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn made_up_paths_share_a_row_across_rounds() {
    let rows: Vec<LedgerRow> =
        (1..=900).map(|seq| LedgerRow { api_path: format!("/{seq}"), ..row(1, 1, seq) }).collect();
    let ledger = Ledger::with(&rows).await;
    ledger.roll_all().await;
    let minute = Micros::from_micros(BASE.get() + 60_000_000);
    let window = ledger.store.usage_window(subscription(1), BASE, minute).await.unwrap();
    assert_eq!(window.rollups.len(), 201);
    let other = window.rollups.iter().find(|rollup| rollup.path == super::super::OTHER).unwrap();
    assert_eq!(other.sums.requests, 700);
}
