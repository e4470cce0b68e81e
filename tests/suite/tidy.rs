//! The source rules that no compiler holds: who may use what, and how a file looks.
//!
//! Role: reads every Rust file and two manifests of the repository and reports each violation
//! with its file, line and reason. STYLE asks for it: data flows one way, time has one reader,
//! SQL one room, bytes one codec. [`rules`] is the list to edit; [`source`] knows just enough of
//! the language to tell code from comments, strings and tests. Each rule is shown a small
//! offender below, so none of them can stop working unnoticed.

mod rules;
mod source;

use std::path::{Path, PathBuf};

use rules::{RULES, Violation};
use source::Source;

/// The checked-out repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file and manifest below `folder`, as paths relative to `root`.
fn collect(root: &Path, folder: &Path, found: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| {
        panic!("cannot list {}: {error}", folder.display());
    });
    for entry in entries {
        let path = entry.expect("an entry of a readable folder").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        if path.is_dir() {
            // Hidden folders, what cargo builds and what npm installs are not ours.
            if !(name.starts_with('.') || name == "target" || name == "node_modules") {
                collect(root, &path, found);
            }
        } else if name == "Cargo.toml" || source::is_rust(&name) {
            let below = path.strip_prefix(root).expect("the walk starts at the root");
            found.push(below.to_string_lossy().replace('\\', "/"));
        }
    }
}

fn repository() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &root, &mut paths);
    paths.sort();
    let read = |path: String| {
        let text = std::fs::read_to_string(root.join(&path));
        Source::new(&path, &text.unwrap_or_else(|error| panic!("cannot read {path}: {error}")))
    };
    source::mark_test_modules(paths.into_iter().map(read).collect())
}

fn violations(sources: &[Source]) -> Vec<(&'static str, String, Violation)> {
    let mut all = Vec::new();
    for source in sources {
        for rule in RULES {
            let found = (rule.check)(source);
            all.extend(found.into_iter().map(|one| (rule.name, source.path.clone(), one)));
        }
    }
    all
}

#[test]
fn the_repository_keeps_its_rules() {
    let sources = repository();
    // A walk that finds nothing would make every rule pass.
    for room in ["node/src/main.rs", "node/core/src/lib.rs", "node/core/Cargo.toml"] {
        assert!(sources.iter().any(|source| source.path == room), "{room} was not found");
    }
    let lines: Vec<String> = violations(&sources)
        .into_iter()
        .map(|(rule, path, Violation { line, what })| format!("{path}:{line}: {rule}: {what}"))
        .collect();
    assert!(lines.is_empty(), "{} violations:\n{}", lines.len(), lines.join("\n"));
}

/// The rule that `text` breaks at `path`, with the line, when it breaks exactly one.
fn check_broken(path: &str, text: &str, rule: &str, line: usize) {
    let sources = source::mark_test_modules(vec![Source::new(path, text)]);
    let found: Vec<_> =
        violations(&sources).into_iter().map(|(rule, _, one)| (rule, one.line)).collect();
    assert_eq!(found, [(rule, line)], "{path}:\n{text}");
}

fn check_kept(path: &str, text: &str) {
    let found = violations(&source::mark_test_modules(vec![Source::new(path, text)]));
    assert!(found.is_empty(), "{path}:\n{text}\n{found:?}");
}

/// One offender for each rule, and for each word of a rule that names several.
const OFFENDERS: &[(&str, &str, &str, usize)] = &[
    ("node/src/router.rs", "use std::fmt;\n", "module doc", 1),
    ("node/src/router.rs", "//! R.\nfn f() { g().unwrap(); }\n", "unwrap", 2),
    ("node/core/src/a.rs", "//! R.\n\nfn f() { todo!() }\n", "unfinished", 3),
    ("tests/suite/a.rs", "fn f() { unimplemented!(\"x\") }\n", "unfinished", 1),
    ("simulator/src/a.rs", "//! R.\nfn f() { dbg!(1); }\n", "unfinished", 2),
    ("tests/suite/a.rs", "#[test]\n#[ignore]\nfn f() {}\n", "unfinished", 2),
    ("tests/suite/a.rs", "#[ignore = \"slow\"]\nfn f() {}\n", "unfinished", 1),
    ("node/src/router.rs", "//! R.\n// FIXME: later\n", "unfinished", 2),
    ("node/src/router.rs", "//! R.\nuse sqlx::PgPool;\n", "sqlx", 2),
    ("node/src/router.rs", "//! R.\nuse bincode::encode;\n", "bincode", 2),
    ("node/src/recorder/lane.rs", "//! R.\nuse ractor::Actor;\n", "ractor", 2),
    ("node/src/shard/actor.rs", "//! R.\nlet t = Instant::now();\n", "monotonic time", 2),
    ("node/core/src/a.rs", "//! R.\nlet t = std::time::SystemTime::now();\n", "wall time", 2),
    ("node/store/src/a.rs", "//! R.\nlet t = Instant::now();\n", "monotonic time", 2),
    ("node/store/src/sql/a.rs", "//! R.\nlet t = jiff::Timestamp::now();\n", "wall time", 2),
    ("node/src/http/a.rs", "//! R.\nlet t = Zoned::now();\n", "wall time", 2),
    ("node/src/http/a.rs", "//! R.\nuse chrono::Utc;\n", "wall time", 2),
    ("node/src/router.rs", "//! R.\nlet v = std::env::var(\"X\");\n", "environment", 2),
    ("cluster-config/src/a.rs", "//! R.\nlet v = std::env::vars_os();\n", "environment", 2),
    ("node/core/src/a.rs", "//! R.\nuse weir_config::limits;\n", "pure crates", 2),
    ("node/core/Cargo.toml", "[dependencies]\ntokio.workspace = true\n", "pure crates", 2),
    ("node/core/Cargo.toml", "[dependencies]\nweir-config = { }\n", "pure crates", 2),
    ("node/core/Cargo.toml", "[dependencies.serde]\nversion = \"1\"\n", "pure crates", 1),
    ("cluster-config/Cargo.toml", "[dependencies]\ntokio = \"1\"\n", "pure crates", 2),
    ("node/src/recorder/lane.rs", "//! R.\nuse crate::shard::Handle;\n", "one way", 2),
    ("node/src/clock.rs", "//! R.\nfn f() { crate::codec::read(); }\n", "one way", 2),
    ("node/src/clock.rs", "//! R.\nfn f() { crate::metrics::count(); }\n", "one way", 2),
    (
        "node/src/catalog.rs",
        "//! R.\nuse crate::{\n    clock,\n    router::Router,\n};\n",
        "one way",
        4,
    ),
    ("node/src/recorder.rs", "//! R.\nuse super::shard::Handle;\n", "one way", 2),
    ("node/src/recorder/lane.rs", "//! R.\nuse super::super::shard::Handle;\n", "one way", 2),
    ("node/src/cli.rs", "//! R.\nuse crate::app::App;\n", "one way", 2),
    ("node/src/cli.rs", "//! R.\nuse crate::http::serve;\n", "one way", 2),
    ("node/src/main.rs", "//! R.\nuse weir_node::http::serve;\n", "one way", 2),
    ("node/src/utils.rs", "//! R.\n", "one way", 1),
];

#[test]
fn each_rule_catches_its_offenders() {
    for (path, text, rule, line) in OFFENDERS {
        check_broken(path, text, rule, *line);
    }
    let long_line = format!("//! R.\n// {}\n", "x".repeat(rules::LINE_CHARS_MAX - 2));
    check_broken("node/src/router.rs", &long_line, "size", 2);
    let long_file = format!("//! R.\n{}", "\n".repeat(rules::FILE_LINES_MAX));
    check_broken("node/src/router.rs", &long_file, "size", rules::FILE_LINES_MAX + 1);

    // Only what is quoted may make a line longer.
    let literal = format!("    let line = \"{}\";\n", "x".repeat(rules::LINE_CHARS_MAX));
    check_kept("tests/suite/a.rs", &literal);
    check_kept("node/src/router.rs", &format!("//! R.\n{literal}"));
    check_kept("node/src/router.rs", &format!("//! | {} |\n", "x".repeat(rules::LINE_CHARS_MAX)));

    for rule in RULES {
        let shown = OFFENDERS.iter().any(|offender| offender.2 == rule.name);
        assert!(shown || rule.name == "size", "the rule {:?} has no offender", rule.name);
    }
}

#[test]
fn innocent_code_is_left_alone() {
    let table = [
        // The app wires; main starts it; a room may use itself and what lies below.
        ("node/src/app.rs", "//! R.\nuse crate::{http, router::Router, shard};\n"),
        ("node/src/main.rs", "//! R.\nuse weir_node::{app::App, cli};\n"),
        ("node/src/shard/actor.rs", "//! R.\nuse ractor::Actor;\nuse crate::recorder::Rows;\n"),
        ("node/src/shard/actor.rs", "//! R.\nuse super::handle::Handle;\nuse crate::shard::X;\n"),
        // The crate `http` is not the room `http`.
        ("node/src/router.rs", "//! R.\nuse http::StatusCode;\n"),
        ("node/src/lib.rs", "//! R.\npub mod http;\npub mod shard;\n"),
        // Each room may do what it is for.
        ("node/src/clock.rs", "//! R.\nlet t = Instant::now();\n"),
        ("node/store/src/sql/a.rs", "//! R.\nlet t = Instant::now();\n"),
        ("node/src/codec.rs", "//! R.\nuse bincode::encode;\n"),
        ("node/store/src/sqlite.rs", "//! R.\nuse sqlx::SqlitePool;\n"),
        ("node/src/main.rs", "//! R.\nlet v = std::env::vars_os();\n"),
        ("simulator/src/load.rs", "//! R.\nlet t = Instant::now();\n"),
        // Tests are freer, wherever they stand.
        ("tests/suite/a.rs", "fn f() { g().unwrap(); sqlx::query(\"\"); Instant::now(); }\n"),
        ("node/core/benches/apply.rs", "use weir_core::Units;\nlet t = Instant::now();\n"),
        (
            "node/src/router.rs",
            "//! R.\n#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}\n",
        ),
        // Words in comments, strings and longer names are no code.
        (
            "node/src/router.rs",
            "//! Time comes not from Instant::now().\n// sqlx .unwrap() todo!\n",
        ),
        ("node/src/router.rs", "//! R.\nlet a = \"dbg!(x) FIXME\"; let b = r#\"todo!() \" #\"#;\n"),
        ("node/src/router.rs", "//! R.\nlet c = '\"'; let d: &'static str = \"todo!()\";\n"),
        ("node/src/router.rs", "//! R.\n/* a /* todo!() */ dbg!(1) */ let x = my_sqlx_like;\n"),
        (
            "node/core/Cargo.toml",
            "[dependencies]\njiff = \"1\"\n[dev-dependencies]\nrand = \"1\"\n",
        ),
    ];
    for (path, text) in table {
        check_kept(path, text);
    }
}

#[test]
fn only_the_tested_part_of_a_file_is_free() {
    let text = "//! R.\n#[cfg(test)]\nfn a(x: [u8; 2]) { b().unwrap() }\nfn c() { d().unwrap() }\n";
    check_broken("node/src/router.rs", text, "unwrap", 4);
    let text = "//! R.\n#[cfg(not(test))]\nfn a() { b().unwrap() }\n";
    check_broken("node/src/router.rs", text, "unwrap", 3);
}

#[test]
fn a_module_file_declared_for_tests_is_a_test() {
    let sources = source::mark_test_modules(vec![
        Source::new("node/src/shard/mod.rs", "//! R.\n#[cfg(test)]\nmod stories;\nmod actor;\n"),
        Source::new("node/src/shard/stories.rs", "//! R.\nfn f() { g().unwrap() }\n"),
        Source::new("node/src/shard/actor.rs", "//! R.\nfn f() { g().unwrap() }\n"),
    ]);
    let found = violations(&sources);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0, found[0].1.as_str()), ("unwrap", "node/src/shard/actor.rs"));
}
