//! Caddy's JSON access log: one object a line, logger `http.log.access…`.
//!
//! Caddy lets its encoder choose how times and durations look (`time_format`, `duration_format`);
//! numbers and the usual strings are understood.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{LineError, LogLine, is_method, path_of};

#[derive(Deserialize)]
struct Entry {
    ts: Value,
    request: Request,
    status: u16,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    bytes_read: u64,
    #[serde(default)]
    duration: Value,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    client_ip: Option<String>,
    #[serde(default)]
    remote_ip: Option<String>,
    /// Before Caddy 2.5: address and port together.
    #[serde(default)]
    remote_addr: Option<String>,
    #[serde(default)]
    method: String,
    #[serde(default)]
    uri: String,
    #[serde(default)]
    headers: HashMap<String, Vec<String>>,
}

/// Reads one line.
pub fn parse(line: &[u8]) -> Result<LogLine, LineError> {
    if line.is_empty() {
        return Err(LineError::CutShort("an empty line"));
    }
    let entry: Entry =
        serde_json::from_slice(line).map_err(|why| LineError::NotCaddy(why.to_string()))?;
    if entry.status > 999 {
        return Err(LineError::field("status", &entry.status.to_string()));
    }
    let request = entry.request;
    let is_http = is_method(&request.method);
    let user_agent = request
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("user-agent"))
        .and_then(|(_, values)| values.first().cloned());
    Ok(LogLine {
        client: client(request.client_ip, request.remote_ip, request.remote_addr)?,
        at_ms: time(&entry.ts)?,
        path: is_http.then(|| path_of(&request.uri)),
        method: is_http.then_some(request.method),
        status: entry.status,
        bytes: entry.size,
        request_bytes: entry.bytes_read,
        duration_ms: duration_ms(&entry.duration),
        user_agent: user_agent.filter(|agent| !agent.is_empty()),
    })
}

/// `client_ip` knows trusted proxies and wins; the others are the connection's peer.
fn client(
    client_ip: Option<String>,
    remote_ip: Option<String>,
    remote_addr: Option<String>,
) -> Result<String, LineError> {
    let peer = || {
        let address = remote_addr?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _port)| host);
        Some(host.trim_matches(['[', ']']).to_owned())
    };
    let known = |name: &String| !name.is_empty();
    client_ip
        .filter(known)
        .or(remote_ip.filter(known))
        .or_else(peer)
        .filter(known)
        .ok_or(LineError::CutShort("no client address"))
}

/// Seconds with a fraction (the default), milliseconds, nanoseconds, or RFC 3339.
fn time(ts: &Value) -> Result<i64, LineError> {
    let bad = || LineError::field("ts", &ts.to_string());
    match ts {
        Value::Number(number) => {
            let value = number.as_f64().filter(|value| *value >= 0.0).ok_or_else(bad)?;
            // Seconds reach 1e11 in the year 5138; what is larger is in a smaller unit.
            let ms = match value {
                seconds if seconds < 1e11 => seconds * 1_000.0,
                millis if millis < 1e14 => millis,
                nanos => nanos / 1e6,
            };
            i64::try_from(crate::numbers::whole(ms.round())).map_err(|_| bad())
        }
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(time) => Ok(time.as_millisecond()),
            Err(_) => Err(bad()),
        },
        _ => Err(bad()),
    }
}

/// Seconds with a fraction (the default) or Go's `1.5ms`. Unknown forms are not worth the line.
fn duration_ms(duration: &Value) -> Option<f64> {
    let ms = match duration {
        Value::Number(seconds) => seconds.as_f64()? * 1_000.0,
        Value::String(text) => {
            let text = text.trim();
            let unit_at = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
            let number: f64 = text[..unit_at].parse().ok()?;
            number
                * match &text[unit_at..] {
                    "s" => 1_000.0,
                    "ms" => 1.0,
                    "µs" | "μs" | "us" => 0.001,
                    "ns" => 0.000_001,
                    _ => return None,
                }
        }
        _ => return None,
    };
    (ms.is_finite() && ms >= 0.0).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"level":"info","ts":1431857103.25,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"10.0.0.9","remote_port":"4711","client_ip":"203.0.113.7","proto":"HTTP/2.0","method":"POST","host":"api","uri":"/v1/items?x=1","headers":{"User-Agent":["curl/8.5"],"Accept":["*/*"]}},"bytes_read":12,"user_id":"","duration":0.0015,"size":345,"status":201,"resp_headers":{}}"#;

    fn parsed(line: &str) -> LogLine {
        parse(line.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why}"))
    }

    #[test]
    fn a_line_as_caddy_writes_it_is_read() {
        let line = parsed(LINE);
        assert_eq!(line.client, "203.0.113.7");
        assert_eq!(line.at_ms, 1_431_857_103_250);
        assert_eq!(
            (line.method.as_deref(), line.path.as_deref()),
            (Some("POST"), Some("/v1/items"))
        );
        assert_eq!((line.status, line.bytes, line.request_bytes), (201, 345, 12));
        assert_eq!(line.duration_ms, Some(1.5));
        assert_eq!(line.user_agent.as_deref(), Some("curl/8.5"));
    }

    #[test]
    fn older_and_configured_forms_are_read_too() {
        let peer = LINE.replace(
            r#""remote_ip":"10.0.0.9","remote_port":"4711","client_ip":"203.0.113.7""#,
            r#""remote_addr":"[2001:db8::1]:99""#,
        );
        assert_eq!(parsed(&peer).client, "2001:db8::1");
        for (ts, ms) in [
            ("1431857103250", 1_431_857_103_250),
            ("1431857103250000000", 1_431_857_103_250),
            (r#""2015-05-17T10:05:03.25Z""#, 1_431_857_103_250),
        ] {
            assert_eq!(parsed(&LINE.replace("1431857103.25", ts)).at_ms, ms, "{ts}");
        }
        for (duration, ms) in [
            (r#""1.5ms""#, Some(1.5)),
            (r#""250µs""#, Some(0.25)),
            (r#""2s""#, Some(2_000.0)),
            (r#""1m2s""#, None),
            ("null", None),
        ] {
            let line = LINE.replace("0.0015", duration);
            assert_eq!(parsed(&line).duration_ms, ms, "{duration}");
        }
    }

    #[test]
    fn a_line_that_is_no_entry_says_why() {
        for (line, said) in [
            (String::new(), "empty"),
            ("GET /".to_owned(), "not a Caddy"),
            (r#"{"level":"info","ts":1,"msg":"serving"}"#.to_owned(), "missing field `request`"),
            (LINE.replace("1431857103.25", r#""yesterday""#), "ts is"),
            (
                LINE.replace(
                    r#""remote_ip":"10.0.0.9","remote_port":"4711","client_ip":"203.0.113.7","#,
                    "",
                ),
                "no client",
            ),
        ] {
            let why = parse(line.as_bytes()).expect_err(&line).to_string();
            assert!(why.contains(said), "{line}: {why}");
        }
    }
}
