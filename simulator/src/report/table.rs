//! The result on stdout, for people: aligned, and the verdict last, where the eye is.

use std::fmt::Write as _;

use super::Traffic;
use crate::ledger::Verdict;
use crate::load::LoadReport;
use crate::measure::Percentiles;
use crate::numbers::{grouped, humane_micros};
use crate::replay::ReplayReport;

/// Subscriptions written out when the ledger does not add up; the JSON has them all.
const FINDINGS_SHOWN_MAX: usize = 20;

/// The table of a load run.
pub fn load(report: &LoadReport) -> String {
    let mut out = Table::default();
    let asked = &report.configuration;
    out.heading(&format!("weir-sim load: {} ({})", asked.scenario, report.run));
    let rate = match asked.rate {
        crate::load::Rate::Max => "closed loop".to_owned(),
        crate::load::Rate::PerSecond(rate) => format!("open loop, {rate}/s"),
    };
    out.row(
        "asked for",
        &format!(
            "{rate}, {} subscriptions, {} s, {} connections, seed {}",
            grouped(crate::numbers::count(asked.subscriptions)),
            asked.duration_seconds,
            asked.connections,
            asked.seed
        ),
    );
    traffic(&mut out, &report.traffic);
    if let Some(baseline) = &report.baseline {
        let ratio = baseline
            .ratio
            .map_or(String::new(), |ratio| format!(", checks run at {:.1} % of it", ratio * 100.0));
        out.row("/livez", &format!("{:.0} requests/s{ratio}", baseline.requests_per_second));
    }
    if let Some(churn) = &report.churn {
        out.row(
            "churn",
            &format!(
                "{} subscriptions made, {} keys rotated, {} revoked, {} failed{}",
                churn.created,
                churn.rotated,
                churn.revoked,
                churn.failed,
                churn.last_failure.as_ref().map_or(String::new(), |why| format!(" ({why})"))
            ),
        );
    }
    ledger(&mut out, &report.ledger);
    out.0
}

/// The table of a replay.
pub fn replay(report: &ReplayReport) -> String {
    let mut out = Table::default();
    out.heading(&format!("weir-sim replay: {} ({})", report.configuration.file, report.run));
    let file = &report.file;
    out.row(
        "file",
        &format!(
            "{} lines, {} read, {} malformed, {} clients, {} bytes",
            grouped(file.lines),
            grouped(file.parsed),
            grouped(file.malformed),
            grouped(file.clients),
            grouped(file.sums.bytes)
        ),
    );
    for (day, requests) in &file.sums.days {
        out.row("", &format!("{day}: {}", grouped(*requests)));
    }
    traffic(&mut out, &report.traffic);
    out.heading("File against Weir");
    let width = report.comparison.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    for row in &report.comparison {
        let mark = if row.agrees { "agrees" } else { "DIFFERS" };
        let pad = " ".repeat(width - row.name.chars().count());
        out.line(&format!(
            "  {}{pad}  {:>15}  {:>15}  {mark}",
            row.name,
            grouped(row.file),
            grouped(row.weir)
        ));
    }
    ledger(&mut out, &report.ledger);
    out.0
}

fn traffic(out: &mut Table, traffic: &Traffic) {
    let checks = &traffic.checks;
    out.heading("Checks");
    out.row(
        "sent",
        &format!(
            "{} in {:.1} s = {:.0}/s",
            grouped(checks.sent),
            traffic.elapsed_seconds,
            traffic.checks_per_second
        ),
    );
    out.row("allowed", &grouped(checks.allowed));
    out.row("denied", &with_parts(checks.denied, &checks.denied_by_reason));
    out.row("failed", &with_parts(checks.failed, &checks.failed_by_cause));
    for (name, number) in [
        ("late", checks.late),
        ("overflow", checks.overflow),
        ("degraded", checks.degraded),
        ("proxied", checks.proxied),
        ("failed over", checks.failed_over),
    ] {
        if number > 0 {
            out.row(name, &grouped(number));
        }
    }
    let latency = &traffic.latency_micros;
    out.row("latency", &percentiles(&latency.check));
    if latency.check != latency.check_from_send {
        out.row("from send", &percentiles(&latency.check_from_send));
    }
    let events = &traffic.events;
    out.heading("Events");
    out.row(
        "sent",
        &format!(
            "{} in {} batches, {} retries",
            grouped(events.sent),
            grouped(events.batches),
            grouped(events.retries)
        ),
    );
    out.row(
        "acked",
        &format!("{}, of them {} duplicates", grouped(events.acked), grouped(events.duplicates)),
    );
    out.row("rejected", &with_parts(events.rejected + events.refused, &events.rejected_by_code));
    out.row("unknown", &grouped(events.unknown));
    out.row("flush", &percentiles(&latency.flush));
}

fn ledger(out: &mut Table, verdict: &Verdict) {
    out.heading("Ledger");
    out.row("subscriptions", &grouped(verdict.subscriptions));
    out.row(
        "requests",
        &format!(
            "{} acknowledged, {} recorded: {} lost, {} double",
            grouped(verdict.acked),
            grouped(verdict.recorded),
            grouped(verdict.lost),
            grouped(verdict.double)
        ),
    );
    out.row(
        "units",
        &format!(
            "{} acknowledged, {} charged: {} lost, {} double",
            grouped(verdict.acked_units),
            grouped(verdict.used),
            grouped(verdict.lost_units),
            grouped(verdict.double_units)
        ),
    );
    out.row(
        "hard limits",
        &format!(
            "{} subscriptions, {} at their limit: {} units over-admitted",
            grouped(verdict.hard_limited),
            grouped(verdict.at_limit),
            grouped(verdict.over_admitted)
        ),
    );
    for problem in &verdict.general_problems {
        out.row("problem", problem);
    }
    for finding in verdict.findings.iter().take(FINDINGS_SHOWN_MAX) {
        out.row(
            "problem",
            &format!(
                "{} ({}): {}; acked {} + unknown {}, recorded {}; units {}, used {}; admitted {}, limit {}",
                finding.external_id,
                finding.subscription_id,
                finding.problems.join(", "),
                finding.acked,
                finding.unknown,
                finding.recorded,
                finding.acked_units,
                finding.used,
                finding.admitted,
                finding.limit.map_or("none".to_owned(), |limit| limit.to_string())
            ),
        );
    }
    let shown = crate::numbers::count(verdict.findings.len().min(FINDINGS_SHOWN_MAX));
    if verdict.failed_subscriptions > shown {
        let more = verdict.failed_subscriptions - shown;
        out.row("", &format!("and {} subscriptions more (see --json)", grouped(more)));
    }
    out.line("");
    out.line(&format!("{} (after {:.1} s)", summary(verdict), verdict.settled_after_seconds));
}

/// The verdict in one sentence.
pub(super) fn summary(verdict: &Verdict) -> String {
    match (verdict.passed, verdict.unknown) {
        (true, 0) => "LEDGER OK: sent = recorded, nothing lost, double or over".to_owned(),
        (true, unknown) => format!(
            "LEDGER OK within bounds: {} events were never acknowledged and may count or not",
            grouped(unknown)
        ),
        (false, _) if verdict.failed_subscriptions == 0 => {
            format!("LEDGER FAILED: {}", verdict.general_problems.join("; "))
        }
        (false, _) => format!(
            "LEDGER FAILED: {} of {} subscriptions do not add up",
            grouped(verdict.failed_subscriptions),
            grouped(verdict.subscriptions)
        ),
    }
}

fn with_parts(total: u64, parts: &std::collections::BTreeMap<String, u64>) -> String {
    if parts.is_empty() {
        return grouped(total);
    }
    let parts: Vec<_> =
        parts.iter().map(|(name, number)| format!("{name} {}", grouped(*number))).collect();
    format!("{} ({})", grouped(total), parts.join(", "))
}

fn percentiles(latency: &Percentiles) -> String {
    if latency.count == 0 {
        return "none measured".to_owned();
    }
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        humane_micros(latency.p50),
        humane_micros(latency.p90),
        humane_micros(latency.p99),
        humane_micros(latency.p999),
        humane_micros(latency.max)
    )
}

#[derive(Default)]
pub(super) struct Table(pub(super) String);

impl Table {
    pub(super) fn heading(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(text);
    }

    pub(super) fn row(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "  {name:<14} {value}");
    }

    pub(super) fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }
}
