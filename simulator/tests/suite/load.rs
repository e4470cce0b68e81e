//! Load runs against the mock: what a right server passes and each wrong one fails.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use weir_sim::client::{bearer, parse_targets};
use weir_sim::load::{Access, LoadReport, Options, Rate, Scenario, run};
use weir_sim::outbox::FlushOptions;

use crate::mock::{ADMIN, Faults, GATEWAY, Mock};

pub(crate) fn access(mock: &Mock) -> Access {
    Access {
        targets: parse_targets(std::slice::from_ref(&mock.url)).unwrap(),
        gateway: bearer(GATEWAY).unwrap(),
        admin: bearer(ADMIN).unwrap(),
    }
}

pub(crate) fn flush() -> FlushOptions {
    FlushOptions {
        batch_events_max: 100,
        interval: Duration::from_millis(20),
        waiting_events_max: 10_000,
        settle: Duration::from_secs(10),
    }
}

fn options(mock: &Mock, scenario: Scenario) -> Options {
    Options {
        access: access(mock),
        scenario,
        subscriptions: 20,
        rate: Rate::PerSecond(1_000.0),
        duration: Duration::from_millis(600),
        seed: 7,
        connections: 8,
        event_connections: 2,
        workers: 2,
        backlog_max: 10_000,
        request_timeout: Duration::from_secs(5),
        events: true,
        flush: flush(),
        baseline: Duration::ZERO,
        warm: false,
        limit: None,
        tenant: "default".to_owned(),
        settle: Duration::from_secs(10),
        quiet: true,
    }
}

fn play(options: &Options) -> LoadReport {
    run(options, &Arc::new(AtomicBool::new(false))).unwrap()
}

fn steady_with(faults: Faults) -> LoadReport {
    let mock = Mock::start(faults);
    let report = play(&options(&mock, Scenario::Steady));
    assert!(report.traffic.checks.allowed > 0);
    report
}

#[test]
fn an_open_loop_sends_every_arrival_of_its_schedule_and_the_ledger_adds_up() {
    let mock = Mock::start(Faults::default());
    let report = play(&options(&mock, Scenario::Steady));
    let (checks, ledger) = (&report.traffic.checks, &report.ledger);
    assert_eq!((checks.sent + checks.overflow, checks.failed), (600, 0));
    assert!(ledger.passed, "{ledger:?}");
    assert_eq!(ledger.recorded, checks.allowed);
    assert_eq!(mock.requests(), checks.allowed);
    assert_eq!(report.traffic.latency_micros.check.count, checks.sent);
    assert!(report.traffic.latency_curve.len() > 2);
    let in_timeline: u64 = report.traffic.timeline.iter().map(|step| step.allowed).sum();
    assert_eq!(in_timeline, checks.allowed);
}

#[test]
fn every_scenario_passes_against_a_right_server_in_both_loops() {
    for scenario in [
        Scenario::Steady,
        Scenario::Burst,
        Scenario::NearLimit,
        Scenario::HotKey,
        Scenario::Churn,
        Scenario::Mixed,
    ] {
        for rate in [Rate::Max, Rate::PerSecond(2_000.0)] {
            let mock = Mock::start(Faults::default());
            let report = play(&Options { rate, ..options(&mock, scenario) });
            assert!(report.ledger.passed, "{scenario} {rate:?}: {:?}", report.ledger);
            assert!(report.ledger.recorded > 0, "{scenario} {rate:?}");
        }
    }
}

#[test]
fn near_limit_takes_most_subscriptions_to_their_limit_and_none_beyond() {
    let mock = Mock::start(Faults::default());
    let report = play(&options(&mock, Scenario::NearLimit));
    assert!(report.ledger.passed, "{:?}", report.ledger);
    assert!(report.ledger.at_limit >= 15, "{} of 20 at limit", report.ledger.at_limit);
    assert!(report.traffic.checks.denied_by_reason["quota_exceeded"] > 0);
    assert_eq!(report.configuration.tight_limit, Some(15), "half of 600 over 20");
}

#[test]
fn churn_makes_subscriptions_and_revokes_keys_while_the_load_runs() {
    let mock = Mock::start(Faults::default());
    let longer = Duration::from_secs(3);
    let report = play(&Options { duration: longer, ..options(&mock, Scenario::Churn) });
    let churn = report.churn.unwrap();
    assert!(report.ledger.passed, "{:?}", report.ledger);
    assert!(churn.created > 0 && churn.revoked > 0 && churn.failed == 0, "{churn:?}");
    assert_eq!(mock.subscriptions() as u64, 20 + churn.created);
    assert_eq!(report.ledger.subscriptions, 20 + churn.created);
}

#[test]
fn a_closed_loop_is_compared_with_livez_over_the_same_connections() {
    let mock = Mock::start(Faults::default());
    let baseline = Duration::from_millis(200);
    let report = play(&Options { rate: Rate::Max, baseline, ..options(&mock, Scenario::Steady) });
    let measured = report.baseline.unwrap();
    assert!(measured.requests_per_second > 0.0 && measured.ratio.unwrap() > 0.0);
}

#[test]
fn a_server_that_is_wrong_is_found_out() {
    let wrong = [
        ("forgets events", Faults { lose_every: 50, ..Faults::default() }),
        ("counts twice", Faults { double_every: 50, ..Faults::default() }),
        ("rejects good events", Faults { reject_every: 50, ..Faults::default() }),
    ];
    for (story, faults) in wrong {
        let report = steady_with(faults);
        let ledger = &report.ledger;
        assert!(!ledger.passed, "{story}");
        assert_eq!(ledger.lost > 0, faults.lose_every > 0, "{story}");
        assert_eq!(ledger.double > 0, faults.double_every > 0, "{story}");
        let is_about_one = !ledger.findings.is_empty();
        assert_eq!(is_about_one, faults.reject_every == 0, "{story}");
    }
}

#[test]
fn one_unit_beyond_a_hard_limit_is_found_out() {
    let mock = Mock::start(Faults { over_admit: 1, ..Faults::default() });
    let report = play(&options(&mock, Scenario::NearLimit));
    assert!(!report.ledger.passed);
    assert!(report.ledger.over_admitted > 0);
    assert!(report.ledger.findings[0].problems.join(" ").contains("beyond the hard limit"));
}

#[test]
fn a_revoked_key_that_works_on_is_found_out() {
    let mock = Mock::start(Faults { ignore_revocation: true, ..Faults::default() });
    let longer = Duration::from_secs(3);
    let report = play(&Options { duration: longer, ..options(&mock, Scenario::Churn) });
    assert!(!report.ledger.passed);
    assert!(report.churn.unwrap().revoked_still_allowed > 0);
}

#[test]
fn refused_and_lost_acknowledgements_are_retried_with_the_same_ids() {
    let faults = Faults { refuse_batches: 3, swallow_answers: 3, ..Faults::default() };
    let report = steady_with(faults);
    assert!(report.ledger.passed, "{:?}", report.ledger);
    assert!(report.traffic.events.retries >= 6);
    assert!(report.traffic.events.duplicates > 0, "what was recorded unseen comes back as such");
    assert_eq!(report.traffic.events.unknown, 0);
}

#[test]
fn events_that_are_never_acknowledged_count_between_their_bounds() {
    let mock = Mock::start(Faults { never_acknowledge: true, ..Faults::default() });
    let mut options = options(&mock, Scenario::Steady);
    options.flush.settle = Duration::from_millis(300);
    let report = play(&options);
    assert!(report.ledger.passed, "{:?}", report.ledger);
    assert_eq!(report.traffic.events.acked, 0);
    assert_eq!(report.ledger.unknown, report.traffic.checks.allowed);
    assert_eq!(report.ledger.recorded, report.ledger.unknown, "they were recorded unseen");
}

#[test]
fn analytics_that_follow_late_are_waited_for() {
    assert!(steady_with(Faults { stats_lag: true, ..Faults::default() }).ledger.passed);
}

#[test]
fn checks_alone_leave_no_trace_in_the_ledger() {
    let mock = Mock::start(Faults::default());
    let report = play(&Options { events: false, ..options(&mock, Scenario::NearLimit) });
    assert!(report.ledger.passed, "{:?}", report.ledger);
    assert_eq!((report.ledger.recorded, report.traffic.events.sent), (0, 0));
    assert!(report.traffic.checks.denied > 0);
}

#[test]
fn an_early_stop_still_ends_with_a_ledger_check() {
    let mock = Mock::start(Faults::default());
    let stop = Arc::new(AtomicBool::new(true));
    for rate in [Rate::Max, Rate::PerSecond(100.0)] {
        let duration = Duration::from_hours(1);
        let options = Options { rate, duration, ..options(&mock, Scenario::Churn) };
        assert!(run(&options, &stop).unwrap().ledger.passed);
    }
}
