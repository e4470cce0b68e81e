//! Links between nodes, each a process of its own: what passes, what is refused, what a node that
//! dies, stops or lies does to its peers.

#![allow(clippy::unwrap_used, reason = "every line of this program belongs to a test")]

mod authority;
mod child;
mod node;

mod failures;
mod hostile;
mod messages;
mod tls;
