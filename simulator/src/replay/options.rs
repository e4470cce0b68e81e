//! What a replay is asked to do.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::load::Access;
use crate::log_format::Format;
use crate::outbox::FlushOptions;

/// How fast a log is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as Weir answers.
    Max,
    /// This many times faster than it happened.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Self::Times(times)),
            _ => Err(format!("`{text}` is neither `max` nor a factor such as 100")),
        }
    }
}

impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Max => serializer.serialize_str("max"),
            Self::Times(times) => serializer.serialize_f64(*times),
        }
    }
}

/// One total that the caller knows from elsewhere, such as `status.200=9125`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedTotal {
    /// `lines`, `parsed`, `malformed`, `clients`, `bytes`, `status.N`, `client.ADDRESS`, `day.DATE`.
    pub name: String,
    /// The value.
    pub value: u64,
}

impl FromStr for ExpectedTotal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=NUMBER"))?;
        let is_known = matches!(name, "lines" | "parsed" | "malformed" | "clients" | "bytes")
            || ["status.", "client.", "day."].iter().any(|prefix| name.starts_with(prefix));
        if !is_known {
            return Err(format!(
                "`{name}` is none of lines, parsed, malformed, clients, bytes, status.N, client.ADDRESS, day.DATE"
            ));
        }
        let value = value.parse().map_err(|_| format!("`{value}` is not a whole number"))?;
        Ok(Self { name: name.to_owned(), value })
    }
}

/// A replay.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to and as whom.
    pub access: Access,
    /// The log.
    pub file: PathBuf,
    /// Its format.
    pub format: Format,
    /// How fast.
    pub speed: Speed,
    /// Keep the log's times instead of moving the last line to now.
    pub original_time: bool,
    /// Use this plan instead of making an unlimited one.
    pub plan_id: Option<String>,
    /// Take up this run again; a new one otherwise.
    pub run: Option<String>,
    /// Response times that the log does not know are drawn from it.
    pub seed: u64,
    /// Connections for checks.
    pub connections: usize,
    /// Connections for events.
    pub event_connections: usize,
    /// A check fails after this long.
    pub request_timeout: Duration,
    /// How events are gathered.
    pub flush: FlushOptions,
    /// Tenant of the subscriptions.
    pub tenant: String,
    /// How long the ledger check waits for the numbers to agree.
    pub settle: Duration,
    /// Totals the file must have.
    pub expected: Vec<ExpectedTotal>,
    /// No progress on stderr.
    pub quiet: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expected_total_names_what_it_counts() {
        let total: ExpectedTotal = "client.2001:db8::1=3".parse().expect("valid");
        assert_eq!((total.name.as_str(), total.value), ("client.2001:db8::1", 3));
        for text in ["lines", "lines=x", "rows=3", "=3"] {
            assert!(text.parse::<ExpectedTotal>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_speed_is_max_or_a_factor() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("0.5".parse(), Ok(Speed::Times(0.5)));
        for text in ["", "0", "-2", "inf", "fast"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }
}
