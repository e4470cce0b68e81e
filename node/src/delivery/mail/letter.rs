//! What a notice says: a subject, a body as text and the same as HTML. Pure.
//!
//! Role: from a message's type and data to words. Data are shown by a list of known fields, so that
//! nothing that was not meant for a customer's eyes gets into a letter; what is not there is left
//! out. Everything that comes from data is escaped.

use std::fmt::Write as _;

use serde_json::Value;

/// A letter without an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::delivery) struct Letter {
    pub(in crate::delivery) subject: String,
    pub(in crate::delivery) text: String,
    pub(in crate::delivery) html: String,
}

/// Fields that are shown, in this order, under these names: pointers into the data.
const FIELDS: [(&str, &str); 17] = [
    ("/quota", "Quota"),
    ("/usagePercentage", "Used, percent"),
    ("/used", "Used, units"),
    ("/limit", "Limit, units"),
    ("/remaining", "Remaining, units"),
    ("/overageUnits", "Beyond the limit, units"),
    ("/baseFee", "Base fee"),
    ("/amount", "Amount"),
    ("/total", "Total"),
    ("/currency", "Currency"),
    ("/description", "Description"),
    ("/periodStart", "Period from"),
    ("/period/start", "Period from"),
    ("/period/end", "Period to"),
    ("/resetAt", "Resets at"),
    ("/apiId", "API"),
    ("/subscriptionId", "Subscription"),
];

impl Letter {
    /// What a message of this type says.
    pub(in crate::delivery) fn of(kind: &str, data: &Value) -> Self {
        let (subject, opening) = opening(kind, data);
        let rows: Vec<(&str, String)> = FIELDS
            .iter()
            .filter_map(|(field, label)| Some((*label, shown(data.pointer(field)?)?)))
            .collect();
        let text = as_text(&opening, &rows);
        let html = as_html(&subject, &opening, &rows);
        Self { subject, text, html }
    }
}

fn opening(kind: &str, data: &Value) -> (String, String) {
    let field =
        |pointer: &str| data.pointer(pointer).and_then(shown).unwrap_or_else(|| "–".to_owned());
    match kind {
        "quota_warning" => {
            let quota = field("/quota");
            let percent = field("/usagePercentage");
            let is_used_up = data["threshold"].as_u64().is_some_and(|threshold| threshold >= 100);
            let subject = if is_used_up {
                format!("Your quota “{quota}” is used up")
            } else {
                format!("{} % of your quota “{quota}” are used", field("/threshold"))
            };
            let opening = format!(
                "{} of {} units ({percent} %) of the quota “{quota}” are used. It resets at {}.",
                field("/used"),
                field("/limit"),
                field("/resetAt"),
            );
            (subject, opening)
        }
        "overage_charge" => {
            let amount = format!("{} {}", field("/amount"), field("/currency"));
            (
                format!("Charge for use beyond your quota: {amount}"),
                format!("Use beyond your quota was charged with {amount}."),
            )
        }
        "billing_period_closed" => (
            "Your billing period has ended".to_owned(),
            format!(
                "The billing period from {} to {} has ended. These are its figures.",
                field("/period/start"),
                field("/period/end"),
            ),
        ),
        _ => ("A notice about your subscription".to_owned(), "There is news.".to_owned()),
    }
}

/// A plain value; nothing for what is absent, empty or has parts.
fn shown(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!plain.trim().is_empty()).then_some(plain)
}

fn as_text(opening: &str, rows: &[(&str, String)]) -> String {
    let mut text = format!("{opening}\r\n\r\n");
    for (label, value) in rows {
        // Writing to a string cannot fail.
        let _ = write!(text, "{label}: {value}\r\n");
    }
    text
}

fn as_html(subject: &str, opening: &str, rows: &[(&str, String)]) -> String {
    let mut html = format!(
        "<!doctype html>\r\n<html lang=\"en\">\r\n<head><meta charset=\"utf-8\">\
         <title>{}</title></head>\r\n<body style=\"font-family:sans-serif;color:#222\">\r\n\
         <p>{}</p>\r\n<table style=\"border-collapse:collapse\">\r\n",
        escaped(subject),
        escaped(opening)
    );
    for (label, value) in rows {
        // Writing to a string cannot fail.
        let _ = write!(
            html,
            "<tr><th style=\"text-align:left;padding:2px 12px 2px 0\">{}</th><td>{}</td></tr>\r\n",
            escaped(label),
            escaped(value)
        );
    }
    html.push_str("</table>\r\n</body>\r\n</html>\r\n");
    html
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_type_says_what_it_is_about_in_both_forms() {
        let warning = json!({"quota": "requests", "threshold": 80, "usagePercentage": 81.5,
            "used": 815, "limit": 1000, "remaining": 185, "resetAt": "2026-12-01T00:00:00.000Z"});
        let used_up = json!({"quota": "requests", "threshold": 100, "used": 1000, "limit": 1000});
        let charge = json!({"amount": "1.50", "currency": "EUR", "description": "50 over"});
        let closed = json!({"used": 7, "total": "31.50", "period":
            {"start": "2026-11-01T00:00:00.000Z", "end": "2026-12-01T00:00:00.000Z"}});
        // Type, data, what the subject says, what both bodies say.
        let stories: [(&str, &Value, &str, &[&str]); 5] = [
            ("quota_warning", &warning, "80 % of your quota “requests”", &["815", "81.5", "185"]),
            ("quota_warning", &used_up, "is used up", &["1000"]),
            ("overage_charge", &charge, "1.50 EUR", &["1.50 EUR", "50 over"]),
            ("billing_period_closed", &closed, "has ended", &["2026-12-01T00:00:00.000Z", "31.50"]),
            ("another", &json!({"used": 3}), "notice", &["Used, units", "3"]),
        ];
        for (kind, data, subject, said) in stories {
            let letter = Letter::of(kind, data);
            assert!(letter.subject.contains(subject), "{letter:?}");
            for words in said {
                assert!(letter.text.contains(words), "{words}: {}", letter.text);
                assert!(letter.html.contains(words), "{words}: {}", letter.html);
            }
        }
    }

    #[test]
    fn data_can_neither_write_html_nor_break_a_line() {
        let data = json!({"quota": "<script>alert('a & \"b\"')</script>\r\nBcc: x@example.com",
            "threshold": 80, "description": ["hidden"], "secret": "hidden"});
        let letter = Letter::of("quota_warning", &data);
        assert!(!letter.html.contains("<script"), "{}", letter.html);
        assert!(letter.html.contains("&lt;script&gt;alert(&#39;a &amp; &quot;b&quot;&#39;)"));
        assert!(!letter.subject.contains(['\r', '\n']), "{}", letter.subject);
        assert!(!letter.text.contains("\nBcc"), "{}", letter.text);
        assert!(!letter.text.contains("hidden") && !letter.html.contains("hidden"));
    }
}
