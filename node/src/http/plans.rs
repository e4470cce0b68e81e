//! `/api/v1/plans`: what is sold. Every `PUT` makes a version; none ever changes.
//!
//! Role: documents in, documents out. What a document means is `plan_document`'s, who follows a new
//! version when is `follow`'s.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use weir_core::plan::Plan;
use weir_core::units::PlanId;
use weir_store::Error;
use weir_store::rows::PlanRow;

use super::Api;
use super::audit::{self, Target};
use super::auth::Admin;
use super::body::Json;
use super::moment::Moment;
use super::page::{self, List};
use super::parameters::{Ids, Parameters};
use super::problem::{Problem, ProblemBody};
use super::reach;
use crate::catalog::plan_document::{Effective, PlanDocument, PlanUpdate, parse, read, render};
use crate::codec::peers::Change;

const LIST: &str = "plans";
/// How often a version is numbered anew when another one came first. Each round of a race has one
/// winner, so this many at once all succeed. More: someone who loses as often is better told. Fewer: a
/// handful of operators meets a needless 409.
const NUMBERING_ATTEMPTS: usize = 16;

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(show, replace, delete))
}

/// A plan's version.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanAnswer {
    /// Its id, the same over all versions.
    id: String,
    /// From 1.
    version: i32,
    /// When this version was made.
    created_at: Moment,
    /// When it reached, or will reach, the subscriptions of the version before.
    effective: Effective,
    /// Every field of the plan, written out.
    #[serde(flatten)]
    plan: PlanDocument,
}

/// Which plans.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PlansQuery {
    /// Plans on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Which version.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PlanQuery {
    /// From 1; the newest by default.
    version: Option<i32>,
}

/// Makes a plan.
#[utoipa::path(
    post, path = "/api/v1/plans", tag = "plans", security(("bearer" = [])),
    request_body = PlanDocument,
    responses(
        (status = 201, body = PlanAnswer, headers(("Location" = String, description = "the plan"))),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "wrong scope, or the token is limited", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Json(document): Json<PlanDocument>,
) -> Result<Response, Problem> {
    reach::unlimited(&caller)?;
    let id = PlanId::from_uuid(Uuid::now_v7());
    let plan = document.into_plan(id, 1).map_err(Problem::invalid)?;
    let row = row_of(&api, &plan, 1, Effective::Now)?;
    let answer = PlanAnswer::of(&row)?;
    let mut entry = audit::entry(&api, &caller, "plan.create", Target::plan(id.uuid()));
    entry.after = audit::state(&answer);
    api.store.insert_plan(&row, &entry).await?;
    api.router.changed(Change::Plan(id)).await;
    let location = [(LOCATION, format!("/api/v1/plans/{id}"))];
    Ok((StatusCode::CREATED, location, JsonAnswer(answer)).into_response())
}

/// Lists the newest version of every plan, oldest plan first.
#[utoipa::path(
    get, path = "/api/v1/plans", tag = "plans", security(("bearer" = [])),
    params(PlansQuery),
    responses((status = 200, body = List<PlanAnswer>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    _: Admin,
    Parameters(query): Parameters<PlansQuery>,
) -> Result<JsonAnswer<List<PlanAnswer>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after = page::after_id(LIST, query.cursor.as_deref())?.map(PlanId::from_uuid);
    let page = api.store.list_plans(after, limit).await?;
    let List { data, next_cursor } = page::by_id(LIST, page, |row| row.id.uuid(), |row| row);
    let data = data.iter().map(PlanAnswer::of).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(List { data, next_cursor }))
}

/// Shows a plan.
#[utoipa::path(
    get, path = "/api/v1/plans/{id}", tag = "plans", security(("bearer" = [])),
    params(("id" = String, Path, description = "the plan's id"), PlanQuery),
    responses((status = 200, body = PlanAnswer), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    _: Admin,
    Ids(id): Ids<Uuid>,
    Parameters(query): Parameters<PlanQuery>,
) -> Result<JsonAnswer<PlanAnswer>, Problem> {
    let row = api.store.find_plan(PlanId::from_uuid(id), query.version).await?;
    let row = row.ok_or_else(|| Problem::not_found("plan"))?;
    PlanAnswer::of(&row).map(JsonAnswer)
}

/// Replaces a plan: makes its next version.
///
/// Its subscriptions follow at once, or each with its next billing period when the body says
/// `"effective":"period_end"`; one made after this version has it from its start. What was used stays
/// used: under the quota of the same name and meter, else under another of that meter. The currency
/// cannot change.
#[utoipa::path(
    put, path = "/api/v1/plans/{id}", tag = "plans", security(("bearer" = [])),
    params(("id" = String, Path, description = "the plan's id")),
    request_body = PlanUpdate,
    responses((status = 200, body = PlanAnswer), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody),
        (status = 403, description = "wrong scope, or the token is limited", body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 409, description = "other changes came first, again and again", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn replace(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
    Json(update): Json<PlanUpdate>,
) -> Result<JsonAnswer<PlanAnswer>, Problem> {
    reach::unlimited(&caller)?;
    let id = PlanId::from_uuid(id);
    for _ in 0..NUMBERING_ATTEMPTS {
        match try_replace(&api, &caller, id, &update).await {
            Ok(row) => {
                api.router.changed(Change::Plan(id)).await;
                return PlanAnswer::of(&row).map(JsonAnswer);
            }
            Err(Refused::Overtaken) => {}
            Err(Refused::For(problem)) => return Err(problem),
        }
    }
    let detail = "the plan is being changed by others; read it and try again";
    Err(Problem::conflict("revision_conflict", detail))
}

/// Why a version was not made.
enum Refused {
    /// Another one has its number.
    Overtaken,
    /// Something that another try does not mend.
    For(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::For(problem)
    }
}

async fn try_replace(
    api: &Api,
    caller: &Admin,
    id: PlanId,
    update: &PlanUpdate,
) -> Result<PlanRow, Refused> {
    let newest = api.store.find_plan(id, None).await.map_err(Problem::from)?;
    let newest = newest.ok_or_else(|| Problem::not_found("plan"))?;
    let version = newest.version.saturating_add(1);
    let number = u32::try_from(version).unwrap_or(u32::MAX);
    let plan = update.plan.clone().into_plan(id, number).map_err(Problem::invalid)?;
    // Those on it have periods that began, and charges that were written, in the old one.
    let before = parse(newest.config.as_bytes(), id, number).map_err(|error| damaged(&error))?;
    if before.currency != plan.currency {
        let detail = "a plan keeps its currency; make another plan";
        return Err(Problem::invalid_field("/currency", "immutable", detail).into());
    }
    let row = row_of(api, &plan, version, update.effective)?;
    let mut entry = audit::entry(api, caller, "plan.update", Target::plan(id.uuid()));
    entry.before = audit::state(&PlanAnswer::of(&newest)?);
    entry.after = audit::state(&PlanAnswer::of(&row)?);
    match api.store.insert_plan_version(&row, &entry).await {
        Ok(()) => Ok(row),
        Err(Error::Conflict { .. }) => Err(Refused::Overtaken),
        Err(error) => Err(Problem::from(error).into()),
    }
}

/// Removes a plan that no subscription uses or waits for.
#[utoipa::path(
    delete, path = "/api/v1/plans/{id}", tag = "plans", security(("bearer" = [])),
    params(("id" = String, Path, description = "the plan's id")),
    responses((status = 204), (status = 401, body = ProblemBody),
        (status = 403, description = "wrong scope, or the token is limited", body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 409, description = "subscriptions use it", body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn delete(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
) -> Result<StatusCode, Problem> {
    reach::unlimited(&caller)?;
    let id = PlanId::from_uuid(id);
    let newest = api.store.find_plan(id, None).await?;
    let newest = newest.ok_or_else(|| Problem::not_found("plan"))?;
    let mut entry = audit::entry(&api, &caller, "plan.delete", Target::plan(id.uuid()));
    entry.before = audit::state(&PlanAnswer::of(&newest)?);
    api.store.delete_plan(id, &entry).await.map_err(|error| match error {
        Error::Conflict { .. } => {
            Problem::conflict("plan_in_use", "subscriptions use this plan, or wait for it")
        }
        other => other.into(),
    })?;
    api.router.changed(Change::Plan(id)).await;
    Ok(StatusCode::NO_CONTENT)
}

fn row_of(api: &Api, plan: &Plan, version: i32, effective: Effective) -> Result<PlanRow, Problem> {
    let config = serde_json::to_string(&render(plan)).map_err(|error| damaged(&error))?;
    Ok(PlanRow {
        id: plan.id,
        version,
        name: plan.name.clone(),
        config,
        at_period_end: effective == Effective::PeriodEnd,
        created_at: api.clock.now(),
    })
}

impl PlanAnswer {
    fn of(row: &PlanRow) -> Result<Self, Problem> {
        let plan = read(row.config.as_bytes()).map_err(|error| damaged(&error))?;
        let effective = if row.at_period_end { Effective::PeriodEnd } else { Effective::Now };
        Ok(Self {
            id: row.id.to_string(),
            version: row.version,
            created_at: Moment(row.created_at),
            effective,
            plan,
        })
    }
}

fn damaged(error: &dyn std::error::Error) -> Problem {
    tracing::error!(error = %crate::metrics::chain(error), "a stored plan is damaged");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the stored plan is damaged")
}
