//! What the answer to `GET /api/v1/quota/check` says.

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;

use crate::client::{Answer, Failure};

/// A decision, as far as the simulator looks at it. Borrows from the answer's body.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decision<'a> {
    pub(crate) allowed: bool,
    #[serde(borrow, default)]
    pub(crate) reason: Cow<'a, str>,
    #[serde(borrow, default)]
    mode: Cow<'a, str>,
}

impl Decision<'_> {
    /// True when nobody could decide and the plan's fail policy let the request through.
    pub(crate) fn is_degraded(&self) -> bool {
        self.mode == "degraded"
    }
}

/// The decision, or a short name of why there is none.
pub(crate) fn decision(
    outcome: &Result<Answer, Failure>,
) -> Result<Decision<'_>, Cow<'static, str>> {
    match outcome {
        Ok(answer) if answer.status == StatusCode::OK => serde_json::from_slice(&answer.body)
            .map_err(|_not_a_decision| Cow::Borrowed("unreadable decision")),
        Ok(answer) => Err(Cow::Owned(refusal(answer))),
        Err(Failure::Connect(_)) => Err(Cow::Borrowed("no connection")),
        Err(Failure::Broken(_)) => Err(Cow::Borrowed("connection broke")),
        Err(Failure::Timeout(_)) => Err(Cow::Borrowed("timeout")),
    }
}

/// The status, and the problem document's code where there is one.
fn refusal(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    let status = answer.status.as_u16();
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => format!("status {status} {}", problem.code),
        Err(_no_problem) => format!("status {status}"),
    }
}

/// True when another node than the one asked made the decision.
pub(crate) fn is_proxied(answer: &Answer) -> bool {
    answer.headers.get("x-weir-hops").is_some_and(|hops| hops == "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn only_a_readable_200_is_a_decision() {
        let stories = [
            (200, r#"{"allowed":true,"reason":"ok","limit":5,"quotas":[]}"#, Ok(true)),
            (200, r#"{"allowed":false,"reason":"quota_exceeded"}"#, Ok(false)),
            (200, "hello", Err("unreadable decision")),
            (503, "", Err("status 503")),
            (503, r#"{"title":"No","code":"no_owner"}"#, Err("status 503 no_owner")),
        ];
        for (status, body, expected) in stories {
            let status = StatusCode::from_u16(status).expect("a status");
            let outcome = Ok(Answer { status, headers: HeaderMap::new(), body: body.into() });
            let told = decision(&outcome);
            let told = told.as_ref().map(|decision| decision.allowed).map_err(AsRef::as_ref);
            assert_eq!(told, expected);
        }
    }
}
