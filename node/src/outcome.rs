//! What becomes of a request, told from room to room and from node to node.

/// No decision could be made. The gateway applies its fail policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// More requests wait for this subscription than may.
    #[error("too many requests are waiting for this subscription")]
    Busy,
    /// The decision needs the store, and the plan fails closed.
    #[error("the store is away and the plan fails closed")]
    StoreAway,
    /// There is no such subscription.
    #[error("no such subscription")]
    NotFound,
    /// The subscription could not be loaded.
    #[error("the subscription could not be loaded")]
    NotLoaded,
    /// Another node decides about it.
    #[error("another node owns the subscription")]
    NotHere,
    /// It died again and again while it decided.
    #[error("the subscription could not decide")]
    Failed,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the ledger now.
    New,
    /// Its identity was there already.
    Duplicate,
}

/// Why rows were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The queue is full.
    #[error("too many rows are waiting to be written")]
    Busy,
    /// The store is away; some rows may be durable all the same, a retry with the same ids is safe.
    #[error("the store is away")]
    Away,
    /// This node may not write any more.
    #[error("this node no longer owns the shard")]
    Fenced,
    /// Another node writes them, or will in a moment. None of this lane's were taken in.
    #[error("another node owns the shard")]
    NotHere,
}
