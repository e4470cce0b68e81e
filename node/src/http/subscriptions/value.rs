//! Checks of single fields: each adds a fault with its pointer, or gives the value.

use http::Uri;
use serde_json::{Map, Value};
use weir_config::limits;
use weir_core::calendar::Zone;
use weir_core::plan::{Fault, Plan};
use weir_core::units::Micros;

use crate::catalog::plan_document::LimitsDocument;
use crate::http::moment::parse_moment;

/// Shortest key that a customer may bring along: with fewer characters keys can be guessed.
const OWN_KEY_BYTES_MIN: usize = 16;
const MICROS_PER_MILLI: i64 = 1_000;

/// A name that a person gave: a tenant, an API, an external id.
pub fn name(faults: &mut Vec<Fault>, pointer: &str, text: &str) {
    let max = limits::NAME_CHARS_MAX;
    if text.is_empty() || text.chars().count() > max {
        faults.push(Fault::new(pointer, "invalid_length", format!("1 to {max} characters")));
    } else if text.chars().any(char::is_control) {
        faults.push(Fault::new(pointer, "invalid_character", "no control characters"));
    }
}

/// A moment, in whole milliseconds because that is how it is shown.
pub fn moment(faults: &mut Vec<Fault>, pointer: &str, text: &str) -> Option<Micros> {
    let moment = parse_moment(text).map(to_millis);
    if moment.is_none() {
        let detail = "RFC 3339, such as 2026-11-24T10:00:00Z";
        faults.push(Fault::new(pointer, "invalid_timestamp", detail));
    }
    moment
}

/// The last whole millisecond not after `at`.
pub fn to_millis(at: Micros) -> Micros {
    Micros::from_micros(at.get() - at.get().rem_euclid(MICROS_PER_MILLI))
}

/// The name of a time zone, as the database spells it.
pub fn time_zone(faults: &mut Vec<Fault>, name: &str) -> Option<String> {
    match Zone::parse(name) {
        Ok(zone) => Some(zone.name().to_owned()),
        Err(error) => {
            faults.push(Fault::new("/timeZone", "unknown_time_zone", error.to_string()));
            None
        }
    }
}

/// The shape of an address; whether anyone reads it only mail can tell.
pub fn email(faults: &mut Vec<Fault>, text: &str) {
    let shaped = text.rsplit_once('@').is_some_and(|(local, domain)| {
        let plain = |c: char| !c.is_whitespace() && !c.is_control();
        let labels = domain.split('.').all(|label| {
            let inner = label.chars().all(|c| c.is_alphanumeric() || c == '-');
            !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
        });
        !local.is_empty() && !local.contains('@') && local.chars().all(plain) && labels
    });
    if !shaped || text.len() > limits::EMAIL_BYTES_MAX {
        faults.push(Fault::new(
            "/userEmail",
            "invalid_email",
            "an address such as ada@example.com",
        ));
    }
}

/// An absolute `http` or `https` address without credentials, which every answer would show.
pub fn webhook_url(faults: &mut Vec<Fault>, text: &str) {
    let uri: Option<Uri> = text.parse().ok();
    let shaped = uri.is_some_and(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().is_some_and(|authority| {
            !authority.host().is_empty() && !authority.as_str().contains('@')
        });
        scheme && authority
    });
    if !shaped || text.len() > limits::URL_BYTES_MAX {
        let detail = "an http or https URL without user name and password";
        faults.push(Fault::new("/webhookUrl", "invalid_url", detail));
    }
}

/// A key that the customer brings along.
pub fn own_key(faults: &mut Vec<Fault>, key: &str) {
    let (min, max) = (OWN_KEY_BYTES_MIN, limits::KEY_BYTES_MAX);
    if !(min..=max).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = format!("{min} to {max} visible ASCII characters");
        faults.push(Fault::new("/key", "invalid_key", detail));
    }
}

/// The customer's own notes, as they are stored.
pub fn metadata(faults: &mut Vec<Fault>, object: Map<String, Value>) -> String {
    let json = Value::Object(object).to_string();
    if json.len() > limits::METADATA_BYTES_MAX {
        let detail = format!("at most {} bytes of JSON", limits::METADATA_BYTES_MAX);
        faults.push(Fault::new("/metadata", "too_large", detail));
    }
    json
}

/// Limits that differ from the plan's, as they are stored.
pub fn limits_override(faults: &mut Vec<Fault>, document: LimitsDocument) -> String {
    match document.into_overrides("/limits") {
        // Names and numbers: this cannot fail.
        Ok(overrides) => {
            serde_json::to_string(&LimitsDocument::render(&overrides)).unwrap_or_default()
        }
        Err(found) => {
            faults.extend(found);
            String::new()
        }
    }
}

/// One fault for each stored limit whose quota none of these plans has. A subscription that moves at
/// its period's end has two: the one it leaves and the one it comes to.
pub fn unknown_quotas(limits: &str, plans: &[&Plan]) -> Vec<Fault> {
    let limits: Map<String, Value> = serde_json::from_str(limits).unwrap_or_default();
    let known =
        |name: &str| plans.iter().any(|plan| plan.quotas.iter().any(|quota| *quota.name == *name));
    let unknown = limits.keys().filter(|name| !known(name));
    unknown
        .map(|name| {
            let detail = "no quota of the plan has this name";
            Fault::new(format!("/limits/{name}"), "unknown_quota", detail)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::plan_document;

    fn check(what: &str, run: impl Fn(&mut Vec<Fault>, &str), good: &[&str], bad: &[&str]) {
        for (texts, fits) in [(good, true), (bad, false)] {
            for text in texts {
                let mut faults = Vec::new();
                run(&mut faults, text);
                assert_eq!(faults.is_empty(), fits, "{what} {text:?}: {faults:?}");
            }
        }
    }

    #[test]
    fn fields_are_judged_by_their_shape() {
        let long = "x".repeat(129);
        let name = |faults: &mut Vec<Fault>, text: &str| name(faults, "/tenant", text);
        check("name", name, &["a", "Grüße GmbH", &"ü".repeat(128)], &["", &long, "a\nb", "\u{7f}"]);
        let long = format!("{}@example.com", "x".repeat(250));
        let good = ["a@b", "ada@example.com", "a.b+c@mail.example.org", "ü@münchen.de"];
        let bad = [
            "",
            "@",
            "a@",
            "@b",
            "a b@c.d",
            "a@b@c.d",
            "a@b..c",
            "a@.b",
            "a@b.",
            "a@-b.c",
            "a@b c",
            "ada",
            "a@[127.0.0.1]",
            &long,
        ];
        check("email", email, &good, &bad);
        let long = format!("https://example.com/{}", "x".repeat(2_048));
        let good = ["http://example.com", "https://example.com:8443/hook?a=b", "https://[::1]/x"];
        let bad = [
            "",
            "example.com",
            "/hook",
            "ftp://example.com/",
            "https://",
            "https:///x",
            "https://user:pass@example.com/",
            "https://exa mple.com/",
            &long,
        ];
        check("url", webhook_url, &good, &bad);
        let long = "k".repeat(513);
        let good = ["0123456789abcdef", &"k".repeat(512), "sk_live_~!@#$%^&*"];
        check(
            "key",
            own_key,
            &good,
            &["", "0123456789abcde", "0123456789abcde ", "schlüssel-schlüssel", &long],
        );
        let zone = |faults: &mut Vec<Fault>, text: &str| {
            time_zone(faults, text);
        };
        check(
            "zone",
            zone,
            &["UTC", "Europe/Berlin", "europe/berlin"],
            &["", "Mars/Olympus", "+02:00"],
        );
        let when = |faults: &mut Vec<Fault>, text: &str| {
            moment(faults, "/endsAt", text);
        };
        check(
            "moment",
            when,
            &["2026-11-24T10:00:00Z", "2026-11-24T10:00:00.5+02:00"],
            &["", "2026-11-24", "10:00", "1764000000", "2026-13-01T00:00:00Z"],
        );
    }

    #[test]
    fn a_zone_is_stored_as_the_database_spells_it() {
        assert_eq!(time_zone(&mut Vec::new(), "europe/BERLIN").as_deref(), Some("Europe/Berlin"));
    }

    #[test]
    fn moments_are_held_to_what_answers_show() {
        let mut faults = Vec::new();
        for (text, micros) in [
            ("1970-01-01T00:00:01.234567Z", 1_234_000),
            ("1969-12-31T23:59:59.999999Z", -1_000),
            ("1970-01-01T02:00:00+02:00", 0),
        ] {
            let at = moment(&mut faults, "/startedAt", text);
            assert_eq!(at, Some(Micros::from_micros(micros)), "{text}");
        }
        assert_eq!(faults, []);
    }

    #[test]
    fn a_limit_is_for_a_quota_that_a_plan_has() {
        let plan = |quota: &str| {
            let json = format!(r#"{{"name":"p","quotas":[{{"name":"{quota}","limit":1}}]}}"#);
            let id = weir_core::units::PlanId::from_uuid(uuid::Uuid::nil());
            plan_document::parse(json.as_bytes(), id, 1).expect("a plan")
        };
        let (a, b) = (plan("a"), plan("b"));
        let stories: [(&str, &[&Plan], &[&str]); 5] = [
            ("{}", &[&a], &[]),
            (r#"{"a":5}"#, &[&a], &[]),
            (r#"{"a":5,"b":null,"c":1}"#, &[&a], &["/limits/b", "/limits/c"]),
            (r#"{"a":5,"b":null}"#, &[&a, &b], &[]),
            (r#"{"A":5}"#, &[&a, &b], &["/limits/A"]),
        ];
        for (limits, plans, expected) in stories {
            let faults = unknown_quotas(limits, plans);
            let found: Vec<_> = faults.iter().map(|fault| &*fault.pointer).collect();
            assert_eq!(found, expected, "{limits}");
            assert!(faults.iter().all(|fault| fault.code == "unknown_quota"));
        }
    }

    #[test]
    fn metadata_has_a_size() {
        let object = |bytes: usize| {
            let mut map = Map::new();
            // {"k":"…"} has 8 bytes round the text.
            map.insert("k".to_owned(), "x".repeat(bytes - 8).into());
            map
        };
        let mut faults = Vec::new();
        assert_eq!(metadata(&mut faults, object(4_096)).len(), 4_096);
        assert_eq!(faults, []);
        metadata(&mut faults, object(4_097));
        assert_eq!(faults[0].code, "too_large");
    }
}
