//! Row 7: a thousand requests a second on schedule, check and event, with the books audited at the end.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::fixture::{Engine, Fixture};
use super::{Bench, progress};
use crate::figures::{float, grouped, length};
use crate::node::{ADMIN_TOKEN, Node};
use crate::table::{Row, Verdict};

const RATE: u64 = 1_000;
const SUBSCRIPTIONS: usize = 1_000;
/// How often the queues are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time for set-up, the last events and the audit beyond the load itself.
const OVERTIME: Duration = Duration::from_mins(1);
/// A queue that ends with a second's events more than it began with is not flat.
const GROWTH_MAX: f64 = float(RATE);

pub(super) async fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for engine in [Engine::Postgres, Engine::Sqlite] {
        rows.push(on(bench, engine).await?);
    }
    Ok(rows)
}

async fn on(bench: &Bench, engine: Engine) -> Result<Row> {
    let duration = bench.seconds(60, 10);
    // weir-sim makes subscriptions of its own.
    let fixture = Fixture::make(engine, 0).await?;
    let files = bench.scratch.path();
    let node = Node::start(&bench.programs, files, &fixture.database_url).await?;
    let report_file = files.join(format!("load-{}.json", engine.name()));
    progress(&format!("{}: {RATE} requests/s for {} s", engine.name(), duration.as_secs()));
    let mut load = load(bench, &node, &fixture, duration, &report_file);
    let mut child = load.spawn().context("start weir-sim")?;
    let queued = watch(&node, &mut child, duration + OVERTIME).await?;
    let output = child.wait_with_output().await.context("end weir-sim")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | 1)), "weir-sim did not run: {said}");
    let report = std::fs::read(&report_file).context("read weir-sim's report")?;
    let report: Value = serde_json::from_slice(&report).context("understand weir-sim's report")?;
    node.stop().await?;
    row(engine, &Outcome::read(&report)?, &queued, duration)
}

fn load(
    bench: &Bench,
    node: &Node,
    fixture: &Fixture,
    duration: Duration,
    report: &Path,
) -> Command {
    let mut command = Command::new(bench.programs.join("weir-sim"));
    command
        .args(["load", "--quiet", "--warm", "--scenario", "steady", "--baseline", "0s"])
        .args(["--target", &node.url, "--token", &fixture.token, "--admin-token", ADMIN_TOKEN])
        .args(["--rate", &RATE.to_string(), "--subscriptions", &SUBSCRIPTIONS.to_string()])
        .args(["--duration", &format!("{}s", duration.as_secs()), "--threads", "1"])
        .arg("--json")
        .arg(report)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Rows in the recorder's queues each second, from the first event to the last.
async fn watch(
    node: &Node,
    child: &mut tokio::process::Child,
    patience: Duration,
) -> Result<Vec<f64>> {
    let started = Instant::now();
    let (mut queued, mut recorded) = (Vec::new(), 0.0);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while child.try_wait().context("look after weir-sim")?.is_none() {
        ensure!(started.elapsed() < patience, "weir-sim does not end");
        ticks.tick().await;
        let metrics = node.metrics().await?;
        let events = metrics.sum("weir_usage_events_total");
        if events > recorded {
            queued.push(metrics.sum("weir_recorder_queued_rows"));
            recorded = events;
        }
    }
    Ok(queued)
}

/// The part of weir-sim's report that the row tells.
#[derive(Debug)]
struct Outcome {
    passed: bool,
    checks: u64,
    failed: u64,
    overflow: u64,
    degraded: u64,
    denied: u64,
    sent: u64,
    acked: u64,
    p50_micros: f64,
    p99_micros: f64,
    flush_p99_micros: f64,
}

impl Outcome {
    fn read(report: &Value) -> Result<Self> {
        let number = |pointer: &str| {
            let found = report.pointer(pointer).and_then(Value::as_u64);
            found.with_context(|| format!("weir-sim's report has no {pointer}"))
        };
        let passed = report.pointer("/ledger/passed").and_then(Value::as_bool);
        Ok(Self {
            passed: passed.context("weir-sim's report has no verdict")?,
            checks: number("/traffic/checks/sent")?,
            failed: number("/traffic/checks/failed")?,
            overflow: number("/traffic/checks/overflow")?,
            degraded: number("/traffic/checks/degraded")?,
            denied: number("/traffic/checks/denied")?,
            sent: number("/traffic/events/sent")?,
            acked: number("/traffic/events/acked")?,
            p50_micros: float(number("/traffic/latencyMicros/check/p50")?),
            p99_micros: float(number("/traffic/latencyMicros/check/p99")?),
            flush_p99_micros: float(number("/traffic/latencyMicros/flush/p99")?),
        })
    }

    /// Events without an acknowledgement, and checks without a decision.
    fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.acked) + self.failed + self.overflow
    }
}

fn row(engine: Engine, outcome: &Outcome, queued: &[f64], duration: Duration) -> Result<Row> {
    ensure!(!queued.is_empty(), "no event was seen");
    let at = |share: f64| {
        // Truncation picks the sample.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1 of a length"
        )]
        let index = (length(queued.len() - 1) * share) as usize;
        queued.get(index).copied().unwrap_or_default()
    };
    let max = queued.iter().copied().fold(0.0, f64::max);
    let third = queued.len().div_ceil(3);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / length(part.len().max(1));
    let growth = mean(&queued[queued.len() - third..]) - mean(&queued[..third]);
    let flat = growth < GROWTH_MAX;
    let p99 = outcome.p99_micros / 1e3;
    let measured = format!(
        "{} lost, queue {:.0} / {:.0} / {:.0} rows, p50 {:.2} ms, p99 {p99:.2} ms",
        outcome.lost(),
        at(0.0),
        at(0.5),
        at(1.0),
        outcome.p50_micros / 1e3
    );
    let how = format!(
        "`weir-sim load --scenario steady --rate {RATE}` for {} s over {SUBSCRIPTIONS} subscriptions, on \
         the same machine, times from the intended start; {} checks ({} denied, {} degraded, {} failed, {} \
         never sent), {} of {} events acknowledged, ledger {}; event batches p99 {:.1} ms; queue at start, \
         middle and end of {} looks, largest {max:.0}",
        duration.as_secs(),
        grouped(float(outcome.checks)),
        outcome.denied,
        outcome.degraded,
        outcome.failed,
        outcome.overflow,
        grouped(float(outcome.acked)),
        grouped(float(outcome.sent)),
        if outcome.passed { "adds up" } else { "DOES NOT ADD UP" },
        outcome.flush_p99_micros / 1e3,
        queued.len(),
    );
    let mut row = Row::judged(7, engine.name(), p99, measured).how(how);
    if outcome.lost() > 0 || !outcome.passed || !flat {
        row.verdict = Verdict::Miss;
    }
    Ok(row
        .value("lost", float(outcome.lost()))
        .value("queue_rows_max", max)
        .value("check_p50_ms", outcome.p50_micros / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lost: u64, passed: bool) -> Outcome {
        Outcome {
            passed,
            checks: 100,
            failed: 0,
            overflow: 0,
            degraded: 0,
            denied: 0,
            sent: 100,
            acked: 100 - lost,
            p50_micros: 500.0,
            p99_micros: 1_500.0,
            flush_p99_micros: 9_000.0,
        }
    }

    #[test]
    fn a_fast_run_that_loses_or_grows_misses_all_the_same() {
        let flat = vec![0.0, 400.0, 0.0, 200.0, 0.0, 300.0];
        let growing = vec![0.0, 900.0, 1_800.0, 2_700.0, 3_600.0, 4_500.0];
        for (lost, passed, queued, verdict) in [
            (0, true, &flat, Verdict::Ok),
            (1, true, &flat, Verdict::Miss),
            (0, false, &flat, Verdict::Miss),
            (0, true, &growing, Verdict::Miss),
        ] {
            let row = row(Engine::Sqlite, &outcome(lost, passed), queued, Duration::from_secs(6));
            assert_eq!(row.expect("a row").verdict, verdict, "{lost} lost, {passed}, {queued:?}");
        }
    }
}
