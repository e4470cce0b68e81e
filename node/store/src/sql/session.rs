//! One call's use of one connection, from BEGIN to the answer.
//!
//! Role: every call of the store runs as `bounded(session … end)`. Dropping a session at any point,
//! as the time limit or a caller that goes away does, closes its connection, which ends the
//! transaction at the database; nothing half done ever returns to the pool.

use std::sync::Arc;
use std::time::Duration;

use sqlx::raw_sql;

use super::connections::{Connections, Lease};
use super::{BEGIN_SNAPSHOT, BEGIN_WRITE, Conn, verdict};
use crate::failure::{Call, Failure, Outcome, Verdict};
use crate::{Error, Result};

/// A connection in the hands of a call.
pub(super) struct Session<'c> {
    call: &'c Call,
    lease: Lease,
    open: Open,
}

/// What is open on the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Snapshot,
    Changes,
}

/// Runs a call's work within its time. When time runs out the work is dropped, and with it the
/// connection that it used.
pub(super) async fn bounded<T>(
    call: &Call,
    limit: Duration,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(call.timed_out()))
}

impl<'c> Session<'c> {
    /// For single statements that only read.
    pub(super) async fn read(connections: &Arc<Connections>, call: &'c Call) -> Result<Self> {
        Self::begin(connections, call, Open::Nothing).await
    }

    /// For several reads that must see one state of the database.
    pub(super) async fn snapshot(connections: &Arc<Connections>, call: &'c Call) -> Result<Self> {
        Self::begin(connections, call, Open::Snapshot).await
    }

    /// For changes, all or none.
    pub(super) async fn write(connections: &Arc<Connections>, call: &'c Call) -> Result<Self> {
        Self::begin(connections, call, Open::Changes).await
    }

    /// Where statements run.
    pub(super) fn connection(&mut self) -> &mut Conn {
        self.lease.connection()
    }

    /// Commits what succeeded or takes back what did not, and says so in the caller's terms.
    pub(super) async fn end<T>(self, done: Outcome<T>) -> Result<T> {
        match done {
            Ok(answer) => self.commit().await.map(|()| answer),
            Err(failure) => Err(self.abandon(failure).await),
        }
    }

    async fn begin(connections: &Arc<Connections>, call: &'c Call, open: Open) -> Result<Self> {
        let lease = connections.acquire().await.map_err(|failure| call.failed(failure, verdict))?;
        let mut session = Self { call, lease, open };
        let statement = match open {
            Open::Nothing => return Ok(session),
            Open::Snapshot => BEGIN_SNAPSHOT,
            Open::Changes => BEGIN_WRITE,
        };
        match raw_sql(statement).execute(session.connection()).await {
            Ok(_) => Ok(session),
            Err(error) => Err(session.discard(error.into())),
        }
    }

    async fn commit(mut self) -> Result<()> {
        if self.open == Open::Changes {
            self.call.note_commit_sent();
        }
        if self.open != Open::Nothing
            && let Err(error) = raw_sql("COMMIT").execute(self.connection()).await
        {
            return Err(self.discard(error.into()));
        }
        self.lease.give_back();
        Ok(())
    }

    /// A refusal, ours or the database's, leaves the connection in order once it is rolled back.
    async fn abandon(mut self, failure: Failure) -> Error {
        let in_order = match &failure {
            Failure::Engine(error) => {
                matches!(error, sqlx::Error::Database(_)) && verdict(error) != Verdict::Away
            }
            _ => true,
        };
        if !in_order {
            return self.discard(failure);
        }
        let clean = self.open == Open::Nothing
            || raw_sql("ROLLBACK").execute(self.connection()).await.is_ok();
        let error = self.call.failed(failure, verdict);
        if clean {
            self.lease.give_back();
        }
        error
    }

    fn discard(self, failure: Failure) -> Error {
        if matches!(&failure, Failure::Engine(error) if verdict(error) == Verdict::Away) {
            self.lease.discard_as_lost();
        }
        self.call.failed(failure, verdict)
    }
}
