//! `/api/v1/audit`: who changed what, newest first; and the entries that the other files write.
//!
//! Role: every change made through this edge leaves an entry, in the transaction of the change where
//! the store can do that. Entries carry the state before and after, never a secret.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use weir_core::units::SubscriptionId;
use weir_store::rows::AuditRow;

use super::Api;
use super::auth::Admin;
use super::moment::Moment;
use super::page::{self, List};
use super::parameters::Parameters;
use super::problem::{Problem, ProblemBody};
use crate::catalog::principal::Principal;

const LIST: &str = "audit";
/// Kind of an entry's target that a token may be limited to.
const SUBSCRIPTION: &str = "subscription";

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Entries on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Who changed what.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its id; ids grow with time.
    id: String,
    /// When.
    at: Moment,
    /// Id of the token that was used, or `bootstrap`.
    actor: String,
    /// `plan.create`, `subscription.adjust`, …
    action: String,
    /// `plan`, `subscription`, `token`, `notification` or `job`.
    target_kind: String,
    /// Which one.
    target_id: String,
    /// The tenant that it belongs to, if it belongs to one.
    tenant: Option<String>,
    /// Before the change.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// After it.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// Why, when the caller said.
    reason: Option<String>,
}

/// Lists changes, newest first.
///
/// A token that is limited sees the changes within its reach; its pages may be short, or empty, before
/// the last one.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", security(("bearer" = [])),
    params(AuditQuery),
    responses((status = 200, body = List<AuditEntry>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<JsonAnswer<List<AuditEntry>>, Problem> {
    let limit = page::limit(query.limit)?;
    let before = page::after_id(LIST, query.cursor.as_deref())?;
    let tenant = caller.reach.tenant.as_deref();
    let page = api.store.list_audit(tenant, before, limit).await?;
    let mut list = page::by_id(LIST, page, |row| row.id, AuditEntry::from);
    if let Some(named) = &caller.reach.subscriptions {
        list.data.retain(|entry| entry.is_about(named));
    }
    Ok(JsonAnswer(list))
}

impl AuditEntry {
    fn is_about(&self, named: &[SubscriptionId]) -> bool {
        self.target_kind == SUBSCRIPTION && named.iter().any(|id| self.target_id == id.to_string())
    }
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        // Written by this edge; a damaged state shows as none rather than hiding the entry.
        let state = |json: Option<String>| json.and_then(|json| serde_json::from_str(&json).ok());
        Self {
            id: row.id.to_string(),
            at: Moment(row.at),
            actor: row.actor,
            action: row.action,
            target_kind: row.target_kind,
            target_id: row.target_id,
            tenant: row.tenant,
            before: state(row.before),
            after: state(row.after),
            reason: row.reason,
        }
    }
}

/// What an entry is about.
#[derive(Clone, Debug)]
pub struct Target {
    kind: &'static str,
    id: String,
    tenant: Option<String>,
}

impl Target {
    /// A plan.
    pub fn plan(id: Uuid) -> Self {
        Self { kind: "plan", id: id.to_string(), tenant: None }
    }

    /// A job that was run by hand.
    pub fn job(name: &str) -> Self {
        Self { kind: "job", id: name.to_owned(), tenant: None }
    }

    /// A subscription; its keys are told as changes of it.
    pub fn subscription(id: Uuid, tenant: String) -> Self {
        Self { kind: SUBSCRIPTION, id: id.to_string(), tenant: Some(tenant) }
    }

    /// A message of a subscription.
    pub fn notification(id: Uuid, tenant: String) -> Self {
        Self { kind: "notification", id: id.to_string(), tenant: Some(tenant) }
    }

    /// A token.
    pub fn token(id: Uuid, tenant: Option<String>) -> Self {
        Self { kind: "token", id: id.to_string(), tenant }
    }
}

/// An entry for a change that happens now.
pub fn entry(api: &Api, caller: &Principal, action: &'static str, target: Target) -> AuditRow {
    AuditRow {
        id: Uuid::now_v7(),
        at: api.clock.now(),
        actor: caller.id.clone(),
        action: action.to_owned(),
        target_kind: target.kind.to_owned(),
        target_id: target.id,
        tenant: target.tenant,
        before: None,
        after: None,
        reason: None,
    }
}

/// A state as entries keep it.
pub fn state(value: &impl Serialize) -> Option<String> {
    // Strings, numbers and maps with text keys: this cannot fail.
    serde_json::to_string(value).ok()
}
