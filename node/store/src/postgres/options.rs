//! How to reach Postgres, and how long anything may take.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::{Error, Result};

/// Where the database is and what its calls are bounded by. Made by [`PostgresOptions::new`]; every
/// field may be set afterwards.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database?sslmode=…`
    pub url: String,
    /// Connections for changes. More than the server's cores gain nothing; one per writer and lane
    /// keeps them from waiting for each other.
    pub write_connections_max: u16,
    /// Connections for reads.
    pub read_connections_max: u16,
    /// Longest that a call may take, waiting for a connection included.
    pub query_timeout: Duration,
    /// Longest wait for a connection; shorter than `query_timeout`, so that a call that never
    /// started is told apart from one that did not end.
    pub acquire_timeout: Duration,
    /// Longest that upkeep (shard rows, partitions, forgetting) may take.
    pub upkeep_timeout: Duration,
    /// Whether to bring the tables up to date; not for who only looks, perhaps with a newer program.
    pub migrates: bool,
    /// Longest that bringing the tables up to date may take, waiting for other nodes included.
    pub migrate_timeout: Duration,
}

impl PostgresOptions {
    /// The database at `url`, with the usual limits.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            write_connections_max: 8,
            read_connections_max: 8,
            query_timeout: Duration::from_secs(2),
            acquire_timeout: Duration::from_secs(1),
            upkeep_timeout: Duration::from_secs(30),
            migrates: true,
            migrate_timeout: Duration::from_mins(1),
        }
    }

    /// For connections that read. The server ends on its own what we have given up: a statement at
    /// our limit, a wait for a lock before it (so that we learn that nothing happened), and a
    /// transaction whose client froze or vanished, whose locks would otherwise keep a shard from
    /// being claimed.
    pub(super) fn connect_options(&self, commits_durably: bool) -> Result<PgConnectOptions> {
        let limit_ms = self.query_timeout.as_millis().max(4);
        let options = self.connect_options_unbounded()?.options([
            ("statement_timeout", limit_ms.to_string()),
            ("lock_timeout", (limit_ms * 3 / 4).to_string()),
            ("idle_in_transaction_session_timeout", (limit_ms * 2).to_string()),
            // Compiling a plan takes longer than any of our statements.
            ("jit", "off".to_owned()),
        ]);
        // INV-1: an answer means durable. A stricter setting of the server's is left alone.
        Ok(if commits_durably { options } else { options.options([("synchronous_commit", "on")]) })
    }

    /// For connections that write. Their statements all go from a batch to rows by key; a planner
    /// that misjudges how long a batch is must not read whole tables to join with it.
    pub(super) fn connect_options_by_key(&self, commits_durably: bool) -> Result<PgConnectOptions> {
        let by_key = [("enable_hashjoin", "off"), ("enable_mergejoin", "off")];
        self.connect_options(commits_durably).map(|options| options.options(by_key))
    }

    /// For migrations, which may take long.
    pub(super) fn connect_options_unbounded(&self) -> Result<PgConnectOptions> {
        PgConnectOptions::from_str(&self.url)
            .map(|options| options.application_name("weir"))
            .map_err(|error| Error::Broken { operation: "read the URL", source: Box::new(error) })
    }
}

impl fmt::Debug for PostgresOptions {
    /// Without the URL: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("write_connections_max", &self.write_connections_max)
            .field("read_connections_max", &self.read_connections_max)
            .field("query_timeout", &self.query_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let options = PostgresOptions::new("postgres://weir:hunter2@localhost/weir");
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn a_url_that_is_none_is_broken_not_away() {
        let refused = PostgresOptions::new("not a url").connect_options(true);
        assert!(matches!(refused, Err(error) if !error.is_away()));
    }
}
