//! Stories of the meter, told through its public door.
//!
//! `world` makes plans and a subscription whose store never fails; each other module tells one part
//! of the contract. `owners` is the simulator in small: owners that crash, zombies, lost commits.

mod changing;
mod clock;
mod deciding;
mod holding;
mod model;
mod notices;
mod owners;
mod periods;
mod pricing;
mod repeating;
mod reserving;
mod restoring;
mod several;
mod switching;
mod world;
