//! A real `weir serve`: started, asked for its figures, ended.
//!
//! A node that is dropped is killed, by its own handle and nothing wider.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use uuid::Uuid;
use weir_sim::client::{Answer, Endpoint, Lane, Prepared, bearer};

use crate::machine;

/// The bootstrap admin token of every node started here; they listen on loopback only.
pub const ADMIN_TOKEN: &str = "weir-bench-admin-token";

/// A node brings its tables up to date and may wait for a predecessor's lease.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Longer than the node's own drain time.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);
/// Longer than the node's own request time-out.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often figures are looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// `http://host:port`.
    pub url: String,
    /// Its process.
    pub process: u32,
    endpoints: Arc<[Endpoint]>,
    child: Child,
    /// Kept open: the node would fail to print into a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

impl Node {
    /// Starts `weir serve` from the directory of `programs` and waits until it listens.
    pub async fn start(programs: &Path, logs: &Path, database_url: &str) -> Result<Self> {
        Self::start_with(programs, logs, database_url, &[]).await
    }

    /// The same as one of a cluster of those who share the database and `secret`.
    pub async fn start_in_cluster(
        programs: &Path,
        logs: &Path,
        database_url: &str,
        name: &str,
        secret: &str,
    ) -> Result<Self> {
        let environment = [
            ("WEIR_NODE_ID", name),
            ("WEIR_CLUSTER_LISTEN", "127.0.0.1:0"),
            ("WEIR_CLUSTER_SECRET", secret),
        ];
        Self::start_with(programs, logs, database_url, &environment).await
    }

    async fn start_with(
        programs: &Path,
        logs: &Path,
        database_url: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let log = logs.join(format!("node-{}.log", Uuid::now_v7().simple()));
        let mut command = Command::new(programs.join("weir"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEIR_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--http", "127.0.0.1:0", "--database-url", database_url])
            .env("WEIR_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("WEIR_LOG_FILTER", "warn")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).context("make the node's log")?)
            .kill_on_drop(true);
        let mut child = command.spawn().context("start weir")?;
        let process = child.id().context("weir ended at once")?;
        let mut stdout = BufReader::new(child.stdout.take().context("weir's output")?);
        let mut line = String::new();
        let read = timeout(START_TIMEOUT, stdout.read_line(&mut line)).await;
        let address = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("http="));
        let Some(address) = address else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("weir does not listen ({read:?}): {}", last_lines(&said));
        };
        let url = format!("http://{address}");
        let endpoints = Arc::from([Endpoint::parse(&url)?]);
        Ok(Self { url, process, endpoints, child, _stdout: stdout })
    }

    /// A connection to it.
    pub fn lane(&self) -> Lane {
        Lane::new(Arc::clone(&self.endpoints), 0, ANSWER_TIMEOUT)
    }

    /// User and system time that it has used so far.
    pub fn processor_time(&self) -> Result<Duration> {
        machine::processor_time(self.process)
    }

    /// Bytes of memory it has resident.
    pub fn resident_bytes(&self) -> Result<u64> {
        machine::resident_bytes(self.process)
    }

    /// Its figures.
    pub async fn metrics(&self) -> Result<Metrics> {
        let request = Prepared::get("/metrics".parse()?, HeaderMap::new());
        let answer = call(&mut self.lane(), &request).await?;
        Ok(Metrics(String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// Waits until a gauge has come down to `value`.
    pub async fn wait_until(&self, gauge: &str, value: f64, patience: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let now = self.metrics().await?.sum(gauge);
            if now <= value {
                return Ok(());
            }
            ensure!(
                started.elapsed() < patience,
                "{gauge} is {now} and does not come down to {value}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks it to end and waits until it has. Answers how long that took.
    pub async fn stop(mut self) -> Result<Duration> {
        let started = Instant::now();
        let told = Command::new("kill").args(["-TERM", &self.process.to_string()]).status().await;
        ensure!(told.context("run kill")?.success(), "weir could not be asked to end");
        let status =
            timeout(STOP_TIMEOUT, self.child.wait()).await.context("weir does not end")??;
        ensure!(status.success(), "weir ended with {status}");
        Ok(started.elapsed())
    }

    /// Ends it as a crash would.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("kill weir")
    }
}

/// The text of `/metrics`.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Sum over all series that begin with `prefix`: a name, or a name and its first labels.
    pub fn sum(&self, prefix: &str) -> f64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(prefix);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

/// One exchange that is expected to succeed.
pub async fn call(lane: &mut Lane, request: &Prepared) -> Result<Answer> {
    let answer = lane.call(request).await.with_context(|| request.uri.to_string())?;
    let Answer { status, body, .. } = &answer;
    ensure!(status.is_success(), "{}: {status}: {}", request.uri, String::from_utf8_lossy(body));
    Ok(answer)
}

/// A POST of JSON.
pub fn post(uri: &'static str, token: &str, body: Bytes) -> Result<Prepared> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, bearer(token)?);
    headers.insert(
        HeaderName::from_static("content-type"),
        HeaderValue::from_static("application/json"),
    );
    Ok(Prepared { method: Method::POST, uri: uri.parse()?, headers, body })
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 5;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join(" / ")
}

/// The directory of the programs: where this one lies, cargo puts the others.
pub fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is this program")?;
    let directory = own.parent().context("this program lies nowhere")?.to_owned();
    for name in ["weir", "weir-sim"] {
        ensure!(
            directory.join(name).is_file(),
            "{name} does not lie beside this program; run scripts/bench, which builds it"
        );
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_name_add_up_and_longer_names_do_not_count() {
        let text = "# TYPE a counter
a{reason=\"ok\",mode=\"x\"} 2
a{reason=\"no\",mode=\"x\"} 3
\
                    a_b 50
c 7
";
        let metrics = Metrics(text.to_owned());
        for (prefix, sum) in [("a", "5"), ("a{reason=\"ok\"", "2"), ("c", "7"), ("none", "0")] {
            assert_eq!(metrics.sum(prefix).abs().to_string(), sum, "{prefix}");
        }
    }

    #[test]
    fn only_the_end_of_a_log_is_told() {
        assert_eq!(last_lines("1\n2\n3\n4\n5\n6\n"), "2 / 3 / 4 / 5 / 6");
        assert_eq!(last_lines(""), "");
    }
}
