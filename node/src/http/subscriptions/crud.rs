//! Making, listing, showing, changing and deleting subscriptions.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;
use weir_core::plan::Plan;
use weir_core::units::{PlanId, SubscriptionId};
use weir_store::rows::{AuditRow, SubscriptionRow, SubscriptionStatus};
use weir_store::{Error, SubscriptionFilter};

use super::body::{
    EMPTY_OBJECT, Field, NewSubscription, SubscriptionAnswer, SubscriptionChange, unknown_plan,
};
use super::change::{effective_by_fee, move_to};
use super::keys::{key_row, key_taken};
use super::value::{to_millis, unknown_quotas};
use super::{find, target};
use crate::catalog::PlanLookupError;
use crate::catalog::plan_document::Effective;
use crate::catalog::principal::new_key;
use crate::codec::peers::Change;
use crate::http::Api;
use crate::http::audit;
use crate::http::auth::Admin;
use crate::http::body::Json;
use crate::http::page::{self, List};
use crate::http::parameters::{Ids, Parameters};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::reach;
use crate::metrics::chain;

const LIST: &str = "subscriptions";
/// How often a change is made anew to a row that changed meanwhile. Each round of a race has one
/// winner, so this many at once all succeed. More: someone who loses as often is better told. Fewer: a
/// period's end at the wrong moment is a needless 409.
const CHANGE_ATTEMPTS: usize = 16;

/// Which subscriptions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SubscriptionsQuery {
    /// Only those on this plan.
    plan_id: Option<String>,
    /// Only those with this external id.
    external_id: Option<String>,
    /// Only those of this tenant.
    tenant: Option<String>,
    /// Subscriptions on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Makes a subscription with its first key, which is in this answer and never shown again.
#[utoipa::path(
    post, path = "/api/v1/subscriptions", tag = "subscriptions", security(("bearer" = [])),
    request_body = NewSubscription,
    responses(
        (status = 201, body = SubscriptionAnswer,
            headers(("Location" = String, description = "the subscription"))),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, description = "wrong scope, or another tenant", body = ProblemBody),
        (status = 409, description = "`external_id_taken`, `key_taken`", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Json(mut body): Json<NewSubscription>,
) -> Result<Response, Problem> {
    let tenant = reach::tenant_for_new(&caller, body.tenant.take())?;
    let (row, own_key) = body.into_row(tenant, api.clock.now()).map_err(Problem::invalid)?;
    if row.limits != EMPTY_OBJECT {
        limits_fit(&row.limits, &[&*plan_of(&api, row.plan).await?])?;
    }
    let key = own_key.unwrap_or_else(new_key);
    let key_row = key_row(row.id, &key, row.created_at);
    let mut entry = audit::entry(&api, &caller, "subscription.create", target(&row));
    entry.after = audit::state(&SubscriptionAnswer::for_audit(&row));
    let made = api.store.insert_subscription(&row, &key_row, &entry).await;
    made.map_err(refusal)?;
    let catalog = api.router.catalog();
    catalog.forget_key(&key_row.hash);
    catalog.forget_subscription(row.id);
    let answer = SubscriptionAnswer::from(&row).with_key(key);
    let location = [(LOCATION, format!("/api/v1/subscriptions/{}", row.id))];
    Ok((StatusCode::CREATED, location, JsonAnswer(answer)).into_response())
}

/// Lists subscriptions, oldest first.
#[utoipa::path(
    get, path = "/api/v1/subscriptions", tag = "subscriptions", security(("bearer" = [])),
    params(SubscriptionsQuery),
    responses((status = 200, body = List<SubscriptionAnswer>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Parameters(query): Parameters<SubscriptionsQuery>,
) -> Result<JsonAnswer<List<SubscriptionAnswer>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after = page::after_id(LIST, query.cursor.as_deref())?.map(SubscriptionId::from_uuid);
    let plan = query.plan_id.map(|id| id.parse::<PlanId>()).transpose();
    let plan = plan.map_err(|_| {
        Problem::bad_request("invalid_parameter", "`planId` must be the id of a plan")
    })?;
    let mut reach = caller.reach.clone();
    if let Some(tenant) = query.tenant {
        if reach.tenant.as_ref().is_some_and(|own| *own != tenant) {
            // Another tenant's are not there for this caller.
            return Ok(JsonAnswer(List { data: Vec::new(), next_cursor: None }));
        }
        reach.tenant = Some(tenant);
    }
    let filter = SubscriptionFilter { reach, plan, external_id: query.external_id, after, limit };
    let page = api.store.list_subscriptions(&filter).await?;
    let show = |row: SubscriptionRow| SubscriptionAnswer::from(&row);
    Ok(JsonAnswer(page::by_id(LIST, page, |row| row.id.uuid(), show)))
}

/// Shows a subscription.
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{id}", tag = "subscriptions", security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    responses((status = 200, body = SubscriptionAnswer), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
) -> Result<JsonAnswer<SubscriptionAnswer>, Problem> {
    let row = find(&api, &caller, id).await?;
    Ok(JsonAnswer(SubscriptionAnswer::from(&row)))
}

/// Changes a subscription: what is absent stays, null clears. Decisions follow at once.
///
/// A move to another plan happens `now` when that plan's base fee is not below the present one's, else
/// at the billing period's end; `effective` says otherwise. Both plans must have one currency. What was
/// used stays used: under the quota of the same name and meter, else under another of that meter.
///
/// `limits` may name quotas of the plan that the subscription has after the change, and of the one
/// that it then waits for; another name is an `unknown_quota`.
#[utoipa::path(
    patch, path = "/api/v1/subscriptions/{id}", tag = "subscriptions", security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    request_body = SubscriptionChange,
    responses((status = 200, body = SubscriptionAnswer), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 409, description = "`external_id_taken`, `revision_conflict`", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn update(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
    Json(change): Json<SubscriptionChange>,
) -> Result<JsonAnswer<SubscriptionAnswer>, Problem> {
    for _ in 0..CHANGE_ATTEMPTS {
        let before = find(&api, &caller, id).await?;
        let after = changed(&api, &before, change.clone()).await?;
        if after == before {
            return Ok(JsonAnswer(SubscriptionAnswer::from(&before)));
        }
        if let Some(row) = write(&api, &caller, "subscription.update", &before, after).await? {
            api.router.changed(Change::Subscription(row.id)).await;
            return Ok(JsonAnswer(SubscriptionAnswer::from(&row)));
        }
    }
    Err(overtaken())
}

/// Deletes a subscription. Its keys are unknown from now on; its ledger stays.
#[utoipa::path(
    delete, path = "/api/v1/subscriptions/{id}", tag = "subscriptions", security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 409, description = "`revision_conflict`", body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn delete(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
) -> Result<StatusCode, Problem> {
    for _ in 0..CHANGE_ATTEMPTS {
        let before = find(&api, &caller, id).await?;
        // Before the change: should the store go away after it, the keys are forgotten all the same.
        let keys = api.store.list_keys(before.id).await?;
        let after = SubscriptionRow { status: SubscriptionStatus::Deleted, ..before.clone() };
        if let Some(row) = write(&api, &caller, "subscription.delete", &before, after).await? {
            for key in &keys {
                api.router.changed(Change::Key(key.hash)).await;
            }
            api.router.changed(Change::Subscription(row.id)).await;
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    Err(overtaken())
}

async fn changed(
    api: &Api,
    before: &SubscriptionRow,
    change: SubscriptionChange,
) -> Result<SubscriptionRow, Problem> {
    let mut row = before.clone();
    let effective = change.effective;
    let limits_given = matches!(change.limits, Field::Given(Some(_)));
    if let Some(plan) = change.apply(&mut row).map_err(Problem::invalid)? {
        let new = plan_of(api, plan).await?;
        if new.currency != plan_of(api, before.plan).await?.currency {
            let detail = "a subscription keeps its currency; make another subscription";
            return Err(Problem::invalid_field("/planId", "currency_mismatch", detail));
        }
        let effective = match effective {
            Some(effective) => effective,
            None if plan == before.plan => Effective::Now,
            None => effective_by_fee(plan_of(api, before.plan).await?.base_fee, new.base_fee),
        };
        move_to(&mut row, plan, effective);
    }
    // Limits that stay may name what a former plan had; those that are given must fit.
    if limits_given {
        let plan = plan_of(api, row.plan).await?;
        match row.next_plan {
            Some(next) => limits_fit(&row.limits, &[&*plan, &*plan_of(api, next).await?])?,
            None => limits_fit(&row.limits, &[&*plan])?,
        }
    }
    Ok(row)
}

fn limits_fit(limits: &str, plans: &[&Plan]) -> Result<(), Problem> {
    let faults = unknown_quotas(limits, plans);
    if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
}

async fn plan_of(api: &Api, id: PlanId) -> Result<Arc<Plan>, Problem> {
    api.router.catalog().newest_plan(id).await.map_err(|error| match error {
        PlanLookupError::Store(error) => error.into(),
        PlanLookupError::NotFound => Problem::invalid(vec![unknown_plan()]),
        PlanLookupError::Damaged(_) => {
            tracing::error!(plan = %id, error = %chain(&error), "a plan cannot be read");
            let detail = "the stored plan is damaged";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
        }
    })
}

/// Writes a change; `None` when the row changed meanwhile.
async fn write(
    api: &Api,
    caller: &Admin,
    action: &'static str,
    before: &SubscriptionRow,
    mut after: SubscriptionRow,
) -> Result<Option<SubscriptionRow>, Problem> {
    after.updated_at = to_millis(api.clock.now());
    let mut entry: AuditRow = audit::entry(api, caller, action, target(before));
    entry.before = audit::state(&SubscriptionAnswer::for_audit(before));
    if after.status != SubscriptionStatus::Deleted {
        entry.after = audit::state(&SubscriptionAnswer::for_audit(&after));
    }
    match api.store.update_subscription(&after, &entry).await {
        Ok(()) => Ok(Some(after)),
        Err(Error::Conflict { with: "revision", .. }) => Ok(None),
        Err(error) => Err(refusal(error)),
    }
}

fn refusal(error: Error) -> Problem {
    match error {
        Error::Conflict { with: "external_id", .. } => {
            let detail = "another subscription of the tenant has this external id";
            Problem::conflict("external_id_taken", detail)
        }
        Error::Conflict { with: "key", .. } => key_taken(),
        Error::NotFound { what: "plan" } => Problem::invalid(vec![unknown_plan()]),
        other => other.into(),
    }
}

fn overtaken() -> Problem {
    let detail = "the subscription is being changed by others; read it and try again";
    Problem::conflict("revision_conflict", detail)
}
