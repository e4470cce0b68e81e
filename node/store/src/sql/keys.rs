//! Keys of subscriptions. Only hashes are stored; a revoked key stays, so that its use can be told
//! from that of a key that never was.

use sqlx::{query, query_scalar};
use uuid::Uuid;
use weir_core::units::{Micros, SubscriptionId};

use super::{Conn, Db, audit, decode};
use crate::failure::Failure;
use crate::rows::{AuditRow, KeyRow, SubscriptionRow};

/// A further key.
pub(super) async fn insert(
    connection: &mut Conn,
    key: &KeyRow,
    audit: &AuditRow,
) -> Result<(), Failure> {
    insert_row(connection, key).await?;
    audit::insert(connection, audit).await
}

/// The row alone, for the transaction of a new subscription.
pub(super) async fn insert_row(connection: &mut Conn, key: &KeyRow) -> Result<(), Failure> {
    let statement = "INSERT INTO subscription_keys \
                     (id, subscription_id, hash, hint, created_at, revoked_at) \
                     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let done = query(statement)
        .bind(key.id)
        .bind(key.subscription.uuid())
        .bind(&key.hash[..])
        .bind(&key.hint)
        .bind(key.created_at.get())
        .bind(key.revoked_at.map(Micros::get))
        .execute(connection)
        .await
        .map_err(|error| match &error {
            sqlx::Error::Database(cause) if cause.is_foreign_key_violation() => {
                Failure::NotFound("subscription")
            }
            _ => Failure::Engine(error),
        })?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Failure::Conflict("key")) }
}

/// Revokes; `false` when the subscription has no such key.
pub(super) async fn revoke(
    connection: &mut Conn,
    subscription: SubscriptionId,
    key: Uuid,
    at: Micros,
    audit: &AuditRow,
) -> Result<bool, Failure> {
    let statement = "UPDATE subscription_keys SET revoked_at = $3 \
                     WHERE id = $1 AND subscription_id = $2 AND revoked_at IS NULL";
    let done = query(statement)
        .bind(key)
        .bind(subscription.uuid())
        .bind(at.get())
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() == 1 {
        audit::insert(connection, audit).await?;
        return Ok(true);
    }
    let exists =
        "SELECT EXISTS (SELECT 1 FROM subscription_keys WHERE id = $1 AND subscription_id = $2)";
    let found = query_scalar::<Db, bool>(exists)
        .bind(key)
        .bind(subscription.uuid())
        .fetch_one(connection)
        .await?;
    Ok(found)
}

/// A subscription's keys, oldest first.
pub(super) async fn list(
    connection: &mut Conn,
    subscription: SubscriptionId,
) -> Result<Vec<KeyRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        key_columns!(),
        " FROM subscription_keys k WHERE k.subscription_id = $1 ORDER BY k.created_at, k.id"
    );
    let rows = query(statement).bind(subscription.uuid()).fetch_all(connection).await?;
    decode::all(&rows, decode::key)
}

/// The key with this hash and its subscription, whatever became of them.
pub(super) async fn find(
    connection: &mut Conn,
    hash: &[u8; 32],
) -> Result<Option<(KeyRow, SubscriptionRow)>, Failure> {
    let statement = concat!(
        "SELECT ",
        key_columns!(),
        ", ",
        subscription_columns!(),
        " FROM subscription_keys k JOIN api_subscriptions s ON s.id = k.subscription_id \
         WHERE k.hash = $1"
    );
    let row = query(statement).bind(&hash[..]).fetch_optional(connection).await?;
    decode::maybe(row.as_ref(), |columns| {
        Ok((decode::key(columns)?, decode::subscription(columns)?))
    })
}
