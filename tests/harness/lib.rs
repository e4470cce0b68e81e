//! What the tests share: real servers to run against, made and unmade by the tests themselves.
//!
//! Role: black-box tests (`tests/suite`) and the store's conformance suite use it. It knows nothing of
//! Weir's own crates, so that a mistake there cannot hide in here.
//!
//! ```text
//!   World   a node on a store of its own, with tokens: what most stories begin with
//!   Cluster several nodes on one database, with proxies on their wires
//!     Load    checks and events until told to end; its History is audited against the ledger
//!     Node  one `weir serve` process: ask, kill, end in order, start again
//!     Receiver, Mailbox  where webhooks and mail arrive
//!     Http  a client that answers with status, headers, body
//! ```
//! A failed expectation of the harness panics: there is no test to go on with.

#![allow(clippy::missing_panics_doc, reason = "every function here may panic, see above")]

mod audit;
mod binary;
mod caller;
mod client;
mod cluster;
mod load;
mod mailbox;
mod node;
pub mod postgres;
mod proxy;
mod receiver;
mod watchdog;
mod world;

use std::future::Future;
use std::time::{Duration, Instant};

pub use audit::{Audit, History};
pub use binary::{Finished, program, run, weir};
pub use caller::{Caller, Subscription};
pub use client::{Answer, Http, raw_exchange};
pub use cluster::{Cluster, LEASE, Wires};
pub use load::{Load, Metered};
pub use mailbox::{Mail, Mailbox};
pub use node::{Node, NodeOptions};
pub use proxy::{Gate, Proxy};
pub use receiver::{Received, Receiver, Reply};
pub use watchdog::TestDirectory;
pub use world::{Store, World, event, event_at, event_of, rfc3339};

/// Pause between two looks at a condition.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// Waits until `look` has something to show, and returns it.
///
/// # Panics
/// When it has not within `patience`; the last reason it gave is told.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(reason) if started.elapsed() > patience => {
                panic!("{what}: not within {patience:?}: {reason}")
            }
            Err(_) => tokio::time::sleep(POLL_PAUSE).await,
        }
    }
}

/// Makes two tests of each story, one on each store.
///
/// ```text
/// on_both_stores!(a_story_told_by_its_name);
/// async fn a_story_told_by_its_name(store: Store) { … }
/// ```
#[macro_export]
macro_rules! on_both_stores {
    ($($story:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $story() { super::$story($crate::Store::Sqlite).await })+
        }
        mod on_postgres {
            $(#[tokio::test] async fn $story() { super::$story($crate::Store::Postgres).await })+
        }
    };
}
