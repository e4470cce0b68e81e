//! Rows 12 and 13: what a gateway feels when nodes are killed, and when they are restarted in order.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use super::fixture::{Engine, Fixture};
use super::{Bench, progress};
use crate::figures::float;
use crate::table::{Row, Verdict};

const RATE: u64 = 300;
/// Time for nodes to start, the last events and the audit beyond the load itself.
const OVERTIME: Duration = Duration::from_mins(3);

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let killed = under(bench, "--kill-every").await?;
    let restarted = under(bench, "--stop-every").await?;
    Ok(vec![killed.of_kills(), restarted.of_restarts()])
}

/// What `weir-sim cluster` reports.
struct Outcome {
    passed: bool,
    seconds: u64,
    faults: u64,
    checks: u64,
    failed: u64,
    lost: u64,
    double: u64,
    over: u64,
    failing_p50_seconds: f64,
    failing_max_seconds: f64,
    p99_millis: f64,
    max_millis: f64,
}

async fn under(bench: &Bench, fault: &str) -> Result<Outcome> {
    // The simulator starts nodes of its own.
    let fixture = Fixture::make(Engine::Postgres, 0).await?;
    let duration = bench.seconds(60, 15);
    let file = bench.scratch.path().join(format!("cluster{fault}.json"));
    progress(&format!("three nodes, {fault} 5s, for {} s", duration.as_secs()));
    let mut command = Command::new(bench.programs.join("weir-sim"));
    command
        .args(["cluster", "--nodes", "3", "--quiet", fault, "5s"])
        .args(["--database-url", &fixture.database_url, "--rate", &RATE.to_string()])
        .args(["--duration", &format!("{}s", duration.as_secs())])
        .arg("--json")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let ended = timeout(duration + OVERTIME, command.output()).await;
    let output = ended.context("weir-sim does not end")?.context("run weir-sim")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | 1)), "weir-sim did not run: {said}");
    let report = std::fs::read(&file).context("read weir-sim's report")?;
    Outcome::read(&serde_json::from_slice(&report)?, duration)
}

impl Outcome {
    fn read(report: &Value, duration: Duration) -> Result<Self> {
        let number = |pointer: &str| {
            let found = report.pointer(pointer).and_then(Value::as_u64);
            found.with_context(|| format!("weir-sim's report has no {pointer}"))
        };
        let passed = report.pointer("/passed").and_then(Value::as_bool);
        Ok(Self {
            passed: passed.context("weir-sim's report has no verdict")?,
            seconds: duration.as_secs(),
            faults: number("/kinds/0/faults")?,
            checks: number("/load/traffic/checks/sent")?,
            failed: number("/load/traffic/checks/failed")?,
            lost: number("/load/ledger/lost")?,
            double: number("/load/ledger/double")?,
            over: number("/load/ledger/overAdmitted")?,
            failing_p50_seconds: float(number("/kinds/0/failingMillis/p50")?) / 1e3,
            failing_max_seconds: float(number("/kinds/0/failingMillis/max")?) / 1e3,
            p99_millis: float(number("/load/traffic/latencyMicros/check/p99")?) / 1e3,
            max_millis: float(number("/load/traffic/latencyMicros/check/max")?) / 1e3,
        })
    }

    fn books(&self) -> String {
        format!("{} lost, {} double, {} over", self.lost, self.double, self.over)
    }

    fn how(&self, what: &str) -> String {
        format!(
            "`weir-sim cluster --nodes 3` for {} s, {RATE} checks/s and their events; {} nodes {what}, one \
             at a time; {} checks, {} of them failed; nodes, Postgres and client share the processors",
            self.seconds, self.faults, self.checks, self.failed
        )
    }

    fn of_kills(&self) -> Row {
        let measured = format!(
            "{:.1} s (p50 {:.1} s); {}",
            self.failing_max_seconds,
            self.failing_p50_seconds,
            self.books()
        );
        let row = Row::judged(12, "Postgres", self.failing_max_seconds, measured);
        self.sure(row.how(self.how("killed with kill -9 and started again")), true)
    }

    fn of_restarts(&self) -> Row {
        let measured = format!(
            "{} failed, {}, check p99 {:.1} ms, longest {:.0} ms",
            self.failed,
            self.books(),
            self.p99_millis,
            self.max_millis
        );
        let row = Row::judged(13, "Postgres", self.p99_millis, measured);
        self.sure(row.how(self.how("ended with SIGTERM and started again")), self.failed == 0)
    }

    /// No time is good enough for books that do not add up.
    fn sure(&self, mut row: Row, is_whole: bool) -> Row {
        if !self.passed || !is_whole || self.faults == 0 || self.lost + self.double + self.over > 0
        {
            row.verdict = Verdict::Miss;
        }
        row.value("failed", float(self.failed)).value("checks", float(self.checks))
    }
}
