//! `POST /api/v1/periods/preview`: period bounds, as `weir period` prints them.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_core::calendar::{Anchor, Every, Preview, Zone};
use weir_core::plan::Fault;
use weir_core::units::Units;

use super::Api;
use super::auth::Admin;
use super::body::Json;
use super::moment::{Moment, parse_moment};
use super::problem::{Problem, ProblemBody};
use crate::catalog::plan_document::{Given, Leaf};

/// Periods in one answer. More: a page that nobody reads, while each period costs a look into the
/// rules of its zone. Fewer: days of two years do not fit.
const COUNT_MAX: u64 = 1_000;
const TIME_ZONE_DEFAULT: &str = "UTC";

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(preview))
}

/// Which periods?
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeriodsQuestion {
    /// `calendar`, `subscription` (one that begins now) or an RFC 3339 timestamp.
    #[schema(value_type = String, example = "2026-01-31T00:00:00Z")]
    anchor: Given<Anchor>,
    /// Their length, a duration from one second up.
    #[schema(value_type = String, example = "P1M")]
    every: Given<Every>,
    /// IANA name of the zone whose days and months are meant; UTC by default.
    #[serde(default)]
    #[schema(example = "Europe/Berlin")]
    time_zone: Option<String>,
    /// RFC 3339; the period that holds this moment, alone or as the first of `count`. By default the
    /// first one is that of the anchor, or of now.
    #[serde(default)]
    at: Option<String>,
    /// How many, 1 to 1,000; by default 1 with `at`, else 12.
    #[serde(default)]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1_000)]
    count: Option<Given<Units>>,
}

/// Periods, each beginning where the one before ends.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeriodsPreview {
    /// In order.
    data: Vec<PeriodBounds>,
}

/// One period.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeriodBounds {
    /// Inclusive.
    start: Moment,
    /// Exclusive.
    end: Moment,
}

/// Shows where periods begin and end.
///
/// Bounds are counted from the anchor, never from each other: a month from the 31st ends with
/// February and begins on 31 March again.
#[utoipa::path(
    post, path = "/api/v1/periods/preview", tag = "periods", security(("bearer" = [])),
    request_body = PeriodsQuestion,
    responses((status = 200, body = PeriodsPreview), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn preview(
    State(api): State<Arc<Api>>,
    _: Admin,
    Json(question): Json<PeriodsQuestion>,
) -> Result<JsonAnswer<PeriodsPreview>, Problem> {
    let periods = question.into_preview().map_err(Problem::invalid)?.periods(api.clock.now());
    let bounds = |period: &weir_core::calendar::Period| PeriodBounds {
        start: Moment(period.start),
        end: Moment(period.end),
    };
    Ok(JsonAnswer(PeriodsPreview { data: periods.iter().map(bounds).collect() }))
}

impl PeriodsQuestion {
    fn into_preview(self) -> Result<Preview, Vec<Fault>> {
        let mut faults = Vec::new();
        let anchor = take(&mut faults, "/anchor", self.anchor);
        let every = take(&mut faults, "/every", self.every);
        let zone = Zone::parse(self.time_zone.as_deref().unwrap_or(TIME_ZONE_DEFAULT));
        if let Err(error) = &zone {
            faults.push(Fault::new("/timeZone", "unknown_time_zone", error.to_string()));
        }
        let at = self.at.as_deref().map(parse_moment);
        if at == Some(None) {
            let detail = "RFC 3339, such as 2026-11-24T10:00:00Z";
            faults.push(Fault::new("/at", "invalid_timestamp", detail));
        }
        let count = self.count.and_then(|count| take(&mut faults, "/count", count));
        if count.is_some_and(|count| !(1..=COUNT_MAX).contains(&count.get())) {
            let detail = format!("an integer from 1 to {COUNT_MAX}");
            faults.push(Fault::new("/count", "out_of_range", detail));
        }
        match (anchor, every, zone) {
            (Some(anchor), Some(every), Ok(zone)) if faults.is_empty() => {
                let count = count.and_then(|count| usize::try_from(count.get()).ok());
                Ok(Preview { every, anchor, zone, at: at.flatten(), count })
            }
            _ => Err(faults),
        }
    }
}

fn take<T: Leaf>(faults: &mut Vec<Fault>, pointer: &str, given: Given<T>) -> Option<T> {
    match given {
        Given::Valid(value) => Some(value),
        Given::Invalid(_, flaw) => {
            faults.push(Fault::new(pointer, flaw.code, flaw.detail));
            None
        }
    }
}
