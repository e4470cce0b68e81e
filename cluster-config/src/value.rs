//! The kinds of value a setting takes, and how their text is read.
//!
//! Role: text in, value or nothing out; the reader adds the key, the origin and what was
//! expected. Nothing here looks at other settings. Durations are the contract's: ISO 8601
//! (`PT1M30S`) or humane (`1m30s`), of a fixed length, so months and years are refused and a
//! day has 24 hours.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SpanRelativeTo, fmt::friendly, fmt::temporal};

use crate::secret::{REDACTED, Secret};

/// Name of a node within its cluster, safe in a header, a file name and a host name:
/// 1 to 63 of `A-Z a-z 0-9 . _ -`, with a letter or digit at both ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// Longest name: one DNS label.
    pub const CHARS_MAX: usize = 63;

    /// `None` when `text` is not such a name.
    pub fn new(text: &str) -> Option<Self> {
        let at_ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let valid = text.len() <= Self::CHARS_MAX
            && at_ends(text.chars().next())
            && at_ends(text.chars().next_back())
            && text.chars().all(inside);
        valid.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place to dial: a host name or an IP address, and a port other than 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Host name, or IP address without brackets.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl HostPort {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = whole_number(port).and_then(|port| u16::try_from(port).ok())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = match bracketed {
            Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
            None => is_host_name(host),
        };
        let host = bracketed.unwrap_or(host).to_owned();
        (valid && port != 0).then_some(Self { host, port })
    }
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Coloured text, for people.
    Pretty,
}

impl LogFormat {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "json" => Some(Self::Json),
            "pretty" => Some(Self::Pretty),
            _ => None,
        }
    }
}

/// Where the ledger is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of this machine; one node only.
    Sqlite {
        /// The database file, relative to the working directory unless it begins with `/`.
        path: PathBuf,
    },
    /// A Postgres server; nodes that share it can form a cluster.
    Postgres {
        /// The whole URL, which may carry a password.
        url: Secret,
    },
}

impl DatabaseUrl {
    /// `sqlite://PATH`, `postgres://…` or `postgresql://…`.
    ///
    /// Connection options on a SQLite path are refused rather than dropped: the store chooses
    /// them (journal, synchronisation, locking) and durability rests on that choice.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            let names_a_file =
                !path.is_empty() && path != ":memory:" && !path.contains(['?', '\0']);
            return names_a_file.then(|| Self::Sqlite { path: PathBuf::from(path) });
        }
        let rest =
            text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))?;
        let names_a_server = !rest.is_empty() && !text.contains(['\0', ' ', '\n']);
        names_a_server.then(|| Secret::new(text).map(|url| Self::Postgres { url })).flatten()
    }

    /// Whether several nodes can share this store.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// The URL as it was given, password and all.
    pub fn expose(&self) -> String {
        match self {
            Self::Sqlite { path } => format!("sqlite://{}", path.display()),
            Self::Postgres { url } => url.expose().to_owned(),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite://{}", path.display()),
            Self::Postgres { .. } => write!(f, "postgres://{REDACTED}"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `IP:PORT`, or `localhost:PORT` for the IPv4 loopback. Names are not resolved here: that
/// would be I/O, and a listener that moves with DNS surprises.
pub(crate) fn listen_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => {
            let port = whole_number(port).and_then(|port| u16::try_from(port).ok())?;
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        None => text.parse().ok(),
    }
}

/// Decimal digits and `_` between them, nothing else: no sign, no blanks.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let digits_only = text.chars().all(|c| c.is_ascii_digit() || c == '_');
    let framed = !text.starts_with('_') && !text.ends_with('_');
    (digits_only && framed).then(|| text.replace('_', "").parse().ok()).flatten()
}

/// A number of bytes: plain, or with `KiB` or `MiB`.
pub(crate) fn byte_size(text: &str) -> Option<u64> {
    let (number, unit) = if let Some(number) = text.strip_suffix("KiB") {
        (number, 1 << 10)
    } else if let Some(number) = text.strip_suffix("MiB") {
        (number, 1 << 20)
    } else {
        (text, 1)
    };
    whole_number(number.trim_end()).and_then(|number| number.checked_mul(unit))
}

/// A length of time of fixed size, not negative.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let iso = text.starts_with(['P', 'p']);
    let span = if iso {
        temporal::SpanParser::new().parse_span(text).ok()?
    } else {
        friendly::SpanParser::new().parse_span(text).ok()?
    };
    let relative = SpanRelativeTo::days_are_24_hours();
    span.to_duration(relative).ok().and_then(|signed| Duration::try_from(signed).ok())
}

/// The shortest exact spelling in one or more units, as [`duration`] reads it back.
pub(crate) fn spell_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    for (unit, nanos) in UNITS {
        if rest >= nanos {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", rest / nanos);
            rest %= nanos;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The shortest exact spelling, as [`byte_size`] reads it back.
pub(crate) fn spell_bytes(bytes: u64) -> String {
    if bytes > 0 && bytes.is_multiple_of(1 << 20) {
        format!("{}MiB", bytes >> 20)
    } else if bytes > 0 && bytes.is_multiple_of(1 << 10) {
        format!("{}KiB", bytes >> 10)
    } else {
        bytes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_iso_or_humane_and_of_fixed_length() {
        let table = [
            ("PT1S", Some(1_000)),
            ("PT1M30S", Some(90_000)),
            ("PT0.5S", Some(500)),
            ("P35D", Some(35 * 86_400_000)),
            ("P1W", Some(7 * 86_400_000)),
            ("5s", Some(5_000)),
            ("1m30s", Some(90_000)),
            ("1m 30s", Some(90_000)),
            ("35d", Some(35 * 86_400_000)),
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("P1M", None),
            ("1y", None),
            ("-5s", None),
            ("-PT5S", None),
            ("5", None),
            ("", None),
            ("five seconds", None),
        ];
        for (text, millis) in table {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_plain_or_binary() {
        let table = [
            ("0", Some(0)),
            ("1_000", Some(1_000)),
            ("512KiB", Some(512 << 10)),
            ("8 MiB", Some(8 << 20)),
            ("8MB", None),
            ("-1", None),
            ("+1", None),
            ("_1", None),
            ("MiB", None),
            ("99999999999999999999", None),
            ("18446744073709551615MiB", None),
        ];
        for (text, bytes) in table {
            assert_eq!(byte_size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn node_names_are_safe_everywhere() {
        let longest = "n".repeat(63);
        for good in ["a", "node-1", "weir-0.weir.svc", "A_b", longest.as_str()] {
            assert!(NodeId::new(good).is_some(), "{good:?}");
        }
        let too_long = "n".repeat(64);
        for bad in ["", "-a", "a.", "a b", "a/b", "nœud", "a\n", too_long.as_str()] {
            assert!(NodeId::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn places_to_dial_are_names_or_addresses_with_a_port() {
        for good in ["weir-0.weir:7400", "10.0.0.1:1", "[::1]:7400", "my_host:65535", "a.:1"] {
            let place = HostPort::parse(good).unwrap_or_else(|| panic!("{good:?}"));
            assert_eq!(place.to_string(), good);
        }
        for bad in ["", "host", "host:0", "host:65536", "::1:80", ":80", "[host]:1", "a..b:1"] {
            assert_eq!(HostPort::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_to_listen_on_are_never_resolved() {
        for good in ["127.0.0.1:0", "0.0.0.0:8080", "[::1]:1", "localhost:8080"] {
            assert!(listen_address(good).is_some(), "{good:?}");
        }
        for bad in ["", "8080", ":8080", "example.org:80", "localhost:", "localhost:+1"] {
            assert_eq!(listen_address(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_database_is_a_file_or_a_server() {
        for good in ["sqlite://weir.db", "sqlite:///var/lib/weir/weir.db", "postgresql://h/db"] {
            let url = DatabaseUrl::parse(good).unwrap_or_else(|| panic!("{good:?}"));
            assert_eq!(url.expose(), good);
        }
        let bad = [
            "",
            "sqlite://",
            "sqlite://:memory:",
            "sqlite://a?mode=rwc",
            "postgres://",
            "mysql://h",
        ];
        for bad in bad {
            assert!(DatabaseUrl::parse(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_spelled_duration_reads_back(nanos in 0..u64::from(u32::MAX) * 1_000_000_000) {
            let length = Duration::from_nanos(nanos);
            prop_assert_eq!(duration(&spell_duration(length)), Some(length));
        }

        #[test]
        fn a_spelled_size_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(byte_size(&spell_bytes(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,40}") {
            let _ = (duration(&text), byte_size(&text), listen_address(&text));
            let _ = (HostPort::parse(&text), NodeId::new(&text), DatabaseUrl::parse(&text));
        }
    }
}
