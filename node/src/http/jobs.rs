//! `POST /api/v1/jobs/{job}/run`: runs a job now and tells what it did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_core::rating::Currency;

use super::Api;
use super::audit::{self, Target};
use super::auth::Admin;
use super::moment::Moment;
use super::problem::{Problem, ProblemBody};
use super::reach;
use crate::billing::{Job, JobError, Progress, Report};
use crate::metrics::chain;

/// Left of a request's time when a run goes on longer: enough to answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(run))
}

/// What a run did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunAnswer {
    /// `overage`, `rollover` or `retention`.
    job: &'static str,
    /// `done`; `running` when it takes longer than a request may: it goes on.
    status: &'static str,
    /// Subscriptions looked at.
    subscriptions: u64,
    /// Periods reckoned.
    periods: u64,
    /// Charges written.
    charges: u64,
    /// Of them corrections of closed periods.
    corrections: u64,
    /// Sum of the charges by currency, as decimal strings.
    charged: BTreeMap<String, String>,
    /// Periods closed.
    closed: u64,
    /// Subscriptions that could not be billed; the log says why, and the next run tries again.
    failed: u64,
    /// Event identities forgotten, by `retention`.
    forgotten: u64,
    started_at: Moment,
    /// When this was answered.
    at: Moment,
}

/// Runs a job now.
///
/// `overage` charges what grew since the last charge; `rollover` closes periods whose grace is over and
/// corrects closed ones; `retention` forgets what is older than the accept window. Each may be run at any
/// time and again: what is done is not done twice. One billing run goes on at a time in the whole
/// cluster; a second one waits some seconds, then it is a 409.
#[utoipa::path(
    post, path = "/api/v1/jobs/{job}/run", tag = "jobs", security(("bearer" = [])),
    params(("job" = String, Path, description = "`overage`, `rollover` or `retention`")),
    responses((status = 200, body = RunAnswer),
        (status = 202, description = "it goes on; what it did so far", body = RunAnswer),
        (status = 401, body = ProblemBody),
        (status = 403, description = "wrong scope, or the token is limited", body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 409, description = "`job_running`", body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn run(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Path(job): Path<String>,
) -> Result<Response, Problem> {
    reach::unlimited(&caller)?;
    let job = match job.as_str() {
        "overage" => Job::Overage,
        "rollover" => Job::Rollover,
        "retention" => return retention(&api, &caller).await,
        _ => return Err(Problem::not_found("job")),
    };
    let started = api.clock.now();
    let progress = Progress::default();
    let (billing, seen) = (api.billing.clone(), progress.clone());
    // A caller that goes away does not stop it.
    let running = tokio::spawn(async move { billing.run(job, &seen).await });
    let patience = api.limits.request_timeout.saturating_sub(ANSWER_TIME);
    let status = match tokio::time::timeout(patience, running).await {
        Err(_) => StatusCode::ACCEPTED,
        Ok(Ok(Ok(()))) => StatusCode::OK,
        Ok(Ok(Err(error))) => return Err(refusal(&error)),
        Ok(Err(_)) => {
            let detail = "the run ended by a fault; the log says which";
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail));
        }
    };
    let mut answer = RunAnswer::of(&api, job.as_str(), started);
    answer.fill(&progress.report());
    if status == StatusCode::ACCEPTED {
        answer.status = "running";
    }
    note(&api, &caller, &answer).await?;
    Ok((status, JsonAnswer(answer)).into_response())
}

async fn retention(api: &Api, caller: &Admin) -> Result<Response, Problem> {
    let started = api.clock.now();
    let forgotten = api.upkeep.run(started).await?;
    let answer = RunAnswer { forgotten, ..RunAnswer::of(api, "retention", started) };
    note(api, caller, &answer).await?;
    Ok(JsonAnswer(answer).into_response())
}

async fn note(api: &Api, caller: &Admin, answer: &RunAnswer) -> Result<(), Problem> {
    let mut entry = audit::entry(api, caller, "job.run", Target::job(answer.job));
    entry.after = audit::state(answer);
    Ok(api.store.insert_audit(&entry).await?)
}

fn refusal(error: &JobError) -> Problem {
    match error {
        JobError::Busy => Problem::conflict("job_running", error.to_string()),
        JobError::Store(_) => {
            tracing::warn!(error = %chain(error), "a run by hand ended early");
            Problem::unavailable("job_ended_early", error.to_string())
        }
    }
}

impl RunAnswer {
    fn of(api: &Api, job: &'static str, started: weir_core::units::Micros) -> Self {
        Self {
            job,
            status: "done",
            subscriptions: 0,
            periods: 0,
            charges: 0,
            corrections: 0,
            charged: BTreeMap::new(),
            closed: 0,
            failed: 0,
            forgotten: 0,
            started_at: Moment(started),
            at: Moment(api.clock.now()),
        }
    }

    fn fill(&mut self, report: &Report) {
        let Report { subscriptions, periods, charges, corrections, closed, failed, .. } = *report;
        (self.subscriptions, self.periods, self.closed) = (subscriptions, periods, closed);
        (self.charges, self.corrections, self.failed) = (charges, corrections, failed);
        let sums = report.charged.iter();
        self.charged =
            sums.map(|(code, sum)| (code.clone(), Currency::of(code).text(*sum))).collect();
    }
}
