//! Replays against the mock: a real log where it is at hand, a generated one everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use weir_sim::log_format::Format;
use weir_sim::log_format::generate::Generate;
use weir_sim::replay::{Options, ReplayReport, Speed, run};

use crate::load::{access, flush};
use crate::mock::{Faults, Mock};

/// The facts beside the real log, counted independently of this code.
const REAL_TOTALS: &str = "lines=10000,parsed=9999,malformed=1,clients=1753,bytes=2747282505,\
status.200=9125,status.304=445,status.404=213,status.301=164,status.206=45,status.500=3,\
status.403=2,status.416=2,client.66.249.73.135=482,client.46.105.14.53=364,\
client.130.237.218.86=357,client.75.97.9.59=273,day.2015-05-17=1632,day.2015-05-18=2893,\
day.2015-05-19=2896,day.2015-05-20=2578";

pub(crate) fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("weir-sim-{name}"))
}

fn generated(name: &str, lines: u64, malformed: u64) -> PathBuf {
    let path = temporary(name);
    let mut out = fs::File::create(&path).unwrap();
    Generate { lines, seed: 5, malformed }.write_to(&mut out).unwrap();
    path
}

fn options(mock: &Mock, file: PathBuf) -> Options {
    Options {
        access: access(mock),
        file,
        format: Format::Combined,
        speed: Speed::Max,
        original_time: false,
        plan_id: None,
        run: None,
        seed: 1,
        connections: 8,
        event_connections: 2,
        request_timeout: Duration::from_secs(5),
        flush: flush(),
        tenant: "default".to_owned(),
        settle: Duration::from_secs(10),
        expected: Vec::new(),
        quiet: true,
    }
}

fn play(options: &Options) -> ReplayReport {
    run(options, &Arc::new(AtomicBool::new(false))).unwrap()
}

fn expected(text: &str) -> Vec<weir_sim::replay::ExpectedTotal> {
    text.split(',').map(|total| total.parse().unwrap()).collect()
}

#[test]
fn a_real_access_log_arrives_whole() {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/apache_access.log");
    let mock = Mock::start(Faults::default());
    let mut options = options(&mock, real.clone());
    if real.exists() {
        options.expected = expected(REAL_TOTALS);
    } else {
        println!("{} is not here: a generated log stands in for it", real.display());
        options.file = generated("real.log", 2_000, 1);
        options.expected = expected("lines=2000,parsed=1999,malformed=1");
    }
    let report = play(&options);
    assert!(report.ledger.passed, "{:?} {:?}", report.ledger, report.comparison);
    assert_eq!(mock.requests(), report.file.parsed);
    assert_eq!(mock.subscriptions() as u64, report.file.clients);
    assert!(mock.paths().iter().all(|path| !path.contains('?')), "queries do not leave the log");
}

#[test]
fn a_caddy_log_arrives_whole_with_its_own_durations() {
    let path = temporary("caddy.json");
    let line = |client: &str, at: &str, status: u16| {
        format!(
            r#"{{"level":"info","ts":{at},"logger":"http.log.access","msg":"handled request","request":{{"remote_ip":"{client}","client_ip":"{client}","method":"GET","uri":"/v1/search?q=1","headers":{{"User-Agent":["curl"]}}}},"bytes_read":3,"duration":0.01,"size":100,"status":{status}}}"#
        )
    };
    let text = [
        line("203.0.113.1", "1763942400.5", 200),
        "{\"msg\":\"serving initial configuration\"}".to_owned(),
        line("2001:db8::1", "1763942401.5", 404),
        line("203.0.113.1", "1763942401.6", 200),
    ];
    fs::write(&path, text.join("\n")).unwrap();
    let mock = Mock::start(Faults::default());
    let mut options = options(&mock, path.clone());
    options.format = Format::Caddy;
    options.expected = expected("lines=4,parsed=3,malformed=1,clients=2,bytes=300,status.404=1");
    let report = play(&options);
    assert!(report.ledger.passed, "{:?} {:?}", report.ledger, report.comparison);
    assert_eq!(mock.requests(), 3);
}

#[test]
fn a_run_that_is_taken_up_again_counts_nothing_twice() {
    let file = generated("again.log", 300, 0);
    let mock = Mock::start(Faults::default());
    let first = play(&options(&mock, file.clone()));
    let again = play(&Options { run: Some(first.run.clone()), ..options(&mock, file) });
    assert!(again.ledger.passed, "{:?} {:?}", again.ledger, again.comparison);
    assert_eq!(again.traffic.events.duplicates, 300);
    assert_eq!(mock.requests(), 300);
    assert_eq!(mock.subscriptions() as u64, first.file.clients, "the same subscriptions");
    assert_eq!(again.configuration.shift_ms, first.configuration.shift_ms);
}

#[test]
fn times_move_to_now_unless_the_originals_are_asked_for() {
    let file = generated("times.log", 50, 0);
    let mock = Mock::start(Faults::default());
    let moved = play(&options(&mock, file.clone()));
    let kept = play(&Options { original_time: true, ..options(&mock, file) });
    assert!(moved.ledger.passed && kept.ledger.passed);
    assert_eq!(kept.configuration.shift_ms, 0);
    let last = moved.file.last_ms + moved.configuration.shift_ms;
    let started: i64 = moved.started_at.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert!((last - started).abs() <= 1_000, "the last line is now: {last} and {started}");
    let day = |report: &ReplayReport| {
        report.comparison.iter().any(|row| row.name.starts_with("day 2025-11-24"))
    };
    assert!(day(&kept) && !day(&moved));
}

#[test]
fn a_pace_is_kept_and_lines_are_measured_from_when_they_were_due() {
    let file = generated("pace.log", 60, 0);
    let mock = Mock::start(Faults::default());
    let options = Options { speed: Speed::Times(100.0), ..options(&mock, file) };
    let report = play(&options);
    let span = u64::try_from(report.file.last_ms - report.file.first_ms).unwrap();
    let span = Duration::from_millis(span) / 100;
    assert!(report.ledger.passed);
    let elapsed = Duration::from_secs_f64(report.traffic.elapsed_seconds);
    assert!(elapsed >= span, "no faster than asked for");
}

#[test]
fn a_server_that_loses_or_doubles_a_line_is_found_out() {
    let file = generated("wrong.log", 400, 0);
    for faults in [
        Faults { lose_every: 399, ..Faults::default() },
        Faults { double_every: 399, ..Faults::default() },
    ] {
        let mock = Mock::start(faults);
        let mut options = options(&mock, file.clone());
        options.settle = Duration::from_secs(1);
        let report = play(&options);
        assert!(!report.ledger.passed, "{faults:?}");
        let requests = report.comparison.iter().find(|row| row.name == "requests").unwrap();
        assert!(!requests.agrees && requests.file == 400, "{requests:?}");
    }
}

#[test]
fn totals_known_from_elsewhere_must_be_met() {
    let file = generated("totals.log", 40, 0);
    let mock = Mock::start(Faults::default());
    let options = Options { expected: expected("lines=41"), ..options(&mock, file) };
    let report = play(&options);
    assert!(!report.ledger.passed);
    assert!(report.comparison.iter().any(|row| row.name.starts_with("lines") && !row.agrees));
}

#[test]
fn a_file_in_another_format_is_refused_with_a_hint() {
    let file = generated("other.log", 10, 0);
    let mock = Mock::start(Faults::default());
    let options = Options { format: Format::Caddy, ..options(&mock, file) };
    let why = run(&options, &Arc::new(AtomicBool::new(false))).unwrap_err().to_string();
    assert!(why.contains("--format"), "{why}");
}
