//! API tokens. Only hashes are stored.

use sqlx::{QueryBuilder, query};
use uuid::Uuid;
use weir_core::units::Micros;

use super::{Conn, Db, audit, decode, page};
use crate::Page;
use crate::failure::Failure;
use crate::rows::{AuditRow, TokenRow};

/// A new token.
pub(super) async fn insert(
    connection: &mut Conn,
    token: &TokenRow,
    audit: &AuditRow,
) -> Result<(), Failure> {
    let subscriptions = token.subscriptions.as_ref().map(|ids| {
        serde_json::Value::from(ids.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string()
    });
    let statement = "INSERT INTO api_tokens (id, hash, name, scope, tenant, subscriptions, \
                     expires_at, created_at, revoked_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
    let done = query(statement)
        .bind(token.id)
        .bind(&token.hash[..])
        .bind(&token.name)
        .bind(&token.scope)
        .bind(&token.tenant)
        .bind(subscriptions)
        .bind(token.expires_at.map(Micros::get))
        .bind(token.created_at.get())
        .bind(token.revoked_at.map(Micros::get))
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() == 0 {
        return Err(Failure::Conflict("token"));
    }
    audit::insert(connection, audit).await
}

/// By hash, whatever became of it.
pub(super) async fn find(
    connection: &mut Conn,
    hash: &[u8; 32],
) -> Result<Option<TokenRow>, Failure> {
    let statement = concat!("SELECT ", token_columns!(), " FROM api_tokens t WHERE t.hash = $1");
    let row = query(statement).bind(&hash[..]).fetch_optional(connection).await?;
    decode::maybe(row.as_ref(), decode::token)
}

/// Those not revoked, ascending by id.
pub(super) async fn list(
    connection: &mut Conn,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Page<TokenRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        token_columns!(),
        " FROM api_tokens t WHERE t.revoked_at IS NULL"
    ));
    if let Some(after) = after {
        select.push(" AND t.id > ").push_bind(after);
    }
    select.push(" ORDER BY t.id LIMIT ").push_bind(page::fetch(limit));
    let rows = select.build().fetch_all(connection).await?;
    Ok(page::cut(decode::all(&rows, decode::token)?, limit))
}

/// Revokes; the row as it is now, `None` when there is none.
pub(super) async fn revoke(
    connection: &mut Conn,
    id: Uuid,
    at: Micros,
    audit: &AuditRow,
) -> Result<Option<TokenRow>, Failure> {
    let done = query("UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(id)
        .bind(at.get())
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() == 1 {
        audit::insert(connection, audit).await?;
    }
    let statement = concat!("SELECT ", token_columns!(), " FROM api_tokens t WHERE t.id = $1");
    let row = query(statement).bind(id).fetch_optional(connection).await?;
    decode::maybe(row.as_ref(), decode::token)
}
