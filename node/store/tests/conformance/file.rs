//! SQLite's own stories: one process per file, and what is committed outlives it.

use weir_core::units::{Seq, ShardId};
use weir_store::sqlite::{SqliteOptions, SqliteStore};
use weir_store::{Error, Store as _};

use crate::fixture::{Directory, LEASE_MS, at, node, record, subscription_id};

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused_until_the_first_is_gone() {
    let directory = Directory::new();
    let options = SqliteOptions::file(directory.file());
    let first = SqliteStore::open(&options).await.expect("open");
    let refused = SqliteStore::open(&options).await.err().expect("the file is taken");
    assert!(matches!(refused, Error::Conflict { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another process"), "{refused}");
    first.ping().await.expect("the first is not disturbed");
    drop(first);
    SqliteStore::migrate(&options).await.expect("free again");
    SqliteStore::open(&options).await.expect("free again");
}

#[tokio::test]
async fn what_was_appended_is_there_after_the_next_start() {
    let directory = Directory::new();
    let options = SqliteOptions::file(directory.file());
    let row = record(subscription_id(), 0, 1);
    for (boot, new) in [(1, true), (2, false)] {
        let store = SqliteStore::open(&options).await.expect("open");
        assert_eq!(store.engine(), "sqlite");
        assert_eq!(store.init_shards(4).await.expect("shards"), 4);
        let node = node("only");
        store.join(&node, LEASE_MS).await.expect("join");
        let taken = store.claim(node.incarnation, &[ShardId(0)]).await.expect("claim");
        assert_eq!(taken[0].epoch.0, boot, "a restart fences its predecessor");
        assert_eq!(taken[0].last, Seq(boot - 1), "the ledger is where it was");
        let fence = weir_store::Fence {
            incarnation: node.incarnation,
            shards: vec![(ShardId(0), taken[0].epoch)],
        };
        let row = weir_store::rows::LedgerRow { seq: Seq(boot), ..row.clone() };
        assert_eq!(store.append(&fence, &[row]).await.expect("append").new, [new]);
    }
}

#[tokio::test]
async fn a_store_in_memory_is_a_store() {
    let stores = [SqliteOptions::memory(), SqliteOptions::memory()];
    let mut opened = Vec::new();
    for options in &stores {
        opened.push(SqliteStore::open(options).await.expect("open"));
    }
    assert_eq!(opened[0].init_shards(3).await.expect("shards"), 3);
    assert_eq!(opened[1].init_shards(5).await.expect("shards"), 5, "each is its own");
    assert_eq!(opened[0].maintain(at(0), 1, at(0)).await.expect("maintain"), 0);
    let window = opened[0].usage_window(subscription_id(), at(0), at(60_000_000)).await;
    assert!(window.expect("window").rows.is_empty());
}

#[tokio::test]
async fn a_path_that_cannot_be_is_broken_not_away() {
    let directory = Directory::new();
    let options = SqliteOptions::file(directory.file().join("below").join("a-file"));
    let refused = SqliteStore::open(&options).await.err().expect("no such directory");
    assert!(!refused.is_away(), "{refused:?}");
}
