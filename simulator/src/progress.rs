//! How far a run is: a bar on a terminal, else a line every five seconds. Always on stderr, so that
//! stdout carries the result alone.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock;

/// A log file needs a line now and then, not a flood.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress of one phase of a run.
#[derive(Debug)]
pub struct Progress {
    name: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    quiet: bool,
    last_line_at: Option<Instant>,
}

impl Progress {
    /// Begins a phase with `total` steps; `quiet` shows nothing.
    pub fn begin(name: &'static str, total: u64, quiet: bool) -> Self {
        let on_terminal = !quiet && std::io::stderr().is_terminal();
        let bar = on_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{prefix:<9} [{bar:32}] {percent:>3}% {elapsed} (left {eta})  {msg}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸─"));
            bar.set_prefix(name);
            bar
        });
        Self { name, total, bar, quiet, last_line_at: None }
    }

    /// Tells where the phase is; cheap enough to call several times a second.
    pub fn at(&mut self, position: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message());
            return;
        }
        let now = clock::now();
        let is_due = self.last_line_at.is_none_or(|last| now - last >= LINE_EVERY);
        if self.quiet || !is_due {
            return;
        }
        // The first call only starts the clock: a phase shorter than the interval says nothing.
        if self.last_line_at.replace(now).is_some() {
            self.line(&format!("{position}/{} {}", self.total, message()));
        }
    }

    /// Ends the phase with a word on how it went.
    pub fn end(self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.quiet {
            self.line(message);
        }
    }

    /// Writes a line for people without disturbing the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| to_stderr(text)),
            None => to_stderr(text),
        }
    }

    fn line(&self, text: &str) {
        to_stderr(&format!("{:<9} {text}", self.name));
    }
}

/// A closed stderr is no reason to stop a run.
pub(crate) fn to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
