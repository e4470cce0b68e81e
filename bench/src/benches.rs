//! The benches: each measures one or two rows of the table, alone, and cleans up after itself.
//!
//! Everything that a bench starts ends with a value it holds, so a bench that fails or is given up on
//! leaves nothing behind. They run one after the other.

mod actor;
mod bare;
mod batches;
mod checkpoint;
mod cluster;
mod core_apply;
mod events;
mod faults;
mod fixture;
mod http_check;
mod open_loop;
mod residents;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::machine::Scratch;
use crate::table::Row;

/// What every bench works with.
#[derive(Debug)]
pub struct Bench {
    /// Short runs.
    pub quick: bool,
    /// Where the programs lie.
    pub programs: PathBuf,
    /// Where files may be put.
    pub scratch: Scratch,
}

impl Bench {
    /// One of two lengths of time.
    fn seconds(&self, usual: u64, quick: u64) -> Duration {
        Duration::from_secs(if self.quick { quick } else { usual })
    }

    /// One of two counts.
    fn count(&self, usual: usize, quick: usize) -> usize {
        if self.quick { quick } else { usual }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<Vec<Row>>> + Send>>;

/// A bench by the rows that it measures.
pub struct Entry {
    /// Numbers of its goals.
    pub goals: &'static [u8],
    /// Runs it.
    pub run: fn(Arc<Bench>) -> Running,
}

/// All benches, in the order they run: those within this process first.
pub const BENCHES: &[Entry] = &[
    Entry { goals: &[3], run: |bench| Box::pin(async move { core_apply::run(&bench) }) },
    Entry { goals: &[4], run: |bench| Box::pin(async move { actor::run(&bench).await }) },
    Entry { goals: &[1, 2], run: |bench| Box::pin(async move { http_check::run(&bench).await }) },
    Entry { goals: &[5], run: |bench| Box::pin(async move { events::run(&bench).await }) },
    Entry { goals: &[6], run: |bench| Box::pin(async move { checkpoint::run(&bench).await }) },
    Entry { goals: &[8, 9], run: |bench| Box::pin(async move { residents::run(&bench).await }) },
    Entry { goals: &[10, 11], run: |bench| Box::pin(async move { cluster::run(&bench).await }) },
    Entry { goals: &[12, 13], run: |bench| Box::pin(async move { faults::run(&bench).await }) },
    Entry { goals: &[7], run: |bench| Box::pin(async move { open_loop::run(&bench).await }) },
];

/// Where a bench stands, for whoever watches.
fn progress(text: &str) {
    eprintln!("bench:   {text}");
}
