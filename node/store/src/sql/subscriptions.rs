//! Subscriptions, and the reach that every reader of them must name.

use sqlx::{QueryBuilder, query, query_scalar};
use weir_core::units::{Micros, PlanId, SubscriptionId};

use super::{Conn, Db, audit, decode, keys, page, plans, push_among};
use crate::failure::Failure;
use crate::number::unsigned;
use crate::rows::{AuditRow, KeyRow, SubscriptionRow};
use crate::{Page, Reach, SubscriptionFilter};

/// A subscription with its first key.
pub(super) async fn insert(
    connection: &mut Conn,
    row: &SubscriptionRow,
    key: &KeyRow,
    audit: &AuditRow,
) -> Result<(), Failure> {
    require_plans(connection, row).await?;
    let statement = "INSERT INTO api_subscriptions \
         (id, plan_id, next_plan_id, external_id, tenant, api_id, user_email, time_zone, status, \
          started_at, ends_at, webhook_url, limits, metadata, created_at, updated_at, revision) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         ON CONFLICT DO NOTHING";
    let done = query(statement)
        .bind(row.id.uuid())
        .bind(row.plan.uuid())
        .bind(row.next_plan.map(PlanId::uuid))
        .bind(&row.external_id)
        .bind(&row.tenant)
        .bind(&row.api_id)
        .bind(&row.user_email)
        .bind(&row.time_zone)
        .bind(row.status as i16)
        .bind(row.started_at.get())
        .bind(row.ends_at.map(Micros::get))
        .bind(&row.webhook_url)
        .bind(&row.limits)
        .bind(&row.metadata)
        .bind(row.created_at.get())
        .bind(row.updated_at.get())
        .bind(row.revision)
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() == 0 {
        let with = if row.external_id.is_some() { "external_id" } else { "id" };
        return Err(Failure::Conflict(with));
    }
    keys::insert_row(connection, key).await?;
    audit::insert(connection, audit).await
}

/// One that is not deleted, within reach.
pub(super) async fn find(
    connection: &mut Conn,
    id: SubscriptionId,
    reach: &Reach,
) -> Result<Option<SubscriptionRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        subscription_columns!(),
        " FROM api_subscriptions s WHERE s.status <> 2 AND s.id = "
    ));
    select.push_bind(id.uuid());
    push_reach(&mut select, reach);
    let row = select.build().fetch_optional(connection).await?;
    decode::maybe(row.as_ref(), decode::subscription)
}

/// A page, ascending by id.
pub(super) async fn list(
    connection: &mut Conn,
    filter: &SubscriptionFilter,
) -> Result<Page<SubscriptionRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        subscription_columns!(),
        " FROM api_subscriptions s WHERE s.status <> 2"
    ));
    push_reach(&mut select, &filter.reach);
    if let Some(plan) = filter.plan {
        select.push(" AND s.plan_id = ").push_bind(plan.uuid());
    }
    if let Some(external_id) = &filter.external_id {
        select.push(" AND s.external_id = ").push_bind(external_id.clone());
    }
    if let Some(after) = filter.after {
        select.push(" AND s.id > ").push_bind(after.uuid());
    }
    select.push(" ORDER BY s.id LIMIT ").push_bind(page::fetch(filter.limit));
    let rows = select.build().fetch_all(connection).await?;
    Ok(page::cut(decode::all(&rows, decode::subscription)?, filter.limit))
}

/// Replaces a row whose revision is the one that the caller saw.
pub(super) async fn update(
    connection: &mut Conn,
    row: &SubscriptionRow,
    audit: &AuditRow,
) -> Result<(), Failure> {
    require_plans(connection, row).await?;
    let statement = "UPDATE api_subscriptions SET plan_id = $3, next_plan_id = $4, \
         external_id = $5, tenant = $6, api_id = $7, user_email = $8, time_zone = $9, \
         status = $10, started_at = $11, ends_at = $12, webhook_url = $13, limits = $14, \
         metadata = $15, \
         created_at = $16, updated_at = $17, revision = revision + 1 \
         WHERE id = $1 AND revision = $2 AND status <> 2";
    let done = query(statement)
        .bind(row.id.uuid())
        .bind(row.revision)
        .bind(row.plan.uuid())
        .bind(row.next_plan.map(PlanId::uuid))
        .bind(&row.external_id)
        .bind(&row.tenant)
        .bind(&row.api_id)
        .bind(&row.user_email)
        .bind(&row.time_zone)
        .bind(row.status as i16)
        .bind(row.started_at.get())
        .bind(row.ends_at.map(Micros::get))
        .bind(&row.webhook_url)
        .bind(&row.limits)
        .bind(&row.metadata)
        .bind(row.created_at.get())
        .bind(row.updated_at.get())
        .execute(&mut *connection)
        .await
        .map_err(|error| Failure::on_unique(error, "external_id"))?;
    if done.rows_affected() == 0 {
        let exists =
            "SELECT EXISTS (SELECT 1 FROM api_subscriptions WHERE id = $1 AND status <> 2)";
        let found: bool =
            query_scalar::<Db, bool>(exists).bind(row.id.uuid()).fetch_one(connection).await?;
        return Err(if found {
            Failure::Conflict("revision")
        } else {
            Failure::NotFound("subscription")
        });
    }
    audit::insert(connection, audit).await
}

/// How many that are not deleted are within reach.
pub(super) async fn count(connection: &mut Conn, reach: &Reach) -> Result<u64, Failure> {
    let mut select =
        QueryBuilder::<Db>::new("SELECT count(*) FROM api_subscriptions s WHERE s.status <> 2");
    push_reach(&mut select, reach);
    unsigned(select.build_query_scalar::<i64>().fetch_one(connection).await?)
}

/// Limits a query over `api_subscriptions s` to what the caller may see.
pub(super) fn push_reach(select: &mut QueryBuilder<Db>, reach: &Reach) {
    if let Some(tenant) = &reach.tenant {
        select.push(" AND s.tenant = ").push_bind(tenant.clone());
    }
    if let Some(subscriptions) = &reach.subscriptions {
        select.push(" AND s.id");
        push_among(select, subscriptions.iter().map(|id| id.uuid()));
    }
}

async fn require_plans(connection: &mut Conn, row: &SubscriptionRow) -> Result<(), Failure> {
    // Ascending, as every transaction locks.
    let mut wanted: Vec<_> = row.next_plan.into_iter().chain([row.plan]).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for plan in wanted {
        plans::require(connection, plan).await?;
    }
    Ok(())
}
