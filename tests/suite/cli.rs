//! The program beside its server: what its commands print and how they end.

use std::path::Path;
use std::process::Command;

use harness::postgres::Postgres;
use harness::{Node, NodeOptions, Store, TestDirectory, World, run, weir};

/// `weir` with these arguments.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(weir());
    command.args(arguments);
    command
}

fn sqlite_in(directory: &Path) -> String {
    format!("sqlite://{}", directory.join("weir.db").display())
}

#[tokio::test]
async fn periods_are_printed_one_a_line() {
    let table: [(&[&str], &str); 4] = [
        (
            &[
                "--anchor",
                "2026-01-31T00:00:00Z",
                "--every",
                "P1M",
                "--time-zone",
                "Z",
                "--count",
                "3",
            ],
            "2026-01-31T00:00:00.000Z 2026-02-28T00:00:00.000Z\n\
             2026-02-28T00:00:00.000Z 2026-03-31T00:00:00.000Z\n\
             2026-03-31T00:00:00.000Z 2026-04-30T00:00:00.000Z\n",
        ),
        (
            &["--anchor", "2024-02-29T12:00:00Z", "--every", "P1Y", "--count", "2"],
            "2024-02-29T12:00:00.000Z 2025-02-28T12:00:00.000Z\n\
             2025-02-28T12:00:00.000Z 2026-02-28T12:00:00.000Z\n",
        ),
        (
            // Clocks go forward in Berlin on 29 March 2026: that day has 23 hours.
            &[
                "--anchor",
                "2026-03-28T00:00:00+01:00",
                "--every",
                "P1D",
                "--time-zone",
                "Europe/Berlin",
                "--count",
                "2",
            ],
            "2026-03-27T23:00:00.000Z 2026-03-28T23:00:00.000Z\n\
             2026-03-28T23:00:00.000Z 2026-03-29T22:00:00.000Z\n",
        ),
        (
            &[
                "--anchor",
                "calendar",
                "--every",
                "P1M",
                "--at",
                "2026-12-24T18:00:00Z",
                "--count",
                "1",
            ],
            "2026-12-01T00:00:00.000Z 2027-01-01T00:00:00.000Z\n",
        ),
    ];
    for (arguments, expected) in table {
        let mut period = command(&["period"]);
        period.args(arguments);
        assert_eq!(run(period).await.expect(0), expected, "{arguments:?}");
    }
    for arguments in [
        ["--anchor", "never", "--every", "P1M"],
        ["--anchor", "calendar", "--every", "P0D"],
        ["--anchor", "calendar", "--every", "monthly"],
    ] {
        let mut period = command(&["period"]);
        period.args(arguments);
        run(period).await.expect(64);
    }
    run(command(&["period", "--anchor", "calendar"])).await.expect(64);
}

#[tokio::test]
async fn a_configuration_is_checked_and_shown_without_its_secrets() {
    let directory = TestDirectory::new();
    let file = directory.path().join("weir.toml");
    std::fs::write(&file, "node_id = \"from-file\"\n[store]\npool_size = 7\n").unwrap();
    let path = file.to_str().unwrap();
    let secret_file = directory.path().join("secret");
    std::fs::write(&secret_file, "a-secret-in-a-file\n").unwrap();
    let mut check = command(&["config", "check", "--config", path]);
    check.env("WEIR_DATABASE_URL", "postgres://weir:a-database-password@db.example/weir");
    check.env("WEIR_ADMIN_TOKEN", "a-secret-in-the-environment");
    check.env("WEIR_CLUSTER_SECRET_FILE", &secret_file);
    check.env("WEIR_STORE__POOL_SIZE", "9");
    let shown = run(check).await.expect(0);
    for secret in ["a-secret-in-a-file", "a-secret-in-the-environment", "a-database-password"] {
        assert!(!shown.contains(secret), "{secret} is shown:\n{shown}");
    }
    assert!(shown.contains("from-file"), "the file counts:\n{shown}");
    assert!(shown.contains("pool_size = 9"), "the environment counts more:\n{shown}");
}

#[tokio::test]
async fn a_bad_configuration_ends_with_64_and_names_the_key() {
    let directory = TestDirectory::new();
    let file = directory.path().join("weir.toml");
    std::fs::write(&file, "[store]\npool_sise = 7\n").unwrap();
    let path = file.to_str().unwrap();
    let file = run(command(&["serve", "--config", path])).await;
    assert!(file.stderr.contains("store.pool_sise"), "{}", file.stderr);
    file.expect(64);
    for (name, value, told) in [
        ("WEIR_NO_SUCH_KEY", "1", "WEIR_NO_SUCH_KEY"),
        ("WEIR_STORE__POOL_SIZE", "many", "store.pool_size"),
        ("WEIR_HTTP", "everywhere", "http"),
        ("WEIR_DATABASE_URL", "mysql://db", "database_url"),
        ("WEIR_CLUSTER__LEASE", "1s", "cluster.lease"),
        ("WEIR_ADMIN_TOKEN_FILE", "/no/such/file", "admin_token"),
    ] {
        for arguments in [&["config", "check"][..], &["serve"]] {
            let mut bad = command(arguments);
            bad.env("WEIR_DATABASE_URL", sqlite_in(directory.path())).env(name, value);
            let finished = run(bad).await;
            assert!(finished.stderr.contains(told), "{name}: {}", finished.stderr);
            finished.expect(64);
        }
    }
    run(command(&["serve", "--no-such-flag"])).await.expect(64);
    run(command(&["no-such-command"])).await.expect(64);
    assert!(!directory.path().join("weir.db").exists(), "nothing was begun");
}

#[tokio::test]
async fn a_setting_that_has_no_use_is_accepted_with_a_warning() {
    let directory = TestDirectory::new();
    let options = NodeOptions {
        database_url: sqlite_in(directory.path()),
        environment: vec![("WEIR_CLUSTER_SECRET".to_owned(), "a secret of some length".to_owned())],
        arguments: vec!["--cluster-listen".to_owned(), "127.0.0.1:0".to_owned()],
    };
    let node = Node::start(options).await;
    let warning = "`cluster_listen` has no use on SQLite";
    harness::eventually(warning, std::time::Duration::from_secs(10), || async {
        let log = node.log();
        if log.contains(warning) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn tables_are_made_and_tokens_too_before_a_node_runs() {
    let directory = TestDirectory::new();
    let database = Postgres::shared().await.fresh_database().await.expect("a database can be made");
    for url in [sqlite_in(directory.path()), database.url.clone()] {
        for _ in 0..2 {
            run(command(&["migrate", "--database-url", &url])).await.expect(0);
        }
        let mut create = command(&["token", "create", "--scope", "gateway", "--name", "caddy"]);
        create.args(["--database-url", &url]);
        let token = run(create).await.expect(0);
        assert_eq!(token.lines().count(), 1, "{token}");
        let mut wrong = command(&["token", "create", "--scope", "root", "--name", "x"]);
        wrong.args(["--database-url", &url]);
        run(wrong).await.expect(64);

        let node = Node::start(NodeOptions { database_url: url, ..NodeOptions::default() }).await;
        let gateway = node.anonymous().with_token(token.trim());
        let path = "/api/v1/quota/check?subscriptionKey=a-key-that-nobody-ever-had";
        let decision = gateway.get(path).await.expect(200);
        assert_eq!(decision["reason"], "unknown_key", "{decision}");
        gateway.get("/api/v1/plans").await.expect_problem(403, "wrong_scope");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_a_failure_and_no_crash() {
    let mut serve = command(&["serve", "--http", "127.0.0.1:0"]);
    // Nothing listens on port 1.
    serve.args(["--database-url", "postgres://weir@127.0.0.1:1/weir"]);
    let finished = run(serve).await;
    assert!(finished.stderr.contains("weir: "), "{}", finished.stderr);
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished.expect(1);
}

#[tokio::test]
async fn the_lines_of_dev_mode_work_when_pasted() {
    let directory = TestDirectory::new();
    let options = NodeOptions {
        database_url: sqlite_in(directory.path()),
        arguments: vec!["--dev".to_owned()],
        ..NodeOptions::default()
    };
    let mut node = Node::start(options).await;
    // A second start finds what the first one made.
    for start in 0..2_u64 {
        let lines =
            harness::eventually("the welcome", std::time::Duration::from_secs(10), || async {
                let lines = pasted(&node.log());
                if lines.len() >= 4 * usize::try_from(start + 1).unwrap() {
                    Ok(lines)
                } else {
                    Err(node.log())
                }
            })
            .await;
        let lines = &lines[lines.len() - 4..];
        let mut answers = Vec::new();
        for line in lines {
            let mut shell = Command::new("sh");
            shell.args(["-c", line]);
            let printed = run(shell).await.expect(0);
            let answer: serde_json::Value = serde_json::from_str(&printed)
                .unwrap_or_else(|error| panic!("{error}: {line}: {printed}"));
            answers.push(answer);
        }
        assert_eq!(answers[0]["allowed"], true, "{}", answers[0]);
        let recorded = (&answers[1]["accepted"], &answers[1]["duplicates"]);
        assert_eq!(recorded, (&(1 - start).into(), &start.into()), "{}", answers[1]);
        assert_eq!(answers[2]["used"], 1, "{}", answers[2]);
        assert!(answers[3]["requests"].is_u64(), "{}", answers[3]);
        node.terminate().await;
        node.restart().await;
    }
}

/// The commands in a log: lines that begin with `curl`, with those that continue them.
fn pasted(log: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in log.lines() {
        if line.starts_with("curl ") {
            commands.push(line.to_owned());
        } else if is_open && let Some(last) = commands.last_mut() {
            last.push('\n');
            last.push_str(line);
        }
        is_open = (is_open || line.starts_with("curl ")) && line.ends_with('\\');
    }
    commands
}

#[tokio::test]
async fn a_second_signal_of_life_is_the_line_that_was_agreed() {
    let world = World::start(Store::Sqlite).await;
    // The harness has read the address from the line; the rest is for whoever reads it.
    assert!(world.node.address().ip().is_loopback());
    let line = world.node.first_line();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[..2], ["weir", "listening"], "{line}");
    let names: Vec<&str> =
        words[2..].iter().map(|word| word.split('=').next().unwrap_or_default()).collect();
    assert_eq!(names, ["http", "cluster", "node"], "{line}");
}
