//! `/api/v1/tokens`: who may ask. A token is shown once, when it is made; the store keeps its hash.

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
use weir_core::plan::Fault;
use weir_core::units::{Micros, SubscriptionId};
use weir_store::rows::TokenRow;

use super::Api;
use super::audit::{self, Target};
use super::auth::Admin;
use super::body::Json;
use super::moment::Moment;
use super::page::{self, List};
use super::parameters::{Ids, Parameters};
use super::problem::{Problem, ProblemBody};
use super::reach;
use super::subscriptions::value;
use crate::catalog::hash_secret;
use crate::catalog::principal::{Principal, Scope, new_token};
use crate::codec::peers::Change;

const LIST: &str = "tokens";
/// Subscriptions that one token may name. More: every request compares with all of them. Fewer: a
/// reseller's dashboard needs several tokens; a tenant is the better limit then.
const NAMED_MAX: usize = 1_000;

/// Routes of this resource.
pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(revoke))
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScopeWord {
    /// Everything.
    Admin,
    /// Checks and events.
    Gateway,
    /// Reads of usage.
    Dashboard,
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// Display name, 1 to 128 characters.
    #[schema(example = "caddy")]
    name: String,
    /// What it may do.
    scope: ScopeWord,
    /// Limits it to one tenant; null = all.
    #[serde(default)]
    tenant: Option<String>,
    /// Limits it to these subscriptions; null = all.
    #[serde(default)]
    subscription_ids: Option<Vec<String>>,
    /// Refused from then on, RFC 3339; null = never.
    #[serde(default)]
    expires_at: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenAnswer {
    /// Its id.
    id: String,
    /// The token itself, in the answer to its making alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Display name.
    name: String,
    /// What it may do.
    #[schema(value_type = ScopeWord)]
    scope: String,
    /// The tenant that it is limited to.
    tenant: Option<String>,
    /// The subscriptions that it is limited to.
    subscription_ids: Option<Vec<String>>,
    /// Refused from then on.
    expires_at: Option<Moment>,
    /// When it was made.
    created_at: Moment,
}

/// Which tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TokensQuery {
    /// Tokens on a page, 1 to 1,000; 100 by default.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Makes a token. Its text is in this answer and never shown again.
///
/// A token that is limited to a tenant may only make tokens that name the same tenant.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens", security(("bearer" = [])),
    request_body = NewToken,
    responses((status = 201, body = TokenAnswer), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody),
        (status = 403, description = "wrong scope, or beyond the caller's reach", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Json(body): Json<NewToken>,
) -> Result<Response, Problem> {
    reach::may_grant(&caller, body.tenant.as_deref())?;
    let scope = body.scope.into();
    let token = new_token(scope);
    let row = body.into_row(&token, api.clock.now()).map_err(Problem::invalid)?;
    let mut entry = audit::entry(&api, &caller, "token.create", target(&row));
    entry.after = audit::state(&TokenAnswer::from(&row));
    api.store.insert_token(&row, &entry).await?;
    api.router.changed(Change::Token(row.hash)).await;
    let answer = TokenAnswer { token: Some(token), ..TokenAnswer::from(&row) };
    let location = [(LOCATION, format!("/api/v1/tokens/{}", row.id))];
    Ok((StatusCode::CREATED, location, JsonAnswer(answer)).into_response())
}

/// Lists tokens that were not revoked, oldest first, without their text.
///
/// A token that is limited sees those of its own tenant; its pages may be short, or empty, before the
/// last one.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens", security(("bearer" = [])),
    params(TokensQuery),
    responses((status = 200, body = List<TokenAnswer>), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Parameters(query): Parameters<TokensQuery>,
) -> Result<JsonAnswer<List<TokenAnswer>>, Problem> {
    let limit = page::limit(query.limit)?;
    let after = page::after_id(LIST, query.cursor.as_deref())?;
    let page = api.store.list_tokens(after, limit).await?;
    let List { mut data, next_cursor } = page::by_id(LIST, page, |row| row.id, |row| row);
    data.retain(|row| manages(&caller, row));
    let data = data.iter().map(TokenAnswer::from).collect();
    Ok(JsonAnswer(List { data, next_cursor }))
}

/// Revokes a token. Again: the same answer.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", tag = "tokens", security(("bearer" = [])),
    params(("id" = String, Path, description = "the token's id")),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
) -> Result<StatusCode, Problem> {
    let missing = || Problem::not_found("token");
    let found = find_live(&api, id).await?;
    match &found {
        Some(row) if manages(&caller, row) => {}
        // Revoked before, or never there: the store tells which to whoever may know.
        None if caller.sees_all() => {}
        _ => return Err(missing()),
    }
    let tenant = found.as_ref().and_then(|row| row.tenant.clone());
    let mut entry = audit::entry(&api, &caller, "token.revoke", Target::token(id, tenant));
    entry.before = found.as_ref().and_then(|row| audit::state(&TokenAnswer::from(row)));
    let row = api.store.revoke_token(id, api.clock.now(), &entry).await?.ok_or_else(missing)?;
    api.router.changed(Change::Token(row.hash)).await;
    Ok(StatusCode::NO_CONTENT)
}

/// A token that was not revoked: the first one of the list after all smaller ids.
async fn find_live(api: &Api, id: Uuid) -> Result<Option<TokenRow>, Problem> {
    let before = id.as_u128().checked_sub(1).map(Uuid::from_u128);
    let page = api.store.list_tokens(before, 1).await?;
    Ok(page.data.into_iter().find(|row| row.id == id))
}

/// Whether the caller may see and revoke it.
fn manages(caller: &Principal, row: &TokenRow) -> bool {
    reach::may_grant(caller, row.tenant.as_deref()).is_ok()
}

fn target(row: &TokenRow) -> Target {
    Target::token(row.id, row.tenant.clone())
}

impl NewToken {
    fn into_row(self, token: &str, now: Micros) -> Result<TokenRow, Vec<Fault>> {
        let mut faults = Vec::new();
        value::name(&mut faults, "/name", &self.name);
        if let Some(tenant) = &self.tenant {
            value::name(&mut faults, "/tenant", tenant);
        }
        let subscriptions = self.subscription_ids.map(|ids| named(&mut faults, &ids));
        let expires_at = self.expires_at.as_deref();
        let expires_at = expires_at.and_then(|text| value::moment(&mut faults, "/expiresAt", text));
        if expires_at.is_some_and(|end| end <= now) {
            faults.push(Fault::new("/expiresAt", "out_of_range", "in the future"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(TokenRow {
            id: Uuid::now_v7(),
            hash: hash_secret(token),
            name: self.name,
            scope: Scope::from(self.scope).as_str().to_owned(),
            tenant: self.tenant,
            subscriptions,
            expires_at,
            created_at: now,
            revoked_at: None,
        })
    }
}

fn named(faults: &mut Vec<Fault>, ids: &[String]) -> Vec<SubscriptionId> {
    if ids.is_empty() || ids.len() > NAMED_MAX {
        let detail = format!("1 to {NAMED_MAX} ids, or null for all");
        faults.push(Fault::new("/subscriptionIds", "invalid_length", detail));
        return Vec::new();
    }
    let mut named = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        if let Ok(id) = id.parse() {
            named.push(id);
        } else {
            let pointer = format!("/subscriptionIds/{index}");
            faults.push(Fault::new(pointer, "invalid_id", "a subscription's id"));
        }
    }
    named.sort_unstable();
    named.dedup();
    named
}

impl From<ScopeWord> for Scope {
    fn from(word: ScopeWord) -> Self {
        match word {
            ScopeWord::Admin => Self::Admin,
            ScopeWord::Gateway => Self::Gateway,
            ScopeWord::Dashboard => Self::Dashboard,
        }
    }
}

impl From<&TokenRow> for TokenAnswer {
    fn from(row: &TokenRow) -> Self {
        let ids = |ids: &Vec<SubscriptionId>| ids.iter().map(ToString::to_string).collect();
        Self {
            id: row.id.to_string(),
            token: None,
            name: row.name.clone(),
            scope: row.scope.clone(),
            tenant: row.tenant.clone(),
            subscription_ids: row.subscriptions.as_ref().map(ids),
            expires_at: row.expires_at.map(Moment),
            created_at: Moment(row.created_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse;

    fn faults(body: &str) -> Vec<(String, &'static str)> {
        let now = Micros::from_seconds(1_764_000_000);
        let body: NewToken = parse(body.as_bytes()).unwrap();
        let row = body.into_row("weir_gateway_x", now);
        let faults = row.err().unwrap_or_default();
        faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
    }

    #[test]
    fn every_fault_of_a_new_token_is_told() {
        let stories: [(&str, &[(&str, &str)]); 7] = [
            (r#"{"name":"caddy","scope":"gateway"}"#, &[]),
            (
                r#"{"name":"x","scope":"admin","tenant":null,"subscriptionIds":null,"expiresAt":null}"#,
                &[],
            ),
            (
                r#"{"name":"","scope":"admin","tenant":""}"#,
                &[("/name", "invalid_length"), ("/tenant", "invalid_length")],
            ),
            (
                r#"{"name":"x","scope":"dashboard","subscriptionIds":[]}"#,
                &[("/subscriptionIds", "invalid_length")],
            ),
            (
                r#"{"name":"x","scope":"dashboard","subscriptionIds":["0192"]}"#,
                &[("/subscriptionIds/0", "invalid_id")],
            ),
            (
                r#"{"name":"x","scope":"dashboard","expiresAt":"tomorrow"}"#,
                &[("/expiresAt", "invalid_timestamp")],
            ),
            (
                r#"{"name":"x","scope":"dashboard","expiresAt":"2001-01-01T00:00:00Z"}"#,
                &[("/expiresAt", "out_of_range")],
            ),
        ];
        for (body, expected) in stories {
            let expected: Vec<_> = expected.iter().map(|&(p, c)| (p.to_owned(), c)).collect();
            assert_eq!(faults(body), expected, "{body}");
        }
    }

    #[test]
    fn a_stored_token_is_only_a_hash() {
        let body: NewToken = parse(br#"{"name":"x","scope":"gateway"}"#).unwrap();
        let row = body.into_row("weir_gateway_secret", Micros::EPOCH).unwrap();
        assert_eq!(row.hash, hash_secret("weir_gateway_secret"));
        let shown = audit::state(&TokenAnswer::from(&row)).unwrap();
        assert!(!shown.contains("secret") && !shown.contains("\"token\""), "{shown}");
    }
}
