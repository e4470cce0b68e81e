//! Objects of a body into drafts: a plain event, or a `CloudEvent` (1.0, JSON format) round one.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::draft::{Draft, Field};
use super::scalar::Scalar;

/// How the objects of a body are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Events as they are.
    Plain,
    /// CloudEvents that carry one each.
    Cloud,
}

/// Reads one object into `draft`. An error is of the text (which no grammar check has found), not
/// of the event: those are in the draft.
pub(super) fn read_object<'a>(
    kind: Kind,
    json: &'a str,
    draft: &mut Draft<'a>,
) -> Result<(), serde_json::Error> {
    if !json.starts_with('{') {
        draft.fail("", "an event is a JSON object");
        return Ok(());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    match kind {
        Kind::Plain => deserializer.deserialize_map(EventFields(draft))?,
        Kind::Cloud => deserializer.deserialize_map(Attributes(draft))?,
    }
    deserializer.end()
}

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

struct EventFields<'d, 'a>(&'d mut Draft<'a>);

impl<'de> Visitor<'de> for EventFields<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(draft) = self;
        while let Some(Key(key)) = map.next_key()? {
            match Field::named(&key) {
                Some(Field::Quantities) => {
                    draft.meet(Field::Quantities);
                    read_quantities(map.next_value::<&RawValue>()?.get(), draft)
                        .map_err(A::Error::custom)?;
                }
                Some(field) => draft.set(field, map.next_value()?),
                None => {
                    draft.unknown_fields += 1;
                    draft.has_events |= key == "events";
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn read_quantities<'a>(json: &'a str, draft: &mut Draft<'a>) -> Result<(), serde_json::Error> {
    if json == "{}" || json == "null" {
        return Ok(());
    }
    if !json.starts_with('{') {
        draft.replace(Field::Quantities, Scalar::Nested);
        return Ok(());
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Meters(draft))
}

struct Meters<'d, 'a>(&'d mut Draft<'a>);

impl<'de> Visitor<'de> for Meters<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of meters and units")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(meter)) = map.next_key()? {
            match map.next_value()? {
                Scalar::Null => {}
                value => self.0.add_quantity(meter, &value),
            }
        }
        Ok(())
    }
}

struct Attributes<'d, 'a>(&'d mut Draft<'a>);

/// The attributes that say what the event's own fields say.
#[derive(Default)]
struct Winning<'a> {
    id: Option<Scalar<'a>>,
    time: Option<Scalar<'a>>,
    subject: Option<Scalar<'a>>,
    specversion: Option<Scalar<'a>>,
    has_data: bool,
}

impl<'de> Visitor<'de> for Attributes<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(draft) = self;
        let mut winning = Winning::default();
        while let Some(Key(key)) = map.next_key()? {
            let (name, slot) = match &*key {
                "id" => ("id", &mut winning.id),
                "time" => ("time", &mut winning.time),
                "subject" => ("subject", &mut winning.subject),
                "specversion" => ("specversion", &mut winning.specversion),
                "data" => {
                    if std::mem::replace(&mut winning.has_data, true) {
                        draft.fail("data", "given twice");
                    }
                    read_data(map.next_value::<&RawValue>()?.get(), draft)
                        .map_err(A::Error::custom)?;
                    continue;
                }
                other => {
                    match other {
                        "source" | "type" | "datacontenttype" | "dataschema" => {}
                        "data_base64" => draft.fail("data_base64", "give the fields as `data`"),
                        _ => draft.unknown_fields += 1,
                    }
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if slot.replace(map.next_value()?).is_some() {
                draft.fail(name, "given twice");
            }
        }
        winning.apply(draft);
        Ok(())
    }
}

impl<'a> Winning<'a> {
    fn apply(self, draft: &mut Draft<'a>) {
        if !matches!(self.specversion, Some(Scalar::Text(version)) if version == "1.0") {
            draft.fail("specversion", "required, 1.0");
        }
        let attributes = [
            (Field::Id, self.id),
            (Field::Timestamp, self.time),
            (Field::SubscriptionKey, self.subject),
        ];
        for (field, value) in attributes {
            if let Some(value) = value {
                draft.replace(field, value);
            }
        }
    }
}

fn read_data<'a>(json: &'a str, draft: &mut Draft<'a>) -> Result<(), serde_json::Error> {
    if json == "null" {
        return Ok(());
    }
    if !json.starts_with('{') {
        draft.fail("data", "an object with the fields of the event");
        return Ok(());
    }
    read_object(Kind::Plain, json, draft)
}
