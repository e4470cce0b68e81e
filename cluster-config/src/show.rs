//! A resolved configuration as a person may see it.
//!
//! Role: the output of `weir config check`. It is a config file again (reading it back gives the
//! same settings, secrets aside), with the origin of each value behind it.

use std::fmt::Write as _;

use crate::config::Config;
use crate::reader::{Shown, ShownText};

impl Config {
    /// The settings in force as TOML, each with its origin; secrets only as comments that say
    /// whether they are set.
    pub fn redacted_toml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for shown in &self.shown {
            let (of, name) = shown.key.split_once('.').unwrap_or(("", shown.key));
            if of != section {
                section = of;
                push(&mut text, format_args!("\n[{section}]"));
            }
            push_setting(&mut text, name, shown);
        }
        text
    }
}

fn push_setting(text: &mut String, name: &str, shown: &Shown) {
    let origin = &shown.origin;
    match &shown.text {
        ShownText::Scalar(value) => {
            push(text, format_args!("{name} = {}  # {origin}", quoted(value)));
        }
        ShownText::Unset => push(text, format_args!("# {name} is not set")),
        ShownText::Hidden(stand_in) => {
            push(text, format_args!("# {name} is set: {stand_in}  # {origin}"));
        }
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

/// A TOML basic string; a plain number stays one.
fn quoted(value: &str) -> String {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (value == "0" || !value.starts_with('0')) {
        return value.to_owned();
    }
    let mut text = String::from('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
