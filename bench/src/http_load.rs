//! Closed-loop load over HTTP from another process: `wrk`, or weir-sim's client where there is none.
//!
//! Both send the same prepared requests over the same number of connections from one thread, so that
//! what the client costs is the same for whatever is compared. A client in this process is dearer than
//! `wrk` and takes more of the machine from the server; a row says which one it was.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::process::Command;
use weir_sim::client::{Lane, Prepared, bearer};
use weir_sim::measure::Latency;

use crate::node::Node;

const LIVEZ: &str = "/livez";
const CHECK: &str = "/api/v1/quota/check";

/// Grace for `wrk` beyond its own duration.
const OVERTIME: Duration = Duration::from_secs(20);

/// `wrk`'s part of the work: requests are formatted once, each turn only picks one. Numbers come back in
/// one line of our own, because the ones for people are rounded.
const SCRIPT: &str = r#"
local prepared, at = {}, 0
function init(args)
  local path, keys, token = args[1], args[2], args[3]
  for key in io.lines(keys) do
    local headers = nil
    if token then
      headers = { ["Authorization"] = "Bearer " .. token, ["X-Subscription-Key"] = key }
    end
    prepared[#prepared + 1] = wrk.format("GET", path, headers)
  end
end
function request()
  at = at % #prepared + 1
  return prepared[at]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("weir-bench %d %d %d %d %d\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `GET /livez`, without headers.
    Livez,
    /// `GET /api/v1/quota/check` with token and key in headers, the keys in turn.
    Check,
}

/// What came of one run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Answers a second.
    pub per_second: f64,
    /// Processor time of the server for each.
    pub processor_micros: f64,
    /// Latency.
    pub p50_micros: u64,
    /// Latency.
    pub p99_micros: u64,
}

struct Counted {
    requests: u64,
    time: Duration,
    errors: u64,
    p50_micros: u64,
    p99_micros: u64,
}

/// A client with its prepared requests.
#[derive(Debug)]
pub struct HttpLoad {
    connections: usize,
    token: String,
    keys: Arc<[String]>,
    wrk: Option<Wrk>,
}

#[derive(Debug)]
struct Wrk {
    script: PathBuf,
    keys: PathBuf,
}

impl HttpLoad {
    /// A client that asks for these keys in turn. Its files go to `directory`.
    pub async fn new(
        directory: &Path,
        connections: usize,
        token: &str,
        keys: Vec<String>,
    ) -> Result<Self> {
        let mut version = Command::new("wrk");
        version.arg("-v").stdout(Stdio::null()).stderr(Stdio::null());
        let wrk = if version.status().await.is_ok() {
            let wrk = Wrk { script: directory.join("load.lua"), keys: directory.join("keys.txt") };
            std::fs::write(&wrk.script, SCRIPT).context("write wrk's script")?;
            std::fs::write(&wrk.keys, keys.join("\n")).context("write the keys")?;
            Some(wrk)
        } else {
            None
        };
        Ok(Self { connections, token: token.to_owned(), keys: keys.into(), wrk })
    }

    /// The client by name.
    pub fn name(&self) -> &'static str {
        if self.wrk.is_some() {
            "wrk -t1"
        } else {
            "weir-sim's client (wrk is not installed), 1 thread"
        }
    }

    /// Asks one thing for a while.
    pub async fn run(&self, node: &Node, ask: Ask, duration: Duration) -> Result<Sample> {
        let before = node.processor_time()?;
        let counted = match &self.wrk {
            Some(wrk) => self.run_wrk(wrk, node, ask, duration).await?,
            None => self.run_own(node, ask, duration).await?,
        };
        let processor = node.processor_time()?.saturating_sub(before);
        let Counted { requests, time, errors, p50_micros, p99_micros } = counted;
        ensure!(requests > 0 && errors == 0, "{ask:?}: {errors} errors, {requests} answers");
        Ok(Sample {
            per_second: crate::figures::per_second(requests, time),
            processor_micros: processor.as_secs_f64() * 1e6 / crate::figures::float(requests),
            p50_micros,
            p99_micros,
        })
    }

    async fn run_wrk(
        &self,
        wrk: &Wrk,
        node: &Node,
        ask: Ask,
        duration: Duration,
    ) -> Result<Counted> {
        let mut command = Command::new("wrk");
        command
            .args(["-t1", &format!("-c{}", self.connections)])
            .arg(format!("-d{}s", duration.as_secs()))
            .arg("-s")
            .arg(&wrk.script)
            .arg(&node.url)
            .arg("--")
            .arg(if ask == Ask::Check { CHECK } else { LIVEZ })
            .arg(&wrk.keys)
            .args((ask == Ask::Check).then_some(&self.token))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(duration + OVERTIME, command.output());
        let output = output.await.context("wrk does not end")?.context("run wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        read_numbers(&text).with_context(|| {
            format!("wrk said: {text} {}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// The same with weir-sim's client, on a thread of its own.
    async fn run_own(&self, node: &Node, ask: Ask, duration: Duration) -> Result<Counted> {
        let lanes: Vec<Lane> = (0..self.connections).map(|_| node.lane()).collect();
        let (keys, token) = (Arc::clone(&self.keys), bearer(&self.token)?);
        let work = move || -> Result<Counted> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let started = Instant::now();
                let requests = prepare(ask, &keys, &token)?;
                let count = lanes.len();
                let tasks = lanes.into_iter().enumerate().map(|(first, lane)| {
                    ask_in_turn(lane, requests.iter().skip(first).step_by(count), started, duration)
                });
                let mut all = Counted {
                    requests: 0,
                    time: duration,
                    errors: 0,
                    p50_micros: 0,
                    p99_micros: 0,
                };
                let mut latency = Latency::new();
                for (errors, more) in join_all(tasks).await {
                    all.errors += errors;
                    latency.merge(&more);
                }
                all.requests = latency.len();
                all.time = started.elapsed();
                (all.p50_micros, all.p99_micros) = (latency.at(0.50), latency.at(0.99));
                Ok(all)
            })
        };
        tokio::task::spawn_blocking(work).await.context("the client panicked")?
    }
}

fn prepare(ask: Ask, keys: &[String], token: &HeaderValue) -> Result<Vec<Prepared>> {
    let path = if ask == Ask::Check { CHECK } else { LIVEZ };
    keys.iter()
        .map(|key| {
            let mut headers = HeaderMap::new();
            if ask == Ask::Check {
                headers.insert(AUTHORIZATION, token.clone());
                headers.insert(HeaderName::from_static("x-subscription-key"), key.parse()?);
            }
            Ok(Prepared::get(path.parse()?, headers))
        })
        .collect()
}

async fn ask_in_turn<'a>(
    mut lane: Lane,
    requests: impl Iterator<Item = &'a Prepared> + Clone,
    started: Instant,
    duration: Duration,
) -> (u64, Latency) {
    let (mut errors, mut latency) = (0, Latency::new());
    for request in requests.cycle() {
        let sent = Instant::now();
        if sent - started >= duration {
            break;
        }
        match lane.call(request).await {
            Ok(answer) if answer.status.is_success() => latency.record(sent.elapsed()),
            _ => errors += 1,
        }
    }
    (errors, latency)
}

fn read_numbers(text: &str) -> Option<Counted> {
    let line = text.lines().find_map(|line| line.strip_prefix("weir-bench "))?;
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [requests, micros, errors, p50_micros, p99_micros] = numbers.try_into().ok()?;
    Some(Counted { requests, time: Duration::from_micros(micros), errors, p50_micros, p99_micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_numbers_is_found_among_those_for_people() {
        let read =
            read_numbers("Running 8s test\nRequests/sec: 1\nweir-bench 80000 8000000 2 500 900\n");
        let Counted { requests, time, errors, p50_micros, p99_micros } = read.expect("a line");
        assert_eq!(
            (requests, time.as_secs(), errors, p50_micros, p99_micros),
            (80_000, 8, 2, 500, 900)
        );
        assert!(read_numbers("weir-bench 1 2").is_none());
        assert!(read_numbers("").is_none());
    }
}
