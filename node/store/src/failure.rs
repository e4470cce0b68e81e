//! What went wrong inside an engine, and what that means for the caller.
//!
//! Role: the one place where a failure becomes an [`Error`]. The rooms below return a [`Failure`]
//! and know nothing of the call they serve; a [`Call`] knows its name and whether its COMMIT may
//! have reached the database, and that decides between "nothing was written" and "nobody knows".

use std::sync::atomic::{AtomicBool, Ordering};

use weir_core::units::ShardId;

use crate::Error;

/// What a failed statement says about the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer never came or the connection is lost: a COMMIT may have been carried out.
    Away,
    /// The database answered that it did not do it, and may do it another time.
    Refused,
    /// A bug or damage: another try ends the same.
    Broken,
}

/// Failure of a piece of work within a call.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The driver or the database.
    Engine(sqlx::Error),
    /// A connection was not to be had in time; nothing was sent.
    NoConnection,
    /// Shards of the fence are lost.
    Fenced(Vec<ShardId>),
    /// The change collides with this.
    Conflict(&'static str),
    /// This does not exist.
    NotFound(&'static str),
    /// The database has lost what was committed.
    Rewound,
    /// The database holds something that cannot be.
    Damaged(String),
}

/// Result of a piece of work within a call.
pub(crate) type Outcome<T> = std::result::Result<T, Failure>;

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error)
    }
}

impl Failure {
    /// Turns a broken unique index into a conflict with `with`.
    pub(crate) fn on_unique(error: sqlx::Error, with: &'static str) -> Self {
        match &error {
            sqlx::Error::Database(cause) if cause.is_unique_violation() => Self::Conflict(with),
            _ => Self::Engine(error),
        }
    }
}

/// One call of the store: its name for errors, and how far it got.
#[derive(Debug)]
pub(crate) struct Call {
    operation: &'static str,
    commit_sent: AtomicBool,
}

impl Call {
    /// A call that has sent nothing yet.
    pub(crate) const fn new(operation: &'static str) -> Self {
        Self { operation, commit_sent: AtomicBool::new(false) }
    }

    /// To be said before the first byte of a COMMIT leaves.
    pub(crate) fn note_commit_sent(&self) {
        self.commit_sent.store(true, Ordering::Relaxed);
    }

    /// The error of a call that ran out of time.
    pub(crate) fn timed_out(&self) -> Error {
        self.away(None)
    }

    /// The error that `failure` means for this call. `verdict` judges the engine's own errors.
    pub(crate) fn failed(
        &self,
        failure: Failure,
        verdict: impl FnOnce(&sqlx::Error) -> Verdict,
    ) -> Error {
        let operation = self.operation;
        match failure {
            Failure::Engine(error) => match verdict(&error) {
                Verdict::Away => self.away(Some(Box::new(error))),
                Verdict::Refused => Error::Unavailable { operation, source: Some(Box::new(error)) },
                Verdict::Broken => Error::Broken { operation, source: Box::new(error) },
            },
            Failure::NoConnection => Error::Unavailable { operation, source: None },
            Failure::Fenced(shards) => Error::Fenced { operation, shards },
            Failure::Conflict(with) => Error::Conflict { operation, with },
            Failure::NotFound(what) => Error::NotFound { what },
            Failure::Rewound => Error::Rewound { operation },
            Failure::Damaged(what) => Error::Broken { operation, source: what.into() },
        }
    }

    fn away(&self, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let operation = self.operation;
        if self.commit_sent.load(Ordering::Relaxed) {
            Error::Unknown { operation, source }
        } else {
            Error::Unavailable { operation, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_unknown_only_once_a_commit_is_on_its_way() {
        let call = Call::new("append");
        assert!(matches!(call.timed_out(), Error::Unavailable { operation: "append", .. }));
        call.note_commit_sent();
        assert!(matches!(call.timed_out(), Error::Unknown { operation: "append", .. }));
    }

    #[test]
    fn a_refusal_of_the_database_is_definite_even_at_commit() {
        let call = Call::new("append");
        call.note_commit_sent();
        let refused = call.failed(Failure::Engine(sqlx::Error::PoolClosed), |_| Verdict::Refused);
        assert!(matches!(refused, Error::Unavailable { .. }));
        let broken = call.failed(Failure::Engine(sqlx::Error::PoolClosed), |_| Verdict::Broken);
        assert!(!broken.is_away());
    }
}
