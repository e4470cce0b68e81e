//! Moments in queries and answers: RFC 3339.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use weir_core::units::Micros;

use super::problem::Problem;
use crate::clock::rfc3339;

/// Serialises as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub Micros);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl utoipa::PartialSchema for Moment {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(
                utoipa::openapi::KnownFormat::DateTime,
            )))
            .into()
    }
}

impl utoipa::ToSchema for Moment {}

/// Parses RFC 3339 with any offset.
pub fn parse_moment(text: &str) -> Option<Micros> {
    let timestamp: Timestamp = text.parse().ok()?;
    Some(Micros::from_micros(timestamp.as_microsecond()))
}

/// A moment in the query.
pub fn moment_parameter(name: &str, text: &str) -> Result<Micros, Problem> {
    parse_moment(text).ok_or_else(|| {
        let detail = format!("`{name}` must be RFC 3339, such as 2026-11-24T10:00:00Z");
        Problem::bad_request("invalid_parameter", detail)
    })
}
