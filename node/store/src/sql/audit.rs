//! Who changed what: written in the transaction of the change, read newest first.

use sqlx::{QueryBuilder, query};
use uuid::Uuid;

use super::{Conn, Db, decode, page};
use crate::Page;
use crate::failure::Failure;
use crate::rows::AuditRow;

/// Adds an entry.
pub(super) async fn insert(connection: &mut Conn, audit: &AuditRow) -> Result<(), Failure> {
    let statement = "INSERT INTO audit_log (id, at, actor, action, target_kind, target_id, tenant, \
                     state_before, state_after, reason) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    query(statement)
        .bind(audit.id)
        .bind(audit.at.get())
        .bind(&audit.actor)
        .bind(&audit.action)
        .bind(&audit.target_kind)
        .bind(&audit.target_id)
        .bind(&audit.tenant)
        .bind(&audit.before)
        .bind(&audit.after)
        .bind(&audit.reason)
        .execute(connection)
        .await
        .map_err(|error| Failure::on_unique(error, "id"))?;
    Ok(())
}

/// A page, newest first.
pub(super) async fn list(
    connection: &mut Conn,
    tenant: Option<&str>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Page<AuditRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        audit_columns!(),
        " FROM audit_log a WHERE TRUE"
    ));
    if let Some(tenant) = tenant {
        select.push(" AND a.tenant = ").push_bind(tenant);
    }
    if let Some(before) = before {
        select.push(" AND a.id < ").push_bind(before);
    }
    select.push(" ORDER BY a.id DESC LIMIT ").push_bind(page::fetch(limit));
    let rows = select.build().fetch_all(connection).await?;
    Ok(page::cut(decode::all(&rows, decode::audit)?, limit))
}

/// Entries of some actions, oldest first.
pub(super) async fn changes_after(
    connection: &mut Conn,
    after: Uuid,
    actions: &[&str],
    limit: u32,
) -> Result<Vec<AuditRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(concat!(
        "SELECT ",
        audit_columns!(),
        " FROM audit_log a WHERE a.id > "
    ));
    select.push_bind(after).push(" AND a.action IN (");
    let mut listed = select.separated(", ");
    for action in actions {
        listed.push_bind((*action).to_owned());
    }
    select.push(") ORDER BY a.id LIMIT ").push_bind(i64::from(limit));
    let rows = select.build().fetch_all(connection).await?;
    decode::all(&rows, decode::audit)
}
