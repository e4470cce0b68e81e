//! Checkpoints: one statement per table, all in one fenced transaction.

use sqlx::{Row as _, query, query_scalar};
use weir_core::units::{PlanId, Seq, ShardId, SubscriptionId};

use super::{Conn, ledger};
use crate::Fence;
use crate::batch;
use crate::failure::Failure;
use crate::number;
use crate::rows::{CheckpointBatch, CheckpointRow, OutboxRow, PeriodDelta, ReservationRow};

/// Moves the lane to this batch and locks the fence's shards, in one round trip. The lane moves
/// from the number before, or is made for the first batch; a repeat waits for the first try's
/// transaction and then does not move.
const MOVE_AND_FENCE: &str = "\
    WITH moved AS ( \
        INSERT INTO checkpoint_batches AS b (incarnation, lane, number) \
        SELECT $2, $3, $4 WHERE $4 = 1 OR EXISTS \
            (SELECT 1 FROM checkpoint_batches WHERE incarnation = $2 AND lane = $3) \
        ON CONFLICT (incarnation, lane) DO UPDATE SET number = excluded.number \
            WHERE b.number = excluded.number - 1 \
        RETURNING number \
    ), held AS MATERIALIZED ( \
        SELECT shard_id, epoch FROM shards \
        WHERE shard_id = ANY($1) AND owner_incarnation = $2 ORDER BY shard_id FOR SHARE \
    ) \
    SELECT EXISTS (SELECT 1 FROM moved), (SELECT array_agg(shard_id) FROM held), \
           (SELECT array_agg(epoch) FROM held)";

/// Newer state replaces older, and what of it the catalogue shows is copied there in the same
/// breath.
const SUBSCRIPTIONS: &str = "\
    WITH taken AS ( \
        INSERT INTO subscription_checkpoints AS c (subscription_id, shard_id, epoch, version, \
            last_seq, used, quota_limit, period_start, period_end, escrow_hi, clean, snapshot, \
            taken_at) \
        SELECT * FROM UNNEST($1::uuid[], $2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], \
            $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::boolean[], \
            $12::bytea[], $13::bigint[]) \
        ON CONFLICT (subscription_id) DO UPDATE SET shard_id = excluded.shard_id, \
            epoch = excluded.epoch, version = excluded.version, last_seq = excluded.last_seq, \
            used = excluded.used, quota_limit = excluded.quota_limit, \
            period_start = excluded.period_start, period_end = excluded.period_end, \
            escrow_hi = excluded.escrow_hi, clean = excluded.clean, snapshot = excluded.snapshot, \
            taken_at = excluded.taken_at \
        WHERE (c.epoch, c.version) < (excluded.epoch, excluded.version) \
        RETURNING c.subscription_id, c.used \
    ) \
    UPDATE api_subscriptions s SET requests_used = taken.used FROM taken \
    WHERE s.id = taken.subscription_id AND s.requests_used <> taken.used";

const PERIODS: &str = "\
    INSERT INTO billing_periods AS p (subscription_id, quota, meter, period_start, period_end, \
        used, quota_limit, plan_id, plan_version) \
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], \
        $6::bigint[], $7::bigint[], $8::uuid[], $9::integer[]) \
    ON CONFLICT (subscription_id, quota, period_start) DO UPDATE SET \
        used = p.used + excluded.used, period_end = excluded.period_end, \
        quota_limit = excluded.quota_limit, plan_id = excluded.plan_id, \
        plan_version = excluded.plan_version";

const SEGMENTS: &str = "\
    INSERT INTO billing_segments AS g (subscription_id, quota, period_start, until_at, used, \
        overage_from, plan_id, plan_version, priced_as) \
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], \
        $6::bigint[], $7::uuid[], $8::integer[], $9::text[]) \
    ON CONFLICT (subscription_id, quota, period_start, until_at) DO UPDATE SET \
        used = g.used + excluded.used";

const OUTBOX: &str = "\
    INSERT INTO event_queue (id, subscription_id, kind, priority, idempotency_key, payload, \
        created_at, next_attempt_at) \
    SELECT id, subscription_id, kind, priority, idempotency_key, payload, created_at, created_at \
    FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::smallint[], $5::text[], $6::text[], \
            $7::bigint[]) \
        m (id, subscription_id, kind, priority, idempotency_key, payload, created_at) \
    ON CONFLICT (idempotency_key) DO NOTHING";

const RESERVATIONS: &str = "\
    INSERT INTO quota_reservations (id, subscription_id, amounts, created_at, expires_at) \
    SELECT * FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[]) \
    ON CONFLICT (id) DO NOTHING";

/// Only where the plan is still the one waited for: a change made meanwhile by hand stands.
const PLAN_SWITCHES: &str = "\
    UPDATE api_subscriptions s \
    SET plan_id = w.plan_id, next_plan_id = NULL, revision = s.revision + 1 \
    FROM UNNEST($1::uuid[], $2::uuid[]) w (id, plan_id) \
    WHERE s.id = w.id AND s.next_plan_id = w.plan_id";

/// Locked in order first: analytics moves its cursor in the same rows.
const COUNTED: &str = "\
    WITH locked AS MATERIALIZED ( \
        SELECT p.shard_id, w.counted \
        FROM UNNEST($1::integer[], $2::bigint[]) w (shard_id, counted) \
        JOIN shard_progress p ON p.shard_id = w.shard_id ORDER BY p.shard_id FOR UPDATE OF p \
    ) \
    UPDATE shard_progress p SET counted = locked.counted FROM locked \
    WHERE p.shard_id = locked.shard_id AND p.counted < locked.counted";

/// Writes a batch, or nothing when it was written before.
pub(super) async fn write(
    connection: &mut Conn,
    fence: &Fence,
    batch: &CheckpointBatch,
) -> Result<(), Failure> {
    batch::assert_batch_fenced(fence, batch);
    if !begin_batch(connection, fence, batch).await? {
        return Ok(());
    }
    subscriptions(connection, &batch.subscriptions).await?;
    periods(connection, &batch::periods(&batch.periods)).await?;
    segments(connection, &batch::segments(&batch.periods)).await?;
    outbox(connection, &batch.outbox).await?;
    reservations(connection, &batch.reservations).await?;
    plan_switches(connection, &batch::plan_switches(&batch.plan_switches)).await?;
    counted(connection, &batch::counted(&batch.counted)).await
}

/// `false`: this batch is already in.
async fn begin_batch(
    connection: &mut Conn,
    fence: &Fence,
    batch: &CheckpointBatch,
) -> Result<bool, Failure> {
    let row = query(MOVE_AND_FENCE)
        .bind(ledger::shard_numbers(fence))
        .bind(fence.incarnation)
        .bind(batch.lane)
        .bind(batch.number)
        .fetch_one(&mut *connection)
        .await?;
    let moved: bool = row.try_get(0)?;
    if moved {
        let held = ledger::zip_held(row.try_get(1)?, row.try_get(2)?)?;
        return batch::check_fence(fence, &held).map(|()| true);
    }
    // A statement of its own: it must see what the move waited for. What stands committed was
    // fenced when it was written, so the answer holds even if the shards are lost by now.
    let stands: Option<i64> =
        query_scalar("SELECT number FROM checkpoint_batches WHERE incarnation = $1 AND lane = $2")
            .bind(fence.incarnation)
            .bind(batch.lane)
            .fetch_optional(connection)
            .await?;
    if stands == Some(batch.number) { Ok(false) } else { Err(Failure::Conflict("batch number")) }
}

async fn subscriptions(connection: &mut Conn, rows: &[CheckpointRow]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    query(SUBSCRIPTIONS)
        .bind(rows.iter().map(|row| row.subscription.uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| number::shard(row.shard)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| number::epoch(row.epoch)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.version).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| number::seq(row.last_seq)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.used).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.quota_limit).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.period_start.get()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.period_end.get()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.escrow_hi).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.clean).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.snapshot.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.taken_at.get()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn periods(connection: &mut Conn, deltas: &[PeriodDelta]) -> Result<(), Failure> {
    if deltas.is_empty() {
        return Ok(());
    }
    query(PERIODS)
        .bind(deltas.iter().map(|delta| delta.subscription.uuid()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.quota.as_str()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.meter.as_str()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.start.get()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.end.get()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.used_delta).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.quota_limit).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.plan.uuid()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.plan_version).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn segments(connection: &mut Conn, deltas: &[PeriodDelta]) -> Result<(), Failure> {
    if deltas.is_empty() {
        return Ok(());
    }
    query(SEGMENTS)
        .bind(deltas.iter().map(|delta| delta.subscription.uuid()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.quota.as_str()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.start.get()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.until.get()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.used_delta).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.overage_from).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.plan.uuid()).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.plan_version).collect::<Vec<_>>())
        .bind(deltas.iter().map(|delta| delta.priced_as.as_str()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn outbox(connection: &mut Conn, rows: &[OutboxRow]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    query(OUTBOX)
        .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.subscription.uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.priority).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.idempotency_key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.payload.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.created_at.get()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn reservations(connection: &mut Conn, rows: &[ReservationRow]) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    query(RESERVATIONS)
        .bind(rows.iter().map(|row| row.id.uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.subscription.uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.amounts.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.created_at.get()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.expires_at.get()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn plan_switches(
    connection: &mut Conn,
    switches: &[(SubscriptionId, PlanId)],
) -> Result<(), Failure> {
    if switches.is_empty() {
        return Ok(());
    }
    query(PLAN_SWITCHES)
        .bind(switches.iter().map(|(id, _)| id.uuid()).collect::<Vec<_>>())
        .bind(switches.iter().map(|(_, plan)| plan.uuid()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

async fn counted(connection: &mut Conn, positions: &[(ShardId, Seq)]) -> Result<(), Failure> {
    if positions.is_empty() {
        return Ok(());
    }
    query(COUNTED)
        .bind(positions.iter().map(|(shard, _)| number::shard(*shard)).collect::<Vec<_>>())
        .bind(positions.iter().map(|(_, seq)| number::seq(*seq)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
