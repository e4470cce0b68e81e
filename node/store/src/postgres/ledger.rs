//! The ledger: group commit of events, and reading it back by shard.

use std::collections::HashSet;

use sqlx::{Row as _, query};
use uuid::Uuid;
use weir_core::units::{Epoch, Micros, ReservationId, Seq, ShardId, SubscriptionId};

use super::{Conn, decode};
use crate::batch;
use crate::failure::Failure;
use crate::number;
use crate::rows::LedgerRow;
use crate::{Appended, Fence};

/// Locks the fence's shards and inserts the identities, in one round trip. The count of shards held
/// is looked at before anything is inserted, so a writer that lost its shards blocks nobody. Which
/// identities were new is only spelled out when some were not.
const FENCE_AND_IDENTITIES: &str = "\
    WITH held AS MATERIALIZED ( \
        SELECT shard_id, epoch FROM shards \
        WHERE shard_id = ANY($1) AND owner_incarnation = $2 ORDER BY shard_id FOR SHARE \
    ), fresh AS ( \
        INSERT INTO usage_event_ids \
            (subscription_id, event_id, kind, recorded_at, event_time, seq) \
        SELECT * FROM UNNEST($3::uuid[], $4::text[], $5::smallint[], $6::bigint[], $7::bigint[], \
                             $8::bigint[]) \
        WHERE (SELECT count(*) FROM held) = cardinality($1) \
        ON CONFLICT DO NOTHING RETURNING subscription_id, seq \
    ) \
    SELECT (SELECT array_agg(shard_id) FROM held), (SELECT array_agg(epoch) FROM held), count(*), \
           CASE WHEN count(*) < cardinality($3) THEN array_agg(subscription_id) END, \
           CASE WHEN count(*) < cardinality($3) THEN array_agg(seq) END \
    FROM fresh";

const RECORDS: &str = "\
    INSERT INTO usage_records (subscription_id, shard_id, seq, event_id, kind, event_time, \
        recorded_at, units, quantities, charged, outcome, reservation_id, key_id, api_id, \
        api_path, method, status_code, success, response_time_us, request_size, response_size, \
        user_agent, ip_address, country) \
    SELECT * FROM UNNEST($1::uuid[], $2::integer[], $3::bigint[], $4::text[], $5::smallint[], \
        $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::boolean[], $11::smallint[], \
        $12::uuid[], $13::uuid[], $14::text[], $15::text[], $16::text[], $17::smallint[], \
        $18::boolean[], $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], \
        $24::text[])";

/// Inserts the rows whose identities are new.
pub(super) async fn append(
    connection: &mut Conn,
    fence: &Fence,
    rows: &[LedgerRow],
) -> Result<Appended, Failure> {
    batch::assert_rows_fenced(fence, rows);
    let appended = insert_identities(connection, fence, rows).await?;
    let new: Vec<&LedgerRow> =
        rows.iter().zip(&appended.new).filter(|(_, new)| **new).map(|(row, _)| row).collect();
    if !new.is_empty() {
        insert_records(connection, &new).await?;
    }
    Ok(appended)
}

async fn insert_identities(
    connection: &mut Conn,
    fence: &Fence,
    rows: &[LedgerRow],
) -> Result<Appended, Failure> {
    let ordered = batch::identity_order(rows);
    let row = query(FENCE_AND_IDENTITIES)
        .bind(shard_numbers(fence))
        .bind(fence.incarnation)
        .bind(ordered.iter().map(|row| row.subscription.uuid()).collect::<Vec<_>>())
        .bind(ordered.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>())
        .bind(ordered.iter().map(|row| row.kind as i16).collect::<Vec<_>>())
        .bind(ordered.iter().map(|row| row.recorded_at.get()).collect::<Vec<_>>())
        .bind(ordered.iter().map(|row| row.event_time.get()).collect::<Vec<_>>())
        .bind(ordered.iter().map(|row| number::seq(row.seq)).collect::<Vec<_>>())
        .fetch_one(connection)
        .await?;
    let held = zip_held(row.try_get(0)?, row.try_get(1)?)?;
    batch::check_fence(fence, &held)?;
    let count: i64 = row.try_get(2)?;
    if count == number::length(rows.len()) {
        return Ok(Appended { new: vec![true; rows.len()] });
    }
    let subscriptions: Option<Vec<Uuid>> = row.try_get(3)?;
    let positions: Option<Vec<i64>> = row.try_get(4)?;
    let mut inserted = HashSet::new();
    for (id, seq) in subscriptions.into_iter().flatten().zip(positions.into_iter().flatten()) {
        inserted.insert((SubscriptionId::from_uuid(id), Seq(number::unsigned(seq)?)));
    }
    Ok(batch::appended(rows, &inserted))
}

async fn insert_records(connection: &mut Conn, rows: &[&LedgerRow]) -> Result<(), Failure> {
    /// One column of the batch.
    macro_rules! column {
        (|$row:ident| $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    query(RECORDS)
        .bind(column!(|row| row.subscription.uuid()))
        .bind(column!(|row| number::shard(row.shard)))
        .bind(column!(|row| number::seq(row.seq)))
        .bind(column!(|row| row.event_id.as_str()))
        .bind(column!(|row| row.kind as i16))
        .bind(column!(|row| row.event_time.get()))
        .bind(column!(|row| row.recorded_at.get()))
        .bind(column!(|row| row.units))
        .bind(column!(|row| row.quantities.as_deref()))
        .bind(column!(|row| row.charged))
        .bind(column!(|row| row.outcome as i16))
        .bind(column!(|row| row.reservation.map(ReservationId::uuid)))
        .bind(column!(|row| row.key_id))
        .bind(column!(|row| row.api_id.as_deref()))
        .bind(column!(|row| row.api_path.as_str()))
        .bind(column!(|row| row.method.as_str()))
        .bind(column!(|row| row.status_code))
        .bind(column!(|row| row.success))
        .bind(column!(|row| row.response_time_us))
        .bind(column!(|row| row.request_size))
        .bind(column!(|row| row.response_size))
        .bind(column!(|row| row.user_agent.as_deref()))
        .bind(column!(|row| row.ip_address.as_deref()))
        .bind(column!(|row| row.country.as_deref()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Locks the fence's shards for the rest of the transaction, or tells which are lost.
pub(super) async fn hold_fence(connection: &mut Conn, fence: &Fence) -> Result<(), Failure> {
    let statement = "SELECT shard_id, epoch FROM shards \
                     WHERE shard_id = ANY($1) AND owner_incarnation = $2 ORDER BY shard_id FOR \
                         SHARE";
    let rows = query(statement)
        .bind(shard_numbers(fence))
        .bind(fence.incarnation)
        .fetch_all(connection)
        .await?;
    let held = decode::all(&rows, |columns| {
        let shard = number::shard_id(columns.take()?)?;
        Ok((shard, Epoch(number::unsigned(columns.take()?)?)))
    })?;
    batch::check_fence(fence, &held)
}

/// Numbers of the fence's shards.
pub(super) fn shard_numbers(fence: &Fence) -> Vec<i32> {
    fence.shards.iter().map(|(shard, _)| number::shard(*shard)).collect()
}

/// Pairs the arrays of shards and epochs that a merged fence returns.
pub(super) fn zip_held(
    shards: Option<Vec<i32>>,
    epochs: Option<Vec<i64>>,
) -> Result<Vec<(ShardId, Epoch)>, Failure> {
    let pairs = shards.into_iter().flatten().zip(epochs.into_iter().flatten());
    pairs
        .map(|(shard, epoch)| Ok((number::shard_id(shard)?, Epoch(number::unsigned(epoch)?))))
        .collect()
}

/// Rows after the given positions, ascending by (shard, seq). Each shard is one walk in its index;
/// the walks follow each other, so the limit ends the last one early.
pub(super) async fn after(
    connection: &mut Conn,
    positions: &[(ShardId, Seq)],
    limit: u32,
) -> Result<Vec<LedgerRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        ledger_columns!(),
        " FROM (SELECT * FROM UNNEST($1::integer[], $2::bigint[]) w (shard_id, seq) \
                ORDER BY shard_id) w \
         CROSS JOIN LATERAL (SELECT * FROM usage_records l \
             WHERE l.shard_id = w.shard_id AND l.seq > w.seq ORDER BY l.seq LIMIT $3) r LIMIT $3"
    );
    let rows = query(statement)
        .bind(positions.iter().map(|(shard, _)| number::shard(*shard)).collect::<Vec<_>>())
        .bind(positions.iter().map(|(_, seq)| number::seq(*seq)).collect::<Vec<_>>())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let rows = decode::all(&rows, decode::ledger)?;
    // A lateral join can only follow its outer side; should that ever change, a limit would cut
    // wrongly.
    if rows.is_sorted_by_key(|row| (row.shard, row.seq)) {
        Ok(rows)
    } else {
        Err(Failure::Damaged("the ledger came back out of order".to_owned()))
    }
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
        " FROM UNNEST($1::integer[], $2::bigint[]) w (shard_id, seq) \
         CROSS JOIN LATERAL (SELECT * FROM usage_records l \
             WHERE l.shard_id = w.shard_id AND l.seq > w.seq OFFSET 0) r \
         WHERE r.subscription_id = ANY($3) ORDER BY r.shard_id, r.seq"
    );
    let rows = query(statement)
        .bind(positions.iter().map(|(shard, _)| number::shard(*shard)).collect::<Vec<_>>())
        .bind(positions.iter().map(|(_, seq)| number::seq(*seq)).collect::<Vec<_>>())
        .bind(subscriptions.iter().map(|id| id.uuid()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    decode::all(&rows, decode::ledger)
}

/// Forgets at most `limit` identities recorded before `before`.
pub(super) async fn forget(
    connection: &mut Conn,
    before: Micros,
    limit: u32,
) -> Result<u64, Failure> {
    let statement = "DELETE FROM usage_event_ids WHERE ctid = ANY (ARRAY( \
                     SELECT ctid FROM usage_event_ids WHERE recorded_at < $1 LIMIT $2))";
    let done =
        query(statement).bind(before.get()).bind(i64::from(limit)).execute(connection).await?;
    Ok(done.rows_affected())
}
