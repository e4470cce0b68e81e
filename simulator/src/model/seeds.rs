//! Many runs, spread over the cores; the lowest red seed is the one that is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use weir_core::units::Span;

use super::{Figures, Options, Report, run};

/// Runs that were played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// How many.
    pub runs: u64,
    /// Events in all of them.
    pub steps: u64,
    /// Simulated time of all of them.
    pub lasted: Span,
    /// What happened in them.
    pub figures: Figures,
    /// A run that broke a promise; of those that were found the one with the lowest seed.
    pub red: Option<Report>,
}

/// Plays `count` runs with seeds from that of `options` on, until one is red. `told` hears after each
/// how many are done.
pub fn run_many(options: Options, count: u64, threads: usize, told: &mut dyn FnMut(u64)) -> Batch {
    let (next, is_red) = (AtomicU64::new(0), AtomicBool::new(false));
    let batch = Mutex::new(Batch::default());
    // One run ahead of whoever draws the progress is enough.
    let (done, progress) = mpsc::sync_channel(threads.max(1));
    let play = |done: mpsc::SyncSender<()>| {
        while !is_red.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let report = run(Options { seed: options.seed.wrapping_add(number), ..options });
            if report.violation.is_some() {
                is_red.store(true, Ordering::Relaxed);
            }
            // Nothing panics under this lock; what was added up is still whole.
            batch.lock().unwrap_or_else(PoisonError::into_inner).add(report);
            // The caller counts until all have ended.
            let _ = done.send(());
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let done = done.clone();
            scope.spawn(|| play(done));
        }
        drop(done);
        for number in 1.. {
            if progress.recv().is_err() {
                break;
            }
            told(number);
        }
    });
    batch.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Batch {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.steps += report.steps;
        self.lasted = Span::from_micros(self.lasted.get().saturating_add(report.lasted.get()));
        self.figures.add(&report.figures);
        let is_lower = self.red.as_ref().is_none_or(|red| report.seed < red.seed);
        if report.violation.is_some() && is_lower {
            self.red = Some(report);
        }
    }
}
