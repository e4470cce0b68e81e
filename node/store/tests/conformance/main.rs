//! The store's conformance suite: what the trait promises, told as stories, the same on both
//! engines.
//!
//! Each story takes a fresh, empty store. `on_both_engines!` makes two tests of it. Faults of a
//! server can only happen to one: those stories are in `faults` and `file`.

mod billing;
mod catalogue;
mod checkpoints;
mod deliveries;
mod faults;
mod fences;
mod file;
mod fixture;
mod ledger;
mod membership;
mod races;
mod reach;
mod upkeep;
mod usage;

/// Makes a test per engine of each story.
macro_rules! on_both_engines {
    ($($story:ident),+ $(,)?) => {
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    super::$story(crate::fixture::postgres().await).await;
                }
            )+
        }
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    super::$story(crate::fixture::sqlite().await).await;
                }
            )+
        }
    };
}
use on_both_engines;
