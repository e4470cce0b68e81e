//! What if the answer of a commit is lost, and what if the node dies: stories against a real embedded
//! store behind [`faulty_store::FaultyStore`], on the wired node.

mod billing;
mod faulty_store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use uuid::Uuid;
use weir_config::{Config, Overrides};
use weir_core::meter::Check;
use weir_core::units::{Micros, PlanId, Seq, ShardId, SubscriptionId, Units};
use weir_node::app::{Running, start_on};
use weir_node::outcome::{RecordError, Recorded};
use weir_store::rows::{
    AuditRow, KeyRow, LedgerRow, NodeRow, OutcomeKind, PlanRow, RowKind, SubscriptionRow,
    SubscriptionStatus,
};
use weir_store::sqlite::{SqliteOptions, SqliteStore};
use weir_store::{RecordFilter, Store};

use faulty_store::FaultyStore;

const LIMIT: u64 = 5_000;
const SUBSCRIPTIONS: u128 = 6;
/// Longer than any run: no hold returns by itself.
const PLAN: &str = r#"{"name":"hard","holdTtl":"1h","quotas":[
    {"name":"requests","meter":"requests","limit":5000,"every":"P1Y","enforcement":"hard"}]}"#;

fn config() -> Config {
    config_with("50ms")
}

fn config_with(checkpoint_interval: &str) -> Config {
    let environment =
        [("WEIR_HTTP", "127.0.0.1:0"), ("WEIR_CHECKPOINT__INTERVAL", checkpoint_interval)];
    Config::load(None, environment, Overrides::default()).expect("the configuration is valid")
}

fn subscription(index: u128) -> SubscriptionId {
    SubscriptionId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0100 + index))
}

async fn seed(store: &dyn Store, now: Micros) {
    let plan = PlanRow {
        id: PlanId::from_uuid(Uuid::from_u128(1)),
        version: 1,
        name: "hard".into(),
        config: PLAN.into(),
        at_period_end: false,
        created_at: now,
    };
    store.insert_plan(&plan, &audit(now)).await.expect("the plan is stored");
    for index in 0..SUBSCRIPTIONS {
        let id = subscription(index);
        let row = SubscriptionRow {
            // Every other one is unlimited: without escrow nothing but the interval writes its state.
            limits: if index % 2 == 1 { r#"{"requests":null}"# } else { "{}" }.into(),
            ..row_of(id, plan.id, now)
        };
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(id.uuid().as_bytes());
        let key = KeyRow {
            id: Uuid::now_v7(),
            subscription: id,
            hash,
            hint: "k".into(),
            created_at: now,
            revoked_at: None,
        };
        store.insert_subscription(&row, &key, &audit(now)).await.expect("it is stored");
    }
}

/// A subscription without anything of its own.
fn row_of(id: SubscriptionId, plan: PlanId, now: Micros) -> SubscriptionRow {
    SubscriptionRow {
        id,
        plan,
        next_plan: None,
        external_id: None,
        tenant: "default".into(),
        api_id: None,
        user_email: None,
        time_zone: "UTC".into(),
        status: SubscriptionStatus::Active,
        started_at: Micros::EPOCH,
        ends_at: None,
        webhook_url: None,
        limits: "{}".into(),
        metadata: "{}".into(),
        created_at: now,
        updated_at: now,
        revision: 1,
        requests_used: 0,
    }
}

fn audit(now: Micros) -> AuditRow {
    AuditRow {
        id: Uuid::now_v7(),
        at: now,
        actor: "test".into(),
        action: "seed".into(),
        target_kind: "test".into(),
        target_id: "test".into(),
        tenant: None,
        before: None,
        after: None,
        reason: None,
    }
}

fn event(
    id: SubscriptionId,
    shard: ShardId,
    event_id: String,
    units: i64,
    now: Micros,
) -> LedgerRow {
    LedgerRow {
        subscription: id,
        shard,
        seq: Seq::default(),
        event_id,
        kind: RowKind::Usage,
        event_time: now,
        recorded_at: now,
        units,
        quantities: None,
        charged: true,
        outcome: OutcomeKind::Served,
        reservation: None,
        key_id: None,
        api_id: None,
        api_path: "/x".into(),
        method: "GET".into(),
        status_code: Some(200),
        success: Some(true),
        response_time_us: None,
        request_size: None,
        response_size: None,
        user_agent: None,
        ip_address: None,
        country: None,
    }
}

/// What the sender knows of its events: id → (subscription, units, acknowledged).
type Sent = BTreeMap<String, (u128, i64, bool)>;

/// Sends batches, some of them again, and remembers what was acknowledged.
async fn send_some(node: &Running, rng: &mut StdRng, sent: &mut Sent, batches: usize) {
    for _ in 0..batches {
        let mut rows = Vec::new();
        for _ in 0..rng.random_range(1..20) {
            let again = rng.random_bool(0.3) && !sent.is_empty();
            let (event_id, index, units) = if again {
                let position = rng.random_range(0..sent.len());
                let (id, (index, units, _)) = sent.iter().nth(position).expect("it is within");
                (id.clone(), *index, *units)
            } else {
                let index = rng.random_range(0..SUBSCRIPTIONS);
                (format!("event-{}", sent.len()), index, rng.random_range(1..5))
            };
            sent.entry(event_id.clone()).or_insert((index, units, false));
            let id = subscription(index);
            let shard = node.api.router.catalog().shard_of(id);
            rows.push(event(id, shard, event_id, units, node.api.clock.now()));
        }
        let ids: Vec<String> = rows.iter().map(|row| row.event_id.clone()).collect();
        match node.api.recorder.record(rows).await {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), ids.len());
                for id in ids {
                    sent.get_mut(&id).expect("it was sent").2 = true;
                }
            }
            // As a gateway would: the next batch comes a little later.
            Err(RecordError::Away | RecordError::Busy) => {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            Err(RecordError::Fenced | RecordError::NotHere) => {
                panic!("nobody else claims these shards")
            }
        }
    }
}

/// Sends everything that was never acknowledged, until it is.
async fn send_the_rest(node: &Running, sent: &mut Sent) {
    let open: Vec<(String, u128, i64)> = sent
        .iter()
        .filter(|(_, (_, _, acknowledged))| !acknowledged)
        .map(|(id, &(index, units, _))| (id.clone(), index, units))
        .collect();
    for (event_id, index, units) in open {
        let id = subscription(index);
        let shard = node.api.router.catalog().shard_of(id);
        let row = event(id, shard, event_id, units, node.api.clock.now());
        eventually("the event is acknowledged", async || {
            node.api.recorder.record(vec![row.clone()]).await.is_ok()
        })
        .await;
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not in time: {what}");
}

async fn ledger_of(node: &Running, id: SubscriptionId) -> Vec<LedgerRow> {
    let filter = RecordFilter {
        subscription: id,
        from: Micros::EPOCH,
        to: Micros::MAX,
        status: None,
        path: None,
        before: None,
        limit: 100_000,
    };
    node.api.store.records(&filter).await.expect("the ledger is read").data
}

/// INV-1 and INV-2 against the store and the actors.
async fn audit_all(node: &Running, sent: &Sent) {
    for index in 0..SUBSCRIPTIONS {
        let id = subscription(index);
        let expected: i64 =
            sent.values().filter(|(owner, ..)| *owner == index).map(|(_, units, _)| units).sum();
        let ledger = ledger_of(node, id).await;
        let mut ids: Vec<&str> = ledger.iter().map(|row| row.event_id.as_str()).collect();
        ids.sort_unstable();
        let rows = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), rows, "INV-1: an id is in the ledger twice");
        assert_eq!(
            ledger.iter().map(|row| row.units).sum::<i64>(),
            expected,
            "INV-1: lost or double"
        );
        let usage = node.api.router.usage(id).await.expect("the actor answers");
        let used = usage.decision.quotas[0].used.get();
        assert_eq!(used, expected.unsigned_abs(), "INV-2: used is not the sum of the ledger");
    }
}

/// The node dies: nothing is written, nothing is asked. What it had in flight is gone.
async fn kill(node: Running) {
    node.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_neither_lose_nor_double_an_event() {
    for seed_number in 0..8 {
        println!("seed {seed_number}");
        let mut rng = StdRng::seed_from_u64(seed_number);
        let inner = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
        let store = Arc::new(FaultyStore::new(Arc::new(inner), seed_number));
        let node = start_on(store.clone(), &config()).await.expect("it starts");
        seed(&*store, node.api.clock.now()).await;
        let mut sent = Sent::new();
        store.set_faults(25);
        send_some(&node, &mut rng, &mut sent, 60).await;
        store.set_faults(0);
        send_the_rest(&node, &mut sent).await;
        assert!(store.faults.load(std::sync::atomic::Ordering::Relaxed) > 3, "faults were met");
        audit_all(&node, &sent).await;
        assert!(!node.lost.is_cancelled(), "INV-8: the node fenced itself out");
        node.stop().await;
        // Everything again from what was written.
        let node = start_on(store.clone(), &config()).await.expect("it starts again");
        audit_all(&node, &sent).await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_checkpoint_saw_are_counted_after_a_death() {
    let mut rng = StdRng::seed_from_u64(1);
    let inner = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
    let store: Arc<dyn Store> = Arc::new(inner);
    let mut sent = Sent::new();
    let node = start_on(store.clone(), &config_with("1m")).await.expect("it starts");
    seed(&*store, node.api.clock.now()).await;
    send_some(&node, &mut rng, &mut sent, 20).await;
    kill(node).await;
    let node = start_on(store.clone(), &config()).await.expect("it starts again");
    // Nobody asks for these subscriptions; the bound of their shards moves on all the same, and only
    // after their rows were counted.
    let mut last: BTreeMap<ShardId, Seq> = BTreeMap::new();
    for index in 0..SUBSCRIPTIONS {
        for row in ledger_of(&node, subscription(index)).await {
            let position = last.entry(row.shard).or_default();
            *position = (*position).max(row.seq);
        }
    }
    eventually("every row is in a checkpoint", async || {
        let shards = store.shards().await.expect("the shards are read");
        last.iter().all(|(id, seq)| shards.iter().any(|s| s.shard == *id && s.counted >= *seq))
    })
    .await;
    audit_all(&node, &sent).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_between_lost_answers_neither_lose_nor_double_an_event() {
    for seed_number in 100..104 {
        println!("seed {seed_number}");
        let mut rng = StdRng::seed_from_u64(seed_number);
        let inner = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
        let store = Arc::new(FaultyStore::new(Arc::new(inner), seed_number));
        let mut sent = Sent::new();
        let mut node = start_on(store.clone(), &config()).await.expect("it starts");
        seed(&*store, node.api.clock.now()).await;
        for _ in 0..5 {
            store.set_faults(20);
            send_some(&node, &mut rng, &mut sent, 15).await;
            store.set_faults(0);
            kill(node).await;
            node = start_on(store.clone(), &config()).await.expect("it starts again");
        }
        send_the_rest(&node, &mut sent).await;
        audit_all(&node, &sent).await;
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_limit_holds_over_deaths_and_lost_answers() {
    for seed_number in 200..204 {
        println!("seed {seed_number}");
        let mut rng = StdRng::seed_from_u64(seed_number);
        let inner = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
        let store = Arc::new(FaultyStore::new(Arc::new(inner), seed_number));
        let mut node = start_on(store.clone(), &config()).await.expect("it starts");
        seed(&*store, node.api.clock.now()).await;
        let id = subscription(0);
        let mut admitted = 0;
        for _ in 0..6 {
            store.set_faults(20);
            for _ in 0..400 {
                let cost = rng.random_range(1..8);
                let check = Check { cost: Units::new(cost), ..Check::default() };
                let shard = node.api.router.catalog().shard_of(id);
                // Degraded decisions are past the escrow by the operator's own choice.
                if let Ok(decision) = node.api.router.shards().check(id, shard, &check).await
                    && decision.allowed
                    && decision.mode == weir_core::meter::Mode::Enforced
                {
                    admitted += cost;
                }
            }
            store.set_faults(0);
            kill(node).await;
            node = start_on(store.clone(), &config()).await.expect("it starts again");
        }
        println!("admitted {admitted} of {LIMIT}");
        assert!(admitted <= LIMIT, "INV-3: {admitted} admitted of {LIMIT}");
        assert!(admitted > LIMIT / 10, "the run admitted enough to mean something");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_send_of_the_same_event_is_told_to_be_a_duplicate() {
    let inner = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
    let store: Arc<dyn Store> = Arc::new(inner);
    let node = start_on(store.clone(), &config()).await.expect("it starts");
    seed(&*store, node.api.clock.now()).await;
    let id = subscription(0);
    let shard = node.api.router.catalog().shard_of(id);
    let row = |event_id: &str| event(id, shard, event_id.into(), 1, node.api.clock.now());
    let outcomes = node.api.recorder.record(vec![row("a"), row("a"), row("b")]).await;
    assert_eq!(outcomes, Ok(vec![Recorded::New, Recorded::Duplicate, Recorded::New]));
    let outcomes = node.api.recorder.record(vec![row("a"), row("a"), row("b")]).await;
    assert_eq!(outcomes, Ok(vec![Recorded::Duplicate; 3]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_the_store_refuses_holds_up_nobody_else() {
    let mut rng = StdRng::seed_from_u64(3);
    let inner = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
    let store = Arc::new(FaultyStore::new(Arc::new(inner), 3));
    // Rounds so far apart that the refused one is back for each: none goes without it.
    let node = start_on(store.clone(), &config_with("2s")).await.expect("it starts");
    seed(&*store, node.api.clock.now()).await;
    store.refuse_state_of(Some(subscription(2)));
    let mut sent = Sent::new();
    send_some(&node, &mut rng, &mut sent, 20).await;
    send_the_rest(&node, &mut sent).await;
    let refused = "weir_checkpoint_refused_total";
    eventually("it was refused, and again", async || {
        let figures = node.api.metrics.render(&[]);
        let line = figures.lines().find(|line| line.starts_with(refused));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).is_some_and(|n: u64| n >= 2)
    })
    .await;
    let catalog = node.api.router.catalog();
    for index in [0, 1, 3, 4, 5] {
        let id = subscription(index);
        let shard = catalog.shard_of(id);
        assert_ne!(shard, catalog.shard_of(subscription(2)), "its bound is held, with reason");
        let last = ledger_of(&node, id).await.iter().map(|row| row.seq).max();
        eventually("the others are written, and their shards' bounds", async || {
            let loaded = store.load(&[(id, shard, Seq::default())]).await.expect("it loads");
            let shards = store.shards().await.expect("the shards are read");
            loaded[0].checkpoint.is_some() && Some(shards[usize::from(shard.0)].counted) >= last
        })
        .await;
    }
    assert!(!node.lost.is_cancelled(), "INV-7: the node ended for one subscription");
    audit_all(&node, &sent).await;

    store.refuse_state_of(None);
    send_some(&node, &mut rng, &mut sent, 20).await;
    send_the_rest(&node, &mut sent).await;
    node.stop().await;
    let node = start_on(store.clone(), &config()).await.expect("it starts again");
    audit_all(&node, &sent).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_zombie_writes_bounces_off_the_fence_and_is_counted() {
    let inner = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
    let store: Arc<dyn Store> = Arc::new(inner);
    // It does not ask for its lease meanwhile: it is the fence that must hold.
    let environment = [
        ("WEIR_HTTP", "127.0.0.1:0"),
        ("WEIR_CHECKPOINT__INTERVAL", "1m"),
        ("WEIR_CLUSTER__LEASE", "5m"),
        ("WEIR_CLUSTER__LEASE_RENEW", "1m"),
    ];
    let config = Config::load(None, environment, Overrides::default()).expect("it is valid");
    let zombie = start_on(store.clone(), &config).await.expect("it starts");
    seed(&*store, zombie.api.clock.now()).await;
    let id = subscription(0);
    let shard = zombie.api.router.catalog().shard_of(id);
    let send = async |name: &str| {
        let now = zombie.api.clock.now();
        zombie.api.router.record(vec![event(id, shard, name.to_owned(), 1, now)]).await
    };
    assert_eq!(send("before").await.ok(), Some(vec![Recorded::New]));
    // Another boot under its name, as after a machine that was paused and replaced.
    let successor = NodeRow {
        id: config.node_id.as_str().to_owned(),
        incarnation: Uuid::now_v7(),
        http: String::new(),
        cluster: String::new(),
        seal: String::new(),
    };
    store.join(&successor, 60_000).await.expect("it joins");
    store.claim(successor.incarnation, &[shard]).await.expect("it claims");
    assert!(send("after").await.is_err());
    let figures = zombie.api.metrics.render(&[]);
    let line = figures.lines().find(|line| line.starts_with("weir_fenced_writes_total"));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    // Of this process, in which other nodes may be fenced too.
    assert!(count.is_some_and(|count| count >= 1), "{line:?}");
    assert!(zombie.lost.is_cancelled(), "it ends");
    let left = ledger_of(&zombie, id).await;
    assert_eq!(left.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>(), ["before"]);
    kill(zombie).await;
}
