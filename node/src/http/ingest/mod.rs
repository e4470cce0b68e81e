//! The body of `POST /api/v1/usage/events`: bytes in, events and refusals out.
//!
//! Role: the only reader of usage events. Pure and without copies where it can be: strings borrow
//! from the body. Caller: the handler of that route, which then knows the clock and the
//! subscriptions and checks what needs them (`timestamp_in_future`, `unknown_subscription`, …).
//!
//! ```text
//!   body ─┬─ [ … ]  {"events":[…]} ──▶ one element after the other ─┐
//!         ├─ { … }                 ──▶ the only one ────────────────┼─▶ Ok(UsageEvent)
//!         └─ lines                 ──▶ one line after the other ────┘   Err(Rejected)
//! ```
//!
//! # What fails whole, what fails alone
//! Only a body that is no JSON at all, of another top-level type, or with too many events fails
//! whole ([`BodyError`]). Everything else is one event's own fault ([`Rejected`]) and leaves its
//! neighbours alone: an element is first skipped over by JSON's grammar and only then read, so not
//! even a number beyond a double or half a surrogate pair (both grammatical) reaches further. Lines
//! of NDJSON are apart by nature: a broken or truncated one, or one with bad UTF-8, is rejected on
//! its own. Nesting costs nothing: what is not asked for is skipped without recursion.
//!
//! # Which form a body has
//! By content type for CloudEvents (`application/cloudevents+json`, `…-batch+json`; one or an array
//! in either) and NDJSON (`application/x-ndjson`, `application/ndjson`, `application/jsonl`,
//! `application/x-jsonlines`). Any other content type, or none, is read as JSON, and as NDJSON when
//! more than one object follows another on lines of their own.
//!
//! # Rules of an event
//! | field | rule |
//! |---|---|
//! | `id` | required, 1 to 128 characters |
//! | `subscription_key`, `subscription_id` | exactly one; the key at most 512 bytes, the id a UUID |
//! | `timestamp` | required, RFC 3339 text with `Z` or an offset; never a number |
//! | `status_code` | 100 to 599; 0, as proxies write "no answer", counts as absent |
//! | `response_time_ms` | a number from 0; kept to the microsecond |
//! | `request_size`, `response_size`, `units`, `quantities.*` | integers from 0 to 2^53 − 1 (`1.0` is not one) |
//! | `quantities` | at most 32 meters; `requests` there means `units`, not both |
//! | `outcome` | `served`, `denied`, `aborted` |
//! | `reservation_id` | a UUID |
//! | `api_path` | cut at `?` or `#` (they hold personal data and have no bound), then at 2,048 bytes |
//! | `user_agent`, `method` | cut at 512 and 17 bytes; the method in capitals |
//! | `ip_address`, `country` | an address, port and zone ignored; two letters. Others are dropped, and counted |
//!
//! `null` is absent; so is `""` where the field is optional. Names are the contract's or their
//! camelCase aliases. A field given twice, also under both names, is an error: which one counts is
//! not for us to guess. Unknown fields are dropped and counted. Text that could not be stored (the
//! character NUL) is an error in what identifies and becomes U+FFFD in what describes.
//!
//! # CloudEvents
//! `specversion` is `1.0`; the attributes `id`, `time` and `subject` (the subscription key) win over
//! the same in `data`, which must be an object. `source` and `type` are neither needed nor kept: an
//! event is known by `id` within its subscription.

mod draft;
mod event;
mod forms;
mod object;
mod scalar;
mod text;

#[cfg(test)]
mod tests;

use weir_config::limits::BATCH_EVENTS_MAX;

pub use event::{Outcome, SubscriptionRef, UsageEvent};
pub use forms::parse_body;

/// What one body may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events, good and bad together.
    pub events_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { events_max: BATCH_EVENTS_MAX }
    }
}

/// A body, read.
#[derive(Debug, Default, PartialEq)]
pub struct Batch<'a> {
    /// In the order of the body; the position is the index that answers speak of. Blank lines of
    /// NDJSON have none.
    pub items: Vec<Result<UsageEvent<'a>, Rejected>>,
    /// Fields that are nobody's, kept out.
    pub unknown_fields: u64,
    /// IP addresses and countries that were none, left out; their events are no worse for it.
    pub dropped_fields: u64,
}

/// An event that cannot be recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {index}: {detail}")]
pub struct Rejected {
    /// Position in the body, from 0.
    pub index: usize,
    /// The event's own id, where it could be read.
    pub id: Option<String>,
    /// Stable `snake_case` code.
    pub code: &'static str,
    /// Which field, and what is expected.
    pub detail: String,
}

/// The code of an event that breaks the rules above.
pub const INVALID_EVENT: &str = "invalid_event";

/// Why a body holds no events at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Nothing but white space.
    #[error("the body is empty: send an event, an array of events, or one event a line")]
    Empty,
    /// Not JSON.
    #[error("not JSON: {detail} (line {line}, column {column})")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1; 0 before the first character.
        column: usize,
        /// What the parser met.
        detail: String,
    },
    /// JSON, but neither an event nor a list of them.
    #[error("{detail}")]
    WrongShape {
        /// JSON pointer of the place.
        pointer: String,
        /// What is expected.
        detail: &'static str,
    },
    /// Too many events.
    #[error("at most {events_max} events in one request")]
    TooManyEvents {
        /// The limit.
        events_max: usize,
    },
}

impl BodyError {
    /// Stable `snake_case` code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty | Self::Malformed { .. } => "malformed_body",
            Self::WrongShape { .. } => "invalid_body",
            Self::TooManyEvents { .. } => "batch_too_large",
        }
    }

    /// HTTP status of the answer.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Empty | Self::Malformed { .. } => 400,
            Self::WrongShape { .. } | Self::TooManyEvents { .. } => 422,
        }
    }
}
