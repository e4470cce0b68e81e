//! A run under faults: each fault, the figures by kind, then what any load run tells.

use super::html;
use super::page::{Cell, Page};
use super::table::{self, Table};
use crate::cluster::{ClusterReport, FaultReport, Figures, Kind, Restart};
use crate::numbers::{float, grouped};

/// The table for people.
pub fn table(report: &ClusterReport) -> String {
    let mut out = Table(table::load(&report.load));
    out.heading(&format!(
        "Faults: {} among {} nodes, lease {}, seed {}",
        report.faults.len(),
        report.nodes,
        seconds(report.lease_millis),
        report.seed
    ));
    for fault in &report.faults {
        out.row(
            &format!("{:>7}", seconds(fault.at_millis)),
            &format!(
                "{} {}: taken over {}, whole {}, {} failed{}",
                fault.node,
                what(fault),
                after(fault.taken_over_after_millis),
                after(fault.whole_after_millis),
                checks(fault.failed_checks),
                until(fault)
            ),
        );
    }
    for kind in &report.kinds {
        out.row(
            name(kind.kind),
            &format!(
                "{} faults, {} failed; p50/max: taken over {}, whole {}, checks failing for {}",
                kind.faults,
                checks(kind.failed_checks),
                figures(kind.taken_over_millis),
                figures(kind.whole_millis),
                figures(kind.failing_millis)
            ),
        );
    }
    if report.failed_before_faults > 0 {
        out.row("no fault", &format!("{} failed", checks(report.failed_before_faults)));
    }
    for problem in &report.problems {
        out.row("problem", problem);
    }
    out.line("");
    out.line(&summary(report));
    out.0
}

/// The page to keep.
pub fn page(report: &ClusterReport) -> String {
    let load = &report.load;
    let mut page = Page::begin(
        &format!("{} Weir nodes under faults: {}", report.nodes, load.configuration.scenario),
        &format!("{} · {} · seed {}", load.run, load.started_at, report.seed),
    );
    page.verdict(report.passed, &summary(report));
    let rows: Vec<_> = report
        .kinds
        .iter()
        .map(|kind| {
            vec![
                Cell::text(name(kind.kind)),
                Cell::count(kind.faults),
                Cell::count(kind.failed_checks),
                Cell::text(figures(kind.taken_over_millis)),
                Cell::text(figures(kind.whole_millis)),
                Cell::text(figures(kind.failing_millis)),
            ]
        })
        .collect();
    page.heading("Faults");
    let head = ["kind", "faults", "failed checks", "taken over", "whole", "checks failing for"];
    page.table("By kind (p50 / max)", &head, &rows);
    let rows: Vec<_> = report
        .faults
        .iter()
        .map(|fault| {
            vec![
                Cell::text(seconds(fault.at_millis)),
                Cell::text(&fault.node),
                Cell::text(what(fault)),
                Cell::text(after(fault.taken_over_after_millis)),
                Cell::text(after(fault.whole_after_millis)),
                Cell::count(fault.failed_checks),
                Cell::text(seconds(fault.failing_for_millis)),
            ]
        })
        .collect();
    let head = ["at", "node", "fault", "taken over", "whole", "failed checks", "failing for"];
    page.table("One by one", &head, &rows);
    let problems: Vec<_> =
        report.problems.iter().map(|problem| vec![Cell::Bad(problem.clone())]).collect();
    if !problems.is_empty() {
        page.table("What nodes did wrong", &["problem"], &problems);
    }
    html::load_sections(&mut page, load);
    page.end()
}

/// The verdict in one sentence.
fn summary(report: &ClusterReport) -> String {
    let (ledger, traffic) = (&report.load.ledger, &report.load.traffic.checks);
    format!(
        "CLUSTER {}: {} faults; lost {}, double {}, over-admitted {}; {} of {} checks failed",
        if report.passed { "OK" } else { "FAILED" },
        report.faults.len(),
        grouped(ledger.lost + ledger.lost_units),
        grouped(ledger.double + ledger.double_units),
        grouped(ledger.over_admitted),
        grouped(traffic.failed),
        grouped(traffic.sent)
    )
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill => "kill -9",
        Kind::Stop => "SIGTERM",
        Kind::Pause => "SIGSTOP",
    }
}

fn what(fault: &FaultReport) -> String {
    let restart = match (fault.kind, fault.restart) {
        (Kind::Kill, Restart::AtOnce) => ", back at once",
        (Kind::Kill, Restart::AfterTakeover) => ", back after fail-over",
        _ => "",
    };
    format!("{}{restart}", name(fault.kind))
}

fn checks(number: u64) -> String {
    format!("{} {}", grouped(number), if number == 1 { "check" } else { "checks" })
}

fn until(fault: &FaultReport) -> String {
    match fault.failed_checks {
        0 => String::new(),
        _ => format!(", the last after {}", seconds(fault.failing_for_millis)),
    }
}

fn after(millis: Option<u64>) -> String {
    millis.map_or_else(|| "not seen".to_owned(), |millis| format!("after {}", seconds(millis)))
}

fn figures(figures: Figures) -> String {
    format!("{} / {}", seconds(figures.p50), seconds(figures.max))
}

fn seconds(millis: u64) -> String {
    format!("{:.2} s", float(millis) / 1_000.0)
}
