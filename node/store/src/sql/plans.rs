//! Plans (`pricing_models`): each version is a row that never changes.

use sqlx::{QueryBuilder, Row as _, query, query_scalar};
use weir_core::units::PlanId;

use super::{Conn, Db, LOCK_FOR_SHARE, LOCK_FOR_UPDATE, audit, decode, page};
use crate::Page;
use crate::failure::Failure;
use crate::rows::{AuditRow, PlanRow};

/// Version 1.
pub(super) async fn insert(
    connection: &mut Conn,
    plan: &PlanRow,
    audit: &AuditRow,
) -> Result<(), Failure> {
    if newest_version(connection, plan.id).await?.is_some() {
        return Err(Failure::Conflict("id"));
    }
    insert_row(connection, plan, "id").await?;
    audit::insert(connection, audit).await
}

/// The version after the newest.
pub(super) async fn insert_version(
    connection: &mut Conn,
    plan: &PlanRow,
    audit: &AuditRow,
) -> Result<(), Failure> {
    let newest = newest_version(connection, plan.id).await?.ok_or(Failure::NotFound("plan"))?;
    if plan.version != newest.saturating_add(1) {
        return Err(Failure::Conflict("version"));
    }
    insert_row(connection, plan, "version").await?;
    audit::insert(connection, audit).await
}

/// A version, or the newest.
pub(super) async fn find(
    connection: &mut Conn,
    id: PlanId,
    version: Option<i32>,
) -> Result<Option<PlanRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        plan_columns!(),
        " FROM pricing_models p WHERE p.id = "
    ));
    select.push_bind(id.uuid());
    if let Some(version) = version {
        select.push(" AND p.version = ").push_bind(version);
    }
    select.push(" ORDER BY p.version DESC LIMIT 1");
    let row = select.build().fetch_optional(connection).await?;
    decode::maybe(row.as_ref(), decode::plan)
}

/// A version of a plan that was deleted.
pub(super) async fn find_retired(
    connection: &mut Conn,
    id: PlanId,
    version: i32,
) -> Result<Option<PlanRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        plan_columns!(),
        " FROM pricing_models_retired p WHERE p.id = $1 AND p.version = $2"
    );
    let row = query(statement).bind(id.uuid()).bind(version).fetch_optional(connection).await?;
    decode::maybe(row.as_ref(), decode::plan)
}

/// Newest versions, ascending by id.
pub(super) async fn list(
    connection: &mut Conn,
    after: Option<PlanId>,
    limit: u32,
) -> Result<Page<PlanRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        plan_columns!(),
        " FROM pricing_models p WHERE p.version = \
         (SELECT max(v.version) FROM pricing_models v WHERE v.id = p.id)"
    ));
    if let Some(after) = after {
        select.push(" AND p.id > ").push_bind(after.uuid());
    }
    select.push(" ORDER BY p.id LIMIT ").push_bind(page::fetch(limit));
    let rows = select.build().fetch_all(connection).await?;
    Ok(page::cut(decode::all(&rows, decode::plan)?, limit))
}

/// Removes a plan that nobody uses or waits for.
pub(super) async fn delete(
    connection: &mut Conn,
    id: PlanId,
    audit: &AuditRow,
) -> Result<(), Failure> {
    let mut lock = QueryBuilder::<Db>::new("SELECT version FROM pricing_models WHERE id = ");
    lock.push_bind(id.uuid()).push(" ORDER BY version").push(LOCK_FOR_UPDATE);
    if lock.build().fetch_all(&mut *connection).await?.is_empty() {
        return Err(Failure::NotFound("plan"));
    }
    // A statement of its own: it must see the subscriptions that the lock waited for.
    let in_use = "SELECT EXISTS (SELECT 1 FROM api_subscriptions \
                  WHERE status <> 2 AND (plan_id = $1 OR next_plan_id = $1))";
    if query_scalar::<Db, bool>(in_use).bind(id.uuid()).fetch_one(&mut *connection).await? {
        return Err(Failure::Conflict("subscriptions"));
    }
    // Somebody may have used it earlier in a period that is not closed yet.
    let retire = "INSERT INTO pricing_models_retired \
                  (id, version, name, config, at_period_end, created_at) \
                  SELECT id, version, name, config, at_period_end, created_at \
                  FROM pricing_models WHERE id = $1";
    query(retire).bind(id.uuid()).execute(&mut *connection).await?;
    query("DELETE FROM pricing_models WHERE id = $1")
        .bind(id.uuid())
        .execute(&mut *connection)
        .await?;
    audit::insert(connection, audit).await
}

/// Fails unless the plan exists, and keeps it from being deleted until the transaction ends.
pub(super) async fn require(connection: &mut Conn, id: PlanId) -> Result<(), Failure> {
    newest_version(connection, id).await?.map(|_| ()).ok_or(Failure::NotFound("plan"))
}

async fn newest_version(connection: &mut Conn, id: PlanId) -> Result<Option<i32>, Failure> {
    let mut select = QueryBuilder::<Db>::new("SELECT version FROM pricing_models WHERE id = ");
    select.push_bind(id.uuid()).push(" ORDER BY version DESC LIMIT 1").push(LOCK_FOR_SHARE);
    let row = select.build().fetch_optional(connection).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

async fn insert_row(
    connection: &mut Conn,
    plan: &PlanRow,
    taken: &'static str,
) -> Result<(), Failure> {
    let statement = "INSERT INTO pricing_models \
                     (id, version, name, config, at_period_end, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let done = query(statement)
        .bind(plan.id.uuid())
        .bind(plan.version)
        .bind(&plan.name)
        .bind(&plan.config)
        .bind(plan.at_period_end)
        .bind(plan.created_at.get())
        .execute(connection)
        .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Failure::Conflict(taken)) }
}
