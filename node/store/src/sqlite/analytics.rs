//! Rolling the ledger up into minutes.

use std::sync::LazyLock;

use sqlx::query;

use super::bulk::{Binding, Bulk};
use super::{Conn, decode, ledger};
use crate::failure::Failure;
use crate::rows::RollupRow;
use crate::{CursorMove, Fence, MergeDetail, number, rollups};

static UPSERT: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO api_usage_analytics (subscription_id, minute, path, method, requests, units, \
         errors, denied, bytes_in, bytes_out, detail) VALUES",
        11,
        "ON CONFLICT (subscription_id, minute, path, method) DO UPDATE SET \
         requests = excluded.requests, units = excluded.units, errors = excluded.errors, \
         denied = excluded.denied, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, \
         detail = excluded.detail",
    )
});

/// Moves the cursors and adds the deltas, or does nothing.
pub(super) async fn roll(
    connection: &mut Conn,
    fence: &Fence,
    cursors: &[CursorMove],
    deltas: &[RollupRow],
    merge: MergeDetail<'_>,
) -> Result<(), Failure> {
    ledger::hold_fence(connection, fence).await?;
    for cursor in cursors {
        let moved =
            query("UPDATE shard_progress SET rolled = $3 WHERE shard_id = $1 AND rolled = $2")
                .bind(number::shard(cursor.shard))
                .bind(number::seq(cursor.from))
                .bind(number::seq(cursor.to))
                .execute(&mut *connection)
                .await?;
        if moved.rows_affected() != 1 {
            return Err(Failure::Conflict("cursor"));
        }
    }
    let existing = existing(connection, deltas).await?;
    let merged = rollups::add(&existing, deltas, merge);
    UPSERT.run(connection, &merged, bind_rollup).await?;
    Ok(())
}

async fn existing(connection: &mut Conn, deltas: &[RollupRow]) -> Result<Vec<RollupRow>, Failure> {
    let statement = concat!(
        "SELECT ",
        rollup_columns!(),
        " FROM api_usage_analytics u WHERE u.subscription_id = $1 AND u.minute = $2 \
         AND u.path = $3 AND u.method = $4"
    );
    let mut found = Vec::new();
    for delta in deltas {
        let row = query(statement)
            .bind(delta.subscription.uuid())
            .bind(delta.minute.get())
            .bind(delta.path.as_str())
            .bind(delta.method.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        found.extend(decode::maybe(row.as_ref(), decode::rollup)?);
    }
    Ok(found)
}

fn bind_rollup<'q>(statement: Binding<'q>, row: &'q RollupRow) -> Binding<'q> {
    statement
        .bind(row.subscription.uuid())
        .bind(row.minute.get())
        .bind(row.path.as_str())
        .bind(row.method.as_str())
        .bind(row.sums.requests)
        .bind(row.sums.units)
        .bind(row.sums.errors)
        .bind(row.sums.denied)
        .bind(row.sums.bytes_in)
        .bind(row.sums.bytes_out)
        .bind(row.detail.as_slice())
}
