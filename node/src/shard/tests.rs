//! What if a step panics half way through a state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;
use weir_config::{Config, Overrides};
use weir_core::meter::Check;
use weir_core::units::ReservationId;
use weir_store::Store;
use weir_store::sqlite::{SqliteOptions, SqliteStore};

use super::subscription::Checked;
use crate::catalog::KeyLookup;
use crate::{app, dev};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_broken_state_is_loaded_anew_and_whoever_waited_hears_of_it() {
    let store = SqliteStore::open(&SqliteOptions::memory()).await.expect("it opens");
    let store: Arc<dyn Store> = Arc::new(store);
    let settings = [("WEIR_HTTP", "127.0.0.1:0")];
    let config = Config::load(None, settings, Overrides::default()).expect("it is valid");
    let node = app::start_on(store.clone(), &config).await.expect("it starts");
    dev::seed(&store, node.api.clock.now()).await.expect("it is seeded");
    let (shards, catalog) = (node.api.router.shards(), node.api.router.catalog());
    let key = catalog.find_key("demo-small").await.expect("the store answers");
    let KeyLookup::Good { subscription, .. } = key else { panic!("the key is good: {key:?}") };
    let shard = catalog.shard_of(subscription);
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
