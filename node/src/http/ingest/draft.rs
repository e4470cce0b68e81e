//! An event while it is being read: one field after the other, judged as it comes.
//!
//! Role: knows every rule of a single field and, at the end, those between fields. The first fault
//! is kept and reading goes on, so that a rejection still names the event's id.

use std::borrow::Cow;
use std::fmt;

use weir_config::limits::{
    EVENT_ID_CHARS_MAX, KEY_BYTES_MAX, METHOD_BYTES_MAX, PATH_BYTES_MAX, QUANTITIES_MAX,
    USER_AGENT_BYTES_MAX,
};
use weir_core::plan::REQUESTS;
use weir_core::units::{Micros, SubscriptionId, UNITS_MAX, Units};

use super::event::{Outcome, SubscriptionRef, UsageEvent};
use super::scalar::Scalar;
use super::text;
use crate::catalog::plan_document::is_plain_name;

/// The largest response time kept, in microseconds: what a double still counts one by one.
const RESPONSE_MICROS_MAX: f64 = 9_007_199_254_740_991.0;

const ID: &str = "a text of 1 to 128 characters without NUL";
const KEY: &str = "a text of 1 to 512 bytes without NUL";
const UUID: &str = "a UUID";
const TIMESTAMP: &str = "an RFC 3339 timestamp such as 2026-11-24T10:00:00.123Z";
const INTEGER: &str = "an integer from 0 to 9007199254740991";
const TEXT: &str = "a text";

/// Declares the fields with their two spellings.
macro_rules! fields {
    ($($field:ident $name:literal $(or $alias:literal)?),+ $(,)?) => {
        /// A field of an event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field { $($field),+ }

        impl Field {
            pub(super) fn named(key: &str) -> Option<Self> {
                match key {
                    $($name $(| $alias)? => Some(Self::$field),)+
                    _ => None,
                }
            }

            const fn name(self) -> &'static str {
                match self { $(Self::$field => $name),+ }
            }
        }
    };
}

fields! {
    Id "id",
    SubscriptionKey "subscription_key" or "subscriptionKey",
    SubscriptionId "subscription_id" or "subscriptionId",
    Timestamp "timestamp",
    ApiPath "api_path" or "apiPath",
    Method "method",
    StatusCode "status_code" or "statusCode",
    Success "success",
    ResponseTime "response_time_ms" or "responseTimeMs",
    RequestSize "request_size" or "requestSize",
    ResponseSize "response_size" or "responseSize",
    UserAgent "user_agent" or "userAgent",
    IpAddress "ip_address" or "ipAddress",
    Country "country",
    Units "units",
    Quantities "quantities",
    Outcome "outcome",
    ReservationId "reservation_id" or "reservationId",
}

/// A broken rule: of which field (empty when of none in particular), and what is expected.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) field: &'static str,
    pub(super) expected: Cow<'static, str>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return f.write_str(&self.expected);
        }
        write!(f, "{}: {}", self.field, self.expected)
    }
}

/// What has been read of an event.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    /// Blank where nothing was read yet; what is required waits below until the end.
    event: UsageEvent<'a>,
    id: Option<Cow<'a, str>>,
    key: Option<Cow<'a, str>>,
    subscription_id: Option<SubscriptionId>,
    timestamp: Option<Micros>,
    /// One bit a field.
    seen: u32,
    fault: Option<Fault>,
    pub(super) unknown_fields: u32,
    pub(super) dropped_fields: u32,
    /// Whether it has the one field of an envelope.
    pub(super) has_events: bool,
}

impl Default for Draft<'_> {
    fn default() -> Self {
        Self {
            event: UsageEvent {
                id: Cow::Borrowed(""),
                subscription: SubscriptionRef::Key(Cow::Borrowed("")),
                timestamp: Micros::EPOCH,
                api_path: None,
                method: None,
                status_code: None,
                success: None,
                response_time_micros: None,
                request_size: None,
                response_size: None,
                user_agent: None,
                ip_address: None,
                country: None,
                units: None,
                quantities: Vec::new(),
                outcome: Outcome::Served,
                reservation_id: None,
            },
            id: None,
            key: None,
            subscription_id: None,
            timestamp: None,
            seen: 0,
            fault: None,
            unknown_fields: 0,
            dropped_fields: 0,
            has_events: false,
        }
    }
}

impl<'a> Draft<'a> {
    /// Notes a fault; the first one stays.
    pub(super) fn fail(&mut self, field: &'static str, expected: impl Into<Cow<'static, str>>) {
        if self.fault.is_none() {
            self.fault = Some(Fault { field, expected: expected.into() });
        }
    }

    /// Notes that a field came; a second time is a fault.
    pub(super) fn meet(&mut self, field: Field) {
        let bit = 1 << field as u32;
        if self.seen & bit != 0 {
            self.fail(field.name(), "given twice");
        }
        self.seen |= bit;
    }

    /// A field of the event itself.
    pub(super) fn set(&mut self, field: Field, value: Scalar<'a>) {
        self.meet(field);
        self.replace(field, value);
    }

    /// The same, over whatever was there.
    pub(super) fn replace(&mut self, field: Field, value: Scalar<'a>) {
        if value == Scalar::Null {
            return;
        }
        if let Err(expected) = self.judge(field, value) {
            self.fail(field.name(), expected);
        }
    }

    /// A meter of `quantities`, not `null`.
    pub(super) fn add_quantity(&mut self, meter: Cow<'a, str>, value: &Scalar<'a>) {
        let field = Field::Quantities.name();
        let Ok(units) = units(value) else {
            return self.fail(field, format!("each {INTEGER}"));
        };
        let known = &mut self.event.quantities;
        if !is_plain_name(&meter) {
            self.fail(field, "meters of 1 to 64 letters, digits, '-', '_' or '.'");
        } else if known.iter().any(|(other, _)| *other == meter) {
            self.fail(field, "each meter once");
        } else if known.len() == QUANTITIES_MAX {
            self.fail(field, format!("at most {QUANTITIES_MAX} meters"));
        } else {
            known.push((meter, units));
        }
    }

    /// The event, or its fault and the id if there was one.
    pub(super) fn finish(mut self) -> Result<UsageEvent<'a>, (Option<Cow<'a, str>>, Fault)> {
        self.settle_requests();
        match (self.key.take(), self.subscription_id) {
            (Some(key), None) => self.event.subscription = SubscriptionRef::Key(key),
            (None, Some(id)) => self.event.subscription = SubscriptionRef::Id(id),
            (None, None) => self
                .fail(Field::SubscriptionKey.name(), "required, or subscription_id in its place"),
            (Some(_), Some(_)) => {
                self.fail(
                    Field::SubscriptionId.name(),
                    "either this or subscription_key, not both",
                );
            }
        }
        match self.timestamp {
            Some(timestamp) => self.event.timestamp = timestamp,
            None => self.fail(Field::Timestamp.name(), format!("required, {TIMESTAMP}")),
        }
        match (self.id, self.fault) {
            (Some(id), None) => Ok(UsageEvent { id, ..self.event }),
            (id, fault) => {
                let expected = || format!("required, {ID}").into();
                Err((
                    id,
                    fault
                        .unwrap_or_else(|| Fault { field: Field::Id.name(), expected: expected() }),
                ))
            }
        }
    }

    /// `quantities.requests` is another way to say `units`.
    fn settle_requests(&mut self) {
        let quantities = &mut self.event.quantities;
        let Some(position) = quantities.iter().position(|(meter, _)| meter == REQUESTS) else {
            return;
        };
        let (_, units) = quantities.remove(position);
        if self.event.units.replace(units).is_some() {
            self.fail(Field::Units.name(), "either this or quantities.requests, not both");
        }
    }

    /// Sets a field to what is not `null`; an error says what was expected.
    fn judge(&mut self, field: Field, value: Scalar<'a>) -> Result<(), &'static str> {
        let event = &mut self.event;
        match field {
            Field::Id => self.id = Some(identity(value, ID, EVENT_ID_CHARS_MAX, usize::MAX)?),
            Field::SubscriptionKey => {
                self.key = Some(identity(value, KEY, usize::MAX, KEY_BYTES_MAX)?);
            }
            Field::SubscriptionId => {
                let id = text(value, UUID)?.parse().map_err(|_| UUID)?;
                self.subscription_id = Some(id);
            }
            Field::Timestamp => {
                let moment = text::timestamp(&text(value, TIMESTAMP)?).ok_or(TIMESTAMP)?;
                self.timestamp = Some(moment);
            }
            Field::ApiPath => {
                let path = optional_text(value)?.map(text::without_query);
                event.api_path = path.map(|path| text::descriptive(path, PATH_BYTES_MAX));
            }
            Field::Method => {
                let method = optional_text(value)?.map(text::capitals);
                event.method = method.map(|method| text::descriptive(method, METHOD_BYTES_MAX));
            }
            Field::StatusCode => event.status_code = status_code(&value)?,
            Field::Success => match value {
                Scalar::Bool(success) => event.success = Some(success),
                _ => return Err("true or false"),
            },
            Field::ResponseTime => event.response_time_micros = Some(response_time(&value)?),
            Field::RequestSize => event.request_size = Some(units(&value)?.get()),
            Field::ResponseSize => event.response_size = Some(units(&value)?.get()),
            Field::UserAgent => {
                let agent = optional_text(value)?;
                event.user_agent = agent.map(|text| text::descriptive(text, USER_AGENT_BYTES_MAX));
            }
            Field::IpAddress => {
                let given = optional_text(value)?;
                event.ip_address = given.as_deref().and_then(text::ip_address);
                self.dropped_fields += u32::from(given.is_some() && event.ip_address.is_none());
            }
            Field::Country => {
                let given = optional_text(value)?;
                let is_given = given.is_some();
                event.country = given.and_then(text::country);
                self.dropped_fields += u32::from(is_given && event.country.is_none());
            }
            Field::Units => event.units = Some(units(&value)?),
            // An object comes by way of `add_quantity`: this is none.
            Field::Quantities => return Err("an object of meters and units"),
            Field::Outcome => {
                event.outcome = match &*text(value, "served, denied or aborted")? {
                    "served" => Outcome::Served,
                    "denied" => Outcome::Denied,
                    "aborted" => Outcome::Aborted,
                    _ => return Err("served, denied or aborted"),
                };
            }
            Field::ReservationId => {
                let id = optional_text(value)?.map(|text| text.parse().map_err(|_| UUID));
                event.reservation_id = id.transpose()?;
            }
        }
        Ok(())
    }
}

fn text<'a>(value: Scalar<'a>, expected: &'static str) -> Result<Cow<'a, str>, &'static str> {
    match value {
        Scalar::Text(text) => Ok(text),
        _ => Err(expected),
    }
}

/// Gateways write `""` for what they do not know.
fn optional_text(value: Scalar<'_>) -> Result<Option<Cow<'_, str>>, &'static str> {
    text(value, TEXT).map(|text| (!text.is_empty()).then_some(text))
}

/// What identifies is never altered, only taken or refused.
fn identity<'a>(
    value: Scalar<'a>,
    expected: &'static str,
    chars_max: usize,
    bytes_max: usize,
) -> Result<Cow<'a, str>, &'static str> {
    let text = text(value, expected)?;
    // Counting characters is for the few that have more bytes than allowed characters.
    let is_short = text.len() <= chars_max || text.chars().count() <= chars_max;
    let fits = !text.is_empty() && is_short && text.len() <= bytes_max && !text.contains('\0');
    if fits { Ok(text) } else { Err(expected) }
}

fn status_code(value: &Scalar<'_>) -> Result<Option<u16>, &'static str> {
    match value {
        Scalar::Unsigned(0) => Ok(None),
        Scalar::Unsigned(status @ 100..=599) => Ok(u16::try_from(*status).ok()),
        _ => Err("an HTTP status from 100 to 599"),
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn response_time(value: &Scalar<'_>) -> Result<i64, &'static str> {
    let millis = match value {
        Scalar::Unsigned(millis) => *millis as f64,
        Scalar::Number(millis) => *millis,
        _ => return Err("milliseconds, a number from 0"),
    };
    let micros = (millis * 1000.0).round();
    // False for what is no number.
    let in_range = (0.0..=RESPONSE_MICROS_MAX).contains(&micros);
    if in_range { Ok(micros as i64) } else { Err("milliseconds, a number from 0") }
}

fn units(value: &Scalar<'_>) -> Result<Units, &'static str> {
    const _: () = assert!(UNITS_MAX == 9_007_199_254_740_991, "as INTEGER says");
    match value {
        Scalar::Unsigned(count) => Units::new(*count).ok_or(INTEGER),
        _ => Err(INTEGER),
    }
}
