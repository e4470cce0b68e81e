//! The one integration test program: each module tells the stories of one subject.

mod billing;
mod charges;
mod cli;
mod cluster;
mod deliveries;
mod durability;
mod events;
mod faults;
mod hostile;
mod limits;
mod rates;
mod replay;
mod reservations;
mod tidy;
