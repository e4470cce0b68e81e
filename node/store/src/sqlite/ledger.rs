//! The ledger: group commit of events, and reading it back by shard.

use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::query;
use weir_core::units::{Epoch, Micros, ReservationId, Seq, ShardId, SubscriptionId};

use super::bulk::{Binding, Bulk};
use super::{Conn, decode, json_ids};
use crate::batch;
use crate::failure::Failure;
use crate::number;
use crate::rows::LedgerRow;
use crate::{Appended, Fence};

static IDENTITIES: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO usage_event_ids (subscription_id, event_id, kind, recorded_at, event_time, \
         seq) VALUES",
        6,
        "ON CONFLICT DO NOTHING RETURNING subscription_id, seq",
    )
});

static RECORDS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO usage_records (subscription_id, shard_id, seq, event_id, kind, event_time, \
         recorded_at, units, quantities, charged, outcome, reservation_id, key_id, api_id, \
         api_path, method, status_code, success, response_time_us, request_size, response_size, \
         user_agent, ip_address, country) VALUES",
        24,
        "",
    )
});

/// Inserts the rows whose identities are new.
pub(super) async fn append(
    connection: &mut Conn,
    fence: &Fence,
    rows: &[LedgerRow],
) -> Result<Appended, Failure> {
    batch::assert_rows_fenced(fence, rows);
    hold_fence(connection, fence).await?;
    let ordered = batch::identity_order(rows);
    let returned = IDENTITIES.run(connection, &ordered, |q, row| bind_identity(q, row)).await?;
    let inserted: HashSet<(SubscriptionId, Seq)> = decode::all(&returned, |columns| {
        let subscription = columns.take().map(SubscriptionId::from_uuid)?;
        Ok((subscription, Seq(number::unsigned(columns.take()?)?)))
    })?
    .into_iter()
    .collect();
    let appended = batch::appended(rows, &inserted);
    let mut new: Vec<&LedgerRow> =
        rows.iter().zip(&appended.new).filter(|(_, new)| **new).map(|(row, _)| row).collect();
    // In the order of the table, which is cheapest to insert.
    new.sort_unstable_by_key(|row| (row.shard, row.seq));
    RECORDS.run(connection, &new, |q, row| bind_record(q, row)).await?;
    Ok(appended)
}

fn bind_identity<'q>(statement: Binding<'q>, row: &'q LedgerRow) -> Binding<'q> {
    statement
        .bind(row.subscription.uuid())
        .bind(row.event_id.as_str())
        .bind(row.kind as i16)
        .bind(row.recorded_at.get())
        .bind(row.event_time.get())
        .bind(number::seq(row.seq))
}

fn bind_record<'q>(statement: Binding<'q>, row: &'q LedgerRow) -> Binding<'q> {
    statement
        .bind(row.subscription.uuid())
        .bind(number::shard(row.shard))
        .bind(number::seq(row.seq))
        .bind(row.event_id.as_str())
        .bind(row.kind as i16)
        .bind(row.event_time.get())
        .bind(row.recorded_at.get())
        .bind(row.units)
        .bind(row.quantities.as_deref())
        .bind(row.charged)
        .bind(row.outcome as i16)
        .bind(row.reservation.map(ReservationId::uuid))
        .bind(row.key_id)
        .bind(row.api_id.as_deref())
        .bind(row.api_path.as_str())
        .bind(row.method.as_str())
        .bind(row.status_code)
        .bind(row.success)
        .bind(row.response_time_us)
        .bind(row.request_size)
        .bind(row.response_size)
        .bind(row.user_agent.as_deref())
        .bind(row.ip_address.as_deref())
        .bind(row.country.as_deref())
}

/// Compares the fence with `shards`. The transaction is the only writer, so nothing can change it
/// until the commit.
pub(super) async fn hold_fence(connection: &mut Conn, fence: &Fence) -> Result<(), Failure> {
    let numbers: Vec<u16> = fence.shards.iter().map(|(shard, _)| shard.0).collect();
    let statement = "SELECT shard_id, epoch FROM shards WHERE owner_incarnation = $1 \
                     AND shard_id IN (SELECT value FROM json_each($2))";
    let rows = query(statement)
        .bind(fence.incarnation)
        .bind(serde_json::Value::from(numbers).to_string())
        .fetch_all(connection)
        .await?;
    let held = decode::all(&rows, |columns| {
        let shard = number::shard_id(columns.take()?)?;
        Ok((shard, Epoch(number::unsigned(columns.take()?)?)))
    })?;
    batch::check_fence(fence, &held)
}

/// Rows after the given positions, ascending by (shard, seq). One walk per shard, until there are
/// enough.
pub(super) async fn after(
    connection: &mut Conn,
    positions: &[(ShardId, Seq)],
    limit: u32,
) -> Result<Vec<LedgerRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        ledger_columns!(),
        " FROM usage_records r WHERE r.shard_id = $1 AND r.seq > $2 ORDER BY r.seq LIMIT $3"
    );
    let mut ordered = positions.to_vec();
    ordered.sort_unstable();
    let mut found: Vec<LedgerRow> = Vec::new();
    for (shard, seq) in ordered {
        let left = i64::from(limit) - number::length(found.len());
        if left <= 0 {
            break;
        }
        let rows = query(statement)
            .bind(number::shard(shard))
            .bind(number::seq(seq))
            .bind(left)
            .fetch_all(&mut *connection)
            .await?;
        found.extend(decode::all(&rows, decode::ledger)?);
    }
    Ok(found)
}

/// Rows of these subscriptions after the given positions, ascending by (shard, seq).
pub(super) async fn after_for(
    connection: &mut Conn,
    positions: &[(ShardId, Seq)],
    subscriptions: &[SubscriptionId],
) -> Result<Vec<LedgerRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        ledger_columns!(),
        " FROM usage_records r WHERE r.shard_id = $1 AND r.seq > $2 \
         AND r.subscription_id IN (SELECT unhex(value) FROM json_each($3)) ORDER BY r.seq"
    );
    let ids = json_ids(subscriptions.iter().map(|id| id.uuid()));
    let mut found = Vec::new();
    for (shard, seq) in positions {
        let rows = query(statement)
            .bind(number::shard(*shard))
            .bind(number::seq(*seq))
            .bind(ids.as_str())
            .fetch_all(&mut *connection)
            .await?;
        found.extend(decode::all(&rows, decode::ledger)?);
    }
    Ok(found)
}

/// Forgets at most `limit` identities recorded before `before`.
pub(super) async fn forget(
    connection: &mut Conn,
    before: Micros,
    limit: u32,
) -> Result<u64, Failure> {
    let statement = "DELETE FROM usage_event_ids WHERE (subscription_id, event_id, kind) IN ( \
                     SELECT subscription_id, event_id, kind FROM usage_event_ids \
                     WHERE recorded_at < $1 LIMIT $2)";
    let done =
        query(statement).bind(before.get()).bind(i64::from(limit)).execute(connection).await?;
    Ok(done.rows_affected())
}
