//! One `weir serve` process on a database, to ask, to kill, to end in order and to start again.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::binary::{isolate, signal, weir};
use crate::client::Http;
use crate::watchdog;

/// Longest start. Migrations on a loaded machine take seconds.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest end after SIGTERM: the node's own drain time-out and some more.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// Lines of stderr that are kept, the newest.
const LOG_LINES_MAX: usize = 2_000;
/// The bootstrap token of every node.
const ADMIN_TOKEN: &str = "an-admin-token-for-tests-only";

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// `sqlite://…` or `postgres://…`.
    pub database_url: String,
    /// More variables.
    pub environment: Vec<(String, String)>,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// A node that serves, or one that was stopped.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    process: Option<Child>,
    log: Arc<Log>,
    first_line: String,
    address: SocketAddr,
    http: Http,
}

/// A process that serves, and what it said first.
type Spawned = (Child, SocketAddr, String);
/// The exit code and the log of a process that ended before it served.
type Refusal = (Option<i32>, String);

impl Node {
    /// Starts a node and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(options: NodeOptions) -> Self {
        match Self::try_start(options).await {
            Ok(node) => node,
            Err(refusal) => panic!("the node did not start: {refusal:?}"),
        }
    }

    /// Starts a node; a node that ends before it serves returns its exit code and its log.
    pub async fn try_start(options: NodeOptions) -> Result<Self, Refusal> {
        let log = Arc::new(Log::default());
        let (process, address, first_line) = spawn(&options, &log).await?;
        let http = Http::new(address);
        Ok(Self { options, process: Some(process), log, first_line, address, http })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it printed when it began to serve.
    pub fn first_line(&self) -> &str {
        &self.first_line
    }

    /// How it was started, to start another one.
    pub fn options(&self) -> NodeOptions {
        self.options.clone()
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Http {
        self.http.clone()
    }

    /// A client that may do everything.
    pub fn admin(&self) -> Http {
        self.http.with_token(ADMIN_TOKEN)
    }

    /// Ends the process at once, as a crash does.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("the node runs");
        process.kill().expect("a child that was not waited for can be killed");
        process.wait().expect("a child can be waited for");
        watchdog::ended(process.id());
        self.log.settle();
    }

    /// Asks the process to end (SIGTERM), waits for it and expects exit code 0.
    ///
    /// # Panics
    /// When it ends otherwise or not at all.
    pub async fn terminate(&mut self) {
        self.signal("TERM");
        let code = self.wait().await;
        assert_eq!(code, Some(0), "{}", self.log());
    }

    /// Sends a signal, such as `TERM`, `STOP` or `CONT`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        signal(self.process.as_ref().expect("the node runs").id(), name);
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// When it does not.
    pub async fn wait(&mut self) -> Option<i32> {
        let process = self.process.as_mut().expect("the node runs");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = process.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(started.elapsed() < STOP_TIMEOUT, "the node does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        watchdog::ended(process.id());
        self.process = None;
        self.log.settle();
        status.code()
    }

    /// Starts a stopped node again on the same database; it serves at another address.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the node still runs");
        match spawn(&self.options, &self.log).await {
            Ok((process, address, first_line)) => {
                self.first_line = first_line;
                self.process = Some(process);
                self.address = address;
                self.http = Http::new(address);
            }
            Err(refusal) => panic!("the node did not start again: {refusal:?}"),
        }
    }

    /// Whether the process still runs.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.try_wait().expect("a child can be asked").is_none())
    }

    /// Whether it was started and nobody has seen it end.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// What it has written to stderr, over all its starts.
    pub fn log(&self) -> String {
        self.log.text()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
            watchdog::ended(process.id());
        }
        self.log.settle();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- log of the node at {} ---\n{log}---", self.address);
        } else {
            // A panic inside a node is a defect whatever the story was about.
            assert!(!log.contains("panicked"), "the node panicked:\n{log}");
        }
    }
}

async fn spawn(options: &NodeOptions, log: &Arc<Log>) -> Result<Spawned, Refusal> {
    let (options, log) = (options.clone(), log.clone());
    let spawning = tokio::task::spawn_blocking(move || spawn_and_wait(&options, &log));
    spawning.await.expect("spawning does not panic")
}

fn spawn_and_wait(options: &NodeOptions, log: &Arc<Log>) -> Result<Spawned, Refusal> {
    let mut command = Command::new(weir());
    command.args(["serve", "--http", "127.0.0.1:0"]).args(&options.arguments);
    command.env("WEIR_DATABASE_URL", &options.database_url);
    command.env("WEIR_ADMIN_TOKEN", ADMIN_TOKEN);
    for (name, value) in &options.environment {
        command.env(name, value);
    }
    isolate(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the node's program can be started");
    watchdog::began(process.id());
    let errors = process.stderr.take().expect("a pipe was asked for");
    let output = process.stdout.take().expect("a pipe was asked for");
    log.keep(errors);
    match first_line(output).recv_timeout(START_TIMEOUT) {
        Ok(line) => {
            let address = line.split_whitespace().find_map(|word| word.strip_prefix("http="));
            let address = address.and_then(|address| address.parse().ok());
            let address = address.unwrap_or_else(|| panic!("not the line that was agreed: {line}"));
            Ok((process, address, line))
        }
        Err(gone) => {
            // Its output is closed: it ends. One that only hangs is ended.
            if gone == RecvTimeoutError::Timeout {
                process.kill().ok();
            }
            let status = process.wait().expect("a child can be waited for");
            watchdog::ended(process.id());
            log.settle();
            Err((status.code(), log.text()))
        }
    }
}

/// Sends the first line, then reads on so that the node never blocks on its output.
fn first_line(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Later lines have nobody waiting.
            sender.try_send(line).ok();
        }
    });
    receiver
}

/// What the process writes to stderr, over all its starts.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<VecDeque<String>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    fn keep(self: &Arc<Self>, errors: ChildStderr) {
        let log = self.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let mut lines = lock(&log.lines);
                if lines.len() == LOG_LINES_MAX {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        });
        lock(&self.readers).push(reader);
    }

    /// Waits for the last line of a process that has ended: it may end before all of it was read.
    fn settle(&self) {
        for reader in std::mem::take(&mut *lock(&self.readers)) {
            reader.join().expect("reading a log does not panic");
        }
    }

    fn text(&self) -> String {
        lock(&self.lines).iter().flat_map(|line| [line, "\n"]).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
