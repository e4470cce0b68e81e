//! A time zone by its IANA name, with the rules compiled in.
//!
//! Role: the only file that knows what local clocks show. Always the bundled database, never the
//! machine's: two nodes with different system packages would disagree about a boundary.
//! Callers outside this folder name zones; only [`super::Schedule`] converts with them.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Error as JiffError, Timestamp};
use thiserror::Error;

/// As much of a wrong name as is told back: the longest right one is shorter.
const NAME_CHARS_SHOWN: usize = 64;

/// No such zone in the IANA database.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name:?} is not an IANA time zone, such as Europe/Berlin or UTC")]
pub struct ZoneError {
    /// What was asked for, or how it begins.
    pub name: String,
}

/// A time zone of the IANA database. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated Universal Time.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Looks the name up, in any case; fixed offsets such as `+02:00` are not zones. `Z` is UTC, as in
    /// a timestamp; the database does not know it.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        if name == "Z" {
            return Ok(Self::utc());
        }
        TimeZoneDatabase::bundled()
            .get(name)
            .ok()
            // `Etc/Unknown` parses, has no name, and is nobody's zone.
            .filter(|zone| zone.iana_name().is_some())
            .map(Self)
            .ok_or_else(|| ZoneError { name: name.chars().take(NAME_CHARS_SHOWN).collect() })
    }

    /// The name as the database spells it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// What the clocks show at `instant`.
    pub(super) fn local(&self, instant: Timestamp) -> DateTime {
        self.0.to_datetime(instant)
    }

    /// The first instant at which the clocks show `local` or later.
    ///
    /// An error only outside the years that the engine can count (-9999 to 9999).
    pub(super) fn first_instant(&self, local: DateTime) -> Result<Timestamp, JiffError> {
        match self.0.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local),
            AmbiguousOffset::Gap { before, after } => {
                // The gap opens after `early` and at `late` the latest. The usual repair, moving on
                // by the gap's width (`late`), would start a day at 01:30 for an anchor at 00:30.
                let early = after.to_timestamp(local)?;
                let late = before.to_timestamp(local)?;
                let opening = self
                    .0
                    .following(early)
                    .take_while(|change| change.timestamp() <= late)
                    .find(|change| change.offset() == after);
                Ok(opening.map_or(late, |change| change.timestamp()))
            }
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}
