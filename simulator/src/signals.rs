//! Ctrl-C and SIGTERM: the first one asks a run to end in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Error;
use crate::load::runtime;
use crate::progress::to_stderr;

/// A flag that the first signal sets, with a word on what happens now.
pub(crate) fn stop_on_signal(what: &'static str) -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = runtime()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?)
    };
    std::thread::Builder::new()
        .name("weir-sim-signal".to_owned())
        .spawn(move || {
            let told = runtime.block_on(async {
                tokio::select! { told = interrupt.recv() => told, told = terminate.recv() => told }
            });
            if told.is_some() {
                flag.store(true, Ordering::Relaxed);
                to_stderr(&format!("weir-sim: {what}"));
            }
        })
        .map_err(|source| Error::Start { what: "the signal thread", source })?;
    Ok(stop)
}

fn handler(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|source| Error::Start { what: "a signal handler", source })
}
