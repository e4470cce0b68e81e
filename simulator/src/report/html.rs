//! `--report`: one self-contained page with plots, percentiles and the ledger's verdict.

use std::collections::BTreeMap;
use std::path::Path;

use super::Traffic;
use super::page::{Cell, Page};
use super::svg::{self, Frame, Series};
use super::table::summary;
use crate::Error;
use crate::ledger::Verdict;
use crate::load::{LoadReport, Rate};
use crate::measure::{Percentiles, Step};
use crate::numbers::{count, float, grouped, humane_micros};
use crate::replay::ReplayReport;

/// Subscriptions listed on the page; the JSON has more.
const FINDINGS_SHOWN_MAX: usize = 100;
/// Where the distribution plot has its ticks.
const SHARES: [f64; 6] = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999];

/// Writes a page to a file.
pub fn write(path: &Path, page: &str) -> Result<(), Error> {
    super::json::write_text(path, page)
}

/// The page of a load run.
pub fn load(report: &LoadReport) -> String {
    let asked = &report.configuration;
    let mut page = Page::begin(
        &format!("Weir under load: {}", asked.scenario),
        &format!("{} · {} · {}", report.run, report.started_at, asked.targets.join(", ")),
    );
    page.verdict(report.ledger.passed, &summary(&report.ledger));
    load_sections(&mut page, report);
    page.end()
}

/// Everything of a load run below its verdict.
pub(super) fn load_sections(page: &mut Page, report: &LoadReport) {
    let asked = &report.configuration;
    let rate = match asked.rate {
        Rate::Max => "as fast as answered".to_owned(),
        Rate::PerSecond(rate) => format!("{rate} requests/s"),
    };
    let mut tiles = traffic_tiles(&report.traffic);
    if let Some((baseline, ratio)) =
        report.baseline.as_ref().and_then(|baseline| Some((baseline, baseline.ratio?)))
    {
        tiles.push((
            "of /livez",
            format!("{:.0} %", ratio * 100.0),
            format!("which answers {:.0}/s", baseline.requests_per_second),
        ));
    }
    page.tiles(&tiles);
    traffic(page, &report.traffic);
    ledger(page, &report.ledger);
    outcomes(page, &report.traffic);
    if let Some(churn) = &report.churn {
        let rows = [
            ("subscriptions made", Cell::count(churn.created)),
            ("keys rotated", Cell::count(churn.rotated)),
            ("keys revoked", Cell::count(churn.revoked)),
            ("revoked keys that still worked", Cell::must_be_zero(churn.revoked_still_allowed)),
            ("operations failed", Cell::count(churn.failed)),
        ];
        two_columns(page, "Churn during the load", rows);
    }
    page.heading("Configuration");
    let mut rows = vec![
        ("scenario", Cell::text(asked.scenario.to_string())),
        ("rate", Cell::text(rate)),
        ("duration", Cell::text(format!("{} s", asked.duration_seconds))),
        ("subscriptions", Cell::text(grouped(count(asked.subscriptions)))),
        ("seed", Cell::text(asked.seed.to_string())),
        (
            "connections",
            Cell::text(format!(
                "{} for checks, {} for events",
                asked.connections, asked.event_connections
            )),
        ),
        ("client threads", Cell::text(asked.threads.to_string())),
        (
            "event batches",
            Cell::text(if asked.events {
                format!("up to {} events or {} ms", asked.flush_events, asked.flush_millis)
            } else {
                "no events".to_owned()
            }),
        ),
        ("tenant", Cell::text(asked.tenant.clone())),
    ];
    if let Some(limit) = asked.tight_limit {
        rows.push(("hard limit of small plans", Cell::text(grouped(limit))));
    }
    two_columns(page, "What was asked for", rows);
}

/// The page of a replay.
pub fn replay(report: &ReplayReport) -> String {
    let file = &report.file;
    let mut page = Page::begin(
        "Weir and a real access log",
        &format!("{} · {} · {}", report.configuration.file, report.run, report.started_at),
    );
    page.verdict(report.ledger.passed, &summary(&report.ledger));
    let mut tiles = vec![(
        "lines read",
        grouped(file.parsed),
        format!("{} malformed, {} clients", file.malformed, grouped(file.clients)),
    )];
    tiles.extend(traffic_tiles(&report.traffic));
    page.tiles(&tiles);
    page.heading("File against Weir");
    let rows: Vec<_> = report
        .comparison
        .iter()
        .map(|row| {
            let mark = if row.agrees {
                Cell::Good("agrees ✓".to_owned())
            } else {
                Cell::Bad("differs ✗".to_owned())
            };
            vec![Cell::text(&row.name), Cell::count(row.file), Cell::count(row.weir), mark]
        })
        .collect();
    page.table("Totals", &["what", "file", "Weir", ""], &rows);
    let days: Vec<_> = file
        .sums
        .days
        .iter()
        .map(|(day, requests)| vec![Cell::text(day), Cell::count(*requests)])
        .collect();
    page.folded_table("The file's own days", &["day", "requests"], &days);
    traffic(&mut page, &report.traffic);
    ledger(&mut page, &report.ledger);
    outcomes(&mut page, &report.traffic);
    page.end()
}

fn traffic_tiles(traffic: &Traffic) -> Vec<(&'static str, String, String)> {
    let latency = &traffic.latency_micros.check;
    vec![
        (
            "checks a second",
            grouped(crate::numbers::whole(traffic.checks_per_second)),
            format!("{} in {:.1} s", grouped(traffic.checks.sent), traffic.elapsed_seconds),
        ),
        ("latency p50", humane_micros(latency.p50), format!("p90 {}", humane_micros(latency.p90))),
        ("latency p99", humane_micros(latency.p99), format!("max {}", humane_micros(latency.max))),
        (
            "events acknowledged",
            grouped(traffic.events.acked),
            format!("{} duplicates, {} retries", traffic.events.duplicates, traffic.events.retries),
        ),
    ]
}

fn traffic(page: &mut Page, traffic: &Traffic) {
    page.heading("Traffic");
    page.raw(&throughput_plot(traffic));
    page.raw(&latency_plot(traffic));
    page.raw(&distribution_plot(traffic));
    percentiles(page, traffic);
    let rows: Vec<_> = traffic
        .timeline
        .iter()
        .map(|step| {
            [
                step.second,
                step.allowed,
                step.denied,
                step.failed,
                step.p50,
                step.p90,
                step.p99,
                step.max,
            ]
            .map(Cell::count)
            .to_vec()
        })
        .collect();
    let head = ["second", "allowed", "denied", "failed", "p50 µs", "p90 µs", "p99 µs", "max µs"];
    page.folded_table("The numbers behind the plots", &head, &rows);
}

/// The timeline without a last step that the run only touched: the few answers in it would look like
/// a collapse.
fn plotted(traffic: &Traffic) -> &[Step] {
    let steps = &traffic.timeline;
    match steps.split_last() {
        Some((last, before)) if !before.is_empty() => {
            let middle = float(last.second) + float(traffic.timeline_step_seconds) / 2.0;
            if middle > traffic.elapsed_seconds { before } else { steps }
        }
        _ => steps,
    }
}

fn throughput_plot(traffic: &Traffic) -> String {
    let layer = |name, colour, of: fn(&Step) -> u64| Series {
        name,
        colour,
        dash: "",
        values: svg::rates(plotted(traffic).iter().map(of), traffic.timeline_step_seconds),
    };
    let layers = [
        layer("allowed", 1, |step| step.allowed),
        layer("denied", 2, |step| step.denied),
        layer("failed", 3, |step| step.failed),
    ];
    let frame = Frame {
        id: "throughput",
        title: "Throughput",
        description: format!(
            "Checks a second over time, stacked: {} allowed, {} denied, {} failed in all.",
            traffic.checks.allowed, traffic.checks.denied, traffic.checks.failed
        ),
        x_name: "seconds since the start",
        y_name: "checks/s",
    };
    svg::stacked(&frame, float(traffic.timeline_step_seconds), &layers)
}

fn latency_plot(traffic: &Traffic) -> String {
    let line = |name, colour, dash, of: fn(&Step) -> u64| Series {
        name,
        colour,
        dash,
        values: plotted(traffic).iter().map(|step| float(of(step))).collect(),
    };
    let lines = [
        line("p50", 1, "", |step| step.p50),
        line("p90", 4, "7 3", |step| step.p90),
        line("p99", 5, "2 3", |step| step.p99),
        line("max", 3, "10 3 2 3", |step| step.max),
    ];
    let latency = &traffic.latency_micros.check;
    let frame = Frame {
        id: "latency",
        title: "Check latency over time, from the intended start",
        description: format!(
            "Percentiles on a logarithmic scale. Over the whole run p50 {}, p99 {}, longest {}.",
            humane_micros(latency.p50),
            humane_micros(latency.p99),
            humane_micros(latency.max)
        ),
        x_name: "seconds since the start",
        y_name: "latency",
    };
    svg::log_lines(&frame, float(traffic.timeline_step_seconds), &lines)
}

fn distribution_plot(traffic: &Traffic) -> String {
    let points: Vec<_> =
        traffic.latency_curve.iter().map(|point| (point.quantile, float(point.micros))).collect();
    let frame = Frame {
        id: "distribution",
        title: "Check latency distribution, from the intended start",
        description: format!(
            "Share of checks against latency; 99.9 % stayed at or below {}.",
            humane_micros(traffic.latency_micros.check.p999)
        ),
        x_name: "share of checks at or below",
        y_name: "latency",
    };
    svg::distribution(&frame, &points, &SHARES)
}

fn percentiles(page: &mut Page, traffic: &Traffic) {
    let row = |name: &str, of: &Percentiles| {
        let mut row = vec![Cell::text(name), Cell::count(of.count)];
        row.extend(
            [of.p50, of.p90, of.p99, of.p999, of.max].map(|us| Cell::Number(humane_micros(us))),
        );
        row
    };
    let latency = &traffic.latency_micros;
    page.table(
        "Latency percentiles",
        &["what", "count", "p50", "p90", "p99", "p99.9", "max"],
        &[
            row("check, from the intended start", &latency.check),
            row("check, from sending", &latency.check_from_send),
            row("event batch, to its acknowledgement", &latency.flush),
        ],
    );
}

fn ledger(page: &mut Page, verdict: &Verdict) {
    page.heading("Ledger");
    let row = |name: &str, client: u64, weir: u64, lost: u64, double: u64| {
        vec![
            Cell::text(name),
            Cell::count(client),
            Cell::count(weir),
            Cell::must_be_zero(lost),
            Cell::must_be_zero(double),
        ]
    };
    page.table(
        &format!("{} subscriptions, read one by one", grouped(verdict.subscriptions)),
        &["what", "acknowledged", "in Weir", "lost", "double"],
        &[
            row("requests", verdict.acked, verdict.recorded, verdict.lost, verdict.double),
            row(
                "units",
                verdict.acked_units,
                verdict.used,
                verdict.lost_units,
                verdict.double_units,
            ),
        ],
    );
    two_columns(
        page,
        "Hard limits and what is left open",
        [
            ("subscriptions with a hard limit", Cell::count(verdict.hard_limited)),
            ("of them at their limit", Cell::count(verdict.at_limit)),
            ("units admitted beyond a limit", Cell::must_be_zero(verdict.over_admitted)),
            ("events never acknowledged (may count or not)", Cell::count(verdict.unknown)),
            ("settled after", Cell::Number(format!("{:.1} s", verdict.settled_after_seconds))),
        ],
    );
    if !verdict.general_problems.is_empty() {
        let rows: Vec<_> = verdict
            .general_problems
            .iter()
            .map(|problem| vec![Cell::Wrong(problem.clone())])
            .collect();
        page.table("Problems", &["what"], &rows);
    }
    if verdict.findings.is_empty() {
        return;
    }
    let rows: Vec<_> = verdict
        .findings
        .iter()
        .take(FINDINGS_SHOWN_MAX)
        .map(|finding| {
            vec![
                Cell::text(number_of(&finding.external_id)),
                Cell::Wrong(finding.problems.join(", ")),
                Cell::count(finding.acked),
                Cell::count(finding.unknown),
                Cell::count(finding.recorded),
                Cell::count(finding.acked_units),
                Cell::count(finding.used),
                Cell::count(finding.admitted),
                Cell::Number(finding.limit.map_or("none".to_owned(), grouped)),
            ]
        })
        .collect();
    page.table(
        &format!("{} subscriptions do not add up", grouped(verdict.failed_subscriptions)),
        &[
            "subscription",
            "problem",
            "acked",
            "unknown",
            "recorded",
            "units",
            "used",
            "admitted",
            "limit",
        ],
        &rows,
    );
}

/// The run's name is at the top of the page; a row needs only what follows it.
fn number_of(external_id: &str) -> &str {
    external_id.split_once('/').map_or(external_id, |(_run, rest)| rest)
}

fn outcomes(page: &mut Page, traffic: &Traffic) {
    page.heading("Outcomes");
    let checks = &traffic.checks;
    let mut rows =
        vec![("checks sent", Cell::count(checks.sent)), ("allowed", Cell::count(checks.allowed))];
    let denied = labelled("denied", &checks.denied_by_reason);
    let failed = labelled("failed", &checks.failed_by_cause);
    let rejected = labelled("event rejected", &traffic.events.rejected_by_code);
    let parts = [&denied, &failed].into_iter().flatten();
    rows.extend(parts.map(|(name, number)| (name.as_str(), Cell::count(*number))));
    rows.extend([
        ("sent late", Cell::count(checks.late)),
        ("never sent (overflow)", Cell::count(checks.overflow)),
        ("decided by the fail policy", Cell::count(checks.degraded)),
        ("decided by another node", Cell::count(checks.proxied)),
        ("sent again to another node", Cell::count(checks.failed_over)),
        ("events sent", Cell::count(traffic.events.sent)),
        ("events acknowledged", Cell::count(traffic.events.acked)),
        ("events known from an earlier try", Cell::count(traffic.events.duplicates)),
        ("events in refused batches", Cell::count(traffic.events.refused)),
        ("batches tried again", Cell::count(traffic.events.retries)),
    ]);
    rows.extend(rejected.iter().map(|(name, number)| (name.as_str(), Cell::count(*number))));
    two_columns(page, "Checks and events", rows);
}

fn labelled(prefix: &str, parts: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    parts.iter().map(|(name, number)| (format!("{prefix}: {name}"), *number)).collect()
}

fn two_columns<'a>(
    page: &mut Page,
    caption: &str,
    rows: impl IntoIterator<Item = (&'a str, Cell)>,
) {
    let rows: Vec<_> =
        rows.into_iter().map(|(name, value)| vec![Cell::text(name), value]).collect();
    page.table(caption, &["what", "value"], &rows);
}
