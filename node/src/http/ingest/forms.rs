//! The forms of a body: one event, an array, an envelope, lines; and how they are told apart.

use std::fmt;
use std::str;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::draft::Draft;
use super::object::{Kind, read_object};
use super::{Batch, BodyError, INVALID_EVENT, Limits, Rejected};

/// Bytes of a short event; the first guess at how many there are.
const EVENT_BYTES_TYPICAL: usize = 256;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
const EXPECTED: &str = "an event, an array of events, or {\"events\":[…]}";

/// Reads a body, already decompressed and no longer than the body limit.
pub fn parse_body<'a>(
    content_type: Option<&str>,
    body: &'a [u8],
    limits: Limits,
) -> Result<Batch<'a>, BodyError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let (kind, is_lines) = form_of(content_type);
    let mut reader = Reader::new(kind, limits);
    match body.trim_ascii_start().first() {
        None => return Err(BodyError::Empty),
        Some(_) if is_lines => reader.read_lines(body)?,
        Some(b'[') => reader.read_array(utf8(body)?)?,
        Some(b'{') => match utf8(body).and_then(|text| reader.read_object(text)) {
            Err(BodyError::Malformed { .. }) if looks_like_lines(body) => {
                reader = Reader::new(kind, limits);
                reader.read_lines(body)?;
            }
            read => read?,
        },
        Some(_) => return Err(no_list(utf8(body)?)),
    }
    Ok(reader.batch)
}

/// What the content type says: CloudEvents or not, lines or not. One that says neither is no
/// reason to refuse: `curl -d` calls everything a form.
fn form_of(content_type: Option<&str>) -> (Kind, bool) {
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    let is_any = |names: &[&str]| names.iter().any(|name| essence.eq_ignore_ascii_case(name));
    let is_cloud = is_any(&["application/cloudevents+json", "application/cloudevents-batch+json"]);
    let is_lines = is_any(&[
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
    ]);
    (if is_cloud { Kind::Cloud } else { Kind::Plain }, is_lines)
}

/// Whether what is no JSON as a whole is worth reading by line: several lines, one of which holds
/// an object from end to end. Printed over many lines, no object does.
fn looks_like_lines(body: &[u8]) -> bool {
    let mut lines = lines_of(body).map(|line| line.strip_suffix(b"\r").unwrap_or(line)).peekable();
    let first = lines.next();
    let is_object = |line: &[u8]| line.starts_with(b"{") && line.ends_with(b"}");
    lines.peek().is_some() && first.into_iter().chain(lines).any(is_object)
}

/// Lines with something on them.
fn lines_of(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
}

fn utf8(body: &[u8]) -> Result<&str, BodyError> {
    str::from_utf8(body).map_err(|error| {
        let before = &body[..error.valid_up_to()];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        BodyError::Malformed {
            line: 1 + before.split(|&byte| byte == b'\n').count().saturating_sub(1),
            column: before.len() - line_start + 1,
            detail: "not UTF-8".to_owned(),
        }
    })
}

/// Why a body that begins with neither `[` nor `{` holds no events.
fn no_list(text: &str) -> BodyError {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => BodyError::WrongShape { pointer: String::new(), detail: EXPECTED },
        Err(error) => malformed(&error),
    }
}

fn malformed(error: &serde_json::Error) -> BodyError {
    BodyError::Malformed {
        line: error.line(),
        column: error.column(),
        detail: without_place(error),
    }
}

fn without_place(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(position) = text.rfind(" at line ") {
        text.truncate(position);
    }
    text
}

/// Collects the events of a body.
struct Reader<'a> {
    kind: Kind,
    events_max: usize,
    batch: Batch<'a>,
    /// Why reading was broken off, when it was not the text's fault.
    stopped: Option<BodyError>,
}

impl<'a> Reader<'a> {
    fn new(kind: Kind, limits: Limits) -> Self {
        let batch = Batch::default();
        Self { kind, events_max: limits.events_max, batch, stopped: None }
    }

    fn read_array(&mut self, text: &'a str) -> Result<(), BodyError> {
        self.reserve(text.len());
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = Elements(self).deserialize(&mut deserializer);
        self.outcome(read.and_then(|()| deserializer.end()))
    }

    /// An envelope, or the only event.
    fn read_object(&mut self, text: &'a str) -> Result<(), BodyError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        if self.kind == Kind::Plain && begins_envelope(text) {
            self.reserve(text.len());
            let read = deserializer.deserialize_map(Envelope(self));
            return self.outcome(read.and_then(|()| deserializer.end()));
        }
        let raw: Result<&'a RawValue, _> = serde::Deserialize::deserialize(&mut deserializer);
        let whole = raw.and_then(|raw| deserializer.end().map(|()| raw));
        let json = whole.map_err(|error| malformed(&error))?.get();
        if self.has_room() {
            let has_events = self.add(json);
            if has_events && self.kind == Kind::Plain {
                return Err(not_alone());
            }
        }
        self.outcome(Ok(()))
    }

    fn read_lines(&mut self, body: &'a [u8]) -> Result<(), BodyError> {
        self.reserve(body.len());
        for line in lines_of(body) {
            if !self.has_room() {
                break;
            }
            match str::from_utf8(line) {
                Ok(text) => {
                    self.add(text.trim_ascii());
                }
                Err(_) => self.reject(None, "not UTF-8".to_owned()),
            }
        }
        self.outcome(Ok(()))
    }

    fn reserve(&mut self, bytes: usize) {
        self.batch.items.reserve((bytes / EVENT_BYTES_TYPICAL + 1).min(self.events_max));
    }

    /// Whether one more event may come; if not, the body is refused.
    fn has_room(&mut self) -> bool {
        let has_room = self.batch.items.len() < self.events_max;
        if !has_room {
            self.stopped = Some(BodyError::TooManyEvents { events_max: self.events_max });
        }
        has_room
    }

    /// Reads one event; true when it has the field of an envelope.
    fn add(&mut self, json: &'a str) -> bool {
        let mut draft = Draft::default();
        let read = read_object(self.kind, json, &mut draft);
        self.batch.unknown_fields += u64::from(draft.unknown_fields);
        self.batch.dropped_fields += u64::from(draft.dropped_fields);
        let has_events = draft.has_events;
        match (read, draft.finish()) {
            (Ok(()), Ok(event)) => self.batch.items.push(Ok(event)),
            (Ok(()), Err((id, fault))) => {
                self.reject(id.map(String::from), fault.to_string());
            }
            (Err(error), finished) => {
                let id = finished.map_or_else(|(id, _)| id, |event| Some(event.id));
                let detail = format!("not readable: {}", without_place(&error));
                self.reject(id.map(String::from), detail);
            }
        }
        has_events
    }

    fn reject(&mut self, id: Option<String>, detail: String) {
        let index = self.batch.items.len();
        self.batch.items.push(Err(Rejected { index, id, code: INVALID_EVENT, detail }));
    }

    /// What stopped the reading comes before what the parser made of that.
    fn outcome(&mut self, read: Result<(), serde_json::Error>) -> Result<(), BodyError> {
        match (self.stopped.take(), read) {
            (Some(stopped), _) => Err(stopped),
            // Of the types in a body only that of `events` is ever asked for.
            (None, Err(error)) if error.is_data() => Err(BodyError::WrongShape {
                pointer: "/events".to_owned(),
                detail: "an array of events",
            }),
            (None, Err(error)) => Err(malformed(&error)),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Whether the first key is the envelope's, which has no other.
fn begins_envelope(text: &str) -> bool {
    let object = text.trim_ascii_start().strip_prefix('{');
    object.is_some_and(|rest| rest.trim_ascii_start().starts_with("\"events\""))
}

fn not_alone() -> BodyError {
    let detail = "an envelope has `events`, once, and nothing else";
    BodyError::WrongShape { pointer: "/events".to_owned(), detail }
}

/// An array, read element by element.
struct Elements<'r, 'a>(&'r mut Reader<'a>);

impl<'de> DeserializeSeed<'de> for Elements<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(reader) = self;
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            if !reader.has_room() {
                return Err(A::Error::custom("too many events"));
            }
            reader.add(element.get());
        }
        Ok(())
    }
}

struct Envelope<'r, 'a>(&'r mut Reader<'a>);

impl<'de> Visitor<'de> for Envelope<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope of events")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(reader) = self;
        let mut is_met = false;
        while let Some(key) = map.next_key::<String>()? {
            if key != "events" || std::mem::replace(&mut is_met, true) {
                reader.stopped = Some(not_alone());
                return Err(A::Error::custom("not an envelope"));
            }
            map.next_value_seed(Elements(reader))?;
        }
        Ok(())
    }
}
