//! Reading bodies: bounded in size and time, strict about JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::Problem;
use crate::catalog::plan_document::{PlanError, read};

/// How much of a body that is too large is read, in bodies of the largest size. More: a stranger's
/// gigabytes are read. Less: a sender that is a little over the limit sees a broken connection.
const DROPPED_BODIES_MAX: usize = 4;

/// A body's bytes, at most as many as the configuration allows, read within its time.
#[derive(Debug)]
pub struct Raw(pub Bytes);

impl FromRequest<Arc<Api>> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let max = api.limits.body_bytes_max;
        let reading = collect(request.into_body(), max);
        match tokio::time::timeout(api.limits.body_read_timeout, reading).await {
            Ok(Ok(Some(bytes))) => Ok(Self(bytes)),
            Ok(Ok(None)) => {
                let detail = format!("at most {max} bytes");
                Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail))
            }
            Ok(Err(error)) => Err(unreadable(&error)),
            Err(_) => {
                let detail = "the body did not arrive in time";
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
            }
        }
    }
}

/// A body's bytes; `None` when there are more than `max`. What is too much is read on and dropped, up
/// to a bound: a socket closed on unread bytes is reset, and the sender may never see the answer.
async fn collect(mut body: Body, max: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut kept = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > max.saturating_mul(DROPPED_BODIES_MAX) {
            break;
        }
        if length > max {
            kept = Vec::new();
        } else {
            kept.extend_from_slice(&data);
        }
    }
    Ok((length <= max).then(|| kept.into()))
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::bad_request("unreadable_body", crate::metrics::chain(error))
}

/// A JSON body. Unknown fields and wrong types are 422 with a pointer, bad syntax is 400.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let Raw(bytes) = Raw::from_request(request, api).await?;
        parse(&bytes).map(Self)
    }
}

/// Parses JSON strictly.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    read(bytes).map_err(Problem::from)
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Malformed { .. } => Self::bad_request("malformed_json", error.to_string()),
            PlanError::Invalid(faults) => Self::invalid(faults),
        }
    }
}
