//! Stories of a configuration: where values come from, what is refused, and what is shown.
//!
//! Everything goes through the public door, with the environment and the files of secrets given
//! as tables, so that no test touches the process or the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use weir_config::{Config, ConfigError, LogFormat, Overrides, Sources};

/// One start of a node as a test tells it.
#[derive(Default)]
struct Start<'a> {
    file: &'a str,
    environment: &'a [(&'a str, &'a str)],
    flags: Overrides,
    secrets: &'a [(&'a str, &'a str)],
}

impl Start<'_> {
    fn resolve(self) -> Result<Config, ConfigError> {
        let files: BTreeMap<&Path, &str> =
            self.secrets.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
        let read = |path: &Path| {
            let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
            files.get(path).map(|text| (*text).to_owned()).ok_or_else(missing)
        };
        let sources = Sources {
            file: Some(("weir.toml", self.file)),
            environment: self.environment.iter().copied(),
            overrides: self.flags,
        };
        Config::resolve(sources, &read)
    }

    fn config(self) -> Config {
        self.resolve().unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(self) -> String {
        match self.resolve() {
            Ok(config) => panic!("was accepted:\n{}", config.redacted_toml()),
            Err(error) => error.to_string(),
        }
    }
}

fn file(file: &str) -> Start<'_> {
    Start { file, ..Start::default() }
}

fn environment<'a>(environment: &'a [(&'a str, &'a str)]) -> Start<'a> {
    Start { environment, ..Start::default() }
}

/// The refusal is one problem and says all of `parts`.
fn check_refused(start: Start<'_>, parts: &[&str]) {
    let refusal = start.refusal();
    assert_eq!(refusal.lines().count(), 1, "more than one problem: {refusal}");
    for part in parts {
        assert!(refusal.contains(part), "{part:?} is missing from: {refusal}");
    }
}

#[test]
fn nothing_given_is_a_valid_node_on_a_local_file() {
    let config = file("").config();
    assert_eq!(config.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.database_url.to_string(), "sqlite://weir.db");
    assert_eq!(config.node_id.as_str(), "node-1");
    assert_eq!(config.cluster.shard_count.get(), 1024);
    assert_eq!(config.ingest.accept_window, Duration::from_hours(35 * 24));
    assert!(config.cluster_listen.is_none() && config.admin_token.is_none());
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn a_flag_covers_the_environment_which_covers_the_file_which_covers_the_default() {
    let text = "node_id = \"from-file\"";
    let variables = [("WEIR_NODE_ID", "from-environment")];
    let flags = || Overrides { node_id: Some("from-flag".into()), ..Overrides::default() };
    let table = [
        (Start::default(), "node-1", "# the defaults"),
        (file(text), "from-file", "# weir.toml line 1"),
        (
            Start { file: text, environment: &variables, ..Start::default() },
            "from-environment",
            "# environment WEIR_NODE_ID",
        ),
        (
            Start { file: text, environment: &variables, flags: flags(), ..Start::default() },
            "from-flag",
            "# flag --node-id",
        ),
    ];
    for (start, id, origin) in table {
        let config = start.config();
        assert_eq!(config.node_id.as_str(), id);
        let line = format!("node_id = \"{id}\"  {origin}");
        assert!(config.redacted_toml().contains(&line), "{}", config.redacted_toml());
    }
}

#[test]
fn every_spelling_of_a_setting_is_the_same_setting() {
    let text = "[store]\npool_size = 0x20\nquery_timeout = \"PT1.5S\"";
    let variables = [
        ("WEIR_STORE__POOL_SIZE", "32"),
        ("WEIR_STORE__QUERY_TIMEOUT", "1s500ms"),
        ("PATH", "/bin"),
    ];
    for start in [file(text), environment(&variables)] {
        let config = start.config();
        assert_eq!(config.store.pool_size, 32);
        assert_eq!(config.store.query_timeout, Duration::from_millis(1_500));
    }
}

#[test]
fn the_flags_of_serve_are_settings() {
    let flags = Overrides {
        http: Some("127.0.0.1:0".into()),
        database_url: Some("postgres://weir@db/weir".into()),
        node_id: Some("n1".into()),
        cluster_listen: Some("0.0.0.0:7400".into()),
        cluster_advertise: Some("weir-0.weir:7400".into()),
        log_format: Some("json".into()),
        log_filter: Some("debug".into()),
    };
    let variables = [
        ("WEIR_CLUSTER_SECRET", "a secret of some length"),
        ("WEIR_CLUSTER__INSECURE_PLAINTEXT", "true"),
    ];
    let config = Start { flags, environment: &variables, ..Start::default() }.config();
    assert!(config.database_url.is_shared());
    assert_eq!(config.http.port(), 0);
    assert_eq!(config.cluster_advertise.map(|place| place.port), Some(7400));
    assert_eq!((config.log_format, config.log_filter.as_str()), (LogFormat::Json, "debug"));
    assert_eq!(config.cluster_listen.map(|address| address.port()), Some(7400));
}

#[test]
fn unknown_keys_are_named_with_their_place_and_the_likely_meaning() {
    check_refused(
        file("\n[store]\npool_sise = 3"),
        &["unknown key `store.pool_sise` (weir.toml line 3)", "did you mean `store.pool_size`?"],
    );
    check_refused(
        file("[cluster]\nlisten = \"127.0.0.1:1\""),
        &["unknown key `cluster.listen`", "did you mean `cluster_listen`?"],
    );
    check_refused(file("[tracing]"), &["unknown key `tracing` (weir.toml line 1)"]);
    check_refused(file("\"store.pool_size\" = 3"), &["unknown key `\"store.pool_size\"`"]);
    check_refused(
        environment(&[("WEIR_NODEID", "n1")]),
        &["(environment WEIR_NODEID)", "did you mean `WEIR_NODE_ID`?"],
    );
    check_refused(environment(&[("WEIR_LOG", "debug")]), &["(environment WEIR_LOG)"]);
    check_refused(environment(&[("WEIR_node_id", "n1")]), &["unknown key `WEIR_node_id`"]);
    check_refused(environment(&[("WEIR_STORE.POOL_SIZE", "3")]), &["unknown key"]);
    check_refused(environment(&[("WEIR_", "")]), &["unknown key"]);
}

#[test]
fn an_empty_section_of_a_known_name_is_fine() {
    file("[store]\n[cluster]").config();
}

#[test]
fn bad_values_are_named_with_what_is_expected() {
    let table: [(&str, &[&str]); 11] = [
        ("http = \"here\"", &["\"here\" for `http` (weir.toml line 1): expected an address"]),
        ("http = 8080", &["\"8080\"", "an address"]),
        ("node_id = \"a b\"", &["\"a b\"", "1 to 63 letters"]),
        ("store = 3", &["unknown key `store`"]),
        ("store.pool_size = 1", &["\"1\"", "a whole number from 2 to 256"]),
        ("store.pool_size = 2.5", &["a fraction", "whole number"]),
        ("store.pool_size = [2]", &["a list", "whole number"]),
        ("store.query_timeout = \"P1M\"", &["\"P1M\"", "from 50ms to 1m"]),
        ("server.body_bytes_max = \"9MiB\"", &["\"9MiB\"", "from 1KiB to 8MiB"]),
        ("cluster.shard_count = 0", &["\"0\"", "from 1 to 65535"]),
        ("log_format = \"xml\"", &["`json` or `pretty`"]),
    ];
    for (text, parts) in table {
        check_refused(file(text), parts);
    }
    check_refused(
        environment(&[("WEIR_HTTP", "")]),
        &["bad value \"\" for `http` (environment WEIR_HTTP)"],
    );
}

#[test]
fn every_fault_is_told_at_once() {
    let refusal = Start {
        file: "http = \"x\"\nnode = 1\n",
        environment: &[("WEIR_STORE__POOL_SIZE", "many"), ("WEIR_ADMIN_TOKEN", "")],
        ..Start::default()
    }
    .refusal();
    assert!(refusal.starts_with("configuration: 4 problems\n"), "{refusal}");
    for key in ["`http`", "`node`", "`store.pool_size`", "`admin_token`"] {
        assert!(refusal.contains(key), "{key} is missing from: {refusal}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_named_by_line_and_never_quoted() {
    let refusal = file("http = \"127.0.0.1:0\"\ncluster_secret = \"hunter2\n").refusal();
    assert!(refusal.contains("weir.toml line 2"), "{refusal}");
    assert!(!refusal.contains("hunter2"), "{refusal}");
}

#[test]
fn a_secret_may_stand_in_a_file() {
    let variables = [
        ("WEIR_DATABASE_URL_FILE", "/run/db"),
        ("WEIR_CLUSTER_SECRET_FILE", "/run/cluster"),
        ("WEIR_ADMIN_TOKEN_FILE", "/run/admin"),
    ];
    let secrets = [
        ("/run/db", "postgres://w:pw@db/w\n"),
        ("/run/cluster", "s3cr3t\r\n"),
        ("/run/admin", "t"),
    ];
    let config = Start { environment: &variables, secrets: &secrets, ..Start::default() }.config();
    assert_eq!(config.database_url.expose(), "postgres://w:pw@db/w");
    assert_eq!(config.cluster_secret.as_ref().map(weir_config::Secret::expose), Some("s3cr3t"));
    assert_eq!(config.admin_token.as_ref().map(weir_config::Secret::expose), Some("t"));
}

#[test]
fn a_secret_given_twice_in_one_layer_is_refused() {
    for key in ["DATABASE_URL", "CLUSTER_SECRET", "ADMIN_TOKEN"] {
        let names = [format!("WEIR_{key}"), format!("WEIR_{key}_FILE")];
        let variables = [(names[0].as_str(), "sqlite://a"), (names[1].as_str(), "/run/a")];
        check_refused(
            Start {
                environment: &variables,
                secrets: &[("/run/a", "sqlite://b")],
                ..Start::default()
            },
            &["is set twice", &names[0], &names[1]],
        );
    }
}

#[test]
fn a_secret_in_a_higher_layer_covers_a_lower_one_whichever_form_they_have() {
    let secrets = [("/run/a", "from-the-secret-file")];
    let table = [
        ("admin_token = \"text\"", [("WEIR_ADMIN_TOKEN_FILE", "/run/a")], "from-the-secret-file"),
        ("admin_token_file = \"/run/a\"", [("WEIR_ADMIN_TOKEN", "text")], "text"),
    ];
    for (text, variables, token) in table {
        let start =
            Start { file: text, environment: &variables, secrets: &secrets, ..Start::default() };
        assert_eq!(
            start.config().admin_token.map(|t| t.expose().to_owned()).as_deref(),
            Some(token)
        );
    }
}

#[test]
fn a_missing_file_of_a_secret_is_named() {
    check_refused(
        environment(&[("WEIR_ADMIN_TOKEN_FILE", "/run/none")]),
        &["`admin_token_file` (environment WEIR_ADMIN_TOKEN_FILE)", "/run/none"],
    );
    check_refused(environment(&[("WEIR_ADMIN_TOKEN_FILE", "")]), &["the name of a file"]);
}

#[test]
fn no_secret_is_ever_printed() {
    let text = "cluster_secret = \"hunter2-cluster\"\nadmin_token = \"hunter2-admin\"\n\
                database_url = \"postgres://weir:hunter2@db/weir\"\n\
                [delivery]\npayment_url = \"https://pay/?t=hunter2\"\n\
                webhook_secret = \"whsec_hunter2hunter2hunter2hunter2hunter2/\"\n\
                [smtp]\nhost = \"mail\"\nfrom = \"a@b\"\nuser = \"u\"\npassword = \"hunter2\"";
    let config = file(text).config();
    let shown = [format!("{config:?}"), config.redacted_toml(), config.warnings().join("\n")];
    for shown in shown {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let bad = "cluster_secret = \"hunter2\\n\"\nadmin_token = [\"hunter2\"]\n\
               database_url = \"mysql://weir:hunter2@db/weir\"\n\
               delivery.webhook_secret = \"whsec_hunter2\"\n\
               delivery.payment_url = \"https://u:hunter2@pay/\"";
    let refusal = file(bad).refusal();
    assert!(refusal.contains("5 problems") && !refusal.contains("hunter2"), "{refusal}");
    let error = file(bad).resolve().expect_err("it was refused above");
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn settings_that_do_not_go_together_are_refused_with_the_reason() {
    let postgres = "database_url = \"postgres://db/weir\"\n";
    let secret = "cluster_secret = \"long enough to be one\"\n";
    let table = [
        ("", "cluster.lease_renew = \"2s\"", "at most a third of `cluster.lease` (1s666ms"),
        ("", "store.query_timeout = \"4500ms\"", "a renewal that hangs must fail"),
        ("", "server.body_read_timeout = \"21s\"", "must not exceed `server.request_timeout`"),
        ("", "server.drain_timeout = \"19s\"", "at least `server.request_timeout`"),
        ("", "store.acquire_timeout = \"19s\"", "together fit into `server.request_timeout`"),
        ("", "actors.passivate_after = \"1s\"\ncheckpoint.interval = \"2s\"", "first checkpoint"),
        ("", "recorder.lanes = 9", "at most half of `store.pool_size`"),
        ("", "recorder.queue_rows_max = 9999", "a full batch is always refused"),
        ("", "actors.mailbox_messages_max = 999", "a batch for one key refuses itself"),
        (postgres, "cluster_listen = \"127.0.0.1:0\"", "needs `cluster_secret`"),
        ("", "cluster_advertise = \"a:1\"", "needs `cluster_listen`"),
        ("", "cluster_listen = \"127.0.0.1:8080\"", "is the address of `http`"),
        (
            postgres,
            "cluster_listen = \"0.0.0.0:7400\"\ncluster.insecure_plaintext = true",
            "`cluster_advertise` must say",
        ),
        (postgres, "cluster_listen = \"10.0.0.1:7400\"", "so nodes talk by TLS"),
        ("", "cluster.tls_authority = \"ca.pem\"", "all three files or none"),
        ("", "delivery.backoff_max = \"9s\"", "at least `delivery.backoff_first`"),
        ("", "delivery.concurrency = 3", "one receiver would hold up all others"),
        ("", "smtp.host = \"mail\"", "needs `smtp.from`"),
        ("", "smtp.password = \"p\"", "go together"),
        ("", "smtp.user = \"u\"\nsmtp.password = \"p\"", "needs `smtp.host`"),
        (
            "",
            "delivery.webhook_secret_old = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
            "no use without `delivery.webhook_secret`",
        ),
    ];
    for (before, line, reason) in table {
        let text = if ["must say", "talk by TLS"].iter().any(|part| reason.contains(part)) {
            format!("{secret}{before}{line}")
        } else {
            format!("{before}{line}")
        };
        check_refused(file(&text), &[reason, "weir.toml line"]);
    }
}

#[test]
fn what_is_allowed_but_unwise_is_a_warning() {
    let table = [
        ("cluster_secret = \"short\"", "`cluster_secret` is shorter"),
        ("admin_token = \"short\"", "`admin_token` is shorter"),
        (
            "[smtp]\nhost = \"m\"\nfrom = \"a@b\"\ntls = \"none\"\nuser = \"u\"\npassword = \"p\"",
            "sent in the clear",
        ),
    ];
    for (text, part) in table {
        let warnings = file(text).config().warnings();
        assert!(warnings.iter().any(|line| line.contains(part)), "{part}: {warnings:?}");
    }
}

#[test]
fn what_a_cluster_should_know_is_a_warning() {
    let listen = "cluster_listen = \"127.0.0.1:0\"\ncluster_secret = \"long enough to be one\"\n";
    let postgres = "database_url = \"postgres://db/weir\"\n";
    let clear = "cluster.insecure_plaintext = true\n";
    assert!(file(&format!("{listen}{postgres}")).config().warnings().is_empty());
    let alone = file(listen).config().warnings();
    assert!(alone.iter().any(|line| line.contains("no use on SQLite")), "{alone:?}");
    let clear = file(&format!("{listen}{postgres}{clear}")).config().warnings();
    assert!(clear.iter().any(|line| line.contains("reads what nodes say")), "{clear:?}");
}

#[test]
fn deliveries_are_set_up_by_sections_of_their_own() {
    let text = "[delivery]\nattempts_max = 7\nallow = \"10.0.0.0/8, ::1\"\n\
                payment_url_file = \"pay\"\n\
                [smtp]\nhost = \"mail.example.com\"\ntls = \"implicit\"\nfrom = \"W <w@example.com>\"";
    let environment =
        [("WEIR_DELIVERY__WEBHOOK_SECRET_FILE", "key"), ("WEIR_DELIVERY__BACKOFF_FIRST", "PT5S")];
    let secrets = [
        ("pay", "https://pay.example/hook?key=1\n"),
        ("key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"),
    ];
    let start =
        Start { file: text, environment: &environment, secrets: &secrets, ..Start::default() };
    let config = start.config();
    let (delivery, smtp) = (&config.delivery, &config.smtp);
    assert!(delivery.enabled && smtp.is_set());
    assert_eq!((delivery.attempts_max, delivery.timeout), (7, Duration::from_secs(15)));
    assert_eq!(delivery.backoff_first, Duration::from_secs(5));
    assert!(delivery.allow.contain("10.1.2.3".parse().expect("an address")));
    let payment = delivery.payment_url.as_ref().map(weir_config::Secret::expose);
    assert_eq!(payment, Some("https://pay.example/hook?key=1"));
    assert_eq!(delivery.webhook_secret.as_ref().map(|key| key.expose().len()), Some(24));
    assert_eq!((smtp.port, smtp.tls.port()), (None, 465));

    let off = file("").config();
    assert!(!off.smtp.is_set() && off.delivery.webhook_secret.is_none());
    assert!(!off.delivery.allow.contain("127.0.0.1".parse().expect("an address")));
    let bad = [
        ("delivery.allow = \"localhost\"", "networks such as"),
        ("delivery.attempts_max = 21", "from 1 to 20"),
        ("delivery.payment_url = \"ftp://pay\"", "http or https URL"),
        ("delivery.webhook_secret = \"whsec_c2hvcnQ=\"", "24 to 64 bytes"),
        ("smtp.tls = \"tls\"", "`implicit`, `starttls` or `none`"),
        ("smtp.port = 0", "a port"),
    ];
    for (text, part) in bad {
        check_refused(file(text), &[part]);
    }
}

#[test]
fn a_setting_that_would_change_nothing_is_unknown() {
    let table = [
        "grpc = \"127.0.0.1:0\"",
        "server.check_timeout = \"2s\"",
        "recorder.gather = \"2ms\"",
        "cluster.lease_margin = \"500ms\"",
        "cluster.map_poll = \"2s\"",
        "cluster.ping_interval = \"500ms\"",
        "cluster.suspect_after = \"2s\"",
        "cluster.cut_after = \"5s\"",
        "webhooks.attempts_max = 5",
        "retention.usage_records = \"90d\"",
    ];
    for text in table {
        check_refused(file(text), &["unknown key"]);
    }
}

#[test]
fn a_window_of_years_needs_no_other_setting() {
    let config = environment(&[("WEIR_INGEST__ACCEPT_WINDOW", "5000d")]).config();
    assert_eq!(config.ingest.accept_window, Duration::from_hours(5_000 * 24));
}

#[test]
fn what_kubernetes_adds_for_a_service_called_weir_is_no_mistake() {
    environment(&[
        ("WEIR_SERVICE_HOST", "192.0.2.7"),
        ("WEIR_SERVICE_PORT", "8080"),
        ("WEIR_SERVICE_PORT_HTTP", "8080"),
        ("WEIR_PORT", "tcp://192.0.2.7:8080"),
        ("WEIR_PORT_8080_TCP", "tcp://192.0.2.7:8080"),
        ("WEIR_PORT_8080_TCP_PROTO", "tcp"),
        ("WEIR_HTTP_PORT_8080_TCP_ADDR", "192.0.2.7"),
        ("WEIR_HTTP_SERVICE_HOST", "192.0.2.7"),
    ])
    .config();
    check_refused(environment(&[("WEIR_PORT", "8080")]), &["unknown key"]);
    check_refused(environment(&[("WEIR_REPORT_8080_TCP", "1")]), &["unknown key"]);
}

#[test]
fn what_is_shown_reads_back_as_the_same_settings() {
    let text = "http = \"[::1]:0\"\nlog_filter = 'a=\"b\\c\"'\n[store]\npool_size = 0x10\n\
                [ingest]\naccept_window = \"P40D\"";
    let first = file(text).config();
    let second = file(&first.redacted_toml()).config();
    // All typed fields; the last, private one differs by the origins alone.
    let typed =
        |config: &Config| format!("{config:?}").split(", shown: ").next().map(str::to_owned);
    assert_eq!(typed(&first), typed(&second));
    assert_eq!(second.store.pool_size, 16);
    assert_eq!(second.log_filter, "a=\"b\\c\"");
}

#[test]
fn files_are_read_from_disk_and_a_missing_one_is_named() {
    let nobody: [(&str, &str); 0] = [];
    let path = std::env::temp_dir().join(format!("weir-config-{}.toml", std::process::id()));
    std::fs::write(&path, "node_id = \"on-disk\"").expect("the temporary folder is writable");
    let loaded = Config::load(Some(&path), nobody, Overrides::default());
    std::fs::remove_file(&path).expect("it was just written");
    assert_eq!(loaded.expect("it is a valid file").node_id.as_str(), "on-disk");
    let error = Config::load(Some(&path), nobody, Overrides::default()).expect_err("it is gone");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

/// Lines that are nearly right, so that the random search gets past the first parser.
fn toml_like() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("http".to_owned()),
        Just("database_url".to_owned()),
        Just("admin_token_file".to_owned()),
        Just("store.pool_size".to_owned()),
        Just("ingest.accept_window".to_owned()),
        Just("[store]\nquery_timeout".to_owned()),
        ".{0,12}",
    ];
    let value = prop_oneof![
        "[0-9]{1,20}",
        "\"[^\"\\\\\n]{0,20}\"",
        "\\[\"[a-z]{0,4}\", [0-9]\\]",
        "P[0-9]{0,20}[DTHMS]{0,3}",
        ".{0,20}",
    ];
    prop::collection::vec((key, value), 0..6).prop_map(|lines| {
        let lines: Vec<String> = lines.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        lines.join("\n")
    })
}

proptest! {
    #[test]
    fn no_text_and_no_environment_makes_it_panic(
        text in prop_oneof![toml_like(), ".{0,200}"],
        names in prop::collection::vec(
            ("WEIR_[A-Z_.]{0,20}|WEIR_.{0,10}|.{0,10}", ".{0,20}"),
            0..5,
        ),
        known in prop::sample::select(
            vec!["WEIR_HTTP", "WEIR_STORE__QUERY_TIMEOUT", "WEIR_ADMIN_TOKEN"],
        ),
        value in ".{0,30}",
        flag in proptest::option::of(".{0,20}"),
    ) {
        let mut variables: Vec<(&str, &str)> =
            names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.push((known, &value));
        let flags = Overrides { http: flag, ..Overrides::default() };
        let start = Start { file: &text, environment: &variables, flags, secrets: &[] };
        match start.resolve() {
            Ok(config) => prop_assert!(!config.redacted_toml().is_empty()),
            Err(error) => prop_assert!(!error.problems().is_empty()),
        }
    }
}
