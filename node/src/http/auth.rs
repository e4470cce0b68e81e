//! Who asks: bearer tokens, turned into a [`Principal`] before a handler runs.
//!
//! Role: extractors that a handler names in its signature, one per scope; a handler without one is
//! public. 401 for no or an unknown token, 403 for one of another scope.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::Api;
use super::problem::Problem;
use crate::catalog::principal::{Principal, Scope, TokenError, is_mistyped};

macro_rules! caller {
    ($name:ident, $doc:literal, $($scope:ident),+) => {
        #[doc = $doc]
        #[derive(Clone, Debug)]
        pub struct $name(pub Arc<Principal>);

        impl Deref for $name {
            type Target = Principal;

            fn deref(&self) -> &Principal {
                &self.0
            }
        }

        impl $name {
            /// The caller, when the headers hold a token of this scope.
            pub async fn admit(headers: &HeaderMap, api: &Api) -> Result<Self, Problem> {
                let principal = authenticate(headers, api).await?;
                if [$(Scope::$scope),+].iter().any(|&scope| principal.may(scope)) {
                    return Ok(Self(principal));
                }
                let detail = format!("a token of scope {} may not do this", principal.scope.as_str());
                Err(Problem::new(StatusCode::FORBIDDEN, "wrong_scope", detail))
            }
        }

        impl FromRequestParts<Arc<Api>> for $name {
            type Rejection = Problem;

            async fn from_request_parts(
                parts: &mut Parts,
                api: &Arc<Api>,
            ) -> Result<Self, Problem> {
                Self::admit(&parts.headers, api).await
            }
        }
    };
}

caller!(Gateway, "May check and record (scope gateway or admin).", Gateway);
caller!(Reader, "May read usage (scope dashboard or admin).", Dashboard);
caller!(Admin, "May do everything (scope admin).", Admin);

async fn authenticate(headers: &HeaderMap, api: &Api) -> Result<Arc<Principal>, Problem> {
    let token = bearer(headers).ok_or_else(|| {
        api.metrics.auth_failed();
        unauthorized("send `Authorization: Bearer TOKEN`")
    })?;
    match api.router.catalog().authenticate(token).await {
        Ok(principal) => Ok(principal),
        Err(TokenError::Unknown) => {
            api.metrics.auth_failed();
            let detail = if is_mistyped(token) { "the token is mistyped" } else { "unknown token" };
            Err(unauthorized(detail))
        }
        Err(TokenError::Store(error)) => Err(error.into()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}
