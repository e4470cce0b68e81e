//! Reads settings out of the merged layers, each exactly once, and keeps every fault.
//!
//! Role: the bridge from text to types. A setting is declared by reading it: its key, default
//! and range stand in one call in `config.rs`, and what was never read is unknown. A bad value
//! is noted and its default stands in, so that reading goes on and all faults show at once; the
//! configuration is not used when there was any.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::error::{Origin, Problem};
use crate::layers::{Entry, Layers, Raw, printable};
use crate::secret::{REDACTED, Secret};
use crate::value;

/// Reads a small text file: the seam that keeps tests free of a file system.
pub(crate) type ReadText<'a> = &'a dyn Fn(&Path) -> std::io::Result<String>;

/// A setting as it was resolved, for people to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) key: &'static str,
    pub(crate) text: ShownText,
    pub(crate) origin: Origin,
}

/// How a resolved setting is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShownText {
    Scalar(String),
    /// Nothing was given and there is no default.
    Unset,
    /// A secret was given; this is what may be said of it.
    Hidden(String),
}

pub(crate) struct Reader<'a> {
    entries: BTreeMap<String, Entry>,
    empty_tables: Vec<(String, Origin)>,
    read_text: ReadText<'a>,
    problems: Vec<Problem>,
    shown: Vec<Shown>,
    /// Keys of the files that secrets may stand in; known, though not shown on their own.
    file_keys: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(layers: Layers, read_text: ReadText<'a>) -> Self {
        let Layers { entries, empty_tables, problems } = layers;
        let (shown, file_keys) = (Vec::new(), Vec::new());
        Self { entries, empty_tables, read_text, problems, shown, file_keys }
    }

    /// A setting with a default. The default is text too, so that one parser reads both.
    pub(crate) fn setting<T>(
        &mut self,
        key: &'static str,
        default: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        if let Some((value, text, origin)) = self.given(key, expected, &parse) {
            self.show(key, ShownText::Scalar(text), origin);
            return value;
        }
        self.show(key, ShownText::Scalar(default.to_owned()), Origin::Default);
        parse(default).expect("every run reads every default, so a bad one cannot ship")
    }

    /// A setting that may be left out.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        if let Some((value, text, origin)) = self.given(key, expected, &parse) {
            self.show(key, ShownText::Scalar(text), origin);
            return Some(value);
        }
        self.show(key, ShownText::Unset, Origin::Default);
        None
    }

    /// A length of time within `range`.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let [least, most] = [range.start(), range.end()].map(|end| value::spell_duration(*end));
        let expected = format!("a duration from {least} to {most}, such as `5s` or `PT5S`");
        let parse = |text: &str| value::duration(text).filter(|value| range.contains(value));
        self.setting(key, &value::spell_duration(default), &expected, parse)
    }

    /// A whole number within `range`.
    pub(crate) fn count(
        &mut self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> usize {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |text: &str| {
            let number = value::whole_number(text)?;
            usize::try_from(number).ok().filter(|number| range.contains(number))
        };
        self.setting(key, &default.to_string(), &expected, parse)
    }

    /// A number of bytes within `range`.
    pub(crate) fn bytes(
        &mut self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> usize {
        let spell = |bytes: usize| value::spell_bytes(bytes as u64);
        let (least, most) = (spell(*range.start()), spell(*range.end()));
        let expected = format!("a size from {least} to {most}, such as `512KiB` or `8MiB`");
        let parse = |text: &str| {
            let number = value::byte_size(text)?;
            usize::try_from(number).ok().filter(|number| range.contains(number))
        };
        self.setting(key, &spell(default), &expected, parse)
    }

    /// A secret, given as text under `key` or as the name of a file under `key_file`.
    ///
    /// The higher layer wins; both in one layer is a mistake, since one of them is stale.
    /// `show` says what may be shown of it, given or not.
    pub(crate) fn secret<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
        show: impl Fn(Option<&T>) -> ShownText,
    ) -> Option<T> {
        let file_key = format!("{key}_file");
        let text = self.entries.remove(key);
        let file = self.entries.remove(&file_key);
        self.file_keys.push(file_key.clone());
        let found = match (text, file) {
            (Some(text), Some(file)) if rank(&text.origin) == rank(&file.origin) => {
                let (first, second) = (text.origin, file.origin);
                self.problems.push(Problem::SetTwice { key: key.to_owned(), first, second });
                None
            }
            (Some(text), Some(file)) if rank(&text.origin) < rank(&file.origin) => {
                self.secret_file(&file_key, file)
            }
            (Some(text), _) => Some((text.raw, text.origin)),
            (None, Some(file)) => self.secret_file(&file_key, file),
            (None, None) => None,
        };
        let Some((raw, origin)) = found else {
            self.show(key, show(None), Origin::Default);
            return None;
        };
        let value = if let Raw::Scalar(text) = &raw { parse(text) } else { None };
        self.show(key, show(value.as_ref()), origin.clone());
        if value.is_none() {
            let value = REDACTED.to_owned();
            let (key, expected) = (key.to_owned(), expected.to_owned());
            self.problems.push(Problem::BadValue { key, value, origin, expected });
        }
        value
    }

    fn secret_file(&mut self, file_key: &str, entry: Entry) -> Option<(Raw, Origin)> {
        let Entry { raw, origin } = entry;
        let path = match raw {
            Raw::Scalar(path) if !path.is_empty() && !path.contains('\0') => path,
            other => {
                self.refuse(file_key, &other, origin, "the name of a file");
                return None;
            }
        };
        match (self.read_text)(Path::new(&path)) {
            // Editors and `echo` end a file with a line break that is not part of the secret.
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                Some((Raw::Scalar(text.to_owned()), origin))
            }
            Err(error) => {
                let reason = format!("{}: {error}", printable(&path));
                let key = file_key.to_owned();
                self.problems.push(Problem::Unreadable { key, origin, reason });
                None
            }
        }
    }

    /// Where the value of a setting that was read came from.
    pub(crate) fn origin_of(&self, key: &str) -> Origin {
        let shown = self.shown.iter().find(|shown| shown.key == key);
        shown.map_or(Origin::Default, |shown| shown.origin.clone())
    }

    /// Notes that two settings do not go together, unless they do. The first is the one to
    /// change; the second is named with its origin, since either may be the culprit.
    pub(crate) fn require(
        &mut self,
        holds: bool,
        [key, with]: [&str; 2],
        conflict: impl FnOnce() -> String,
    ) {
        if !holds {
            let (origin, with_origin) = (self.origin_of(key), self.origin_of(with));
            let (key, with, conflict) = (key.to_owned(), with.to_owned(), conflict());
            self.problems.push(Problem::Conflict { key, origin, conflict, with, with_origin });
        }
    }

    /// Whether every value read so far was good; only then are comparisons worth making.
    pub(crate) fn is_faultless(&self) -> bool {
        self.problems.is_empty()
    }

    /// Ends the reading: what is left over has no reader and so is unknown.
    pub(crate) fn finish(mut self) -> (Vec<Problem>, Vec<Shown>) {
        let known: Vec<String> =
            self.shown.iter().map(|shown| shown.key.to_owned()).chain(self.file_keys).collect();
        let is_section = |name: &str| {
            known.iter().any(|key| key.split_once('.').is_some_and(|(section, _)| section == name))
        };
        let left = self.entries.into_iter().map(|(key, entry)| (key, entry.origin));
        let empty = self.empty_tables.into_iter().filter(|(name, _)| !is_section(name));
        for (key, origin) in left.chain(empty) {
            let nearest = nearest(&key, &known).map(|known| match origin {
                Origin::Environment { .. } => crate::layers::variable_of(known),
                _ => known.to_owned(),
            });
            self.problems.push(Problem::UnknownKey { key, origin, nearest });
        }
        (self.problems, self.shown)
    }

    /// The value under `key`, if one was given and it is good.
    fn given<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: &impl Fn(&str) -> Option<T>,
    ) -> Option<(T, String, Origin)> {
        let Entry { raw, origin } = self.entries.remove(key)?;
        if let Raw::Scalar(text) = &raw
            && let Some(value) = parse(text)
        {
            return Some((value, text.clone(), origin));
        }
        self.refuse(key, &raw, origin, expected);
        None
    }

    fn refuse(&mut self, key: &str, raw: &Raw, origin: Origin, expected: &str) {
        let value = match raw {
            Raw::Scalar(text) => format!("\"{}\"", printable(text)),
            Raw::Odd(what) => (*what).to_owned(),
        };
        let (key, expected) = (key.to_owned(), expected.to_owned());
        self.problems.push(Problem::BadValue { key, value, origin, expected });
    }

    fn show(&mut self, key: &'static str, text: ShownText, origin: Origin) {
        debug_assert!(self.shown.iter().all(|shown| shown.key != key), "{key} is read twice");
        self.shown.push(Shown { key, text, origin });
    }
}

/// A plain secret: any text but none, and nothing of it is shown.
pub(crate) fn plain_secret(reader: &mut Reader<'_>, key: &'static str) -> Option<Secret> {
    let parse = |text: &str| Secret::new(text).filter(|_| !text.contains(char::is_control));
    let expected = "text on one line, not empty";
    let hidden = |_: &Secret| ShownText::Hidden(REDACTED.to_owned());
    reader.secret(key, expected, parse, |secret| secret.map_or(ShownText::Unset, hidden))
}

/// Layers in the order in which they cover each other.
fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Default => 0,
        Origin::File { .. } => 1,
        Origin::Environment { .. } => 2,
        Origin::Flag { .. } => 3,
    }
}

/// The known key that differs from `key` by the fewest single letters, if it looks meant.
fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    const KEY_BYTES_MAX: usize = 64;
    if key.len() > KEY_BYTES_MAX {
        return None;
    }
    let close = |other: &&'k String| edits(key, other) <= 1 + key.len() / 4;
    known.iter().filter(close).min_by_key(|other| edits(key, other)).map(String::as_str)
}

/// Levenshtein distance over bytes, one row at a time.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
