//! Rolling the ledger up into minutes.

use sqlx::query;

use super::{Conn, decode, ledger};
use crate::failure::Failure;
use crate::rollups;
use crate::rows::RollupRow;
use crate::{CursorMove, Fence, MergeDetail, number};

/// Compare-and-set of every cursor. Locked in order first: checkpoints write the same rows.
const MOVE_CURSORS: &str = "\
    WITH locked AS MATERIALIZED ( \
        SELECT p.shard_id, w.stands_at, w.goes_to \
        FROM UNNEST($1::integer[], $2::bigint[], $3::bigint[]) w (shard_id, stands_at, goes_to) \
        JOIN shard_progress p ON p.shard_id = w.shard_id ORDER BY p.shard_id FOR UPDATE OF p \
    ) \
    UPDATE shard_progress p SET rolled = locked.goes_to FROM locked \
    WHERE p.shard_id = locked.shard_id AND p.rolled = locked.stands_at";

const EXISTING: &str = concat!(
    "SELECT ",
    rollup_columns!(),
    " FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[]) \
         w (subscription_id, minute, path, method) \
     JOIN api_usage_analytics u ON u.subscription_id = w.subscription_id AND u.minute = w.minute \
         AND u.path = w.path AND u.method = w.method"
);

const UPSERT: &str = "\
    INSERT INTO api_usage_analytics (subscription_id, minute, path, method, requests, units, \
        errors, denied, bytes_in, bytes_out, detail) \
    SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], \
        $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[]) \
    ON CONFLICT (subscription_id, minute, path, method) DO UPDATE SET \
        requests = excluded.requests, units = excluded.units, errors = excluded.errors, \
        denied = excluded.denied, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, \
        detail = excluded.detail";

/// Moves the cursors and adds the deltas, or does nothing.
pub(super) async fn roll(
    connection: &mut Conn,
    fence: &Fence,
    cursors: &[CursorMove],
    deltas: &[RollupRow],
    merge: MergeDetail<'_>,
) -> Result<(), Failure> {
    ledger::hold_fence(connection, fence).await?;
    let moved = query(MOVE_CURSORS)
        .bind(cursors.iter().map(|cursor| number::shard(cursor.shard)).collect::<Vec<_>>())
        .bind(cursors.iter().map(|cursor| number::seq(cursor.from)).collect::<Vec<_>>())
        .bind(cursors.iter().map(|cursor| number::seq(cursor.to)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() != cursors.len() as u64 {
        return Err(Failure::Conflict("cursor"));
    }
    if deltas.is_empty() {
        return Ok(());
    }
    // The cursors' rows are locked, so nobody else adds to these keys until we are done.
    let existing = query(EXISTING)
        .bind(deltas.iter().map(|row| row.subscription.uuid()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|row| row.minute.get()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|row| row.path.as_str()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|row| row.method.as_str()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let merged = rollups::add(&decode::all(&existing, decode::rollup)?, deltas, merge);
    upsert(connection, &merged).await
}

async fn upsert(connection: &mut Conn, rows: &[RollupRow]) -> Result<(), Failure> {
    query(UPSERT)
        .bind(rows.iter().map(|row| row.subscription.uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.minute.get()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.method.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sums.requests).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sums.units).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sums.errors).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sums.denied).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sums.bytes_in).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sums.bytes_out).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.detail.as_slice()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
