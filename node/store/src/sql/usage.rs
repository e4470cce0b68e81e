//! Usage over a range of time: rolled minutes, plus the ledger rows that are not in them.
//!
//! Invariant: every ledger row in the range that counts in sums (usage, and commits that charged) is
//! seen exactly once. A row is in the rollup of its minute if and only if its `seq` is not after its
//! shard's `rolled` cursor, and the cursor moves in the transaction that writes the rollup; so both
//! must be read in one snapshot of the database.

use sqlx::{QueryBuilder, query, query_scalar};
use weir_core::units::{Micros, SubscriptionId};

use super::subscriptions::push_reach;
use super::{Conn, Db, SUMS, decode, push_among, push_unrolled};
use crate::failure::Failure;
use crate::number::whole_minutes;
use crate::rows::{LedgerRow, RollupRow, RollupSums};
use crate::{Reach, SubscriptionUsage, UsageWindow};

/// One subscription's usage in `[from, to)`. Runs inside a snapshot.
pub(super) async fn window(
    connection: &mut Conn,
    subscription: SubscriptionId,
    from: Micros,
    to: Micros,
) -> Result<UsageWindow, Failure> {
    let (start, end) = whole_minutes(from, to);
    if start >= end {
        let rows = rows_between(connection, subscription, &[(from.get(), to.get(), None)]).await?;
        return Ok(UsageWindow { rollups: Vec::new(), rows });
    }
    let rolled = rolled_position(connection, subscription, start, end).await?;
    let rollups = rollups_between(connection, subscription, start, end).await?;
    let ranges = [(from.get(), start, None), (start, end, Some(rolled)), (end, to.get(), None)];
    let rows = rows_between(connection, subscription, &ranges).await?;
    Ok(UsageWindow { rollups, rows })
}

/// When a subscription's first usage in `[from, to)` was.
pub(super) async fn next(
    connection: &mut Conn,
    subscription: SubscriptionId,
    from: Micros,
    to: Micros,
) -> Result<Option<Micros>, Failure> {
    // One step into each of two indexes.
    let statement = "SELECT min(first.at) FROM ( \
         SELECT (SELECT u.minute FROM api_usage_analytics u WHERE u.subscription_id = $1 \
             AND u.minute >= $2 AND u.minute < $3 ORDER BY u.minute LIMIT 1) AS at \
         UNION ALL \
         SELECT (SELECT r.event_time FROM usage_records r WHERE r.subscription_id = $1 \
             AND r.event_time >= $2 AND r.event_time < $3 ORDER BY r.event_time LIMIT 1)) first";
    let first = query_scalar::<Db, Option<i64>>(statement)
        .bind(subscription.uuid())
        .bind(from.get())
        .bind(to.get())
        .fetch_one(connection)
        .await?;
    Ok(first.map(Micros::from_micros))
}

/// Sums per subscription over the whole minutes of `[from, to)`, most requests first. One
/// statement, hence one snapshot.
pub(super) async fn by_subscription(
    connection: &mut Conn,
    reach: &Reach,
    from: Micros,
    to: Micros,
    limit: u32,
) -> Result<Vec<SubscriptionUsage>, Failure> {
    let (start, end) = whole_minutes(from, to);
    if start >= end {
        return Ok(Vec::new());
    }
    let mut select = QueryBuilder::<Db>::new("SELECT m.subscription_id, ");
    select.push(SUMS).push(" FROM (");
    push_measures(&mut select, reach, start, end);
    select.push(") m JOIN api_subscriptions s ON s.id = m.subscription_id WHERE s.status <> 2");
    push_reach(&mut select, reach);
    select.push(" GROUP BY m.subscription_id ORDER BY 2 DESC, 1 LIMIT ");
    select.push_bind(i64::from(limit));
    let rows = select.build().fetch_all(connection).await?;
    decode::all(&rows, |columns| {
        let subscription = columns.take().map(SubscriptionId::from_uuid)?;
        Ok(SubscriptionUsage { subscription, sums: decode::sums(columns)? })
    })
}

/// Sums over everything within reach, deleted subscriptions included: their traffic did happen.
pub(super) async fn totals(
    connection: &mut Conn,
    reach: &Reach,
    from: Micros,
    to: Micros,
) -> Result<RollupSums, Failure> {
    let (start, end) = whole_minutes(from, to);
    if start >= end {
        return Ok(RollupSums::default());
    }
    let mut select = QueryBuilder::<Db>::new("SELECT ");
    select.push(SUMS).push(" FROM (");
    push_measures(&mut select, reach, start, end);
    select.push(") m");
    if *reach != Reach::default() {
        select.push(" JOIN api_subscriptions s ON s.id = m.subscription_id WHERE TRUE");
        push_reach(&mut select, reach);
    }
    let row = select.build().fetch_one(connection).await?;
    decode::sums(&mut decode::Columns::of(&row))
}

/// Rollups of `[start, end)` and, row by row, what is not in them.
fn push_measures(select: &mut QueryBuilder<Db>, reach: &Reach, start: i64, end: i64) {
    select.push(
        "SELECT u.subscription_id, u.requests, u.units, u.errors, u.denied, u.bytes_in, \
         u.bytes_out FROM api_usage_analytics u WHERE u.minute >= ",
    );
    select.push_bind(start).push(" AND u.minute < ").push_bind(end);
    if let Some(subscriptions) = &reach.subscriptions {
        select.push(" AND u.subscription_id");
        push_among(select, subscriptions.iter().map(|id| id.uuid()));
    }
    select.push(
        " UNION ALL SELECT r.subscription_id, CASE WHEN r.kind = 0 THEN 1 ELSE 0 END, \
         CASE WHEN r.charged THEN r.units ELSE 0 END, \
         CASE WHEN r.kind = 0 AND r.status_code >= 400 AND r.outcome <> 1 THEN 1 ELSE 0 END, \
         CASE WHEN r.kind = 0 AND r.outcome = 1 THEN 1 ELSE 0 END, \
         CASE WHEN r.kind = 0 THEN COALESCE(r.request_size, 0) ELSE 0 END, \
         CASE WHEN r.kind = 0 THEN COALESCE(r.response_size, 0) ELSE 0 END FROM ",
    );
    push_unrolled(select, start, end);
    if let Some(subscriptions) = &reach.subscriptions {
        select.push(" WHERE r.subscription_id");
        push_among(select, subscriptions.iter().map(|id| id.uuid()));
    }
}

/// Where the cursor of the subscription's shard stands. Any row in the range names the shard;
/// without one there is nothing to tell apart.
async fn rolled_position(
    connection: &mut Conn,
    subscription: SubscriptionId,
    start: i64,
    end: i64,
) -> Result<i64, Failure> {
    let statement = "SELECT p.rolled FROM shard_progress p WHERE p.shard_id = \
                     (SELECT r.shard_id FROM usage_records r WHERE r.subscription_id = $1 \
                      AND r.event_time >= $2 AND r.event_time < $3 LIMIT 1)";
    let rolled = query_scalar::<Db, i64>(statement)
        .bind(subscription.uuid())
        .bind(start)
        .bind(end)
        .fetch_optional(connection)
        .await?;
    Ok(rolled.unwrap_or(0))
}

async fn rollups_between(
    connection: &mut Conn,
    subscription: SubscriptionId,
    start: i64,
    end: i64,
) -> Result<Vec<RollupRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        rollup_columns!(),
        " FROM api_usage_analytics u \
         WHERE u.subscription_id = $1 AND u.minute >= $2 AND u.minute < $3 \
         ORDER BY u.minute, u.path, u.method"
    );
    let rows = query(statement)
        .bind(subscription.uuid())
        .bind(start)
        .bind(end)
        .fetch_all(connection)
        .await?;
    decode::all(&rows, decode::rollup)
}

/// Rows that count in each `[start, end)`, there only those after the position if one is given.
/// Each range is a scan of its own in the index (subscription, time, seq).
async fn rows_between(
    connection: &mut Conn,
    subscription: SubscriptionId,
    ranges: &[(i64, i64, Option<i64>)],
) -> Result<Vec<LedgerRow>, Failure> {
    let mut found = Vec::new();
    for &(start, end, after) in ranges {
        if start >= end {
            continue;
        }
        let mut select = QueryBuilder::<Db>::new(concat!(
            "SELECT ",
            ledger_columns!(),
            " FROM usage_records r WHERE ",
            counts_in_sums!("r"),
            " AND r.subscription_id = "
        ));
        select.push_bind(subscription.uuid());
        select.push(" AND r.event_time >= ").push_bind(start);
        select.push(" AND r.event_time < ").push_bind(end);
        if let Some(after) = after {
            select.push(" AND r.seq > ").push_bind(after);
        }
        select.push(" ORDER BY r.event_time, r.seq");
        let rows = select.build().fetch_all(&mut *connection).await?;
        found.extend(decode::all(&rows, decode::ledger)?);
    }
    Ok(found)
}
