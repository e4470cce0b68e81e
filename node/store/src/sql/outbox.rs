//! The outbox: from messages to deliveries, and through the hands of workers.
//!
//! Every change of a message's deliveries first locks the message, in order of ids, and then derives
//! anew what became of it: two channels that finish at the same moment each see the other.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row as _, query, query_scalar};
use uuid::Uuid;
use weir_core::units::Micros;

use super::{Conn, Db, LOCK_FOR_UPDATE, SKIP_LOCKED, decode, push_among};
use crate::failure::Failure;
use crate::number::unsigned;
use crate::outbox::{
    Addressed, ClaimedDelivery, DeliveryClaim, DeliveryStatus, Destination, Ending,
    FinishedDelivery, LANE_DELIVERIES_MAX, OutboxDepth, Unaddressed,
};

const PENDING: i16 = DeliveryStatus::Pending as i16;
const DELIVERED: i16 = DeliveryStatus::Delivered as i16;
const DEAD: i16 = DeliveryStatus::Dead as i16;

/// Why a delivery was dead before it was ever sent.
const LANE_FULL: &str = "too many messages wait for this channel of the subscription";

/// Messages without deliveries, those that matter most first.
pub(super) async fn unaddressed(
    connection: &mut Conn,
    limit: u32,
) -> Result<Vec<Unaddressed>, Failure> {
    let statement = "SELECT e.id, e.kind, s.webhook_url, s.user_email FROM event_queue e \
                     LEFT JOIN api_subscriptions s ON s.id = e.subscription_id \
                     WHERE NOT e.addressed ORDER BY e.priority, e.created_at, e.id LIMIT $1";
    let rows = query(statement).bind(i64::from(limit)).fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        Ok(Unaddressed {
            id: columns.take()?,
            kind: columns.take()?,
            webhook_url: columns.take()?,
            user_email: columns.take()?,
        })
    })
}

/// Makes the deliveries of those messages that still have none.
pub(super) async fn address(
    connection: &mut Conn,
    messages: &[Addressed],
    now: Micros,
) -> Result<(), Failure> {
    let wanted: BTreeMap<Uuid, &Addressed> = messages.iter().map(|one| (one.id, one)).collect();
    for id in lock(connection, wanted.keys().copied(), " AND NOT addressed").await? {
        for destination in wanted.get(&id).into_iter().flat_map(|one| &one.destinations) {
            insert(connection, id, destination, now).await?;
        }
        query("UPDATE event_queue SET addressed = TRUE WHERE id = $1")
            .bind(id)
            .execute(&mut *connection)
            .await?;
        settle(connection, id, now).await?;
    }
    Ok(())
}

/// Takes what is due, or finds what this claim has taken before.
pub(super) async fn claim(
    connection: &mut Conn,
    claim: &DeliveryClaim,
) -> Result<Vec<ClaimedDelivery>, Failure> {
    let again = "UPDATE event_deliveries SET next_attempt_at = $2 WHERE claim = $1 AND status = 0";
    let held = query(again)
        .bind(claim.id)
        .bind(claim.until.get())
        .execute(&mut *connection)
        .await?
        .rows_affected();
    if held == 0 {
        take(connection, claim).await?;
    }
    let statement = "SELECT d.event_id, d.channel, d.endpoint, d.attempts, e.subscription_id, \
                     e.kind, e.payload, e.created_at, s.webhook_url, s.user_email \
                     FROM event_deliveries d JOIN event_queue e ON e.id = d.event_id \
                     LEFT JOIN api_subscriptions s ON s.id = e.subscription_id \
                     WHERE d.claim = $1 AND d.status = 0 \
                     ORDER BY d.priority, d.created_at, d.event_id, d.channel";
    let rows = query(statement).bind(claim.id).fetch_all(connection).await?;
    decode::all(&rows, decode::claimed_delivery)
}

/// The rows are found and locked in a query of their own, so that none is looked at twice and the
/// limit holds; what another transaction holds is passed over, what it changed is looked at anew.
async fn take(connection: &mut Conn, claim: &DeliveryClaim) -> Result<(), Failure> {
    let mut update = QueryBuilder::<Db>::new(
        "WITH due AS MATERIALIZED (SELECT d.event_id, d.channel FROM event_deliveries d \
         WHERE d.status = 0 AND d.next_attempt_at <= ",
    );
    update.push_bind(claim.now.get());
    if !claim.busy.is_empty() {
        update.push(" AND d.endpoint NOT IN (");
        let mut list = update.separated(", ");
        for endpoint in &claim.busy {
            list.push_bind(endpoint.clone());
        }
        update.push(")");
    }
    update.push(
        " AND NOT EXISTS (SELECT 1 FROM event_deliveries o WHERE o.status = 0 \
         AND o.subscription_id = d.subscription_id AND o.channel = d.channel \
         AND (o.priority, o.created_at, o.event_id) < (d.priority, d.created_at, d.event_id)) \
         ORDER BY d.priority, d.next_attempt_at, d.created_at, d.event_id LIMIT ",
    );
    update.push_bind(i64::from(claim.limit)).push(SKIP_LOCKED);
    update.push(") UPDATE event_deliveries SET attempts = attempts + 1, claim = ");
    update.push_bind(claim.id).push(", next_attempt_at = ").push_bind(claim.until.get());
    update.push(" WHERE (event_id, channel) IN (SELECT event_id, channel FROM due)");
    update.build().execute(connection).await?;
    Ok(())
}

/// Ends claims; of each, whether it still held.
pub(super) async fn finish(
    connection: &mut Conn,
    finished: &[FinishedDelivery],
) -> Result<Vec<bool>, Failure> {
    let mut ids: Vec<Uuid> = finished.iter().map(|one| one.message).collect();
    ids.sort_unstable();
    ids.dedup();
    let locked = lock(connection, ids, "").await?;
    let mut held = Vec::with_capacity(finished.len());
    for one in finished {
        held.push(finish_one(connection, one).await?);
    }
    for id in locked {
        let last = finished.iter().zip(&held).filter(|(one, held)| **held && one.message == id);
        if let Some(at) = last.map(|(one, _)| one.at).max() {
            settle(connection, id, at).await?;
        }
    }
    Ok(held)
}

async fn finish_one(connection: &mut Conn, one: &FinishedDelivery) -> Result<bool, Failure> {
    let (status, next, uncounted) = match one.ending {
        Ending::Delivered => (DELIVERED, one.at, 0),
        Ending::Retry(at) => (PENDING, at, 0),
        Ending::Dead => (DEAD, one.at, 0),
        Ending::Released => (PENDING, one.at, 1),
    };
    let finished_at = (status != PENDING).then(|| one.at.get());
    let statement = "UPDATE event_deliveries SET status = $4, next_attempt_at = $5, claim = NULL, \
                     attempts = attempts - $6, finished_at = $7, \
                     last_error = COALESCE($8, last_error) \
                     WHERE event_id = $1 AND channel = $2 AND claim = $3 AND status = 0";
    let done = query(statement)
        .bind(one.message)
        .bind(&one.channel)
        .bind(one.claim)
        .bind(status)
        .bind(next.get())
        .bind(uncounted)
        .bind(finished_at)
        .bind(&one.error)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// How much waits.
pub(super) async fn depth(connection: &mut Conn) -> Result<OutboxDepth, Failure> {
    let statement = "SELECT count(*), min(created_at) FROM event_queue WHERE status = 0";
    let row = query(statement).fetch_one(connection).await?;
    let oldest: Option<i64> = row.try_get(1)?;
    Ok(OutboxDepth { pending: unsigned(row.try_get(0)?)?, oldest: oldest.map(Micros::from_micros) })
}

/// Locks messages in order of ids; those that are there, and are as `also` demands.
pub(super) async fn lock(
    connection: &mut Conn,
    ids: impl IntoIterator<Item = Uuid>,
    also: &'static str,
) -> Result<Vec<Uuid>, Failure> {
    let mut select = QueryBuilder::<Db>::new("SELECT id FROM event_queue WHERE id");
    push_among(&mut select, ids);
    select.push(also).push(" ORDER BY id").push(LOCK_FOR_UPDATE);
    Ok(select.build_query_scalar::<Uuid>().fetch_all(connection).await?)
}

async fn insert(
    connection: &mut Conn,
    message: Uuid,
    destination: &Destination,
    now: Micros,
) -> Result<(), Failure> {
    let waiting = "SELECT count(*) FROM (SELECT 1 FROM event_deliveries d \
                   JOIN event_queue e ON e.subscription_id = d.subscription_id \
                   WHERE e.id = $1 AND d.channel = $2 AND d.status = 0 LIMIT $3) AS waiting";
    let waiting: i64 = query_scalar::<Db, i64>(waiting)
        .bind(message)
        .bind(&destination.channel)
        .bind(i64::from(LANE_DELIVERIES_MAX))
        .fetch_one(&mut *connection)
        .await?;
    let full = waiting >= i64::from(LANE_DELIVERIES_MAX);
    let statement = "INSERT INTO event_deliveries (event_id, channel, endpoint, subscription_id, \
                     priority, created_at, status, next_attempt_at, last_error, finished_at) \
                     SELECT id, $2, $3, subscription_id, priority, created_at, $4, $5, $6, $7 \
                     FROM event_queue WHERE id = $1 ON CONFLICT DO NOTHING";
    query(statement)
        .bind(message)
        .bind(&destination.channel)
        .bind(&destination.endpoint)
        .bind(if full { DEAD } else { PENDING })
        .bind(now.get())
        .bind(full.then_some(LANE_FULL))
        .bind(full.then(|| now.get()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Derives what became of a message from what became of its deliveries.
async fn settle(connection: &mut Conn, message: Uuid, at: Micros) -> Result<(), Failure> {
    let sums = "SELECT count(*) FILTER (WHERE status = 0), count(*) FILTER (WHERE status = 2), \
                COALESCE(max(attempts), 0), min(next_attempt_at) FILTER (WHERE status = 0), \
                max(last_error) FILTER (WHERE status <> 1) \
                FROM event_deliveries WHERE event_id = $1";
    let row = query(sums).bind(message).fetch_one(&mut *connection).await?;
    let (pending, dead): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let attempts: i32 = row.try_get(2)?;
    let next: Option<i64> = row.try_get(3)?;
    let error: Option<String> = row.try_get(4)?;
    let status = match (pending, dead) {
        (0, 0) => DELIVERED,
        (0, _) => DEAD,
        _ => PENDING,
    };
    query(
        "UPDATE event_queue SET status = $2, attempts = $3, last_error = $4, finished_at = $5, \
         next_attempt_at = COALESCE($6, next_attempt_at) WHERE id = $1",
    )
    .bind(message)
    .bind(status)
    .bind(attempts)
    .bind(error)
    .bind((status != PENDING).then(|| at.get()))
    .bind(next)
    .execute(connection)
    .await?;
    Ok(())
}
