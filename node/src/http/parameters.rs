//! What stands in the address of a request: ids in the path, parameters in the query.
//!
//! Role: the framework's extractors with our refusals. An id that is none cannot name anything, so
//! it is answered like one that names nothing.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::Problem;

/// Ids in the path; 404 when one is no id.
#[derive(Debug)]
pub struct Ids<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Api>> for Ids<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let read = Path::<T>::from_request_parts(parts, api).await;
        read.map(|Path(ids)| Self(ids)).map_err(|_| Problem::not_found("resource"))
    }
}

/// Parameters in the query; 400 when one is unknown or not as expected.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(parameters)| Self(parameters))
            .map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))
    }
}
