//! Why a store call failed, in the terms its callers act on.

use weir_core::units::ShardId;

/// Failure of a store call. What to do next differs by variant, never by message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not take the call; nothing was written. Try again later.
    #[error("store unavailable while trying to {operation}")]
    Unavailable {
        /// What was tried.
        operation: &'static str,
        /// The engine's own error, if it gave one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The call may or may not have been committed. Settle by claiming the shards again, or repeat
    /// it where the call says a repeat changes nothing.
    #[error("outcome unknown of {operation}")]
    Unknown {
        /// What was tried.
        operation: &'static str,
        /// The engine's own error, if it gave one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Shards in the fence are no longer ours. Nothing was written.
    #[error("{operation} refused by the fence of {} shards", shards.len())]
    Fenced {
        /// What was tried.
        operation: &'static str,
        /// The shards that were lost.
        shards: Vec<ShardId>,
    },
    /// The change collides with what is there. Nothing was written.
    #[error("{operation} conflicts with {with}")]
    Conflict {
        /// What was tried.
        operation: &'static str,
        /// With what, in the caller's words (`external_id`, `key`, `revision`, …).
        with: &'static str,
    },
    /// Something that the change refers to does not exist. Nothing was written.
    #[error("{what} not found")]
    NotFound {
        /// What is missing.
        what: &'static str,
    },
    /// The database has lost what this process knows to be committed: it is a copy that was restored, or
    /// a standby that was behind. Nothing was written, and nothing should be until somebody looks.
    #[error("{operation} refused: the database has lost commits")]
    Rewound {
        /// What was tried.
        operation: &'static str,
    },
    /// A bug or a damaged database: retrying will not help.
    #[error("store failed to {operation}")]
    Broken {
        /// What was tried.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether a retry may help, here or on another node.
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unknown { .. } | Self::Rewound { .. })
    }
}
