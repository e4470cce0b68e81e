//! Apache and nginx "combined":
//! `%h %l %u [%t] "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`, and whatever a server adds after it.
//!
//! Escapes inside quotes are undone.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::fmt::strtime;

use super::quoting::{escape, unescape};
use super::{LineError, LogLine, is_method, path_of};

/// How both servers write the time.
const TIME_FORMAT: &str = "%d/%b/%Y:%H:%M:%S %z";

/// Reads one line.
pub fn parse(line: &[u8]) -> Result<LogLine, LineError> {
    let mut rest = Rest(line);
    let client = rest.word("client")?;
    let _identity = rest.word("identity")?;
    let at_ms = rest.user_and_time()?;
    let request = rest.quoted("request")?;
    let status = rest.word("status")?;
    let bytes = rest.word("bytes")?;
    let _referrer = rest.quoted("referrer")?;
    let user_agent = rest.quoted("user agent")?;
    let (method, path) = request_line(&request);
    Ok(LogLine {
        client,
        at_ms,
        method,
        path,
        status: parse_status(&status)?,
        bytes: parse_bytes(&bytes)?,
        request_bytes: 0,
        duration_ms: None,
        user_agent: (user_agent != "-" && !user_agent.is_empty()).then_some(user_agent),
    })
}

/// Writes one line that [`parse`] reads back; used by the generator and the tests.
pub fn write(line: &LogLine, query: &str, out: &mut String) {
    let dash = "-".to_owned();
    let request = match (&line.method, &line.path) {
        (Some(method), Some(path)) => format!("{method} {path}{query} HTTP/1.1"),
        _ => dash.clone(),
    };
    let bytes = if line.bytes == 0 { dash.clone() } else { line.bytes.to_string() };
    out.push_str(&line.client);
    out.push_str(" - - [");
    out.push_str(&time_text(line.at_ms));
    out.push_str("] \"");
    escape(&request, out);
    let _ = write!(out, "\" {} {bytes} \"-\" \"", line.status);
    escape(line.user_agent.as_ref().unwrap_or(&dash), out);
    out.push('"');
}

fn time_text(at_ms: i64) -> String {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let zoned = time.to_zoned_datetime(jiff::tz::TimeZone::UTC);
    strtime::format(TIME_FORMAT, &zoned).unwrap_or_default()
}

fn parse_time(text: &str) -> Result<i64, LineError> {
    strtime::parse(TIME_FORMAT, text)
        .and_then(|parts| parts.to_timestamp())
        .map(Timestamp::as_millisecond)
        .map_err(|_| LineError::field("time", text))
}

fn parse_status(text: &str) -> Result<u16, LineError> {
    match text.parse() {
        Ok(status) if (100..=999).contains(&status) => Ok(status),
        _ => Err(LineError::field("status", text)),
    }
}

fn parse_bytes(text: &str) -> Result<u64, LineError> {
    if text == "-" {
        return Ok(0);
    }
    text.parse().map_err(|_| LineError::field("bytes", text))
}

/// Splits `METHOD target HTTP/x`; a target with spaces in it keeps them. Noise (a TLS hello on a
/// plain port, a lone `-`) is a request without method and path, not an error: it was served.
fn request_line(request: &str) -> (Option<String>, Option<String>) {
    let Some((method, rest)) = request.split_once(' ') else { return (None, None) };
    if !is_method(method) {
        return (None, None);
    }
    let target = match rest.rsplit_once(' ') {
        Some((target, protocol)) if protocol.starts_with("HTTP/") => target,
        _ => rest,
    };
    (Some(method.to_owned()), Some(path_of(target)))
}

/// What is left of a line.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// The bytes up to the next space.
    fn word(&mut self, field: &'static str) -> Result<String, LineError> {
        let end = self.0.iter().position(|byte| *byte == b' ').unwrap_or(self.0.len());
        if end == 0 {
            return Err(LineError::CutShort(field));
        }
        let word = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        Ok(word)
    }

    /// The user, which may hold spaces, and the time in brackets, which is what is returned.
    fn user_and_time(&mut self) -> Result<i64, LineError> {
        let open = self.find(b" [").ok_or(LineError::CutShort("time"))?;
        self.0 = &self.0[open + 2..];
        let close = self.find(b"]").ok_or(LineError::CutShort("time has no closing bracket"))?;
        let time = String::from_utf8_lossy(&self.0[..close]).into_owned();
        self.0 = &self.0[close + 1..];
        self.skip_space();
        parse_time(&time)
    }

    /// The text between two quotes, with escapes undone.
    fn quoted(&mut self, field: &'static str) -> Result<String, LineError> {
        let [b'"', inner @ ..] = self.0 else { return Err(LineError::CutShort(field)) };
        let mut text = Vec::with_capacity(64);
        let mut at = 0;
        loop {
            match inner.get(at) {
                None => return Err(LineError::CutShort("no closing quote")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let (byte, used) = unescape(&inner[at + 1..])
                        .ok_or(LineError::CutShort("no closing quote"))?;
                    text.extend_from_slice(byte.as_slice());
                    at += 1 + used;
                }
                Some(byte) => {
                    text.push(*byte);
                    at += 1;
                }
            }
        }
        self.0 = &inner[at + 1..];
        self.skip_space();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn skip_space(&mut self) {
        self.0 = self.0.strip_prefix(b" ").unwrap_or(self.0);
    }

    fn find(&self, needle: &[u8]) -> Option<usize> {
        self.0.windows(needle.len()).position(|window| window == needle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: &str = "[17/May/2015:10:05:03 +0000]";

    fn parsed(line: &str) -> LogLine {
        parse(line.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why}"))
    }

    /// story, line, client, method and path, status, bytes, user agent
    type Story = (
        &'static str,
        String,
        &'static str,
        Option<(&'static str, &'static str)>,
        u16,
        u64,
        Option<&'static str>,
    );

    fn ordinary_stories() -> Vec<Story> {
        vec![
            (
                "an ordinary line",
                format!(
                    r#"83.149.9.216 - - {TIME} "GET /a/b.png?x=1 HTTP/1.1" 200 203023 "http://r/" "Mozilla/5.0 (X11)""#
                ),
                "83.149.9.216",
                Some(("GET", "/a/b.png")),
                200,
                203_023,
                Some("Mozilla/5.0 (X11)"),
            ),
            (
                "no bytes, no agent",
                format!(r#"10.0.0.1 - - {TIME} "HEAD / HTTP/1.0" 304 - "-" "-""#),
                "10.0.0.1",
                Some(("HEAD", "/")),
                304,
                0,
                None,
            ),
            (
                "an IPv6 client",
                format!(r#"2001:db8::1 - - {TIME} "GET / HTTP/2.0" 200 1 "-" "curl""#),
                "2001:db8::1",
                Some(("GET", "/")),
                200,
                1,
                Some("curl"),
            ),
            (
                "a user with a space",
                format!(r#"::1 id john doe {TIME} "GET / HTTP/1.1" 200 1 "-" "a""#),
                "::1",
                Some(("GET", "/")),
                200,
                1,
                Some("a"),
            ),
            (
                "quotes inside the agent",
                format!(r#"h - - {TIME} "GET / HTTP/1.1" 200 1 "-" "say \"hi\" \\ ok""#),
                "h",
                Some(("GET", "/")),
                200,
                1,
                Some(r#"say "hi" \ ok"#),
            ),
            (
                "a quote inside the path",
                format!(r#"h - - {TIME} "GET /a\"b HTTP/1.1" 404 9 "-" "a""#),
                "h",
                Some(("GET", "/a\"b")),
                404,
                9,
                Some("a"),
            ),
            (
                "a path with spaces",
                format!(r#"h - - {TIME} "GET /a b c HTTP/1.1" 400 9 "-" "a""#),
                "h",
                Some(("GET", "/a b c")),
                400,
                9,
                Some("a"),
            ),
        ]
    }

    fn odd_stories() -> Vec<Story> {
        vec![
            (
                "HTTP/0.9 without a protocol",
                format!(r#"h - - {TIME} "GET /old" 200 9 "-" "a""#),
                "h",
                Some(("GET", "/old")),
                200,
                9,
                Some("a"),
            ),
            (
                "a TLS hello on a plain port",
                format!(r#"h - - {TIME} "\x16\x03\x01\x00" 400 226 "-" "-""#),
                "h",
                None,
                400,
                226,
                None,
            ),
            (
                "a connection that said nothing",
                format!(r#"h - - {TIME} "-" 408 - "-" "-""#),
                "h",
                None,
                408,
                0,
                None,
            ),
            (
                "bytes that are UTF-8 in escapes",
                format!(r#"h - - {TIME} "GET /caf\xc3\xa9 HTTP/1.1" 200 1 "-" "a""#),
                "h",
                Some(("GET", "/café")),
                200,
                1,
                Some("a"),
            ),
            (
                "an escape that nobody defined stays",
                format!(r#"h - - {TIME} "GET /\q\xzz HTTP/1.1" 200 1 "-" "a""#),
                "h",
                Some(("GET", r"/\q\xzz")),
                200,
                1,
                Some("a"),
            ),
            (
                "fields that nginx adds at the end",
                format!(r#"h - - {TIME} "GET / HTTP/1.1" 499 0 "-" "a" "10.1.1.1" 0.003"#),
                "h",
                Some(("GET", "/")),
                499,
                0,
                Some("a"),
            ),
        ]
    }

    #[test]
    fn lines_as_servers_write_them_are_read() {
        for (story, line, client, request, status, bytes, agent) in
            ordinary_stories().into_iter().chain(odd_stories())
        {
            let read = parsed(&line);
            assert_eq!(read.client, client, "{story}");
            assert_eq!(read.method.as_deref().zip(read.path.as_deref()), request, "{story}");
            assert_eq!((read.status, read.bytes), (status, bytes), "{story}");
            assert_eq!(read.user_agent.as_deref(), agent, "{story}");
            assert_eq!(read.at_ms, 1_431_857_103_000, "{story}");
        }
    }

    #[test]
    fn a_zone_is_taken_off_the_time() {
        for (zone, ms) in [("+0200", 1_431_849_903_000), ("-0530", 1_431_876_903_000)] {
            let line =
                format!(r#"h - - [17/May/2015:10:05:03 {zone}] "GET / HTTP/1.1" 200 1 "-" "a""#);
            assert_eq!(parsed(&line).at_ms, ms, "{zone}");
        }
    }

    #[test]
    fn a_broken_line_says_what_is_wrong() {
        let cases = [
            ("", "cut short: client"),
            ("h", "cut short: identity"),
            ("h - -", "cut short: time"),
            ("h - - [17/May/2015:10:05:03 +0000", "closing bracket"),
            (r#"h - - [32/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "a""#, "time is `32"),
            (r#"h - - [17/Mai/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "a""#, "time is"),
            (r#"h - - [] "GET / HTTP/1.1" 200 1 "-" "a""#, "time is ``"),
            (r#"h - - [17/May/2015:10:05:03 +0000] "GET /"#, "no closing quote"),
            (r#"h - - [17/May/2015:10:05:03 +0000] "GET /\"#, "no closing quote"),
            (r"h - - [17/May/2015:10:05:03 +0000] GET / HTTP/1.1", "cut short: request"),
            (r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 20x 1 "-" "a""#, "status is"),
            (r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 20 1 "-" "a""#, "status is"),
            (r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 -5 "-" "a""#, "bytes is"),
            (r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1"#, "cut short: referrer"),
            (
                r#"h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "Mozilla"#,
                "no closing quote",
            ),
        ];
        for (line, said) in cases {
            let why = parse(line.as_bytes()).expect_err(line).to_string();
            assert!(why.contains(said), "{line}: {why}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            client in "[a-z0-9:.]{1,40}",
            at_seconds in 0_i64..4_000_000_000,
            path in r"/[ -~&&[^?#]]{0,40}",
            query in r"(\?[!-~]{0,20})?",
            status in 100_u16..1000,
            bytes in any::<u64>(),
            agent in r"[ -~äß€\t]{2,60}",
        ) {
            // A space before the protocol would make the path ambiguous, as it is in real logs.
            prop_assume!(!path.contains(" HTTP/") && !path.contains("://"));
            let line = LogLine {
                client,
                at_ms: at_seconds * 1_000,
                method: Some("GET".to_owned()),
                path: Some(path),
                status,
                bytes,
                request_bytes: 0,
                duration_ms: None,
                user_agent: Some(agent),
            };
            let mut text = String::new();
            write(&line, &query, &mut text);
            prop_assert_eq!(parse(text.as_bytes()), Ok(line), "{}", text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
