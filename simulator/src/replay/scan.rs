//! The first pass over a log: what is in it, and what in it cannot be read.

use std::path::Path;

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::lines::{Lines, unreadable};
use super::sums::Sums;
use crate::Error;
use crate::log_format::Format;

/// Broken lines that are written out one by one.
const REPORTED_MAX: u64 = 1_000;

/// What is in a log.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSums {
    /// Lines.
    pub lines: u64,
    /// Lines that could be read.
    pub parsed: u64,
    /// Lines that could not.
    pub malformed: u64,
    /// Distinct client addresses.
    pub clients: u64,
    /// The earliest time, in Unix milliseconds.
    pub first_ms: i64,
    /// The latest time, in Unix milliseconds.
    pub last_ms: i64,
    /// Sums over the readable lines, in the file's own time.
    pub sums: Sums,
    /// Hash of the content; event ids contain it.
    pub digest: u64,
}

/// Reads the file once. `report` is told each line that cannot be read.
pub(super) fn scan(
    path: &Path,
    format: Format,
    mut report: impl FnMut(&str),
) -> Result<FileSums, Error> {
    let mut lines = Lines::open(path)?;
    let mut found = FileSums { first_ms: i64::MAX, last_ms: i64::MIN, ..FileSums::default() };
    let mut digest = Xxh3::new();
    while let Some((number, line)) = lines.next().map_err(|source| unreadable(path, source))? {
        found.lines = number;
        digest.update(line);
        digest.update(b"\n");
        match format.parse(line) {
            Ok(line) => {
                found.parsed += 1;
                found.first_ms = found.first_ms.min(line.at_ms);
                found.last_ms = found.last_ms.max(line.at_ms);
                found.sums.add(&line, 0);
            }
            Err(why) => {
                found.malformed += 1;
                if found.malformed <= REPORTED_MAX {
                    report(&format!("{}:{number}: {why}", path.display()));
                } else if found.malformed == REPORTED_MAX + 1 {
                    report("… further lines that cannot be read are only counted");
                }
            }
        }
    }
    if found.parsed == 0 {
        return Err(Error::usage(format!(
            "{}: none of its {} lines could be read; is --format right?",
            path.display(),
            found.lines
        )));
    }
    found.clients = crate::numbers::count(found.sums.clients.len());
    found.digest = digest.digest();
    Ok(found)
}
