//! The layers of a configuration as text: file, environment and flags laid over each other.
//!
//! Role: turns each source into `dotted.key → raw value with its origin`, a later layer
//! covering an earlier one. It knows no setting; whether a key exists and what its value means
//! is the reader's to say. Faults of form (not TOML, not UTF-8) are collected here.
//!
//! One rule joins the three spellings: the key `store.pool_size` is `[store] pool_size` in the
//! file, `WEIR_STORE__POOL_SIZE` in the environment; the key `node_id` is `--node-id` as a flag.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;

use toml::de::{DeTable, DeValue};

use crate::error::{Origin, Problem};

const ENV_PREFIX: &str = "WEIR_";

/// A value before anyone knows what it should be. No `Debug`: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Raw {
    /// A string, or a number or boolean by its digits and letters.
    Scalar(String),
    /// Something no setting takes, by its name.
    Odd(&'static str),
}

/// A raw value and where it stands.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) raw: Raw,
    pub(crate) origin: Origin,
}

/// All sources merged.
#[derive(Default)]
pub(crate) struct Layers {
    pub(crate) entries: BTreeMap<String, Entry>,
    /// Tables of the file that hold nothing: their names can be wrong too.
    pub(crate) empty_tables: Vec<(String, Origin)>,
    pub(crate) problems: Vec<Problem>,
}

impl Layers {
    /// Lays a TOML file over what is there.
    pub(crate) fn add_file(&mut self, name: &str, text: &str) {
        let lines = Lines::of(text);
        let name = &printable(name);
        match DeTable::parse(text) {
            Ok(document) => self.add_table(name, &lines, "", document.get_ref()),
            Err(error) => self.problems.push(Problem::BadFile {
                name: name.to_owned(),
                line: error.span().map(|span| lines.number_at(span.start)),
                // Only the message: the error's own Display quotes the line, secrets and all.
                reason: error.message().trim().replace('\n', ", "),
            }),
        }
    }

    fn add_table(&mut self, name: &str, lines: &Lines, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            let line = lines.number_at(key.span().start);
            let origin = Origin::File { name: name.to_owned(), line };
            match value.get_ref() {
                DeValue::Table(inner) if inner.is_empty() => {
                    self.empty_tables.push((path, origin));
                }
                DeValue::Table(inner) => self.add_table(name, lines, &path, inner),
                other => {
                    self.entries.insert(path, Entry { raw: raw_of(other), origin });
                }
            }
        }
    }

    /// Lays the `WEIR_…` variables over what is there; all others are not ours.
    pub(crate) fn add_environment(&mut self, name: &OsStr, value: &OsStr) {
        let Some(name) = name.to_str() else {
            // A name we could have meant is a name we must not overlook.
            let lossy = name.to_string_lossy();
            if lossy.starts_with(ENV_PREFIX) {
                self.unknown_variable(&lossy);
            }
            return;
        };
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return };
        let raw = match value.to_str() {
            Some(text) if is_service_link(rest, text) => return,
            Some(text) => Raw::Scalar(text.to_owned()),
            None => Raw::Odd("bytes that are not UTF-8"),
        };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        if variable_of(&key) == name {
            let origin = Origin::Environment { name: name.to_owned() };
            self.entries.insert(key, Entry { raw, origin });
        } else {
            self.unknown_variable(name);
        }
    }

    fn unknown_variable(&mut self, name: &str) {
        self.problems.push(Problem::UnknownKey {
            key: printable(name),
            origin: Origin::Environment { name: printable(name) },
            nearest: None,
        });
    }

    /// Lays one flag over what is there.
    pub(crate) fn add_flag(&mut self, key: &str, text: &str) {
        let origin = Origin::Flag { name: format!("--{}", key.replace('_', "-")) };
        self.entries.insert(key.to_owned(), Entry { raw: Raw::Scalar(text.to_owned()), origin });
    }
}

/// The variable that sets `key`.
pub(crate) fn variable_of(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Kubernetes puts `WEIR_SERVICE_HOST`, `WEIR_HTTP_PORT_8080_TCP_ADDR` and the like into every
/// pod beside a service called `weir` or `weir-http` (Docker's old links have the same form).
/// Nobody wrote them, so they are no typing mistakes and must not stop a node.
fn is_service_link(rest: &str, value: &str) -> bool {
    let marks = ["SERVICE_HOST", "SERVICE_PORT", "PORT"];
    let begins_a_word = |at: usize| at == 0 || rest[..at].ends_with('_');
    marks.iter().any(|mark| {
        rest.match_indices(mark).any(|(at, _)| {
            let tail = &rest[at + mark.len()..];
            let form = match *mark {
                "SERVICE_HOST" => tail.is_empty(),
                "SERVICE_PORT" => tail.is_empty() || tail.starts_with('_'),
                _ if tail.is_empty() => value.contains("://"),
                _ => is_port_tail(tail),
            };
            begins_a_word(at) && form
        })
    })
}

/// `_8080_TCP`, `_8080_TCP_ADDR`, and so on.
fn is_port_tail(tail: &str) -> bool {
    let mut parts = tail.strip_prefix('_').unwrap_or_default().split('_');
    let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
    let protocol = parts.next().is_some_and(|part| matches!(part, "TCP" | "UDP" | "SCTP"));
    let field = parts.next().is_none_or(|part| matches!(part, "PROTO" | "PORT" | "ADDR"));
    number && protocol && field && parts.next().is_none()
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Scalar(text.clone().into_owned()),
        DeValue::Boolean(truth) => Raw::Scalar(truth.to_string()),
        // Hexadecimal and its kin are read as what they mean.
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Raw::Odd("a whole number beyond 64 bits"), |number| {
                Raw::Scalar(number.to_string())
            }),
        DeValue::Float(_) => Raw::Odd("a fraction"),
        DeValue::Datetime(_) => Raw::Odd("a date or time"),
        DeValue::Array(_) => Raw::Odd("a list"),
        DeValue::Table(_) => Raw::Odd("a table"),
    }
}

/// `prefix.key`; a key that is not bare is quoted, so that it cannot pass for a dotted one.
fn join(prefix: &str, key: &str) -> String {
    let bare =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let key = if bare { key.to_owned() } else { format!("\"{}\"", printable(key)) };
    if prefix.is_empty() { key } else { format!("{prefix}.{key}") }
}

/// Text fit for one line of a terminal: no control characters, and not endless.
pub(crate) fn printable(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut shown = String::new();
    for c in text.chars().take(CHARS_MAX) {
        // Writing to a String cannot fail.
        let _ = write!(shown, "{}", c.escape_debug());
    }
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Where the lines of a text begin, to turn many offsets into line numbers cheaply.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    fn number_at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}
