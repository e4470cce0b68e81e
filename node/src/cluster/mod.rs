//! One cluster out of several nodes: what they say to each other and how it gets there.
//!
//! ```text
//!   router ─▶ Peers ─▶ transport ─▶ … ─▶ Answering ─▶ shards, recorder        (another node)
//!     ▲ Table ◀── Membership ◀──▶ store: nodes and shards
//!                     └──▶ Ownership: what this node serves
//! ```
//! Role: the room between the router, which asks, and the shard, which answers. Membership decides what
//! is served here and knows who serves the rest; nothing else writes either. The transport knows nothing
//! of all this.

mod answering;
mod detour;
mod membership;
mod peers;
mod table;
pub mod transport;

pub use answering::{Answering, PASSING_MAX};
pub use membership::{Membership, Parts, Progress};
pub use peers::{NoReply, Peers};
pub use table::{Peer, Table};
