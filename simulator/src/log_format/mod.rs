//! Access logs: what a line says, in the formats that gateways write.

pub mod caddy;
pub mod combined;
pub mod generate;
mod quoting;

use std::net::IpAddr;

use clap::ValueEnum;
use serde::Serialize;

/// Longest line that is looked at; longer ones are reported, not kept in memory.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The formats understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Apache and nginx "combined"
    Combined,
    /// Caddy's JSON access log, one object a line
    Caddy,
}

/// One request as the log tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLine {
    /// The client's address, or its host name where the server resolved it.
    pub client: String,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// The method; none when the request line was not HTTP.
    pub method: Option<String>,
    /// The path without its query; none when the request line was not HTTP.
    pub path: Option<String>,
    /// The status that was answered.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Bytes of the request's body, where the log knows them.
    pub request_bytes: u64,
    /// How long it took, where the log knows it.
    pub duration_ms: Option<f64>,
    /// The user agent, if one was sent.
    pub user_agent: Option<String>,
}

impl LogLine {
    /// The client as an IP address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.client.parse().ok()
    }
}

/// Why a line could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line ends where more is needed.
    #[error("cut short: {0}")]
    CutShort(&'static str),
    /// A field that does not hold what it should.
    #[error("{field} is `{found}`")]
    Field {
        /// Which field.
        field: &'static str,
        /// What was there.
        found: String,
    },
    /// Not a JSON object of the kind expected.
    #[error("not a Caddy access log entry: {0}")]
    NotCaddy(String),
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
}

impl LineError {
    fn field(field: &'static str, found: &str) -> Self {
        Self::Field { field, found: found.chars().take(80).collect() }
    }
}

impl Format {
    /// Reads one line, without its line end.
    pub fn parse(self, line: &[u8]) -> Result<LogLine, LineError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        match self {
            Self::Combined => combined::parse(line),
            Self::Caddy => caddy::parse(line),
        }
    }
}

/// The path of a request target: no query, no fragment, and no origin where a proxy wrote one.
fn path_of(target: &str) -> String {
    let without_origin = match target.split_once("://") {
        Some((scheme, rest)) if scheme.chars().all(|letter| letter.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    let end = without_origin.find(['?', '#']).unwrap_or(without_origin.len());
    match &without_origin[..end] {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

/// A method is a token of letters (RFC 9110, 9.1); anything else was not HTTP.
fn is_method(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-' || byte == b'_')
        && text != "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_loses_its_query_and_its_origin() {
        for (target, path) in [
            ("/a/b?x=1", "/a/b"),
            ("/a#top", "/a"),
            ("http://example.com/a?b", "/a"),
            ("http://example.com", "/"),
            ("/go?to=http://other/x", "/go"),
            ("*", "*"),
            ("?x", "/"),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_is_read() {
        let line = vec![b'a'; LINE_BYTES_MAX + 1];
        assert_eq!(Format::Combined.parse(&line), Err(LineError::TooLong));
    }
}
