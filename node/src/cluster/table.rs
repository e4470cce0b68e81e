//! Who owns which shard and where every node is, as membership last knew.
//!
//! Role: written by membership only, read by every request that is not answered here. It may be late:
//! whoever is asked wrongly says so, and the database has the last word.

use std::sync::Arc;
use std::sync::{PoisonError, RwLock};

use http::HeaderValue;
use uuid::Uuid;
use weir_core::ownership::Owner;
use weir_core::units::ShardId;

/// A node that is not gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its boot.
    pub boot: Uuid,
    /// Its name, told with its decisions.
    pub name: HeaderValue,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    me: Uuid,
    owners: RwLock<Vec<Owner>>,
    peers: RwLock<Arc<[Peer]>>,
}

impl Table {
    /// Knows nothing yet.
    pub fn new(me: Uuid, shards: usize) -> Self {
        Self {
            me,
            owners: RwLock::new(vec![Owner::default(); shards]),
            peers: RwLock::new(Arc::new([])),
        }
    }

    /// This boot.
    pub const fn me(&self) -> Uuid {
        self.me
    }

    /// The boot that owns a shard.
    pub fn owner(&self, shard: ShardId) -> Option<Uuid> {
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        owners.get(usize::from(shard.0)).and_then(|owner| owner.incarnation)
    }

    /// Every other node that is not gone.
    pub fn peers(&self) -> Arc<[Peer]> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name of a boot; of one that came since the last look, its boot's id.
    pub fn name(&self, boot: Uuid) -> HeaderValue {
        let known =
            self.peers().iter().find(|peer| peer.boot == boot).map(|peer| peer.name.clone());
        let id = || HeaderValue::from_str(&boot.to_string()).ok();
        known.or_else(id).unwrap_or(HeaderValue::from_static("node"))
    }

    pub(super) fn set_owners(&self, owners: impl Iterator<Item = Owner>) {
        let mut known = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        for (known, owner) in known.iter_mut().zip(owners) {
            *known = owner;
        }
    }

    pub(super) fn set_peers(&self, peers: Arc<[Peer]>) {
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
    }
}
