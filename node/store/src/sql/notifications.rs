//! The outbox as people see it: what was sent, what was not, and sending it again.

use sqlx::{QueryBuilder, query, query_scalar};
use uuid::Uuid;
use weir_core::units::Micros;

use super::subscriptions::push_reach;
use super::{Conn, Db, audit, decode, outbox, page, push_among};
use crate::failure::Failure;
use crate::outbox::{DeliveryStatus, NotificationFilter, NotificationRow};
use crate::rows::AuditRow;
use crate::{Page, Reach};

const SELECT: &str = concat!(
    "SELECT ",
    notification_columns!(),
    " FROM event_queue e JOIN api_subscriptions s ON s.id = e.subscription_id WHERE TRUE"
);

/// A page, newest first.
pub(super) async fn list(
    connection: &mut Conn,
    filter: &NotificationFilter,
) -> Result<Page<NotificationRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(SELECT);
    push_reach(&mut select, &filter.reach);
    if let Some(kind) = &filter.kind {
        select.push(" AND e.kind = ").push_bind(kind.clone());
    }
    if let Some(status) = filter.status {
        select.push(" AND e.status = ").push_bind(status as i16);
    }
    if let Some(subscription) = filter.subscription {
        select.push(" AND e.subscription_id = ").push_bind(subscription.uuid());
    }
    if let Some(before) = filter.before {
        select.push(" AND e.id < ").push_bind(before);
    }
    select.push(" ORDER BY e.id DESC LIMIT ").push_bind(page::fetch(filter.limit));
    let rows = select.build().fetch_all(&mut *connection).await?;
    let mut page = page::cut(decode::all(&rows, decode::notification)?, filter.limit);
    add_deliveries(connection, &mut page.data).await?;
    Ok(page)
}

/// One, within reach.
pub(super) async fn find(
    connection: &mut Conn,
    id: Uuid,
    reach: &Reach,
) -> Result<Option<NotificationRow>, Failure> {
    let mut select = QueryBuilder::<Db>::new(SELECT);
    push_reach(&mut select, reach);
    select.push(" AND e.id = ").push_bind(id);
    let row = select.build().fetch_optional(&mut *connection).await?;
    let mut found = decode::maybe(row.as_ref(), decode::notification)?;
    add_deliveries(connection, found.as_mut_slice()).await?;
    Ok(found)
}

/// Makes a message that is finished unaddressed again, without the deliveries that were given up,
/// or, when none was, without any.
pub(super) async fn redeliver(
    connection: &mut Conn,
    id: Uuid,
    now: Micros,
    entry: &AuditRow,
) -> Result<(), Failure> {
    if outbox::lock(connection, [id], "").await?.is_empty() {
        return Err(Failure::NotFound("notification"));
    }
    let finished = outbox::lock(connection, [id], " AND addressed AND status <> 0").await?;
    if finished.is_empty() {
        return Err(Failure::Conflict("pending"));
    }
    let dead = "SELECT count(*) FROM event_deliveries WHERE event_id = $1 AND status = 2";
    let dead: i64 = query_scalar::<Db, i64>(dead).bind(id).fetch_one(&mut *connection).await?;
    query("DELETE FROM event_deliveries WHERE event_id = $1 AND (status = 2 OR $2)")
        .bind(id)
        .bind(dead == 0)
        .execute(&mut *connection)
        .await?;
    query(
        "UPDATE event_queue SET addressed = FALSE, status = $2, attempts = 0, finished_at = NULL, \
         next_attempt_at = $3 WHERE id = $1",
    )
    .bind(id)
    .bind(DeliveryStatus::Pending as i16)
    .bind(now.get())
    .execute(&mut *connection)
    .await?;
    audit::insert(connection, entry).await
}

async fn add_deliveries(
    connection: &mut Conn,
    messages: &mut [NotificationRow],
) -> Result<(), Failure> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut select = QueryBuilder::<Db>::new(
        "SELECT d.event_id, d.channel, d.endpoint, d.status, d.attempts, d.next_attempt_at, \
         d.last_error, d.finished_at FROM event_deliveries d WHERE d.event_id",
    );
    push_among(&mut select, messages.iter().map(|message| message.id));
    select.push(" ORDER BY d.event_id, d.channel");
    let rows = select.build().fetch_all(connection).await?;
    for (id, delivery) in decode::all(&rows, decode::delivery)? {
        // Newest first, by id.
        if let Ok(at) = messages.binary_search_by(|message| id.cmp(&message.id)) {
            messages[at].deliveries.push(delivery);
        }
    }
    Ok(())
}
