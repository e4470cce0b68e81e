//! JSON text piece by piece, for the answers that are written most.
//!
//! Role: appends values to a buffer; `field!` puts a name before one, as a literal that the compiler
//! joins with its punctuation. Names must need no escaping; values of others' making go through
//! [`push_string`]. Callers: `decision` and what shows a decision.

use uuid::Uuid;
use weir_core::units::Micros;

use crate::clock::rfc3339_text;

/// `"name":value` behind `{` or `,`.
macro_rules! field {
    ($json:ident, $before:literal, $name:literal, $push:path, $value:expr $(, $inner:path)?) => {{
        $json.extend_from_slice(concat!($before, "\"", $name, "\":").as_bytes());
        $push(&mut *$json, $value $(, $inner)?);
    }};
}
pub(super) use field;

pub(super) fn push_bool(json: &mut Vec<u8>, value: bool) {
    json.extend_from_slice(if value { b"true" } else { b"false" });
}

/// A whole number in decimal.
pub(super) fn push_units(json: &mut Vec<u8>, mut value: u64) {
    // 2^64 has twenty digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        if value == 0 {
            break;
        }
    }
    json.extend_from_slice(&digits[at..]);
}

/// Text that needs no escaping: our own words.
pub(super) fn push_plain(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

/// Any text.
pub(super) fn push_string(json: &mut Vec<u8>, text: &str) {
    // A string into memory cannot fail.
    let written = serde_json::to_writer(json, text);
    debug_assert!(written.is_ok());
}

pub(super) fn push_uuid(json: &mut Vec<u8>, id: Uuid) {
    let mut buffer = Uuid::encode_buffer();
    push_plain(json, id.hyphenated().encode_lower(&mut buffer));
}

/// RFC 3339.
pub(super) fn push_moment(json: &mut Vec<u8>, at: Micros) {
    json.push(b'"');
    json.extend_from_slice(&rfc3339_text(at));
    json.push(b'"');
}

/// `null` for nothing.
pub(super) fn push_optional<T>(
    json: &mut Vec<u8>,
    value: Option<T>,
    push: impl FnOnce(&mut Vec<u8>, T),
) {
    match value {
        Some(value) => push(json, value),
        None => json.extend_from_slice(b"null"),
    }
}

/// All of them in brackets.
pub(super) fn push_list<T>(
    json: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut push: impl FnMut(&mut Vec<u8>, T),
) {
    json.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push(json, item);
    }
    json.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut json = Vec::new();
        push(&mut json);
        String::from_utf8(json).expect("text")
    }

    #[test]
    fn numbers_and_text_are_written_as_the_library_writes_them() {
        for value in [0, 7, 10, 99, 100, 9_007_199_254_740_991, u64::MAX] {
            assert_eq!(written(|json| push_units(json, value)), value.to_string());
        }
        for text in ["", "plain", "a \"quote\" and a \\", "line\nend", "Größe"] {
            let expected = serde_json::to_string(text).expect("text");
            assert_eq!(written(|json| push_string(json, text)), expected);
        }
    }

    #[test]
    fn lists_and_objects_have_their_punctuation() {
        let list = |items: &'static [u64]| {
            written(|json| push_list(json, items.iter().copied(), push_units))
        };
        assert_eq!([list(&[]), list(&[1]), list(&[1, 2, 3])], ["[]", "[1]", "[1,2,3]"]);
        let object = written(|json| {
            field!(json, "{", "a", push_bool, true);
            field!(json, ",", "b", push_optional, None::<u64>, push_units);
            field!(json, ",", "c", push_optional, Some("text"), push_plain);
            json.push(b'}');
        });
        assert_eq!(object, r#"{"a":true,"b":null,"c":"text"}"#);
    }
}
