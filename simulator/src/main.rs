//! `weir-sim`: arguments in, one command run, its exit code out. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use weir_sim::cli::{self, Cli};

/// The client shares its cores with the server it measures, so each allocation counts twice.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
