//! The binary as people meet it: exit codes, messages, files.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::mock::{ADMIN, Faults, GATEWAY, Mock};
use crate::replay::temporary;

fn weir_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir-sim"))
        .args(arguments)
        .env_remove("WEIR_ADMIN_TOKEN")
        .env_remove("WEIR_GATEWAY_TOKEN")
        .env_remove("WEIR_DATABASE_URL")
        .output()
        .unwrap()
}

fn short_load(mock: &Mock, more: &[&str]) -> Output {
    let mut arguments = vec![
        "load",
        "--target",
        &mock.url,
        "--scenario",
        "mixed",
        "--subscriptions",
        "20",
        "--rate",
        "500",
        "--duration",
        "500ms",
        "--baseline",
        "100ms",
        "--flush",
        "20ms",
        "--settle",
        "5s",
    ];
    arguments.extend(more);
    weir_sim(&arguments)
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_good_run_exits_0_and_leaves_table_json_and_page() {
    let mock = Mock::start(Faults::default());
    let (json, page) = (temporary("good.json"), temporary("good.html"));
    let files = ["--json", json.to_str().unwrap(), "--report", page.to_str().unwrap()];
    let mut more = vec!["--token", GATEWAY, "--admin-token", ADMIN, "--warm"];
    more.extend(files);
    let output = short_load(&mock, &more);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    for words in ["LEDGER OK", "allowed", "p99.9", "/livez", "over-admitted"] {
        assert!(table.contains(words), "{words} is missing in\n{table}");
    }
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    for pointer in [
        "/version",
        "/run",
        "/configuration/seed",
        "/configuration/scenario",
        "/traffic/checks/allowed",
        "/traffic/checks/deniedByReason",
        "/traffic/checksPerSecond",
        "/traffic/events/acked",
        "/traffic/latencyMicros/check/p999",
        "/traffic/latencyMicros/checkFromSend/p50",
        "/traffic/latencyMicros/flush/max",
        "/traffic/timeline/0/allowed",
        "/baseline/requestsPerSecond",
        "/ledger/passed",
        "/ledger/overAdmitted",
        "/churn/created",
    ] {
        assert!(report.pointer(pointer).is_some(), "{pointer} is missing");
    }
    let page = fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    for outside in ["src=", "href=", "url(", "<script", "<link", "NaN", "inf "] {
        assert!(!page.contains(outside), "{outside} on the page");
    }
}

#[test]
fn a_ledger_that_does_not_add_up_exits_1_and_names_the_subscription() {
    let mock = Mock::start(Faults { lose_every: 40, ..Faults::default() });
    let output = short_load(&mock, &["--token", ADMIN]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let said = said(&output);
    assert!(said.contains("LEDGER FAILED") && said.contains("not recorded"), "{said}");
    assert!(said.contains("00000000-0000-7000-8000-"), "the subscription's id: {said}");
}

#[test]
fn what_cannot_run_exits_2_and_says_why() {
    let mock = Mock::start(Faults::default());
    let nobody = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", free.local_addr().unwrap())
    };
    let load = |target: &str, token: &str, scenario: &str| {
        weir_sim(&["load", "--target", target, "--token", token, "--scenario", scenario, "-q"])
    };
    let cases = [
        ("nobody listens", load(&nobody, ADMIN, "steady"), "cannot reach 127.0.0.1"),
        ("an unknown token", load(&mock.url, "wrong", "steady"), "--token"),
        ("a gateway token alone", load(&mock.url, GATEWAY, "steady"), "--admin-token"),
        ("an unknown scenario", load(&mock.url, ADMIN, "chaos"), "near-limit"),
        ("https", load("https://weir", ADMIN, "steady"), "plain HTTP"),
        (
            "no token",
            weir_sim(&["load", "--target", &mock.url, "--scenario", "steady"]),
            "no token",
        ),
        (
            "no such file",
            weir_sim(&[
                "replay",
                "/no/such.log",
                "--format",
                "combined",
                "--target",
                &mock.url,
                "--token",
                ADMIN,
            ]),
            "cannot read /no/such.log",
        ),
    ];
    for (story, output, words) in cases {
        assert_eq!(output.status.code(), Some(2), "{story}: {}", said(&output));
        assert!(said(&output).contains(words), "{story}: {}", said(&output));
    }
}

#[test]
fn a_cluster_that_cannot_be_started_exits_2_and_says_why() {
    let cluster = |more: &[&str]| {
        let mut arguments = vec!["cluster", "-q"];
        arguments.extend(more);
        weir_sim(&arguments)
    };
    let postgres = ["--database-url", "postgres://weir@127.0.0.1:1/weir"];
    let on_postgres = |more: &[&str]| cluster(&[&postgres, more].concat());
    let cases = [
        ("no database", cluster(&[]), "make cluster"),
        ("SQLite", cluster(&["--database-url", "sqlite://weir.db"]), "postgres://"),
        ("no nodes", on_postgres(&["--nodes", "0"]), "--nodes must be between"),
        ("nobody to take over", on_postgres(&["--nodes", "1", "--kill-every", "5s"]), "--nodes 2"),
        ("a flood of faults", on_postgres(&["--kill-every", "1ms"]), "500ms apart"),
        ("a lease of an hour", on_postgres(&["--lease", "1h"]), "--lease must be between"),
        ("no such program", on_postgres(&["--weir", "/no/such/weir"]), "there is no /no/such/weir"),
        ("a report about nothing", on_postgres(&["--report", "x.html"]), "--duration"),
    ];
    for (story, output, words) in cases {
        assert_eq!(output.status.code(), Some(2), "{story}: {}", said(&output));
        assert!(said(&output).contains(words), "{story}: {}", said(&output));
    }
}

#[test]
fn a_generated_log_is_replayed_and_its_broken_lines_are_named() {
    let log = temporary("command.log");
    let made = weir_sim(&["generate-log", "--lines", "120", "--seed", "3", "--malformed", "2"]);
    fs::write(&log, &made.stdout).unwrap();
    let mock = Mock::start(Faults::default());
    let page = temporary("replay.html");
    let output = weir_sim(&[
        "replay",
        log.to_str().unwrap(),
        "--format",
        "combined",
        "--speed",
        "max",
        "--target",
        &mock.url,
        "--token",
        ADMIN,
        "--expect-totals",
        "lines=120,malformed=2",
        "--flush",
        "20ms",
        "--report",
        page.to_str().unwrap(),
    ]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(":60: cut short: no closing quote"), "{said}");
    assert!(said.contains(":120: cut short"), "{said}");
    assert!(said.contains("distinct clients") && said.contains("agrees"), "{said}");
    assert!(fs::read_to_string(page).unwrap().contains("File against Weir"));
}

#[test]
fn help_tells_a_new_user_what_to_type() {
    for (command, words) in [
        (vec!["--help"], "generate-log"),
        (vec!["load", "--help"], "Exit codes"),
        (vec!["replay", "--help"], "last line is now"),
        (vec!["cluster", "--help"], "One fault at a time"),
    ] {
        let output = weir_sim(&command);
        assert_eq!(output.status.code(), Some(0));
        assert!(said(&output).contains(words), "{command:?}");
    }
}
