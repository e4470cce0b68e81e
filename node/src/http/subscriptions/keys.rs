//! Further keys of a subscription, so that one can be replaced without a gap. Each is shown once.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;
use weir_core::units::{Micros, SubscriptionId};
use weir_store::Error;
use weir_store::rows::KeyRow;

use super::value;
use super::{find, target};
use crate::catalog::hash_secret;
use crate::catalog::principal::new_key;
use crate::codec::peers::Change;
use crate::http::Api;
use crate::http::audit;
use crate::http::auth::Admin;
use crate::http::body::{Raw, parse};
use crate::http::moment::Moment;
use crate::http::page::List;
use crate::http::parameters::Ids;
use crate::http::problem::{Problem, ProblemBody};

/// Keys of one subscription that may be good at once. More: a list that nobody can oversee, and that
/// is read whole. Fewer: a key for each of a customer's services does not fit.
const GOOD_KEYS_MAX: usize = 100;
/// Characters shown of a key, to recognise it by. More: short keys of one's own could be guessed.
const HINT_CHARS: usize = 6;

/// A key to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// A key of your own, 16 to 512 visible ASCII characters; made for you by default.
    #[serde(default)]
    key: Option<String>,
}

/// A key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyAnswer {
    /// Its id.
    id: String,
    /// The key itself, in the answer to its making alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Its first characters.
    hint: String,
    /// When it was made.
    created_at: Moment,
    /// When it was revoked; null = it is good.
    revoked_at: Option<Moment>,
}

/// Makes a further key. It is in this answer and never shown again. The body may be left out.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{id}/keys", tag = "subscriptions",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    request_body = NewKey,
    responses((status = 201, body = KeyAnswer), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody),
        (status = 409, description = "`key_taken`, `too_many_keys`", body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
    Raw(bytes): Raw,
) -> Result<Response, Problem> {
    let body: NewKey = if bytes.is_empty() { NewKey::default() } else { parse(&bytes)? };
    let subscription = find(&api, &caller, id).await?;
    let mut faults = Vec::new();
    if let Some(key) = &body.key {
        value::own_key(&mut faults, key);
    }
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let keys = api.store.list_keys(subscription.id).await?;
    if keys.iter().filter(|key| key.revoked_at.is_none()).count() >= GOOD_KEYS_MAX {
        let detail = format!("a subscription has at most {GOOD_KEYS_MAX} keys; revoke one first");
        return Err(Problem::conflict("too_many_keys", detail));
    }
    let key = body.key.unwrap_or_else(new_key);
    let row = key_row(subscription.id, &key, api.clock.now());
    let mut entry = audit::entry(&api, &caller, "subscription.key.create", target(&subscription));
    entry.after = audit::state(&about(row.id));
    api.store.insert_key(&row, &entry).await.map_err(|error| match error {
        Error::Conflict { .. } => key_taken(),
        other => other.into(),
    })?;
    // It may be remembered as one that nobody has.
    api.router.changed(Change::Key(row.hash)).await;
    let answer = KeyAnswer { key: Some(key), ..KeyAnswer::from(&row) };
    let location = [(LOCATION, format!("/api/v1/subscriptions/{id}/keys/{}", row.id))];
    Ok((StatusCode::CREATED, location, JsonAnswer(answer)).into_response())
}

/// Lists a subscription's keys, oldest first, revoked ones too, without their text.
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{id}/keys", tag = "subscriptions",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id")),
    responses((status = 200, body = List<KeyAnswer>), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 503, body = ProblemBody))
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids(id): Ids<Uuid>,
) -> Result<JsonAnswer<List<KeyAnswer>>, Problem> {
    let subscription = find(&api, &caller, id).await?;
    let keys = api.store.list_keys(subscription.id).await?;
    let data = keys.iter().map(KeyAnswer::from).collect();
    Ok(JsonAnswer(List { data, next_cursor: None }))
}

/// Revokes a key: the next check with it is refused with `key_revoked`. Again: the same answer.
#[utoipa::path(
    delete, path = "/api/v1/subscriptions/{id}/keys/{keyId}", tag = "subscriptions",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the subscription's id"),
        ("keyId" = String, Path, description = "the key's id")),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 503, body = ProblemBody))
)]
pub async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Admin,
    Ids((id, key)): Ids<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    let subscription = find(&api, &caller, id).await?;
    let keys = api.store.list_keys(subscription.id).await?;
    let row = keys.iter().find(|row| row.id == key).ok_or_else(|| Problem::not_found("key"))?;
    let mut entry = audit::entry(&api, &caller, "subscription.key.revoke", target(&subscription));
    entry.before = audit::state(&about(row.id));
    if !api.store.revoke_key(subscription.id, key, api.clock.now(), &entry).await? {
        return Err(Problem::not_found("key"));
    }
    api.router.changed(Change::Key(row.hash)).await;
    Ok(StatusCode::NO_CONTENT)
}

/// A key's row. Its hint shows less than half of the shortest key.
pub fn key_row(subscription: SubscriptionId, key: &str, now: Micros) -> KeyRow {
    KeyRow {
        id: Uuid::now_v7(),
        subscription,
        hash: hash_secret(key),
        hint: key.chars().take(HINT_CHARS).collect(),
        created_at: now,
        revoked_at: None,
    }
}

/// 409 for a key that someone has, or had.
pub fn key_taken() -> Problem {
    Problem::conflict("key_taken", "this key is, or was, in use")
}

/// A key in the audit log: which one, and nothing of its text.
fn about(key: Uuid) -> serde_json::Value {
    json!({ "keyId": key.to_string() })
}

impl From<&KeyRow> for KeyAnswer {
    fn from(row: &KeyRow) -> Self {
        Self {
            id: row.id.to_string(),
            key: None,
            hint: row.hint.clone(),
            created_at: Moment(row.created_at),
            revoked_at: row.revoked_at.map(Moment),
        }
    }
}
