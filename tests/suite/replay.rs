//! The simulator as its users run it: a real log played through a node, and load that is audited.

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Http, Store, World, on_both_stores, program, run};
use serde_json::{Value, json};

/// Facts about the real log, counted independently (see the README beside it).
const REAL_TOTALS: &str = "lines=10000,parsed=9999,malformed=1,clients=1753,bytes=2747282505,\
status.200=9125,status.304=445,status.404=213,status.301=164,status.206=45,status.500=3,\
status.403=2,status.416=2,client.66.249.73.135=482,client.46.105.14.53=364,\
client.130.237.218.86=357,client.75.97.9.59=273";
const REAL_DAYS: [(&str, u64); 4] =
    [("2015-05-17", 1_632), ("2015-05-18", 2_893), ("2015-05-19", 2_896), ("2015-05-20", 2_578)];
/// Time for the ledger check to agree: it asks about every subscription, of an unoptimised node.
const SETTLE: &str = "110s";
/// What stands in for it where it is not at hand.
const MADE_UP_TOTALS: &str = "lines=2000,parsed=1999,malformed=1";

fn sim() -> Command {
    Command::new(program("weir-sim", "weir-sim"))
}

/// A command against this node with its admin token and its report.
async fn sim_against(world: &World, arguments: &[&str]) -> (Option<i32>, String, Value) {
    let json = world.directory().join("report.json");
    let mut command = sim();
    command.args(arguments).arg("--quiet");
    command.args(["--target", &format!("http://{}", world.node.address())]);
    command.args(["--token", &world.token(&json!({"name": "sim", "scope": "admin"})).await]);
    command.arg("--json").arg(&json);
    let finished = run(command).await;
    let report = std::fs::read(&json).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let told = format!("{}\n{}", finished.stdout, finished.stderr);
    (finished.code, told, report.unwrap_or_default())
}

/// The log to replay and its totals; whether it is the real one.
async fn log(world: &World) -> (PathBuf, &'static str, bool) {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/apache_access.log");
    if real.exists() {
        return (real, REAL_TOTALS, true);
    }
    println!("{} is not here: a generated log stands in for it", real.display());
    let made_up = world.directory().join("access.log");
    let mut command = sim();
    command.args(["generate-log", "--lines", "2000", "--malformed", "1", "--seed", "5"]);
    let text = run(command).await.expect(0);
    std::fs::write(&made_up, text).expect("the story's directory can be written");
    (made_up, MADE_UP_TOTALS, false)
}

on_both_stores!(closed_and_open_load_end_with_a_ledger_that_adds_up);

#[tokio::test]
async fn a_real_log_played_as_if_it_were_now_is_counted_exactly() {
    let world = World::start(Store::Postgres).await;
    let (file, totals, _) = log(&world).await;
    let file = file.to_str().expect("a plain path");
    let arguments = [
        "replay",
        file,
        "--format",
        "combined",
        "--speed",
        "max",
        "--settle",
        SETTLE,
        "--expect-totals",
        totals,
    ];
    let (code, told, report) = sim_against(&world, &arguments).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(report["ledger"]["passed"], true, "{told}");
    let rows = report["comparison"].as_array().expect("the totals are compared");
    let agreeing = rows.iter().filter(|row| row["agrees"] == true).count();
    assert!(agreeing == rows.len() && agreeing > 3, "{rows:?}");
}

#[tokio::test]
async fn a_real_log_with_its_own_times_lands_on_its_own_days() {
    let environment = [("WEIR_INGEST__ACCEPT_WINDOW", "5000d")];
    let world = World::start_with(Store::Sqlite, &environment).await;
    let (file, totals, is_real) = log(&world).await;
    let file = file.to_str().expect("a plain path");
    let arguments = [
        "replay",
        file,
        "--format",
        "combined",
        "--speed",
        "max",
        "--original-time",
        "--settle",
        SETTLE,
        "--expect-totals",
        totals,
    ];
    let (code, told, report) = sim_against(&world, &arguments).await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(report["configuration"]["shiftMs"], 0, "{told}");
    if is_real {
        check_days(&world.admin()).await;
    }
}

/// Sums the trends of all subscriptions by day.
async fn check_days(admin: &Http) {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page =
            admin.get(&format!("/api/v1/subscriptions?limit=1000{cursor}")).await.expect(200);
        let data = page["data"].as_array().expect("a page has data");
        ids.extend(data.iter().filter_map(|one| one["id"].as_str().map(str::to_owned)));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(ids.len(), 1_753, "one subscription per client");
    let mut days = [0; REAL_DAYS.len()];
    for id in ids {
        let range = "from=2015-05-17T00:00:00Z&to=2015-05-21T00:00:00Z";
        let path = format!("/api/v1/usage/trends?subscriptionId={id}&granularity=P1D&{range}");
        let trends = admin.get(&path).await.expect(200);
        let buckets = trends["data"].as_array().expect("trends have data");
        assert_eq!(buckets.len(), REAL_DAYS.len(), "{trends}");
        for (sum, bucket) in days.iter_mut().zip(buckets) {
            *sum += bucket["requests"].as_u64().expect("a count");
        }
    }
    assert_eq!(days, REAL_DAYS.map(|(_, count)| count));
}

async fn closed_and_open_load_end_with_a_ledger_that_adds_up(store: Store) {
    let world = World::start(store).await;
    for (rate, scenario) in [("max", "near-limit"), ("100", "mixed")] {
        let arguments = [
            "load",
            "--scenario",
            scenario,
            "--rate",
            rate,
            "--subscriptions",
            "20",
            "--connections",
            "8",
            "--duration",
            "3s",
            "--baseline",
            "0s",
        ];
        let (code, told, report) = sim_against(&world, &arguments).await;
        assert_eq!(code, Some(0), "{scenario}: {told}");
        assert_eq!(report["ledger"]["passed"], true, "{scenario}: {report}");
    }
}

/// A ledger check that cannot fail proves nothing: rows are removed behind the node's back.
#[tokio::test]
async fn a_ledger_that_was_tampered_with_fails_its_check() {
    let mut world = World::start(Store::Sqlite).await;
    let (file, ..) = log(&world).await;
    let text = std::fs::read(&file).expect("the log can be read");
    let head: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').take(200).collect();
    let short = world.directory().join("short.log");
    std::fs::write(&short, head.concat()).expect("the story's directory can be written");
    let short = short.to_str().expect("a plain path").to_owned();
    let arguments =
        ["replay", &short, "--format", "combined", "--run", "tampered", "--settle", "2s"];
    let (code, told, _) = sim_against(&world, &arguments).await;
    assert_eq!(code, Some(0), "{told}");

    world.node.terminate().await;
    let lost = world.tamper("DELETE FROM usage_records WHERE seq % 2 = 0").await;
    assert!(lost > 0, "something was removed");
    // Sums made before must not stand in for the rows: they are made anew from what is left.
    world.tamper("DELETE FROM api_usage_analytics").await;
    world.tamper("UPDATE shard_progress SET rolled = 0").await;
    world.node.restart().await;
    // The same run again: every id is known, so nothing is recorded anew.
    let (code, told, _) = sim_against(&world, &arguments).await;
    assert_eq!(code, Some(1), "{lost} rows are missing: {told}");
}
