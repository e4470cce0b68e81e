//! From the meter's checkpoint to rows.

use serde_json::json;
use uuid::Uuid;
use weir_core::meter::{Checkpoint, Meter, Notice};
use weir_core::units::{Epoch, Micros, PlanId, ReservationId, ShardId, SubscriptionId, Units};
use weir_store::rows::{CheckpointRow, OutboxRow, PeriodDelta, ReservationRow};

use crate::catalog::definition::Definition;
use crate::codec::encode_snapshot;
use crate::recorder::Taken;

/// Warnings leave after charges and before period reports.
const WARNING_PRIORITY: i16 = 10;

/// What the shell knows of a checkpoint.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) shard: ShardId,
    pub(super) version: i64,
    pub(super) clean: bool,
    pub(super) now: Micros,
}

pub(super) fn taken(
    meter: &Meter,
    definition: &Definition,
    checkpoint: Checkpoint,
    stamp: Stamp,
    reservations: Vec<ReservationRow>,
    switched_to: Option<PlanId>,
) -> Taken {
    let first = meter.quotas().first().copied();
    let first_state = checkpoint.state.counters.first();
    let row = CheckpointRow {
        subscription: definition.id,
        shard: stamp.shard,
        epoch: Epoch::default(),
        version: stamp.version,
        last_seq: checkpoint.state.last_seq,
        used: first.map_or(0, |quota| signed(quota.used)),
        quota_limit: first.and_then(|quota| quota.limit).map(signed),
        period_start: first.map_or(Micros::EPOCH, |quota| quota.period_start),
        period_end: first.map_or(Micros::EPOCH, |quota| quota.reset_at),
        escrow_hi: first_state.map_or(0, |state| signed(Units::clamped(state.escrow_hi))),
        clean: stamp.clean,
        snapshot: encode_snapshot(&checkpoint.state),
        taken_at: stamp.now,
    };
    let periods = checkpoint
        .past
        .into_iter()
        .map(|past| PeriodDelta {
            subscription: definition.id,
            quota: past.quota.to_string(),
            meter: past.meter.to_string(),
            start: past.start,
            end: past.end,
            used_delta: signed(Units::clamped(past.units)),
            quota_limit: past.limit.map(signed),
            until: past.until,
            plan: past.by.plan,
            plan_version: i32::try_from(past.by.version).unwrap_or(i32::MAX),
            priced_as: past.by.quota.to_string(),
            overage_from: past.by.overage_from.map(signed),
        })
        .collect();
    let outbox = checkpoint.notices.iter().map(|notice| warning_row(definition, notice)).collect();
    Taken { row, periods, outbox, reservations, switched_to }
}

fn warning_row(definition: &Definition, notice: &Notice) -> OutboxRow {
    let key = format!(
        "warning/{}/{}/{}/{}/{}",
        definition.id,
        notice.quota,
        notice.period.start.get(),
        notice.limit_version,
        notice.percent
    );
    let payload = json!({
        "subscriptionId": definition.id.to_string(),
        "userEmail": definition.user_email,
        "apiId": definition.api_id,
        "quota": &*notice.quota,
        "threshold": notice.percent,
        "usagePercentage": percentage(notice),
        "used": notice.used.get(),
        "limit": notice.limit.get(),
        "remaining": notice.limit.saturating_sub(notice.used).get(),
        "periodStart": crate::clock::rfc3339(notice.period.start),
        "resetAt": crate::clock::rfc3339(notice.period.end),
    });
    OutboxRow {
        id: Uuid::now_v7(),
        subscription: definition.id,
        kind: "quota_warning".to_owned(),
        priority: WARNING_PRIORITY,
        idempotency_key: key,
        payload: payload.to_string(),
        created_at: notice.at,
    }
}

/// The row that lets any node find a reservation's subscription.
pub(super) fn reservation_row(
    meter: &Meter,
    id: ReservationId,
    subscription: SubscriptionId,
    now: Micros,
    expires_at: Micros,
) -> ReservationRow {
    let quotas = &meter.terms().plan.quotas;
    // By meter, as a commit names them; quotas on one meter hold the same amount.
    let amounts: serde_json::Map<String, serde_json::Value> = meter
        .reservation(id)
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| {
            let quota = quotas.iter().find(|quota| *quota.name == *name)?;
            Some((quota.meter.to_string(), amount.get().into()))
        })
        .collect();
    ReservationRow {
        id,
        subscription,
        amounts: serde_json::Value::Object(amounts).to_string(),
        created_at: now,
        expires_at,
    }
}

fn signed(units: Units) -> i64 {
    // Units never exceed 2^53 - 1.
    i64::try_from(units.get()).unwrap_or(i64::MAX)
}

/// Of the limit, to two places: for people to read, decisions never use it.
fn percentage(notice: &Notice) -> f64 {
    if notice.limit.is_zero() {
        return 100.0;
    }
    let hundredths = u128::from(notice.used.get()) * 10_000 / u128::from(notice.limit.get());
    u32::try_from(hundredths).map_or(f64::MAX, |hundredths| f64::from(hundredths) / 100.0)
}
