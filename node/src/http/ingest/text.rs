//! What texts in an event may say: moments, addresses, paths, countries.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use weir_core::units::Micros;

/// Fraction digits that the time library reads; it refuses more, RFC 3339 sets no end.
const FRACTION_DIGITS_MAX: usize = 9;

/// A moment in RFC 3339 (§5.6): date, `T`, time with seconds, any fraction, `Z` or an offset. The
/// time library reads much more (week dates, hours alone, zone names), hence the look at the shape.
pub(super) fn timestamp(text: &str) -> Option<Micros> {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let (head, tail) = text.as_bytes().split_at_checked(SHAPE.len())?;
    let fits = |(&byte, &shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        _ => byte == shape,
    };
    let digits = match tail.strip_prefix(b".") {
        Some(fraction) => fraction.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        None => 0,
    };
    let zone = if digits > 0 { &tail[1 + digits..] } else { tail };
    let is_zone = match zone {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    if !is_zone || !head.iter().zip(SHAPE).all(fits) {
        return None;
    }
    let moment: Timestamp = if digits <= FRACTION_DIGITS_MAX {
        text.parse().ok()?
    } else {
        let fraction_end = SHAPE.len() + 1 + FRACTION_DIGITS_MAX;
        let zone = &text[text.len() - zone.len()..];
        format!("{}{zone}", &text[..fraction_end]).parse().ok()?
    };
    let micros = moment.as_nanosecond().div_euclid(1_000);
    i64::try_from(micros).ok().map(Micros::from_micros)
}

/// An address, also with a port (`203.0.113.9:443`, `[2001:db8::1]:443`) or a zone (`fe80::1%eth0`).
pub(super) fn ip_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(with_port) = text.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.split('%').next().and_then(|address| address.parse().ok())
}

/// Two letters, in capitals.
pub(super) fn country(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let is_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_code.then(|| capitals(text))
}

/// ASCII letters in capitals.
pub(super) fn capitals(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Cow::Owned(text.to_ascii_uppercase())
    } else {
        text
    }
}

/// The path alone: a query or a fragment holds personal data and makes every path another one.
pub(super) fn without_query(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.find(['?', '#']) {
        Some(end) => cut_at(text, end),
        None => text,
    }
}

/// At most `bytes_max` bytes, whole characters; NUL, which no store takes, replaced.
pub(super) fn descriptive(text: Cow<'_, str>, bytes_max: usize) -> Cow<'_, str> {
    let end = text.floor_char_boundary(bytes_max);
    let cut = cut_at(text, end);
    if cut.contains('\0') {
        let replaced = cut.replace('\0', "\u{FFFD}");
        let end = replaced.floor_char_boundary(bytes_max);
        cut_at(Cow::Owned(replaced), end)
    } else {
        cut
    }
}

fn cut_at(text: Cow<'_, str>, end: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}
