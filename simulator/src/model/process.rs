//! A boot of a node: whether it runs, and what its clocks say.

use std::sync::Arc;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use weir_core::units::{Micros, Span};

use super::Break;
use super::cast::{Cast, DRIFT_PPM_MAX, OFFSET_MAX, WALL_START};
use super::message::{End, Message, Pid};
use super::node::Shell;

/// Messages that the kernel keeps for a process that does not read.
const UNREAD_MAX: usize = 10_000;

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs,
    /// Stopped in the middle of everything; it will go on as if nothing had been.
    Paused,
    /// Gone for good.
    Ended,
}

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) host: usize,
    pub(super) state: State,
    pub(super) shell: Shell,
    clock: Clock,
    /// What came while it was paused.
    unread: Vec<(End, Message)>,
}

/// Clocks that are off and drift.
#[derive(Clone, Copy, Debug)]
struct Clock {
    offset: i64,
    drift_ppm: i64,
}

impl Process {
    pub(super) fn start(
        pid: Pid,
        host: usize,
        cast: &Arc<Cast>,
        breaks: Option<Break>,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let clock = Clock {
            offset: random.random_range(-OFFSET_MAX.get()..=OFFSET_MAX.get()),
            drift_ppm: random.random_range(-DRIFT_PPM_MAX..=DRIFT_PPM_MAX),
        };
        let shell = Shell::new(pid, format!("weir-{host}"), cast.clone(), breaks);
        Self { pid, host, state: State::Runs, shell, clock, unread: Vec::new() }
    }

    /// Its monotonic clock.
    pub(super) fn monotonic(&self, now: Micros) -> Micros {
        now.plus(Span::from_micros(now.get() * self.clock.drift_ppm.max(0) / 1_000_000))
            .minus(Span::from_micros(now.get() * (-self.clock.drift_ppm).max(0) / 1_000_000))
    }

    /// Its wall clock: set right now and then, so it is off and does not drift away.
    pub(super) fn wall(&self, now: Micros) -> Micros {
        Micros::from_micros(WALL_START.get() + now.get() + self.clock.offset)
    }

    /// Whether it has not ended.
    pub(super) fn lives(&self) -> bool {
        self.state != State::Ended
    }

    /// Whether it would swear that nobody can have declared it dead.
    pub(super) fn trusts_its_lease(&self, now: Micros) -> bool {
        self.lives() && self.shell.is_trusted(self.monotonic(now))
    }

    /// Keeps a message for later.
    pub(super) fn keep(&mut self, from: End, message: Message) {
        if self.unread.len() < UNREAD_MAX {
            self.unread.push((from, message));
        }
    }

    /// What came while it was paused, in order.
    pub(super) fn take_unread(&mut self) -> Vec<(End, Message)> {
        std::mem::take(&mut self.unread)
    }
}
