//! Who owns which shard: one node's part in it, as a state machine.
//!
//! Role: decides when to renew, look, claim, hand over and give up; does none of it. The shell runs the
//! [`Effect`]s against the database and the peers and feeds back what came of them. *Hash proposes, the
//! database decides*: the proposal says who should own a shard; a compare-and-set on its row says who
//! does, and its epoch fences everybody else (INV-4).
//!
//! ```text
//!               claim                    plan says another            nothing in memory
//!   Absent ───────────▶ Claiming ─▶ Held ─────────────────▶ Freezing ──────────────────▶ Handing
//!     ▲                                ▲                                                  │ │ │
//!     │                                │ own epoch raised ◀── Asking ◀── unknown ─────────┘ │ │
//!     │                                └──────────────────────── refused ───────────────────┘ │
//!     └───────────────────────────────────────────────────────── done ────────────────────────┘
//! ```
//! What if the node is killed: before the hand-over its lease runs out and others claim; after it the
//! target owns the shard already. What if the hand-over's answer is lost: the owner looks; if it still
//! owns the shard it raises the epoch first, so that the lost hand-over can never happen later.
//! What if the node was paused: a renewal tells it that it is dead, and every write bounces meanwhile.

mod lease;
mod node;
mod view;

#[cfg(test)]
mod tests;

pub use lease::{Lease, Renewal};
pub use node::{Effect, Input, Node, Settings, Slot};
pub use view::{Member, MemberState, Owner, View};
