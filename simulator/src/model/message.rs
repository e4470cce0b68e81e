//! What travels: between gateway and nodes, between nodes, and between a node and the store.

use std::sync::Arc;

use uuid::Uuid;
use weir_core::meter::{Entry, MeterState};
use weir_core::ownership::{Owner, View};
use weir_core::units::{Epoch, Seq, ShardId};

/// A process: one boot of a node. Numbered in the order of their starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pid(pub(super) usize);

impl Pid {
    /// The boot's name in the store.
    pub(super) const fn incarnation(self) -> Uuid {
        Uuid::from_u128(self.0 as u128 + 1)
    }

    /// The process of a boot.
    pub(super) fn of(incarnation: Uuid) -> Option<Self> {
        usize::try_from(incarnation.as_u128()).ok()?.checked_sub(1).map(Self)
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    /// All gateways.
    Gateway,
    /// The database.
    Store,
    /// A node.
    Node(Pid),
}

/// What a gateway wants of the owner of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// May this many units pass?
    Check,
    /// This many units were used.
    Event,
}

/// A question on its way to the owner.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Id of the request; of its event as well. A retry carries the same.
    pub(super) id: u64,
    /// Which try of the gateway it is.
    pub(super) attempt: u32,
    pub(super) want: Want,
    pub(super) subscription: usize,
    pub(super) units: u64,
    /// Nodes that passed it on; the answer goes back the same way.
    pub(super) path: Vec<Pid>,
}

/// What a gateway is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The check may pass.
    Allowed,
    /// It may not.
    Refused,
    /// The event is in the ledger.
    Recorded,
    /// Nobody knows; ask again.
    Unavailable,
}

/// A message.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Ask(Ask),
    Answer(Ask, Told),
    /// News about owners.
    Owners(Vec<(ShardId, Owner)>),
    /// To the store, with the number of the operation.
    Query(u64, Arc<Query>),
    /// From it.
    Reply(u64, Reply),
}

/// A row of the ledger.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) subscription: usize,
    pub(super) shard: ShardId,
    /// Identity, together with the subscription.
    pub(super) event: u64,
    pub(super) entry: Entry,
}

/// Proof for a write: a boot and its epochs.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    pub(super) incarnation: Uuid,
    pub(super) shards: Vec<(ShardId, Epoch)>,
}

/// A stored state.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) subscription: usize,
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) version: u64,
    pub(super) clean: bool,
    pub(super) state: MeterState,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(super) enum Query {
    Join {
        name: String,
        incarnation: Uuid,
    },
    Renew(Uuid),
    Look,
    Bury,
    Claim {
        incarnation: Uuid,
        wanted: Vec<ShardId>,
    },
    HandOver {
        from: Uuid,
        to: Uuid,
        shards: Vec<(ShardId, Epoch)>,
    },
    Drain(Uuid),
    Leave(Uuid),
    Append {
        fence: Fence,
        rows: Vec<Row>,
    },
    Checkpoint {
        fence: Fence,
        number: u64,
        rows: Vec<Stored>,
    },
    Load(usize),
    /// Rows after these positions.
    After(Vec<(ShardId, Seq)>),
}

/// A shard that was claimed: its epoch and the last row of its ledger.
pub(super) type Claimed = (ShardId, Epoch, Seq);

/// What a transaction came to.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// It did what was asked.
    Done,
    /// The boot is dead or replaced.
    Gone,
    /// A shard in the fence is not held at that epoch.
    Fenced,
    /// A batch number that cannot follow.
    Conflict,
    /// Nothing was done: the store could not be reached.
    Away,
    Looked(View),
    Claimed(Vec<Claimed>),
    Taken(Vec<(ShardId, Epoch)>),
    /// Per row whether it was new.
    Appended(Vec<bool>),
    Loaded(Box<(Option<Stored>, Vec<Entry>)>),
    Rows(Vec<Row>),
}
