//! Who goes along with a load and makes targets come and go under it.
//!
//! The escort is told when the load begins, sends connections home when all targets are well again,
//! and its notes are written beside the load's progress. A load with an escort behaves as a gateway
//! with health checks: a check whose connection fails is sent to the next target, with the same
//! `Idempotency-Key`, so that it is charged once whoever had seen it.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::client::Healed;

/// The load's side of it.
#[derive(Debug, Clone)]
pub struct Escort {
    /// Told once when the first request is due.
    pub began: SyncSender<Instant>,
    /// Announced by the escort when every target answers.
    pub healed: Healed,
    /// What the escort has to say.
    pub notes: Notes,
}

/// Lines for people, waiting to be written by whoever owns the terminal.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    /// Leaves a line.
    pub fn say(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Takes the lines that wait.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
