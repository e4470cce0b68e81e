//! Why a run could not be judged. A ledger that does not add up is not an error: it is a verdict.

use std::path::PathBuf;

use crate::client::Failure;

/// What stops a run before its verdict; the process then exits with 2.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments do not make sense together.
    #[error("{0}")]
    Usage(String),
    /// No target answered.
    #[error("cannot reach {target}: is Weir running there?")]
    Unreachable {
        /// The address tried last.
        target: String,
        /// What the network said.
        #[source]
        source: Failure,
    },
    /// Weir answered, but not with what the operation needs.
    #[error("{operation} was answered with {status}{hint}{}", detail_suffix(detail))]
    Refused {
        /// Method and path.
        operation: String,
        /// The HTTP status.
        status: u16,
        /// What usually helps for this status.
        hint: &'static str,
        /// The problem document's `detail`, or the start of the body.
        detail: String,
    },
    /// A 2xx answer whose body is not what the contract says.
    #[error("{operation} answered with something this simulator does not understand")]
    Unreadable {
        /// Method and path.
        operation: String,
        /// What the JSON parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// "read", "write" or "make".
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A node of a run with nodes of its own did not do what it was started for.
    #[error("{name} {what}; its log {} ends with\n  {last}", log.display())]
    Node {
        /// Which.
        name: String,
        /// What it did instead.
        what: String,
        /// Where its log is.
        log: PathBuf,
        /// The last lines of it.
        last: String,
    },
    /// Nodes of one's own that did not become a cluster in time.
    #[error("{0} in time; their logs say why")]
    NotWhole(&'static str),
    /// The operating system refused a thread or a runtime.
    #[error("cannot start {what}")]
    Start {
        /// What was to start.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A worker thread panicked: a fault of this simulator, said as such.
    #[error("the {0} thread of this simulator panicked; its output above says where")]
    Panicked(&'static str),
}

impl Error {
    /// An error about the arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The error and its sources on one line, outermost first.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

fn detail_suffix(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}
