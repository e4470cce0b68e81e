//! Postgres goes away: every call comes back in time and says so, and all is well again by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use harness::postgres::{Postgres, Stop, TestDatabase};
use sqlx::{Connection as _, PgConnection, raw_sql};
use uuid::Uuid;
use weir_core::units::{PlanId, ReservationId, Seq, ShardId};
use weir_store::outbox::{DeliveryClaim, NotificationFilter};
use weir_store::postgres::{PostgresOptions, PostgresStore};
use weir_store::rows::{LedgerRow, RowKind};
use weir_store::{CursorMove, Error, Fence, Reach, RecordFilter, Store, SubscriptionFilter};

use crate::fixture::{
    DAY, LEASE_MS, NOON, at, audit, batch, everything, key, node, plan, record, subscription,
    subscription_id, token,
};

/// Short, so that the stories are; long enough for a loaded machine that is not frozen.
const QUERY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Far beyond what any call may take, its turns and its closing included.
const FOR_EVER: Duration = Duration::from_secs(30);

async fn connect(database: &TestDatabase) -> PostgresStore {
    let mut options = PostgresOptions::new(database.url.clone());
    options.query_timeout = QUERY_TIMEOUT;
    options.acquire_timeout = QUERY_TIMEOUT / 2;
    options.upkeep_timeout = QUERY_TIMEOUT;
    let store = PostgresStore::connect(&options).await.expect("connect");
    store.init_shards(4).await.expect("shards");
    store
}

async fn own_shard(store: &PostgresStore) -> Fence {
    let node = node("a");
    store.join(&node, LEASE_MS).await.expect("join");
    let taken = store.claim(node.incarnation, &[ShardId(0)]).await.expect("claim");
    Fence { incarnation: node.incarnation, shards: vec![(taken[0].shard, taken[0].epoch)] }
}

/// Repeats a call until the store answers it.
async fn eventually<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    let answered = tokio::time::timeout(FOR_EVER, async {
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(error) => assert!(error.is_away(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    answered.await.expect("the store heals by itself")
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Every call of the trait, by name.
fn every_call<'a>(store: &'a dyn Store, fence: &'a Fence) -> Vec<(&'static str, Answer<'a>)> {
    macro_rules! calls {
        ($($name:ident ( $($argument:expr),* )),+ $(,)?) => {
            vec![$((
                stringify!($name),
                Box::pin(async move { store.$name($($argument),*).await.map(drop) }) as Answer<'a>,
            )),+]
        };
    }
    let me = fence.incarnation;
    let id = subscription_id();
    let plan_id = PlanId::from_uuid(Uuid::now_v7());
    let nowhere = Uuid::now_v7();
    calls![
        ping(),
        init_shards(4),
        join(&node("b"), LEASE_MS),
        renew(me, LEASE_MS),
        leave(nowhere),
        others_alive(me),
        members(),
        accept_rewound(),
        drain("nobody"),
        drain_boot(nowhere),
        bury_expired(),
        claim(me, &[ShardId(1)]),
        hand_over(nowhere, me, &[]),
        shards(),
        append(fence, &[record(id, 0, 100)]),
        ledger_after(&[(ShardId(0), Seq(0))], 10),
        find_record(id, RowKind::Usage, "x"),
        checkpoint(fence, &batch(1, vec![])),
        load(&[(id, ShardId(0), Seq(0))]),
        find_reservation(ReservationId::from_uuid(nowhere)),
        insert_plan(&plan(), &audit()),
        insert_plan_version(&plan(), &audit()),
        find_plan(plan_id, None),
        list_plans(None, 10),
        delete_plan(plan_id, &audit()),
        insert_subscription(&subscription(plan_id), &key(id), &audit()),
        find_subscription(id, &everything()),
        list_subscriptions(&SubscriptionFilter::default()),
        update_subscription(&subscription(plan_id), &audit()),
        insert_key(&key(id), &audit()),
        revoke_key(id, nowhere, at(NOON), &audit()),
        list_keys(id),
        find_key(&[1; 32]),
        insert_token(&token(), &audit()),
        find_token(&[1; 32]),
        list_tokens(None, 10),
        revoke_token(nowhere, at(NOON), &audit()),
        insert_audit(&audit()),
        changes_after(nowhere, &["x"], 10),
        list_audit(None, None, 10),
        records(&log_of(id)),
        next_usage(id, at(NOON), at(NOON + DAY)),
        usage_window(id, at(NOON), at(NOON + DAY)),
        usage_by_subscription(&Reach::default(), at(NOON), at(NOON + DAY), 10),
        usage_totals(&Reach::default(), at(NOON), at(NOON + DAY)),
        fullest(&Reach::default(), at(NOON), 10),
        count_subscriptions(&Reach::default()),
        unaddressed(10),
        address(&[], at(NOON)),
        claim_deliveries(&DeliveryClaim {
            id: nowhere,
            now: at(NOON),
            until: at(NOON + DAY),
            busy: Vec::new(),
            limit: 10
        }),
        finish_deliveries(&[]),
        outbox_depth(),
        list_notifications(&NotificationFilter::default()),
        find_notification(nowhere, &everything()),
        redeliver(nowhere, at(NOON), &audit()),
        roll(
            fence,
            &[CursorMove { shard: ShardId(0), from: Seq(0), to: Seq(0) }],
            &[],
            &|a: &[u8], _: &[u8]| a.to_vec()
        ),
        maintain(at(NOON), 1, at(0)),
    ]
}

fn log_of(subscription: weir_core::units::SubscriptionId) -> RecordFilter {
    RecordFilter {
        subscription,
        from: at(NOON),
        to: at(NOON + DAY),
        status: None,
        path: None,
        before: None,
        limit: 10,
    }
}

/// Every call comes back, and none pretends.
async fn assert_all_away(store: &PostgresStore, fence: &Fence) {
    for (name, answer) in every_call(store, fence) {
        let answer = tokio::time::timeout(FOR_EVER, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{name} never comes back"));
        assert!(matches!(&answer, Err(error) if error.is_away()), "{name}: {answer:?}");
    }
}

/// Every call is answered again: what it asks for may not exist, but the store does.
async fn assert_all_answered(store: &PostgresStore, fence: &Fence) {
    eventually(async || store.ping().await).await;
    for (name, answer) in every_call(store, fence) {
        let answer = answer.await;
        assert!(!matches!(&answer, Err(error) if error.is_away()), "{name}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_makes_every_call_return_and_heals() {
    let server = Postgres::start_own().await.expect("a server");
    let database = server.fresh_database().await.expect("a database");
    let store = Arc::new(connect(&database).await);
    let fence = own_shard(&store).await;
    server.pause().expect("pause");
    // More at once than there are connections: those who wait for one come back as well.
    let crowd: Vec<_> = (0..40)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { tokio::time::timeout(FOR_EVER, store.ping()).await })
        })
        .collect();
    for ping in crowd {
        let answer = ping.await.expect("a task").expect("ping comes back");
        assert!(matches!(&answer, Err(error) if error.is_away()), "{answer:?}");
    }
    assert_all_away(&store, &fence).await;
    server.resume().expect("resume");
    assert_all_answered(&store, &fence).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_sent_around_a_freeze_are_in_the_ledger_once() {
    let server = Postgres::start_own().await.expect("a server");
    let database = server.fresh_database().await.expect("a database");
    let store = connect(&database).await;
    let fence = own_shard(&store).await;
    let subscription = subscription_id();
    let mut seq = 0;
    for round in 0..3_u64 {
        let rows: Vec<_> = (0..200)
            .map(|index| {
                seq += 1;
                LedgerRow { event_id: format!("{round}-{index}"), ..record(subscription, 0, seq) }
            })
            .collect();
        // The freeze falls somewhere into the append.
        let (first, frozen) = tokio::join!(store.append(&fence, &rows), async {
            tokio::time::sleep(Duration::from_millis(3 * round)).await;
            server.pause()
        });
        frozen.expect("pause");
        server.resume().expect("resume");
        if let Err(error) = first {
            assert!(error.is_away(), "{error:?}");
        }
        eventually(async || store.append(&fence, &rows).await).await;
        let found = store.ledger_after(&[(ShardId(0), Seq(0))], 10_000).await.expect("ledger");
        assert_eq!(found.len() as u64, seq, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_loses_nothing_and_needs_no_hand() {
    let server = Postgres::start_own().await.expect("a server");
    let database = server.fresh_database().await.expect("a database");
    let store = connect(&database).await;
    let fence = own_shard(&store).await;
    let mut rows = Vec::new();
    for (seq, how) in [(1, Stop::Fast), (2, Stop::Immediate)] {
        let row = record(subscription_id(), 0, seq);
        store.append(&fence, std::slice::from_ref(&row)).await.expect("append");
        rows.push(row);
        server.stop(how).expect("stop");
        assert_all_away(&store, &fence).await;
        server.restart().await.expect("restart");
        eventually(async || store.ping().await).await;
        let found = store.ledger_after(&[(ShardId(0), Seq(0))], 10).await.expect("ledger");
        assert_eq!(found, rows, "after {how:?}");
    }
    assert_all_answered(&store, &fence).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_killed_are_replaced() {
    let database = Postgres::shared().await.fresh_database().await.expect("a database");
    let store = connect(&database).await;
    let fence = own_shard(&store).await;
    for seq in 1..=10 {
        let row = record(subscription_id(), 0, seq);
        let rows = [row];
        let (first, killed) =
            tokio::join!(store.append(&fence, &rows), database.terminate_sessions());
        killed.expect("terminate");
        if let Err(error) = first {
            assert!(error.is_away(), "{error:?}");
        }
        eventually(async || store.append(&fence, &rows).await).await;
        let found = store.ledger_after(&[(ShardId(0), Seq(0))], 100);
        let found = match found.await {
            Err(error) if error.is_away() => {
                eventually(async || store.ledger_after(&[(ShardId(0), Seq(0))], 100).await).await
            }
            other => other.expect("ledger"),
        };
        assert_eq!(found.len() as u64, seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_does_not_wait_for_ever_for_a_writer_that_hangs() {
    let database = Postgres::shared().await.fresh_database().await.expect("a database");
    let store = connect(&database).await;
    let fence = own_shard(&store).await;
    let mut hanging = PgConnection::connect(&database.url).await.expect("connect");
    raw_sql("BEGIN; SELECT * FROM shards WHERE shard_id = 0 FOR SHARE")
        .execute(&mut hanging)
        .await
        .expect("hold the fence");
    let blocked = tokio::time::timeout(FOR_EVER, store.claim(fence.incarnation, &[ShardId(0)]));
    let blocked = blocked.await.expect("the claim comes back");
    assert!(matches!(blocked, Err(Error::Unavailable { .. })), "{blocked:?}");
    let other = store.claim(fence.incarnation, &[ShardId(1)]).await.expect("others are free");
    assert_eq!(other.len(), 1);
    hanging.close().await.expect("it goes");
    let taken = eventually(async || store.claim(fence.incarnation, &[ShardId(0)]).await).await;
    assert_eq!(taken[0].epoch.0, fence.shards[0].1.0 + 1, "what was refused changed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_archived_away_is_made_again() {
    let database = Postgres::shared().await.fresh_database().await.expect("a database");
    let store = connect(&database).await;
    let fence = own_shard(&store).await;
    let mut seq = 0;
    let mut row = || {
        seq += 1;
        record(subscription_id(), 0, seq)
    };
    store.append(&fence, &[row()]).await.expect("append");
    let mut archivist = PgConnection::connect(&database.url).await.expect("connect");
    raw_sql("DROP TABLE usage_records_20260301").execute(&mut archivist).await.expect("drop");
    let late = row();
    let rows = [late];
    let first = store.append(&fence, &rows).await;
    assert!(matches!(first, Err(Error::Unavailable { .. })), "{first:?}");
    assert_eq!(store.append(&fence, &rows).await.expect("append").new, [true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_migrate_once() {
    let database = Postgres::shared().await.fresh_database().await.expect("a database");
    let nodes: Vec<_> = (0..4)
        .map(|_| {
            let options = crate::fixture::patient(&database.url);
            tokio::spawn(async move {
                let store = PostgresStore::connect(&options).await.expect("connect");
                assert_eq!(store.engine(), "postgres");
                store.init_shards(16).await.expect("shards")
            })
        })
        .collect();
    for node in nodes {
        assert_eq!(node.await.expect("a node"), 16);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_away() {
    let options = PostgresOptions::new("postgres://weir@127.0.0.1:1/weir");
    let refused = PostgresStore::connect(&options).await.err().expect("nobody listens there");
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
}
