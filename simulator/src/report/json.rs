//! `--json`: the report structs as they are, camelCase, two spaces of indent.
//!
//! The keys are those of [`LoadReport`](crate::load::LoadReport) and
//! [`ReplayReport`](crate::replay::ReplayReport); `README.md` of this crate lists them. `version` is
//! raised when a key changes its meaning or goes; new keys may come without.

use std::path::Path;

use serde::Serialize;

use crate::Error;

/// Writes a report as JSON.
pub fn write(path: &Path, report: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|source| Error::Unreadable { operation: "writing JSON".to_owned(), source })?;
    write_text(path, &(text + "\n"))
}

pub(super) fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
