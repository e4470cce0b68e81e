//! What if a step panics half way through a state, and who goes first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;
use weir_config::{Config, Overrides};
use weir_core::meter::{Check, Decision};
use weir_core::units::{ReservationId, ShardId, SubscriptionId, Units};
use weir_store::Store;
use weir_store::sqlite::{SqliteOptions, SqliteStore};

use super::subscription::Checked;
use crate::catalog::KeyLookup;
use crate::{app, dev};

const PATIENCE: Duration = Duration::from_secs(30);

/// A node with the demo's subscriptions, and one of them: 100 requests a month, hard.
async fn start() -> (app::Running, SubscriptionId, ShardId) {
    let store = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
    let store: Arc<dyn Store> = Arc::new(store);
    let settings = [("WEIR_HTTP", "127.0.0.1:0")];
    let config = Config::load(None, settings, Overrides::default()).expect("it is valid");
    let node = app::start_on(store.clone(), &config).await.expect("it starts");
    dev::seed(&store, node.api.clock.now()).await.expect("it is seeded");
    let catalog = node.api.router.catalog();
    let key = catalog.find_key("demo-small").await.expect("the store answers");
    let KeyLookup::Good { subscription, .. } = key else { panic!("the key is good: {key:?}") };
    let shard = catalog.shard_of(subscription);
    (node, subscription, shard)
}

#[tokio::test]
async fn a_small_check_does_not_overtake_a_large_one_that_waits() {
    let (node, subscription, shard) = start().await;
    let shards = node.api.router.shards();
    let first = shards.check(subscription, shard, &Check::default()).await;
    assert!(first.expect("it is decided").allowed);
    let door = shards.residents().get(&subscription).expect("it is resident").clone();
    let ask = |cost| {
        let check = Check { cost: Units::new(cost), ..Check::default() };
        door.check(node.api.clock.now(), &check).expect("it is resident")
    };
    // All that is left: more than the escrow has, while a single unit would fit.
    let Checked::Later(large) = ask(99) else { panic!("there is room without a commit") };
    let Checked::Later(small) = ask(1) else { panic!("it went first") };
    assert!(matches!(ask(0), Checked::Now(Ok(_))), "who only looks waits for nobody");
    let [large, small] = [large, small].map(|answer| timeout(PATIENCE, answer));
    let told = |answer: Result<_, _>| -> Decision {
        let answer: Result<Result<_, _>, _> = answer.expect("in time");
        answer.expect("the actor lives").expect("it is decided")
    };
    assert!(told(large.await).allowed);
    assert!(!told(small.await).allowed);
    node.stop().await;
}

#[tokio::test]
async fn a_broken_state_is_loaded_anew_and_whoever_waited_hears_of_it() {
    let (node, subscription, shard) = start().await;
    let shards = node.api.router.shards();
    for _ in 0..3 {
        let decision = shards.check(subscription, shard, &Check::default()).await;
        assert!(decision.expect("it is decided").allowed);
    }

    let door = shards.residents().get(&subscription).expect("it is resident").clone();
    let reserve = Some(ReservationId::from_uuid(Uuid::now_v7()));
    let named = Check { reserve, ..Check::default() };
    let Some(Checked::Later(waiting)) = door.check(node.api.clock.now(), &named) else {
        panic!("a named hold waits for its commit");
    };
    let broken = catch_unwind(AssertUnwindSafe(|| {
        let _state = door.state();
        panic!("a defect, made by the test");
    }));
    assert!(broken.is_err());

    let decided = timeout(PATIENCE, shards.check(subscription, shard, &Check::default())).await;
    let decision = decided.expect("in time").expect("it is decided");
    assert!(decision.allowed);
    // INV-3: what was let through before is still held.
    assert!(decision.quotas[0].pending.get() >= 4, "{decision:?}");
    let heard = timeout(PATIENCE, waiting).await.expect("in time");
    assert!(heard.is_err(), "nobody is left to answer: {heard:?}");
    let successor = shards.residents().get(&subscription).expect("it is resident").clone();
    assert_ne!(successor.actor_id(), door.actor_id());
    assert!(node.api.metrics.render(&[]).contains("weir_actor_restarts_total 1"));
    node.stop().await;
}
