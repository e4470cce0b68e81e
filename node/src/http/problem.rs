//! Errors at the edge: RFC 9457 `application/problem+json` with a stable `code`.
//!
//! Role: the one shape of every refusal that is not a decision. `instance` names the request, so that
//! a user's report can be found in the logs.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde::Serialize;
use weir_core::plan::Fault;

/// Seconds after which a client should try again when the store is away.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A refusal.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    retry: bool,
}

/// One fault of a request's body.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body.
    pub pointer: String,
    /// Stable `snake_case` code.
    pub code: String,
    /// What is expected.
    pub detail: String,
}

/// The body of a refusal.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ProblemBody<'a> {
    /// `urn:weir:problem:CODE`.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: &'a str,
    /// HTTP status.
    status: u16,
    /// What went wrong with this request.
    detail: &'a str,
    /// The request, as in `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    /// Stable `snake_case` code.
    code: &'a str,
    /// What is wrong with the body, field by field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A refusal with a status and a code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), retry: false }
    }

    /// 400.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 404, the same for what does not exist and for what the caller may not see.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("no such {what}"))
    }

    /// 409.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 422 with the faults of a body.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation_failed",
            format!("{} of the body's fields are not as expected", faults.len()),
        );
        problem.errors = faults
            .into_iter()
            .map(|fault| FieldError {
                pointer: fault.pointer,
                code: fault.code.to_owned(),
                detail: fault.detail,
            })
            .collect();
        problem
    }

    /// 422 with one fault.
    pub fn invalid_field(
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self::invalid(vec![Fault::new(pointer, code, detail)])
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.retry = true;
        problem
    }

    /// The stable code.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What went wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The response, naming the request when its id is known.
    pub fn respond(&self, request_id: Option<&str>) -> Response {
        let instance = request_id.map(|id| format!("urn:request:{id}"));
        let body = ProblemBody {
            kind: format!("urn:weir:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: instance.as_deref(),
            code: self.code,
            errors: &self.errors,
        };
        // Strings and numbers only: this cannot fail.
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retry {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderName::from_static("www-authenticate");
            headers.insert(challenge, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The request's id is filled in at the outermost layer, which finds the problem here.
    fn into_response(self) -> Response {
        let mut response = self.respond(None);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<weir_store::Error> for Problem {
    fn from(error: weir_store::Error) -> Self {
        use weir_store::Error;
        match error {
            Error::Unavailable { .. } | Error::Unknown { .. } | Error::Rewound { .. } => {
                Self::unavailable("store_unavailable", "the store is away; try again")
            }
            Error::Fenced { .. } => {
                Self::unavailable("not_owner", "this node no longer owns the subscription")
            }
            Error::Conflict { with, .. } => {
                Self::conflict("conflict", format!("conflicts with the stored {with}"))
            }
            Error::NotFound { what } => Self::not_found(what),
            Error::Broken { .. } => {
                tracing::error!(error = %crate::metrics::chain(&error), "the store failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the store failed")
            }
        }
    }
}
