//! Checkpoints: all in one fenced transaction, in chunks per table.

use std::sync::LazyLock;

use sqlx::{query, query_scalar};
use weir_core::units::{PlanId, Seq, ShardId, SubscriptionId};

use super::bulk::{Binding, Bulk};
use super::{Conn, ledger};
use crate::Fence;
use crate::batch;
use crate::failure::Failure;
use crate::number;
use crate::rows::{CheckpointBatch, CheckpointRow, OutboxRow, PeriodDelta, ReservationRow};

static SUBSCRIPTIONS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO subscription_checkpoints AS c (subscription_id, shard_id, epoch, version, \
         last_seq, used, quota_limit, period_start, period_end, escrow_hi, clean, snapshot, \
         taken_at) VALUES",
        13,
        "ON CONFLICT (subscription_id) DO UPDATE SET shard_id = excluded.shard_id, \
         epoch = excluded.epoch, version = excluded.version, last_seq = excluded.last_seq, \
         used = excluded.used, quota_limit = excluded.quota_limit, \
         period_start = excluded.period_start, period_end = excluded.period_end, \
         escrow_hi = excluded.escrow_hi, clean = excluded.clean, snapshot = excluded.snapshot, \
         taken_at = excluded.taken_at \
         WHERE (c.epoch, c.version) < (excluded.epoch, excluded.version)",
    )
});

static PERIODS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO billing_periods AS p (subscription_id, quota, meter, period_start, \
         period_end, used, quota_limit, plan_id, plan_version) VALUES",
        9,
        "ON CONFLICT (subscription_id, quota, period_start) DO UPDATE SET \
         used = p.used + excluded.used, period_end = excluded.period_end, \
         quota_limit = excluded.quota_limit, plan_id = excluded.plan_id, \
         plan_version = excluded.plan_version",
    )
});

static SEGMENTS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO billing_segments AS g (subscription_id, quota, period_start, until_at, used, \
         overage_from, plan_id, plan_version, priced_as) VALUES",
        9,
        "ON CONFLICT (subscription_id, quota, period_start, until_at) DO UPDATE SET \
         used = g.used + excluded.used",
    )
});

static OUTBOX: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO event_queue (id, subscription_id, kind, priority, idempotency_key, payload, \
         created_at, next_attempt_at) VALUES",
        8,
        "ON CONFLICT (idempotency_key) DO NOTHING",
    )
});

static RESERVATIONS: LazyLock<Bulk> = LazyLock::new(|| {
    Bulk::new(
        "INSERT INTO quota_reservations (id, subscription_id, amounts, created_at, expires_at) \
         VALUES",
        5,
        "ON CONFLICT (id) DO NOTHING",
    )
});

/// Writes a batch, or nothing when it was written before.
pub(super) async fn write(
    connection: &mut Conn,
    fence: &Fence,
    batch: &CheckpointBatch,
) -> Result<(), Failure> {
    batch::assert_batch_fenced(fence, batch);
    if !move_lane(connection, fence, batch).await? {
        return Ok(());
    }
    ledger::hold_fence(connection, fence).await?;
    subscriptions(connection, &batch.subscriptions).await?;
    PERIODS.run(connection, &batch::periods(&batch.periods), bind_period).await?;
    SEGMENTS.run(connection, &batch::segments(&batch.periods), bind_segment).await?;
    OUTBOX.run(connection, &batch.outbox, bind_message).await?;
    RESERVATIONS.run(connection, &batch.reservations, bind_reservation).await?;
    plan_switches(connection, &batch::plan_switches(&batch.plan_switches)).await?;
    counted(connection, &batch::counted(&batch.counted)).await
}

/// Moves the lane to this batch; `false` when it stands there already. What stands committed was
/// fenced when it was written, so that answer holds even if the shards are lost by now.
async fn move_lane(
    connection: &mut Conn,
    fence: &Fence,
    batch: &CheckpointBatch,
) -> Result<bool, Failure> {
    let stands: Option<i64> =
        query_scalar("SELECT number FROM checkpoint_batches WHERE incarnation = $1 AND lane = $2")
            .bind(fence.incarnation)
            .bind(batch.lane)
            .fetch_optional(&mut *connection)
            .await?;
    if stands == Some(batch.number) {
        return Ok(false);
    }
    if stands.unwrap_or(0) != batch.number - 1 {
        return Err(Failure::Conflict("batch number"));
    }
    query(
        "INSERT OR REPLACE INTO checkpoint_batches (incarnation, lane, number) VALUES ($1, $2, $3)",
    )
    .bind(fence.incarnation)
    .bind(batch.lane)
    .bind(batch.number)
    .execute(connection)
    .await?;
    Ok(true)
}

async fn subscriptions(connection: &mut Conn, rows: &[CheckpointRow]) -> Result<(), Failure> {
    SUBSCRIPTIONS.run(connection, rows, bind_subscription).await?;
    // From the table, not from the batch: a row that was older than what is there changed nothing.
    let copy = "UPDATE api_subscriptions AS s SET requests_used = c.used \
                FROM subscription_checkpoints c WHERE c.subscription_id = s.id \
                AND s.requests_used <> c.used \
                AND s.id IN (SELECT unhex(value) FROM json_each($1))";
    let ids = rows.iter().map(|row| row.subscription.uuid());
    query(copy).bind(super::json_ids(ids)).execute(connection).await?;
    Ok(())
}

/// Only where the plan is still the one waited for: a change made meanwhile by hand stands.
async fn plan_switches(
    connection: &mut Conn,
    switches: &[(SubscriptionId, PlanId)],
) -> Result<(), Failure> {
    for (subscription, plan) in switches {
        let statement = "UPDATE api_subscriptions SET plan_id = $2, next_plan_id = NULL, \
                         revision = revision + 1 WHERE id = $1 AND next_plan_id = $2";
        query(statement)
            .bind(subscription.uuid())
            .bind(plan.uuid())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn counted(connection: &mut Conn, positions: &[(ShardId, Seq)]) -> Result<(), Failure> {
    for (shard, seq) in positions {
        query("UPDATE shard_progress SET counted = $2 WHERE shard_id = $1 AND counted < $2")
            .bind(number::shard(*shard))
            .bind(number::seq(*seq))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn bind_subscription<'q>(statement: Binding<'q>, row: &'q CheckpointRow) -> Binding<'q> {
    statement
        .bind(row.subscription.uuid())
        .bind(number::shard(row.shard))
        .bind(number::epoch(row.epoch))
        .bind(row.version)
        .bind(number::seq(row.last_seq))
        .bind(row.used)
        .bind(row.quota_limit)
        .bind(row.period_start.get())
        .bind(row.period_end.get())
        .bind(row.escrow_hi)
        .bind(row.clean)
        .bind(row.snapshot.as_slice())
        .bind(row.taken_at.get())
}

fn bind_period<'q>(statement: Binding<'q>, delta: &'q PeriodDelta) -> Binding<'q> {
    statement
        .bind(delta.subscription.uuid())
        .bind(delta.quota.as_str())
        .bind(delta.meter.as_str())
        .bind(delta.start.get())
        .bind(delta.end.get())
        .bind(delta.used_delta)
        .bind(delta.quota_limit)
        .bind(delta.plan.uuid())
        .bind(delta.plan_version)
}

fn bind_segment<'q>(statement: Binding<'q>, delta: &'q PeriodDelta) -> Binding<'q> {
    statement
        .bind(delta.subscription.uuid())
        .bind(delta.quota.as_str())
        .bind(delta.start.get())
        .bind(delta.until.get())
        .bind(delta.used_delta)
        .bind(delta.overage_from)
        .bind(delta.plan.uuid())
        .bind(delta.plan_version)
        .bind(delta.priced_as.as_str())
}

fn bind_message<'q>(statement: Binding<'q>, row: &'q OutboxRow) -> Binding<'q> {
    statement
        .bind(row.id)
        .bind(row.subscription.uuid())
        .bind(row.kind.as_str())
        .bind(row.priority)
        .bind(row.idempotency_key.as_str())
        .bind(row.payload.as_str())
        .bind(row.created_at.get())
        .bind(row.created_at.get())
}

fn bind_reservation<'q>(statement: Binding<'q>, row: &'q ReservationRow) -> Binding<'q> {
    statement
        .bind(row.id.uuid())
        .bind(row.subscription.uuid())
        .bind(row.amounts.as_str())
        .bind(row.created_at.get())
        .bind(row.expires_at.get())
}
