//! The rules themselves, each with its reason; the tables are the part to edit.
//!
//! A rule looks at one file and returns every place that breaks it. Most are a list of words
//! that only some rooms may use; the order of the rooms inside the node is one table.

use super::source::{Source, line_at, words};

/// Lines of a file at most. Ours are 100 to 400; from here on nobody reads one top-down.
pub(crate) const FILE_LINES_MAX: usize = 600;
/// Characters of a line at most: rustfmt's 100, and room for what it cannot break.
pub(crate) const LINE_CHARS_MAX: usize = 110;

/// A place that breaks a rule.
#[derive(Debug)]
pub(crate) struct Violation {
    /// Line from 1.
    pub(crate) line: usize,
    /// What stands there, and what to do instead.
    pub(crate) what: String,
}

/// A rule by name.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) check: fn(&Source) -> Vec<Violation>,
}

/// All rules.
pub(crate) const RULES: &[Rule] = &[
    Rule { name: "module doc", check: module_doc },
    Rule { name: "size", check: size },
    Rule { name: "unfinished", check: unfinished },
    Rule { name: "unwrap", check: |source| banned(source, &UNWRAP) },
    Rule { name: "sqlx", check: |source| banned(source, &SQLX) },
    Rule { name: "bincode", check: |source| banned(source, &BINCODE) },
    Rule { name: "ractor", check: |source| banned(source, &RACTOR) },
    Rule { name: "wall time", check: |source| banned(source, &WALL_TIME) },
    Rule { name: "monotonic time", check: |source| banned(source, &MONOTONIC_TIME) },
    Rule { name: "environment", check: |source| banned(source, &ENVIRONMENT) },
    Rule { name: "pure crates", check: pure_crates },
    Rule { name: "one way", check: one_way },
];

/// Words that only some rooms may use in code that is no test.
struct Ban {
    words: &'static [&'static str],
    /// Where the ban holds; a path begins with one of these.
    within: &'static [&'static str],
    /// Who is excepted; a path begins with one of these.
    except: &'static [&'static str],
    instead: &'static str,
}

const UNWRAP: Ban = Ban {
    words: &[".unwrap()"],
    within: &[""],
    except: &[],
    instead: "return an error, or say why it holds with expect",
};

const SQLX: Ban = Ban {
    words: &["sqlx"],
    within: &[""],
    except: &["node/store/"],
    instead: "ask the store's trait; rows and SQL stay behind it",
};

const BINCODE: Ban = Ban {
    words: &["bincode"],
    within: &[""],
    except: &["node/src/codec.rs", "node/src/codec/"],
    instead: "go through the codec, which versions the bytes and can be swapped as a whole",
};

const RACTOR: Ban = Ban {
    words: &["ractor", "ractor_cluster"],
    within: &[""],
    except: &[
        "node/src/shard.rs",
        "node/src/shard/",
        "node/src/cluster.rs",
        "node/src/cluster/",
        "node/src/app.rs",
        "node/src/app/",
    ],
    instead: "hold a typed handle; a mailbox hides behind it",
};

const WALL_TIME: Ban = Ban {
    words: &["SystemTime::now", "Timestamp::now", "Zoned::now", "chrono"],
    within: &["node/"],
    except: &["node/src/clock.rs"],
    instead: "take `now` as an argument or ask the clock, which tests can set",
};

/// The store may measure: its connections grow old and its upkeep has a budget by the monotonic
/// clock. No decision rests on either, and it stands below the clock room.
const MONOTONIC_TIME: Ban = Ban {
    words: &["Instant::now"],
    within: &["node/"],
    except: &["node/src/clock.rs", "node/store/src/sql/"],
    instead: "ask the clock, which tests can set, or take its stopwatch",
};

const ENVIRONMENT: Ban = Ban {
    words: &["env::var", "env::var_os", "env::vars", "env::vars_os"],
    within: &["node/", "cluster-config/"],
    except: &["node/src/main.rs"],
    instead: "make it a setting; main hands the environment to the configuration, once",
};

/// The rooms of `node/src` from top to bottom. A room uses itself and what stands below it:
/// data flows one way, from a request at the top to the codec and the clock at the bottom, so
/// that each room can be read, tested and replaced with nothing but the rooms under it.
/// Where something below must call up, it defines a trait and is handed the implementation
/// (the recorder reaches actors in this way).
const ROOMS: &[(&str, &str)] = &[
    ("main", "arguments, tracing, exit codes"),
    ("app", "wires every layer; start and shutdown order"),
    ("cli", "the commands that are no server"),
    ("dev", "seeds for a first look"),
    ("http", "the edge that people and gateways see"),
    ("grpc", "the edge that Envoy sees"),
    ("router", "key, subscription, shard, owner"),
    ("cluster", "peers; a frame that arrives goes down to the shard"),
    ("follow", "caches and residents after a change"),
    (
        "billing",
        "charges and closed periods: jobs over the store, by the meters as shards restore them",
    ),
    ("shard", "actors; they hand what must last to the recorder"),
    ("recorder", "group commit and checkpoints; knows actors only by its own trait"),
    ("delivery", "messages from the outbox to webhooks and mailboxes"),
    ("retention", "archives and prunes"),
    ("analytics", "rollups by a cursor over the ledger, and reads of them"),
    ("catalog", "plans and subscriptions as read from the store"),
    ("ownership", "shards held, epochs and cursors, shared by all who write"),
    ("codec", "bytes"),
    ("outcome", "what becomes of a request"),
    ("metrics", "names of what is counted"),
    ("clock", "the only reader of time"),
];

/// Rooms that only one other may use.
const PRIVATE_ROOMS: &[(&str, &str)] = &[("app", "main"), ("http", "app")];

fn module_doc(source: &Source) -> Vec<Violation> {
    let exempt = !source.is_rust() || source.is_test || source.text.starts_with("//!");
    if exempt {
        return Vec::new();
    }
    let what = "open the file with `//!`: its role, its invariants, who may call it".into();
    vec![Violation { line: 1, what }]
}

fn size(source: &Source) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines; split it, {FILE_LINES_MAX} are the most");
        found.push(Violation { line: lines, what });
    }
    for (at, line) in source.text.lines().enumerate() {
        // A row of a table in a comment cannot be broken, and quoted text (a template, sample
        // input, a description) reads best whole.
        let row = line.trim_start().trim_start_matches(['/', '!']).trim_start().starts_with('|');
        let mut chars = if row { 0 } else { line.chars().count() };
        if chars > LINE_CHARS_MAX {
            chars -= source.quoted_chars(at + 1);
        }
        if chars > LINE_CHARS_MAX {
            let what = format!("{chars} characters; break it, {LINE_CHARS_MAX} are the most");
            found.push(Violation { line: at + 1, what });
        }
    }
    found
}

/// What says that something is not done. Holds for tests too: a test that is left out or left
/// open is one that cannot fail.
fn unfinished(source: &Source) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    let code = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    let in_code = code.iter().map(|word| (*word, &source.code));
    let in_comments = ["FIXME"].iter().map(|word| (*word, &source.comments));
    let find = |(word, text): (&'static str, &'_ String)| -> Vec<Violation> {
        let what = || format!("`{word}` says it is not done; finish it or take it out");
        let lines = words(text, word).map(|at| line_at(text, at));
        lines.map(|line| Violation { line, what: what() }).collect()
    };
    in_code.chain(in_comments).flat_map(find).collect()
}

fn banned(source: &Source, ban: &Ban) -> Vec<Violation> {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|one| source.path.starts_with(one));
    if !source.is_rust() || !begins(ban.within) || begins(ban.except) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for word in ban.words {
        for line in words(&source.code, word).map(|at| line_at(&source.code, at)) {
            if !source.is_tested(line) {
                let what = format!("`{word}` has no place here: {}", ban.instead);
                found.push(Violation { line, what });
            }
        }
    }
    found
}

/// Crates without I/O, and what may not appear among their dependencies.
const PURE_CRATES: &[(&str, &[&str])] = &[
    ("node/core/", &["tokio", "sqlx", "rand", "ractor", "axum", "serde", "hyper", "weir-"]),
    ("cluster-config/", &["tokio", "sqlx", "rand", "ractor", "axum", "hyper", "weir-"]),
];

fn pure_crates(source: &Source) -> Vec<Violation> {
    let Some((folder, denied)) = PURE_CRATES.iter().find(|one| source.path.starts_with(one.0))
    else {
        return Vec::new();
    };
    if source.path.ends_with("Cargo.toml") {
        return impure_dependencies(&source.text, denied);
    }
    let own = if *folder == "node/core/" { "weir_core" } else { "weir_config" };
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("weir_") {
        let rest = &source.code[at..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let whole = words(rest, &name).next() == Some(0) && name.starts_with("weir_");
        if whole && name != own && !source.is_tested(line_at(&source.code, at)) {
            let what = format!("`{name}`: this crate uses nothing of ours, all others use it");
            found.push(Violation { line: line_at(&source.code, at), what });
        }
    }
    found
}

/// Lines of a manifest's `[dependencies]` that name a crate from `denied`; an entry ending in
/// `-` stands for all that begin so.
fn impure_dependencies(manifest: &str, denied: &[&str]) -> Vec<Violation> {
    let is_denied = |name: &str| {
        denied.iter().any(|one| name == *one || (one.ends_with('-') && name.starts_with(one)))
    };
    let mut section = "";
    let mut found = Vec::new();
    for (at, line) in manifest.lines().enumerate() {
        let line = line.trim();
        let mut name = "";
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            name = section.strip_prefix("dependencies.").unwrap_or_default();
        } else if section == "dependencies" {
            name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        }
        if is_denied(name) {
            let what = format!("`{name}`: this crate is pure; what it needs comes as an argument");
            found.push(Violation { line: at + 1, what });
        }
    }
    found
}

fn one_way(source: &Source) -> Vec<Violation> {
    let Some(modules) = source.modules_below("node/src/") else { return Vec::new() };
    let room = modules[0];
    // The library's root only lists the rooms; binaries beside main are roots of their own. A room's tests
    // may stand in the wired node.
    if room == "lib" || room == "bin" || source.is_test {
        return Vec::new();
    }
    let Some(rank) = rank(room) else {
        let what = format!("the room `{room}` has no place yet; put it in ROOMS of the tidy test");
        return vec![Violation { line: 1, what }];
    };
    let mut found = Vec::new();
    for (at, other) in rooms_used(&source.code, modules.len()) {
        let Some(other_rank) = self::rank(other) else { continue };
        let private = PRIVATE_ROOMS.iter().find(|(inner, user)| *inner == other && *user != room);
        let what = if other == room {
            continue;
        } else if let Some((_, user)) = private {
            format!("`{other}` is used by `{user}` alone, not by `{room}`")
        } else if other_rank < rank {
            format!("`{room}` may not use `{other}`, which stands above it; define a trait here")
        } else {
            continue;
        };
        found.push(Violation { line: line_at(&source.code, at), what });
    }
    found
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|(name, _)| *name == room)
}

/// Every room named from the crate's root in `code`, with its place: `crate::x`,
/// `crate::{x, y::z}`, `weir_node::x` in main, and `super::` repeated up to the root.
fn rooms_used(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for root in ["crate::", "weir_node::", &"super::".repeat(depth)] {
        for at in words(code, root) {
            let start = at + root.len();
            let longer_chain = root.starts_with("super") && code[..at].ends_with("super::");
            if !longer_chain {
                found.extend(first_names(code, start));
            }
        }
    }
    found
}

/// The first name of each path in `code` from `start`: one, or several within braces.
fn first_names(code: &str, start: usize) -> Vec<(usize, &str)> {
    if !code[start..].starts_with('{') {
        return name_at(code, start).into_iter().collect();
    }
    let mut found = Vec::new();
    let (mut depth, mut expecting) = (0_usize, true);
    for (at, c) in code[start..].char_indices().map(|(at, c)| (start + at, c)) {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => expecting = true,
            c if c.is_whitespace() => {}
            _ if expecting && depth == 1 => {
                found.extend(name_at(code, at));
                expecting = false;
            }
            _ => {}
        }
    }
    found
}

fn name_at(code: &str, at: usize) -> Option<(usize, &str)> {
    let rest = &code[at..];
    let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    (len > 0).then(|| (at, &rest[..len]))
}
