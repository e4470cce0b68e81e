//! What this process knows to be committed, held against every database that it meets under its URL.
//!
//! Role: refuses a copy that has lost commits: a backup that was restored, or a standby that was behind and
//! became the primary. In such a database events that were answered 200 are gone, and counters in memory
//! speak of rows that do not exist; writing on would make of two histories one that never was. Every boot
//! leaves two counts that only grow, its place among all joins and the renewals of its lease; whoever finds
//! less than it was told has gone back in time. New connections are asked before they are used, since a
//! fail-over breaks the old ones, and every renewal looks again, for poolers that hide one. What was lost
//! since the last renewal alone is not seen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, query};
use uuid::Uuid;

use super::{Conn, decode};
use crate::failure::Failure;

/// Counts that were committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness(Arc<Mutex<Seen>>);

#[derive(Clone, Debug, Default)]
struct Seen {
    /// The newest of our joins among all of them.
    joins: i64,
    /// Renewals of each boot that joined by this store; one in a process that serves.
    beats: HashMap<Uuid, i64>,
}

/// How connections are opened.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) options: PgConnectOptions,
    pub(super) witness: Witness,
}

/// A connection to a database that remembers what it should.
pub(super) async fn open(opening: &Opening) -> Result<(Conn, super::Brake), Failure> {
    let mut connection = Conn::connect_with(&opening.options).await?;
    opening.witness.question(&mut connection).await?;
    Ok((connection, ()))
}

impl Witness {
    /// A boot joined, as the so-many-th.
    pub(super) fn joined(&self, boot: Uuid, number: i64) {
        let mut seen = self.lock();
        seen.joins = seen.joins.max(number);
        seen.beats.insert(boot, 0);
    }

    /// A boot's lease was renewed, for the so-many-th time.
    pub(super) fn renewed(&self, boot: Uuid, beats: i64) {
        if let Some(known) = self.lock().beats.get_mut(&boot) {
            *known = (*known).max(beats);
        }
    }

    /// What a database must have, at least: joins, and renewals of this boot.
    pub(super) fn expects(&self, boot: Uuid) -> (i64, i64) {
        let seen = self.lock();
        (seen.joins, seen.beats.get(&boot).copied().unwrap_or_default())
    }

    /// Asks a database that was connected to anew.
    async fn question(&self, connection: &mut Conn) -> Result<(), Failure> {
        // Before the database is asked: what is committed meanwhile it need not know of yet.
        let Seen { joins, beats } = self.lock().clone();
        if beats.is_empty() {
            // Nothing was promised yet, or this is an operator's tool.
            return Ok(());
        }
        let meta =
            query("SELECT joins, rewound, pg_is_in_recovery() FROM cluster_meta WHERE id = 1")
                .fetch_optional(&mut *connection)
                .await?;
        let meta = decode::maybe(meta.as_ref(), |columns| {
            Ok((columns.take()?, columns.take()?, columns.take()?))
        })?;
        let (found, rewound, is_standby): (i64, bool, bool) = meta.unwrap_or_default();
        if is_standby {
            // It may know a moment later what it does not show yet, and takes no writes either way.
            return Err(Failure::NoConnection);
        }
        if rewound || found < joins {
            return Err(Failure::Rewound);
        }
        let boots: Vec<Uuid> = beats.keys().copied().collect();
        let statement = "SELECT incarnation, beats FROM nodes WHERE incarnation = ANY($1) \
                         AND state IN ('joining', 'up', 'draining')";
        let rows = query(statement).bind(boots).fetch_all(connection).await?;
        let found: Vec<(Uuid, i64)> =
            decode::all(&rows, |columns| Ok((columns.take()?, columns.take()?)))?;
        let is_short =
            |(boot, found): &(Uuid, i64)| beats.get(boot).is_some_and(|&seen| *found < seen);
        if found.iter().any(is_short) { Err(Failure::Rewound) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
