//! One `weir serve` process: started, signalled, waited for, and never left behind.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::launch::Launch;
use crate::Error;
use crate::clock;

/// Pause between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of its log that an error shows.
const LOG_LINES_SHOWN: usize = 5;

/// A node of the run.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) log: PathBuf,
    /// Where it serves HTTP, in every life.
    pub(super) http: Option<SocketAddr>,
    /// Where its peers reach it: another port in every life, and so the life's name.
    pub(super) cluster: Option<String>,
    launch: Arc<Launch>,
    process: Option<Child>,
    first_line: Option<Receiver<String>>,
}

impl Node {
    /// Node number `place`, counted from 0.
    pub(super) fn new(place: u16, launch: Arc<Launch>) -> Self {
        let name = format!("node-{}", place + 1);
        let log = launch.directory.join(format!("{name}.log"));
        let http = launch.address(place);
        Self { name, log, http, cluster: None, launch, process: None, first_line: None }
    }

    /// Starts the process; [`Self::is_listening`] tells when it serves.
    pub(super) fn spawn(&mut self) -> Result<(), Error> {
        let mut child = self.launch.spawn(&self.name, self.http, &self.log)?;
        self.first_line = child.stdout.take().map(first_line);
        self.process = Some(child);
        self.cluster = None;
        Ok(())
    }

    /// Whether it has said that it listens. An error when it ended instead.
    pub(super) fn is_listening(&mut self) -> Result<bool, Error> {
        let Some(lines) = &self.first_line else { return Ok(self.process.is_some()) };
        match lines.try_recv() {
            Ok(line) => {
                let word = |key| line.split_whitespace().find_map(|word| word.strip_prefix(key));
                self.http = word("http=").and_then(|address| address.parse().ok());
                self.cluster = word("cluster=").map(str::to_owned);
                self.first_line = None;
                if self.http.is_none() || self.cluster.is_none() {
                    return Err(self.failed(format!("said `{line}`, which was not agreed")));
                }
                Ok(true)
            }
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => {
                let how = self.wait(Duration::from_secs(5)).map_or_else(
                    || "closed its output".to_owned(),
                    |status| format!("ended with {status}"),
                );
                Err(self.failed(format!("{how} before it listened")))
            }
        }
    }

    /// Process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// How it ended, once, when it has ended by now.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().ok().flatten()?;
        self.forget();
        Some(status)
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let give_up_at = clock::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if self.process.is_none() || clock::now() >= give_up_at {
                return None;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// SIGKILL, and waits until it is gone. When it was sent.
    pub(super) fn kill(&mut self) -> Instant {
        let at = clock::now();
        if let Some(process) = &mut self.process {
            // Both only fail when it is gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
        self.forget();
        at
    }

    /// Sends a signal by its name without `SIG`.
    pub(super) fn signal(&self, name: &str) -> Result<(), Error> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(self.failed(format!("took no SIG{name}"))),
            Err(source) => Err(Error::Start { what: "the program `kill`", source }),
        }
    }

    fn forget(&mut self) {
        if let Some(process) = self.process.take() {
            self.launch.guard.ended(process.id());
        }
        self.first_line = None;
    }

    fn failed(&self, what: String) -> Error {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().rev().take(LOG_LINES_SHOWN).collect();
        let last = lines.into_iter().rev().collect::<Vec<_>>().join("\n  ");
        let name = self.name.clone();
        Error::Node { name, what, log: self.log.clone(), last }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Hands over the first line, then reads on, so that the node never blocks on its output.
fn first_line(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Later lines have nobody waiting.
            let _ = sender.try_send(line);
        }
    });
    receiver
}
