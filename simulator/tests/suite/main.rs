//! The simulator against a small faithful mock of Weir, right and wrong in every way it must notice,
//! and with real nodes where it starts them itself.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers may say what they expect in the shortest way"
)]

mod cluster;
mod commands;
mod load;
mod mock;
mod model;
mod replay;
