//! The simulator against a small faithful mock of Weir, right and wrong in every way it must notice.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers may say what they expect in the shortest way"
)]

mod commands;
mod load;
mod mock;
mod replay;
