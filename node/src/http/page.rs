//! Lists: `?limit=…&cursor=…` → `{"data":[…],"nextCursor":…|null}`.
//!
//! Role: the one form of every list. A cursor says after which row the next page begins; it carries
//! the name of its list and a check sum, so that a mistyped one, or one of another list, is a 400
//! and never a page from somewhere else. To callers it is opaque.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use weir_config::limits;
use weir_store::Page;
use xxhash_rust::xxh3::xxh3_64;

use super::problem::Problem;

/// Bytes of a cursor's check sum: against mistakes, not against malice, because a forged cursor
/// shows nothing that the list would not.
const SUM_BYTES: usize = 4;
const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Characters of a cursor at most; ours are shorter.
const CURSOR_CHARS_MAX: usize = 256;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Give it back as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// Rows on a page.
pub fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let asked = asked.map_or(limits::PAGE_LIMIT_DEFAULT, |limit| limit as usize);
    let fits = (1..=limits::PAGE_LIMIT_MAX).contains(&asked);
    fits.then(|| u32::try_from(asked).ok()).flatten().ok_or_else(|| {
        let detail = format!("`limit` must be from 1 to {}", limits::PAGE_LIMIT_MAX);
        Problem::bad_request("invalid_parameter", detail)
    })
}

/// The cursor of a position in the list of this name.
pub fn cursor(list: &str, position: &[u8]) -> String {
    let sum = check_sum(list, position);
    let mut text = String::with_capacity(2 * (position.len() + SUM_BYTES));
    for byte in position.iter().chain(&sum) {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    text
}

/// The position that a cursor of the list of this name stands for.
pub fn position<const BYTES: usize>(list: &str, cursor: &str) -> Result<[u8; BYTES], Problem> {
    read(list, cursor).ok_or_else(|| {
        let detail = "`cursor` must be the `nextCursor` of a page of this list";
        Problem::bad_request("invalid_cursor", detail)
    })
}

/// The position of a list that is in order of ids.
pub fn after_id(list: &str, cursor: Option<&str>) -> Result<Option<Uuid>, Problem> {
    cursor.map(|cursor| position(list, cursor).map(Uuid::from_bytes)).transpose()
}

/// A page of a list that is in order of ids.
pub fn by_id<R, T>(
    list: &str,
    page: Page<R>,
    id: impl Fn(&R) -> Uuid,
    show: impl FnMut(R) -> T,
) -> List<T> {
    let Page { data: rows, more } = page;
    let end = rows.last().filter(|_| more);
    let next_cursor = end.map(|row| cursor(list, id(row).as_bytes()));
    List { data: rows.into_iter().map(show).collect(), next_cursor }
}

fn read<const BYTES: usize>(list: &str, cursor: &str) -> Option<[u8; BYTES]> {
    if !cursor.is_ascii() || cursor.len() > CURSOR_CHARS_MAX || !cursor.len().is_multiple_of(2) {
        return None;
    }
    let pairs = cursor.as_bytes().chunks_exact(2);
    let bytes: Vec<u8> =
        pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect::<Option<_>>()?;
    let (position, sum) = bytes.split_at(bytes.len().checked_sub(SUM_BYTES)?);
    if sum != check_sum(list, position) {
        return None;
    }
    position.try_into().ok()
}

/// Lower case only, so that a position has one cursor.
const fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

fn check_sum(list: &str, position: &[u8]) -> [u8; SUM_BYTES] {
    let mut text = Vec::with_capacity(list.len() + 1 + position.len());
    text.extend_from_slice(list.as_bytes());
    text.push(0);
    text.extend_from_slice(position);
    let [a, b, c, d, ..] = xxh3_64(&text).to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_position() {
        for position in [[0_u8; 16], [255; 16], *b"0123456789abcdef"] {
            let text = cursor("plans", &position);
            assert_eq!(super::position::<16>("plans", &text).unwrap(), position, "{text}");
        }
    }

    #[test]
    fn any_other_text_is_a_bad_request() {
        let good = cursor("plans", &[7; 16]);
        let mistyped = good.replacen('7', "8", 1);
        let bad = [
            "",
            "x",
            "zz",
            "0",
            "00000000",
            "Ünicode",
            &good[2..],
            &good[..good.len() - 2],
            &good.to_uppercase().replacen('0', "A", 1),
            &mistyped,
            &format!("{good}00"),
            &"0".repeat(10_000),
            &cursor("tokens", &[7; 16]),
            &cursor("plans", &[7; 8]),
        ];
        for text in bad {
            let problem = position::<16>("plans", text).expect_err(text);
            assert_eq!(problem.code(), "invalid_cursor", "{text}");
        }
    }

    #[test]
    fn a_limit_is_held_to_its_range() {
        let stories = [
            (None, Some(100)),
            (Some(1), Some(1)),
            (Some(1_000), Some(1_000)),
            (Some(0), None),
            (Some(1_001), None),
            (Some(u32::MAX), None),
        ];
        for (asked, expected) in stories {
            assert_eq!(limit(asked).ok(), expected, "{asked:?}");
        }
    }

    #[test]
    fn only_a_page_with_more_behind_it_has_a_cursor() {
        let ids: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        for (data, more, expected) in [
            (ids.clone(), true, Some(ids[2])),
            (ids.clone(), false, None),
            (Vec::new(), false, None),
        ] {
            let list = by_id("ids", Page { data, more }, |&id| id, |id| id);
            let next = after_id("ids", list.next_cursor.as_deref()).unwrap();
            assert_eq!(next, expected, "{more}");
        }
    }
}
