//! Where the SQLite database lies, how safely it writes, and how long anything may take.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::{Error, Result};

/// Where the database lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, made if it is not there.
    File(PathBuf),
    /// In memory, gone when the store is dropped. For tests: reads wait for writes.
    Memory,
}

/// A SQLite database and what its calls are bounded by. Made by [`SqliteOptions::file`] or
/// [`SqliteOptions::memory`]; every field may be set afterwards.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Where it lies.
    pub place: Place,
    /// Connections for reads. More than cores gain nothing.
    pub read_connections_max: u16,
    /// Longest that a call may take, waiting for the writer included.
    pub query_timeout: Duration,
    /// Longest wait for a connection; shorter than `query_timeout`.
    pub acquire_timeout: Duration,
    /// Longest that upkeep and migrations may take.
    pub upkeep_timeout: Duration,
}

/// Gives each in-memory database of this process a name of its own.
static MEMORIES: AtomicU64 = AtomicU64::new(0);

/// Statements kept prepared per connection: all of ours, the bulk ones in each of their sizes
/// included.
const STATEMENTS: usize = 256;

/// Pages that a connection keeps, in KiB. Less, and index pages of a large ledger are read again
/// and again; more pays nothing beside the operating system's own cache.
const CACHE_KIB: i64 = 32 * 1024;

/// Bytes to which the write-ahead log is cut back once it was folded.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

impl SqliteOptions {
    /// The database in this file, with the usual limits.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::File(path.into()))
    }

    /// A new database in memory.
    pub fn memory() -> Self {
        Self::at(Place::Memory)
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            read_connections_max: 4,
            query_timeout: Duration::from_secs(2),
            acquire_timeout: Duration::from_secs(1),
            upkeep_timeout: Duration::from_secs(30),
        }
    }

    pub(super) fn connect_options(&self) -> Result<SqliteConnectOptions> {
        let options = match &self.place {
            Place::File(path) => SqliteConnectOptions::new().filename(path).create_if_missing(true),
            Place::Memory => {
                let number = MEMORIES.fetch_add(1, Ordering::Relaxed);
                let url = format!("sqlite:file:weir-{number}?mode=memory&cache=shared");
                SqliteConnectOptions::from_str(&url).map_err(|error| Error::Broken {
                    operation: "name a database",
                    source: Box::new(error),
                })?
            }
        };
        Ok(options
            .journal_mode(SqliteJournalMode::Wal)
            // INV-1: NORMAL would lose the last commits with the power.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // Our own queue comes first; this is for a person with a shell on the same file.
            .busy_timeout(self.acquire_timeout)
            .statement_cache_capacity(STATEMENTS)
            .pragma("cache_size", (-CACHE_KIB).to_string())
            .pragma("journal_size_limit", LOG_BYTES_KEPT.to_string())
            .pragma("temp_store", "memory"))
    }
}
