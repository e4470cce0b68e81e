//! From a row of the driver to a row of ours.
//!
//! Role: takes columns in the order of the lists in `columns.rs`. A stored number that means
//! nothing is a damaged database, never a default.

use sqlx::{Decode, Row as _, Type};
use uuid::Uuid;
use weir_core::units::{Epoch, Micros, PlanId, ReservationId, Seq, SubscriptionId};

use super::{Db, SqlRow};
use crate::failure::Failure;
use crate::number::{shard_id, unsigned};
use crate::outbox::{ClaimedDelivery, DeliveryRow, DeliveryStatus, NotificationRow};
use crate::rows::{
    AuditRow, CheckpointRow, KeyRow, LedgerRow, OutcomeKind, PlanRow, ReservationRow, RollupRow,
    RollupSums, RowKind, SubscriptionRow, SubscriptionStatus, TokenRow,
};

/// Takes a row's columns one after the other.
pub(super) struct Columns<'r> {
    row: &'r SqlRow,
    next: usize,
}

impl<'r> Columns<'r> {
    /// From the first column.
    pub(super) fn of(row: &'r SqlRow) -> Self {
        Self { row, next: 0 }
    }

    /// The next column.
    pub(super) fn take<T: Decode<'r, Db> + Type<Db>>(&mut self) -> Result<T, Failure> {
        let column = self.next;
        self.next += 1;
        Ok(self.row.try_get(column)?)
    }

    fn moment(&mut self) -> Result<Micros, Failure> {
        self.take().map(Micros::from_micros)
    }

    fn moment_opt(&mut self) -> Result<Option<Micros>, Failure> {
        Ok(self.take::<Option<i64>>()?.map(Micros::from_micros))
    }

    fn subscription_id(&mut self) -> Result<SubscriptionId, Failure> {
        self.take().map(SubscriptionId::from_uuid)
    }

    fn seq(&mut self) -> Result<Seq, Failure> {
        unsigned(self.take()?).map(Seq)
    }

    fn hash(&mut self) -> Result<[u8; 32], Failure> {
        let bytes: &[u8] = self.take()?;
        bytes.try_into().map_err(|_| Failure::Damaged(format!("a hash of {} bytes", bytes.len())))
    }
}

/// All rows through one decoder.
pub(super) fn all<T>(
    rows: &[SqlRow],
    decode: impl Fn(&mut Columns<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    rows.iter().map(|row| decode(&mut Columns::of(row))).collect()
}

/// The row, if there is one, through a decoder.
pub(super) fn maybe<T>(
    row: Option<&SqlRow>,
    decode: impl Fn(&mut Columns<'_>) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    row.map(|row| decode(&mut Columns::of(row))).transpose()
}

/// `ledger_columns!`.
pub(super) fn ledger(columns: &mut Columns<'_>) -> Result<LedgerRow, Failure> {
    Ok(LedgerRow {
        subscription: columns.subscription_id()?,
        shard: shard_id(columns.take()?)?,
        seq: columns.seq()?,
        event_id: columns.take()?,
        kind: known("kind", columns.take()?, RowKind::from_i16)?,
        event_time: columns.moment()?,
        recorded_at: columns.moment()?,
        units: columns.take()?,
        quantities: columns.take()?,
        charged: columns.take()?,
        outcome: known("outcome", columns.take()?, OutcomeKind::from_i16)?,
        reservation: columns.take::<Option<Uuid>>()?.map(ReservationId::from_uuid),
        key_id: columns.take()?,
        api_id: columns.take()?,
        api_path: columns.take()?,
        method: columns.take()?,
        status_code: columns.take()?,
        success: columns.take()?,
        response_time_us: columns.take()?,
        request_size: columns.take()?,
        response_size: columns.take()?,
        user_agent: columns.take()?,
        ip_address: columns.take()?,
        country: columns.take()?,
    })
}

/// `subscription_columns!`.
pub(super) fn subscription(columns: &mut Columns<'_>) -> Result<SubscriptionRow, Failure> {
    Ok(SubscriptionRow {
        id: columns.subscription_id()?,
        plan: columns.take().map(PlanId::from_uuid)?,
        next_plan: columns.take::<Option<Uuid>>()?.map(PlanId::from_uuid),
        external_id: columns.take()?,
        tenant: columns.take()?,
        api_id: columns.take()?,
        user_email: columns.take()?,
        time_zone: columns.take()?,
        status: known("status", columns.take()?, SubscriptionStatus::from_i16)?,
        started_at: columns.moment()?,
        ends_at: columns.moment_opt()?,
        webhook_url: columns.take()?,
        limits: columns.take()?,
        metadata: columns.take()?,
        created_at: columns.moment()?,
        updated_at: columns.moment()?,
        revision: columns.take()?,
        requests_used: columns.take()?,
    })
}

/// `checkpoint_columns!`.
pub(super) fn checkpoint(columns: &mut Columns<'_>) -> Result<CheckpointRow, Failure> {
    let subscription = columns.subscription_id()?;
    checkpoint_rest(subscription, columns)
}

/// `checkpoint_columns!` of a left join: all null when there is none.
pub(super) fn checkpoint_opt(columns: &mut Columns<'_>) -> Result<Option<CheckpointRow>, Failure> {
    match columns.take::<Option<Uuid>>()? {
        None => Ok(None),
        Some(id) => checkpoint_rest(SubscriptionId::from_uuid(id), columns).map(Some),
    }
}

fn checkpoint_rest(
    subscription: SubscriptionId,
    columns: &mut Columns<'_>,
) -> Result<CheckpointRow, Failure> {
    Ok(CheckpointRow {
        subscription,
        shard: shard_id(columns.take()?)?,
        epoch: unsigned(columns.take()?).map(Epoch)?,
        version: columns.take()?,
        last_seq: columns.seq()?,
        used: columns.take()?,
        quota_limit: columns.take()?,
        period_start: columns.moment()?,
        period_end: columns.moment()?,
        escrow_hi: columns.take()?,
        clean: columns.take()?,
        snapshot: columns.take()?,
        taken_at: columns.moment()?,
    })
}

/// `plan_columns!`.
pub(super) fn plan(columns: &mut Columns<'_>) -> Result<PlanRow, Failure> {
    Ok(PlanRow {
        id: columns.take().map(PlanId::from_uuid)?,
        version: columns.take()?,
        name: columns.take()?,
        config: columns.take()?,
        at_period_end: columns.take()?,
        created_at: columns.moment()?,
    })
}

/// `key_columns!`.
pub(super) fn key(columns: &mut Columns<'_>) -> Result<KeyRow, Failure> {
    Ok(KeyRow {
        id: columns.take()?,
        subscription: columns.subscription_id()?,
        hash: columns.hash()?,
        hint: columns.take()?,
        created_at: columns.moment()?,
        revoked_at: columns.moment_opt()?,
    })
}

/// `token_columns!`.
pub(super) fn token(columns: &mut Columns<'_>) -> Result<TokenRow, Failure> {
    Ok(TokenRow {
        id: columns.take()?,
        hash: columns.hash()?,
        name: columns.take()?,
        scope: columns.take()?,
        tenant: columns.take()?,
        subscriptions: columns.take::<Option<&str>>()?.map(subscription_list).transpose()?,
        expires_at: columns.moment_opt()?,
        created_at: columns.moment()?,
        revoked_at: columns.moment_opt()?,
    })
}

/// `audit_columns!`.
pub(super) fn audit(columns: &mut Columns<'_>) -> Result<AuditRow, Failure> {
    Ok(AuditRow {
        id: columns.take()?,
        at: columns.moment()?,
        actor: columns.take()?,
        action: columns.take()?,
        target_kind: columns.take()?,
        target_id: columns.take()?,
        tenant: columns.take()?,
        before: columns.take()?,
        after: columns.take()?,
        reason: columns.take()?,
    })
}

/// `rollup_columns!`.
pub(super) fn rollup(columns: &mut Columns<'_>) -> Result<RollupRow, Failure> {
    Ok(RollupRow {
        subscription: columns.subscription_id()?,
        minute: columns.moment()?,
        path: columns.take()?,
        method: columns.take()?,
        sums: sums(columns)?,
        detail: columns.take()?,
    })
}

/// Six sums, in the order of [`RollupSums`].
pub(super) fn sums(columns: &mut Columns<'_>) -> Result<RollupSums, Failure> {
    Ok(RollupSums {
        requests: columns.take()?,
        units: columns.take()?,
        errors: columns.take()?,
        denied: columns.take()?,
        bytes_in: columns.take()?,
        bytes_out: columns.take()?,
    })
}

/// `reservation_columns!`.
pub(super) fn reservation(columns: &mut Columns<'_>) -> Result<ReservationRow, Failure> {
    Ok(ReservationRow {
        id: columns.take().map(ReservationId::from_uuid)?,
        subscription: columns.subscription_id()?,
        amounts: columns.take()?,
        created_at: columns.moment()?,
        expires_at: columns.moment()?,
    })
}

/// A delivery as a claim returns it.
pub(super) fn claimed_delivery(columns: &mut Columns<'_>) -> Result<ClaimedDelivery, Failure> {
    Ok(ClaimedDelivery {
        message: columns.take()?,
        channel: columns.take()?,
        endpoint: columns.take()?,
        attempts: attempts(columns)?,
        subscription: columns.subscription_id()?,
        kind: columns.take()?,
        payload: columns.take()?,
        created_at: columns.moment()?,
        webhook_url: columns.take()?,
        user_email: columns.take()?,
    })
}

/// `notification_columns!`, without its deliveries.
pub(super) fn notification(columns: &mut Columns<'_>) -> Result<NotificationRow, Failure> {
    Ok(NotificationRow {
        id: columns.take()?,
        subscription: columns.subscription_id()?,
        tenant: columns.take()?,
        kind: columns.take()?,
        payload: columns.take()?,
        created_at: columns.moment()?,
        status: known("status", columns.take()?, DeliveryStatus::from_i16)?,
        attempts: attempts(columns)?,
        last_error: columns.take()?,
        finished_at: columns.moment_opt()?,
        deliveries: Vec::new(),
    })
}

/// A message's id and one of its deliveries.
pub(super) fn delivery(columns: &mut Columns<'_>) -> Result<(Uuid, DeliveryRow), Failure> {
    let message = columns.take()?;
    let delivery = DeliveryRow {
        channel: columns.take()?,
        endpoint: columns.take()?,
        status: known("status", columns.take()?, DeliveryStatus::from_i16)?,
        attempts: attempts(columns)?,
        next_attempt_at: columns.moment()?,
        last_error: columns.take()?,
        finished_at: columns.moment_opt()?,
    };
    Ok((message, delivery))
}

fn attempts(columns: &mut Columns<'_>) -> Result<u32, Failure> {
    let number: i32 = columns.take()?;
    u32::try_from(number).map_err(|_| Failure::Damaged(format!("{number} attempts")))
}

fn known<T>(what: &str, number: i16, read: impl Fn(i16) -> Option<T>) -> Result<T, Failure> {
    read(number).ok_or_else(|| Failure::Damaged(format!("{what} {number} is not known")))
}

fn subscription_list(json: &str) -> Result<Vec<SubscriptionId>, Failure> {
    let damaged = || Failure::Damaged("a token's subscriptions are not a list of ids".to_owned());
    let value: serde_json::Value = serde_json::from_str(json).map_err(|_| damaged())?;
    let items = value.as_array().ok_or_else(damaged)?;
    items
        .iter()
        .map(|item| item.as_str().and_then(|id| id.parse().ok()).ok_or_else(damaged))
        .collect()
}
