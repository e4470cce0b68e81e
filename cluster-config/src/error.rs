//! What is wrong with a configuration: every fault at once, each with its key and its origin.
//!
//! Role: `weir serve` and `weir config check` print a [`ConfigError`] and exit 64. A person
//! mends all of it in one go, so nothing stops at the first fault. No text of a secret ever
//! enters a [`Problem`]: the reader replaces it before a problem is made.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The configuration file, with the line.
    File {
        /// The file as it was named.
        name: String,
        /// Line of the key, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// The variable's name.
        name: String,
    },
    /// A command-line flag.
    Flag {
        /// The flag with its dashes.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File { name, line } => write!(f, "{name} line {line}"),
            Self::Environment { name } => write!(f, "environment {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No setting has this key.
    #[error("unknown key `{key}` ({origin}){}", suggestion(nearest.as_deref()))]
    UnknownKey {
        /// The key in dotted form.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// The known key that looks most like it.
        nearest: Option<String>,
    },
    /// The value is not what the key takes.
    #[error("bad value {value} for `{key}` ({origin}): expected {expected}")]
    BadValue {
        /// The key in dotted form.
        key: String,
        /// The value in quotes, or a stand-in for a secret.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What would be accepted.
        expected: String,
    },
    /// A secret was given twice in one layer, as text and as a file.
    #[error("`{key}` is set twice: {first} and {second}; keep one")]
    SetTwice {
        /// The key in dotted form.
        key: String,
        /// The text.
        first: Origin,
        /// The file.
        second: Origin,
    },
    /// A file that the configuration names could not be used.
    #[error("cannot read the file of `{key}` ({origin}): {reason}")]
    Unreadable {
        /// The key in dotted form.
        key: String,
        /// Where the name of the file stands.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// The configuration file is not TOML, or could not be read.
    #[error("{name}{}: {reason}", at_line(*line))]
    BadFile {
        /// The file as it was named.
        name: String,
        /// Line of the fault, when there is one.
        line: Option<usize>,
        /// What is wrong. Never a quotation: the line may hold a secret.
        reason: String,
    },
    /// Two settings that are fine alone do not go together.
    #[error("`{key}` ({origin}) {conflict} (`{with}`: {with_origin})")]
    Conflict {
        /// The key to change first.
        key: String,
        /// Where its value came from.
        origin: Origin,
        /// What it must be, with the reason.
        conflict: String,
        /// The key it does not go with.
        with: String,
        /// Where that one's value came from.
        with_origin: Origin,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" line {line}"))
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// `Ok` when there is no problem.
    pub(crate) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    /// The faults, in the order they were found.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.problems.as_slice() {
            return write!(f, "configuration: {only}");
        }
        write!(f, "configuration: {} problems", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}
