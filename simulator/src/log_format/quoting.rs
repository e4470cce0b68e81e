//! Escapes inside the quotes of a combined log line.
//!
//! Apache writes `\"`, `\\`, `\n`, `\t` … and `\xHH`, nginx `\xHH` (`mod_log_config`,
//! `ngx_http_log_module`: `escape=default`).

use std::fmt::Write as _;

/// One or two bytes that an escape stands for.
pub(super) struct Unescaped {
    bytes: [u8; 2],
    len: usize,
}

impl Unescaped {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What follows a backslash and how many bytes of it are used; none at the end of the line. An
/// unknown escape stands for itself, backslash included.
pub(super) fn unescape(rest: &[u8]) -> Option<(Unescaped, usize)> {
    let one = |byte| Unescaped { bytes: [byte, 0], len: 1 };
    let plain = match rest.first()? {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 0x08,
        b'v' => 0x0b,
        byte @ (b'"' | b'\\') => *byte,
        b'x' => {
            let digits = rest.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
            let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            return Some(match code {
                Some(code) => (one(code), 3),
                None => (Unescaped { bytes: *b"\\x", len: 2 }, 1),
            });
        }
        byte => return Some((Unescaped { bytes: [b'\\', *byte], len: 2 }, 1)),
    };
    Some((one(plain), 1))
}

/// Writes text as Apache would.
pub(super) fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            letter if letter.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(letter));
            }
            letter if letter.is_ascii() => out.push(letter),
            letter => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
        }
    }
}
