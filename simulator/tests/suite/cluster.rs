//! Real nodes, started by the simulator itself: faults under load, and nothing left behind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::postgres::{Postgres, TestDatabase};
use harness::{TestDirectory, eventually, weir};
use serde_json::Value;

/// Longest wait for nodes to start or to end on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

async fn database() -> TestDatabase {
    Postgres::shared().await.fresh_database().await.unwrap()
}

fn cluster(database: &TestDatabase, directory: &TestDirectory, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-sim"));
    command
        .arg("cluster")
        .args(["--database-url", &database.url])
        .arg("--weir")
        .arg(weir())
        // A short lease makes short fail-overs, and so a short test.
        .args(["--lease", "2s"])
        .args(more)
        .env_remove("WEIR_ADMIN_TOKEN")
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null());
    command
}

/// The process ids in `  node-1   http://…  process 123 …`.
fn pids(text: &str) -> Vec<u32> {
    let after = text.split("process ").skip(1);
    after.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

async fn gone(pids: &[u32]) {
    eventually("the nodes end", PATIENCE, async || {
        // A process number given to somebody else has another name.
        let is_weir = |pid: &&u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "weir")
        };
        let left: Vec<_> = pids.iter().filter(is_weir).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} still run")) }
    })
    .await;
}

#[tokio::test]
async fn kill_9_under_load_loses_nothing_and_leaves_nothing_behind() {
    let (database, directory) = (database().await, TestDirectory::new());
    let json = directory.path().join("report.json");
    let page = directory.path().join("report.html");
    let mut command = cluster(
        &database,
        &directory,
        &["--kill-every", "3s", "--duration", "8s", "--rate", "150", "--subscriptions", "40"],
    );
    command.args(["--seed", "2"]).arg("--json").arg(&json).arg("--report").arg(&page);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}\n{shown}");
    assert!(told.contains("CLUSTER OK") && shown.contains("kill -9"), "{told}\n{shown}");

    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap();
    for nothing in ["lost", "double", "lostUnits", "doubleUnits", "overAdmitted"] {
        assert_eq!(number(&format!("/load/ledger/{nothing}")), 0, "{nothing}: {told}");
    }
    // What never happened proves nothing: a fault that healed, limits that were met, other nodes
    // that were asked.
    assert!(number("/kinds/0/faults") >= 1 && report["kinds"][0]["kind"] == "kill", "{report}");
    assert!(number("/faults/0/wholeAfterMillis") > 0, "{report}");
    assert!(number("/load/ledger/atLimit") > 0, "{told}");
    assert!(number("/load/traffic/checks/proxied") > 0, "{told}");
    assert!(number("/load/traffic/checks/allowed") > 0, "{told}");
    assert!(fs::read_to_string(page).unwrap().contains("One by one"));

    let pids = pids(&shown);
    assert_eq!(pids.len(), 3, "{shown}");
    gone(&pids).await;
}

#[tokio::test]
async fn nodes_that_end_in_order_or_sleep_past_their_lease_keep_the_books_whole() {
    for (fault, kind) in [("--stop-every", "stop"), ("--pause-every", "pause")] {
        let (database, directory) = (database().await, TestDirectory::new());
        let json = directory.path().join("report.json");
        let load = ["3s", "--duration", "8s", "--rate", "100", "--subscriptions", "30", "--quiet"];
        let mut command = cluster(&database, &directory, &[&[fault][..], &load].concat());
        command.arg("--json").arg(&json);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap();
        assert!(number("/kinds/0/faults") >= 1 && report["kinds"][0]["kind"] == kind, "{report}");
        for nothing in ["lost", "double", "lostUnits", "doubleUnits", "overAdmitted"] {
            assert_eq!(number(&format!("/load/ledger/{nothing}")), 0, "{nothing}: {told}");
        }
        if kind == "stop" {
            assert_eq!(number("/kinds/0/failedChecks"), 0, "{told}");
        }
        assert_eq!(output.status.code(), Some(0), "{told}");
    }
}

/// Starts two nodes without load and reads what is told once they serve.
fn start(database: &TestDatabase, directory: &TestDirectory) -> (Child, String) {
    let mut command = cluster(database, directory, &["--nodes", "2", "--dev", "--quiet"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let until_last = output.lines().map_while(Result::ok).take_while(|line| !line.contains("-9"));
    let told = until_last.collect::<Vec<_>>().join("\n");
    (child, told)
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test]
async fn without_a_duration_the_nodes_run_until_sigterm_and_end_in_order() {
    let (database, directory) = (database().await, TestDirectory::new());
    let (mut child, told) = start(&database, &directory);
    let pids = pids(&told);
    assert_eq!(pids.len(), 2, "{told}");
    assert!(told.contains("demo-small") && told.contains("/api/v1/cluster"), "{told}");
    signal(child.id(), "TERM");
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    gone(&pids).await;
    let logs = logs(directory.path());
    assert!(logs.iter().all(|log| log.contains("ending in order")), "{logs:#?}");
    assert_eq!(logs.len(), 2);
}

#[tokio::test]
async fn a_simulator_that_is_killed_takes_its_nodes_with_it() {
    let (database, directory) = (database().await, TestDirectory::new());
    let (mut child, told) = start(&database, &directory);
    let pids = pids(&told);
    assert_eq!(pids.len(), 2, "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
    gone(&pids).await;
}

fn logs(directory: &Path) -> Vec<String> {
    let runs = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = runs.flat_map(|run| fs::read_dir(run).unwrap());
    files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}
